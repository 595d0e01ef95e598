//! What a server answers, piece by piece.

use js_sys::{Array, Reflect, Uint8Array};
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::{JsFuture, spawn_local};
use web_sys::{AbortSignal, Blob, Headers, ReadableStreamDefaultReader, RequestCache, RequestInit, Response};

use crate::js::words;

/// Pieces are joined into a blob, which a browser may put on disk, when they are so many bytes.
const JOIN: f64 = 8.0 * 1048576.0;

/// What a server answers to a request for a file from some byte on.
pub struct Answer {
    response: Response,
    /// The byte it begins with: what was asked for, or 0 where the server gives whole files only.
    pub start: u64,
    /// The server gives parts of files.
    pub ranged: bool,
    /// Bytes of the whole file, where the server says.
    pub total: Option<u64>,
    /// What tells versions of the file apart, where the server says.
    pub version: Option<String>,
}

/// Asks for a file from byte `from` on, up to `to` (exclusive) where it is given. In words what is wrong.
///
/// The request always names a range: it tells whether the server gives parts, and servers do not compress them. Apart from
/// that it has no header of its own, as any would make browsers ask other sites for leave first, and many do not answer that.
pub async fn get(address: &str, from: u64, to: Option<u64>, signal: Option<&AbortSignal>) -> Result<Answer, String> {
    let response = ask(address, from, to, signal).await?;
    // It is shorter than what is here of it, so what is here is of another file.
    let (response, from) =
        if response.status() == 416 && from > 0 { (ask(address, 0, to, signal).await?, 0) } else { (response, from) };
    let headers = response.headers();
    let length = header(&headers, "content-length").and_then(|l| l.parse::<u64>().ok());
    let version = header(&headers, "etag").or_else(|| header(&headers, "last-modified"));
    match response.status() {
        206 => {
            let said = header(&headers, "content-range").and_then(|r| content_range(&r));
            let (start, total) = match said {
                Some((start, total)) => (start, total),
                // Other sites may be shown the length only.
                None => (from, length.filter(|_| to.is_none()).and_then(|l| from.checked_add(l))),
            };
            if start != from {
                return Err("the server gave another part of the file than it was asked for".to_owned());
            }
            Ok(Answer { response, start, ranged: true, total, version })
        }
        // A length beside an encoding is that of what was sent.
        200 => {
            let total = length.filter(|_| header(&headers, "content-encoding").is_none());
            Ok(Answer { response, start: 0, ranged: false, total, version })
        }
        status => Err(refusal(status)),
    }
}

async fn ask(address: &str, from: u64, to: Option<u64>, signal: Option<&AbortSignal>) -> Result<Response, String> {
    let range = match to {
        Some(to) => format!("bytes={from}-{}", to.saturating_sub(1)),
        None => format!("bytes={from}-"),
    };
    let headers = Headers::new().and_then(|h| h.set("Range", &range).map(|()| h)).map_err(|e| words(&e))?;
    let init = RequestInit::new();
    init.set_headers_headers(&headers);
    if let Some(signal) = signal {
        // What can be stopped is downloaded to be kept: a cache would keep it a second time.
        init.set_signal(Some(signal));
        init.set_cache(RequestCache::NoStore);
    }
    let answer = JsFuture::from(crate::scope::fetch(address, &init)).await;
    answer.map(JsCast::unchecked_into).map_err(|e| match e.is_instance_of::<js_sys::TypeError>() {
        true => "the server cannot be reached, or does not allow other sites to read it".to_owned(),
        false => words(&e),
    })
}

fn header(headers: &Headers, name: &str) -> Option<String> {
    headers.get(name).ok().flatten()
}

/// The first byte and the length of the whole file of `bytes 0-99/1000`.
fn content_range(text: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = text.trim().strip_prefix("bytes")?.trim_start().split_once('/')?;
    Some((range.split_once('-')?.0.trim().parse().ok()?, total.trim().parse().ok()))
}

/// What a status means.
fn refusal(status: u16) -> String {
    match status {
        401 | 403 => {
            format!("the server does not give this file to everyone ({status}); download it there, then open it from disk")
        }
        404 | 410 => format!("the server has no file at this address ({status})"),
        416 => "the file on the server is empty".to_owned(),
        429 => "the server is asked too often; try again later (429)".to_owned(),
        500.. => format!("the server has a problem; try again later ({status})"),
        _ => format!("the server's answer is not a file ({status})"),
    }
}

impl Answer {
    /// The body, piece by piece. In words what is wrong.
    pub fn body(&self) -> Result<Body, String> {
        let body = self.response.body().ok_or_else(|| "the server's answer is empty".to_owned())?;
        Ok(Body { reader: body.get_reader().unchecked_into() })
    }

    /// The body, all of it. In words what is wrong.
    pub async fn blob(&self) -> Result<Blob, String> {
        let promise = self.response.blob().map_err(|e| words(&e))?;
        JsFuture::from(promise).await.map(JsCast::unchecked_into).map_err(|_| LOST.to_owned())
    }
}

/// The connection ended too early.
const LOST: &str = "the connection to the server was lost; try again";

/// The body of an answer.
pub struct Body {
    reader: ReadableStreamDefaultReader,
}

impl Body {
    /// The next piece; `None`: that was all. In words what is wrong.
    pub async fn next(&self) -> Result<Option<Uint8Array>, String> {
        let step = JsFuture::from(self.reader.read()).await.map_err(|_| LOST.to_owned())?;
        let field = |name: &str| Reflect::get(&step, &name.into()).unwrap_or_default();
        Ok(field("value").dyn_into().ok().filter(|_| !field("done").is_truthy()))
    }

    /// Nothing more is wanted.
    pub fn cancel(&self) {
        let cancelled = JsFuture::from(self.reader.cancel());
        // Whatever comes of it; but an error that nobody takes would be told to the page.
        spawn_local(async move { drop(cancelled.await) });
    }
}

/// Pieces of a file, gathered outside of wasm memory.
#[derive(Default)]
pub struct Pieces {
    blobs: Array,
    loose: Array,
    loose_bytes: f64,
    bytes: f64,
}

impl Pieces {
    /// Adds a piece. In words what is wrong.
    pub fn push(&mut self, piece: &Uint8Array) -> Result<(), String> {
        self.loose.push(piece);
        self.loose_bytes += f64::from(piece.length());
        self.bytes += f64::from(piece.length());
        if self.loose_bytes >= JOIN { self.join() } else { Ok(()) }
    }

    /// Bytes gathered.
    pub fn len(&self) -> u64 {
        self.bytes as u64
    }

    /// All of it. In words what is wrong.
    pub fn finish(mut self) -> Result<Blob, String> {
        self.join()?;
        Blob::new_with_blob_sequence(&self.blobs).map_err(|e| full(&e))
    }

    fn join(&mut self) -> Result<(), String> {
        let blob = Blob::new_with_buffer_source_sequence(&self.loose).map_err(|e| full(&e))?;
        self.blobs.push(&blob);
        (self.loose, self.loose_bytes) = (Array::new(), 0.0);
        Ok(())
    }
}

fn full(error: &JsValue) -> String {
    format!("there is not enough memory to hold it ({})", words(error))
}
