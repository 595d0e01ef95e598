//! What all plans of a model share on a device: weights, tables, latent caches, and the buffers that change from step to step.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use wgpu::{Buffer, BufferUsages};

use super::{device::GpuDevice, slots::Slots, weights::GpuWeights};
use crate::{
    error::{Error, Result},
    executor::{CacheFormat, LoadOptions},
    experts::{bank::HostBank, residency::Residency},
    model::Model,
    rope,
    step::{PAGE, RING, StepState},
    steps::{MAX_IDS, RING_WORDS, Shared},
};

/// A model on a device.
pub(crate) struct GpuState {
    pub model: Arc<Model>,
    pub weights: GpuWeights,
    /// `[positions, dr / 2]` pairs of cos and sin.
    pub rope: Buffer,
    /// One a layer.
    pub caches: Vec<Buffer>,
    pub cache_format: CacheFormat,
    /// Positions that one session may use.
    pub max_context: usize,
    /// Entries of the page table.
    pub max_pages: usize,
    /// [`StepState`] and the page table.
    pub step: Buffer,
    /// Token ids of the step.
    pub ids: Buffer,
    /// The last sampled tokens.
    pub ring: Buffer,
    /// `[layers, E]`.
    pub counters: Buffer,
    /// Elements of `counters`.
    pub counter_len: usize,
    /// Where experts live in slots, or their use is recorded.
    pub slots: Option<Slots>,
    /// Activations and scratch by name: steps run one after the other, so all plans share them.
    pub pool: Mutex<HashMap<String, Buffer>>,
}

impl GpuState {
    /// Uploads the weights, and of the experts those that `residency` has in slots, and makes the caches. `host`: the experts
    /// of layers with fewer slots than experts.
    pub async fn load(
        gpu: &Arc<GpuDevice>,
        model: Arc<Model>,
        options: &LoadOptions,
        residency: &Residency,
        host: Option<&mut HostBank>,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self> {
        let config = &model.config;
        let (r, dr) = (config.attention.kv_lora_rank, config.attention.qk_rope_head_dim);
        if !r.is_multiple_of(2) || !dr.is_multiple_of(2) {
            return Err(Error::Gpu(format!("latents of {r} and rope keys of {dr} elements: the kernels need even numbers")));
        }
        let storage = BufferUsages::STORAGE | BufferUsages::COPY_DST | BufferUsages::COPY_SRC;
        let max_context = options.max_context.max(1);
        let max_pages = max_context.div_ceil(PAGE);

        let row_words = match options.cache {
            CacheFormat::F16 => (r + dr) / 2,
            CacheFormat::F32 => r + dr,
        };
        let positions = options.positions.max(1).next_multiple_of(PAGE);
        let cache_bytes = (positions * row_words * 4) as u64;
        fits(gpu, &format!("latent cache of {positions} positions"), cache_bytes)?;
        let mut caches = Vec::with_capacity(model.caches());
        for layer in 0..model.caches() {
            caches.push(gpu.buffer(&format!("latent cache of layer {layer}"), cache_bytes, storage).await?);
        }

        let table = rope::table(&config.rope, dr, max_context);
        let table_bytes: &[u8] = bytemuck::cast_slice(&table);
        fits(gpu, &format!("rotary table of {max_context} positions"), table_bytes.len() as u64)?;
        let rope = gpu.buffer("rotary table", table_bytes.len().max(8) as u64, storage).await?;
        gpu.queue.write_buffer(&rope, 0, table_bytes);

        let step_bytes = ((StepState::WORDS + max_pages) * 4) as u64;
        let step = gpu.buffer("step", step_bytes, storage).await?;
        let ids = gpu.buffer("token ids", (MAX_IDS * 4) as u64, storage).await?;
        let ring = gpu.buffer("sampled tokens", (RING * RING_WORDS * 4) as u64, storage).await?;
        let counter_len = model.layers.len() * config.moe.as_ref().map_or(0, |m| m.num_experts);
        // What the module that drafts counts is read by nobody.
        let counted = model.caches() * config.moe.as_ref().map_or(0, |m| m.num_experts);
        let counters = gpu.buffer("activation counters", (counted * 4) as u64, storage).await?;

        let partial = (0..residency.banks()).any(|b| residency.is_partial(b));
        let slots = if partial || (options.experts.trace && residency.banks() > 0) {
            Some(Slots::new(gpu, &model, residency, options.experts.chunk.max(1)).await?)
        } else {
            None
        };
        let weights = GpuWeights::load(gpu, &model, residency, host, progress).await?;
        Ok(Self {
            weights,
            rope,
            caches,
            cache_format: options.cache,
            max_context,
            max_pages,
            step,
            ids,
            ring,
            counters,
            counter_len,
            slots,
            pool: Mutex::default(),
            model,
        })
    }

    /// What steps read and write of it.
    pub fn shared(&self) -> Shared<Buffer> {
        let vectors = self.weights.vector_places.iter();
        Shared {
            model: Arc::clone(&self.model),
            step: self.step.clone(),
            ids: self.ids.clone(),
            ring: self.ring.clone(),
            counters: self.counters.clone(),
            counter_len: self.counter_len,
            caches: self.caches.iter().map(|c| (c.clone(), (c.size() / 4) as usize)).collect(),
            vectors: vectors.map(|v| (self.weights.vectors.clone(), v.offset, (v.size / 4) as usize)).collect(),
            blob_words: self.weights.banks.iter().map(|b| b.blob_words).collect(),
            slots: self.slots.as_ref().map(Slots::tables),
            max_context: self.max_context,
            max_pages: self.max_pages,
            weight_bytes: self.weights.bytes,
        }
    }
}

fn fits(gpu: &GpuDevice, what: &str, bytes: u64) -> Result<()> {
    let limit = gpu.max_binding();
    if bytes > limit {
        return Err(Error::Limit { what: format!("{what}: bytes of one GPU binding"), needed: bytes, limit });
    }
    Ok(())
}
