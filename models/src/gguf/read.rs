//! Parsing of the part before the tensor data.

use std::collections::HashSet;

use super::{Array, DEFAULT_ALIGNMENT, MAGIC, Metadata, Value, align_up};
use crate::{Error, Format, Result};

/// Arrays within arrays: none of the known keys has any, and the format sets no limit.
const MAX_NESTING: usize = 4;
/// ggml's longest tensor name is 63 bytes; other writers allow more.
const MAX_NAME: usize = 1024;
/// ggml's own limit.
const MAX_DIMS: u32 = 4;
/// Elements of one metadata array; the largest vocabularies have about 2^18.
const MAX_ARRAY: u64 = 1 << 24;
/// Larger alignments are not alignments.
const MAX_ALIGNMENT: u64 = 1 << 30;

/// Everything before the tensor data.
#[derive(Clone, Debug)]
pub struct Header {
    /// Format version, 2 or 3.
    pub version: u32,
    /// Keys and values.
    pub metadata: Metadata,
    /// The tensors, in file order.
    pub tensors: Vec<TensorInfo>,
    /// Alignment of each tensor's data, a power of two.
    pub alignment: u64,
    /// Where the data begins, in bytes from the start of the file.
    pub data_start: u64,
}

/// Where a tensor is and what it looks like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Its name.
    pub name: String,
    /// Dimensions, innermost (contiguous) first, as in the file; 1 to 4, none 0.
    pub dims: Vec<usize>,
    /// How its elements are stored.
    pub format: Format,
    /// Bytes from the start of the file.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
}

impl TensorInfo {
    /// Dimensions, outermost first, without leading ones.
    pub fn shape(&self) -> Vec<usize> {
        let mut shape: Vec<usize> = self.dims.iter().rev().copied().skip_while(|&d| d == 1).collect();
        if shape.is_empty() {
            shape.push(1);
        }
        shape
    }
}

/// Reads little-endian values; every read checks that the bytes are there.
struct Cursor<'a> {
    file: &'a str,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn bad(&self, what: impl Into<String>) -> Error {
        Error::malformed(self.file, what)
    }

    fn remaining(&self) -> u64 {
        (self.bytes.len() - self.at) as u64
    }

    fn take(&mut self, len: u64, what: &str) -> Result<&'a [u8]> {
        let end = usize::try_from(len).ok().and_then(|len| self.at.checked_add(len));
        let taken = end.and_then(|end| self.bytes.get(self.at..end));
        let Some(taken) = taken else {
            return Err(self.bad(format!(
                "the header ends in {what}: {len} bytes wanted at {}, {} there (truncated, or a wrong length)",
                self.at,
                self.remaining()
            )));
        };
        self.at += taken.len();
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N]> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N as u64, what)?);
        Ok(out)
    }

    fn u32(&mut self, what: &str) -> Result<u32> {
        self.array(what).map(u32::from_le_bytes)
    }

    fn u64(&mut self, what: &str) -> Result<u64> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// A string whose text may be anything; vocabularies of some files are not UTF-8 throughout.
    fn string(&mut self, what: &str) -> Result<String> {
        let len = self.u64(what)?;
        Ok(String::from_utf8_lossy(self.take(len, what)?).into_owned())
    }

    /// A key or a tensor name.
    fn name(&mut self, what: &str) -> Result<String> {
        let len = self.u64(what)?;
        if len > MAX_NAME as u64 {
            return Err(self.bad(format!("{what} has {len} bytes; at most {MAX_NAME} are allowed")));
        }
        let bytes = self.take(len, what)?;
        match std::str::from_utf8(bytes) {
            Ok("") => Err(self.bad(format!("{what} is empty"))),
            Ok(name) => Ok(name.to_owned()),
            Err(_) => Err(self.bad(format!("{what} is not UTF-8"))),
        }
    }

    fn bool(&mut self, what: &str) -> Result<bool> {
        match self.array::<1>(what)? {
            [0] => Ok(false),
            [1] => Ok(true),
            [b] => Err(self.bad(format!("{what}: {b} is not a boolean"))),
        }
    }

    fn value(&mut self, kind: u32, what: &str) -> Result<Value> {
        Ok(match kind {
            0 => Value::U8(u8::from_le_bytes(self.array(what)?)),
            1 => Value::I8(i8::from_le_bytes(self.array(what)?)),
            2 => Value::U16(u16::from_le_bytes(self.array(what)?)),
            3 => Value::I16(i16::from_le_bytes(self.array(what)?)),
            4 => Value::U32(self.u32(what)?),
            5 => Value::I32(i32::from_le_bytes(self.array(what)?)),
            6 => Value::F32(f32::from_le_bytes(self.array(what)?)),
            7 => Value::Bool(self.bool(what)?),
            8 => Value::String(self.string(what)?),
            9 => Value::Array(self.values(what, 1)?),
            10 => Value::U64(self.u64(what)?),
            11 => Value::I64(i64::from_le_bytes(self.array(what)?)),
            12 => Value::F64(f64::from_le_bytes(self.array(what)?)),
            _ => return Err(self.bad(format!("{what}: {kind} is not a type of metadata"))),
        })
    }

    /// An array: element type, count, elements.
    fn values(&mut self, what: &str, depth: usize) -> Result<Array> {
        if depth > MAX_NESTING {
            return Err(self.bad(format!("{what}: arrays are nested more than {MAX_NESTING} deep")));
        }
        let kind = self.u32(what)?;
        let count = self.u64(what)?;
        // The least that an element takes in the file bounds the count, and so the memory.
        let least = match kind {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            8 | 10..=12 => 8,
            9 => 12,
            _ => return Err(self.bad(format!("{what}: {kind} is not a type of metadata"))),
        };
        if count > MAX_ARRAY || count > self.remaining() / least {
            return Err(self.bad(format!(
                "{what}: {count} elements are claimed, {} bytes are left (truncated, or a wrong count)",
                self.remaining()
            )));
        }
        fn fixed<const N: usize, T>(bytes: &[u8], get: fn([u8; N]) -> T) -> Vec<T> {
            bytes.as_chunks().0.iter().map(|&c| get(c)).collect()
        }
        let plain = |bytes: &[u8]| -> Option<Array> {
            Some(match kind {
                0 => Array::U8(bytes.to_vec()),
                1 => Array::I8(fixed(bytes, i8::from_le_bytes)),
                2 => Array::U16(fixed(bytes, u16::from_le_bytes)),
                3 => Array::I16(fixed(bytes, i16::from_le_bytes)),
                4 => Array::U32(fixed(bytes, u32::from_le_bytes)),
                5 => Array::I32(fixed(bytes, i32::from_le_bytes)),
                6 => Array::F32(fixed(bytes, f32::from_le_bytes)),
                10 => Array::U64(fixed(bytes, u64::from_le_bytes)),
                11 => Array::I64(fixed(bytes, i64::from_le_bytes)),
                12 => Array::F64(fixed(bytes, f64::from_le_bytes)),
                _ => return None,
            })
        };
        match kind {
            7 => (0..count).map(|_| self.bool(what)).collect::<Result<_>>().map(Array::Bool),
            8 => (0..count).map(|_| self.string(what)).collect::<Result<_>>().map(Array::String),
            9 => (0..count).map(|_| self.values(what, depth + 1)).collect::<Result<_>>().map(Array::Array),
            _ => {
                let bytes = self.take(count * least, what)?;
                plain(bytes).ok_or_else(|| self.bad(format!("{what}: {kind} is not a type of metadata")))
            }
        }
    }
}

impl Header {
    /// Parses a header.
    ///
    /// `bytes` are the file's first bytes, or all of them; `file_len` is the length of the whole
    /// file, against which the tensors' places are checked; `file` is named in errors.
    pub fn parse(file: &str, bytes: &[u8], file_len: u64) -> Result<Self> {
        let mut c = Cursor { file, bytes, at: 0 };
        let version = version(&mut c)?;
        let tensor_count = c.u64("the number of tensors")?;
        let key_count = c.u64("the number of metadata keys")?;
        // The least that an entry takes: (name 8+1, dims 4+8, type 4, offset 8), (key 8+1, type 4, value 1).
        for (count, least, what) in [(tensor_count, 33, "tensors"), (key_count, 14, "metadata keys")] {
            if count > c.remaining() / least {
                return Err(c.bad(format!("{count} {what} are claimed, but the file has {file_len} bytes")));
            }
        }
        let mut metadata = Metadata::new(file);
        for _ in 0..key_count {
            let key = c.name("a metadata key")?;
            let kind = c.u32(&format!("`{key}`"))?;
            let value = c.value(kind, &format!("`{key}`"))?;
            if !metadata.insert(key.clone(), value) {
                return Err(Error::metadata(file, key, "is there twice"));
            }
        }
        let alignment = alignment(&metadata)?;
        let mut tensors = Vec::new();
        let mut names = HashSet::new();
        for _ in 0..tensor_count {
            let tensor = tensor(&mut c, alignment)?;
            if !names.insert(tensor.name.clone()) {
                return Err(c.bad(format!("tensor `{}` is there twice", tensor.name)));
            }
            tensors.push(tensor);
        }
        let data_start = align_up(c.at as u64, alignment).ok_or_else(|| c.bad("the header is too long"))?;
        for t in &mut tensors {
            let end = data_start.checked_add(t.offset).and_then(|start| Some((start, start.checked_add(t.len)?)));
            match end {
                Some((start, end)) if end <= file_len => t.offset = start,
                _ => {
                    return Err(Error::malformed(
                        file,
                        format!(
                            "tensor `{}` needs {} bytes at {data_start} + {}, but the file has {file_len} (truncated, or a wrong offset)",
                            t.name, t.len, t.offset
                        ),
                    ));
                }
            }
        }
        Ok(Self { version, metadata, tensors, alignment, data_start })
    }
}

fn version(c: &mut Cursor<'_>) -> Result<u32> {
    let unsupported = |name: String, hint: &str| Error::Unsupported {
        file: c.file.to_owned(),
        kind: "GGUF version",
        name,
        hint: format!("; {hint}"),
    };
    let mut start = Cursor { file: c.file, bytes: c.bytes, at: 0 };
    if c.bytes.len() < 4 || start.array::<4>("the magic")? != MAGIC {
        return Err(c.bad("is no GGUF file: it does not begin with `GGUF`"));
    }
    let version = start.u32("the version")?;
    match version {
        2 | 3 => {
            c.at = start.at;
            Ok(version)
        }
        1 => Err(unsupported("1".to_owned(), "convert the model again with a current llama.cpp")),
        v if v != 0 && v & 0xffff == 0 => {
            Err(unsupported(format!("{} (big-endian)", v.swap_bytes()), "use a little-endian file"))
        }
        v => Err(unsupported(v.to_string(), "2 and 3 are")),
    }
}

fn alignment(metadata: &Metadata) -> Result<u64> {
    const KEY: &str = "general.alignment";
    let Some(value) = metadata.usize(KEY)? else { return Ok(DEFAULT_ALIGNMENT) };
    let value = value as u64;
    if !value.is_power_of_two() || value > MAX_ALIGNMENT {
        return Err(Error::metadata(metadata.file(), KEY, format!("is {value}, not a power of two")));
    }
    Ok(value)
}

/// One tensor description; the offset is still relative to the data.
fn tensor(c: &mut Cursor<'_>, alignment: u64) -> Result<TensorInfo> {
    let name = c.name("a tensor name")?;
    let what = format!("tensor `{name}`");
    let n = c.u32(&what)?;
    if n == 0 || n > MAX_DIMS {
        return Err(c.bad(format!("{what} has {n} dimensions; 1 to {MAX_DIMS} are allowed")));
    }
    let mut dims = Vec::with_capacity(n as usize);
    for _ in 0..n {
        let d = c.u64(&what)?;
        dims.push(usize::try_from(d).ok().filter(|&d| d > 0).ok_or_else(|| c.bad(format!("{what} has a dimension of {d}")))?);
    }
    let id = c.u32(&what)?;
    let format = Format::from_ggml(id).ok_or_else(|| Error::Unsupported {
        file: c.file.to_owned(),
        kind: "tensor format",
        name: format!("{} (type {id} of {what})", ggml_name(id)),
        hint: format!("; supported are {}", supported()),
    })?;
    let offset = c.u64(&what)?;
    if !offset.is_multiple_of(alignment) {
        return Err(c.bad(format!("{what} begins at {offset}, which is not aligned to {alignment} bytes")));
    }
    let cols = dims.first().copied().unwrap_or(1);
    if !cols.is_multiple_of(format.block_len()) {
        return Err(c.bad(format!("{what} has rows of {cols} weights, no multiple of {format}'s {}", format.block_len())));
    }
    let row = format.row_bytes(cols).map(|n| n as u64);
    let len = dims.iter().skip(1).try_fold(row, |n, &d| Some(n?.checked_mul(d as u64))).flatten();
    let elements = dims.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
    match (len, elements) {
        (Some(len), Some(_)) => Ok(TensorInfo { name, dims, format, offset, len }),
        _ => Err(c.bad(format!("{what} has the impossible dimensions {dims:?}"))),
    }
}

fn supported() -> String {
    let names: Vec<&str> = Format::ALL.iter().filter(|f| f.ggml_id().is_some()).map(|f| f.name()).collect();
    names.join(", ")
}

/// Names of ggml types that are not supported, for the message.
const fn ggml_name(id: u32) -> &'static str {
    match id {
        4 => "Q4_2",
        5 => "Q4_3",
        9 => "Q8_1",
        15 => "Q8_K",
        16 => "IQ2_XXS",
        17 => "IQ2_XS",
        18 => "IQ3_XXS",
        19 => "IQ1_S",
        21 => "IQ3_S",
        22 => "IQ2_S",
        24 => "I8",
        25 => "I16",
        26 => "I32",
        27 => "I64",
        28 => "F64",
        29 => "IQ1_M",
        34 => "TQ1_0",
        35 => "TQ2_0",
        40 => "NVFP4",
        _ => "unknown",
    }
}
