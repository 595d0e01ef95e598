//! Reasoning: the line above it, which folds and unfolds it, and how it stands out from the answer.

use egui::{Button, RichText, Role, Stroke, Ui, UiBuilder, Vec2, WidgetInfo};

use super::super::{Theme, parts};
use crate::talk::{Live, live::Stage};

/// The line above reasoning.
pub(super) fn thought_words(over: bool, live: Option<&Live>, seconds: Option<f64>) -> String {
    if !over {
        return match live.map(|l| l.stage) {
            Some(Stage::Thinking { seconds }) => format!("Thinking... {}", parts::seconds(seconds)),
            _ => "Thinking...".to_owned(),
        };
    }
    seconds.map_or_else(|| "Thought".to_owned(), |s| format!("Thought for {}", parts::seconds(s)))
}

/// The only thing that folds and unfolds reasoning. Whether it was clicked.
pub(super) fn fold_header(ui: &mut Ui, words: &str, open: bool) -> bool {
    let t = Theme::of(ui.ctx());
    let text = RichText::new(format!("      {words}")).color(t.muted);
    let tip = if open { "Hide the reasoning" } else { "Show the reasoning" };
    let response = ui.add(Button::new(text).frame_when_inactive(false));
    let left = response.rect.left_center() + Vec2::new(16.0, 0.0);
    let points = if open {
        vec![left + Vec2::new(-4.5, -2.5), left + Vec2::new(0.0, 2.5), left + Vec2::new(4.5, -2.5)]
    } else {
        vec![left + Vec2::new(-2.5, -4.5), left + Vec2::new(2.5, 0.0), left + Vec2::new(-2.5, 4.5)]
    };
    ui.painter().add(egui::Shape::line(points, Stroke::new(1.5, t.muted)));
    let enabled = response.enabled();
    response.widget_info(|| WidgetInfo::labeled(Role::Button, enabled, words));
    ui.ctx().accesskit_node_builder(response.id, |node| node.set_expanded(open));
    response.on_hover_text(tip).clicked()
}

/// Dimmer, with a line at its left.
pub(super) fn thought_ui(ui: &mut Ui, draw: impl FnOnce(&mut Ui)) {
    let t = Theme::of(ui.ctx());
    let mut rect = ui.available_rect_before_wrap();
    rect.min.x += 14.0;
    let inner = ui.scope_builder(UiBuilder::new().id_salt("thought").max_rect(rect), |ui| {
        ui.visuals_mut().override_text_color = Some(t.muted);
        draw(ui);
    });
    let r = inner.response.rect;
    ui.painter().vline(rect.left() - 8.0, r.y_range(), Stroke::new(2.0, t.line));
}
