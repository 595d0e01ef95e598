//! How far an answer is.

use std::collections::VecDeque;

use crate::chats::MessageId;

/// What an answer is at.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Stage {
    /// It waits for another answer, or for the model.
    Waiting,
    /// The prompt is being read.
    Reading {
        /// Tokens done, those found in the cache included.
        done: usize,
        /// Tokens of the prompt.
        total: usize,
        /// Tokens found in the cache.
        reused: usize,
    },
    /// The model reasons.
    Thinking {
        /// Seconds so far.
        seconds: f64,
    },
    /// The model writes.
    Writing,
    /// It was asked to stop, and will with the next token.
    Stopping,
}

/// How far an answer is.
#[derive(Clone, Debug, PartialEq)]
pub struct Live {
    /// Which.
    pub message: MessageId,
    /// What it is at.
    pub stage: Stage,
    /// Tokens so far.
    pub tokens: usize,
    /// Tokens per second, over the last few seconds; `None`: too few yet.
    pub speed: Option<f64>,
    /// Seconds from the question to the first token; `None`: there is none yet.
    pub first_token: Option<f64>,
    /// Tokens of the context in use: prompt and answer.
    pub context: usize,
}

/// Tokens per second over the last few seconds.
#[derive(Clone, Debug, Default)]
pub struct Speed {
    /// When the last tokens came, in seconds, oldest first.
    times: VecDeque<f64>,
}

impl Speed {
    /// Seconds that count.
    pub const WINDOW: f64 = 3.0;
    /// Tokens from which on there is a speed.
    pub const LEAST: usize = 4;

    /// A token came, in seconds of a clock that does not go back.
    pub fn token(&mut self, seconds: f64) {
        self.times.push_back(seconds);
        // The least stay however long ago they were: a slow model has a speed, too.
        while self.times.len() > Self::LEAST && self.times.front().is_some_and(|t| seconds - t > Self::WINDOW) {
            self.times.pop_front();
        }
    }

    /// Tokens per second: intervals over their time. `None`: too few tokens yet.
    pub fn rate(&self) -> Option<f64> {
        let (first, last) = (self.times.front()?, self.times.back()?);
        (self.times.len() >= Self::LEAST && last > first).then(|| (self.times.len() - 1) as f64 / (last - first))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

    use super::*;

    #[test]
    fn speed_is_that_of_the_last_seconds() {
        let mut speed = Speed::default();
        for i in 0..Speed::LEAST - 1 {
            speed.token(i as f64 * 0.1);
            assert_eq!(speed.rate(), None);
        }
        speed.token(0.3);
        assert!((speed.rate().unwrap() - 10.0).abs() < 1e-9);
        // Twice as fast from now on: after the window, nothing of the slower time is left.
        for i in 1..=80 {
            speed.token(0.3 + f64::from(i) * 0.05);
        }
        assert!((speed.rate().unwrap() - 20.0).abs() < 1e-9, "{speed:?}");
        assert!(speed.times.len() <= 61);
    }

    #[test]
    fn a_slow_model_has_a_speed() {
        let mut speed = Speed::default();
        (0..20).for_each(|i| speed.token(f64::from(i) * 5.0));
        assert!((speed.rate().unwrap() - 0.2).abs() < 1e-9);
    }
}
