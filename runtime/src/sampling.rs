//! Sampling: parameters, the random counter, and the twin of the sampling kernel.
//!
//! The order of the steps is llama.cpp's: penalties, top-k, top-p, min-p, temperature. Nothing is sorted:
//! the cuts are thresholds on the logits (equal logits at a threshold are all kept), and the draw
//! walks the survivors in the order of their ids, so that a single pass of a GPU workgroup does the same.

use serde::{Deserialize, Serialize};

use crate::{
    step::{MAX_END, MAX_RECENT, StepState},
    twins::largest,
};

/// How the next token is chosen. The defaults are greedy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
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

/// One, as a mass: sums of masses are integers, so that every order of summation gives the same.
const ONE: f32 = 16_777_216.0;

/// A key that orders as logits do, zeros equal.
fn key(x: f32) -> u32 {
    let bits = if x == 0.0 { 0 } else { x.to_bits() };
    if bits >> 31 == 0 { bits | 0x8000_0000 } else { !bits }
}

/// `exp(x)` in units of 2^-24, for `x <= 0`.
fn mass(x: f32) -> u64 {
    (x.min(0.0).exp() * ONE).round_ties_even() as u64
}

/// The hash behind the random counter (PCG-RXS-M-XS, 32 bits).
fn pcg(seed: u32) -> u32 {
    let state = seed.wrapping_mul(747_796_405).wrapping_add(2_891_336_453);
    let word = ((state >> ((state >> 28) + 4)) ^ state).wrapping_mul(277_803_737);
    (word >> 22) ^ word
}

/// Twin of the kernel `sample`, step for step (the comment at the head of `sample.wgsl`): the chosen token and its
/// logit after penalties. `logits` is left as found.
pub fn sample(logits: &mut [f32], step: &StepState) -> (u32, f32) {
    let found = penalise(logits, step);
    let best = largest(logits);
    let token = if step.temperature > 0.0 { draw(logits, logits[best], step) } else { best };
    let logit = logits[token];
    for (token, logit) in found {
        logits[token as usize] = logit;
    }
    (token as u32, logit)
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
        *logit = if *logit <= 0.0 { *logit * step.repeat_penalty } else { *logit / step.repeat_penalty };
        *logit -= count * step.frequency_penalty + step.presence_penalty;
    }
    found
}

fn draw(logits: &[f32], max: f32, step: &StepState) -> usize {
    let mut cut = 0;
    let k = step.top_k as usize;
    if k > 0 && k < logits.len() {
        let mut keys: Vec<u32> = logits.iter().map(|&x| key(x)).collect();
        cut = *keys.select_nth_unstable_by(k - 1, |a, b| b.cmp(a)).1;
    }
    let part = (step.top_p.clamp(0.0, 1.0) * ONE).round_ties_even() as u64;
    if part < ONE as u64 {
        cut = cut.max(cut_by_mass(logits, max, cut, part));
    }
    let floor = if step.min_p > 0.0 { max + step.min_p.ln().min(0.0) } else { f32::MIN };
    let weight = |x: f32| if key(x) >= cut && x >= floor { mass((x - max) / step.temperature) } else { 0 };
    let total: u64 = logits.iter().map(|&x| weight(x)).sum();
    let random = u64::from(pcg(step.sampled ^ pcg(step.seed_hi ^ pcg(step.seed_lo))) >> 8);
    let target = (random * total) >> 24;
    let mut sum = 0;
    for (i, &x) in logits.iter().enumerate() {
        sum += weight(x);
        if sum > target {
            return i;
        }
    }
    0
}

/// The largest key for which the masses of keys at or above it, among those kept by `cut`, have the share
/// `part / 2^24` of all that is kept.
fn cut_by_mass(logits: &[f32], max: f32, cut: u32, part: u64) -> u32 {
    let mut kept: Vec<(u32, u64)> =
        logits.iter().filter(|&&x| key(x) >= cut).map(|&x| (key(x), mass(x - max))).filter(|k| k.1 > 0).collect();
    let total: u64 = kept.iter().map(|k| k.1).sum();
    let need = ((part * total) >> 24).max(1);
    kept.sort_unstable_by(|a, b| b.cmp(a));
    let mut sum = 0;
    for (key, mass) in kept {
        sum += mass;
        if sum >= need {
            return key;
        }
    }
    cut
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(params: SamplingParams) -> StepState {
        let mut s = StepState { tokens: 1, ..StepState::default() };
        params.write(&[], &mut s);
        s
    }

    fn counts(logits: &[f32], params: SamplingParams) -> Vec<usize> {
        let mut s = step(params);
        let mut counts = vec![0; logits.len()];
        for _ in 0..4000 {
            counts[sample(&mut logits.to_vec(), &s).0 as usize] += 1;
            s.sampled += 1;
        }
        counts
    }

    fn close(count: usize, share: f64) -> bool {
        // Four standard deviations of 4000 draws.
        (count as f64 / 4000.0 - share).abs() < 4.0 * (share * (1.0 - share) / 4000.0).sqrt() + 1e-9
    }

    #[test]
    fn greedy_takes_the_first_of_the_best() {
        assert_eq!(sample(&mut [1.0, 3.0, 3.0, -1.0], &step(SamplingParams::default())), (1, 3.0));
    }

    #[test]
    fn draws_follow_the_distribution() {
        let p = [0.5f32, 0.25, 0.125, 0.125];
        let logits = p.map(f32::ln);
        let hot = SamplingParams { temperature: 1.0, seed: 7, ..SamplingParams::default() };
        let all = counts(&logits, hot.clone());
        assert!((0..4).all(|i| close(all[i], f64::from(p[i]))), "{all:?}");
        let k = counts(&logits, SamplingParams { top_k: 2, ..hot.clone() });
        assert!(close(k[0], 2.0 / 3.0) && k[2] + k[3] == 0, "{k:?}");
        let top_p = counts(&logits, SamplingParams { top_p: 0.7, ..hot.clone() });
        assert!(close(top_p[0], 2.0 / 3.0) && top_p[2] + top_p[3] == 0, "{top_p:?}");
        let min_p = counts(&logits, SamplingParams { min_p: 0.4, ..hot.clone() });
        assert!(close(min_p[0], 2.0 / 3.0) && min_p[2] + min_p[3] == 0, "{min_p:?}");
        // Temperature 1/2 squares the odds.
        let cold = counts(&logits, SamplingParams { temperature: 0.5, ..hot });
        assert!(close(cold[0], 0.25 / (0.25 + 0.0625 + 2.0 * 0.015625)), "{cold:?}");
    }

    #[test]
    fn penalties_leave_the_logits_as_found() {
        let mut s = step(SamplingParams {
            repeat_penalty: 2.0,
            presence_penalty: 0.5,
            frequency_penalty: 0.25,
            ..SamplingParams::default()
        });
        s.penalty_last_n = 8;
        [0, 0, 2].into_iter().for_each(|t| s.remember(t));
        let mut logits = vec![4.0, 1.5, -1.0];
        // 4 / 2 - 2 * 0.25 - 0.5 = 1; -1 * 2 - 0.75.
        assert_eq!(sample(&mut logits, &s), (1, 1.5));
        assert_eq!(logits, [4.0, 1.5, -1.0]);
    }
}
