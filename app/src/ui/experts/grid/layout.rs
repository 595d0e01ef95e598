//! Where cells are: from pixels to cells and back. The shader, the texture, the pointer and the picture all ask here.

use crate::activity::{Shape, shape::LayerKind};

/// What is at a pixel along one axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Cells: rows of mixture layers, columns of routed experts.
    Cells,
    /// Thin: rows of dense layers (by the model's layer), the column of shared experts.
    Thin,
}

/// A pixel along one axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// What is there.
    pub kind: Kind,
    /// The row or column; of thin rows the model's layer.
    pub index: usize,
    /// Which quarter of the cell.
    pub quarter: u32,
    /// Between this cell and the next one.
    pub border: bool,
}

/// A pixel whose centre is on an edge belongs to what follows: this much of a cell to the right of it decides, so that rounding
/// does not.
pub const NUDGE: f32 = 0.0025;

/// Neighbours without a separator between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// What they are.
    pub kind: Kind,
    /// The first pixel.
    pub start: i32,
    /// Pixels.
    pub length: i32,
    /// The first row or column.
    pub first: usize,
    /// Rows or columns.
    pub count: usize,
}

impl Segment {
    /// Where cell `n` of the segment begins: the first pixel whose centre is in it.
    fn edge(&self, n: usize) -> i32 {
        if n == 0 || n >= self.count {
            return self.start + if n == 0 { 0 } else { self.length };
        }
        let exact = (n as f32 - NUDGE) * self.length as f32 / self.count.max(1) as f32;
        self.start + (exact - 0.5).ceil() as i32
    }

    fn cell(&self) -> f32 {
        self.length as f32 / self.count.max(1) as f32
    }
}

/// Rows, or columns, in pixels.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Axis {
    /// From the first pixel on.
    pub segments: Vec<Segment>,
    /// All pixels.
    pub length: i32,
    /// Pixels between neighbouring cells.
    pub border: i32,
}

impl Axis {
    /// Of runs of cells and of thin things, given as kind, first and count. `cell` and `thin` in pixels, and the pixels of a
    /// separator, all of them at least 1.
    pub fn new(runs: &[(Kind, usize, usize)], cell: f32, thin: f32, separator: i32, border: i32) -> Self {
        let mut axis = Self { segments: Vec::with_capacity(runs.len()), length: 0, border: 0 };
        // Cells of less than four pixels have none to spare.
        axis.border = if cell >= (4 * border.max(1)) as f32 { border.max(1) } else { 0 };
        for &(kind, first, count) in runs {
            if axis.length > 0 {
                axis.length += separator;
            }
            let each = if kind == Kind::Cells { cell } else { thin };
            let length = ((each * count as f32).round() as i32).max(1);
            axis.segments.push(Segment { kind, start: axis.length, length, first, count });
            axis.length += length;
        }
        axis
    }

    /// What is at a pixel; `None`: a separator, or outside.
    pub fn at(&self, pixel: i32) -> Option<Place> {
        let segment = self.segments.iter().find(|s| pixel >= s.start && pixel < s.start + s.length)?;
        // The centre of the pixel decides, as it does for a texture that is not filtered.
        let exact = ((pixel - segment.start) as f32 + 0.5) * segment.count as f32 / segment.length as f32 + NUDGE;
        let n = (exact as usize).min(segment.count - 1);
        let quarter = (((exact - n as f32) * 4.0) as u32).min(3);
        let border = segment.kind == Kind::Cells && pixel >= segment.edge(n + 1) - self.border;
        Some(Place { kind: segment.kind, index: segment.first + n, quarter, border })
    }

    /// First pixel and number of pixels of a cell, without its border.
    pub fn span(&self, kind: Kind, index: usize) -> Option<(i32, i32)> {
        let segment = self.segments.iter().find(|s| s.kind == kind && index >= s.first && index < s.first + s.count)?;
        let n = index - segment.first;
        let border = if kind == Kind::Cells { self.border } else { 0 };
        let start = segment.edge(n);
        Some((start, (segment.edge(n + 1) - start - border).max(1)))
    }

    /// Pixels of a cell, on average.
    pub fn cell(&self) -> f32 {
        self.segments.iter().find(|s| s.kind == Kind::Cells).map_or(0.0, Segment::cell)
    }

    /// The entries of `count` pixels from `offset` on, as the shader reads them: index in the lowest 16 bits, quarter of the
    /// cell in two more, then whether it is cells, whether it is thin, and whether it is a border.
    pub fn lookup(&self, offset: i32, count: usize, out: &mut Vec<u32>) {
        out.extend((0..count as i32).map(|pixel| match self.at(pixel + offset) {
            None => 0,
            Some(place) => {
                let kind = if place.kind == Kind::Cells { 1 << 18 } else { 1 << 19 };
                (place.index as u32 & 0xffff) | (place.quarter << 16) | kind | (u32::from(place.border) << 20)
            }
        }));
    }
}

/// Runs of columns: groups of experts, then the column of shared ones.
pub fn columns(shape: &Shape) -> Vec<(Kind, usize, usize)> {
    let mut runs: Vec<(Kind, usize, usize)> = Vec::new();
    let mut group = usize::MAX;
    for expert in 0..shape.experts {
        let this = shape.group_of(expert);
        match runs.last_mut() {
            Some((_, _, count)) if this == group => *count += 1,
            _ => runs.push((Kind::Cells, expert, 1)),
        }
        group = this;
    }
    if shape.shared > 0 && !runs.is_empty() {
        runs.push((Kind::Thin, 0, 1));
    }
    runs
}

/// Runs of rows: mixture layers by their row, dense ones by the model's layer.
pub fn rows(shape: &Shape) -> Vec<(Kind, usize, usize)> {
    let mut runs: Vec<(Kind, usize, usize)> = Vec::new();
    for (layer, what) in shape.layers.iter().enumerate() {
        let (kind, index) = match *what {
            LayerKind::Dense => (Kind::Thin, layer),
            LayerKind::Mixture(row) => (Kind::Cells, row),
        };
        match runs.last_mut() {
            Some((last, first, count)) if *last == kind && *first + *count == index => *count += 1,
            _ => runs.push((kind, index, 1)),
        }
    }
    runs
}

/// What a layout was made for, and what it is made again for.
#[derive(Clone, Debug, PartialEq)]
struct Key {
    layers: Vec<LayerKind>,
    experts: usize,
    groups: usize,
    shared: usize,
    room: [i32; 2],
    scale: f32,
    zoom: f32,
}

/// Where every cell is, in pixels of the screen from the upper left corner of all of them.
#[derive(Clone, Debug, Default)]
pub struct Layout {
    /// Columns.
    pub x: Axis,
    /// Rows.
    pub y: Axis,
    /// Pixels that are seen of it.
    pub view: [i32; 2],
    /// The largest zoom.
    pub max_zoom: f32,
    key: Option<Key>,
    number: u64,
}

/// Pixels of the smallest cell.
const SMALLEST: f32 = 2.0;
/// Points of the largest cell before it is zoomed.
const LARGEST: [f32; 2] = [30.0, 24.0];
/// Points of the largest cell there is.
const ZOOMED: f32 = 56.0;

impl Layout {
    /// Makes it anew where something has changed. `room` in pixels; `scale`: pixels of a point.
    pub fn update(&mut self, shape: &Shape, room: [i32; 2], scale: f32, zoom: f32) -> bool {
        let same = self.key.as_ref().is_some_and(|k| {
            k.room == room
                && k.scale == scale
                && k.zoom == zoom
                && k.layers == shape.layers
                && (k.experts, k.groups, k.shared) == (shape.experts, shape.groups, shape.shared)
        });
        if same {
            return false;
        }
        let (columns, rows) = (columns(shape), rows(shape));
        let border = scale.floor().max(1.0) as i32;
        let separator = |cell: f32| if cell < 5.0 * scale { 2 * border } else { 4 * border };
        let thin = [(7.0 * scale).round(), (3.0 * scale).round()];

        // Cells fill the room, in whole pixels where that leaves little of it empty.
        let fit = |room: i32, runs: &[(Kind, usize, usize)], thin: f32, largest: f32| {
            let count = |kind| runs.iter().filter(|r| r.0 == kind).map(|r| r.2).sum::<usize>() as f32;
            let cells = count(Kind::Cells).max(1.0);
            let rest = |gap: i32| room as f32 - count(Kind::Thin) * thin - (gap * (runs.len() as i32 - 1).max(0)) as f32;
            let gap = separator(rest(0) / cells);
            let exact = (rest(gap) / cells).clamp(SMALLEST, largest.max(SMALLEST));
            let whole = exact.floor();
            if whole >= exact * 0.9 { whole } else { exact }
        };
        let mut cell = [fit(room[0], &columns, thin[0], LARGEST[0] * scale), fit(room[1], &rows, thin[1], LARGEST[1] * scale)];
        // Rows much taller than columns are wide look like columns.
        cell[1] = cell[1].min((2.5 * cell[0]).max(8.0 * scale).floor());
        let make = |zoom: f32| {
            (
                Axis::new(&columns, cell[0] * zoom, thin[0], separator(cell[0]), border),
                Axis::new(&rows, cell[1] * zoom, thin[1], separator(cell[1]), border),
            )
        };
        let (x, y) = make(1.0);
        self.view = [x.length.min(room[0]).max(1), y.length.min(room[1]).max(1)];
        self.max_zoom = (ZOOMED * scale / cell[0].min(cell[1])).max(1.0);
        (self.x, self.y) = if zoom == 1.0 { (x, y) } else { make(zoom) };
        self.number += 1;
        self.key = Some(Key {
            layers: shape.layers.clone(),
            experts: shape.experts,
            groups: shape.groups,
            shared: shape.shared,
            room,
            scale,
            zoom,
        });
        true
    }

    /// The same with another zoom.
    pub fn zoom_to(&mut self, shape: &Shape, zoom: f32) {
        if let Some((room, scale)) = self.key.as_ref().map(|k| (k.room, k.scale)) {
            self.update(shape, room, scale, zoom);
        }
    }

    /// Differs between layouts that differ.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// How far it can be moved, in pixels.
    pub fn slack(&self) -> [f32; 2] {
        [(self.x.length - self.view[0]).max(0) as f32, (self.y.length - self.view[1]).max(0) as f32]
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

    use super::*;

    fn shape(dense: usize, rows: usize, experts: usize, groups: usize, shared: usize) -> Shape {
        super::super::tests::shape(dense, rows, experts, groups, shared)
    }

    #[test]
    fn every_cell_is_found_where_it_is() {
        for (dense, rows, experts, groups, shared) in [(3, 58, 256, 8, 1), (1, 5, 64, 1, 2), (0, 1, 7, 3, 0), (1, 26, 160, 8, 2)]
        {
            let shape = shape(dense, rows, experts, groups, shared);
            for (room, scale, zoom) in
                [([1000, 400], 1.0, 1.0), ([330, 200], 1.0, 1.0), ([1933, 977], 2.0, 3.7), ([700, 300], 1.5, 1.0)]
            {
                let mut layout = Layout::default();
                assert!(layout.update(&shape, room, scale, zoom) && !layout.update(&shape, room, scale, zoom));
                for (axis, count) in [(&layout.x, experts), (&layout.y, rows)] {
                    let mut end = 0;
                    for index in 0..count {
                        let (start, length) = axis.span(Kind::Cells, index).unwrap();
                        assert!(start >= end && length >= 1);
                        end = start + length;
                        for pixel in start..end {
                            let place = axis.at(pixel).unwrap();
                            assert_eq!((place.kind, place.index, place.border), (Kind::Cells, index, false));
                        }
                    }
                    assert!(end <= axis.length && axis.at(axis.length).is_none() && axis.at(-1).is_none());
                    assert!(axis.cell() >= SMALLEST - 0.01);
                }
                assert!(layout.view[0] <= room[0] && layout.view[1] <= room[1]);
            }
        }
    }

    #[test]
    fn separators_dense_rows_and_shared_experts_are_there() {
        let mut layout = Layout::default();
        layout.update(&shape(3, 58, 256, 8, 1), [1100, 500], 1.0, 1.0);
        assert_eq!(layout.x.segments.iter().map(|s| s.count).collect::<Vec<_>>(), [32, 32, 32, 32, 32, 32, 32, 32, 1]);
        assert_eq!(layout.y.segments.iter().map(|s| (s.kind, s.count)).collect::<Vec<_>>(), [(Kind::Thin, 3), (Kind::Cells, 58)]);
        let first = layout.x.segments[0];
        assert!(layout.x.at(first.start + first.length).is_none());
        assert!(layout.x.length <= 1100 && layout.x.length > 900, "{}", layout.x.length);
        let mut entries = Vec::new();
        layout.x.lookup(0, layout.x.length as usize, &mut entries);
        assert_eq!(entries.iter().filter(|e| **e == 0).count(), 8 * 2);
        assert_eq!(entries[0], 1 << 18);
    }
}
