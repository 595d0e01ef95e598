//! Metadata values.

use std::collections::HashMap;

use crate::{Error, Result};

/// A metadata value.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the variants are the format's own types")]
pub enum Value {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    String(String),
    Array(Array),
    U64(u64),
    I64(i64),
    F64(f64),
}

/// An array of one type.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the variants are the format's own types")]
pub enum Array {
    U8(Vec<u8>),
    I8(Vec<i8>),
    U16(Vec<u16>),
    I16(Vec<i16>),
    U32(Vec<u32>),
    I32(Vec<i32>),
    F32(Vec<f32>),
    Bool(Vec<bool>),
    String(Vec<String>),
    Array(Vec<Array>),
    U64(Vec<u64>),
    I64(Vec<i64>),
    F64(Vec<f64>),
}

impl Array {
    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            Self::U8(v) => v.len(),
            Self::I8(v) => v.len(),
            Self::U16(v) => v.len(),
            Self::I16(v) => v.len(),
            Self::U32(v) => v.len(),
            Self::I32(v) => v.len(),
            Self::F32(v) => v.len(),
            Self::Bool(v) => v.len(),
            Self::String(v) => v.len(),
            Self::Array(v) => v.len(),
            Self::U64(v) => v.len(),
            Self::I64(v) => v.len(),
            Self::F64(v) => v.len(),
        }
    }

    /// Whether it has no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The elements as signed integers, where they are integers.
    fn integers(&self) -> Option<Vec<i64>> {
        Some(match self {
            Self::U8(v) => v.iter().map(|&x| x.into()).collect(),
            Self::I8(v) => v.iter().map(|&x| x.into()).collect(),
            Self::U16(v) => v.iter().map(|&x| x.into()).collect(),
            Self::I16(v) => v.iter().map(|&x| x.into()).collect(),
            Self::U32(v) => v.iter().map(|&x| x.into()).collect(),
            Self::I32(v) => v.iter().map(|&x| x.into()).collect(),
            Self::U64(v) => v.iter().map(|&x| i64::try_from(x).ok()).collect::<Option<_>>()?,
            Self::I64(v) => v.clone(),
            _ => return None,
        })
    }
}

impl Value {
    /// What kind of value this is, for messages.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::U8(_) | Self::U16(_) | Self::U32(_) | Self::U64(_) => "an unsigned integer",
            Self::I8(_) | Self::I16(_) | Self::I32(_) | Self::I64(_) => "an integer",
            Self::F32(_) | Self::F64(_) => "a number",
            Self::Bool(_) => "a boolean",
            Self::String(_) => "a string",
            Self::Array(_) => "an array",
        }
    }

    /// The value as an integer; an array (one value a layer) whose elements are all equal counts as that value.
    pub fn as_integer(&self) -> Option<i64> {
        Some(match self {
            Self::U8(v) => (*v).into(),
            Self::I8(v) => (*v).into(),
            Self::U16(v) => (*v).into(),
            Self::I16(v) => (*v).into(),
            Self::U32(v) => (*v).into(),
            Self::I32(v) => (*v).into(),
            Self::U64(v) => i64::try_from(*v).ok()?,
            Self::I64(v) => *v,
            Self::Array(a) => {
                let all = a.integers()?;
                let first = *all.first()?;
                return all.iter().all(|&x| x == first).then_some(first);
            }
            _ => return None,
        })
    }

    /// The value as a number. An f32 is taken for the shortest decimal that rounds to it, so that
    /// 0.707 comes out as the 0.707 that the converter read.
    pub fn as_number(&self) -> Option<f64> {
        match self {
            Self::F32(v) if v.is_finite() => v.to_string().parse().ok(),
            Self::F32(v) => Some((*v).into()),
            Self::F64(v) => Some(*v),
            other => other.as_integer().map(|i| i as f64),
        }
    }
}

impl From<u32> for Value {
    fn from(v: u32) -> Self {
        Self::U32(v)
    }
}

impl From<f32> for Value {
    fn from(v: f32) -> Self {
        Self::F32(v)
    }
}

impl From<bool> for Value {
    fn from(v: bool) -> Self {
        Self::Bool(v)
    }
}

impl From<&str> for Value {
    fn from(v: &str) -> Self {
        Self::String(v.to_owned())
    }
}

impl From<String> for Value {
    fn from(v: String) -> Self {
        Self::String(v)
    }
}

impl From<Vec<String>> for Value {
    fn from(v: Vec<String>) -> Self {
        Self::Array(Array::String(v))
    }
}

impl From<Vec<i32>> for Value {
    fn from(v: Vec<i32>) -> Self {
        Self::Array(Array::I32(v))
    }
}

/// The metadata of a file: keys in file order, each once.
#[derive(Clone, Debug, Default)]
pub struct Metadata {
    file: String,
    entries: Vec<(String, Value)>,
    index: HashMap<String, usize>,
    /// Arrays that were passed over, and their lengths.
    left_out: Vec<(String, usize)>,
}

impl Metadata {
    /// No keys yet; `file` is named in errors.
    pub fn new(file: impl Into<String>) -> Self {
        Self { file: file.into(), ..Self::default() }
    }

    /// The file concerned, for errors.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// Adds a key. `false`: it was there already, and nothing has changed.
    pub fn insert(&mut self, key: String, value: Value) -> bool {
        if self.knows(&key) {
            return false;
        }
        self.index.insert(key.clone(), self.entries.len());
        self.entries.push((key, value));
        true
    }

    /// Notes an array that was passed over: of its contents nothing is known but the length. `false`: the key was there already.
    pub fn leave_out(&mut self, key: String, len: usize) -> bool {
        let is_new = !self.knows(&key);
        if is_new {
            self.left_out.push((key, len));
        }
        is_new
    }

    fn knows(&self, key: &str) -> bool {
        self.index.contains_key(key) || self.left_out.iter().any(|(k, _)| k == key)
    }

    /// The arrays that were passed over, with their lengths.
    pub fn left_out(&self) -> impl Iterator<Item = (&str, usize)> {
        self.left_out.iter().map(|(k, len)| (k.as_str(), *len))
    }

    /// The length of an array, kept or passed over; `None`: there is none of that key.
    pub fn array_len(&self, key: &str) -> Option<usize> {
        match self.get(key) {
            Some(Value::Array(a)) => Some(a.len()),
            Some(_) => None,
            None => self.left_out().find(|(k, _)| *k == key).map(|(_, len)| len),
        }
    }

    /// All keys and values, in file order, but for arrays that were passed over.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.entries.iter().map(|(k, v)| (k.as_str(), v))
    }

    /// Number of keys.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.index.get(key).and_then(|&i| self.entries.get(i)).map(|(_, v)| v)
    }

    fn wrong(&self, key: &str, value: &Value, expected: &str) -> Error {
        Error::metadata(&self.file, key, format!("is {} but must be {expected}", value.kind()))
    }

    /// The error for a key that must be there.
    pub fn missing(&self, key: &str) -> Error {
        Error::metadata(&self.file, key, "is missing")
    }

    /// A size or id that may be absent.
    pub fn usize(&self, key: &str) -> Result<Option<usize>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let n = value.as_integer().ok_or_else(|| self.wrong(key, value, "one non-negative integer"))?;
        usize::try_from(n).map(Some).map_err(|_| Error::metadata(&self.file, key, format!("is {n}, out of range")))
    }

    /// A size that must be there.
    pub fn require_usize(&self, key: &str) -> Result<usize> {
        self.usize(key)?.ok_or_else(|| self.missing(key))
    }

    /// A token id that may be absent; what does not fit is treated as absent (converters write -1).
    pub fn token_id(&self, key: &str) -> Result<Option<u32>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let n = value.as_integer().ok_or_else(|| self.wrong(key, value, "a token id"))?;
        Ok(u32::try_from(n).ok().filter(|&id| id != u32::MAX))
    }

    /// A number that may be absent.
    pub fn number(&self, key: &str) -> Result<Option<f64>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.as_number().map(Some).ok_or_else(|| self.wrong(key, value, "a number"))
    }

    /// A flag that may be absent.
    pub fn bool(&self, key: &str) -> Result<Option<bool>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Bool(b)) => Ok(Some(*b)),
            Some(other) => Err(self.wrong(key, other, "a boolean")),
        }
    }

    /// A string that may be absent.
    pub fn str(&self, key: &str) -> Result<Option<&str>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::String(s)) => Ok(Some(s)),
            Some(other) => Err(self.wrong(key, other, "a string")),
        }
    }

    /// An array of strings that may be absent.
    pub fn strings(&self, key: &str) -> Result<Option<&[String]>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Array(Array::String(v))) => Ok(Some(v)),
            Some(Value::Array(v)) if v.is_empty() => Ok(Some(&[])),
            Some(other) => Err(self.wrong(key, other, "an array of strings")),
        }
    }

    /// An array of integers that may be absent.
    pub fn integers(&self, key: &str) -> Result<Option<Vec<i32>>> {
        match self.get(key) {
            None => Ok(None),
            Some(value @ Value::Array(a)) => {
                let all = a.integers().and_then(|v| v.into_iter().map(|x| i32::try_from(x).ok()).collect::<Option<Vec<i32>>>());
                all.map(Some).ok_or_else(|| self.wrong(key, value, "an array of 32-bit integers"))
            }
            Some(other) => Err(self.wrong(key, other, "an array of integers")),
        }
    }
}
