//! Requests and the events that answer them.

use std::sync::{Arc, atomic::AtomicBool};

use async_channel::Sender;
use serde::{Deserialize, Serialize};

use crate::{Error, executor::DeviceStats, experts::trace::Routed, sampling::SamplingParams};

/// What to generate.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct GenerateOptions {
    /// Most tokens to generate; `None`: until an end token or the end of the context.
    pub max_tokens: Option<usize>,
    /// Token ids that end the generation.
    pub end: Vec<u32>,
    /// Report which experts every token used ([`Event::Token`]'s `activations`).
    pub routing: bool,
}

/// How far a prompt is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Tokens of the prompt.
    pub total: usize,
    /// Tokens in the cache so far, those found there included.
    pub done: usize,
    /// Tokens that were found in the cache.
    pub reused: usize,
}

/// Why a generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DoneReason {
    /// The model said so.
    End,
    /// `max_tokens` were generated.
    Length,
    /// The context is full.
    Context,
    /// It was cancelled.
    Cancelled,
}

/// What a generation took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct GenerationStats {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Of these, found in the cache.
    pub reused_tokens: usize,
    /// Tokens generated, an end token included.
    pub generated_tokens: usize,
    /// Seconds from the start to the first token.
    pub prefill_seconds: f64,
    /// Seconds from the first token to the last.
    pub decode_seconds: f64,
    /// Steps after the first token.
    pub steps: usize,
    /// Tokens that were drafted and verified.
    pub drafted: usize,
    /// Of these, right.
    pub accepted: usize,
    /// What the device did for the prompt.
    pub prefill_device: DeviceStats,
    /// What the device did after the first token.
    pub decode_device: DeviceStats,
    /// What the engine did with the time until the first token.
    pub prefill_host: HostTimes,
    /// What it did with the time after it.
    pub decode_host: HostTimes,
}

/// What the engine does with its time, whatever the device, in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HostTimes {
    /// Preparing and starting steps. A step of the CPU backend is over when it was started: this is the work itself there.
    pub starting: f64,
    /// Waiting for results, and serving experts that the device lacks.
    pub waiting: f64,
}

impl HostTimes {
    /// This and more.
    #[must_use]
    pub fn plus(self, more: Self) -> Self {
        Self { starting: self.starting + more.starting, waiting: self.waiting + more.waiting }
    }
}

impl GenerationStats {
    /// Tokens of a step after the first token: more than 1 where drafts were right. `None`: there was none.
    pub fn tokens_per_step(&self) -> Option<f64> {
        (self.steps > 0).then(|| self.generated_tokens.saturating_sub(1) as f64 / self.steps as f64)
    }

    /// Share of the drafts that were right. `None`: nothing was drafted.
    pub fn acceptance(&self) -> Option<f64> {
        (self.drafted > 0).then(|| self.accepted as f64 / self.drafted as f64)
    }
}

/// What happens during a generation.
#[derive(Clone, Debug)]
pub enum Event {
    /// A chunk of the prompt is done.
    Prompt(Progress),
    /// A token was generated (end tokens are not reported).
    Token {
        /// Its id.
        id: u32,
        /// The text that became certain with it; may be empty in the middle of a character.
        text: String,
        /// Its logit, after penalties.
        logit: f32,
        /// How often each expert was used since the last event, `[layers, E]`, if asked for.
        activations: Option<Arc<[u32]>>,
        /// Seconds since the generation started.
        seconds: f64,
    },
    /// The experts that tokens of this generation chose, and how they were served: with [`super::EngineOptions::trace`].
    Routed(Arc<[Routed]>),
    /// Something that the user should know; the generation goes on.
    Notice(String),
    /// The generation is over.
    Done {
        /// Why.
        reason: DoneReason,
        /// Text that was held back (half a character, shown as U+FFFD).
        text: String,
        /// What it took.
        stats: GenerationStats,
    },
    /// The generation failed.
    Failed(Error),
}

pub(crate) struct Request {
    /// Which generation it is, among all of the engine.
    pub number: u64,
    pub session: u64,
    /// Whether tokens may be drafted.
    pub drafts: bool,
    pub prompt: Vec<u32>,
    pub sampling: SamplingParams,
    pub options: GenerateOptions,
    pub events: Sender<Event>,
    pub cancelled: Arc<AtomicBool>,
}
