//! The worker's side: a real engine, asked by messages.

use crate::{Error, Result, engine::Engine};

/// Answers the messages of a [`super::Remote`] with a real engine.
pub struct Host {
    _engine: Engine,
}

impl Host {
    /// `send` takes messages for the other side, in order. [`Host::greeting`] has to be sent by other means, before them.
    pub fn new(engine: Engine, send: impl FnMut(Vec<u8>) + 'static) -> Self {
        let _ = send;
        Self { _engine: engine }
    }

    /// What [`super::Remote::new`] needs to know of the engine.
    pub fn greeting(&self) -> Vec<u8> {
        Vec::new()
    }

    /// Takes a message of the other side. Futures that have to run until generations are over are given to `spawn`.
    ///
    /// # Errors
    /// Where it cannot be understood.
    pub fn take(&mut self, message: &[u8], spawn: &mut dyn FnMut(std::pin::Pin<Box<dyn Future<Output = ()>>>)) -> Result<()> {
        let _ = (message, spawn);
        Err(Error::Invalid("not yet".into()))
    }
}
