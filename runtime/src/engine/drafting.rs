//! How many tokens to draft: as many as pay.
//!
//! A step that verifies k drafts yields `1 + p1 + p1 p2 + ... + p1...pk` tokens, p_i being the probability that the i-th draft is
//! right where those before it are. What such a step takes is measured, so that everything counts that more rows cost: kernels,
//! distinct experts, uploads of experts that are not resident. The number with the most tokens a second is taken; now and then
//! another one is tried for a few steps, since acceptance changes with the text and costs with the length of the context.

use web_time::Instant;

use crate::step::MAX_DRAFT;

/// Most tokens that are drafted of the engine's own accord.
const MOST: usize = 3;
/// Steps for which a number is tried; the first of them, which follows one of another number, is not measured.
const TRIAL: usize = 5;
/// Steps between two trials.
const BETWEEN: usize = 120;
/// Steps of a number whose times are remembered.
const REMEMBERED: usize = 9;
/// What an older draft counts in comparison with the one after it.
const FADE: f64 = 0.99;
/// How much faster another number must be to be taken.
const MARGIN: f64 = 1.03;

/// The numbers of drafts that a step may make, where `asked` for so many; `None`: as many as pay.
pub(crate) fn numbers(asked: Option<usize>) -> Vec<usize> {
    match asked {
        Some(0) => Vec::new(),
        Some(k) => vec![k.min(MAX_DRAFT)],
        None => (0..=MOST).collect(),
    }
}

/// Decides how many tokens are drafted for a step.
pub(crate) struct Drafting {
    /// What there is to choose from; empty without a module that drafts.
    numbers: Vec<usize>,
    /// The one that is used.
    best: usize,
    /// The one that is tried, and for how many steps yet.
    trial: Option<(usize, usize)>,
    /// Numbers still to be tried for the first time, the last one first.
    unknown: Vec<usize>,
    /// Steps since the last trial, and how many there were.
    since: usize,
    trials: usize,
    /// Seconds of the last steps with so many drafts.
    seconds: Vec<Vec<f64>>,
    /// Of each place among the drafts: how often it was right, and how often those before it were.
    right: [(f64, f64); MAX_DRAFT],
    /// The drafts of the last step, and when it was over.
    last: Option<(usize, Instant)>,
}

impl Drafting {
    /// `module`: the model has one that drafts.
    pub fn new(module: bool, asked: Option<usize>) -> Self {
        let numbers = if module { numbers(asked) } else { Vec::new() };
        let best = numbers.iter().copied().find(|&k| k > 0).unwrap_or(0);
        let choice = numbers.len() > 1;
        Self {
            best,
            trial: choice.then_some((best, TRIAL)),
            unknown: numbers.iter().rev().copied().filter(|&k| choice && k != best).collect(),
            since: 0,
            trials: 0,
            seconds: vec![Vec::new(); MAX_DRAFT + 1],
            right: [(0.0, 0.0); MAX_DRAFT],
            last: None,
            numbers,
        }
    }

    /// Tokens to draft; `None`: there is no module, or it is off.
    pub fn tokens(&self) -> Option<usize> {
        (!self.numbers.is_empty()).then(|| self.trial.map_or(self.best, |(k, _)| k))
    }

    /// The time from the last step to the next one says nothing.
    pub fn interrupt(&mut self) {
        self.last = None;
    }

    /// A step is over that verified `verify` drafts, of which `accepted` were right, and made `draft`.
    pub fn observe(&mut self, verify: usize, draft: usize, accepted: usize) {
        self.observe_at(verify, draft, accepted, Instant::now());
    }

    fn observe_at(&mut self, verify: usize, draft: usize, accepted: usize, now: Instant) {
        for (i, (right, of)) in self.right.iter_mut().enumerate().take(verify.min(accepted + 1)) {
            *right = *right * FADE + if i < accepted { 1.0 } else { 0.0 };
            *of = *of * FADE + 1.0;
        }
        let before = self.last.replace((draft, now));
        if self.numbers.len() < 2 {
            return;
        }
        // From one step's end to the next one's, of the same kind: whatever such a step costs, it shows there.
        if let Some((drafted, at)) = before
            && (drafted, verify) == (draft, draft)
            && let Some(all) = self.seconds.get_mut(draft)
        {
            if all.len() == REMEMBERED {
                all.remove(0);
            }
            all.push(now.duration_since(at).as_secs_f64());
        }
        self.choose(draft);
    }

    /// What comes next after a step that made `draft` drafts.
    fn choose(&mut self, draft: usize) {
        self.trial = match self.trial {
            Some((k, left)) if k == draft && left > 1 => Some((k, left - 1)),
            Some((k, left)) if k != draft => Some((k, left)),
            _ => None,
        };
        if self.trial.is_some() {
            return;
        }
        if let Some(next) = self.unknown.pop() {
            self.trial = Some((next, TRIAL));
            return;
        }
        let now = self.rate(self.best);
        let faster = |k: &usize| self.rate(*k).filter(|r| now.is_none_or(|now| *r > now * MARGIN));
        let rates = self.numbers.iter().filter_map(|k| Some((*k, faster(k)?)));
        if let Some((k, _)) = rates.max_by(|a, b| a.1.total_cmp(&b.1)) {
            self.best = k;
        }
        self.since += 1;
        if self.since >= BETWEEN {
            self.since = 0;
            self.trials += 1;
            let others: Vec<usize> = self.numbers.iter().copied().filter(|&k| k != self.best).collect();
            self.trial = others.get(self.trials % others.len().max(1)).map(|&k| (k, TRIAL));
        }
    }

    /// Tokens a second with `k` drafts, as far as is known.
    fn rate(&self, k: usize) -> Option<f64> {
        let mut seconds = self.seconds.get(k)?.clone();
        seconds.sort_by(f64::total_cmp);
        let median = *seconds.get(seconds.len() / 2)?;
        let (mut tokens, mut all_right) = (1.0, 1.0);
        for &(right, of) in self.right.iter().take(k) {
            // Nothing known yet: neither likely nor unlikely.
            all_right *= (right + 0.5) / (of + 1.0);
            tokens += all_right;
        }
        Some(tokens / median.max(1e-9))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Runs `steps` steps that take `seconds(k)`, with drafts right with probability `p` each; returns how often each number was
    /// used in the last half.
    fn run(steps: usize, seconds: impl Fn(usize) -> f64, p: f64) -> [usize; MOST + 1] {
        let mut d = Drafting::new(true, None);
        let (mut at, mut have, mut used, mut state) = (Instant::now(), 0, [0; MOST + 1], 1u64);
        let mut unit = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as f64 / (1u64 << 31) as f64
        };
        for step in 0..steps {
            let draft = d.tokens().unwrap_or(0);
            let verify = if have >= draft { draft } else { 0 };
            let accepted = (0..verify).take_while(|_| unit() < p).count();
            // Times scatter by a tenth.
            at += Duration::from_secs_f64(seconds(verify) * (0.95 + 0.1 * unit()));
            d.observe_at(verify, draft, accepted, at);
            have = draft;
            if step >= steps / 2 {
                used[verify] += 1;
            }
        }
        used
    }

    #[test]
    fn the_number_that_pays_is_taken() {
        // Rows cost next to nothing and drafts are right: as many as there may be.
        let used = run(2000, |k| 1.0 + 0.05 * k as f64, 0.9);
        assert!(used[3] > 850, "{used:?}");
        // Rows that cost as much as steps of their own: none.
        let used = run(2000, |k| 1.0 + 1.1 * k as f64, 0.9);
        assert!(used[0] > 850, "{used:?}");
        // Drafts that are mostly wrong: none, even where they cost little.
        let used = run(2000, |k| 1.0 + 0.4 * k as f64, 0.2);
        assert!(used[0] > 850, "{used:?}");
        // In between: 1.6 tokens for 1.3; the second draft adds 0.36 for 0.5.
        let used = run(2000, |k| [1.0, 1.3, 1.8, 2.4][k], 0.6);
        assert!(used[1] > 850, "{used:?}");
    }

    #[test]
    fn what_is_asked_for_stays() {
        let mut d = Drafting::new(true, Some(2));
        for i in 0..500 {
            assert_eq!(d.tokens(), Some(2));
            d.observe(2, 2, i % 2);
        }
        assert_eq!(Drafting::new(true, Some(0)).tokens(), None);
        assert_eq!(Drafting::new(false, Some(2)).tokens(), None);
        assert_eq!(Drafting::new(false, None).tokens(), None);
    }
}
