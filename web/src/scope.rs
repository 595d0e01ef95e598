//! What the scopes of a page and of a worker have in common.

use js_sys::{Function, Promise, Reflect};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;
use web_sys::{RequestInit, StorageManager};

#[wasm_bindgen]
extern "C" {
    /// Asks a server.
    #[wasm_bindgen(js_name = fetch)]
    pub fn fetch(address: &str, init: &RequestInit) -> Promise;

    /// Milliseconds since this scope began.
    #[wasm_bindgen(js_namespace = performance, js_name = now)]
    pub fn now() -> f64;

    /// Calls `then` after so many milliseconds.
    #[wasm_bindgen(js_name = setTimeout)]
    fn set_timeout(then: &Function, milliseconds: f64) -> f64;

    /// Calls `then` every so many milliseconds.
    #[wasm_bindgen(js_name = setInterval)]
    fn set_interval(then: &Function, milliseconds: f64) -> f64;

    #[wasm_bindgen(js_name = clearInterval)]
    fn clear_interval(id: f64);
}

/// Waits.
pub async fn sleep(milliseconds: f64) {
    let promise = Promise::new(&mut |done, _| {
        set_timeout(&done, milliseconds);
    });
    // It is never refused.
    let _ = JsFuture::from(promise).await;
}

/// Calls something again and again until it is dropped.
pub struct Interval {
    id: f64,
    _call: Closure<dyn FnMut()>,
}

impl Interval {
    /// Calls `call` every so many milliseconds.
    pub fn new(milliseconds: f64, call: impl FnMut() + 'static) -> Self {
        let call = Closure::new(call);
        Self { id: set_interval(call.as_ref().unchecked_ref(), milliseconds), _call: call }
    }
}

impl Drop for Interval {
    fn drop(&mut self) {
        clear_interval(self.id);
    }
}

/// What keeps files for this origin; `None`: a page that is not secure, or an old browser, has nothing like it.
pub fn storage() -> Option<StorageManager> {
    let navigator = Reflect::get(&js_sys::global(), &"navigator".into()).ok()?;
    let storage = Reflect::get(&navigator, &"storage".into()).ok()?;
    storage.is_object().then(|| storage.unchecked_into())
}
