//! What can go wrong while a model runs.

/// A `Result` with this crate's [`enum@Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong while a model runs. Every variant says what to do or which limit was met.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// No adapter matches the request.
    #[error("no such device: {wanted}; available: {available}")]
    NoAdapter {
        /// What was asked for.
        wanted: String,
        /// What there is.
        available: String,
    },
    /// The device was lost (driver reset, unplugged, out of power).
    #[error("the GPU was lost: {0}")]
    DeviceLost(String),
    /// An allocation was refused.
    #[error("out of memory: {what} needs {} MiB{}", bytes >> 20, limit.map(|l| format!(", {} MiB are available", l >> 20)).unwrap_or_default())]
    OutOfMemory {
        /// What was to be allocated.
        what: String,
        /// Bytes asked for.
        bytes: u64,
        /// Bytes available, where known.
        limit: Option<u64>,
    },
    /// The memory budget holds too few experts for the model to run.
    #[error("a memory budget of {} MiB is too small: {what} needs at least {} MiB; raise --memory-budget, or lower --ctx-size", budget >> 20, least.div_ceil(1 << 20))]
    Budget {
        /// The model, for people.
        what: String,
        /// The budget in bytes.
        budget: u64,
        /// The least budget that would do, in bytes.
        least: u64,
    },
    /// A file of the experts' host bank, a profile or a trace could not be read or written.
    #[error("{file}: {what}")]
    File {
        /// Its path.
        file: String,
        /// What is wrong, and where in it.
        what: String,
    },
    /// A limit of the device or of the model was met.
    #[error("{what}: {needed} needed, the limit is {limit}")]
    Limit {
        /// What is limited.
        what: String,
        /// What was needed.
        needed: u64,
        /// The limit.
        limit: u64,
    },
    /// The driver or the graphics API reported an error.
    #[error("GPU error: {0}")]
    Gpu(String),
    /// A kernel could not be built.
    #[error("{0}")]
    Shader(String),
    /// The prompt does not fit the context.
    #[error(
        "the prompt has {prompt} tokens, the context holds {context}; shorten it or raise --ctx-size (the model allows {model})"
    )]
    ContextFull {
        /// Tokens of the prompt.
        prompt: usize,
        /// Tokens of the context in use.
        context: usize,
        /// Tokens that the model was made for.
        model: usize,
    },
    /// The request makes no sense (an empty prompt, an id beyond the vocabulary, ...).
    #[error("{0}")]
    Invalid(String),
    /// The engine has stopped after an earlier error.
    #[error("the engine has stopped: {0}")]
    Stopped(String),
    /// A checkpoint could not be read.
    #[error("{0}")]
    Model(std::sync::Arc<pleiad_models::Error>),
}

impl From<pleiad_models::Error> for Error {
    fn from(e: pleiad_models::Error) -> Self {
        Self::Model(std::sync::Arc::new(e))
    }
}

impl From<pleiad_shaders::ShaderError> for Error {
    fn from(e: pleiad_shaders::ShaderError) -> Self {
        Self::Shader(e.to_string())
    }
}
