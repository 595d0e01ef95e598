//! Formulas in TeX, typeset: laid out by RaTeX, a port of KaTeX, and drawn with its fonts.

use std::{panic, sync::Arc};

use egui::{
    Color32, FontId, Mesh, Painter, Pos2, Rect, Role, ScrollArea, Sense, Shape, Stroke, TextStyle, Ui, Vec2,
    cache::{ComputerMut, FrameCache},
    emath::GuiRounding as _,
    epaint::Vertex,
};
use lyon_tessellation::{
    BuffersBuilder, FillOptions, FillTessellator, FillVertex, VertexBuffers,
    math::point,
    path::{Path, PathEvent, iterator::PathIterator as _},
};
use ratex_font::{FontId as Face, katex_ttf_glyph_char};
use ratex_types::{color::Color, display_item::DisplayItem, math_style::MathStyle, path_command::PathCommand};

use super::{fonts, parts::named};

/// Formulas that are longer than this are shown as they are written.
const LONGEST: usize = 2000;
/// Marks that nest (braces, commands, scripts) in one formula: more could exhaust the stack of the parser.
const MOST_MARKS: usize = 300;
/// Height of an em of a formula, relative to the text around it: KaTeX's.
const SCALE: f32 = 1.21;
/// Width of the line around a shape, in points: its smooth edge.
const HAIR: f32 = 0.5;
/// Largest distance between a curve and its polygon, in em.
const TOLERANCE: f32 = 0.004;

/// A character at its place, in em.
struct Glyph {
    baseline: Pos2,
    scale: f32,
    face: &'static str,
    character: char,
    colour: Option<Color32>,
}

/// A formula, laid out, in em; the baseline is at `height`.
struct Formula {
    size: Vec2,
    glyphs: Vec<Glyph>,
    /// Bars and boxes, with a colour of their own where they have one.
    bars: Vec<(Rect, Option<Color32>)>,
    /// Roots, braces and other shapes, as triangles. White: the colour of the text.
    mesh: Mesh,
    /// Their outlines, which are drawn with smooth edges.
    outlines: Vec<(Vec<Pos2>, Option<Color32>)>,
}

/// Draws a formula. `false`: it cannot be typeset, and nothing was drawn.
pub fn formula_ui(ui: &mut Ui, tex: &str, inline: bool) -> bool {
    let formula = ui.memory_mut(|m| m.caches.cache::<FrameCache<Option<Arc<Formula>>, Layout>>().get((tex, inline)).clone());
    let Some(formula) = formula else { return false };
    let em = SCALE * ui.text_style_height(&TextStyle::Body) / 1.3;
    // A wide formula is set smaller before it has to be scrolled.
    let room = if inline { 1.0 } else { (ui.available_width() / (formula.size.x * em).max(1.0)).clamp(0.6, 1.0) };
    let em = em * room;
    let wide = !inline && formula.size.x * em > ui.available_width() + 1.0;
    if wide {
        ScrollArea::horizontal().id_salt(("formula", tex)).show(ui, |ui| formula.show(ui, tex, em));
    } else {
        formula.show(ui, tex, em);
    }
    true
}

impl Formula {
    fn show(&self, ui: &mut Ui, tex: &str, em: f32) {
        let size = (self.size * em).max(Vec2::splat(1.0));
        let (rect, response) = ui.allocate_exact_size(size, Sense::hover());
        named(&response, Role::Image, tex);
        if ui.is_rect_visible(rect) {
            self.paint(ui.painter(), rect, em, ui.visuals().text_color());
        }
    }

    fn paint(&self, painter: &Painter, rect: Rect, em: f32, text: Color32) {
        let mut mesh = self.mesh.clone();
        for v in &mut mesh.vertices {
            v.pos = rect.min + v.pos.to_vec2() * em;
            if v.color == Color32::WHITE {
                v.color = text;
            }
        }
        painter.add(Shape::mesh(mesh));
        for (outline, colour) in &self.outlines {
            let points = outline.iter().map(|p| rect.min + p.to_vec2() * em).collect();
            painter.add(Shape::closed_line(points, Stroke::new(HAIR, colour.unwrap_or(text))));
        }
        let pixel = 1.0 / painter.pixels_per_point();
        for (bar, colour) in &self.bars {
            // A bar between two rows of pixels would be lost.
            let top = (rect.top() + bar.top() * em).round_to_pixels(painter.pixels_per_point());
            let size = Vec2::new(bar.width() * em, (bar.height() * em).max(pixel));
            let bar = Rect::from_min_size(Pos2::new(rect.left() + bar.left() * em, top), size);
            painter.rect_filled(bar, 0.0, colour.unwrap_or(text));
        }
        for g in &self.glyphs {
            let font = FontId::new(g.scale * em, fonts::family(painter.ctx(), g.face));
            let galley = painter.layout_no_wrap(g.character.to_string(), font, g.colour.unwrap_or(text));
            let Some(row) = galley.rows.first() else { continue };
            let Some(glyph) = row.glyphs.first() else { continue };
            let baseline = row.pos.y + glyph.pos.y;
            let at = rect.min + g.baseline.to_vec2() * em - Vec2::new(0.0, baseline);
            painter.galley(at, galley, text);
        }
    }
}

/// Lays formulas out; those that are drawn again in the next frame are kept.
#[derive(Default)]
struct Layout;

impl ComputerMut<(&str, bool), Option<Arc<Formula>>> for Layout {
    fn compute(&mut self, (tex, inline): (&str, bool)) -> Option<Arc<Formula>> {
        lay_out(tex, inline).map(Arc::new)
    }
}

/// Lays a formula out. `None`: it is none that can be typeset.
fn lay_out(tex: &str, inline: bool) -> Option<Formula> {
    let tex = tex.trim();
    let marks = tex.chars().filter(|c| matches!(c, '{' | '\\' | '^' | '_' | '[' | '(')).count();
    if tex.is_empty() || tex.len() > LONGEST || marks > MOST_MARKS {
        return None;
    }
    // What models write is arbitrary: a fault of the typesetter must not end the program.
    let list = panic::catch_unwind(|| {
        let nodes = ratex_parser::parse(tex).ok()?;
        let style = if inline { MathStyle::Text } else { MathStyle::Display };
        let options = ratex_layout::LayoutOptions { style, ..Default::default() };
        Some(ratex_layout::to_display_list(&ratex_layout::layout(&nodes, &options)))
    })
    .ok()??;
    let size = Vec2::new(list.width as f32, (list.height + list.depth) as f32);
    if !(size.is_finite() && size.x < 400.0 && size.y < 400.0) {
        return None;
    }
    let mut formula = Formula { size, glyphs: Vec::new(), bars: Vec::new(), mesh: Mesh::default(), outlines: Vec::new() };
    for item in &list.items {
        match item {
            DisplayItem::GlyphPath { x, y, scale, font, char_code, color } => {
                let face = Face::parse(font).unwrap_or(Face::MainRegular);
                formula.glyphs.push(Glyph {
                    baseline: Pos2::new(*x as f32, *y as f32),
                    scale: *scale as f32,
                    face: face.as_str(),
                    character: katex_ttf_glyph_char(face, *char_code),
                    colour: own(color),
                });
            }
            DisplayItem::Line { x, y, width, thickness, color, .. } => {
                let (top, thickness) = (*y - thickness / 2.0, *thickness);
                formula.bar(*x, top, *width, thickness, color);
            }
            DisplayItem::Rect { x, y, width, height, color } => formula.bar(*x, *y, *width, *height, color),
            DisplayItem::Path { x, y, commands, color, .. } => formula.shape(*x, *y, commands, color)?,
        }
    }
    Some(formula)
}

/// A colour that the formula asks for; `None`: that of the text.
fn own(c: &Color) -> Option<Color32> {
    let byte = |x: f32| (x.clamp(0.0, 1.0) * 255.0).round() as u8;
    (*c != Color::BLACK).then(|| Color32::from_rgba_unmultiplied(byte(c.r), byte(c.g), byte(c.b), byte(c.a)))
}

impl Formula {
    fn bar(&mut self, x: f64, y: f64, width: f64, height: f64, colour: &Color) {
        let rect = Rect::from_min_size(Pos2::new(x as f32, y as f32), Vec2::new(width as f32, height as f32));
        self.bars.push((rect, own(colour)));
    }

    /// Fills an outline, as triangles.
    fn shape(&mut self, x: f64, y: f64, commands: &[PathCommand], colour: &Color) -> Option<()> {
        let at = |px: f64, py: f64| point((x + px) as f32, (y + py) as f32);
        let mut path = Path::builder();
        let mut open = false;
        for c in commands {
            if !open && !matches!(c, PathCommand::MoveTo { .. } | PathCommand::Close) {
                path.begin(at(0.0, 0.0));
                open = true;
            }
            match *c {
                PathCommand::MoveTo { x, y } => {
                    if open {
                        path.end(true);
                    }
                    path.begin(at(x, y));
                    open = true;
                }
                PathCommand::LineTo { x, y } => {
                    path.line_to(at(x, y));
                }
                PathCommand::QuadTo { x1, y1, x, y } => {
                    path.quadratic_bezier_to(at(x1, y1), at(x, y));
                }
                PathCommand::CubicTo { x1, y1, x2, y2, x, y } => {
                    path.cubic_bezier_to(at(x1, y1), at(x2, y2), at(x, y));
                }
                PathCommand::Close => {
                    if open {
                        path.end(true);
                    }
                    open = false;
                }
            }
        }
        if open {
            path.end(true);
        }
        let path = path.build();
        let own = own(colour);
        let mut outline = Vec::new();
        for event in path.iter().flattened(TOLERANCE) {
            match event {
                PathEvent::Begin { at } => outline.push(Pos2::new(at.x, at.y)),
                PathEvent::Line { to, .. } => outline.push(Pos2::new(to.x, to.y)),
                _ => self.outlines.push((std::mem::take(&mut outline), own)),
            }
        }
        let colour = own.unwrap_or(Color32::WHITE);
        let mut triangles: VertexBuffers<Vertex, u32> = VertexBuffers::new();
        let uv = egui::epaint::WHITE_UV;
        let mut builder = BuffersBuilder::new(&mut triangles, |v: FillVertex<'_>| {
            let p = v.position();
            Vertex { pos: Pos2::new(p.x, p.y), uv, color: colour }
        });
        let options = FillOptions::non_zero().with_tolerance(TOLERANCE);
        FillTessellator::new().tessellate_path(&path, &options, &mut builder).ok()?;
        let base = self.mesh.vertices.len() as u32;
        self.mesh.vertices.extend(triangles.vertices);
        self.mesh.indices.extend(triangles.indices.iter().map(|i| base + i));
        Some(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

    use super::*;

    #[test]
    fn formulas_that_models_write_are_laid_out() {
        for tex in [
            "e^{i\\pi} + 1 = 0",
            "\\frac{-b \\pm \\sqrt{b^2 - 4ac}}{2a}",
            "\\sum_{i=1}^{n} i = \\frac{n(n+1)}{2}",
            "\\int_0^\\infty e^{-x^2}\\,dx = \\frac{\\sqrt{\\pi}}{2}",
            "\\begin{pmatrix} a & b \\\\ c & d \\end{pmatrix}",
            "\\left( \\frac{1}{2} \\right)^n",
            "\\text{softmax}(x)_i = \\frac{\\exp x_i}{\\sum_j \\exp x_j}",
            "\\mathbb{R}^{d} \\to \\mathcal{L}",
        ] {
            for inline in [true, false] {
                let formula = lay_out(tex, inline).unwrap_or_else(|| panic!("{tex}"));
                assert!(!formula.glyphs.is_empty() && formula.size.x > 0.0 && formula.size.y > 0.0, "{tex}");
            }
        }
        // A brace that stretches is a shape.
        assert!(lay_out("\\underbrace{a + b + c}_{3}", false).unwrap().mesh.indices.len() > 30);
    }

    #[test]
    fn nonsense_is_refused_and_costs_no_more() {
        let nested = |what: &str, n: usize| what.repeat(n);
        for tex in [
            String::new(),
            "\\frac{".into(),
            "}".into(),
            "\\unknowncommand{x}".into(),
            nested("{", 290),
            nested("\\sqrt", 290),
            nested("x^", 290),
            nested("\\frac{1}{", 90),
            nested("\\left(", 120),
            nested("{", 1_000_000),
            "x".repeat(10_000),
        ] {
            // None of these may panic or exhaust the stack of a test's thread.
            let _ = lay_out(&tex, false);
        }
    }
}
