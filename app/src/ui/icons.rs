//! Icons as lines: no font that every system has contains them.

use std::f32::consts::TAU;

use egui::{self, Color32, Painter, Pos2, Rect, Response, Role, Sense, Shape, Stroke, StrokeKind, Ui, Vec2, pos2};

use super::{Theme, parts, theme};

/// Side of an icon, in points.
pub(in crate::ui) const SIZE: f32 = 15.0;
/// Side of the square in which icons are drawn below.
const GRID: f32 = 16.0;

/// An icon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ui) enum Icon {
    /// A speech bubble.
    Chat,
    /// Squares, some of them lit.
    Experts,
    /// A curve between axes.
    Performance,
    /// Three sliders.
    Settings,
    /// A page with lines.
    Log,
    /// Three dots.
    More,
    /// Two sheets.
    Copy,
    /// An arrow that goes round.
    Reset,
    /// A bin.
    Bin,
    /// A triangle with an exclamation mark.
    Warning,
    /// A circle with an i.
    Info,
    /// Three lines.
    List,
    /// An arrow to the left.
    Back,
    /// A magnifying glass.
    Search,
    /// A person's head, and a slider: how a conversation is set up.
    Setup,
    /// A cross.
    Close,
    /// A thumb that points up.
    Good,
    /// A thumb that points down.
    Bad,
    /// An arrow that goes almost all the way round: an answer anew.
    Again,
    /// A pencil.
    Edit,
    /// A triangle that points to the right.
    Continue,
    /// An angle that points to the left.
    Previous,
    /// An angle that points to the right.
    Next,
    /// An arrow down.
    Down,
    /// An arrow up.
    Send,
    /// A filled square.
    Stop,
}

/// A thumb that points up, without the bar beside it.
const THUMB: [(f32, f32); 8] =
    [(5.0, 7.5), (7.6, 2.5), (9.4, 3.3), (9.0, 6.5), (13.3, 6.5), (12.2, 13.2), (5.0, 13.2), (5.0, 7.5)];

/// Points along a circle around `(x, y)`, clockwise. `start`, from the right, and `turns` are in whole turns.
fn arc(x: f32, y: f32, radius: f32, start: f32, turns: f32) -> Vec<(f32, f32)> {
    const PARTS: usize = 20;
    let on = |i| {
        let angle = TAU * (start + turns * i as f32 / PARTS as f32);
        (x + radius * angle.cos(), y + radius * angle.sin())
    };
    (0..=PARTS).map(on).collect()
}

impl Icon {
    /// Paints it in the middle of `rect`.
    pub(in crate::ui) fn paint(self, painter: &Painter, rect: Rect, colour: Color32) {
        let scale = SIZE / GRID;
        let origin = rect.center() - Vec2::splat(SIZE / 2.0);
        let at = |x: f32, y: f32| origin + Vec2::new(x, y) * scale;
        let stroke = Stroke::new(1.3, colour);
        let line = |points: &[(f32, f32)]| {
            let points: Vec<Pos2> = points.iter().map(|&(x, y)| at(x, y)).collect();
            painter.add(Shape::line(points, stroke));
        };
        let dot = |x, y, r: f32| {
            painter.circle_filled(at(x, y), r * scale, colour);
        };
        let frame = |x0, y0, x1, y1, round: f32| {
            let rect = Rect::from_min_max(at(x0, y0), at(x1, y1));
            painter.rect_stroke(rect, round, stroke, StrokeKind::Middle);
        };
        match self {
            Self::Chat => {
                frame(1.5, 2.0, 14.5, 11.0, 2.0);
                line(&[(4.5, 11.0), (4.5, 14.5), (8.0, 11.0)]);
            }
            Self::Experts => {
                for (i, lit) in [true, false, false, false, true, true, false, false, true].into_iter().enumerate() {
                    let (x, y) = (1.5 + 4.8 * (i % 3) as f32, 1.5 + 4.8 * (i / 3) as f32);
                    if lit {
                        painter.rect_filled(Rect::from_min_max(at(x, y), at(x + 3.4, y + 3.4)), 0.0, colour);
                    } else {
                        frame(x + 0.4, y + 0.4, x + 3.0, y + 3.0, 0.0);
                    }
                }
            }
            Self::Performance => {
                line(&[(2.0, 1.5), (2.0, 14.0), (14.5, 14.0)]);
                line(&[(4.5, 10.5), (7.5, 6.5), (10.0, 8.5), (14.0, 3.0)]);
            }
            Self::Settings => {
                for (y, x) in [(3.5, 10.5), (8.0, 5.0), (12.5, 9.5)] {
                    line(&[(1.5, y), (14.5, y)]);
                    dot(x, y, 2.1);
                }
            }
            Self::Log => {
                frame(3.0, 1.5, 13.0, 14.5, 1.5);
                for y in [5.0, 8.0, 11.0] {
                    line(&[(5.5, y), (10.5, y)]);
                }
            }
            Self::List => [3.5, 8.0, 12.5].into_iter().for_each(|y| line(&[(2.0, y), (14.0, y)])),
            Self::Back => {
                line(&[(14.0, 8.0), (2.5, 8.0)]);
                line(&[(7.0, 3.5), (2.5, 8.0), (7.0, 12.5)]);
            }
            Self::Search => {
                painter.circle_stroke(at(6.8, 6.8), 4.6 * scale, stroke);
                line(&[(10.2, 10.2), (14.2, 14.2)]);
            }
            Self::Setup => {
                frame(1.5, 2.0, 14.5, 14.0, 2.0);
                for (y, x) in [(6.0, 10.0), (10.0, 6.0)] {
                    line(&[(4.0, y), (12.0, y)]);
                    dot(x, y, 1.7);
                }
            }
            Self::Close => {
                line(&[(3.5, 3.5), (12.5, 12.5)]);
                line(&[(12.5, 3.5), (3.5, 12.5)]);
            }
            Self::More => [3.0, 8.0, 13.0].into_iter().for_each(|x| dot(x, 8.0, 1.5)),
            Self::Copy => {
                frame(5.5, 5.5, 13.0, 13.5, 1.5);
                line(&[(10.5, 5.5), (10.5, 2.5), (3.0, 2.5), (3.0, 10.5), (5.5, 10.5)]);
            }
            Self::Reset => {
                // Three quarters of a circle, with the arrow where it begins.
                let arc = arc(8.0, 8.5, 5.5, 0.625, 0.75);
                line(&arc);
                let (x, y) = arc[0];
                line(&[(x, y - 4.0), (x, y), (x + 4.0, y)]);
            }
            Self::Bin => {
                line(&[(2.0, 4.0), (14.0, 4.0)]);
                line(&[(6.0, 4.0), (6.0, 1.8), (10.0, 1.8), (10.0, 4.0)]);
                line(&[(3.8, 4.0), (4.6, 14.2), (11.4, 14.2), (12.2, 4.0)]);
            }
            Self::Warning => {
                line(&[(8.0, 1.5), (15.0, 14.0), (1.0, 14.0), (8.0, 1.5)]);
                line(&[(8.0, 6.0), (8.0, 9.8)]);
                dot(8.0, 12.0, 0.9);
            }
            Self::Info => {
                painter.circle_stroke(at(8.0, 8.0), 6.5 * scale, stroke);
                line(&[(8.0, 7.2), (8.0, 11.5)]);
                dot(8.0, 4.8, 0.9);
            }
            Self::Good => {
                line(&THUMB);
                line(&[(2.6, 7.5), (2.6, 13.2)]);
            }
            Self::Bad => {
                line(&THUMB.map(|(x, y)| (x, GRID - y)));
                line(&[(2.6, 8.5), (2.6, 2.8)]);
            }
            Self::Again => {
                line(&arc(8.0, 8.0, 5.3, 0.02, 0.8));
                line(&[(9.2, 0.6), (10.9, 3.5), (7.7, 4.6)]);
            }
            Self::Edit => {
                line(&[(3.0, 13.0), (3.7, 9.9), (10.8, 2.8), (13.2, 5.2), (6.1, 12.3), (3.0, 13.0)]);
                line(&[(9.0, 4.6), (11.4, 7.0)]);
            }
            Self::Continue => line(&[(5.0, 3.0), (12.5, 8.0), (5.0, 13.0), (5.0, 3.0)]),
            Self::Previous => line(&[(9.8, 3.5), (5.5, 8.0), (9.8, 12.5)]),
            Self::Next => line(&[(6.2, 3.5), (10.5, 8.0), (6.2, 12.5)]),
            Self::Down => {
                line(&[(8.0, 2.5), (8.0, 13.0)]);
                line(&[(3.8, 9.0), (8.0, 13.2), (12.2, 9.0)]);
            }
            Self::Send => {
                line(&[(8.0, 13.5), (8.0, 3.0)]);
                line(&[(3.8, 7.0), (8.0, 2.8), (12.2, 7.0)]);
            }
            Self::Stop => {
                painter.rect_filled(Rect::from_min_max(at(4.0, 4.0), at(12.0, 12.0)), 1.5, colour);
            }
        }
    }

    /// Paints it among other widgets.
    pub(in crate::ui) fn show(self, ui: &mut Ui, colour: Color32) -> Response {
        let height = ui.text_style_height(&egui::TextStyle::Body).max(SIZE);
        let (rect, response) = ui.allocate_exact_size(Vec2::new(SIZE, height), Sense::hover());
        self.paint(ui.painter(), rect, colour);
        response
    }

    /// A button with it. `name` is what it is called, for screen readers.
    pub(in crate::ui) fn button(self, ui: &mut Ui, name: &str, tooltip: &str) -> Response {
        let side = ui.spacing().interact_size.y.max(26.0);
        let (rect, response) = ui.allocate_exact_size(Vec2::splat(side), Sense::click());
        parts::named(&response, Role::Button, name);
        self.paint_button(ui, rect, &response);
        response.on_hover_text(tooltip)
    }

    /// The same for something that is on or off.
    pub(in crate::ui) fn toggle(self, ui: &mut Ui, on: bool, name: &str, tooltip: &str) -> Response {
        let side = ui.spacing().interact_size.y.max(26.0);
        let (rect, response) = ui.allocate_exact_size(Vec2::splat(side), Sense::click());
        let enabled = response.enabled();
        response.widget_info(|| egui::WidgetInfo::selected(Role::CheckBox, enabled, on, name));
        if on {
            ui.painter().rect_filled(rect.shrink(1.0), theme::ROUND_SMALL, Theme::of(ui.ctx()).accent_soft);
        }
        self.paint_button(ui, rect, &response);
        response.on_hover_text(tooltip)
    }

    /// Paints a button for a response that is there already.
    pub(in crate::ui) fn paint_button(self, ui: &Ui, rect: Rect, response: &Response) {
        if !ui.is_rect_visible(rect) {
            return;
        }
        let t = Theme::of(ui.ctx());
        let lively = response.hovered() || response.has_focus();
        if lively {
            let look = ui.style().interact(response);
            ui.painter().rect(rect.shrink(1.0), theme::ROUND_SMALL, look.weak_bg_fill, look.bg_stroke, StrokeKind::Inside);
        }
        let colour = match (ui.is_enabled(), lively) {
            (false, _) => t.muted,
            (true, true) => t.strong,
            (true, false) => t.text,
        };
        self.paint(ui.painter(), rect, colour);
    }
}

/// A dot of a row's height.
pub(in crate::ui) fn dot(painter: &Painter, left: f32, middle: f32, colour: Color32) -> f32 {
    const RADIUS: f32 = 3.5;
    painter.circle_filled(pos2(left + RADIUS, middle), RADIUS, colour);
    2.0 * RADIUS
}
