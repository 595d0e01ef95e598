//! Work beside the window: where platforms differ, they differ here.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

/// Runs `work` on a thread of its own. The future is made where it runs, so that it may hold what cannot be sent.
///
/// # Errors
/// Where there is no thread for it; `work` is dropped then.
#[cfg(not(target_arch = "wasm32"))]
pub fn spawn<F: Future<Output = ()> + 'static>(name: &str, work: impl FnOnce() -> F + Send + 'static) -> std::io::Result<()> {
    std::thread::Builder::new().name(name.to_owned()).spawn(move || pollster::block_on(work())).map(drop)
}

/// Waits until what has been let go is free again. What was merely let go may be held by others, so there is an end to
/// waiting for it; a load that was cancelled ends by itself, and to load beside it would take its memory twice.
#[cfg(not(target_arch = "wasm32"))]
pub(super) fn await_freed(leaving: &[Leaving], cancelled: &AtomicBool) {
    use std::time::{Duration, Instant};
    let end = Instant::now() + Duration::from_secs(3);
    let waits = |l: &Leaving| !l.freed.is_set() && (l.cancelled || Instant::now() < end);
    while !cancelled.load(Ordering::Relaxed) && leaving.iter().any(waits) {
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[cfg(target_arch = "wasm32")]
pub use web::{Task, set_spawner, spawn};

/// In a browser everything runs on one thread, in turns.
#[cfg(target_arch = "wasm32")]
mod web {
    use std::{io, pin::Pin, sync::OnceLock};

    /// Work to be done in turns with the window.
    pub type Task = Pin<Box<dyn Future<Output = ()>>>;

    static SPAWNER: OnceLock<fn(Task)> = OnceLock::new();

    /// Says what runs tasks (as `wasm_bindgen_futures::spawn_local` does), once, when the program starts.
    pub fn set_spawner(spawner: fn(Task)) {
        // The first one stays.
        let _ = SPAWNER.set(spawner);
    }

    /// Runs `work` in turns with the window.
    ///
    /// # Errors
    /// Where nothing runs tasks ([`set_spawner`]); `work` is dropped then.
    pub fn spawn<F: Future<Output = ()> + 'static>(_: &str, work: impl FnOnce() -> F + 'static) -> io::Result<()> {
        let run = SPAWNER.get().ok_or_else(|| io::Error::other("nothing runs tasks here"))?;
        run(Box::pin(work()));
        Ok(())
    }
}

/// Nothing can wait in a browser; memory is free by the next turn.
#[cfg(target_arch = "wasm32")]
pub(super) fn await_freed(_: &[Leaving], _: &AtomicBool) {}

/// Whether the memory of a model, or of one that was being loaded, is free again.
#[derive(Debug, Default)]
pub(super) struct Freed(AtomicBool);

impl Freed {
    /// Whether it is.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Held by what holds the memory; setting [`Freed`] is the last thing it does, be it by a panic.
pub(super) struct Hold(pub Arc<Freed>);

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.0.store(true, Ordering::Release);
    }
}

/// Something that holds memory for a while yet.
#[derive(Clone, Debug)]
pub(super) struct Leaving {
    /// Set when it no longer does.
    pub freed: Arc<Freed>,
    /// It is a load that was cancelled. Nobody waits in a browser, so nobody asks there.
    #[cfg_attr(target_arch = "wasm32", allow(dead_code))]
    pub cancelled: bool,
}
