//! AVX2 with FMA and F16C, and with AVX-VNNI.

use super::super::chunk::Chunk;
use super::super::rows::Q8Ptr;
use super::{Kernel, Simd};
use std::arch::x86_64::*;

#[derive(Clone, Copy)]
pub(crate) struct Avx2<const VNNI: bool>;

/// # Safety
/// The machine has AVX2, FMA and F16C.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn run<K: Kernel>(kernel: K) -> K::Output {
    // SAFETY: the instruction set is there.
    unsafe { kernel.run::<Avx2<false>>() }
}

/// # Safety
/// The machine has AVX2, FMA, F16C and AVX-VNNI.
#[target_feature(enable = "avx2,fma,f16c,avxvnni")]
pub(super) unsafe fn run_vnni<K: Kernel>(kernel: K) -> K::Output {
    // SAFETY: the instruction set is there.
    unsafe { kernel.run::<Avx2<true>>() }
}

// SAFETY of every block below: the caller vouches for the instruction set and the pointers.
impl<const VNNI: bool> Simd for Avx2<VNNI> {
    type F = __m256;
    const LANES: usize = 8;

    #[inline(always)]
    unsafe fn splat(x: f32) -> __m256 {
        unsafe { _mm256_set1_ps(x) }
    }

    #[inline(always)]
    unsafe fn load(p: *const f32) -> __m256 {
        unsafe { _mm256_loadu_ps(p) }
    }

    #[inline(always)]
    unsafe fn store(p: *mut f32, v: __m256) {
        unsafe { _mm256_storeu_ps(p, v) }
    }

    #[inline(always)]
    unsafe fn fma(a: __m256, b: __m256, c: __m256) -> __m256 {
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    unsafe fn add(a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_add_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn mul(a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_mul_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn sum(v: __m256) -> f32 {
        unsafe {
            let v = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
            let v = _mm_add_ps(v, _mm_movehl_ps(v, v));
            _mm_cvtss_f32(_mm_add_ss(v, _mm_movehdup_ps(v)))
        }
    }

    #[inline(always)]
    unsafe fn f16(p: *const u8) -> __m256 {
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(p.cast())) }
    }

    #[inline(always)]
    unsafe fn bf16(p: *const u8) -> __m256 {
        unsafe { _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(p.cast())), 16)) }
    }

    #[inline(always)]
    unsafe fn f8(p: *const u8) -> __m256 {
        unsafe {
            let bits = _mm_cvtepi8_epi16(_mm_loadl_epi64(p.cast()));
            let magnitude = _mm_slli_epi16(_mm_and_si128(bits, _mm_set1_epi16(0x7f)), 7);
            let half = _mm_or_si128(magnitude, _mm_and_si128(bits, _mm_set1_epi16(i16::MIN)));
            _mm256_cvtph_ps(half)
        }
    }

    #[inline(always)]
    unsafe fn half(bits: u16) -> f32 {
        unsafe { _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(i32::from(bits)))) }
    }

    #[inline(always)]
    unsafe fn dot32(acc: __m256, w: *const i8, x: *const i8, s: [f32; 2]) -> __m256 {
        unsafe {
            let s = _mm256_insertf128_ps(_mm256_set1_ps(s[0]), _mm_set1_ps(s[1]), 1);
            _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot::<VNNI>(w, x)), s, acc)
        }
    }

    #[inline(always)]
    unsafe fn transpose(src: *const f32, from: usize, dst: *mut f32, to: usize) {
        unsafe {
            // Two rows four apart in the halves of a register, then 4x4 blocks within the halves.
            for c in [0, 4] {
                let mut v = [_mm256_setzero_ps(); 4];
                for (r, v) in v.iter_mut().enumerate() {
                    let low = _mm256_castps128_ps256(_mm_loadu_ps(src.add(r * from + c)));
                    *v = _mm256_insertf128_ps(low, _mm_loadu_ps(src.add((r + 4) * from + c)), 1);
                }
                let [a, b, d, e] = v;
                let (ab0, ab1) = (_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
                let (de0, de1) = (_mm256_unpacklo_ps(d, e), _mm256_unpackhi_ps(d, e));
                _mm256_storeu_ps(dst.add(c * to), _mm256_shuffle_ps(ab0, de0, 0x44));
                _mm256_storeu_ps(dst.add((c + 1) * to), _mm256_shuffle_ps(ab0, de0, 0xee));
                _mm256_storeu_ps(dst.add((c + 2) * to), _mm256_shuffle_ps(ab1, de1, 0x44));
                _mm256_storeu_ps(dst.add((c + 3) * to), _mm256_shuffle_ps(ab1, de1, 0xee));
            }
        }
    }

    #[inline(always)]
    unsafe fn dot_chunk(mut acc: __m256, w: &Chunk, minima: bool, n: usize, x: Q8Ptr) -> __m256 {
        unsafe {
            let zero = _mm256_setzero_ps();
            for four in 0..n.div_ceil(4) {
                // Eight half blocks; the scales of those that do not exist become zero.
                let blocks = (n - four * 4).min(4);
                let there = _mm_cmpgt_epi32(_mm_set1_epi32(blocks as i32), _mm_setr_epi32(0, 1, 2, 3));
                let dx = _mm256_castps128_ps256(_mm_maskload_ps(x.d.add(four * 4), there));
                let dx = _mm256_permutevar8x32_ps(dx, _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3));
                let s = _mm256_mul_ps(_mm256_loadu_ps(w.s.as_ptr().add(four * 8)), dx);
                for b in 0..blocks {
                    let at = (four * 4 + b) * 32;
                    let dot = dot::<VNNI>(w.q.as_ptr().add(at), x.q.add(at));
                    let lanes = _mm256_add_epi32(_mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1), _mm256_set1_epi32(2 * b as i32));
                    acc = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), _mm256_permutevar8x32_ps(s, lanes), acc);
                }
                if minima {
                    let sums = x.sums.add(four * 8);
                    let sums = if blocks == 4 {
                        _mm_loadu_si128(sums.cast())
                    } else {
                        let mut some = [0i16; 8];
                        sums.copy_to_nonoverlapping(some.as_mut_ptr(), 2 * blocks);
                        _mm_loadu_si128(some.as_ptr().cast())
                    };
                    let sums = _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(sums)), dx);
                    let m = _mm256_loadu_ps(w.m.as_ptr().add(four * 8));
                    // What lies beyond the last block may be anything; its sums are zero.
                    let m = _mm256_and_ps(m, _mm256_cmp_ps(dx, zero, _CMP_NEQ_UQ));
                    acc = _mm256_fnmadd_ps(m, sums, acc);
                }
            }
            acc
        }
    }

    #[inline(always)]
    unsafe fn quantise(x: &[f32; 32], quants: &mut [i8; 32]) -> (f32, [i16; 2]) {
        unsafe {
            let sign = _mm256_set1_ps(-0.0);
            let mut v = [_mm256_setzero_ps(); 4];
            // The second operand is what a comparison with NaN gives.
            let mut most = _mm256_setzero_ps();
            for i in 0..4 {
                v[i] = _mm256_loadu_ps(x.as_ptr().add(8 * i));
                most = _mm256_max_ps(_mm256_andnot_ps(sign, v[i]), most);
            }
            let m = _mm_max_ps(_mm256_castps256_ps128(most), _mm256_extractf128_ps(most, 1));
            let m = _mm_max_ps(m, _mm_movehl_ps(m, m));
            let amax = _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
            let inverse = _mm256_set1_ps(if amax > 0.0 { 127.0 / amax } else { 0.0 });
            let mut q = [_mm256_setzero_si256(); 4];
            for i in 0..4 {
                let v = _mm256_mul_ps(v[i], inverse);
                let number = _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_ORD_Q));
                let v = _mm256_max_ps(_mm256_min_ps(v, _mm256_set1_ps(127.0)), _mm256_set1_ps(-128.0));
                q[i] = _mm256_and_si256(_mm256_cvtps_epi32(v), number);
            }
            let words = [_mm256_packs_epi32(q[0], q[1]), _mm256_packs_epi32(q[2], q[3])];
            let bytes = _mm256_packs_epi16(words[0], words[1]);
            let bytes = _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
            _mm256_storeu_si256(quants.as_mut_ptr().cast(), bytes);
            // Sums of eight bytes, made unsigned.
            let sums = _mm256_sad_epu8(_mm256_xor_si256(bytes, _mm256_set1_epi8(i8::MIN)), _mm256_setzero_si256());
            let sums = _mm256_add_epi64(sums, _mm256_unpackhi_epi64(sums, sums));
            let low = _mm_cvtsi128_si32(_mm256_castsi256_si128(sums)) - 16 * 128;
            let high = _mm_cvtsi128_si32(_mm256_extracti128_si256(sums, 1)) - 16 * 128;
            (amax / 127.0, [low as i16, high as i16])
        }
    }
}

/// The dot products of groups of four bytes: |w| * (x with w's sign); 128 * 127 * 2 fits 16 bits.
///
/// # Safety
/// The instruction set is there; 32 bytes each are readable.
#[inline(always)]
unsafe fn dot<const VNNI: bool>(w: *const i8, x: *const i8) -> __m256i {
    // SAFETY: as above.
    unsafe {
        let (w, x) = (_mm256_loadu_si256(w.cast()), _mm256_loadu_si256(x.cast()));
        let (w, x) = (_mm256_abs_epi8(w), _mm256_sign_epi8(x, w));
        if VNNI {
            _mm256_dpbusd_avx_epi32(_mm256_setzero_si256(), w, x)
        } else {
            _mm256_madd_epi16(_mm256_maddubs_epi16(w, x), _mm256_set1_epi16(1))
        }
    }
}
