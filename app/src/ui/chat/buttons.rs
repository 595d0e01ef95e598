//! The buttons of a conversation: dim until hovered, so that the words stand out, and round ones that stand out themselves.

use egui::{Color32, Response, Role, Sense, Stroke, StrokeKind, Ui, Vec2, WidgetInfo};

use super::super::{Theme, icons::Icon, parts, theme};

/// A button with an icon. `on`: for something that is on or off.
pub(super) fn button(ui: &mut Ui, icon: Icon, name: &str, tooltip: &str, on: Option<bool>) -> Response {
    let t = Theme::of(ui.ctx());
    let response = cell(ui, icon, Vec2::splat(26.0), theme::ROUND_SMALL.into(), |hovered, enabled| match (on, hovered) {
        (Some(true), _) => (t.accent_soft, t.accent),
        (_, true) => (if enabled { t.raised } else { Color32::TRANSPARENT }, t.strong),
        (_, false) => (Color32::TRANSPARENT, t.muted),
    });
    match on {
        Some(on) => {
            let enabled = response.enabled();
            response.widget_info(|| WidgetInfo::selected(Role::CheckBox, enabled, on, name));
        }
        None => parts::named(&response, Role::Button, name),
    }
    // Below a long answer the buttons may be out of sight when the keyboard reaches them.
    if response.gained_focus() {
        response.scroll_to_me(None);
    }
    response.on_hover_text(tooltip).on_disabled_hover_text(tooltip)
}

/// A round button that stands out.
pub(super) fn round_button(ui: &mut Ui, icon: Icon, name: &str, tooltip: &str, strong: bool) -> Response {
    let t = Theme::of(ui.ctx());
    let response = cell(ui, icon, Vec2::splat(32.0), 16.0, |hovered, enabled| match (strong && enabled, hovered) {
        (true, false) => (t.accent, t.on_accent),
        (true, true) => (t.strong, t.page),
        (false, true) if enabled => (t.accent_soft, t.strong),
        (false, _) => (t.raised, if enabled { t.text } else { t.muted }),
    });
    parts::named(&response, Role::Button, name);
    response.on_hover_text(tooltip).on_disabled_hover_text(tooltip)
}

/// The field of a button: `colours` gives those of the ground and of the icon, from whether it is hovered and enabled.
fn cell(ui: &mut Ui, icon: Icon, size: Vec2, round: f32, colours: impl Fn(bool, bool) -> (Color32, Color32)) -> Response {
    let (rect, response) = ui.allocate_exact_size(size, Sense::click());
    if ui.is_rect_visible(rect) {
        let (fill, colour) = colours(response.hovered(), response.enabled());
        ui.painter().rect_filled(rect, round, fill);
        if response.has_focus() {
            let stroke = Stroke::new(1.5, Theme::of(ui.ctx()).accent);
            ui.painter().rect_stroke(rect, round, stroke, StrokeKind::Inside);
        }
        icon.paint(ui.painter(), rect, colour);
    }
    response
}
