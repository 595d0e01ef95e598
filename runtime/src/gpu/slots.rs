//! What the device knows of experts in slots: tables of who lives where, the record of what tokens chose, and, where kernels
//! fetch missing experts by themselves, how hot experts are and the host's copies of them.

use std::sync::Arc;

use wgpu::{Buffer, BufferUsages};

use super::{
    device::GpuDevice,
    weights::{Slab, host_visible},
};
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
pub(crate) struct Slots {
    /// `[banks, E]` slots; then the record of a step, `[banks, T, K]` choices.
    pub tables: Buffer,
    /// Words before the record.
    pub record: usize,
    /// Most tokens of a step.
    pub tokens: usize,
    /// `[E]`: the table of one layer for one round of products.
    pub round: Buffer,
    /// For each bank its time, then for each expert count and time of its last use.
    pub heat: Buffer,
    /// What `gather` is to copy: how many; then expert and slot of each.
    pub work: Buffer,
    /// For each bank its experts in host memory; empty where kernels do not fetch.
    pub sources: Vec<Vec<Slab>>,
    /// The bank of each layer.
    pub bank_of: Vec<Option<usize>>,
    /// Which banks have fewer slots than experts.
    pub partial: Vec<bool>,
    /// Experts a layer, E.
    pub experts: usize,
}

impl Slots {
    /// Makes the buffers for steps of up to `tokens` tokens, and writes the tables.
    pub async fn new(gpu: &GpuDevice, model: &Model, residency: &Residency, tokens: usize) -> Result<Self> {
        let words = SlotWords::of(model, residency, tokens)?;
        let storage = BufferUsages::STORAGE | BufferUsages::COPY_DST | BufferUsages::COPY_SRC;
        let slots = Self {
            tables: gpu.buffer("tables of experts and record of choices", words.table_bytes(), storage).await?,
            record: words.record(),
            tokens,
            round: gpu.buffer("experts of a round", words.round_bytes(), storage).await?,
            heat: gpu.buffer("heat of experts", words.heat_bytes(), storage).await?,
            work: gpu.buffer("experts to gather", words.work_bytes(), storage).await?,
            sources: Vec::new(),
            bank_of: words.bank_of,
            partial: words.partial,
            experts: words.experts,
        };
        for b in 0..words.banks {
            let table = bytemuck::cast_slice(residency.table(b));
            gpu.queue.write_buffer(&slots.tables, table_at(b, slots.experts), table);
        }
        Ok(slots)
    }

    /// What the host reads and writes of it.
    pub fn tables(&self) -> Tables<Buffer> {
        Tables {
            tables: self.tables.clone(),
            record: self.record,
            tokens: self.tokens,
            round: self.round.clone(),
            heat: self.heat.clone(),
            experts: self.experts,
        }
    }

    /// Copies the experts of partial layers to where kernels can read them. `progress` is called with the bytes of each.
    pub async fn make_sources(
        &mut self,
        gpu: &Arc<GpuDevice>,
        model: &Model,
        host: &mut HostBank,
        progress: &mut dyn FnMut(u64),
    ) -> Result<()> {
        let mut sources = Vec::new();
        for (b, &partial) in self.partial.iter().enumerate() {
            sources.push(if partial { host_visible(gpu, model, b, host, progress).await? } else { Vec::new() });
        }
        gpu.idle().await?;
        self.sources = sources;
        Ok(())
    }

    /// Whether kernels can fetch experts by themselves.
    pub fn can_gather(&self) -> bool {
        !self.sources.is_empty()
    }
}
