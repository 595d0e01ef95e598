#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

use egui::{Key, Role};
use egui_kittest::{Harness, kittest::Queryable as _};
use pleiad_runtime::{
    Activations,
    experts::ways::{Way, WayChoice},
};

use super::*;
use crate::{
    settings::{Palette, ThemeChoice},
    ui::{Command, Theme},
};

struct State {
    settings: Settings,
    page: bool,
    out: Vec<Action>,
}

/// The page; settings are carried out, everything is kept.
fn harness(width: f32) -> Harness<'static, State> {
    harness_in(width, false)
}

/// The same; `page`: in a browser.
fn harness_in(width: f32, page: bool) -> Harness<'static, State> {
    let mut h = Harness::builder()
        .with_size([width, 2400.0])
        .with_context_setup(|ctx| Theme::apply(ctx, &Settings { reduced_motion: true, ..Settings::default() }))
        .build_ui_state(
            |ui, s: &mut State| {
                let mut out = Vec::new();
                let places = [("Conversations".into(), "/home/a/chats".into())];
                preferences_ui(ui, &s.settings, (!s.page).then_some(&places), &mut out);
                for action in &out {
                    if let Action::SetSettings(new) = action {
                        s.settings = (**new).clone();
                    }
                }
                s.out.extend(out);
            },
            State { settings: Settings::default(), page, out: Vec::new() },
        );
    h.run();
    h
}

fn type_into(h: &mut Harness<'_, State>, field: &str, text: &str) {
    h.get_by_role_and_label(Role::TextInput, field).focus();
    h.run();
    h.get_by_role_and_label(Role::TextInput, field).type_text(text);
    h.run();
}

#[test]
fn every_choice_changes_its_setting() {
    for width in [360.0, 900.0] {
        let mut h = harness(width);
        assert!(h.state().out.is_empty());
        for name in
            ["Dark", "Cividis", "Reduced motion", "Enter sends a message", "Unfold reasoning", "Resume", "Single precision"]
        {
            h.get_by_label(name).click();
            h.run();
        }
        h.get_by_role_and_label(Role::Slider, "Text size").set_value_accesskit(1.5);
        h.run();
        h.get_by_role_and_label(Role::Slider, "Half-life of the recent view").set_value_accesskit(64.0);
        h.run();
        let mut expected = Settings {
            theme: ThemeChoice::Dark,
            palette: Palette::Cividis,
            reduced_motion: true,
            enter_sends: false,
            unfold_reasoning: true,
            font_scale: 1.5,
            half_life: 64.0,
            ..Settings::default()
        };
        expected.load.misses = WayChoice::Only(Way::Resume);
        expected.load.activations = Activations::F32;
        assert_eq!(h.state().settings, expected);
        assert_eq!(h.state().out.len(), 9);
    }
}

#[test]
fn what_is_typed_is_taken_at_the_end_and_nonsense_is_told() {
    let mut h = harness(700.0);
    type_into(&mut h, "Memory budget", "6 gibi");
    h.get_by_label("`gibi` is no unit; use KiB, MiB, GiB or TiB");
    h.key_press(Key::Enter);
    h.run();
    assert!(h.state().out.is_empty());
    type_into(&mut h, "Memory budget", "");
    h.key_press(Key::Backspace);
    h.key_press(Key::Backspace);
    h.run();
    h.key_press(Key::Backspace);
    h.run();
    assert!(h.state().out.is_empty(), "not before the end");
    h.key_press(Key::Enter);
    h.run();
    assert_eq!(h.state().settings.load.memory_budget, Some(6 << 30));
    assert_eq!(h.get_by_role_and_label(Role::TextInput, "Memory budget").value().unwrap(), "6 GiB");
    type_into(&mut h, "Context, in tokens", "4096");
    type_into(&mut h, "Device", "cpu");
    h.key_press(Key::Enter);
    h.run();
    assert_eq!((h.state().settings.load.context, h.state().settings.load.device.as_str()), (Some(4096), "cpu"));
    h.get_by_role_and_label(Role::MultilineTextInput, "Default system prompt").focus();
    h.run();
    h.get_by_role_and_label(Role::MultilineTextInput, "Default system prompt").type_text("Hi");
    h.run();
    assert_eq!((h.state().settings.system.as_str(), h.state().out.len()), ("Hi", 4));
}

#[test]
fn places_and_shortcuts() {
    let mut h = harness(700.0);
    h.get_by_label("Copy the path of Conversations").click();
    h.run();
    h.get_by_label("Keyboard shortcuts...").click();
    h.run();
    assert_eq!(h.state().out, [Action::Copy("/home/a/chats".into()), Action::Run(Command::ShowShortcuts)]);
}

#[test]
fn a_page_offers_what_a_page_has() {
    let mut h = harness_in(700.0, true);
    for text in
        ["kept in this browser", "no kernel can read the memory of a page", "Experts that do not fit are read from the file"]
    {
        assert!(h.query_by_label_contains(text).is_some(), "{text}");
    }
    assert!(h.query_by_label("Gather").is_none() && h.query_by_label("Copy the path of Conversations").is_none());
    type_into(&mut h, "Memory budget", "everything");
    h.key_press(Key::Enter);
    h.run();
    assert_eq!(h.state().settings.load.memory_budget, Some(crate::loading::options::EVERYTHING));
}
