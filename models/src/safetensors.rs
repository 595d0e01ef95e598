//! Safetensors checkpoints: one file, or shards with an index.
//!
//! The crate of the same name parses and validates a file's header; this module maps the files,
//! joins the shards and says what is wrong in terms of files and tensors.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::{Path, PathBuf},
    sync::Arc,
};

pub use safetensors::tensor::Dtype;
use safetensors::tensor::Metadata;
use serde_json::Value;

use crate::{Bytes, Error, Result, files};

/// The name of a checkpoint in one file.
pub const SINGLE: &str = "model.safetensors";
/// The name of a sharded checkpoint's index.
pub const INDEX: &str = "model.safetensors.index.json";

/// Longest header, as in the reference implementation.
const MAX_HEADER: u64 = 100_000_000;
/// Longest index; DeepSeek-V3's has 9 MB.
const MAX_INDEX: u64 = 256_000_000;

/// A tensor in one of the files.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Type of its elements.
    pub dtype: Dtype,
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
    /// Its bytes, little endian, row-major.
    pub data: Bytes,
    /// The file that holds it.
    pub file: Arc<str>,
}

/// All tensors of a checkpoint.
#[derive(Clone, Debug)]
pub struct SafeTensors {
    /// The files.
    pub paths: Vec<PathBuf>,
    /// Bytes of all files.
    pub total_bytes: u64,
    entries: HashMap<String, Entry>,
}

impl SafeTensors {
    /// Maps the checkpoint in a directory: [`SINGLE`], or the shards that [`INDEX`] names.
    pub fn open(directory: &Path) -> Result<Self> {
        let single = directory.join(SINGLE);
        if single.exists() {
            let mut all = Self { paths: Vec::new(), total_bytes: 0, entries: HashMap::new() };
            all.add(single)?;
            return Ok(all);
        }
        let index = directory.join(INDEX);
        match files::read_json(&index, MAX_INDEX)? {
            Some(json) => Self::open_shards(directory, &index.display().to_string(), &json),
            None => {
                let old = ["pytorch_model.bin", "pytorch_model.bin.index.json"].iter().any(|n| directory.join(n).exists());
                let hint = if old { "; it holds PyTorch files, which must be converted to safetensors first" } else { "" };
                Err(Error::malformed(directory.display().to_string(), format!("has neither {SINGLE} nor {INDEX}{hint}")))
            }
        }
    }

    fn open_shards(directory: &Path, index: &str, json: &serde_json::Map<String, Value>) -> Result<Self> {
        const MAP: &str = "weight_map";
        let map = json.get(MAP).and_then(Value::as_object);
        let map = map.ok_or_else(|| Error::metadata(index, MAP, "is missing, or no object"))?;
        // File by file, in a defined order.
        let mut shards: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (tensor, file) in map {
            let file = file.as_str().filter(|f| is_plain(f));
            let file =
                file.ok_or_else(|| Error::metadata(index, MAP, format!("`{tensor}` is not in a file of this directory")))?;
            shards.entry(file).or_default().push(tensor);
        }
        if shards.is_empty() {
            return Err(Error::metadata(index, MAP, "is empty"));
        }
        let missing: Vec<&str> = shards.keys().copied().filter(|f| !directory.join(f).exists()).collect();
        if let [first, rest @ ..] = missing.as_slice() {
            let more = if rest.is_empty() { String::new() } else { format!(" and {} more", rest.len()) };
            return Err(Error::malformed(index, format!("names {} files; {first}{more} missing", shards.len())));
        }
        let mut all = Self { paths: Vec::new(), total_bytes: 0, entries: HashMap::new() };
        for (file, tensors) in shards {
            let path = directory.join(file);
            let name = path.display().to_string();
            all.add(path)?;
            for tensor in tensors {
                if all.entries.get(tensor).is_none_or(|e| *e.file != *name) {
                    return Err(Error::malformed(name, format!("lacks tensor `{tensor}`, which {INDEX} places there")));
                }
            }
        }
        Ok(all)
    }

    /// One file in memory; `file` is named in errors.
    pub fn from_bytes(file: &str, bytes: Bytes) -> Result<Self> {
        let mut all = Self { paths: Vec::new(), total_bytes: 0, entries: HashMap::new() };
        all.join(file, &bytes)?;
        Ok(all)
    }

    fn add(&mut self, path: PathBuf) -> Result<()> {
        let bytes = files::map(&path)?;
        self.join(&path.display().to_string(), &bytes)?;
        self.paths.push(path);
        Ok(())
    }

    fn join(&mut self, file: &str, bytes: &Bytes) -> Result<()> {
        let (metadata, start) = header(file, bytes)?;
        let shared: Arc<str> = Arc::from(file);
        for (name, info) in metadata.tensors() {
            let (from, to) = info.data_offsets;
            let place = start.checked_add(from).zip(to.checked_sub(from));
            let data = place.and_then(|(at, len)| bytes.slice(at, len));
            let data = data.ok_or_else(|| Error::malformed(file, format!("tensor `{name}` lies outside of the file")))?;
            let entry = Entry { dtype: info.dtype, shape: info.shape.clone(), data, file: Arc::clone(&shared) };
            if let Some(other) = self.entries.insert(name.clone(), entry) {
                return Err(Error::malformed(file, format!("tensor `{name}` is also in {}", other.file)));
            }
        }
        self.total_bytes += bytes.len() as u64;
        Ok(())
    }

    /// A tensor.
    pub fn get(&self, name: &str) -> Option<&Entry> {
        self.entries.get(name)
    }

    /// All names, in no order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// Names of all tensors but `used`, sorted.
    #[cfg(not(target_arch = "wasm32"))]
    pub(crate) fn unused(&self, used: &HashSet<String>) -> Vec<String> {
        let mut names: Vec<String> = self.names().filter(|n| !used.contains(*n)).map(str::to_owned).collect();
        names.sort();
        names
    }
}

/// Whether a name stays in its directory.
fn is_plain(file: &str) -> bool {
    !file.is_empty() && !file.contains(['/', '\\', ':']) && file != "." && file != ".."
}

/// The header, and where the data begins.
fn header(file: &str, bytes: &[u8]) -> Result<(Metadata, usize)> {
    let bad = |what: String| Error::malformed(file, what);
    let Some((len, rest)) = bytes.split_first_chunk::<8>() else {
        return Err(bad(format!("has {} bytes: no safetensors file, or truncated", bytes.len())));
    };
    let len = u64::from_le_bytes(*len);
    if len > MAX_HEADER {
        return Err(bad(format!("claims a header of {len} bytes: no safetensors file")));
    }
    let json = usize::try_from(len).ok().and_then(|len| rest.get(..len));
    let json = json.ok_or_else(|| bad(format!("is truncated: its header has {len} bytes, the file {}", bytes.len())))?;
    let metadata: Metadata = serde_json::from_slice(json).map_err(|e| bad(format!("has a bad safetensors header: {e}")))?;
    let there = (rest.len() - json.len()) as u64;
    let needed = metadata.data_len() as u64;
    match needed.cmp(&there) {
        std::cmp::Ordering::Greater => Err(bad(format!("is truncated: its tensors need {needed} bytes, {there} are there"))),
        std::cmp::Ordering::Less => Err(bad(format!("has {} bytes behind its last tensor", there - needed))),
        std::cmp::Ordering::Equal => Ok((metadata, 8 + json.len())),
    }
}

#[cfg(test)]
mod tests;
