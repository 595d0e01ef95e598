#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

use std::time::{Duration, Instant};

use egui::{Key, Theme as Light};
use egui_kittest::{Harness, kittest::Queryable};
use pleiad_models::Checkpoint;

use super::*;
use crate::{loading::devices::Device, settings::ThemeChoice};

/// All that the picker is drawn from, and what it asked for.
struct State {
    view: PickerView,
    models: Models,
    loading: Option<Loading>,
    examined: Option<Examined>,
    examining: bool,
    problem: Option<String>,
    devices: Devices,
    settings: Settings,
    out: Vec<Action>,
}

fn device(key: &str, best: bool) -> Device {
    let name = if key == "cpu" { "CPU (x86_64)" } else { "Some card" };
    Device {
        key: key.into(),
        name: name.into(),
        kind: "discrete".into(),
        driver: "Vulkan".into(),
        tier: "plain".into(),
        facts: Vec::new(),
        best,
    }
}

fn state() -> State {
    State {
        view: PickerView { open: true, ..PickerView::default() },
        models: Models::new(Arc::new(|| {})),
        loading: None,
        examined: None,
        examining: false,
        problem: None,
        devices: Devices::of(vec![device("wgpu:0", true), device("cpu", false)]),
        settings: Settings::default(),
        out: Vec::new(),
    }
}

fn examined() -> State {
    State { examined: Some(Examined::of(Source::Tiny, &Checkpoint::tiny().unwrap())), ..state() }
}

fn harness(mut state: State, width: f32, height: f32, theme: Light) -> Harness<'static, State> {
    state.settings.theme = if theme == Light::Dark { ThemeChoice::Dark } else { ThemeChoice::Light };
    let draw = |ui: &mut Ui, s: &mut State| {
        Theme::apply(ui.ctx(), &s.settings);
        let cx = PickerContext {
            models: &s.models,
            loading: s.loading.as_ref(),
            examined: s.examined.as_ref(),
            examining: s.examining,
            problem: s.problem.as_deref(),
            devices: &s.devices,
            settings: &s.settings,
        };
        s.view.show(ui.ctx(), &cx, &mut s.out);
    };
    Harness::builder().with_size(vec2(width, height)).with_theme(theme).build_ui_state(draw, state)
}

fn wide(state: State) -> Harness<'static, State> {
    harness(state, 1000.0, 900.0, Light::Dark)
}

/// The settings that were last asked for.
fn load_settings(h: &Harness<'_, State>) -> LoadSettings {
    let set = h.state().out.iter().rev().find_map(|a| match a {
        Action::SetSettings(s) => Some(s.load.clone()),
        _ => None,
    });
    set.unwrap()
}

#[test]
fn models_are_chosen_from_the_list() {
    let mut s = state();
    s.settings.recent = vec!["tiny".into(), "gone/away.gguf".into()];
    let mut h = wide(s);
    let start = Instant::now();
    while h.query_by_label("away.gguf, not found").is_none() {
        assert!(start.elapsed() < Duration::from_secs(20), "a missing file is not told");
        std::thread::sleep(Duration::from_millis(5));
        h.run_steps(1);
    }
    assert!(h.query_by_label_contains("Choose a model").is_some() && h.query_by_label("Loaded").is_none());
    for label in ["Embedded model", "away.gguf, not found", "Open a file...", "Open a folder..."] {
        h.get_by_label(label).click();
        h.run();
    }
    let gone = Source::of("gone/away.gguf").unwrap();
    let choose = |folder| Action::ChooseModel { folder };
    assert_eq!(h.state().out, [Action::Examine(Source::Tiny), Action::Examine(gone), choose(false), choose(true)]);
    // Nothing was chosen: there is nothing to load.
    h.get_by_label("Load").click();
    h.run();
    assert_eq!(h.state().out.len(), 4);
    h.get_by_label("Close").click();
    h.run();
    assert!(!h.state().view.open && h.query_by_label("Embedded model").is_none());
}

#[test]
fn a_model_is_loaded_with_what_the_controls_say() {
    let mut h = wide(examined());
    assert!(h.query_by_label_contains("of experts resident").is_some_and(|n| format!("{n:?}").contains("100 %")));
    h.get_by_role_and_label(Role::Slider, "Context length").focus();
    h.run();
    h.key_press(Key::ArrowLeft);
    h.run();
    let max = h.state().examined.as_ref().unwrap().max_context;
    let expected = stops_below(max.min(8192));
    h.get_by_role_and_label(Role::ComboBox, "Missing experts").click();
    h.run();
    h.get_by_label("The CPU computes them").click();
    h.run();
    h.get_by_role_and_label(Role::ComboBox, "Device").click();
    h.run();
    h.get_by_label("Some card, discrete").click();
    h.run();
    h.get_by_label("Load").click();
    h.run();
    assert_eq!(h.state().out.last(), Some(&Action::Load { source: Source::Tiny, keep: false }));
    let set = load_settings(&h);
    assert_eq!((set.context, set.misses.to_string().as_str(), set.device.as_str()), (Some(expected), "cpu", "wgpu:0"));
    assert_eq!(set.memory_budget, None);
}

/// The largest stop of the slider below a length that is itself one.
fn stops_below(length: usize) -> usize {
    if length.is_power_of_two() { length / 2 } else { length.next_power_of_two() / 2 }
}

#[test]
fn the_budget_goes_from_the_least_to_everything() {
    let mut h = wide(examined());
    let price = h.state().examined.as_ref().unwrap().price(&LoadSettings::default());
    let least = price.least as f64;
    h.get_by_role_and_label(Role::Slider, "Memory budget").set_value_accesskit(least);
    h.run();
    assert!(h.query_by_label("100 % of experts resident").is_none());
    h.get_by_label("Load").click();
    h.run();
    let budget = load_settings(&h).memory_budget.unwrap();
    assert!(budget >= price.least && budget < price.least + (1 << 20), "{budget} of {price:?}");
    h.get_by_role_and_label(Role::Slider, "Memory budget").set_value_accesskit(price.whole as f64);
    h.run();
    h.get_by_label("Load").click();
    h.run();
    assert_eq!(load_settings(&h).memory_budget, None);
}

#[test]
fn too_small_a_budget_is_told_and_mended() {
    let mut s = examined();
    s.settings.load.memory_budget = Some(64 << 10);
    let mut h = wide(s);
    assert!(h.query_by_label_contains("needs at least").is_some());
    h.get_by_label("Load").click();
    h.run();
    assert_eq!(h.state().out, [], "what cannot be loaded is not");
    h.get_by_label_contains("Take the least").click();
    h.run();
    assert!(h.query_by_label_contains("needs at least").is_none());
    h.get_by_label("Load").click();
    h.run();
    let least = h.state().examined.as_ref().unwrap().price(&LoadSettings::default()).least;
    assert_eq!(load_settings(&h).memory_budget, Some(least));
}

#[test]
fn the_cpu_has_no_budget() {
    let mut s = examined();
    s.devices = Devices::of(vec![device("cpu", true)]);
    let h = wide(s);
    assert!(h.query_by_label("Memory budget").is_none() && h.query_by_label("Missing experts").is_none());
    assert!(h.query_by_label_contains("In host memory,").is_some() && h.query_by_label_contains("On the device,").is_none());
}

#[test]
fn loading_is_shown_and_stopped() {
    let mut s = examined();
    s.loading = Some(Loading { source: Source::Tiny, done: 1 << 30, total: 4 << 30, seconds: 2.0 });
    let mut h = wide(s);
    assert!(h.query_by_label("1.0 GiB of 4.0 GiB, 512.0 MiB/s, 6.0 s left").is_some());
    h.get_by_label("Load").click();
    h.run();
    h.get_by_label("Cancel").click();
    h.run();
    assert_eq!(h.state().out, [Action::CancelLoading]);
    h.state_mut().loading = Some(Loading { source: Source::Tiny, done: 0, total: 0, seconds: 0.2 });
    h.run_steps(3);
    assert!(h.query_by_label_contains("Getting ready").is_some());
}

#[test]
fn what_is_loaded_can_be_let_go_or_stand_beside() {
    let mut s = examined();
    let on_cpu = LoadSettings { device: "cpu".into(), context: Some(256), ..LoadSettings::default() };
    s.models.load(Source::Tiny, &on_cpu, false);
    let start = Instant::now();
    while s.models.loading().is_some() {
        assert!(start.elapsed() < Duration::from_secs(120), "it takes too long");
        s.models.poll();
        std::thread::sleep(Duration::from_millis(5));
    }
    let mut h = wide(s);
    h.get_by_label("Embedded model, loaded");
    h.get_by_label("Unload Embedded model").click();
    h.get_by_label("Load beside").click();
    h.run();
    let out = &h.state().out;
    assert!(out.contains(&Action::Unload("tiny".into())), "{out:?}");
    assert!(out.contains(&Action::Load { source: Source::Tiny, keep: true }), "{out:?}");
}

#[test]
fn every_state_is_drawn_in_every_window() {
    for (width, height) in [(360.0, 480.0), (700.0, 420.0), (1600.0, 1000.0)] {
        for theme in [Light::Dark, Light::Light] {
            let mut h = harness(state(), width, height, theme);
            h.run();
            h.state_mut().problem = Some("nowhere.gguf: there is no such file".into());
            h.run();
            assert!(h.query_by_label_contains("no such file").is_some());
            h.state_mut().devices = Devices::default();
            h.state_mut().examined = examined().examined;
            // A spinner turns for ever.
            h.run_steps(4);
            h.check_accessibility();
            let heading = h.get_by_label("Models").rect();
            assert!(heading.left() >= 0.0, "{heading:?}: the picker is wider than the window");
            assert!(h.query_by_label("Looking for devices").is_some());
            h.state_mut().examining = true;
            h.run_steps(4);
            assert!(h.query_by_label("Looking at the model").is_some());
            let load = h.get_by_label("Load").rect();
            assert!(load.bottom() <= height && load.right() <= width, "{load:?} in {width} x {height}");
        }
    }
}

#[test]
fn scarce_memory_is_told() {
    let host = Some(HostMemory { total: 16 << 30, available: 4 << 30 });
    assert_eq!([host_warning(1 << 30, host), host_warning(1 << 40, None)], [None, None]);
    assert!(host_warning(8 << 30, host).unwrap().contains("Only 4.0 GiB"));
    assert!(host_warning(20 << 30, host).unwrap().contains("has 16.0 GiB"));
}
