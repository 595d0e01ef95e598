//! What the program is at, in words and attributes.

use std::collections::BTreeMap;

use pleiad_app::ui::{App, app::Status as At};
use web_sys::Element;

use super::super::loader;
use crate::js;

/// Bytes of a page of wasm memory.
const PAGE: u64 = 65_536;

/// The element, and what it shows.
pub struct Status {
    element: Option<Element>,
    words: String,
    shown: BTreeMap<&'static str, String>,
}

impl Status {
    /// Finds the element.
    pub fn new() -> Self {
        Self { element: js::element("pleiad-status"), words: String::new(), shown: BTreeMap::new() }
    }

    /// Shows what has changed. `waiting`: questions that could not be asked yet.
    pub fn update(&mut self, app: &App, waiting: usize) {
        let model = app.models().get(None);
        let mut name = model.map(|m| m.name.clone());
        let device = model.map(|m| m.engine.info().device.clone());
        let mut progress = None;
        let (state, mut words) = match app.status() {
            At::Loading(loading, done) => {
                // Not in the words: those are read out whenever they change.
                progress = Some(format!("{done:.2}"));
                let words = format!("Loading {loading}");
                name = Some(loading);
                ("loading", words)
            }
            At::Ready(name) => match &device {
                Some(device) => ("ready", format!("{name} is ready on {device}")),
                None => ("ready", format!("{name} is ready")),
            },
            At::Answering => ("answering", "Answering".to_owned()),
            At::Failed(why) => ("error", why),
        };
        match waiting {
            0 => {}
            1 => words.push_str(". A question waits"),
            n => words.push_str(&format!(". {n} questions wait")),
        }
        self.set("data-state", Some(state.to_owned()));
        self.set("data-progress", progress);
        self.set("data-model", name);
        self.set("data-device", device);
        self.set("data-memory-page", Some((core::arch::wasm32::memory_size(0) as u64 * PAGE).to_string()));
        self.set("data-memory-worker", loader::worker_memory().map(|bytes| bytes.to_string()));
        if self.words != words {
            if let Some(element) = &self.element {
                element.set_text_content(Some(&words));
            }
            self.words = words;
        }
    }

    fn set(&mut self, name: &'static str, value: Option<String>) {
        let Some(element) = &self.element else { return };
        // Names are constants that every element takes.
        match value {
            Some(value) if self.shown.get(name) == Some(&value) => {}
            Some(value) => {
                let _ = element.set_attribute(name, &value);
                self.shown.insert(name, value);
            }
            None if self.shown.remove(name).is_some() => {
                let _ = element.remove_attribute(name);
            }
            None => {}
        }
    }
}
