//! Errors of wgpu: those that arrive outside any error scope, and those of which a browser tells later.

use std::{
    pin::Pin,
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use crate::error::Error;

/// Errors that arrived outside any error scope.
#[derive(Debug, Default)]
pub(super) struct Faults {
    pub lost: Option<String>,
    pub error: Option<Error>,
}

#[cfg(not(target_arch = "wasm32"))]
type Caught = Pin<Box<dyn Future<Output = Option<wgpu::Error>> + Send>>;
#[cfg(target_arch = "wasm32")]
type Caught = Pin<Box<dyn Future<Output = Option<wgpu::Error>>>>;

/// What an error scope caught, which may not be known yet.
pub(super) struct Awaited {
    what: String,
    bytes: u64,
    caught: Caught,
}

impl Awaited {
    /// `what` and `bytes` name what was made in the scope.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn new(what: &str, bytes: u64, caught: impl Future<Output = Option<wgpu::Error>> + Send + 'static) -> Self {
        Self { what: what.to_owned(), bytes, caught: Box::pin(caught) }
    }

    /// `what` and `bytes` name what was made in the scope.
    #[cfg(target_arch = "wasm32")]
    pub fn new(what: &str, bytes: u64, caught: impl Future<Output = Option<wgpu::Error>> + 'static) -> Self {
        Self { what: what.to_owned(), bytes, caught: Box::pin(caught) }
    }

    /// The error, if one was caught and is known by now. Not to be asked again once it was ready.
    pub fn poll(&mut self) -> Poll<Option<Error>> {
        let caught = self.caught.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        caught.map(|error| error.map(|e| translate(&self.what, self.bytes, &e)))
    }

    /// Waits for the error, if there is one.
    pub async fn told(self) -> Option<Error> {
        self.caught.await.map(|e| translate(&self.what, self.bytes, &e))
    }
}

pub(super) fn lock<T>(what: &Mutex<T>) -> MutexGuard<'_, T> {
    what.lock().unwrap_or_else(PoisonError::into_inner)
}

/// wgpu's error as ours.
pub(super) fn translate(what: &str, bytes: u64, error: &wgpu::Error) -> Error {
    match error {
        wgpu::Error::OutOfMemory { .. } => Error::OutOfMemory { what: format!("{what} on the GPU"), bytes, limit: None },
        wgpu::Error::Validation { description, .. } | wgpu::Error::Internal { description, .. } => {
            Error::Gpu(format!("{what}: {}", one_line(description)))
        }
    }
}

/// wgpu's descriptions are trees over several lines.
fn one_line(text: &str) -> String {
    text.lines().map(str::trim).filter(|l| !l.is_empty()).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_told_by_the_name_of_what_was_made() {
        let error = || wgpu::Error::Validation {
            source: Box::new(std::io::Error::other("a kernel")),
            description: "first\n\n   second\n".into(),
        };
        let mut known = Awaited::new("a kernel", 0, std::future::ready(Some(error())));
        let Poll::Ready(Some(told)) = known.poll() else { panic!("it is known") };
        assert_eq!(told.to_string(), "GPU error: a kernel: first; second");
        // What is not known yet is told later.
        let (send, receive) = async_channel::bounded(1);
        let mut later = Awaited::new("slots", 3 << 20, async move { receive.recv().await.ok() });
        assert!(later.poll().is_pending() && later.poll().is_pending());
        let memory = wgpu::Error::OutOfMemory { source: Box::new(std::io::Error::other("memory")) };
        assert!(send.try_send(memory).is_ok());
        let told = pollster::block_on(later.told());
        assert!(matches!(told, Some(Error::OutOfMemory { bytes, .. }) if bytes == 3 << 20), "{told:?}");
    }
}
