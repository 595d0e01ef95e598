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
        policy::Heat,
        record::{SlotWords, heat_at, heat_words, table_at},
        residency::Residency,
    },
    model::Model,
};

pub(crate) use crate::experts::record::{CHOICE_WORDS, GATHERED, HIT};

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
        (0..words.banks).for_each(|b| slots.write_table(gpu, b, residency.table(b)));
        Ok(slots)
    }

    /// Copies the experts of partial layers to where kernels can read them. `progress` is called with bytes done and in all.
    pub async fn make_sources(
        &mut self,
        gpu: &Arc<GpuDevice>,
        model: &Model,
        host: &mut HostBank,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<()> {
        let total = self.source_bytes(host);
        let (mut done, mut sources) = (0, Vec::new());
        for (b, &partial) in self.partial.iter().enumerate() {
            let mut count = |bytes| {
                done += bytes;
                progress(done, total);
            };
            sources.push(if partial { host_visible(gpu, model, b, host, &mut count).await? } else { Vec::new() });
        }
        gpu.idle().await?;
        self.sources = sources;
        Ok(())
    }

    /// Bytes that [`Slots::make_sources`] needs.
    pub fn source_bytes(&self, host: &HostBank) -> u64 {
        let partial = self.partial.iter().enumerate().filter(|(_, p)| **p);
        partial.map(|(b, _)| (host.layout(b).stride * self.experts) as u64).sum()
    }

    /// Whether kernels can fetch experts by themselves.
    pub fn can_gather(&self) -> bool {
        !self.sources.is_empty()
    }

    /// Sets who lives where in a layer.
    pub fn write_table(&self, gpu: &GpuDevice, bank: usize, table: &[u32]) {
        gpu.queue.write_buffer(&self.tables, table_at(bank, self.experts), bytemuck::cast_slice(table));
    }

    /// Sets the experts of a round.
    pub fn write_round(&self, gpu: &GpuDevice, table: &[u32]) {
        gpu.queue.write_buffer(&self.round, 0, bytemuck::cast_slice(table));
    }

    /// Sets how hot a layer's experts are, as of `now`.
    pub fn write_heat(&self, gpu: &GpuDevice, bank: usize, now: u32, heat: &[Heat]) {
        let words = heat_words(now, heat);
        gpu.queue.write_buffer(&self.heat, heat_at(bank, self.experts), bytemuck::cast_slice(&words));
    }
}
