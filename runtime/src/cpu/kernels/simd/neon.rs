//! NEON, with and without `sdot`.

use super::{Kernel, Simd};
use std::arch::aarch64::*;
use std::arch::asm;

#[derive(Clone, Copy)]
pub(crate) struct Neon<const DOT: bool>;

/// # Safety
/// The machine has NEON.
#[target_feature(enable = "neon")]
pub(super) unsafe fn run<K: Kernel>(kernel: K) -> K::Output {
    // SAFETY: the instruction set is there.
    unsafe { kernel.run::<Neon<false>>() }
}

/// # Safety
/// The machine has NEON and dotprod.
#[target_feature(enable = "neon,dotprod")]
pub(super) unsafe fn run_dot<K: Kernel>(kernel: K) -> K::Output {
    // SAFETY: the instruction set is there.
    unsafe { kernel.run::<Neon<true>>() }
}

/// Four halves as f32: `fcvtl`, part of the base instruction set, has no stable intrinsic.
#[inline(always)]
unsafe fn four_halves(bits: uint16x4_t) -> float32x4_t {
    let out: float32x4_t;
    // SAFETY: a pure instruction of the base set.
    unsafe {
        asm!("fcvtl {o:v}.4s, {i:v}.4h", o = lateout(vreg) out, i = in(vreg) bits, options(pure, nomem, nostack, preserves_flags));
    }
    out
}

/// The dot products of groups of four bytes.
#[inline(always)]
unsafe fn dot16<const DOT: bool>(w: int8x16_t, x: int8x16_t) -> int32x4_t {
    // SAFETY: `sdot` is there where `DOT`, by the caller's word.
    unsafe {
        if DOT {
            let mut out = vdupq_n_s32(0);
            asm!("sdot {o:v}.4s, {w:v}.16b, {x:v}.16b", o = inout(vreg) out, w = in(vreg) w, x = in(vreg) x,
                options(pure, nomem, nostack, preserves_flags));
            out
        } else {
            // -128 * 127 fits 16 bits; pairs are added in 32.
            let low = vmull_s8(vget_low_s8(w), vget_low_s8(x));
            vpadalq_s16(vpaddlq_s16(low), vmull_high_s8(w, x))
        }
    }
}

// SAFETY of every block below: the caller vouches for the instruction set and the pointers.
impl<const DOT: bool> Simd for Neon<DOT> {
    type F = float32x4_t;
    const LANES: usize = 4;

    #[inline(always)]
    unsafe fn splat(x: f32) -> float32x4_t {
        unsafe { vdupq_n_f32(x) }
    }

    #[inline(always)]
    unsafe fn load(p: *const f32) -> float32x4_t {
        unsafe { vld1q_f32(p) }
    }

    #[inline(always)]
    unsafe fn store(p: *mut f32, v: float32x4_t) {
        unsafe { vst1q_f32(p, v) }
    }

    #[inline(always)]
    unsafe fn fma(a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
        unsafe { vfmaq_f32(c, a, b) }
    }

    #[inline(always)]
    unsafe fn add(a: float32x4_t, b: float32x4_t) -> float32x4_t {
        unsafe { vaddq_f32(a, b) }
    }

    #[inline(always)]
    unsafe fn mul(a: float32x4_t, b: float32x4_t) -> float32x4_t {
        unsafe { vmulq_f32(a, b) }
    }

    #[inline(always)]
    unsafe fn sum(v: float32x4_t) -> f32 {
        unsafe { vaddvq_f32(v) }
    }

    #[inline(always)]
    unsafe fn f16(p: *const u8) -> float32x4_t {
        unsafe { four_halves(p.cast::<uint16x4_t>().read_unaligned()) }
    }

    #[inline(always)]
    unsafe fn bf16(p: *const u8) -> float32x4_t {
        unsafe { vreinterpretq_f32_u32(vshlq_n_u32::<16>(vmovl_u16(p.cast::<uint16x4_t>().read_unaligned()))) }
    }

    #[inline(always)]
    unsafe fn f8(p: *const u8) -> float32x4_t {
        unsafe {
            let bits = vcreate_u8(u64::from(p.cast::<u32>().read_unaligned()));
            let bits = vget_low_u16(vmovl_u8(bits));
            let magnitude = vshl_n_u16::<7>(vand_u16(bits, vdup_n_u16(0x7f)));
            let sign = vshl_n_u16::<8>(vand_u16(bits, vdup_n_u16(0x80)));
            four_halves(vorr_u16(magnitude, sign))
        }
    }

    #[inline(always)]
    unsafe fn half(bits: u16) -> f32 {
        unsafe { vgetq_lane_f32::<0>(four_halves(vdup_n_u16(bits))) }
    }

    #[inline(always)]
    unsafe fn dot32(acc: float32x4_t, w: *const i8, x: *const i8, s: [f32; 2]) -> float32x4_t {
        unsafe {
            let low = vcvtq_f32_s32(dot16::<DOT>(vld1q_s8(w), vld1q_s8(x)));
            let high = vcvtq_f32_s32(dot16::<DOT>(vld1q_s8(w.add(16)), vld1q_s8(x.add(16))));
            vfmaq_n_f32(vfmaq_n_f32(acc, low, s[0]), high, s[1])
        }
    }

    #[inline(always)]
    unsafe fn transpose(src: *const f32, from: usize, dst: *mut f32, to: usize) {
        unsafe {
            let row = |r: usize| vld1q_f32(src.add(r * from));
            let (a, b) = (vtrnq_f32(row(0), row(1)), vtrnq_f32(row(2), row(3)));
            vst1q_f32(dst, vcombine_f32(vget_low_f32(a.0), vget_low_f32(b.0)));
            vst1q_f32(dst.add(to), vcombine_f32(vget_low_f32(a.1), vget_low_f32(b.1)));
            vst1q_f32(dst.add(2 * to), vcombine_f32(vget_high_f32(a.0), vget_high_f32(b.0)));
            vst1q_f32(dst.add(3 * to), vcombine_f32(vget_high_f32(a.1), vget_high_f32(b.1)));
        }
    }
}
