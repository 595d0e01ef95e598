//! All conversations.

use super::{Answer, Chat, ChatId, MessageId, Rating, Setup, storage::Storage};
use pleiad_models::Role;

/// A line of the list of conversations.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// Which.
    pub id: ChatId,
    /// What it is called; never empty.
    pub title: String,
    /// Whether it stays at the top.
    pub pinned: bool,
    /// When something was last said in it.
    pub updated_ms: u64,
    /// Messages on all branches.
    pub messages: usize,
    /// Why it cannot be opened, if it cannot.
    pub damaged: Option<String>,
}

/// Where a search found something.
#[derive(Clone, Debug, PartialEq)]
pub struct Hit {
    /// In which conversation.
    pub chat: ChatId,
    /// What that is called.
    pub title: String,
    /// In which message; `None`: in the title.
    pub message: Option<MessageId>,
    /// The words around it.
    pub excerpt: String,
    /// Where the words are in the excerpt, in bytes.
    pub range: std::ops::Range<usize>,
}

/// All conversations, and the storage that keeps them. A change is written before the call returns; what cannot be
/// written stays in memory, is tried again with the next change, and is told by [`Library::take_problems`].
#[derive(Debug)]
pub struct Library {
    storage: Box<dyn Storage>,
}

impl Library {
    /// The conversations in that storage. Damaged files are listed as such and left alone.
    pub fn open(storage: Box<dyn Storage>) -> Self {
        Self { storage }
    }

    /// Where they are kept, for people.
    pub fn place(&self) -> String {
        self.storage.place()
    }

    /// All conversations: pinned ones first, then those in which something was said last.
    pub fn summaries(&self) -> &[Summary] {
        &[]
    }

    /// Changes whenever a summary does.
    pub fn revision(&self) -> u64 {
        0
    }

    /// A conversation, read when it is first asked for. `None`: there is none, or it is damaged.
    pub fn chat(&mut self, id: &ChatId) -> Option<&Chat> {
        let _ = id;
        None
    }

    /// A conversation that has been read already.
    pub fn peek(&self, id: &ChatId) -> Option<&Chat> {
        let _ = id;
        None
    }

    /// A new conversation. Nothing is written, and it is not listed, until something is said in it.
    pub fn create(&mut self, setup: Setup) -> ChatId {
        let _ = setup;
        ChatId(String::new())
    }

    /// A person says something, or an answer is begun (`answer` is given), after `parent`. It is shown from then on.
    pub fn add(
        &mut self,
        chat: &ChatId,
        parent: Option<MessageId>,
        role: Role,
        author: Option<String>,
        text: &str,
        answer: Option<Answer>,
    ) -> Option<MessageId> {
        let _ = (chat, parent, role, author, text, answer);
        None
    }

    /// More of an answer that is being written.
    pub fn extend(&mut self, chat: &ChatId, message: MessageId, text: &str) {
        let _ = (chat, message, text);
    }

    /// What is known of an answer now: it is over, or it goes on ([`super::Stop::Unfinished`]).
    pub fn set_answer(&mut self, chat: &ChatId, message: MessageId, answer: Answer) {
        let _ = (chat, message, answer);
    }

    /// Rates an answer, or takes the rating back.
    pub fn rate(&mut self, chat: &ChatId, message: MessageId, rating: Option<Rating>) {
        let _ = (chat, message, rating);
    }

    /// Shows this message among its siblings.
    pub fn show(&mut self, chat: &ChatId, message: MessageId) {
        let _ = (chat, message);
    }

    /// Makes the path shown lead to this message.
    pub fn show_path_to(&mut self, chat: &ChatId, message: MessageId) {
        let _ = (chat, message);
    }

    /// Names a conversation.
    pub fn rename(&mut self, chat: &ChatId, title: &str) {
        let _ = (chat, title);
    }

    /// Keeps it at the top of the list, or no longer.
    pub fn pin(&mut self, chat: &ChatId, pinned: bool) {
        let _ = (chat, pinned);
    }

    /// Changes how its answers are made.
    pub fn set_setup(&mut self, chat: &ChatId, setup: Setup) {
        let _ = (chat, setup);
    }

    /// Deletes a conversation. Its file goes to the bin, from which [`Library::undo_delete`] takes it; what has been there
    /// for 30 days is removed when the library is opened.
    pub fn delete(&mut self, chat: &ChatId) {
        let _ = chat;
    }

    /// Takes a conversation back from the bin. Whether it was there.
    pub fn undo_delete(&mut self, chat: &ChatId) -> bool {
        let _ = chat;
        false
    }

    /// Where words occur, in titles and on all branches, case ignored; best first, at most `limit`.
    pub fn search(&mut self, words: &str, limit: usize) -> Vec<Hit> {
        let _ = (words, limit);
        Vec::new()
    }

    /// What went wrong since this was last asked, in words.
    pub fn take_problems(&mut self) -> Vec<String> {
        Vec::new()
    }

    /// Adds conversations from a file that [`super::transfer`] wrote (JSON), or that was a log. Returns them.
    ///
    /// # Errors
    /// In words, where the file is none of these.
    pub fn import(&mut self, name: &str, bytes: &[u8]) -> Result<Vec<ChatId>, String> {
        let _ = (name, bytes);
        Err(String::new())
    }
}
