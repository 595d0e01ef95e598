//! Rotary tables, made once on the CPU: WGSL's `sin` and `cos` are too coarse for long contexts.

use pleiad_models::config::Rope;

/// `(cos, sin)` of every pair at every position: `[positions, dim / 2]`, YaRN's magnitude included.
///
/// Angles are reduced in f64 and rounded once.
pub fn table(rope: &Rope, dim: usize, positions: usize) -> Vec<[f32; 2]> {
    let (inverse, factor) = rope.frequencies(dim);
    let mut table = Vec::with_capacity(positions * inverse.len());
    for p in 0..positions {
        for f in &inverse {
            let (sin, cos) = (p as f64 * f).sin_cos();
            table.push([cos as f32 * factor, sin as f32 * factor]);
        }
    }
    table
}
