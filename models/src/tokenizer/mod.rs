//! Text to token ids and back.
//!
//! One type for every source: Hugging Face's `tokenizer.json`, a GGUF vocabulary, or the `tiktoken.model` of Moonlight
//! and Kimi-K2. All of them are byte-level BPE; [`Tokenizer`] is cheap to clone and shared between threads.
//!
//! Nothing is added to the text: a beginning-of-text token comes from the chat template or from the caller.

mod bytes;
mod core;
mod gguf;
mod json;
mod pre;
mod stream;
mod tiktoken;

use std::fmt;
#[cfg(not(target_arch = "wasm32"))]
use std::path::Path;
use std::sync::Arc;

use self::core::Core;
use crate::error::Result;

pub use self::gguf::GgufVocab;
pub use self::stream::TextStream;

/// A byte-level BPE tokenizer.
#[derive(Clone)]
pub struct Tokenizer {
    core: Arc<Core>,
}

impl Tokenizer {
    /// From the text of a Hugging Face `tokenizer.json`.
    ///
    /// # Errors
    /// [`Error::Malformed`](crate::Error::Malformed) for what is no such file; [`Error::Unsupported`](crate::Error::Unsupported)
    /// for a tokenizer that is not byte-level BPE.
    pub fn from_json(bytes: &[u8]) -> Result<Self> {
        json::parts(bytes).and_then(Self::from_parts)
    }

    /// From a checkpoint's directory: `tokenizer.json`, else `tiktoken.model` with `tokenizer_config.json`.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) where neither can be read, and those of [`from_json`](Self::from_json) and
    /// [`from_tiktoken`](Self::from_tiktoken).
    #[cfg(not(target_arch = "wasm32"))]
    pub fn from_directory(dir: &Path) -> Result<Self> {
        use crate::error::Error;
        let read = |name: &str| {
            let path = dir.join(name);
            match std::fs::read(&path) {
                Ok(bytes) => Ok(Some(bytes)),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
                Err(e) => Err(Error::io(path, e)),
            }
        };
        if let Some(json) = read("tokenizer.json")? {
            return Self::from_json(&json);
        }
        match read("tiktoken.model")? {
            Some(model) => Self::from_tiktoken(&model, read("tokenizer_config.json")?.as_deref()),
            None => {
                let missing =
                    std::io::Error::new(std::io::ErrorKind::NotFound, "there is no tokenizer.json and no tiktoken.model");
                Err(Error::io(dir, missing))
            }
        }
    }

    /// From a `tiktoken.model` (a line for each token: base64, blank, rank) with Kimi's pattern, as Moonlight and Kimi-K2
    /// ship it. The special tokens are `added_tokens_decoder` of `tokenizer_config.json`, and reserved ones for the other
    /// ids of the 256 that follow the ranks.
    ///
    /// # Errors
    /// [`Error::Malformed`](crate::Error::Malformed) for bad base64, ranks, or JSON.
    pub fn from_tiktoken(model: &[u8], tokenizer_config_json: Option<&[u8]>) -> Result<Self> {
        tiktoken::parts(model, tokenizer_config_json).and_then(Self::from_parts)
    }

    /// From the vocabulary in a GGUF file's metadata.
    ///
    /// # Errors
    /// [`Error::Unsupported`](crate::Error::Unsupported) for a model other than "gpt2" or an unknown pre-tokeniser;
    /// [`Error::Malformed`](crate::Error::Malformed) for duplicate tokens, types that do not match the tokens, and merges
    /// of unknown tokens.
    pub fn from_gguf(vocab: GgufVocab<'_>) -> Result<Self> {
        gguf::parts(vocab).and_then(Self::from_parts)
    }

    fn from_parts(parts: core::Parts) -> Result<Self> {
        Ok(Self { core: Arc::new(Core::new(parts)?) })
    }

    /// The token ids of a text. No beginning-of-text token is added.
    ///
    /// With `parse_special`, special tokens in the text become their ids: for text that a chat template wrote. Without, they
    /// are plain text: for text that a person wrote. Then no token that looks like markup (`<｜User｜>`, `<think>`) is made,
    /// also where the file does not call it special.
    ///
    /// # Errors
    /// [`Error::Tokenizer`](crate::Error::Tokenizer) where the vocabulary cannot express the text.
    pub fn encode(&self, text: &str, parse_special: bool) -> Result<Vec<u32>> {
        self.core.encode(text, parse_special)
    }

    /// The text of token ids; U+FFFD where their bytes are no UTF-8. Ids that do not exist are left out, special tokens too
    /// unless `show_special`.
    pub fn decode(&self, ids: &[u32], show_special: bool) -> String {
        let bytes: Vec<u8> = ids.iter().filter_map(|&id| self.shown_bytes(id, show_special)).flatten().copied().collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// What a token adds to the output.
    fn shown_bytes(&self, id: u32, show_special: bool) -> Option<&[u8]> {
        if !show_special && self.is_special(id) { None } else { self.core.bytes(id) }
    }

    /// The bytes of one token, special or not; they need not be whole characters. `None` for an id without a token.
    pub fn token_bytes(&self, id: u32) -> Option<Vec<u8>> {
        self.core.bytes(id).map(<[u8]>::to_vec)
    }

    /// The id of a token by its name: the text of a special token, or an ordinary token as the vocabulary writes it
    /// (`Ġthe`).
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.core.token_to_id(token)
    }

    /// The name of a token; see [`token_to_id`](Self::token_to_id).
    pub fn id_to_token(&self, id: u32) -> Option<String> {
        self.core.id_to_token(id)
    }

    /// Whether a token is not text but a mark in it: one the file calls special, or one written `<|...|>` or `<｜...｜>`.
    pub fn is_special(&self, id: u32) -> bool {
        self.core.is_special(id)
    }

    /// Ids are below this number; there may be gaps.
    pub fn vocab_size(&self) -> usize {
        self.core.vocab_size()
    }

    /// Decoding token by token, special tokens left out.
    pub fn stream(&self) -> TextStream {
        TextStream::new(self.clone(), false)
    }

    /// Decoding token by token; `show_special` as in [`decode`](Self::decode).
    pub fn stream_with(&self, show_special: bool) -> TextStream {
        TextStream::new(self.clone(), show_special)
    }
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokenizer").field("vocab_size", &self.vocab_size()).finish_non_exhaustive()
    }
}
