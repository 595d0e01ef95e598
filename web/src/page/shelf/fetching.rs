//! A download, or a copy, under way: a worker does it, and tells how far it is.

use std::{collections::VecDeque, rc::Rc};

use pleiad_app::loading::{
    Source,
    shelf::{Download, ShelfNews},
};
use wasm_bindgen::{JsCast, JsValue};
use web_sys::{Blob, File};

use super::Shared;
use crate::{
    kept, link,
    page::{
        loader::{Helper, Said, progress},
        opened,
    },
    scope::now,
};

/// Speed is measured over so many milliseconds.
const LATELY: f64 = 4000.0;
/// Between two looks at what room there is, in milliseconds.
const ROOM_EVERY: f64 = 3000.0;
/// Between two frames that show how far it is, in milliseconds.
const SHOW_EVERY: f64 = 200.0;

/// A download, or a copy, under way.
pub struct Fetching {
    pub download: Download,
    /// Where it comes from; empty: it is copied.
    pub url: String,
    pub helper: Rc<Helper>,
    /// What is here is to be removed when it has ended.
    pub remove: bool,
}

/// What a worker is to fetch.
pub struct Errand {
    pub kind: &'static str,
    pub file: JsValue,
    pub name: String,
}

/// Serves a worker until it is done, or stopped; what there is to tell then.
pub async fn serve(shared: &Shared, helper: &Helper, errand: Errand) -> Option<ShelfNews> {
    let (mut speed, mut shown, mut looked) = (Speed::default(), f64::NEG_INFINITY, now());
    let failed = |why: String| Some(ShelfNews::Failed(why));
    loop {
        let message = match helper.inbox().next().await {
            Said::Message(message) => message,
            Said::Lost(why) if why.contains(&errand.name) => return failed(why),
            Said::Lost(why) => return failed(format!("{}: {why}", errand.name)),
            Said::Tick => continue,
            Said::Ended => return None,
        };
        if let Some(at) = progress(&message) {
            let now = now();
            speed.note(now, at.done);
            shared.with(|state| {
                if let Some(f) = state.fetching(&errand.name) {
                    (f.download.done, f.download.total, f.download.speed) = (at.done, at.total, speed.get());
                }
            });
            if now - shown >= SHOW_EVERY {
                shown = now;
                shared.wake();
            }
            if now - looked >= ROOM_EVERY {
                looked = now;
                let room = kept::room().await;
                shared.with(|state| state.room = room);
            }
        } else if link::field(&message, link::ASKS).is_some() {
            if let Err(why) = helper.ask(errand.kind, errand.file.clone(), &errand.name, "") {
                return failed(format!("{}: {why}", errand.name));
            }
        } else if let Some(why) = link::text(&message, link::HELD) {
            shared.with(|state| {
                state.fetching(&errand.name).into_iter().for_each(|f| f.download.in_memory = true);
                state.news.push(ShelfNews::Notice(why));
            });
            shared.wake();
        } else if let Some(held) = link::field(&message, link::DONE) {
            return Some(match held.dyn_into::<Blob>() {
                Ok(blob) => match File::new_with_blob_sequence(&js_sys::Array::of1(&blob), &errand.name) {
                    Ok(file) => ShelfNews::Ready(opened::add(file)),
                    Err(e) => ShelfNews::Failed(format!("{}: {}", errand.name, crate::js::words(&e))),
                },
                Err(_) => ShelfNews::Ready(Source::Kept(errand.name)),
            });
        } else if link::field(&message, link::STOPPED).is_some() {
            return None;
        }
    }
}

/// How fast something goes, lately.
#[derive(Default)]
struct Speed {
    marks: VecDeque<(f64, u64)>,
}

impl Speed {
    fn note(&mut self, now: f64, done: u64) {
        while self.marks.front().is_some_and(|&(at, _)| now - at > LATELY) && self.marks.len() > 1 {
            self.marks.pop_front();
        }
        self.marks.push_back((now, done));
    }

    /// Bytes a second.
    fn get(&self) -> f64 {
        match (self.marks.front(), self.marks.back()) {
            (Some(&(from, had)), Some(&(to, has))) if to > from => has.saturating_sub(had) as f64 / ((to - from) / 1000.0),
            _ => 0.0,
        }
    }
}
