//! Pages, models, commands, narrow windows, errors.

use egui::{Key, Modifiers, Vec2};
use egui_kittest::kittest::Queryable as _;
use pleiad_app::{
    loading::Source,
    ui::{Action, Page},
};

use crate::stage::{Stage, ask_and_wait, chat, click, ctrl, folder, last, loaded, ready, shown, until};

#[test]
fn commands_are_found_by_typing() {
    let mut harness = ready("palette");
    ctrl(&mut harness, Key::K);
    let search = harness.get_by_label("Find a command");
    search.type_text("devic");
    harness.run_steps(2);
    harness.key_press(Key::Enter);
    harness.run_steps(3);
    assert_eq!(harness.state().page(), Page::Performance);
    harness.key_press(Key::F1);
    harness.run_steps(2);
    assert!(harness.query_all_by_label("Keyboard shortcuts").next().is_some());
    harness.key_press(Key::Escape);
    harness.run_steps(3);
    harness.key_press_modifiers(Modifiers::ALT, Key::Num1);
    harness.run_steps(3);
    assert_eq!(harness.state().page(), Page::Chat);
}

#[test]
fn a_model_that_is_not_there_is_told_in_words_and_the_app_goes_on() {
    let stage = Stage { model: Source::of("/nowhere/model.gguf"), ..Stage::default() };
    let mut harness = stage.open(&folder("nowhere"));
    until(&mut harness, "bad news", |app| app.problem().is_some());
    assert!(harness.query_all_by_label_contains("model.gguf could not be loaded").next().is_some());
    // What is written meanwhile stays in the box until there is somebody to send it to.
    crate::stage::ask(&mut harness, "What is 2 + 2?");
    assert_eq!(chat(harness.state()).tree.len(), 0);
    let ctx = harness.ctx.clone();
    let load = |keep| Action::Load { source: Source::Tiny, keep };
    harness.state_mut().give(&ctx, load(false));
    loaded(&mut harness);
    assert!(harness.state().problem().is_none());
    harness.key_press(Key::Enter);
    harness.run_steps(2);
    crate::stage::answered(&mut harness);
    assert_eq!(shown(harness.state())[0].text, "What is 2 + 2?");
    let answer = last(harness.state()).text.clone();
    assert!(answer.contains('4'), "{answer}");
}

#[test]
fn a_file_cut_short_is_refused_in_words_and_the_old_model_stays() {
    let data = folder("cut");
    std::fs::create_dir_all(&data).unwrap();
    let path = data.join("cut.gguf");
    std::fs::write(&path, b"GGUF\x03\0\0\0\x05\0\0\0\0\0\0\0\x01").unwrap();
    let mut harness = Stage::default().open(&data);
    loaded(&mut harness);
    let ctx = harness.ctx.clone();
    harness.state_mut().give(&ctx, Action::Examine(Source::Path(path.clone())));
    until(&mut harness, "the refusal", |app| app.picker_problem().is_some());
    assert!(harness.state().picker_problem().unwrap().contains("cut.gguf"));
    assert!(harness.query_all_by_label_contains("cut.gguf cannot be opened").next().is_some());
    harness.state_mut().give(&ctx, Action::Load { source: Source::Path(path), keep: false });
    until(&mut harness, "the old model", |app| app.models().loading().is_none() && !app.models().loaded().is_empty());
    let answer = {
        harness.key_press(Key::Escape);
        harness.run_steps(3);
        ask_and_wait(&mut harness, "What is 1 + 1?")
    };
    assert!(!answer.is_empty());
}

#[test]
fn the_picker_prices_a_model_and_loads_it() {
    let mut harness = ready("picker");
    ctrl(&mut harness, Key::M);
    until(&mut harness, "the price", |app| app.examined().is_some());
    harness.run_steps(3);
    assert!(harness.query_all_by_label_contains("latent cache").next().is_some());
    click(&mut harness, "Load");
    until(&mut harness, "the load", |app| {
        app.models().loading().is_none() && !app.models().loaded().is_empty() && !app.picker_open()
    });
}

#[test]
fn a_narrow_window_shows_one_thing_at_a_time() {
    let mut harness = Stage { size: Vec2::new(380.0, 640.0), ..Stage::default() }.open(&folder("narrow"));
    loaded(&mut harness);
    assert!(harness.query_by_label("Search conversations").is_none());
    ask_and_wait(&mut harness, "What is 6 + 6?");
    click(&mut harness, "Conversation list");
    assert!(harness.query_by_label("Search conversations").is_some());
    assert!(harness.query_by_label("Message").is_none());
    click(&mut harness, "Close the list");
    click(&mut harness, "Experts beside the conversation");
    assert_eq!(harness.state().page(), Page::Experts);
}

#[test]
fn every_page_draws_in_every_size_and_theme() {
    for (width, height) in [(360.0, 480.0), (800.0, 600.0), (1600.0, 900.0)] {
        for theme in [egui::Theme::Dark, egui::Theme::Light] {
            let mut stage = Stage { size: Vec2::new(width, height), theme, ..Stage::default() };
            stage.settings.theme = match theme {
                egui::Theme::Dark => pleiad_app::settings::ThemeChoice::Dark,
                egui::Theme::Light => pleiad_app::settings::ThemeChoice::Light,
            };
            let mut harness = stage.open(&folder(&format!("pages-{width}-{theme:?}")));
            let ctx = harness.ctx.clone();
            for page in [Page::Chat, Page::Experts, Page::Performance, Page::Settings, Page::Log] {
                harness.state_mut().give(&ctx, Action::Go(page));
                harness.run_steps(3);
                harness.render().unwrap();
            }
        }
    }
}

#[test]
fn settings_that_cannot_be_understood_are_told_about_and_kept() {
    let data = folder("spoilt");
    std::fs::create_dir_all(&data).unwrap();
    std::fs::write(data.join("settings.json"), "{ \"theme\": \"pink\" }").unwrap();
    let mut harness = Stage::default().open(&data);
    assert!(harness.query_all_by_label_contains("settings.json cannot be understood").next().is_some());
    loaded(&mut harness);
    assert_eq!(std::fs::read_to_string(data.join("settings.json.bad")).unwrap(), "{ \"theme\": \"pink\" }");
}

#[test]
fn what_is_being_written_belongs_to_its_conversation() {
    let mut harness = ready("drafts");
    ask_and_wait(&mut harness, "What is 1 + 4?");
    let box_ = || egui::accesskit::Role::MultilineTextInput;
    harness.get_by_role_and_label(box_(), "Message").focus();
    harness.get_by_role_and_label(box_(), "Message").type_text("half a thought");
    harness.run_steps(2);
    ctrl(&mut harness, Key::N);
    assert_eq!(harness.get_by_role_and_label(box_(), "Message").value().unwrap_or_default(), "");
    let ctx = harness.ctx.clone();
    let first = harness.state().library().summaries()[0].id.clone();
    harness.state_mut().give(&ctx, Action::OpenChat(first));
    harness.run_steps(3);
    assert_eq!(harness.get_by_role_and_label(box_(), "Message").value().as_deref(), Some("half a thought"));
}
