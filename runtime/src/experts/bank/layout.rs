//! How an expert's blob is laid out, and how it is packed.

use pleiad_models::{
    Format, Result, Tensor,
    blocks::packed_row_bytes,
    weights::{ExpertPart, Experts},
};

/// An expert's matrices in the order of its blob.
pub(super) const PARTS: [ExpertPart; 3] = [ExpertPart::Gate, ExpertPart::Up, ExpertPart::Down];

/// Alignment of a part.
const PART_ALIGN: usize = 16;
/// Alignment of blobs: the strictest that WebGPU asks of a binding's offset.
const BLOB_ALIGN: usize = 256;

/// How the blobs of a bank are laid out: packed rows of gate, up and down, each part at a multiple of 16 bytes, blobs at
/// multiples of 256 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlobLayout {
    /// Byte offsets of gate, up and down.
    pub offsets: [usize; 3],
    /// Their bytes, multiples of 4.
    pub sizes: [usize; 3],
    /// Bytes from blob to blob.
    pub stride: usize,
}

impl BlobLayout {
    /// The layout of parts of these sizes.
    pub fn new(sizes: [usize; 3]) -> Self {
        let mut at = 0;
        let offsets = sizes.map(|size| {
            let offset = at;
            at = (at + size).next_multiple_of(PART_ALIGN);
            offset
        });
        Self { offsets, sizes, stride: at.next_multiple_of(BLOB_ALIGN) }
    }

    /// The layout of a bank's blobs. Panics where the bank has no experts.
    pub fn of(experts: &Experts) -> Self {
        Self::new(PARTS.map(|part| packed_bytes(experts.first(part))))
    }

    /// The layout of those parts alone that the checkpoint does not hold as they are packed, in memory or mapped; the others are
    /// empty.
    pub(super) fn record_of(experts: &Experts) -> Self {
        let is_resident = experts.is_resident();
        Self::new(PARTS.map(|part| {
            let tensor = experts.first(part);
            if is_resident && is_stored_packed(tensor) { 0 } else { packed_bytes(tensor) }
        }))
    }

    /// Packs the parts of an expert that are not empty here, and zeroes the padding. An error says what cannot be read. Panics
    /// where there is no such expert or `out` is not one stride long.
    pub(super) fn pack(&self, experts: &Experts, expert: usize, out: &mut [u8]) -> Result<()> {
        assert_eq!(out.len(), self.stride, "bytes of an expert");
        for (i, part) in PARTS.into_iter().enumerate() {
            let end = self.offsets.get(i + 1).copied().unwrap_or(self.stride);
            let (packed, padding) = out[self.offsets[i]..end].split_at_mut(self.sizes[i]);
            if !packed.is_empty() {
                experts.part(expert, part)?.matrix().pack(packed);
            }
            padding.fill(0);
        }
        Ok(())
    }
}

/// Bytes of one packed matrix of the tensor.
fn packed_bytes(tensor: &Tensor) -> usize {
    tensor.rows * packed_row_bytes(tensor.format, tensor.cols)
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
