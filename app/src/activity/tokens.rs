//! The last tokens, each with the experts it chose.

use std::{
    collections::{HashMap, VecDeque},
    ops::Range,
};

use pleiad_runtime::experts::trace::Routed;

use super::Shape;
use crate::chats::{ChatId, MessageId};

/// Where a token comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// It was read.
    Prompt,
    /// It was written by the model.
    Answer,
}

impl Phase {
    /// Its name in a record.
    pub fn name(self) -> &'static str {
        match self {
            Self::Prompt => "prompt",
            Self::Answer => "answer",
        }
    }

    /// The phase of that name.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Prompt, Self::Answer].into_iter().find(|p| p.name() == name)
    }
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
    /// The conversation and message that its text is in, where it is part of one.
    pub message: Option<(ChatId, MessageId)>,
    /// Where in the message's text, in bytes.
    pub bytes: Range<usize>,
    /// When it was computed, in seconds of the caller's clock.
    pub time: f64,
    /// The experts it chose, layer by layer, the largest weight first.
    pub choices: Vec<Routed>,
}

impl TokenRow {
    /// The id of a token of which only the routing is known.
    pub const UNKNOWN: u32 = u32::MAX;

    /// The experts it chose in a layer of the model (dense layers counted), the largest weight first.
    pub fn layer(&self, layer: usize) -> &[Routed] {
        let start = self.choices.partition_point(|c| usize::from(c.layer) < layer);
        let rest = self.choices.get(start..).unwrap_or_default();
        let length = rest.partition_point(|c| usize::from(c.layer) <= layer);
        rest.get(..length).unwrap_or_default()
    }

    /// [`Self::layer`] of a mixture layer, without a search where nothing is missing.
    pub(super) fn row(&self, shape: &Shape, row: usize) -> &[Routed] {
        let Some(&layer) = shape.rows.get(row) else { return &[] };
        let here = |c: Option<&Routed>| c.is_some_and(|c| usize::from(c.layer) == layer);
        match self.choices.get(row * shape.top_k..(row + 1) * shape.top_k) {
            // A token has no more choices in a layer than these.
            Some(whole) if here(whole.first()) && here(whole.last()) => whole,
            _ => self.layer(layer),
        }
    }

    /// The experts it chose, one slice for each layer.
    pub fn layers(&self) -> impl Iterator<Item = &[Routed]> {
        self.choices.chunk_by(|a, b| a.layer == b.layer)
    }

    /// Adds a choice at its place: by layer, then by rank.
    pub(super) fn insert(&mut self, choice: Routed) {
        let key = |c: &Routed| (c.layer, c.rank);
        if self.choices.last().is_none_or(|last| key(last) <= key(&choice)) {
            self.choices.push(choice);
        } else {
            let at = self.choices.partition_point(|c| key(c) <= key(&choice));
            self.choices.insert(at, choice);
        }
    }
}

/// What is known of a token before its routing.
#[derive(Clone, Debug)]
pub(super) struct Announced<'a> {
    pub run: u64,
    pub position: u32,
    pub id: u32,
    pub text: &'a str,
    pub phase: Phase,
    pub message: Option<&'a (ChatId, MessageId)>,
    pub bytes: Range<usize>,
    pub time: f64,
}

impl Announced<'_> {
    /// As a token that has chosen nothing yet; `old` gives its memory.
    pub fn row(self, old: Option<TokenRow>, choices: usize) -> TokenRow {
        let Self { run, position, id, text: said, phase, message, bytes, time } = self;
        let (mut text, mut kept) = old.map_or_else(|| (String::new(), Vec::with_capacity(choices)), |t| (t.text, t.choices));
        text.clear();
        text.push_str(said);
        kept.clear();
        TokenRow { run, position, id, text, phase, message: message.cloned(), bytes, time, choices: kept }
    }
}

/// A ring of the last tokens. A token's number counts from the first token there was, and does not change as older ones leave.
#[derive(Clone, Debug)]
pub struct Tokens {
    rows: VecDeque<TokenRow>,
    /// Number of the oldest.
    first: usize,
    capacity: usize,
    /// Choices of a token.
    choices: usize,
    places: HashMap<(u64, u32), usize>,
}

impl Tokens {
    /// A ring of `capacity` tokens, at least one.
    pub(super) fn new(shape: &Shape, capacity: usize) -> Self {
        let capacity = capacity.max(1);
        Self {
            rows: VecDeque::with_capacity(capacity),
            first: 0,
            capacity,
            choices: shape.rows.len() * shape.top_k,
            places: HashMap::with_capacity(capacity),
        }
    }

    /// Tokens that there is room for.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Numbers of the tokens that are kept, oldest first.
    pub fn range(&self) -> Range<usize> {
        self.first..self.first + self.rows.len()
    }

    /// Tokens that are kept.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// A token by its number; `None`: it has left, or is still to come.
    pub fn get(&self, token: usize) -> Option<&TokenRow> {
        self.rows.get(token.checked_sub(self.first)?)
    }

    /// The number of a token by its place in a generation.
    pub fn find(&self, run: u64, position: u32) -> Option<usize> {
        self.places.get(&(run, position)).copied()
    }

    /// The token under byte `offset` of a message's text: the newest whose routing is known, else the newest. `chat`: `None`
    /// where messages of one conversation only are kept.
    pub fn under(&self, chat: Option<&ChatId>, message: MessageId, offset: usize) -> Option<usize> {
        let there = |t: &TokenRow| {
            t.bytes.contains(&offset)
                && t.message.as_ref().is_some_and(|(c, m)| *m == message && chat.is_none_or(|chat| chat == c))
        };
        let mut found = self.newest_first().filter(|(_, t)| there(t)).peekable();
        let newest = found.peek().map(|(n, _)| *n);
        found.find(|(_, t)| !t.choices.is_empty()).map(|(n, _)| n).or(newest)
    }

    /// Tokens and their numbers, newest first.
    pub fn newest_first(&self) -> impl Iterator<Item = (usize, &TokenRow)> {
        self.range().zip(&self.rows).rev()
    }

    /// The tokens of a range of numbers that are still there, oldest first.
    pub fn iter(&self, range: Range<usize>) -> impl Iterator<Item = (usize, &TokenRow)> {
        let start = range.start.clamp(self.first, self.first + self.rows.len());
        let end = range.end.clamp(start, self.first + self.rows.len());
        (start..end).zip(self.rows.range(start - self.first..end - self.first))
    }

    /// A new token; the oldest leaves where there is no room.
    pub(super) fn push(&mut self, token: Announced<'_>) -> usize {
        let mut old = None;
        if self.rows.len() >= self.capacity {
            old = self.rows.pop_front();
            if let Some(gone) = &old {
                let key = (gone.run, gone.position);
                if self.places.get(&key) == Some(&self.first) {
                    self.places.remove(&key);
                }
                self.first += 1;
            }
        }
        let number = self.first + self.rows.len();
        self.places.insert((token.run, token.position), number);
        self.rows.push_back(token.row(old, self.choices));
        number
    }

    pub(super) fn get_mut(&mut self, token: usize) -> Option<&mut TokenRow> {
        self.rows.get_mut(token.checked_sub(self.first)?)
    }

    pub(super) fn clear(&mut self) {
        self.first += self.rows.len();
        self.rows.clear();
        self.places.clear();
    }
}
