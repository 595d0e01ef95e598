//! Runs conformance tests on the browser's GPU, and writes their report. The page puts it together: this worker may crash or hang.

use std::sync::Arc;

use js_sys::{Array, Uint8Array};
use pleiad_conformance::{
    expect, output,
    report::{Report, Settings},
    suite, wire,
};
use pleiad_models::{Bytes, Checkpoint};
use pleiad_runtime::engine;
use serde::Deserialize;
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;
use web_sys::{RequestInit, Response};

use super::{
    serve::breathe,
    start::{Asked, post},
};
use crate::{js::words, link, scope};

/// What is to be run.
#[derive(Deserialize)]
struct Wanted {
    settings: Settings,
    /// Without these.
    done: Vec<String>,
}

/// Runs the suite, and tells the page each line. In words what is wrong.
pub async fn run(asked: &Asked) -> Result<(), String> {
    engine::set_breath(breathe);
    let wanted: Wanted =
        serde_json::from_str(&asked.options).map_err(|e| format!("what the page asks for cannot be read: {e}"))?;
    // Without it tests of whole models say that it is not there.
    let tiny = match fetched(&asked.file.as_string().unwrap_or_default()).await {
        Ok(file) => Checkpoint::from_gguf_bytes("tiny (embedded)", Bytes::new(file)).map_err(|e| e.to_string()),
        Err(e) => Err(words(&e)),
    };
    let tiny = tiny.map(Arc::new).inspect_err(|why| web_sys::console::warn_1(&why.into())).ok();
    let mut say = |line: &wire::Line| post(&link::object([(link::LINE, line.text().trim().into())]));
    let opened = match suite::adapters(&wanted.settings).await.first() {
        Some(adapter) => adapter.open(suite::device_options(&wanted.settings)).await.map_err(|e| e.to_string()),
        None => Err("this browser offers no GPU".to_owned()),
    };
    match opened {
        Ok(gpu) => wire::serve(&gpu, &wanted.settings, &wanted.done, tiny, None, &mut say).await,
        Err(why) => say(&wire::Line::Refused { why }),
    }
    Ok(())
}

/// A file of the site.
async fn fetched(address: &str) -> Result<Vec<u8>, JsValue> {
    let response: Response = JsFuture::from(scope::fetch(address, &RequestInit::new())).await?.dyn_into()?;
    if !response.ok() {
        return Err(format!("{address}: the server says {}", response.status()).into());
    }
    let buffer = JsFuture::from(response.array_buffer()?).await?;
    Ok(Uint8Array::new(&buffer).to_vec())
}

/// Judges a report by the failures that are expected, and writes it. In words what is wrong.
pub fn write(asked: &Asked) -> Result<(), String> {
    let text = asked.file.as_string().unwrap_or_default();
    let mut report: Report = serde_json::from_str(&text).map_err(|e| format!("the report cannot be read: {e}"))?;
    expect::apply(&mut report, &expect::built_in().map_err(|e| e.to_string())?);
    let written = [output::json(&report), output::page::html(&report), output::junit::xml(&report)];
    let stem = output::file_stem(&report.identity, report.settings.strict);
    let all: Array = written.iter().chain([&stem]).map(|text| JsValue::from_str(text)).collect();
    post(&link::object([(link::WRITTEN, all.into())]));
    Ok(())
}
