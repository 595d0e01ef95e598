//! Palettes, as tables that shader, texture, legend and picture share.

use crate::settings::Palette;

/// Colours of a palette.
pub const STEPS: usize = 256;

/// The palette for amounts: `STEPS` colours, as sRGB bytes.
pub fn amounts(palette: Palette) -> &'static [[u8; 3]; STEPS] {
    let _ = palette;
    &[[0; 3]; STEPS]
}
