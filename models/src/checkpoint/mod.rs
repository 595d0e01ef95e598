//! A model on disk, opened: configuration, tensors, tokenizer, template, all checked against each other.
//!
//! Opening maps the files and reads headers, norms and routers; other weights are read when used. Where nothing can be mapped, a
//! file is read in ranges ([`Checkpoint::from_ranged`]), or known by its header alone ([`Checkpoint::from_head`]).

mod gguf;
#[cfg(not(target_arch = "wasm32"))]
mod hugging_face;
mod special;

#[cfg(test)]
mod tests;

#[cfg(not(target_arch = "wasm32"))]
use std::path::Path;
use std::{path::PathBuf, sync::Arc};

pub use special::{GenerationConfig, SpecialTokens};

use crate::{Bytes, ChatTemplate, Config, Error, Ranged, Result, Tokenizer, Weights};

/// A model on disk, opened.
#[derive(Debug)]
pub struct Checkpoint {
    /// The model's configuration.
    pub config: Config,
    /// Its tensors; shapes agree with the configuration, norms and routers are finite.
    pub weights: Weights,
    /// Text to token ids and back; `None`: the checkpoint has no vocabulary.
    pub tokenizer: Option<Tokenizer>,
    /// Conversations to prompts; `None`: the checkpoint has no template.
    pub chat_template: Option<ChatTemplate>,
    /// Ids with a meaning of their own.
    pub special: SpecialTokens,
    /// What the publisher recommends for sampling.
    pub generation: GenerationConfig,
    /// Where it came from.
    pub source: Source,
}

/// The kind of file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceKind {
    /// A directory with `config.json` and safetensors.
    HuggingFace,
    /// One GGUF file, or a split set.
    Gguf,
}

/// Where a checkpoint came from, and what else it says.
#[derive(Clone, Debug)]
pub struct Source {
    /// The path, or what the caller called the bytes.
    pub name: String,
    /// The kind of file.
    pub kind: SourceKind,
    /// The files that hold the weights; none for bytes in memory.
    pub paths: Vec<PathBuf>,
    /// Bytes of these files.
    pub total_bytes: u64,
    /// Where the vocabulary comes from: `tokenizer.json`, or GGUF's model and pre-tokeniser; empty where there is none.
    pub vocabulary: String,
    /// Its metadata as short texts, in file order.
    pub metadata: Vec<(String, String)>,
    /// Names of tensors that nothing here uses, sorted.
    pub unused: Vec<String>,
    /// What a user may want to know: guesses that were made, parts that were left out.
    pub remarks: Vec<String>,
}

impl Checkpoint {
    /// Opens a Hugging Face directory, a `.gguf` file (of a split model any part), or a directory with one GGUF model.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn open(path: &Path) -> Result<Self> {
        let bad = |what: &str| Error::malformed(path.display().to_string(), what);
        if !path.exists() {
            return Err(bad("there is no such file or directory; a model is a directory with config.json or a .gguf file"));
        }
        if path.is_dir() {
            if path.join("config.json").exists() {
                return hugging_face::open(path);
            }
            return gguf::open(&only_gguf(path)?);
        }
        let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
        if matches!(extension, "safetensors" | "json") && path.with_file_name("config.json").exists() {
            return Err(bad("is a part of a model; give the directory that holds it"));
        }
        gguf::open(path)
    }

    /// A whole GGUF model in memory; `name` is named in errors.
    pub fn from_gguf_bytes(name: &str, bytes: Bytes) -> Result<Self> {
        gguf::build(crate::gguf::Gguf::from_bytes(name, bytes)?, true)
    }

    /// A GGUF model that is read in ranges: the header and the vectors now, other weights when they are used (routers are also
    /// looked through now). `name` is named in errors. Without `vocabulary` there is no tokenizer and no template, which take most
    /// of the memory of opening one; then tokens that end an answer are only those that the metadata name by their ids.
    ///
    /// # Errors
    /// What is wrong with the file; split models are refused.
    pub fn from_ranged(name: &str, file: Arc<dyn Ranged>, vocabulary: bool) -> Result<Self> {
        gguf::from_ranged(name, file, vocabulary)
    }

    /// A GGUF model of which only the first bytes are here, of a file of `file_len` bytes: all but its weights, which cannot be
    /// read, vectors included, and so were not checked. `Ok(None)`: the header is longer than `head`.
    ///
    /// # Errors
    /// What is wrong with the header, or with the length of the file: one that is truncated is refused, and so are split models.
    pub fn from_head(name: &str, head: &[u8], file_len: u64) -> Result<Option<Self>> {
        gguf::from_head(name, head, file_len)
    }

    /// The embedded model.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn tiny() -> Result<Self> {
        Self::from_gguf_bytes("tiny (embedded)", Bytes::new(crate::TINY_GGUF))
    }
}

/// The only GGUF model in a directory: one file, or the first part of one split set.
#[cfg(not(target_arch = "wasm32"))]
fn only_gguf(directory: &Path) -> Result<PathBuf> {
    let bad = |what: String| Error::malformed(directory.display().to_string(), what);
    let io = |e| Error::io(directory, e);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(io)? {
        let path = entry.map_err(io)?.path();
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let later_part = name.contains("-of-") && !name.contains("-00001-of-");
        if name.ends_with(".gguf") && !later_part && !name.starts_with("mmproj") {
            found.push(path);
        }
    }
    match found.len() {
        0 => Err(bad("has neither config.json nor a .gguf file".to_owned())),
        1 => Ok(found.swap_remove(0)),
        n => Err(bad(format!("holds {n} GGUF models; name one of them"))),
    }
}
