//! Products of a panel of 16 rows by many rows of 8-bit activations with AVX2 or AVX-VNNI: the twin of
//! [`super::vnni`]'s panels.

use super::chunk::{CHUNK, Chunk, unpack};
use super::fields::Fields;
use super::panel::PANEL;
use super::simd::Simd;
use super::simd::avx2::Avx2;
use super::vnni::{Line, Packing, Q8Panel};
use pleiad_models::{Format, Matrix};
use std::arch::x86_64::*;

/// Most rows of activations of a group.
pub(crate) const GROUP: usize = 4;

/// Rows of a panel.
const ROWS: usize = 16;

/// Columns of a panel that are turned at a time: 32 KiB of quants.
const DEPTH: usize = 2048;

/// f32 of the scales (or minima) of a panel.
const SCALES: usize = DEPTH / 16 * ROWS;

// The scratch of the larger panels is enough.
const _: () = assert!(DEPTH * ROWS + 2 * SCALES * 4 + 8 * (CHUNK + 128) <= Q8Panel::SCRATCH * size_of::<Line>());

/// How bytes are multiplied: `vpdpbusd`.
const DPBUSD: u8 = 0;
/// Unsigned quants of at most six bits: two sums of two products fit 16 bits.
const SMALL: u8 = 1;
/// Signed quants.
const SIGNED: u8 = 2;

const fn mode(format: Format, vnni: bool) -> u8 {
    match format {
        _ if vnni => DPBUSD,
        Format::Q8_0 | Format::IQ4NL | Format::IQ4XS => SIGNED,
        _ => SMALL,
    }
}

/// Scratch of a panel.
struct Turned {
    /// `[columns / 4][ROWS][4]`.
    q: *mut u8,
    /// `[columns / 16][ROWS]`.
    s: *mut f32,
    /// As `s`.
    m: *mut f32,
}

/// Runs a [`Q8Panel`] of at most 16 rows.
///
/// # Safety
/// The instruction set is there; the matrix has the rows, and the packed activations are for its columns and format.
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) unsafe fn panel(job: Q8Panel<'_>) {
    // SAFETY: as above.
    unsafe { run::<false>(job) }
}

/// As [`panel`].
///
/// # Safety
/// As for [`panel`].
#[target_feature(enable = "avx2,fma,f16c,avxvnni")]
pub(crate) unsafe fn panel_vnni(job: Q8Panel<'_>) {
    // SAFETY: as above.
    unsafe { run::<true>(job) }
}

/// # Safety
/// As for [`panel`].
#[inline(always)]
unsafe fn run<const VNNI: bool>(job: Q8Panel<'_>) {
    // SAFETY: as above; lengths are checked here.
    unsafe {
        let total: usize = job.groups.iter().map(|&t| usize::from(t)).sum();
        assert!(job.out.len() >= total * PANEL && job.scratch.len() >= Q8Panel::SCRATCH && job.rows.1 <= ROWS);
        let format = job.w.format;
        let packing = Packing::of(format);
        let mode = mode(format, VNNI);
        let fields = Fields::new(job.w);
        let blocks = job.w.cols / 32;
        let q = job.scratch.as_mut_ptr().cast::<u8>();
        let s = q.add(DEPTH * ROWS).cast::<f32>();
        let turned = Turned { q, s, m: s.add(SCALES) };
        let unpacked = s.add(2 * SCALES).cast::<u8>();
        let zero = if mode == SIGNED { 0 } else { packing.zero() as u8 };
        for from in (0..blocks).step_by(DEPTH / 32) {
            let n = (blocks - from).min(DEPTH / 32);
            super::chunk::by_format!(format, f => turn(job.w, f, zero, &fields, job.rows, from, n, &turned, unpacked));
            let mut x = job.x;
            let mut out = job.out.as_mut_ptr();
            for &t in job.groups {
                let t = usize::from(t);
                let x_here = x.add(t * packing.row_bytes(from));
                match (mode, packing.halves(), packing.minima()) {
                    (DPBUSD, false, false) => by_size::<DPBUSD, false, false>(t, &turned, x_here, n, out, from > 0),
                    (DPBUSD, false, true) => by_size::<DPBUSD, false, true>(t, &turned, x_here, n, out, from > 0),
                    (DPBUSD, true, false) => by_size::<DPBUSD, true, false>(t, &turned, x_here, n, out, from > 0),
                    (DPBUSD, true, true) => by_size::<DPBUSD, true, true>(t, &turned, x_here, n, out, from > 0),
                    (SMALL, false, false) => by_size::<SMALL, false, false>(t, &turned, x_here, n, out, from > 0),
                    (SMALL, false, true) => by_size::<SMALL, false, true>(t, &turned, x_here, n, out, from > 0),
                    (SMALL, true, false) => by_size::<SMALL, true, false>(t, &turned, x_here, n, out, from > 0),
                    (SMALL, true, true) => by_size::<SMALL, true, true>(t, &turned, x_here, n, out, from > 0),
                    _ => by_size::<SIGNED, false, false>(t, &turned, x_here, n, out, from > 0),
                }
                x = x.add(t * packing.row_bytes(blocks));
                out = out.add(t * PANEL);
            }
        }
    }
}

/// Unpacks and turns `n` blocks from block `from` on of a panel's rows; the last row stands in for missing ones.
///
/// # Safety
/// As for [`panel`].
#[inline(always)]
#[allow(clippy::too_many_arguments, reason = "a step of `run`")]
unsafe fn turn(
    w: &Matrix<'_>,
    format: Format,
    zero: u8,
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
        let scales = unpacked.add(8 * CHUNK).cast::<f32>();
        let minima = scales.add(8 * 16);
        let mut chunk = Chunk::ZERO;
        for group in 0..ROWS / 8 {
            for c in 0..n.div_ceil(8) {
                let blocks = (n - c * 8).min(8);
                for r in 0..8 {
                    let row = w.data.as_ptr().add((rows.0 + (group * 8 + r).min(rows.1 - 1)) * bytes);
                    unpack::<Avx2<false>>(format, fields, row, from / 8 + c, blocks, &mut chunk);
                    for b in 0..8 {
                        let q = _mm256_load_si256(chunk.q.as_ptr().add(b * 32).cast());
                        let q = _mm256_add_epi8(q, _mm256_set1_epi8(zero as i8));
                        _mm256_storeu_si256(unpacked.add(r * CHUNK + b * 32).cast(), q);
                    }
                    scales.add(r * 16).cast::<[f32; 16]>().write(chunk.s);
                    minima.add(r * 16).cast::<[f32; 16]>().write(chunk.m);
                }
                for b in 0..blocks {
                    let to = turned.q.add(((c * 8 + b) * 8 * ROWS + group * 8) * 4);
                    <Avx2<false>>::transpose(unpacked.add(b * 32).cast(), CHUNK / 4, to.cast(), ROWS);
                }
                for half in [0, 8] {
                    let at = (c * 16 + half) * ROWS + group * 8;
                    <Avx2<false>>::transpose(scales.add(half), 16, turned.s.add(at), ROWS);
                    <Avx2<false>>::transpose(minima.add(half), 16, turned.m.add(at), ROWS);
                }
            }
        }
    }
}

/// [`tile`] for a group of `t` rows.
///
/// # Safety
/// As for [`tile`].
#[inline(always)]
unsafe fn by_size<const MODE: u8, const HALVES: bool, const MINIMA: bool>(
    t: usize,
    turned: &Turned,
    x: *const u8,
    n: usize,
    out: *mut f32,
    more: bool,
) {
    // SAFETY: as above.
    unsafe {
        match t {
            1 => tile::<1, MODE, HALVES, MINIMA>(turned, x, n, out, more),
            2 => tile::<2, MODE, HALVES, MINIMA>(turned, x, n, out, more),
            3 => tile::<3, MODE, HALVES, MINIMA>(turned, x, n, out, more),
            _ => tile::<4, MODE, HALVES, MINIMA>(turned, x, n, out, more),
        }
    }
}

/// Sets (or, with `more`, adds to) the products of a turned panel of `n` blocks and a packed group of `T` rows.
///
/// # Safety
/// As for [`panel`].
#[inline(always)]
unsafe fn tile<const T: usize, const MODE: u8, const HALVES: bool, const MINIMA: bool>(
    turned: &Turned,
    mut x: *const u8,
    n: usize,
    out: *mut f32,
    more: bool,
) {
    // SAFETY: as above.
    unsafe {
        let halves = if HALVES { 2 } else { 1 };
        let mut acc = [[_mm256_setzero_ps(); 2]; T];
        if more {
            for t in 0..T {
                acc[t] = [_mm256_loadu_ps(out.add(t * PANEL)), _mm256_loadu_ps(out.add(t * PANEL + 8))];
            }
        }
        let mut q = turned.q.cast_const();
        for b in 0..n {
            let dx = x.add(T * 32).cast::<f32>();
            let words = x.add(T * 36).cast::<i32>();
            for half in 0..halves {
                let mut dot = [[_mm256_setzero_si256(); 2]; T];
                if MODE != SIGNED && !MINIMA {
                    for t in 0..T {
                        dot[t] = [_mm256_set1_epi32(words.add(half * T + t).read_unaligned()); 2];
                    }
                }
                // Two steps of four columns.
                for two in 0..4 / halves {
                    let at = half * 16 + two * 8;
                    for i in 0..2 {
                        let w0 = _mm256_loadu_si256(q.add(i * 32).cast());
                        let w1 = _mm256_loadu_si256(q.add(i * 32 + ROWS * 4).cast());
                        let (a0, a1) = (_mm256_abs_epi8(w0), _mm256_abs_epi8(w1));
                        for t in 0..T {
                            let x = x.add(t * 32 + at).cast::<i32>();
                            let x0 = _mm256_set1_epi32(x.read_unaligned());
                            let x1 = _mm256_set1_epi32(x.add(1).read_unaligned());
                            let ones = _mm256_set1_epi16(1);
                            dot[t][i] = match MODE {
                                DPBUSD => _mm256_dpbusd_avx_epi32(_mm256_dpbusd_avx_epi32(dot[t][i], w0, x0), w1, x1),
                                SMALL => {
                                    let pairs = _mm256_add_epi16(_mm256_maddubs_epi16(w0, x0), _mm256_maddubs_epi16(w1, x1));
                                    _mm256_add_epi32(dot[t][i], _mm256_madd_epi16(pairs, ones))
                                }
                                _ => {
                                    let p0 = _mm256_maddubs_epi16(a0, _mm256_sign_epi8(x0, w0));
                                    let p1 = _mm256_maddubs_epi16(a1, _mm256_sign_epi8(x1, w1));
                                    let sum = _mm256_add_epi32(_mm256_madd_epi16(p0, ones), _mm256_madd_epi16(p1, ones));
                                    _mm256_add_epi32(dot[t][i], sum)
                                }
                            };
                        }
                    }
                    q = q.add(2 * ROWS * 4);
                }
                let at = (b * 2 + half) * ROWS;
                for i in 0..2 {
                    let s = _mm256_loadu_ps(turned.s.add(at + i * 8));
                    for t in 0..T {
                        let s = _mm256_mul_ps(s, _mm256_set1_ps(dx.add(t).read_unaligned()));
                        acc[t][i] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot[t][i]), s, acc[t][i]);
                    }
                    if MINIMA {
                        let m = _mm256_loadu_ps(turned.m.add(at + i * 8));
                        for t in 0..T {
                            let word = _mm256_set1_ps(words.cast::<f32>().add(half * T + t).read_unaligned());
                            acc[t][i] = _mm256_fmadd_ps(m, word, acc[t][i]);
                        }
                    }
                }
            }
            x = x.add(T * (36 + 4 * halves));
        }
        for t in 0..T {
            _mm256_storeu_ps(out.add(t * PANEL), acc[t][0]);
            _mm256_storeu_ps(out.add(t * PANEL + 8), acc[t][1]);
        }
    }
}
