//! What blocks contain: decoding, packing for devices, quantising.
//!
//! This is the plain twin of the kernels that compute on quantised weights: every format is read
//! here 32 weights at a time as a [`Block32`], whichever of the two layouts holds it.
//!
//! | layout | what it is |
//! |---|---|
//! | [`Layout::Native`] | the file's: whole blocks one after another, often not aligned to words |
//! | [`Layout::Packed`] | what devices hold: each row a whole number of little-endian u32 words, each field of the blocks in a plane of its own |
//!
//! A packed row of K weights, every plane padded with zeros to a word:
//!
//! | format | planes |
//! |---|---|
//! | F32 | K f32 |
//! | F16, BF16 | K u16 |
//! | F8E4M3 | K bytes; ceil(K/128) f32 scales of this row |
//! | Q8_0 | K bytes; K/32 f16 scales |
//! | Q4_0, IQ4_NL | K/2 bytes; K/32 f16 scales |
//! | Q4_1 | K/2 bytes; K/32 words (f16 scale low, f16 minimum high) |
//! | Q5_0 | K/2 bytes; K/32 u32 of high bits; K/32 f16 scales |
//! | Q5_1 | K/2 bytes; K/32 u32 of high bits; K/32 words (scale, minimum) |
//! | MXFP4 | K/2 bytes; K/32 e8m0 bytes |
//! | Q2_K, Q4_K, Q5_K, IQ4_XS | the file's blocks: whole words already |
//! | Q3_K, Q6_K | K/256 blocks without their f16 scale; K/256 f16 scales |

mod decode;
mod float;
mod layout;
mod quantise;
#[cfg(test)]
mod tests;

use crate::{Format, format::F8_BLOCK};
use layout::{Place, place, planes, scale_fields};

pub use decode::{FP4_CODEBOOK, IQ4_CODEBOOK};
pub use float::{bf16_to_f32, e8m0_to_f32, f8_to_f32, f32_to_bf16, f32_to_half, half_to_f32};
pub use layout::packed_row_bytes;
pub use quantise::quantise_row;

/// 32 weights of a quantised row: `w[i] = s[i / 16] * q[i] - m[i / 16]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Block32 {
    /// Integers, within the range of the format (Q8_0: all of i8).
    pub q: [i8; 32],
    /// Scale of each half.
    pub s: [f32; 2],
    /// What is subtracted in each half; zero in formats without minima.
    pub m: [f32; 2],
}

impl Block32 {
    /// The 32 weights, rounded as ggml rounds them: the product, then the difference.
    pub fn weights(&self) -> [f32; 32] {
        std::array::from_fn(|i| self.s[i / 16] * f32::from(self.q[i]) - self.m[i / 16])
    }
}

/// How a matrix's bytes are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Layout {
    /// As the file stores them.
    Native,
    /// As devices hold them; see the [module](self).
    Packed,
}

/// A borrowed matrix in any format and layout. Rows are contiguous.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    /// How its elements are stored.
    pub format: Format,
    /// How its rows are laid out.
    pub layout: Layout,
    /// Rows: outputs of `y = W x`.
    pub rows: usize,
    /// Columns: inputs of `y = W x`.
    pub cols: usize,
    /// `rows * row_bytes()` bytes.
    pub data: &'a [u8],
    /// F8 in the native layout only: f32 `[ceil(rows / 128), ceil(cols / 128)]`, little endian.
    pub scales: Option<&'a [u8]>,
}

impl<'a> Matrix<'a> {
    /// A matrix in the file's layout.
    ///
    /// # Panics
    ///
    /// Where a length is not what format and shape require: whoever opened the file has checked them.
    pub fn native(format: Format, rows: usize, cols: usize, data: &'a [u8], scales: Option<&'a [u8]>) -> Self {
        let row_bytes = format.row_bytes(cols);
        assert!(row_bytes.is_some(), "{format}: {cols} columns are no whole number of blocks");
        let expected = row_bytes.and_then(|bytes| bytes.checked_mul(rows));
        assert_eq!(Some(data.len()), expected, "{format} [{rows}, {cols}]: bytes");
        let scale_bytes = (format == Format::F8E4M3).then(|| 4 * rows.div_ceil(F8_BLOCK) * cols.div_ceil(F8_BLOCK));
        assert_eq!(scales.map(<[u8]>::len), scale_bytes, "{format} [{rows}, {cols}]: bytes of scales");
        Self { format, layout: Layout::Native, rows, cols, data, scales }
    }

    /// A matrix in the devices' layout.
    ///
    /// # Panics
    ///
    /// Where a length is not what format and shape require.
    pub fn packed(format: Format, rows: usize, cols: usize, data: &'a [u8]) -> Self {
        let expected = packed_row_bytes(format, cols).checked_mul(rows);
        assert_eq!(Some(data.len()), expected, "packed {format} [{rows}, {cols}]: bytes");
        Self { format, layout: Layout::Packed, rows, cols, data, scales: None }
    }

    /// Bytes from one row to the next.
    pub fn row_bytes(&self) -> usize {
        match self.layout {
            Layout::Native => self.cols / self.format.block_len() * self.format.block_bytes(),
            Layout::Packed => packed_row_bytes(self.format, self.cols),
        }
    }

    /// The bytes of row `r`. Panics where there is none.
    pub fn row(&self, r: usize) -> &'a [u8] {
        assert!(r < self.rows, "row {r} of {}", self.rows);
        let bytes = self.row_bytes();
        &self.data[r * bytes..][..bytes]
    }

    /// Columns `32 * b..32 * (b + 1)` of row `r`.
    ///
    /// # Panics
    ///
    /// Where there is no such block, and for float formats, which have none.
    pub fn block32(&self, r: usize, b: usize) -> Block32 {
        assert!(b < self.cols / 32, "block {b} of {} columns", self.cols);
        self.block32_at(self.row(r), &self.places(), b)
    }

    /// Writes row `r` to `out`, `cols` long (panics otherwise).
    pub fn dequantise_row(&self, r: usize, out: &mut [f32]) {
        assert_eq!(out.len(), self.cols, "length of the row");
        let row = self.row(r);
        match self.format {
            Format::F32 => {
                out.iter_mut().zip(words(row)).for_each(|(out, bits)| *out = f32::from_bits(bits));
            }
            Format::F16 => out.iter_mut().zip(halfwords(row)).for_each(|(out, bits)| *out = half_to_f32(bits)),
            Format::BF16 => out.iter_mut().zip(halfwords(row)).for_each(|(out, bits)| *out = bf16_to_f32(bits)),
            Format::F8E4M3 => {
                // In a packed row bytes follow the last weight; `zip` stops before them.
                for (col_block, (out, codes)) in out.chunks_mut(F8_BLOCK).zip(row.chunks(F8_BLOCK)).enumerate() {
                    let scale = self.f8_row_scale(r, col_block);
                    out.iter_mut().zip(codes).for_each(|(out, &code)| *out = f8_to_f32(code) * scale);
                }
            }
            _ => {
                let places = self.places();
                for (b, out) in out.chunks_exact_mut(32).enumerate() {
                    out.copy_from_slice(&self.block32_at(row, &places, b).weights());
                }
            }
        }
    }

    /// All elements, row after row.
    pub fn to_f32(&self) -> Vec<f32> {
        let mut all = vec![0.0; self.rows * self.cols];
        if self.cols > 0 {
            all.chunks_exact_mut(self.cols).enumerate().for_each(|(r, out)| self.dequantise_row(r, out));
        }
        all
    }

    /// Rewrites a native matrix in the packed layout.
    ///
    /// # Panics
    ///
    /// Where the matrix is packed already or `out` is not `rows * packed_row_bytes(format, cols)` long.
    pub fn pack(&self, out: &mut [u8]) {
        assert_eq!(self.layout, Layout::Native, "packed already");
        let packed_bytes = packed_row_bytes(self.format, self.cols);
        assert_eq!(out.len(), self.rows * packed_bytes, "packed bytes");
        if packed_bytes == 0 {
            return;
        }
        for (r, out) in out.chunks_exact_mut(packed_bytes).enumerate() {
            let rest = layout::pack_row(self.format, self.cols, self.row(r), out);
            if let Some(scales) = self.scales {
                let bytes = 4 * self.cols.div_ceil(F8_BLOCK);
                rest.copy_from_slice(&scales[r / F8_BLOCK * bytes..][..bytes]);
            }
        }
    }

    /// F8 only: the scale of the 128x128 block at (`row_block`, `col_block`). Panics where there is none.
    pub fn f8_scale(&self, row_block: usize, col_block: usize) -> f32 {
        self.f8_row_scale(row_block * F8_BLOCK, col_block)
    }

    /// The first weight, in row order, that is NaN or infinite, as (row, column).
    ///
    /// Integers are finite, so quantised blocks are judged by their scales and minima alone, fast enough
    /// to be run over a file as it is read. An F8 or MXFP4 weight that overflows f32 counts as infinite.
    pub fn find_non_finite(&self) -> Option<(usize, usize)> {
        (0..self.rows).find_map(|r| self.find_non_finite_in_row(r).map(|c| (r, c)))
    }

    fn find_non_finite_in_row(&self, r: usize) -> Option<usize> {
        let row = self.row(r);
        match self.format {
            // The padding of a packed row is zeros, and so finite.
            Format::F32 => first(words(row), |bits| bits & 0x7f80_0000 == 0x7f80_0000),
            Format::F16 => first(halfwords(row), half_is_non_finite),
            Format::BF16 => first(halfwords(row), |bits| bits & 0x7f80 == 0x7f80),
            Format::F8E4M3 => {
                let mut blocks = row[..self.cols].chunks(F8_BLOCK).enumerate();
                blocks.find_map(|(col_block, codes)| {
                    let scale = self.f8_row_scale(r, col_block);
                    let found = if (scale * float::F8_MAX).is_finite() {
                        first(codes.iter().copied(), |code| code & 0x7f == 0x7f)
                    } else {
                        codes.iter().position(|&code| !(f8_to_f32(code) * scale).is_finite())
                    };
                    found.map(|c| col_block * F8_BLOCK + c)
                })
            }
            Format::MXFP4 => {
                let places = self.places();
                // Below 2^(252 - 127) the largest value, 6, stays within f32.
                let suspects = (0..self.cols / 32).filter(|&b| row[places[1].at(b)] > 252);
                let mut weights = suspects.map(|b| (b, self.block32_at(row, &places, b).weights()));
                weights.find_map(|(b, w)| w.iter().position(|w| !w.is_finite()).map(|i| b * 32 + i))
            }
            _ => {
                // With a non-finite scale or minimum no weight of the block is finite: inf * 0 is NaN.
                let (fields, places) = (scale_fields(self.format), self.places());
                let is_bad = |block: usize| {
                    fields.iter().any(|&(plane, offset)| {
                        let at = places[plane].at(block) + offset;
                        half_is_non_finite(u16::from_le_bytes([row[at], row[at + 1]]))
                    })
                };
                (0..self.cols / self.format.block_len()).find(|&block| is_bad(block)).map(|b| b * self.format.block_len())
            }
        }
    }

    /// Where the fields of this matrix's blocks lie within a row.
    fn places(&self) -> [Place; 3] {
        std::array::from_fn(|plane| place(self.format, self.layout, self.cols, plane))
    }

    fn block32_at(&self, row: &[u8], places: &[Place; 3], b: usize) -> Block32 {
        let subs = self.format.block_len() / 32;
        let planes = planes(self.format);
        let mut parts: [&[u8]; 3] = [&[]; 3];
        for ((part, place), plane) in parts.iter_mut().zip(places).zip(planes) {
            *part = &row[place.at(b / subs)..][..plane.len];
        }
        decode::block32(self.format, parts, b % subs)
    }

    /// The scale of the columns of `col_block` in row `r` of an F8 matrix.
    fn f8_row_scale(&self, r: usize, col_block: usize) -> f32 {
        assert_eq!(self.format, Format::F8E4M3, "only F8 has block scales");
        let (col_blocks, row) = (self.cols.div_ceil(F8_BLOCK), self.row(r));
        assert!(col_block < col_blocks, "block column {col_block} of {col_blocks}");
        let bytes = match self.scales {
            Some(scales) => &scales[4 * (r / F8_BLOCK * col_blocks + col_block)..],
            None => &row[row.len() - 4 * (col_blocks - col_block)..],
        };
        f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
    }
}

fn words(bytes: &[u8]) -> impl Iterator<Item = u32> + Clone {
    bytes.as_chunks().0.iter().map(|&word| u32::from_le_bytes(word))
}

fn halfwords(bytes: &[u8]) -> impl Iterator<Item = u16> + Clone {
    bytes.as_chunks().0.iter().map(|&half| u16::from_le_bytes(half))
}

fn half_is_non_finite(bits: u16) -> bool {
    bits & 0x7c00 == 0x7c00
}

/// Position of the first match. Looks for any match without branches first, since there hardly ever is one.
fn first<T>(mut values: impl Iterator<Item = T> + Clone, is_bad: impl Fn(T) -> bool) -> Option<usize> {
    let any = values.clone().fold(false, |any, value| any | is_bad(value));
    if any { values.position(is_bad) } else { None }
}
