//! The panel: controls, grid, and what is below it.

use eframe::egui::Ui;

use crate::{
    activity::Activity,
    settings::Settings,
    ui::{Action, chat::Span},
};

/// What the panel is drawn from.
pub struct ExpertsContext<'a> {
    /// What the experts did; `None`: no model with experts is loaded.
    pub activity: Option<&'a mut Activity>,
    /// The words of an answer that are pointed at in the conversation.
    pub pointed: Option<&'a Span>,
    /// An answer is being written.
    pub running: bool,
    /// The survey of prompt packs that is under way, and how many wait behind it.
    pub surveying: Option<(&'a str, usize)>,
    /// Whether the grid may be drawn by a callback on the GPU.
    pub gpu: bool,
    /// Alone on its page, with more room.
    pub alone: bool,
    /// What a person has chosen.
    pub settings: &'a Settings,
    /// Seconds of a clock that does not go back: that of the activity.
    pub now: f64,
}

/// What the panel keeps between frames.
#[derive(Default)]
pub struct ExpertsView {
    /// The token that is pointed at: its words in the conversation are lit.
    pub lit: Option<Span>,
}

impl ExpertsView {
    /// Draws the panel, and fills all of `ui`.
    pub fn show(&mut self, ui: &mut Ui, cx: ExpertsContext<'_>, out: &mut Vec<Action>) {
        let _ = (ui, cx, out);
    }

    /// The next way of showing experts.
    pub fn next_mode(&mut self) {}

    /// A prompt pack was read: its name, and the uses of every expert.
    pub fn surveyed(&mut self, name: String, uses: Vec<u64>) {
        let _ = (name, uses);
    }

    /// The grid as it is shown, as the bytes of a PNG file.
    pub fn picture(&self, activity: &Activity, settings: &Settings) -> Result<Vec<u8>, String> {
        let _ = (activity, settings);
        Err(String::new())
    }

    /// Everything recorded, as CSV or JSON lines.
    pub fn trace(&self, activity: &Activity, json: bool) -> String {
        let _ = (activity, json);
        String::new()
    }

    /// Reads a record, to replay it.
    ///
    /// # Errors
    /// In words, where it is no record, or one of another model.
    pub fn import(&mut self, activity: &Activity, bytes: &[u8]) -> Result<(), String> {
        let _ = (activity, bytes);
        Err(String::new())
    }
}
