//! Stacks that are cut out of the latent up-projection, head by head, and turned where they are needed transposed.

use std::{io, ops::Range, sync::Arc};

use half::{bf16, f16};
use pleiad_models::{Bytes, Error, Format, Ranged, Tensor, format::F8_BLOCK};

/// Bytes of the source that are read at a time (at least one head).
const GROUP: usize = 4 << 20;

/// For every head the rows `taken` of its `head_rows` rows of the source, as they are or transposed. F32 and BF16 sources keep
/// their format (nothing is lost); others become F16.
///
/// In memory where the source is; else computed from it whenever it is read, so that it takes no memory.
pub(super) fn derive(
    source: &Tensor,
    suffix: &str,
    heads: usize,
    head_rows: usize,
    taken: Range<usize>,
    transposed: bool,
) -> Tensor {
    let format = match source.format {
        Format::F32 | Format::BF16 => source.format,
        _ => Format::F16,
    };
    let (rows, cols) = if transposed { (source.cols, taken.len()) } else { (taken.len(), source.cols) };
    let name = format!("{} ({suffix})", source.name);
    let derived = Derived { source: source.clone(), heads, head_rows, taken, transposed, format };
    let len = heads * derived.head_bytes();
    let mut tensor = Tensor { name, format, count: heads, rows, cols, data: Bytes::new([]), scales: None };
    let mut all = Vec::new();
    if source.is_resident() {
        all.resize(len, 0);
        if derived.read_at(0, &mut all).is_ok() {
            tensor.data = Bytes::new(all);
            return tensor;
        }
    }
    let (file, ranges): (Arc<str>, Arc<dyn Ranged>) = (source.data.file().into(), Arc::new(derived));
    if let Some(data) = Bytes::ranged(&file, &ranges, 0, len) {
        tensor.data = data;
    }
    tensor
}

/// A stack whose bytes are computed from those of `source` when they are read.
struct Derived {
    source: Tensor,
    heads: usize,
    /// Rows of the source that belong to one head.
    head_rows: usize,
    /// Which of them are taken.
    taken: Range<usize>,
    transposed: bool,
    /// F32, BF16 or F16.
    format: Format,
}

impl Derived {
    /// Bytes of one head's matrix.
    fn head_bytes(&self) -> usize {
        self.taken.len() * self.source.cols * self.format.block_bytes()
    }

    /// Writes element `index` of a head's matrix.
    fn put(&self, out: &mut [u8], index: usize, x: f32) {
        match self.format {
            Format::F32 => out[4 * index..][..4].copy_from_slice(&x.to_le_bytes()),
            Format::BF16 => out[2 * index..][..2].copy_from_slice(&bf16::from_f32(x).to_le_bytes()),
            _ => out[2 * index..][..2].copy_from_slice(&f16::from_f32(x).to_le_bytes()),
        }
    }
}

impl Ranged for Derived {
    fn len(&self) -> u64 {
        (self.heads * self.head_bytes()) as u64
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let (head_bytes, cols) = (self.head_bytes(), self.source.cols);
        let end = offset.checked_add(out.len() as u64).filter(|&end| end <= self.len());
        let (Ok(start), Some(Ok(end))) = (usize::try_from(offset), end.map(usize::try_from)) else {
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        if start == end {
            return Ok(());
        }
        let group = (GROUP / (self.head_rows * self.source.row_bytes()).max(1)).max(1);
        // Blocks of F8 are read from their first row on.
        let unit = if self.source.format == Format::F8E4M3 { F8_BLOCK } else { 1 };
        let heads = start / head_bytes..end.div_ceil(head_bytes);
        let (mut row, mut matrix) = (vec![0.0; cols], vec![0; head_bytes]);
        for first in heads.clone().step_by(group) {
            let last = (first + group).min(heads.end) - 1;
            let from = (first * self.head_rows + self.taken.start) / unit * unit;
            let to = last * self.head_rows + self.taken.end;
            let rows = self.source.part(from, to - from).map_err(|e| match e {
                Error::Read { source, .. } => source,
                other => io::Error::other(other),
            })?;
            let rows = rows.matrix();
            for head in first..=last {
                for (i, r) in self.taken.clone().enumerate() {
                    rows.dequantise_row(head * self.head_rows + r - from, &mut row);
                    for (c, &x) in row.iter().enumerate() {
                        let index = if self.transposed { c * self.taken.len() + i } else { i * cols + c };
                        self.put(&mut matrix, index, x);
                    }
                }
                let at = head * head_bytes;
                let (a, b) = (at.max(start), (at + head_bytes).min(end));
                out[a - start..b - start].copy_from_slice(&matrix[a - at..b - at]);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

    use super::*;

    /// A fused projection of 3 heads, 40 rows of keys and 24 of values each.
    fn fused(format: Format) -> Tensor {
        let (rows, cols) = (3 * 64, 32);
        let values = (0..rows * cols).map(|i| (i as f32 - 900.0) / 8.0);
        let data: Vec<u8> = match format {
            Format::F32 => values.flat_map(f32::to_le_bytes).collect(),
            Format::F8E4M3 => (0..rows * cols).map(|i| (i % 113) as u8).collect(),
            _ => values.flat_map(|x| f16::from_f32(x).to_le_bytes()).collect(),
        };
        let scales = (format == Format::F8E4M3).then(|| Bytes::new([0.5f32, 2.0].map(f32::to_le_bytes).concat()));
        Tensor { name: "kv_b".into(), format, count: 1, rows, cols, data: Bytes::new(data), scales }
    }

    #[test]
    fn stacks_are_what_their_definition_says_however_they_are_read() {
        for format in [Format::F32, Format::F16, Format::F8E4M3] {
            let source = fused(format);
            let all = source.to_f32();
            let element = |head: usize, row: usize, col: usize| all[(head * 64 + row) * 32 + col];
            let keys = derive(&source, "k_b", 3, 64, 0..40, true);
            assert_eq!((keys.count, keys.rows, keys.cols, keys.name.as_str()), (3, 32, 40, "kv_b (k_b)"));
            let values = derive(&source, "v_b", 3, 64, 40..64, false);
            assert_eq!((values.count, values.rows, values.cols), (3, 24, 32));
            for h in 0..3 {
                let (k, v) = (keys.matrix(h).to_f32(), values.matrix(h).to_f32());
                for c in 0..32 {
                    assert!((0..40).all(|r| k[c * 40 + r] == element(h, r, c)), "{format}");
                    assert!((0..24).all(|r| v[r * 32 + c] == element(h, 40 + r, c)), "{format}");
                }
            }
            let lazy = Derived { source, heads: 3, head_rows: 64, taken: 0..40, transposed: true, format: keys.format };
            assert_eq!(lazy.len(), keys.data.len() as u64);
            for (offset, len) in [(0, 1), (0, keys.data.len()), (77, 5001), (lazy.head_bytes() - 1, 2), (keys.data.len(), 0)] {
                let mut out = vec![0; len];
                lazy.read_at(offset as u64, &mut out).unwrap();
                assert_eq!(out, keys.data[offset..offset + len], "{format}, {len} bytes at {offset}");
            }
            assert!(lazy.read_at(lazy.len(), &mut [0]).is_err() && lazy.read_at(u64::MAX, &mut [0]).is_err());
        }
    }
}
