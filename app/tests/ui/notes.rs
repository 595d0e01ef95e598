//! Notes, files that are dropped, and the window's place.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use egui::{DroppedFile, DroppedFileHandle, Event, Rect, Vec2, accesskit::Role, pos2, vec2};
use egui_kittest::{
    Harness,
    kittest::{NodeT as _, Queryable as _},
};
use pleiad_app::{
    chats::storage::Folder,
    loading::Source,
    settings::Settings,
    ui::{
        Action, App, Command, Page,
        files::{Got, Want},
    },
};

use crate::stage::{Hands, Stage, ask_and_wait, click, folder, loaded, ready, until};

/// What a note must not lie over: everything that can be pressed or written in.
fn covered(harness: &Harness<'static, App>, note: Rect) -> Vec<String> {
    let pressed = harness.query_all_by_role(Role::Button).chain(harness.query_all_by_role(Role::MultilineTextInput));
    let close = |name: &str| matches!(name, "Dismiss" | "Dismiss all" | "Undo");
    let all = pressed.map(|n| (n.accesskit_node().label().unwrap_or_default(), n.rect()));
    let over = all.filter(|(name, rect)| !close(name) && rect.intersects(note.shrink(1.0)));
    over.map(|(name, rect)| format!("{name} at {rect:?}")).collect()
}

#[test]
fn problems_cover_nothing_and_go_when_they_are_dismissed() {
    for size in [vec2(1100.0, 760.0), vec2(380.0, 640.0)] {
        let mut harness = Stage { size, ..Stage::default() }.open(&folder(&format!("notes-{}", size.x)));
        loaded(&mut harness);
        ask_and_wait(&mut harness, "What is 1 + 1?");
        let ctx = harness.ctx.clone();
        let words = "The disk is full: what is written now is kept in memory until there is room again";
        harness.state_mut().give(&ctx, Action::Complain(words.into()));
        let pages =
            [Action::Go(Page::Chat), Action::Run(Command::ToggleSetup), Action::Go(Page::Experts), Action::Go(Page::Settings)];
        for page in pages {
            harness.state_mut().give(&ctx, page);
            harness.run_steps(4);
            let note = harness.get_by_label(words).rect();
            assert!(note.is_positive() && Rect::from_min_size(pos2(0.0, 0.0), size).contains_rect(note), "{note:?} of {size:?}");
            assert_eq!(covered(&harness, note), Vec::<String>::new(), "{size:?}");
        }
        harness.state_mut().give(&ctx, Action::Go(Page::Chat));
        harness.state_mut().give(&ctx, Action::Run(Command::ToggleSetup));
        harness.run_steps(3);
        let before = harness.get_by_role_and_label(Role::MultilineTextInput, "Message").rect();
        assert!(before.bottom() <= size.y);
        click(&mut harness, "Dismiss");
        assert!(harness.query_by_label(words).is_none());
    }
}

#[test]
fn what_is_told_floats_above_the_box() {
    let mut harness = ready("told");
    ask_and_wait(&mut harness, "What is 1 + 1?");
    let ctx = harness.ctx.clone();
    harness.state_mut().give(&ctx, Action::Tell("Saved as x.md".into()));
    harness.run_steps(3);
    let note = harness.get_by_label("Saved as x.md").rect();
    let send = harness.get_by_role_and_label(Role::Button, "Send").rect();
    let write = harness.get_by_role_and_label(Role::MultilineTextInput, "Message").rect();
    assert!(note.bottom() < write.top() && note.bottom() < send.top(), "{note:?}, {write:?}, {send:?}");
    assert!((note.center().x - write.center().x).abs() < 120.0, "{note:?}, {write:?}");
}

/// A file as the platform hands it over.
#[derive(Debug)]
struct Dropped(PathBuf);

impl DroppedFile for Dropped {
    fn path(&self) -> &Path {
        &self.0
    }

    fn bytes(&self) -> Result<Vec<u8>, String> {
        Err("nobody reads it".into())
    }
}

/// Drops files on the window.
fn drop_files(harness: &mut Harness<'static, App>, names: &[&str]) {
    let file = |name: &&str| -> DroppedFileHandle { Arc::new(Dropped(PathBuf::from(name))) };
    harness.input_mut().dropped_files = names.iter().map(file).collect();
    harness.run_steps(3);
}

#[test]
fn dropped_files_are_taken_for_what_they_are() {
    let hands = Hands::default();
    let mut harness = Stage { hands: hands.clone(), ..Stage::default() }.open(&folder("dropped"));
    loaded(&mut harness);
    hands.wanted();
    drop_files(&mut harness, &["/x/record.CSV", "/x/chat.json", "/x/chats.jsonl", "/x/model.gguf", "/x/folder"]);
    let model = || Want::Model { folder: false };
    assert_eq!(hands.wanted(), [Want::Trace, Want::Chats, Want::Chats, model(), model()]);
    // What is dropped is read and opened as if it had been chosen.
    hands.choose(Got::Read(Want::Chats, "chat.json".into(), b"{}".to_vec()));
    harness.run_steps(4);
    assert!(harness.query_all_by_label_contains("chat.json").next().is_some(), "the refusal names the file");
    hands.choose(Got::Model("/x/model.gguf".into()));
    until(&mut harness, "the refusal", |app| app.picker_problem().is_some());
    assert!(harness.state().picker_open() && Source::of("/x/model.gguf").is_some());
}

/// What the platform tells of a window.
fn place(harness: &mut Harness<'static, App>, at: [f32; 2], size: Vec2, maximised: bool) {
    let input = harness.input_mut();
    let id = input.viewport_id;
    let viewport = input.viewports.entry(id).or_default();
    let rect = Rect::from_min_size(at.into(), size);
    (viewport.inner_rect, viewport.outer_rect, viewport.maximized) = (Some(rect), Some(rect), Some(maximised));
    harness.run_steps(2);
}

#[test]
fn the_window_comes_back_where_it_was() {
    let data = folder("window-place");
    let mut harness = Stage::default().open(&data);
    place(&mut harness, [40.0, 60.0], vec2(1000.0, 700.0), false);
    let kept = harness.state().settings().window.unwrap();
    assert_eq!((kept.position, kept.size, kept.maximised), (Some([40.0, 60.0]), [1000.0, 700.0], false));
    // Maximised, it remembers the size to go back to.
    place(&mut harness, [0.0, 0.0], vec2(1920.0, 1080.0), true);
    let kept = harness.state().settings().window.unwrap();
    assert_eq!((kept.position, kept.size, kept.maximised), (Some([40.0, 60.0]), [1000.0, 700.0], true));
    // One that is folded up says nothing of its place.
    let id = harness.input().viewport_id;
    harness.input_mut().viewports.entry(id).or_default().minimized = Some(true);
    place(&mut harness, [-32000.0, -32000.0], vec2(160.0, 28.0), false);
    assert_eq!(harness.state().settings().window, Some(kept));
    eframe::App::on_exit(harness.state_mut());
    drop(harness);
    // What the next start opens its window with.
    assert_eq!(Settings::read(&mut Folder::new(data)).0.window, Some(kept));
}

#[test]
fn events_without_a_file_are_no_files() {
    let mut harness = ready("nothing-dropped");
    harness.input_mut().events.push(Event::PointerGone);
    drop_files(&mut harness, &[]);
    assert!(!harness.state().picker_open());
}

#[test]
fn panes_stay_where_they_are() {
    let mut harness = Stage { size: vec2(1280.0, 820.0), ..Stage::default() }.open(&folder("panes"));
    loaded(&mut harness);
    let ctx = harness.ctx.clone();
    let edges = |h: &Harness<'static, App>| h.get_by_role_and_label(Role::MultilineTextInput, "Message").rect().x_range();
    harness.run_steps(10);
    let before = edges(&harness);
    ask_and_wait(&mut harness, "Tell me a short story about a cat.");
    for _ in 0..9 {
        harness.state_mut().give(&ctx, Action::Run(Command::NextMode));
        harness.run_steps(4);
    }
    for command in [Command::ToggleSetup, Command::ToggleSetup, Command::ToggleSidebar, Command::ToggleSidebar] {
        harness.state_mut().give(&ctx, Action::Run(command));
        harness.run_steps(4);
    }
    for tab in ["Domains", "Table", "What if", "Record", "Timeline"] {
        click(&mut harness, tab);
    }
    assert_eq!(edges(&harness), before);
}
