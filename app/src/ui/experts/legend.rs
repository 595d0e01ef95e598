//! What the colours mean.

use eframe::egui::Ui;

use crate::{activity::Field, settings::Palette};

/// A bar of colours with its numbers, the noise band, and glyphs where colours are names.
pub fn legend_ui(ui: &mut Ui, field: &Field, palette: Palette) {
    let _ = (ui, field, palette);
}
