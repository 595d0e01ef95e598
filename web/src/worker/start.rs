//! The entry of the worker.

use wasm_bindgen::prelude::*;

/// Waits for the page's first message.
#[wasm_bindgen]
pub fn start_worker() -> Result<(), JsValue> {
    Err("not yet".into())
}
