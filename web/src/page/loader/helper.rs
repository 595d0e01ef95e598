//! A worker, as the page sees it.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    rc::Rc,
};

use js_sys::Array;
use wasm_bindgen::prelude::*;
use web_sys::{ErrorEvent, Event, MessageEvent, Worker, WorkerOptions, WorkerType};

use crate::{
    js::words,
    link::{self, Inbox},
};

/// The program of a worker, beside the page.
const PROGRAM: &str = "./worker.js";

/// What has come from a worker.
pub enum Said {
    /// A message of [`link`].
    Message(JsValue),
    /// It has ended, or could not begin: in words why.
    Lost(String),
    /// A look around is due.
    Tick,
    /// Nothing will come any more: the page has ended it.
    Ended,
}

/// A worker, which ends when this is dropped.
pub struct Helper {
    worker: Worker,
    number: u32,
    inbox: Rc<Inbox<Said>>,
    _heard: Closure<dyn FnMut(MessageEvent)>,
    _failed: Closure<dyn FnMut(Event)>,
}

impl Helper {
    /// Starts one. In words what is wrong.
    pub fn start() -> Result<Self, String> {
        let options = WorkerOptions::new();
        options.set_type(WorkerType::Module);
        let worker = Worker::new_with_options(PROGRAM, &options).map_err(|e| words(&e))?;
        let (inbox, number) = (Rc::new(Inbox::new()), Memory::number());
        let into = Rc::clone(&inbox);
        let heard = Closure::<dyn FnMut(_)>::new(move |event: MessageEvent| {
            let message = event.data();
            if let Some(bytes) = link::field(&message, link::MEMORY).and_then(|b| b.as_f64()) {
                Memory::note(number, bytes as u64);
            }
            into.push(match link::text(&message, link::FAILED) {
                Some(why) => Said::Lost(why),
                None => Said::Message(message),
            });
        });
        let into = Rc::clone(&inbox);
        let failed = Closure::<dyn FnMut(_)>::new(move |event: Event| {
            // A program that cannot be fetched fails without words.
            let what = event.dyn_ref::<ErrorEvent>().map(ErrorEvent::message).filter(|m| !m.is_empty());
            let what = what.unwrap_or_else(|| "its program could not be started, or a message could not be read".to_owned());
            into.push(Said::Lost(what));
        });
        worker.set_onmessage(Some(heard.as_ref().unchecked_ref()));
        worker.set_onerror(Some(failed.as_ref().unchecked_ref()));
        worker.set_onmessageerror(Some(failed.as_ref().unchecked_ref()));
        Ok(Self { worker, number, inbox, _heard: heard, _failed: failed })
    }

    /// What comes from it.
    pub fn inbox(&self) -> &Rc<Inbox<Said>> {
        &self.inbox
    }

    /// Says something to it. In words what is wrong.
    pub fn post(&self, message: &JsValue) -> Result<(), String> {
        self.worker.post_message(message).map_err(|e| words(&e))
    }

    /// Asks for something, once it listens. In words what is wrong.
    pub fn ask(&self, kind: &str, file: JsValue, name: &str, options: &str) -> Result<(), String> {
        let [a, b, c, d] = link::FIELDS;
        self.post(&link::object([(a, kind.into()), (b, file), (c, name.into()), (d, options.into())]))
    }

    /// Sends the engine's bytes. In words what is wrong.
    pub fn post_bytes(&self, message: &[u8]) -> Result<(), String> {
        let (bytes, handed) = link::bytes(message);
        self.worker.post_message_with_transfer(&bytes, &handed).map_err(|e| words(&e))
    }

    /// Ends it now: all its memory is free, here and on its device.
    pub fn end(&self) {
        self.worker.terminate();
        Memory::forget(self.number);
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        self.worker.set_onmessage(None);
        self.worker.set_onerror(None);
        self.worker.set_onmessageerror(None);
        self.end();
    }
}

/// How far a worker is.
pub struct Progress {
    /// What is being done.
    pub what: String,
    /// Steps or bytes done.
    pub done: u64,
    /// And in all, where it is known.
    pub total: Option<u64>,
}

/// How far a worker says it is.
pub fn progress(message: &JsValue) -> Option<Progress> {
    let progress: Array = link::field(message, link::PROGRESS)?.dyn_into().ok()?;
    Some(Progress {
        what: progress.get(0).as_string()?,
        done: progress.get(1).as_f64()? as u64,
        total: progress.get(2).as_f64().map(|t| t as u64),
    })
}

thread_local! {
    static MEMORY: RefCell<Memory> = const { RefCell::new(Memory { live: BTreeMap::new() }) };
    static WORKERS: Cell<u32> = const { Cell::new(0) };
}

/// How much wasm memory workers have.
struct Memory {
    live: BTreeMap<u32, u64>,
}

impl Memory {
    /// A number for a worker.
    fn number() -> u32 {
        let number = WORKERS.get();
        WORKERS.set(number.wrapping_add(1));
        number
    }

    fn note(number: u32, bytes: u64) {
        MEMORY.with_borrow_mut(|m| m.live.insert(number, bytes));
    }

    fn forget(number: u32) {
        MEMORY.with_borrow_mut(|m| m.live.remove(&number));
    }
}

/// Bytes of wasm memory of all workers; `None`: there are none, or none has said.
pub fn worker_memory() -> Option<u64> {
    MEMORY.with_borrow(|m| (!m.live.is_empty()).then(|| m.live.values().sum()))
}
