//! Twins of the matrix products.

use pleiad_models::Matrix;

use crate::q8::Q8Rows;

/// `x * sigmoid(x)`.
pub fn silu(x: f32) -> f32 {
    x / (1.0 + (-x).exp())
}

/// `silu(gate) * up`.
pub fn gated(gate: f32, up: f32) -> f32 {
    silu(gate) * up
}

/// `out[r] = sum over k of w[r][k] * x[k]`, whatever the format of `w`.
pub fn matvec_f32(w: &Matrix<'_>, x: &[f32], out: &mut [f32]) {
    let mut row = vec![0.0; w.cols];
    for (r, out) in out.iter_mut().enumerate() {
        w.dequantise_row(r, &mut row);
        *out = row.iter().zip(x).map(|(&w, &x)| f64::from(w) * f64::from(x)).sum::<f64>() as f32;
    }
}

/// The same with a row of 8-bit activations: integer dot products of half blocks, then scales
/// (see [`crate::q8`]).
pub fn matvec_q8(w: &Matrix<'_>, x: &Q8Rows, row: usize, out: &mut [f32]) {
    let blocks = w.cols / 32;
    for (r, out) in out.iter_mut().enumerate() {
        let mut sum = 0.0f64;
        for b in 0..blocks {
            let block = w.block32(r, b);
            let at = row * x.width + b * 32;
            for half in 0..2 {
                let range = half * 16..half * 16 + 16;
                let dot: i32 = range.clone().map(|i| i32::from(block.q[i]) * i32::from(x.quants[at + i])).sum();
                let product =
                    f64::from(block.s[half]) * f64::from(dot) - f64::from(block.m[half]) * f64::from(x.sums[at / 16 + half]);
                sum += f64::from(x.scales[at / 32]) * product;
            }
        }
        *out = sum as f32;
    }
}
