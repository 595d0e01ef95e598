//! Words of the tables of experts in slots, of the record of choices behind them and of what kernels keep of heat: the same on
//! every device.

use super::{policy::Heat, residency::Residency};
use crate::{
    error::{Error, Result},
    model::{FfnIds, Model},
};

/// Words of one choice in the record: expert and flags; the bits of its weight.
pub(crate) const CHOICE_WORDS: usize = 2;
/// In the record: the expert was resident.
pub(crate) const HIT: u32 = 1 << 16;
/// In the record: a kernel fetched it.
pub(crate) const GATHERED: u32 = 1 << 17;

/// How the buffers of a device whose experts live in slots are laid out.
#[derive(Clone, Debug)]
pub(crate) struct SlotWords {
    /// Mixture layers.
    pub banks: usize,
    /// Experts a layer, E.
    pub experts: usize,
    /// Experts of a token, K.
    pub top_k: usize,
    /// Most tokens of a step, T.
    pub tokens: usize,
    /// The bank of each layer.
    pub bank_of: Vec<Option<usize>>,
    /// Which banks have fewer slots than experts.
    pub partial: Vec<bool>,
}

impl SlotWords {
    /// For steps of up to `tokens` tokens.
    ///
    /// # Errors
    ///
    /// Layers that differ in their number of experts.
    pub fn of(model: &Model, residency: &Residency, tokens: usize) -> Result<Self> {
        let (experts, top_k) = model.config.moe.as_ref().map_or((0, 0), |m| (m.num_experts, m.top_k));
        let banks = model.banks.len();
        if model.banks.iter().any(|b| b.len() != experts) {
            return Err(Error::Gpu("layers that differ in their number of experts".into()));
        }
        let bank = |ffn: &FfnIds| match ffn {
            FfnIds::Moe { bank, .. } => Some(bank.0 as usize),
            FfnIds::Dense(_) => None,
        };
        let bank_of = model.layers.iter().map(|l| bank(&l.ffn)).collect();
        let partial = (0..banks).map(|b| residency.is_partial(b)).collect();
        Ok(Self { banks, experts, top_k, tokens, bank_of, partial })
    }

    /// Words before the record: `[banks, E]` slots.
    pub fn record(&self) -> usize {
        self.banks * self.experts
    }

    /// Bytes of the tables and of the record, `[banks, T, K]` choices.
    pub fn table_bytes(&self) -> u64 {
        ((self.record() + self.banks * self.tokens * self.top_k * CHOICE_WORDS) * 4) as u64
    }

    /// Bytes of one layer's table.
    pub fn round_bytes(&self) -> u64 {
        (self.experts * 4) as u64
    }

    /// Bytes of the heat of all banks.
    pub fn heat_bytes(&self) -> u64 {
        heat_at(self.banks, self.experts)
    }

    /// Bytes of what `gather` is to copy: how many; then expert and slot of each.
    pub fn work_bytes(&self) -> u64 {
        ((1 + 2 * self.top_k) * 4) as u64
    }
}

/// The byte at which a bank's table of `experts` experts begins.
pub(crate) fn table_at(bank: usize, experts: usize) -> u64 {
    (bank * experts * 4) as u64
}

/// The byte at which a bank's heat begins: its time, then count and time of the last use of each of `experts` experts.
pub(crate) fn heat_at(bank: usize, experts: usize) -> u64 {
    (bank * (1 + 2 * experts) * 4) as u64
}

/// The words of a bank's heat as of `now`.
pub(crate) fn heat_words(now: u32, heat: &[Heat]) -> Vec<u32> {
    std::iter::once(now).chain(heat.iter().flat_map(|h| [h.count.to_bits(), h.last])).collect()
}
