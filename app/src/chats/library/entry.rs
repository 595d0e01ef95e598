//! A conversation and its file.

use std::{borrow::Cow, collections::VecDeque, io};

use super::Summary;
use crate::{
    chats::{
        Chat, ChatId, MessageId,
        log::{self, Event, Tail},
        names,
        storage::Storage,
    },
    clock::now_ms,
};

/// A log longer than this is written anew if its content is much shorter.
const LONG: usize = 64 << 10;
/// How much shorter.
const MUCH: usize = 4;
/// And only if nothing has happened in it for so long: another program may be writing it.
const IDLE_MS: u64 = 3600 * 1000;

/// Something to be done to a file.
#[derive(Debug)]
pub(super) enum Op {
    /// A line is added.
    Line(Vec<u8>),
    /// The line that more text makes is added.
    Text(MessageId, String),
    /// It is written as a whole.
    Whole,
    /// It is renamed.
    Move(String),
}

/// A conversation and its file.
#[derive(Debug)]
pub(super) struct Entry {
    id: ChatId,
    /// Once it was read.
    pub chat: Option<Chat>,
    /// Why it cannot be read.
    pub damaged: Option<String>,
    /// Whether something was said in it.
    pub listed: bool,
    /// When it was deleted.
    pub deleted: Option<u64>,
    /// The name of its file, before what waits is done.
    file: String,
    /// Whether the file is there.
    begun: bool,
    tail: Tail,
    /// What could not be done yet, first things first.
    waiting: VecDeque<Op>,
    /// Whether people know that something could not be done.
    told: bool,
    /// The texts of its messages for searching, and for which revision of the tree.
    folded: Option<(u64, Vec<String>)>,
}

impl Entry {
    /// A conversation that has no file yet.
    pub fn new(chat: Chat) -> Self {
        let mut new = Self::of(chat.id.clone(), names::file(&chat.id));
        new.chat = Some(chat);
        new
    }

    fn of(id: ChatId, file: String) -> Self {
        Self {
            id,
            chat: None,
            damaged: None,
            listed: false,
            deleted: None,
            file,
            begun: false,
            tail: Tail::Whole,
            waiting: VecDeque::new(),
            told: false,
            folded: None,
        }
    }

    /// Reads a file for its summary, and keeps no more.
    pub fn read(id: ChatId, file: String, storage: &dyn Storage) -> (Self, Summary) {
        let bytes = storage.read(&file);
        let mut new = Self { listed: true, begun: true, ..Self::of(id, file) };
        let read = match &bytes {
            Ok(bytes) => log::read(&new.id, bytes),
            Err(e) => Err(e.to_string()),
        };
        let salvaged = match read {
            Ok(read) => Some(read.chat),
            Err(what) => {
                new.damaged = Some(what);
                bytes.ok().and_then(|bytes| log::salvage(&new.id, &bytes)).map(|read| read.chat)
            }
        };
        let summary = match salvaged {
            Some(chat) => summary_of(&chat, new.damaged.clone()),
            None => Summary {
                id: new.id.clone(),
                title: new.id.0.clone(),
                pinned: false,
                updated_ms: 0,
                messages: 0,
                damaged: new.damaged.clone(),
            },
        };
        (new, summary)
    }

    /// Reads the conversation. `opened`: a person has opened it, so its log may be written anew if that is worth it.
    pub fn load(&mut self, storage: &mut dyn Storage, opened: bool) {
        let bytes = storage.read(&self.file);
        match bytes.map_err(|e| e.to_string()).and_then(|bytes| Ok((log::read(&self.id, &bytes)?, bytes.len()))) {
            Ok((read, length)) => {
                self.tail = read.tail;
                if opened && read.unknown == 0 && self.deleted.is_none() {
                    self.shorten(storage, &read.chat, length);
                }
                self.chat = Some(read.chat);
            }
            Err(what) => self.damaged = Some(what),
        }
    }

    /// Writes a log anew that is much longer than what it says.
    fn shorten(&mut self, storage: &mut dyn Storage, chat: &Chat, length: usize) {
        if length < LONG || now_ms().saturating_sub(chat.updated_ms) < IDLE_MS {
            return;
        }
        let short = log::write(chat);
        let same = |other: &Chat| {
            let said = |c: &Chat| c.tree.messages().iter().map(|m| (m.id, m.parent, m.rating, m.text.len())).collect::<Vec<_>>();
            said(other) == said(chat) && other.tree.shown_path() == chat.tree.shown_path() && other.title == chat.title
        };
        if short.len() * MUCH < length
            && log::read(&self.id, &short).is_ok_and(|read| same(&read.chat))
            && storage.size(&self.file).is_ok_and(|now| now == length as u64)
            && storage.write(&self.file, &short).is_ok()
        {
            self.tail = Tail::Whole;
        }
    }

    /// Its line in the list. A conversation that was not read keeps its `old` one.
    pub fn summary(&self, old: Option<&Summary>) -> Option<Summary> {
        match (&self.chat, old) {
            (Some(chat), _) => Some(summary_of(chat, None)),
            (None, Some(old)) => Some(Summary { damaged: self.damaged.clone(), ..old.clone() }),
            (None, None) => Some(Summary {
                id: self.id.clone(),
                title: self.id.0.clone(),
                pinned: false,
                updated_ms: 0,
                messages: 0,
                damaged: Some(self.damaged.clone()?),
            }),
        }
    }

    /// Makes a change, and notes what is to be written. Whether it could be made.
    pub fn change(&mut self, event: Event<'_>) -> bool {
        let Some(chat) = &mut self.chat else { return false };
        let op = match &event {
            Event::Text { id, text } => Op::Text(*id, text.clone().into_owned()),
            event => Op::Line(event.line()),
        };
        if log::apply(chat, event).is_err() {
            return false;
        }
        if self.begun || !self.waiting.is_empty() {
            self.push(op);
        } else if !chat.tree.is_empty() {
            // The first thing that is said in it.
            self.waiting.extend(log::lines(chat).into_iter().map(Op::Line));
            self.listed = true;
        }
        true
    }

    /// Notes something to be done.
    pub fn push(&mut self, op: Op) {
        if matches!(op, Op::Line(_) | Op::Text(..)) && self.waiting.iter().any(|w| matches!(w, Op::Whole)) {
            // It will be in there.
            return;
        }
        match (op, self.waiting.back_mut()) {
            (Op::Text(id, more), Some(Op::Text(last, text))) if *last == id => text.push_str(&more),
            (op, _) => self.waiting.push_back(op),
        }
    }

    /// Takes back a renaming that was not done yet. Whether there was one.
    pub fn unmove(&mut self) -> bool {
        self.waiting.pop_back_if(|op| matches!(op, Op::Move(_))).is_some()
    }

    /// Does what waits. Whether nothing waits any more.
    pub fn write_out(&mut self, storage: &mut dyn Storage, problems: &mut Vec<String>) -> bool {
        while let Some(op) = self.waiting.pop_front() {
            if let Err(e) = self.act(&op, storage) {
                self.waiting.push_front(op);
                if !self.told {
                    self.told = true;
                    let what = "What is new in it is kept in memory, and will be saved as soon as that is possible";
                    problems.push(format!("{} cannot be saved: {e}. {what}", self.file));
                }
                return false;
            }
        }
        if self.told {
            self.told = false;
            problems.push(format!("{} is saved again, and nothing is missing", self.file));
        }
        true
    }

    fn act(&mut self, op: &Op, storage: &mut dyn Storage) -> io::Result<()> {
        match op {
            Op::Line(line) => self.append(line, storage),
            Op::Text(id, text) => self.append(&Event::Text { id: *id, text: Cow::Borrowed(text) }.line(), storage),
            Op::Whole => self.write(storage),
            Op::Move(to) => {
                match storage.rename(&self.file, to) {
                    // Somebody has removed it. What is in memory can still be kept.
                    Err(e) if e.kind() == io::ErrorKind::NotFound => {
                        if let Some(chat) = &self.chat {
                            storage.write(to, &log::write(chat))?;
                            self.tail = Tail::Whole;
                        }
                    }
                    result => result?,
                }
                self.file.clone_from(to);
                Ok(())
            }
        }
    }

    fn append(&mut self, line: &[u8], storage: &mut dyn Storage) -> io::Result<()> {
        if self.begun && storage.size(&self.file).is_err_and(|e| e.kind() == io::ErrorKind::NotFound) {
            // Somebody has removed it while it was open here; a line alone would mean nothing.
            return self.write(storage);
        }
        let appended = match self.tail {
            Tail::Whole => storage.append(&self.file, line),
            tail => storage.append(&self.file, &[tail.mend().as_slice(), line].concat()),
        };
        // What failed may have been written in part.
        self.tail = if appended.is_ok() { Tail::Whole } else { Tail::Torn };
        self.begun |= appended.is_ok();
        appended
    }

    /// Writes all of it, which holds whatever lines wait.
    fn write(&mut self, storage: &mut dyn Storage) -> io::Result<()> {
        if let Some(chat) = &self.chat {
            storage.write(&self.file, &log::write(chat))?;
            (self.begun, self.tail) = (true, Tail::Whole);
            self.waiting.retain(|op| matches!(op, Op::Move(_)));
        }
        Ok(())
    }

    /// Makes it ready for searching.
    pub fn fold(&mut self) {
        let Some(chat) = &self.chat else { return };
        let revision = chat.tree.revision();
        if self.folded.as_ref().is_none_or(|(r, _)| *r != revision) {
            self.folded = Some((revision, chat.tree.messages().iter().map(|m| super::search::fold(&m.text)).collect()));
        }
    }

    /// The conversation, and the texts of its messages as [`Entry::fold`] made them.
    pub fn folded(&self) -> Option<(&Chat, &[String])> {
        Some((self.chat.as_ref()?, &self.folded.as_ref()?.1))
    }
}

fn summary_of(chat: &Chat, damaged: Option<String>) -> Summary {
    Summary {
        id: chat.id.clone(),
        title: chat.name().to_owned(),
        pinned: chat.pinned,
        updated_ms: chat.updated_ms,
        messages: chat.tree.len(),
        damaged,
    }
}
