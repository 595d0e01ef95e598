//! Generations under way: what is known of their tokens before routing comes.

use std::ops::Range;

use super::{Phase, TokenRow, Tokens, tokens::Announced};
use crate::chats::{ChatId, MessageId};

/// Most generations that are remembered.
const MOST: usize = 32;

/// Where a token of a prompt is in a message that the prompt was made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The token's position in the prompt.
    pub position: u32,
    /// The message.
    pub message: MessageId,
    /// Where in its text, in bytes.
    pub bytes: Range<usize>,
}

/// A generation.
#[derive(Clone, Debug)]
pub(super) struct Run {
    id: u64,
    /// The message that it writes.
    message: Option<(ChatId, MessageId)>,
    /// Whether its prompt was told; else where it ends is a guess.
    begun: bool,
    /// Tokens of the prompt.
    prompt: u32,
    /// Texts of the prompt's tokens, one after the other.
    texts: String,
    /// Id of each, and where its text ends.
    pieces: Vec<(u32, usize)>,
    /// Where tokens of the prompt are in the message that is continued.
    links: Vec<(u32, Range<usize>)>,
    /// Where tokens of the prompt are in the messages that it was made of, by position.
    heard: Vec<(u32, (ChatId, MessageId), Range<usize>)>,
    generated: u32,
    /// 1 + the last position that was routed.
    seen: u32,
    /// When it began.
    pub since: f64,
}

impl Run {
    fn unknown(id: u64, since: f64) -> Self {
        Self {
            id,
            message: None,
            begun: false,
            prompt: 0,
            texts: String::new(),
            pieces: Vec::new(),
            links: Vec::new(),
            heard: Vec::new(),
            generated: 0,
            seen: 0,
            since,
        }
    }

    /// What is known of the token at `position`; `chunk`: it is computed with others.
    pub fn announced(&self, position: u32, chunk: bool, time: f64) -> Announced<'_> {
        let place = position as usize;
        let piece = self.pieces.get(place);
        let start = place.checked_sub(1).and_then(|before| self.pieces.get(before)).map_or(0, |p| p.1);
        let link = self.links.binary_search_by_key(&position, |l| l.0).ok().and_then(|at| self.links.get(at));
        let heard = self.heard.binary_search_by_key(&position, |h| h.0).ok().and_then(|at| self.heard.get(at));
        let (message, bytes) = match (link, heard) {
            (Some(link), _) => (self.message.as_ref(), link.1.clone()),
            (None, Some((_, message, bytes))) => (Some(message), bytes.clone()),
            (None, None) => (None, 0..0),
        };
        let read = if self.begun { position < self.prompt } else { chunk };
        Announced {
            run: self.id,
            position,
            id: piece.map_or(TokenRow::UNKNOWN, |p| p.0),
            text: piece.and_then(|p| self.texts.get(start..p.1)).unwrap_or_default(),
            phase: if read { Phase::Prompt } else { Phase::Answer },
            message,
            bytes,
            time,
        }
    }

    /// A token was routed.
    pub fn saw(&mut self, position: u32) {
        self.seen = self.seen.max(position.saturating_add(1));
    }

    /// The position of the next token that is generated, and the message that it is in.
    pub fn generate(&mut self) -> (u32, Option<&(ChatId, MessageId)>) {
        if !self.begun && self.generated == 0 {
            self.prompt = self.seen;
        }
        let position = self.prompt.saturating_add(self.generated);
        self.generated = self.generated.saturating_add(1);
        (position, self.message.as_ref())
    }
}

/// The last generations.
#[derive(Clone, Debug, Default)]
pub(super) struct Runs(Vec<Run>);

impl Runs {
    /// A generation begins.
    pub fn begin(&mut self, id: u64, message: Option<(ChatId, MessageId)>, prompt: &[(u32, String)], tokens: &Tokens, now: f64) {
        self.0.retain(|run| run.id != id);
        let mut run = Run { begun: true, prompt: prompt.len() as u32, ..Run::unknown(id, now) };
        for (token, text) in prompt {
            run.texts.push_str(text);
            run.pieces.push((*token, run.texts.len()));
        }
        // An answer that is continued: its tokens are part of the prompt now, and keep their place in the text.
        if message.is_some() {
            let same = |t: &TokenRow| {
                t.message == message && prompt.get(t.position as usize).is_some_and(|p| p.0 == t.id) && !t.bytes.is_empty()
            };
            run.links = tokens.newest_first().filter(|(_, t)| same(t)).map(|(_, t)| (t.position, t.bytes.clone())).collect();
            run.links.sort_by_key(|l| l.0);
            run.links.dedup_by_key(|l| l.0);
        }
        run.message = message;
        self.keep(run);
    }

    /// Where tokens of a generation's prompt are in the messages of `chat`: by position, with the bytes of their texts.
    pub fn heard(&mut self, id: u64, chat: &ChatId, places: &[Place]) {
        let Some(run) = self.0.iter_mut().find(|run| run.id == id) else { return };
        run.heard = places.iter().map(|p| (p.position, (chat.clone(), p.message), p.bytes.clone())).collect();
        run.heard.sort_by_key(|h| h.0);
    }

    fn keep(&mut self, run: Run) {
        if self.0.len() >= MOST {
            self.0.remove(0);
        }
        self.0.push(run);
    }

    /// A generation; one that was never announced begins now.
    pub fn get(&mut self, id: u64, now: f64) -> Option<&mut Run> {
        if !self.0.iter().any(|run| run.id == id) {
            self.keep(Run::unknown(id, now));
        }
        self.0.iter_mut().rev().find(|run| run.id == id)
    }

    /// A generation is over; its prompt is still told apart should rows be late, until others have taken its place.
    pub fn end(&mut self, id: u64) {
        if let Some(at) = self.0.iter().position(|run| run.id == id) {
            // The first to be forgotten.
            let run = self.0.remove(at);
            self.0.insert(0, run);
        }
    }
}
