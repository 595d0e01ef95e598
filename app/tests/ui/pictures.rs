//! Pictures of panels and states, compared with those that were looked at (`UPDATE_SNAPSHOTS=1` makes them anew).

use egui::{Theme, Vec2};
use egui_kittest::Harness;
use pleiad_app::{
    settings::ThemeChoice,
    ui::{
        Action, App, Page,
        files::{Got, Want},
    },
};

use crate::stage::{Hands, Stage, folder, loaded};

/// A conversation with fixed statistics.
const CONVERSATION: &[u8] = include_bytes!("conversation.json");

fn opened(name: &str, size: (f32, f32), theme: Theme, page: Page, experts: bool) -> Harness<'static, App> {
    let hands = Hands::default();
    let mut stage = Stage { size: Vec2::new(size.0, size.1), theme, hands: hands.clone(), ..Stage::default() };
    stage.settings.theme = if theme == Theme::Dark { ThemeChoice::Dark } else { ThemeChoice::Light };
    stage.settings.experts = experts;
    stage.settings.sidebar = size.0 > 800.0;
    let mut harness = stage.open(&folder(&format!("picture-{name}")));
    loaded(&mut harness);
    hands.choose(Got::Read(Want::Chats, "conversation.json".into(), CONVERSATION.to_vec()));
    harness.run_steps(4);
    let ctx = harness.ctx.clone();
    harness.state_mut().give(&ctx, Action::Go(page));
    harness.state_mut().quiet();
    harness.run_steps(8);
    harness
}

#[test]
fn a_conversation_in_the_dark() {
    opened("chat-dark", (640.0, 460.0), Theme::Dark, Page::Chat, false).snapshot("conversation_dark");
}

#[test]
fn a_conversation_in_a_narrow_window_by_day() {
    opened("chat-narrow", (380.0, 560.0), Theme::Light, Page::Chat, false).snapshot("conversation_narrow_light");
}

#[test]
fn settings_by_day() {
    opened("settings", (560.0, 400.0), Theme::Light, Page::Settings, false).snapshot("settings_light");
}

#[test]
fn commands() {
    let mut harness = opened("palette", (460.0, 300.0), Theme::Dark, Page::Chat, false);
    let ctx = harness.ctx.clone();
    harness.state_mut().give(&ctx, Action::Run(pleiad_app::ui::Command::OpenPalette));
    harness.run_steps(4);
    harness.snapshot("palette_dark");
}
