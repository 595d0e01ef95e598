//! Workers that load models.

mod helper;

use std::{cell::RefCell, rc::Rc, sync::atomic::Ordering};

use pleiad_app::loading::{
    Source,
    elsewhere::{Later, Loader, Wanted},
};
use pleiad_runtime::{Engine, EngineOptions, Error, engine::remote::Remote};
use wasm_bindgen::JsValue;
use wasm_bindgen_futures::spawn_local;
use web_sys::Blob;

pub use helper::{Helper, Said, progress, worker_memory};

use crate::{
    kept::{self, Folder},
    link, net,
    page::opened,
    scope::Interval,
};

/// The embedded model, beside the page.
const TINY: &str = "./pleiad-tiny.gguf";
/// How often it is looked whether a load is still wanted, in milliseconds.
const LOOK: f64 = 200.0;

/// Loads every model in a worker of its own.
#[derive(Default)]
pub struct Workers {
    /// The embedded model, where the site gives whole files only.
    tiny: Rc<RefCell<Option<Blob>>>,
}

impl Workers {
    /// No worker is started yet.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Loader for Workers {
    fn head(&self, source: &Source, bytes: usize) -> Later<Result<(Vec<u8>, u64), String>> {
        let (source, tiny) = (source.clone(), Rc::clone(&self.tiny));
        Box::pin(async move {
            let head = match &source {
                Source::Tiny => tiny_head(&tiny, bytes).await,
                Source::Opened(number, name) => blob_head(opened_file(*number, name)?.as_ref(), bytes).await,
                Source::Kept(name) => match kept_file(name).await {
                    Ok(file) => blob_head(&file, bytes).await,
                    Err(why) => Err(why),
                },
            };
            head.map_err(|why| named(&source, why))
        })
    }

    fn start(&self, wanted: Wanted) -> Later<Result<Engine, String>> {
        let tiny = self.tiny.borrow().clone();
        Box::pin(start(wanted, tiny))
    }
}

/// What is wrong with a model, after its name.
fn named(source: &Source, why: String) -> String {
    let name = source.name();
    if why.contains(&name) { why } else { format!("{name}: {why}") }
}

fn opened_file(number: u32, name: &str) -> Result<web_sys::File, String> {
    opened::get(number, name).ok_or_else(|| format!("{name} was opened in an earlier visit; open it again"))
}

async fn kept_file(name: &str) -> Result<Blob, String> {
    Ok(Folder::open().await?.file(name).await?.into())
}

async fn blob_head(file: &Blob, bytes: usize) -> Result<(Vec<u8>, u64), String> {
    Ok((kept::head(file, bytes).await?, file.size() as u64))
}

/// The head of the embedded model, from the site.
async fn tiny_head(tiny: &RefCell<Option<Blob>>, bytes: usize) -> Result<(Vec<u8>, u64), String> {
    let held = tiny.borrow().clone();
    if let Some(blob) = held {
        return blob_head(&blob, bytes).await;
    }
    let answer = net::get(TINY, 0, Some(bytes as u64), None).await?;
    let (blob, total) = (answer.blob().await?, answer.total);
    match total {
        Some(total) if answer.ranged => Ok((kept::head(&blob, bytes).await?, total)),
        _ => {
            *tiny.borrow_mut() = Some(blob.clone());
            blob_head(&blob, bytes).await
        }
    }
}

/// Loads a model in a worker.
async fn start(wanted: Wanted, tiny: Option<Blob>) -> Result<Engine, String> {
    let (helper, engine, remote) = load(wanted, tiny).await?;
    let (helper, remote) = (Rc::new(helper), Rc::new(remote));
    spawn_local(send(Rc::clone(&helper), Rc::clone(&remote)));
    spawn_local(receive(helper, remote));
    Ok(engine)
}

async fn load(wanted: Wanted, tiny: Option<Blob>) -> Result<(Helper, Engine, Remote), String> {
    let Wanted { source, checkpoint, options, cancelled, mut told } = wanted;
    let name = source.name();
    let (kind, file): (&str, JsValue) = match (&source, tiny) {
        (Source::Tiny, Some(blob)) => (link::FILE, blob.into()),
        (Source::Tiny, None) => (link::URL, TINY.into()),
        (Source::Opened(number, name), _) => (link::FILE, opened_file(*number, name)?.into()),
        (Source::Kept(name), _) => (link::KEPT, name.into()),
    };
    let options = written(&options)?;
    let helper = Helper::start().map_err(|why| named(&source, why))?;
    let inbox = Rc::clone(helper.inbox());
    let ticks = Rc::clone(&inbox);
    let _looks = Interval::new(LOOK, move || ticks.push(Said::Tick));
    loop {
        let said = inbox.next().await;
        if cancelled.load(Ordering::Relaxed) {
            return Err("cancelled".to_owned());
        }
        let message = match said {
            Said::Message(message) => message,
            Said::Lost(why) => return Err(named(&source, reason(&why).to_owned())),
            Said::Tick | Said::Ended => continue,
        };
        if let Some(at) = progress(&message) {
            told(&at.what, at.done, at.total.unwrap_or(0));
        } else if link::field(&message, link::ASKS).is_some() {
            helper.ask(kind, file.clone(), &name, &options)?;
        } else if let Some(greeting) = link::field(&message, link::READY).and_then(|g| link::of_bytes(&g)) {
            let (config, tokenizer) = (checkpoint.config.clone(), checkpoint.tokenizer.clone());
            let (engine, remote) = Remote::new(&greeting, config, tokenizer).map_err(|e| named(&source, e.to_string()))?;
            return Ok((helper, engine, remote));
        }
    }
}

/// The engine's options, for a worker.
fn written(options: &EngineOptions) -> Result<String, String> {
    serde_json::to_string(options).map_err(|e| format!("the options cannot be written: {e}"))
}

/// Carries what the page's handles ask for, as long as there are any. Then the worker ends.
async fn send(helper: Rc<Helper>, remote: Rc<Remote>) {
    while let Some(message) = remote.next().await {
        if let Err(why) = helper.post_bytes(&message) {
            helper.inbox().push(Said::Lost(why));
        }
    }
    helper.end();
    helper.inbox().push(Said::Ended);
}

/// Carries what the worker answers.
async fn receive(helper: Rc<Helper>, remote: Rc<Remote>) {
    let why = loop {
        let message = match helper.inbox().next().await {
            Said::Message(message) => message,
            Said::Lost(why) => break why,
            Said::Tick => continue,
            Said::Ended => return,
        };
        if let Some(bytes) = link::of_bytes(&message)
            && let Err(e) = remote.take(&bytes)
        {
            break e.to_string();
        }
    };
    helper.end();
    web_sys::console::error_1(&format!("a model's worker has stopped: {why}").as_str().into());
    remote.lost(&Error::Stopped(format!("{}; open the model again", reason(&why))));
}

/// Why a worker is gone, in words. A program that cannot get memory ends without any.
fn reason(why: &str) -> &str {
    let why = why.strip_prefix("the engine has stopped: ").unwrap_or(why);
    let silent = ["unreachable", "out of memory", "allocation"].iter().any(|w| why.contains(w));
    if silent { "it ran out of memory, or met an error that it could not tell of" } else { why }
}
