//! Up to 256 weights of a quantised row, unpacked: the road that every format and instruction set can take.
//!
//! The loops are plain; inside a kernel (see [`super::simd`]) the compiler turns them into vectors.

use super::fields::{Fields, iq4_scales, k4_scales, q3_scales, u16_at, u32_at};
use super::simd::Simd;
use pleiad_models::Format;
use pleiad_models::blocks::{FP4_CODEBOOK, IQ4_CODEBOOK, e8m0_to_f32};

/// Weights a chunk.
pub(crate) const CHUNK: usize = 256;

/// `w[i] = s[i / 16] * q[i] - m[i / 16]`.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Chunk {
    pub q: [i8; CHUNK],
    pub s: [f32; CHUNK / 16],
    pub m: [f32; CHUNK / 16],
}

impl Chunk {
    pub(crate) const ZERO: Self = Self { q: [0; CHUNK], s: [0.0; CHUNK / 16], m: [0.0; CHUNK / 16] };

    /// The weights of the first `blocks` blocks of 32.
    ///
    /// # Safety
    /// The instruction set is there.
    #[inline(always)]
    pub(crate) unsafe fn weights(&self, blocks: usize, out: &mut [f32; CHUNK]) {
        for half in 0..blocks * 2 {
            let (s, m) = (self.s[half], self.m[half]);
            for i in half * 16..half * 16 + 16 {
                out[i] = f32::from(self.q[i]) * s - m;
            }
        }
    }
}

/// Whether a format has minima.
pub(crate) const fn has_minima(format: Format) -> bool {
    matches!(format, Format::Q4_1 | Format::Q5_1 | Format::Q2K | Format::Q4K | Format::Q5K)
}

/// Evaluates `$body` with `$f` the quantised format as a constant, for every format in a branch of its own: what is
/// inlined into it loses the other formats' code.
macro_rules! by_format {
    ($format:expr, $f:ident => $body:expr) => {
        $crate::cpu::kernels::chunk::by_format!(@ $format, $f, $body, Q8_0 Q4_0 Q4_1 Q5_0 Q5_1 Q2K Q3K Q4K Q5K Q6K IQ4NL IQ4XS MXFP4)
    };
    (@ $format:expr, $f:ident, $body:expr, $($name:ident)*) => {
        match $format {
            $(pleiad_models::Format::$name => {
                let $f = pleiad_models::Format::$name;
                $body
            })*
            pleiad_models::Format::F32
            | pleiad_models::Format::F16
            | pleiad_models::Format::BF16
            | pleiad_models::Format::F8E4M3 => unreachable!("float formats have no blocks"),
        }
    };
}
pub(crate) use by_format;

/// Unpacks blocks `8 * chunk..8 * chunk + blocks` of 32 of a row of a quantised matrix.
///
/// # Safety
/// `row` is a row of the matrix that `fields` are of, its format is `format`, it has those blocks, and the
/// instruction set is there.
#[inline(always)]
pub(crate) unsafe fn unpack<S: Simd>(
    format: Format,
    fields: &Fields,
    row: *const u8,
    chunk: usize,
    blocks: usize,
    out: &mut Chunk,
) {
    // SAFETY: fields of blocks that the row has.
    unsafe {
        match format {
            Format::Q8_0 | Format::Q4_0 | Format::Q4_1 | Format::Q5_0 | Format::Q5_1 | Format::IQ4NL | Format::MXFP4 => {
                for b in 0..blocks {
                    let (q, d) = (fields.q.at(row, chunk * 8 + b), fields.d.at(row, chunk * 8 + b));
                    let w = &mut *out.q.as_mut_ptr().add(b * 32).cast::<[i8; 32]>();
                    match format {
                        Format::Q8_0 => *w = q.cast::<[i8; 32]>().read(),
                        Format::Q4_0 => nibbles(q, w, |q| q as i8 - 8),
                        Format::Q4_1 => nibbles(q, w, |q| q as i8),
                        Format::IQ4NL => nibbles(q, w, |q| IQ4_CODEBOOK[q as usize]),
                        Format::MXFP4 => nibbles(q, w, |q| FP4_CODEBOOK[q as usize]),
                        _ => {
                            let high = u32_at(fields.h.at(row, chunk * 8 + b));
                            nibbles(q, w, |q| q as i8);
                            let zero = if format == Format::Q5_0 { 16 } else { 0 };
                            for (i, w) in w.iter_mut().enumerate() {
                                *w = (*w | ((high >> i & 1) << 4) as i8) - zero;
                            }
                        }
                    }
                    let s = if format == Format::MXFP4 { e8m0_to_f32(*d) / 2.0 } else { S::half(u16_at(d)) };
                    let m = if has_minima(format) { -S::half(u16_at(d.add(2))) } else { 0.0 };
                    for half in 2 * b..2 * b + 2 {
                        out.s[half] = s;
                        out.m[half] = m;
                    }
                }
            }
            Format::Q4K | Format::Q5K => {
                let p = fields.q.at(row, chunk);
                let (d, dmin) = (S::half(u16_at(p)), S::half(u16_at(p.add(2))));
                let (scales, minima) = k4_scales(p.add(4));
                for half in 0..16 {
                    out.s[half] = d * f32::from((scales >> (half / 2 * 8)) as u8);
                    out.m[half] = dmin * f32::from((minima >> (half / 2 * 8)) as u8);
                }
                let five = format == Format::Q5K;
                let high = p.add(16).cast::<[u8; 32]>();
                let quants = p.add(if five { 48 } else { 16 }).cast::<[u8; 32]>();
                for pair in 0..4 {
                    let quants = quants.add(pair).read();
                    for i in 0..32 {
                        out.q[pair * 64 + i] = (quants[i] & 15) as i8;
                        out.q[pair * 64 + 32 + i] = (quants[i] >> 4) as i8;
                    }
                    if five {
                        let high = high.read();
                        for i in 0..32 {
                            out.q[pair * 64 + i] |= (high[i] >> (2 * pair) & 1) as i8 * 16;
                            out.q[pair * 64 + 32 + i] |= (high[i] >> (2 * pair + 1) & 1) as i8 * 16;
                        }
                    }
                }
            }
            Format::Q6K => {
                let p = fields.q.at(row, chunk);
                let d = S::half(u16_at(fields.d.at(row, chunk)));
                let scales = p.add(192).cast::<[i8; 16]>().read();
                for half in 0..16 {
                    out.s[half] = d * f32::from(scales[half]);
                    out.m[half] = 0.0;
                }
                for n in 0..2 {
                    let low = p.add(64 * n).cast::<[u8; 64]>().read();
                    let high = p.add(128 + 32 * n).cast::<[u8; 32]>().read();
                    for i in 0..32 {
                        let to = &mut out.q[128 * n + i..];
                        to[0] = (low[i] & 15 | (high[i] & 3) << 4) as i8 - 32;
                        to[32] = (low[i + 32] & 15 | (high[i] >> 2 & 3) << 4) as i8 - 32;
                        to[64] = (low[i] >> 4 | (high[i] >> 4 & 3) << 4) as i8 - 32;
                        to[96] = (low[i + 32] >> 4 | (high[i] >> 6) << 4) as i8 - 32;
                    }
                }
            }
            Format::Q2K | Format::Q3K => {
                let p = fields.q.at(row, chunk);
                let three = format == Format::Q3K;
                if three {
                    let d = S::half(u16_at(fields.d.at(row, chunk)));
                    let (low, high) = q3_scales(p.add(96));
                    for half in 0..16 {
                        let scale = (if half < 8 { low } else { high } >> (half % 8 * 8)) as u8;
                        out.s[half] = d * (f32::from(scale) - 32.0);
                        out.m[half] = 0.0;
                    }
                } else {
                    let (d, dmin) = (S::half(u16_at(p.add(80))), S::half(u16_at(p.add(82))));
                    for half in 0..16 {
                        let scale = *p.add(half);
                        out.s[half] = d * f32::from(scale & 15);
                        out.m[half] = dmin * f32::from(scale >> 4);
                    }
                }
                let mask = p.cast::<[u8; 32]>();
                let quants = p.add(if three { 32 } else { 16 });
                for block in 0..8 {
                    let quants = quants.add(block / 4 * 32).cast::<[u8; 32]>().read();
                    let to = &mut *out.q.as_mut_ptr().add(block * 32).cast::<[i8; 32]>();
                    for i in 0..32 {
                        to[i] = (quants[i] >> (block % 4 * 2) & 3) as i8;
                    }
                    if three {
                        let mask = mask.read();
                        for i in 0..32 {
                            to[i] += (mask[i] >> block & 1) as i8 * 4 - 4;
                        }
                    }
                }
            }
            Format::IQ4XS => {
                let p = fields.q.at(row, chunk);
                let d = S::half(u16_at(p));
                let scales = iq4_scales(u16_at(p.add(2)), u32_at(p.add(4)));
                for b in 0..8 {
                    let s = d * (f32::from((scales >> (8 * b)) as u8) - 32.0);
                    out.s[2 * b] = s;
                    out.s[2 * b + 1] = s;
                    let to = &mut *out.q.as_mut_ptr().add(b * 32).cast::<[i8; 32]>();
                    nibbles(p.add(8 + 16 * b), to, |q| IQ4_CODEBOOK[q as usize]);
                }
                out.m = [0.0; 16];
            }
            Format::F32 | Format::F16 | Format::BF16 | Format::F8E4M3 => {}
        }
    }
}

/// 16 bytes to 32 values: first the low nibbles, then the high ones.
///
/// # Safety
/// 16 bytes at `p` are readable.
#[inline(always)]
unsafe fn nibbles(p: *const u8, out: &mut [i8; 32], value: impl Fn(u8) -> i8) {
    // SAFETY: as above.
    let bytes = unsafe { p.cast::<[u8; 16]>().read() };
    for i in 0..16 {
        out[i] = value(bytes[i] & 15);
        out[i + 16] = value(bytes[i] >> 4);
    }
}
