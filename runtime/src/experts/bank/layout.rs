//! How an expert's blob is laid out, and how it is packed.

use pleiad_models::{
    Format, Result, Tensor,
    blocks::{Matrix, packed_row_bytes},
    weights::{ExpertPart, Experts},
};

/// An expert's matrices in the order of its blob.
pub(super) const PARTS: [ExpertPart; 3] = [ExpertPart::Gate, ExpertPart::Up, ExpertPart::Down];

/// Alignment of a part.
const PART_ALIGN: usize = 16;
/// Alignment of blobs: the strictest that WebGPU asks of a binding's offset.
const BLOB_ALIGN: usize = 256;

/// Rows of a device that takes them one after the other, as they are packed: whole words.
pub const PACKED_ROWS: usize = 4;

/// How the blobs of a bank are laid out: packed rows of gate, up and down, each part at a multiple of 16 bytes, blobs at
/// multiples of 256 bytes. Devices whose kernels read 16 bytes at a time have rows at multiples of 16 bytes, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlobLayout {
    /// Byte offsets of gate, up and down.
    pub offsets: [usize; 3],
    /// Their bytes, multiples of 4.
    pub sizes: [usize; 3],
    /// Bytes from row to row of each.
    pub rows: [usize; 3],
    /// Bytes from blob to blob.
    pub stride: usize,
}

impl BlobLayout {
    /// The layout of parts of these sizes, and of these bytes from row to row.
    pub fn new(sizes: [usize; 3], rows: [usize; 3]) -> Self {
        let mut at = 0;
        let offsets = sizes.map(|size| {
            let offset = at;
            at = (at + size).next_multiple_of(PART_ALIGN);
            offset
        });
        Self { offsets, sizes, rows, stride: at.next_multiple_of(BLOB_ALIGN) }
    }

    /// The layout of a bank's blobs, rows at multiples of `row_align` bytes. Panics where the bank has no experts.
    pub fn of(experts: &Experts, row_align: usize) -> Self {
        Self::of_parts(experts, row_align, |_| true)
    }

    /// The layout of those parts alone that the checkpoint does not hold as they are in a blob, in memory or mapped; the others
    /// are empty.
    pub(super) fn record_of(experts: &Experts, row_align: usize) -> Self {
        let is_resident = experts.is_resident();
        Self::of_parts(experts, row_align, |t| !(is_resident && is_stored_packed(t) && !is_padded(t, row_align)))
    }

    fn of_parts(experts: &Experts, row_align: usize, has: impl Fn(&Tensor) -> bool) -> Self {
        let rows = PARTS.map(|part| row_stride(experts.first(part), row_align));
        let sizes = [0, 1, 2].map(|i| {
            let tensor = experts.first(PARTS[i]);
            if has(tensor) { tensor.rows * rows[i] } else { 0 }
        });
        Self::new(sizes, rows)
    }

    /// Packs the parts of an expert that are not empty here, and zeroes the padding. An error says what cannot be read. Panics
    /// where there is no such expert or `out` is not one stride long.
    pub(super) fn pack(&self, experts: &Experts, expert: usize, out: &mut [u8]) -> Result<()> {
        assert_eq!(out.len(), self.stride, "bytes of an expert");
        for (i, part) in PARTS.into_iter().enumerate() {
            let end = self.offsets.get(i + 1).copied().unwrap_or(self.stride);
            let (packed, padding) = out[self.offsets[i]..end].split_at_mut(self.sizes[i]);
            if !packed.is_empty() {
                pack_rows(&experts.part(expert, part)?.matrix(), self.rows[i], packed);
            }
            padding.fill(0);
        }
        Ok(())
    }
}

/// Bytes from row to row of a tensor's packed rows that begin at multiples of `row_align` bytes.
pub(crate) fn row_stride(tensor: &Tensor, row_align: usize) -> usize {
    packed_row_bytes(tensor.format, tensor.cols).next_multiple_of(row_align.max(1))
}

/// Whether such rows have bytes between them.
fn is_padded(tensor: &Tensor, row_align: usize) -> bool {
    row_stride(tensor, row_align) != packed_row_bytes(tensor.format, tensor.cols)
}

/// Packs rows `stride` bytes apart, with zeros between them. Panics where `out` is not `stride` bytes a row.
pub(crate) fn pack_rows(matrix: &Matrix<'_>, stride: usize, out: &mut [u8]) {
    let bytes = packed_row_bytes(matrix.format, matrix.cols);
    assert_eq!(out.len(), matrix.rows * stride, "bytes of padded rows");
    matrix.pack(&mut out[..matrix.rows * bytes]);
    if stride == bytes {
        return;
    }
    // The last row first: each moves to where rows behind it were.
    for row in (0..matrix.rows).rev() {
        out.copy_within(row * bytes..(row + 1) * bytes, row * stride);
        out[row * stride + bytes..(row + 1) * stride].fill(0);
    }
}

/// Whether a packed row of the tensor is the row as it is stored, byte for byte: one plane of whole blocks, without padding.
pub(super) fn is_stored_packed(tensor: &Tensor) -> bool {
    let one_plane = match tensor.format {
        Format::F32 | Format::F16 | Format::BF16 | Format::Q2K | Format::Q4K | Format::Q5K | Format::IQ4XS => true,
        // Its scales, a tensor of their own, follow each packed row.
        Format::F8E4M3 => false,
        Format::Q8_0 | Format::Q4_0 | Format::Q4_1 | Format::Q5_0 | Format::Q5_1 => false,
        Format::Q3K | Format::Q6K | Format::IQ4NL | Format::MXFP4 => false,
    };
    one_plane && tensor.format.row_bytes(tensor.cols) == Some(packed_row_bytes(tensor.format, tensor.cols))
}
