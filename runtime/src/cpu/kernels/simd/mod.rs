//! Vectors of f32 of each instruction set behind one trait, so that most kernels are written once.
//!
//! A kernel is a value with a method that is generic over [`Simd`]; [`Isa::run`] calls it inside a function compiled
//! for the instruction set. Everything on the way is `#[inline(always)]`, so that the intrinsics end up as
//! single instructions.

#[cfg(target_arch = "x86_64")]
pub(super) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(super) mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
mod scalar;

use super::chunk::{CHUNK, Chunk, unpack};
use super::fields::Fields;
use super::isa::Isa;
use super::rows::Q8Ptr;
use pleiad_models::Format;

/// Registers of one instruction set.
///
/// # Safety
///
/// Methods may be called only where the instruction set is there; pointers must be good for what is read or written,
/// of any alignment.
pub(crate) trait Simd: Copy + 'static {
    /// A register of f32.
    type F: Copy;
    /// f32 a register; at most 16, a power of two.
    const LANES: usize;
    /// Every lane `x`.
    unsafe fn splat(x: f32) -> Self::F;
    /// `LANES` f32.
    unsafe fn load(p: *const f32) -> Self::F;
    /// Writes `LANES` f32.
    unsafe fn store(p: *mut f32, v: Self::F);
    /// `a * b + c`.
    unsafe fn fma(a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// `a + b`.
    unsafe fn add(a: Self::F, b: Self::F) -> Self::F;
    /// `a * b`.
    unsafe fn mul(a: Self::F, b: Self::F) -> Self::F;
    /// Sum of the lanes.
    unsafe fn sum(v: Self::F) -> f32;
    /// `LANES` halves as f32.
    unsafe fn f16(p: *const u8) -> Self::F;
    /// `LANES` bfloat16 as f32.
    unsafe fn bf16(p: *const u8) -> Self::F;
    /// `LANES` float8 (e4m3fn, finite) as f32, times 2^-8: half precision gives the same exponent bits that value.
    unsafe fn f8(p: *const u8) -> Self::F;
    /// One half as f32.
    unsafe fn half(bits: u16) -> f32;
    /// `acc` plus, spread over its lanes, `s[0] * (w[..16] . x[..16]) + s[1] * (w[16..32] . x[16..32])`. x is never -128.
    unsafe fn dot32(acc: Self::F, w: *const i8, x: *const i8, s: [f32; 2]) -> Self::F;
    /// Transposes `LANES` rows of `LANES` f32, `from` and `to` elements apart.
    #[inline(always)]
    unsafe fn transpose(src: *const f32, from: usize, dst: *mut f32, to: usize) {
        for r in 0..Self::LANES {
            for c in 0..Self::LANES {
                // SAFETY: both blocks are the caller's.
                unsafe { *dst.add(c * to + r) = *src.add(r * from + c) };
            }
        }
    }
    /// `acc` plus, spread over its lanes, the product of `n` blocks of a chunk with as many blocks of 8-bit activations:
    /// quants, scales, sums of half blocks.
    #[inline(always)]
    unsafe fn dot_chunk(mut acc: Self::F, w: &Chunk, minima: bool, n: usize, x: Q8Ptr) -> Self::F {
        let mut minus = 0.0;
        for b in 0..n {
            // SAFETY: the caller's: the activations have the blocks.
            unsafe {
                let d = *x.d.add(b);
                let s = [w.s[2 * b] * d, w.s[2 * b + 1] * d];
                acc = Self::dot32(acc, w.q.as_ptr().add(b * 32), x.q.add(b * 32), s);
                if minima {
                    let sums = [f32::from(*x.sums.add(2 * b)), f32::from(*x.sums.add(2 * b + 1))];
                    minus += d * (w.m[2 * b] * sums[0] + w.m[2 * b + 1] * sums[1]);
                }
            }
        }
        if minima {
            // SAFETY: the caller's.
            acc = unsafe { Self::add(acc, Self::splat(-minus / Self::LANES as f32)) };
        }
        acc
    }
    /// Blocks `8 * chunk..8 * chunk + blocks` of a row of a quantised matrix as f32.
    #[inline(always)]
    unsafe fn dequantise(format: Format, fields: &Fields, row: *const u8, chunk: usize, blocks: usize, out: &mut [f32; CHUNK]) {
        let mut unpacked = Chunk::ZERO;
        // SAFETY: the caller's.
        unsafe {
            unpack::<Self>(format, fields, row, chunk, blocks, &mut unpacked);
            unpacked.weights(blocks, out);
        }
    }
    /// Quantises a block of 32 as [`crate::q8`] says; returns its scale and the sums of its halves.
    #[inline(always)]
    unsafe fn quantise(x: &[f32; 32], quants: &mut [i8; 32]) -> (f32, [i16; 2]) {
        let amax = x.iter().fold(0.0f32, |m, v| m.max(v.abs()));
        let inverse = if amax > 0.0 { 127.0 / amax } else { 0.0 };
        for (q, x) in quants.iter_mut().zip(x) {
            *q = (x * inverse).round_ties_even() as i8;
        }
        let sum = |half: &[i8]| half.iter().map(|&q| i16::from(q)).sum();
        (amax / 127.0, [sum(&quants[..16]), sum(&quants[16..])])
    }
}

/// Something to be run with the registers of an instruction set.
pub(crate) trait Kernel {
    /// What it returns.
    type Output;
    /// Runs it; implementations are `#[inline(always)]`.
    ///
    /// # Safety
    ///
    /// The instruction set must be there.
    unsafe fn run<S: Simd>(self) -> Self::Output;
}

impl Isa {
    /// Runs `kernel` with this instruction set, which the machine must have.
    #[inline]
    pub(crate) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        // SAFETY: an `Isa` other than `Scalar` reaches kernels only through `Cpu`, which checks that it is available.
        unsafe {
            match self {
                #[cfg(target_arch = "x86_64")]
                Self::Avx512 => avx512::run(kernel),
                #[cfg(target_arch = "x86_64")]
                Self::Avx2Vnni => avx2::run_vnni(kernel),
                #[cfg(target_arch = "x86_64")]
                Self::Avx2 => avx2::run(kernel),
                #[cfg(target_arch = "aarch64")]
                Self::NeonDot => neon::run_dot(kernel),
                #[cfg(target_arch = "aarch64")]
                Self::Neon => neon::run(kernel),
                _ => kernel.run::<scalar::Scalar>(),
            }
        }
    }
}

/// Half precision from its bits, without branches.
#[inline(always)]
pub(crate) fn half_to_f32(bits: u16) -> f32 {
    let magnitude = u32::from(bits & 0x7fff) << 13;
    // Moves the exponent's bias from 15 to 127; exact for subnormals too.
    let value = f32::from_bits(magnitude) * f32::from_bits((254 - 15) << 23);
    let value = if magnitude >= 0x7c00 << 13 { f32::from_bits(magnitude | 0x7f80_0000) } else { value };
    f32::from_bits(value.to_bits() | u32::from(bits & 0x8000) << 16)
}

/// e^x to about one unit in the last place, written so that compilers turn loops of it into vectors. Below -87 the
/// result is e^-87; NaN stays NaN.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    const SHIFT: f32 = 12_582_912.0; // 1.5 * 2^23: adding it rounds to an integer, left in the low bits
    let x = if x < -87.0 { -87.0 } else { x };
    let x = if x > 88.0 { 88.0 } else { x };
    let shifted = x * std::f32::consts::LOG2_E + SHIFT;
    let n = shifted - SHIFT;
    // ln 2 in two parts, so that r is exact to the last bit.
    let r = (x - n * 0.693_359_4) - n * -2.121_944_4e-4;
    let p = 1.987_569_1e-4;
    let p = p * r + 1.398_199_9e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 1.666_666_5e-1;
    let p = p * r + 0.5;
    let p = p * (r * r) + r + 1.0;
    p * f32::from_bits((shifted.to_bits() << 23).wrapping_add(0x3f80_0000))
}

#[cfg(test)]
mod tests {
    #[test]
    fn half_precision_is_exact() {
        for bits in 0..=u16::MAX {
            let (ours, expected) = (super::half_to_f32(bits), half::f16::from_bits(bits).to_f32());
            assert!(ours == expected || ours.is_nan() && expected.is_nan(), "{bits:#x}: {ours} {expected}");
        }
    }

    #[test]
    fn exp_is_close() {
        for i in -86_000..88_000 {
            let x = i as f32 / 1000.0;
            let expected = f64::from(x).exp();
            assert!((f64::from(super::exp(x)) / expected - 1.0).abs() < 2.5e-7, "exp({x})");
        }
        assert!(super::exp(f32::NAN).is_nan());
        assert!(super::exp(f32::NEG_INFINITY) < 1e-37);
    }
}
