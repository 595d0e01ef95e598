//! Helpers of this crate's tests.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::{
    io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use crate::Ranged;

/// A file in memory that counts how it is read, and fails when it is told to.
pub(crate) struct Counted {
    bytes: Vec<u8>,
    reads: AtomicUsize,
    largest: AtomicUsize,
    total: AtomicUsize,
    /// Reads that still succeed.
    left: AtomicUsize,
}

impl Counted {
    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        let zero = || AtomicUsize::new(0);
        Self { bytes, reads: zero(), largest: zero(), total: zero(), left: AtomicUsize::new(usize::MAX) }
    }

    pub(crate) fn reads(&self) -> usize {
        self.reads.load(Relaxed)
    }

    /// Bytes of the largest read.
    pub(crate) fn largest(&self) -> usize {
        self.largest.load(Relaxed)
    }

    /// Bytes of all reads.
    pub(crate) fn total(&self) -> usize {
        self.total.load(Relaxed)
    }

    /// The reads after the next `n` fail.
    pub(crate) fn fail_after(&self, n: usize) {
        self.left.store(n, Relaxed);
    }
}

impl Ranged for Counted {
    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if self.left.fetch_update(Relaxed, Relaxed, |n| n.checked_sub(1)).is_err() {
            return Err(io::Error::other("the file has gone"));
        }
        self.reads.fetch_add(1, Relaxed);
        self.total.fetch_add(out.len(), Relaxed);
        self.largest.fetch_max(out.len(), Relaxed);
        let from = usize::try_from(offset).ok().and_then(|at| self.bytes.get(at..at.checked_add(out.len())?));
        out.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

/// The test data at the workspace's root.
pub(crate) fn data(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data").join(path)
}

/// A directory of its own, removed with the value.
pub(crate) struct TempDir(PathBuf);

impl TempDir {
    pub(crate) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("pleiad-models-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// With copies of the files of a directory.
    pub(crate) fn copy_of(directory: &Path, name: &str) -> Self {
        let dir = Self::new(name);
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.file_name().unwrap() != "golden.safetensors" {
                std::fs::write(dir.path().join(path.file_name().unwrap()), std::fs::read(&path).unwrap()).unwrap();
            }
        }
        dir
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Replaces the file `config.json` by an edited one.
    pub(crate) fn edit_json(&self, file: &str, edit: impl FnOnce(&mut serde_json::Map<String, serde_json::Value>)) {
        let path = self.0.join(file);
        let mut json: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        edit(json.as_object_mut().unwrap());
        std::fs::write(path, json.to_string()).unwrap();
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        // Best effort: the system's temporary directory is cleaned anyway.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
