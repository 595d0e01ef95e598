//! A conversation as JSON lines.
//!
//! ```text
//! {"chat":{"version":1,"created":1767225599999}}
//! {"message":{"id":61,"role":"user","at":1767225600000,"text":"Why is the sky blue?"}}
//! {"message":{"id":70,"parent":61,"role":"assistant","at":1767225600142,"answer":{"model":"tiny",...}}}
//! {"text":{"id":70,"text":"Because"}}
//! {"text":{"id":70,"text":" of"}}
//! {"answer":{"id":70,"at":1767225601005,"answer":{"model":"tiny",...,"stop":"cancelled"}}}
//! {"rating":{"id":70,"rating":"good"}}
//! ```
//!
//! The first line says what it is; every other line is one thing that happened. Times are in milliseconds since 1970. A message
//! is named by a number greater than that of the message it follows.
//!
//! **Reading.** Kinds of lines and fields that are not known here were written by a later version and are passed over; so is a
//! last line that was cut off. Before more is added after a line that was cut off, it is closed by a `#` (so that it cannot be
//! taken for a whole one) and followed by `{"torn":{}}`, which excuses it.
//! Anything else that cannot be understood is damage: the conversation is not opened, and its file is left as it is.
//!
//! **Two programs** may have the same conversation open. Each only ever adds whole lines at the end, and names new messages by
//! the time and a draw, so what both wrote is there when it is opened next: as branches of one tree. A log is written anew only
//! when it is opened, and only after nothing has happened in it for an hour.

use std::{borrow::Cow, collections::BTreeMap};

use pleiad_models::Role;
use serde::{Deserialize, Serialize, de::IgnoredAny};

use super::{Answer, Chat, ChatId, Message, MessageId, Rating, Setup, names};

/// The version of the format that is written, and the latest that is read.
const VERSION: u32 = 1;
/// The kinds of lines that there are.
const KINDS: [&str; 11] = ["chat", "message", "text", "answer", "rating", "shown", "path", "title", "pinned", "setup", "torn"];
/// Says that the line before was cut off.
const TORN: &str = r#"{"torn":{}}"#;
/// Closes a line that was cut off. Only its end may have been missing, and it will be written again: it must not count twice.
const CLOSED: u8 = b'#';

/// A line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Event<'a> {
    /// The first line. `updated`: when something was last said in what follows, where no line says so.
    Chat {
        version: u32,
        created: u64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        updated: Option<u64>,
    },
    /// A message is begun, and shown.
    Message {
        id: MessageId,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        parent: Option<MessageId>,
        role: Role,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        author: Option<String>,
        at: u64,
        #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
        text: Cow<'a, str>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rating: Option<Rating>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        answer: Option<Answer>,
    },
    /// More of its text.
    Text {
        id: MessageId,
        #[serde(borrow)]
        text: Cow<'a, str>,
    },
    /// How it was made, as far as is known now.
    Answer { id: MessageId, at: u64, answer: Answer },
    /// What a person thinks of it; `null`: nothing.
    Rating { id: MessageId, rating: Option<Rating> },
    /// It is shown among its siblings.
    Shown { id: MessageId },
    /// It, and all that it follows, is shown.
    Path { id: MessageId },
    /// A person names the conversation; empty: it is named by its first question again.
    Title { title: String },
    /// It stays at the top of the list, or no longer.
    Pinned { pinned: bool },
    /// How its answers are made from now on.
    Setup { setup: Setup },
    /// The line before was cut off.
    Torn {},
}

impl Event<'_> {
    /// As a line, with its end.
    pub(super) fn line(&self) -> Vec<u8> {
        let mut line = Vec::with_capacity(96);
        // Writing JSON to memory fails for maps whose keys are no strings; there are none.
        let written = serde_json::to_writer(&mut line, self);
        debug_assert!(written.is_ok());
        line.push(b'\n');
        line
    }
}

/// Makes in a conversation what a line says: the one way in which conversations change, while they are open and when they are
/// read.
///
/// # Errors
/// In words, where the line makes no sense in this conversation, which is then unchanged.
pub(super) fn apply(chat: &mut Chat, event: Event<'_>) -> Result<(), String> {
    let absent = |id: MessageId| format!("there is no message {}", id.0);
    match event {
        Event::Chat { .. } => return Err("the conversation begins a second time".into()),
        Event::Message { id, parent, role, author, at, text, rating, answer } => {
            let title = if chat.title.is_empty() && role == Role::User { names::title_of(&text) } else { String::new() };
            let (text, answer) = (text.into_owned(), answer.map(Answer::finite));
            let (children, shown, created_ms) = (Vec::new(), None, at);
            chat.tree.push(Message { id, parent, children, shown, role, author, text, created_ms, rating, answer })?;
            chat.updated_ms = chat.updated_ms.max(at);
            if !title.is_empty() {
                chat.title = title;
            }
        }
        Event::Text { id, text } => chat.tree.get_mut(id).ok_or_else(|| absent(id))?.text.push_str(&text),
        Event::Answer { id, at, answer } => {
            chat.tree.get_mut(id).ok_or_else(|| absent(id))?.answer = Some(answer.finite());
            chat.updated_ms = chat.updated_ms.max(at);
        }
        Event::Rating { id, rating } => chat.tree.get_mut(id).ok_or_else(|| absent(id))?.rating = rating,
        Event::Shown { id } => chat.tree.show(id).then_some(()).ok_or_else(|| absent(id))?,
        Event::Path { id } => chat.tree.show_path_to(id).then_some(()).ok_or_else(|| absent(id))?,
        Event::Title { title } => {
            let named = || {
                let questions = chat.tree.messages().iter().filter(|m| m.role == Role::User);
                questions.map(|m| names::title_of(&m.text)).find(|title| !title.is_empty())
            };
            chat.title = Some(names::given(&title)).filter(|title| !title.is_empty()).or_else(named).unwrap_or_default();
        }
        Event::Pinned { pinned } => chat.pinned = pinned,
        Event::Setup { setup } => chat.setup = setup,
        Event::Torn {} => {}
    }
    Ok(())
}

/// A conversation in as few lines as it takes.
pub(super) fn write(chat: &Chat) -> Vec<u8> {
    lines(chat).concat()
}

/// The lines of [`write`].
pub(super) fn lines(chat: &Chat) -> Vec<Vec<u8>> {
    let last_said = chat.tree.messages().iter().map(|m| m.created_ms).fold(chat.created_ms, u64::max);
    let updated = (chat.updated_ms != last_said).then_some(chat.updated_ms);
    let mut lines = vec![Event::Chat { version: VERSION, created: chat.created_ms, updated }.line()];
    if chat.setup != Setup::default() {
        lines.push(Event::Setup { setup: chat.setup.clone() }.line());
    }
    if !chat.title.is_empty() {
        lines.push(Event::Title { title: chat.title.clone() }.line());
    }
    if chat.pinned {
        lines.push(Event::Pinned { pinned: true }.line());
    }
    for m in chat.tree.messages() {
        let event = Event::Message {
            id: m.id,
            parent: m.parent,
            role: m.role,
            author: m.author.clone(),
            at: m.created_ms,
            text: Cow::Borrowed(&m.text),
            rating: m.rating,
            answer: m.answer.clone(),
        };
        lines.push(event.line());
    }
    // Wherever there is a choice, what was chosen.
    let parents = std::iter::once(None).chain(chat.tree.messages().iter().map(|m| Some(m.id)));
    let forks = parents.filter(|&p| chat.tree.children(p).len() > 1);
    lines.extend(forks.filter_map(|p| chat.tree.shown_child(p)).map(|id| Event::Shown { id }.line()));
    lines
}

/// How a log ends, and thus what must come before the next line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Tail {
    /// With the end of a line.
    #[default]
    Whole,
    /// With a line that lacks only its end.
    Open,
    /// With a line that was cut off.
    Torn,
}

impl Tail {
    /// What must come before the next line.
    pub(super) fn mend(self) -> Vec<u8> {
        match self {
            Self::Whole => Vec::new(),
            Self::Open => b"\n".to_vec(),
            Self::Torn => format!("{}\n{TORN}\n", char::from(CLOSED)).into_bytes(),
        }
    }
}

/// A log that was read.
#[derive(Debug)]
pub(super) struct Read {
    /// What it says.
    pub chat: Chat,
    /// How it ends.
    pub tail: Tail,
    /// Lines of kinds that are not known here.
    pub unknown: usize,
    /// Lines that could not be understood ([`salvage`]).
    pub lost: usize,
}

/// Reads a log.
///
/// # Errors
/// In words, where it is damaged.
pub(super) fn read(id: &ChatId, bytes: &[u8]) -> Result<Read, String> {
    walk(id, bytes, true)
}

/// Reads what can be read of a damaged log. Messages whose predecessor is lost begin the conversation anew. `None`: nothing.
pub(super) fn salvage(id: &ChatId, bytes: &[u8]) -> Option<Read> {
    walk(id, bytes, false).ok().filter(|read| !read.chat.tree.is_empty())
}

/// Whether bytes begin as a log does. Its very first lines may be damaged.
pub(super) fn is_log(bytes: &[u8]) -> bool {
    bytes.split(|&b| b == b'\n').take(16).any(|line| matches!(parse(line.trim_ascii()), Line::Event(_)))
}

enum Line<'a> {
    Event(Event<'a>),
    Unknown,
    Bad(String),
}

fn parse(line: &[u8]) -> Line<'_> {
    let text = match std::str::from_utf8(line) {
        Ok(text) => text,
        Err(e) => return Line::Bad(e.to_string()),
    };
    serde_json::from_str(text).map_or_else(
        |e| {
            let unknown = |o: BTreeMap<String, IgnoredAny>| o.len() == 1 && o.keys().all(|k| !KINDS.contains(&k.as_str()));
            if serde_json::from_str(text).is_ok_and(unknown) { Line::Unknown } else { Line::Bad(e.to_string()) }
        },
        Line::Event,
    )
}

fn walk(id: &ChatId, bytes: &[u8], strict: bool) -> Result<Read, String> {
    let mut chat: Option<Chat> = (!strict).then(|| Chat::new(id.clone(), 0, Setup::default()));
    let (mut unknown, mut lost, mut tail, mut begun) = (0, 0, Tail::Whole, false);
    // A line that is excused by what follows: nothing, or the mark that it was cut off.
    let mut cut_off: Option<String> = None;
    for (number, raw) in (1u64..).zip(bytes.split_inclusive(|&b| b == b'\n')) {
        let line = raw.trim_ascii();
        tail = if raw.ends_with(b"\n") { Tail::Whole } else { Tail::Open };
        if line.iter().all(|&b| b == CLOSED) {
            continue;
        }
        let damage = |what: String| format!("line {number}: {what}");
        let mut harm = |what: String| {
            lost += 1;
            if strict { Err(what) } else { Ok(()) }
        };
        let event = match parse(line) {
            // The mark itself was cut off.
            Line::Bad(_) if cut_off.is_some() && begins_mark(line) => {
                tail = Tail::Torn;
                continue;
            }
            Line::Bad(what) => {
                tail = Tail::Torn;
                if let Some(earlier) = cut_off.replace(damage(what)) {
                    harm(earlier)?;
                }
                continue;
            }
            Line::Event(Event::Torn {}) => {
                cut_off = None;
                continue;
            }
            Line::Unknown => None,
            Line::Event(event) => Some(event),
        };
        if let Some(earlier) = cut_off.take() {
            harm(earlier)?;
        }
        let empty = chat.as_ref().is_none_or(|c| c.tree.is_empty());
        match (event, &mut chat) {
            (Some(Event::Chat { version, created, updated }), _) if !begun && empty => {
                if version > VERSION {
                    return Err(format!("it was written by a later version of Pleiad (format {version})"));
                }
                begun = true;
                let mut new = Chat::new(id.clone(), created, Setup::default());
                new.updated_ms = updated.unwrap_or(created);
                chat = Some(new);
            }
            (None, Some(_)) => unknown += 1,
            (Some(event), Some(chat)) => {
                if let Err(what) = apply_or_adopt(chat, event, strict) {
                    harm(damage(what))?;
                }
            }
            (_, None) => return Err(damage("a conversation does not begin like this".into())),
        }
    }
    if cut_off.is_some() {
        tail = Tail::Torn;
        lost += usize::from(!strict);
    }
    match chat {
        Some(chat) => Ok(Read { chat, tail, unknown, lost }),
        None if bytes.is_empty() => Err("it is empty".into()),
        None => Err("it ends within its first line".into()),
    }
}

/// Whether a line is the beginning of the mark, closed or not.
fn begins_mark(line: &[u8]) -> bool {
    let end = line.iter().rposition(|&b| b != CLOSED).map_or(0, |at| at + 1);
    line.get(..end).is_some_and(|line| TORN.as_bytes().starts_with(line))
}

/// [`apply`]; unless strict, a message whose predecessor is lost begins the conversation.
fn apply_or_adopt(chat: &mut Chat, event: Event<'_>, strict: bool) -> Result<(), String> {
    match event {
        Event::Message { id, parent: Some(parent), role, author, at, text, rating, answer }
            if !strict && (parent >= id || chat.tree.get(parent).is_none()) =>
        {
            apply(chat, Event::Message { id, parent: None, role, author, at, text, rating, answer })?;
            Err("what it follows is lost".into())
        }
        event => apply(chat, event),
    }
}

#[cfg(test)]
mod tests;
