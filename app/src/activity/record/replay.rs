//! A record that happens again.

use std::sync::Arc;

use super::Record;
use crate::activity::{Activity, Shape};

/// Tokens of one frame, so that a frame stays short whatever the speed.
const STEP: usize = 256;

/// Longest wait between two tokens, in seconds of the record: pauses between answers are cut short.
const WAIT: f64 = 2.0;

/// A record that happens again, in an [`Activity`] of its own, which views show as if it were live.
#[derive(Debug)]
pub struct Replay {
    record: Arc<Record>,
    shape: Arc<Shape>,
    activity: Activity,
    keep: usize,
    /// Tokens that have happened.
    done: usize,
    /// Seconds of the record.
    time: f64,
    /// When the last frame was.
    last: Option<f64>,
    speed: f32,
    playing: bool,
}

impl Replay {
    /// At its beginning, not playing. `keep`: tokens that are kept in full.
    pub fn new(record: Arc<Record>, shape: Arc<Shape>, keep: usize) -> Self {
        let activity = Activity::new(Arc::clone(&shape), keep);
        let mut replay = Self { record, shape, activity, keep, done: 0, time: 0.0, last: None, speed: 1.0, playing: false };
        replay.rewind();
        replay
    }

    /// What has happened so far.
    pub fn activity(&self) -> &Activity {
        &self.activity
    }

    /// As [`Self::activity`], for what needs to change it: half-life, measures.
    pub fn activity_mut(&mut self) -> &mut Activity {
        &mut self.activity
    }

    /// What happens.
    pub fn record(&self) -> &Arc<Record> {
        &self.record
    }

    /// Tokens that have happened.
    pub fn done(&self) -> usize {
        self.done
    }

    /// Tokens in all.
    pub fn len(&self) -> usize {
        self.record.tokens().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.record.tokens().is_empty()
    }

    /// Whether all have happened.
    pub fn over(&self) -> bool {
        self.done >= self.len()
    }

    /// Whether it plays.
    pub fn playing(&self) -> bool {
        self.playing
    }

    /// Plays, or pauses. Played at its end, it begins anew.
    pub fn set_playing(&mut self, playing: bool) {
        if playing && self.over() {
            self.seek(0);
        }
        self.playing = playing;
        self.last = None;
    }

    /// Seconds of the record that pass in a second.
    pub fn speed(&self) -> f32 {
        self.speed
    }

    /// Sets the speed, from a hundredth to a thousand.
    pub fn set_speed(&mut self, speed: f32) {
        if speed.is_finite() {
            self.speed = speed.clamp(0.01, 1000.0);
        }
    }

    /// Time goes on; `now` in seconds of any clock. Returns whether anything happened.
    pub fn tick(&mut self, now: f64) -> bool {
        if !self.playing {
            return false;
        }
        let passed = (now - self.last.replace(now).unwrap_or(now)).clamp(0.0, WAIT);
        self.time += passed * f64::from(self.speed);
        let before = self.done;
        while let Some(next) = self.record.tokens().get(self.done) {
            if self.done - before >= STEP {
                // Slower than asked for, but nothing is left out.
                self.time = self.time.min(next.time);
                break;
            }
            self.time = self.time.max(next.time - WAIT);
            if next.time > self.time {
                break;
            }
            self.activity.happened(next, next.time);
            self.done += 1;
        }
        self.playing = !self.over();
        self.done != before
    }

    /// Goes to where `tokens` tokens have happened. Backwards, everything before happens anew.
    pub fn seek(&mut self, tokens: usize) {
        if tokens < self.done {
            let half_life = self.activity.sums().half_life();
            let revision = self.activity.revision;
            self.activity = Activity::new(Arc::clone(&self.shape), self.keep);
            self.activity.set_half_life(half_life);
            // Nothing that was shown before is taken for what is shown now.
            self.activity.revision = revision + 1;
            self.rewind();
        }
        let record = Arc::clone(&self.record);
        let end = tokens.min(record.tokens().len());
        for token in record.tokens().get(self.done..end).unwrap_or_default() {
            self.activity.happened(token, token.time);
            self.time = token.time;
        }
        self.done = self.done.max(end);
        self.last = None;
    }

    fn rewind(&mut self) {
        self.done = 0;
        self.time = self.record.tokens().first().map_or(0.0, |t| t.time);
    }
}
