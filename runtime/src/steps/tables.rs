//! Experts in slots, as far as the host reads and writes them on the device.

use super::backend::Backend;
use crate::experts::{
    policy::Heat,
    record::{heat_at, heat_words, table_at},
};

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
        device.write(&self.tables, table_at(bank, self.experts), table);
    }

    /// Sets the experts of a round.
    pub fn write_round<B: Backend<Buffer = T>>(&self, device: &mut B, table: &[u32]) {
        device.write(&self.round, 0, table);
    }

    /// Sets how hot a layer's experts are, as of `now`.
    pub fn write_heat<B: Backend<Buffer = T>>(&self, device: &mut B, bank: usize, now: u32, heat: &[Heat]) {
        device.write(&self.heat, heat_at(bank, self.experts), &heat_words(now, heat));
    }
}
