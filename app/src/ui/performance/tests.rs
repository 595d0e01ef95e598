#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use egui::Theme as Light;
use egui_kittest::{Harness, kittest::Queryable};
use pleiad_runtime::{
    executor::DeviceStats,
    experts::ways::{Way, WayChoice},
};

use super::*;
use crate::{
    loading::{Source, devices::Device},
    settings::{LoadSettings, ThemeChoice},
};

struct State {
    view: PerformanceView,
    models: Models,
    devices: Devices,
    answers: Vec<GenerationStats>,
    frames: Vec<f32>,
    settings: Settings,
    page: bool,
    memory: Vec<(String, u64)>,
    out: Vec<Action>,
}

fn empty() -> State {
    State {
        view: PerformanceView::default(),
        models: Models::new(Arc::new(|| {})),
        devices: Devices::default(),
        answers: Vec::new(),
        frames: Vec::new(),
        settings: Settings::default(),
        page: false,
        memory: Vec::new(),
        out: Vec::new(),
    }
}

fn full() -> State {
    let mut state = empty();
    let settings = LoadSettings { device: "cpu".into(), context: Some(256), ..LoadSettings::default() };
    state.models.load(Source::Tiny, &settings, false);
    let start = Instant::now();
    while state.models.loading().is_some() {
        assert!(start.elapsed() < Duration::from_secs(120), "it takes too long");
        state.models.poll();
        std::thread::sleep(Duration::from_millis(5));
    }
    let device = |key: &str, name: &str, best| Device {
        key: key.into(),
        name: name.into(),
        kind: "discrete".into(),
        driver: "Vulkan, Mesa 25".into(),
        tier: "subgroup".into(),
        facts: vec![("Largest binding".into(), "2.0 GiB".into())],
        best,
    };
    state.devices = Devices::of(vec![device("wgpu:0", "Some card", true), device("cpu", "CPU (x86_64)", false)]);
    state.answers = (1..=30)
        .map(|i| GenerationStats {
            prompt_tokens: 100 + i,
            generated_tokens: 101,
            prefill_seconds: 0.5,
            decode_seconds: 2.5,
            decode_device: DeviceStats { dispatches: 30_000, uploaded_bytes: 100 << 20, ..DeviceStats::default() },
            ..GenerationStats::default()
        })
        .collect();
    state.frames = (0..240).map(|i| 1.0 + (i % 7) as f32 * 0.3).collect();
    state
}

fn harness(mut state: State, width: f32, height: f32, theme: Light) -> Harness<'static, State> {
    state.settings.theme = if theme == Light::Dark { ThemeChoice::Dark } else { ThemeChoice::Light };
    let draw = |ui: &mut Ui, s: &mut State| {
        Theme::apply(ui.ctx(), &s.settings);
        let cx = PerformanceContext {
            models: &s.models,
            devices: &s.devices,
            answers: &s.answers,
            frames: &s.frames,
            settings: &s.settings,
            page: s.page,
            memory: &s.memory,
        };
        s.view.show(ui, &cx, &mut s.out);
    };
    Harness::builder().with_size(vec2(width, height)).with_theme(theme).build_ui_state(draw, state)
}

#[test]
fn an_empty_page_says_so() {
    let mut h = harness(empty(), 800.0, 900.0, Light::Dark);
    h.run_steps(3);
    for text in ["No model is loaded.", "Looking for devices", "Nothing was answered yet", "No frame was measured"] {
        assert!(h.query_by_label_contains(text).is_some(), "{text}");
    }
    h.get_by_label("Choose a model...").click();
    h.run_steps(3);
    assert_eq!(h.state().out, [Action::OpenPicker]);
}

#[test]
fn what_runs_and_what_it_took_is_told() {
    let mut h = harness(full(), 1300.0, 1600.0, Light::Dark);
    for text in ["Embedded model", "8-bit blocks", "The CPU computes everything", "Some card", "taken by itself", "2.0 GiB"] {
        assert!(h.query_all_by_label_contains(text).next().is_some(), "{text}");
    }
    // 100 tokens after the first in 2.5 s, with 300 dispatches and 1 MiB each.
    for cell in ["40", "300", "1.0 MiB"] {
        assert_eq!(h.query_all_by_label(cell).count(), 12, "{cell}");
    }
    assert!(h.query_by_label("30").is_some() && h.query_by_label("18").is_none(), "the latest answers");
    assert!(h.query_by_label_contains("the slowest of the last 240 2.8 ms").is_some());
    h.get_by_label("Look again").click();
    h.run();
    assert_eq!(h.state().out, [Action::LookForDevices]);
}

#[test]
fn large_text_stays_within_its_card() {
    let mut state = full();
    state.settings.font_scale = 1.5;
    for width in [380.0, 1000.0, 1460.0] {
        let mut h = harness(state, width, 3000.0, Light::Light);
        h.run();
        let labels =
            |h: &Harness<'_, State>, text: &str| h.query_all_by_label_contains(text).map(|n| n.rect()).collect::<Vec<_>>();
        let answers = h.get_by_label("Answers").rect();
        for text in ["latent cache", "working memory", "Largest binding", "The CPU computes everything", "positions hold tokens"]
        {
            let found = labels(&h, text);
            assert!(!found.is_empty(), "{text}");
            for rect in found {
                // Beside it stands the card of answers, or nothing but the end of the window.
                let end = if answers.left() > width / 2.0 { answers.left() } else { width };
                assert!(rect.right() <= end, "{text} ends at {} of {end}", rect.right());
            }
        }
        state = std::mem::replace(h.state_mut(), empty());
    }
}

#[test]
fn in_a_browser_without_webgpu_that_is_said() {
    let mut state = empty();
    state.page = true;
    state.devices = Devices::of(vec![Device {
        key: "cpu".into(),
        name: "CPU (WebAssembly)".into(),
        kind: "CPU".into(),
        driver: String::new(),
        tier: String::new(),
        facts: Vec::new(),
        best: true,
    }]);
    state.memory = vec![("Page".into(), 48 << 20), ("Worker".into(), 96 << 20)];
    let mut h = harness(state, 800.0, 1400.0, Light::Dark);
    h.run_steps(3);
    for text in ["This browser has no WebGPU", "Memory of the program", "48.0 MiB", "96.0 MiB"] {
        assert!(h.query_by_label_contains(text).is_some(), "{text}");
    }
    assert!(h.query_by_label_contains("Vulkan").is_none());
}

#[test]
fn the_page_is_drawn_in_every_window() {
    for (width, height) in [(360.0, 480.0), (1600.0, 1000.0)] {
        for theme in [Light::Dark, Light::Light] {
            let mut h = harness(full(), width, height, theme);
            h.run();
            h.check_accessibility();
            assert!(h.get_by_label("Performance").rect().right() <= width);
        }
    }
}

#[test]
fn ways_of_serving_misses_are_told() {
    let way = |way, tokens, seconds| WayReport {
        way,
        tokens,
        share: tokens as f64 / 100.0,
        seconds_per_token: seconds,
        misses_per_token: seconds.map(|_| 3.25),
        expected_seconds: None,
    };
    let ways = WaysReport {
        choice: WayChoice::Auto,
        chosen: Way::Gather,
        probes: 3,
        switches: 6,
        drifts: 0,
        probing: 0.021,
        ways: vec![way(Way::Gather, 96, Some(0.0123)), way(Way::Cpu, 4, None)],
    };
    let mut report = ExpertReport {
        budget: Some(1000),
        device_bytes: 900,
        slot_bytes: 400,
        experts: 8,
        slots: vec![4, 4],
        copies: Vec::new(),
        bank: Some(BankKind::Memory),
        ways: Some(ways),
        notices: vec!["something went differently".into()],
    };
    let info = EngineInfo {
        model: "x".into(),
        device: "card".into(),
        backend: "wgpu".into(),
        context: 1,
        model_context: 1,
        activations: Activations::Q8,
        weight_bytes: 700,
        load_seconds: 1.0,
        notice: None,
    };
    let memory = MemoryUse { cache_bytes: 150, work_bytes: 50, positions: 512, taken: 128 };
    let bytes: Vec<_> = shares(&info, Some(&report), memory).iter().map(|s| (s.device, s.host)).collect();
    // Slots of 50 bytes; both layers lack experts, so the host keeps all 16.
    assert_eq!(bytes, [(300, 0), (400, 800), (150, 0), (50, 0)]);
    let draw = move |ui: &mut Ui, (info, report): &mut (EngineInfo, ExpertReport)| {
        memory_card_ui(ui, info, Some(report), memory, false);
        misses_ui(ui, report);
    };
    let h = Harness::builder().with_size(vec2(900.0, 700.0)).build_ui_state(draw, (info.clone(), report.clone()));
    for text in ["The GPU copies them (in use)", "12.30 ms", "96 %", "took 2.1 % of the time", "something went differently"] {
        assert!(h.query_by_label_contains(text).is_some(), "{text}");
    }
    assert!(h.query_by_label_contains("50 % of experts; 4 of 8 in each of 2 layers").is_some());
    assert!(h.query_all_by_label_contains("128 of 512 positions hold tokens, 25 %").next().is_some());
    (report.ways, report.slots) = (None, vec![8, 8]);
    let h = Harness::builder().with_size(vec2(900.0, 700.0)).build_ui_state(draw, (info, report));
    assert!(h.query_by_label_contains("none can be missing").is_some());
}
