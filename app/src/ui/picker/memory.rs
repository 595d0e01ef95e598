//! A bar of what lies where.

use egui::{
    Color32, CornerRadius, Grid, Painter, Rect, RichText, Role, ScrollArea, Sense, Shape, Stroke, TextStyle, Ui, Vec2,
    WidgetInfo, pos2, vec2,
};

use crate::{
    loading::Share,
    ui::{Theme, parts, theme},
};

/// Height of a bar, in points.
const HEIGHT: f32 = 20.0;
/// Between two lines of a hatching.
const STEP: f32 = 6.0;

/// How a part is told from others: by its hatching where colours cannot be told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ui) enum Hatch {
    /// None.
    Plain,
    /// From the lower left to the upper right.
    Rising,
    /// From the upper left to the lower right.
    Falling,
    /// Upright lines.
    Upright,
}

/// Colour and hatching of a part.
fn look(what: &str, t: &Theme) -> (Color32, Hatch) {
    match what {
        "experts" => (t.plots[1], Hatch::Rising),
        "latent cache" => (t.plots[2], Hatch::Falling),
        "working memory" => (t.muted, Hatch::Upright),
        _ => (t.plots[0], Hatch::Plain),
    }
}

/// Where what is not on the device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ui) enum Elsewhere {
    /// In the memory of the host.
    Host,
    /// In the model's file, from which it is read when it is needed.
    File,
}

impl Elsewhere {
    /// As the name of a bar.
    fn bar(self) -> &'static str {
        match self {
            Self::Host => "In host memory",
            Self::File => "In the file, read when needed",
        }
    }

    /// As the head of a column.
    fn column(self) -> &'static str {
        match self {
            Self::Host => "host memory",
            Self::File => "in the file",
        }
    }
}

/// Draws a bar for the device and one for what is elsewhere, on one scale, and a legend with numbers.
pub(in crate::ui) fn memory_ui(ui: &mut Ui, shares: &[Share], elsewhere: Elsewhere) {
    let sum = |of: fn(&Share) -> u64| shares.iter().map(of).fold(0, u64::saturating_add);
    let (device, host) = (sum(|s| s.device), sum(|s| s.host));
    let scale = device.max(host).max(1);
    if device > 0 {
        bar_ui(ui, "On the device", device, scale, shares, |s| s.device);
    }
    if host > 0 {
        bar_ui(ui, elsewhere.bar(), host, scale, shares, |s| s.host);
    }
    // Enlarged text may need more room than there is.
    ScrollArea::horizontal().id_salt("memory").auto_shrink([false, true]).show(ui, |ui| {
        legend_ui(ui, shares, (device, host), elsewhere);
    });
}

fn bar_ui(ui: &mut Ui, name: &str, total: u64, scale: u64, shares: &[Share], of: fn(&Share) -> u64) {
    let t = Theme::of(ui.ctx());
    let text = format!("{name}, {}", parts::bytes(total));
    let label = ui.label(parts::small(ui, text));
    let (rect, response) = ui.allocate_exact_size(vec2(ui.available_width(), HEIGHT), Sense::hover());
    response.widget_info(|| WidgetInfo::new(Role::Meter));
    let response = response.labelled_by(label.id);
    if !ui.is_rect_visible(rect) {
        return;
    }
    let painter = ui.painter();
    painter.rect_filled(rect, theme::ROUND_SMALL, t.field);
    let mut left = rect.left();
    let mut under = None;
    let pointer = response.hover_pos();
    for share in shares {
        let width = (of(share) as f64 / scale as f64) as f32 * rect.width();
        let part = Rect::from_min_max(pos2(left, rect.top()), pos2((left + width).min(rect.right()), rect.bottom()));
        left = part.right();
        if part.width() < 0.5 {
            continue;
        }
        // A hair of the ground between parts.
        let shown = part.with_max_x((part.right() - 1.0).max(part.left() + 0.5));
        let (colour, hatch) = look(share.what, t);
        part_ui(painter, shown, colour, hatch, t.page);
        if pointer.is_some_and(|p| part.contains(p)) {
            under = Some(share);
        }
    }
    if let Some(share) = under {
        response.on_hover_text(format!("{}, {}", share.what, parts::bytes(of(share))));
    }
}

/// A filled and hatched rectangle.
pub(in crate::ui) fn part_ui(painter: &Painter, rect: Rect, colour: Color32, hatch: Hatch, line: Color32) {
    painter.rect_filled(rect, CornerRadius::same(2), colour);
    let painter = painter.with_clip_rect(painter.clip_rect().intersect(rect));
    let stroke = Stroke::new(1.0, line.gamma_multiply(0.55));
    let (lean, from) = match hatch {
        Hatch::Plain => return,
        Hatch::Rising => (rect.height(), rect.left() - rect.height()),
        Hatch::Falling => (-rect.height(), rect.left()),
        Hatch::Upright => (0.0, rect.left()),
    };
    let end = rect.right() + rect.height();
    let lines = ((end - from) / STEP).ceil().clamp(0.0, 1000.0) as usize;
    painter.extend((0..lines).map(|i| {
        let x = from + i as f32 * STEP;
        Shape::line_segment([pos2(x, rect.bottom()), pos2(x + lean, rect.top())], stroke)
    }));
}

/// What the colours mean, and the numbers.
fn legend_ui(ui: &mut Ui, shares: &[Share], (device, host): (u64, u64), elsewhere: Elsewhere) {
    let t = Theme::of(ui.ctx());
    // Names and two columns of numbers do not fit into a narrow window at full size.
    let roomy = 360.0 * parts::text_scale(ui.style());
    let style = if ui.available_width() < roomy { Theme::small() } else { TextStyle::Body };
    let cell = |text: &str| RichText::new(text).text_style(style.clone());
    let dash = |n: u64| if n == 0 { "-".to_owned() } else { parts::bytes(n) };
    let height = ui.text_style_height(&style) + 3.0;
    ui.spacing_mut().interact_size.y = height;
    let grid = Grid::new("memory legend").num_columns(3).spacing(vec2(theme::PAD, 0.0)).min_row_height(height).striped(false);
    grid.show(ui, |ui| {
        ui.label("");
        for head in ["device", elsewhere.column()] {
            ui.label(parts::small(ui, head));
        }
        ui.end_row();
        for share in shares {
            ui.horizontal(|ui| {
                let (rect, _) = ui.allocate_exact_size(Vec2::splat(12.0), Sense::hover());
                let (colour, hatch) = look(share.what, t);
                part_ui(ui.painter(), rect, colour, hatch, t.page);
                ui.label(cell(share.what));
            });
            ui.label(cell(&dash(share.device)));
            ui.label(cell(&dash(share.host)));
            ui.end_row();
        }
        if shares.len() > 1 {
            for text in ["together", &dash(device), &dash(host)] {
                ui.label(cell(text).strong());
            }
            ui.end_row();
        }
    });
}
