//! Small things that browsers do.

use js_sys::Promise;
use wasm_bindgen::JsValue;

/// A browser's error, in words.
pub fn words(error: &JsValue) -> String {
    let field = |name: &str| js_sys::Reflect::get(error, &name.into()).ok().and_then(|v| v.as_string()).filter(|s| !s.is_empty());
    match (field("name"), field("message"), error.as_string()) {
        (Some(name), Some(message), _) if !message.contains(&name) => format!("{name}: {message}"),
        (_, Some(message), _) => message,
        (_, _, Some(text)) => text,
        (name, ..) => name.unwrap_or_else(|| format!("{error:?}")),
    }
}

/// What a browser calls an error: `QuotaExceededError`. Empty: it has no name.
pub fn name(error: &JsValue) -> String {
    js_sys::Reflect::get(error, &"name".into()).ok().and_then(|v| v.as_string()).unwrap_or_default()
}

/// The element of the page that has this id.
pub fn element(id: &str) -> Option<web_sys::Element> {
    web_sys::window()?.document()?.get_element_by_id(id)
}

/// Settles after some milliseconds, on a page.
pub fn pause(milliseconds: i32) -> Promise {
    Promise::new(&mut |done, _| {
        if let Some(window) = web_sys::window() {
            // Where there are no timers, nothing waits for one for long.
            let _ = window.set_timeout_with_callback_and_timeout_and_arguments_0(&done, milliseconds);
        }
    })
}
