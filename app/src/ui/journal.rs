//! The log: what the program has reported, newest last.

use eframe::egui::Ui;

use super::Action;

/// How much a line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// What was done.
    Info,
    /// What went differently.
    Warning,
    /// What failed.
    Error,
}

/// The log, in memory: the last lines.
#[derive(Debug, Default)]
pub struct Journal {}

impl Journal {
    /// Adds a line.
    pub fn add(&mut self, level: Level, text: impl Into<String>) {
        let _ = (level, text.into());
    }

    /// Draws the page.
    pub fn show(&mut self, ui: &mut Ui, out: &mut Vec<Action>) {
        let _ = (ui, out);
    }
}
