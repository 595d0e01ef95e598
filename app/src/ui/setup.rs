//! System prompt, sampling and second mind of a conversation.
//!
//! | module | what it holds |
//! |---|---|
//! | [`presets`] | named sets of sampling settings |
//! | [`knobs`] | sampling parameters, each with its default |
//! | [`inputs`] | sliders and fields whose values are taken when a person is done with them |

pub(super) mod inputs;
mod knobs;
mod presets;
#[cfg(test)]
mod tests;

use egui::{ComboBox, Id, Label, ScrollArea, Slider, TextEdit, Ui};
use pleiad_models::GenerationConfig;

use super::{Action, parts, theme};
use crate::{
    chats::{Duet, DuetKind, Sampling, Setup},
    settings::Settings,
};
use inputs::Taken;

/// Most turns of two minds.
const MOST_TURNS: f32 = 20.0;

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
pub struct SetupView {
    /// The name of a preset that is being saved.
    saving: Option<String>,
    /// The field for it gets the focus.
    focus_name: bool,
}

impl SetupView {
    /// Draws the panel.
    pub fn show(&mut self, ui: &mut Ui, cx: &SetupContext<'_>, out: &mut Vec<Action>) {
        ScrollArea::vertical().id_salt("setup").auto_shrink([false, true]).show(ui, |ui| {
            // The scroll bar is beside, not over, the widgets.
            ui.set_max_width((ui.available_width() - theme::GAP).min(theme::READING_WIDTH));
            let mut changed = None;
            if let Some(system) = system_ui(ui, &cx.setup.system) {
                changed = Some(Setup { system, ..cx.setup.clone() });
            }
            if let Some(sampling) = self.sampling_ui(ui, cx, out) {
                changed = Some(Setup { sampling, ..cx.setup.clone() });
            }
            if let Some(max_tokens) = length_ui(ui, cx.setup) {
                changed = Some(Setup { max_tokens, ..cx.setup.clone() });
            }
            if let Some(duet) = duet_ui(ui, &cx.setup.duet, cx.models) {
                changed = Some(Setup { duet, ..cx.setup.clone() });
            }
            out.extend(changed.map(Action::SetSetup));
        });
    }

    fn sampling_ui(&mut self, ui: &mut Ui, cx: &SetupContext<'_>, out: &mut Vec<Action>) -> Option<Sampling> {
        parts::section(ui, "Sampling");
        let sampling = &cx.setup.sampling;
        let mut changed = self.presets_ui(ui, cx, out);
        let nothing = GenerationConfig::default();
        let defaults = Sampling::default().params(cx.recommended.unwrap_or(&nothing), 0);
        changed = changed.or(knobs::knobs_ui(ui, sampling, &defaults));
        let label = ui.label("Seed").on_hover_text("The same seed gives the same answer to the same question");
        let seed = sampling.seed.map_or_else(String::new, |s| s.to_string());
        let parse = |text: &str| match text {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|_| "Use a whole number, or leave it empty".to_owned()),
        };
        let texts = (seed.as_str(), "Another for every answer");
        if let Some(seed) = inputs::field(ui, Id::unique("setup seed"), label.id, texts, Taken::AtOnce, parse) {
            changed = Some(Sampling { seed, ..sampling.clone() });
        }
        changed
    }
}

fn system_ui(ui: &mut Ui, system: &str) -> Option<String> {
    parts::section(ui, "System prompt");
    let mut text = system.to_owned();
    let edit = TextEdit::multiline(&mut text).hint_text("None").desired_rows(4).desired_width(f32::INFINITY);
    let response = ui.add(edit).accessible_name("System prompt");
    response.changed().then_some(text)
}

/// The longest answer.
fn length_ui(ui: &mut Ui, setup: &Setup) -> Option<Option<usize>> {
    parts::section(ui, "Length");
    let label = ui.label("Longest answer, in tokens");
    let current = setup.max_tokens.map_or_else(String::new, |n| n.to_string());
    let texts = (current.as_str(), "Until the model ends it");
    inputs::field(ui, Id::unique("setup length"), label.id, texts, Taken::AtOnce, inputs::at_least_one)
}

/// The second mind.
fn duet_ui(ui: &mut Ui, duet: &Duet, models: &[(String, String)]) -> Option<Duet> {
    parts::section(ui, "Second mind");
    let mut new = duet.clone();
    let mut changed = inputs::tick(ui, &mut new.on, "A second mind takes part");
    if !duet.on {
        ui.add(Label::new(parts::small(ui, "Another persona reviews each answer, or talks with the first.")).wrap());
        return changed.then_some(new);
    }
    for (kind, name, explanation) in [
        (DuetKind::Review, "Reviews", "It reads the answer and says what is wrong; with two turns the first then corrects it"),
        (DuetKind::Talk, "Talks", "The two talk with each other, turn by turn"),
    ] {
        changed |= inputs::choice(ui, &mut new.kind, kind, name, explanation);
    }
    let label = ui.label("Turns").on_hover_text("Turns that the minds take after the first answer");
    let (_, turns) = ui
        .horizontal(|ui| {
            let id = Id::unique("setup turns");
            inputs::slider(ui, id, label.id, duet.turns as f32, |x| Slider::new(x, 1.0..=MOST_TURNS).integer())
        })
        .inner;
    if let Some(turns) = turns {
        (new.turns, changed) = (turns.round() as u32, true);
    }
    for (name, text) in [("Name of the first", &mut new.first), ("Name of the second", &mut new.second)] {
        let label = ui.label(name);
        let edit = TextEdit::singleline(text).desired_width(ui.available_width().min(220.0)).char_limit(40);
        changed |= ui.add(edit).labelled_by(label.id).changed();
    }
    let label = ui.label("System prompt of the second");
    let edit = TextEdit::multiline(&mut new.system).desired_rows(3).desired_width(f32::INFINITY);
    let hint = match new.kind {
        DuetKind::Review => "As a careful reviewer",
        DuetKind::Talk => "None",
    };
    changed |= ui.add(edit.hint_text(hint)).labelled_by(label.id).changed();
    let label = ui.label("Model of the second");
    let name = |key: &Option<String>| match key {
        None => "The same".to_owned(),
        Some(key) => match models.iter().find(|(k, _)| k == key) {
            Some((_, name)) => name.clone(),
            None => format!("{key} (not loaded)"),
        },
    };
    let list = ComboBox::from_id_salt("second model").selected_text(name(&duet.model)).truncate();
    let list = list.width(ui.available_width().min(220.0)).show_ui(ui, |ui| {
        changed |= ui.selectable_value(&mut new.model, None, "The same").changed();
        for (key, name) in models {
            changed |= ui.selectable_value(&mut new.model, Some(key.clone()), name.as_str()).changed();
        }
    });
    list.response.labelled_by(label.id);
    changed.then_some(new)
}
