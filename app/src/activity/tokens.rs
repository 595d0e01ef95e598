//! The last tokens, each with the experts it chose.

use std::ops::Range;

use pleiad_runtime::experts::trace::Routed;

use crate::chats::{ChatId, MessageId};

/// Where a token comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// It was read.
    Prompt,
    /// It was written by the model.
    Answer,
}

/// A token, and the experts it chose.
#[derive(Clone, Debug)]
pub struct TokenRow {
    /// The generation it belongs to.
    pub run: u64,
    /// Its position in its sequence.
    pub position: u32,
    /// Its id.
    pub id: u32,
    /// Its text.
    pub text: String,
    /// Read or written.
    pub phase: Phase,
    /// The conversation and message that its text is in, where the model wrote it.
    pub message: Option<(ChatId, MessageId)>,
    /// Where in the message's text, in bytes.
    pub bytes: Range<usize>,
    /// When it was computed, in seconds of the caller's clock.
    pub time: f64,
    /// The experts it chose, layer by layer, the largest weight first.
    pub choices: Vec<Routed>,
}
