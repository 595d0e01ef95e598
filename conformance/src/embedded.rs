//! The embedded model. In a browser it is a file of the site, which whoever runs the suite hands over.

use std::sync::OnceLock;

use pleiad_models::Checkpoint;

use crate::case::{Result, Stop};

/// The file, where it was handed over.
static GIVEN: OnceLock<Vec<u8>> = OnceLock::new();

/// Hands the embedded model over (browsers): the bytes of its file. What was handed over first counts.
pub fn give(file: Vec<u8>) {
    // A second one is the same.
    let _ = GIVEN.set(file);
}

/// The embedded model.
pub(crate) fn checkpoint() -> Result<Checkpoint> {
    let fail = |e: pleiad_models::Error| Stop::Fail(e.to_string());
    #[cfg(not(target_arch = "wasm32"))]
    let opened = Checkpoint::tiny();
    #[cfg(target_arch = "wasm32")]
    let opened = {
        let given = GIVEN.get().ok_or_else(|| Stop::Skip("the embedded model could not be fetched".into()))?;
        Checkpoint::from_gguf_bytes("tiny (embedded)", pleiad_models::Bytes::new(given.as_slice()))
    };
    opened.map_err(fail)
}
