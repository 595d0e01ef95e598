//! Where a model comes from.

/// Where a model comes from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// The embedded model.
    Tiny,
    /// A .gguf file, or a Hugging Face directory.
    #[cfg(not(target_arch = "wasm32"))]
    Path(std::path::PathBuf),
}

impl Source {
    /// What it is called in settings and on the command line: `tiny`, or a path.
    pub fn key(&self) -> String {
        match self {
            Self::Tiny => "tiny".into(),
            #[cfg(not(target_arch = "wasm32"))]
            Self::Path(path) => path.display().to_string(),
        }
    }

    /// The source of that key; `None`: there are no files here.
    pub fn of(key: &str) -> Option<Self> {
        if key == "tiny" {
            return Some(Self::Tiny);
        }
        #[cfg(not(target_arch = "wasm32"))]
        return Some(Self::Path(key.into()));
        #[cfg(target_arch = "wasm32")]
        None
    }

    /// What people call it: a file's or a folder's name.
    pub fn name(&self) -> String {
        match self {
            Self::Tiny => "Embedded model".into(),
            #[cfg(not(target_arch = "wasm32"))]
            Self::Path(path) => path.file_name().map_or_else(|| path.display().to_string(), |n| n.to_string_lossy().into_owned()),
        }
    }
}
