//! The grid as a PNG, with its legend and what it shows.

mod font;

use egui::Color32;

use super::{
    colours::{INK, INK_MUTED, Look, PAPER, colours_of, look_of, sample},
    grid::layout::{Axis, Kind, columns, rows},
    legend::{swatches, ticks},
};
use crate::{
    activity::{Field, Scale, Shape},
    settings::Palette,
};

/// Pixels around everything.
const MARGIN: usize = 16;
/// Pixels from a line of text to the next.
const LINE: usize = 14;
/// Pixels of the legend's bar.
const BAR: [usize; 2] = [256, 12];
/// Pixels that the cells are wide, about.
const WIDTH: usize = 1280;
/// Longest side that is drawn, in pixels.
const LONGEST: usize = 16_384;

/// Pixels, and how to draw on them. What lies outside is not drawn.
struct Canvas {
    width: usize,
    height: usize,
    /// Red, green and blue of each pixel.
    pixels: Vec<u8>,
}

impl Canvas {
    fn new(width: usize, height: usize) -> Self {
        let [r, g, b, _] = PAPER.to_array();
        Self { width, height, pixels: [r, g, b].repeat(width * height) }
    }

    fn set(&mut self, x: usize, y: usize, colour: Color32) {
        if x < self.width && y < self.height {
            let at = 3 * (y * self.width + x);
            if let Some(pixel) = self.pixels.get_mut(at..at + 3) {
                pixel.copy_from_slice(&colour.to_array()[..3]);
            }
        }
    }

    fn fill(&mut self, (x, y): (usize, usize), (width, height): (usize, usize), colour: Color32) {
        for down in y..y + height {
            for across in x..x + width {
                self.set(across, down, colour);
            }
        }
    }

    /// Writes a text from its upper left corner on, each pixel of a letter `size` pixels large. Gives its width.
    fn text(&mut self, (x, y): (usize, usize), text: &str, size: usize, colour: Color32) -> usize {
        for (n, character) in text.chars().enumerate() {
            for (down, row) in font::glyph(character).iter().enumerate() {
                for across in (0..5).filter(|across| (row >> (4 - across)) & 1 == 1) {
                    let at = (x + (n * font::ADVANCE + across) * size, y + down * size);
                    self.fill(at, (size, size), colour);
                }
            }
        }
        font::width(text) * size
    }

    fn look(&mut self, (x, y): (usize, usize), (width, height): (usize, usize), look: &Look) {
        for down in 0..height {
            for across in 0..width {
                let (u, v) = (4 * across / width.max(1), 4 * down / height.max(1));
                self.set(x + across, y + down, look.at(u as u32, v as u32));
            }
        }
    }
}

/// Cuts a text that is wider than a line.
fn fitting(text: &str, width: usize, size: usize) -> String {
    let most = width / (font::ADVANCE * size).max(1);
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most.saturating_sub(3)).chain("...".chars()).collect()
}

/// The picture, as the bytes of a PNG file. `title` and `lines` are written above the grid.
///
/// # Errors
/// In words, where it cannot be encoded.
pub fn png(shape: &Shape, field: &Field, palette: Palette, title: &str, lines: &[String]) -> Result<Vec<u8>, String> {
    if shape.cells() == 0 {
        return Err("This model has no experts to draw".into());
    }
    // Whole pixels for every cell, at least four so that patterns are seen.
    let cell = (WIDTH / shape.experts).clamp(4, 20);
    let tall = (cell * 3 / 2).clamp(8, 20);
    let x = Axis::new(&columns(shape), cell as f32, 10.0, 4, 1);
    let y = Axis::new(&rows(shape), tall as f32, 4.0, 4, 1);
    let (grid_width, grid_height) = (x.length.max(1) as usize, y.length.max(1) as usize);

    let long = format!("Layer {}", shape.layers.len().saturating_sub(1));
    let left = MARGIN + font::width(&long) + 6;
    let heading = MARGIN + 2 * font::HEIGHT + 8 + lines.len() * LINE + 8;
    let top = heading + LINE;
    let needed = [left + grid_width + MARGIN, left + 420, MARGIN + 2 * font::width(title).min(600) + MARGIN];
    let width = needed.into_iter().max().unwrap_or_default();
    let height = top + grid_height + 12 + BAR[1] + 4 + LINE + LINE + MARGIN;
    if width > LONGEST || height > LONGEST {
        return Err(format!("{} x {} cells are too many for a picture", shape.rows.len(), shape.experts));
    }
    let mut canvas = Canvas::new(width, height);
    let room = width - 2 * MARGIN;
    canvas.text((MARGIN, MARGIN), &fitting(title, room, 2), 2, INK);
    for (n, line) in lines.iter().enumerate() {
        canvas.text((MARGIN, MARGIN + 2 * font::HEIGHT + 8 + n * LINE), &fitting(line, room, 1), 1, INK_MUTED);
    }
    cells(&mut canvas, field, palette, (left, top), (&x, &y));
    axes(&mut canvas, shape, (left, top), (&x, &y));
    legend(&mut canvas, field, palette, (left, top + grid_height + 12));
    encode(&canvas, title, lines)
}

/// Cells, dense layers and shared experts.
fn cells(canvas: &mut Canvas, field: &Field, palette: Palette, (left, top): (usize, usize), (x, y): (&Axis, &Axis)) {
    let across: Vec<_> = (0..x.length).map(|pixel| x.at(pixel)).collect();
    for pixel in 0..y.length {
        let Some(down) = y.at(pixel) else { continue };
        for (right, place) in across.iter().enumerate() {
            let Some(place) = place else { continue };
            // A dense layer is one bar: borders between columns leave it out.
            if down.border || place.border && down.kind == Kind::Cells {
                continue;
            }
            let colour = match (place.kind, down.kind) {
                (Kind::Cells, Kind::Cells) => {
                    let index = down.index * field.columns + place.index;
                    let value = field.values.get(index).copied().unwrap_or(f32::NAN);
                    let noise = field.noise.get(index).copied().unwrap_or_default();
                    look_of(field.scale, value, palette, noise).at(place.quarter, down.quarter)
                }
                (Kind::Cells, Kind::Thin) | (Kind::Thin, Kind::Cells) => INK_MUTED,
                (Kind::Thin, Kind::Thin) => continue,
            };
            canvas.set(left + right, top + pixel as usize, colour);
        }
    }
}

/// Numbers of layers and experts.
fn axes(canvas: &mut Canvas, shape: &Shape, (left, top): (usize, usize), (x, y): (&Axis, &Axis)) {
    let step = [1, 2, 4, 8].into_iter().find(|step| y.cell() * *step as f32 >= 12.0).unwrap_or(16);
    for (row, layer) in shape.rows.iter().enumerate().filter(|(_, layer)| layer.is_multiple_of(step)) {
        let Some((start, length)) = y.span(Kind::Cells, row) else { continue };
        let text = format!("Layer {layer}");
        let at = top + (start + length / 2).max(3) as usize - 3;
        canvas.text((left.saturating_sub(font::width(&text) + 6), at), &text, 1, INK_MUTED);
    }
    let step = [1, 2, 4, 8, 16, 32, 64].into_iter().find(|step| x.cell() * *step as f32 >= 30.0).unwrap_or(128);
    for expert in (0..shape.experts).step_by(step) {
        let Some((start, length)) = x.span(Kind::Cells, expert) else { continue };
        let text = expert.to_string();
        let middle = left + (start + length / 2).max(0) as usize;
        canvas.text((middle.saturating_sub(font::width(&text) / 2), top - LINE + 3), &text, 1, INK_MUTED);
    }
    if shape.shared > 0
        && let Some((start, _)) = x.span(Kind::Thin, 0)
    {
        canvas.text((left + start as usize - 1, top - LINE + 3), "S", 1, INK_MUTED);
    }
}

/// The bar with its numbers, and swatches.
fn legend(canvas: &mut Canvas, field: &Field, palette: Palette, (left, top): (usize, usize)) {
    let mut at = left;
    if field.scale != Scale::Homes {
        let colours = colours_of(field.scale, palette);
        for i in 0..BAR[0] {
            canvas.fill((left + i, top), (1, BAR[1]), sample(colours, i as f32 / (BAR[0] - 1) as f32));
        }
        for (place, text) in ticks(field.scale) {
            let x = left + (place * (BAR[0] - 1) as f32).round() as usize;
            canvas.fill((x, top + BAR[1]), (1, 3), INK_MUTED);
            canvas.text((x.saturating_sub(font::width(&text) / 2), top + BAR[1] + 6), &text, 1, INK_MUTED);
        }
        at += BAR[0] + 20;
        at += canvas.text((at, top + 3), field.unit, 1, INK) + 20;
    }
    for (look, name) in swatches(field, palette) {
        // What does not fit beside the bar goes below it.
        let (mut place, wide) = ((at, top), 18 + font::width(name) + 16);
        if at + wide > canvas.width {
            place = (left, top + BAR[1] + LINE + 4);
        } else {
            at += wide;
        }
        canvas.look(place, (12, 12), &look);
        canvas.text((place.0 + 18, place.1 + 3), name, 1, INK);
    }
}

/// The file, with title and lines as text that programs can read.
fn encode(canvas: &Canvas, title: &str, lines: &[String]) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    let mut encoder = png::Encoder::new(&mut out, canvas.width as u32, canvas.height as u32);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_source_srgb(png::SrgbRenderingIntent::Perceptual);
    let words = |e: png::EncodingError| format!("The picture could not be written: {e}");
    for (keyword, text) in [("Title", title.to_owned()), ("Description", lines.join("\n")), ("Software", "Pleiad".to_owned())] {
        if !text.is_empty() {
            encoder.add_itxt_chunk(keyword.to_owned(), text).map_err(words)?;
        }
    }
    let mut writer = encoder.write_header().map_err(words)?;
    writer.write_image_data(&canvas.pixels).map_err(words)?;
    writer.finish().map_err(words)?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

    use std::sync::Arc;

    use super::*;
    use crate::activity::shape::LayerKind;

    fn shape(dense: usize, count: usize, experts: usize) -> Shape {
        Shape {
            model: "test".into(),
            layers: (0..dense).map(|_| LayerKind::Dense).chain((0..count).map(LayerKind::Mixture)).collect(),
            rows: (dense..dense + count).collect(),
            experts,
            top_k: 4,
            groups: 4,
            top_k_groups: 2,
            shared: 1,
        }
    }

    #[test]
    fn the_file_holds_cells_in_their_colours_and_its_texts() {
        let shape = shape(1, 5, 64);
        let values: Arc<[f32]> = (0..shape.cells()).map(|i| if i == 9 { f32::NAN } else { (i % 13) as f32 }).collect();
        let noise: Arc<[bool]> = (0..shape.cells()).map(|i| i % 5 == 0).collect();
        let field = Field { rows: 5, columns: 64, values, noise, scale: Scale::Linear { max: 12.0 }, unit: "uses", revision: 0 };
        let lines = ["Cumulative, 100 tokens".to_owned(), "模型 né".to_owned()];
        let bytes = png(&shape, &field, Palette::Inferno, "A grid", &lines).unwrap();
        let mut reader = png::Decoder::new(std::io::Cursor::new(&bytes)).read_info().unwrap();
        let texts: Vec<_> = reader.info().utf8_text.iter().map(|t| (t.keyword.clone(), t.get_text().unwrap())).collect();
        assert!(texts.contains(&("Title".into(), "A grid".into())));
        assert!(texts.contains(&("Description".into(), lines.join("\n"))));
        let (width, height) = (reader.info().width as usize, reader.info().height as usize);
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut pixels).unwrap();
        assert_eq!(pixels.len(), 3 * width * height);

        // Every cell has its colours where the axes say it is.
        let left = MARGIN + font::width("Layer 5") + 6;
        let top = MARGIN + 2 * font::HEIGHT + 8 + 2 * LINE + 8 + LINE;
        let (x, y) = (Axis::new(&columns(&shape), 20.0, 10.0, 4, 1), Axis::new(&rows(&shape), 20.0, 4.0, 4, 1));
        for index in 0..shape.cells() {
            let (across, down) = (x.span(Kind::Cells, index % 64).unwrap(), y.span(Kind::Cells, index / 64).unwrap());
            let look = look_of(field.scale, field.values[index], Palette::Inferno, index % 5 == 0);
            for place in [1, 9, 17] {
                let (px, py) = (across.0 + place, down.0 + place);
                let expected = look.at(x.at(px).unwrap().quarter, y.at(py).unwrap().quarter).to_array();
                let at = 3 * ((top + py as usize) * width + left + px as usize);
                assert_eq!(pixels[at..at + 3], expected[..3], "cell {index}");
            }
        }
        // The title is there, in ink.
        let ink = |rows: std::ops::Range<usize>| {
            pixels[3 * width * rows.start..3 * width * rows.end].chunks(3).filter(|p| **p == INK.to_array()[..3]).count()
        };
        assert!(ink(MARGIN..MARGIN + 16) > 100 && ink(0..MARGIN) == 0);
    }

    #[test]
    fn pictures_of_odd_shapes_are_drawn_or_refused_in_words() {
        let field = |rows: usize, columns: usize| Field {
            rows,
            columns,
            values: vec![f32::NAN; rows * columns].into(),
            noise: Arc::new([]),
            scale: Scale::Homes,
            unit: "",
            revision: 0,
        };
        assert!(png(&shape(0, 1, 1), &field(1, 1), Palette::Viridis, &"long ".repeat(200), &[]).is_ok());
        assert!(png(&shape(2, 0, 8), &field(0, 8), Palette::Viridis, "", &[]).is_err());
        assert!(png(&shape(0, 3000, 8), &field(3000, 8), Palette::Viridis, "", &[]).is_err());
        // A field of another shape is unknown where it has no numbers.
        assert!(png(&shape(0, 4, 16), &field(1, 2), Palette::Viridis, "", &[]).is_ok());
    }
}
