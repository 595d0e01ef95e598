//! Files that a person chooses, drops or saves. Models are not read here: a chosen one becomes an opened source, by number.

use std::{cell::RefCell, rc::Rc};

use js_sys::{Array, Uint8Array};
use pleiad_app::{
    loading::Wake,
    ui::files::{Files, Got, Want},
};
use wasm_bindgen::{JsCast as _, JsValue, closure::Closure};
use wasm_bindgen_futures::spawn_local;
use web_sys::{Blob, BlobPropertyBag, Document, File, HtmlAnchorElement, HtmlElement, HtmlInputElement, Url};

use super::opened;
use crate::js;

/// Larger files are no conversations and no records.
const MOST_BYTES: f64 = 268_435_456.0;
/// Milliseconds after which a browser has begun to write what was saved.
const SAVED: i32 = 60_000;

/// What has become of wishes, and who asks for a frame then.
#[derive(Clone)]
struct Inbox {
    got: Rc<RefCell<Vec<Got>>>,
    wake: Wake,
}

impl Inbox {
    fn push(&self, got: Got) {
        self.got.borrow_mut().push(got);
        (self.wake)();
    }

    /// Does what a file was wanted for.
    fn take(&self, want: Want, file: File) {
        if let Want::Model { .. } = want {
            return self.push(Got::Model(opened::add(file).key()));
        }
        let (inbox, name) = (self.clone(), file.name());
        if file.size() > MOST_BYTES {
            return inbox.push(Got::Failed(format!("{name}: {} bytes are more than such a file can have", file.size())));
        }
        spawn_local(async move {
            inbox.push(match file.array_buffer().await {
                Ok(bytes) => Got::Read(want, name, Uint8Array::new(&bytes).to_vec()),
                Err(e) => Got::Failed(format!("{name}: {}", js::words(&e))),
            });
        });
    }
}

/// The browser's files.
pub struct Picker {
    inbox: Inbox,
    /// The element that a person was asked with last, and what listens to it.
    asked: Option<(HtmlInputElement, Closure<dyn FnMut()>)>,
}

impl Picker {
    /// `wake` asks for a frame when a person has chosen.
    pub fn new(wake: Wake) -> Self {
        Self { inbox: Inbox { got: Rc::default(), wake }, asked: None }
    }

    /// Opens the browser's dialog. It opens only in answer to a click or a key, as which this is called.
    fn choose(&mut self, want: Want, kinds: &str) -> Result<(), JsValue> {
        if let Some((before, _)) = self.asked.take() {
            before.remove();
        }
        let document = document()?;
        let input: HtmlInputElement = document.create_element("input")?.unchecked_into();
        input.set_type("file");
        input.set_accept(kinds);
        input.set_attribute("aria-label", want.title())?;
        input.set_hidden(true);
        let (inbox, chosen) = (self.inbox.clone(), input.clone());
        let changed = Closure::<dyn FnMut()>::new(move || {
            if let Some(file) = chosen.files().and_then(|files| files.get(0)) {
                inbox.take(want.clone(), file);
            }
        });
        input.add_event_listener_with_callback("change", changed.as_ref().unchecked_ref())?;
        // Some browsers open nothing for an element that is in no page.
        body(&document)?.append_child(&input)?;
        input.click();
        self.asked = Some((input, changed));
        Ok(())
    }
}

impl Files for Picker {
    fn ask(&mut self, want: Want) {
        let done = match &want {
            Want::Model { folder: true } => {
                Err("A browser opens single .gguf files, not folders: choose \u{201c}Open file\u{201d}".into())
            }
            Want::Model { folder: false } => self.choose(want, ".gguf"),
            Want::Chats => self.choose(want, ".json,.jsonl,application/json"),
            Want::Trace => self.choose(want, ".csv,.jsonl,text/csv"),
            Want::Save { name, bytes } => save(name, bytes).map(|()| self.inbox.push(Got::Saved(name.clone()))),
        };
        if let Err(e) = done {
            self.inbox.push(Got::Failed(js::words(&e)));
        }
    }

    fn typed(&mut self, _want: Want, path: &str) {
        self.inbox.push(Got::Failed(format!("{path}: a browser opens no files by their path")));
    }

    fn dropped(&mut self, want: Want, file: egui::DroppedFileHandle) {
        match file.web_file() {
            Some(file) => self.inbox.take(want, file.clone()),
            None => self.typed(want, &file.path().display().to_string()),
        }
    }

    fn poll(&mut self) -> Vec<Got> {
        self.inbox.got.take()
    }
}

/// Hands bytes to the browser, as a download.
fn save(name: &str, bytes: &[u8]) -> Result<(), JsValue> {
    let document = document()?;
    let kind = BlobPropertyBag::new();
    kind.set_type("application/octet-stream");
    let blob = Blob::new_with_u8_array_sequence_and_options(&Array::of1(&Uint8Array::from(bytes)), &kind)?;
    let url = Url::create_object_url_with_blob(&blob)?;
    let link: HtmlAnchorElement = document.create_element("a")?.unchecked_into();
    link.set_href(&url);
    link.set_download(name);
    link.set_hidden(true);
    body(&document)?.append_child(&link)?;
    link.click();
    link.remove();
    spawn_local(async move {
        let _ = js::pause(SAVED).await;
        let _ = Url::revoke_object_url(&url);
    });
    Ok(())
}

fn document() -> Result<Document, JsValue> {
    web_sys::window().and_then(|w| w.document()).ok_or_else(|| "there is no page".into())
}

fn body(document: &Document) -> Result<HtmlElement, JsValue> {
    document.body().ok_or_else(|| "the page is empty".into())
}
