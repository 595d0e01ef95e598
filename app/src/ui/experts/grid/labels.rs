//! Numbers of layers and experts beside the cells.

use egui::{Align2, FontId, Rect, Ui, Vec2, pos2, vec2};

use super::{Grid, layout::Kind};
use crate::{
    activity::{Cell, Shape},
    ui::Theme,
};

/// Which labels there is room for.
pub struct Labels {
    /// Room to the left of the cells and above them, in points.
    pub margin: Vec2,
    font: FontId,
    /// "Layer 12" rather than "12".
    long: bool,
    /// Height of a label, and width of the widest number of an expert.
    size: Vec2,
}

/// Below this width rows have numbers only, and below the other one nothing.
const WIDTHS: [f32; 2] = [480.0, 200.0];
/// Below this height experts have no numbers.
const HEIGHT: f32 = 90.0;

impl Labels {
    /// For a grid of that shape in that room.
    pub fn new(ui: &Ui, shape: &Shape, available: Vec2) -> Self {
        let font = Theme::small().resolve(ui.style());
        let measure = |text: String| ui.painter().layout_no_wrap(text, font.clone(), ui.visuals().text_color()).size();
        let long = available.x >= WIDTHS[0];
        let last = shape.layers.len().saturating_sub(1);
        let layer = measure(if long { format!("Layer {last}") } else { last.to_string() });
        let expert = measure(shape.experts.saturating_sub(1).to_string());
        let margin = vec2(
            if available.x >= WIDTHS[1] { layer.x.ceil() + 6.0 } else { 0.0 },
            if available.y >= HEIGHT { layer.y.ceil() + 2.0 } else { 0.0 },
        );
        Self { margin, size: vec2(expert.x, layer.y), font, long }
    }

    /// Every how many cells there is room for a label of `need` points.
    fn step(cell: f32, need: f32) -> usize {
        [1, 2, 4, 8, 16, 32, 64, 128].into_iter().find(|step| cell * *step as f32 >= need).unwrap_or(256)
    }

    /// Draws them where their cells are seen.
    pub fn draw(&self, ui: &Ui, grid: &Grid, shape: &Shape, plot: Rect, pointed: Option<Cell>) {
        let t = Theme::of(ui.ctx());
        let scale = ui.pixels_per_point();
        let painter = ui.painter();
        let offset = grid.offset();
        let centre = |axis: usize, (start, length): (i32, i32)| {
            (grid.origin[axis] + start - offset[axis]) as f32 / scale + length as f32 / scale / 2.0
        };
        if self.margin.x > 0.0 {
            let step = Self::step(grid.layout.y.cell() / scale, self.size.y - 2.0);
            for (row, &layer) in shape.rows.iter().enumerate() {
                if !layer.is_multiple_of(step) && shape.rows.len() > step {
                    continue;
                }
                let Some(y) = grid.layout.y.span(Kind::Cells, row).map(|span| centre(1, span)) else { continue };
                if y < plot.top() || y > plot.bottom() {
                    continue;
                }
                let colour = if pointed.is_some_and(|c| c.row == row) { t.strong } else { t.muted };
                let text = if self.long { format!("Layer {layer}") } else { layer.to_string() };
                painter.text(pos2(plot.left() - 5.0, y), Align2::RIGHT_CENTER, text, self.font.clone(), colour);
            }
        }
        if self.margin.y > 0.0 {
            let step = Self::step(grid.layout.x.cell() / scale, self.size.x + 8.0);
            let mut free = f32::NEG_INFINITY;
            for expert in (0..shape.experts).step_by(step) {
                let Some(x) = grid.layout.x.span(Kind::Cells, expert).map(|span| centre(0, span)) else { continue };
                if x < plot.left() || x > plot.right() || x - self.size.x / 2.0 < free {
                    continue;
                }
                let colour = if pointed.is_some_and(|c| c.expert == expert) { t.strong } else { t.muted };
                let at = pos2(x.max(plot.left() + self.size.x / 4.0), plot.top() - 3.0);
                free = painter.text(at, Align2::CENTER_BOTTOM, expert.to_string(), self.font.clone(), colour).right() + 4.0;
            }
        }
    }
}
