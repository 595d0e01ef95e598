//! The list: names, search, pins, deletion with undo, files, a disk that is full.

use egui::Key;
use egui_kittest::kittest::Queryable as _;
use pleiad_app::{
    chats::storage::Memory,
    ui::{
        Action,
        action::ExportFormat,
        files::{Got, Want},
    },
};

use crate::stage::{Hands, Stage, ask_and_wait, chat, ctrl, folder, last, loaded, shown};

#[test]
fn conversations_are_listed_renamed_pinned_searched_deleted_and_taken_back() {
    let mut harness = crate::stage::ready("list");
    let ctx = harness.ctx.clone();
    ask_and_wait(&mut harness, "What is 2 + 3?");
    let sum = harness.state().open_chat().unwrap().clone();
    ctrl(&mut harness, Key::N);
    ask_and_wait(&mut harness, "What is the capital of Spain?");
    let capital = harness.state().open_chat().unwrap().clone();
    assert_ne!(sum, capital);
    let titles = |h: &egui_kittest::Harness<'static, pleiad_app::ui::App>| -> Vec<String> {
        h.state().library().summaries().iter().map(|s| s.title.clone()).collect()
    };
    assert_eq!(titles(&harness), ["What is the capital of Spain?", "What is 2 + 3?"]);
    harness.state_mut().give(&ctx, Action::Pin(sum.clone(), true));
    harness.state_mut().give(&ctx, Action::Rename(capital.clone(), "Madrid".into()));
    harness.run_steps(2);
    assert_eq!(titles(&harness), ["What is 2 + 3?", "Madrid"]);

    // Words are found in messages; a click opens the conversation.
    ctrl(&mut harness, Key::F);
    let search = harness.get_by_label("Search conversations");
    assert!(search.is_focused());
    search.type_text("2 + 3");
    harness.run_steps(3);
    harness.query_all_by_label_contains("2 + 3").last().unwrap().click();
    harness.run_steps(3);
    assert_eq!(harness.state().open_chat(), Some(&sum));
    harness.get_by_label("Search conversations").focus();
    harness.key_press(Key::Escape);
    harness.run_steps(2);

    harness.state_mut().give(&ctx, Action::Delete(sum.clone()));
    harness.run_steps(2);
    assert_eq!(titles(&harness), ["Madrid"]);
    harness.get_by_label("Undo").click();
    harness.run_steps(3);
    assert_eq!(titles(&harness), ["What is 2 + 3?", "Madrid"]);
    assert_eq!(harness.state().open_chat(), Some(&sum));
}

#[test]
fn what_is_exported_can_be_imported() {
    let hands = Hands::default();
    let mut harness = Stage { hands: hands.clone(), ..Stage::default() }.open(&folder("files"));
    loaded(&mut harness);
    let ctx = harness.ctx.clone();
    let answer = ask_and_wait(&mut harness, "What is 5 + 6?");
    let id = harness.state().open_chat().unwrap().clone();
    harness.state_mut().give(&ctx, Action::Export(id.clone(), ExportFormat::Markdown));
    harness.state_mut().give(&ctx, Action::Export(id, ExportFormat::Json));
    let mut saved = hands.wanted().into_iter().map(|want| match want {
        Want::Save { name, bytes } => (name, bytes),
        other => panic!("{other:?}"),
    });
    let (name, markdown) = saved.next().unwrap();
    let markdown = String::from_utf8(markdown).unwrap();
    assert!(name.ends_with(".md") && markdown.contains("What is 5 + 6?") && markdown.contains("5 + 6 = 11"), "{markdown}");
    assert!(markdown.contains("tokens/s"), "{markdown}");
    let (name, json) = saved.next().unwrap();
    drop(saved);
    hands.choose(Got::Read(Want::Chats, name, json));
    harness.run_steps(3);
    assert_eq!(harness.state().library().summaries().len(), 2);
    assert_eq!(last(harness.state()).text, answer);
    assert!(last(harness.state()).answer.as_ref().unwrap().stats.is_some());

    hands.choose(Got::Read(Want::Chats, "song.mp3".into(), vec![0xff, 0xfb, 1, 2]));
    harness.run_steps(3);
    assert!(harness.query_all_by_label_contains("song.mp3 cannot be imported").next().is_some());
}

#[test]
fn a_full_disk_is_told_and_costs_nothing_that_was_said() {
    let disk = Memory::default();
    let mut harness = Stage::default().open_on(Box::new(disk.clone()), &folder("full"));
    loaded(&mut harness);
    disk.set_room(Some(0));
    let answer = ask_and_wait(&mut harness, "What is 9 + 9?");
    assert!(!answer.is_empty());
    assert!(harness.query_all_by_label_contains("cannot be saved").next().is_some(), "nobody was told");
    disk.set_room(None);
    ask_and_wait(&mut harness, "What is 1 + 2?");
    let said: Vec<_> = shown(harness.state()).iter().map(|m| m.text.clone()).collect();
    let id = chat(harness.state()).id.clone();
    drop(harness);
    let mut again = pleiad_app::chats::Library::open(Box::new(disk));
    let found = again.chat(&id).unwrap();
    let kept: Vec<_> = found.tree.path().iter().map(|&m| found.tree.get(m).unwrap().text.clone()).collect();
    assert_eq!(kept, said);
}
