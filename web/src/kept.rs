//! The folder of models in the browser's private file system: `NAME.gguf`, and beside each `NAME.gguf.json`, its [`Label`].

use js_sys::{AsyncIterator, Reflect};
use pleiad_app::loading::shelf::Room;
use serde::{Deserialize, Serialize};
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;
use web_sys::{
    Blob, File, FileSystemDirectoryHandle, FileSystemFileHandle, FileSystemGetDirectoryOptions, FileSystemGetFileOptions,
    StorageEstimate,
};

use crate::{js::words, scope};

/// What the folder is called.
const FOLDER: &str = "models";
/// How a model's name ends.
pub const MODEL: &str = ".gguf";
/// What the name of a label has more.
const LABEL: &str = ".json";
/// Most bytes of a label.
const LABEL_BYTES: f64 = 65536.0;

/// What is known of a kept file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Label {
    /// Where it comes from; empty: it was copied from a file.
    pub url: String,
    /// Bytes of the whole file.
    pub total: Option<u64>,
    /// What the server says to tell versions of a file apart: its entity tag, or when it was changed.
    pub version: Option<String>,
    /// All of it is here, and it was looked at.
    pub complete: bool,
}

/// The folder of models.
#[derive(Clone)]
pub struct Folder(FileSystemDirectoryHandle);

impl Folder {
    /// The folder, made where there is none. In words why files cannot be kept.
    pub async fn open() -> Result<Self, String> {
        let none = || "this browser does not keep files for pages".to_owned();
        let storage = scope::storage().ok_or_else(none)?;
        if !Reflect::has(&storage, &"getDirectory".into()).unwrap_or(false) {
            return Err(none());
        }
        let root = JsFuture::from(storage.get_directory()).await.map_err(|e| words(&e))?;
        let options = FileSystemGetDirectoryOptions::new();
        options.set_create(true);
        let root: FileSystemDirectoryHandle = root.unchecked_into();
        let folder = root.get_directory_handle_with_options(FOLDER, &options);
        Ok(Self(JsFuture::from(folder).await.map_err(|e| words(&e))?.unchecked_into()))
    }

    /// The handle of a file. `Err`: what the browser says.
    pub async fn handle(&self, name: &str, create: bool) -> Result<FileSystemFileHandle, JsValue> {
        let options = FileSystemGetFileOptions::new();
        options.set_create(create);
        JsFuture::from(self.0.get_file_handle_with_options(name, &options)).await.map(JsCast::unchecked_into)
    }

    /// A file as it is now. In words what is wrong.
    pub async fn file(&self, name: &str) -> Result<File, String> {
        let handle = self.handle(name, false).await.map_err(|e| match is(&e, "NotFoundError") {
            true => format!("{name} is no longer kept here"),
            false => words(&e),
        })?;
        JsFuture::from(handle.get_file()).await.map(JsCast::unchecked_into).map_err(|e| words(&e))
    }

    /// Names of models, and parts of models, sorted.
    pub async fn names(&self) -> Vec<String> {
        let all: AsyncIterator = self.0.keys();
        let mut names = Vec::new();
        // What cannot be listed is not there.
        while let Ok(promise) = all.next() {
            let Ok(step) = JsFuture::from(promise).await else { break };
            let field = |name: &str| Reflect::get(&step, &name.into()).unwrap_or_default();
            if field("done").is_truthy() {
                break;
            }
            names.extend(field("value").as_string().filter(|n| n.ends_with(MODEL)));
        }
        names.sort();
        names
    }

    /// What is known of a model; nothing, where it has no label that can be read.
    pub async fn label(&self, name: &str) -> Label {
        let Ok(file) = self.file(&label_name(name)).await else { return Label::default() };
        if file.size() > LABEL_BYTES {
            return Label::default();
        }
        let text = JsFuture::from(file.text()).await.ok().and_then(|t| t.as_string()).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// Removes a model and its label. In words what is wrong; that it is not there is not.
    pub async fn remove(&self, name: &str) -> Result<(), String> {
        for name in [name, &label_name(name)] {
            match JsFuture::from(self.0.remove_entry(name)).await {
                Ok(_) => {}
                Err(e) if is(&e, "NotFoundError") => {}
                Err(e) if is_locked(&e) => return Err(format!("{name} is being written, here or in another tab")),
                Err(e) => return Err(words(&e)),
            }
        }
        Ok(())
    }
}

/// What the label of a model is called.
pub fn label_name(name: &str) -> String {
    format!("{name}{LABEL}")
}

/// The first bytes of a file. In words what is wrong.
pub async fn head(file: &Blob, bytes: usize) -> Result<Vec<u8>, String> {
    let part = file.slice_with_f64_and_f64(0.0, file.size().min(bytes as f64)).map_err(|e| read_words(&e))?;
    let buffer = JsFuture::from(part.array_buffer()).await.map_err(|e| read_words(&e))?;
    Ok(js_sys::Uint8Array::new(&buffer).to_vec())
}

/// Why a file cannot be read, in words.
pub fn read_words(error: &JsValue) -> String {
    if is(error, "NotReadableError") || is(error, "NotFoundError") {
        return "the file was changed or moved since it was opened; open it again".to_owned();
    }
    words(error)
}

/// Whether this is the browser's error of that name.
pub fn is(error: &JsValue, name: &str) -> bool {
    Reflect::get(error, &"name".into()).is_ok_and(|n| n.as_string().as_deref() == Some(name))
}

/// Whether a file cannot be changed because someone writes to it.
pub fn is_locked(error: &JsValue) -> bool {
    is(error, "NoModificationAllowedError")
}

/// What room there is; `None`: the browser does not say.
pub async fn room() -> Option<Room> {
    let storage = scope::storage()?;
    let estimate: StorageEstimate = JsFuture::from(storage.estimate().ok()?).await.ok()?.unchecked_into();
    let lasting = match storage.persisted() {
        Ok(promise) => JsFuture::from(promise).await.is_ok_and(|p| p.is_truthy()),
        Err(_) => false,
    };
    Some(Room { used: estimate.get_usage()? as u64, quota: estimate.get_quota()? as u64, lasting })
}

/// Asks the browser not to clear what is kept by itself.
pub async fn ask_to_last() {
    if let Some(Ok(promise)) = scope::storage().map(|s| s.persist()) {
        // Whether it promised shows in `room`.
        let _ = JsFuture::from(promise).await;
    }
}
