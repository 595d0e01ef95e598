//! Pauses in which a worker's thread sees to other things.
//!
//! In a browser messages, a cancellation among them, wait until the program gives its thread back. Where every step waits for a
//! device that happens by itself; on the CPU nothing ever waits.

use std::{pin::Pin, sync::OnceLock, time::Duration};

use web_time::Instant;

/// Longest time between two pauses while tokens are decoded.
const LONGEST: Duration = Duration::from_millis(10);

/// Starts a pause: a future that is ready once the thread has seen to everything else.
pub type Breath = fn() -> Pin<Box<dyn Future<Output = ()>>>;

static BREATH: OnceLock<Breath> = OnceLock::new();

/// Sets what [`super::Worker::run`] awaits between turns, and between tokens when the last pause was some time ago. For platforms
/// without threads; the first call counts. It should take no more time than there is to do: a message to oneself rather than
/// a timer, which browsers let wait.
pub fn set_breath(breath: Breath) {
    // Later calls change nothing.
    let _ = BREATH.set(breath);
}

/// When the last pause was.
pub(super) struct Breathing {
    breath: Option<Breath>,
    last: Instant,
}

impl Breathing {
    /// As [`set_breath`] has it by now.
    pub fn new() -> Self {
        Self { breath: BREATH.get().copied(), last: Instant::now() }
    }

    /// A pause.
    pub async fn pause(&mut self) {
        let Some(breath) = self.breath else { return };
        breath().await;
        self.last = Instant::now();
    }

    /// A pause, if the last one was some time ago.
    pub async fn pause_if_due(&mut self) {
        if self.breath.is_some() && self.last.elapsed() >= LONGEST {
            self.pause().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use super::*;

    static PAUSES: AtomicUsize = AtomicUsize::new(0);

    fn count() -> Pin<Box<dyn Future<Output = ()>>> {
        Box::pin(async { _ = PAUSES.fetch_add(1, Relaxed) })
    }

    #[test]
    fn pauses_are_taken_at_turns_and_when_they_are_due() {
        let mut breathing = Breathing { breath: Some(count), last: Instant::now() };
        let mut after = |what: fn(&mut Breathing)| {
            what(&mut breathing);
            PAUSES.load(Relaxed)
        };
        assert_eq!(after(|b| pollster::block_on(b.pause())), 1);
        assert_eq!(after(|b| b.last = Instant::now()), 1);
        assert_eq!(after(|b| pollster::block_on(b.pause())), 2);
        assert_eq!(after(|_| std::thread::sleep(LONGEST)), 2);
        assert_eq!(after(|b| pollster::block_on(b.pause_if_due())), 3);
        // Where there is no need for pauses, none is taken.
        let mut none = Breathing { breath: None, last: Instant::now() };
        pollster::block_on(none.pause());
        pollster::block_on(none.pause_if_due());
        assert_eq!(PAUSES.load(Relaxed), 3);
    }
}
