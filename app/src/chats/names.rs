//! Names of conversations and of their files.

use std::hash::{BuildHasher as _, RandomState};

use super::ChatId;

/// What a conversation is called that nobody has named.
pub(super) const UNNAMED: &str = "New conversation";
/// How the name of a conversation's file ends.
pub(super) const ENDING: &str = ".chat.jsonl";
/// What follows in the bin, before the time of deletion in milliseconds since 1970.
const BINNED: &str = ".deleted-";
/// Longest name that is made of a question, in characters.
const LONGEST: usize = 48;
/// Longest name that a person may give, in characters.
const LONGEST_GIVEN: usize = 200;

/// The file of a conversation.
pub(super) fn file(id: &ChatId) -> String {
    format!("{id}{ENDING}")
}

/// Its file in the bin.
pub(super) fn binned(id: &ChatId, deleted_ms: u64) -> String {
    format!("{id}{ENDING}{BINNED}{deleted_ms}")
}

/// What a file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// That of a conversation.
    Chat(ChatId),
    /// That of one that was deleted then.
    Binned(ChatId, u64),
    /// Something else.
    Other,
}

/// What a file of that name is.
pub(super) fn kind(file: &str) -> Kind {
    let id = |stem: &str| (!stem.is_empty()).then(|| ChatId(stem.to_owned()));
    if let Some(id) = file.strip_suffix(ENDING).and_then(id) {
        return Kind::Chat(id);
    }
    let binned =
        file.rsplit_once(BINNED).and_then(|(live, at)| Some((live.strip_suffix(ENDING).and_then(id)?, at.parse().ok()?)));
    binned.map_or(Kind::Other, |(id, at)| Kind::Binned(id, at))
}

/// A name for a conversation that was begun then; `random` tells two of the same second apart.
pub(super) fn chat_id(created_ms: u64, random: u64) -> ChatId {
    let [year, month, day, hour, minute, second] = date(created_ms);
    // No vowels and nothing that is read as something else: no words come about.
    const DIGITS: &[u8; 24] = b"23456789bcdfghjkmnpqrstv";
    let tag: String = (0..6).map(|i| char::from(DIGITS[(random / 24u64.pow(i) % 24) as usize])).collect();
    ChatId(format!("{year:04}-{month:02}-{day:02}-{hour:02}{minute:02}{second:02}-{tag}"))
}

/// Year, month, day, hour, minute and second (UTC).
pub(super) fn date(ms: u64) -> [u64; 6] {
    let seconds = ms / 1000;
    let (mut days, rest) = (seconds / 86_400, seconds % 86_400);
    let leap = |year: u64| (year.is_multiple_of(4) && !year.is_multiple_of(100)) || year.is_multiple_of(400);
    // 400 years have 146,097 days; after that, few enough years are left to count.
    let mut year = 1970 + days / 146_097 * 400;
    days %= 146_097;
    while days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let lengths = [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 1;
    for length in lengths {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    [year, month, days + 1, rest / 3600, rest / 60 % 60, rest % 60]
}

/// Draws that two programs do not share.
#[derive(Clone, Debug)]
pub(super) struct Draws {
    state: u64,
}

impl Draws {
    /// Other draws in every program and every library.
    pub(super) fn new() -> Self {
        // In a browser the hash keys are always the same, so the time counts too.
        Self { state: RandomState::new().hash_one(web_time::SystemTime::UNIX_EPOCH.elapsed().map_or(0, |d| d.as_nanos())) }
    }

    /// The next one.
    pub(super) fn next(&mut self) -> u64 {
        // SplitMix64 (Steele, Lea and Flood 2014).
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }
}

/// A conversation's name from its first question: the first line, cut at a word. Empty where the question has no words.
pub(super) fn title_of(question: &str) -> String {
    // Marks of headings, quotations and lists are no part of a name.
    let bare = |line: &str| one_line(line.trim().trim_start_matches(['#', '>', '*', '`', '-', ' ']));
    let line = question.lines().map(bare).find(|line| line.chars().any(char::is_alphanumeric));
    let line = line.or_else(|| question.lines().map(one_line).find(|line| !line.is_empty())).unwrap_or_default();
    cut(&line, LONGEST)
}

/// A name that a person gave, on one line and not endless.
pub(super) fn given(title: &str) -> String {
    cut(&one_line(title), LONGEST_GIVEN)
}

/// Without control characters, and with single spaces.
fn one_line(text: &str) -> String {
    let visible: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    visible.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// At most `most` characters of a text, a mark that it was cut included: up to the end of a word where one ends in the second
/// half, else within it, but never between a character and what belongs to it.
fn cut(text: &str, most: usize) -> String {
    if text.chars().nth(most).is_none() {
        return text.to_owned();
    }
    let end = text.char_indices().nth(most - 1).map_or(text.len(), |(at, _)| at);
    let (kept, rest) = text.split_at(end);
    let half = text.char_indices().nth(most / 2).map_or(0, |(at, _)| at);
    let word = if rest.starts_with(' ') { Some(kept.len()) } else { kept.rfind(' ') };
    let end = word.filter(|&at| at >= half).unwrap_or_else(|| whole(text, end));
    let kept = text.get(..end).unwrap_or(kept).trim_end_matches([' ', ',', '.', ';', ':', '、', '。', '，']);
    format!("{kept}…")
}

/// The place at or before `end` where a text can be cut.
pub(super) fn whole(text: &str, end: usize) -> usize {
    let belongs = |c: char| matches!(c, '\u{300}'..='\u{36f}' | '\u{200d}' | '\u{fe00}'..='\u{fe0f}' | '\u{1f3fb}'..='\u{1f3ff}' | '\u{20d0}'..='\u{20ff}');
    let mut places = (0..=end.min(text.len())).rev().filter(|&at| text.is_char_boundary(at)).peekable();
    let nearest = places.peek().copied().unwrap_or(0);
    let fits = |at: &usize| {
        let (before, behind) = text.split_at(*at);
        !behind.starts_with(belongs) && !before.ends_with('\u{200d}')
    };
    // Of what belongs together no more than a few characters are looked through.
    places.take(32).find(fits).unwrap_or(nearest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        assert_eq!(date(0), [1970, 1, 1, 0, 0, 0]);
        assert_eq!(date(951_782_400_000), [2000, 2, 29, 0, 0, 0]);
        assert_eq!(date(1_767_225_599_999), [2025, 12, 31, 23, 59, 59]);
        assert_eq!(date(1_709_294_400_000), [2024, 3, 1, 12, 0, 0]);
        assert_eq!(date(4_107_542_400_000), [2100, 3, 1, 0, 0, 0]);
        assert!((1..=12).contains(&date(u64::MAX)[1]));
    }

    #[test]
    fn files() {
        let id = chat_id(1_709_294_400_000, 12345);
        assert!(id.0.starts_with("2024-03-01-120000-") && id.0.len() == 24, "{id}");
        assert_eq!(kind(&file(&id)), Kind::Chat(id.clone()));
        assert_eq!(kind(&binned(&id, 17)), Kind::Binned(id, 17));
        for other in ["settings.json", ".chat.jsonl", "a.jsonl", "a.deleted-3", "a.chat.jsonl.deleted-x", "a.chat.jsonl.bak"] {
            assert_eq!(kind(other), Kind::Other, "{other}");
        }
        let mut draws = Draws::new();
        let ids: std::collections::HashSet<_> = (0..500).map(|_| chat_id(0, draws.next())).collect();
        assert_eq!(ids.len(), 500);
    }

    #[test]
    fn titles() {
        for (question, title) in [
            ("What is it?", "What is it?"),
            ("\n\n  ## A   heading\twith tabs\nmore", "A heading with tabs"),
            ("> quoted", "quoted"),
            ("```\ncode here\n```", "code here"),
            ("???", "???"),
            (" \n\t", ""),
            ("世界", "世界"),
            (
                "Please explain, in simple words, how routing works in a mixture of experts",
                "Please explain, in simple words, how routing…",
            ),
        ] {
            assert_eq!(title_of(question), title, "{question}");
        }
        assert_eq!(title_of(&"x".repeat(100)), format!("{}…", "x".repeat(47)));
        assert_eq!(title_of(&"世".repeat(100)), format!("{}…", "世".repeat(47)));
        // A family of emoji is not torn apart.
        let family = "👩\u{200d}👩\u{200d}👧";
        assert_eq!(title_of(&format!("{}{family}", "x".repeat(46))), format!("{}…", "x".repeat(46)));
        assert_eq!(given("a\u{0}b\n c"), "a b c");
        assert!(given(&"ab ".repeat(500)).chars().count() <= 200);
    }
}
