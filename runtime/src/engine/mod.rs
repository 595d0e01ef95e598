//! The engine: a loaded model that several sessions share.
//!
//! An [`Engine`] is a handle to a worker that owns the device. A [`Session`] is one conversation's place in the
//! latent cache: whatever prefix of a prompt is already there is not computed again, be it a new turn, an edit, a
//! regeneration, or a branch of another session. A [`Generation`] is a stream of [`Event`]s; dropping it cancels.

mod breath;
mod drafting;
mod load;
mod plans;
pub mod remote;
mod request;
mod worker;

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use async_channel::{Receiver, Sender, WeakSender};
use pleiad_models::{Config, Tokenizer};
use serde::{Deserialize, Serialize};

pub use breath::{Breath, set_breath};
pub use load::{Loaded, Stage, choose_device, load, load_with};
pub use request::{DoneReason, Event, GenerateOptions, GenerationStats, HostTimes, Progress};
pub use worker::Worker;

use crate::{
    Error,
    executor::{Activations, CacheFormat, DeviceChoice},
    experts::{ExpertReport, walk::Routing, ways::WayChoice},
    sampling::SamplingParams,
};

/// Why there will be no answer from a worker that ended without a word.
const GONE: &str = "its worker is gone";

/// How to run a model.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EngineOptions {
    /// Where.
    pub device: DeviceChoice,
    /// Precision of activations in quantised products.
    pub activations: Activations,
    /// Storage of the latent cache.
    pub cache: CacheFormat,
    /// Longest context of one session; `None`: the model's, but no more than 8192.
    pub context: Option<usize>,
    /// Positions of the latent cache over all sessions; `None`: room for two full contexts.
    pub positions: Option<usize>,
    /// CPU threads; `None`: all.
    pub threads: Option<usize>,
    /// Tokens submitted before the first of them is read back; 1: none ahead. `None`: 2 on a GPU, 4 on one in a browser, which
    /// takes its time to hand results over, and 1 on the CPU, where a step is over when it has been submitted.
    pub in_flight: Option<usize>,
    /// Most tokens of one prefill step.
    pub chunk: usize,
    /// Tokens drafted for each step by the model's module for multi-token prediction, at most [`crate::step::MAX_DRAFT`]; 0: none.
    /// `None`: as many as pay, as measured while decoding. What is generated does not depend on it, but for rounding.
    pub draft: Option<usize>,
    /// Most bytes of device memory for weights, latent cache and working memory; `None`: what the device has.
    pub memory_budget: Option<u64>,
    /// How experts that the device does not hold are served.
    pub misses: WayChoice,
    /// Where packed experts and the profile of their use are kept between runs; `None`: nowhere. It stays where it is: options
    /// that were written down have none.
    #[serde(skip)]
    pub directory: Option<PathBuf>,
    /// Report which experts every token chose, and how they were served ([`Event::Routed`]).
    pub trace: bool,
    /// Where the experts of tokens come from: for benchmarks with random weights.
    pub routing: Routing,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            device: DeviceChoice::Auto,
            activations: Activations::default(),
            cache: CacheFormat::default(),
            context: None,
            positions: None,
            threads: None,
            in_flight: None,
            chunk: 512,
            draft: Some(0),
            memory_budget: None,
            misses: WayChoice::Auto,
            directory: None,
            trace: false,
            routing: Routing::Uniform,
        }
    }
}

/// What an engine runs, and where.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EngineInfo {
    /// The model's name.
    pub model: String,
    /// The device's name.
    pub device: String,
    /// `cpu` or `wgpu`.
    pub backend: String,
    /// Longest context of one session.
    pub context: usize,
    /// The context that the model was made for.
    pub model_context: usize,
    /// Precision of activations in quantised products.
    pub activations: Activations,
    /// Bytes of weights.
    pub weight_bytes: u64,
    /// Seconds it took to load.
    pub load_seconds: f64,
    /// Why the device is not the one that was preferred, if so.
    pub notice: Option<String>,
}

/// What a model takes of the memory besides its weights, and how full its latent cache is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryUse {
    /// Bytes of the latent cache.
    pub cache_bytes: u64,
    /// Bytes of working memory.
    pub work_bytes: u64,
    /// Positions of the latent cache, over all sessions.
    pub positions: usize,
    /// Of these, taken by tokens of sessions; what several share is counted once.
    pub taken: usize,
}

pub(crate) enum Command {
    Generate(request::Request),
    /// A generation is not wanted any more. Its flag says so too, but no flag reaches a worker that is elsewhere.
    Cancel(u64),
    Close(u64),
}

/// A handle to a loaded model. Cheap to clone; the model is freed when the last handle and session are gone.
#[derive(Clone)]
pub struct Engine {
    commands: Sender<Command>,
    info: Arc<EngineInfo>,
    config: Arc<Config>,
    tokenizer: Option<Tokenizer>,
    /// The next number of a session or of a generation.
    numbers: Arc<AtomicU64>,
    experts: Arc<Mutex<Option<ExpertReport>>>,
    resident: Arc<Mutex<Arc<[bool]>>>,
    memory: Arc<Mutex<MemoryUse>>,
    /// Of an engine whose worker is elsewhere: why it is out of reach, once it is.
    elsewhere: Option<Arc<OnceLock<String>>>,
}

impl Engine {
    /// Starts a worker for a loaded model on a thread of its own.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn start(loaded: Loaded) -> crate::Result<Self> {
        let (engine, worker) = Self::with_worker(loaded);
        std::thread::Builder::new()
            .name("pleiad-engine".into())
            .spawn(move || pollster::block_on(worker.run()))
            .map_err(|e| Error::Stopped(format!("no thread for the engine: {e}")))?;
        Ok(engine)
    }

    /// The engine and its worker, for platforms where the caller drives [`Worker::run`] itself.
    pub fn with_worker(loaded: Loaded) -> (Self, Worker) {
        let (commands, received) = async_channel::unbounded();
        let engine = Self {
            commands,
            info: Arc::new(loaded.info.clone()),
            config: Arc::new(loaded.model.config.clone()),
            tokenizer: loaded.tokenizer.clone(),
            numbers: Arc::default(),
            experts: Arc::new(Mutex::new(loaded.executor.experts())),
            resident: Arc::default(),
            memory: Arc::default(),
            elsewhere: None,
        };
        let shown = worker::Shown {
            experts: Arc::clone(&engine.experts),
            resident: Arc::clone(&engine.resident),
            memory: Arc::clone(&engine.memory),
        };
        (engine, Worker::new(loaded, received, shown))
    }

    /// What runs, and where.
    pub fn info(&self) -> &EngineInfo {
        &self.info
    }

    /// Where experts are and how misses are served, as of the last generation that ended; `None` on the CPU.
    pub fn experts(&self) -> Option<ExpertReport> {
        self.experts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Which experts the device holds, `[mixture layers, E]`: a few times a second while generating, with
    /// [`EngineOptions::trace`]. Empty on the CPU.
    pub fn resident(&self) -> Arc<[bool]> {
        Arc::clone(&self.resident.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What the model takes of the memory: as it was loaded, then a few times a second while generating.
    pub fn memory(&self) -> MemoryUse {
        *self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The model's configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The model's tokenizer.
    pub fn tokenizer(&self) -> Option<&Tokenizer> {
        self.tokenizer.as_ref()
    }

    /// A new session, with nothing in the cache.
    pub fn session(&self) -> Session {
        Session { engine: self.clone(), id: self.number(), drafts: true }
    }

    fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }
}

/// One conversation's place in the latent cache. Dropping it gives its pages back.
pub struct Session {
    engine: Engine,
    id: u64,
    drafts: bool,
}

impl Session {
    /// The same without drafts ([`EngineOptions::draft`]): for comparisons. The worker of a page does not know of it.
    #[must_use]
    pub fn without_drafts(mut self) -> Self {
        self.drafts = false;
        self
    }

    /// Generates a continuation of `prompt`, the whole history in token ids.
    ///
    /// Requests of one session run one after the other; requests of different sessions take turns.
    pub fn generate(&self, prompt: Vec<u32>, sampling: SamplingParams, options: GenerateOptions) -> Generation {
        let (events, received) = async_channel::unbounded();
        let cancelled = Arc::new(AtomicBool::new(false));
        let engine = &self.engine;
        let number = engine.number();
        let request = request::Request {
            number,
            session: self.id,
            drafts: self.drafts,
            prompt,
            sampling,
            options,
            events: events.clone(),
            cancelled: Arc::clone(&cancelled),
        };
        if engine.commands.try_send(Command::Generate(request)).is_err() {
            let why = engine.elsewhere.as_ref().and_then(|e| e.get()).map_or(GONE, String::as_str);
            // The channel is unbounded and its receiver is here: sending cannot fail.
            let _ = events.try_send(Event::Failed(Error::Stopped(why.into())));
        }
        let elsewhere = engine.elsewhere.is_some().then(|| (engine.commands.downgrade(), number));
        Generation { events: received, cancelled, elsewhere }
    }

    /// The engine it belongs to.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // A worker that is gone has freed everything already.
        let _ = self.engine.commands.try_send(Command::Close(self.id));
    }
}

/// A generation under way: a stream of events that ends with [`Event::Done`] or [`Event::Failed`].
pub struct Generation {
    events: Receiver<Event>,
    cancelled: Arc<AtomicBool>,
    /// Where a worker that is elsewhere is told of the end of this generation, and as which it knows it.
    elsewhere: Option<(WeakSender<Command>, u64)>,
}

impl Generation {
    /// The next event; `None` when the generation is over.
    pub async fn next(&mut self) -> Option<Event> {
        self.events.recv().await.ok()
    }

    /// The next event if there is one, without waiting.
    pub fn try_next(&mut self) -> Option<Event> {
        self.events.try_recv().ok()
    }

    /// Waits for the next event on this thread; `None` when the generation is over.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn next_blocking(&mut self) -> Option<Event> {
        self.events.recv_blocking().ok()
    }

    /// Asks the engine to stop; the last event will be [`Event::Done`] with [`DoneReason::Cancelled`].
    pub fn cancel(&self) {
        let before = self.cancelled.swap(true, Ordering::Relaxed);
        if let Some((commands, number)) = &self.elsewhere
            && !before
            && let Some(commands) = commands.upgrade()
        {
            // A worker that is gone has nothing to stop.
            let _ = commands.try_send(Command::Cancel(*number));
        }
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        self.cancel();
    }
}
