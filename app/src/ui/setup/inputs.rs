//! Sliders and fields whose values are taken when a person is done with them.

use egui::{Id, Key, Response, RichText, Slider, SliderClamping, Stroke, TextEdit, Ui, accesskit};

use crate::ui::Theme;

/// When the text of a field is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ui) enum Taken {
    /// With every letter.
    AtOnce,
    /// With Enter, or when the field loses the focus.
    AtEnd,
}

/// Something to tick. Whether it was changed.
pub(in crate::ui) fn tick(ui: &mut Ui, on: &mut bool, name: &str) -> bool {
    outlined(ui, |ui| ui.checkbox(on, name)).changed()
}

/// One of several choices. Whether it was chosen.
pub(in crate::ui) fn choice<T: PartialEq>(ui: &mut Ui, chosen: &mut T, this: T, name: &str, explanation: &str) -> bool {
    let response = outlined(ui, |ui| ui.radio_value(chosen, this, name));
    if explanation.is_empty() { response.changed() } else { response.on_hover_text(explanation).changed() }
}

/// Draws a box or a circle with an outline: empty ones would else hardly be seen on a card.
fn outlined(ui: &mut Ui, add: impl FnOnce(&mut Ui) -> Response) -> Response {
    let muted = Theme::of(ui.ctx()).muted;
    ui.scope(|ui| {
        ui.visuals_mut().widgets.inactive.bg_stroke = Stroke::new(1.0, muted);
        add(ui)
    })
    .inner
}

/// A slider, as wide as there is room. While it is dragged it shows its value and tells nobody; afterwards it returns it.
/// The value is kept under `id` meanwhile. `label`: what names it.
pub(in crate::ui) fn slider(
    ui: &mut Ui,
    id: Id,
    label: Id,
    value: f32,
    make: impl FnOnce(&mut f32) -> Slider<'_>,
) -> (Response, Option<f32>) {
    let held: Option<f32> = ui.data(|d| d.get_temp(id));
    let mut now = held.unwrap_or(value);
    let number = 64.0;
    ui.spacing_mut().slider_width = (ui.available_width() - number - ui.spacing().item_spacing.x).clamp(60.0, 420.0);
    // A value outside of the range, from a file, stays until it is moved.
    let response =
        ui.label_inputs_by(label, |ui| ui.add(make(&mut now).clamping(SliderClamping::Edits).update_while_editing(false)));
    if response.dragged() {
        if response.changed() {
            ui.data_mut(|d| d.insert_temp(id, now));
        }
        return (response, None);
    }
    if held.is_some() {
        ui.data_mut(|d| d.remove::<f32>(id));
    }
    let taken = (held.is_some() || response.changed()) && now != value;
    (response, taken.then_some(now))
}

/// What is being typed, and what the value was when it was begun.
#[derive(Clone, Debug)]
struct Draft {
    text: String,
    base: String,
}

/// A field for something that not every text is. Returns what was typed, where that is another value than `current`; what cannot
/// be understood is said in words below. Escape gives up. `label`: what names it.
pub(in crate::ui) fn field<T>(
    ui: &mut Ui,
    id: Id,
    label: Id,
    (current, hint): (&str, &str),
    taken: Taken,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Option<T> {
    // A draft of another value, as of another conversation, is forgotten.
    let kept: Option<Draft> = ui.data(|d| d.get_temp::<Draft>(id)).filter(|d| d.base == current);
    let had = kept.is_some();
    let mut draft = kept.unwrap_or_else(|| Draft { text: current.to_owned(), base: current.to_owned() });
    let edit = TextEdit::singleline(&mut draft.text).id(id.with("edit")).hint_text(hint.to_owned());
    let width = ui.available_width().min(220.0);
    let response = ui.add(edit.desired_width(width)).labelled_by(label);
    let parsed = parse(draft.text.trim());
    if let Err(e) = &parsed {
        let said = ui.label(RichText::new(e).color(Theme::of(ui.ctx()).bad).text_style(Theme::small()));
        ui.ctx().accesskit_node_builder(said.id, |node| node.set_live(accesskit::Live::Polite));
        ui.ctx().accesskit_node_builder(response.id, |node| node.set_invalid(accesskit::Invalid::True));
    }
    let gone = response.lost_focus();
    if gone && ui.input(|i| i.key_pressed(Key::Escape)) {
        ui.data_mut(|d| d.remove::<Draft>(id));
        return None;
    }
    let done = match taken {
        Taken::AtOnce => response.changed(),
        Taken::AtEnd => gone,
    };
    let other = draft.text.trim() != current.trim();
    match parsed {
        Ok(value) if done && other => {
            ui.data_mut(|d| d.remove::<Draft>(id));
            return Some(value);
        }
        Ok(_) if gone => {
            ui.data_mut(|d| d.remove::<Draft>(id));
        }
        _ if had || response.changed() => {
            ui.data_mut(|d| d.insert_temp(id, draft));
        }
        _ => {}
    }
    None
}

/// What an empty field means, or a whole number of at least 1.
pub(in crate::ui) fn at_least_one(text: &str) -> Result<Option<usize>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    match text.parse() {
        Ok(n) if n > 0 => Ok(Some(n)),
        _ => Err("Use a whole number above 0, or leave it empty".to_owned()),
    }
}
