//! Hit rate, bytes moved and tokens per second over time.

use std::ops::Range;

use super::Phase;

/// What happened in a stretch of time: one token, or all that came within a bucket.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// When work on it began, in seconds of the caller's clock.
    pub start: f64,
    /// When its last token was computed.
    pub end: f64,
    /// Seconds of work: time without any is left out.
    pub seconds: f64,
    /// Read or written.
    pub phase: Phase,
    /// Tokens computed.
    pub tokens: usize,
    /// Numbers of these tokens. Where several generations take turns, samples may overlap.
    pub range: Range<usize>,
    /// Experts looked up on a device.
    pub lookups: u64,
    /// Of these, the ones that were resident.
    pub hits: u64,
    /// Bytes moved.
    pub bytes: u64,
    /// Different experts a mixture layer used over the last [`super::Sums::WINDOW`] tokens, mean over layers.
    pub working_set: f32,
    /// When it was opened.
    opened: f64,
}

impl Sample {
    /// Hits a lookup; `None`: nothing was looked up.
    pub fn hit_rate(&self) -> Option<f64> {
        (self.lookups > 0).then(|| self.hits as f64 / self.lookups as f64)
    }

    /// Tokens a second; `None`: no time passed that is known.
    pub fn tokens_per_second(&self) -> Option<f64> {
        (self.seconds > 0.0 && self.tokens > 0).then(|| self.tokens as f64 / self.seconds)
    }

    /// Bytes moved for a token; `None`: there is none.
    pub fn bytes_per_token(&self) -> Option<f64> {
        (self.tokens > 0).then(|| self.bytes as f64 / self.tokens as f64)
    }

    fn join(&mut self, next: &Self) {
        let (mine, theirs) = (self.tokens.max(1) as f32, next.tokens.max(1) as f32);
        self.working_set = (self.working_set * mine + next.working_set * theirs) / (mine + theirs);
        if next.tokens > self.tokens {
            self.phase = next.phase;
        }
        self.start = self.start.min(next.start);
        self.end = self.end.max(next.end);
        self.seconds += next.seconds;
        self.tokens += next.tokens;
        self.range = join(&self.range, &next.range);
        self.lookups += next.lookups;
        self.hits += next.hits;
        self.bytes = self.bytes.saturating_add(next.bytes);
    }
}

/// The smallest range that holds both.
fn join(a: &Range<usize>, b: &Range<usize>) -> Range<usize> {
    match (a.is_empty(), b.is_empty()) {
        (true, _) => b.clone(),
        (_, true) => a.clone(),
        _ => a.start.min(b.start)..a.end.max(b.end),
    }
}

/// What one report of the engine held.
#[derive(Clone, Debug)]
pub(super) struct Batch {
    pub phase: Phase,
    pub tokens: usize,
    pub range: Range<usize>,
    /// Experts chosen.
    pub rows: usize,
    pub lookups: u64,
    pub hits: u64,
    pub bytes: u64,
}

/// Samples of all time, in bounded memory: when there are too many, neighbours are joined and buckets become twice as long.
#[derive(Clone, Debug)]
pub struct Timeline {
    samples: Vec<Sample>,
    bucket: f64,
    last: f64,
}

impl Default for Timeline {
    fn default() -> Self {
        Self { samples: Vec::new(), bucket: Self::BUCKET, last: f64::NEG_INFINITY }
    }
}

impl Timeline {
    /// Most samples.
    pub const SAMPLES: usize = 4096;
    /// Seconds of a bucket to begin with.
    pub const BUCKET: f64 = 0.1;

    /// Samples, oldest first.
    pub fn samples(&self) -> &[Sample] {
        &self.samples
    }

    /// Seconds of a bucket. Slower tokens have a sample each.
    pub fn bucket(&self) -> f64 {
        self.bucket
    }

    /// Numbers of the tokens that were computed between two times; `None`: none were.
    pub fn tokens_between(&self, from: f64, to: f64) -> Option<Range<usize>> {
        let (from, to) = if from <= to { (from, to) } else { (to, from) };
        let start = self.samples.partition_point(|s| s.end < from);
        let inside = self.samples.get(start..).unwrap_or_default().iter().take_while(|s| s.opened <= to);
        let range = inside.fold(0..0, |range, s| join(&range, &s.range));
        (!range.is_empty()).then_some(range)
    }

    /// Numbers of the tokens of some samples; `None`: there are none.
    pub fn tokens_of(&self, samples: Range<usize>) -> Option<Range<usize>> {
        let end = samples.end.min(self.samples.len());
        let range = self.samples.get(samples.start.min(end)..end)?.iter().fold(0..0, |range, s| join(&range, &s.range));
        (!range.is_empty()).then_some(range)
    }

    /// What was computed by `now`, begun no earlier than `since`.
    pub(super) fn add(&mut self, batch: Batch, since: f64, now: f64, working_set: f32) {
        let start = since.max(self.last).min(now);
        self.last = self.last.max(now);
        let Batch { phase, tokens, range, rows: _, lookups, hits, bytes } = batch;
        let seconds = now - start;
        let sample = Sample { start, end: now, seconds, phase, tokens, range, lookups, hits, bytes, working_set, opened: now };
        match self.samples.last_mut() {
            Some(open) if open.phase == phase && now - open.opened < self.bucket => {
                open.join(&sample);
                open.working_set = working_set;
            }
            _ => {
                self.samples.push(sample);
                if self.samples.len() > Self::SAMPLES {
                    self.halve();
                }
            }
        }
    }

    fn halve(&mut self) {
        self.bucket *= 2.0;
        let mut read = 0;
        let mut kept = 0;
        while read < self.samples.len() {
            if let Some(next) = self.samples.get(read + 1).cloned() {
                self.samples[read].join(&next);
            }
            self.samples.swap(kept, read);
            kept += 1;
            read += 2;
        }
        self.samples.truncate(kept);
    }
}
