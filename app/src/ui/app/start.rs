//! What the program is given.

use web_time::Duration;

use super::super::files::Files;
use crate::{
    chats::{Setup, storage::Storage},
    loading::{Source, shelf::Shelf},
    settings::LoadChange,
};

/// What the program starts with.
pub struct Start {
    /// Where conversations are kept.
    pub chats: Box<dyn Storage>,
    /// Where settings are kept.
    pub settings: Box<dyn Storage>,
    /// The platform's files.
    pub files: Box<dyn Files>,
    /// Where models are kept for a page; `None`: there are files.
    pub shelf: Option<Box<dyn Shelf>>,
    /// The model to load; `None`: the last one, else the embedded one.
    pub model: Option<Source>,
    /// Changes how it is loaded, for this time.
    pub load: Option<LoadChange>,
    /// How answers are made in the conversation to begin with; `None`: the one that was open last goes on.
    pub setup: Option<Setup>,
    /// Whether callbacks may draw on the GPU.
    pub gpu: bool,
    /// Time between frames while something is being written or loaded; `None`: as often as a screen shows one. Where the processor draws
    /// that also computes, every frame takes from the answer.
    pub pace: Option<Duration>,
}
