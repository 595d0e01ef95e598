//! Where files are kept.

use std::{
    collections::BTreeMap,
    fmt, io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

#[cfg(not(target_arch = "wasm32"))]
pub use folder::Folder;

#[cfg(not(target_arch = "wasm32"))]
mod folder;

/// Flat names to bytes. Calls do not block for long: a folder on a disk, memory, or (in a browser) memory whose changes are
/// carried to the origin's private file system in the background.
pub trait Storage: Send {
    /// The names of all files.
    fn list(&self) -> io::Result<Vec<String>>;
    /// The bytes of a file.
    fn read(&self, name: &str) -> io::Result<Vec<u8>>;
    /// Length of a file in bytes. [`Storage::append`] is often preceded by this: it should be cheap.
    fn size(&self, name: &str) -> io::Result<u64> {
        Ok(self.read(name)?.len() as u64)
    }
    /// Adds to the end of a file, which is made if it is not there. When it returns, the bytes outlive the program. Where it
    /// fails, a beginning of the bytes may have been added, but not all of them.
    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()>;
    /// Replaces a file: afterwards it is the old one or the new one, never half of it.
    fn write(&mut self, name: &str, bytes: &[u8]) -> io::Result<()>;
    /// Renames a file, over one of that name if need be.
    fn rename(&mut self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    fn remove(&mut self, name: &str) -> io::Result<()>;
    /// Where the files are, for people; empty: nowhere that outlives the program.
    fn place(&self) -> String;
}

impl fmt::Debug for dyn Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Storage({})", self.place())
    }
}

/// Whether a name can be a file's on every system: no separators, nothing hidden, nothing that some file system changes.
pub(super) fn check_name(name: &str) -> io::Result<()> {
    let odd = |c: char| c.is_control() || r#"<>:"/\|?*"#.contains(c);
    if name.is_empty() || name.len() > 200 || name.starts_with('.') || name.ends_with(['.', ' ']) || name.contains(odd) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("`{name}` cannot be the name of a file")));
    }
    Ok(())
}

/// Files in memory: for tests, and where there is no place to keep any. Clones share their files, as two programs that use the
/// same folder do.
#[derive(Clone, Default)]
pub struct Memory {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Clone, Default)]
struct Inner {
    files: BTreeMap<String, Vec<u8>>,
    room: Option<usize>,
    broken: Option<io::ErrorKind>,
    writes: u64,
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").field("files", &self.lock().files.len()).finish_non_exhaustive()
    }
}

impl Memory {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // What is behind the lock is whole after every call, so a panic elsewhere has broken nothing.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A copy that shares nothing: what is on the disk at this moment.
    #[must_use]
    pub fn copy(&self) -> Self {
        Self { inner: Arc::new(Mutex::new(self.lock().clone())) }
    }

    /// From now on there is room for so many bytes in all; what exceeds it fails after it was written in part, as on a disk
    /// that is full. `None`: no limit.
    pub fn set_room(&self, bytes: Option<usize>) {
        self.lock().room = bytes;
    }

    /// From now on every change fails in this way. `None`: none does.
    pub fn set_broken(&self, kind: Option<io::ErrorKind>) {
        self.lock().broken = kind;
    }

    /// Bytes of all files.
    pub fn used(&self) -> usize {
        self.lock().files.values().map(Vec::len).sum()
    }

    /// Changes that were asked for so far.
    pub fn writes(&self) -> u64 {
        self.lock().writes
    }

    /// What a change is up against.
    fn change(&self) -> io::Result<MutexGuard<'_, Inner>> {
        let mut inner = self.lock();
        inner.writes += 1;
        match inner.broken {
            Some(kind) => Err(kind.into()),
            None => Ok(inner),
        }
    }
}

impl Inner {
    /// Bytes that still fit, were this file not there.
    fn free(&self, without: &str) -> usize {
        let used: usize = self.files.iter().filter(|(name, _)| *name != without).map(|(_, bytes)| bytes.len()).sum();
        self.room.map_or(usize::MAX, |room| room.saturating_sub(used))
    }
}

fn missing() -> io::Error {
    io::ErrorKind::NotFound.into()
}

impl Storage for Memory {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.lock().files.keys().cloned().collect())
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        check_name(name)?;
        self.lock().files.get(name).cloned().ok_or_else(missing)
    }

    fn size(&self, name: &str) -> io::Result<u64> {
        check_name(name)?;
        self.lock().files.get(name).map(|bytes| bytes.len() as u64).ok_or_else(missing)
    }

    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        check_name(name)?;
        let mut inner = self.change()?;
        let free = if inner.room.is_some() { inner.free("") } else { usize::MAX };
        let fits = bytes.len().min(free);
        inner.files.entry(name.to_owned()).or_default().extend(bytes.iter().take(fits));
        if fits < bytes.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn write(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        check_name(name)?;
        let mut inner = self.change()?;
        // Both files are there until the new one is whole.
        if bytes.len() > inner.free("") {
            return Err(io::ErrorKind::StorageFull.into());
        }
        inner.files.insert(name.to_owned(), bytes.to_vec());
        Ok(())
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        check_name(from)?;
        check_name(to)?;
        let mut inner = self.change()?;
        let bytes = inner.files.remove(from).ok_or_else(missing)?;
        inner.files.insert(to.to_owned(), bytes);
        Ok(())
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        check_name(name)?;
        self.change()?.files.remove(name).map(|_| ()).ok_or_else(missing)
    }

    fn place(&self) -> String {
        String::new()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

    use super::*;

    /// What every storage does.
    pub(super) fn behaves(storage: &mut dyn Storage) {
        assert_eq!(storage.list().unwrap(), Vec::<String>::new());
        let missing = |e: io::Error| e.kind() == io::ErrorKind::NotFound;
        assert!(missing(storage.read("a").unwrap_err()) && missing(storage.size("a").unwrap_err()));
        assert!(missing(storage.rename("a", "b").unwrap_err()) && missing(storage.remove("a").unwrap_err()));
        storage.append("a", b"one\n").unwrap();
        storage.append("a", "zwölf\n".as_bytes()).unwrap();
        assert_eq!(storage.read("a").unwrap(), "one\nzwölf\n".as_bytes());
        assert_eq!(storage.size("a").unwrap(), 11);
        storage.write("b", b"old").unwrap();
        storage.write("b", b"new").unwrap();
        assert_eq!(storage.list().unwrap(), ["a", "b"]);
        storage.rename("a", "b").unwrap();
        assert_eq!(storage.read("b").unwrap().len(), 11);
        assert_eq!(storage.list().unwrap(), ["b"]);
        for bad in ["", "..", ".", "../b", "a/b", "a\\b", "/b", "c:b", "a\0", "a\n", ".hidden", "a.", "a ", &"x".repeat(201)] {
            let invalid = |r: io::Result<()>| r.unwrap_err().kind() == io::ErrorKind::InvalidInput;
            assert!(invalid(storage.append(bad, b"x")) && invalid(storage.write(bad, b"x")), "{bad:?}");
            assert!(invalid(storage.rename("b", bad)) && invalid(storage.rename(bad, "b")), "{bad:?}");
            assert!(invalid(storage.remove(bad)) && invalid(storage.read(bad).map(|_| ())), "{bad:?}");
            assert!(invalid(storage.size(bad).map(|_| ())), "{bad:?}");
        }
        assert_eq!(storage.list().unwrap(), ["b"]);
        storage.remove("b").unwrap();
        assert_eq!(storage.list().unwrap(), Vec::<String>::new());
    }

    #[test]
    fn memory_is_a_storage() {
        let mut memory = Memory::default();
        behaves(&mut memory);
        assert_eq!(memory.place(), "");
        let mut other = memory.clone();
        let copy = memory.copy();
        other.append("a", b"x").unwrap();
        assert_eq!((memory.read("a").unwrap(), copy.list().unwrap().len()), (b"x".to_vec(), 0));
    }

    #[test]
    fn memory_can_be_full_and_broken() {
        let mut memory = Memory::default();
        memory.write("a", b"12345").unwrap();
        memory.set_room(Some(8));
        assert_eq!(memory.append("b", b"12345").unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(memory.read("b").unwrap(), b"123");
        assert!(memory.write("a", b"1").is_err());
        assert_eq!(memory.read("a").unwrap(), b"12345");
        memory.remove("b").unwrap();
        memory.write("a", b"1").unwrap();
        assert_eq!(memory.used(), 1);
        memory.set_broken(Some(io::ErrorKind::PermissionDenied));
        assert!(memory.append("a", b"2").is_err() && memory.rename("a", "b").is_err() && memory.remove("a").is_err());
        assert_eq!(memory.read("a").unwrap(), b"1");
        memory.set_broken(None);
        memory.append("a", b"2").unwrap();
        assert_eq!((memory.read("a").unwrap(), memory.writes()), (b"12".to_vec(), 9));
    }
}
