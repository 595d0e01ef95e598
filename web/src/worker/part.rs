//! A kept file that is being written. What is written stays, however the writing ends.

use js_sys::{Reflect, Uint8Array};
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;
use web_sys::{FileSystemReadWriteOptions, FileSystemSyncAccessHandle};

use crate::{
    js::words,
    kept::{Folder, Label, is, is_locked, label_name},
    net,
};

/// So many bytes are certain to be on the disk whatever happens to the computer.
const FLUSH: u64 = 64 << 20;
/// Bytes that are read at once.
const PIECE: u64 = 8 << 20;

/// A file that is being written, from its end on.
pub struct Part {
    handle: FileSystemSyncAccessHandle,
    /// Bytes that are here.
    pub bytes: u64,
    flushed: u64,
}

/// Why a file cannot be written.
pub enum Refused {
    /// This browser cannot write files, here or at all.
    Never,
    /// In words.
    Now(String),
}

impl Part {
    /// Opens a file, made where there is none.
    pub async fn open(folder: &Folder, name: &str) -> Result<Self, Refused> {
        let now = |e: JsValue| match is_locked(&e) {
            true => Refused::Now(format!("{name} is being written in another tab")),
            false => Refused::Now(words(&e)),
        };
        let file = folder.handle(name, true).await.map_err(now)?;
        if !Reflect::has(&file, &"createSyncAccessHandle".into()).unwrap_or(false) {
            return Err(Refused::Never);
        }
        let handle = JsFuture::from(file.create_sync_access_handle()).await.map_err(now)?;
        let handle: FileSystemSyncAccessHandle = handle.unchecked_into();
        let bytes = handle.get_size().map_err(now)? as u64;
        Ok(Self { handle, bytes, flushed: bytes })
    }

    /// Writes a piece at the end; how much of it there was room for. In words what is wrong.
    pub fn push(&mut self, piece: &Uint8Array) -> Result<u32, String> {
        let options = FileSystemReadWriteOptions::new();
        options.set_at(self.bytes as f64);
        let written = match self.handle.write_with_js_u8_array_and_options(piece, &options) {
            Ok(written) => written as u32,
            Err(e) if is(&e, "QuotaExceededError") => {
                // Whatever was written before it was refused does not count.
                self.handle.truncate_with_f64(self.bytes as f64).map_err(|e| words(&e))?;
                0
            }
            Err(e) => return Err(words(&e)),
        };
        self.bytes += u64::from(written);
        if self.bytes - self.flushed >= FLUSH {
            self.flush()?;
        }
        Ok(written)
    }

    /// All that is here, for memory. In words what is wrong.
    pub fn pieces(&self) -> Result<net::Pieces, String> {
        let (mut pieces, options) = (net::Pieces::default(), FileSystemReadWriteOptions::new());
        while pieces.len() < self.bytes {
            options.set_at(pieces.len() as f64);
            let piece = Uint8Array::new_with_length((self.bytes - pieces.len()).min(PIECE) as u32);
            let read = self.handle.read_with_js_u8_array_and_options(&piece, &options).map_err(|e| words(&e))?;
            if read <= 0.0 {
                return Err("what was written cannot be read".to_owned());
            }
            pieces.push(&piece.subarray(0, read as u32))?;
        }
        Ok(pieces)
    }

    /// Reads the first bytes, no more than there are. In words what is wrong.
    pub fn head(&self, bytes: usize) -> Result<Vec<u8>, String> {
        let options = FileSystemReadWriteOptions::new();
        options.set_at(0.0);
        let mut head = vec![0; self.bytes.min(bytes as u64) as usize];
        let read = self.handle.read_with_u8_array_and_options(&mut head, &options).map_err(|e| words(&e))?;
        head.truncate(read as usize);
        Ok(head)
    }

    /// Forgets what is here. In words what is wrong.
    pub fn clear(&mut self) -> Result<(), String> {
        self.handle.truncate_with_f64(0.0).map_err(|e| words(&e))?;
        (self.bytes, self.flushed) = (0, 0);
        Ok(())
    }

    /// Makes certain that what is here is on the disk. In words what is wrong.
    pub fn flush(&mut self) -> Result<(), String> {
        self.flushed = self.bytes;
        self.handle.flush().map_err(|e| words(&e))
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.handle.close();
    }
}

/// There is no room for a piece, as only trying tells: browsers do not say how much there really is.
pub const NO_ROOM: &str = "there is no room for more: remove models that are not needed, or free some of the disk";

/// Writes a file's label. In words what is wrong.
pub async fn write_label(folder: &Folder, name: &str, label: &Label) -> Result<(), String> {
    let text = serde_json::to_vec(label).map_err(|e| e.to_string())?;
    let mut part = Part::open(folder, &label_name(name)).await.map_err(|refused| match refused {
        Refused::Never => "this browser does not keep files for pages".to_owned(),
        Refused::Now(why) => why,
    })?;
    part.clear()?;
    if (part.push(&Uint8Array::new_from_slice(&text))? as usize) < text.len() {
        return Err(NO_ROOM.to_owned());
    }
    part.flush()
}
