//! The entry of the worker.

use std::rc::Rc;

use js_sys::Array;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::spawn_local;
use web_sys::{DedicatedWorkerGlobalScope, MessageEvent};

use super::{conformance, fetch, serve};
use crate::{
    link::{self, Inbox},
    scope::now,
};

/// Between two messages that say how far it is, in milliseconds.
const EVERY: f64 = 50.0;

/// The page's messages.
pub type Page = Rc<Inbox<JsValue>>;

/// What the page asks for first.
pub struct Asked {
    /// One of [`link`]'s kinds.
    pub kind: String,
    /// What it is about.
    pub file: JsValue,
    /// What it is called.
    pub name: String,
    /// The engine's options, as JSON.
    pub options: String,
}

/// Asks for the page's first message, and does what it says.
#[wasm_bindgen]
pub fn start_worker() -> Result<(), JsValue> {
    std::panic::set_hook(Box::new(|panic| {
        web_sys::console::error_1(&panic.to_string().into());
        let what = panic.payload_as_str().unwrap_or("a fault without words");
        let place = panic.location().map_or_else(String::new, |l| format!(" ({}:{})", l.file(), l.line()));
        fail(&format!("an error that was not expected: {what}{place}"));
    }));
    let page = Page::new(Inbox::new());
    let inbox = Rc::clone(&page);
    let take = Closure::<dyn FnMut(MessageEvent)>::new(move |event: MessageEvent| inbox.push(event.data()));
    scope().set_onmessage(Some(take.as_ref().unchecked_ref()));
    // It listens as long as the worker lives.
    take.forget();
    spawn_local(work(page));
    post(&link::object([(link::ASKS, true.into())]));
    Ok(())
}

async fn work(page: Page) {
    let first = page.next().await;
    let [kind, file, name, options] = link::FIELDS.map(|f| link::field(&first, f).unwrap_or_default());
    let text = |v: JsValue| v.as_string().unwrap_or_default();
    let asked = Asked { kind: text(kind), file, name: text(name), options: text(options) };
    let done = match asked.kind.as_str() {
        link::DOWNLOAD | link::COPY => fetch::run(&asked, &page).await,
        link::CONFORMANCE => conformance::run(&asked).await,
        link::REPORT => conformance::write(&asked),
        _ => serve::run(&asked, &page).await,
    };
    if let Err(why) = done {
        fail(&why);
    }
}

/// The worker's scope.
fn scope() -> DedicatedWorkerGlobalScope {
    js_sys::global().unchecked_into()
}

/// Says something to the page.
pub fn post(message: &JsValue) {
    // A message that cannot be copied has no place here; one to a page that is gone is for nobody.
    let _ = scope().post_message(message);
}

/// Sends the engine's bytes to the page.
pub fn post_bytes(message: &[u8]) {
    let (bytes, handed) = link::bytes(message);
    let _ = scope().post_message_with_transfer(&bytes, &handed);
}

/// Says that it cannot be done, and why.
fn fail(why: &str) {
    post(&link::object([(link::FAILED, why.into()), (link::MEMORY, memory().into())]));
}

/// Bytes of wasm memory.
pub fn memory() -> f64 {
    (core::arch::wasm32::memory_size(0) * 65536) as f64
}

/// Says how far it is, but not too often.
pub struct Progress {
    told: f64,
    what: &'static str,
}

impl Progress {
    /// Nothing was said yet.
    pub fn new() -> Self {
        Self { told: f64::NEG_INFINITY, what: "" }
    }

    /// Says what is being done, and how much of it, of how much, is done.
    pub fn tell(&mut self, what: &'static str, done: u64, total: Option<u64>) {
        let now = now();
        if now - self.told < EVERY && self.what == what && total != Some(done) {
            return;
        }
        (self.told, self.what) = (now, what);
        let total = total.map_or(JsValue::NULL, |t| (t as f64).into());
        let progress = Array::of3(&what.into(), &(done as f64).into(), &total);
        post(&link::object([(link::PROGRESS, progress.into()), (link::MEMORY, memory().into())]));
    }
}
