//! AVX-512 F, BW, DQ, VL and VNNI.

use super::super::chunk::CHUNK;
use super::super::fields::Fields;
use super::super::vnni::dequantise;
use super::{Kernel, Simd};
use pleiad_models::Format;
use std::arch::x86_64::*;

#[derive(Clone, Copy)]
pub(crate) struct Avx512;

/// # Safety
/// The machine has AVX2, FMA, F16C and AVX-512 F, BW, DQ, VL and VNNI.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) unsafe fn run<K: Kernel>(kernel: K) -> K::Output {
    // SAFETY: the instruction set is there.
    unsafe { kernel.run::<Avx512>() }
}

/// Transposes 16 rows of 16 words, `from` and `to` bytes apart.
///
/// # Safety
/// The instruction set is there; the blocks are the caller's.
#[inline(always)]
pub(crate) unsafe fn transpose_words(src: *const u8, from: usize, dst: *mut u8, to: usize) {
    // SAFETY: as above.
    unsafe {
        for c in 0..4 {
            // Rows r, r + 4, r + 8, r + 12 in the quarters of a register: 4x4 blocks within the quarters remain.
            let mut v = [_mm512_setzero_si512(); 4];
            for (r, v) in v.iter_mut().enumerate() {
                let src = src.add(r * from + c * 16);
                *v = _mm512_castsi128_si512(_mm_loadu_si128(src.cast()));
                *v = _mm512_inserti32x4(*v, _mm_loadu_si128(src.add(4 * from).cast()), 1);
                *v = _mm512_inserti32x4(*v, _mm_loadu_si128(src.add(8 * from).cast()), 2);
                *v = _mm512_inserti32x4(*v, _mm_loadu_si128(src.add(12 * from).cast()), 3);
            }
            let (ab0, ab1) = (_mm512_unpacklo_epi32(v[0], v[1]), _mm512_unpackhi_epi32(v[0], v[1]));
            let (cd0, cd1) = (_mm512_unpacklo_epi32(v[2], v[3]), _mm512_unpackhi_epi32(v[2], v[3]));
            let dst = dst.add(c * 4 * to);
            _mm512_storeu_si512(dst.cast(), _mm512_unpacklo_epi64(ab0, cd0));
            _mm512_storeu_si512(dst.add(to).cast(), _mm512_unpackhi_epi64(ab0, cd0));
            _mm512_storeu_si512(dst.add(2 * to).cast(), _mm512_unpacklo_epi64(ab1, cd1));
            _mm512_storeu_si512(dst.add(3 * to).cast(), _mm512_unpackhi_epi64(ab1, cd1));
        }
    }
}

// SAFETY of every block below: the caller vouches for the instruction set and the pointers.
impl Simd for Avx512 {
    type F = __m512;
    const LANES: usize = 16;

    #[inline(always)]
    unsafe fn splat(x: f32) -> __m512 {
        unsafe { _mm512_set1_ps(x) }
    }

    #[inline(always)]
    unsafe fn load(p: *const f32) -> __m512 {
        unsafe { _mm512_loadu_ps(p) }
    }

    #[inline(always)]
    unsafe fn store(p: *mut f32, v: __m512) {
        unsafe { _mm512_storeu_ps(p, v) }
    }

    #[inline(always)]
    unsafe fn fma(a: __m512, b: __m512, c: __m512) -> __m512 {
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    unsafe fn add(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_add_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn mul(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_mul_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn sum(v: __m512) -> f32 {
        unsafe { _mm512_reduce_add_ps(v) }
    }

    #[inline(always)]
    unsafe fn f16(p: *const u8) -> __m512 {
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(p.cast())) }
    }

    #[inline(always)]
    unsafe fn bf16(p: *const u8) -> __m512 {
        unsafe { _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(p.cast())), 16)) }
    }

    #[inline(always)]
    unsafe fn f8(p: *const u8) -> __m512 {
        unsafe {
            let bits = _mm256_cvtepi8_epi16(_mm_loadu_si128(p.cast()));
            let magnitude = _mm256_slli_epi16(_mm256_and_si256(bits, _mm256_set1_epi16(0x7f)), 7);
            let half = _mm256_or_si256(magnitude, _mm256_and_si256(bits, _mm256_set1_epi16(i16::MIN)));
            _mm512_cvtph_ps(half)
        }
    }

    #[inline(always)]
    unsafe fn half(bits: u16) -> f32 {
        unsafe { _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(i32::from(bits)))) }
    }

    #[inline(always)]
    unsafe fn dot32(acc: __m512, w: *const i8, x: *const i8, s: [f32; 2]) -> __m512 {
        unsafe {
            let (w, x) = (_mm256_loadu_si256(w.cast()), _mm256_loadu_si256(x.cast()));
            let dot = _mm256_dpbusd_epi32(_mm256_setzero_si256(), _mm256_abs_epi8(w), _mm256_sign_epi8(x, w));
            let s = _mm256_insertf128_ps(_mm256_set1_ps(s[0]), _mm_set1_ps(s[1]), 1);
            let product = _mm256_mul_ps(_mm256_cvtepi32_ps(dot), s);
            _mm512_add_ps(acc, _mm512_zextps256_ps512(product))
        }
    }

    #[inline(always)]
    unsafe fn transpose(src: *const f32, from: usize, dst: *mut f32, to: usize) {
        unsafe { transpose_words(src.cast(), from * 4, dst.cast(), to * 4) }
    }

    #[inline(always)]
    unsafe fn dequantise(format: Format, fields: &Fields, row: *const u8, chunk: usize, blocks: usize, out: &mut [f32; CHUNK]) {
        unsafe { dequantise(format, fields, row, chunk, blocks, out) }
    }

    #[inline(always)]
    unsafe fn quantise(x: &[f32; 32], quants: &mut [i8; 32]) -> (f32, [i16; 2]) {
        unsafe {
            let v = [_mm512_loadu_ps(x.as_ptr()), _mm512_loadu_ps(x.as_ptr().add(16))];
            // The second operand is what a comparison with NaN gives.
            let most = _mm512_max_ps(_mm512_abs_ps(v[0]), _mm512_setzero_ps());
            let most = _mm512_max_ps(_mm512_abs_ps(v[1]), most);
            let m = _mm256_max_ps(_mm512_castps512_ps256(most), _mm512_extractf32x8_ps(most, 1));
            let m = _mm_max_ps(_mm256_castps256_ps128(m), _mm256_extractf128_ps(m, 1));
            let m = _mm_max_ps(m, _mm_movehl_ps(m, m));
            let amax = _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
            let inverse = _mm512_set1_ps(if amax > 0.0 { 127.0 / amax } else { 0.0 });
            let mut sums = [0i16; 2];
            for i in 0..2 {
                let v = _mm512_mul_ps(v[i], inverse);
                let number = _mm512_cmp_ps_mask(v, v, _CMP_ORD_Q);
                let v = _mm512_max_ps(_mm512_min_ps(v, _mm512_set1_ps(127.0)), _mm512_set1_ps(-128.0));
                let q = _mm512_cvtepi32_epi8(_mm512_maskz_cvtps_epi32(number, v));
                _mm_storeu_si128(quants.as_mut_ptr().add(16 * i).cast(), q);
                // Sums of eight bytes, made unsigned.
                let sum = _mm_sad_epu8(_mm_xor_si128(q, _mm_set1_epi8(i8::MIN)), _mm_setzero_si128());
                sums[i] = (_mm_cvtsi128_si32(_mm_add_epi64(sum, _mm_unpackhi_epi64(sum, sum))) - 16 * 128) as i16;
            }
            (amax / 127.0, sums)
        }
    }
}
