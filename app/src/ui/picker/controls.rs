//! How a model is loaded: device, memory budget, context, misses.

use egui::{Align, ComboBox, DragValue, Id, Layout, Slider, SliderClamping, Ui, vec2};
use pleiad_runtime::{
    DeviceChoice,
    experts::ways::{Way, WayChoice},
};

use crate::{
    loading::{
        Examined, Price,
        devices::{Device, Devices},
        options::{self, CAREFUL_BUDGET, EVERYTHING},
    },
    settings::LoadSettings,
    sizes,
    ui::parts,
};

/// Width of the names of settings, where they stand beside them.
const NAMES: f32 = 120.0;
/// Widest box to choose from.
const FIELDS: f32 = 360.0;
/// Below this width they stand above.
const STACKED: f32 = 400.0;
/// The least context that the slider offers.
const LEAST_CONTEXT: usize = 256;

/// A setting with its name, which `add` is given the id of.
fn setting(ui: &mut Ui, name: &str, hint: &str, add: impl FnOnce(&mut Ui, Id)) {
    if ui.available_width() < STACKED {
        let id = ui.label(name).on_hover_text(hint).id;
        ui.horizontal(|ui| add(ui, id));
        return;
    }
    ui.horizontal(|ui| {
        let size = vec2(NAMES, ui.spacing().interact_size.y);
        let label = ui.allocate_ui_with_layout(size, Layout::left_to_right(Align::Center), |ui| {
            ui.set_min_width(NAMES);
            ui.label(name).on_hover_text(hint).id
        });
        add(ui, label.inner);
    });
}

/// Whether settings leave the choice of the device to the program.
pub(super) fn is_auto(device: &str) -> bool {
    options::device(device) == Ok(DeviceChoice::Auto)
}

/// The device that settings mean; `None`: none is known to be it.
pub(super) fn meant<'a>(settings: &LoadSettings, devices: &'a Devices) -> Option<&'a Device> {
    match options::device(&settings.device).ok()? {
        DeviceChoice::Auto => devices.best(),
        DeviceChoice::Wgpu(None) => devices.found()?.iter().find(|d| d.key.starts_with("wgpu")),
        _ => devices.found()?.iter().find(|d| d.key == settings.device.trim()),
    }
}

/// The device.
pub(super) fn device_ui(ui: &mut Ui, draft: &mut LoadSettings, devices: &Devices) {
    setting(ui, "Device", "What computes", |ui, label| {
        let Some(found) = devices.found() else {
            ui.spinner();
            ui.label(parts::muted(ui, "Looking for devices"));
            return;
        };
        let automatic = devices.best().map_or_else(|| "Automatic".to_owned(), |d| format!("Automatic ({})", d.name));
        let shown = match meant(draft, devices) {
            _ if is_auto(&draft.device) => automatic.clone(),
            Some(device) => device.name.clone(),
            None => format!("{} (not found)", draft.device),
        };
        let combo = ComboBox::from_id_salt("device").selected_text(shown).truncate().width(ui.available_width().min(FIELDS));
        let response = combo.show_ui(ui, |ui| {
            if ui.selectable_label(is_auto(&draft.device), automatic).clicked() {
                draft.device = "auto".into();
            }
            for d in found {
                let name = format!("{}, {}", d.name, d.kind);
                if ui.selectable_label(draft.device == d.key, name).on_hover_text(d.driver.as_str()).clicked() {
                    draft.device.clone_from(&d.key);
                }
            }
        });
        response.response.labelled_by(label);
    });
}

/// The memory budget, from the least that would do to what holds everything. `page`: in a browser.
pub(super) fn budget_ui(ui: &mut Ui, draft: &mut LoadSettings, price: &Price, page: bool) {
    slider_ui(ui, draft, price, page);
    if page && draft.memory_budget.is_none() && price.whole > CAREFUL_BUDGET {
        let careful = parts::bytes(CAREFUL_BUDGET);
        let text = format!("Browsers do not tell how much memory a GPU has: {careful} are used unless you choose otherwise.");
        ui.label(parts::small(ui, text));
    }
}

fn slider_ui(ui: &mut Ui, draft: &mut LoadSettings, price: &Price, page: bool) {
    let (least, whole) = (price.least, price.whole);
    let hint = "Most memory on the device; experts that do not fit stay in host memory";
    setting(ui, "Memory budget", hint, |ui, label| {
        if least >= whole {
            ui.label(parts::muted(ui, format!("everything, {}", parts::bytes(whole))));
            return;
        }
        let unit = match whole - least {
            span if span >= 256 << 20 => 1 << 20,
            span if span >= 256 << 10 => 1 << 10,
            _ => 1_u64,
        };
        let typed_unit = if whole >= 1 << 30 { 1 << 30 } else { 1 << 20 };
        let everything = whole.saturating_sub(unit / 2);
        ui.spacing_mut().slider_width = (ui.available_width() - 110.0).clamp(60.0, FIELDS);
        let slider = Slider::from_get_set(least as f64..=whole as f64, |set| {
            if let Some(bytes) = set.map(|x| x as u64) {
                let rounded = (bytes.saturating_add(unit / 2) / unit * unit).max(least);
                // Where nothing chosen would mean less than everything, everything has to be said.
                let all = (page && whole > CAREFUL_BUDGET).then_some(EVERYTHING);
                draft.memory_budget = if bytes < everything { Some(rounded) } else { all };
            }
            options::budget(draft, page).map_or(whole, |b| b.min(whole)) as f64
        });
        let slider = slider
            .logarithmic(whole / 8 > least)
            .smart_aim(false)
            // A budget kept from another model is shown as it is, with what is wrong with it.
            .clamping(SliderClamping::Edits)
            .custom_formatter(move |x, _| if x as u64 >= whole { "everything".into() } else { parts::bytes(x as u64) })
            .custom_parser(move |text| match text.trim() {
                "everything" | "all" => Some(whole as f64),
                text => sizes::parse(text, typed_unit).ok().map(|b| b as f64),
            });
        ui.add(slider).labelled_by(label);
    });
}

/// The lengths that the slider stops at: powers of two, and the model's own.
fn stops(most: usize) -> Vec<usize> {
    let powers = std::iter::successors(Some(LEAST_CONTEXT), |n| n.checked_mul(2));
    powers.take_while(|&n| n < most).chain([most]).collect()
}

/// The longest context.
pub(super) fn context_ui(ui: &mut Ui, draft: &mut LoadSettings, examined: &Examined) {
    let hint = "Longest conversation in tokens, the answer included; its cache takes memory from experts";
    setting(ui, "Context length", hint, |ui, label| {
        let stops = stops(examined.max_context);
        let current = examined.context(draft);
        if stops.len() > 1 {
            let last = stops.len() - 1;
            ui.spacing_mut().slider_width = (ui.available_width() - 130.0).clamp(60.0, FIELDS);
            let slider = Slider::from_get_set(0.0..=last as f64, |set| {
                if let Some(stop) = set.and_then(|x| stops.get(x.round().max(0.0) as usize)) {
                    draft.context = Some(*stop);
                }
                stops.iter().position(|&s| s >= current).unwrap_or(last) as f64
            });
            ui.add(slider.integer().show_value(false)).labelled_by(label);
        }
        let mut tokens = current;
        let range = LEAST_CONTEXT.min(examined.max_context)..=examined.max_context;
        let value = DragValue::new(&mut tokens).range(range).speed(16.0).suffix(" tokens").clamp_existing_to_range(false);
        let response = ui.add(value).labelled_by(label);
        if response.changed() {
            draft.context = Some(tokens);
        }
    });
}

/// What people call a choice of serving misses.
pub(in crate::ui) fn way_name(way: Way) -> &'static str {
    match way {
        Way::Gather => "The GPU copies them",
        Way::Cpu => "The CPU computes them",
        Way::Resume => "They are uploaded while the GPU waits",
    }
}

/// Why a page serves missing experts in one way only.
pub(in crate::ui) const ONE_WAY: &str =
    "In a browser missing experts are uploaded while the GPU waits: no kernel can read the memory of a page.";

/// How experts that are not resident are served. `page`: in a browser.
pub(super) fn misses_ui(ui: &mut Ui, draft: &mut LoadSettings, page: bool) {
    if page {
        setting(ui, "Missing experts", ONE_WAY, |ui, _| {
            ui.label(parts::muted(ui, "Automatic")).on_hover_text(ONE_WAY);
        });
        return;
    }
    let hint = "How experts that are not on the device are served. Automatic measures while answers are written";
    setting(ui, "Missing experts", hint, |ui, label| {
        let name = |choice: WayChoice| match choice {
            WayChoice::Auto => "Automatic",
            WayChoice::Only(way) => way_name(way),
        };
        let choices = [WayChoice::Auto].into_iter().chain([Way::Gather, Way::Cpu, Way::Resume].map(WayChoice::Only));
        let combo = ComboBox::from_id_salt("misses").selected_text(name(draft.misses)).truncate();
        let response = combo.width(ui.available_width().min(FIELDS)).show_ui(ui, |ui| {
            for choice in choices {
                ui.selectable_value(&mut draft.misses, choice, name(choice));
            }
        });
        response.response.labelled_by(label);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts_stop_at_powers_of_two() {
        assert_eq!(stops(4096), [256, 512, 1024, 2048, 4096]);
        assert_eq!(stops(5000), [256, 512, 1024, 2048, 4096, 5000]);
        assert_eq!((stops(256), stops(100)), (vec![256], vec![100]));
    }
}
