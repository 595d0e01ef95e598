//! Ctrl-C: stops an answer, not the program; a second time, or at any other moment, it ends the program.

use std::sync::atomic::{AtomicBool, Ordering};

static ANSWERING: AtomicBool = AtomicBool::new(false);
static ASKED: AtomicBool = AtomicBool::new(false);

/// The exit code of a program that was interrupted, as shells expect it.
pub const EXIT_CODE: u8 = 130;

/// What a program that was interrupted fails with.
#[derive(Debug)]
pub struct Interrupted;

impl std::fmt::Display for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("interrupted")
    }
}

impl std::error::Error for Interrupted {}

/// Installs the handler. A second installation changes nothing.
pub fn install() {
    // Where there is no handler, Ctrl-C ends the program at once.
    let _ = ctrlc::try_set_handler(|| {
        if !ANSWERING.load(Ordering::SeqCst) || ASKED.swap(true, Ordering::SeqCst) {
            std::process::exit(i32::from(EXIT_CODE));
        }
    });
}

/// While it lives, Ctrl-C is asked for by [`asked`].
pub struct Guard(());

/// An answer begins.
pub fn guard() -> Guard {
    ASKED.store(false, Ordering::SeqCst);
    ANSWERING.store(true, Ordering::SeqCst);
    Guard(())
}

impl Drop for Guard {
    fn drop(&mut self) {
        ANSWERING.store(false, Ordering::SeqCst);
    }
}

/// Whether Ctrl-C was pressed since the answer began.
pub fn asked() -> bool {
    ASKED.load(Ordering::SeqCst)
}
