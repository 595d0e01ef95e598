//! Recording, replay, CSV and JSON lines.
//!
//! A record is a list of tokens with the experts that they chose. As a file it has a row for each expert, in the columns of
//! `pleiad run --trace` and more: `run`, `time` (seconds), `phase`, `id` and, unless only ids are wanted, `text`. A CSV file
//! begins with comments that name the model and its shape, a file of JSON lines with an object that does.
//!
//! | module | what it holds |
//! |---|---|
//! | [`write`] | a record as text |
//! | [`read`] | text as a record, checked against a model's shape |
//! | [`replay`] | a record that happens again |

pub mod read;
pub mod replay;
pub mod write;

use std::collections::HashMap;

use pleiad_runtime::experts::trace::{Routed, TraceFormat};

use super::{Shape, Snapshot, TokenRow};

pub use replay::Replay;

/// Tokens, with the experts that they chose, in the order in which they were routed.
#[derive(Clone, Debug)]
pub struct Record {
    /// The model's name; empty: the record does not say.
    pub model: String,
    /// Its layers, dense ones counted.
    pub layers: usize,
    /// Routed experts of a mixture layer.
    pub experts: usize,
    /// Experts chosen for a token.
    pub top_k: usize,
    pub(super) tokens: Vec<TokenRow>,
    rows: usize,
}

impl Record {
    /// Of a model, with nothing in it.
    pub fn new(shape: &Shape) -> Self {
        Self {
            model: shape.model.clone(),
            layers: shape.layers.len(),
            experts: shape.experts,
            top_k: shape.top_k,
            tokens: Vec::new(),
            rows: 0,
        }
    }

    /// Of tokens; those that chose nothing are left out.
    pub fn of_tokens<'a>(shape: &Shape, tokens: impl IntoIterator<Item = &'a TokenRow>) -> Self {
        let mut record = Self::new(shape);
        record.tokens = tokens.into_iter().filter(|t| !t.choices.is_empty()).cloned().collect();
        record.rows = record.tokens.iter().map(|t| t.choices.len()).sum();
        record
    }

    /// Its tokens.
    pub fn tokens(&self) -> &[TokenRow] {
        &self.tokens
    }

    /// Experts chosen, over all tokens.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Seconds from its first token to its last.
    pub fn seconds(&self) -> f64 {
        match (self.tokens.first(), self.tokens.last()) {
            (Some(first), Some(last)) => (last.time - first.time).max(0.0),
            _ => 0.0,
        }
    }

    /// Its counts under a name, to compare with others.
    pub fn snapshot(&self, label: impl Into<String>, shape: &Shape) -> Snapshot {
        Snapshot::of_tokens(label, shape, &self.tokens)
    }

    /// As the text of a file; `text`: with the text of tokens, else with their ids only.
    pub fn write(&self, format: TraceFormat, text: bool) -> String {
        match format {
            TraceFormat::Csv => write::csv(self, text),
            TraceFormat::Jsonl => write::jsonl(self, text),
        }
    }

    /// Reads a file: CSV or JSON lines, of this program or of `pleiad run --trace`.
    ///
    /// # Errors
    /// In words, with the line: where it is no record, or one of a model of another shape.
    pub fn read(bytes: &[u8], shape: &Shape) -> Result<Self, String> {
        read::read(bytes, shape)
    }
}

/// Records while it is told to.
#[derive(Debug, Default)]
pub struct Recorder {
    record: Option<Record>,
    places: HashMap<(u64, u32), usize>,
    most: usize,
    on: bool,
}

impl Recorder {
    /// Most rows, as a rule: about 32 MiB in memory.
    pub const ROWS: usize = 1 << 20;

    /// Whether it records.
    pub fn on(&self) -> bool {
        self.on
    }

    /// Whether there is no room for more: what comes now is not recorded.
    pub fn full(&self) -> bool {
        self.record.as_ref().is_some_and(|r| r.rows >= self.most)
    }

    /// Most rows of this record.
    pub fn most(&self) -> usize {
        self.most
    }

    /// What was recorded last, or is being recorded.
    pub fn record(&self) -> Option<&Record> {
        self.record.as_ref()
    }

    pub(super) fn start(&mut self, record: Record, most: usize) {
        self.places.clear();
        self.record = Some(record);
        self.most = most;
        self.on = true;
    }

    pub(super) fn stop(&mut self) {
        self.on = false;
        self.places.clear();
    }

    /// A token chose experts.
    pub(super) fn add(&mut self, token: &TokenRow, chosen: &[Routed]) {
        if !self.on {
            return;
        }
        let full = self.full();
        let Some(record) = &mut self.record else { return };
        let key = (token.run, token.position);
        let at = match self.places.get(&key) {
            Some(&at) => at,
            // A token that has begun is recorded to its last layer.
            None if full => return,
            None => {
                let mut copy = token.clone();
                copy.choices.clear();
                record.tokens.push(copy);
                self.places.insert(key, record.tokens.len() - 1);
                record.tokens.len() - 1
            }
        };
        let Some(kept) = record.tokens.get_mut(at) else { return };
        for choice in chosen {
            kept.insert(*choice);
        }
        record.rows += chosen.len();
    }

    /// A token of which the routing was here first has become known.
    pub(super) fn rename(&mut self, token: &TokenRow) {
        let at = self.places.get(&(token.run, token.position)).filter(|_| self.on);
        if let (Some(&at), Some(record)) = (at, &mut self.record)
            && let Some(kept) = record.tokens.get_mut(at)
        {
            kept.id = token.id;
            kept.text.clone_from(&token.text);
            kept.phase = token.phase;
            kept.message.clone_from(&token.message);
            kept.bytes = token.bytes.clone();
        }
    }
}
