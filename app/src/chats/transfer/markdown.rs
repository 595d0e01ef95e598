//! A conversation as Markdown, for people.

use pleiad_models::Role;

use crate::{
    chats::{Answer, Chat, Message, Rating, Stop, names},
    thinking::{Piece, Splitter},
};

/// As Markdown: the path that is shown, attributed, with reasoning folded and a line of statistics under every answer.
pub fn to_markdown(chat: &Chat) -> String {
    let path = chat.tree.shown_path();
    let [year, month, day, hour, minute, _] = names::date(chat.created_ms);
    let mut text = format!("# {}\n\n", plain(chat.name()));
    let other = chat.tree.len().saturating_sub(path.len());
    text.push_str(&format!("*Begun on {year:04}-{month:02}-{day:02} at {hour:02}:{minute:02} UTC"));
    if other > 0 {
        text.push_str(&format!("; {other} {} on other branches", if other == 1 { "message is" } else { "messages are" }));
    }
    text.push_str("*\n");
    if !chat.setup.system.is_empty() {
        text.push_str(&format!("\n## System\n\n{}\n", chat.setup.system.trim_end()));
    }
    for message in path.iter().filter_map(|&id| chat.tree.get(id)) {
        text.push_str(&format!("\n## {}\n\n", plain(&speaker(message))));
        text.push_str(&said(message));
        let notes = notes(message);
        if !notes.is_empty() {
            text.push_str(&format!("\n*{}*\n", notes.join(" · ")));
        }
    }
    text
}

/// Who speaks: the persona, else the part.
fn speaker(message: &Message) -> String {
    let part = match message.role {
        Role::System => "System",
        Role::User => "User",
        Role::Assistant => "Assistant",
    };
    match &message.author {
        Some(author) if !author.is_empty() && author != part => format!("{author} ({})", part.to_lowercase()),
        _ => part.to_owned(),
    }
}

/// What is said, with reasoning folded.
fn said(message: &Message) -> String {
    if message.role != Role::Assistant {
        return format!("{}\n", message.text.trim_end());
    }
    let mut splitter = Splitter::new(message.answer.as_ref().is_some_and(|a| a.thinking));
    let mut pieces = splitter.push(&message.text);
    pieces.extend(splitter.finish());
    let seconds = message.answer.as_ref().and_then(|a| a.thought_seconds);
    let mut text = String::new();
    // What is held back to the end comes as a piece of its own.
    for run in pieces.chunk_by(|a, b| std::mem::discriminant(a) == std::mem::discriminant(b)) {
        let words: String = run
            .iter()
            .map(|piece| match piece {
                Piece::Thought(t) | Piece::Answer(t) => t.as_str(),
            })
            .collect();
        let words = words.trim_matches('\n').trim_end();
        if words.is_empty() {
            continue;
        }
        if !text.is_empty() {
            text.push('\n');
        }
        if matches!(run.first(), Some(Piece::Thought(_))) {
            let summary = seconds.map_or("Reasoning".into(), |s| format!("Reasoning ({s:.1} s)"));
            // A mark that ends the fold early would let the rest out.
            let words = words.replace("</details", "&lt;/details");
            text.push_str(&format!("<details>\n<summary>{summary}</summary>\n\n{words}\n\n</details>\n"));
        } else {
            text.push_str(words);
            text.push('\n');
        }
    }
    text
}

/// What is known of a message: how it was made, what it took, and what a person thought of it.
fn notes(message: &Message) -> Vec<String> {
    let mut notes = message.answer.as_ref().map(made).unwrap_or_default();
    notes.extend(message.rating.map(|rating| {
        String::from(match rating {
            Rating::Good => "rated good",
            Rating::Bad => "rated bad",
        })
    }));
    notes
}

fn made(answer: &Answer) -> Vec<String> {
    let mut notes = Vec::new();
    if !answer.model.is_empty() {
        notes.push(plain(&answer.model));
    }
    if let Some(s) = &answer.stats {
        notes.push(format!("prompt {} ({} cached)", tokens(s.prompt_tokens), s.reused_tokens));
        notes.push(format!("first token after {:.2} s", s.prefill_seconds));
        let speed = answer.tokens_per_second().map(|speed| format!(" at {speed:.1} tokens/s")).unwrap_or_default();
        notes.push(format!("{}{speed}", tokens(s.generated_tokens)));
    }
    notes.extend(answer.hit_rate().map(|rate| format!("expert hit rate {:.1}%", 100.0 * rate)));
    notes.push(match &answer.stop {
        Stop::Unfinished => "not finished".into(),
        Stop::End => "ended by the model".into(),
        Stop::Length => "longest answer reached".into(),
        Stop::Context => "context full".into(),
        Stop::Cancelled => "stopped".into(),
        Stop::Failed(what) => format!("failed ({})", plain(what)),
    });
    notes
}

fn tokens(n: usize) -> String {
    if n == 1 { "1 token".into() } else { format!("{n} tokens") }
}

/// A text on one line in which nothing is a mark of Markdown.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            plain.push(' ');
            continue;
        }
        if r"\`*_[]<>#|~".contains(c) {
            plain.push('\\');
        }
        plain.push(c);
    }
    plain
}
