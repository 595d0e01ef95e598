//! The grid as one widget: layers by experts, drawing, pointing, the keyboard cursor.
//!
//! | module | what it holds |
//! |---|---|
//! | [`layout`] | where cells are, from pixels to cells and back |
//! | [`labels`] | numbers of layers and experts beside the cells |
//! | [`marks`] | outlines of cells on top |

mod labels;
pub mod layout;
mod marks;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use eframe::{
    egui::{
        self, Event, Key, Mesh, Modifiers, PointerButton, Pos2, Rect, Response, Role, Sense, Shape as Drawn, Ui, Vec2, pos2, vec2,
    },
    egui_wgpu,
};

use super::paint::{CellsPaint, Pixels, Target, texture::CellsTexture};
use crate::{
    activity::{Cell, Field, Shape, shape::LayerKind},
    settings::Palette,
    ui::{Theme, parts},
};
use layout::{Kind, Layout, Place};

/// What the grid keeps between frames: zoom, pan and the keyboard cursor.
#[derive(Debug, Default)]
pub struct Grid {
    /// The cell that the keyboard is at.
    pub cursor: Option<Cell>,
    /// Zoom, in octaves.
    octaves: f32,
    /// Pixels that are moved out of sight to the left and above.
    pan: [f32; 2],
    layout: Layout,
    /// The upper left corner of what is seen of the cells, in pixels of the screen.
    origin: [i32; 2],
    /// What the shader looks pixels up in, what it was made for, and its number.
    lookup: Option<(Arc<[u32]>, [i32; 4], u64)>,
    lookups: u64,
    texture: CellsTexture,
    /// The keyboard moved last, rather than the pointer.
    by_keys: bool,
    /// What was said of the cursor's cell, for which revision.
    said: Option<(Cell, u64, String)>,
}

/// What the grid is drawn from.
pub struct GridContext<'a> {
    /// Layers and experts.
    pub shape: &'a Shape,
    /// A number for every cell.
    pub field: &'a Field,
    /// Colours for amounts.
    pub palette: Palette,
    /// Cells to outline: the experts of the token that is pointed at.
    pub lit: &'a [Cell],
    /// The cell that a person has pinned.
    pub pinned: Option<Cell>,
    /// The state of the renderer; `None`: a texture is drawn instead.
    pub gpu: bool,
    /// No animation.
    pub reduced_motion: bool,
}

/// What a person did to the grid.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct GridResponse {
    /// The cell that the pointer, or the keyboard's cursor, is at.
    pub pointed: Option<Cell>,
    /// The cell that was clicked, or that Enter was pressed at.
    pub clicked: Option<Cell>,
}

/// Rows that PageUp and PageDown move by.
const PAGE: usize = 8;
/// How much a key press zooms, in octaves.
const ZOOM_STEP: f32 = 0.5;

impl Grid {
    /// Draws the grid in the room that there is. `describe` says what a cell is, for screen readers: it is called for the
    /// keyboard's cursor only.
    pub fn show(&mut self, ui: &mut Ui, cx: &GridContext<'_>, describe: &dyn Fn(Cell) -> String) -> GridResponse {
        let shape = cx.shape;
        if shape.cells() == 0 {
            let text = parts::muted(ui, "This model has no experts");
            ui.label(text);
            return GridResponse::default();
        }
        self.cursor = self.cursor.map(|c| Cell { row: c.row.min(shape.rows.len() - 1), expert: c.expert.min(shape.experts - 1) });

        let scale = ui.pixels_per_point();
        let available = ui.available_size();
        let labels = labels::Labels::new(ui, shape, available);
        let room = (available - labels.margin - vec2(2.0, 2.0)) * scale;
        let side = |length: f32| if length.is_finite() { (length.floor() as i32).clamp(40, 16_384) } else { 4096 };
        let room = [side(room.x), side(room.y)];
        self.layout.update(shape, room, scale, self.octaves.exp2());

        let view = vec2(self.layout.view[0] as f32, self.layout.view[1] as f32) / scale;
        let movable = self.layout.slack().iter().any(|s| *s > 0.0);
        let sense = if movable { Sense::click_and_drag() } else { Sense::click() };
        let (rect, response) = ui.allocate_exact_size(labels.margin + view + vec2(2.0, 2.0), sense);
        let corner = (rect.min + labels.margin + vec2(1.0, 1.0)) * scale;
        self.origin = [corner.x.round() as i32, corner.y.round() as i32];
        let plot = Rect::from_min_size(pos2(self.origin[0] as f32, self.origin[1] as f32) / scale, view);

        let mut out = GridResponse::default();
        self.point(ui, &response, shape, plot, &mut out);
        self.keys(ui, &response, shape, scale);
        if response.clicked() && !response.clicked_by(PointerButton::Primary) {
            out.clicked = self.cursor;
        }
        if response.has_focus() && (self.by_keys || out.pointed.is_none()) {
            out.pointed = self.cursor;
        }
        self.tell(ui, &response, cx, describe);
        if ui.is_rect_visible(rect) {
            self.draw(ui, cx, &response, plot, &labels, out.pointed);
        }
        out
    }

    /// Zoom, pan and clicks of the pointer.
    fn point(&mut self, ui: &Ui, response: &Response, shape: &Shape, plot: Rect, out: &mut GridResponse) {
        let scale = ui.pixels_per_point();
        let pointer = response.hover_pos().filter(|p| plot.contains(*p));
        if ui.input(|i| i.pointer.delta() != Vec2::ZERO) {
            self.by_keys = false;
        }
        if let Some(pos) = pointer {
            let factor = ui.input(|i| i.zoom_delta());
            if factor != 1.0 {
                self.zoom(shape, factor.log2(), (pos - plot.min) * scale);
            }
            let delta = ui.input(|i| i.smooth_scroll_delta);
            let slack = self.layout.slack();
            for (axis, moved) in [delta.x, delta.y].into_iter().enumerate() {
                let before = self.pan[axis];
                let after = (before - moved * scale).clamp(0.0, slack[axis]);
                if moved != 0.0 && after != before {
                    self.pan[axis] = after;
                    // What the grid has moved by moves nothing around it.
                    ui.input_mut(|i| i.smooth_scroll_delta[axis] = 0.0);
                }
            }
        }
        if response.dragged_by(PointerButton::Primary) || response.dragged_by(PointerButton::Middle) {
            let delta = response.drag_delta() * scale;
            self.pan = [self.pan[0] - delta.x, self.pan[1] - delta.y];
            ui.set_cursor_icon(egui::CursorIcon::Grabbing);
        }
        self.clamp();
        out.pointed = pointer.and_then(|pos| self.cell_at(pos, scale));
        if response.clicked_by(PointerButton::Primary) {
            response.request_focus();
            if response.double_clicked() && self.octaves > 0.0 {
                self.zoom(shape, f32::NEG_INFINITY, Vec2::ZERO);
            } else if let Some(cell) = response.interact_pointer_pos().and_then(|pos| self.cell_at(pos, scale)) {
                self.cursor = Some(cell);
                out.clicked = Some(cell);
            }
        }
    }

    /// The keyboard: the cursor, and zoom about it.
    fn keys(&mut self, ui: &Ui, response: &Response, shape: &Shape, scale: f32) {
        if !response.has_focus() {
            return;
        }
        let filter = egui::EventFilter { horizontal_arrows: true, vertical_arrows: true, ..Default::default() };
        ui.memory_mut(|m| m.set_focus_lock_filter(response.id, filter));
        let (last_row, last_expert) = (shape.rows.len() - 1, shape.experts - 1);
        // One that comes by Tab is somewhere at once, so that it can be said where.
        let at = *self.cursor.get_or_insert(Cell { row: 0, expert: 0 });
        let mut to = at;
        let mut zoom = 0.0;
        let mut moved = false;
        ui.input_mut(|i| {
            i.events.retain(|event| {
                let Event::Key { key, pressed: true, modifiers, .. } = event else { return true };
                if modifiers.alt || modifiers.mac_cmd {
                    return true;
                }
                let all = modifiers.matches_logically(Modifiers::COMMAND);
                match key {
                    Key::ArrowLeft if !all => to.expert = to.expert.saturating_sub(1),
                    Key::ArrowRight if !all => to.expert = (to.expert + 1).min(last_expert),
                    Key::ArrowUp if !all => to.row = to.row.saturating_sub(1),
                    Key::ArrowDown if !all => to.row = (to.row + 1).min(last_row),
                    Key::PageUp if !all => to.row = to.row.saturating_sub(PAGE),
                    Key::PageDown if !all => to.row = (to.row + PAGE).min(last_row),
                    Key::Home => to = Cell { row: if all { 0 } else { to.row }, expert: 0 },
                    Key::End => to = Cell { row: if all { last_row } else { to.row }, expert: last_expert },
                    Key::Plus | Key::Equals if !all => zoom += ZOOM_STEP,
                    Key::Minus if !all => zoom -= ZOOM_STEP,
                    Key::Num0 if !all => zoom = f32::NEG_INFINITY,
                    _ => return true,
                }
                moved = true;
                false
            });
        });
        if !moved {
            return;
        }
        self.by_keys = true;
        self.cursor = Some(to);
        if zoom != 0.0 {
            let centre = self
                .rect_of(to, scale)
                .map(|r| r.center().to_vec2() * scale - vec2(self.origin[0] as f32, self.origin[1] as f32));
            self.zoom(shape, zoom, centre.unwrap_or_default());
        }
        self.reveal(to);
    }

    /// Moves so that a cell is seen.
    fn reveal(&mut self, cell: Cell) {
        let spans = [self.layout.x.span(Kind::Cells, cell.expert), self.layout.y.span(Kind::Cells, cell.row)];
        for (axis, span) in spans.into_iter().enumerate() {
            let Some((start, length)) = span else { continue };
            let (start, end) = (start as f32, (start + length) as f32);
            self.pan[axis] = self.pan[axis].min(start - 2.0).max(end + 2.0 - self.layout.view[axis] as f32);
        }
        self.clamp();
    }

    /// Zooms by octaves, keeping a place (in pixels of what is seen) where it is.
    fn zoom(&mut self, shape: &Shape, octaves: f32, place: Vec2) {
        let before = self.octaves.exp2();
        self.octaves = (self.octaves + octaves).clamp(0.0, self.layout.max_zoom.log2());
        let factor = self.octaves.exp2() / before;
        self.pan = [(self.pan[0] + place.x) * factor - place.x, (self.pan[1] + place.y) * factor - place.y];
        // How far it can be moved is known from where cells are now.
        self.layout.zoom_to(shape, self.octaves.exp2());
        self.clamp();
    }

    fn clamp(&mut self) {
        let slack = self.layout.slack();
        self.pan = [self.pan[0].clamp(0.0, slack[0]), self.pan[1].clamp(0.0, slack[1])];
    }

    fn offset(&self) -> [i32; 2] {
        self.pan.map(|p| p.round() as i32)
    }

    /// What is at a point of the screen, across and down.
    fn places_at(&self, pos: Pos2, scale: f32) -> (Option<Place>, Option<Place>) {
        let offset = self.offset();
        let pixel = |at: f32, axis: usize| (at * scale).floor() as i32 - self.origin[axis];
        let (x, y) = (pixel(pos.x, 0), pixel(pos.y, 1));
        let inside = x >= 0 && y >= 0 && x < self.layout.view[0] && y < self.layout.view[1];
        if inside { (self.layout.x.at(x + offset[0]), self.layout.y.at(y + offset[1])) } else { (None, None) }
    }

    fn cell_at(&self, pos: Pos2, scale: f32) -> Option<Cell> {
        match self.places_at(pos, scale) {
            (Some(x), Some(y)) if x.kind == Kind::Cells && y.kind == Kind::Cells => Some(Cell { row: y.index, expert: x.index }),
            _ => None,
        }
    }

    /// Where a cell is on the screen, in points.
    fn rect_of(&self, cell: Cell, scale: f32) -> Option<Rect> {
        let (x, y) = (self.layout.x.span(Kind::Cells, cell.expert)?, self.layout.y.span(Kind::Cells, cell.row)?);
        let offset = self.offset();
        let min = pos2((self.origin[0] + x.0 - offset[0]) as f32, (self.origin[1] + y.0 - offset[1]) as f32);
        Some(Rect::from_min_size(min / scale, vec2(x.1 as f32, y.1 as f32) / scale))
    }

    /// Names for screen readers, and what the cursor is at, announced when it moves.
    fn tell(&mut self, ui: &Ui, response: &Response, cx: &GridContext<'_>, describe: &dyn Fn(Cell) -> String) {
        let name = format!("Experts, {} layers by {}", cx.shape.rows.len(), cx.shape.experts);
        parts::named(response, Role::Grid, &name);
        let Some(cell) = self.cursor.filter(|_| response.has_focus()) else { return };
        if !self.said.as_ref().is_some_and(|(at, revision, _)| *at == cell && *revision == cx.field.revision) {
            self.said = Some((cell, cx.field.revision, describe(cell)));
        }
        let Some((_, _, text)) = &self.said else { return };
        ui.ctx().accesskit_node_builder(response.id, |node| {
            node.set_value(text.as_str());
            node.set_live(egui::accesskit::Live::Polite);
        });
    }

    /// Where dense layers and shared experts are pointed at, says what they are.
    fn explain(&self, response: &Response, shape: &Shape, scale: f32) {
        let Some((x, y)) = response.hover_pos().map(|pos| self.places_at(pos, scale)) else { return };
        match (x, y) {
            (Some(_), Some(y)) if y.kind == Kind::Thin && shape.layers.get(y.index) == Some(&LayerKind::Dense) => {
                response.clone().on_hover_text_at_pointer(format!("Layer {} is dense: all tokens use one MLP", y.index));
            }
            (Some(x), Some(y)) if x.kind == Kind::Thin && y.kind == Kind::Cells => {
                let text = match shape.shared {
                    1 => "The shared expert: every token uses it".to_owned(),
                    n => format!("{n} shared experts: every token uses them"),
                };
                response.clone().on_hover_text_at_pointer(text);
            }
            _ => {}
        }
    }

    fn draw(
        &mut self,
        ui: &Ui,
        cx: &GridContext<'_>,
        response: &Response,
        plot: Rect,
        labels: &labels::Labels,
        pointed: Option<Cell>,
    ) {
        let t = Theme::of(ui.ctx());
        let scale = ui.pixels_per_point();
        labels.draw(ui, self, cx.shape, plot, pointed);
        let painter = ui.painter().with_clip_rect(plot.intersect(ui.clip_rect()));
        painter.rect_filled(plot, 0.0, t.panel);
        let target = Target::of(ui.ctx()).filter(|_| cx.gpu);
        if let Some(target) = target {
            let pixels = self.pixels();
            let paint = CellsPaint::new(response.id, target, cx.field, cx.palette, pixels, [t.line, t.accent]);
            painter.add(egui_wgpu::Callback::new_paint_callback(plot, paint));
        } else {
            let offset = self.offset();
            let Self { texture, layout, .. } = self;
            texture.draw(&painter, cx.field, cx.palette, layout, plot.min, offset, [t.line, t.accent, t.panel]);
        }

        let mut mesh = Mesh::default();
        let outlined = |cell| self.rect_of(cell, scale).filter(|r| r.expand(4.0).intersects(painter.clip_rect()));
        for rect in cx.lit.iter().filter_map(|cell| outlined(*cell)) {
            marks::outline(&mut mesh, rect, 1.0, scale, t.strong, t.page);
        }
        if let Some(rect) = pointed.and_then(outlined) {
            marks::outline(&mut mesh, rect, 1.0, scale, t.strong, t.page);
        }
        if let Some(rect) = cx.pinned.and_then(outlined) {
            // A hue that no palette for cells has.
            marks::pin(&mut mesh, rect, scale, t.plots[2], t.page);
        }
        if response.has_focus() {
            if let Some(rect) = self.cursor.and_then(outlined) {
                marks::outline(&mut mesh, rect, 2.0, scale, t.accent, t.page);
            }
            let ring = plot.expand(1.5);
            ui.painter().rect_stroke(ring, 2.0, egui::Stroke::new(1.5, t.accent), egui::StrokeKind::Outside);
        }
        if !mesh.is_empty() {
            painter.add(Drawn::mesh(mesh));
        }
        self.explain(response, cx.shape, scale);
    }

    /// What the shader looks pixels up in: made anew where the layout, or what is seen of it, has changed.
    fn pixels(&mut self) -> Pixels {
        let [x, y] = self.offset();
        let view = self.layout.view;
        let key = [x, y, view[0], view[1]];
        let lookup = match &self.lookup {
            Some((lookup, made, number)) if *made == key && *number == self.layout.number() => lookup.clone(),
            _ => {
                let mut all = Vec::with_capacity((view[0] + view[1]) as usize);
                self.layout.x.lookup(x, view[0] as usize, &mut all);
                self.layout.y.lookup(y, view[1] as usize, &mut all);
                self.lookups += 1;
                let lookup: Arc<[u32]> = all.into();
                self.lookup = Some((lookup.clone(), key, self.layout.number()));
                lookup
            }
        };
        Pixels { origin: self.origin, size: view.map(|v| v as u32), lookup, revision: self.lookups }
    }
}
