//! The entry, and the app in the page.

use wasm_bindgen::prelude::*;

/// Starts the app on the page's canvas.
#[wasm_bindgen]
pub async fn start_page() -> Result<(), JsValue> {
    Err("not yet".into())
}
