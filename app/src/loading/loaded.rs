//! A model that is ready.

use std::sync::Arc;

use pleiad_models::GenerationConfig;
use pleiad_runtime::Engine;

use super::Source;
use crate::{activity::Shape, conversation::Prompter};

/// A model that is ready. Cheap to clone; the model is freed when the last clone and session are gone.
#[derive(Clone)]
pub struct LoadedModel {
    /// Where it came from.
    pub source: Source,
    /// What it is called.
    pub name: String,
    /// Runs it.
    pub engine: Engine,
    /// Turns conversations into prompts.
    pub prompter: Arc<Prompter>,
    /// The sampling that its publisher recommends.
    pub generation: GenerationConfig,
    /// Tokens that end an answer.
    pub end: Vec<u32>,
    /// Layers and experts; `None`: it has no experts.
    pub shape: Option<Arc<Shape>>,
    /// What a person should know of how it was loaded.
    pub notice: Option<String>,
}

impl std::fmt::Debug for LoadedModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LoadedModel({} on {})", self.name, self.engine.info().device)
    }
}

impl LoadedModel {
    /// Its key ([`Source::key`]).
    pub fn key(&self) -> String {
        self.source.key()
    }

    /// Longest context in tokens.
    pub fn context(&self) -> usize {
        self.engine.info().context
    }
}
