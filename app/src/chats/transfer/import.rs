//! Conversations from files: those of [`super::to_json`], logs, and the lists of messages that other programs write.

use std::borrow::Cow;

use pleiad_models::Role;
use serde_json::{Map, Value};

use super::{Exported, FORMAT, VERSION};
use crate::{
    chats::{
        Answer, Chat, ChatId, MessageId, Setup, Stop,
        log::{self, Event},
        names,
    },
    thinking::{CLOSE, OPEN},
};

/// What was found in a file.
#[derive(Debug, Default)]
pub(in crate::chats) struct Imported {
    /// At least one.
    pub chats: Vec<Chat>,
    /// What could not be taken, in words.
    pub lost: Vec<String>,
}

/// Reads conversations from a file. `now_ms`: their time, where the file says none.
///
/// # Errors
/// In words, where there are none in it.
pub(in crate::chats) fn import(name: &str, bytes: &[u8], now_ms: u64) -> Result<Imported, String> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let failed = |what: String| format!("{name} cannot be imported: {what}");
    if bytes.trim_ascii().is_empty() {
        return Err(failed("it is empty".into()));
    }
    if log::is_log(bytes) {
        return from_log(name, bytes).map_err(failed);
    }
    let text = std::str::from_utf8(bytes).map_err(|_| failed("it is neither JSON nor text".into()))?;
    let values = match serde_json::from_str::<Value>(text) {
        Ok(value) => apart(value),
        // A conversation on every line.
        Err(whole) => {
            let lines = text.lines().filter(|line| !line.trim().is_empty());
            let values: Result<Vec<Value>, _> = lines.map(serde_json::from_str).collect();
            values.map_err(|_| failed(format!("it is not JSON ({whole})")))?
        }
    };
    let (mut imported, mut first, all) = (Imported::default(), None, values.len());
    let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
    for (i, value) in (1..).zip(values) {
        match conversation(value, stem, now_ms) {
            Ok(chat) => imported.chats.push(chat),
            Err(what) => {
                imported.lost.push(format!("Conversation {i} of {all} in {name} cannot be imported: {what}"));
                first.get_or_insert(what);
            }
        }
    }
    if imported.chats.is_empty() {
        return Err(failed(first.unwrap_or_else(|| "there is no conversation in it".into())));
    }
    Ok(imported)
}

fn from_log(name: &str, bytes: &[u8]) -> Result<Imported, String> {
    let id = ChatId(String::new());
    match log::read(&id, bytes) {
        Ok(read) if read.chat.tree.is_empty() => Err("nothing was said in it".into()),
        Ok(read) => Ok(Imported { chats: vec![read.chat], lost: Vec::new() }),
        Err(what) => {
            let read = log::salvage(&id, bytes).ok_or_else(|| what.clone())?;
            let lines = if read.lost == 1 { "1 line".into() } else { format!("{} lines", read.lost) };
            Ok(Imported {
                chats: vec![read.chat],
                lost: vec![format!("{name} is damaged, and {lines} of it could not be taken ({what})")],
            })
        }
    }
}

/// The conversations of a document, each by itself.
fn apart(value: Value) -> Vec<Value> {
    match value {
        Value::Array(items) if items.iter().any(|i| !is_message(i)) => items,
        Value::Object(mut object) => match object.get_mut("conversations") {
            // A list of conversations, rather than the messages of one under that name.
            Some(Value::Array(items)) if items.iter().any(|i| !is_message(i)) => std::mem::take(items),
            _ => vec![Value::Object(object)],
        },
        value => vec![value],
    }
}

fn is_message(value: &Value) -> bool {
    value.as_object().is_some_and(|o| role_of(o).is_some())
}

fn conversation(value: Value, name: &str, now_ms: u64) -> Result<Chat, String> {
    match value {
        Value::Array(items) if !items.is_empty() => from_list(&items, &Map::new(), name, now_ms),
        Value::Object(object) if object.get("format").is_some_and(|f| f == FORMAT) => from_exported(object),
        Value::Object(object) => {
            let lists = ["messages", "conversations", "conversation", "history"].into_iter().filter_map(|key| object.get(key));
            let list = lists.filter_map(Value::as_array).find(|items| !items.is_empty());
            from_list(list.ok_or("there are no messages in it")?, &object, name, now_ms)
        }
        _ => Err("there are no messages in it".into()),
    }
}

/// What [`super::to_json`] wrote.
fn from_exported(object: Map<String, Value>) -> Result<Chat, String> {
    if let Some(version) = object.get("version").and_then(Value::as_u64).filter(|&v| v > VERSION.into()) {
        return Err(format!("it was written by a later version of Pleiad (format {version})"));
    }
    let mut exported: Exported = serde_json::from_value(Value::Object(object)).map_err(|e| e.to_string())?;
    if exported.messages.is_empty() {
        return Err("there are no messages in it".into());
    }
    let mut chat = Chat::new(ChatId(String::new()), exported.created, exported.setup);
    chat.title = names::given(&exported.title);
    chat.pinned = exported.pinned;
    exported.messages.sort_by_key(|m| m.id);
    let shown: Vec<MessageId> = exported.messages.iter().filter(|m| m.shown).map(|m| m.id).collect();
    for m in exported.messages {
        let (id, parent, role, author, at) = (m.id, m.parent, m.role, m.author, m.created);
        let text = Cow::Owned(m.content);
        log::apply(&mut chat, Event::Message { id, parent, role, author, at, text, rating: m.rating, answer: m.answer })?;
    }
    for id in shown {
        chat.tree.show(id);
    }
    chat.updated_ms = exported.updated;
    Ok(chat)
}

/// The name of who speaks in a message, as other programs have it.
fn role_of(message: &Map<String, Value>) -> Option<&str> {
    let author = message.get("author").and_then(|a| a.get("role"));
    [message.get("role"), message.get("from"), author].into_iter().flatten().find_map(Value::as_str)
}

/// A list of messages: `{"role", "content"}`, or `{"from", "value"}`.
fn from_list(items: &[Value], about: &Map<String, Value>, name: &str, now_ms: u64) -> Result<Chat, String> {
    let string = |key: &str| about.get(key).and_then(Value::as_str).unwrap_or_default();
    let mut chat = Chat::new(ChatId(String::new()), now_ms, Setup::default());
    chat.setup.system = string("system").to_owned();
    chat.title = names::given(string("title"));
    let mut last = None;
    for (number, item) in (1..).zip(items) {
        let message = item.as_object().ok_or_else(|| format!("message {number} is none"))?;
        let role_name = role_of(message).ok_or_else(|| format!("message {number} does not say who speaks"))?;
        let text = text_of(message);
        let (role, author) = match role_name {
            "system" | "developer" => (Role::System, None),
            "user" | "human" | "prompter" => (Role::User, None),
            "assistant" | "gpt" | "model" | "bot" | "chatgpt" => (Role::Assistant, None),
            // Tools and whoever else: kept, with their name.
            other => (Role::Assistant, Some(other.to_owned())),
        };
        if role == Role::System && last.is_none() {
            let system = &mut chat.setup.system;
            *system = if system.is_empty() { text } else { format!("{system}\n\n{text}") };
            continue;
        }
        let author = author.or_else(|| message.get("name").and_then(Value::as_str).map(str::to_owned));
        let model = message.get("model").and_then(Value::as_str).unwrap_or_else(|| string("model"));
        let answer = (role == Role::Assistant && !model.is_empty()).then(|| Answer {
            model: model.to_owned(),
            stop: Stop::End,
            ..Answer::default()
        });
        let id = MessageId(number);
        let text = Cow::Owned(text);
        log::apply(&mut chat, Event::Message { id, parent: last, role, author, at: now_ms, text, rating: None, answer })?;
        last = Some(id);
    }
    if last.is_none() {
        return Err("there are no messages in it".into());
    }
    if chat.title.is_empty() {
        chat.title = names::given(name);
    }
    Ok(chat)
}

/// What is said in a message, reasoning and calls of tools included.
fn text_of(message: &Map<String, Value>) -> String {
    let mut text = String::new();
    let reasoning = ["reasoning_content", "reasoning"].into_iter().find_map(|key| message.get(key)?.as_str());
    if let Some(reasoning) = reasoning.filter(|r| !r.trim().is_empty()) {
        text = format!("{OPEN}\n{}\n{CLOSE}\n\n", reasoning.trim_matches('\n'));
    }
    let content = ["content", "value", "text"].into_iter().find_map(|key| message.get(key));
    text.push_str(&content.map(words).unwrap_or_default());
    if let Some(calls) = message.get("tool_calls").filter(|c| !c.is_null()) {
        text.push_str(&format!("\n\n```json\n{calls:#}\n```"));
    }
    text
}

/// The words of a message's content: a text, or parts of which some are texts.
fn words(content: &Value) -> String {
    match content {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts.iter().map(words).filter(|w| !w.is_empty()).collect::<Vec<_>>().join("\n\n"),
        Value::Object(part) => match (part.get("text"), part.get("parts"), part.get("type").and_then(Value::as_str)) {
            (Some(text), ..) => words(text),
            (None, Some(parts), _) => words(parts),
            // Pictures and the like: that there was one is kept.
            (None, None, Some(kind)) => format!("[{kind}]"),
            (None, None, None) => format!("{content:#}"),
        },
        other => other.to_string(),
    }
}
