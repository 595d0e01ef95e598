//! From f32 to blocks, for checkpoints that are quantised as they are loaded.

use super::{f32_to_bf16, f32_to_half, half_to_f32};
use crate::Format;

/// Appends a row, quantised to `format` in the native layout, to `out`.
///
/// F32, F16, BF16, Q8_0, Q4_0, Q4_K and Q6_K; `None`, with nothing written, for other formats and where the row is not
/// a whole number of blocks. F16 and BF16 round to nearest, ties to even; Q8_0 and Q4_0 follow ggml's reference rule bit
/// for bit. Q4_K and Q6_K search a few steps for each sub-block and keep the one of least square error, as ggml does,
/// but with uniform weights: the blocks are of the same kind, not the same bits.
///
/// A block with a NaN, an infinity or a value too large for an f16 scale gets a non-finite scale, which
/// [`super::Matrix::find_non_finite`] finds: nothing is hidden.
#[must_use = "`None` says that nothing was written"]
pub fn quantise_row(format: Format, x: &[f32], out: &mut Vec<u8>) -> Option<()> {
    let bytes = format.row_bytes(x.len())?;
    out.reserve(bytes);
    match format {
        Format::F32 => out.extend(x.iter().flat_map(|x| x.to_le_bytes())),
        Format::F16 => out.extend(x.iter().flat_map(|&x| f32_to_half(x).to_le_bytes())),
        Format::BF16 => out.extend(x.iter().flat_map(|&x| f32_to_bf16(x).to_le_bytes())),
        Format::Q8_0 => x.as_chunks().0.iter().for_each(|x| q8_0(x, out)),
        Format::Q4_0 => x.as_chunks().0.iter().for_each(|x| q4_0(x, out)),
        Format::Q4K => x.as_chunks().0.iter().for_each(|x| q4_k(x, out)),
        Format::Q6K => x.as_chunks().0.iter().for_each(|x| q6_k(x, out)),
        _ => return None,
    }
    Some(())
}

/// The first value of largest magnitude, or the first NaN.
fn extreme(x: &[f32]) -> f32 {
    x.iter().fold(0.0, |extreme: f32, &x| if x.abs() > extreme.abs() || (x.is_nan() && !extreme.is_nan()) { x } else { extreme })
}

fn inverse(scale: f32) -> f32 {
    if scale == 0.0 { 0.0 } else { 1.0 / scale }
}

/// q = round(x / d) with d = max|x| / 127, halves away from zero. The quotient uses d before it is rounded to f16.
fn q8_0(x: &[f32; 32], out: &mut Vec<u8>) {
    let d = extreme(x).abs() / 127.0;
    let inverse = inverse(d);
    out.extend(f32_to_half(d).to_le_bytes());
    out.extend(x.iter().map(|x| (x * inverse).round() as i8 as u8));
}

/// The value of largest magnitude becomes -8: d = x / -8, and q = floor(x / d + 8.5), at most 15.
fn q4_0(x: &[f32; 32], out: &mut Vec<u8>) {
    let d = extreme(x) / -8.0;
    let inverse = inverse(d);
    let quant = |x: f32| ((x * inverse + 8.5) as u8).min(15);
    out.extend(f32_to_half(d).to_le_bytes());
    out.extend((0..16).map(|i| quant(x[i]) | quant(x[i + 16]) << 4));
}

/// How many steps more than the format has a sub-block's range is divided into, in the trials of a fit.
fn stretches() -> impl Iterator<Item = f32> {
    (-10..=10_i8).map(|t| f32::from(t) / 10.0)
}

/// To the nearest integer, ties to even, for |x| < 2^22. Adding 1.5 * 2^23 leaves no bits for a fraction; unlike
/// `round_ties_even` this vectorises on every target.
fn nearest(x: f32) -> f32 {
    const SHIFT: f32 = 12_582_912.0;
    (x + SHIFT) - SHIFT
}

/// Sums of q, q^2 and q x over `x`, q being `nearest((x + min) * inverse)` clamped to `range`.
fn sums<const N: usize>(x: &[f32; N], min: f32, inverse: f32, range: (f32, f32)) -> (f32, f32, f32) {
    // Eight partial sums each, so that the compiler may use vectors.
    let mut sums = [[0.0; 8]; 3];
    for x in x.as_chunks::<8>().0 {
        for lane in 0..8 {
            let q = nearest(((x[lane] + min) * inverse).clamp(range.0, range.1));
            sums[0][lane] += q;
            sums[1][lane] += q * q;
            sums[2][lane] += q * x[lane];
        }
    }
    let [q, qq, qx] = sums.map(|lanes| lanes.iter().sum());
    (q, qq, qx)
}

/// `x` to the nearest f16, as f32.
fn through_half(x: f32) -> f32 {
    half_to_f32(f32_to_half(x))
}

/// The scale and the minimum, neither negative, with which `scale * q - min`, q in 0..=15, comes nearest to x.
fn fit_with_minimum(x: &[f32; 32]) -> (f32, f32) {
    let low = x.iter().copied().fold(0.0, f32::min);
    let range = x.iter().copied().fold(0.0, f32::max) - low;
    let (n, sum): (f32, f32) = (32.0, x.iter().sum());
    let (mut best, mut least) = ((range / 15.0, -low), f32::INFINITY);
    for stretch in stretches() {
        // Given the quants, scale and minimum are a linear regression of x on q.
        let (q, qq, qx) = sums(x, -low, (15.0 + stretch) * inverse(range), (0.0, 15.0));
        let determinant = n * qq - q * q;
        let (scale, min) = ((n * qx - q * sum) / determinant, (q * qx - qq * sum) / determinant);
        let (scale, min) = if min < 0.0 { (qx / qq, 0.0) } else { (scale, min) };
        // The square error less |x|^2, which is the same for all.
        let error = scale * (scale * qq - 2.0 * (min * q + qx)) + min * (n * min + 2.0 * sum);
        // A NaN or a negative scale (from a degenerate regression) loses the comparison.
        if scale > 0.0 && error < least {
            (best, least) = ((scale, min), error);
        }
    }
    best
}

/// Eight sub-blocks of 32; 6-bit scales and minima, 63 for the largest of each.
fn q4_k(x: &[f32; 256], out: &mut Vec<u8>) {
    if !x.iter().all(|x| x.is_finite()) {
        return non_finite_block(0, Format::Q4K, out);
    }
    let subs: &[[f32; 32]] = x.as_chunks().0;
    let fits: [(f32, f32); 8] = std::array::from_fn(|sub| fit_with_minimum(&subs[sub]));
    let d = through_half(fits.iter().map(|fit| fit.0).fold(0.0, f32::max) / 63.0);
    let dmin = through_half(fits.iter().map(|fit| fit.1).fold(0.0, f32::max) / 63.0);
    let six_bits = |value: f32, unit: f32| ((value * inverse(unit)).round() as u8).min(63);
    let scales = fits.map(|fit| six_bits(fit.0, d));
    let mins = fits.map(|fit| six_bits(fit.1, dmin));
    let quant = |sub: usize, i: usize| {
        let (scale, min) = (d * f32::from(scales[sub]), dmin * f32::from(mins[sub]));
        nearest(((subs[sub][i] + min) * inverse(scale)).clamp(0.0, 15.0)) as u8
    };
    out.extend([d, dmin].into_iter().flat_map(|x| f32_to_half(x).to_le_bytes()));
    out.extend((0..4).map(|k| scales[k] | scales[k + 4] >> 4 << 6));
    out.extend((0..4).map(|k| mins[k] | mins[k + 4] >> 4 << 6));
    out.extend((4..8).map(|k| (scales[k] & 15) | mins[k] << 4));
    out.extend(
        (0..4).flat_map(|pair| (0..32).map(move |i| (2 * pair, i))).map(|(sub, i)| quant(sub, i) | quant(sub + 1, i) << 4),
    );
}

/// The scale with which `scale * q`, q in -32..=31, comes nearest to x. It may be negative.
fn fit_signed(x: &[f32; 16]) -> f32 {
    let extreme = extreme(x);
    let (mut best, mut most) = (extreme / -32.0, 0.0);
    for stretch in stretches() {
        let (_, qq, qx) = sums(x, 0.0, inverse(extreme) * -(32.0 + stretch), (-32.0, 31.0));
        // With the best scale for these quants, qx / qq, the square error is |x|^2 - qx^2 / qq.
        if qx * qx / qq > most {
            (best, most) = (qx / qq, qx * qx / qq);
        }
    }
    best
}

/// Sixteen sub-blocks of 16, with signed 8-bit scales: the one of largest magnitude becomes -128.
fn q6_k(x: &[f32; 256], out: &mut Vec<u8>) {
    if !x.iter().all(|x| x.is_finite()) {
        return non_finite_block(208, Format::Q6K, out);
    }
    let subs: &[[f32; 16]] = x.as_chunks().0;
    let fits: [f32; 16] = std::array::from_fn(|sub| fit_signed(&subs[sub]));
    let d = through_half(extreme(&fits) / -128.0);
    let scales = fits.map(|scale| (scale * inverse(d)).round() as i8);
    let quant = |i: usize| {
        let inverse = inverse(d * f32::from(scales[i / 16]));
        (nearest((x[i] * inverse).clamp(-32.0, 31.0)) + 32.0) as u8
    };
    let q: [u8; 256] = std::array::from_fn(quant);
    let halves: &[[u8; 128]] = q.as_chunks().0;
    out.extend(halves.iter().flat_map(|q| (0..64).map(|i| (q[i] & 15) | q[i + 64] << 4)));
    out.extend(halves.iter().flat_map(|q| (0..32).map(|i| (0..4).fold(0, |pairs, s| pairs | q[32 * s + i] >> 4 << (2 * s)))));
    out.extend(scales.map(|scale| scale as u8));
    out.extend(f32_to_half(d).to_le_bytes());
}

/// A block whose f16 scale, `at` bytes into it, is NaN.
fn non_finite_block(at: usize, format: Format, out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + format.block_bytes(), 0);
    out[start + at..][..2].copy_from_slice(&f32_to_half(f32::NAN).to_le_bytes());
}
