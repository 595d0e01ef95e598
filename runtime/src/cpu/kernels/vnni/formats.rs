//! What AVX-512 kernels see of the quantised formats: 64 unsigned bytes at a time, and the scales of 256 weights.

use super::super::fields::{Fields, iq4_scales, k4_scales, q3_scales, u16_at, u32_at};
use pleiad_models::blocks::{FP4_CODEBOOK, IQ4_CODEBOOK, e8m0_to_f32};
use std::arch::x86_64::*;

/// A quantised format: `w = s * (u - ZERO) - m`, with `u` an unsigned byte.
///
/// # Safety
///
/// Functions may be called where AVX-512 (F, BW, DQ, VL) is there, for blocks that the row has.
pub(super) trait Quant {
    /// What the unsigned quants are too large by; zero where there are minima.
    const ZERO: i32;
    /// Whether each 16 weights have their own scale (and minimum).
    const HALVES: bool;
    /// Whether there are minima.
    const MINIMA: bool;
    /// Whether blocks are of 32, so that a row may end within 256.
    const SMALL: bool = false;

    /// Scales of `n` blocks of 32, at most 8, from block `8 * chunk` on. With `HALVES`: 16 scales and 16 minima;
    /// without: 8 scales and after them 8 minima in the first register. The rest is zero.
    unsafe fn scales(f: &Fields, row: *const u8, chunk: usize, n: usize) -> (__m512, __m512);

    /// Blocks `8 * chunk + 2 * pair` and the one after it.
    unsafe fn quants(f: &Fields, row: *const u8, chunk: usize, pair: usize) -> __m512i;

    /// Block `block` alone, in the lower half; only called for formats of 32.
    #[inline(always)]
    unsafe fn last(_f: &Fields, _row: *const u8, _block: usize) -> __m512i {
        // SAFETY: the caller's.
        unsafe { _mm512_setzero_si512() }
    }
}

/// Bytes 0-31 twice.
#[inline(always)]
unsafe fn twice(p: *const u8) -> __m512i {
    // SAFETY: the caller's.
    unsafe { _mm512_broadcast_i64x4(_mm256_loadu_si256(p.cast())) }
}

/// 16-bit words of the lower half moved right by `low` bits, of the upper half by `high`.
#[inline(always)]
unsafe fn shift(v: __m512i, low: i16, high: i16) -> __m512i {
    // SAFETY: the caller's.
    unsafe { _mm512_srlv_epi16(v, _mm512_inserti64x4(_mm512_set1_epi16(low), _mm256_set1_epi16(high), 1)) }
}

#[inline(always)]
unsafe fn and(v: __m512i, mask: u8) -> __m512i {
    // SAFETY: the caller's.
    unsafe { _mm512_and_si512(v, _mm512_set1_epi8(mask as i8)) }
}

/// 16 bytes at each pointer: low nibbles of the first, its high ones, then those of the second; upper bits dirty.
#[inline(always)]
unsafe fn nibbles(a: *const u8, b: *const u8) -> __m512i {
    // SAFETY: the caller's.
    unsafe {
        let (a, b) = (_mm_loadu_si128(a.cast()), _mm_loadu_si128(b.cast()));
        let v = _mm512_inserti64x4(_mm512_castsi256_si512(_mm256_broadcastsi128_si256(a)), _mm256_broadcastsi128_si256(b), 1);
        _mm512_srlv_epi64(v, _mm512_setr_epi64(0, 0, 4, 4, 0, 0, 4, 4))
    }
}

/// [`nibbles`] of one block.
#[inline(always)]
unsafe fn nibbles_last(a: *const u8) -> __m512i {
    // SAFETY: the caller's.
    unsafe {
        let v = _mm512_zextsi256_si512(_mm256_broadcastsi128_si256(_mm_loadu_si128(a.cast())));
        _mm512_srlv_epi64(v, _mm512_setr_epi64(0, 0, 4, 4, 0, 0, 4, 4))
    }
}

/// The f16 at `offset` in the `d` field of `n` blocks.
#[inline(always)]
unsafe fn halves(f: &Fields, row: *const u8, chunk: usize, n: usize, offset: usize) -> __m256 {
    // SAFETY: the caller's.
    unsafe {
        let p = f.d.at(row, chunk * 8).add(offset);
        let step = f.d.at(row, 1).offset_from_unsigned(f.d.at(row, 0));
        let bits = if n == 8 {
            if step == 2 {
                _mm_loadu_si128(p.cast())
            } else {
                let pair = |i: usize| u64::from(u16_at(p.add(i * step))) | u64::from(u16_at(p.add((i + 1) * step))) << 16;
                let low = pair(0) | pair(2) << 32;
                let high = pair(4) | pair(6) << 32;
                _mm_set_epi64x(high as i64, low as i64)
            }
        } else {
            let (mut low, mut high) = (0u64, 0u64);
            for i in 0..n {
                let half = u64::from(u16_at(p.add(i * step)));
                if i < 4 {
                    low |= half << (16 * i);
                } else {
                    high |= half << (16 * (i - 4));
                }
            }
            _mm_set_epi64x(high as i64, low as i64)
        };
        _mm256_cvtph_ps(bits)
    }
}

/// [`Quant::scales`] of formats of 32 with one scale.
#[inline(always)]
unsafe fn plain(f: &Fields, row: *const u8, chunk: usize, n: usize) -> (__m512, __m512) {
    // SAFETY: the caller's.
    unsafe { (_mm512_zextps256_ps512(halves(f, row, chunk, n, 0)), _mm512_setzero_ps()) }
}

/// [`Quant::scales`] of formats of 32 with a scale and a minimum, which is added.
#[inline(always)]
unsafe fn with_minima(f: &Fields, row: *const u8, chunk: usize, n: usize) -> (__m512, __m512) {
    // SAFETY: the caller's.
    unsafe {
        let m = _mm256_xor_ps(halves(f, row, chunk, n, 2), _mm256_set1_ps(-0.0));
        (_mm512_insertf32x8(_mm512_castps256_ps512(halves(f, row, chunk, n, 0)), m, 1), _mm512_setzero_ps())
    }
}

/// [`Quant::scales`] of Q4_K and Q5_K.
#[inline(always)]
unsafe fn k4(f: &Fields, row: *const u8, chunk: usize) -> (__m512, __m512) {
    // SAFETY: the caller's.
    unsafe {
        let p = f.q.at(row, chunk);
        let (scales, minima) = k4_scales(p.add(4));
        let v = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_set_epi64x(minima as i64, scales as i64)));
        let d = _mm512_castps128_ps512(_mm_cvtph_ps(_mm_cvtsi32_si128(u32_at(p) as i32)));
        let d = _mm512_permutexvar_ps(_mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1), d);
        (_mm512_mul_ps(v, d), _mm512_setzero_ps())
    }
}

/// One half in every lane.
#[inline(always)]
unsafe fn half(bits: u16) -> __m512 {
    // SAFETY: the caller's.
    unsafe { _mm512_broadcastss_ps(_mm_cvtph_ps(_mm_cvtsi32_si128(i32::from(bits)))) }
}

/// The values of a codebook, `ZERO` added, in every 16 bytes.
#[inline(always)]
unsafe fn codebook(values: &[i8; 16], zero: i8) -> __m512i {
    // SAFETY: the caller's.
    unsafe { _mm512_add_epi8(_mm512_broadcast_i32x4(_mm_loadu_si128(values.as_ptr().cast())), _mm512_set1_epi8(zero)) }
}

pub(super) struct Q8_0;
pub(super) struct Q4_0;
pub(super) struct Q4_1;
pub(super) struct Q5_0;
pub(super) struct Q5_1;
pub(super) struct Q2K;
pub(super) struct Q3K;
pub(super) struct Q4K;
pub(super) struct Q5K;
pub(super) struct Q6K;
pub(super) struct IQ4NL;
pub(super) struct IQ4XS;
pub(super) struct MXFP4;

// SAFETY of the blocks below: the caller's.
impl Quant for Q8_0 {
    const ZERO: i32 = 128;
    const HALVES: bool = false;
    const MINIMA: bool = false;
    const SMALL: bool = true;
    #[inline(always)]
    unsafe fn scales(f: &Fields, row: *const u8, chunk: usize, n: usize) -> (__m512, __m512) {
        unsafe { plain(f, row, chunk, n) }
    }
    #[inline(always)]
    unsafe fn quants(f: &Fields, row: *const u8, chunk: usize, pair: usize) -> __m512i {
        unsafe {
            let b = chunk * 8 + pair * 2;
            let low = _mm512_castsi256_si512(_mm256_loadu_si256(f.q.at(row, b).cast()));
            let v = _mm512_inserti64x4(low, _mm256_loadu_si256(f.q.at(row, b + 1).cast()), 1);
            _mm512_xor_si512(v, _mm512_set1_epi8(i8::MIN))
        }
    }
    #[inline(always)]
    unsafe fn last(f: &Fields, row: *const u8, block: usize) -> __m512i {
        unsafe {
            let v = _mm512_zextsi256_si512(_mm256_loadu_si256(f.q.at(row, block).cast()));
            _mm512_xor_si512(v, _mm512_set1_epi8(i8::MIN))
        }
    }
}

/// Formats of 32 nibbles: the name, ZERO, minima or not, and what turns nibbles with dirty upper bits into quants.
macro_rules! nibble_format {
    ($name:ident, $zero:expr, $minima:expr, $scales:ident, $values:expr) => {
        impl Quant for $name {
            const ZERO: i32 = $zero;
            const HALVES: bool = false;
            const MINIMA: bool = $minima;
            const SMALL: bool = true;
            #[inline(always)]
            unsafe fn scales(f: &Fields, row: *const u8, chunk: usize, n: usize) -> (__m512, __m512) {
                unsafe { $scales(f, row, chunk, n) }
            }
            #[inline(always)]
            unsafe fn quants(f: &Fields, row: *const u8, chunk: usize, pair: usize) -> __m512i {
                unsafe {
                    let b = chunk * 8 + pair * 2;
                    let v = and(nibbles(f.q.at(row, b), f.q.at(row, b + 1)), 15);
                    $values(f, row, b, false, v)
                }
            }
            #[inline(always)]
            unsafe fn last(f: &Fields, row: *const u8, block: usize) -> __m512i {
                unsafe {
                    let v = and(nibbles_last(f.q.at(row, block)), 15);
                    $values(f, row, block, true, v)
                }
            }
        }
    };
}

#[inline(always)]
unsafe fn as_they_are(_f: &Fields, _row: *const u8, _block: usize, _last: bool, v: __m512i) -> __m512i {
    v
}

/// Adds the fifth bits of block `block` and, unless it is the last, of the one after it.
#[inline(always)]
unsafe fn fifth_bits(f: &Fields, row: *const u8, block: usize, last: bool, v: __m512i) -> __m512i {
    // SAFETY: the caller's.
    unsafe {
        let low = u64::from(u32_at(f.h.at(row, block)));
        let high = if last { 0 } else { u64::from(u32_at(f.h.at(row, block + 1))) };
        _mm512_mask_add_epi8(v, low | high << 32, v, _mm512_set1_epi8(16))
    }
}

#[inline(always)]
unsafe fn iq4_values(_f: &Fields, _row: *const u8, _block: usize, _last: bool, v: __m512i) -> __m512i {
    // SAFETY: the caller's.
    unsafe { _mm512_shuffle_epi8(codebook(&IQ4_CODEBOOK, 127), v) }
}

#[inline(always)]
unsafe fn fp4_values(_f: &Fields, _row: *const u8, _block: usize, _last: bool, v: __m512i) -> __m512i {
    // SAFETY: the caller's.
    unsafe { _mm512_shuffle_epi8(codebook(&FP4_CODEBOOK, 12), v) }
}

/// [`Quant::scales`] of MXFP4.
#[inline(always)]
unsafe fn e8m0(f: &Fields, row: *const u8, chunk: usize, n: usize) -> (__m512, __m512) {
    // SAFETY: the caller's.
    unsafe {
        let mut s = [0.0f32; 16];
        for (i, s) in s.iter_mut().enumerate().take(n) {
            *s = e8m0_to_f32(*f.d.at(row, chunk * 8 + i)) / 2.0;
        }
        (_mm512_loadu_ps(s.as_ptr()), _mm512_setzero_ps())
    }
}

nibble_format!(Q4_0, 8, false, plain, as_they_are);
nibble_format!(Q4_1, 0, true, with_minima, as_they_are);
nibble_format!(Q5_0, 16, false, plain, fifth_bits);
nibble_format!(Q5_1, 0, true, with_minima, fifth_bits);
nibble_format!(IQ4NL, 127, false, plain, iq4_values);
nibble_format!(MXFP4, 12, false, e8m0, fp4_values);

impl Quant for Q4K {
    const ZERO: i32 = 0;
    const HALVES: bool = false;
    const MINIMA: bool = true;
    #[inline(always)]
    unsafe fn scales(f: &Fields, row: *const u8, chunk: usize, _n: usize) -> (__m512, __m512) {
        unsafe { k4(f, row, chunk) }
    }
    #[inline(always)]
    unsafe fn quants(f: &Fields, row: *const u8, chunk: usize, pair: usize) -> __m512i {
        unsafe { and(shift(twice(f.q.at(row, chunk).add(16 + pair * 32)), 0, 4), 15) }
    }
}

impl Quant for Q5K {
    const ZERO: i32 = 0;
    const HALVES: bool = false;
    const MINIMA: bool = true;
    #[inline(always)]
    unsafe fn scales(f: &Fields, row: *const u8, chunk: usize, _n: usize) -> (__m512, __m512) {
        unsafe { k4(f, row, chunk) }
    }
    #[inline(always)]
    unsafe fn quants(f: &Fields, row: *const u8, chunk: usize, pair: usize) -> __m512i {
        unsafe {
            let p = f.q.at(row, chunk);
            let v = and(shift(twice(p.add(48 + pair * 32)), 0, 4), 15);
            let bits = _mm512_inserti64x4(_mm512_set1_epi8(1 << (2 * pair)), _mm256_set1_epi8((2u8 << (2 * pair)) as i8), 1);
            let fifth = _mm512_test_epi8_mask(twice(p.add(16)), bits);
            _mm512_mask_add_epi8(v, fifth, v, _mm512_set1_epi8(16))
        }
    }
}

impl Quant for Q6K {
    const ZERO: i32 = 32;
    const HALVES: bool = true;
    const MINIMA: bool = false;
    #[inline(always)]
    unsafe fn scales(f: &Fields, row: *const u8, chunk: usize, _n: usize) -> (__m512, __m512) {
        unsafe {
            let s = _mm_loadu_si128(f.q.at(row, chunk).add(192).cast());
            let s = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(s));
            (_mm512_mul_ps(s, half(u16_at(f.d.at(row, chunk)))), _mm512_setzero_ps())
        }
    }
    #[inline(always)]
    unsafe fn quants(f: &Fields, row: *const u8, chunk: usize, pair: usize) -> __m512i {
        unsafe {
            let p = f.q.at(row, chunk);
            let n = pair / 2;
            let low = _mm512_loadu_si512(p.add(64 * n).cast());
            let high = twice(p.add(128 + 32 * n));
            let (low, high) = if pair.is_multiple_of(2) {
                let left = _mm512_inserti64x4(_mm512_set1_epi16(4), _mm256_set1_epi16(2), 1);
                (low, _mm512_sllv_epi16(high, left))
            } else {
                (_mm512_srli_epi16(low, 4), shift(high, 0, 2))
            };
            // (low & 15) | (high & 48)
            _mm512_ternarylogic_epi64(and(low, 15), high, _mm512_set1_epi8(48), 0xf8)
        }
    }
}

impl Quant for Q2K {
    const ZERO: i32 = 0;
    const HALVES: bool = true;
    const MINIMA: bool = true;
    #[inline(always)]
    unsafe fn scales(f: &Fields, row: *const u8, chunk: usize, _n: usize) -> (__m512, __m512) {
        unsafe {
            let p = f.q.at(row, chunk);
            let v = _mm512_cvtepu8_epi32(_mm_loadu_si128(p.cast()));
            let s = _mm512_cvtepi32_ps(_mm512_and_si512(v, _mm512_set1_epi32(15)));
            let m = _mm512_cvtepi32_ps(_mm512_srli_epi32(v, 4));
            (_mm512_mul_ps(s, half(u16_at(p.add(80)))), _mm512_mul_ps(m, half(u16_at(p.add(82)))))
        }
    }
    #[inline(always)]
    unsafe fn quants(f: &Fields, row: *const u8, chunk: usize, pair: usize) -> __m512i {
        unsafe {
            let from = pair as i16 % 2 * 4;
            and(shift(twice(f.q.at(row, chunk).add(16 + pair / 2 * 32)), from, from + 2), 3)
        }
    }
}

impl Quant for Q3K {
    const ZERO: i32 = 4;
    const HALVES: bool = true;
    const MINIMA: bool = false;
    #[inline(always)]
    unsafe fn scales(f: &Fields, row: *const u8, chunk: usize, _n: usize) -> (__m512, __m512) {
        unsafe {
            let (low, high) = q3_scales(f.q.at(row, chunk).add(96));
            let s = _mm512_cvtepu8_epi32(_mm_set_epi64x(high as i64, low as i64));
            let s = _mm512_cvtepi32_ps(_mm512_sub_epi32(s, _mm512_set1_epi32(32)));
            (_mm512_mul_ps(s, half(u16_at(f.d.at(row, chunk)))), _mm512_setzero_ps())
        }
    }
    #[inline(always)]
    unsafe fn quants(f: &Fields, row: *const u8, chunk: usize, pair: usize) -> __m512i {
        unsafe {
            let p = f.q.at(row, chunk);
            let from = pair as i16 % 2 * 4;
            let v = and(shift(twice(p.add(32 + pair / 2 * 32)), from, from + 2), 3);
            let bits = _mm512_inserti64x4(_mm512_set1_epi8(1 << (2 * pair)), _mm256_set1_epi8((2u8 << (2 * pair)) as i8), 1);
            let third = _mm512_test_epi8_mask(twice(p), bits);
            _mm512_mask_add_epi8(v, third, v, _mm512_set1_epi8(4))
        }
    }
}

impl Quant for IQ4XS {
    const ZERO: i32 = 127;
    const HALVES: bool = false;
    const MINIMA: bool = false;
    #[inline(always)]
    unsafe fn scales(f: &Fields, row: *const u8, chunk: usize, _n: usize) -> (__m512, __m512) {
        unsafe {
            let p = f.q.at(row, chunk);
            let s = _mm_cvtsi64_si128(iq4_scales(u16_at(p.add(2)), u32_at(p.add(4))) as i64);
            let s = _mm256_sub_epi32(_mm256_cvtepu8_epi32(s), _mm256_set1_epi32(32));
            let s = _mm512_zextps256_ps512(_mm256_cvtepi32_ps(s));
            (_mm512_mul_ps(s, half(u16_at(p))), _mm512_setzero_ps())
        }
    }
    #[inline(always)]
    unsafe fn quants(f: &Fields, row: *const u8, chunk: usize, pair: usize) -> __m512i {
        unsafe {
            let p = f.q.at(row, chunk).add(8 + 32 * pair);
            _mm512_shuffle_epi8(codebook(&IQ4_CODEBOOK, 127), and(nibbles(p, p.add(16)), 15))
        }
    }
}
