//! The small float formats, one value at a time.

use half::{bf16, f16};

/// The largest finite e4m3fn value.
pub(super) const F8_MAX: f32 = 448.0;

/// IEEE half precision to f32, exact.
#[inline]
pub fn half_to_f32(bits: u16) -> f32 {
    f16::from_bits(bits).to_f32()
}

/// f32 to IEEE half precision, to nearest, ties to even; beyond 65504 (by rounding) infinity.
#[inline]
pub fn f32_to_half(x: f32) -> u16 {
    f16::from_f32(x).to_bits()
}

/// bfloat16 to f32, exact.
#[inline]
pub fn bf16_to_f32(bits: u16) -> f32 {
    bf16::from_bits(bits).to_f32()
}

/// f32 to bfloat16, to nearest, ties to even.
#[inline]
pub fn f32_to_bf16(x: f32) -> u16 {
    bf16::from_f32(x).to_bits()
}

/// float8 e4m3fn to f32, exact: bias 7, subnormals in steps of 2^-9, no infinity, NaN at 0x7f and 0xff
/// (Micikevicius et al., "FP8 formats for deep learning", 2022).
#[inline]
pub fn f8_to_f32(code: u8) -> f32 {
    F8_VALUES[code as usize]
}

static F8_VALUES: [f32; 256] = {
    let mut values = [0.0; 256];
    let mut code = 0;
    while code < 256 {
        let (exponent, mantissa) = ((code as u32 >> 3) & 15, code as u32 & 7);
        let magnitude = match (exponent, mantissa) {
            (15, 7) => f32::NAN,
            (0, _) => mantissa as f32 / 512.0,
            // f32's bias is 127, and its mantissa has 20 bits more.
            _ => f32::from_bits((exponent + 127 - 7) << 23 | mantissa << 20),
        };
        values[code] = if code < 128 { magnitude } else { -magnitude };
        code += 1;
    }
    values
};

/// e8m0, the scale of MXFP4: 2^(e - 127), and NaN at 255 (OCP Microscaling Formats v1.0, section 5.4.1).
///
/// ggml reads 255 as 2^128; no file should hold it, and [`super::Matrix::find_non_finite`] refuses it.
#[inline]
pub fn e8m0_to_f32(e: u8) -> f32 {
    match e {
        255 => f32::NAN,
        // 2^-127, the only subnormal.
        0 => f32::from_bits(0x0040_0000),
        _ => f32::from_bits(u32::from(e) << 23),
    }
}
