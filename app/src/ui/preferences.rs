//! Settings.

use eframe::egui::Ui;

use super::Action;
use crate::settings::Settings;

/// Draws the page. `places`: what is kept where, as name and path.
pub fn preferences_ui(ui: &mut Ui, settings: &Settings, places: &[(String, String)], out: &mut Vec<Action>) {
    let _ = (ui, settings, places, out);
}
