//! One column for each token: what its layers chose, and its text beneath. Only the columns in view are drawn.

use std::{ops::Range, sync::Arc};

use eframe::{
    egui::{
        self, Align2, Color32, CornerRadius, EventFilter, FontId, Key, Mesh, Pos2, Rect, Response, Role, ScrollArea, Sense,
        Stroke, StrokeKind, Ui, Vec2, WidgetInfo, epaint::TextShape, pos2, vec2,
    },
    epaint,
};
use pleiad_runtime::experts::trace::{Routed, Served};

use crate::{
    activity::{Phase, Shape, TokenRow},
    settings::Palette,
    ui::{Theme, experts::colours, parts, theme},
};

/// What the colours of the strip are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Metric {
    /// The largest weight's share of all weights of the layer.
    #[default]
    TopShare,
    /// The share of chosen experts that were not resident.
    Misses,
}

impl Metric {
    /// Every metric, in the order of the menu.
    pub const ALL: [Self; 2] = [Self::TopShare, Self::Misses];

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::TopShare => "Top-1 share",
            Self::Misses => "Misses",
        }
    }

    /// What it shows, in a sentence.
    pub fn explanation(self) -> &'static str {
        match self {
            Self::TopShare => "How much of a layer's weight the first expert of the token has: bright where one expert decides",
            Self::Misses => "The share of a layer's chosen experts that were not on the GPU: bright where most had to be moved",
        }
    }

    /// Of the choices of one token in one layer: from 0 to 1.
    fn of(self, choices: &[Routed]) -> f32 {
        match self {
            Self::TopShare => {
                let sum: f32 = choices.iter().map(|c| c.weight).sum();
                let top = choices.iter().map(|c| c.weight).fold(0.0, f32::max);
                if sum > 0.0 { (top / sum).clamp(0.0, 1.0) } else { 0.0 }
            }
            Self::Misses => {
                let missed = choices.iter().filter(|c| missed(c)).count();
                missed as f32 / choices.len().max(1) as f32
            }
        }
    }
}

/// Whether an expert was wanted on the device and was not there.
pub fn missed(choice: &Routed) -> bool {
    !matches!(choice.served, Served::Hit | Served::Host)
}

/// What the strip is drawn from.
pub struct StripContext<'a> {
    /// Layers and experts.
    pub shape: &'a Shape,
    /// How many tokens there are.
    pub count: usize,
    /// The tokens, oldest first.
    pub token: &'a dyn Fn(usize) -> Option<&'a TokenRow>,
    /// Changes whenever a token has changed.
    pub revision: u64,
    /// Colours for amounts.
    pub palette: Palette,
    /// The token whose word is pointed at in the conversation.
    pub marked: Option<usize>,
    /// The token that a person has pinned.
    pub pinned: Option<usize>,
    /// The tokens that the grid is narrowed to.
    pub brush: Option<Range<usize>>,
    /// How high all layers may be, in points.
    pub height: f32,
}

/// What a person did to the strip.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StripResponse {
    /// The token under the pointer, or under the keyboard's cursor.
    pub pointed: Option<usize>,
    /// The token that was clicked, or that Enter was pressed at.
    pub clicked: Option<usize>,
}

/// Everything that the cached picture of the cells depends on.
#[derive(Clone, Debug, PartialEq)]
struct MeshKey {
    revision: u64,
    columns: Range<usize>,
    metric: Metric,
    palette: Palette,
    origin: Pos2,
    cell: Vec2,
}

/// What the strip keeps between frames.
#[derive(Default)]
pub struct Strip {
    /// What its colours are.
    pub metric: Metric,
    cursor: Option<usize>,
    mesh: Option<(MeshKey, Arc<Mesh>)>,
}

/// Width of a column: a line of rotated small text fits.
const COLUMN: f32 = 16.0;
/// Height of the lane that tells prompt from answer.
const LANE: f32 = 16.0;
/// Room for the text of a token.
const TEXT: f32 = 58.0;
/// Characters of a token's text that fit.
const MOST_CHARACTERS: usize = 9;

impl Strip {
    /// Nothing that belongs to tokens of another source is kept.
    pub fn forget(&mut self) {
        (self.cursor, self.mesh) = (None, None);
    }

    /// Draws the strip, as wide as there is room.
    pub fn show(&mut self, ui: &mut Ui, cx: &StripContext<'_>) -> StripResponse {
        let rows = cx.shape.rows.len().max(1);
        let cell = vec2(COLUMN, (cx.height / rows as f32).clamp(1.0, 10.0));
        let height = LANE + cell.y * rows as f32 + TEXT;
        let mut answer = StripResponse::default();
        ScrollArea::horizontal().id_salt("token strip").stick_to_right(true).auto_shrink([false, true]).show_viewport(
            ui,
            |ui, view| {
                let width = (cx.count as f32 * COLUMN).max(view.width());
                let (rect, response) = ui.allocate_exact_size(vec2(width, height), Sense::click());
                let columns = visible(view, cx.count);
                answer = self.interact(ui, cx, rect, &response);
                if ui.is_rect_visible(rect) {
                    self.paint(ui, cx, rect, columns, cell, answer.pointed);
                }
                if let (Some(at), true) = (answer.pointed, response.hovered())
                    && let Some(row) = (cx.token)(at)
                {
                    egui::Tooltip::for_widget(&response).at_pointer().show(|ui| tooltip_ui(ui, row));
                }
            },
        );
        answer
    }

    /// Pointer and keyboard.
    fn interact(&mut self, ui: &Ui, cx: &StripContext<'_>, rect: Rect, response: &Response) -> StripResponse {
        let mut answer = StripResponse::default();
        let last = cx.count.saturating_sub(1);
        let at = |p: Pos2| (((p.x - rect.left()) / COLUMN) as usize).min(last);
        if cx.count > 0 {
            let inside = |p: &Pos2| p.x - rect.left() < cx.count as f32 * COLUMN;
            answer.pointed = response.hover_pos().filter(inside).map(at);
            if response.clicked() {
                answer.clicked = response.interact_pointer_pos().filter(inside).map(at).or(self.cursor.map(|c| c.min(last)));
            }
        }
        if response.has_focus() && cx.count > 0 {
            let filter = EventFilter { horizontal_arrows: true, ..Default::default() };
            ui.memory_mut(|m| m.set_focus_lock_filter(response.id, filter));
            let now = self.cursor.or(cx.pinned).unwrap_or(last).min(last);
            let pressed = |key| ui.input(|i| i.key_pressed(key));
            let to = if pressed(Key::ArrowLeft) {
                now.saturating_sub(1)
            } else if pressed(Key::ArrowRight) {
                (now + 1).min(last)
            } else if pressed(Key::Home) {
                0
            } else if pressed(Key::End) {
                last
            } else {
                now
            };
            if to != now || self.cursor.is_none() {
                let left = rect.left() + to as f32 * COLUMN;
                ui.scroll_to_rect(Rect::from_x_y_ranges(left..=left + COLUMN, rect.y_range()), None);
            }
            self.cursor = Some(to);
            answer.pointed = answer.pointed.or(Some(to));
        } else if !response.has_focus() {
            self.cursor = None;
        }
        let said = self.cursor.or(cx.pinned).or(cx.count.checked_sub(1)).and_then(|i| Some((i, (cx.token)(i)?)));
        response.widget_info(|| WidgetInfo::labeled(Role::ListBox, true, "Tokens, newest last; arrow keys move, Enter pins"));
        if let Some((i, row)) = said {
            ui.ctx().accesskit_node_builder(response.id, |node| {
                node.set_value(format!("Token {} of {}: {}", i + 1, cx.count, said_of(row)));
            });
        }
        answer
    }

    fn paint(&mut self, ui: &Ui, cx: &StripContext<'_>, rect: Rect, columns: Range<usize>, cell: Vec2, pointed: Option<usize>) {
        let t = Theme::of(ui.ctx());
        let painter = ui.painter();
        let top = rect.top() + LANE;
        let bottom = top + cell.y * cx.shape.rows.len() as f32;
        let column = |i: usize| {
            let left = rect.left() + i as f32 * COLUMN;
            Rect::from_min_max(pos2(left, rect.top()), pos2(left + COLUMN, rect.bottom()))
        };
        let cells = Rect::from_min_max(pos2(column(columns.start).left(), top), pos2(column(columns.end).left(), bottom));
        painter.rect_filled(cells, CornerRadius::ZERO, t.field);
        self.cells(cx, rect, columns.clone(), cell, painter);
        paint_lanes(ui, cx, &columns, &column);

        let font = Theme::small().resolve(ui.style());
        for i in columns.clone() {
            let Some(row) = (cx.token)(i) else { continue };
            let lit = Some(i) == pointed || Some(i) == cx.marked || Some(i) == cx.pinned;
            let outside = cx.brush.as_ref().is_some_and(|b| !b.contains(&i));
            let colour = if lit {
                t.strong
            } else if row.phase == Phase::Prompt || outside {
                t.muted
            } else {
                t.text
            };
            if lit {
                let behind = Rect::from_min_max(pos2(column(i).left(), bottom), column(i).max);
                painter.rect_filled(behind, CornerRadius::same(3), t.mark);
            }
            paint_text(painter, &shown(&row.text), &font, colour, pos2(column(i).center().x, bottom + 4.0));
            if outside {
                let veil = Rect::from_x_y_ranges(column(i).x_range(), top..=bottom);
                painter.rect_filled(veil, CornerRadius::ZERO, t.panel.gamma_multiply(0.72));
            }
        }
        let outline = |i: usize, colour: Color32, width: f32| {
            if columns.contains(&i) {
                let r = Rect::from_x_y_ranges(column(i).x_range(), top - 1.0..=bottom + 1.0);
                painter.rect_stroke(r, CornerRadius::same(2), Stroke::new(width, colour), StrokeKind::Inside);
            }
        };
        if let Some(i) = cx.marked {
            outline(i, t.accent, 1.5);
        }
        if let Some(i) = pointed {
            outline(i, t.accent, 1.5);
        }
        if let Some(i) = cx.pinned {
            outline(i, t.strong, 2.0);
        }
        if let Some(i) = self.cursor {
            outline(i, t.accent, 2.5);
        }
    }

    /// The cells of the columns in view, as one mesh that is kept until something about it changes.
    fn cells(&mut self, cx: &StripContext<'_>, rect: Rect, columns: Range<usize>, cell: Vec2, painter: &egui::Painter) {
        let key = MeshKey {
            revision: cx.revision,
            columns: columns.clone(),
            metric: self.metric,
            palette: cx.palette,
            origin: rect.min,
            cell,
        };
        if let Some((made, mesh)) = &self.mesh
            && *made == key
        {
            painter.add(egui::Shape::Mesh(Arc::clone(mesh)));
            return;
        }
        let colours = colours::amounts(cx.palette);
        let mut mesh = Mesh::default();
        for i in columns {
            let Some(row) = (cx.token)(i) else { continue };
            let left = rect.left() + i as f32 * COLUMN + 0.5;
            for choices in row.choices.chunk_by(|a, b| a.layer == b.layer) {
                let Some(at) = choices.first().and_then(|c| cx.shape.row_of(usize::from(c.layer))) else { continue };
                let [r, g, b] = colours[(self.metric.of(choices) * (colours::STEPS - 1) as f32) as usize];
                let top = rect.top() + LANE + at as f32 * cell.y;
                let gap = if cell.y >= 4.0 { 0.5 } else { 0.0 };
                let r4 = Rect::from_min_size(pos2(left, top), vec2(cell.x - 1.0, cell.y - gap));
                mesh.add_colored_rect(r4, Color32::from_rgb(r, g, b));
            }
        }
        let mesh = Arc::new(mesh);
        painter.add(egui::Shape::Mesh(Arc::clone(&mesh)));
        self.mesh = Some((key, mesh));
    }
}

/// The columns that a view of the strip needs.
fn visible(view: Rect, count: usize) -> Range<usize> {
    let first = ((view.left() / COLUMN).floor().max(0.0) as usize).min(count);
    let last = ((view.right() / COLUMN).ceil().max(0.0) as usize).clamp(first, count);
    first..last
}

/// Which tokens were read and which were written: an outlined lane and a filled one, with their names, and a line where
/// another generation begins.
fn paint_lanes(ui: &Ui, cx: &StripContext<'_>, columns: &Range<usize>, column: &dyn Fn(usize) -> Rect) {
    let t = Theme::of(ui.ctx());
    let painter = ui.painter();
    let font = Theme::small().resolve(ui.style());
    let of = |i: usize| (cx.token)(i).map(|r| (r.run, r.phase));
    let mut from = columns.start;
    while from < columns.end {
        let Some((run, phase)) = of(from) else { break };
        let to = (from + 1..columns.end).find(|&i| of(i) != Some((run, phase))).unwrap_or(columns.end);
        let lane = Rect::from_min_max(column(from).min, pos2(column(to - 1).right(), column(from).top() + LANE - 3.0))
            .shrink2(vec2(1.0, 0.0));
        let (name, colour) = match phase {
            Phase::Prompt => {
                painter.rect_stroke(lane, CornerRadius::same(3), Stroke::new(1.0, t.line), StrokeKind::Inside);
                ("prompt", t.muted)
            }
            Phase::Answer => {
                painter.rect_filled(lane, CornerRadius::same(3), t.accent_soft);
                ("answer", t.strong)
            }
        };
        if lane.width() > 48.0 {
            let visible = lane.intersect(painter.clip_rect());
            if visible.width() > 48.0 {
                painter.text(visible.left_center() + vec2(5.0, 0.0), Align2::LEFT_CENTER, name, small_font(&font), colour);
            }
        }
        if from > 0 && of(from - 1).is_some_and(|(before, _)| before != run) {
            let x = column(from).left();
            painter.vline(x, column(from).y_range(), Stroke::new(1.5, t.muted));
        }
        from = to;
    }
}

fn small_font(font: &FontId) -> FontId {
    FontId::new(font.size * 0.9, font.family.clone())
}

/// A token's text, from top to bottom.
fn paint_text(painter: &egui::Painter, text: &str, font: &FontId, colour: Color32, top: Pos2) {
    let galley = painter.layout_no_wrap(text.to_owned(), font.clone(), colour);
    // Turned by a quarter, the top of the line is at the right.
    let at = pos2(top.x + galley.size().y / 2.0, top.y);
    let mut shape = TextShape::new(at, galley, colour);
    shape.angle = std::f32::consts::FRAC_PI_2;
    painter.add(epaint::Shape::Text(shape));
}

/// A token's text in a few characters, with white space made visible.
pub fn shown(text: &str) -> String {
    let mut short = String::new();
    for (n, c) in text.chars().enumerate() {
        if n == MOST_CHARACTERS {
            short.push('…');
            break;
        }
        match c {
            '\n' => short.push_str("\\n"),
            '\r' => short.push_str("\\r"),
            '\t' => short.push_str("\\t"),
            ' ' => short.push('·'),
            // The marks of DeepSeek's control tokens, which few fonts have.
            '｜' => short.push('|'),
            '▁' => short.push('_'),
            c if c.is_control() => short.push('?'),
            c => short.push(c),
        }
    }
    short
}

/// A token in words.
pub fn said_of(row: &TokenRow) -> String {
    let phase = match row.phase {
        Phase::Prompt => "prompt",
        Phase::Answer => "answer",
    };
    let misses = row.choices.iter().filter(|c| missed(c)).count();
    let moved: u64 = row.choices.iter().map(|c| c.bytes).sum();
    let mut text = format!("“{}”, {phase}, position {}, {} experts", shown(&row.text), row.position, row.choices.len());
    if misses > 0 {
        text += &format!(", {misses} not resident, {} moved", parts::bytes(moved));
    }
    text
}

fn tooltip_ui(ui: &mut Ui, row: &TokenRow) {
    ui.label(egui::RichText::new(format!("“{}”", shown(&row.text))).strong());
    let phase = match row.phase {
        Phase::Prompt => "Read as part of the prompt",
        Phase::Answer => "Written by the model",
    };
    ui.label(phase);
    ui.label(parts::small(ui, format!("Position {}, id {}", row.position, row.id)));
    let misses = row.choices.iter().filter(|c| missed(c)).count();
    let moved: u64 = row.choices.iter().map(|c| c.bytes).sum();
    let text = format!("{} experts chosen, {misses} not resident, {} moved", row.choices.len(), parts::bytes(moved));
    ui.label(parts::small(ui, text));
    ui.add_space(theme::GAP / 2.0);
    ui.label(parts::small(ui, "Click to pin"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_columns_in_view() {
        let view = |from: f32, to: f32| Rect::from_x_y_ranges(from..=to, 0.0..=10.0);
        assert_eq!(visible(view(0.0, 100.0), 4096), 0..7);
        assert_eq!(visible(view(COLUMN * 4000.0 + 1.0, COLUMN * 4000.0 + 1.0 + 400.0), 4096), 4000..4026);
        assert_eq!(visible(view(0.0, 400.0), 3), 0..3);
        assert_eq!(visible(view(0.0, 400.0), 0), 0..0);
    }

    #[test]
    fn white_space_is_seen_and_long_tokens_are_cut() {
        assert_eq!(shown(" the\n"), "·the\\n");
        assert_eq!(shown("internationalisation"), "internati…");
        assert_eq!(shown("\u{7}"), "?");
    }

    #[test]
    fn metrics_are_shares() {
        let c = |weight, served| Routed { position: 0, layer: 0, rank: 0, expert: 0, weight, served, bytes: 0 };
        let choices = [c(1.5, Served::Hit), c(0.5, Served::Fetched)];
        assert_eq!(Metric::TopShare.of(&choices), 0.75);
        assert_eq!(Metric::Misses.of(&choices), 0.5);
        assert_eq!(Metric::Misses.of(&[c(1.0, Served::Host)]), 0.0);
        assert_eq!(Metric::TopShare.of(&[]), 0.0);
    }
}
