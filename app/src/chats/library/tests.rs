#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

mod random;

use std::io;

use pleiad_models::Role::{Assistant, User};

use super::*;
use crate::chats::{Stop, storage::Memory};

fn open(memory: &Memory) -> Library {
    Library::open(Box::new(memory.clone()))
}

fn names_of(memory: &Memory) -> Vec<String> {
    memory.list().unwrap()
}

fn unfinished() -> Option<Answer> {
    Some(Answer { model: "tiny".into(), ..Answer::default() })
}

fn done(stop: Stop) -> Answer {
    Answer { model: "tiny".into(), stop, ..Answer::default() }
}

/// A question and the beginning of its answer.
fn ask(library: &mut Library, question: &str) -> (ChatId, MessageId, MessageId) {
    let chat = library.create(Setup::default());
    let one = library.add(&chat, None, User, None, question, None).unwrap();
    let two = library.add(&chat, Some(one), Assistant, None, "", unfinished()).unwrap();
    library.extend(&chat, two, "Be");
    (chat, one, two)
}

/// People do not write twice in the same instant.
fn a_moment_later() {
    std::thread::sleep(std::time::Duration::from_millis(5));
}

fn log_of(chat: &Chat) -> String {
    String::from_utf8(crate::chats::log::write(chat)).unwrap()
}

/// Both know the same.
fn same(live: &mut Library, other: &mut Library) {
    assert_eq!(live.summaries(), other.summaries());
    for id in live.summaries().iter().map(|s| s.id.clone()).collect::<Vec<_>>() {
        let (a, b) = (live.chat(&id).unwrap(), other.chat(&id).unwrap());
        assert_eq!(log_of(a), log_of(b));
        assert_eq!(a.tree.path(), b.tree.path());
    }
}

#[test]
fn nothing_is_written_until_something_is_said() {
    let memory = Memory::default();
    let mut library = open(&memory);
    let setup = Setup { system: "Be brief".into(), ..Setup::default() };
    let chat = library.create(Setup::default());
    library.set_setup(&chat, setup.clone());
    library.rename(&chat, "Mine");
    assert!(library.summaries().is_empty() && names_of(&memory).is_empty());
    assert_eq!(library.peek(&chat).unwrap().title, "Mine");
    let revision = library.revision();
    library.add(&chat, None, User, None, "hello", None).unwrap();
    assert!(library.revision() != revision);
    assert_eq!((library.summaries().len(), names_of(&memory).len()), (1, 1));
    let mut again = open(&memory);
    assert_eq!(again.chat(&chat).unwrap().setup, setup);
    same(&mut library, &mut again);
    let empty = library.create(Setup::default());
    library.delete(&empty);
    assert!(library.peek(&empty).is_none() && !library.undo_delete(&empty));
}

#[test]
fn whatever_was_shown_has_been_written() {
    let memory = Memory::default();
    let mut library = open(&memory);
    let (chat, _, two) = ask(&mut library, "Why?");
    for piece in ["cause", " of", " 世界\n", "🦀", ""] {
        library.extend(&chat, two, piece);
        // The program is killed here.
        let mut again = open(&memory.copy());
        same(&mut library, &mut again);
        assert_eq!(again.chat(&chat).unwrap().tree.get(two).unwrap().answer.as_ref().unwrap().stop, Stop::Unfinished);
    }
    library.set_answer(&chat, two, done(Stop::End));
    library.rate(&chat, two, Some(Rating::Good));
    same(&mut library, &mut open(&memory.copy()));
    let two = library.peek(&chat).unwrap().tree.get(two).unwrap().clone();
    assert_eq!((two.text.as_str(), two.rating), ("Because of 世界\n🦀", Some(Rating::Good)));
}

#[test]
fn a_piece_of_an_answer_is_one_small_append() {
    let memory = Memory::default();
    let mut library = open(&memory);
    let (chat, one, two) = ask(&mut library, &"long question ".repeat(1000));
    let (used, writes, revision) = (memory.used(), memory.writes(), library.revision());
    for _ in 0..1000 {
        library.extend(&chat, two, "word ");
    }
    assert_eq!(memory.writes() - writes, 1000);
    assert!(memory.used() - used < 1000 * 60);
    assert_eq!(library.revision(), revision);
    // What changes nothing is not written.
    let writes = memory.writes();
    library.extend(&chat, two, "");
    library.rate(&chat, two, None);
    library.show(&chat, one);
    library.show_path_to(&chat, two);
    library.pin(&chat, false);
    library.set_setup(&chat, Setup::default());
    library.extend(&chat, MessageId(u64::MAX), "x");
    library.rate(&ChatId("none".into()), two, Some(Rating::Bad));
    assert_eq!(library.add(&chat, Some(MessageId(u64::MAX)), User, None, "x", None), None);
    assert_eq!(memory.writes(), writes);
}

#[test]
fn pinned_ones_come_first_then_the_newest() {
    let memory = Memory::default();
    let log = |at: u64, more: &str| {
        format!(
            "{{\"chat\":{{\"version\":1,\"created\":{at}}}}}\n\
             {{\"message\":{{\"id\":1,\"role\":\"user\",\"at\":{at},\"text\":\"chat {at}\"}}}}\n{more}"
        )
    };
    for (name, at, more) in [("a", 10, ""), ("b", 30, ""), ("c", 20, "{\"pinned\":{\"pinned\":true}}\n"), ("d", 5, "")] {
        memory.clone().write(&format!("{name}.chat.jsonl"), log(at, more).as_bytes()).unwrap();
    }
    memory.clone().write("settings.json", b"{}").unwrap();
    let mut library = open(&memory);
    let order = |library: &Library| library.summaries().iter().map(|s| s.title.clone()).collect::<Vec<_>>();
    assert_eq!(order(&library), ["chat 20", "chat 30", "chat 10", "chat 5"]);
    assert!(library.peek(&ChatId("a".into())).is_none());
    library.pin(&ChatId("d".into()), true);
    assert_eq!(order(&library), ["chat 20", "chat 5", "chat 30", "chat 10"]);
    library.rename(&ChatId("a".into()), " New\nname ");
    library.add(&ChatId("a".into()), Some(MessageId(1)), User, None, "more", None).unwrap();
    assert_eq!(order(&library), ["chat 20", "chat 5", "New name", "chat 30"]);
    library.rename(&ChatId("a".into()), "");
    assert_eq!(order(&library)[2], "chat 10");
    same(&mut library, &mut open(&memory));
}

#[test]
fn damaged_files_are_listed_and_left_alone() {
    let memory = Memory::default();
    let (chat, one, _) = ask(&mut open(&memory), "Why?");
    let file = names::file(&chat);
    let bytes = memory.read(&file).unwrap();
    let damaged = [b"{\"chat\":{\"version\":1,\"created\":1}}\nxx\n".as_slice(), &bytes].concat();
    for bytes in [damaged.as_slice(), b"", b"{\"chat\":{\"ver", b"\xff\xff\nhello\n"] {
        let memory = Memory::default();
        memory.clone().write(&file, bytes).unwrap();
        let mut library = open(&memory);
        let summary = library.summaries()[0].clone();
        assert!(summary.damaged.is_some() && !summary.title.is_empty(), "{summary:?}");
        assert!(library.chat(&chat).is_none());
        library.rename(&chat, "x");
        library.extend(&chat, one, "x");
        assert_eq!(library.add(&chat, None, User, None, "x", None), None);
        assert!(library.search("why", 9).is_empty());
        assert_eq!(memory.read(&file).unwrap(), bytes);
        // It can be thrown away, and taken back.
        library.delete(&chat);
        assert!(library.summaries().is_empty() && library.undo_delete(&chat));
        assert_eq!((library.summaries().len(), memory.read(&file).unwrap()), (1, bytes.to_vec()));
        assert!(library.summaries()[0].damaged.is_some());
    }
}

#[test]
fn the_bin_gives_back_and_is_emptied_after_thirty_days() {
    let memory = Memory::default();
    let mut library = open(&memory);
    let (chat, _, two) = ask(&mut library, "Why?");
    let (other, ..) = ask(&mut library, "Other");
    library.delete(&chat);
    assert!(library.chat(&chat).is_none() && library.summaries().len() == 1);
    assert!(names_of(&memory).iter().any(|n| n.starts_with(&format!("{chat}.chat.jsonl.deleted-"))));
    // An answer that is still being written is not lost.
    library.extend(&chat, two, "cause");
    assert!(library.undo_delete(&chat) && !library.undo_delete(&chat) && !library.undo_delete(&other));
    assert_eq!(library.chat(&chat).unwrap().tree.get(two).unwrap().text, "Because");
    same(&mut library, &mut open(&memory));

    library.delete(&chat);
    let mut again = open(&memory);
    assert_eq!(again.summaries().len(), 1);
    // Deleted without having been read, and after a restart.
    again.delete(&other);
    assert!(again.summaries().is_empty() && again.undo_delete(&other) && again.undo_delete(&chat));
    assert_eq!(again.summaries().len(), 2);
    same(&mut again, &mut open(&memory));

    let old = names::binned(&ChatId("old".into()), now_ms() - BIN_MS - 1000);
    let young = names::binned(&ChatId("young".into()), now_ms() - BIN_MS + 100_000);
    for name in [&old, &young] {
        memory.clone().write(name, b"").unwrap();
    }
    drop(open(&memory));
    assert!(!names_of(&memory).contains(&old) && names_of(&memory).contains(&young));
}

#[test]
fn a_full_disk_is_told_once_and_nothing_is_lost() {
    let memory = Memory::default();
    let mut library = open(&memory);
    let (chat, _, two) = ask(&mut library, "Why?");
    assert!(library.take_problems().is_empty() && !library.unsaved());
    memory.set_room(Some(memory.used() + 30));
    for _ in 0..50 {
        library.extend(&chat, two, " word");
    }
    library.set_answer(&chat, two, done(Stop::End));
    library.rate(&chat, two, Some(Rating::Bad));
    let (second, ..) = ask(&mut library, "New one");
    let problems = library.take_problems();
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(problems[0].starts_with(&format!("{chat}.chat.jsonl cannot be saved: ")), "{problems:?}");
    assert!(library.take_problems().is_empty() && library.unsaved());
    // What is on the disk can be opened; what is in memory is all there.
    assert!(open(&memory.copy()).chat(&chat).is_some());
    assert_eq!(library.summaries().len(), 2);
    // A little room, not enough: still not told again.
    memory.set_room(Some(memory.used() + 40));
    library.extend(&second, MessageId(0), "x");
    library.rename(&second, "Two");
    assert!(library.take_problems().is_empty());
    memory.set_room(None);
    library.pin(&second, true);
    let problems = library.take_problems();
    assert_eq!(problems.iter().filter(|p| p.contains("saved again")).count(), 2, "{problems:?}");
    assert_eq!(problems.len(), 2);
    assert!(!library.unsaved());
    same(&mut library, &mut open(&memory));
}

#[test]
fn one_file_that_cannot_be_written_does_not_hold_up_others_and_the_end_is_a_last_chance() {
    let memory = Memory::default();
    let mut library = open(&memory);
    memory.set_broken(Some(io::ErrorKind::PermissionDenied));
    let (chat, ..) = ask(&mut library, "Why?");
    library.delete(&chat);
    assert!(library.undo_delete(&chat));
    library.delete(&chat);
    let imported = library.import("a.json", br#"[{"role":"user","content":"hi"}]"#).unwrap();
    library.rename(&imported[0], "Imported");
    assert!(names_of(&memory).is_empty());
    assert_eq!(library.take_problems().len(), 2);
    memory.set_broken(None);
    drop(library);
    let mut again = open(&memory);
    assert_eq!((again.summaries().len(), again.summaries()[0].title.as_str()), (1, "Imported"));
    assert!(again.undo_delete(&chat));
    assert_eq!(again.chat(&chat).unwrap().tree.len(), 2);
}

#[test]
fn a_file_that_vanishes_is_written_anew() {
    let memory = Memory::default();
    let mut library = open(&memory);
    let (chat, _, two) = ask(&mut library, "Why?");
    memory.clone().remove(&names::file(&chat)).unwrap();
    library.extend(&chat, two, "cause");
    same(&mut library, &mut open(&memory));
    memory.clone().remove(&names::file(&chat)).unwrap();
    library.delete(&chat);
    assert!(library.undo_delete(&chat));
    same(&mut library, &mut open(&memory));
    assert!(library.take_problems().is_empty());
}

#[test]
fn two_programs_write_branches_of_one_tree() {
    let memory = Memory::default();
    let mut a = open(&memory);
    let (chat, one, two) = ask(&mut a, "Why?");
    let mut b = open(&memory);
    a_moment_later();
    let from_b = b.add(&chat, Some(two), User, None, "from b", None).unwrap();
    a.extend(&chat, two, "cause");
    a_moment_later();
    let from_a = a.add(&chat, Some(two), User, None, "from a", None).unwrap();
    a_moment_later();
    let answer = b.add(&chat, Some(from_b), Assistant, None, "", unfinished()).unwrap();
    for n in 0..20 {
        b.extend(&chat, answer, "b");
        a.rate(&chat, one, if n % 2 == 0 { Some(Rating::Good) } else { None });
    }
    // One deletes what the other still writes.
    let mut c = open(&memory);
    let tree = &c.chat(&chat).unwrap().tree;
    assert_eq!((tree.len(), tree.get(two).unwrap().text.as_str()), (5, "Because"));
    assert_eq!((tree.get(from_a).unwrap().text.as_str(), tree.get(answer).unwrap().text.len()), ("from a", 20));
    assert_eq!(tree.siblings(from_a).0.len(), 2);
    c.delete(&chat);
    a.extend(&chat, two, " of");
    assert_eq!(open(&memory).summaries().len(), 1);
    assert!(!c.undo_delete(&chat));
    assert_eq!(c.take_problems().len(), 1);
}

#[test]
fn long_logs_are_written_anew_when_they_are_opened_later() {
    let memory = Memory::default();
    let mut library = open(&memory);
    let (chat, _, two) = ask(&mut library, "Why?");
    for _ in 0..4000 {
        library.extend(&chat, two, "ab");
    }
    let file = names::file(&chat);
    let recent = memory.used();
    open(&memory).chat(&chat).unwrap();
    assert_eq!(memory.used(), recent, "another program may be writing it");
    // The same log of some time ago.
    let text = String::from_utf8(memory.read(&file).unwrap()).unwrap();
    let old: String = text
        .lines()
        .map(|line| {
            let mut line: serde_json::Value = serde_json::from_str(line).unwrap();
            for (kind, key) in [("chat", "created"), ("message", "at")] {
                if line[kind].is_object() {
                    line[kind][key] = 1000.into();
                }
            }
            format!("{line}\n")
        })
        .collect();
    memory.clone().write(&file, old.as_bytes()).unwrap();
    let mut again = open(&memory);
    assert_eq!(memory.used(), old.len(), "not before it is opened");
    assert_eq!(again.chat(&chat).unwrap().tree.get(two).unwrap().text.len(), 8002);
    assert!(memory.used() < 9000, "{}", memory.used());
    again.extend(&chat, two, "!");
    same(&mut again, &mut open(&memory));
    // Lines that a later version wrote are kept.
    let later = format!("{old}{{\"colour\":{{}}}}\n");
    memory.clone().write(&file, later.as_bytes()).unwrap();
    open(&memory).chat(&chat).unwrap();
    assert_eq!(memory.used(), later.len());
}

#[test]
fn words_are_found_in_titles_and_on_all_branches() {
    let memory = Memory::default();
    let mut library = open(&memory);
    let (first, one, two) = ask(&mut library, "What is the Capital of France?");
    library.extend(&first, two, " Paris, 巴黎是首都");
    let other = library.add(&first, Some(one), Assistant, None, "paris again", None).unwrap();
    a_moment_later();
    let (second, ..) = ask(&mut library, "How large is Paris?");
    library.rename(&first, "A capital");
    // In a program that has read nothing yet.
    let mut library = open(&memory);
    let hits = library.search("PARIS", 10);
    let found: Vec<_> = hits.iter().map(|h| (h.chat.clone(), h.message)).collect();
    assert_eq!(found[0], (second.clone(), None));
    assert_eq!(found.len(), 4);
    assert_eq!((&found[2].0, found[2].1, &found[3].0, found[3].1), (&first, Some(other), &first, Some(two)));
    for hit in &hits {
        assert!(hit.excerpt[hit.range.clone()].eq_ignore_ascii_case("paris"), "{hit:?}");
    }
    assert_eq!(hits[2].title, "A capital");
    assert_eq!(library.search("paris", 2).len(), 2);
    assert_eq!(library.search("首都", 10)[0].message, Some(two));
    assert_eq!(library.search("france capital", 10)[0].message, Some(one));
    assert!(library.search("  ", 10).is_empty() && library.search("zebra", 10).is_empty());
    // What is said meanwhile is found, what is deleted is not.
    library.extend(&first, other, " zebra");
    assert_eq!(library.search("zebra", 10).len(), 1);
    library.delete(&first);
    assert!(library.search("zebra", 10).is_empty());
}

#[test]
fn imports_come_back() {
    let (from, memory) = (Memory::default(), Memory::default());
    let mut source = open(&from);
    let (chat, _, two) = ask(&mut source, "Why?");
    source.set_answer(&chat, two, done(Stop::Length));
    source.rate(&chat, two, Some(Rating::Good));
    let original = source.chat(&chat).unwrap();
    let mut library = open(&memory);
    for bytes in [transfer::to_json(original).into_bytes(), from.read(&names::file(&chat)).unwrap()] {
        let ids = library.import("a.json", &bytes).unwrap();
        let taken = library.chat(&ids[0]).unwrap();
        assert_eq!((log_of(taken), ids.len()), (log_of(original), 1));
    }
    assert_eq!(library.summaries().len(), 2);
    assert!(library.import("a.txt", b"nonsense").is_err());
    assert!(library.take_problems().is_empty());
    same(&mut library, &mut open(&memory));
}

#[test]
fn long_conversations_and_many_of_them() {
    let memory = Memory::default();
    let mut library = open(&memory);
    let (chat, _, mut last) = ask(&mut library, "Why?");
    for n in 0..2000 {
        let role = if n % 2 == 0 { User } else { Assistant };
        last = library.add(&chat, Some(last), role, None, "more", None).unwrap();
    }
    assert_eq!(library.peek(&chat).unwrap().tree.shown_path().len(), 2002);
    let log = memory.read(&names::file(&chat)).unwrap();
    for n in 0..1000 {
        // Every tenth is long.
        let bytes = if n % 10 == 0 { log.clone() } else { log[..log.len() / 100].to_vec() };
        memory.clone().write(&format!("chat-{n}.chat.jsonl"), &bytes).unwrap();
    }
    let mut library = open(&memory);
    assert_eq!(library.summaries().len(), 1001);
    assert!(library.summaries().iter().all(|s| s.damaged.is_none()));
    assert_eq!(library.search("why", 2000).len(), 2000);
}

#[test]
fn storage_that_cannot_be_read_is_told() {
    #[derive(Clone)]
    struct Closed;
    impl Storage for Closed {
        fn list(&self) -> io::Result<Vec<String>> {
            Err(io::ErrorKind::PermissionDenied.into())
        }
        fn read(&self, _: &str) -> io::Result<Vec<u8>> {
            Err(io::ErrorKind::PermissionDenied.into())
        }
        fn append(&mut self, _: &str, _: &[u8]) -> io::Result<()> {
            Err(io::ErrorKind::PermissionDenied.into())
        }
        fn write(&mut self, _: &str, _: &[u8]) -> io::Result<()> {
            Err(io::ErrorKind::PermissionDenied.into())
        }
        fn rename(&mut self, _: &str, _: &str) -> io::Result<()> {
            Err(io::ErrorKind::PermissionDenied.into())
        }
        fn remove(&mut self, _: &str) -> io::Result<()> {
            Err(io::ErrorKind::PermissionDenied.into())
        }
        fn place(&self) -> String {
            "the cellar".into()
        }
    }
    let mut library = Library::open(Box::new(Closed));
    assert!(library.take_problems()[0].contains("the cellar"));
    let (chat, ..) = ask(&mut library, "Why?");
    assert_eq!((library.take_problems().len(), library.peek(&chat).unwrap().tree.len()), (1, 2));
}
