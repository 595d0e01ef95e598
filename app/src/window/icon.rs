//! The window's icon: seven stars.

use egui::IconData;

/// Pixels of a side.
const SIDE: usize = 64;
/// Places and radii of the stars, as shares of a side: the brightest of the Pleiades as they are seen.
const STARS: [(f32, f32, f32); 7] = [
    (0.22, 0.56, 0.065),
    (0.44, 0.52, 0.085),
    (0.60, 0.40, 0.060),
    (0.70, 0.58, 0.060),
    (0.78, 0.38, 0.050),
    (0.66, 0.24, 0.045),
    (0.14, 0.42, 0.050),
];

/// The icon, as pixels.
pub fn icon() -> IconData {
    let mut rgba = Vec::with_capacity(SIDE * SIDE * 4);
    for i in 0..SIDE * SIDE {
        let (x, y) = ((i % SIDE) as f32 / SIDE as f32, (i / SIDE) as f32 / SIDE as f32);
        let corner = |a: f32| (a - 0.5).abs() - 0.32;
        let outside = corner(x).max(0.0).hypot(corner(y).max(0.0)) - 0.16;
        let alpha = (0.5 - outside * SIDE as f32).clamp(0.0, 1.0);
        let glow =
            STARS.iter().fold(0.0_f32, |sum, &(sx, sy, r)| sum + (r / ((x - sx).hypot(y - sy) + 0.25 * r)).powi(2)).min(1.0);
        let mix = |night: f32, star: f32| (night + glow * (star - night)) as u8;
        rgba.extend([mix(20.0, 232.0), mix(30.0, 242.0), mix(58.0, 255.0), (alpha * 255.0) as u8]);
    }
    IconData { rgba, width: SIDE as u32, height: SIDE as u32 }
}
