//! What can be wrong with a checkpoint.

use std::path::PathBuf;

/// A `Result` with this crate's [`enum@Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can be wrong with a model on disk. Every variant names the file, key or tensor concerned.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or directory concerned.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A part of a file that is read in ranges could not be read.
    #[error("{file}: tensor `{name}` cannot be read: {source}")]
    Read {
        /// The file.
        file: String,
        /// The tensor that was wanted.
        name: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A file is not what its name or its header says.
    #[error("{file}: {what}")]
    Malformed {
        /// The file, or a description of the bytes when there is no file.
        file: String,
        /// What is wrong, in one line.
        what: String,
    },
    /// Metadata lacks a key, or holds a value of the wrong kind or out of range.
    #[error("{file}: `{key}`: {what}")]
    Metadata {
        /// The file.
        file: String,
        /// The JSON or GGUF key.
        key: String,
        /// What is wrong with its value.
        what: String,
    },
    /// A tensor that the configuration requires is not there.
    #[error("{file}: tensor `{name}` is missing")]
    MissingTensor {
        /// The checkpoint.
        file: String,
        /// The tensor's name in the file.
        name: String,
    },
    /// A tensor's shape is not what the configuration requires.
    #[error("{file}: tensor `{name}` has shape {found:?}, the configuration requires {expected:?}")]
    Shape {
        /// The checkpoint.
        file: String,
        /// The tensor's name.
        name: String,
        /// The shape in the file, outermost dimension first.
        found: Vec<usize>,
        /// The required shape, outermost dimension first.
        expected: Vec<usize>,
    },
    /// A tensor holds what no weight can be (NaN, infinity).
    #[error("{file}: tensor `{name}`: {what}")]
    BadWeights {
        /// The checkpoint.
        file: String,
        /// The tensor's name.
        name: String,
        /// What was found.
        what: String,
    },
    /// Pleiad does not know this architecture, format, pre-tokeniser or variant.
    #[error("{file}: {kind} `{name}` is not supported{hint}")]
    Unsupported {
        /// The file.
        file: String,
        /// What kind of thing: "architecture", "tensor format", "pre-tokeniser", ...
        kind: &'static str,
        /// Its name in the file.
        name: String,
        /// Empty, or "; ..." with what would help.
        hint: String,
    },
    /// The tokenizer refused.
    #[error("tokenizer: {0}")]
    Tokenizer(String),
    /// The chat template could not be compiled or rendered.
    #[error("chat template: {0}")]
    Template(String),
}

impl Error {
    /// An [`Error::Malformed`].
    pub fn malformed(file: impl Into<String>, what: impl Into<String>) -> Self {
        Self::Malformed { file: file.into(), what: what.into() }
    }

    /// An [`Error::Metadata`].
    pub fn metadata(file: impl Into<String>, key: impl Into<String>, what: impl Into<String>) -> Self {
        Self::Metadata { file: file.into(), key: key.into(), what: what.into() }
    }

    /// An [`Error::Io`].
    pub fn io(path: impl Into<PathBuf>, source: std::io::Error) -> Self {
        Self::Io { path: path.into(), source }
    }
}
