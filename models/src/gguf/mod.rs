//! GGUF, llama.cpp's container: metadata, tensor descriptions, aligned tensor data.
//!
//! [`Header`] parses the part before the data, from a mapped file or from the first bytes of a
//! remote one; [`Gguf`] joins headers with their data, over all parts of a split file, mapped or read in ranges;
//! [`Writer`] streams a new file.
//!
//! Nothing that a file claims is believed: every count is compared with the bytes that are there
//! before memory is reserved for it.

mod read;
mod split;
mod value;
mod write;

#[cfg(test)]
mod tests;

pub use read::{Header, Prefix, TensorInfo};
pub use split::Gguf;
pub use value::{Array, Metadata, Value};
pub use write::{TensorWriter, Writer};

/// The first four bytes of a GGUF file.
pub const MAGIC: [u8; 4] = *b"GGUF";

/// Alignment of tensor data where `general.alignment` does not say otherwise.
pub const DEFAULT_ALIGNMENT: u64 = 32;

/// `value` rounded up to a multiple of `alignment`.
const fn align_up(value: u64, alignment: u64) -> Option<u64> {
    value.checked_next_multiple_of(alignment)
}
