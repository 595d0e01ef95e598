//! Sampling: parameters, the random counter, and the twin of the sampling kernel.
//!
//! The order of the steps is llama.cpp's: penalties, top-k, top-p, min-p, temperature. Nothing is sorted:
//! the cuts are thresholds on the logits (equal logits at a threshold are all kept), and the draw
//! walks the survivors in the order of their ids, so that a single pass of a GPU workgroup does the same.

use crate::step::{MAX_END, MAX_RECENT, StepState};

/// How the next token is chosen. The defaults are greedy.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplingParams {
    /// 0 is greedy.
    pub temperature: f32,
    /// Keep the best k tokens; 0 keeps all.
    pub top_k: u32,
    /// Keep the smallest set of best tokens with this mass; 1 keeps all.
    pub top_p: f32,
    /// Keep tokens at least this probable relative to the best; 0 keeps all.
    pub min_p: f32,
    /// Divides positive and multiplies negative logits of recent tokens; 1 is off.
    pub repeat_penalty: f32,
    /// Subtracted for each recent occurrence of a token.
    pub frequency_penalty: f32,
    /// Subtracted once for a recent token.
    pub presence_penalty: f32,
    /// How many recent tokens count (at most 256).
    pub penalty_last_n: u32,
    /// Seed of the draws.
    pub seed: u64,
}

impl Default for SamplingParams {
    fn default() -> Self {
        Self {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repeat_penalty: 1.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            penalty_last_n: 64,
            seed: 0,
        }
    }
}

impl SamplingParams {
    /// Why these parameters make no sense, if they do not.
    pub fn check(&self) -> Result<(), crate::Error> {
        let bad = |what: String| Err(crate::Error::Invalid(what));
        if !(self.temperature >= 0.0 && self.temperature.is_finite()) {
            return bad(format!("temperature must be 0 or more, not {}", self.temperature));
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return bad(format!("top-p must be above 0 and at most 1, not {}", self.top_p));
        }
        if !(0.0..=1.0).contains(&self.min_p) {
            return bad(format!("min-p must be between 0 and 1, not {}", self.min_p));
        }
        if !(self.repeat_penalty > 0.0 && self.repeat_penalty.is_finite()) {
            return bad(format!("repeat-penalty must be above 0, not {}", self.repeat_penalty));
        }
        if !(self.frequency_penalty.is_finite() && self.presence_penalty.is_finite()) {
            return bad("penalties must be finite".into());
        }
        Ok(())
    }

    /// Writes the parameters and the end tokens into a step.
    pub fn write(&self, end: &[u32], step: &mut StepState) {
        step.temperature = self.temperature;
        (step.top_k, step.top_p, step.min_p) = (self.top_k, self.top_p, self.min_p);
        (step.repeat_penalty, step.frequency_penalty) = (self.repeat_penalty, self.frequency_penalty);
        (step.presence_penalty, step.penalty_last_n) = (self.presence_penalty, self.penalty_last_n.min(MAX_RECENT as u32));
        (step.seed_lo, step.seed_hi) = (self.seed as u32, (self.seed >> 32) as u32);
        let n = end.len().min(MAX_END);
        step.end = [0; MAX_END];
        step.end[..n].copy_from_slice(&end[..n]);
        step.n_end = n as u32;
    }
}

/// Logits this far below the best carry so little mass that a cut by mass seldom needs to look at them.
const NEGLIGIBLE: f32 = 16.0;

/// A key that orders as the logits do.
fn key(x: f32) -> u32 {
    let bits = x.to_bits();
    if bits >> 31 == 0 { bits | 0x8000_0000 } else { !bits }
}

/// Twin of the kernel `sample`: the chosen token and its logit after penalties. `logits` is left as found.
pub fn sample(logits: &mut [f32], step: &StepState) -> (u32, f32) {
    let found = penalise(logits, step);
    let token = if step.temperature <= 0.0 { best(logits) } else { draw(logits, step) };
    let logit = logits[token as usize];
    for (token, logit) in found {
        logits[token as usize] = logit;
    }
    (token, logit)
}

/// Applies the penalties; returns the logits as they were.
fn penalise(logits: &mut [f32], step: &StepState) -> Vec<(u32, f32)> {
    if step.repeat_penalty == 1.0 && step.frequency_penalty == 0.0 && step.presence_penalty == 0.0 {
        return Vec::new();
    }
    let recent: Vec<u32> = step.recent().filter(|&t| (t as usize) < logits.len()).collect();
    let mut found: Vec<(u32, f32)> = Vec::new();
    for &token in &recent {
        if found.iter().any(|f| f.0 == token) {
            continue;
        }
        let count = recent.iter().filter(|&&t| t == token).count() as f32;
        let logit = &mut logits[token as usize];
        found.push((token, *logit));
        *logit = if *logit > 0.0 { *logit / step.repeat_penalty } else { *logit * step.repeat_penalty };
        *logit -= count * step.frequency_penalty + step.presence_penalty;
    }
    found
}

/// The largest logit; the lowest id wins ties.
fn best(logits: &[f32]) -> u32 {
    let mut best = 0;
    for (i, &x) in logits.iter().enumerate() {
        if x > logits[best] {
            best = i;
        }
    }
    best as u32
}

fn draw(logits: &[f32], step: &StepState) -> u32 {
    let max = logits[best(logits) as usize];
    // The smallest key that survives; each cut raises it.
    let mut threshold = 0;
    let k = step.top_k as usize;
    if k > 0 && k < logits.len() {
        let mut keys: Vec<u32> = logits.iter().map(|&x| key(x)).collect();
        let (_, kth, _) = keys.select_nth_unstable_by(k - 1, |a, b| b.cmp(a));
        threshold = *kth;
    }
    if step.top_p < 1.0 {
        threshold = cut_by_mass(logits, max, threshold, step.top_p);
    }
    if step.min_p > 0.0 {
        threshold = threshold.max(key(max + step.min_p.ln()));
    }
    let weight = |x: f32| if key(x) >= threshold { f64::from(((x - max) / step.temperature).exp()) } else { 0.0 };
    let total: f64 = logits.iter().map(|&x| weight(x)).sum();
    let target = f64::from(uniform(step.seed_lo, step.seed_hi, step.sampled)) * total;
    let mut sum = 0.0;
    let mut last = 0;
    for (i, &x) in logits.iter().enumerate() {
        let w = weight(x);
        if w > 0.0 {
            sum += w;
            last = i;
            if sum > target {
                break;
            }
        }
    }
    last as u32
}

/// The largest threshold at or above `threshold` whose survivors still have the share `p` of the mass.
fn cut_by_mass(logits: &[f32], max: f32, threshold: u32, p: f32) -> u32 {
    let mass = |x: f32| f64::from((x - max).exp());
    let survivors = || logits.iter().copied().filter(|&x| key(x) >= threshold);
    let target = f64::from(p) * survivors().map(mass).sum::<f64>();
    let mut candidates: Vec<f32> = survivors().filter(|&x| x > max - NEGLIGIBLE).collect();
    if candidates.iter().map(|&x| mass(x)).sum::<f64>() < target {
        candidates = survivors().collect();
    }
    candidates.sort_unstable_by(|a, b| b.total_cmp(a));
    let mut sum = 0.0;
    for &x in &candidates {
        sum += mass(x);
        if sum >= target {
            return key(x);
        }
    }
    threshold
}
