//! What the device knows of experts in slots: tables of who lives where, the record of what tokens chose, and, where kernels
//! fetch missing experts by themselves, how hot experts are and the host's copies of them in memory that kernels read.

use std::sync::Arc;

use super::driver::{Driver, HostMemory, Memory};
use crate::{
    error::Result,
    experts::{
        bank::HostBank,
        record::{SlotWords, table_at},
        residency::Residency,
    },
    model::Model,
    steps::Tables,
};

/// Buffers of a device whose experts live in slots.
pub(crate) struct CudaSlots {
    /// `[banks, E]` slots; then the record of a step, `[banks, T, K]` choices.
    pub tables: Memory,
    /// Words before the record.
    pub record: usize,
    /// Most tokens of a step.
    pub tokens: usize,
    /// `[E]`: the table of one layer for one round of products.
    pub round: Memory,
    /// For each bank its time, then for each expert count and time of its last use.
    pub heat: Memory,
    /// What `gather` is to copy: how many; then expert and slot of each.
    pub work: Memory,
    /// For each bank all its experts in host memory, one blob after the other, where it is partial; empty where kernels do not
    /// fetch.
    pub sources: Vec<Option<HostMemory>>,
    /// The bank of each layer.
    pub bank_of: Vec<Option<usize>>,
    /// Which banks have fewer slots than experts.
    pub partial: Vec<bool>,
    /// Experts a layer, E.
    pub experts: usize,
}

impl CudaSlots {
    /// Makes the buffers for steps of up to `tokens` tokens, and writes the tables.
    pub fn new(driver: &Arc<dyn Driver>, model: &Model, residency: &Residency, tokens: usize) -> Result<Self> {
        let words = SlotWords::of(model, residency, tokens)?;
        let memory = |what: &str, bytes| Memory::new(driver, what, bytes);
        let slots = Self {
            tables: memory("tables of experts and record of choices", words.table_bytes())?,
            record: words.record(),
            tokens,
            round: memory("experts of a round", words.round_bytes())?,
            heat: memory("heat of experts", words.heat_bytes())?,
            work: memory("experts to gather", words.work_bytes())?,
            sources: Vec::new(),
            bank_of: words.bank_of,
            partial: words.partial,
            experts: words.experts,
        };
        for b in 0..words.banks {
            let table = bytemuck::cast_slice(residency.table(b));
            driver.write(slots.tables.address + table_at(b, slots.experts), table)?;
        }
        Ok(slots)
    }

    /// What the host reads and writes of it.
    pub fn tables(&self) -> Tables<u64> {
        Tables {
            tables: self.tables.address,
            record: self.record,
            tokens: self.tokens,
            round: self.round.address,
            heat: self.heat.address,
            experts: self.experts,
        }
    }

    /// Copies the experts of partial layers to where kernels can read them. `progress` is called with the bytes of each.
    pub fn make_sources(&mut self, driver: &Arc<dyn Driver>, host: &mut HostBank, progress: &mut dyn FnMut(u64)) -> Result<()> {
        let mut sources = Vec::with_capacity(self.partial.len());
        for (b, &partial) in self.partial.iter().enumerate() {
            if !partial {
                sources.push(None);
                continue;
            }
            let stride = host.layout(b).stride as u64;
            let memory = HostMemory::new(driver, &format!("experts of bank {b} in host memory"), stride * self.experts as u64)?;
            for expert in 0..self.experts as u16 {
                let at = u64::from(expert) * stride;
                host.blob(b, expert, &mut |offset, data| memory.write(at + offset as u64, data))?;
                progress(stride);
            }
            sources.push(Some(memory));
        }
        self.sources = sources;
        Ok(())
    }
}
