//! The state of the program, its frame, and what actions do.

/// The program.
pub struct App {}
