//! Icons, drawn as lines, so that they look the same with whatever fonts there are.

use egui::{Color32, Painter, Pos2, Rect, Response, Role, Sense, Shape, Stroke, StrokeKind, Ui, Vec2, WidgetInfo, pos2};

use super::super::{Theme, theme};

/// What an icon shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Icon {
    Copy,
    Good,
    Bad,
    Again,
    Edit,
    Continue,
    Previous,
    Next,
    Down,
    Send,
    Stop,
}

/// Points on a field of 16 by 16.
const THUMB: &[(f32, f32)] =
    &[(5.0, 7.5), (7.6, 2.5), (9.4, 3.3), (9.0, 6.5), (13.3, 6.5), (12.2, 13.2), (5.0, 13.2), (5.0, 7.5)];

fn paint(painter: &Painter, rect: Rect, icon: Icon, color: Color32) {
    let scale = rect.width() / 16.0;
    let at = |x: f32, y: f32| -> Pos2 { rect.min + Vec2::new(x, y) * scale };
    let stroke = Stroke::new(1.4 * scale, color);
    let line = |points: &[(f32, f32)]| {
        painter.add(Shape::line(points.iter().map(|&(x, y)| at(x, y)).collect(), stroke));
    };
    let frame = |a: (f32, f32), b: (f32, f32)| {
        let r = Rect::from_min_max(at(a.0, a.1), at(b.0, b.1));
        painter.rect_stroke(r, 1.5, stroke, StrokeKind::Middle);
    };
    match icon {
        Icon::Copy => {
            frame((5.5, 5.5), (13.0, 13.5));
            line(&[(10.5, 5.5), (10.5, 2.5), (3.0, 2.5), (3.0, 10.5), (5.5, 10.5)]);
        }
        Icon::Good => {
            line(THUMB);
            line(&[(2.6, 7.5), (2.6, 13.2)]);
        }
        Icon::Bad => {
            let turned: Vec<_> = THUMB.iter().map(|&(x, y)| (x, 16.0 - y)).collect();
            line(&turned);
            line(&[(2.6, 8.5), (2.6, 2.8)]);
        }
        Icon::Again => {
            let arc: Vec<_> = (0..=20)
                .map(|i| {
                    let angle = std::f32::consts::TAU * (0.02 + 0.8 * i as f32 / 20.0);
                    (8.0 + 5.3 * angle.cos(), 8.0 + 5.3 * angle.sin())
                })
                .collect();
            line(&arc);
            line(&[(9.2, 0.6), (10.9, 3.5), (7.7, 4.6)]);
        }
        Icon::Edit => {
            line(&[(3.0, 13.0), (3.7, 9.9), (10.8, 2.8), (13.2, 5.2), (6.1, 12.3), (3.0, 13.0)]);
            line(&[(9.0, 4.6), (11.4, 7.0)]);
        }
        Icon::Continue => line(&[(5.0, 3.0), (12.5, 8.0), (5.0, 13.0), (5.0, 3.0)]),
        Icon::Previous => line(&[(9.8, 3.5), (5.5, 8.0), (9.8, 12.5)]),
        Icon::Next => line(&[(6.2, 3.5), (10.5, 8.0), (6.2, 12.5)]),
        Icon::Down => {
            line(&[(8.0, 2.5), (8.0, 13.0)]);
            line(&[(3.8, 9.0), (8.0, 13.2), (12.2, 9.0)]);
        }
        Icon::Send => {
            line(&[(8.0, 13.5), (8.0, 3.0)]);
            line(&[(3.8, 7.0), (8.0, 2.8), (12.2, 7.0)]);
        }
        Icon::Stop => {
            let r = Rect::from_min_max(at(4.0, 4.0), at(12.0, 12.0));
            painter.rect_filled(r, 1.5, color);
        }
    }
}

/// A button with an icon. `on`: for something that is on or off.
pub(super) fn button(ui: &mut Ui, icon: Icon, name: &str, tooltip: &str, on: Option<bool>) -> Response {
    let t = Theme::of(ui.ctx());
    let response = cell(ui, icon, Vec2::splat(26.0), theme::ROUND_SMALL.into(), |hovered, enabled| {
        let pressed = on == Some(true);
        let fill = if pressed {
            t.accent_soft
        } else if hovered && enabled {
            t.raised
        } else {
            Color32::TRANSPARENT
        };
        (
            fill,
            if pressed {
                t.accent
            } else if hovered {
                t.strong
            } else {
                t.muted
            },
        )
    });
    let enabled = response.enabled();
    response.widget_info(|| match on {
        Some(on) => WidgetInfo::selected(Role::CheckBox, enabled, on, name),
        None => WidgetInfo::labeled(Role::Button, enabled, name),
    });
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
    let enabled = response.enabled();
    response.widget_info(|| WidgetInfo::labeled(Role::Button, enabled, name));
    response.on_hover_text(tooltip).on_disabled_hover_text(tooltip)
}

/// The field of a button: `colours` gives those of the ground and of the icon.
fn cell(ui: &mut Ui, icon: Icon, size: Vec2, round: f32, colours: impl Fn(bool, bool) -> (Color32, Color32)) -> Response {
    let (rect, response) = ui.allocate_exact_size(size, Sense::click());
    if ui.is_rect_visible(rect) {
        let (fill, color) = colours(response.hovered(), response.enabled());
        ui.painter().rect_filled(rect, round, fill);
        if response.has_focus() {
            let stroke = Stroke::new(1.5, Theme::of(ui.ctx()).accent);
            ui.painter().rect_stroke(rect, round, stroke, StrokeKind::Inside);
        }
        let side = 15.0;
        let min = rect.center() - Vec2::splat(side / 2.0);
        paint(ui.painter(), Rect::from_min_size(pos2(min.x, min.y), Vec2::splat(side)), icon, color);
    }
    response
}
