//! Random numbers and random weights, the same everywhere.

use half::f16;
use pleiad_models::{Bytes, Format, Tensor};

/// A xorshift generator: the same numbers everywhere.
pub struct Rng(u64);

impl Rng {
    /// The generator of that seed.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// 53 random bits.
    #[expect(clippy::should_implement_trait, reason = "it never ends")]
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11
    }

    /// 0 to `n`, without it.
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// -1 to 1.
    pub fn unit(&mut self) -> f32 {
        (self.next() % (1 << 24)) as f32 / (1 << 23) as f32 - 1.0
    }

    /// So many numbers from -1 to 1.
    pub fn vector(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.unit()).collect()
    }

    /// Rows of widely differing magnitudes, one of zeros among them.
    pub fn rows(&mut self, rows: usize, width: usize) -> Vec<f32> {
        let mut out = Vec::with_capacity(rows * width);
        for r in 0..rows {
            let scale = [1.0, 1e-3, 30.0, 0.0, 1.0, 1e3][if rows > 3 { r % 6 } else { 0 }];
            out.extend((0..width).map(|_| self.unit() * scale));
        }
        out
    }

    /// A permutation of `0..n`.
    pub fn permutation(&mut self, n: usize) -> Vec<u32> {
        let mut all: Vec<u32> = (0..n as u32).collect();
        for i in (1..n).rev() {
            all.swap(i, self.below(i + 1));
        }
        all
    }
}

/// What weights are drawn from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weights {
    /// Quants and scales as they come.
    Random,
    /// Small whole numbers times a power of two, so that products with whole numbers have exact sums in any order.
    Exact,
}

/// A tensor of random weights in that format, as a file would hold it.
pub fn tensor(rng: &mut Rng, format: Format, count: usize, rows: usize, cols: usize) -> Tensor {
    tensor_of(rng, Weights::Random, format, count, rows, cols)
}

/// The same of weights of that kind.
pub fn tensor_of(rng: &mut Rng, weights: Weights, format: Format, count: usize, rows: usize, cols: usize) -> Tensor {
    let exact = weights == Weights::Exact;
    let (len, bytes) = format.block();
    let blocks = count * rows * cols / len;
    assert_eq!(blocks * len, count * rows * cols, "{format} cannot have {cols} columns");
    let mut data = Vec::with_capacity(blocks * bytes);
    for _ in 0..blocks {
        let mut block: Vec<u8> = (0..bytes).map(|_| rng.next() as u8).collect();
        let mut half = |at: usize, x: f32| block[at..at + 2].copy_from_slice(&f16::from_f32(x).to_le_bytes());
        let (d, m) = (0.002 + 0.01 * rng.unit().abs(), 0.01 * rng.unit());
        // Powers of two, and minima in the same unit.
        let (d, m) = if exact { (0.0078125, 0.0078125) } else { (d, m) };
        let value = if exact { rng.below(17) as f32 - 8.0 } else { rng.unit() * 0.3 };
        match format {
            Format::F32 => block.copy_from_slice(&value.to_le_bytes()),
            Format::F16 => half(0, value),
            Format::BF16 => block.copy_from_slice(&half::bf16::from_f32(value).to_le_bytes()),
            // Exponents from 6 to 9: a step is 2^-4, 30 the largest.
            Format::F8E4M3 if exact => block[0] = (block[0] & 0x87) | ((6 + rng.below(4) as u8) << 3),
            Format::F8E4M3 => block[0] = if block[0] & 0x7f == 0x7f { 0x38 } else { block[0] },
            Format::Q8_0 | Format::Q4_0 | Format::Q5_0 | Format::IQ4NL | Format::IQ4XS => half(0, d),
            Format::Q4_1 | Format::Q5_1 | Format::Q4K | Format::Q5K => {
                half(0, d);
                half(2, m);
            }
            Format::Q2K => {
                half(80, d);
                half(82, m);
            }
            Format::Q3K => half(108, if exact { d } else { d * 0.2 }),
            Format::Q6K => half(208, if exact { d } else { d * 0.05 }),
            Format::MXFP4 => block[0] = 118 + rng.below(6) as u8,
        }
        data.extend(block);
    }
    let scales = (format == Format::F8E4M3).then(|| {
        let n = count * rows.div_ceil(128) * cols.div_ceil(128);
        let mut scale = || if exact { 0.0078125 } else { 0.001 + 0.002 * rng.unit().abs() };
        Bytes::new((0..n).flat_map(|_| scale().to_le_bytes()).collect::<Vec<u8>>())
    });
    Tensor { name: format!("{format} {rows}x{cols}"), format, count, rows, cols, data: Bytes::new(data), scales }
}

/// A matrix of `rows` rows: those of `t`, again and again. FP8 rows take the scales of the first 128.
pub fn repeated(t: &Tensor, rows: usize) -> Tensor {
    let data = t.data.to_vec();
    let size = data.len() / t.rows;
    let mut all = Vec::with_capacity(rows * size);
    while all.len() < rows * size {
        let more = data.len().min(rows * size - all.len());
        all.extend_from_slice(&data[..more]);
    }
    let scales = t.scales.as_ref().map(|s| {
        let first = s.to_vec()[..t.cols.div_ceil(128) * 4].to_vec();
        Bytes::new(first.repeat(rows.div_ceil(128)))
    });
    Tensor { name: format!("{} {rows}x{}", t.format, t.cols), rows, data: Bytes::new(all), scales, ..t.clone() }
}

/// Matrix `index` of a stack, as a tensor.
pub(super) fn part(t: &Tensor, index: usize) -> Tensor {
    let of = |b: &Bytes| {
        let size = b.len() / t.count;
        b.slice(index * size, size).unwrap_or_else(|| Bytes::new(Vec::new()))
    };
    Tensor { count: 1, data: of(&t.data), scales: t.scales.as_ref().map(of), ..t.clone() }
}
