//! The two layouts as one table: which fields of a native block form which plane of a packed row.

use super::Layout;
use crate::{Format, format::F8_BLOCK};

/// A field of every native block, and so a plane of a packed row.
pub(super) struct Plane {
    /// Offset in the native block.
    pub at: usize,
    /// Bytes a block.
    pub len: usize,
}

/// The planes of a packed row, in order. Together they hold every byte of the block once. F8's scales follow
/// its only plane: they come from a tensor of their own.
pub(super) const fn planes(format: Format) -> &'static [Plane] {
    match format {
        Format::F32 => &[Plane { at: 0, len: 4 }],
        Format::F16 | Format::BF16 => &[Plane { at: 0, len: 2 }],
        Format::F8E4M3 => &[Plane { at: 0, len: 1 }],
        Format::Q8_0 => &[Plane { at: 2, len: 32 }, Plane { at: 0, len: 2 }],
        Format::Q4_0 | Format::IQ4NL => &[Plane { at: 2, len: 16 }, Plane { at: 0, len: 2 }],
        Format::Q4_1 => &[Plane { at: 4, len: 16 }, Plane { at: 0, len: 4 }],
        Format::Q5_0 => &[Plane { at: 6, len: 16 }, Plane { at: 2, len: 4 }, Plane { at: 0, len: 2 }],
        Format::Q5_1 => &[Plane { at: 8, len: 16 }, Plane { at: 4, len: 4 }, Plane { at: 0, len: 4 }],
        Format::MXFP4 => &[Plane { at: 1, len: 16 }, Plane { at: 0, len: 1 }],
        Format::Q2K => &[Plane { at: 0, len: 84 }],
        Format::Q4K => &[Plane { at: 0, len: 144 }],
        Format::Q5K => &[Plane { at: 0, len: 176 }],
        Format::IQ4XS => &[Plane { at: 0, len: 136 }],
        Format::Q3K => &[Plane { at: 0, len: 108 }, Plane { at: 108, len: 2 }],
        Format::Q6K => &[Plane { at: 0, len: 208 }, Plane { at: 208, len: 2 }],
    }
}

/// The f16 scales and minima of a block, as (plane, offset in that plane).
pub(super) const fn scale_fields(format: Format) -> &'static [(usize, usize)] {
    match format {
        Format::Q8_0 | Format::Q4_0 | Format::IQ4NL | Format::Q3K | Format::Q6K => &[(1, 0)],
        Format::Q4_1 => &[(1, 0), (1, 2)],
        Format::Q5_0 => &[(2, 0)],
        Format::Q5_1 => &[(2, 0), (2, 2)],
        Format::Q2K => &[(0, 80), (0, 82)],
        Format::Q4K | Format::Q5K => &[(0, 0), (0, 2)],
        Format::IQ4XS => &[(0, 0)],
        Format::F32 | Format::F16 | Format::BF16 | Format::F8E4M3 | Format::MXFP4 => &[],
    }
}

/// Where a field lies within a row, block by block.
#[derive(Clone, Copy)]
pub(super) struct Place {
    start: usize,
    stride: usize,
}

impl Place {
    /// Offset of the field of that block.
    pub fn at(self, block: usize) -> usize {
        self.start + block * self.stride
    }
}

/// The place of plane `plane` in a row of `cols` weights; an empty one where the format has fewer planes.
pub(super) fn place(format: Format, layout: Layout, cols: usize, plane: usize) -> Place {
    let (planes, blocks) = (planes(format), cols / format.block_len());
    match (planes.get(plane), layout) {
        (None, _) => Place { start: 0, stride: 0 },
        (Some(p), Layout::Native) => Place { start: p.at, stride: format.block_bytes() },
        (Some(p), Layout::Packed) => {
            Place { start: planes[..plane].iter().map(|p| to_words(blocks * p.len)).sum(), stride: p.len }
        }
    }
}

const fn to_words(bytes: usize) -> usize {
    bytes.next_multiple_of(4)
}

/// Bytes of a packed row of `cols` weights, a multiple of 4; see the [module](super) for what they are.
///
/// # Panics
///
/// Where `cols` is not a whole number of blocks.
pub fn packed_row_bytes(format: Format, cols: usize) -> usize {
    assert!(cols.is_multiple_of(format.block_len()), "{format}: {cols} columns are no whole number of blocks");
    let blocks = cols / format.block_len();
    let scales = if format == Format::F8E4M3 { 4 * cols.div_ceil(F8_BLOCK) } else { 0 };
    planes(format).iter().map(|p| to_words(blocks * p.len)).sum::<usize>() + scales
}

/// Writes the planes of a native row to `out` and returns what follows them there.
pub(super) fn pack_row<'a>(format: Format, cols: usize, row: &[u8], mut out: &'a mut [u8]) -> &'a mut [u8] {
    let (blocks, block_bytes) = (cols / format.block_len(), format.block_bytes());
    for plane in planes(format) {
        let bytes = blocks * plane.len;
        let (packed, rest) = out.split_at_mut(to_words(bytes));
        let (packed, padding) = packed.split_at_mut(bytes);
        padding.fill(0);
        // The lengths that exist as constants: a copy of known length is a few moves instead of a call.
        match plane.len {
            len if len == block_bytes => packed.copy_from_slice(row),
            1 => copy_field::<1>(row, block_bytes, plane.at, packed),
            2 => copy_field::<2>(row, block_bytes, plane.at, packed),
            4 => copy_field::<4>(row, block_bytes, plane.at, packed),
            16 => copy_field::<16>(row, block_bytes, plane.at, packed),
            32 => copy_field::<32>(row, block_bytes, plane.at, packed),
            108 => copy_field::<108>(row, block_bytes, plane.at, packed),
            208 => copy_field::<208>(row, block_bytes, plane.at, packed),
            len => unreachable!("{format}: a plane of {len} bytes a block"),
        }
        out = rest;
    }
    out
}

/// Gathers `N` bytes at offset `at` of every block.
fn copy_field<const N: usize>(row: &[u8], block_bytes: usize, at: usize, out: &mut [u8]) {
    for (out, block) in out.as_chunks_mut::<N>().0.iter_mut().zip(row.chunks_exact(block_bytes)) {
        out.copy_from_slice(&block[at..at + N]);
    }
}
