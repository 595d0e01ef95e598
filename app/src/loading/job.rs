//! What is done beside the window: opening and loading a model, and the post in which results come back.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use pleiad_models::Checkpoint;
use pleiad_runtime::{Engine, engine};
use web_time::{Duration, Instant};

use super::{
    Examined, LoadedModel, Source, Wake,
    beside::{self, Freed, Hold, Leaving},
    options,
    price::{refusal, title},
};
use crate::{activity::Shape, conversation::Prompter, settings::LoadSettings};

/// Between two frames that show progress.
const EVERY: Duration = Duration::from_millis(50);

/// What comes back where work ended without a result.
pub(super) const LOST: &str = "could not be opened: the work ended unexpectedly; the log may say more";

/// A result, and what it is the result of.
pub(super) enum Mail {
    /// A model was opened; its weights are not loaded yet.
    Opened(u64, Result<Box<Opened>, String>),
    /// A model is ready.
    Ready(u64, Result<Box<Ready>, String>),
    /// A model was looked at.
    Looked(u64, Result<Box<Examined>, String>),
}

/// A model that was opened, and can read and write text.
pub(super) struct Opened {
    checkpoint: Checkpoint,
    prompter: Prompter,
}

/// A model that is ready, and what tells when its memory is free again.
pub(super) struct Ready {
    pub model: LoadedModel,
    pub freed: Arc<Freed>,
}

/// Where results wait for the window.
#[derive(Clone)]
pub(super) struct Post {
    mail: Arc<Mutex<Vec<Mail>>>,
    pub wake: Wake,
}

impl Post {
    pub fn new(wake: Wake) -> Self {
        Self { mail: Arc::default(), wake }
    }

    /// What has come.
    pub fn take(&self) -> Vec<Mail> {
        std::mem::take(&mut *self.mail.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Someone will answer; if they cannot, `lost` is the answer.
    pub fn reply(&self, lost: Mail) -> Reply {
        Reply { post: self.clone(), mail: Some(lost) }
    }
}

/// An answer that comes in any case: work that panics, or that never began, answers too.
pub(super) struct Reply {
    post: Post,
    mail: Option<Mail>,
}

impl Reply {
    pub fn send(mut self, mail: Mail) {
        self.mail = Some(mail);
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if let Some(mail) = self.mail.take() {
            self.post.mail.lock().unwrap_or_else(PoisonError::into_inner).push(mail);
            (self.post.wake)();
        }
    }
}

/// How far a load is, and whether it is still wanted.
#[derive(Debug, Default)]
pub(super) struct Meter {
    pub done: AtomicU64,
    pub total: AtomicU64,
    pub cancelled: AtomicBool,
}

/// Opens a model's files.
pub(super) fn checkpoint(source: &Source) -> Result<Checkpoint, String> {
    let opened: pleiad_models::Result<Checkpoint> = match source {
        #[cfg(not(target_arch = "wasm32"))]
        Source::Tiny => Checkpoint::tiny(),
        #[cfg(not(target_arch = "wasm32"))]
        Source::Path(path) => Checkpoint::open(path),
        #[cfg(target_arch = "wasm32")]
        _ => return Err("not yet".into()),
    };
    opened.map_err(|e| format!("{:#}", anyhow::Error::from(e)))
}

/// Opens a model to be loaded. What is wrong with its files shows here, before another model has made room for it.
pub(super) fn open(source: &Source) -> Result<Opened, String> {
    let checkpoint = checkpoint(source)?;
    let prompter = Prompter::new(&checkpoint).map_err(|e| format!("{e:#}"))?;
    Ok(Opened { checkpoint, prompter })
}

/// What is needed to load a model.
pub(super) struct Order {
    pub source: Source,
    pub settings: LoadSettings,
    pub meter: Arc<Meter>,
    pub wake: Wake,
    /// What is to be free before.
    pub leaving: Vec<Leaving>,
    /// Set when the memory of this model is free again, be it that it was never loaded.
    pub freed: Arc<Freed>,
}

/// Loads a model that was opened, and starts its engine.
///
/// The runtime cannot be told to stop loading: a load that is cancelled goes on, and its result is dropped here.
pub(super) async fn load(opened: Opened, order: Order) -> Result<Ready, String> {
    let Order { source, settings, meter, wake, leaving, freed } = order;
    let hold = Hold(Arc::clone(&freed));
    let wanted = || if meter.cancelled.load(Ordering::Relaxed) { Err("cancelled".to_owned()) } else { Ok(()) };
    beside::await_freed(&leaving, &meter.cancelled);
    wanted()?;
    let Opened { checkpoint, prompter } = opened;
    let name = title(&source, &checkpoint.config);
    let failed = |why: String| if why.contains(&name) { why } else { format!("{name}: {why}") };
    let options = options::engine(&settings, &checkpoint.config).map_err(failed)?;
    let mut shown = Instant::now();
    let mut progress = |done: u64, total: u64| {
        meter.done.store(done, Ordering::Relaxed);
        meter.total.store(total, Ordering::Relaxed);
        if shown.elapsed() >= EVERY {
            shown = Instant::now();
            wake();
        }
    };
    let loaded = engine::load(&checkpoint, options, &mut progress).await.map_err(|e| failed(refusal(&e)))?;
    wanted()?;
    let mut notices: Vec<String> = loaded.info().notice.clone().into_iter().collect();
    if prompter.fallback.is_some() {
        notices.push("the model carries no chat template and gets that of its family".into());
    }
    let (engine, worker) = Engine::with_worker(loaded);
    let serve = move || async move {
        worker.run().await;
        drop(hold);
    };
    beside::spawn("pleiad-engine", serve).map_err(|e| failed(format!("no thread for the engine: {e}")))?;
    let model = LoadedModel {
        shape: Shape::of(engine.config(), &name).map(Arc::new),
        source,
        name,
        prompter: Arc::new(prompter),
        generation: checkpoint.generation,
        end: checkpoint.special.eos,
        engine,
        notice: (!notices.is_empty()).then(|| notices.join("; ")),
    };
    Ok(Ready { model, freed })
}
