//! Settings.
//!
//! | module | what it holds |
//! |---|---|
//! | [`cards`] | the cards of the page |
//! | [`units`] | sizes and devices as people type them |

mod cards;
#[cfg(test)]
mod tests;
mod units;

use egui::{ScrollArea, Ui};

use super::{Action, theme};
use crate::settings::Settings;

/// Draws the page. `places`: what is kept where, as name and path; `None`: it is kept by the browser that shows this.
pub fn preferences_ui(ui: &mut Ui, settings: &Settings, places: Option<&[(String, String)]>, out: &mut Vec<Action>) {
    ScrollArea::vertical().id_salt("preferences").auto_shrink(false).show(ui, |ui| {
        ui.set_max_width((ui.available_width() - theme::GAP).min(theme::READING_WIDTH));
        ui.heading("Settings");
        ui.add_space(theme::GAP);
        let mut new = settings.clone();
        let mut changed = cards::card(ui, "Appearance", |ui| cards::appearance(ui, &mut new));
        changed |= cards::card(ui, "Conversation", |ui| cards::conversation(ui, &mut new));
        changed |= cards::card(ui, "Models", |ui| cards::models(ui, &mut new, places.is_none()));
        changed |= cards::card(ui, "Experts", |ui| cards::experts(ui, &mut new));
        cards::card(ui, "Storage", |ui| cards::storage(ui, places, out));
        cards::card(ui, "About", |ui| cards::about(ui, out));
        if changed {
            out.push(Action::SetSettings(Box::new(new)));
        }
    });
}
