//! The command palette, and the list of shortcuts.

use eframe::egui::Context;

use super::{Action, Command};

/// The palette.
#[derive(Debug, Default)]
pub struct PaletteView {
    /// Whether it is open.
    pub open: bool,
    /// Whether the list of shortcuts is open.
    pub shortcuts: bool,
}

impl PaletteView {
    /// Draws the palette, or the list of shortcuts, over everything else, if one is open. `enabled`: whether a command
    /// can be given now.
    pub fn show(&mut self, ctx: &Context, enabled: &dyn Fn(Command) -> bool, out: &mut Vec<Action>) {
        let _ = (ctx, enabled, out);
    }
}
