//! Where the fields of quantised blocks lie, in either layout: an offset in the row and a stride.

use pleiad_models::{Format, Layout, Matrix};

/// One field of every block of a row.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Field {
    offset: usize,
    stride: usize,
}

impl Field {
    /// The field of block `block`.
    ///
    /// # Safety
    /// `row` is a row of the matrix that the field is of, and has that block.
    #[inline(always)]
    pub(crate) unsafe fn at(self, row: *const u8, block: usize) -> *const u8 {
        // SAFETY: by the above within the row.
        unsafe { row.add(self.offset + self.stride * block) }
    }
}

/// The fields of a quantised format.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Fields {
    /// Quants, or the whole block (its f16 scale aside) of the formats of 256.
    pub q: Field,
    /// High bits of Q5_0 and Q5_1.
    pub h: Field,
    /// Scales (and minima): of formats of 32, and of Q3_K and Q6_K.
    pub d: Field,
}

impl Fields {
    pub(crate) fn new(w: &Matrix<'_>) -> Self {
        let k = w.cols;
        let field = |offset, stride| Field { offset, stride };
        let word = |bytes: usize| bytes.next_multiple_of(4);
        match (w.layout, w.format) {
            (Layout::Native, Format::Q8_0) => Self { q: field(2, 34), h: Field::default(), d: field(0, 34) },
            (Layout::Native, Format::Q4_0 | Format::IQ4NL) => Self { q: field(2, 18), h: Field::default(), d: field(0, 18) },
            (Layout::Native, Format::Q4_1) => Self { q: field(4, 20), h: Field::default(), d: field(0, 20) },
            (Layout::Native, Format::Q5_0) => Self { q: field(6, 22), h: field(2, 22), d: field(0, 22) },
            (Layout::Native, Format::Q5_1) => Self { q: field(8, 24), h: field(4, 24), d: field(0, 24) },
            (Layout::Native, Format::MXFP4) => Self { q: field(1, 17), h: Field::default(), d: field(0, 17) },
            (Layout::Native, Format::Q3K) => Self { q: field(0, 110), h: Field::default(), d: field(108, 110) },
            (Layout::Native, Format::Q6K) => Self { q: field(0, 210), h: Field::default(), d: field(208, 210) },
            (Layout::Packed, Format::Q8_0) => Self { q: field(0, 32), h: Field::default(), d: field(k, 2) },
            (Layout::Packed, Format::Q4_0 | Format::IQ4NL) => Self { q: field(0, 16), h: Field::default(), d: field(k / 2, 2) },
            (Layout::Packed, Format::Q4_1) => Self { q: field(0, 16), h: Field::default(), d: field(k / 2, 4) },
            (Layout::Packed, Format::Q5_0) => Self { q: field(0, 16), h: field(k / 2, 4), d: field(k / 2 + k / 8, 2) },
            (Layout::Packed, Format::Q5_1) => Self { q: field(0, 16), h: field(k / 2, 4), d: field(k / 2 + k / 8, 4) },
            (Layout::Packed, Format::MXFP4) => Self { q: field(0, 16), h: Field::default(), d: field(k / 2, 1) },
            (Layout::Packed, Format::Q3K) => Self { q: field(0, 108), h: Field::default(), d: field(word(k / 256 * 108), 2) },
            (Layout::Packed, Format::Q6K) => Self { q: field(0, 208), h: Field::default(), d: field(word(k / 256 * 208), 2) },
            // The same in both layouts, and float formats, which have no fields.
            (_, format) => Self { q: field(0, format.block_bytes()), h: Field::default(), d: Field::default() },
        }
    }
}

/// Reads a little-endian u16, aligned or not.
///
/// # Safety
/// Two bytes at `p` are readable.
#[inline(always)]
pub(crate) unsafe fn u16_at(p: *const u8) -> u16 {
    // SAFETY: as above.
    u16::from_le_bytes(unsafe { p.cast::<[u8; 2]>().read() })
}

/// Reads a little-endian u32, aligned or not.
///
/// # Safety
/// Four bytes at `p` are readable.
#[inline(always)]
pub(crate) unsafe fn u32_at(p: *const u8) -> u32 {
    // SAFETY: as above.
    u32::from_le_bytes(unsafe { p.cast::<[u8; 4]>().read() })
}

/// The eight 6-bit scales and eight 6-bit minima of a block of Q4_K or Q5_K, one a byte, from their 12 bytes.
///
/// # Safety
/// 12 bytes at `p` are readable.
#[inline(always)]
pub(crate) unsafe fn k4_scales(p: *const u8) -> (u64, u64) {
    // SAFETY: as above.
    let (a, b, c) = unsafe { (u32_at(p), u32_at(p.add(4)), u32_at(p.add(8))) };
    let scales = (c & 0x0f0f_0f0f) | (a >> 2 & 0x3030_3030);
    let minima = (c >> 4 & 0x0f0f_0f0f) | (b >> 2 & 0x3030_3030);
    let low = |x: u32| u64::from(x & 0x3f3f_3f3f);
    (low(a) | u64::from(scales) << 32, low(b) | u64::from(minima) << 32)
}

/// The sixteen 6-bit scales of a block of Q3_K, still 32 too large, one a byte, from their 12 bytes.
///
/// # Safety
/// 12 bytes at `p` are readable.
#[inline(always)]
pub(crate) unsafe fn q3_scales(p: *const u8) -> (u64, u64) {
    // SAFETY: as above.
    let (a, b, c) = unsafe { (u32_at(p), u32_at(p.add(4)), u32_at(p.add(8))) };
    let part = |low: u32, high: u32| u64::from((low & 0x0f0f_0f0f) | (high & 0x0303_0303) << 4);
    (part(a, c) | part(b, c >> 2) << 32, part(a >> 4, c >> 4) | part(b >> 4, c >> 6) << 32)
}

/// The eight 6-bit scales of a block of IQ4_XS, still 32 too large, one a byte, from their high and low parts.
#[inline(always)]
pub(crate) fn iq4_scales(high: u16, low: u32) -> u64 {
    let mut scales = 0;
    for i in 0..8 {
        let scale = (low >> (4 * i) & 15) | (u32::from(high) >> (2 * i) & 3) << 4;
        scales |= u64::from(scale) << (8 * i);
    }
    scales
}
