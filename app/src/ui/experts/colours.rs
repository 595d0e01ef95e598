//! Palettes, as tables that shader, texture, legend and picture share.
//!
//! A colour is found in two steps that `grid.wgsl` repeats: a number becomes a place on a scale ([`place`]), and the place a
//! colour, by linear interpolation between neighbours of a table of [`STEPS`] colours. The shader is given [`table`], so there
//! is one set of colours.

use std::sync::OnceLock;

use egui::Color32;

use crate::{
    activity::{Home, Scale},
    settings::Palette,
};

/// Colours of a palette.
pub const STEPS: usize = 256;

/// Control points of a palette for amounts: every fourth of its 256 colours, and the last one. What lies between is
/// interpolated, which is within 1/255 of the published tables of Viridis and Inferno and within 3/255 of that of Cividis.
const POINTS: usize = 65;

/// Viridis, by N. Smith, S. van der Walt and E. Firing; CC0.
const VIRIDIS: [u32; POINTS] = [
    0x440154, 0x46075a, 0x470d60, 0x471365, 0x48186a, 0x481d6f, 0x482374, 0x482878, 0x472d7b, 0x46327e, 0x453781, 0x443b84,
    0x424086, 0x404588, 0x3e4989, 0x3d4e8a, 0x3b528b, 0x39568c, 0x375b8d, 0x355f8d, 0x33638d, 0x31678e, 0x2f6b8e, 0x2e6f8e,
    0x2c728e, 0x2a768e, 0x297a8e, 0x277e8e, 0x26828e, 0x25858e, 0x23898e, 0x228d8d, 0x21918c, 0x1f948c, 0x1f988b, 0x1e9c89,
    0x1fa088, 0x20a386, 0x22a785, 0x25ab82, 0x28ae80, 0x2db27d, 0x32b67a, 0x38b977, 0x3fbc73, 0x46c06f, 0x4ec36b, 0x56c667,
    0x5ec962, 0x67cc5c, 0x70cf57, 0x7ad151, 0x84d44b, 0x8ed645, 0x98d83e, 0xa2da37, 0xaddc30, 0xb8de29, 0xc2df23, 0xcde11d,
    0xd8e219, 0xe2e418, 0xece51b, 0xf6e620, 0xfde725,
];

/// Inferno, by N. Smith and S. van der Walt; CC0.
const INFERNO: [u32; POINTS] = [
    0x000004, 0x02010a, 0x040312, 0x07051b, 0x0b0724, 0x10092d, 0x150b37, 0x1b0c41, 0x210c4a, 0x280b53, 0x2f0a5b, 0x360961,
    0x3d0965, 0x440a68, 0x4a0c6b, 0x510e6c, 0x57106e, 0x5d126e, 0x64156e, 0x6a176e, 0x71196e, 0x771c6d, 0x7d1e6d, 0x84206b,
    0x8a226a, 0x902568, 0x972766, 0x9d2964, 0xa32c61, 0xa92e5e, 0xb0315b, 0xb63458, 0xbc3754, 0xc13a50, 0xc73e4c, 0xcc4248,
    0xd24644, 0xd74b3f, 0xdb503b, 0xe05536, 0xe45a31, 0xe8602d, 0xeb6628, 0xef6c23, 0xf1731d, 0xf47918, 0xf68013, 0xf8870e,
    0xf98e09, 0xfb9606, 0xfb9d07, 0xfca50a, 0xfcac11, 0xfcb418, 0xfbbc21, 0xfac42a, 0xf9cb35, 0xf7d340, 0xf5db4c, 0xf3e35a,
    0xf2ea69, 0xf1f179, 0xf3f68a, 0xf8fb9a, 0xfcffa4,
];

/// Cividis, by J. Nuñez, C. Anderton and R. Renslow (PLoS ONE 13(7), 2018); CC0.
const CIVIDIS: [u32; POINTS] = [
    0x00224e, 0x002554, 0x00285b, 0x002b62, 0x002e6a, 0x003070, 0x053371, 0x123570, 0x1a386f, 0x213b6e, 0x273e6e, 0x2d416d,
    0x32436d, 0x36466c, 0x3b496c, 0x3f4c6c, 0x434e6c, 0x47516c, 0x4b546c, 0x4f576c, 0x535a6d, 0x565c6d, 0x5a5f6e, 0x5e626e,
    0x61656f, 0x656870, 0x686a71, 0x6c6d72, 0x6f7073, 0x727374, 0x767676, 0x797977, 0x7d7c78, 0x807f78, 0x848279, 0x888578,
    0x8c8878, 0x908b78, 0x938e78, 0x979177, 0x9b9476, 0x9f9775, 0xa39a74, 0xa79d73, 0xaba072, 0xafa471, 0xb4a76f, 0xb8aa6e,
    0xbcae6c, 0xc0b16a, 0xc4b468, 0xc8b866, 0xcdbb63, 0xd1bf61, 0xd5c25e, 0xdac65b, 0xdec958, 0xe2cd54, 0xe7d150, 0xebd44b,
    0xf0d846, 0xf5dc41, 0xf9e03a, 0xfee434, 0xfee838,
];

/// Diverging: blue, light grey, orange. The two ends differ in lightness of neighbours alike and in hue for every kind of
/// colour vision; the middle is seen on light and on dark panels.
const DIVERGING: [u32; 9] = [0x0a3a6b, 0x1f63a8, 0x5798cf, 0x9fc4e2, 0xd9dbdd, 0xf0c08c, 0xdd8a3a, 0xb35a10, 0x6f3203];

/// No use at all, on a log scale.
const ZERO: u32 = 0x353a43;
/// Nothing is known: ground and hatch.
const UNKNOWN: [u32; 2] = [0x4a515c, 0x868f9d];
/// Chance explains it: colours are drawn towards this.
const CHANCE: u32 = 0x9a9a9a;
/// On the device: one colour.
const DEVICE: [u32; 2] = [0x4b97ea, 0x4b97ea];
/// In host memory: dark, with a lower half that is lighter.
const HOST: [u32; 2] = [0x343c49, 0x66738a];
/// Moving: bright, with dark stripes.
const MOVING: [u32; 2] = [0xf7c948, 0x6b4a00];

/// How much of the colour [`CHANCE`] there is in cells that chance explains.
pub const CHANCE_SHARE: f32 = 0.8;

/// Behind a picture.
pub const PAPER: Color32 = Color32::from_rgb(0xff, 0xff, 0xff);
/// Text of a picture.
pub const INK: Color32 = Color32::from_rgb(0x1a, 0x20, 0x2a);
/// Text of a picture that matters less, dense layers and lines.
pub const INK_MUTED: Color32 = Color32::from_rgb(0x5d, 0x6a, 0x7e);

/// Colours of [`table`]: both palettes, then the single ones, filled up to a multiple of four.
pub const TABLE: usize = 2 * STEPS + 12;

fn bytes_of(hex: u32) -> [u8; 3] {
    [(hex >> 16) as u8, (hex >> 8) as u8, hex as u8]
}

fn colour(hex: u32) -> Color32 {
    let [r, g, b] = bytes_of(hex);
    Color32::from_rgb(r, g, b)
}

/// All colours between control points that are `spacing` apart; the last point is colour 255.
fn interpolate(points: &[u32], spacing: f32) -> [[u8; 3]; STEPS] {
    let mut all = [[0; 3]; STEPS];
    let last = points.len() - 1;
    for (i, entry) in all.iter_mut().enumerate() {
        let below = ((i as f32 / spacing) as usize).min(last - 1);
        let start = below as f32 * spacing;
        let end = ((below + 1) as f32 * spacing).min((STEPS - 1) as f32);
        let t = (i as f32 - start) / (end - start);
        let (a, b) = (bytes_of(points[below]), bytes_of(points[below + 1]));
        for ((out, a), b) in entry.iter_mut().zip(a).zip(b) {
            *out = (f32::from(a) + (f32::from(b) - f32::from(a)) * t).round() as u8;
        }
    }
    all
}

/// The palette for amounts: `STEPS` colours, as sRGB bytes.
pub fn amounts(palette: Palette) -> &'static [[u8; 3]; STEPS] {
    static TABLES: [OnceLock<[[u8; 3]; STEPS]>; 3] = [const { OnceLock::new() }; 3];
    let (table, points) = match palette {
        Palette::Viridis => (&TABLES[0], &VIRIDIS),
        Palette::Inferno => (&TABLES[1], &INFERNO),
        Palette::Cividis => (&TABLES[2], &CIVIDIS),
    };
    table.get_or_init(|| interpolate(points, 4.0))
}

/// The palette for ratios and differences: blue, light grey, orange.
pub fn diverging() -> &'static [[u8; 3]; STEPS] {
    static COLOURS: OnceLock<[[u8; 3]; STEPS]> = OnceLock::new();
    COLOURS.get_or_init(|| interpolate(&DIVERGING, (STEPS - 1) as f32 / (DIVERGING.len() - 1) as f32))
}

/// The palette of a scale.
pub fn colours_of(scale: Scale, palette: Palette) -> &'static [[u8; 3]; STEPS] {
    match scale {
        Scale::Ratio { .. } | Scale::Signed { .. } => diverging(),
        _ => amounts(palette),
    }
}

/// Everything that the shader colours with, as red, green and blue bytes from the lowest on: [`STEPS`] colours for amounts,
/// [`STEPS`] diverging ones, and then [`ZERO`], [`CHANCE`] and the two colours each of unknown, host, device and moving.
pub fn table(palette: Palette) -> [u32; TABLE] {
    let mut all = [0; TABLE];
    let pack = |[r, g, b]: [u8; 3]| u32::from_le_bytes([r, g, b, 0]);
    let single = [ZERO, CHANCE, UNKNOWN[0], UNKNOWN[1], HOST[0], HOST[1], DEVICE[0], DEVICE[1], MOVING[0], MOVING[1]];
    let colours = amounts(palette).iter().chain(diverging()).copied().chain(single.map(bytes_of));
    for (out, colour) in all.iter_mut().zip(colours) {
        *out = pack(colour);
    }
    all
}

/// How the two colours of a cell share it, so that none has to be told by its colour alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// One colour.
    Solid,
    /// The lower half has the second colour.
    Half,
    /// Broad stripes.
    Stripes,
    /// Thin stripes.
    Hatch,
}

impl Pattern {
    /// Whether the second colour is at a place of the cell, in quarters of its width and height.
    pub fn second(self, u: u32, v: u32) -> bool {
        match self {
            Self::Solid => false,
            Self::Half => v >= 2,
            Self::Stripes => (u + v) & 3 < 2,
            Self::Hatch => (u + v) & 3 == 3,
        }
    }
}

/// What a cell looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// Its ground.
    pub fill: Color32,
    /// The second colour of its pattern.
    pub second: Color32,
    /// Where the second colour is.
    pub pattern: Pattern,
}

impl Look {
    fn solid(fill: Color32) -> Self {
        Self { fill, second: fill, pattern: Pattern::Solid }
    }

    fn patterned([fill, second]: [u32; 2], pattern: Pattern) -> Self {
        Self { fill: colour(fill), second: colour(second), pattern }
    }

    /// Nothing is known of it.
    pub fn unknown() -> Self {
        Self::patterned(UNKNOWN, Pattern::Hatch)
    }

    /// Of an expert that is somewhere.
    pub fn of_home(home: Home) -> Self {
        match home {
            Home::Host => Self::patterned(HOST, Pattern::Half),
            Home::Device => Self::patterned(DEVICE, Pattern::Solid),
            Home::Moving => Self::patterned(MOVING, Pattern::Stripes),
        }
    }

    /// The colour at a place of the cell, in quarters of its width and height.
    pub fn at(&self, u: u32, v: u32) -> Color32 {
        if self.pattern.second(u, v) { self.second } else { self.fill }
    }
}

/// The number that the shader divides by: of a log scale its logarithm.
pub fn top_of(scale: Scale) -> f32 {
    match scale {
        Scale::Linear { max } | Scale::Signed { max } => max,
        Scale::Log { max } => max.max(1.0).log2(),
        Scale::Ratio { octaves } => octaves,
        Scale::Homes => 0.0,
    }
}

/// Where a number is on its scale, 0 to 1. `None`: it has a colour of its own (0 on a log scale, homes).
pub fn place(scale: Scale, value: f32) -> Option<f32> {
    let top = top_of(scale);
    // A scale without extent: what there is has its last colour, and 0 the first.
    let share = |value: f32| if top > 0.0 { value / top } else { value.signum() * if value == 0.0 { 0.0 } else { 1.0 } };
    Some(match scale {
        Scale::Linear { .. } => share(value).clamp(0.0, 1.0),
        Scale::Log { .. } if value <= 0.0 => return None,
        Scale::Log { .. } if top > 0.0 => share(value.log2()).clamp(0.0, 1.0),
        Scale::Log { .. } => 1.0,
        Scale::Ratio { .. } | Scale::Signed { .. } => (share(value).clamp(-1.0, 1.0) + 1.0) * 0.5,
        Scale::Homes => return None,
    })
}

/// The colour at a place of a palette, 0 to 1.
pub fn sample(colours: &[[u8; 3]; STEPS], place: f32) -> Color32 {
    let [r, g, b] = sample_exactly(colours, place).map(|x| x.round() as u8);
    Color32::from_rgb(r, g, b)
}

fn sample_exactly(colours: &[[u8; 3]; STEPS], place: f32) -> [f32; 3] {
    let at = place.clamp(0.0, 1.0) * (STEPS - 1) as f32;
    let below = (at as usize).min(STEPS - 2);
    let t = at - below as f32;
    let (a, b) = (colours[below], colours[below + 1]);
    [0, 1, 2].map(|i| f32::from(a[i]) + (f32::from(b[i]) - f32::from(a[i])) * t)
}

/// What a cell of that value looks like. `noise`: chance explains it.
pub fn look_of(scale: Scale, value: f32, palette: Palette, noise: bool) -> Look {
    if value.is_nan() {
        return Look::unknown();
    }
    let Some(place) = place(scale, value) else {
        return match scale {
            Scale::Homes if value >= 1.5 => Look::of_home(Home::Moving),
            Scale::Homes if value >= 0.5 => Look::of_home(Home::Device),
            Scale::Homes => Look::of_home(Home::Host),
            _ if noise => Look::solid(greyed(bytes_of(ZERO).map(f32::from))),
            _ => Look::solid(colour(ZERO)),
        };
    };
    let exact = sample_exactly(colours_of(scale, palette), place);
    if noise {
        return Look::solid(greyed(exact));
    }
    let [r, g, b] = exact.map(|x| x.round() as u8);
    Look::solid(Color32::from_rgb(r, g, b))
}

/// A colour drawn towards grey.
fn greyed(exact: [f32; 3]) -> Color32 {
    let grey = bytes_of(CHANCE).map(f32::from);
    let [r, g, b] = [0, 1, 2].map(|i| (exact[i] + (grey[i] - exact[i]) * CHANCE_SHARE).round() as u8);
    Color32::from_rgb(r, g, b)
}

/// The colour of a cell of that value: of its ground, where it has a pattern. `noise`: chance explains it.
pub fn colour_of(scale: Scale, value: f32, palette: Palette, noise: bool) -> Color32 {
    look_of(scale, value, palette, noise).fill
}

#[cfg(test)]
mod tests {
    use super::*;

    const PALETTES: [Palette; 3] = [Palette::Viridis, Palette::Inferno, Palette::Cividis];

    /// Lightness L* of CIE 1976, D65.
    fn lightness(rgb: [u8; 3]) -> f64 {
        let [r, g, b] = rgb.map(|x| match f64::from(x) / 255.0 {
            x if x <= 0.040_45 => x / 12.92,
            x => ((x + 0.055) / 1.055).powf(2.4),
        });
        let y = 0.2126 * r + 0.7152 * g + 0.0722 * b;
        if y > 0.008_856 { 116.0 * y.cbrt() - 16.0 } else { 903.3 * y }
    }

    fn distance(a: Color32, b: Color32) -> i32 {
        let apart = |x: u8, y: u8| (i32::from(x) - i32::from(y)).abs();
        apart(a.r(), b.r()) + apart(a.g(), b.g()) + apart(a.b(), b.b())
    }

    #[test]
    fn amounts_get_lighter_all_the_way() {
        for palette in PALETTES {
            let light: Vec<f64> = amounts(palette).iter().map(|c| lightness(*c)).collect();
            // Bytes are rounded, so that a step may be a little too small, but not over four of them.
            assert!(light.windows(5).all(|w| w[4] > w[0]), "{palette:?}");
            assert!(light.windows(2).all(|w| w[1] > w[0] - 0.35), "{palette:?}");
            assert!(light[255] - light[0] > 60.0, "{palette:?}");
        }
    }

    #[test]
    fn tables_meet_the_published_ones() {
        // Entries that are no control points.
        for (palette, entry, expected) in [
            (Palette::Viridis, 37, [70, 51, 127]),
            (Palette::Viridis, 203, [119, 209, 83]),
            (Palette::Inferno, 37, [41, 11, 85]),
            (Palette::Inferno, 203, [252, 163, 9]),
            (Palette::Cividis, 37, [35, 60, 110]),
            (Palette::Cividis, 203, [199, 183, 103]),
        ] {
            let found: [u8; 3] = amounts(palette)[entry];
            assert!(found.iter().zip(expected).all(|(a, b): (&u8, u8)| a.abs_diff(b) <= 3), "{palette:?} {entry}: {found:?}");
        }
        assert_eq!((amounts(Palette::Viridis)[0], amounts(Palette::Viridis)[255]), ([0x44, 0x01, 0x54], [0xfd, 0xe7, 0x25]));
    }

    #[test]
    fn the_diverging_palette_has_two_ends_and_a_light_middle() {
        let light: Vec<f64> = diverging().iter().map(|c| lightness(*c)).collect();
        assert!(light[..128].windows(5).all(|w| w[4] > w[0]) && light[128..].windows(5).all(|w| w[4] < w[0]));
        assert!((light[0] - light[255]).abs() < 10.0 && light[127] > 85.0);
        let end = |at: usize| colour_of(Scale::Signed { max: 1.0 }, if at == 0 { -1.0 } else { 1.0 }, Palette::Viridis, false);
        assert!(distance(end(0), end(1)) > 150);
        let middle = colour_of(Scale::Ratio { octaves: 3.0 }, 0.0, Palette::Viridis, false);
        assert!(distance(middle, sample(diverging(), 0.5)) == 0 && distance(middle, colour(CHANCE)) > 150);
    }

    #[test]
    fn numbers_are_placed_on_their_scales() {
        let near = |a: Option<f32>, b: f32| a.is_some_and(|a| (a - b).abs() < 1e-6);
        assert!(near(place(Scale::Linear { max: 4.0 }, 1.0), 0.25) && near(place(Scale::Linear { max: 4.0 }, 9.0), 1.0));
        assert!(near(place(Scale::Linear { max: 0.0 }, 0.0), 0.0) && near(place(Scale::Linear { max: 0.0 }, 1.0), 1.0));
        assert!(near(place(Scale::Log { max: 256.0 }, 16.0), 0.5) && place(Scale::Log { max: 256.0 }, 0.0).is_none());
        assert!(near(place(Scale::Log { max: 1.0 }, 1.0), 1.0));
        let ratio = Scale::Ratio { octaves: 3.0 };
        assert!(near(place(ratio, 0.0), 0.5) && near(place(ratio, 1.5), 0.75) && near(place(ratio, f32::NEG_INFINITY), 0.0));
        assert!(place(Scale::Homes, 1.0).is_none());
    }

    #[test]
    fn looks_differ_by_more_than_colour() {
        let of = |home: Home| look_of(Scale::Homes, f32::from(home as u8), Palette::Viridis, false);
        let all = [of(Home::Host), of(Home::Device), of(Home::Moving), Look::unknown()];
        for (i, a) in all.iter().enumerate() {
            for b in &all[i + 1..] {
                assert!(a.pattern != b.pattern && distance(a.fill, b.fill) > 30, "{a:?} {b:?}");
            }
        }
        let ratio = Scale::Ratio { octaves: 3.0 };
        let (plain, greyed) = (colour_of(ratio, 2.0, Palette::Viridis, false), colour_of(ratio, 2.0, Palette::Viridis, true));
        let chroma = |c: Color32| c.r().max(c.g()).max(c.b()) - c.r().min(c.g()).min(c.b());
        assert!(chroma(greyed) * 3 < chroma(plain), "{plain:?} {greyed:?}");
        assert_eq!(look_of(ratio, f32::NAN, Palette::Viridis, false), Look::unknown());
    }
}
