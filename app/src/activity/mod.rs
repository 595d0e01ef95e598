//! What the experts did: the numbers behind every view of them. No drawing.
//!
//! [`Activity`] takes what the engine reports (routing, residency, tokens) and keeps the last tokens in full, and sums over
//! all of them. A view asks it for a [`Field`]: one number for every expert of every mixture layer.
//!
//! | module | what it holds |
//! |---|---|
//! | [`shape`] | layers and experts of a model |
//! | [`tokens`] | the last tokens, each with the experts it chose |
//! | `runs` | generations under way: what is known of their tokens before routing comes |
//! | [`sums`] | counts, weights, misses and recent use of every expert |
//! | [`field`] | what a view shows: a number for every cell, and its scale |
//! | [`view`] | from what is counted to what is shown |
//! | [`facts`] | what is known of one expert |
//! | [`chance`] | what chance explains |
//! | [`measures`] | entropy, active share, working set, overlap |
//! | [`lru`] | what more slots would buy |
//! | [`timeline`] | hit rate, bytes moved and tokens per second over time |
//! | [`snapshot`] | counts kept under a name, to compare with others |
//! | [`domains`] | prompt packs, and the load they put on experts |
//! | [`record`] | recording, replay, CSV and JSON lines |

pub mod chance;
pub mod domains;
pub mod facts;
pub mod field;
pub mod lru;
pub mod measures;
pub mod record;
mod runs;
pub mod shape;
pub mod snapshot;
pub mod sums;
#[cfg(test)]
mod tests;
pub mod timeline;
pub mod tokens;
pub mod view;

use std::{ops::Range, sync::Arc};

use pleiad_runtime::experts::trace::{Routed, Served, TraceFormat};

pub use facts::Facts;
pub use field::{Cell, Field, Mode, Scale};
pub use lru::Lru;
pub use measures::{Figures, Measure, Measures};
pub use record::{Record, Replay};
pub use runs::Place;
pub use shape::Shape;
pub use snapshot::Snapshot;
pub use sums::Sums;
pub use timeline::{Sample, Timeline};
pub use tokens::{Phase, TokenRow, Tokens};
pub use view::View;

use crate::chats::{ChatId, MessageId};
use record::Recorder;
use runs::Runs;
use timeline::Batch;
use tokens::Announced;

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
///
/// Tokens are named by their numbers, which count from the first token there was ([`Tokens`]). The routing of a token that the
/// model wrote comes with the step after it, so that the latest token of an answer has none yet, and the last never will.
#[derive(Debug)]
pub struct Activity {
    shape: Arc<Shape>,
    tokens: Tokens,
    sums: Sums,
    lru: Lru,
    timeline: Timeline,
    recorder: Recorder,
    runs: Runs,
    /// Where experts are, if that was told.
    homes: Option<Vec<Home>>,
    /// The token that was routed last.
    latest: Option<usize>,
    now: f64,
    revision: u64,
    measured: Option<(u64, Arc<Measures>)>,
    /// Choices of one token and layer.
    chosen: Vec<Routed>,
}

impl Activity {
    /// Tokens that are kept in full, as a rule.
    pub const TOKENS: usize = 4096;
    /// Half-life of recent uses to begin with, in tokens.
    pub const HALF_LIFE: f32 = 32.0;

    /// Of a model of that shape, keeping the last `tokens` tokens in full.
    pub fn new(shape: Arc<Shape>, tokens: usize) -> Self {
        Self {
            tokens: Tokens::new(&shape, tokens),
            sums: Sums::new(&shape, Self::HALF_LIFE),
            lru: Lru::new(&shape),
            timeline: Timeline::default(),
            recorder: Recorder::default(),
            runs: Runs::default(),
            homes: None,
            latest: None,
            now: 0.0,
            revision: 1,
            measured: None,
            chosen: Vec::with_capacity(shape.top_k),
            shape,
        }
    }

    /// Layers and experts.
    pub fn shape(&self) -> &Arc<Shape> {
        &self.shape
    }

    /// A generation begins: its prompt, as ids and as the text of each. Tokens to come belong to `message` of `chat`. Rows of
    /// another generation that come later are told apart by `run`. Tokens of the prompt are kept once their routing comes,
    /// which it does not for those that were found in the cache. Where `message` is continued, its tokens keep their place in
    /// its text.
    pub fn begin(&mut self, run: u64, chat: Option<ChatId>, message: Option<MessageId>, prompt: &[(u32, String)], now: f64) {
        let now = self.clock(now);
        self.runs.begin(run, chat.zip(message), prompt, &self.tokens, now);
    }

    /// Where tokens of the prompt of generation `run` are in the messages of `chat`, so that what a person wrote is linked with
    /// the experts that read it.
    pub fn heard(&mut self, run: u64, chat: &ChatId, places: &[Place]) {
        self.runs.heard(run, chat, places);
    }

    /// The experts that tokens of generation `run` chose; `now` in seconds, of any clock that does not go back. Rows that are
    /// not of this model, and those of a token that came before, are left out.
    pub fn routed(&mut self, run: u64, rows: &[Routed], now: f64) {
        let now = self.clock(now);
        let (Some(first), Some(last)) = (rows.first(), rows.iter().map(|r| r.position).max()) else { return };
        let chunk = rows.iter().any(|r| r.position != first.position);
        // Of a chunk longer than the ring, only the end is kept: each layer of it would push out what the one before brought.
        let kept = last.saturating_sub((self.tokens.capacity() - 1).try_into().unwrap_or(u32::MAX));
        let mut batch = Batch { phase: Phase::Answer, tokens: 0, range: 0..0, rows: 0, lookups: 0, hits: 0, bytes: 0 };
        for choices in rows.chunk_by(|a, b| (a.position, a.layer) == (b.position, b.layer)) {
            self.choices(run, choices, chunk, kept, now, &mut batch);
        }
        if let (true, Some(run)) = (batch.rows > 0, self.runs.get(run, now)) {
            self.timeline.add(batch, run.since, now, self.sums.working_set());
            self.revision += 1;
        }
    }

    /// What one token chose in one layer.
    fn choices(&mut self, id: u64, rows: &[Routed], chunk: bool, kept: u32, now: f64, batch: &mut Batch) {
        let Some(first) = rows.first() else { return };
        let (position, layer) = (first.position, usize::from(first.layer));
        let (Some(row), Some(run)) = (self.shape.row_of(layer), self.runs.get(id, now)) else { return };
        run.saw(position);
        let mut token = self.tokens.find(id, position);
        if token.is_none() && position >= kept {
            token = Some(self.tokens.push(run.announced(position, chunk, now)));
        }
        let old = token.and_then(|n| self.tokens.get(n));
        let before = old.map(|t| t.layer(layer)).unwrap_or_default();
        let chosen = &mut self.chosen;
        chosen.clear();
        for choice in rows {
            let new = |c: &Routed| c.expert != choice.expert && c.rank != choice.rank;
            if usize::from(choice.expert) < self.shape.experts
                && before.len() + chosen.len() < self.shape.top_k
                && choice.weight.is_finite()
                && before.iter().chain(chosen.iter()).all(new)
            {
                chosen.push(*choice);
            }
        }
        if chosen.is_empty() {
            return;
        }
        chosen.sort_by_key(|c| c.rank);
        let fresh = before.is_empty();
        let begins = old.map_or(row == 0, |t| t.choices.is_empty());
        self.sums.add(row, fresh, chosen);
        self.lru.touch(row, chosen);
        batch.tokens += usize::from(begins);
        batch.rows += chosen.len();
        batch.lookups += chosen.iter().filter(|c| c.served != Served::Host).count() as u64;
        batch.hits += chosen.iter().filter(|c| c.served == Served::Hit).count() as u64;
        batch.bytes = chosen.iter().fold(batch.bytes, |sum, c| sum.saturating_add(c.bytes));
        if self.homes.is_none() && chosen.iter().any(|c| c.served == Served::Host) {
            // The whole model is in host memory.
            self.homes = Some(vec![Home::Host; self.shape.cells()]);
        }
        match token.and_then(|n| Some((n, self.tokens.get_mut(n)?))) {
            Some((n, token)) => {
                if begins {
                    token.time = now;
                }
                for choice in chosen.iter() {
                    token.insert(*choice);
                }
                batch.phase = token.phase;
                batch.range = match batch.range.is_empty() {
                    true => n..n + 1,
                    false => batch.range.start.min(n)..batch.range.end.max(n + 1),
                };
                self.latest = Some(n);
                self.recorder.add(token, chosen);
            }
            None => {
                let token = run.announced(position, chunk, now);
                batch.phase = token.phase;
                self.recorder.add(&token.row(None, 0), chosen);
            }
        }
    }

    /// Generation `run` has produced a token: its id, its text, and where the text is in its message, in bytes.
    pub fn token(&mut self, run: u64, id: u32, text: &str, bytes: Range<usize>, now: f64) {
        let now = self.clock(now);
        let Some(known) = self.runs.get(run, now) else { return };
        let (position, message) = known.generate();
        match self.tokens.find(run, position).and_then(|n| self.tokens.get_mut(n)) {
            // Its routing was here first.
            Some(token) => {
                token.id = id;
                text.clone_into(&mut token.text);
                token.phase = Phase::Answer;
                token.message = message.cloned();
                token.bytes = bytes;
                self.recorder.rename(token);
            }
            None => {
                let phase = Phase::Answer;
                self.tokens.push(Announced { run, position, id, text, phase, message, bytes, time: now });
            }
        }
        self.revision += 1;
    }

    /// Generation `run` is over.
    pub fn end(&mut self, run: u64, now: f64) {
        self.clock(now);
        self.runs.end(run);
    }

    /// Where experts are: for each mixture layer (a row of the shape) and each expert. Anything of another length is left out.
    pub fn residency(&mut self, homes: &[Home]) {
        if homes.len() == self.shape.cells() && self.homes.as_deref() != Some(homes) {
            self.homes = Some(homes.to_vec());
            self.revision += 1;
        }
    }

    /// Changes whenever something that a view shows has changed.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Time, which does not go back.
    fn clock(&mut self, now: f64) -> f64 {
        if now.is_finite() {
            self.now = self.now.max(now);
        }
        self.now
    }
}

/// What views ask for.
impl Activity {
    /// The last tokens.
    pub fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    /// Sums over everything.
    pub fn sums(&self) -> &Sums {
        &self.sums
    }

    /// What more slots would buy, from everything.
    pub fn lru(&self) -> &Lru {
        &self.lru
    }

    /// What happened over time.
    pub fn timeline(&self) -> &Timeline {
        &self.timeline
    }

    /// The number of the token that was routed last; `None`: none was, or it has left.
    pub fn latest(&self) -> Option<usize> {
        self.latest.filter(|&n| self.tokens.get(n).is_some())
    }

    /// The experts of a token, to outline them.
    pub fn cells_of(&self, token: usize) -> Vec<Cell> {
        let choices = self.tokens.get(token).map(|t| t.choices.as_slice()).unwrap_or_default();
        choices.iter().filter_map(|c| self.cell(c)).collect()
    }

    fn cell(&self, choice: &Routed) -> Option<Cell> {
        Some(Cell { row: self.shape.row_of(choice.layer.into())?, expert: choice.expert.into() })
    }

    /// Experts that were moved for the latest token.
    fn moving(&self) -> impl Iterator<Item = Cell> {
        let latest = self.latest.and_then(|n| self.tokens.get(n));
        let choices = latest.map(|t| t.choices.as_slice()).unwrap_or_default();
        let moved = choices.iter().filter(|c| matches!(c.served, Served::Fetched | Served::Gathered));
        moved.filter_map(|c| self.cell(c))
    }

    /// Where an expert is; `None`: that was never told.
    pub fn home(&self, cell: Cell) -> Option<Home> {
        let at = self.sums.index(cell)?;
        if self.moving().any(|moving| moving == cell) {
            return Some(Home::Moving);
        }
        self.homes.as_ref()?.get(at).copied()
    }

    /// Sets the half-life of recent uses, in tokens. They are counted again from the tokens that are kept.
    pub fn set_half_life(&mut self, tokens: f32) {
        if self.sums.set_half_life(tokens, &self.shape, self.tokens.newest_first().map(|(_, t)| t)) {
            self.revision += 1;
        }
    }

    /// Measures of every layer and over all; computed when something has changed since the last call.
    pub fn measures(&mut self) -> Arc<Measures> {
        match &self.measured {
            Some((revision, measures)) if *revision == self.revision => Arc::clone(measures),
            _ => {
                let measures = Arc::new(Measures::of(&self.shape, &self.sums, &self.tokens));
                self.measured = Some((self.revision, Arc::clone(&measures)));
                measures
            }
        }
    }

    /// Keeps counts under a name: of a range of tokens, as far as they are kept, or of everything.
    pub fn snapshot(&self, label: impl Into<String>, range: Option<Range<usize>>) -> Snapshot {
        match range {
            Some(range) => Snapshot::of_tokens(label, &self.shape, self.tokens.iter(range).map(|(_, t)| t)),
            None => Snapshot::of_sums(label, &self.shape, &self.sums),
        }
    }

    /// Forgets everything that was counted, but not where experts are, nor what was recorded. Numbers of tokens go on.
    pub fn clear(&mut self) {
        self.tokens.clear();
        self.sums = Sums::new(&self.shape, self.sums.half_life());
        self.lru = Lru::new(&self.shape);
        self.timeline = Timeline::default();
        self.latest = None;
        self.revision += 1;
    }
}

/// Recording.
impl Activity {
    /// Starts to record, up to `most` rows (an expert chosen by a token is a row), and forgets what was recorded before.
    pub fn start_recording(&mut self, most: usize) {
        self.recorder.start(Record::new(&self.shape), most);
        self.revision += 1;
    }

    /// Stops recording. What was recorded stays.
    pub fn stop_recording(&mut self) {
        self.recorder.stop();
        self.revision += 1;
    }

    /// How recording goes.
    pub fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    /// What was recorded, or, if nothing was, the tokens that are kept.
    pub fn record(&self) -> Record {
        match self.recorder.record() {
            Some(record) if record.rows() > 0 => record.clone(),
            _ => Record::of_tokens(&self.shape, self.tokens.iter(self.tokens.range()).map(|(_, t)| t)),
        }
    }

    /// [`Self::record`] as the text of a file; `text`: with the text of tokens, else with their ids only.
    pub fn trace(&self, format: TraceFormat, text: bool) -> String {
        match self.recorder.record() {
            Some(record) if record.rows() > 0 => record.write(format, text),
            _ => self.record().write(format, text),
        }
    }

    /// A recorded token happens again.
    fn happened(&mut self, token: &TokenRow, now: f64) {
        let now = self.clock(now);
        if self.tokens.find(token.run, token.position).is_none() {
            let TokenRow { run, position, id, phase, .. } = *token;
            let (text, message, bytes) = (&token.text, token.message.as_ref(), token.bytes.clone());
            self.tokens.push(Announced { run, position, id, text, phase, message, bytes, time: now });
        }
        self.routed(token.run, &token.choices, now);
    }
}
