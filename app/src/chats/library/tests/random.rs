//! Random changes, and what a restart finds of them.

use super::*;

struct Draw(u64);

impl Draw {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % n
    }

    fn pick<T: Clone>(&mut self, all: &[T]) -> Option<T> {
        (!all.is_empty()).then(|| all[self.below(all.len())].clone())
    }

    fn text(&mut self) -> &'static str {
        let texts =
            ["Why?", "", "\n", "世界 \"quoted\" \\ \u{7}", "🦀 crab\nline two", "<think>x</think>", "{\"torn\":{}}", "\u{0}"];
        texts[self.below(texts.len())]
    }
}

/// One change, of any kind.
fn change(library: &mut Library, chats: &mut Vec<ChatId>, draw: &mut Draw) {
    let kind = draw.below(20);
    if chats.is_empty() || (kind == 0 && chats.len() < 5) {
        let setup = Setup { system: draw.text().into(), ..Setup::default() };
        chats.push(library.create(setup));
        return;
    }
    let chat = draw.pick(chats).unwrap();
    let known: Vec<MessageId> = library.peek(&chat).map(|c| c.tree.messages().iter().map(|m| m.id).collect()).unwrap_or_default();
    let message = draw.pick(&known);
    match (kind, message) {
        (1..=5, _) => {
            let parent = if draw.below(6) == 0 { None } else { message };
            let (role, answer) = if draw.below(2) == 0 { (User, None) } else { (Assistant, unfinished()) };
            let author = (draw.below(4) == 0).then(|| "Critic".to_owned());
            let there = library.chat(&chat).is_some();
            assert_eq!(library.add(&chat, parent, role, author, draw.text(), answer).is_some(), there || !known.is_empty());
        }
        (6..=11, Some(message)) => {
            let is_answer = library.peek(&chat).and_then(|c| c.tree.get(message)).is_some_and(|m| m.role == Assistant);
            if is_answer {
                library.extend(&chat, message, draw.text());
            }
        }
        (12, Some(message)) => {
            let stop = [Stop::End, Stop::Cancelled, Stop::Failed("no \"room\"\n".into())];
            library.set_answer(&chat, message, done(draw.pick(&stop).unwrap()));
        }
        (13, Some(message)) => {
            let rating = draw.pick(&[None, Some(Rating::Good), Some(Rating::Bad)]).unwrap();
            library.rate(&chat, message, rating);
        }
        (14, Some(message)) => library.show(&chat, message),
        (15, Some(message)) => library.show_path_to(&chat, message),
        (16, _) => library.rename(&chat, draw.text()),
        (17, _) => library.pin(&chat, draw.below(2) == 0),
        (18, _) => library.set_setup(&chat, Setup { max_tokens: Some(draw.below(9)), ..Setup::default() }),
        (19, _) => {
            if draw.below(2) == 0 {
                library.delete(&chat);
                if draw.below(3) > 0 {
                    library.undo_delete(&chat);
                }
            } else {
                library.undo_delete(&chat);
            }
            if library.peek(&chat).is_none() && !library.undo_delete(&chat) {
                chats.retain(|c| *c != chat);
            }
        }
        _ => {}
    }
}

#[test]
fn a_restart_finds_everything() {
    for seed in 0..60 {
        let (memory, mut draw, mut chats) = (Memory::default(), Draw(seed), Vec::new());
        let mut library = open(&memory);
        for _ in 0..150 {
            change(&mut library, &mut chats, &mut draw);
            if draw.below(10) == 0 {
                same(&mut library, &mut open(&memory.copy()));
            }
            if draw.below(60) == 0 {
                // And goes on from there; what nothing was said in is gone.
                library = open(&memory);
                chats = library.summaries().iter().map(|s| s.id.clone()).collect();
                chats.iter().for_each(|id| assert!(library.chat(id).is_some()));
            }
        }
        assert!(library.take_problems().is_empty());
        same(&mut library, &mut open(&memory));
    }
}

#[test]
fn a_disk_that_fills_up_again_and_again_loses_nothing() {
    for seed in 100..160 {
        let (memory, mut draw, mut chats) = (Memory::default(), Draw(seed), Vec::new());
        let mut library = open(&memory);
        for _ in 0..150 {
            match draw.below(12) {
                0..3 => memory.set_room(Some(memory.used() + draw.below(150))),
                3 => memory.set_broken(Some(io::ErrorKind::Interrupted)),
                4..6 => {
                    memory.set_room(None);
                    memory.set_broken(None);
                }
                _ => {}
            }
            change(&mut library, &mut chats, &mut draw);
            // Whatever is on the disk can be opened.
            if draw.below(8) == 0 {
                for summary in open(&memory.copy()).summaries() {
                    let bytes = memory.read(&names::file(&summary.id)).unwrap();
                    let text = String::from_utf8_lossy(&bytes);
                    let begun = text.lines().any(|line| line.starts_with("{\"chat\":") && line.ends_with("}}"));
                    assert!(summary.damaged.is_none() || !begun, "{seed}: {summary:?}");
                }
            }
        }
        memory.set_room(None);
        memory.set_broken(None);
        library.retry();
        assert!(!library.unsaved());
        let problems = library.take_problems();
        let failed = problems.iter().filter(|p| p.contains("cannot be saved")).count();
        assert_eq!(failed * 2, problems.len(), "each failure is told once, and so is its end: {problems:?}");
        same(&mut library, &mut open(&memory));
    }
}

#[test]
fn two_programs_lose_nothing_of_each_other() {
    for seed in 200..206 {
        let (memory, mut draw) = (Memory::default(), Draw(seed));
        let mut a = open(&memory);
        let (chat, one, _) = ask(&mut a, "Why?");
        let mut b = open(&memory);
        let mut said = vec![one];
        for _ in 0..40 {
            a_moment_later();
            let library = if draw.below(2) == 0 { &mut a } else { &mut b };
            let known: Vec<_> = library.chat(&chat).unwrap().tree.messages().iter().map(|m| m.id).collect();
            let new = library.add(&chat, draw.pick(&known), Assistant, None, "x", unfinished()).unwrap();
            library.extend(&chat, new, "y");
            library.show_path_to(&chat, one);
            said.push(new);
        }
        let mut c = open(&memory);
        let tree = &c.chat(&chat).unwrap().tree;
        assert_eq!(tree.len(), said.len() + 1);
        assert!(said.iter().all(|&id| tree.get(id).is_some_and(|m| id == one || m.text == "xy")));
    }
}
