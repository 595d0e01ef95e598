//! The experts: grid, strip, timeline, measures, domains.
//!
//! | module | what it holds |
//! |---|---|
//! | [`grid`] | the grid as one widget: drawing, pointing, the keyboard cursor |
//! | [`paint`] | the grid's pixels: a callback that reads the numbers on the GPU, or a texture |
//! | [`colours`] | palettes, as tables that shader, texture, legend and picture share |
//! | [`legend`] | what the colours mean |
//! | [`picture`] | the grid as a PNG |
//! | [`view`] | the panel: controls, grid, and what is below it |

pub mod colours;
pub mod grid;
pub mod legend;
pub mod paint;
pub mod picture;
pub mod view;

pub use view::{ExpertsContext, ExpertsView};
