//! Models that are loaded by a worker, in a browser: the page never holds their weights, and nothing that takes long is done on
//! its thread.

use std::{
    cell::RefCell,
    pin::Pin,
    rc::Rc,
    sync::{Arc, atomic::AtomicBool},
};

use pleiad_models::Checkpoint;
use pleiad_runtime::{Engine, EngineOptions};

use super::Source;

/// What comes later.
pub type Later<T> = Pin<Box<dyn Future<Output = T>>>;

/// Told how far loading is: what is being done, steps or bytes done, and in all.
pub type Told = Box<dyn FnMut(&str, u64, u64)>;

/// A model that a worker is to load.
pub struct Wanted {
    /// Where it comes from.
    pub source: Source,
    /// What the page knows of it ([`Checkpoint::from_head`]).
    pub checkpoint: Rc<Checkpoint>,
    /// How it is run.
    pub options: EngineOptions,
    /// Set when nobody wants it any more.
    pub cancelled: Arc<AtomicBool>,
    /// How far it is.
    pub told: Told,
}

/// Loads models in workers.
pub trait Loader {
    /// The first bytes of a model's file, at least `bytes` where it has so many, and the length of the whole file. In words what
    /// is wrong.
    fn head(&self, source: &Source, bytes: usize) -> Later<Result<(Vec<u8>, u64), String>>;

    /// Loads a model in a worker of its own, which ends when the last handle of the engine is gone. In words what is wrong.
    fn start(&self, wanted: Wanted) -> Later<Result<Engine, String>>;
}

thread_local! {
    static LOADER: RefCell<Option<Rc<dyn Loader>>> = const { RefCell::new(None) };
}

/// Says who loads models, once, when the program starts.
pub fn set_loader(loader: Rc<dyn Loader>) {
    LOADER.with(|l| *l.borrow_mut() = Some(loader));
}

/// Who loads models.
///
/// # Errors
/// In words, where nobody does.
pub fn loader() -> Result<Rc<dyn Loader>, String> {
    LOADER.with(|l| l.borrow().clone()).ok_or_else(|| "nothing loads models here".to_owned())
}
