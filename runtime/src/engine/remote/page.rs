//! The page's side: an engine's handle whose worker is elsewhere.

use pleiad_models::{Config, Tokenizer};

use crate::{Error, Result, engine::Engine};

/// What stands behind an [`Engine`] whose work is done elsewhere.
pub struct Remote {}

impl Remote {
    /// An engine from the greeting of a [`super::Host`]. The page decodes text itself: the worker has no tokenizer.
    ///
    /// # Errors
    /// Where the greeting cannot be understood.
    pub fn new(greeting: &[u8], config: Config, tokenizer: Option<Tokenizer>) -> Result<(Engine, Self)> {
        let _ = (greeting, config, tokenizer);
        Err(Error::Invalid("not yet".into()))
    }

    /// The next message for the other side; `None`: nobody has a handle any more, and the other side may be ended.
    pub async fn next(&self) -> Option<Vec<u8>> {
        None
    }

    /// Takes a message of the other side.
    ///
    /// # Errors
    /// Where it cannot be understood.
    pub fn take(&self, message: &[u8]) -> Result<()> {
        let _ = message;
        Err(Error::Invalid("not yet".into()))
    }

    /// The other side is gone: every generation fails with this error, and later ones at once.
    pub fn lost(&self, error: &Error) {
        let _ = error;
    }
}
