//! Plain Rust: eight f32 in an array.

use super::{Simd, half_to_f32};
use std::array::from_fn;

#[derive(Clone, Copy)]
pub(crate) struct Scalar;

impl Simd for Scalar {
    type F = [f32; 8];
    const LANES: usize = 8;

    #[inline(always)]
    unsafe fn splat(x: f32) -> [f32; 8] {
        [x; 8]
    }

    #[inline(always)]
    unsafe fn load(p: *const f32) -> [f32; 8] {
        // SAFETY: the caller's.
        unsafe { p.cast::<[f32; 8]>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn store(p: *mut f32, v: [f32; 8]) {
        // SAFETY: the caller's.
        unsafe { p.cast::<[f32; 8]>().write_unaligned(v) }
    }

    // Without the instruction a fused product is a slow function: two roundings here.
    #[inline(always)]
    unsafe fn fma(a: [f32; 8], b: [f32; 8], c: [f32; 8]) -> [f32; 8] {
        from_fn(|i| a[i] * b[i] + c[i])
    }

    #[inline(always)]
    unsafe fn add(a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        from_fn(|i| a[i] + b[i])
    }

    #[inline(always)]
    unsafe fn mul(a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        from_fn(|i| a[i] * b[i])
    }

    #[inline(always)]
    unsafe fn sum(v: [f32; 8]) -> f32 {
        ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]))
    }

    #[inline(always)]
    unsafe fn f16(p: *const u8) -> [f32; 8] {
        // SAFETY: the caller's.
        let bits = unsafe { p.cast::<[u16; 8]>().read_unaligned() };
        bits.map(half_to_f32)
    }

    #[inline(always)]
    unsafe fn bf16(p: *const u8) -> [f32; 8] {
        // SAFETY: the caller's.
        let bits = unsafe { p.cast::<[u16; 8]>().read_unaligned() };
        bits.map(|b| f32::from_bits(u32::from(b) << 16))
    }

    #[inline(always)]
    unsafe fn f8(p: *const u8) -> [f32; 8] {
        // SAFETY: the caller's.
        let bits = unsafe { p.cast::<[u8; 8]>().read_unaligned() };
        bits.map(|b| half_to_f32(u16::from(b & 0x7f) << 7 | u16::from(b & 0x80) << 8))
    }

    #[inline(always)]
    unsafe fn half(bits: u16) -> f32 {
        half_to_f32(bits)
    }

    #[inline(always)]
    unsafe fn dot32(mut acc: [f32; 8], w: *const i8, x: *const i8, s: [f32; 2]) -> [f32; 8] {
        for (half, s) in s.into_iter().enumerate() {
            // SAFETY: the caller's: 32 bytes each.
            let (w, x) = unsafe { (w.cast::<[i8; 16]>().add(half).read(), x.cast::<[i8; 16]>().add(half).read()) };
            let dot: i32 = (0..16).map(|i| i32::from(w[i]) * i32::from(x[i])).sum();
            acc[half * 4] += s * dot as f32;
        }
        acc
    }
}
