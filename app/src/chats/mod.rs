//! Conversations: trees of messages, kept as readable files.
//!
//! A conversation is a tree because every edit and every regeneration adds a sibling and loses nothing. What is shown is one
//! path through it, from a first message to a leaf. Each conversation is a file of JSON lines that only ever grows while it is
//! open ([`log`]): whatever was shown has been written before, so a crash loses nothing, and a full disk is reported.
//!
//! | module | what it holds |
//! |---|---|
//! | [`tree`] | messages, their siblings, and the path that is shown |
//! | [`setup`] | system prompt, sampling, and the second mind of a conversation |
//! | [`log`] | a conversation as JSON lines |
//! | [`storage`] | where files are kept: a folder, memory, a browser |
//! | [`library`] | all conversations: list, search, rename, pin, delete with undo |
//! | [`transfer`] | export to Markdown and JSON, import |
//! | `names` | names of conversations and of their files |

pub mod library;
pub mod log;
mod names;
pub mod setup;
pub mod storage;
pub mod transfer;
pub mod tree;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use library::{Hit, Library, Summary};
pub use setup::{Duet, DuetKind, Sampling, Setup};
pub use tree::{Answer, Message, MessageId, Rating, Stop, Tree};

/// Names a conversation, and its file.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ChatId(pub String);

impl fmt::Display for ChatId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// A conversation.
#[derive(Clone, Debug)]
pub struct Chat {
    /// Its name in storage.
    pub id: ChatId,
    /// What it is called; empty until it has been named by its first question or by a person.
    pub title: String,
    /// Whether it stays at the top of the list.
    pub pinned: bool,
    /// When it began, in milliseconds since 1970.
    pub created_ms: u64,
    /// When something was last said in it.
    pub updated_ms: u64,
    /// How its answers are made.
    pub setup: Setup,
    /// What was said.
    pub tree: Tree,
}

impl Chat {
    /// One in which nothing was said yet.
    pub(crate) fn new(id: ChatId, created_ms: u64, setup: Setup) -> Self {
        Self { id, title: String::new(), pinned: false, created_ms, updated_ms: created_ms, setup, tree: Tree::default() }
    }

    /// What it is called, for people; never empty.
    pub fn name(&self) -> &str {
        if self.title.is_empty() { names::UNNAMED } else { &self.title }
    }
}
