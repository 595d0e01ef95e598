//! Random blocks of every format, fast: random bits for the quants, and scales that give the
//! weights the wanted deviation.

use half::{bf16, f16};

use super::Values;
use crate::{Format, blocks::f8_to_f32};

/// Root mean square of what a block stores for a weight, over uniform bits.
const RMS_I8: f32 = 73.9;
/// Of 0..16, about its mean.
const RMS_4: f32 = 4.61;
/// Of -8..8.
const RMS_4_SIGNED: f32 = 4.637;
/// Of 0..32, about its mean.
const RMS_5: f32 = 9.233;
/// Of -16..16.
const RMS_5_SIGNED: f32 = 9.247;
/// Of -32..32: six-bit quants and scales.
const RMS_6_SIGNED: f32 = 18.48;
/// Of -4..4.
const RMS_3_SIGNED: f32 = 2.345;
/// Of 0..4, about its mean.
const RMS_2: f32 = 1.118;
/// Of the scales 32..64.
const RMS_SCALES_6: f32 = 48.39;
/// Of the scales 8..16.
const RMS_SCALES_4: f32 = 11.73;
/// Of the codebook of IQ4_NL and IQ4_XS.
const RMS_CODEBOOK: f32 = 67.44;
/// Of FP4's 0, 1, 2, 3, 4, 6, 8, 12.
const RMS_FP4: f32 = 5.852;

/// Of the codes of FP8: far from the largest, 448, and from the subnormals.
const RMS_F8: f32 = 64.0;

/// Draws of a normal distribution in a table that fits a core's cache.
const TABLE: usize = 1 << 14;

/// xoshiro256++ (Blackman, Vigna 2019).
pub(super) struct Random([u64; 4]);

impl Random {
    /// Seeds by splitmix64, as its authors advise.
    pub(super) fn new(mut seed: u64) -> Self {
        Self(std::array::from_fn(|_| {
            seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
            mix(seed)
        }))
    }

    #[inline]
    pub(super) fn next(&mut self) -> u64 {
        let s = &mut self.0;
        let out = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        out
    }

    /// In (0, 1).
    fn unit(&mut self) -> f64 {
        ((self.next() >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }

    /// Normally distributed (Box and Muller).
    fn normal(&mut self) -> f32 {
        ((-2.0 * self.unit().ln()).sqrt() * (std::f64::consts::TAU * self.unit()).cos()) as f32
    }
}

const fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// FNV-1a, mixed: a name's part of the seed.
pub(super) fn hash(bytes: &[u8]) -> u64 {
    mix(bytes.iter().fold(0xcbf2_9ce4_8422_2325, |h, &b| (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3)))
}

/// Makes the bytes of one tensor, from front to back.
pub(super) struct Fill {
    format: Format,
    random: Random,
    /// The bytes of each of the table's draws, for float formats.
    table: Vec<u8>,
    /// The scale as f16, positive and negative: a sign for each block cancels the mean of the uniform quants.
    d: [[u8; 2]; 2],
    /// The offset as f16, for formats that have one.
    m: [u8; 2],
    /// Packed scales and minima, for the formats of 4 and 5 bits in blocks of 256.
    packed: [[u8; 12]; 16],
    /// MXFP4: the smaller exponent, and how many of 2^32 blocks have the next.
    exponent: (u8, u64),
}

impl Fill {
    /// A mean of 1 is for float formats (norms are never quantised).
    pub(super) fn new(format: Format, values: Values, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let (mean, deviation) = match values {
            Values::Around0(d) => (0.0, d),
            Values::Around1(d) => (1.0, d),
        };
        let mut table = Vec::new();
        if !format.is_quantised() {
            for _ in 0..TABLE {
                let draw = random.normal();
                let x = mean + deviation * draw;
                match format {
                    Format::F8E4M3 => table.push(nearest_f8(RMS_F8 * draw)),
                    Format::F16 => table.extend(f16::from_f32(x).to_le_bytes()),
                    Format::BF16 => table.extend(bf16::from_f32(x).to_le_bytes()),
                    _ => table.extend(x.to_le_bytes()),
                }
            }
        }
        // (what the quants' and scales' root mean square is, the offset in units of the scale)
        let (rms, offset) = match format {
            Format::Q8_0 => (RMS_I8, 0.0),
            Format::Q4_0 => (RMS_4_SIGNED, 0.0),
            Format::Q4_1 => (RMS_4, -7.5),
            Format::Q5_0 => (RMS_5_SIGNED, 0.0),
            Format::Q5_1 => (RMS_5, -15.5),
            Format::Q2K => (RMS_2 * RMS_SCALES_4, 1.5),
            Format::Q3K => (RMS_3_SIGNED * RMS_6_SIGNED, 0.0),
            Format::Q4K => (RMS_4 * RMS_SCALES_6, 7.5),
            Format::Q5K => (RMS_5 * RMS_SCALES_6, 15.5),
            Format::Q6K => (RMS_6_SIGNED * RMS_I8, 0.0),
            Format::IQ4NL => (RMS_CODEBOOK, 0.0),
            Format::IQ4XS => (RMS_CODEBOOK * RMS_6_SIGNED, 0.0),
            Format::MXFP4 => (RMS_FP4, 0.0),
            Format::F32 | Format::F16 | Format::BF16 | Format::F8E4M3 => (1.0, 0.0),
        };
        let scale = deviation / rms;
        let half = |x: f32| f16::from_f32(x).to_le_bytes();
        // s = 2^(e - 128); a mixture of e and e + 1 has the wanted mean square.
        let e = scale.log2().floor();
        let share = ((scale / e.exp2()).powi(2) - 1.0) / 3.0;
        let exponent = ((e + 128.0).clamp(0.0, 253.0) as u8, (f64::from(share) * 2f64.powi(32)) as u64);
        let packed = std::array::from_fn(|_| pack_scales(std::array::from_fn(|_| 32 + (random.next() % 32) as u8)));
        Self { format, random, table, d: [half(scale), half(-scale)], m: half(offset * scale), packed, exponent }
    }

    /// Fills whole blocks.
    pub(super) fn fill(&mut self, out: &mut [u8]) {
        match self.format {
            Format::F16 | Format::BF16 => return self.look_up::<2>(out),
            Format::F32 => return self.look_up::<4>(out),
            Format::F8E4M3 => return self.look_up::<1>(out),
            Format::Q8_0 => self.bits(out, no_minus_128),
            _ => self.bits(out, |w| w),
        }
        let n = self.format.block_bytes();
        let (random, d, m) = (&mut self.random, self.d, self.m);
        // A random sign for each block.
        let put = |block: &mut [u8], at: usize, r: u64| block[at..at + 2].copy_from_slice(&d[(r >> 63) as usize]);
        for block in out.chunks_exact_mut(n) {
            let r = random.next();
            match self.format {
                Format::Q8_0 | Format::Q4_0 | Format::Q5_0 | Format::IQ4NL | Format::IQ4XS => put(block, 0, r),
                Format::Q4_1 | Format::Q5_1 => {
                    put(block, 0, 0);
                    block[2..4].copy_from_slice(&m);
                }
                Format::Q4K | Format::Q5K => {
                    put(block, 0, 0);
                    block[2..4].copy_from_slice(&m);
                    block[4..16].copy_from_slice(&self.packed[(r & 15) as usize]);
                }
                Format::Q6K => put(block, 208, r),
                Format::Q3K => put(block, 108, r),
                Format::Q2K => {
                    // Scale and minimum alike, 8 to 15.
                    block[..16].iter_mut().for_each(|b| *b = (*b & 7 | 8) * 0x11);
                    put(block, 80, 0);
                    block[82..84].copy_from_slice(&m);
                }
                Format::MXFP4 => block[0] = self.exponent.0 + u8::from(r >> 32 < self.exponent.1),
                Format::F32 | Format::F16 | Format::BF16 | Format::F8E4M3 => {}
            }
        }
    }

    /// Random bits, eight bytes at a time.
    fn bits(&mut self, out: &mut [u8], filter: impl Fn(u64) -> u64) {
        let (words, rest) = out.as_chunks_mut::<8>();
        for word in words {
            *word = filter(self.random.next()).to_le_bytes();
        }
        let last = filter(self.random.next()).to_le_bytes();
        rest.copy_from_slice(&last[..rest.len()]);
    }

    /// Draws from the table.
    fn look_up<const N: usize>(&mut self, out: &mut [u8]) {
        let table = self.table.as_chunks::<N>().0;
        let (values, _) = out.as_chunks_mut::<N>();
        for four in values.chunks_mut(4) {
            let mut r = self.random.next();
            for value in four {
                *value = table[(r as usize) % TABLE];
                r >>= 16;
            }
        }
    }
}

/// The scale with which codes of FP8 have the deviation.
pub(super) fn f8_scale(deviation: f32) -> f32 {
    deviation / RMS_F8
}

/// The code of FP8 whose value is nearest.
fn nearest_f8(x: f32) -> u8 {
    // Codes of positive values ascend.
    let magnitude = (0..0x7f).min_by(|&a, &b| (f8_to_f32(a) - x.abs()).abs().total_cmp(&(f8_to_f32(b) - x.abs()).abs()));
    magnitude.unwrap_or(0) | if x < 0.0 { 0x80 } else { 0 }
}

/// No byte of -128: quantisers never write it, and sign tricks may rely on that.
#[inline]
fn no_minus_128(word: u64) -> u64 {
    const LOW: u64 = 0x7f7f_7f7f_7f7f_7f7f;
    let t = word ^ !LOW;
    // The high bit of every byte of `t` that is 0.
    let zero = !(((t & LOW) + LOW) | t) & !LOW;
    word | zero >> 7
}

/// Eight 6-bit scales, and minima equal to them, as Q4_K and Q5_K pack them.
fn pack_scales(s: [u8; 8]) -> [u8; 12] {
    std::array::from_fn(|i| match i {
        0..8 => s[i % 4] | (s[i % 4 + 4] >> 4) << 6,
        _ => (s[i - 4] & 15) * 0x11,
    })
}
