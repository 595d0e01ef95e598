//! What a model *is*: its configuration, its weights as the file holds them, its tokenizer and
//! its chat template. No device, no forward pass.
//!
//! | module | what it holds |
//! |---|---|
//! | [`config`] | one [`Config`] for the whole family, parsed from `config.json` or GGUF metadata |
//! | [`format`] | the block formats' names and sizes |
//! | [`blocks`] | their contents: decoding, packing for devices, quantising |
//! | [`gguf`], [`safetensors`] | the two containers, mapped and checked, never slurped |
//! | [`checkpoint`] | a model on disk, opened: [`Checkpoint`] |
//! | [`weights`] | its tensors by their place in the forward pass |
//! | [`tokenizer`], [`chat`] | text to token ids and back, conversations to prompts |
//! | [`inspect`] | what is in a checkpoint, for people and programs |
//! | [`synth`] | random weights in a published shape, for benchmarks |

pub mod blocks;
pub mod chat;
pub mod checkpoint;
pub mod config;
pub mod error;
mod files;
pub mod format;
pub mod gguf;
pub mod inspect;
pub mod safetensors;
pub mod synth;
#[cfg(test)]
mod testing;
pub mod tokenizer;
pub mod weights;

pub use blocks::{Block32, Layout, Matrix};
pub use chat::{ChatTemplate, Message, Role};
pub use checkpoint::{Checkpoint, GenerationConfig};
pub use config::Config;
pub use error::{Error, Result};
pub use format::Format;
pub use tokenizer::{TextStream, Tokenizer};
pub use weights::{Bytes, Ranged, Tensor, Weights};

/// The embedded demonstration model (GGUF, Q8_0); `tiny/README.md` says how it was made. A browser fetches it as a file.
#[cfg(not(target_arch = "wasm32"))]
pub static TINY_GGUF: &[u8] = include_bytes!("../tiny/pleiad-tiny-q8_0.gguf");
