//! Loads a model, then serves the page.

use std::{cell::Cell, pin::Pin, rc::Rc, sync::Arc};

use js_sys::{Promise, Uint8Array};
use pleiad_models::Checkpoint;
use pleiad_runtime::{
    Engine, EngineOptions,
    engine::{self, Loaded, Stage, remote::Host},
};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::{JsFuture, spawn_local};
use web_sys::{AddEventListenerOptions, MessageChannel};

use super::{
    ranges::RangedFile,
    start::{Asked, Page, Progress, memory, post, post_bytes},
};
use crate::{js::words, link};

/// Loads the model that is asked for, and serves the page for as long as this worker lives. In words what is wrong.
pub async fn run(asked: &Asked, page: &Page) -> Result<(), String> {
    engine::set_breath(breathe);
    let mut progress = Progress::new();
    let loaded = load(asked, &mut progress).await?;
    let (engine, worker) = Engine::with_worker(loaded);
    spawn_local(worker.run());

    let grown = Grown::default();
    let growing = grown.clone();
    let mut host = Host::new(engine, move |message| {
        post_bytes(&message);
        growing.tell();
    });
    let greeting = Uint8Array::new_from_slice(&host.greeting());
    post(&link::object([(link::READY, greeting.into()), (link::MEMORY, memory().into())]));
    loop {
        let message = page.next().await;
        let Some(message) = link::of_bytes(&message) else { continue };
        let taken = host.take(&message, &mut |work| {
            let grown = grown.clone();
            spawn_local(async move {
                work.await;
                grown.tell();
            });
        });
        taken.map_err(|e| e.to_string())?;
        grown.tell();
    }
}

async fn load(asked: &Asked, progress: &mut Progress) -> Result<Loaded, String> {
    let mut fetched = |done: u64, total: u64| progress.tell("Fetching the model", done, (total > 0).then_some(total));
    let file = RangedFile::open(&asked.kind, &asked.file, &mut fetched).await.map_err(|why| format!("{}: {why}", asked.name))?;
    let checkpoint = Checkpoint::from_ranged(&asked.name, Arc::new(file), false).map_err(|e| e.to_string())?;
    let options = serde_json::from_str(&asked.options).map_err(|e| format!("the page's options cannot be read: {e}"))?;
    onto_device(&checkpoint, options, progress).await.map_err(|e| e.to_string())
}

/// Puts a model's weights on the device, and prepares what computes there.
async fn onto_device(
    checkpoint: &Checkpoint,
    options: EngineOptions,
    progress: &mut Progress,
) -> Result<Loaded, pleiad_runtime::Error> {
    let mut told = |stage: Stage, done: u64, total: u64| {
        let what = match stage {
            Stage::Weights => "Loading weights",
            Stage::Kernels => "Preparing the GPU",
        };
        progress.tell(what, done, Some(total));
    };
    engine::load_with(checkpoint, options, &mut told).await
}

/// Tells the page how large this program's memory is, when it has grown: it never shrinks.
#[derive(Clone, Default)]
struct Grown(Rc<Cell<f64>>);

impl Grown {
    fn tell(&self) {
        let bytes = memory();
        if self.0.replace(bytes) != bytes {
            post(&link::object([(link::MEMORY, bytes.into())]));
        }
    }
}

thread_local! {
    static CHANNEL: Option<MessageChannel> = MessageChannel::new().ok();
}

/// Lets the browser do what waits: devices answer and messages come in between two turns only. A message to oneself makes the
/// next turn at once, where a timer would wait for milliseconds.
pub fn breathe() -> Pin<Box<dyn Future<Output = ()>>> {
    Box::pin(async {
        let turn = Promise::new(&mut |done, refuse| {
            let once = AddEventListenerOptions::new();
            once.set_once(true);
            let asked = CHANNEL.with(|channel| {
                let channel = channel.as_ref().ok_or(JsValue::UNDEFINED)?;
                let heard = channel.port1();
                heard.add_event_listener_with_callback_and_add_event_listener_options("message", &done, &once)?;
                heard.start();
                channel.port2().post_message(&JsValue::NULL)
            });
            if let Err(e) = asked {
                // Without a turn in between it goes on as well, only less smoothly.
                let _ = refuse.call1(&JsValue::NULL, &e);
            }
        });
        if let Err(e) = JsFuture::from(turn).await {
            web_sys::console::warn_1(&words(&e).as_str().into());
        }
    })
}
