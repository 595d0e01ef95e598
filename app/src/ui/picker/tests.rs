#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

use std::time::{Duration, Instant};

use egui::{Key, Theme as Light};
use egui_kittest::{Harness, kittest::Queryable};
use pleiad_models::Checkpoint;

use super::*;
use crate::{
    loading::{
        devices::Device,
        shelf::{Download, KeptFile, Room, ShelfNews},
    },
    settings::ThemeChoice,
};

/// All that the picker is drawn from, and what it asked for.
struct State {
    view: PickerView,
    models: Models,
    loading: Option<Loading>,
    examined: Option<Examined>,
    examining: bool,
    problem: Option<String>,
    devices: Devices,
    shelf: Option<Still>,
    settings: Settings,
    out: Vec<Action>,
}

/// A shelf on which nothing happens: what is asked of it, the picker asks by actions.
#[derive(Default)]
struct Still {
    files: Vec<KeptFile>,
    downloads: Vec<Download>,
    room: Option<Room>,
}

impl Shelf for Still {
    fn poll(&mut self) -> Vec<ShelfNews> {
        Vec::new()
    }
    fn files(&self) -> &[KeptFile] {
        &self.files
    }
    fn downloads(&self) -> &[Download] {
        &self.downloads
    }
    fn room(&self) -> Option<Room> {
        self.room
    }
    fn download(&mut self, _: &str) {}
    fn keep(&mut self, _: &Source) {}
    fn stop(&mut self, _: &str) {}
    fn remove(&mut self, _: &str) {}
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
        shelf: None,
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
            shelf: s.shelf.as_ref().map(|s| s as &dyn Shelf),
            settings: &s.settings,
            load: &s.settings.load,
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
    let loading =
        |doing: &str, done, total| Some(Loading { source: Source::Tiny, doing: doing.into(), done, total, seconds: 2.0 });
    s.loading = loading("Loading weights", 1 << 30, 4 << 30);
    let mut h = wide(s);
    assert!(h.query_by_label("Loading weights: 1.0 GiB of 4.0 GiB, 512.0 MiB/s, 6.0 s left").is_some());
    assert!(h.query_by_label("Loading weights, 25 %").is_some());
    h.get_by_label("Load").click();
    h.run();
    h.get_by_label("Cancel").click();
    h.run();
    assert_eq!(h.state().out, [Action::CancelLoading]);
    h.state_mut().loading = loading("Preparing kernels", 12, 40);
    h.run();
    assert!(h.query_by_label("Preparing kernels: 12 of 40").is_some());
    h.state_mut().loading = loading("", 0, 0);
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

const URL: &str = "https://example.org/half.gguf";

/// A page with a file that is whole, one that is not, and a download.
fn page() -> State {
    let room = Some(Room { used: 1200 << 20, quota: 12 << 30, lasting: true });
    let file = |name: &str, bytes, url: &str| KeptFile { name: name.into(), bytes, total: Some(4 << 20), url: url.into() };
    let download =
        Download { name: "new.gguf".into(), done: 1 << 30, total: Some(4 << 30), speed: (512 << 20) as f64, in_memory: false };
    let files = vec![file("whole.gguf", 4 << 20, ""), file("half.gguf", 2 << 20, URL)];
    State { shelf: Some(Still { files, downloads: vec![download], room }), ..examined() }
}

/// The same in a wide window, once it has found its size.
fn wide_page(state: State) -> Harness<'static, State> {
    let mut h = wide(state);
    h.run_steps(3);
    h
}

/// Clicks what has that name, and says what was asked for.
fn click(h: &mut Harness<'static, State>, label: &str) -> Vec<Action> {
    h.get_by_label(label).click();
    h.run_steps(3);
    std::mem::take(&mut h.state_mut().out)
}

#[test]
fn what_is_kept_is_listed_opened_and_removed() {
    let mut h = wide_page(page());
    for text in ["Kept in this browser", "4.0 MiB", "2.0 MiB of 4.0 MiB are here", "1.2 GiB of 12.0 GiB used"] {
        assert!(h.query_by_label(text).is_some(), "{text}");
    }
    assert!(h.query_by_label("Open a folder...").is_none() && h.query_by_label("Open a file...").is_some());
    let whole = Source::of("kept:whole.gguf").unwrap();
    assert_eq!(click(&mut h, &whole.name()), [Action::Examine(whole)]);
    assert_eq!(click(&mut h, "Go on with the download of half.gguf"), [Action::Download(URL.into())]);
    // To remove a file takes two clicks, and the second may be another one.
    assert_eq!(click(&mut h, "Remove whole.gguf"), []);
    assert_eq!(click(&mut h, "No, keep whole.gguf"), []);
    assert_eq!(click(&mut h, "Remove whole.gguf"), []);
    assert_eq!(click(&mut h, "Yes, remove whole.gguf"), [Action::RemoveKept("whole.gguf".into())]);
    assert!(h.query_by_label("Remove whole.gguf").is_some());
}

#[test]
fn downloads_are_begun_shown_and_stopped() {
    let mut h = wide_page(page());
    for text in ["Downloading new.gguf, 25 %", "1.0 GiB of 4.0 GiB, 512.0 MiB/s, 6.0 s left"] {
        assert!(h.query_by_label(text).is_some(), "{text}");
    }
    assert_eq!(click(&mut h, "Stop the download of new.gguf"), [Action::StopDownload("new.gguf".into())]);
    let line = "Download a model from an address";
    h.get_by_role_and_label(Role::TextInput, line).focus();
    h.run_steps(2);
    h.get_by_role_and_label(Role::TextInput, line).type_text("example.org/a.gguf");
    h.run_steps(2);
    assert_eq!(click(&mut h, "Download"), []);
    assert!(h.query_by_label_contains("begins with https://").is_some());
    h.get_by_role_and_label(Role::TextInput, line).focus();
    h.run_steps(2);
    h.key_press_modifiers(egui::Modifiers::COMMAND, Key::A);
    h.run_steps(2);
    h.get_by_role_and_label(Role::TextInput, line).type_text("https://example.org/a.gguf");
    h.run_steps(2);
    assert!(h.query_by_label_contains("begins with https://").is_none());
    h.key_press(Key::Enter);
    h.run_steps(2);
    assert_eq!(h.state().out, [Action::Download("https://example.org/a.gguf".into())]);
    assert!(h.state().view.open, "Enter in the line is no more than that");
}

#[test]
fn where_nothing_is_kept_that_is_said() {
    let mut s = page();
    let shelf = s.shelf.as_mut().unwrap();
    (shelf.room, shelf.files) = (None, Vec::new());
    (shelf.downloads[0].in_memory, shelf.downloads[0].total) = (true, None);
    let h = wide_page(s);
    for text in ["On this page", "1.0 GiB, 512.0 MiB/s"] {
        assert!(h.query_by_label(text).is_some(), "{text}");
    }
    for text in ["keeps no files for pages like this", "gone when the page is closed"] {
        assert!(h.query_by_label_contains(text).is_some(), "{text}");
    }
}

#[test]
fn a_copy_of_an_opened_file_can_be_kept() {
    let mut s = page();
    let opened = Source::of("opened:0:mine.gguf").unwrap();
    s.examined = Some(Examined::of(opened.clone(), &Checkpoint::tiny().unwrap()));
    let mut h = wide_page(s);
    assert_eq!(click(&mut h, "Keep a copy in this browser"), [Action::Keep(opened.clone())]);
    h.state_mut().shelf.as_mut().unwrap().downloads[0].name = opened.name();
    h.run_steps(2);
    assert!(h.query_by_label("Keep a copy in this browser").is_none() && h.query_by_label("A copy is being made.").is_some());
    h.state_mut().examined = Some(Examined::of(Source::Tiny, &Checkpoint::tiny().unwrap()));
    h.run_steps(2);
    assert!(h.query_by_label("A copy is being made.").is_none());
}

#[test]
fn a_page_has_one_way_of_misses_and_says_where_experts_are() {
    let mut s = page();
    s.settings.load.memory_budget = Some(examined().examined.unwrap().price(&LoadSettings::default()).least);
    let mut h = wide_page(s);
    assert!(h.query_by_role_and_label(Role::ComboBox, "Missing experts").is_none());
    assert!(h.query_by_label_contains("In the file, read when needed,").is_some());
    assert!(h.query_by_label_contains("In host memory").is_none());
    h.state_mut().devices = Devices::of(vec![device("cpu", true)]);
    h.run_steps(2);
    assert!(h.query_by_label_contains("This browser has no WebGPU").is_some());
    assert!(h.query_by_label_contains("In host memory,").is_some(), "the CPU has no other");
}

#[test]
fn a_page_is_drawn_in_every_window() {
    for (width, height) in [(360.0, 480.0), (700.0, 420.0), (1600.0, 1000.0)] {
        let mut h = harness(page(), width, height, Light::Dark);
        h.run_steps(3);
        h.check_accessibility();
        let heading = h.get_by_label("Kept in this browser").rect();
        assert!(heading.left() >= 0.0 && heading.right() <= width, "{heading:?}");
        for label in ["Download", "Remove half.gguf", "Stop the download of new.gguf"] {
            let rect = h.get_by_label(label).rect();
            assert!(rect.right() <= width, "{label}: {rect:?} in {width}");
        }
    }
}
