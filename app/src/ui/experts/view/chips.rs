//! What the experts did, in a few numbers.

use egui::{Color32, Ui, vec2};

use crate::ui::{Theme, parts};

/// A number with its name and what it means.
#[derive(Clone, Debug, PartialEq)]
pub struct Chip {
    /// What it is called.
    pub name: &'static str,
    /// The number, in words.
    pub value: String,
    /// What it means.
    pub tooltip: &'static str,
}

impl Chip {
    /// A chip; `None` where the number is not known.
    pub fn new(name: &'static str, value: Option<String>, tooltip: &'static str) -> Option<Self> {
        value.map(|value| Self { name, value, tooltip })
    }
}

/// The chips, in as many lines as they need.
pub fn chips_ui(ui: &mut Ui, chips: &[Chip]) {
    if chips.is_empty() {
        return;
    }
    let text = Theme::of(ui.ctx()).text;
    ui.scope(|ui| {
        // Lines are as high as chips, not as buttons.
        ui.spacing_mut().interact_size.y = 0.0;
        ui.spacing_mut().item_spacing = vec2(4.0, 4.0);
        ui.horizontal_wrapped(|ui| {
            for chip in chips {
                chip_ui(ui, &format!("{} {}", chip.name, chip.value), text, chip.tooltip);
            }
        });
    });
}

/// A chip that begins another line where the rest of this one is too short for it.
pub fn chip_ui(ui: &mut Ui, text: &str, colour: Color32, tooltip: &str) {
    let font = Theme::small().resolve(ui.style());
    let width = ui.painter().layout_no_wrap(text.to_owned(), font, colour).size().x + 18.0;
    if ui.available_size_before_wrap().x < width {
        ui.end_row();
    }
    parts::chip(ui, text, colour, tooltip);
}
