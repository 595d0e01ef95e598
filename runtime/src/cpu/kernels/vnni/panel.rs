//! Products of a panel of 32 rows by many rows of 8-bit activations: prefill.
//!
//! The quants of a panel are turned so that a register holds four columns of 16 rows, and `vpdpbusd` multiplies them
//! by four activations that are broadcast. After each block of 32 columns the integers are scaled into f32. Activations
//! are packed beforehand: for up to six rows at a time, what the kernel reads lies in the order in which it reads it.

use super::super::fields::Fields;
use super::super::panel::PANEL;
use super::super::rows::Q8Ptr;
use super::super::simd::avx512::transpose_words;
use super::formats::Quant;
use super::with_format;
use pleiad_models::{Format, Matrix};
use std::arch::x86_64::*;

/// Most rows of activations of a group.
pub(crate) const GROUP: usize = 6;

/// Columns of a panel that are turned at a time: 64 KiB of quants.
const DEPTH: usize = 2048;

/// Scratch memory comes in cache lines.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Line([u8; 64]);

impl Line {
    pub(crate) const ZERO: Self = Self([0; 64]);
}

/// What packed activations depend on besides the activations: how a format's zero or minima enter the product.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Packing {
    zero: i32,
    halves: bool,
    minima: bool,
}

impl Packing {
    pub(crate) fn of(format: Format) -> Self {
        with_format!(format, Q => Self { zero: Q::ZERO, halves: Q::HALVES, minima: Q::MINIMA })
    }

    /// What quants are made unsigned with.
    pub(crate) fn zero(self) -> i32 {
        self.zero
    }

    /// Whether there is a word for each half block.
    pub(crate) fn halves(self) -> bool {
        self.halves
    }

    /// Whether words are for minima.
    pub(crate) fn minima(self) -> bool {
        self.minima
    }

    /// Bytes of one row of `blocks` blocks: quants, scale, and one word a block or half block.
    pub(crate) fn row_bytes(self, blocks: usize) -> usize {
        blocks * (32 + 4 + if self.halves { 8 } else { 4 })
    }
}

/// Packs a group of rows: for each block, the quants of every row, then their scales, then their words: `-dx * sum(x)`
/// (f32) for formats with minima, otherwise `-zero * sum(x)` (i32).
///
/// # Safety
/// The rows have `blocks` blocks; `out` has room for them.
pub(crate) unsafe fn pack(packing: Packing, x: &[Q8Ptr], blocks: usize, mut out: *mut u8) {
    // SAFETY: as above.
    unsafe {
        for b in 0..blocks {
            for x in x {
                out.cast::<[u8; 32]>().write_unaligned(x.q.add(b * 32).cast::<[u8; 32]>().read());
                out = out.add(32);
            }
            for x in x {
                out.cast::<f32>().write_unaligned(*x.d.add(b));
                out = out.add(4);
            }
            for half in 0..if packing.halves { 2 } else { 1 } {
                for x in x {
                    let sums = [i32::from(*x.sums.add(2 * b)), i32::from(*x.sums.add(2 * b + 1))];
                    let sum = if packing.halves { sums[half] } else { sums[0] + sums[1] };
                    let word = if packing.minima { (-*x.d.add(b) * sum as f32).to_bits() } else { (-packing.zero * sum) as u32 };
                    out.cast::<u32>().write_unaligned(word);
                    out = out.add(4);
                }
            }
        }
    }
}

/// `out[t * PANEL + i] = w[first + i] . x[t]` for at most [`PANEL`] rows, 8-bit activations.
pub(crate) struct Q8Panel<'a> {
    pub w: &'a Matrix<'a>,
    /// Rows of the matrix: first and number.
    pub rows: (usize, usize),
    /// Packed groups, one after the other, and the number of rows of each.
    pub x: *const u8,
    pub groups: &'a [u8],
    /// [`PANEL`] for each row of the groups.
    pub out: &'a mut [f32],
    /// At least [`Q8Panel::SCRATCH`] long.
    pub scratch: &'a mut [Line],
}

impl Q8Panel<'_> {
    /// Quants, scales, minima, and 16 unpacked rows with their scales and minima.
    pub(crate) const SCRATCH: usize = (DEPTH * PANEL + 2 * SCALES * 4 + 16 * 256 + 2 * 1024) / 64;
}

/// f32 of the scales (or minima) of a panel.
const SCALES: usize = DEPTH / 16 * PANEL;

/// Scratch of a panel.
struct Turned {
    /// `[columns / 4][PANEL][4]`.
    q: *mut u8,
    /// `[columns / 256][16][PANEL]`: of half blocks; or of eight blocks, and after them their minima.
    s: *mut f32,
    /// As `s`, of formats with minima of half blocks.
    m: *mut f32,
}

/// Runs a [`Q8Panel`].
///
/// # Safety
/// The instruction set is there; the matrix has the rows, and the packed activations are for its columns and format.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(crate) unsafe fn panel(job: Q8Panel<'_>) {
    // SAFETY: as above; lengths are checked here.
    unsafe {
        let total: usize = job.groups.iter().map(|&t| usize::from(t)).sum();
        assert!(job.out.len() >= total * PANEL && job.scratch.len() >= Q8Panel::SCRATCH);
        let packing = Packing::of(job.w.format);
        let fields = Fields::new(job.w);
        let blocks = job.w.cols / 32;
        let q = job.scratch.as_mut_ptr().cast::<u8>();
        let s = q.add(DEPTH * PANEL).cast::<f32>();
        let turned = Turned { q, s, m: s.add(SCALES) };
        let unpacked = s.add(2 * SCALES).cast::<u8>();
        for from in (0..blocks).step_by(DEPTH / 32) {
            let n = (blocks - from).min(DEPTH / 32);
            with_format!(job.w.format, Q => turn::<Q>(job.w, &fields, job.rows, from, n, &turned, unpacked));
            let mut x = job.x;
            let mut out = job.out.as_mut_ptr();
            for &t in job.groups {
                let t = usize::from(t);
                let tile = match (packing.halves, packing.minima) {
                    (false, false) => TILES[0][t - 1],
                    (false, true) => TILES[1][t - 1],
                    (true, false) => TILES[2][t - 1],
                    (true, true) => TILES[3][t - 1],
                };
                tile(&turned, x.add(t * packing.row_bytes(from)), n, out, from > 0);
                x = x.add(t * packing.row_bytes(blocks));
                out = out.add(t * PANEL);
            }
        }
    }
}

/// Unpacks and turns `n` blocks from block `from` on of a panel's rows; the last row stands in for missing ones.
///
/// # Safety
/// As for [`panel`]; the format is `Q`'s.
#[inline(always)]
unsafe fn turn<Q: Quant>(
    w: &Matrix<'_>,
    fields: &Fields,
    rows: (usize, usize),
    from: usize,
    n: usize,
    turned: &Turned,
    unpacked: *mut u8,
) {
    // SAFETY: as above.
    unsafe {
        let bytes = w.row_bytes();
        let (scales, minima) = (unpacked.add(16 * 256), unpacked.add(16 * 256 + 1024));
        for group in 0..PANEL / 16 {
            for c in 0..n.div_ceil(8) {
                let blocks = (n - c * 8).min(8);
                let chunk = from / 8 + c;
                for r in 0..16 {
                    let row = w.data.as_ptr().add((rows.0 + (group * 16 + r).min(rows.1 - 1)) * bytes);
                    let to = unpacked.add(r * 256);
                    if !Q::SMALL || blocks == 8 {
                        for pair in 0..4 {
                            _mm512_storeu_si512(to.add(pair * 64).cast(), Q::quants(fields, row, chunk, pair));
                        }
                    } else {
                        for pair in 0..blocks / 2 {
                            _mm512_storeu_si512(to.add(pair * 64).cast(), Q::quants(fields, row, chunk, pair));
                        }
                        if !blocks.is_multiple_of(2) {
                            let last = Q::last(fields, row, chunk * 8 + blocks - 1);
                            _mm512_storeu_si512(to.add((blocks - 1) * 32).cast(), last);
                        }
                    }
                    let (s, m) = Q::scales(fields, row, chunk, blocks);
                    _mm512_storeu_ps(scales.add(r * 64).cast(), s);
                    if Q::HALVES && Q::MINIMA {
                        _mm512_storeu_ps(minima.add(r * 64).cast(), m);
                    }
                }
                for pair in 0..blocks.div_ceil(2) {
                    let to = turned.q.add(((c * 4 + pair) * 16 * PANEL + group * 16) * 4);
                    transpose_words(unpacked.add(pair * 64), 256, to, PANEL * 4);
                }
                let at = c * 16 * PANEL + group * 16;
                transpose_words(scales, 64, turned.s.add(at).cast(), PANEL * 4);
                if Q::HALVES && Q::MINIMA {
                    transpose_words(minima, 64, turned.m.add(at).cast(), PANEL * 4);
                }
            }
        }
    }
}

type Tile = unsafe fn(&Turned, *const u8, usize, *mut f32, bool);

static TILES: [[Tile; GROUP]; 4] = [
    [
        tile::<1, false, false>,
        tile::<2, false, false>,
        tile::<3, false, false>,
        tile::<4, false, false>,
        tile::<5, false, false>,
        tile::<6, false, false>,
    ],
    [
        tile::<1, false, true>,
        tile::<2, false, true>,
        tile::<3, false, true>,
        tile::<4, false, true>,
        tile::<5, false, true>,
        tile::<6, false, true>,
    ],
    [
        tile::<1, true, false>,
        tile::<2, true, false>,
        tile::<3, true, false>,
        tile::<4, true, false>,
        tile::<5, true, false>,
        tile::<6, true, false>,
    ],
    [
        tile::<1, true, true>,
        tile::<2, true, true>,
        tile::<3, true, true>,
        tile::<4, true, true>,
        tile::<5, true, true>,
        tile::<6, true, true>,
    ],
];

/// Sets (or, with `more`, adds to) the products of a turned panel of `n` blocks and a packed group of `T` rows.
///
/// # Safety
/// As for [`panel`].
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn tile<const T: usize, const HALVES: bool, const MINIMA: bool>(
    turned: &Turned,
    mut x: *const u8,
    n: usize,
    out: *mut f32,
    more: bool,
) {
    // SAFETY: as above.
    unsafe {
        let halves = if HALVES { 2 } else { 1 };
        let mut acc = [[_mm512_setzero_ps(); 2]; T];
        if more {
            for t in 0..T {
                acc[t] = [_mm512_loadu_ps(out.add(t * PANEL)), _mm512_loadu_ps(out.add(t * PANEL + 16))];
            }
        }
        let mut q = turned.q.cast_const();
        for b in 0..n {
            let dx = x.add(T * 32).cast::<f32>();
            let words = x.add(T * 36).cast::<i32>();
            // Of this block's first half: eight blocks, or sixteen halves, are 16 * PANEL f32.
            let at = if HALVES { b * 2 * PANEL } else { (b / 8 * 16 + b % 8) * PANEL };
            for half in 0..halves {
                let mut dot = [[_mm512_setzero_si512(); 2]; T];
                if !MINIMA {
                    for t in 0..T {
                        dot[t] = [_mm512_set1_epi32(words.add(half * T + t).read_unaligned()); 2];
                    }
                }
                for step in 0..8 / halves {
                    let w = [_mm512_loadu_si512(q.cast()), _mm512_loadu_si512(q.add(64).cast())];
                    q = q.add(128);
                    for t in 0..T {
                        let x = x.add(t * 32 + half * 16 + step * 4).cast::<i32>();
                        let x = _mm512_set1_epi32(x.read_unaligned());
                        dot[t][0] = _mm512_dpbusd_epi32(dot[t][0], w[0], x);
                        dot[t][1] = _mm512_dpbusd_epi32(dot[t][1], w[1], x);
                    }
                }
                let s = turned.s.add(at + half * PANEL);
                let s = [_mm512_loadu_ps(s), _mm512_loadu_ps(s.add(16))];
                for t in 0..T {
                    let dx = _mm512_set1_ps(dx.add(t).read_unaligned());
                    for i in 0..2 {
                        acc[t][i] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot[t][i]), _mm512_mul_ps(s[i], dx), acc[t][i]);
                    }
                }
                if MINIMA {
                    let m = if HALVES { turned.m.add(at + half * PANEL) } else { turned.s.add(at + 8 * PANEL) };
                    let m = [_mm512_loadu_ps(m), _mm512_loadu_ps(m.add(16))];
                    for t in 0..T {
                        let word = _mm512_castsi512_ps(_mm512_set1_epi32(words.add(half * T + t).read_unaligned()));
                        for i in 0..2 {
                            acc[t][i] = _mm512_fmadd_ps(m[i], word, acc[t][i]);
                        }
                    }
                }
            }
            x = x.add(T * (36 + 4 * halves));
        }
        for t in 0..T {
            _mm512_storeu_ps(out.add(t * PANEL), acc[t][0]);
            _mm512_storeu_ps(out.add(t * PANEL + 16), acc[t][1]);
        }
    }
}
