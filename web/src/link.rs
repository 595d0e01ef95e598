//! What page and workers say to each other while a model is loaded or fetched. Once a model is loaded, they exchange the bytes
//! of [`pleiad_runtime::engine::remote`].
//!
//! A worker says [`ASKS`] when it listens. It is sent an object `{ kind, file, name, options }` ([`FIELDS`]):
//!
//! | `kind` | `file` | what is done |
//! |---|---|---|
//! | [`FILE`] | a File or a Blob | the model in it is loaded |
//! | [`KEPT`] | the name of a kept file | likewise |
//! | [`URL`] | an address | likewise |
//! | [`DOWNLOAD`] | an address | the file there is kept |
//! | [`COPY`] | a File | it is kept |
//! | [`CONFORMANCE`] | the address of the embedded model | the suite of conformance tests is run; `options`: which, as JSON |
//! | [`REPORT`] | a report's JSON | it is judged, and written as a page and as JUnit XML |
//!
//! `name` is what the model is called in errors, or the name that a file is kept under; `options` are the engine's, as JSON.
//!
//! The worker answers with objects that have one or more of the other fields, and, once it has said [`READY`], with byte arrays,
//! as the page does. To a worker that fetches, the page may say [`STOP`], a text.

use std::{
    cell::RefCell,
    collections::VecDeque,
    task::{Poll, Waker},
};

use js_sys::{Array, Object, Reflect, Uint8Array};
use wasm_bindgen::{JsCast, JsValue};

/// Names of the fields of the first message.
pub const FIELDS: [&str; 4] = ["kind", "file", "name", "options"];
/// A File that a person opened, or a Blob.
pub const FILE: &str = "file";
/// A file of the origin's private file system.
pub const KEPT: &str = "kept";
/// A file of the site, small enough to be fetched whole, or read by synchronous ranged requests.
pub const URL: &str = "url";
/// A file of any server, to be fetched and kept, or to be fetched further.
pub const DOWNLOAD: &str = "download";
/// A File that a person opened, to be kept.
pub const COPY: &str = "copy";

/// Runs conformance tests.
pub const CONFORMANCE: &str = "conformance";
/// Judges and writes a report.
pub const REPORT: &str = "report";

/// The worker listens.
pub const ASKS: &str = "asks";
/// How far it is: `[what, done, total]`; `total` is null where it is not known.
pub const PROGRESS: &str = "progress";
/// The model is there; its greeting.
pub const READY: &str = "ready";
/// It could not be loaded or fetched, or the worker is at its end: words.
pub const FAILED: &str = "failed";
/// Bytes of the worker's wasm memory.
pub const MEMORY: &str = "memory";
/// What is fetched is held in memory; words that say why.
pub const HELD: &str = "held";
/// It is kept (null), or held in memory: its Blob.
pub const DONE: &str = "done";
/// It was stopped, as the page wished.
pub const STOPPED: &str = "stopped";

/// A line of [`pleiad_conformance::wire`].
pub const LINE: &str = "line";
/// A report's JSON, its page and its JUnit XML.
pub const WRITTEN: &str = "written";

/// What the page says to a worker that is to stop fetching.
pub const STOP: &str = "stop";

/// An object with these fields.
pub fn object<const N: usize>(fields: [(&str, JsValue); N]) -> JsValue {
    let object = Object::new();
    for (name, value) in fields {
        // A plain object takes any field.
        let _ = Reflect::set(&object, &name.into(), &value);
    }
    object.into()
}

/// A field of an object; `None`: it has none, or this is no object.
pub fn field(message: &JsValue, name: &str) -> Option<JsValue> {
    Reflect::get(message, &name.into()).ok().filter(|v| !v.is_undefined())
}

/// A field that holds text.
pub fn text(message: &JsValue, name: &str) -> Option<String> {
    field(message, name).and_then(|v| v.as_string())
}

/// Bytes of the engine, and what is to be handed over with them.
pub fn bytes(message: &[u8]) -> (JsValue, Array) {
    let bytes = Uint8Array::new_from_slice(message);
    let handed = Array::of1(&bytes.buffer());
    (bytes.into(), handed)
}

/// The bytes of a message; `None`: it is something else.
pub fn of_bytes(message: &JsValue) -> Option<Vec<u8>> {
    message.dyn_ref::<Uint8Array>().map(Uint8Array::to_vec)
}

/// Messages that wait to be looked at, by one who waits for them.
pub struct Inbox<T> {
    inner: RefCell<(VecDeque<T>, Option<Waker>)>,
}

impl<T> Inbox<T> {
    /// One without messages.
    pub const fn new() -> Self {
        Self { inner: RefCell::new((VecDeque::new(), None)) }
    }

    /// Puts a message in.
    pub fn push(&self, message: T) {
        let waker = self.inner.try_borrow_mut().ok().and_then(|mut inner| {
            inner.0.push_back(message);
            inner.1.take()
        });
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// The next message, when there is one.
    pub async fn next(&self) -> T {
        std::future::poll_fn(|context| {
            let mut inner = self.inner.borrow_mut();
            match inner.0.pop_front() {
                Some(message) => Poll::Ready(message),
                None => {
                    inner.1 = Some(context.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }
}
