//! Files that appear under their name only when they are whole.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, SystemTime},
};

/// How long nobody must have written to a leftover before it is removed.
const STALE: Duration = Duration::from_secs(3600);

/// A file under a name of its own, removed with the value unless it was renamed.
pub(in crate::experts) struct Temporary {
    path: PathBuf,
    file: fs::File,
    keep: bool,
}

impl Temporary {
    /// An empty file for reading and writing in `directory`, which is made where it does not exist. Its name, which no other
    /// process uses, begins with `stem`; old leftovers with such names are removed.
    pub fn new(directory: &Path, stem: &str) -> io::Result<Self> {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        fs::create_dir_all(directory)?;
        remove_stale(directory, stem);
        loop {
            // Processes in different containers may share both the directory and the id.
            let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64);
            let name = format!("{stem}.{}-{time:x}-{}.tmp", process::id(), COUNTER.fetch_add(1, Relaxed));
            let path = directory.join(name);
            match fs::OpenOptions::new().read(true).write(true).create_new(true).open(&path) {
                Ok(file) => return Ok(Self { path, file, keep: false }),
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// Its path until it is renamed.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The open file, before and after it is renamed.
    pub fn file(&mut self) -> &mut fs::File {
        &mut self.file
    }

    /// Gives it its name, in place of a file that has it.
    pub fn persist(&mut self, path: &Path) -> io::Result<()> {
        fs::rename(&self.path, path)?;
        self.keep = true;
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.keep {
            // If this fails, the next run removes it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Removes what runs left behind that did not come to their end. What cannot be removed stays.
fn remove_stale(directory: &Path, stem: &str) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let is_leftover =
            name.to_str().and_then(|n| n.strip_prefix(stem)).is_some_and(|n| n.starts_with('.') && n.ends_with(".tmp"));
        let age = || entry.metadata().and_then(|m| m.modified()).ok()?.elapsed().ok();
        if is_leftover && age().is_some_and(|age| age > STALE) {
            let _ = fs::remove_file(entry.path());
        }
    }
}
