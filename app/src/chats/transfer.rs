//! Export and import.

mod import;
mod markdown;
#[cfg(test)]
mod tests;

use pleiad_models::Role;
use serde::{Deserialize, Serialize};

use super::{Answer, Chat, MessageId, Rating, Setup};

pub(super) use import::import;
pub use markdown::to_markdown;

/// Says that a file is one of these.
const FORMAT: &str = "pleiad-chat";
/// The version that is written, and the latest that is read.
const VERSION: u32 = 1;

/// A conversation in a file of its own. Times are in milliseconds since 1970.
#[derive(Debug, Serialize, Deserialize)]
struct Exported {
    format: String,
    version: u32,
    #[serde(default)]
    title: String,
    #[serde(default)]
    pinned: bool,
    created: u64,
    updated: u64,
    #[serde(default)]
    setup: Setup,
    messages: Vec<ExportedMessage>,
}

/// A message in it; those of all branches are in one list, each after the one it follows.
#[derive(Debug, Serialize, Deserialize)]
struct ExportedMessage {
    id: MessageId,
    parent: Option<MessageId>,
    /// Whether it is the one that is shown among its siblings.
    #[serde(default)]
    shown: bool,
    role: Role,
    #[serde(default)]
    author: Option<String>,
    created: u64,
    content: String,
    #[serde(default)]
    rating: Option<Rating>,
    #[serde(default)]
    answer: Option<Answer>,
}

/// As JSON: the whole tree, with settings, ratings and the statistics of every answer. What [`super::Library::import`] takes.
pub fn to_json(chat: &Chat) -> String {
    let message = |m: &super::Message| ExportedMessage {
        id: m.id,
        parent: m.parent,
        shown: chat.tree.shown_child(m.parent) == Some(m.id),
        role: m.role,
        author: m.author.clone(),
        created: m.created_ms,
        content: m.text.clone(),
        rating: m.rating,
        answer: m.answer.clone(),
    };
    let exported = Exported {
        format: FORMAT.into(),
        version: VERSION,
        title: chat.title.clone(),
        pinned: chat.pinned,
        created: chat.created_ms,
        updated: chat.updated_ms,
        setup: chat.setup.clone(),
        messages: chat.tree.messages().iter().map(message).collect(),
    };
    // Writing JSON to memory fails for maps whose keys are no strings; there are none.
    let mut text = serde_json::to_string_pretty(&exported).unwrap_or_default();
    text.push('\n');
    text
}
