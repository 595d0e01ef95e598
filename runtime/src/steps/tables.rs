//! What the device knows of experts in slots, as far as the host reads and writes it.

use super::backend::Backend;
use crate::experts::policy::Heat;

/// Words of one choice in the record: expert and flags; the bits of its weight.
pub const CHOICE_WORDS: usize = 2;
/// In the record: the expert was resident.
pub const HIT: u32 = 1 << 16;
/// In the record: a kernel fetched it.
pub const GATHERED: u32 = 1 << 17;

/// Buffers of a device whose experts live in slots.
#[derive(Clone)]
pub struct Tables<T> {
    /// `[banks, E]` slots; then the record of a step, `[banks, T, K]` choices.
    pub tables: T,
    /// Words before the record.
    pub record: usize,
    /// Most tokens of a step.
    pub tokens: usize,
    /// `[E]`: the table of one layer for one round of products.
    pub round: T,
    /// For each bank its time, then for each expert count and time of its last use.
    pub heat: T,
    /// Experts a layer, E.
    pub experts: usize,
}

impl<T> Tables<T> {
    /// Sets who lives where in a layer.
    pub fn write_table<B: Backend<Buffer = T>>(&self, device: &mut B, bank: usize, table: &[u32]) {
        device.write(&self.tables, (bank * self.experts * 4) as u64, table);
    }

    /// Sets the experts of a round.
    pub fn write_round<B: Backend<Buffer = T>>(&self, device: &mut B, table: &[u32]) {
        device.write(&self.round, 0, table);
    }

    /// Sets how hot a layer's experts are, as of `now`.
    pub fn write_heat<B: Backend<Buffer = T>>(&self, device: &mut B, bank: usize, now: u32, heat: &[Heat]) {
        let mut words = vec![now];
        words.extend(heat.iter().flat_map(|h| [h.count.to_bits(), h.last]));
        device.write(&self.heat, (bank * (1 + 2 * self.experts) * 4) as u64, &words);
    }
}
