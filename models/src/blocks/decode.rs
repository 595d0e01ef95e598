//! The bits of every quantised block, 32 weights at a time.
//!
//! Parts are a block's fields in the order of [`super::layout::planes`]; `sub` says which 32 of a block's 256
//! weights are meant. The layouts are ggml's.

use std::array::from_fn;

use super::{Block32, e8m0_to_f32, half_to_f32};
use crate::Format;

/// The values of IQ4_NL's and IQ4_XS's nibbles.
pub const IQ4_CODEBOOK: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// Twice the values of FP4 (e2m1): twice, so that they are integers.
pub const FP4_CODEBOOK: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// Decodes one `Block32`. Panics for float formats.
pub(super) fn block32(format: Format, parts: [&[u8]; 3], sub: usize) -> Block32 {
    let [a, b, c] = parts;
    match format {
        Format::Q8_0 => plain(bytes(a).map(|q| q as i8), half(b)),
        Format::Q4_0 => plain(nibbles(a).map(|q| q as i8 - 8), half(b)),
        Format::Q4_1 => with_minimum(nibbles(a), b),
        Format::Q5_0 => plain(five_bits(a, b).map(|q| q as i8 - 16), half(c)),
        Format::Q5_1 => with_minimum(five_bits(a, b), c),
        Format::IQ4NL => plain(nibbles(a).map(|q| IQ4_CODEBOOK[q as usize]), half(b)),
        Format::MXFP4 => plain(nibbles(a).map(|q| FP4_CODEBOOK[q as usize]), e8m0_to_f32(b[0]) / 2.0),
        Format::Q2K => q2_k(a, sub),
        Format::Q3K => q3_k(a, half(b), sub),
        Format::Q4K => k_scaled(k_nibbles(&a[16..], sub), a, sub),
        Format::Q5K => k_scaled(or(k_nibbles(&a[48..], sub), bits(bytes(&a[16..]), sub, 1), 4), a, sub),
        Format::Q6K => q6_k(a, half(b), sub),
        Format::IQ4XS => iq4_xs(a, sub),
        Format::F32 | Format::F16 | Format::BF16 | Format::F8E4M3 => panic!("{format} has no blocks of integers"),
    }
}

/// One scale, no minimum.
fn plain(q: [i8; 32], scale: f32) -> Block32 {
    Block32 { q, s: [scale; 2], m: [0.0; 2] }
}

/// f16 scale, then f16 minimum, which is added.
fn with_minimum(q: [u8; 32], scale_min: &[u8]) -> Block32 {
    Block32 { q: signed(q), s: [half(scale_min); 2], m: [-half(&scale_min[2..]); 2] }
}

/// The first two bytes as f16.
fn half(bytes: &[u8]) -> f32 {
    half_to_f32(u16::from_le_bytes([bytes[0], bytes[1]]))
}

fn signed(q: [u8; 32]) -> [i8; 32] {
    q.map(|q| q as i8)
}

/// The first `N` bytes.
fn bytes<const N: usize>(from: &[u8]) -> [u8; N] {
    let from = &from[..N];
    from_fn(|i| from[i])
}

/// `count` bits from bit `from` on of every byte.
fn bits<const N: usize>(bytes: [u8; N], from: usize, count: usize) -> [u8; N] {
    bytes.map(|byte| bits_of(byte, from, count))
}

fn bits_of(byte: u8, from: usize, count: usize) -> u8 {
    (byte >> from) & ((1 << count) - 1)
}

/// `low | high << shift`, one by one.
fn or(low: [u8; 32], high: [u8; 32], shift: usize) -> [u8; 32] {
    from_fn(|i| low[i] | high[i] << shift)
}

/// Blocks of 32: byte i holds weight i in its low nibble, weight i + 16 in its high one.
fn nibbles(quants: &[u8]) -> [u8; 32] {
    let quants: [u8; 16] = bytes(quants);
    from_fn(|i| bits_of(quants[i % 16], 4 * (i / 16), 4))
}

/// The nibbles, and bit i of the word of high bits as the fifth of weight i.
fn five_bits(quants: &[u8], high: &[u8]) -> [u8; 32] {
    let high = u32::from_le_bytes(bytes(high));
    or(nibbles(quants), from_fn(|i| (high >> i) as u8 & 1), 4)
}

/// Q4_K and Q5_K: 32 bytes hold two sub-blocks, the even one in the low nibbles.
fn k_nibbles(quants: &[u8], sub: usize) -> [u8; 32] {
    bits(bytes(&quants[sub / 2 * 32..]), 4 * (sub % 2), 4)
}

/// Q2_K, Q3_K and the high bits of Q6_K: 32 bytes hold four sub-blocks, two bits each.
fn k_pairs(quants: &[u8], sub: usize) -> [u8; 32] {
    bits(bytes(&quants[sub / 4 * 32..]), 2 * (sub % 4), 2)
}

/// Q4_K and Q5_K begin with f16 d, f16 dmin and 12 bytes of eight 6-bit scales and minima.
///
/// Scales 0-3 are the low six bits of bytes 0-3, minima 0-3 those of bytes 4-7. Scales and minima 4-7 have
/// their low nibbles in bytes 8-11 and their top two bits above scales and minima 0-3.
fn k_scaled(q: [u8; 32], block: &[u8], sub: usize) -> Block32 {
    let (d, dmin, packed) = (half(block), half(&block[2..]), &block[4..16]);
    let (scale, min) = if sub < 4 {
        (bits_of(packed[sub], 0, 6), bits_of(packed[sub + 4], 0, 6))
    } else {
        let (low, top_scale, top_min) = (packed[sub + 4], packed[sub - 4], packed[sub]);
        (bits_of(low, 0, 4) | bits_of(top_scale, 6, 2) << 4, bits_of(low, 4, 4) | bits_of(top_min, 6, 2) << 4)
    };
    Block32 { q: signed(q), s: [d * f32::from(scale); 2], m: [dmin * f32::from(min); 2] }
}

/// 16 bytes of scale (low nibble) and minimum (high nibble) for each 16 weights, 64 of quants, f16 d, f16 dmin.
fn q2_k(block: &[u8], sub: usize) -> Block32 {
    let (d, dmin) = (half(&block[80..]), half(&block[82..]));
    let scale_min: [u8; 2] = bytes(&block[2 * sub..]);
    Block32 {
        q: signed(k_pairs(&block[16..], sub)),
        s: bits(scale_min, 0, 4).map(|scale| d * f32::from(scale)),
        m: bits(scale_min, 4, 4).map(|min| dmin * f32::from(min)),
    }
}

/// 32 bytes of high bits, 64 of quants, 12 of sixteen 6-bit scales; d apart.
///
/// Where the high bit is clear 4 is subtracted. The scales' low nibbles are those of bytes 0-7, first the low
/// ones, then the high; their top two bits are in bytes 8-11, scale k's at bit `k / 4 * 2` of byte `8 + k % 4`.
fn q3_k(block: &[u8], d: f32, sub: usize) -> Block32 {
    let (high, quants, packed) = (&block[..32], &block[32..96], &block[96..108]);
    let scale = |k: usize| (bits_of(packed[k % 8], k / 8 * 4, 4) | bits_of(packed[8 + k % 4], k / 4 * 2, 2) << 4) as i8 - 32;
    Block32 {
        q: or(k_pairs(quants, sub), bits(bytes(high), sub, 1), 2).map(|q| q as i8 - 4),
        s: from_fn(|h| d * f32::from(scale(2 * sub + h))),
        m: [0.0; 2],
    }
}

/// 128 bytes of low nibbles, 64 of high pairs, 16 signed scales; d apart.
///
/// Each half of the block, 128 weights, has 64 bytes of nibbles (low nibbles: its first 64 weights) and 32 of
/// pairs (sub-block s of the half at bit 2s).
fn q6_k(block: &[u8], d: f32, sub: usize) -> Block32 {
    let (low, high, scales) = (&block[..128], &block[128..192], &block[192..208]);
    let low = bits(bytes(&low[sub / 4 * 64 + sub % 2 * 32..]), sub % 4 / 2 * 4, 4);
    Block32 {
        q: or(low, k_pairs(high, sub), 4).map(|q| q as i8 - 32),
        s: from_fn(|h| d * f32::from(scales[2 * sub + h] as i8)),
        m: [0.0; 2],
    }
}

/// f16 d, u16 of the scales' top pairs, 4 bytes of their low nibbles, 16 bytes of quants for each 32 weights.
fn iq4_xs(block: &[u8], sub: usize) -> Block32 {
    let (top, low) = (block[2 + sub / 4], block[4 + sub / 2]);
    let scale = (bits_of(low, sub % 2 * 4, 4) | bits_of(top, sub % 4 * 2, 2) << 4) as i8 - 32;
    let q = nibbles(&block[8 + sub * 16..]).map(|q| IQ4_CODEBOOK[q as usize]);
    plain(q, half(block) * f32::from(scale))
}
