//! The rule by which activations are quantised to 8 bits, the same on every backend.
//!
//! A row is cut into blocks of 32. With `amax` the largest magnitude of a block, its scale is
//! `d = amax / 127` and its quants are `round(x * (127 / amax))`, halves to even; a block of zeros has scale and
//! quants zero. Each half block's sum of quants is kept, for formats with minima: with weights `w = s * q - m`
//! ([`pleiad_models::Block32`]), a block's product is `d * sum over halves of (s * dot(q, x) - m * sum(x))`, and the
//! integer dot products are exact.

/// Weights a block.
pub const BLOCK: usize = 32;

/// Rows of quantised activations.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Q8Rows {
    /// Elements a row, a multiple of 32.
    pub width: usize,
    /// `[rows, width]`.
    pub quants: Vec<i8>,
    /// `[rows, width / 32]`.
    pub scales: Vec<f32>,
    /// `[rows, width / 16]`: sums of the quants of each half block.
    pub sums: Vec<i16>,
}

impl Q8Rows {
    /// Room for `rows` rows.
    pub fn new(rows: usize, width: usize) -> Self {
        assert!(width.is_multiple_of(BLOCK), "rows of {width} elements cannot be cut into blocks of {BLOCK}");
        Self { width, quants: vec![0; rows * width], scales: vec![0.0; rows * width / 32], sums: vec![0; rows * width / 16] }
    }

    /// Bytes of all rows.
    pub fn bytes(&self) -> usize {
        self.quants.len() + 4 * self.scales.len() + 2 * self.sums.len()
    }

    /// Quantises `x` into row `row`: the plain twin.
    pub fn set(&mut self, row: usize, x: &[f32]) {
        assert_eq!(x.len(), self.width);
        for (b, x) in x.chunks_exact(BLOCK).enumerate() {
            let at = row * self.width + b * BLOCK;
            let amax = x.iter().fold(0.0f32, |m, v| m.max(v.abs()));
            let inverse = if amax > 0.0 { 127.0 / amax } else { 0.0 };
            for (q, x) in self.quants[at..at + BLOCK].iter_mut().zip(x) {
                *q = (x * inverse).round_ties_even() as i8;
            }
            self.scales[at / 32] = amax / 127.0;
            for half in 0..2 {
                let at = at + half * 16;
                self.sums[at / 16] = self.quants[at..at + 16].iter().map(|&q| i16::from(q)).sum();
            }
        }
    }

    /// Row `row` as f32.
    pub fn dequantise(&self, row: usize) -> Vec<f32> {
        let at = row * self.width;
        (at..at + self.width).map(|i| f32::from(self.quants[i]) * self.scales[i / 32]).collect()
    }
}
