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

/// The row of the latent cache that holds `position`.
pub fn cache_row(pages: &[u32], position: usize) -> usize {
    pages[position / PAGE] as usize * PAGE + position % PAGE
}
