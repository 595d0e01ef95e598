//! Small things that browsers do.

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
