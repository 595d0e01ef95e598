//! All conversations.

mod entry;
mod search;
#[cfg(test)]
mod tests;

use std::{
    borrow::Cow,
    collections::{BTreeSet, HashMap},
    io, mem,
};

use pleiad_models::Role;

use self::entry::{Entry, Op};
use super::{
    Answer, Chat, ChatId, MessageId, Rating, Setup,
    log::Event,
    names::{self, Draws, Kind},
    storage::Storage,
    transfer,
    tree::Tree,
};
use crate::clock::now_ms;

/// How long a conversation stays in the bin.
const BIN_MS: u64 = 30 * 24 * 3600 * 1000;

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
///
/// Every conversation is a file of its own ([`super::log`]), named by the time and a draw. Two programs may use the same
/// storage: neither overwrites what the other wrote, but each sees only at its next start what the other did.
#[derive(Debug)]
pub struct Library {
    storage: Box<dyn Storage>,
    entries: HashMap<ChatId, Entry>,
    /// In the order in which they are listed.
    summaries: Vec<Summary>,
    revision: u64,
    /// Conversations of which something could not be written yet.
    waiting: BTreeSet<ChatId>,
    /// What an earlier run deleted: the file.
    bin: HashMap<ChatId, (u64, String)>,
    problems: Vec<String>,
    draws: Draws,
}

impl Library {
    /// The conversations in that storage. Damaged files are listed as such and left alone.
    pub fn open(storage: Box<dyn Storage>) -> Self {
        let mut new = Self {
            storage,
            entries: HashMap::new(),
            summaries: Vec::new(),
            revision: 0,
            waiting: BTreeSet::new(),
            bin: HashMap::new(),
            problems: Vec::new(),
            draws: Draws::new(),
        };
        let files = new.storage.list().unwrap_or_else(|e| {
            new.problems.push(format!("The conversations in {} cannot be listed: {e}", new.storage.place()));
            Vec::new()
        });
        let now = now_ms();
        for file in files {
            match names::kind(&file) {
                Kind::Chat(id) => new.take_in(id, file),
                Kind::Binned(_, deleted) if now.saturating_sub(deleted) > BIN_MS => {
                    // What cannot be removed now will be tried again the next time.
                    let _ = new.storage.remove(&file);
                }
                Kind::Binned(id, deleted) => {
                    let newest = new.bin.entry(id).or_default();
                    if newest.1.is_empty() || newest.0 < deleted {
                        *newest = (deleted, file);
                    }
                }
                Kind::Other => {}
            }
        }
        new.sort();
        new
    }

    /// Reads a file for its summary.
    fn take_in(&mut self, id: ChatId, file: String) {
        let (entry, summary) = Entry::read(id.clone(), file, self.storage.as_ref());
        self.entries.insert(id, entry);
        self.summaries.push(summary);
    }

    fn sort(&mut self) {
        self.summaries.sort_by(|a, b| (b.pinned, b.updated_ms, &b.id).cmp(&(a.pinned, a.updated_ms, &a.id)));
        self.revision += 1;
    }

    /// Where they are kept, for people.
    pub fn place(&self) -> String {
        self.storage.place()
    }

    /// All conversations: pinned ones first, then those in which something was said last.
    pub fn summaries(&self) -> &[Summary] {
        &self.summaries
    }

    /// Changes whenever a summary does.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// A conversation, read when it is first asked for. `None`: there is none, or it is damaged.
    pub fn chat(&mut self, id: &ChatId) -> Option<&Chat> {
        self.load(id, true);
        self.peek(id)
    }

    /// A conversation that has been read already.
    pub fn peek(&self, id: &ChatId) -> Option<&Chat> {
        self.entries.get(id).filter(|e| e.deleted.is_none())?.chat.as_ref()
    }

    /// Reads a conversation if it has not been read. Whether there is one.
    fn load(&mut self, id: &ChatId, opened: bool) -> bool {
        let Some(entry) = self.entries.get_mut(id) else { return false };
        if entry.chat.is_some() || entry.damaged.is_some() {
            return entry.chat.is_some();
        }
        entry.load(self.storage.as_mut(), opened);
        let loaded = entry.chat.is_some();
        self.refresh(id);
        loaded
    }

    /// A new conversation. Nothing is written, and it is not listed, until something is said in it.
    pub fn create(&mut self, setup: Setup) -> ChatId {
        let id = self.new_id();
        self.entries.insert(id.clone(), Entry::new(Chat::new(id.clone(), now_ms(), setup)));
        id
    }

    fn new_id(&mut self) -> ChatId {
        loop {
            let id = names::chat_id(now_ms(), self.draws.next());
            let taken = self.entries.contains_key(&id) || self.bin.contains_key(&id);
            if !taken && self.storage.size(&names::file(&id)).is_err() {
                return id;
            }
        }
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
        if !self.load(chat, false) {
            return None;
        }
        let at = now_ms();
        let draw = self.draws.next() % 1024;
        let known = self.entries.get(chat)?.chat.as_ref()?;
        let last = known.tree.messages().last().map_or(0, |m| m.id.0);
        // Two programs that add to the same conversation choose different names: the time since it began, and a draw.
        let by_time = at.saturating_sub(known.created_ms).saturating_mul(1024).saturating_add(draw);
        let id = MessageId(if by_time > last && by_time <= Tree::GREATEST { by_time } else { last + 1 + draw });
        let text = Cow::Borrowed(text);
        self.record(chat, Event::Message { id, parent, role, author, at, text, rating: None, answer }).then_some(id)
    }

    /// More of an answer that is being written.
    pub fn extend(&mut self, chat: &ChatId, message: MessageId, text: &str) {
        if !text.is_empty() {
            self.record(chat, Event::Text { id: message, text: Cow::Borrowed(text) });
        }
    }

    /// What is known of an answer now: it is over, or it goes on ([`super::Stop::Unfinished`]).
    pub fn set_answer(&mut self, chat: &ChatId, message: MessageId, answer: Answer) {
        self.record(chat, Event::Answer { id: message, at: now_ms(), answer });
    }

    /// Rates an answer, or takes the rating back.
    pub fn rate(&mut self, chat: &ChatId, message: MessageId, rating: Option<Rating>) {
        if self.changes(chat, |c| c.tree.get(message).is_some_and(|m| m.rating != rating)) {
            self.record(chat, Event::Rating { id: message, rating });
        }
    }

    /// Shows this message among its siblings.
    pub fn show(&mut self, chat: &ChatId, message: MessageId) {
        let hidden = |c: &Chat| c.tree.get(message).is_some_and(|m| c.tree.shown_child(m.parent) != Some(message));
        if self.changes(chat, hidden) {
            self.record(chat, Event::Shown { id: message });
        }
    }

    /// Makes the path shown lead to this message.
    pub fn show_path_to(&mut self, chat: &ChatId, message: MessageId) {
        if self.changes(chat, |c| c.tree.shown_path().binary_search(&message).is_err()) {
            self.record(chat, Event::Path { id: message });
        }
    }

    /// Names a conversation; an empty name is that of its first question.
    pub fn rename(&mut self, chat: &ChatId, title: &str) {
        let title = names::given(title);
        if self.changes(chat, |c| c.title != title) {
            self.record(chat, Event::Title { title });
        }
    }

    /// Keeps it at the top of the list, or no longer.
    pub fn pin(&mut self, chat: &ChatId, pinned: bool) {
        if self.changes(chat, |c| c.pinned != pinned) {
            self.record(chat, Event::Pinned { pinned });
        }
    }

    /// Changes how its answers are made.
    pub fn set_setup(&mut self, chat: &ChatId, setup: Setup) {
        if self.changes(chat, |c| c.setup != setup) {
            self.record(chat, Event::Setup { setup });
        }
    }

    /// Whether a conversation is there and something in it would change.
    fn changes(&mut self, chat: &ChatId, would: impl Fn(&Chat) -> bool) -> bool {
        self.load(chat, false) && self.entries.get(chat).and_then(|e| e.chat.as_ref()).is_some_and(would)
    }

    /// Makes a change and writes it. Whether it could be made; whether it could be written is told by the problems.
    fn record(&mut self, id: &ChatId, event: Event<'_>) -> bool {
        if !self.load(id, false) {
            return false;
        }
        let only_text = matches!(event, Event::Text { .. });
        let Some(entry) = self.entries.get_mut(id) else { return false };
        if !entry.change(event) {
            return false;
        }
        self.write_out(id);
        if !only_text {
            self.refresh(id);
        }
        true
    }

    /// Writes what waits of this conversation, and of all others.
    fn write_out(&mut self, id: &ChatId) {
        if self.waiting.is_empty() {
            if let Some(entry) = self.entries.get_mut(id)
                && !entry.write_out(self.storage.as_mut(), &mut self.problems)
            {
                self.waiting.insert(id.clone());
            }
            return;
        }
        self.waiting.insert(id.clone());
        self.retry();
    }

    /// Tries again to write what could not be written. Every change does so too.
    pub fn retry(&mut self) {
        for id in mem::take(&mut self.waiting) {
            if let Some(entry) = self.entries.get_mut(&id)
                && !entry.write_out(self.storage.as_mut(), &mut self.problems)
            {
                self.waiting.insert(id);
            }
        }
    }

    /// Whether something could not be written yet.
    pub fn unsaved(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Brings the list up to date with a conversation.
    fn refresh(&mut self, id: &ChatId) {
        let Some(entry) = self.entries.get(id) else { return };
        let at = self.summaries.iter().position(|s| s.id == *id);
        if !entry.listed || entry.deleted.is_some() {
            if let Some(at) = at {
                self.summaries.remove(at);
                self.revision += 1;
            }
            return;
        }
        let old = at.and_then(|at| self.summaries.get_mut(at));
        let Some(new) = entry.summary(old.as_deref()) else { return };
        match old {
            Some(old) if *old == new => {}
            Some(old) => {
                *old = new;
                self.sort();
            }
            None => {
                self.summaries.push(new);
                self.sort();
            }
        }
    }

    /// Deletes a conversation. Its file goes to the bin, from which [`Library::undo_delete`] takes it; what has been there
    /// for 30 days is removed when the library is opened.
    pub fn delete(&mut self, chat: &ChatId) {
        let Some(entry) = self.entries.get_mut(chat).filter(|e| e.deleted.is_none()) else { return };
        if !entry.listed {
            // Nothing was said in it.
            self.entries.remove(chat);
            return;
        }
        let now = now_ms();
        entry.deleted = Some(now);
        entry.push(Op::Move(names::binned(chat, now)));
        self.write_out(chat);
        self.refresh(chat);
    }

    /// Takes a conversation back from the bin. Whether it was there.
    pub fn undo_delete(&mut self, chat: &ChatId) -> bool {
        let file = names::file(chat);
        if let Some(entry) = self.entries.get_mut(chat) {
            if entry.deleted.is_none() {
                return false;
            }
            if !entry.unmove() {
                // Another program may have made it anew.
                if self.storage.size(&file).is_ok() {
                    self.problems.push(format!("{file} is there already, so the deleted one stays in the bin"));
                    return false;
                }
                entry.push(Op::Move(file));
            }
            entry.deleted = None;
            self.write_out(chat);
            // A conversation that was never read has no summary left.
            self.load(chat, false);
        } else {
            let Some((_, binned)) = self.bin.get(chat) else { return false };
            let free = matches!(self.storage.size(&file), Err(e) if e.kind() == io::ErrorKind::NotFound);
            let moved = if free { self.storage.rename(binned, &file) } else { Err(io::ErrorKind::AlreadyExists.into()) };
            if let Err(e) = moved {
                self.problems.push(format!("{binned} cannot be taken back from the bin: {e}"));
                return false;
            }
            self.bin.remove(chat);
            self.take_in(chat.clone(), file);
            self.sort();
        }
        self.refresh(chat);
        true
    }

    /// Where words occur, in titles and on all branches, case ignored; best first, at most `limit`. A title or message that
    /// holds all of the words is found, wherever they stand. Titles come first, then the newest messages.
    pub fn search(&mut self, words: &str, limit: usize) -> Vec<Hit> {
        let ids: Vec<ChatId> = self.summaries.iter().filter(|s| s.damaged.is_none()).map(|s| s.id.clone()).collect();
        for id in &ids {
            if self.load(id, false)
                && let Some(entry) = self.entries.get_mut(id)
            {
                entry.fold();
            }
        }
        search::search(ids.iter().filter_map(|id| self.entries.get(id)), words, limit)
    }

    /// What went wrong since this was last asked, in words.
    pub fn take_problems(&mut self) -> Vec<String> {
        mem::take(&mut self.problems)
    }

    /// Adds conversations from a file that [`super::transfer`] wrote (JSON), or that was a log. Returns them.
    ///
    /// Taken as well: what `/save` of `pleiad run` writes, and lists of messages as other programs export them. What could not
    /// be taken of a damaged log is told by [`Library::take_problems`].
    ///
    /// # Errors
    /// In words, where the file is none of these.
    pub fn import(&mut self, name: &str, bytes: &[u8]) -> Result<Vec<ChatId>, String> {
        let imported = transfer::import(name, bytes, now_ms())?;
        self.problems.extend(imported.lost);
        let mut ids = Vec::with_capacity(imported.chats.len());
        for mut chat in imported.chats {
            let id = self.new_id();
            chat.id = id.clone();
            let mut entry = Entry::new(chat);
            entry.listed = true;
            entry.push(Op::Whole);
            self.entries.insert(id.clone(), entry);
            self.write_out(&id);
            self.refresh(&id);
            ids.push(id);
        }
        Ok(ids)
    }
}

impl Drop for Library {
    fn drop(&mut self) {
        // The last chance.
        self.retry();
    }
}
