//! Files that commands write.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use serde_json::{Map, json};

/// Writes a file that appears under its name only once it is whole. The error names the file.
pub fn write_file<T>(path: &Path, fill: impl FnOnce(&mut BufWriter<File>) -> Result<T>) -> Result<T> {
    let into = |path: &Path| -> Result<T> {
        let mut out = BufWriter::with_capacity(1 << 20, File::create(path)?);
        let result = fill(&mut out)?;
        out.flush()?;
        Ok(result)
    };
    let written = if std::fs::metadata(path).is_ok_and(|m| !m.is_file()) {
        // A device or a pipe is written to, never replaced.
        into(path)
    } else {
        let mut part = path.as_os_str().to_owned();
        part.push(".part");
        let part = PathBuf::from(part);
        let written = into(&part).and_then(|result| {
            std::fs::rename(&part, path)?;
            Ok(result)
        });
        if written.is_err() {
            // It may never have been made; the error that counts is the first one.
            let _ = std::fs::remove_file(&part);
        }
        written
    };
    written.with_context(|| path.display().to_string())
}

/// The values of a tensor.
pub enum Values<'a> {
    /// F32.
    F32(&'a [f32]),
    /// I64.
    I64(Vec<i64>),
}

/// Writes tensors as a safetensors file: name, shape, values. Those of 64 bits come first, so that all are aligned.
pub fn write_safetensors(out: &mut impl Write, mut tensors: Vec<(String, Vec<usize>, Values<'_>)>) -> io::Result<()> {
    tensors.sort_by_key(|(_, _, values)| matches!(values, Values::F32(_)));
    let (mut header, mut end) = (Map::new(), 0);
    for (name, shape, values) in &tensors {
        let (dtype, bytes) = match values {
            Values::F32(v) => ("F32", 4 * v.len()),
            Values::I64(v) => ("I64", 8 * v.len()),
        };
        header.insert(name.clone(), json!({ "dtype": dtype, "shape": shape, "data_offsets": [end, end + bytes] }));
        end += bytes;
    }
    let mut header = serde_json::to_vec(&header)?;
    header.resize(header.len().next_multiple_of(8), b' ');
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(&header)?;
    for (_, _, values) in &tensors {
        match values {
            Values::F32(v) => v.iter().try_for_each(|x| out.write_all(&x.to_le_bytes()))?,
            Values::I64(v) => v.iter().try_for_each(|x| out.write_all(&x.to_le_bytes()))?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

    use pleiad_models::{
        Bytes,
        safetensors::{Dtype, SafeTensors},
    };

    use super::*;

    #[test]
    fn safetensors_are_read_back() {
        let mut file = Vec::new();
        let tensors = vec![
            ("logits".to_owned(), vec![1, 3], Values::F32(&[1.0, -2.5, 3.0])),
            ("ids".to_owned(), vec![2], Values::I64(vec![7, -1])),
        ];
        write_safetensors(&mut file, tensors).unwrap();
        let read = SafeTensors::from_bytes("x", Bytes::new(file)).unwrap();
        let (logits, ids) = (read.get("logits").unwrap(), read.get("ids").unwrap());
        assert_eq!((logits.dtype, &logits.shape[..], ids.dtype, &ids.shape[..]), (Dtype::F32, &[1, 3][..], Dtype::I64, &[2][..]));
        assert_eq!(logits.data[4..8], (-2.5f32).to_le_bytes());
        assert_eq!(ids.data[8..], (-1i64).to_le_bytes());
    }

    #[test]
    fn a_file_that_fails_leaves_the_old_one() {
        let path = std::env::temp_dir().join(format!("pleiad-output-{}", std::process::id()));
        write_file(&path, |out| Ok(out.write_all(b"old")?)).unwrap();
        let error = write_file(&path, |out| {
            out.write_all(b"new")?;
            anyhow::bail!("no more")
        });
        let error: anyhow::Error = error.map(|(): ()| ()).unwrap_err();
        assert!(format!("{error:#}").ends_with("no more"));
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        std::fs::remove_file(&path).unwrap();
    }
}
