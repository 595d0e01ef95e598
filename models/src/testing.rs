//! Helpers of this crate's tests.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::path::{Path, PathBuf};

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
