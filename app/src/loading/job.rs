//! What is done beside the window: opening and loading a model, and the post in which results come back.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use pleiad_models::Checkpoint;
#[cfg(not(target_arch = "wasm32"))]
use pleiad_runtime::engine;
use pleiad_runtime::{Engine, EngineOptions};
use web_time::{Duration, Instant};

use super::{
    Examined, LoadedModel, Source, Wake,
    beside::{self, Freed, Hold, Leaving},
    options,
    price::title,
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
    pub cancelled: Arc<AtomicBool>,
    stage: Mutex<Stage>,
}

/// What is being done to load a model, and how far that is.
#[derive(Clone, Debug, Default)]
pub(super) struct Stage {
    /// In words; empty: nothing that could be told yet.
    pub doing: String,
    pub done: u64,
    pub total: u64,
    /// Since when; `None`: from the beginning.
    pub since: Option<Instant>,
}

impl Meter {
    /// What is being done.
    pub fn stage(&self) -> Stage {
        self.lock().clone()
    }

    /// Notes what is being done, and how far it is.
    fn note(&self, doing: &str, done: u64, total: u64) {
        let mut stage = self.lock();
        if stage.doing != doing {
            (stage.doing, stage.since) = (doing.to_owned(), Some(Instant::now()));
        }
        (stage.done, stage.total) = (done, total);
    }

    fn wanted(&self) -> Result<(), String> {
        if self.cancelled.load(Ordering::Relaxed) { Err("cancelled".to_owned()) } else { Ok(()) }
    }

    fn lock(&self) -> MutexGuard<'_, Stage> {
        // Numbers and a name: whole after every change.
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Notes in a meter what is told, and wakes the window now and then.
fn teller(meter: Arc<Meter>, wake: Wake) -> impl FnMut(&str, u64, u64) {
    let mut shown = Instant::now();
    move |doing, done, total| {
        meter.note(doing, done, total);
        if shown.elapsed() >= EVERY {
            shown = Instant::now();
            wake();
        }
    }
}

/// Opens a model's files.
#[cfg(not(target_arch = "wasm32"))]
pub(super) async fn checkpoint(source: &Source) -> Result<Checkpoint, String> {
    match source {
        Source::Tiny => Checkpoint::tiny(),
        Source::Path(path) => Checkpoint::open(path),
    }
    .map_err(words)
}

/// Opens a model by the beginning of its file: the weights are the worker's.
#[cfg(target_arch = "wasm32")]
pub(super) async fn checkpoint(source: &Source) -> Result<Checkpoint, String> {
    let loader = super::elsewhere::loader()?;
    let name = source.name();
    let open = |head: &[u8], len| Checkpoint::from_head(&name, head, len).map_err(words);
    super::head::open(&name, |bytes| loader.head(source, bytes), open).await
}

fn words(error: pleiad_models::Error) -> String {
    format!("{:#}", anyhow::Error::from(error))
}

/// Opens a model to be loaded. What is wrong with its files shows here, before another model has made room for it.
pub(super) async fn open(source: &Source) -> Result<Opened, String> {
    let checkpoint = checkpoint(source).await?;
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
/// The runtime cannot be told to stop loading: a load that is cancelled may go on, and its result is dropped here.
pub(super) async fn load(opened: Opened, order: Order) -> Result<Ready, String> {
    let Order { source, settings, meter, wake, leaving, freed } = order;
    let hold = Hold(Arc::clone(&freed));
    beside::await_freed(&leaving, &meter.cancelled);
    meter.wanted()?;
    let Opened { checkpoint, prompter } = opened;
    let name = title(&source, &checkpoint.config);
    let failed = |why: String| if why.contains(&name) { why } else { format!("{name}: {why}") };
    let options = options::engine(&settings, &checkpoint.config).map_err(failed)?;
    let (generation, end) = (checkpoint.generation.clone(), checkpoint.special.eos.clone());
    let order = Beginning { source: &source, checkpoint, options, meter: &meter, wake, hold };
    let engine = begin(order).await.map_err(failed)?;
    meter.wanted()?;
    let mut notices: Vec<String> = engine.info().notice.clone().into_iter().collect();
    if prompter.fallback.is_some() {
        notices.push("the model carries no chat template and gets that of its family".into());
    }
    let model = LoadedModel {
        shape: Shape::of(engine.config(), &name).map(Arc::new),
        source,
        name,
        prompter: Arc::new(prompter),
        generation,
        end,
        engine,
        notice: (!notices.is_empty()).then(|| notices.join("; ")),
    };
    Ok(Ready { model, freed })
}

/// An engine that is to begin.
struct Beginning<'a> {
    #[cfg_attr(not(target_arch = "wasm32"), allow(dead_code))]
    source: &'a Source,
    checkpoint: Checkpoint,
    options: EngineOptions,
    meter: &'a Arc<Meter>,
    wake: Wake,
    /// Let go when the engine has ended.
    hold: Hold,
}

/// Loads the weights here, and serves them from a thread.
#[cfg(not(target_arch = "wasm32"))]
async fn begin(of: Beginning<'_>) -> Result<Engine, String> {
    let Beginning { checkpoint, options, meter, wake, hold, .. } = of;
    let mut tell = teller(Arc::clone(meter), wake);
    let mut progress = |done, total| tell("Loading weights", done, total);
    let loaded = engine::load(&checkpoint, options, &mut progress).await.map_err(|e| super::price::refusal(&e))?;
    meter.wanted()?;
    let (engine, worker) = Engine::with_worker(loaded);
    let serve = move || async move {
        worker.run().await;
        drop(hold);
    };
    beside::spawn("pleiad-engine", serve).map_err(|e| format!("no thread for the engine: {e}"))?;
    Ok(engine)
}

/// Has a worker load the weights.
#[cfg(target_arch = "wasm32")]
async fn begin(of: Beginning<'_>) -> Result<Engine, String> {
    use super::elsewhere::{Wanted, loader};
    let Beginning { source, checkpoint, options, meter, wake, hold } = of;
    let engine = loader()?.start(Wanted {
        source: source.clone(),
        checkpoint: std::rc::Rc::new(checkpoint),
        options,
        cancelled: Arc::clone(&meter.cancelled),
        told: Box::new(teller(Arc::clone(meter), wake)),
    });
    let engine = engine.await;
    // The worker's memory is its own: nobody here waits for it.
    drop(hold);
    engine
}
