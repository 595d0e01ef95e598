//! Keys that come faster than frames, and where the keyboard goes on.

use egui::{Event, Key, Modifiers, accesskit::Role};
use egui_kittest::{
    Harness,
    kittest::{NodeT as _, Queryable as _},
};
use pleiad_app::{
    chats::{Duet, DuetKind, Setup},
    ui::{
        App, Page,
        files::{Got, Want},
    },
};

use crate::stage::{Hands, Stage, ask, ask_and_wait, ctrl, folder, greedy, loaded, ready, until};

fn key(key: Key, modifiers: Modifiers) -> [Event; 2] {
    [true, false].map(|pressed| Event::Key { key, physical_key: None, pressed, repeat: false, modifiers })
}

fn text(text: &str) -> Vec<Event> {
    text.chars().map(|c| Event::Text(c.into())).collect()
}

/// All of it arrives within one frame.
fn at_once(harness: &mut Harness<'static, App>, events: impl IntoIterator<Item = Event>) {
    harness.input_mut().events.extend(events);
    harness.run_steps(6);
}

fn message(harness: &Harness<'static, App>) -> String {
    harness.get_by_role_and_label(Role::MultilineTextInput, "Message").value().unwrap_or_default()
}

fn writes(harness: &Harness<'static, App>) -> bool {
    harness.get_by_role_and_label(Role::MultilineTextInput, "Message").accesskit_node().is_focused()
}

#[test]
fn what_is_typed_before_a_shortcut_is_kept_and_what_follows_goes_where_it_leads() {
    let mut harness = ready("keys");
    harness.get_by_role_and_label(Role::MultilineTextInput, "Message").focus();
    harness.run_steps(2);
    let find = key(Key::F, Modifiers::COMMAND);
    at_once(&mut harness, text("what is 2 + 2?").into_iter().chain(find).chain(text("cat")));
    assert_eq!(message(&harness), "what is 2 + 2?");
    let search = harness.get_by_label("Search conversations");
    assert_eq!(search.value().as_deref(), Some("cat"));

    // The palette: its letters, and the Enter behind them.
    let palette = key(Key::K, Modifiers::COMMAND);
    at_once(&mut harness, palette.into_iter().chain(text("devic")).chain(key(Key::Enter, Modifiers::NONE)));
    assert_eq!(harness.state().page(), Page::Performance);

    // A key that brings its own character does not write it; letters in the frame behind the shortcut are not lost.
    let chat = key(Key::Num1, Modifiers::ALT);
    let own = [chat[0].clone(), Event::Text("1".into()), chat[1].clone()];
    harness.input_mut().events.extend(own);
    harness.step();
    at_once(&mut harness, text(" ok"));
    assert_eq!(harness.state().page(), Page::Chat);
    assert!(message(&harness).starts_with("what is 2 + 2?") && !message(&harness).ends_with('1'), "{}", message(&harness));
    harness.input_mut().events.extend(key(Key::K, Modifiers::COMMAND));
    harness.step();
    at_once(&mut harness, text("theme"));
    assert_eq!(harness.get_by_label("Find a command").value().as_deref(), Some("theme"));
    assert!(!message(&harness).contains("theme"));
}

#[test]
fn escape_stops_an_answer_and_the_keyboard_stays_with_the_box() {
    // Two who talk take their time.
    let duet = Duet { on: true, kind: DuetKind::Talk, turns: 20, ..Duet::default() };
    let setup = Some(Setup { duet, ..greedy() });
    let mut harness = Stage { setup, ..Stage::default() }.open(&folder("escape"));
    loaded(&mut harness);
    ask(&mut harness, "Tell me a long story about a cat and a river.");
    until(&mut harness, "an answer", App::busy);
    harness.key_press(Key::Escape);
    harness.run_steps(4);
    until(&mut harness, "its end", |app| !app.busy());
    assert!(writes(&harness), "the box has lost the focus");
    at_once(&mut harness, text("go on"));
    assert_eq!(message(&harness), "go on");
}

#[test]
fn a_path_that_leads_nowhere_leaves_the_keyboard_with_the_box() {
    let hands = Hands::default();
    let mut harness = Stage { hands: hands.clone(), ..Stage::default() }.open(&folder("path-line"));
    loaded(&mut harness);
    ask_and_wait(&mut harness, "What is 1 + 1?");
    ctrl(&mut harness, Key::K);
    harness.get_by_label("Find a command").type_text("import");
    harness.run_steps(2);
    harness.key_press(Key::Enter);
    harness.run_steps(3);
    assert_eq!(hands.wanted(), [Want::Chats]);
    hands.choose(Got::Type(Want::Chats));
    harness.run_steps(4);
    let path = harness.get_by_role_and_label(Role::TextInput, "Path");
    assert!(path.accesskit_node().is_focused());
    path.type_text("/nowhere.json");
    harness.run_steps(2);
    harness.key_press(Key::Enter);
    harness.run_steps(2);
    assert_eq!(hands.wanted(), [Want::Chats]);
    hands.choose(Got::Failed("/nowhere.json cannot be opened: there is no such file or directory".into()));
    harness.run_steps(8);
    assert!(harness.query_all_by_label_contains("no such file or directory").next().is_some());
    assert!(writes(&harness), "the box has lost the focus");
    // The same where the line is given up.
    hands.choose(Got::Type(Want::Trace));
    harness.run_steps(4);
    assert!(!writes(&harness));
    harness.key_press(Key::Escape);
    harness.run_steps(8);
    assert!(writes(&harness));
}

#[test]
fn a_line_for_a_path_says_what_it_is_for() {
    let examples = [Want::Chats, Want::Trace, Want::Model { folder: false }, Want::Model { folder: true }].map(|w| w.example());
    assert!(examples[0].ends_with(".json") && examples[1].ends_with(".csv") && examples[2].ends_with(".gguf"));
    assert!(!examples[3].contains('.'));
}
