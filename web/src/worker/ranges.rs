//! Files that are read in ranges, without waiting: opened, kept, fetched. Their bytes never lie in wasm memory as a whole.

use std::{cell::RefCell, io};

use js_sys::{ArrayBuffer, Uint8Array};
use pleiad_app::sizes::size;
use pleiad_models::Ranged;
use wasm_bindgen::{JsCast, JsValue};
use web_sys::{Blob, FileReaderSync, XmlHttpRequest, XmlHttpRequestResponseType};

use crate::{
    js::words,
    kept::{Folder, read_words},
    link, net,
};

/// Bytes that are read at once where few are asked for: headers and vectors are read in small pieces, one after the other.
const WINDOW: usize = 1 << 20;
/// So many bytes are read as they are asked for.
const LARGE: usize = WINDOW / 4;
/// Most bytes of one read, which the browser holds once more.
const PIECE: usize = 8 << 20;
/// A file of the site that is no larger is fetched at once.
const WHOLE: u64 = 64 << 20;

/// A file that is read in ranges.
pub struct RangedFile {
    here: Local<Here>,
    len: u64,
}

/// What stays on the thread of the worker.
struct Here {
    origin: Origin,
    window: RefCell<Window>,
}

/// Where bytes come from.
enum Origin {
    /// A file, or what was fetched.
    Blob(Blob, FileReaderSync),
    /// An address of the site, and the length that the file had at first.
    Site(String, u64),
}

/// What was read last.
#[derive(Default)]
struct Window {
    start: u64,
    bytes: Vec<u8>,
}

/// A value that has to stay on its thread, where there is but one.
struct Local<T>(T);

#[cfg(target_feature = "atomics")]
compile_error!("`Local` relies on there being no threads");

// SAFETY: without atomics, which is checked above, a wasm program has one thread: nothing can be sent to another.
unsafe impl<T> Send for Local<T> {}
// SAFETY: likewise.
unsafe impl<T> Sync for Local<T> {}

impl RangedFile {
    /// What the page's first message names. `told` is called with bytes fetched, and in all. In words what is wrong.
    pub async fn open(kind: &str, file: &JsValue, told: &mut dyn FnMut(u64, u64)) -> Result<Self, String> {
        let text = || file.as_string().ok_or_else(|| "the page named no file".to_owned());
        match kind {
            link::FILE => Self::blob(file.dyn_ref::<Blob>().ok_or("the page gave no file")?.clone()),
            link::KEPT => Self::blob(Folder::open().await?.file(&text()?).await?.into()),
            link::URL => Self::site(text()?, told).await,
            _ => Err(format!("the page asked for `{kind}`, which this worker does not know")),
        }
    }

    /// A file, or bytes that the browser holds. In words what is wrong.
    pub fn blob(blob: Blob) -> Result<Self, String> {
        let len = blob.size() as u64;
        let reader = FileReaderSync::new().map_err(|e| words(&e))?;
        Ok(Self::new(Origin::Blob(blob, reader), len))
    }

    /// A file of the site: fetched at once where it is small, otherwise read from the server in ranges.
    async fn site(address: String, told: &mut dyn FnMut(u64, u64)) -> Result<Self, String> {
        let answer = net::get(&address, 0, None, None).await?;
        let body = answer.body()?;
        if let Some(total) = answer.total.filter(|&t| t > WHOLE) {
            body.cancel();
            return match answer.ranged {
                true => Ok(Self::new(Origin::Site(address, total), total)),
                false => Err(format!(
                    "the site does not give parts of files, and this one, of {}, is too large to be held",
                    size(total)
                )),
            };
        }
        let mut pieces = net::Pieces::default();
        while let Some(piece) = body.next().await? {
            pieces.push(&piece)?;
            told(pieces.len(), answer.total.unwrap_or(0));
            if pieces.len() > WHOLE {
                body.cancel();
                return Err(format!("the site does not say how large the file is; it is larger than {}", size(WHOLE)));
            }
        }
        match answer.total {
            Some(total) if total != pieces.len() => Err("the connection to the site was lost; try again".to_owned()),
            _ => Self::blob(pieces.finish()?),
        }
    }

    fn new(origin: Origin, len: u64) -> Self {
        Self { here: Local(Here { origin, window: RefCell::default() }), len }
    }
}

impl Ranged for RangedFile {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if offset.checked_add(out.len() as u64).is_none_or(|end| end > self.len) {
            let what = format!("the file has {} bytes; {} at {offset} were asked for", self.len, out.len());
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, what));
        }
        let Here { origin, window } = &self.here.0;
        if out.len() >= LARGE {
            let mut at = offset;
            for piece in out.chunks_mut(PIECE) {
                origin.read(at, piece)?;
                at += piece.len() as u64;
            }
            return Ok(());
        }
        let mut window = window.borrow_mut();
        if let Some(bytes) = window.get(offset, out.len()) {
            out.copy_from_slice(bytes);
            return Ok(());
        }
        // A read that fails leaves nothing that could be taken for bytes of the file.
        let mut bytes = std::mem::take(&mut *window).bytes;
        bytes.resize((self.len - offset).min(WINDOW as u64) as usize, 0);
        origin.read(offset, &mut bytes)?;
        *window = Window { start: offset, bytes };
        window.get(offset, out.len()).map(|b| out.copy_from_slice(b)).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}

impl Window {
    /// These bytes of the file, where they were read last.
    fn get(&self, offset: u64, len: usize) -> Option<&[u8]> {
        let start = usize::try_from(offset.checked_sub(self.start)?).ok()?;
        self.bytes.get(start..start.checked_add(len)?)
    }
}

impl Origin {
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let end = offset + out.len() as u64;
        let buffer = match self {
            Self::Blob(blob, reader) => blob
                .slice_with_f64_and_f64(offset as f64, end as f64)
                .and_then(|part| reader.read_as_array_buffer(&part))
                .map_err(|e| io::Error::other(read_words(&e)))?,
            Self::Site(address, len) => range(address, offset, end, *len).map_err(io::Error::other)?,
        };
        let bytes = Uint8Array::new(&buffer);
        if bytes.length() as usize != out.len() {
            return Err(io::Error::other("the file was changed since it was opened; open it again"));
        }
        bytes.copy_to(out);
        Ok(())
    }
}

/// Bytes `start..end` of a file of the site that had `len` bytes, read while everything else waits. In words what is wrong.
fn range(address: &str, start: u64, end: u64, len: u64) -> Result<ArrayBuffer, String> {
    let lost = |_| "the connection to the site was lost; open the model again".to_owned();
    let request = XmlHttpRequest::new().map_err(lost)?;
    request.open_with_async("GET", address, false).map_err(lost)?;
    request.set_response_type(XmlHttpRequestResponseType::Arraybuffer);
    request.set_request_header("Range", &format!("bytes={start}-{}", end - 1)).map_err(lost)?;
    request.send().map_err(lost)?;
    let said = request.get_response_header("content-range").ok().flatten();
    let same = said.is_none_or(|r| r.rsplit_once('/').is_none_or(|(_, total)| total.parse().is_ok_and(|t: u64| t == len)));
    match request.status().map_err(lost)? {
        206 if same => request.response().map_err(lost)?.dyn_into().map_err(lost),
        206 | 200 | 404 | 410 | 412 | 416 => Err("the file on the site has changed; open the model again".to_owned()),
        status => Err(format!("the site has a problem; try again later ({status})")),
    }
}
