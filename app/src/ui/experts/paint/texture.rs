//! The cells as a texture, for graphics interfaces whose fragment shaders read no buffers.

use egui::{Color32, ColorImage, Context, Mesh, Painter, Pos2, Rect, Shape as Drawn, TextureHandle, TextureOptions, pos2, vec2};

use super::super::{
    colours::{Pattern, look_of},
    grid::layout::{Kind, Layout, NUDGE},
};
use crate::{
    activity::{Field, Scale},
    settings::Palette,
};

/// What the texture was made from.
#[derive(Clone, Copy, PartialEq)]
struct Key {
    revision: u64,
    palette: Palette,
    size: [usize; 2],
}

/// The cells as a texture: a texel each, or 4 x 4 where cells have patterns.
#[derive(Default)]
pub struct CellsTexture {
    kept: Option<(TextureHandle, Key)>,
}

impl std::fmt::Debug for CellsTexture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CellsTexture").field("made", &self.kept.is_some()).finish()
    }
}

/// The cells of a field as an image; `fine`: with 4 x 4 texels each, for patterns.
pub fn image(field: &Field, palette: Palette, fine: bool) -> ColorImage {
    let each = if fine { 4 } else { 1 };
    let (width, height) = (field.columns * each, field.rows * each);
    let mut pixels = vec![Color32::TRANSPARENT; width * height];
    let cells = pixels.chunks_mut((width * each).max(1)).enumerate();
    for (row, lines) in cells {
        for expert in 0..field.columns {
            let index = row * field.columns + expert;
            let value = field.values.get(index).copied().unwrap_or(f32::NAN);
            let look = look_of(field.scale, value, palette, field.noise.get(index).copied().unwrap_or_default());
            for (v, line) in lines.chunks_mut(width).enumerate() {
                let place = expert * each;
                if look.pattern == Pattern::Solid || !fine {
                    line[place..place + each].fill(look.fill);
                } else {
                    for (u, pixel) in line[place..place + each].iter_mut().enumerate() {
                        *pixel = look.at(u as u32, v as u32);
                    }
                }
            }
        }
    }
    ColorImage::new([width, height], pixels)
}

impl CellsTexture {
    /// Makes it anew where the field has changed.
    fn update(&mut self, ctx: &Context, field: &Field, palette: Palette) -> TextureHandle {
        let key = Key { revision: field.revision, palette, size: [field.columns, field.rows] };
        if let Some((handle, held)) = &mut self.kept {
            if *held != key {
                handle.set(Self::make(ctx, field, palette), TextureOptions::NEAREST);
                *held = key;
            }
            return handle.clone();
        }
        let handle = ctx.load_texture("grid of experts", Self::make(ctx, field, palette), TextureOptions::NEAREST);
        self.kept = Some((handle.clone(), key));
        handle
    }

    fn make(ctx: &Context, field: &Field, palette: Palette) -> ColorImage {
        let unknown = || field.values.len() < field.rows * field.columns || field.values.iter().any(|v| v.is_nan());
        let fits = 4 * field.columns.max(field.rows) <= ctx.input(|i| i.max_texture_side);
        image(field, palette, fits && (field.scale == Scale::Homes || unknown()))
    }

    /// Draws the cells from `origin` on (in points, at a whole pixel), moved by `offset` pixels. `single`: the colours of dense
    /// layers, shared experts and borders between cells.
    #[expect(clippy::too_many_arguments, reason = "each is one thing that may change on its own")]
    pub fn draw(
        &mut self,
        painter: &Painter,
        field: &Field,
        palette: Palette,
        layout: &Layout,
        origin: Pos2,
        offset: [i32; 2],
        single: [Color32; 3],
    ) {
        let scale = painter.pixels_per_point();
        let rect = |x: (i32, i32), y: (i32, i32)| {
            let at = |x: i32, y: i32| origin + vec2((x - offset[0]) as f32, (y - offset[1]) as f32) / scale;
            Rect::from_min_max(at(x.0, y.0), at(x.0 + x.1, y.0 + y.1))
        };
        let texture = self.update(painter.ctx(), field, palette);
        let mut cells = Mesh::with_texture(texture.id());
        let mut plain = Mesh::default();
        for y in &layout.y.segments {
            for x in &layout.x.segments {
                let at = rect((x.start, x.length), (y.start, y.length));
                match (x.kind, y.kind) {
                    (Kind::Cells, Kind::Cells) => {
                        let part = |first: usize, all: usize| (first as f32 + NUDGE) / all.max(1) as f32;
                        let uv = Rect::from_min_max(
                            pos2(part(x.first, field.columns), part(y.first, field.rows)),
                            pos2(part(x.first + x.count, field.columns), part(y.first + y.count, field.rows)),
                        );
                        cells.add_rect_with_uv(at, uv, Color32::WHITE);
                    }
                    (Kind::Cells, Kind::Thin) => plain.add_colored_rect(at, single[0]),
                    (Kind::Thin, Kind::Cells) => plain.add_colored_rect(at, single[1]),
                    (Kind::Thin, Kind::Thin) => {}
                }
            }
        }
        let clip = painter.clip_rect();
        for (across, axis) in [(false, &layout.x), (true, &layout.y)] {
            if axis.border == 0 {
                continue;
            }
            let other = if across { &layout.x } else { &layout.y };
            for segment in axis.segments.iter().filter(|s| s.kind == Kind::Cells) {
                for index in segment.first..segment.first + segment.count {
                    let Some((start, length)) = axis.span(Kind::Cells, index) else { continue };
                    let border = (start + length, axis.border);
                    // A dense layer is one bar: borders between columns leave it out.
                    for run in other.segments.iter().filter(|s| across || s.kind == Kind::Cells) {
                        let run = (run.start, run.length);
                        let at = if across { rect(run, border) } else { rect(border, run) };
                        if at.intersects(clip) {
                            plain.add_colored_rect(at, single[2]);
                        }
                    }
                }
            }
        }
        painter.add(Drawn::mesh(cells));
        painter.add(Drawn::mesh(plain));
    }
}
