//! How far an answer is.

use crate::chats::MessageId;

/// What an answer is at.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Stage {
    /// It waits for another answer, or for the model.
    Waiting,
    /// The prompt is being read.
    Reading {
        /// Tokens done, those found in the cache included.
        done: usize,
        /// Tokens of the prompt.
        total: usize,
        /// Tokens found in the cache.
        reused: usize,
    },
    /// The model reasons.
    Thinking {
        /// Seconds so far.
        seconds: f64,
    },
    /// The model writes.
    Writing,
    /// It was asked to stop, and will with the next token.
    Stopping,
}

/// How far an answer is.
#[derive(Clone, Debug, PartialEq)]
pub struct Live {
    /// Which.
    pub message: MessageId,
    /// What it is at.
    pub stage: Stage,
    /// Tokens so far.
    pub tokens: usize,
    /// Tokens per second, over the last few seconds; `None`: too few yet.
    pub speed: Option<f64>,
    /// Seconds from the question to the first token; `None`: there is none yet.
    pub first_token: Option<f64>,
    /// Tokens of the context in use: prompt and answer.
    pub context: usize,
}
