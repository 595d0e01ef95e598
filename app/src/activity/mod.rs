//! What the experts did: the numbers behind every view of them. No drawing.
//!
//! [`Activity`] takes what the engine reports (routing, residency, tokens) and keeps the last tokens in full, and sums over
//! all of them. A view asks it for a [`Field`]: one number for every expert of every mixture layer.
//!
//! | module | what it holds |
//! |---|---|
//! | [`shape`] | layers and experts of a model |
//! | [`tokens`] | the last tokens, each with the experts it chose |
//! | [`sums`] | counts, weights, misses and recent use of every expert |
//! | [`field`] | what a view shows: a number for every cell, and its scale |
//! | [`measures`] | entropy, active share, working set, overlap |
//! | [`timeline`] | hit rate, bytes moved and tokens per second over time |
//! | [`domains`] | prompt packs, and the load they put on experts |
//! | [`record`] | recording, replay, CSV and JSON lines |

pub mod domains;
pub mod field;
pub mod measures;
pub mod record;
pub mod shape;
pub mod sums;
pub mod timeline;
pub mod tokens;

use std::{ops::Range, sync::Arc};

use pleiad_runtime::experts::trace::Routed;

pub use field::{Cell, Field, Mode, Scale};
pub use shape::Shape;
pub use tokens::{Phase, TokenRow};

use crate::chats::{ChatId, MessageId};

/// Where an expert is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
pub enum Home {
    /// In host memory.
    #[default]
    Host = 0,
    /// On the device.
    Device = 1,
    /// Moved to the device, or read by it, for the latest token.
    Moving = 2,
}

/// What the experts of one loaded model did.
#[derive(Debug)]
pub struct Activity {
    shape: Arc<Shape>,
}

impl Activity {
    /// Tokens that are kept in full, as a rule.
    pub const TOKENS: usize = 4096;

    /// Of a model of that shape, keeping the last `tokens` tokens in full.
    pub fn new(shape: Arc<Shape>, tokens: usize) -> Self {
        let _ = tokens;
        Self { shape }
    }

    /// Layers and experts.
    pub fn shape(&self) -> &Arc<Shape> {
        &self.shape
    }

    /// A generation begins: its prompt, as ids and as the text of each, and the first position that is computed. Tokens to
    /// come belong to `message` of `chat`. Rows of another generation that come later are told apart by `run`.
    pub fn begin(&mut self, run: u64, chat: Option<ChatId>, message: Option<MessageId>, prompt: &[(u32, String)], now: f64) {
        let _ = (run, chat, message, prompt, now);
    }

    /// The experts that tokens of generation `run` chose; `now` in seconds, of any clock that does not go back.
    pub fn routed(&mut self, run: u64, rows: &[Routed], now: f64) {
        let _ = (run, rows, now);
    }

    /// Generation `run` has produced a token: its id, its text, and where the text is in its message, in bytes.
    pub fn token(&mut self, run: u64, id: u32, text: &str, bytes: Range<usize>, now: f64) {
        let _ = (run, id, text, bytes, now);
    }

    /// Generation `run` is over.
    pub fn end(&mut self, run: u64, now: f64) {
        let _ = (run, now);
    }

    /// Where experts are: for each mixture layer (a row of the shape) and each expert.
    pub fn residency(&mut self, homes: &[Home]) {
        let _ = homes;
    }

    /// Changes whenever something that a view shows has changed.
    pub fn revision(&self) -> u64 {
        0
    }
}
