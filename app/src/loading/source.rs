//! Where a model comes from.

use std::sync::{Arc, Mutex, PoisonError};

use super::Wake;

/// Where a model comes from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// The embedded model.
    Tiny,
    /// A .gguf file, or a Hugging Face directory.
    #[cfg(not(target_arch = "wasm32"))]
    Path(std::path::PathBuf),
    /// A file that a person opened in this page, by its number and name: gone when the page is closed.
    #[cfg(target_arch = "wasm32")]
    Opened(u32, String),
    /// A file that is kept for the page, by its name.
    #[cfg(target_arch = "wasm32")]
    Kept(String),
}

impl Source {
    /// What it is called in settings and on the command line: `tiny`, or a path.
    pub fn key(&self) -> String {
        match self {
            Self::Tiny => "tiny".into(),
            #[cfg(not(target_arch = "wasm32"))]
            Self::Path(path) => path.display().to_string(),
            #[cfg(target_arch = "wasm32")]
            Self::Opened(number, name) => format!("opened:{number}:{name}"),
            #[cfg(target_arch = "wasm32")]
            Self::Kept(name) => format!("kept:{name}"),
        }
    }

    /// The source of that key; `None`: it cannot be had (any more).
    pub fn of(key: &str) -> Option<Self> {
        if key == "tiny" {
            return Some(Self::Tiny);
        }
        #[cfg(not(target_arch = "wasm32"))]
        return Some(Self::Path(key.into()));
        #[cfg(target_arch = "wasm32")]
        return match key.split_once(':') {
            Some(("opened", rest)) => rest.split_once(':').and_then(|(n, name)| Some(Self::Opened(n.parse().ok()?, name.into()))),
            Some(("kept", name)) => Some(Self::Kept(name.into())),
            _ => None,
        };
    }

    /// What people call it: a file's or a folder's name.
    pub fn name(&self) -> String {
        match self {
            Self::Tiny => "Embedded model".into(),
            #[cfg(not(target_arch = "wasm32"))]
            Self::Path(path) => path.file_name().map_or_else(|| path.display().to_string(), |n| n.to_string_lossy().into_owned()),
            #[cfg(target_arch = "wasm32")]
            Self::Opened(_, name) | Self::Kept(name) => name.clone(),
        }
    }
}

/// Which of some sources are there. They are looked for beside the window: a drive may be slow to answer.
#[derive(Clone, Debug, Default)]
pub struct Found {
    asked: Vec<String>,
    missing: Arc<Mutex<Vec<String>>>,
}

impl Found {
    /// Looks for the sources of these keys; `wake` when it is known which are missing. Until then none is.
    pub fn look(keys: &[String], wake: Wake) -> Self {
        let found = Self { asked: keys.to_vec(), missing: Arc::default() };
        #[cfg(not(target_arch = "wasm32"))]
        {
            let (keys, missing) = (keys.to_vec(), Arc::clone(&found.missing));
            // Where it cannot be known, opening the file will tell.
            let _ = super::beside::spawn("pleiad-recent", move || async move {
                let gone = keys.into_iter().filter(|k| matches!(Source::of(k), Some(Source::Path(p)) if !p.exists()));
                let gone: Vec<String> = gone.collect();
                *missing.lock().unwrap_or_else(PoisonError::into_inner) = gone;
                wake();
            });
        }
        #[cfg(target_arch = "wasm32")]
        let _ = wake;
        found
    }

    /// Whether these are the keys that were looked for.
    pub fn is_of(&self, keys: &[String]) -> bool {
        self.asked == keys
    }

    /// Whether a source is known to be missing.
    pub fn is_missing(&self, key: &str) -> bool {
        self.missing.lock().unwrap_or_else(PoisonError::into_inner).iter().any(|k| k == key)
    }
}
