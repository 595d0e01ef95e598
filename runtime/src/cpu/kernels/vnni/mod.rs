//! AVX-512 VNNI kernels for 8-bit activations: unsigned weights, `vpdpbusd`, f32 scales.

mod formats;
mod panel;

use super::fields::Fields;
use super::rows::{Q8Ptr, Q8Rows};
use formats::Quant;
use pleiad_models::Format;
use std::arch::x86_64::*;

pub(super) use panel::{GROUP, Line, Packing, Q8Panel, pack, panel};

/// Evaluates `$body` with `$q` the type that stands for a quantised format.
macro_rules! with_format {
    ($format:expr, $q:ident => $body:expr) => {
        match $format {
            Format::Q8_0 => with_format!(@ Q8_0, $q, $body),
            Format::Q4_0 => with_format!(@ Q4_0, $q, $body),
            Format::Q4_1 => with_format!(@ Q4_1, $q, $body),
            Format::Q5_0 => with_format!(@ Q5_0, $q, $body),
            Format::Q5_1 => with_format!(@ Q5_1, $q, $body),
            Format::Q2K => with_format!(@ Q2K, $q, $body),
            Format::Q3K => with_format!(@ Q3K, $q, $body),
            Format::Q4K => with_format!(@ Q4K, $q, $body),
            Format::Q5K => with_format!(@ Q5K, $q, $body),
            Format::Q6K => with_format!(@ Q6K, $q, $body),
            Format::IQ4NL => with_format!(@ IQ4NL, $q, $body),
            Format::IQ4XS => with_format!(@ IQ4XS, $q, $body),
            Format::MXFP4 => with_format!(@ MXFP4, $q, $body),
            format @ (Format::F32 | Format::F16 | Format::BF16 | Format::F8E4M3) => unreachable!("{format} has no blocks"),
        }
    };
    (@ $name:ident, $q:ident, $body:expr) => {{
        type $q = crate::cpu::kernels::vnni::formats::$name;
        $body
    }};
}
use with_format;

/// [`Q8Rows`] of any quantised format.
///
/// # Safety
/// The instruction set is there; the matrix has the rows and as many columns as the activations.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) unsafe fn rows(job: Q8Rows<'_>) {
    // SAFETY: as above.
    unsafe { with_format!(job.w.format, Q => by_batch::<Q>(job)) }
}

/// # Safety
/// As for [`rows`]; the format is `Q`'s.
#[inline(always)]
unsafe fn by_batch<Q: Quant>(job: Q8Rows<'_>) {
    // SAFETY: as above.
    unsafe {
        match job.x.len() {
            1 => by_group::<Q, 4, 1>(job),
            2 => by_group::<Q, 2, 2>(job),
            3 => by_group::<Q, 2, 3>(job),
            4 => by_group::<Q, 2, 4>(job),
            _ => {}
        }
    }
}

/// `R` rows of weights at a time by `T` rows of activations. In the last group rows may repeat.
///
/// # Safety
/// As for [`by_batch`].
#[inline(always)]
unsafe fn by_group<Q: Quant, const R: usize, const T: usize>(job: Q8Rows<'_>) {
    // SAFETY: as above; blocks stay within the row.
    unsafe {
        let fields = Fields::new(job.w);
        let bytes = job.w.row_bytes();
        let blocks = job.w.cols / 32;
        let first = job.w.data.as_ptr().add(job.rows.0 * bytes);
        let mut x = [job.x[0]; T];
        x.copy_from_slice(job.x);
        let mut i = 0;
        while i < job.rows.1 {
            let mut rows = [first; R];
            for r in 0..R {
                rows[r] = first.add((i + r).min(job.rows.1 - 1) * bytes);
            }
            let mut acc = [[_mm512_setzero_ps(); T]; R];
            for c in 0..blocks / 8 {
                // The next group's rows, at the same place.
                let ahead = bytes * R + bytes * c * 8 / blocks;
                for r in 0..R {
                    for line in 0..(bytes * 8 / blocks).div_ceil(64) {
                        _mm_prefetch(rows[r].wrapping_add(ahead + line * 64).cast(), _MM_HINT_T0);
                    }
                }
                whole::<Q, R, T>(&fields, &rows, &x, c, &mut acc);
            }
            if Q::SMALL && !blocks.is_multiple_of(8) {
                rest::<Q, R, T>(&fields, &rows, &x, blocks / 8, blocks % 8, &mut acc);
            }
            for t in 0..T {
                let mut v = [_mm512_setzero_ps(); 4];
                for r in 0..R {
                    v[r] = acc[r][t];
                }
                let n = R.min(job.rows.1 - i);
                job.out[t * job.stride + i..][..n].copy_from_slice(&sums(v)[..n]);
            }
            i += R;
        }
    }
}

/// What the scales of 256 weights are multiplied by, for one row of activations: `dx`, and `-dx * sum(x)`.
///
/// # Safety
/// The instruction set is there.
#[inline(always)]
unsafe fn factors<Q: Quant>(dx: __m256, sums: __m256i) -> (__m512, __m512) {
    // SAFETY: as above.
    unsafe {
        if Q::HALVES {
            let twice = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
            let dx = _mm512_permutexvar_ps(twice, _mm512_castps256_ps512(dx));
            if !Q::MINIMA {
                return (dx, dx);
            }
            let sums = _mm512_cvtepi32_ps(_mm512_cvtepi16_epi32(sums));
            (dx, _mm512_xor_ps(_mm512_mul_ps(dx, sums), _mm512_set1_ps(-0.0)))
        } else if Q::MINIMA {
            // Pairs of halves summed, negated.
            let sums = _mm256_cvtepi32_ps(_mm256_madd_epi16(sums, _mm256_set1_epi16(-1)));
            let v = _mm512_insertf32x8(_mm512_castps256_ps512(dx), _mm256_mul_ps(dx, sums), 1);
            (v, v)
        } else {
            let v = _mm512_zextps256_ps512(dx);
            (v, v)
        }
    }
}

/// `-ZERO * sum(x)` over the four bytes of each lane: where dot products begin, so that what is added to the weights
/// to make them unsigned is gone before anything is rounded.
///
/// # Safety
/// The instruction set is there.
#[inline(always)]
unsafe fn begin<Q: Quant>(x: __m512i) -> __m512i {
    // SAFETY: as above.
    unsafe {
        let zero = _mm512_setzero_si512();
        if Q::ZERO == 0 {
            return zero;
        }
        _mm512_sub_epi32(zero, _mm512_dpbusd_epi32(zero, _mm512_set1_epi8(Q::ZERO as u8 as i8), x))
    }
}

/// The sums of the lanes of four registers.
///
/// # Safety
/// The instruction set is there.
#[inline(always)]
unsafe fn sums(v: [__m512; 4]) -> [f32; 4] {
    // SAFETY: as above.
    unsafe {
        let ab = _mm512_add_ps(_mm512_unpacklo_ps(v[0], v[1]), _mm512_unpackhi_ps(v[0], v[1]));
        let cd = _mm512_add_ps(_mm512_unpacklo_ps(v[2], v[3]), _mm512_unpackhi_ps(v[2], v[3]));
        let (ab, cd) = (_mm512_castps_pd(ab), _mm512_castps_pd(cd));
        let low = _mm512_castpd_ps(_mm512_unpacklo_pd(ab, cd));
        let sum = _mm512_add_ps(low, _mm512_castpd_ps(_mm512_unpackhi_pd(ab, cd)));
        let sum = _mm256_add_ps(_mm512_castps512_ps256(sum), _mm512_extractf32x8_ps(sum, 1));
        let sum = _mm_add_ps(_mm256_castps256_ps128(sum), _mm256_extractf128_ps(sum, 1));
        let mut out = [0.0; 4];
        _mm_storeu_ps(out.as_mut_ptr(), sum);
        out
    }
}

/// Spreads the scales of pair `pair` over the lanes of its dot products.
///
/// # Safety
/// The instruction set is there.
#[inline(always)]
unsafe fn spread<Q: Quant>(scales: __m512, pair: usize) -> __m512 {
    // SAFETY: as above.
    unsafe {
        let lanes = if Q::HALVES {
            let lanes = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
            _mm512_add_epi32(lanes, _mm512_set1_epi32(4 * pair as i32))
        } else {
            let lanes = _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1);
            _mm512_add_epi32(lanes, _mm512_set1_epi32(2 * pair as i32))
        };
        _mm512_permutexvar_ps(lanes, scales)
    }
}

/// Adds what minima contribute.
///
/// # Safety
/// The instruction set is there.
#[inline(always)]
unsafe fn add_minima<Q: Quant>(acc: __m512, product: __m512, minima: __m512, factor: __m512) -> __m512 {
    // SAFETY: as above.
    unsafe {
        match (Q::MINIMA, Q::HALVES) {
            (false, _) => acc,
            (true, true) => _mm512_fmadd_ps(minima, factor, acc),
            (true, false) => _mm512_mask_add_ps(acc, 0xff00, acc, product),
        }
    }
}

/// Eight whole blocks of 32.
///
/// # Safety
/// As for [`by_group`].
#[inline(always)]
unsafe fn whole<Q: Quant, const R: usize, const T: usize>(
    fields: &Fields,
    rows: &[*const u8; R],
    x: &[Q8Ptr; T],
    c: usize,
    acc: &mut [[__m512; T]; R],
) {
    // SAFETY: as above.
    unsafe {
        let zero = _mm512_setzero_ps();
        let mut factor = [(zero, zero); T];
        let mut start = [[_mm512_setzero_si512(); 4]; T];
        for t in 0..T {
            let sums = _mm256_loadu_si256(x[t].sums.add(c * 16).cast());
            factor[t] = factors::<Q>(_mm256_loadu_ps(x[t].d.add(c * 8)), sums);
            for pair in 0..4 {
                start[t][pair] = begin::<Q>(_mm512_loadu_si512(x[t].q.add(c * 256 + pair * 64).cast()));
            }
        }
        for r in 0..R {
            let (s, m) = Q::scales(fields, rows[r], c, 8);
            let mut product = [zero; T];
            for t in 0..T {
                product[t] = _mm512_mul_ps(s, factor[t].0);
                acc[r][t] = add_minima::<Q>(acc[r][t], product[t], m, factor[t].1);
            }
            for pair in 0..4 {
                let w = Q::quants(fields, rows[r], c, pair);
                for t in 0..T {
                    let xs = _mm512_loadu_si512(x[t].q.add(c * 256 + pair * 64).cast());
                    let dot = _mm512_cvtepi32_ps(_mm512_dpbusd_epi32(start[t][pair], w, xs));
                    acc[r][t] = _mm512_fmadd_ps(dot, spread::<Q>(product[t], pair), acc[r][t]);
                }
            }
        }
    }
}

/// The last `n` blocks of 32, fewer than eight, of a format of such blocks.
///
/// # Safety
/// As for [`by_group`].
#[inline(always)]
unsafe fn rest<Q: Quant, const R: usize, const T: usize>(
    fields: &Fields,
    rows: &[*const u8; R],
    x: &[Q8Ptr; T],
    c: usize,
    n: usize,
    acc: &mut [[__m512; T]; R],
) {
    // SAFETY: as above.
    unsafe {
        let zero = _mm512_setzero_ps();
        for r in 0..R {
            let (s, m) = Q::scales(fields, rows[r], c, n);
            for t in 0..T {
                let sums = _mm256_maskz_loadu_epi16((1u32 << (2 * n)) as u16 - 1, x[t].sums.add(c * 16));
                let dx = _mm256_maskz_loadu_ps((1u16 << n) as u8 - 1, x[t].d.add(c * 8));
                let factor = factors::<Q>(dx, sums);
                let product = _mm512_mul_ps(s, factor.0);
                let mut sum = add_minima::<Q>(zero, product, m, factor.1);
                for pair in 0..n.div_ceil(2) {
                    let x = x[t].q.add(c * 256 + pair * 64);
                    let (w, xs) = if 2 * pair + 1 < n {
                        (Q::quants(fields, rows[r], c, pair), _mm512_loadu_si512(x.cast()))
                    } else {
                        let x = _mm512_zextsi256_si512(_mm256_loadu_si256(x.cast()));
                        (Q::last(fields, rows[r], c * 8 + 2 * pair), x)
                    };
                    let dot = _mm512_cvtepi32_ps(_mm512_dpbusd_epi32(begin::<Q>(xs), w, xs));
                    sum = _mm512_fmadd_ps(dot, spread::<Q>(product, pair), sum);
                }
                acc[r][t] = _mm512_add_ps(acc[r][t], sum);
            }
        }
    }
}

/// Blocks `8 * chunk..8 * chunk + blocks` of 32 of a row as f32.
///
/// # Safety
/// The instruction set is there; the row has the blocks and is of the format that the fields are of.
#[inline(always)]
pub(super) unsafe fn dequantise(
    format: Format,
    fields: &Fields,
    row: *const u8,
    chunk: usize,
    blocks: usize,
    out: &mut [f32; 256],
) {
    // SAFETY: as above.
    unsafe { with_format!(format, Q => weights::<Q>(fields, row, chunk, blocks, out)) }
}

/// # Safety
/// As for [`dequantise`]; the format is `Q`'s.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn weights<Q: Quant>(fields: &Fields, row: *const u8, chunk: usize, blocks: usize, out: &mut [f32; 256]) {
    // SAFETY: as above.
    unsafe {
        let (s, m) = Q::scales(fields, row, chunk, blocks);
        for pair in 0..4 {
            let v = if !Q::SMALL || pair * 2 + 1 < blocks {
                Q::quants(fields, row, chunk, pair)
            } else if pair * 2 < blocks {
                Q::last(fields, row, chunk * 8 + pair * 2)
            } else {
                return;
            };
            let v = _mm512_sub_epi8(v, _mm512_set1_epi8(Q::ZERO as u8 as i8));
            let quarters = [
                _mm512_castsi512_si128(v),
                _mm512_extracti32x4_epi32(v, 1),
                _mm512_extracti32x4_epi32(v, 2),
                _mm512_extracti32x4_epi32(v, 3),
            ];
            for (half, q) in quarters.into_iter().enumerate() {
                let lane = if Q::HALVES { pair * 4 + half } else { pair * 2 + half / 2 };
                let scale = _mm512_permutexvar_ps(_mm512_set1_epi32(lane as i32), s);
                let q = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(q));
                let w = if !Q::MINIMA {
                    _mm512_mul_ps(q, scale)
                } else if Q::HALVES {
                    _mm512_fmsub_ps(q, scale, _mm512_permutexvar_ps(_mm512_set1_epi32(lane as i32), m))
                } else {
                    _mm512_fmsub_ps(q, scale, _mm512_permutexvar_ps(_mm512_set1_epi32(lane as i32 + 8), s))
                };
                _mm512_storeu_ps(out.as_mut_ptr().add(pair * 64 + half * 16), w);
            }
        }
    }
}
