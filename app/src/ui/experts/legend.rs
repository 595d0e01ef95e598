//! What the colours mean.

use egui::{
    self, Align2, Color32, Mesh, Pos2, Rect, Response, Role, Sense, Shape as Drawn, Stroke, StrokeKind, Ui, Vec2, pos2, vec2,
};

use super::colours::{Look, colours_of, look_of, sample};
use crate::{
    activity::{Field, Home, Scale},
    settings::Palette,
    ui::{Theme, parts},
};

/// Height of the bar, in points.
const BAR: f32 = 10.0;
/// Edge of a swatch, in points: a multiple of the four quarters of a pattern.
const SWATCH: f32 = 12.0;

/// A number for people, short.
pub(super) fn number(value: f32) -> String {
    match value.abs() {
        v if v >= 1e6 => format!("{:.3}", value / 1e6).trim_end_matches('0').trim_end_matches('.').to_owned() + "M",
        v if v >= 1e4 => format!("{:.1}", value / 1e3).trim_end_matches(".0").to_owned() + "k",
        v if v >= 100.0 || (v - v.round()).abs() < 1e-4 => format!("{value:.0}"),
        v if v >= 1.0 => format!("{value:.1}"),
        v if v >= 0.01 => format!("{value:.2}"),
        _ => format!("{value:.1e}"),
    }
}

/// A power of two as a multiple: "1/8", "1", "8".
fn multiple(octave: i32) -> String {
    if octave < 0 { format!("1/{}", 1u64 << octave.unsigned_abs().min(63)) } else { format!("{}", 1u64 << octave.min(63)) }
}

/// Places on the bar, 0 to 1, and what is written there.
pub(super) fn ticks(scale: Scale) -> Vec<(f32, String)> {
    match scale {
        Scale::Linear { max } => {
            let max = max.max(0.0);
            vec![(0.0, "0".into()), (0.5, number(max / 2.0)), (1.0, number(max))]
        }
        Scale::Log { max } => {
            let top = max.max(1.0).log10();
            let mut all: Vec<(f32, String)> = (0..=top.floor() as i32)
                .map(|exponent| (if top > 0.0 { exponent as f32 / top } else { 1.0 }, number(10f32.powi(exponent))))
                .collect();
            // The last power of ten makes room for the end of the bar.
            while all.len() > 1 && all.last().is_some_and(|(at, _)| *at > 0.85) {
                all.pop();
            }
            if top > 0.0 {
                all.push((1.0, number(max)));
            }
            all
        }
        Scale::Ratio { octaves } => {
            let last = octaves.round().clamp(1.0, 12.0) as i32;
            let step = if last > 4 { last.div_euclid(2).max(1) } else { 1 };
            let at = |octave: i32| (octave as f32 / octaves.max(1.0) + 1.0) * 0.5;
            (-last..=last).filter(|o| o % step == 0).map(|o| (at(o), multiple(o))).collect()
        }
        Scale::Signed { max } => {
            let end = number(max.abs());
            vec![(0.0, format!("−{end}")), (0.5, "0".into()), (1.0, end)]
        }
        Scale::Homes => Vec::new(),
    }
}

/// What the cells of a look are called, and the looks that a field can have beside the colours of its bar.
pub(super) fn swatches(field: &Field, palette: Palette) -> Vec<(Look, &'static str)> {
    let mut all = Vec::new();
    match field.scale {
        Scale::Homes => {
            all.extend(
                [(Home::Device, "On the GPU"), (Home::Host, "In host memory"), (Home::Moving, "Moving")]
                    .map(|(home, name)| (Look::of_home(home), name)),
            );
        }
        Scale::Log { .. } => all.push((look_of(field.scale, 0.0, palette, false), "0")),
        _ => {}
    }
    if !field.noise.is_empty() {
        let value = match field.scale {
            Scale::Ratio { .. } | Scale::Signed { .. } => 0.0,
            Scale::Linear { max } | Scale::Log { max } => max / 2.0,
            Scale::Homes => 0.0,
        };
        if field.scale != Scale::Homes {
            all.push((look_of(field.scale, value, palette, true), "Within chance"));
        }
    }
    if field.values.iter().any(|v| v.is_nan()) {
        all.push((Look::unknown(), "Not known"));
    }
    all
}

/// A bar of colours with its numbers, the noise band, and glyphs where colours are names.
pub fn legend_ui(ui: &mut Ui, field: &Field, palette: Palette) {
    ui.horizontal_wrapped(|ui| {
        ui.spacing_mut().item_spacing = vec2(10.0, 4.0);
        if field.scale != Scale::Homes {
            bar(ui, field, palette);
        }
        for (look, name) in swatches(field, palette) {
            swatch(ui, look, name);
        }
    });
}

/// The colours from first to last, with ticks below and the unit beside them.
fn bar(ui: &mut Ui, field: &Field, palette: Palette) -> Response {
    let t = Theme::of(ui.ctx());
    let font = Theme::small().resolve(ui.style());
    let ticks = ticks(field.scale);
    let unit = ui.painter().layout_no_wrap(field.unit.to_owned(), font.clone(), t.muted);
    let texts: Vec<_> = ticks.iter().map(|(_, text)| ui.painter().layout_no_wrap(text.clone(), font.clone(), t.muted)).collect();
    // Labels of the ends reach over the bar by half their width.
    let margin = texts.first().map_or(0.0, |g| g.size().x / 2.0).max(texts.last().map_or(0.0, |g| g.size().x / 2.0)).ceil();
    let beside = unit.size().x + 6.0;
    let width = (ui.available_width() - 2.0 * margin - beside).clamp(90.0, 260.0);
    let size = vec2(width + 2.0 * margin + beside, BAR + 4.0 + unit.size().y);
    let (rect, response) = ui.allocate_exact_size(size, Sense::hover());
    let name = match (ticks.first(), ticks.last()) {
        (Some((_, first)), Some((_, last))) => format!("Colours from {first} to {last} {}", field.unit),
        _ => "Colours".to_owned(),
    };
    parts::named(&response, Role::Image, &name);
    if !ui.is_rect_visible(rect) {
        return response;
    }
    let bar = Rect::from_min_size(rect.min + vec2(margin, 0.0), vec2(width, BAR));
    let colours = colours_of(field.scale, palette);
    const PIECES: u32 = 64;
    let mut mesh = Mesh::default();
    for i in 0..=PIECES {
        let at = i as f32 / PIECES as f32;
        let (x, colour) = (bar.left() + bar.width() * at, sample(colours, at));
        mesh.colored_vertex(pos2(x, bar.top()), colour);
        mesh.colored_vertex(pos2(x, bar.bottom()), colour);
        if i > 0 {
            let n = 2 * i;
            mesh.add_triangle(n - 2, n - 1, n);
            mesh.add_triangle(n - 1, n, n + 1);
        }
    }
    let painter = ui.painter();
    painter.add(Drawn::mesh(mesh));
    painter.rect_stroke(bar, 0.0, Stroke::new(1.0, t.line), StrokeKind::Outside);
    let mut free = f32::NEG_INFINITY;
    for (i, ((at, _), galley)) in ticks.iter().zip(texts).enumerate() {
        let x = bar.left() + bar.width() * at;
        painter.vline(x, bar.bottom()..=bar.bottom() + 3.0, Stroke::new(1.0, t.muted));
        let left = x - galley.size().x / 2.0;
        // The ends are always written; what would touch its neighbour is not.
        let last = i + 1 == ticks.len();
        let before_last = bar.right() - margin - 4.0;
        if left > free && (last || left + galley.size().x < before_last) {
            free = left + galley.size().x + 3.0;
            painter.galley(pos2(left, bar.bottom() + 4.0), galley, t.muted);
        }
    }
    painter.galley(pos2(bar.right() + margin + 6.0, bar.center().y - unit.size().y / 2.0), unit, t.muted);
    response
}

/// A look with its name.
fn swatch(ui: &mut Ui, look: Look, name: &str) -> Response {
    let t = Theme::of(ui.ctx());
    let font = Theme::small().resolve(ui.style());
    let text = ui.painter().layout_no_wrap(name.to_owned(), font, t.muted);
    let size = vec2(SWATCH + 5.0 + text.size().x, text.size().y.max(SWATCH));
    let (rect, response) = ui.allocate_exact_size(size, Sense::hover());
    parts::named(&response, Role::Image, name);
    if ui.is_rect_visible(rect) {
        let at = Rect::from_center_size(pos2(rect.left() + SWATCH / 2.0, rect.center().y), Vec2::splat(SWATCH));
        look_ui(ui.painter(), at, &look);
        ui.painter().rect_stroke(at, 0.0, Stroke::new(1.0, t.line), StrokeKind::Outside);
        let place = pos2(rect.left() + SWATCH + 5.0, rect.center().y);
        let origin: Pos2 = Align2::LEFT_CENTER.anchor_size(place, text.size()).min;
        ui.painter().galley(origin, text, t.muted);
    }
    response
}

/// A cell of that look, large.
fn look_ui(painter: &egui::Painter, at: Rect, look: &Look) {
    let mut mesh = Mesh::default();
    mesh.add_colored_rect(at, look.fill);
    let quarter = at.size() / 4.0;
    for (u, v) in (0..16).map(|i| (i % 4, i / 4)).filter(|(u, v)| look.pattern.second(*u, *v)) {
        let place = Rect::from_min_size(at.min + vec2(u as f32 * quarter.x, v as f32 * quarter.y), quarter);
        let colour: Color32 = look.second;
        mesh.add_colored_rect(place, colour);
    }
    painter.add(Drawn::mesh(mesh));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_in_order() {
        let texts = |scale| ticks(scale).into_iter().map(|(_, text)| text).collect::<Vec<_>>();
        assert_eq!(texts(Scale::Ratio { octaves: 3.0 }), ["1/8", "1/4", "1/2", "1", "2", "4", "8"]);
        assert_eq!(texts(Scale::Log { max: 4000.0 }), ["1", "10", "100", "1000", "4000"]);
        assert_eq!(texts(Scale::Log { max: 1500.0 }), ["1", "10", "100", "1500"]);
        assert_eq!(texts(Scale::Linear { max: 0.5 }), ["0", "0.25", "0.50"]);
        assert_eq!(texts(Scale::Signed { max: 0.02 }), ["−0.02", "0", "0.02"]);
        assert_eq!(texts(Scale::Log { max: 0.0 }), ["1"]);
        for scale in [Scale::Ratio { octaves: 3.0 }, Scale::Ratio { octaves: 9.0 }, Scale::Log { max: 2e6 }] {
            let all = ticks(scale);
            assert!(all.windows(2).all(|w| w[0].0 < w[1].0) && all.iter().all(|(at, _)| (0.0..=1.0).contains(at)));
        }
        assert_eq!([number(12_345.0), number(2.5e6), number(3.0), number(0.001)], ["12.3k", "2.5M", "3", "1.0e-3"]);
    }
}
