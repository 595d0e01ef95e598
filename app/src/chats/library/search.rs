//! Finding words.

use std::{cmp::Reverse, ops::Range};

use super::{Hit, entry::Entry};
use crate::chats::{Chat, Message, names};

/// Characters of an excerpt before what was found.
const BEFORE: usize = 32;
/// And behind it.
const BEHIND: usize = 88;

/// A text in which case makes no difference.
pub(super) fn fold(text: &str) -> String {
    if text.is_ascii() { text.to_ascii_lowercase() } else { text.chars().flat_map(fold_char).collect() }
}

fn fold_char(c: char) -> impl Iterator<Item = char> {
    // The Greek sigma has two small forms.
    c.to_lowercase().map(|c| if c == 'ς' { 'σ' } else { c })
}

/// What is looked for.
struct Query {
    phrase: String,
    words: Vec<String>,
}

impl Query {
    fn new(text: &str) -> Self {
        let words: Vec<String> = fold(text).split_whitespace().map(str::to_owned).collect();
        Self { phrase: words.join(" "), words }
    }

    /// Where it is in a folded text: all words side by side, or else the first of them if the others are there too.
    fn find(&self, folded: &str) -> Option<Range<usize>> {
        if let Some(at) = folded.find(&self.phrase) {
            return Some(at..at + self.phrase.len());
        }
        let [first, rest @ ..] = self.words.as_slice() else { return None };
        let at = folded.find(first)?;
        rest.iter().all(|word| folded.contains(word)).then_some(at..at + first.len())
    }
}

/// Where words occur: in titles first, then in messages, the newest first.
pub(super) fn search<'a>(entries: impl Iterator<Item = &'a Entry>, words: &str, limit: usize) -> Vec<Hit> {
    let query = Query::new(words);
    if query.words.is_empty() {
        return Vec::new();
    }
    let mut found: Vec<(Option<&Message>, &Chat, Range<usize>)> = Vec::new();
    for (chat, texts) in entries.filter_map(Entry::folded) {
        found.extend(query.find(&fold(chat.name())).map(|range| (None, chat, range)));
        let messages = chat.tree.messages().iter().zip(texts);
        found.extend(messages.filter_map(|(m, folded)| Some((Some(m), chat, query.find(folded)?))));
    }
    found.sort_by_key(|(message, chat, _)| {
        let at = message.map_or(chat.updated_ms, |m| m.created_ms);
        (message.is_some(), Reverse((at, message.map(|m| m.id), &chat.id)))
    });
    found.truncate(limit);
    let hit = |(message, chat, range): (Option<&Message>, &Chat, Range<usize>)| {
        let text = message.map_or(chat.name(), |m| &m.text);
        let (excerpt, range) = excerpt(text, &unfolded(text, &range));
        Hit { chat: chat.id.clone(), title: chat.name().to_owned(), message: message.map(|m| m.id), excerpt, range }
    };
    found.into_iter().map(hit).collect()
}

/// A range of a folded text, in the text itself: letters may have another length in the other case.
fn unfolded(text: &str, folded: &Range<usize>) -> Range<usize> {
    if text.is_ascii() {
        return folded.clone();
    }
    let (mut at, mut start) = (0, None);
    for (place, c) in text.char_indices() {
        at += fold_char(c).map(char::len_utf8).sum::<usize>();
        if at > folded.start {
            start.get_or_insert(place);
        }
        if at >= folded.end {
            return start.unwrap_or(place)..place + c.len_utf8();
        }
    }
    start.unwrap_or(text.len())..text.len()
}

/// What is around a range, on one line, and where the range is in it.
fn excerpt(text: &str, range: &Range<usize>) -> (String, Range<usize>) {
    let (before, behind) = (text.get(..range.start).unwrap_or_default(), text.get(range.end..).unwrap_or_default());
    // At most so many characters, beginning and ending with a word where one does.
    let begin = match before.char_indices().rev().nth(BEFORE) {
        None => 0,
        Some((at, _)) => {
            before.get(at..).and_then(|cut| cut.find(char::is_whitespace)).map_or_else(|| names::whole(text, at), |w| at + w)
        }
    };
    let end = match behind.char_indices().nth(BEHIND) {
        None => text.len(),
        Some((at, _)) => {
            let word = behind.get(..at).and_then(|kept| kept.rfind(char::is_whitespace)).filter(|&w| w > at / 2);
            word.map_or_else(|| names::whole(text, range.end + at), |w| range.end + w)
        }
    };
    let end = end.max(range.end);
    let mut excerpt = String::from(if begin > 0 { "…" } else { "" });
    let shift = excerpt.len();
    // One byte for one byte, so that the range stays where it is.
    excerpt.extend(text.get(begin..end).unwrap_or_default().chars().map(|c| if c.is_ascii_control() { ' ' } else { c }));
    if end < text.len() {
        excerpt.push('…');
    }
    (excerpt, range.start - begin + shift..range.end - begin + shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str, words: &str) -> Option<(String, String)> {
        let range = Query::new(words).find(&fold(text))?;
        let (excerpt, range) = excerpt(text, &unfolded(text, &range));
        Some((excerpt.clone(), excerpt.get(range).unwrap_or("not a range").to_owned()))
    }

    #[test]
    fn case_makes_no_difference() {
        let found = |text, words| shown(text, words).map(|(_, found)| found);
        assert_eq!(found("Hello World", "WORLD").as_deref(), Some("World"));
        assert_eq!(found("Grüße aus KÖLN", "köln").as_deref(), Some("KÖLN"));
        assert_eq!(found("İstanbul ve KÖLN", "köln").as_deref(), Some("KÖLN"));
        assert_eq!(found("300 K at the ΟΔΟΣ", "οδος").as_deref(), Some("ΟΔΟΣ"));
        assert_eq!(found("今天的天气很好", "天气").as_deref(), Some("天气"));
        assert_eq!(found("Привет, МИР", "мир").as_deref(), Some("МИР"));
        assert_eq!(found("one two three", "three one").as_deref(), Some("three"));
        assert_eq!(found("one two three", "one  two").as_deref(), Some("one two"));
        assert_eq!(found("one two", "one three"), None);
        assert_eq!(Query::new(" \n").find("x"), Some(0..0)); // which `search` does not ask
    }

    #[test]
    fn excerpts() {
        let long = format!("{} needle\nin the hay {}", "left ".repeat(40), "right ".repeat(40));
        let (excerpt, found) = shown(&long, "NEEDLE").unwrap_or_default();
        assert_eq!(found, "needle");
        assert!(excerpt.starts_with("… left") && excerpt.ends_with("right…") && !excerpt.contains('\n'), "{excerpt}");
        assert!(excerpt.chars().count() < BEFORE + BEHIND + 10);
        let cjk = format!("{}针{}", "草".repeat(500), "👩\u{200d}👩\u{200d}👧".repeat(100));
        let (excerpt, found) = shown(&cjk, "针").unwrap_or_default();
        assert_eq!(found, "针");
        assert!(excerpt.ends_with("👧…"), "{excerpt}");
        assert_eq!(shown("x", "X"), Some(("x".into(), "x".into())));
    }

    #[test]
    fn every_word_of_odd_texts_is_found_where_it_is() {
        let text = "ẞ İ K Å ſ Ω ﬁ ǅ e\u{301} 世界 🦀 end";
        for word in text.split(' ') {
            assert_eq!(shown(text, word).map(|(_, found)| found).as_deref(), Some(word), "{word}");
        }
    }
}
