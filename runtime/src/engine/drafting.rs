//! How many tokens to draft.

use web_time::Instant;

/// Decides how many tokens are drafted for a step.
pub(crate) struct Drafting {
    tokens: Option<usize>,
}

/// The numbers of drafts that a step may make.
pub(crate) fn numbers(asked: Option<usize>) -> Vec<usize> {
    match asked {
        Some(0) | None => Vec::new(),
        Some(k) => vec![k],
    }
}

impl Drafting {
    pub fn new(module: bool, asked: Option<usize>) -> Self {
        Self { tokens: asked.filter(|&k| module && k > 0) }
    }

    /// Tokens to draft; `None`: there is no module, or it is off.
    pub fn tokens(&self) -> Option<usize> {
        self.tokens
    }

    pub fn observe(&mut self, _verify: usize, _draft: usize, _accepted: usize, _started: Instant) {}
}
