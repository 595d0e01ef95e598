//! Named sets of sampling settings.

use egui::{Button, ComboBox, TextEdit, Ui};

use super::{SetupContext, SetupView};
use crate::{
    chats::Sampling,
    settings::{Preset, Settings},
    ui::{Action, Theme, icons::Icon},
};

/// The sets that are always there, and what they are for.
pub(super) fn built_in() -> [(&'static str, &'static str, Sampling); 4] {
    let none = Sampling::default();
    [
        ("Model's own", "What the model's publisher recommends", none.clone()),
        ("Precise", "Always the likeliest token", Sampling { temperature: Some(0.0), ..none.clone() }),
        (
            "Balanced",
            "Temperature 0.6, from the likeliest 95 %",
            Sampling { temperature: Some(0.6), top_p: Some(0.95), ..none.clone() },
        ),
        (
            "Creative",
            "Temperature 1.0, without what is less than 5 % as likely as the best",
            Sampling { temperature: Some(1.0), min_p: Some(0.05), ..none },
        ),
    ]
}

/// Without the seed: it belongs to a conversation.
fn without_seed(sampling: &Sampling) -> Sampling {
    Sampling { seed: None, ..sampling.clone() }
}

/// Why a preset cannot have that name; `None`: it can.
fn refused(name: &str) -> Option<&'static str> {
    let taken = built_in().iter().any(|(n, ..)| n.eq_ignore_ascii_case(name));
    taken.then_some("There is a built-in preset of that name")
}

impl SetupView {
    /// Chooses, saves and deletes presets. The settings that were chosen.
    pub(super) fn presets_ui(&mut self, ui: &mut Ui, cx: &SetupContext<'_>, out: &mut Vec<Action>) -> Option<Sampling> {
        let current = without_seed(&cx.setup.sampling);
        let own = cx.settings.presets.iter().find(|p| without_seed(&p.sampling) == current);
        let known = built_in().into_iter().find(|(.., s)| *s == current).map(|(name, ..)| name);
        let name = known.or(own.map(|p| p.name.as_str())).unwrap_or("Own settings");
        let mut chosen = None;
        let label = ui.label("Preset");
        ui.horizontal_wrapped(|ui| {
            let list = ComboBox::from_id_salt("preset").selected_text(name).show_ui(ui, |ui| {
                for (name, explanation, sampling) in built_in() {
                    if ui.add(Button::selectable(known == Some(name), name)).on_hover_text(explanation).clicked() {
                        chosen = Some(sampling);
                    }
                }
                if !cx.settings.presets.is_empty() {
                    ui.separator();
                }
                for preset in &cx.settings.presets {
                    let this = known.is_none() && own.is_some_and(|p| p.name == preset.name);
                    if ui.add(Button::selectable(this, preset.name.as_str())).clicked() {
                        chosen = Some(without_seed(&preset.sampling));
                    }
                }
            });
            list.response.labelled_by(label.id);
            if self.saving.is_none() && known.is_none() && own.is_none() && ui.button("Save as a preset...").clicked() {
                self.saving = Some(String::new());
                self.focus_name = true;
            }
            if let Some(preset) = own.filter(|_| known.is_none()) {
                let tooltip = "Delete this preset; conversations keep their settings";
                if Icon::Bin.button(ui, &format!("Delete preset {}", preset.name), tooltip).clicked() {
                    let mut settings = cx.settings.clone();
                    settings.presets.retain(|p| p.name != preset.name);
                    out.push(Action::SetSettings(Box::new(settings)));
                }
            }
        });
        self.save_ui(ui, &current, cx.settings, out);
        chosen.map(|s| Sampling { seed: cx.setup.sampling.seed, ..s })
    }

    /// The name of a preset to be saved.
    fn save_ui(&mut self, ui: &mut Ui, sampling: &Sampling, settings: &Settings, out: &mut Vec<Action>) {
        let Some(name) = &mut self.saving else { return };
        let mut over = false;
        ui.horizontal_wrapped(|ui| {
            let edit = TextEdit::singleline(name).hint_text("Name").desired_width(140.0).char_limit(40);
            let edit = ui.add(edit).accessible_name("Name of the preset");
            if std::mem::take(&mut self.focus_name) {
                edit.request_focus();
            }
            let trimmed = name.trim();
            let refused = refused(trimmed);
            let replaces = settings.presets.iter().any(|p| p.name == trimmed);
            let possible = !trimmed.is_empty() && refused.is_none();
            let button = Button::new(if replaces { "Replace" } else { "Save" });
            let clicked = ui.add_enabled(possible, button).clicked();
            let entered = edit.lost_focus() && ui.input(|i| i.key_pressed(egui::Key::Enter));
            if possible && (clicked || entered) {
                let preset = Preset { name: trimmed.to_owned(), sampling: sampling.clone() };
                let mut settings = settings.clone();
                match settings.presets.iter_mut().find(|p| p.name == preset.name) {
                    Some(old) => *old = preset,
                    None => settings.presets.push(preset),
                }
                out.push(Action::SetSettings(Box::new(settings)));
                over = true;
            }
            over |= ui.button("Cancel").clicked();
            if let Some(reason) = refused {
                ui.colored_label(Theme::of(ui.ctx()).bad, reason);
            }
        });
        if over {
            self.saving = None;
        }
    }
}
