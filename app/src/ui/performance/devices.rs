//! The devices there are.

use egui::{RichText, Ui};

use super::{card, facts_ui};
use crate::{
    loading::devices::{Device, Devices},
    ui::{Action, Theme, parts, theme},
};

/// Draws what was found. `page`: in a browser.
pub(super) fn devices_ui(ui: &mut Ui, devices: &Devices, page: bool, out: &mut Vec<Action>) {
    card(ui, "Devices", |ui| {
        let Some(found) = devices.found() else {
            ui.horizontal(|ui| {
                ui.spinner();
                ui.label(parts::muted(ui, "Looking for devices"));
            });
            return;
        };
        for device in found {
            device_ui(ui, device);
        }
        if let Some(why) = devices.no_gpu(page) {
            ui.label(parts::muted(ui, why));
        }
        ui.horizontal(|ui| {
            if ui.button("Look again").clicked() {
                out.push(Action::LookForDevices);
            }
        });
    });
}

fn device_ui(ui: &mut Ui, device: &Device) {
    let t = Theme::of(ui.ctx());
    ui.horizontal_wrapped(|ui| {
        ui.label(RichText::new(device.name.as_str()).color(t.strong));
        if device.best {
            ui.label(parts::small(ui, "taken by itself")).on_hover_text("What is used where settings leave the choice open");
        }
    });
    let tier = (!device.tier.is_empty()).then(|| ("Kernels", device.tier.clone()));
    let facts = [("Called", device.key.clone()), ("Kind", device.kind.clone()), ("Driver", device.driver.clone())];
    let more = device.facts.iter().map(|(name, value)| (name.as_str(), value.clone()));
    facts_ui(ui, ("device facts", &device.key), facts.into_iter().chain(tier).chain(more));
    ui.add_space(theme::GAP);
}
