//! Recording, export and import, and the replay of a record.

use egui::{Button, RichText, Role, Slider, Ui};

use crate::{
    activity::record::Recorder,
    ui::{Action, Command, Theme, action::TraceExport, parts},
};

/// What a person asked of a replay.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Event {
    /// Plays, or pauses.
    Play(bool),
    /// Goes to after so many tokens.
    Seek(usize),
    /// Plays so many times as fast as it was recorded.
    Speed(f32),
    /// Leaves the replay.
    Live,
}

/// How far a replay is.
#[derive(Clone, Debug, PartialEq)]
pub struct Progress {
    /// What is replayed.
    pub name: String,
    /// Tokens shown.
    pub at: usize,
    /// Tokens of the record.
    pub of: usize,
    /// Whether it plays.
    pub playing: bool,
    /// How many times as fast as it was recorded.
    pub speed: f32,
}

/// The controls of a replay.
pub fn replay_ui(ui: &mut Ui, p: &Progress) -> Option<Event> {
    let mut asked = None;
    ui.horizontal_wrapped(|ui| {
        let ended = p.at >= p.of;
        let (text, name) = if p.playing && !ended { ("Pause", "Pause the replay") } else { ("Play", "Play the record") };
        let button = ui.button(text);
        parts::named(&button, Role::Button, name);
        if button.on_hover_text(name).clicked() {
            asked = Some(Event::Play(ended || !p.playing));
        }
        let mut at = p.at;
        ui.scope(|ui| {
            ui.spacing_mut().slider_width = (ui.available_width() - 250.0).clamp(90.0, 420.0);
            ui.name_inputs("Token of the record", |ui| {
                let slider = Slider::new(&mut at, 0..=p.of.max(1)).suffix(format!(" of {}", p.of));
                if ui.add(slider).on_hover_text("Where the replay is, in tokens").changed() {
                    asked = Some(Event::Seek(at.min(p.of)));
                }
            });
        });
        let mut speed = p.speed;
        ui.scope(|ui| {
            ui.spacing_mut().slider_width = 70.0;
            ui.name_inputs("Speed of the replay", |ui| {
                let slider = Slider::new(&mut speed, 0.25..=16.0).logarithmic(true).max_decimals(2).suffix("×");
                if ui.add(slider).on_hover_text("How many times as fast as it was recorded").changed() {
                    asked = Some(Event::Speed(speed));
                }
            });
        });
        if ui.button("Back to live").on_hover_text("Leave the record, and show this program's own answers").clicked() {
            asked = Some(Event::Live);
        }
    });
    ui.label(parts::small(ui, format!("Replaying {}", p.name)));
    asked
}

/// Recording, export and import. `kept`: tokens that are at hand without recording; `ids_only`: exports leave out the text
/// of tokens.
pub fn record_ui(ui: &mut Ui, recorder: &Recorder, kept: usize, ids_only: &mut bool, out: &mut Vec<Action>) {
    let recording = recorder.on();
    let recorded = recorder.record().map_or(0, |r| r.tokens().len());
    let t = Theme::of(ui.ctx());
    ui.horizontal_wrapped(|ui| {
        let name = if recording { "Stop recording" } else { "Start recording" };
        let button = ui.add(Button::new(name).selected(recording));
        if button.on_hover_text(Command::ToggleRecording.tooltip(ui.ctx())).clicked() {
            out.push(Action::Run(Command::ToggleRecording));
        }
        let count = |n: usize| parts::count(n as u64);
        let text = match (recording, recorded) {
            (true, n) if recorder.full() => format!("{} tokens recorded; there is no room for more", count(n)),
            (true, n) => format!("recording, {} tokens", count(n)),
            (false, 0) => format!("the last {} tokens are at hand", count(kept)),
            (false, n) => format!("{} tokens recorded", count(n)),
        };
        ui.label(RichText::new(text).color(if recording { t.bad } else { t.muted }).text_style(Theme::small()));
    });
    ui.horizontal_wrapped(|ui| {
        let some = recorded > 0 || kept > 0;
        for (name, what, tooltip) in [
            ("CSV...", TraceExport::Csv, "A row for each expert that each token chose, for spreadsheets and pleiad trace"),
            ("JSON lines...", TraceExport::JsonLines, "The same, as one JSON object a line"),
            ("Picture...", TraceExport::Png, "The grid as it is shown, with its legend, as PNG"),
        ] {
            if ui.add_enabled(some, Button::new(name)).on_hover_text(tooltip).clicked() {
                out.push(Action::ExportTrace(what));
            }
        }
        ui.checkbox(ids_only, "Without the text of tokens").on_hover_text("Records then tell tokens by their ids only");
    });
    ui.horizontal_wrapped(|ui| {
        if ui.button("Replay a record...").on_hover_text("Read a record from a file, and replay it").clicked() {
            out.push(Action::ImportTrace);
        }
    });
}
