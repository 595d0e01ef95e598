//! What changes from step to step: the one small buffer that a device reads besides weights and activations.

use bytemuck::{Pod, Zeroable};

/// Positions in one page of the latent cache.
pub const PAGE: usize = 64;
/// Most end-of-generation tokens.
pub const MAX_END: usize = 16;
/// Tokens remembered for penalties.
pub const MAX_RECENT: usize = 256;
/// Sampled tokens that a device keeps for reading back.
pub const RING: usize = 64;
/// Most tokens drafted for one step.
pub const MAX_DRAFT: usize = 7;
/// Most tokens sampled in one step.
pub const MAX_TAKEN: usize = MAX_DRAFT + 1;

/// The head of the step buffer; the page table follows. The layout is that of `Step` in `shared/step.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct StepState {
    /// Tokens of this step, T: 1 when decoding.
    pub tokens: u32,
    /// Position of the first token.
    pub pos: u32,
    /// Tokens sampled since the session was set; drives the random counter.
    pub sampled: u32,
    /// 1 once an end token was sampled: later steps in flight leave no trace.
    pub stopped: u32,
    /// Sampling temperature; 0 is greedy.
    pub temperature: f32,
    /// Smallest set of tokens with this mass; 1 keeps all.
    pub top_p: f32,
    /// Least probability relative to the best token's; 0 keeps all.
    pub min_p: f32,
    /// Number of best tokens kept; 0 keeps all.
    pub top_k: u32,
    /// Divides positive and multiplies negative logits of recent tokens; 1 is off.
    pub repeat_penalty: f32,
    /// Subtracted for each recent occurrence.
    pub frequency_penalty: f32,
    /// Subtracted once for recent tokens.
    pub presence_penalty: f32,
    /// How many recent tokens count, at most [`MAX_RECENT`].
    pub penalty_last_n: u32,
    /// Low half of the seed.
    pub seed_lo: u32,
    /// High half of the seed.
    pub seed_hi: u32,
    /// Entries of `end`.
    pub n_end: u32,
    /// Whether the router counts activations.
    pub counters_on: u32,
    /// End-of-generation tokens.
    pub end: [u32; MAX_END],
    /// Entries of `recent`.
    pub recent_len: u32,
    /// Where the next recent token goes.
    pub recent_head: u32,
    /// The layer, plus one, after whose router the plan stopped because an expert was missing; 0: none.
    pub halt: u32,
    /// Whether it stops there.
    pub on_miss: u32,
    /// How many of the step's tokens, the last ones, are drafts.
    pub drafted: u32,
    /// Whether the next row of a step with drafts may be sampled from.
    pub open: u32,
    /// Tokens sampled in this step.
    pub count: u32,
    /// Where the step began.
    pub began: u32,
    /// The tokens sampled in this step.
    pub taken: [u32; MAX_TAKEN],
    /// Their logits, after penalties.
    pub logits: [f32; MAX_TAKEN],
    /// Drafts for the next step.
    pub drafts: [u32; MAX_TAKEN],
    /// Ring of the last tokens.
    pub recent: [u32; MAX_RECENT],
}

impl Default for StepState {
    fn default() -> Self {
        let mut s = Self::zeroed();
        (s.top_p, s.repeat_penalty) = (1.0, 1.0);
        s
    }
}

impl StepState {
    /// Words of the head.
    pub const WORDS: usize = size_of::<Self>() / 4;
    /// Byte offset of `halt`; `on_miss` follows.
    pub const HALT: u64 = std::mem::offset_of!(Self, halt) as u64;

    /// Byte offset of `drafted`.
    pub const DRAFTED: u64 = std::mem::offset_of!(Self, drafted) as u64;
    /// Byte offset of `count`, and the words from there that say what a step with drafts came to: `count`, `began`, `taken`,
    /// `logits`.
    pub const TAKEN: (u64, usize) = (std::mem::offset_of!(Self, count) as u64, 2 + 2 * MAX_TAKEN);

    /// Remembers a token for penalties.
    pub fn remember(&mut self, token: u32) {
        let head = self.recent_head as usize % MAX_RECENT;
        self.recent[head] = token;
        self.recent_head = ((head + 1) % MAX_RECENT) as u32;
        self.recent_len = (self.recent_len + 1).min(MAX_RECENT as u32);
    }

    /// The last tokens that count for penalties, newest first.
    pub fn recent(&self) -> impl Iterator<Item = u32> + '_ {
        let n = (self.recent_len.min(self.penalty_last_n) as usize).min(MAX_RECENT);
        (0..n).map(move |i| self.recent[(self.recent_head as usize + MAX_RECENT - 1 - i) % MAX_RECENT])
    }

    /// Whether `token` ends the generation.
    pub fn is_end(&self, token: u32) -> bool {
        self.end[..(self.n_end as usize).min(MAX_END)].contains(&token)
    }

    /// What the device does after sampling `token`: the next step decodes it, at the next position. Once
    /// stopped, nothing moves any more.
    pub fn advance(&mut self, token: u32) {
        if self.stopped == 0 {
            self.pos += self.tokens;
            self.tokens = 1;
            self.sampled += 1;
            self.remember(token);
            self.stopped = u32::from(self.is_end(token));
        }
    }
}

/// What becomes of a step with drafts: twins of the operations of the same names.
impl StepState {
    /// [`crate::plan::Op::Verify`], first half: whether `row` is to be sampled from.
    pub fn takes(&mut self, row: usize) -> bool {
        if row == 0 {
            (self.count, self.open, self.began) = (0, 1, self.pos);
        }
        self.stopped == 0 && self.open != 0
    }

    /// [`crate::plan::Op::Verify`], second half: `token` was sampled from `row`. `ids` are those of the step.
    pub fn take(&mut self, row: usize, token: u32, logit: f32, ids: &[u32]) {
        let row = row.min(MAX_DRAFT);
        (self.taken[row], self.logits[row]) = (token, logit);
        self.count = row as u32 + 1;
        self.sampled += 1;
        self.remember(token);
        self.stopped = u32::from(self.is_end(token));
        let draft = self.tokens.saturating_sub(self.drafted) as usize + row;
        let right = (row as u32) < self.drafted && ids.get(draft) == Some(&token);
        self.open = u32::from(right && self.stopped == 0);
    }

    /// The last token sampled.
    fn next(&self) -> u32 {
        self.taken[(self.count.max(1) as usize - 1).min(MAX_DRAFT)]
    }

    /// The last row that counts: that from which the last token was sampled.
    pub fn taken_row(&self) -> usize {
        (self.tokens + self.count).saturating_sub(self.drafted + 2) as usize
    }

    /// [`crate::plan::Op::Shift`].
    pub fn shift(&self, ids: &mut [u32], given: bool) {
        let n = (self.tokens as usize + 1).min(ids.len());
        ids.copy_within(1..n, 0);
        if !given
            && self.count > 0
            && let Some(id) = ids.get_mut(self.taken_row())
        {
            *id = self.next();
        }
    }

    /// [`crate::plan::Op::Settle`].
    pub fn settle(&mut self, ids: &mut Vec<u32>, drafts: usize) {
        // A step that came after the end stays where it is.
        self.pos = (self.pos + self.tokens + self.count).saturating_sub(self.drafted + 2);
        (self.tokens, self.drafted) = (1, 0);
        if drafts == 0 {
            self.pos += 1;
            ids.clear();
            ids.push(self.next());
        }
    }

    /// [`crate::plan::Op::Draft`]: `token` has the largest logit.
    pub fn draft(&mut self, ids: &mut Vec<u32>, token: u32, index: usize, of: usize) {
        self.drafts[index.min(MAX_DRAFT)] = token;
        ids.clear();
        if index + 1 < of {
            self.pos += 1;
            ids.push(token);
        } else {
            self.pos = (self.pos + 2).saturating_sub(of as u32);
            (self.tokens, self.drafted) = (of as u32 + 1, of as u32);
            ids.push(self.next());
            ids.extend_from_slice(&self.drafts[..of.min(MAX_TAKEN)]);
        }
    }
}

/// The row of the latent cache that holds `position`.
pub fn cache_row(pages: &[u32], position: usize) -> usize {
    pages[position / PAGE] as usize * PAGE + position % PAGE
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampling::{SamplingParams, sample};

    const VOCAB: usize = 4;
    const TOKENS: usize = 6;

    /// Logits of a model whose next token depends on the last one alone.
    fn logits(last: u32) -> Vec<f32> {
        (0..VOCAB as u32).map(|i| [1.3f32, 0.2, -0.4, 0.9][((i + 3 * last) % 4) as usize] * 1.5).collect()
    }

    /// What is generated with `k` drafts a step, the drafts of `drafter` from the last token.
    fn generate(params: &SamplingParams, k: usize, drafter: impl Fn(u32) -> u32) -> (Vec<u32>, usize) {
        let mut step = StepState { tokens: 1, pos: 1, ..StepState::default() };
        params.write(&[], &mut step);
        let (mut ids, mut out, mut right) = (vec![0], Vec::new(), 0);
        while out.len() < TOKENS {
            let rows: Vec<Vec<f32>> = ids.iter().map(|&id| logits(id)).collect();
            for (row, logits) in rows.into_iter().enumerate() {
                if step.takes(row) {
                    let (token, logit) = sample(&mut logits.clone(), &step);
                    step.take(row, token, logit, &ids);
                    out.push(token);
                }
            }
            right += step.count as usize - 1;
            step.shift(&mut ids, false);
            step.settle(&mut ids, k);
            // The position of the last row that counts; without drafts, that of the next one.
            assert_eq!(step.pos as usize, out.len() + usize::from(k == 0));
            let mut last = step.next();
            for i in 0..k {
                last = drafter(last);
                step.draft(&mut ids, last, i, k);
            }
            assert_eq!((step.pos as usize, ids.len(), ids[0]), (out.len() + 1, k + 1, step.next()));
        }
        out.truncate(TOKENS);
        (out, right)
    }

    #[test]
    fn drafts_do_not_change_the_distribution() {
        let best = |last: u32| crate::twins::largest(&logits(last)) as u32;
        let (draws, mut counts) = (40_000, vec![[0usize; VOCAB * VOCAB]; TOKENS - 1]);
        let mut right = 0;
        for seed in 0..draws {
            let params = SamplingParams { temperature: 1.5, seed, ..SamplingParams::default() };
            let (tokens, accepted) = generate(&params, 1 + seed as usize % 3, best);
            for (count, pair) in counts.iter_mut().zip(tokens.windows(2)) {
                count[pair[0] as usize * VOCAB + pair[1] as usize] += 1;
            }
            right += accepted;
        }
        assert!(right > draws as usize, "drafts were hardly ever right: {right}");
        // The exact distribution of each pair of neighbours.
        let p = |last: usize| {
            let weights: Vec<f64> = logits(last as u32).iter().map(|&l| (f64::from(l) / 1.5).exp()).collect();
            let sum: f64 = weights.iter().sum();
            weights.into_iter().map(|w| w / sum).collect::<Vec<_>>()
        };
        let mut first = p(0);
        for (place, count) in counts.iter().enumerate() {
            let (mut next, mut chi) = (vec![0.0; VOCAB], 0.0);
            for (a, pa) in first.iter().enumerate() {
                for (b, pb) in p(a).into_iter().enumerate() {
                    let expected = pa * pb * draws as f64;
                    chi += (count[a * VOCAB + b] as f64 - expected).powi(2) / expected;
                    next[b] += pa * pb;
                }
            }
            // 15 degrees of freedom: exceeded once in 10,000 times.
            assert!(chi < 44.3, "chi square {chi:.1} at place {place}: {count:?}");
            first = next;
        }
    }

    #[test]
    fn whatever_is_drafted_the_same_is_drawn() {
        for seed in 0..300 {
            let params =
                SamplingParams { temperature: 1.0, top_k: 3, top_p: 0.9, repeat_penalty: 1.2, seed, ..Default::default() };
            let (plain, _) = generate(&params, 0, |_| 0);
            for k in 1..=MAX_DRAFT {
                assert_eq!(generate(&params, k, |last| (last + 1) % VOCAB as u32).0, plain, "seed {seed}, {k} drafts");
            }
        }
    }

    #[test]
    fn nothing_counts_after_an_end_token() {
        let mut step = StepState { tokens: 3, drafted: 2, pos: 9, ..StepState::default() };
        SamplingParams::default().write(&[7], &mut step);
        let mut ids = vec![5, 7, 8];
        assert!(step.takes(0));
        // The draft was right, and is the end.
        step.take(0, 7, 1.0, &ids);
        assert!(!step.takes(1) && !step.takes(2));
        assert_eq!((step.count, step.stopped, step.taken[0], step.began), (1, 1, 7, 9));
        step.shift(&mut ids, false);
        step.settle(&mut ids, 1);
        step.draft(&mut ids, 3, 0, 1);
        assert_eq!((step.pos, step.tokens, step.drafted), (10, 2, 1));
        // A step that was under way already does nothing, and stays where it is.
        assert!(!step.takes(0) && step.count == 0);
        step.shift(&mut ids, false);
        step.settle(&mut ids, 1);
        step.draft(&mut ids, 3, 0, 1);
        assert_eq!((step.pos, step.sampled, step.count), (10, 1, 0));
    }
}
