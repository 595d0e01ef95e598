//! The grid as one widget: layers by experts, drawing, pointing, the keyboard cursor.

use eframe::egui::Ui;

use crate::{
    activity::{Cell, Field, Shape},
    settings::Palette,
};

/// What the grid keeps between frames: zoom, pan and the keyboard cursor.
#[derive(Debug, Default)]
pub struct Grid {
    /// The cell that the keyboard is at.
    pub cursor: Option<Cell>,
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

impl Grid {
    /// Draws the grid in the room that there is. `describe` says what a cell is, for screen readers: it is called for the
    /// keyboard's cursor only.
    pub fn show(&mut self, ui: &mut Ui, cx: &GridContext<'_>, describe: &dyn Fn(Cell) -> String) -> GridResponse {
        let _ = (ui, cx, describe);
        GridResponse::default()
    }
}
