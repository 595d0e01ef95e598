//! The panel as a person meets it.

#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

use egui::{self, Key, Vec2, vec2};
use egui_kittest::{Harness, kittest::Queryable as _};

use super::*;
use crate::{activity::domains::Domain, ui::action::TraceExport};

const NARROW: Vec2 = vec2(380.0, 900.0);
const WIDE: Vec2 = vec2(1280.0, 860.0);
const STRIP: &str = "Tokens, newest last; arrow keys move, Enter pins";

struct World {
    view: ExpertsView,
    activity: Option<Activity>,
    settings: Settings,
    pointed: Option<Span>,
    surveying: Option<(String, usize)>,
    alone: bool,
    now: f64,
    out: Vec<Action>,
}

/// A world with a model of six mixture layers of 16 experts, and `tokens` tokens seen, the first ten of a prompt.
fn world(tokens: u32) -> World {
    let mut activity = fixture::activity(6, 16, 512);
    if tokens > 0 {
        fixture::answer(&mut activity, 1, tokens, 10.min(tokens));
    }
    World {
        view: ExpertsView::default(),
        activity: Some(activity),
        settings: Settings::default(),
        pointed: None,
        surveying: None,
        alone: false,
        now: 0.0,
        out: Vec::new(),
    }
}

fn harness(world: World, size: Vec2) -> Harness<'static, World> {
    let draw = |ui: &mut Ui, w: &mut World| {
        // As time does, so that nothing waits for its turn.
        w.now += 1.0;
        let cx = ExpertsContext {
            activity: w.activity.as_mut(),
            pointed: w.pointed.as_ref(),
            running: false,
            surveying: w.surveying.as_ref().map(|(name, n)| (name.as_str(), *n)),
            gpu: false,
            alone: w.alone,
            settings: &w.settings,
            now: w.now,
        };
        w.view.show(ui, cx, &mut w.out);
    };
    let setup = |ctx: &egui::Context| crate::ui::Theme::apply(ctx, &Settings::default());
    let mut harness = Harness::builder().with_size(size).with_context_setup(setup).build_ui_state(draw, world);
    harness.run_steps(4);
    harness
}

fn has(h: &Harness<'_, World>, text: &str) -> bool {
    h.query_all_by_label_contains(text).next().is_some()
}

#[test]
fn every_widget_of_every_tab_has_a_name() {
    for (size, alone) in [(NARROW, false), (vec2(700.0, 480.0), true), (WIDE, true)] {
        for mode in [Mode::Recent, Mode::Difference, Mode::Residency] {
            for tab in Tab::ALL {
                let mut w = world(60);
                (w.alone, w.view.tab, w.view.header.mode, w.view.pinned) = (alone, tab, mode, Some(Cell { row: 2, expert: 3 }));
                let mut h = harness(w, size);
                for name in ["one", "two"] {
                    let uses = (0..96).map(|i| i * u64::from(name == "two") + 1).collect();
                    h.state_mut().view.surveyed(name.into(), uses);
                }
                h.run_steps(2);
                h.check_accessibility();
                assert!(has(&h, "Layer 3, expert 3"), "{size} {tab:?}");
            }
        }
    }
}

#[test]
fn empty_states_say_what_to_do() {
    let mut w = world(0);
    w.activity = None;
    let mut h = harness(w, NARROW);
    assert!(has(&h, "No experts to show"));
    h.get_by_label("Choose a model...").click();
    h.run_steps(2);
    assert_eq!(h.state().out, [Action::Run(Command::OpenPicker)]);

    let h = harness(world(0), NARROW);
    assert!(has(&h, "Nothing yet") && has(&h, "Ask something and watch"));
    assert!(h.query_by_label(STRIP).is_none());
}

#[test]
fn modes_are_chosen_from_the_menu_or_by_command() {
    let mut h = harness(world(40), NARROW);
    assert!(h.query_all_by_label("Half-life in tokens").next().is_some());
    for mode in Mode::ALL.into_iter().cycle().skip(2).take(8) {
        h.state_mut().view.next_mode();
        assert_eq!(h.state().view.header.mode, mode);
        h.run_steps(2);
        assert_eq!(h.query_all_by_label("Half-life in tokens").next().is_some(), mode == Mode::Recent);
    }
    let mut w = world(40);
    w.alone = true;
    let mut h = harness(w, WIDE);
    h.get_by_label("Relative to uniform").click();
    h.run_steps(2);
    assert_eq!(h.state().view.header.mode, Mode::Relative);
}

#[test]
fn counting_anew_is_a_command() {
    let mut h = harness(world(40), NARROW);
    h.get_by_label(Command::ClearExperts.name()).click();
    h.run_steps(2);
    assert_eq!(h.state().out, [Action::Run(Command::ClearExperts)]);
    h.state_mut().activity.as_mut().unwrap().clear();
    h.run_steps(2);
    assert!(has(&h, "Nothing yet"));
}

#[test]
fn a_token_that_is_pointed_at_marks_its_word_and_lights_its_experts() {
    let mut h = harness(world(100), NARROW);
    assert_eq!(h.state().view.lit, None);
    let strip = h.get_by_label(STRIP).rect();
    // The strip is at its end: its last column is the newest token.
    let at = egui::pos2(strip.right() - 8.0, strip.top() + 30.0);
    h.hover_at(at);
    h.run_steps(3);
    let row = |h: &Harness<'_, World>, n: usize| h.state().activity.as_ref().unwrap().tokens().get(n).cloned().unwrap();
    let newest = row(&h, 99);
    assert_eq!(
        h.state().view.lit,
        Some(Span { chat: fixture::place().0, message: fixture::place().1, bytes: newest.bytes.clone() })
    );
    let lit = h.state().view.data.lit.clone().unwrap();
    assert_eq!((lit.0.1, lit.1.len()), (99, 12));

    h.drag_at(at);
    h.drop_at(at);
    h.run_steps(2);
    assert_eq!(h.state().view.pinned_token, Some(99));
    h.remove_cursor();
    h.run_steps(3);
    assert!(h.state().view.lit.as_ref().is_some_and(|s| s.bytes == newest.bytes));
    h.get_by_label("Unpin token").click();
    h.run_steps(3);
    h.remove_cursor();
    h.run_steps(3);
    assert_eq!(h.state().view.lit, None);
}

#[test]
fn a_word_that_is_pointed_at_lights_its_experts() {
    let mut w = world(100);
    let row = w.activity.as_ref().unwrap().tokens().get(42).cloned().unwrap();
    w.pointed =
        Some(Span { chat: fixture::place().0, message: fixture::place().1, bytes: row.bytes.start + 1..row.bytes.start + 2 });
    w.view.header.mode = Mode::Now;
    let h = harness(w, NARROW);
    let lit = h.state().view.data.lit.clone().unwrap();
    assert_eq!(lit.0.1, 42);
    assert!(lit.1.iter().zip(&row.choices).all(|(cell, c)| (cell.row + 1, cell.expert) == (c.layer.into(), c.expert.into())));
}

#[test]
fn the_strip_is_reached_by_keyboard() {
    let mut h = harness(world(30), NARROW);
    h.get_by_label(STRIP).focus();
    h.run_steps(2);
    h.key_press(Key::ArrowLeft);
    h.run_steps(2);
    h.key_press(Key::Enter);
    h.run_steps(2);
    assert_eq!(h.state().view.pinned_token, Some(28));
    assert!(h.get_by_label(STRIP).value().is_some_and(|v| v.starts_with("Token 29 of 30: “·w28”, answer")));
}

#[test]
fn a_brush_narrows_what_is_counted() {
    let mut h = harness(world(100), NARROW);
    assert!(has(&h, "Tokens 100"));
    let total = |h: &mut Harness<'_, World>| {
        let w = h.state_mut();
        let (settings, activity) = (w.settings.clone(), w.activity.as_ref().unwrap());
        w.view.header.mode = Mode::Total;
        activity.field(&w.view.view(&settings)).values.iter().sum::<f32>()
    };
    assert_eq!(total(&mut h), 1200.0);
    h.state_mut().view.timeline.brush = Some(20..50);
    h.run_steps(3);
    assert!(has(&h, "Tokens 30") && has(&h, "tokens 21 to 50 of 100"));
    assert_eq!(total(&mut h), 360.0);
    h.get_by_label("All tokens").click();
    h.run_steps(3);
    assert_eq!((h.state().view.timeline.brush.clone(), has(&h, "Tokens 100")), (None, true));
}

#[test]
fn a_brush_is_drawn_in_a_plot() {
    let mut w = world(100);
    w.alone = true;
    let mut h = harness(w, WIDE);
    let plot = h.get_by_label_contains("Hit rate over tokens").rect();
    let at = |x: f32| egui::pos2(plot.left() + x * plot.width(), plot.center().y);
    h.drag_at(at(0.25));
    h.run_steps(1);
    for x in [0.3, 0.4, 0.5] {
        h.hover_at(at(x));
        h.run_steps(1);
    }
    h.drop_at(at(0.5));
    h.run_steps(2);
    let brush = h.state().view.timeline.brush.clone().unwrap();
    assert!(brush.start.abs_diff(25) <= 2 && brush.end.abs_diff(51) <= 2, "{brush:?}");
}

#[test]
fn the_table_is_sorted_and_pins() {
    let mut w = world(100);
    (w.alone, w.view.tab, w.view.header.mode) = (true, Tab::Table, Mode::Total);
    let mut h = harness(w, WIDE);
    let rows = |h: &Harness<'_, World>| h.state().view.table.rows.clone();
    let all = rows(&h);
    assert!(all.len() == 96 && all.is_sorted_by(|a, b| a.value >= b.value));
    assert_eq!(all.iter().map(|r| r.count).sum::<u64>(), 1200);
    h.get_by_label("Sort by layer").click();
    h.run_steps(3);
    assert!(rows(&h).is_sorted_by_key(|r| r.cell));
    h.get_by_label("Sort by layer").click();
    h.run_steps(3);
    assert!(rows(&h).is_sorted_by(|a, b| a.layer >= b.layer));
    h.get_by_label("Pin layer 6, expert 1").click();
    h.run_steps(2);
    assert_eq!(h.state().view.pinned, Some(Cell { row: 5, expert: 1 }));
    h.get_by_label("Unpin the expert").click();
    h.run_steps(2);
    assert_eq!(h.state().view.pinned, None);
}

#[test]
fn texts_are_read_and_compared() {
    let mut w = world(50);
    (w.alone, w.view.tab) = (true, Tab::Domains);
    let mut h = harness(w, WIDE);
    h.get_by_label("Read all").click();
    h.run_steps(2);
    h.get_by_label(Domain::ALL[1].name).click();
    h.run_steps(2);
    let asked: Vec<Vec<String>> = h
        .state()
        .out
        .iter()
        .map(|a| match a {
            Action::Survey(texts) => texts.iter().map(|(name, _)| name.clone()).collect(),
            other => panic!("{other:?}"),
        })
        .collect();
    let all: Vec<String> = Domain::ALL.iter().map(|d| d.name.to_owned()).collect();
    assert_eq!(asked, [all.clone(), vec![all[1].clone()]]);

    h.state_mut().surveying = Some(("code".into(), 2));
    h.run_steps(2);
    assert!(has(&h, "Reading code, 2 to go"));
    h.state_mut().surveying = None;
    h.state_mut().view.surveyed("one".into(), (0..96).map(|i| i % 16).collect());
    h.state_mut().view.surveyed("two".into(), (0..96).map(|i| 15 - i % 16).collect());
    h.run_steps(2);
    h.get_by_label("Use one as A").click();
    h.run_steps(2);
    h.get_by_label("Use two as B").click();
    h.run_steps(2);
    let header = &h.state().view.header;
    let name = |s: &Option<Arc<Snapshot>>| s.as_ref().map(|s| s.label.clone());
    assert_eq!((header.mode, name(&header.a), name(&header.b)), (Mode::Difference, Some("one".into()), Some("two".into())));
    let view = h.state().view.view(&h.state().settings);
    let field = h.state().activity.as_ref().unwrap().field(&view);
    assert!((field.values[15] - 15.0 / 120.0).abs() < 1e-6 && (field.values[0] + 15.0 / 120.0).abs() < 1e-6);
}

#[test]
fn more_slots_are_asked_about_in_words() {
    let mut w = world(100);
    (w.alone, w.view.tab) = (true, Tab::Slots);
    let h = harness(w, WIDE);
    let expected = 100.0 * h.state().activity.as_ref().unwrap().lru().hit_rate(8).unwrap();
    assert!(has(&h, &format!("With 8 of 16 experts of each layer on the GPU, about {expected:.0} % would be found.")));
}

#[test]
fn a_record_is_made_exported_and_replayed() {
    let mut w = world(0);
    w.view.tab = Tab::Record;
    let mut h = harness(w, NARROW);
    h.get_by_label("Start recording").click();
    h.run_steps(2);
    assert_eq!(h.state().out, [Action::Run(Command::ToggleRecording)]);
    let w = h.state_mut();
    w.view.toggle_recording(w.activity.as_mut().unwrap());
    fixture::answer(w.activity.as_mut().unwrap(), 1, 40, 5);
    h.run_steps(2);
    assert!(has(&h, "recording, 40 tokens"));
    let w = h.state_mut();
    w.view.toggle_recording(w.activity.as_mut().unwrap());
    w.out.clear();
    h.run_steps(2);
    assert!(has(&h, "40 tokens recorded"));
    h.get_by_label("JSON lines...").click();
    h.run_steps(2);
    assert_eq!(h.state().out, [Action::ExportTrace(TraceExport::JsonLines)]);

    for json in [false, true] {
        let w = h.state_mut();
        let text = w.view.trace(w.activity.as_ref().unwrap(), json);
        w.view.import(w.activity.as_ref().unwrap(), text.as_bytes()).unwrap();
        w.view.player.as_mut().unwrap().replay.set_playing(false);
        h.run_steps(2);
        assert!(has(&h, "Back to live") && has(&h, "replay"));
        h.state_mut().view.player.as_mut().unwrap().obey(transport::Event::Seek(17));
        h.run_steps(3);
        assert!(has(&h, "Tokens 17") && has(&h, "17"));
        h.get_by_label("Back to live").click();
        h.run_steps(3);
        assert!(h.state().view.player.is_none() && has(&h, "Tokens 40"));
    }
    let w = h.state_mut();
    let error = w.view.import(w.activity.as_ref().unwrap(), b"hello").unwrap_err();
    assert!(!error.is_empty() && w.view.player.is_none());
}

#[test]
fn the_picture_is_a_png_of_what_is_shown() {
    let w = world(50);
    for view in [ExpertsView::default(), ExpertsView { timeline: timeline::Timeline::narrowed(5..20), ..Default::default() }] {
        let png = view.picture(w.activity.as_ref().unwrap(), &w.settings).unwrap();
        assert_eq!(png[..8], [0x89, b'P', b'N', b'G', 13, 10, 26, 10]);
    }
}

#[test]
fn another_model_starts_anew() {
    let mut h = harness(world(50), NARROW);
    let w = h.state_mut();
    (w.view.pinned, w.view.pinned_token, w.view.header.mode) = (Some(Cell { row: 5, expert: 15 }), Some(3), Mode::Weight);
    w.view.surveyed("one".into(), vec![1; 96]);
    w.activity = Some(fixture::activity(2, 4, 64));
    h.run_steps(2);
    let v = &h.state().view;
    assert_eq!((v.pinned, v.pinned_token, v.header.mode, v.domains.results.len()), (None, None, Mode::Weight, 0));
}

#[test]
fn what_takes_long_is_renewed_a_few_times_a_second() {
    let mut activity = fixture::activity(6, 16, 512);
    fixture::answer(&mut activity, 1, 20, 5);
    let mut data = Data::default();
    assert_eq!(data.tick(&activity, 0.0), None);
    let tokens = |data: &mut Data, a: &Activity| data.chips(a, None)[0].value.clone();
    assert_eq!(tokens(&mut data, &activity), "20");
    fixture::answer(&mut activity, 2, 10, 5);
    let wait = data.tick(&activity, 0.05).unwrap();
    assert!((wait.as_secs_f64() - 0.15).abs() < 1e-6);
    assert_eq!(tokens(&mut data, &activity), "20");
    assert_eq!(data.tick(&activity, 0.21), None);
    assert_eq!(tokens(&mut data, &activity), "30");
    assert_eq!(data.tick(&activity, 0.22), None);
}
