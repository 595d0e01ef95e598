//! Products of rows of weights, each read once for up to four rows of activations: decoding.

use super::chunk::{CHUNK, Chunk, by_format, has_minima, unpack};
use super::fields::{Fields, u32_at};
use super::simd::{Kernel, Simd};
use pleiad_models::{Format, Layout, Matrix};

/// Rows of activations that one pass over the weights serves.
pub(crate) const BATCH: usize = 4;

/// Up to [`BATCH`] rows of quantised activations.
#[derive(Clone, Copy)]
pub(crate) struct Q8Ptr {
    /// `cols` quants.
    pub q: *const i8,
    /// `cols / 32` scales.
    pub d: *const f32,
    /// `cols / 16` sums.
    pub sums: *const i16,
}

/// `out[t * stride + i] = w[first + i] . x[t]`, in 8-bit activations.
pub(crate) struct Q8Rows<'a> {
    pub w: &'a Matrix<'a>,
    /// Rows of the matrix: first and number.
    pub rows: (usize, usize),
    /// Rows of activations, at most [`BATCH`].
    pub x: &'a [Q8Ptr],
    /// At least `(x.len() - 1) * stride + rows.1` long.
    pub out: &'a mut [f32],
    pub stride: usize,
}

impl Kernel for Q8Rows<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: as for this function.
        unsafe { by_format!(self.w.format, f => self.of::<S>(f)) }
    }
}

impl Q8Rows<'_> {
    /// # Safety
    /// As for [`Kernel::run`]; the format is the matrix's.
    #[inline(always)]
    unsafe fn of<S: Simd>(self, format: Format) {
        let fields = Fields::new(self.w);
        let bytes = self.w.row_bytes();
        let blocks = self.w.cols / 32;
        let minima = has_minima(format);
        let mut chunk = Chunk::ZERO;
        for i in 0..self.rows.1 {
            // SAFETY: the matrix has the row, and as many columns as the activations.
            unsafe {
                let row = self.w.data.as_ptr().add((self.rows.0 + i) * bytes);
                let mut acc = [S::splat(0.0); BATCH];
                for c in 0..blocks.div_ceil(8) {
                    let n = (blocks - c * 8).min(8);
                    unpack::<S>(format, &fields, row, c, n, &mut chunk);
                    for (t, x) in self.x.iter().enumerate() {
                        let x = Q8Ptr { q: x.q.add(c * CHUNK), d: x.d.add(c * 8), sums: x.sums.add(c * 16) };
                        acc[t] = S::dot_chunk(acc[t], &chunk, minima, n, x);
                    }
                }
                for t in 0..self.x.len() {
                    self.out[t * self.stride + i] = S::sum(acc[t]);
                }
            }
        }
    }
}

/// `out[t * stride + i] = w[first + i] . x[t]`, in f32 activations, any format.
pub(crate) struct F32Rows<'a> {
    pub w: &'a Matrix<'a>,
    /// Rows of the matrix: first and number.
    pub rows: (usize, usize),
    /// Rows of activations, `cols` each, at most [`BATCH`].
    pub x: &'a [*const f32],
    /// At least `(x.len() - 1) * stride + rows.1` long.
    pub out: &'a mut [f32],
    pub stride: usize,
}

impl Kernel for F32Rows<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: the matrix has the rows, and as many columns as the activations.
        unsafe {
            match self.w.format {
                Format::F32 => self.float::<S, F32>(),
                Format::F16 => self.float::<S, F16>(),
                Format::BF16 => self.float::<S, BF16>(),
                Format::F8E4M3 => self.float::<S, F8>(),
                format => by_format!(format, f => self.quantised::<S>(f)),
            }
        }
    }
}

impl F32Rows<'_> {
    /// # Safety
    /// As for [`Kernel::run`]; the format is `E`'s.
    #[inline(always)]
    unsafe fn float<S: Simd, E: Element>(mut self) {
        // SAFETY: as above.
        unsafe {
            let n = self.rows.1;
            match self.x.len() {
                1 => {
                    let whole = n / 4 * 4;
                    for i in (0..whole).step_by(4) {
                        self.group::<S, E, 4, 1>(i);
                    }
                    for i in whole..n {
                        self.group::<S, E, 1, 1>(i);
                    }
                }
                2 => {
                    let whole = n / 2 * 2;
                    for i in (0..whole).step_by(2) {
                        self.group::<S, E, 2, 2>(i);
                    }
                    for i in whole..n {
                        self.group::<S, E, 1, 2>(i);
                    }
                }
                3 => {
                    for i in 0..n {
                        self.group::<S, E, 1, 3>(i);
                    }
                }
                4 => {
                    for i in 0..n {
                        self.group::<S, E, 1, 4>(i);
                    }
                }
                _ => {}
            }
        }
    }

    /// `R` rows of weights from the `i`-th on by `T` rows of activations.
    ///
    /// # Safety
    /// As for [`Self::float`]; those rows exist.
    #[inline(always)]
    unsafe fn group<S: Simd, E: Element, const R: usize, const T: usize>(&mut self, i: usize) {
        // SAFETY: loads stay within the rows.
        unsafe {
            let (w, cols, bytes) = (self.w, self.w.cols, self.w.row_bytes());
            let rows: [*const u8; R] = std::array::from_fn(|r| w.data.as_ptr().add((self.rows.0 + i + r) * bytes));
            let x: [*const f32; T] = std::array::from_fn(|t| self.x[t]);
            // Sums of a block of 128 where those have scales, otherwise of the whole row.
            let mut part = [[S::splat(0.0); T]; R];
            let mut acc = [[S::splat(0.0); T]; R];
            let mut tail = [[0.0f32; T]; R];
            for block in 0..cols.div_ceil(128) {
                let from = block * 128;
                let to = (from + 128).min(cols);
                let whole = from + (to - from) / S::LANES * S::LANES;
                let mut k = from;
                while k < whole {
                    let mut xs = [S::splat(0.0); T];
                    for t in 0..T {
                        xs[t] = S::load(x[t].add(k));
                    }
                    for r in 0..R {
                        let v = E::load::<S>(rows[r].add(k * E::BYTES));
                        for t in 0..T {
                            part[r][t] = S::fma(v, xs[t], part[r][t]);
                        }
                    }
                    k += S::LANES;
                }
                if E::SCALED {
                    for r in 0..R {
                        let scale = S::splat(f8_scale(w, self.rows.0 + i + r, block));
                        for t in 0..T {
                            acc[r][t] = S::fma(part[r][t], scale, acc[r][t]);
                            part[r][t] = S::splat(0.0);
                        }
                    }
                }
                for k in whole..to {
                    for r in 0..R {
                        let mut v = E::one(rows[r].add(k * E::BYTES));
                        if E::SCALED {
                            v *= f8_scale(w, self.rows.0 + i + r, block);
                        }
                        for t in 0..T {
                            tail[r][t] += v * *x[t].add(k);
                        }
                    }
                }
            }
            for r in 0..R {
                for t in 0..T {
                    self.out[t * self.stride + i + r] = S::sum(if E::SCALED { acc[r][t] } else { part[r][t] }) + tail[r][t];
                }
            }
        }
    }

    /// # Safety
    /// As for [`Kernel::run`]; the format is the matrix's, a quantised one.
    #[inline(always)]
    unsafe fn quantised<S: Simd>(self, format: Format) {
        let fields = Fields::new(self.w);
        let bytes = self.w.row_bytes();
        let blocks = self.w.cols / 32;
        let mut weights = [0.0f32; CHUNK];
        for i in 0..self.rows.1 {
            // SAFETY: as above.
            unsafe {
                let row = self.w.data.as_ptr().add((self.rows.0 + i) * bytes);
                let mut acc = [[S::splat(0.0); 2]; BATCH];
                for c in 0..blocks.div_ceil(8) {
                    let n = (blocks - c * 8).min(8);
                    S::dequantise(format, &fields, row, c, n, &mut weights);
                    for (t, x) in self.x.iter().enumerate() {
                        let x = x.add(c * CHUNK);
                        for k in (0..n * 32).step_by(2 * S::LANES) {
                            let odd = k + S::LANES;
                            acc[t][0] = S::fma(S::load(weights.as_ptr().add(k)), S::load(x.add(k)), acc[t][0]);
                            acc[t][1] = S::fma(S::load(weights.as_ptr().add(odd)), S::load(x.add(odd)), acc[t][1]);
                        }
                    }
                }
                for t in 0..self.x.len() {
                    self.out[t * self.stride + i] = S::sum(S::add(acc[t][0], acc[t][1]));
                }
            }
        }
    }
}

/// The scale of row `row`, columns `128 * block..`, of a float8 matrix, times 2^8 for what [`Simd::f8`] leaves out.
///
/// # Safety
/// The matrix has that block, and its lengths are right.
#[inline(always)]
pub(crate) unsafe fn f8_scale(w: &Matrix<'_>, row: usize, block: usize) -> f32 {
    // SAFETY: as above.
    unsafe {
        let p = match (w.layout, w.scales) {
            (Layout::Native, Some(scales)) => scales.as_ptr().add((row / 128 * w.cols.div_ceil(128) + block) * 4),
            _ => w.data.as_ptr().add(row * w.row_bytes() + w.cols.next_multiple_of(4) + block * 4),
        };
        f32::from_bits(u32_at(p)) * 256.0
    }
}

/// An element of a float format.
pub(crate) trait Element {
    const BYTES: usize;
    /// Whether blocks of 128 have scales, which [`f8_scale`] gives.
    const SCALED: bool = false;
    /// # Safety
    /// As for [`Simd`].
    unsafe fn load<S: Simd>(p: *const u8) -> S::F;
    /// # Safety
    /// An element at `p` is readable.
    unsafe fn one(p: *const u8) -> f32;
}

pub(crate) struct F32;
pub(crate) struct F16;
pub(crate) struct BF16;
pub(crate) struct F8;

// SAFETY of the blocks below: the caller's.
impl Element for F32 {
    const BYTES: usize = 4;
    #[inline(always)]
    unsafe fn load<S: Simd>(p: *const u8) -> S::F {
        unsafe { S::load(p.cast()) }
    }
    #[inline(always)]
    unsafe fn one(p: *const u8) -> f32 {
        f32::from_bits(unsafe { u32_at(p) })
    }
}

impl Element for F16 {
    const BYTES: usize = 2;
    #[inline(always)]
    unsafe fn load<S: Simd>(p: *const u8) -> S::F {
        unsafe { S::f16(p) }
    }
    #[inline(always)]
    unsafe fn one(p: *const u8) -> f32 {
        super::simd::half_to_f32(unsafe { super::fields::u16_at(p) })
    }
}

impl Element for BF16 {
    const BYTES: usize = 2;
    #[inline(always)]
    unsafe fn load<S: Simd>(p: *const u8) -> S::F {
        unsafe { S::bf16(p) }
    }
    #[inline(always)]
    unsafe fn one(p: *const u8) -> f32 {
        f32::from_bits(u32::from(unsafe { super::fields::u16_at(p) }) << 16)
    }
}

impl Element for F8 {
    const BYTES: usize = 1;
    const SCALED: bool = true;
    #[inline(always)]
    unsafe fn load<S: Simd>(p: *const u8) -> S::F {
        unsafe { S::f8(p) }
    }
    #[inline(always)]
    unsafe fn one(p: *const u8) -> f32 {
        let bits = u16::from(unsafe { *p });
        super::simd::half_to_f32((bits & 0x7f) << 7 | (bits & 0x80) << 8)
    }
}
