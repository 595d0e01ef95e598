//! System prompt, sampling and second mind of a conversation.

use eframe::egui::Ui;
use pleiad_models::GenerationConfig;

use super::Action;
use crate::{chats::Setup, settings::Settings};

/// What the panel is drawn from.
pub struct SetupContext<'a> {
    /// How answers of the open conversation are made.
    pub setup: &'a Setup,
    /// What the checkpoint recommends; `None`: no model is loaded.
    pub recommended: Option<&'a GenerationConfig>,
    /// Models that are loaded: key and name.
    pub models: &'a [(String, String)],
    /// What a person has chosen: presets are kept there.
    pub settings: &'a Settings,
}

/// What the panel keeps between frames.
#[derive(Debug, Default)]
pub struct SetupView {}

impl SetupView {
    /// Draws the panel.
    pub fn show(&mut self, ui: &mut Ui, cx: &SetupContext<'_>, out: &mut Vec<Action>) {
        let _ = (ui, cx, out);
    }
}
