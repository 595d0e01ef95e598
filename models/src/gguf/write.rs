//! Writing a file front to back, without holding any tensor.

use std::io::{self, Write};

use super::{Array, DEFAULT_ALIGNMENT, MAGIC, Value, align_up};
use crate::{Error, Format, Result};

/// Collects metadata and tensor descriptions; [`Writer::begin`] writes them, and the data follows.
#[derive(Clone, Debug, Default)]
pub struct Writer {
    metadata: Vec<(String, Value)>,
    tensors: Vec<Planned>,
}

/// A tensor to be written.
#[derive(Clone, Debug)]
struct Planned {
    name: String,
    dims: Vec<usize>,
    format: Format,
    len: u64,
}

/// Takes the tensors' data, in the order in which they were described.
#[derive(Debug)]
pub struct TensorWriter<W> {
    out: W,
    /// Bytes of each tensor.
    lens: std::vec::IntoIter<u64>,
    /// Bytes that the current tensor still lacks.
    left: u64,
    /// Bytes of padding behind the current tensor.
    padding: usize,
}

impl Writer {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The metadata of another writer, and no tensors.
    pub fn with_metadata_of(other: &Self) -> Self {
        Self { metadata: other.metadata.clone(), tensors: Vec::new() }
    }

    /// Adds a metadata key; a second value replaces the first.
    pub fn set(&mut self, key: impl Into<String>, value: impl Into<Value>) {
        let (key, value) = (key.into(), value.into());
        match self.metadata.iter_mut().find(|(k, _)| *k == key) {
            Some(entry) => entry.1 = value,
            None => self.metadata.push((key, value)),
        }
    }

    /// Describes the next tensor; `dims` innermost first. Returns its bytes.
    pub fn tensor(&mut self, name: impl Into<String>, dims: &[usize], format: Format) -> Result<u64> {
        let name = name.into();
        let bad = |what: String| Error::malformed("GGUF output", format!("tensor `{name}` {what}"));
        if format.ggml_id().is_none() {
            return Err(bad(format!("cannot be stored as {format}")));
        }
        let row = dims.first().and_then(|&cols| format.row_bytes(cols)).filter(|&n| n > 0);
        let row = row.ok_or_else(|| bad(format!("has rows that {format} cannot hold: {dims:?}")))?;
        let len = dims.iter().skip(1).try_fold(row as u64, |n, &d| n.checked_mul(d as u64));
        let len = len.filter(|&n| n > 0 && dims.len() <= 4).ok_or_else(|| bad(format!("has impossible dimensions {dims:?}")))?;
        if self.tensors.iter().any(|t| t.name == name) {
            return Err(bad("is described twice".to_owned()));
        }
        self.tensors.push(Planned { name, dims: dims.to_vec(), format, len });
        Ok(len)
    }

    /// Bytes of the file: header, data and padding.
    pub fn total_bytes(&self) -> u64 {
        let padded = |n: u64| align_up(n, DEFAULT_ALIGNMENT).unwrap_or(u64::MAX);
        let data = self.tensors.iter().fold(0u64, |sum, t| sum.saturating_add(padded(t.len)));
        data.saturating_add(padded(self.header().len() as u64))
    }

    fn header(&self) -> Vec<u8> {
        let mut h = Vec::new();
        h.extend(MAGIC);
        h.extend(3u32.to_le_bytes());
        h.extend((self.tensors.len() as u64).to_le_bytes());
        h.extend((self.metadata.len() as u64).to_le_bytes());
        for (key, value) in &self.metadata {
            string(&mut h, key);
            put(&mut h, value);
        }
        let mut offset = 0u64;
        for t in &self.tensors {
            string(&mut h, &t.name);
            h.extend((t.dims.len() as u32).to_le_bytes());
            t.dims.iter().for_each(|&d| h.extend((d as u64).to_le_bytes()));
            h.extend(t.format.ggml_id().unwrap_or(0).to_le_bytes());
            h.extend(offset.to_le_bytes());
            offset = offset.saturating_add(align_up(t.len, DEFAULT_ALIGNMENT).unwrap_or(u64::MAX));
        }
        h
    }

    /// Writes the header. All tensors' data must follow through the result.
    pub fn begin<W: Write>(self, mut out: W) -> io::Result<TensorWriter<W>> {
        let header = self.header();
        out.write_all(&header)?;
        pad(&mut out, padding(header.len() as u64))?;
        let lens: Vec<u64> = self.tensors.iter().map(|t| t.len).collect();
        Ok(TensorWriter { out, lens: lens.into_iter(), left: 0, padding: 0 })
    }
}

impl<W: Write> TensorWriter<W> {
    /// Appends data. A piece may end one tensor and begin the next.
    pub fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            if self.left == 0 {
                let next = self.lens.next();
                self.left = next.ok_or_else(|| io::Error::other("more tensor data than was described"))?;
                self.padding = padding(self.left);
            }
            let n = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
            let (now, rest) = bytes.split_at(n);
            self.out.write_all(now)?;
            self.left -= n as u64;
            if self.left == 0 {
                pad(&mut self.out, self.padding)?;
            }
            bytes = rest;
        }
        Ok(())
    }

    /// Flushes, once all data is there.
    pub fn finish(mut self) -> io::Result<W> {
        if self.left > 0 || self.lens.len() > 0 {
            return Err(io::Error::other("less tensor data than was described"));
        }
        self.out.flush()?;
        Ok(self.out)
    }
}

fn padding(len: u64) -> usize {
    align_up(len, DEFAULT_ALIGNMENT).map_or(0, |end| (end - len) as usize)
}

fn pad(out: &mut impl Write, n: usize) -> io::Result<()> {
    out.write_all(&[0; DEFAULT_ALIGNMENT as usize][..n])
}

fn string(h: &mut Vec<u8>, s: &str) {
    h.extend((s.len() as u64).to_le_bytes());
    h.extend(s.as_bytes());
}

/// Type, then value.
fn put(h: &mut Vec<u8>, value: &Value) {
    let mut scalar = |kind: u32, bytes: &[u8]| {
        h.extend(kind.to_le_bytes());
        h.extend(bytes);
    };
    match value {
        Value::U8(v) => scalar(0, &v.to_le_bytes()),
        Value::I8(v) => scalar(1, &v.to_le_bytes()),
        Value::U16(v) => scalar(2, &v.to_le_bytes()),
        Value::I16(v) => scalar(3, &v.to_le_bytes()),
        Value::U32(v) => scalar(4, &v.to_le_bytes()),
        Value::I32(v) => scalar(5, &v.to_le_bytes()),
        Value::F32(v) => scalar(6, &v.to_le_bytes()),
        Value::Bool(v) => scalar(7, &[u8::from(*v)]),
        Value::U64(v) => scalar(10, &v.to_le_bytes()),
        Value::I64(v) => scalar(11, &v.to_le_bytes()),
        Value::F64(v) => scalar(12, &v.to_le_bytes()),
        Value::String(v) => {
            h.extend(8u32.to_le_bytes());
            string(h, v);
        }
        Value::Array(v) => {
            h.extend(9u32.to_le_bytes());
            put_array(h, v);
        }
    }
}

/// Element type, count, elements.
fn put_array(h: &mut Vec<u8>, array: &Array) {
    let kind: u32 = match array {
        Array::U8(_) => 0,
        Array::I8(_) => 1,
        Array::U16(_) => 2,
        Array::I16(_) => 3,
        Array::U32(_) => 4,
        Array::I32(_) => 5,
        Array::F32(_) => 6,
        Array::Bool(_) => 7,
        Array::String(_) => 8,
        Array::Array(_) => 9,
        Array::U64(_) => 10,
        Array::I64(_) => 11,
        Array::F64(_) => 12,
    };
    h.extend(kind.to_le_bytes());
    h.extend((array.len() as u64).to_le_bytes());
    match array {
        Array::U8(v) => h.extend(v),
        Array::I8(v) => v.iter().for_each(|x| h.extend(x.to_le_bytes())),
        Array::U16(v) => v.iter().for_each(|x| h.extend(x.to_le_bytes())),
        Array::I16(v) => v.iter().for_each(|x| h.extend(x.to_le_bytes())),
        Array::U32(v) => v.iter().for_each(|x| h.extend(x.to_le_bytes())),
        Array::I32(v) => v.iter().for_each(|x| h.extend(x.to_le_bytes())),
        Array::F32(v) => v.iter().for_each(|x| h.extend(x.to_le_bytes())),
        Array::Bool(v) => v.iter().for_each(|&x| h.push(u8::from(x))),
        Array::String(v) => v.iter().for_each(|x| string(h, x)),
        Array::Array(v) => v.iter().for_each(|x| put_array(h, x)),
        Array::U64(v) => v.iter().for_each(|x| h.extend(x.to_le_bytes())),
        Array::I64(v) => v.iter().for_each(|x| h.extend(x.to_le_bytes())),
        Array::F64(v) => v.iter().for_each(|x| h.extend(x.to_le_bytes())),
    }
}
