#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

use pleiad_runtime::{SamplingParams, engine::GenerationStats};

use super::*;
use crate::chats::{Sampling, Stop};

fn id() -> ChatId {
    ChatId("a".into())
}

fn answer(stop: Stop) -> Answer {
    let mut stats = GenerationStats { prompt_tokens: 7, decode_seconds: 0.5, ..GenerationStats::default() };
    stats.decode_device.expert_hits = 11;
    Answer {
        second: true,
        model: "tiny \"q\" 世".into(),
        device: "CPU".into(),
        sampled: SamplingParams { temperature: 0.6, seed: u64::MAX, ..SamplingParams::default() },
        thinking: true,
        thought_seconds: Some(0.25),
        stats: Some(stats),
        stop,
    }
}

fn message<'a>(id: u64, parent: Option<u64>, role: Role, text: &'a str) -> Event<'a> {
    let (id, parent, at, text) = (MessageId(id), parent.map(MessageId), 1000 + id, Cow::Borrowed(text));
    Event::Message { id, parent, role, author: None, at, text, rating: None, answer: None }
}

/// Every kind of line there is.
fn log() -> Vec<Vec<u8>> {
    let setup =
        Setup { system: "Be\nbrief".into(), sampling: Sampling { top_k: Some(3), ..Sampling::default() }, ..Setup::default() };
    let (one, two) = (MessageId(1), MessageId(2));
    let made = |stop| Event::Answer { id: two, at: 1500, answer: answer(stop) };
    let events = [
        Event::Chat { version: 1, created: 1000, updated: None },
        Event::Setup { setup },
        message(1, None, Role::User, "Why \"is\" 世界?\nSo"),
        message(2, Some(1), Role::Assistant, ""),
        Event::Text { id: two, text: "Be".into() },
        Event::Text { id: two, text: "cause 🦀\\\n\u{7}".into() },
        made(Stop::Failed("no \"room\"".into())),
        Event::Rating { id: two, rating: Some(Rating::Bad) },
        message(3, Some(1), Role::Assistant, "other"),
        message(4, Some(3), Role::User, "and?"),
        message(5, None, Role::User, "edited"),
        Event::Shown { id: one },
        Event::Path { id: two },
        Event::Title { title: "A title".into() },
        Event::Pinned { pinned: true },
        made(Stop::Cancelled),
        Event::Rating { id: two, rating: Some(Rating::Good) },
        Event::Rating { id: one, rating: None },
    ];
    events.iter().map(Event::line).collect()
}

fn same(a: &Chat, b: &Chat) {
    assert_eq!(write(a), write(b));
    assert_eq!(a.tree.messages(), b.tree.messages());
    assert_eq!(a.tree.path(), b.tree.path());
    assert_eq!(
        (a.updated_ms, a.created_ms, &a.title, a.pinned, &a.setup),
        (b.updated_ms, b.created_ms, &b.title, b.pinned, &b.setup)
    );
}

#[test]
fn every_kind_of_line_is_read_back() {
    let read = read(&id(), &log().concat()).unwrap();
    assert_eq!((read.tail, read.unknown, read.lost), (Tail::Whole, 0, 0));
    let chat = &read.chat;
    assert_eq!((chat.title.as_str(), chat.pinned, chat.created_ms, chat.updated_ms), ("A title", true, 1000, 1500));
    assert_eq!(chat.setup.system, "Be\nbrief");
    let two = chat.tree.get(MessageId(2)).unwrap();
    assert_eq!((two.text.as_str(), two.rating), ("Because 🦀\\\n\u{7}", Some(Rating::Good)));
    assert_eq!(two.answer, Some(answer(Stop::Cancelled)));
    assert_eq!(chat.tree.path(), [MessageId(1), MessageId(2)]);
    // And once more in fewer lines.
    let short = write(chat);
    assert!(short.len() < log().concat().len());
    same(&super::read(&id(), &short).unwrap().chat, chat);
}

#[test]
fn lines_are_for_people_too() {
    let text = String::from_utf8(log().concat()).unwrap();
    assert!(text.starts_with("{\"chat\":{\"version\":1,\"created\":1000}}\n{\"setup\":"));
    assert!(text.contains("{\"message\":{\"id\":4,\"parent\":3,\"role\":\"user\",\"at\":1004,\"text\":\"and?\"}}\n"));
    assert!(text.contains("{\"text\":{\"id\":2,\"text\":\"Be\"}}\n"));
    assert!(text.contains("{\"rating\":{\"id\":1,\"rating\":null}}\n"));
    for line in text.lines() {
        let object: BTreeMap<String, serde_json::Value> = serde_json::from_str(line).unwrap();
        assert!(KINDS.contains(&object.keys().next().unwrap().as_str()), "{line}");
    }
    assert_eq!(Event::Torn {}.line(), format!("{TORN}\n").into_bytes());
}

#[test]
fn a_log_may_be_cut_off_at_every_byte_and_goes_on() {
    let whole = log().concat();
    let first = whole.iter().position(|&b| b == b'\n').unwrap();
    let mut before = 0;
    for end in 0..=whole.len() {
        let cut = &whole[..end];
        let Ok(read) = read(&id(), cut) else {
            assert!(end < first, "{end}");
            continue;
        };
        assert!(end >= first);
        // What was there stays there, whatever is cut.
        let said: usize = read.chat.tree.messages().iter().map(|m| m.text.len() + 1).sum();
        assert!(said >= before, "{end}");
        before = said;
        let ended = cut.ends_with(b"\n");
        assert_eq!(read.tail == Tail::Whole, ended);
        // The next program goes on, is cut off itself, and the one after it goes on.
        let mut log = cut.to_vec();
        for (n, line) in [message(50, None, Role::User, "next"), message(51, Some(50), Role::User, "after")].iter().enumerate() {
            let tail = super::read(&id(), &log).unwrap().tail;
            log.extend(tail.mend());
            log.extend(line.line());
            let again = super::read(&id(), &log).unwrap();
            assert_eq!(again.chat.tree.len(), read.chat.tree.len() + n + 1, "{end}");
            assert_eq!((again.tail, again.lost), (Tail::Whole, 0));
            log.extend(b"{\"text\":{\"id\":50,\"te");
        }
    }
}

#[test]
fn the_mark_may_be_cut_off_too() {
    let begun = log()[..3].concat();
    let mark = Tail::Torn.mend();
    for end in 0..=mark.len() {
        let mut log = begun.clone();
        log.extend(b"{\"text\":{\"id\"");
        log.extend(&mark[..end]);
        let read = read(&id(), &log).unwrap_or_else(|e| panic!("{end}: {e}"));
        log.extend(read.tail.mend());
        log.extend(message(9, Some(1), Role::User, "on").line());
        assert_eq!(super::read(&id(), &log).unwrap().chat.tree.len(), 2, "{end}");
    }
}

#[test]
fn a_line_that_lacked_only_its_end_and_was_written_again_counts_once() {
    let piece = || Event::Text { id: MessageId(1), text: "!".into() }.line();
    let whole = [log()[..3].concat(), piece()].concat();
    let text = |bytes: &[u8]| read(&id(), bytes).unwrap().chat.tree.get(MessageId(1)).unwrap().text.clone();
    let once = text(&whole);
    // The program ended there: it counts, and does so when more is added.
    let open = &whole[..whole.len() - 1];
    assert_eq!(text(open), once);
    let later = [open, &read(&id(), open).unwrap().tail.mend(), &message(9, None, Role::User, "x").line()].concat();
    assert_eq!(text(&later), once);
    // The program goes on, and tries again because it was told that it failed.
    assert_eq!(text(&[open, &Tail::Torn.mend(), &piece()].concat()), once);
    assert_eq!(text(&[&whole, Tail::Torn.mend().as_slice(), &piece()].concat()), format!("{once}!"));
}

#[test]
fn damage_in_the_middle_is_told() {
    let lines = log();
    for at in 0..lines.len() - 1 {
        let mut damaged = lines.clone();
        damaged[at] = b"{\"text\":{\"id\":2,\"te\n".to_vec();
        let told = read(&id(), &damaged.concat()).unwrap_err();
        assert!(told.starts_with(&format!("line {}: ", at + 1)), "{told}");
        let rest = salvage(&id(), &damaged.concat()).unwrap();
        assert!(rest.lost >= 1 && rest.chat.tree.len() >= 3, "{at}");
    }
    // Half of it overwritten, up to the end.
    let mut damaged = lines.concat();
    let half = damaged.len() / 2;
    damaged[half..].iter_mut().filter(|b| **b != b'\n').for_each(|b| *b = b'x');
    assert!(read(&id(), &damaged).is_err());
    assert!(salvage(&id(), &damaged).is_some());
}

#[test]
fn what_a_later_version_writes_is_passed_over() {
    let text = String::from_utf8(log().concat()).unwrap();
    let later =
        text.replace('\n', "\n{\"colour\":{\"id\":2,\"rgb\":[1,2,3]}}\n").replace("\"version\":1", "\"mood\":[{}],\"version\":1");
    let read = read(&id(), later.as_bytes()).unwrap();
    assert_eq!(read.unknown, log().len());
    same(&read.chat, &super::read(&id(), text.as_bytes()).unwrap().chat);
    let told = super::read(&id(), text.replace("\"version\":1", "\"version\":2").as_bytes()).unwrap_err();
    assert!(told.contains("later version"), "{told}");
}

#[test]
fn hostile_logs_are_told_and_do_no_harm() {
    let head = "{\"chat\":{\"version\":1,\"created\":1}}\n";
    let m = |id: u64, parent: &str| {
        format!("{{\"message\":{{\"id\":{id},\"parent\":{parent},\"role\":\"user\",\"at\":1,\"text\":\"x\"}}}}\n")
    };
    let bad = [
        String::new(),
        "\n\n".into(),
        "{}\n".into(),
        "null\n".into(),
        "{\"settings\":1}\n".into(),
        m(1, "null"),
        format!("{head}{head}"),
        format!("{head}{}{}", m(1, "2"), m(2, "1")),
        format!("{head}{}", m(1, "1")),
        format!("{head}{}{}", m(1, "null"), m(1, "null")),
        format!("{head}{}", m(2, "7")),
        format!("{head}{}", m(u64::MAX, "null")),
        format!("{head}{{\"text\":{{\"id\":4,\"text\":\"x\"}}}}\n"),
        format!("{head}{{\"shown\":{{\"id\":4}}}}\n{}", m(1, "null")),
        format!("{head}{}\n{}", "[".repeat(100_000), m(1, "null")),
        format!("{head}{{\"message\":{{\"id\":-1}}}}\n{}", m(1, "null")),
        format!("{head}\u{0}\u{0}\n{}", m(1, "null")),
    ];
    for log in &bad {
        assert!(read(&id(), log.as_bytes()).is_err(), "{log:.200}");
        let _ = salvage(&id(), log.as_bytes());
    }
    let lost = salvage(&id(), format!("{head}{}{}{}", m(5, "3"), m(6, "5"), m(6, "5")).as_bytes()).unwrap();
    assert_eq!((lost.lost, lost.chat.tree.path()), (2, vec![MessageId(5), MessageId(6)]));
    // A huge line is only long.
    let huge = format!("{head}{}", m(1, "null").replace("\"x\"", &format!("\"{}\"", "世".repeat(3 << 20))));
    assert_eq!(read(&id(), huge.as_bytes()).unwrap().chat.tree.get(MessageId(1)).unwrap().text.len(), 9 << 20);
}

#[test]
fn no_bytes_make_it_panic() {
    let whole = log().concat();
    let mut state = 3u64;
    let mut random = |n: usize| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as usize % n
    };
    for _ in 0..3000 {
        let mut bytes = whole.clone();
        for _ in 0..=random(4) {
            let at = random(bytes.len());
            match random(4) {
                0 => bytes[at] = random(256) as u8,
                1 => bytes.truncate(at.max(1)),
                2 => bytes.splice(at..at, whole[random(whole.len())..].iter().take(40).copied()).for_each(drop),
                _ => drop(bytes.drain(at..(at + 30).min(bytes.len())).collect::<Vec<_>>()),
            }
            if bytes.is_empty() {
                bytes.push(b'{');
            }
        }
        if let Ok(read) = read(&id(), &bytes) {
            same(&super::read(&id(), &write(&read.chat)).unwrap().chat, &read.chat);
        }
        let _ = (salvage(&id(), &bytes), is_log(&bytes));
    }
}

#[test]
fn a_name_comes_from_the_first_question_and_can_be_taken_back() {
    let mut chat = Chat::new(id(), 0, Setup::default());
    apply(&mut chat, message(1, None, Role::User, "  \n")).unwrap();
    assert_eq!((chat.title.as_str(), chat.name()), ("", "New conversation"));
    apply(&mut chat, message(2, None, Role::User, "First\nsecond")).unwrap();
    apply(&mut chat, message(3, None, Role::User, "Other")).unwrap();
    assert_eq!(chat.title, "First");
    apply(&mut chat, Event::Title { title: "Mine".into() }).unwrap();
    assert_eq!(chat.title, "Mine");
    apply(&mut chat, Event::Title { title: String::new() }).unwrap();
    assert_eq!(chat.title, "First");
}
