//! Work shared by all cores, with its progress told on the caller's thread.

use std::{
    io,
    sync::{Mutex, PoisonError, mpsc},
    thread,
};

/// Runs `work` on every item, on as many threads as there are cores; each thread begins with a state from `start`. `done` is
/// called on this thread with every result, in no particular order. The first error ends the work and is returned. Without
/// threads (wasm) everything happens here.
pub(super) fn for_each<T: Send, S, R: Send>(
    items: impl Iterator<Item = T> + Send,
    start: impl Fn() -> io::Result<S> + Sync,
    work: impl Fn(&mut S, T) -> io::Result<R> + Sync,
    mut done: impl FnMut(R),
) -> io::Result<()> {
    if cfg!(target_arch = "wasm32") {
        let mut state = start()?;
        return items.into_iter().try_for_each(|item| work(&mut state, item).map(&mut done));
    }
    let threads = thread::available_parallelism().map_or(1, |n| n.get());
    let items = Mutex::new(items);
    let next = || items.lock().unwrap_or_else(PoisonError::into_inner).next();
    let (sender, results) = mpsc::channel();
    thread::scope(|scope| {
        for i in 0..threads {
            let (sender, next, start, work) = (sender.clone(), &next, &start, &work);
            let run = move || {
                let all = || -> io::Result<()> {
                    let mut state = start()?;
                    while let Some(item) = next() {
                        // Nobody listens once there was an error.
                        if sender.send(Ok(work(&mut state, item)?)).is_err() {
                            break;
                        }
                    }
                    Ok(())
                };
                if let Err(e) = all() {
                    let _ = sender.send(Err(e));
                }
            };
            match thread::Builder::new().name("pack".into()).spawn_scoped(scope, run) {
                Err(e) if i == 0 => return Err(e),
                // Fewer threads do as well.
                Err(_) => break,
                Ok(_) => {}
            }
        }
        drop(sender);
        // Consumed here: on an error the receiver goes, and the threads stop at their next item.
        results.into_iter().try_for_each(|result: io::Result<R>| result.map(&mut done))
    })
}
