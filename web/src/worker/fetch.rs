//! Downloads a model, or copies one, into the browser's private file system. It is written as it comes, so that a download that
//! ends early goes on where it ended; where there is no room for it, it is held in memory if it is not too large.

use std::{cell::Cell, rc::Rc, sync::Arc};

use js_sys::Uint8Array;
use pleiad_app::sizes::size;
use pleiad_models::Checkpoint;
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::spawn_local;
use web_sys::{AbortController, Blob, File, FileReaderSync};

use super::{
    part::{NO_ROOM, Part, Refused, write_label},
    ranges::RangedFile,
    start::{Asked, Page, Progress, post},
};
use crate::{
    js::words,
    kept::{self, Folder, Label, read_words},
    link, net, scope,
};

/// Most bytes that are held in memory.
const MOST_HELD: u64 = 1 << 30;
/// Bytes of a file that are copied at once.
const PIECE: f64 = 8.0 * 1048576.0;
/// When so many bytes are here, the header is looked at: nobody should wait for the rest of a file that cannot be run.
const HEADER: u64 = 16 << 20;

const NOT_GGUF: &str = "this is not a GGUF file";

/// Ended as the page wished.
struct Stop {
    controller: AbortController,
    wished: Rc<Cell<bool>>,
}

impl Stop {
    fn listen(page: &Page) -> Result<Self, String> {
        let controller = AbortController::new().map_err(|e| words(&e))?;
        let stop = Self { controller, wished: Rc::default() };
        let (page, aborted, wished) = (Rc::clone(page), stop.controller.clone(), Rc::clone(&stop.wished));
        spawn_local(async move {
            while page.next().await.as_string().as_deref() != Some(link::STOP) {}
            wished.set(true);
            aborted.abort();
        });
        Ok(stop)
    }

    /// In place of an error: what was wrong, unless it was wished.
    fn check(&self) -> Result<(), String> {
        if self.wished.get() { Err("stopped".to_owned()) } else { Ok(()) }
    }
}

/// Fetches what is asked for, and tells the page how that ends. In words what is wrong.
pub async fn run(asked: &Asked, page: &Page) -> Result<(), String> {
    let stop = Stop::listen(page)?;
    let done = match asked.kind.as_str() {
        link::COPY => copy(asked, &stop).await,
        _ => download(asked, &stop).await,
    };
    if done.is_err() {
        remove_empty(&asked.name).await;
    }
    match done {
        Ok(held) => post(&link::object([(link::DONE, held.map_or(JsValue::NULL, Into::into))])),
        Err(_) if stop.wished.get() => post(&link::object([(link::STOPPED, true.into())])),
        Err(why) => return Err(format!("{}: {why}", asked.name)),
    }
    Ok(())
}

/// Removes a file that nothing was written to. Whatever else is there may be of use.
async fn remove_empty(name: &str) {
    let Ok(folder) = Folder::open().await else { return };
    if folder.file(name).await.is_ok_and(|f| f.size() == 0.0) {
        // If it cannot be removed it is shown, and may be removed by hand.
        let _ = folder.remove(name).await;
    }
}

/// Downloads a model. `Some`: it is held in memory.
async fn download(asked: &Asked, stop: &Stop) -> Result<Option<Blob>, String> {
    let address = asked.file.as_string().ok_or("no address was given")?;
    let (name, signal) = (asked.name.as_str(), stop.controller.signal());
    let kept = match Folder::open().await {
        Ok(folder) => match Part::open(&folder, name).await {
            Ok(part) => Ok((folder, part)),
            Err(Refused::Never) => Err("this browser does not keep files for pages".to_owned()),
            Err(Refused::Now(why)) => return Err(why),
        },
        Err(why) => Err(why),
    };
    let (folder, mut part) = match kept {
        Ok(kept) => kept,
        Err(why) => {
            let answer = net::get(&address, 0, None, Some(&signal)).await?;
            let body = Feed::Body(answer.body()?);
            return hold(asked, stop, body, net::Pieces::default(), answer.total, &why).await.map(Some);
        }
    };
    let mut label = folder.label(name).await;
    if label.url != address {
        part.clear()?;
        label = Label { url: address.clone(), ..Label::default() };
    }
    if part.bytes == 0 || label.total != Some(part.bytes) {
        let mut answer = net::get(&address, part.bytes, None, Some(&signal)).await?;
        let differs = |a: &Option<String>, b: &Option<String>| matches!((a, b), (Some(a), Some(b)) if a != b);
        let other =
            differs(&label.version, &answer.version) || matches!((label.total, answer.total), (Some(a), Some(b)) if a != b);
        if answer.start > 0 && other {
            // What is here is of an earlier version of the file.
            answer.body()?.cancel();
            answer = net::get(&address, 0, None, Some(&signal)).await?;
        }
        if answer.start != part.bytes {
            part.clear()?;
        }
        let small = answer.total.is_some_and(|t| t <= MOST_HELD);
        let mut body = Feed::Body(answer.body()?);
        if let Some(why) = no_room(answer.total, part.bytes).await {
            if part.bytes > 0 || !small {
                body.cancel();
                return Err(why);
            }
            drop(part);
            folder.remove(name).await?;
            return hold(asked, stop, body, net::Pieces::default(), answer.total, &why).await.map(Some);
        }
        (label.total, label.version) = (answer.total, answer.version.clone());
        let written = match write_label(&folder, name, &label).await {
            Ok(()) => write(&mut part, &mut body, name, answer.total, stop).await,
            Err(why) => Err(Ended { left: Some(Uint8Array::new_with_length(0)), ..why.into() }),
        };
        if let Err(Ended { useless, left, why }) = written {
            let pieces = match left.filter(|_| small) {
                Some(left) => {
                    let mut pieces = part.pieces()?;
                    pieces.push(&left)?;
                    Some(pieces)
                }
                None => None,
            };
            drop(part);
            if useless || pieces.is_some() {
                folder.remove(name).await?;
            }
            return match pieces {
                Some(pieces) => hold(asked, stop, body, pieces, answer.total, &why).await.map(Some),
                None => {
                    body.cancel();
                    Err(why)
                }
            };
        }
        label.total = Some(part.bytes);
    }
    finish(&folder, part, name, label).await.map(|()| None)
}

/// Copies a file.
async fn copy(asked: &Asked, stop: &Stop) -> Result<Option<Blob>, String> {
    let file: &File = asked.file.dyn_ref().ok_or("no file was given")?;
    let name = asked.name.as_str();
    let folder = Folder::open().await?;
    let total = file.size() as u64;
    if let Some(why) = no_room(Some(total), 0).await {
        return Err(why);
    }
    let mut part = Part::open(&folder, name).await.map_err(|refused| match refused {
        Refused::Never => "this browser does not keep files for pages".to_owned(),
        Refused::Now(why) => why,
    })?;
    part.clear()?;
    let label = Label { total: Some(total), ..Label::default() };
    let copied = async {
        write_label(&folder, name, &label).await?;
        let reader = FileReaderSync::new().map_err(|e| words(&e))?;
        let mut feed = Feed::File { file: file.clone().into(), reader, at: 0.0 };
        write(&mut part, &mut feed, name, Some(total), stop).await.map_err(|ended| ended.why)
    }
    .await;
    if let Err(why) = copied {
        // A part of a copy is of no use: it is made again as fast.
        drop(part);
        folder.remove(name).await?;
        return Err(why);
    }
    finish(&folder, part, name, label).await.map(|()| None)
}

/// What is written.
enum Feed {
    Body(net::Body),
    File { file: Blob, reader: FileReaderSync, at: f64 },
}

impl Feed {
    /// The next piece; `None`: that was all. In words what is wrong.
    async fn next(&mut self) -> Result<Option<Uint8Array>, String> {
        match self {
            Self::Body(body) => body.next().await,
            Self::File { file, reader, at } => {
                // The page may want to stop.
                scope::sleep(0.0).await;
                if *at >= file.size() {
                    return Ok(None);
                }
                let part = file.slice_with_f64_and_f64(*at, *at + PIECE);
                let read = part.and_then(|part| reader.read_as_array_buffer(&part)).map_err(|e| read_words(&e))?;
                *at += PIECE;
                Ok(Some(Uint8Array::new(&read)))
            }
        }
    }

    fn cancel(&self) {
        if let Self::Body(body) = self {
            body.cancel();
        }
    }
}

/// Why no more is written.
struct Ended {
    /// What is here is not the beginning of a model that can be run.
    useless: bool,
    /// There was no room for this.
    left: Option<Uint8Array>,
    why: String,
}

impl From<String> for Ended {
    fn from(why: String) -> Self {
        Self { useless: false, left: None, why }
    }
}

/// Writes all that comes. What is here when it ends, however it does, is on the disk.
async fn write(part: &mut Part, feed: &mut Feed, name: &str, total: Option<u64>, stop: &Stop) -> Result<(), Ended> {
    let written = append(part, feed, name, total, stop).await;
    let flushed = part.flush();
    written?;
    flushed?;
    match total {
        Some(total) if total != part.bytes => {
            let why = format!(
                "the connection ended early; {} of {} are here, download it again to go on",
                size(part.bytes),
                size(total)
            );
            Err(why.into())
        }
        _ => Ok(()),
    }
}

async fn append(part: &mut Part, feed: &mut Feed, name: &str, total: Option<u64>, stop: &Stop) -> Result<(), Ended> {
    let mut progress = Progress::new();
    progress.tell("", part.bytes, total);
    loop {
        stop.check()?;
        let Some(piece) = feed.next().await? else { return Ok(()) };
        let before = part.bytes;
        let written = part.push(&piece)?;
        if written < piece.length() {
            let left = Some(piece.subarray(written, piece.length()));
            return Err(Ended { left, ..NO_ROOM.to_owned().into() });
        }
        progress.tell("", part.bytes, total);
        let passed = |bytes: u64| (before..part.bytes).contains(&(bytes - 1));
        if passed(4) && part.head(4)? != *b"GGUF" {
            return Err(Ended { useless: true, ..NOT_GGUF.to_owned().into() });
        }
        if let Some(total) = total.filter(|&t| t > HEADER && passed(HEADER)) {
            let head = part.head(HEADER as usize)?;
            if let Err(e) = Checkpoint::from_head(name, &head, total) {
                return Err(Ended { useless: true, ..refusal(name, &e).into() });
            }
        }
    }
}

/// Looks at a file that is here as a whole, and says so on its label.
async fn finish(folder: &Folder, part: Part, name: &str, label: Label) -> Result<(), String> {
    drop(part);
    if let Err(why) = look(name, folder.file(name).await?.into()) {
        folder.remove(name).await?;
        return Err(why);
    }
    write_label(folder, name, &Label { complete: true, ..label }).await
}

/// Opens a model as if it were to be loaded. In words what is wrong.
fn look(name: &str, file: Blob) -> Result<(), String> {
    let file = RangedFile::blob(file)?;
    Checkpoint::from_ranged(name, Arc::new(file), false).map(drop).map_err(|e| refusal(name, &e))
}

/// Why a file is not kept. Its name stands before all that goes wrong with it.
fn refusal(name: &str, error: &pleiad_models::Error) -> String {
    let why = error.to_string();
    let why = why.strip_prefix(name).map_or(why.as_str(), |rest| rest.trim_start_matches([':', ' ']));
    format!("it cannot be run, so it is not kept: {why}")
}

/// Downloads the rest of a model into memory, as far as it is not too large; `why` it is not kept.
async fn hold(
    asked: &Asked,
    stop: &Stop,
    mut rest: Feed,
    mut pieces: net::Pieces,
    total: Option<u64>,
    why: &str,
) -> Result<Blob, String> {
    let too_large = || format!("{why}; it is larger than {}, too large to be held in memory", size(MOST_HELD));
    if total.is_some_and(|t| t > MOST_HELD) {
        rest.cancel();
        return Err(too_large());
    }
    let notice = format!("{}: {why}. It is held in memory, and gone when this page is closed", asked.name);
    post(&link::object([(link::HELD, notice.into())]));
    let mut progress = Progress::new();
    while let Some(piece) = rest.next().await? {
        stop.check()?;
        pieces.push(&piece)?;
        if pieces.len() > MOST_HELD {
            rest.cancel();
            return Err(too_large());
        }
        progress.tell("", pieces.len(), total);
    }
    if let Some(total) = total.filter(|&t| t != pieces.len()) {
        return Err(format!("the connection ended early; {} of {} came", size(pieces.len()), size(total)));
    }
    let blob = pieces.finish()?;
    look(&asked.name, blob.clone())?;
    Ok(blob)
}

/// Why a file of so many bytes, of which some are here, does not fit; `None`: it does, or it cannot be known.
async fn no_room(total: Option<u64>, here: u64) -> Option<String> {
    let needed = total?.saturating_sub(here);
    let room = kept::room().await?;
    let free = room.quota.saturating_sub(room.used);
    (needed > free).then(|| {
        let missing = size(needed - free);
        format!("it takes {} and the browser allows {} more: {missing} are missing", size(needed), size(free))
    })
}
