//! The grid as a table: the cells with the largest numbers, for those who do not see colours and for exact values.

use egui::{self, Align, Button, Layout, Rect, RichText, Role, Shape, Stroke, Ui, WidgetInfo, vec2};
use egui_extras::{Column as Width, TableBuilder};

use super::facts::{home_name, percent};
use crate::{
    activity::{Cell, Home},
    ui::{Theme, parts},
};

/// Most rows.
pub const ROWS: usize = 200;

/// A column of the table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Column {
    /// Layer of the model.
    Layer,
    /// Expert of the layer.
    Expert,
    /// What the grid shows.
    #[default]
    Value,
    /// Times that it was chosen.
    Count,
    /// Share of its layer's uses.
    Share,
    /// Mean weight where it was chosen.
    Weight,
    /// Where it is.
    Home,
    /// Times that it was wanted and not resident.
    Misses,
}

impl Column {
    /// Every column, from left to right.
    pub const ALL: [Self; 8] =
        [Self::Layer, Self::Expert, Self::Value, Self::Count, Self::Share, Self::Weight, Self::Home, Self::Misses];

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Layer => "Layer",
            Self::Expert => "Expert",
            Self::Value => "Shown",
            Self::Count => "Count",
            Self::Share => "Share",
            Self::Weight => "Weight",
            Self::Home => "Home",
            Self::Misses => "Misses",
        }
    }

    /// Whether the largest come first when it is chosen.
    fn largest_first(self) -> bool {
        !matches!(self, Self::Layer | Self::Expert)
    }
}

/// A row of the table.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Row {
    /// Which cell.
    pub cell: Cell,
    /// Its layer in the model.
    pub layer: usize,
    /// What the grid shows; NaN: nothing.
    pub value: f32,
    /// Times that it was chosen.
    pub count: u64,
    /// Share of its layer's uses.
    pub share: f64,
    /// Mean weight where it was chosen; NaN: it never was.
    pub weight: f32,
    /// Where it is; `None`: it is not known.
    pub home: Option<Home>,
    /// Times that it was wanted and not resident.
    pub misses: u64,
}

impl Row {
    fn key(&self, column: Column) -> f64 {
        match column {
            Column::Layer => self.layer as f64,
            Column::Expert => self.cell.expert as f64,
            Column::Value => f64::from(self.value),
            Column::Count => self.count as f64,
            Column::Share => self.share,
            Column::Weight => f64::from(self.weight),
            Column::Home => self.home.map_or(-1.0, |h| f64::from(h as u8)),
            Column::Misses => self.misses as f64,
        }
    }
}

/// The first [`ROWS`] rows by a column. Rows that it says nothing of are last; equal rows are in the order of the model.
pub fn sort(rows: &mut Vec<Row>, column: Column, descending: bool) {
    let by = |a: &Row, b: &Row| {
        let (x, y) = (a.key(column), b.key(column));
        let order = if descending { y.total_cmp(&x) } else { x.total_cmp(&y) };
        x.is_nan().cmp(&y.is_nan()).then(order).then(a.cell.cmp(&b.cell))
    };
    if rows.len() > ROWS {
        rows.select_nth_unstable_by(ROWS, by);
        rows.truncate(ROWS);
    }
    rows.sort_unstable_by(by);
}

/// What the table keeps between frames.
pub struct Table {
    /// By which column it is sorted.
    pub column: Column,
    /// Largest first.
    pub descending: bool,
    /// The rows that are shown, sorted.
    pub rows: Vec<Row>,
}

impl Default for Table {
    fn default() -> Self {
        Self { column: Column::default(), descending: true, rows: Vec::new() }
    }
}

impl Table {
    /// Draws the table; answers the cell whose row was chosen. `value` writes what the grid shows, amounts of `unit`.
    pub fn show(&mut self, ui: &mut Ui, pinned: Option<Cell>, unit: &str, value: &dyn Fn(f32) -> String) -> Option<Cell> {
        if self.rows.is_empty() {
            ui.label(parts::muted(ui, "Nothing to list yet."));
            return None;
        }
        let t = Theme::of(ui.ctx());
        let mut chosen = None;
        let mut sorted = None;
        let height = ui.text_style_height(&egui::TextStyle::Body) + 6.0;
        let room = ui.available_height().clamp(160.0, 420.0);
        egui::ScrollArea::horizontal().id_salt("table").show(ui, |ui| {
            TableBuilder::new(ui)
                .id_salt("cells")
                .striped(true)
                .cell_layout(Layout::right_to_left(Align::Center))
                .column(Width::exact(58.0))
                .column(Width::exact(64.0))
                .column(Width::exact(96.0))
                .columns(Width::exact(66.0), 3)
                .column(Width::exact(96.0))
                .column(Width::exact(66.0))
                .max_scroll_height(room)
                .min_scrolled_height(120.0)
                .header(height + 4.0, |mut header| {
                    for column in Column::ALL {
                        header.col(|ui| {
                            let by_this = self.column == column;
                            let text = RichText::new(column.name()).text_style(Theme::small());
                            let button = ui.add(Button::selectable(by_this, text).truncate());
                            if by_this {
                                arrow(ui, button.rect, self.descending);
                            }
                            let name = format!("Sort by {}", column.name().to_lowercase());
                            button.widget_info(|| WidgetInfo::selected(Role::Button, true, by_this, &name));
                            let order = match (by_this, self.descending) {
                                (false, _) => "",
                                (true, true) => ", now from the largest",
                                (true, false) => ", now from the smallest",
                            };
                            let what =
                                if column == Column::Value { format!("What the grid shows: {unit}. ") } else { String::new() };
                            if button.on_hover_text(format!("{what}{name}{order}")).clicked() {
                                sorted = Some(column);
                            }
                        });
                    }
                })
                .body(|body| {
                    body.rows(height, self.rows.len(), |mut line| {
                        let Some(row) = self.rows.get(line.index()).copied() else { return };
                        line.set_selected(pinned == Some(row.cell));
                        line.col(|ui| {
                            ui.label(row.layer.to_string());
                        });
                        line.col(|ui| {
                            let link = ui.link(row.cell.expert.to_string());
                            parts::named(&link, Role::Link, &format!("Pin layer {}, expert {}", row.layer, row.cell.expert));
                            if link.clicked() {
                                chosen = Some(row.cell);
                            }
                        });
                        let number = |ui: &mut Ui, text: String| {
                            ui.label(RichText::new(text).color(t.text).text_style(Theme::small()));
                        };
                        line.col(|ui| number(ui, if row.value.is_nan() { "–".into() } else { value(row.value) }));
                        line.col(|ui| number(ui, parts::count(row.count)));
                        line.col(|ui| number(ui, percent(row.share)));
                        line.col(|ui| number(ui, if row.weight.is_nan() { "–".into() } else { format!("{:.3}", row.weight) }));
                        line.col(|ui| number(ui, row.home.map_or("–", home_name).into()));
                        line.col(|ui| number(ui, parts::count(row.misses)));
                    });
                });
        });
        if let Some(column) = sorted {
            self.descending = if self.column == column { !self.descending } else { column.largest_first() };
            self.column = column;
            sort(&mut self.rows, self.column, self.descending);
        }
        chosen
    }
}

/// A triangle at the right of a title: which way the table is sorted.
fn arrow(ui: &Ui, rect: Rect, down: bool) {
    let (centre, r) = (rect.right_center() - vec2(5.0, 0.0), 3.0);
    let towards = if down { r } else { -r };
    let points = vec![centre + vec2(-r, -towards * 0.6), centre + vec2(r, -towards * 0.6), centre + vec2(0.0, towards * 0.9)];
    ui.painter().add(Shape::convex_polygon(points, Theme::of(ui.ctx()).strong, Stroke::NONE));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(layer: usize, expert: usize, value: f32, count: u64) -> Row {
        let cell = Cell { row: layer, expert };
        Row { cell, layer, value, count, share: 0.0, weight: f32::NAN, home: None, misses: 0 }
    }

    #[test]
    fn the_largest_rows_are_kept_in_order() {
        let mut rows: Vec<Row> = (0..1000).map(|i| row(i / 100, i % 100, (i * 7919 % 1000) as f32, i as u64)).collect();
        rows[3].value = f32::NAN;
        sort(&mut rows, Column::Value, true);
        assert_eq!(rows.len(), ROWS);
        assert!(rows.is_sorted_by(|a, b| a.value > b.value));
        assert_eq!((rows[0].value, rows[ROWS - 1].value), (999.0, 800.0));
        sort(&mut rows, Column::Layer, false);
        assert!(rows.is_sorted_by_key(|r| r.cell));
    }

    #[test]
    fn unknown_is_last_either_way() {
        for descending in [true, false] {
            let mut rows = vec![row(0, 0, f32::NAN, 0), row(0, 1, 1.0, 0), row(0, 2, 2.0, 0)];
            sort(&mut rows, Column::Value, descending);
            assert!(rows[2].value.is_nan());
        }
    }
}
