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
/// The type of arrays.
const ARRAY: u32 = 9;
/// How the keys of vocabularies begin.
const VOCABULARY: &str = "tokenizer.";
/// Larger alignments are not alignments.
const MAX_ALIGNMENT: u64 = 1 << 30;

/// Bytes of everything before the tensor data; the largest vocabularies take about 20 MiB.
pub(super) const MAX_HEADER: u64 = 64 << 20;

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

/// What the first bytes of a file are.
#[derive(Clone, Debug)]
pub enum Prefix {
    /// They hold the whole header.
    Whole(Header),
    /// They are sound, but the header goes on behind them: at least so many of the file's first bytes are needed.
    Longer(u64),
}

/// Why parsing stopped.
enum Stop {
    /// At least so many of the file's first bytes are needed.
    Short(u64),
    /// The header is wrong.
    Bad(Error),
}

impl From<Error> for Stop {
    fn from(e: Error) -> Self {
        Self::Bad(e)
    }
}

type Parse<T> = Result<T, Stop>;

/// Reads little-endian values; every read checks that the bytes are there.
struct Cursor<'a> {
    file: &'a str,
    bytes: &'a [u8],
    at: usize,
    /// Bytes of the whole file, of which `bytes` are the first.
    file_len: u64,
}

impl<'a> Cursor<'a> {
    fn bad(&self, what: impl Into<String>) -> Error {
        Error::malformed(self.file, what)
    }

    /// Bytes that the file still has.
    fn remaining(&self) -> u64 {
        self.file_len.saturating_sub(self.at as u64)
    }

    /// Checks that `count` things of at least `least` bytes can follow: before any memory is reserved for them.
    fn room(&self, count: u64, least: u64, refusal: impl FnOnce() -> String) -> Parse<()> {
        let end = count.checked_mul(least).and_then(|len| len.checked_add(self.at as u64));
        match end {
            Some(end) if end <= self.bytes.len() as u64 => Ok(()),
            Some(end) if end <= self.file_len => Err(Stop::Short(end)),
            _ => Err(self.bad(refusal()).into()),
        }
    }

    fn take(&mut self, len: u64, what: &str) -> Parse<&'a [u8]> {
        self.room(len, 1, || {
            format!(
                "the header ends in {what}: {len} bytes wanted at {}, {} there (truncated, or a wrong length)",
                self.at,
                self.remaining()
            )
        })?;
        let taken = self.bytes.get(self.at..self.at + len as usize).unwrap_or_default();
        self.at += taken.len();
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, what: &str) -> Parse<[u8; N]> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N as u64, what)?);
        Ok(out)
    }

    fn u32(&mut self, what: &str) -> Parse<u32> {
        self.array(what).map(u32::from_le_bytes)
    }

    fn u64(&mut self, what: &str) -> Parse<u64> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// A string whose text may be anything; vocabularies of some files are not UTF-8 throughout.
    fn string(&mut self, what: &str) -> Parse<String> {
        let len = self.u64(what)?;
        Ok(String::from_utf8_lossy(self.take(len, what)?).into_owned())
    }

    /// A key or a tensor name.
    fn name(&mut self, what: &str) -> Parse<String> {
        let len = self.u64(what)?;
        if len > MAX_NAME as u64 {
            return Err(self.bad(format!("{what} has {len} bytes; at most {MAX_NAME} are allowed")).into());
        }
        let bytes = self.take(len, what)?;
        match std::str::from_utf8(bytes) {
            Ok("") => Err(self.bad(format!("{what} is empty")).into()),
            Ok(name) => Ok(name.to_owned()),
            Err(_) => Err(self.bad(format!("{what} is not UTF-8")).into()),
        }
    }

    fn bool(&mut self, what: &str) -> Parse<bool> {
        match self.array::<1>(what)? {
            [0] => Ok(false),
            [1] => Ok(true),
            [b] => Err(self.bad(format!("{what}: {b} is not a boolean")).into()),
        }
    }

    fn value(&mut self, kind: u32, what: &str) -> Parse<Value> {
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
            _ => return Err(self.bad(format!("{what}: {kind} is not a type of metadata")).into()),
        })
    }

    /// An array's element type and count, and the least bytes that an element takes in the file.
    fn array_head(&mut self, what: &str, depth: usize) -> Parse<(u32, u64, u64)> {
        if depth > MAX_NESTING {
            return Err(self.bad(format!("{what}: arrays are nested more than {MAX_NESTING} deep")).into());
        }
        let kind = self.u32(what)?;
        let count = self.u64(what)?;
        let least = match kind {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            8 | 10..=12 => 8,
            9 => 12,
            _ => return Err(self.bad(format!("{what}: {kind} is not a type of metadata")).into()),
        };
        let refusal =
            || format!("{what}: {count} elements are claimed, {} bytes are left (truncated, or a wrong count)", self.remaining());
        if count > MAX_ARRAY {
            return Err(self.bad(refusal()).into());
        }
        self.room(count, least, refusal)?;
        Ok((kind, count, least))
    }

    /// Passes over an array; returns its length.
    fn skip_values(&mut self, what: &str, depth: usize) -> Parse<usize> {
        let (kind, count, least) = self.array_head(what, depth)?;
        match kind {
            8 => {
                for _ in 0..count {
                    let len = self.u64(what)?;
                    self.take(len, what)?;
                }
            }
            9 => {
                for _ in 0..count {
                    self.skip_values(what, depth + 1)?;
                }
            }
            _ => drop(self.take(count * least, what)?),
        }
        Ok(count as usize)
    }

    /// An array: element type, count, elements.
    fn values(&mut self, what: &str, depth: usize) -> Parse<Array> {
        let (kind, count, least) = self.array_head(what, depth)?;
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
            7 => (0..count).map(|_| self.bool(what)).collect::<Parse<_>>().map(Array::Bool),
            8 => (0..count).map(|_| self.string(what)).collect::<Parse<_>>().map(Array::String),
            9 => (0..count).map(|_| self.values(what, depth + 1)).collect::<Parse<_>>().map(Array::Array),
            _ => {
                let bytes = self.take(count * least, what)?;
                plain(bytes).ok_or_else(|| self.bad(format!("{what}: {kind} is not a type of metadata")).into())
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
        match Self::parse_prefix(file, bytes, file_len, true)? {
            Prefix::Whole(header) => Ok(header),
            Prefix::Longer(needed) => {
                let there = bytes.len();
                Err(Error::malformed(file, format!("the header needs {needed} bytes or more, of which {there} are here")))
            }
        }
    }

    /// The same of a file that is still being read: a header that is longer than `bytes` is no error. Without `vocabulary` the
    /// tokenizer's arrays are passed over ([`Metadata::array_len`] is all that is kept of them).
    pub fn parse_prefix(file: &str, bytes: &[u8], file_len: u64, vocabulary: bool) -> Result<Prefix> {
        let bytes = bytes.get(..usize::try_from(file_len).unwrap_or(usize::MAX)).unwrap_or(bytes);
        let c = Cursor { file, bytes, at: 0, file_len };
        match header(c, vocabulary) {
            Ok(header) => Ok(Prefix::Whole(header)),
            Err(Stop::Short(needed)) if needed > MAX_HEADER => {
                let what = format!("claims a header of {needed} bytes or more; at most {MAX_HEADER} are allowed");
                Err(Error::malformed(file, what))
            }
            Err(Stop::Short(needed)) => Ok(Prefix::Longer(needed)),
            Err(Stop::Bad(e)) => Err(e),
        }
    }
}

fn header(mut c: Cursor<'_>, vocabulary: bool) -> Parse<Header> {
    let (file, file_len) = (c.file, c.file_len);
    let version = version(&mut c)?;
    let tensor_count = c.u64("the number of tensors")?;
    let key_count = c.u64("the number of metadata keys")?;
    // The least that an entry takes: (name 8+1, dims 4+8, type 4, offset 8), (key 8+1, type 4, value 1).
    for (count, least, what) in [(tensor_count, 33, "tensors"), (key_count, 14, "metadata keys")] {
        c.room(count, least, || format!("{count} {what} are claimed, but the file has {file_len} bytes"))?;
    }
    let mut metadata = Metadata::new(file);
    for _ in 0..key_count {
        let key = c.name("a metadata key")?;
        let (what, kind) = (format!("`{key}`"), c.u32(&format!("`{key}`"))?);
        let is_new = if kind == ARRAY && !vocabulary && key.starts_with(VOCABULARY) {
            metadata.leave_out(key.clone(), c.skip_values(&what, 1)?)
        } else {
            metadata.insert(key.clone(), c.value(kind, &what)?)
        };
        if !is_new {
            return Err(Error::metadata(file, key, "is there twice").into());
        }
    }
    let alignment = alignment(&metadata)?;
    let mut tensors = Vec::new();
    let mut names = HashSet::new();
    for _ in 0..tensor_count {
        let tensor = tensor(&mut c, alignment)?;
        if !names.insert(tensor.name.clone()) {
            return Err(c.bad(format!("tensor `{}` is there twice", tensor.name)).into());
        }
        tensors.push(tensor);
    }
    let data_start = align_up(c.at as u64, alignment).ok_or_else(|| c.bad("the header is too long"))?;
    for t in &mut tensors {
        let end = data_start.checked_add(t.offset).and_then(|start| Some((start, start.checked_add(t.len)?)));
        match end {
            Some((start, end)) if end <= file_len => t.offset = start,
            _ => {
                let what = format!(
                    "tensor `{}` needs {} bytes at {data_start} + {}, but the file has {file_len} (truncated, or a wrong offset)",
                    t.name, t.len, t.offset
                );
                return Err(Error::malformed(file, what).into());
            }
        }
    }
    Ok(Header { version, metadata, tensors, alignment, data_start })
}

fn version(c: &mut Cursor<'_>) -> Parse<u32> {
    let unsupported = |name: String, hint: &str| Error::Unsupported {
        file: c.file.to_owned(),
        kind: "GGUF version",
        name,
        hint: format!("; {hint}"),
    };
    let magic = c.bytes.get(..MAGIC.len()).unwrap_or(c.bytes);
    if !MAGIC.starts_with(magic) || c.file_len < MAGIC.len() as u64 {
        return Err(c.bad("is no GGUF file: it does not begin with `GGUF`").into());
    }
    let mut start = Cursor { file: c.file, bytes: c.bytes, at: 0, file_len: c.file_len };
    start.take(MAGIC.len() as u64, "the magic")?;
    let version = start.u32("the version")?;
    let refused = match version {
        2 | 3 => {
            c.at = start.at;
            return Ok(version);
        }
        1 => unsupported("1".to_owned(), "convert the model again with a current llama.cpp"),
        v if v != 0 && v & 0xffff == 0 => unsupported(format!("{} (big-endian)", v.swap_bytes()), "use a little-endian file"),
        v => unsupported(v.to_string(), "2 and 3 are"),
    };
    Err(refused.into())
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
fn tensor(c: &mut Cursor<'_>, alignment: u64) -> Parse<TensorInfo> {
    let name = c.name("a tensor name")?;
    let what = format!("tensor `{name}`");
    let n = c.u32(&what)?;
    if n == 0 || n > MAX_DIMS {
        return Err(c.bad(format!("{what} has {n} dimensions; 1 to {MAX_DIMS} are allowed")).into());
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
        return Err(c.bad(format!("{what} begins at {offset}, which is not aligned to {alignment} bytes")).into());
    }
    let cols = dims.first().copied().unwrap_or(1);
    if !cols.is_multiple_of(format.block_len()) {
        return Err(c.bad(format!("{what} has rows of {cols} weights, no multiple of {format}'s {}", format.block_len())).into());
    }
    let row = format.row_bytes(cols).map(|n| n as u64);
    let len = dims.iter().skip(1).try_fold(row, |n, &d| Some(n?.checked_mul(d as u64))).flatten();
    let elements = dims.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
    match (len, elements) {
        (Some(len), Some(_)) => Ok(TensorInfo { name, dims, format, offset, len }),
        _ => Err(c.bad(format!("{what} has the impossible dimensions {dims:?}")).into()),
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
