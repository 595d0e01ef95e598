//! The system's file dialogs, on threads of their own.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use rfd::AsyncFileDialog;

use crate::{
    loading::Wake,
    ui::files::{Files, Got, Want},
};

/// Larger files are no conversations and no records.
const MOST_BYTES: u64 = 1 << 30;

/// The system's file dialogs.
pub struct Dialogs {
    got: Arc<Mutex<Vec<Got>>>,
    wake: Wake,
}

impl Dialogs {
    /// `wake` asks for a frame when a person has chosen.
    pub fn new(wake: Wake) -> Self {
        Self { got: Arc::default(), wake }
    }

    fn push(&self, got: Got) {
        self.got.lock().unwrap_or_else(PoisonError::into_inner).push(got);
        (self.wake)();
    }

    /// Does something beside the window; what comes of it is told.
    fn beside(&self, work: impl FnOnce() -> Option<Got> + Send + 'static) {
        let (got, wake) = (Arc::clone(&self.got), Arc::clone(&self.wake));
        let begun = thread::Builder::new().name("pleiad-files".into()).spawn(move || {
            if let Some(done) = work() {
                got.lock().unwrap_or_else(PoisonError::into_inner).push(done);
                wake();
            }
        });
        if let Err(e) = begun {
            self.push(Got::Failed(format!("no thread for a file: {e}")));
        }
    }
}

impl Files for Dialogs {
    fn ask(&mut self, want: Want) {
        if !dialogs_exist() {
            return self.push(Got::Type(want));
        }
        let dialog = AsyncFileDialog::new().set_title(want.title());
        // macOS wants dialogs to be made on the main thread, which this is; waiting for one is done elsewhere.
        let chosen: std::pin::Pin<Box<dyn Future<Output = Option<rfd::FileHandle>> + Send>> = match &want {
            Want::Model { folder: true } => Box::pin(dialog.pick_folder()),
            Want::Model { folder: false } => Box::pin(dialog.add_filter("GGUF", &["gguf"]).add_filter("All", &["*"]).pick_file()),
            Want::Chats => Box::pin(dialog.add_filter("Conversations", &["json", "jsonl"]).pick_file()),
            Want::Trace => Box::pin(dialog.add_filter("Records", &["csv", "jsonl"]).pick_file()),
            Want::Save { name, .. } => Box::pin(dialog.set_file_name(name).save_file()),
        };
        self.beside(move || Some(done(want, pollster::block_on(chosen)?.path())));
    }

    fn typed(&mut self, want: Want, path: &str) {
        let path = typed_path(path);
        self.beside(move || {
            // A dialog asks before it replaces a file; a line does not.
            if matches!(want, Want::Save { .. }) && path.exists() {
                return Some(Got::Failed(format!("{} is there already", path.display())));
            }
            Some(done(want, &path))
        });
    }

    fn poll(&mut self) -> Vec<Got> {
        std::mem::take(&mut *self.got.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What a person means by a path: `~` is their own folder, quotes are not part of it.
fn typed_path(text: &str) -> PathBuf {
    let text = text.trim().trim_matches(['"', '\'']);
    match dirs::home_dir() {
        // Where the program was started from is nothing that people see: paths begin at their own folder.
        Some(home) => home.join(text.strip_prefix("~/").unwrap_or(text)),
        None => PathBuf::from(text),
    }
}

/// Writes a file: the old one stays until the new one is whole.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    fs::write(&part, bytes).and_then(|()| fs::rename(&part, path)).inspect_err(|_| drop(fs::remove_file(&part)))
}

/// Why a file cannot be had, in words; those of the system where there are no better ones.
fn words(e: &io::Error) -> String {
    use io::ErrorKind::*;
    match e.kind() {
        NotFound => "there is no such file or directory".into(),
        PermissionDenied => "this is not permitted".into(),
        IsADirectory => "it is a directory".into(),
        NotADirectory => "a part of the path is no directory".into(),
        StorageFull => "the disk is full".into(),
        ReadOnlyFilesystem => "the disk is read-only".into(),
        _ => {
            let text = e.to_string();
            // The system's number says nothing to people.
            text.split(" (os error").next().unwrap_or(&text).to_owned()
        }
    }
}

/// Does what the file was wanted for.
fn done(want: Want, path: &Path) -> Got {
    let place = path.display().to_string();
    match want {
        Want::Model { .. } => Got::Model(fs::canonicalize(path).map_or(place, |p| p.display().to_string())),
        Want::Save { bytes, .. } => match write(path, &bytes) {
            Ok(()) => Got::Saved(place),
            Err(e) => Got::Failed(format!("{place} could not be written: {}", words(&e))),
        },
        want => match fs::metadata(path).map(|m| m.len()) {
            Ok(size) if size > MOST_BYTES => Got::Failed(format!("{place}: {size} bytes are more than such a file can have")),
            _ => match fs::read(path) {
                Ok(bytes) => Got::Read(want, path.file_name().map_or(place, |n| n.to_string_lossy().into_owned()), bytes),
                Err(e) => Got::Failed(format!("{place} cannot be opened: {}", words(&e))),
            },
        },
    }
}

/// Whether this system has file dialogs: on Linux and the like they come from the desktop's portal, or from zenity.
fn dialogs_exist() -> bool {
    if cfg!(any(target_os = "windows", target_os = "macos")) {
        return true;
    }
    let zenity = || std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|d| d.join("zenity").is_file()));
    let portal = || {
        let data = std::env::var_os("XDG_DATA_DIRS").unwrap_or_else(|| "/usr/local/share:/usr/share".into());
        std::env::var_os("DBUS_SESSION_BUS_ADDRESS").is_some()
            && std::env::split_paths(&data).any(|d| d.join("xdg-desktop-portal/portals").is_dir())
    };
    portal() || zenity()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

    use super::*;

    #[test]
    fn files_are_written_and_read_and_told_about() {
        let path = std::env::temp_dir().join(format!("pleiad-dialogs-{}.json", std::process::id()));
        let save = Want::Save { name: "x.json".into(), bytes: b"[]".to_vec() };
        assert_eq!(done(save, &path), Got::Saved(path.display().to_string()));
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        assert_eq!(done(Want::Chats, &path), Got::Read(Want::Chats, name, b"[]".to_vec()));
        fs::remove_file(&path).unwrap();
        let gone = done(Want::Chats, &path);
        let told = format!("{} cannot be opened: there is no such file or directory", path.display());
        assert_eq!(gone, Got::Failed(told));
        let below = done(Want::Save { name: "x".into(), bytes: Vec::new() }, &path.join("y"));
        assert!(matches!(below, Got::Failed(words) if words.ends_with("no such file or directory")));
        assert!(matches!(done(Want::Trace, &std::env::temp_dir()), Got::Failed(words) if words.ends_with("it is a directory")));
        assert_eq!(words(&io::Error::from_raw_os_error(5)).find("os error"), None);
        assert_eq!(typed_path(" \"/a b\" "), PathBuf::from("/a b"));
        assert!(typed_path("~/x").ends_with("x") && !typed_path("~/x").starts_with("~"));
    }
}
