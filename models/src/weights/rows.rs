//! Rows of tensors, wherever their bytes are.

use std::{borrow::Cow, io};

use super::{ExpertPart, Experts, Mlp, Tensor, bytes::MAX_READ};
use crate::{Error, Format, Matrix, Result, format::F8_BLOCK};

/// Consecutive rows of a tensor's stack: borrowed from memory, or read. [`Rows::matrix`] is what to compute with.
#[derive(Clone, Debug)]
pub struct Rows<'a> {
    format: Format,
    rows: usize,
    cols: usize,
    data: Cow<'a, [u8]>,
    scales: Option<Cow<'a, [u8]>>,
}

impl Rows<'_> {
    /// The rows as a matrix.
    pub fn matrix(&self) -> Matrix<'_> {
        Matrix::native(self.format, self.rows, self.cols, &self.data, self.scales.as_deref())
    }
}

impl Tensor {
    /// Whether all of it is in memory, or mapped.
    pub fn is_resident(&self) -> bool {
        self.data.is_resident() && self.scales.as_ref().is_none_or(|s| s.is_resident())
    }

    /// Bytes of one row in the file.
    pub fn row_bytes(&self) -> usize {
        self.format.row_bytes(self.cols).unwrap_or(0)
    }

    /// Rows `first..first + rows`, counted over the whole stack; of an F8 matrix `first` is a multiple of 128.
    ///
    /// # Errors
    /// Where they cannot be read.
    ///
    /// # Panics
    /// Where there are no such rows.
    pub fn part(&self, first: usize, rows: usize) -> Result<Rows<'_>> {
        assert!(first + rows <= self.count * self.rows, "{}: rows {first}..{}", self.name, first + rows);
        let row = self.row_bytes();
        let data = self.data.read(first * row, rows * row).map_err(|e| self.unreadable(e))?;
        let scales = match &self.scales {
            None => None,
            Some(all) => {
                assert!(first.is_multiple_of(F8_BLOCK), "{}: row {first} begins no block", self.name);
                let row = 4 * self.cols.div_ceil(F8_BLOCK);
                let (from, to) = (first / F8_BLOCK, (first + rows).div_ceil(F8_BLOCK));
                Some(all.read(from * row, (to - from) * row).map_err(|e| self.unreadable(e))?)
            }
        };
        Ok(Rows { format: self.format, rows, cols: self.cols, data, scales })
    }

    /// Puts it into memory, where it is not.
    ///
    /// # Errors
    /// Where it cannot be read, or there is no memory for it.
    pub fn make_resident(&mut self) -> Result<()> {
        let data = self.data.to_resident().map_err(|e| self.unreadable(e))?;
        let scales = self.scales.as_ref().map(|s| s.to_resident()).transpose().map_err(|e| self.unreadable(e))?;
        (self.data, self.scales) = (data, scales);
        Ok(())
    }

    /// The error for bytes of this tensor that could not be read.
    pub fn unreadable(&self, source: io::Error) -> Error {
        Error::Read { file: self.data.file().to_owned(), name: self.name.clone(), source }
    }

    /// Number of elements.
    pub fn elements(&self) -> u64 {
        self.count as u64 * self.rows as u64 * self.cols as u64
    }

    /// Refuses NaN and infinity; what is not in memory is read a few MiB at a time.
    pub fn check_finite(&self, file: &str) -> Result<()> {
        let all = self.count * self.rows;
        let step = if self.is_resident() { all } else { (MAX_READ / self.row_bytes().max(1)).next_multiple_of(F8_BLOCK) };
        for first in (0..all).step_by(step.max(1)) {
            let Some((row, col)) = self.part(first, step.min(all - first))?.matrix().find_non_finite() else { continue };
            let row = first + row;
            let what = if self.count > 1 {
                format!("NaN or infinity in matrix {}, row {}, column {col}", row / self.rows, row % self.rows)
            } else {
                format!("NaN or infinity in row {row}, column {col}")
            };
            return Err(Error::BadWeights { file: file.to_owned(), name: self.name.clone(), what });
        }
        Ok(())
    }
}

impl Experts {
    /// Where a matrix of an expert lies: the tensor that holds it, and its first row there. Panics where there is no such
    /// expert.
    pub fn place(&self, expert: usize, part: ExpertPart) -> (&Tensor, usize) {
        match self {
            Self::Separate(all) => (all[expert].part(part), 0),
            Self::Stacked(mlp) => {
                let tensor = mlp.part(part);
                assert!(expert < tensor.count, "{}: matrix {expert} of {}", tensor.name, tensor.count);
                (tensor, expert * tensor.rows)
            }
        }
    }

    /// One matrix of one expert: borrowed, or read whole. Panics where there is no such expert.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn part(&self, expert: usize, part: ExpertPart) -> Result<Rows<'_>> {
        let (tensor, first) = self.place(expert, part);
        tensor.part(first, tensor.rows)
    }

    /// Whether they are all in memory, or mapped.
    pub fn is_resident(&self) -> bool {
        self.mlps().iter().all(|m| [&m.gate, &m.up, &m.down].into_iter().all(Tensor::is_resident))
    }

    /// The MLPs that hold them: one an expert, or one stack.
    pub fn mlps(&self) -> &[Mlp] {
        match self {
            Self::Separate(all) => all,
            Self::Stacked(mlp) => std::slice::from_ref(mlp),
        }
    }

    /// The same, to be changed.
    pub fn mlps_mut(&mut self) -> &mut [Mlp] {
        match self {
            Self::Separate(all) => all,
            Self::Stacked(mlp) => std::slice::from_mut(mlp),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

    use std::sync::Arc;

    use super::*;
    use crate::{Bytes, Ranged, testing::Counted};

    /// Of a file that holds the bytes.
    fn in_ranges(bytes: &[u8]) -> (Bytes, Arc<Counted>) {
        let counted = Arc::new(Counted::new(bytes.to_vec()));
        let file: Arc<dyn Ranged> = Arc::<Counted>::clone(&counted);
        (Bytes::ranged(&"model.gguf".into(), &file, 0, bytes.len()).unwrap(), counted)
    }

    fn tensor(format: Format, count: usize, rows: usize, cols: usize, data: Bytes) -> Tensor {
        Tensor { name: "t".into(), format, count, rows, cols, data, scales: None }
    }

    #[test]
    fn parts_of_fp8_matrices_keep_their_scales() {
        let (rows, cols) = (300, 130);
        let data = vec![0x38; rows * cols];
        let scales: Vec<u8> = (0..3 * 2).flat_map(|i| (i as f32 + 1.0).to_le_bytes()).collect();
        let here = Tensor {
            scales: Some(Bytes::new(scales.clone())),
            ..tensor(Format::F8E4M3, 1, rows, cols, Bytes::new(data.clone()))
        };
        let there = Tensor { data: in_ranges(&data).0, scales: Some(in_ranges(&scales).0), ..here.clone() };
        let whole = here.to_f32();
        for (first, n) in [(0, 128), (128, 128), (256, 44), (128, 172), (0, 300)] {
            for t in [&here, &there] {
                assert_eq!(t.part(first, n).unwrap().matrix().to_f32(), whole[first * cols..(first + n) * cols]);
            }
        }
        let mut read = there.clone();
        read.make_resident().unwrap();
        assert!(read.is_resident() && !there.is_resident() && read.to_f32() == whole);
    }

    #[test]
    fn infinity_is_found_where_it_is_and_failures_name_file_and_tensor() {
        let (count, rows, cols) = (3, 700, 1024);
        let mut data = vec![0; 4 * count * rows * cols];
        let at = (2 * rows + 5) * cols + 17;
        data[4 * at..][..4].copy_from_slice(&f32::INFINITY.to_le_bytes());
        let here = tensor(Format::F32, count, rows, cols, Bytes::new(data.clone()));
        let (bytes, counted) = in_ranges(&data);
        let there = Tensor { data: bytes, ..here.clone() };
        let said = [&here, &there].map(|t| t.check_finite("file").unwrap_err().to_string());
        assert!(said[0].contains("matrix 2, row 5, column 17"), "{}", said[0]);
        assert_eq!(said[0], said[1]);
        assert!(counted.largest() <= MAX_READ && counted.reads() >= 2);
        counted.fail_after(1);
        let said = there.check_finite("file").unwrap_err().to_string();
        assert!(said.contains("model.gguf") && said.contains("`t`") && said.contains("cannot be read"), "{said}");
        assert!(matches!(there.clone().make_resident(), Err(Error::Read { .. })));
    }
}
