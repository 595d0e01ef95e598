//! Tables in Markdown, whose columns are aligned as they say. The viewer of Markdown has tables too, but all to the left.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use egui::{Align, Frame, Id, Rect, ScrollArea, Sense, Shape, Stroke, TextStyle, Ui, UiBuilder, Vec2, pos2, vec2};

use super::super::{Theme, theme};

/// Space around what a cell holds.
const PAD: Vec2 = vec2(10.0, 4.0);
/// Widest cell, in points at the usual size of text: longer ones have several lines.
const WIDEST: f32 = 360.0;

/// A table: how its columns are aligned, and the Markdown of each cell, the head first.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Table {
    columns: Vec<Align>,
    rows: Vec<Vec<String>>,
}

/// The cells of a line: what is between the bars, but for those that are escaped.
fn cells(line: &str) -> Vec<String> {
    let line = line.trim();
    let line = line.strip_prefix('|').unwrap_or(line);
    let (mut cells, mut cell, mut escaped) = (Vec::new(), String::new(), false);
    for c in line.chars() {
        match c {
            '|' if escaped => {
                // The bar alone is part of the cell.
                cell.pop();
                cell.push('|');
            }
            '|' => cells.push(std::mem::take(&mut cell).trim().to_owned()),
            c => cell.push(c),
        }
        escaped = c == '\\' && !escaped;
    }
    if !cell.trim().is_empty() {
        cells.push(cell.trim().to_owned());
    }
    cells
}

/// How a column is aligned, by its cell in the second line; `None`: that is no such line.
fn alignment(cell: &str) -> Option<Align> {
    let dashes = cell.trim_start_matches(':').trim_end_matches(':');
    if dashes.is_empty() || !dashes.bytes().all(|b| b == b'-') || cell.len() - dashes.len() > 2 {
        return None;
    }
    Some(match (cell.starts_with(':'), cell.ends_with(':')) {
        (true, true) => Align::Center,
        (false, true) => Align::Max,
        _ => Align::Min,
    })
}

impl Table {
    /// The table that a block of Markdown is; `None`: it is something else.
    pub fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines().filter(|l| !l.trim().is_empty());
        let head = cells(lines.next().filter(|l| l.contains('|'))?);
        let columns: Vec<Align> = cells(lines.next()?).iter().map(|c| alignment(c)).collect::<Option<_>>()?;
        if columns.is_empty() || columns.len() != head.len() {
            return None;
        }
        let whole = |mut row: Vec<String>| {
            row.resize(columns.len(), String::new());
            row
        };
        let rows = std::iter::once(head).chain(lines.map(|l| whole(cells(l)))).collect();
        Some(Self { columns, rows })
    }

    /// Draws it; `cell` draws the Markdown of a cell.
    pub fn ui(&self, ui: &mut Ui, cell: &mut dyn FnMut(&mut Ui, &str)) {
        let t = Theme::of(ui.ctx());
        let mut hasher = DefaultHasher::new();
        let size = TextStyle::Body.resolve(ui.style()).size;
        (&self.rows, size.to_bits()).hash(&mut hasher);
        let id = ui.unique_id().with("table");
        Frame::new().stroke(Stroke::new(1.0, t.line)).corner_radius(theme::ROUND_SMALL).show(ui, |ui| {
            ScrollArea::horizontal().id_salt("table").auto_shrink([true, true]).show(ui, |ui| {
                self.grid_ui(ui, id, hasher.finish(), WIDEST * size / theme::BODY, cell);
            });
        });
    }

    /// Cells are as wide as they turned out to be in the last frame; one in which that was not known is not shown.
    fn grid_ui(&self, ui: &mut Ui, id: Id, key: u64, widest: f32, cell: &mut dyn FnMut(&mut Ui, &str)) {
        let t = Theme::of(ui.ctx());
        let count = self.columns.len();
        let kept: Option<(u64, Vec<f32>)> = ui.data(|d| d.get_temp(id));
        let known = kept.filter(|(k, w)| *k == key && w.len() == count * self.rows.len()).map(|(_, w)| w);
        let width_of = |row: usize, column: usize| known.as_ref().and_then(|w| w.get(row * count + column)).copied();
        let room = |column| (0..self.rows.len()).filter_map(|row| width_of(row, column)).fold(0.0, f32::max);
        let columns: Vec<f32> = (0..count).map(|c| if known.is_some() { room(c) } else { widest }).collect();
        let whole: f32 = columns.iter().map(|w| w + 2.0 * PAD.x).sum();
        let mut widths = Vec::with_capacity(count * self.rows.len());
        ui.spacing_mut().item_spacing.y = 0.0;
        let line = ui.text_style_height(&TextStyle::Body);
        for (nth, row) in self.rows.iter().enumerate() {
            let origin = ui.cursor().min;
            let ground = ui.painter().add(Shape::Noop);
            let (mut x, mut height) = (origin.x, line);
            for (column, text) in row.iter().enumerate() {
                let room = columns.get(column).copied().unwrap_or(widest);
                let own = width_of(nth, column).unwrap_or(room).min(room);
                let spare = match self.columns.get(column) {
                    Some(Align::Max) => room - own,
                    Some(Align::Center) => (room - own) / 2.0,
                    _ => 0.0,
                };
                let from = pos2(x + PAD.x + spare, origin.y + PAD.y);
                // A hair more than it takes: what just fits must not be broken.
                let rect = Rect::from_min_size(from, vec2(if known.is_some() { own + 1.0 } else { widest }, f32::INFINITY));
                let mut child = ui.new_child(UiBuilder::new().id_salt((nth, column)).max_rect(rect));
                let bold = nth == 0 && !text.is_empty() && !text.contains(['*', '_', '`', '$']);
                let strong = if bold { format!("**{text}**") } else { text.clone() };
                cell(&mut child, &strong);
                let drawn = child.min_rect();
                height = height.max(drawn.height());
                // What is not shown yet is as wide as it wants to be; later it is what it was given.
                widths.push(width_of(nth, column).unwrap_or(drawn.width()));
                x += room + 2.0 * PAD.x;
            }
            let rect = Rect::from_min_size(origin, vec2(whole, height + 2.0 * PAD.y));
            ui.allocate_rect(rect, Sense::hover());
            if nth == 0 {
                ui.painter().set(ground, Shape::rect_filled(rect, 0, t.raised));
                ui.painter().hline(rect.x_range(), rect.bottom(), Stroke::new(1.0, t.line));
            } else if nth % 2 == 0 {
                ui.painter().set(ground, Shape::rect_filled(rect, 0, ui.visuals().faint_bg_color));
            }
        }
        if known.is_none() {
            ui.data_mut(|d| d.insert_temp(id, (key, widths)));
            ui.ctx().request_discard("columns of a table have other widths");
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

    use egui::Label;
    use egui_kittest::{Harness, kittest::Queryable as _};

    use super::*;

    #[test]
    fn tables_are_told_from_other_text() {
        let table = Table::parse("| Layer | Hits |\n|:-:|---:|\n| 1 | 2 \\| 3 |\n| 4\n").unwrap();
        assert_eq!(table.columns, [Align::Center, Align::Max]);
        assert_eq!(table.rows, [["Layer", "Hits"], ["1", "2 | 3"], ["4", ""]]);
        assert_eq!(Table::parse("a | b\n-|:-\nc | d | e").unwrap().rows, [["a", "b"], ["c", "d"]]);
        for text in ["a | b", "a | b\nc | d", "a | b\n---", "| a |\n| :::- |", "", "|\n|", "a\n-"] {
            assert_eq!(Table::parse(text), None, "{text}");
        }
    }

    #[test]
    fn columns_are_aligned_as_they_say() {
        let table = Table::parse("| Name | Long head |\n|:--|--:|\n| a longer name | 7 |\n| b | 12345 |").unwrap();
        let mut h = Harness::builder().with_size(vec2(500.0, 200.0)).build_ui(move |ui| {
            table.ui(ui, &mut |ui, text| {
                ui.add(Label::new(text.trim_matches('*')).wrap());
            });
        });
        h.run();
        let rect = |text: &str| h.get_by_label(text).rect();
        let (head, seven, many) = (rect("Long head"), rect("7"), rect("12345"));
        assert!((seven.right() - many.right()).abs() < 1.0 && (head.right() - many.right()).abs() < 1.0, "{head} {seven} {many}");
        assert!((rect("b").left() - rect("Name").left()).abs() < 0.5 && seven.left() > head.left() + 10.0);
        // The head stands clear of the frame, and rows of each other.
        assert!(rect("Name").left() >= PAD.x && rect("Name").top() >= PAD.y && rect("b").top() > rect("a longer name").bottom());
    }
}
