#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

use egui::{Key, Role};
use egui_kittest::{
    Harness,
    kittest::{NodeT as _, Queryable as _},
};

use super::*;
use crate::{settings::Preset, ui::Theme};

#[derive(Default)]
struct State {
    view: SetupView,
    setup: Setup,
    settings: Settings,
    recommended: Option<GenerationConfig>,
    models: Vec<(String, String)>,
    out: Vec<Action>,
}

/// A window in which actions are carried out, and kept.
fn harness(state: State) -> Harness<'static, State> {
    let mut h = Harness::builder()
        .with_size([360.0, 1400.0])
        .with_context_setup(|ctx| Theme::apply(ctx, &Settings { reduced_motion: true, ..Settings::default() }))
        .build_ui_state(
            |ui, s: &mut State| {
                let cx = SetupContext {
                    setup: &s.setup,
                    recommended: s.recommended.as_ref(),
                    models: &s.models,
                    settings: &s.settings,
                };
                let mut out = Vec::new();
                s.view.show(ui, &cx, &mut out);
                for action in &out {
                    match action {
                        Action::SetSetup(setup) => s.setup = setup.clone(),
                        Action::SetSettings(settings) => s.settings = (**settings).clone(),
                        other => panic!("{other:?}"),
                    }
                }
                s.out.extend(out);
            },
            state,
        );
    h.run();
    h
}

fn choose(h: &mut Harness<'_, State>, list: &str, entry: &str) {
    h.get_by_role_and_label(Role::ComboBox, list).click();
    h.run();
    h.get_by_label(entry).click();
    h.run();
}

#[test]
fn nothing_is_asked_for_without_a_change() {
    let mut h = harness(State::default());
    h.run_steps(5);
    assert!(h.state().out.is_empty());
}

#[test]
fn texts_are_taken_when_they_change() {
    let mut h = harness(State::default());
    h.get_by_role_and_label(Role::MultilineTextInput, "System prompt").focus();
    h.run();
    h.get_by_role_and_label(Role::MultilineTextInput, "System prompt").type_text("Be brief");
    h.run();
    h.run_steps(3);
    assert_eq!((h.state().setup.system.as_str(), h.state().out.len()), ("Be brief", 1));
}

#[test]
fn a_slider_sets_a_parameter_and_goes_back() {
    let mut h = harness(State::default());
    let default = Sampling::default().params(&GenerationConfig::default(), 0);
    let temperature =
        |h: &Harness<'_, State>| h.get_by_role_and_label(Role::Slider, "Temperature").accesskit_node().numeric_value().unwrap();
    assert_eq!(temperature(&h) as f32, default.temperature);
    assert_eq!(h.get_all_by_label("default").count(), 7);
    h.get_by_role_and_label(Role::Slider, "Temperature").set_value_accesskit(1.25);
    h.run();
    assert_eq!(h.state().setup.sampling, Sampling { temperature: Some(1.25), ..Sampling::default() });
    assert_eq!(h.get_all_by_label("default").count(), 6);
    h.get_by_label("Reset Temperature").click();
    h.run();
    assert_eq!(h.state().setup.sampling, Sampling::default());
    h.get_by_role_and_label(Role::Slider, "Top-k").set_value_accesskit(20.0);
    h.run();
    assert_eq!(h.state().setup.sampling.top_k, Some(20));
    assert_eq!(h.state().out.len(), 3);
}

#[test]
fn a_dragged_slider_is_taken_once() {
    let mut h = harness(State::default());
    let rect = h.get_by_role_and_label(Role::Slider, "Top-p").rect();
    h.drag_at(rect.left_center() + egui::vec2(4.0, 0.0));
    h.run();
    for x in [0.3, 0.4, 0.5] {
        h.hover_at(rect.lerp_inside(egui::vec2(x, 0.5)));
        h.run();
    }
    assert!(h.state().out.is_empty());
    h.drop_at(rect.center());
    h.run();
    assert_eq!(h.state().out.len(), 1);
    let p = h.state().setup.sampling.top_p.unwrap();
    assert!((0.4..0.6).contains(&p), "{p}");
}

#[test]
fn presets_are_chosen_saved_and_deleted() {
    let mut h = harness(State::default());
    h.state_mut().setup.sampling.seed = Some(5);
    choose(&mut h, "Preset", "Creative");
    let creative = Sampling { temperature: Some(1.0), min_p: Some(0.05), seed: Some(5), ..Sampling::default() };
    assert_eq!(h.state().setup.sampling, creative);
    assert!(h.query_by_label("Save as a preset...").is_none(), "it is one already");
    h.get_by_role_and_label(Role::Slider, "Temperature").set_value_accesskit(1.5);
    h.run();
    h.get_by_label("Save as a preset...").click();
    h.run();
    assert!(h.get_by_label("Name of the preset").is_focused());
    h.get_by_label("Name of the preset").type_text("precise");
    h.run();
    h.get_by_label("There is a built-in preset of that name");
    h.key_press(Key::Backspace);
    h.run();
    h.get_by_label("Save").click();
    h.run();
    let sampling = Sampling { temperature: Some(1.5), min_p: Some(0.05), ..Sampling::default() };
    assert_eq!(h.state().settings.presets, [Preset { name: "precis".into(), sampling }]);
    choose(&mut h, "Preset", "Precise");
    assert_eq!(h.state().setup.sampling.temperature, Some(0.0));
    choose(&mut h, "Preset", "precis");
    assert_eq!(h.state().setup.sampling.temperature, Some(1.5));
    h.get_by_label("Delete preset precis").click();
    h.run();
    assert!(h.state().settings.presets.is_empty());
}

#[test]
fn numbers_are_checked() {
    let mut h = harness(State::default());
    h.get_by_role_and_label(Role::TextInput, "Seed").focus();
    h.run();
    h.get_by_role_and_label(Role::TextInput, "Seed").type_text("12x");
    h.run();
    h.get_by_label("Use a whole number, or leave it empty");
    assert!(h.state().out.is_empty());
    h.key_press(Key::Backspace);
    h.run();
    assert_eq!(h.state().setup.sampling.seed, Some(12));
    h.get_by_role_and_label(Role::TextInput, "Longest answer, in tokens").focus();
    h.run();
    h.get_by_role_and_label(Role::TextInput, "Longest answer, in tokens").type_text("0");
    h.run();
    h.get_by_label_contains("above 0");
    h.get_by_role_and_label(Role::TextInput, "Longest answer, in tokens").type_text("7");
    h.run();
    assert_eq!(h.state().setup.max_tokens, Some(7));
}

#[test]
fn the_second_mind_is_set_up() {
    let mut h = harness(State { models: vec![("tiny".into(), "Embedded model".into())], ..State::default() });
    assert!(h.query_by_label("Turns").is_none());
    h.get_by_label("A second mind takes part").click();
    h.run();
    h.get_by_label("Talks").click();
    h.run();
    h.get_by_role_and_label(Role::Slider, "Turns").set_value_accesskit(6.0);
    h.run();
    choose(&mut h, "Model of the second", "Embedded model");
    for (field, text) in [("Name of the second", "a"), ("Name of the first", "b")] {
        h.get_by_role_and_label(Role::TextInput, field).focus();
        h.run();
        h.key_press(Key::End);
        h.get_by_role_and_label(Role::TextInput, field).type_text(text);
        h.run();
    }
    h.get_by_role_and_label(Role::MultilineTextInput, "System prompt of the second").focus();
    h.run();
    h.get_by_role_and_label(Role::MultilineTextInput, "System prompt of the second").type_text("Doubt");
    h.run();
    let duet = Duet {
        on: true,
        kind: DuetKind::Talk,
        turns: 6,
        first: "Firstb".into(),
        second: "Seconda".into(),
        system: "Doubt".into(),
        model: Some("tiny".into()),
    };
    assert_eq!(h.state().setup.duet, duet);
    h.state_mut().models.clear();
    h.run();
    assert_eq!(h.get_by_role_and_label(Role::ComboBox, "Model of the second").value().unwrap(), "tiny (not loaded)");
}
