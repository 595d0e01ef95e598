//! Products of a panel of rows by many rows of f32 activations: prefill.
//!
//! A panel is as many rows as two registers have lanes, turned so that each register holds one column. Its columns
//! are multiplied by one activation each, six rows of activations at a time.

use super::chunk::CHUNK;
use super::fields::Fields;
use super::rows::{BF16, Element, F8, F16, F32, f8_scale};
use super::simd::{Kernel, Simd};
use pleiad_models::{Format, Matrix};

/// Most rows of a panel: what `out` of the panel kernels has a row.
pub(crate) const PANEL: usize = 32;

/// Columns of a panel that are turned at a time: 64 KiB.
const DEPTH: usize = 512;

/// `out[t * PANEL + i] = w[first + i] . x[t]` for at most `2 * LANES` rows, f32 activations, any format.
pub(crate) struct F32Panel<'a> {
    pub w: &'a Matrix<'a>,
    /// Rows of the matrix: first and number.
    pub rows: (usize, usize),
    /// Rows of activations, `cols` each.
    pub x: &'a [*const f32],
    /// `x.len() * PANEL`.
    pub out: &'a mut [f32],
    /// At least [`F32Panel::SCRATCH`] long.
    pub scratch: &'a mut [f32],
}

impl F32Panel<'_> {
    /// f32 of scratch: the panel, and a few unpacked rows.
    pub(crate) const SCRATCH: usize = DEPTH * PANEL + 16 * CHUNK;
}

impl Kernel for F32Panel<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        debug_assert!(self.rows.1 <= 2 * S::LANES);
        assert!(self.out.len() >= self.x.len() * PANEL && self.scratch.len() >= Self::SCRATCH);
        let cols = self.w.cols;
        let fields = Fields::new(self.w);
        let (panel, rows) = self.scratch.split_at_mut(DEPTH * PANEL);
        for from in (0..cols).step_by(DEPTH) {
            let depth = (cols - from).min(DEPTH);
            // SAFETY: the matrix has the rows; lengths were checked above.
            unsafe {
                for group in 0..2 {
                    for c in (0..depth).step_by(CHUNK) {
                        let n = (depth - c).min(CHUNK);
                        for r in 0..S::LANES {
                            let i = (group * S::LANES + r).min(self.rows.1 - 1);
                            fill::<S>(self.w, &fields, self.rows.0 + i, from + c, n, &mut rows[r * CHUNK..(r + 1) * CHUNK]);
                        }
                        for k in (0..n).step_by(S::LANES) {
                            let to = panel.as_mut_ptr().add((c + k) * 2 * S::LANES + group * S::LANES);
                            S::transpose(rows.as_ptr().add(k), CHUNK, to, 2 * S::LANES);
                        }
                    }
                }
                let mut t = 0;
                while t < self.x.len() {
                    let x = &self.x[t..];
                    let out = self.out.as_mut_ptr().add(t * PANEL);
                    match x.len() {
                        1 => tile::<S, 1>(panel.as_ptr(), from, depth, x, out),
                        2 => tile::<S, 2>(panel.as_ptr(), from, depth, x, out),
                        3 => tile::<S, 3>(panel.as_ptr(), from, depth, x, out),
                        4 => tile::<S, 4>(panel.as_ptr(), from, depth, x, out),
                        5 => tile::<S, 5>(panel.as_ptr(), from, depth, x, out),
                        _ => tile::<S, 6>(panel.as_ptr(), from, depth, x, out),
                    }
                    t += 6;
                }
            }
        }
    }
}

/// Adds to (at column 0: sets) the products of one panel and `T` rows of activations.
///
/// # Safety
/// `panel` has `depth` columns, x at least `T` rows with columns `from..from + depth`, `out` `T` rows of [`PANEL`].
#[inline(always)]
unsafe fn tile<S: Simd, const T: usize>(panel: *const f32, from: usize, depth: usize, x: &[*const f32], out: *mut f32) {
    // SAFETY: as above.
    unsafe {
        let x: [*const f32; T] = std::array::from_fn(|t| x[t].add(from));
        let mut acc = [[S::splat(0.0); 2]; T];
        if from > 0 {
            for t in 0..T {
                acc[t] = [S::load(out.add(t * PANEL)), S::load(out.add(t * PANEL + S::LANES))];
            }
        }
        for k in 0..depth {
            let w = panel.add(k * 2 * S::LANES);
            let w = [S::load(w), S::load(w.add(S::LANES))];
            for t in 0..T {
                let x = S::splat(*x[t].add(k));
                acc[t][0] = S::fma(w[0], x, acc[t][0]);
                acc[t][1] = S::fma(w[1], x, acc[t][1]);
            }
        }
        for t in 0..T {
            S::store(out.add(t * PANEL), acc[t][0]);
            S::store(out.add(t * PANEL + S::LANES), acc[t][1]);
        }
    }
}

/// Columns `from..from + n` of a row as f32, zeros after them up to a multiple of 16.
///
/// # Safety
/// The matrix has them; `from` is a multiple of [`CHUNK`], `n` at most that.
#[inline(always)]
unsafe fn fill<S: Simd>(w: &Matrix<'_>, fields: &Fields, row: usize, from: usize, n: usize, out: &mut [f32]) {
    // SAFETY: as above.
    unsafe {
        match w.format {
            Format::F32 => fill_float::<S, F32>(w, row, from, n, out),
            Format::F16 => fill_float::<S, F16>(w, row, from, n, out),
            Format::BF16 => fill_float::<S, BF16>(w, row, from, n, out),
            Format::F8E4M3 => fill_float::<S, F8>(w, row, from, n, out),
            _ => {
                if let Some(out) = out.first_chunk_mut() {
                    let row = w.data.as_ptr().add(row * w.row_bytes());
                    S::dequantise(w.format, fields, row, from / CHUNK, n / 32, out);
                }
            }
        }
    }
}

/// [`fill`] of a float format.
///
/// # Safety
/// As for [`fill`].
#[inline(always)]
unsafe fn fill_float<S: Simd, E: Element>(w: &Matrix<'_>, row: usize, from: usize, n: usize, out: &mut [f32]) {
    // SAFETY: as above.
    unsafe {
        let data = w.data.as_ptr().add(row * w.row_bytes() + from * E::BYTES);
        let out = &mut out[..n.next_multiple_of(16)];
        let whole = n / S::LANES * S::LANES;
        for k in (0..whole).step_by(S::LANES) {
            let mut v = E::load::<S>(data.add(k * E::BYTES));
            if E::SCALED {
                v = S::mul(v, S::splat(f8_scale(w, row, (from + k) / 128)));
            }
            S::store(out.as_mut_ptr().add(k), v);
        }
        for (k, out) in out.iter_mut().enumerate().skip(whole) {
            let scale = if E::SCALED && k < n { f8_scale(w, row, (from + k) / 128) } else { 1.0 };
            *out = if k < n { E::one(data.add(k * E::BYTES)) * scale } else { 0.0 };
        }
    }
}
