//! A tree of messages, and the path through it that is shown.

use pleiad_models::Role;
use pleiad_runtime::{SamplingParams, engine::GenerationStats};
use serde::{Deserialize, Serialize};

/// Names a message within its conversation. Ids ascend in the order in which messages were begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct MessageId(pub u64);

/// What a person thought of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rating {
    /// It helped.
    Good,
    /// It did not.
    Bad,
}

/// Why an answer ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stop {
    /// It has not: it is being written. Read from a file: the program ended in the middle of it.
    #[default]
    Unfinished,
    /// The model said so.
    End,
    /// The longest answer that was asked for.
    Length,
    /// The context is full.
    Context,
    /// A person stopped it.
    Cancelled,
    /// It failed; in words.
    Failed(String),
}

/// How an answer was made, and what it took.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Answer {
    /// The model's name.
    pub model: String,
    /// The device's name.
    pub device: String,
    /// How it was sampled.
    pub sampled: SamplingParams,
    /// The second mind of the conversation made it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub second: bool,
    /// The prompt had already opened the reasoning: the text begins inside of it, without a mark.
    pub thinking: bool,
    /// Seconds of reasoning, once it is over.
    pub thought_seconds: Option<f64>,
    /// What it took, once it is over. A continued answer adds up its parts; the prompt is that of the last part.
    pub stats: Option<GenerationStats>,
    /// Why it ended.
    pub stop: Stop,
}

impl Answer {
    /// Tokens per second after the first; `None`: there were too few to tell.
    pub fn tokens_per_second(&self) -> Option<f64> {
        let s = self.stats.as_ref()?;
        // The time runs from the first token to the last, so the first is not counted.
        let tokens = s.generated_tokens.checked_sub(1).filter(|&n| n > 0)?;
        (s.decode_seconds > 0.0).then(|| tokens as f64 / s.decode_seconds)
    }

    /// Share of the experts chosen after the first token that were resident; `None`: none was counted.
    pub fn hit_rate(&self) -> Option<f64> {
        let d = &self.stats.as_ref()?.decode_device;
        let all = d.expert_hits.saturating_add(d.expert_misses);
        (all > 0).then(|| d.expert_hits as f64 / all as f64)
    }

    /// Numbers that JSON cannot hold, made 0.
    pub(super) fn finite(mut self) -> Self {
        let s = &mut self.sampled;
        for x in [
            &mut s.temperature,
            &mut s.top_p,
            &mut s.min_p,
            &mut s.repeat_penalty,
            &mut s.frequency_penalty,
            &mut s.presence_penalty,
        ] {
            *x = if x.is_finite() { *x } else { 0.0 };
        }
        self.thought_seconds = self.thought_seconds.filter(|s| s.is_finite());
        if let Some(stats) = &mut self.stats {
            for x in [&mut stats.prefill_seconds, &mut stats.decode_seconds] {
                *x = if x.is_finite() { *x } else { 0.0 };
            }
        }
        self
    }
}

/// A message.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// Its name.
    pub id: MessageId,
    /// What it follows; `None`: it begins the conversation.
    pub parent: Option<MessageId>,
    /// What follows it, oldest first.
    pub children: Vec<MessageId>,
    /// The child that is shown; the newest unless a person chose another.
    pub shown: Option<MessageId>,
    /// Who speaks: the person, or a model.
    pub role: Role,
    /// The persona that speaks, where there is more than one.
    pub author: Option<String>,
    /// What is said. A model's reasoning is part of it, between the marks of [`crate::thinking`].
    pub text: String,
    /// When it was begun, in milliseconds since 1970.
    pub created_ms: u64,
    /// What a person thought of it.
    pub rating: Option<Rating>,
    /// How it was made, where a model did.
    pub answer: Option<Answer>,
}

/// The messages of a conversation.
///
/// A message's id is greater than that of what it follows, so there are no cycles and every path ascends: messages and paths
/// are found in by binary search.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    /// In the order of their ids.
    messages: Vec<Message>,
    roots: Vec<MessageId>,
    shown: Option<MessageId>,
    /// What is shown. Kept, because every frame asks for it.
    path: Vec<MessageId>,
    revision: u64,
}

impl Tree {
    /// The greatest id: programs that keep numbers as doubles can still read it.
    pub(super) const GREATEST: u64 = 1 << 53;

    /// A message; `None`: there is none of that name.
    pub fn get(&self, id: MessageId) -> Option<&Message> {
        self.messages.get(self.index(id)?)
    }

    /// Whether nothing was said yet.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Messages on all branches.
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// All messages, in the order of their ids.
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// Changes whenever anything in here does.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// What is shown, first message first.
    pub fn path(&self) -> Vec<MessageId> {
        self.path.clone()
    }

    /// [`Tree::path`] without a copy.
    pub fn shown_path(&self) -> &[MessageId] {
        &self.path
    }

    /// The path from the first message to `id`, `id` included, whether or not it is shown.
    pub fn path_to(&self, id: MessageId) -> Vec<MessageId> {
        let mut path: Vec<MessageId> =
            std::iter::successors(self.get(id), |m| m.parent.and_then(|p| self.get(p))).map(|m| m.id).collect();
        path.reverse();
        path
    }

    /// The last message that is shown.
    pub fn leaf(&self) -> Option<MessageId> {
        self.path.last().copied()
    }

    /// A message and its siblings, oldest first, and its place among them.
    pub fn siblings(&self, id: MessageId) -> (&[MessageId], usize) {
        let Some(message) = self.get(id) else { return (&[], 0) };
        let all = self.children(message.parent);
        (all, all.binary_search(&id).unwrap_or(0))
    }

    /// The messages that follow one, oldest first; `None`: those that begin the conversation.
    pub(super) fn children(&self, parent: Option<MessageId>) -> &[MessageId] {
        match parent {
            None => &self.roots,
            Some(p) => self.get(p).map_or(&[], |m| &m.children),
        }
    }

    /// The child that is shown of a message; `None`: the message that the path shown begins with.
    pub(super) fn shown_child(&self, parent: Option<MessageId>) -> Option<MessageId> {
        match parent {
            None => self.shown,
            Some(p) => self.get(p)?.shown,
        }
    }

    /// Adds a message, and shows it. `children` and `shown` of `message` are set here.
    ///
    /// # Errors
    /// In words, where its id is taken or too great, or what it follows is not there or younger.
    pub(super) fn push(&mut self, mut message: Message) -> Result<(), String> {
        let (id, parent) = (message.id, message.parent);
        if id.0 > Self::GREATEST {
            return Err(format!("{} is too great for the name of a message", id.0));
        }
        let Err(at) = self.messages.binary_search_by_key(&id, |m| m.id) else {
            return Err(format!("there are two messages {}", id.0));
        };
        if let Some(p) = parent
            && (p >= id || self.index(p).is_none())
        {
            return Err(format!("message {} follows message {}, which is not before it", id.0, p.0));
        }
        message.children = Vec::new();
        message.shown = None;
        self.messages.insert(at, message);
        let siblings = match parent {
            None => &mut self.roots,
            Some(p) => match self.get_mut(p) {
                Some(m) => &mut m.children,
                None => return Ok(()),
            },
        };
        if let Err(place) = siblings.binary_search(&id) {
            siblings.insert(place, id);
        }
        self.show_path_to(id);
        Ok(())
    }

    /// Something to change in a message. What it follows and what follows it is not to be changed.
    pub(super) fn get_mut(&mut self, id: MessageId) -> Option<&mut Message> {
        self.revision += 1;
        let at = self.index(id)?;
        self.messages.get_mut(at)
    }

    /// Shows a message among its siblings. Whether it is there.
    pub(super) fn show(&mut self, id: MessageId) -> bool {
        let Some(parent) = self.get(id).map(|m| m.parent) else { return false };
        if self.shown_child(parent) != Some(id) {
            self.choose(parent, id);
            match parent {
                None => self.follow(0, id),
                Some(p) => {
                    if let Ok(place) = self.path.binary_search(&p) {
                        self.follow(place + 1, id);
                    }
                }
            }
        }
        true
    }

    /// Makes the path shown lead to a message. Whether it is there.
    pub(super) fn show_path_to(&mut self, id: MessageId) -> bool {
        if self.index(id).is_none() {
            return false;
        }
        // Up to where the path shown is met, and from there down again.
        let (mut at, mut from) = (id, 0);
        while let Some(parent) = self.get(at).map(|m| m.parent) {
            if self.shown_child(parent) != Some(at) {
                self.choose(parent, at);
            }
            let Some(p) = parent else { break };
            if let Ok(place) = self.path.binary_search(&p) {
                from = place + 1;
                break;
            }
            at = p;
        }
        self.follow(from, at);
        true
    }

    fn choose(&mut self, parent: Option<MessageId>, id: MessageId) {
        self.revision += 1;
        match parent {
            None => self.shown = Some(id),
            Some(p) => {
                if let Some(m) = self.get_mut(p) {
                    m.shown = Some(id);
                }
            }
        }
    }

    /// Makes `id` the `place`th message of the path shown, with what is shown behind it.
    fn follow(&mut self, place: usize, id: MessageId) {
        self.path.truncate(place);
        let mut next = Some(id);
        while let Some(id) = next {
            self.path.push(id);
            next = self.get(id).and_then(|m| m.shown);
        }
    }

    /// Where a message is.
    fn index(&self, id: MessageId) -> Option<usize> {
        self.messages.binary_search_by_key(&id, |m| m.id).ok()
    }
}

#[cfg(test)]
mod tests;
