//! What all plans of a model share on a device: weights, tables, latent caches, and what changes from step to step.
//!
//! Rows of weights are packed as [`pleiad_models::blocks`] says and begin at multiples of 16 bytes: kernels read 16 bytes at a time.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use pleiad_models::{
    Format, Tensor,
    blocks::packed_row_bytes,
    format::F8_BLOCK,
    weights::{ExpertPart, Experts},
};

use super::driver::{Driver, Memory};
use crate::{
    error::{Error, Result},
    executor::{CacheFormat, LoadOptions},
    model::Model,
    rope,
    step::{PAGE, RING, StepState},
};

/// Words of one slot of the ring of sampled tokens.
pub(crate) const RING_WORDS: usize = 4;
/// Token ids that fit a step.
pub(crate) const MAX_IDS: usize = 65_535;
/// Bytes packed at a time.
const CHUNK: usize = 8 << 20;

/// A matrix, or stack of matrices, on the device.
pub(crate) struct CudaMatrix {
    pub memory: Memory,
    pub format: Format,
    /// Matrices in the stack.
    pub count: usize,
    /// Rows of one matrix.
    pub rows: usize,
    pub cols: usize,
    /// Words from row to row.
    pub row_words: usize,
}

/// One of an expert's matrices in its blob.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    pub format: Format,
    pub rows: usize,
    pub cols: usize,
    /// Words from row to row.
    pub row_words: usize,
    /// Word offset in the blob.
    pub offset: usize,
}

/// The routed experts of one layer on the device, all of them: expert e has slot e.
pub(crate) struct CudaBank {
    pub memory: Memory,
    pub experts: usize,
    pub gate: Part,
    pub up: Part,
    pub down: Part,
    /// Words from blob to blob.
    pub blob_words: usize,
}

/// A model on a device.
pub(crate) struct CudaState {
    pub driver: Arc<dyn Driver>,
    pub model: Arc<Model>,
    pub mats: Vec<CudaMatrix>,
    pub banks: Vec<CudaBank>,
    /// One a vector.
    pub vecs: Vec<Memory>,
    /// `[positions, dr / 2]` pairs of cos and sin.
    pub rope: Memory,
    /// One a layer.
    pub caches: Vec<Memory>,
    pub cache_format: CacheFormat,
    /// Positions that one session may use.
    pub max_context: usize,
    /// Entries of the page table.
    pub max_pages: usize,
    /// [`StepState`] and the page table.
    pub step: Memory,
    /// Token ids of the step.
    pub ids: Memory,
    /// The last sampled tokens.
    pub ring: Memory,
    /// `[layers, E]`.
    pub counters: Memory,
    pub counter_len: usize,
    /// Activations and scratch by name: steps run one after the other, so all plans share them.
    pub pool: Mutex<HashMap<String, Arc<Memory>>>,
    /// Bytes of weights.
    pub weight_bytes: u64,
}

/// Bytes from row to row on the device.
fn row_stride(t: &Tensor) -> usize {
    packed_row_bytes(t.format, t.cols).next_multiple_of(16)
}

/// Packs rows and writes them to the device.
struct Uploader<'a> {
    driver: &'a Arc<dyn Driver>,
    packed: Vec<u8>,
    padded: Vec<u8>,
    done: u64,
    total: u64,
    progress: &'a mut dyn FnMut(u64, u64),
}

impl Uploader<'_> {
    /// Rows `first .. first + rows` of a stack, to `address`. Of F8 `first` is a multiple of 128.
    fn rows(&mut self, address: u64, t: &Tensor, first: usize, rows: usize) -> Result<()> {
        let (bytes, stride) = (packed_row_bytes(t.format, t.cols), row_stride(t));
        let unit = if t.format == Format::F8E4M3 { F8_BLOCK } else { 1 };
        let step = (CHUNK / stride.max(1)).max(1).next_multiple_of(unit);
        for from in (0..rows).step_by(step) {
            let n = step.min(rows - from);
            self.packed.clear();
            self.packed.resize(n * bytes, 0);
            t.part(first + from, n)?.matrix().pack(&mut self.packed);
            let data = if bytes == stride {
                &self.packed
            } else {
                self.padded.clear();
                self.padded.resize(n * stride, 0);
                let rows = self.padded.chunks_exact_mut(stride).zip(self.packed.chunks_exact(bytes.max(1)));
                rows.for_each(|(to, row)| to.iter_mut().zip(row).for_each(|(to, from)| *to = *from));
                &self.padded
            };
            self.driver.write(address + (from * stride) as u64, data)?;
            self.done += data.len() as u64;
            (self.progress)(self.done.min(self.total), self.total);
        }
        Ok(())
    }

    fn matrix(&mut self, t: &Tensor) -> Result<CudaMatrix> {
        if t.format == Format::F8E4M3 && t.count > 1 {
            return Err(Error::Gpu(format!("{}: a stack of FP8 matrices", t.name)));
        }
        let (rows, stride) = (t.count * t.rows, row_stride(t));
        let memory = Memory::new(self.driver, &t.name, (rows * stride) as u64)?;
        self.rows(memory.address, t, 0, rows)?;
        Ok(CudaMatrix { memory, format: t.format, count: t.count, rows: t.rows, cols: t.cols, row_words: stride / 4 })
    }

    fn bank(&mut self, experts: &Experts) -> Result<CudaBank> {
        let parts = [ExpertPart::Gate, ExpertPart::Up, ExpertPart::Down];
        let mut words = 0;
        let [gate, up, down] = parts.map(|part| {
            let t = experts.first(part);
            let (row_words, offset) = (row_stride(t) / 4, words);
            words += t.rows * row_words;
            Part { format: t.format, rows: t.rows, cols: t.cols, row_words, offset }
        });
        let name = &experts.first(ExpertPart::Gate).name;
        let memory = Memory::new(self.driver, &format!("experts of {name}"), (experts.len() * words * 4) as u64)?;
        for e in 0..experts.len() {
            for (part, place) in parts.into_iter().zip([gate, up, down]) {
                let (t, first) = experts.place(e, part);
                self.rows(memory.address + ((e * words + place.offset) * 4) as u64, t, first, t.rows)?;
            }
        }
        Ok(CudaBank { memory, experts: experts.len(), gate, up, down, blob_words: words })
    }
}

/// Bytes of a tensor's rows on the device.
fn device_bytes(t: &Tensor) -> u64 {
    (t.count * t.rows * row_stride(t)) as u64
}

impl CudaState {
    /// Uploads the weights, all experts among them, and makes the caches. `progress` is called with bytes done and in all.
    ///
    /// # Errors
    ///
    /// Out of memory, a budget that is too small, or an error of the driver.
    pub fn load(
        driver: &Arc<dyn Driver>,
        model: Arc<Model>,
        options: &LoadOptions,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self> {
        let config = &model.config;
        let (r, dr) = (config.attention.kv_lora_rank, config.attention.qk_rope_head_dim);
        if !r.is_multiple_of(2) || !dr.is_multiple_of(2) {
            return Err(Error::Gpu(format!("latents of {r} and rope keys of {dr} elements: the kernels need even numbers")));
        }
        let max_context = options.max_context.max(1);
        let max_pages = max_context.div_ceil(PAGE);
        let element = if options.cache == CacheFormat::F16 { 2 } else { 4 };
        let positions = options.positions.max(1).next_multiple_of(PAGE);
        let cache_bytes = (positions * (r + dr) * element) as u64;
        let total: u64 = model.tensors().map(device_bytes).sum();
        let all = total + cache_bytes * model.caches() as u64;
        let what = format!("{} with its latent cache of {positions} positions, all experts on the GPU,", config.name);
        if let Some(budget) = options.experts.budget.filter(|&b| all > b) {
            return Err(Error::Budget { what, budget, least: all });
        }
        if let Some(free) = driver.free_memory().filter(|&free| all > free) {
            return Err(Error::OutOfMemory { what, bytes: all, limit: Some(free) });
        }
        let small = |what: &str, bytes: usize| Memory::new(driver, what, bytes as u64);
        let caches = (0..model.caches())
            .map(|layer| Memory::new(driver, &format!("latent cache of layer {layer}"), cache_bytes))
            .collect::<Result<Vec<_>>>()?;
        let table = rope::table(&config.rope, dr, max_context);
        let table: &[u8] = bytemuck::cast_slice(&table);
        let rope = small("rotary table", table.len())?;
        driver.write(rope.address, table)?;
        let counter_len = model.layers.len() * config.moe.as_ref().map_or(0, |m| m.num_experts);
        // What the module that drafts counts is read by nobody.
        let counted = model.caches() * config.moe.as_ref().map_or(0, |m| m.num_experts);

        let mut up = Uploader { driver, packed: Vec::new(), padded: Vec::new(), done: 0, total, progress };
        (up.progress)(0, total);
        let mats = model.mats.iter().map(|t| up.matrix(t)).collect::<Result<Vec<_>>>()?;
        let banks = model.all_banks().map(|b| up.bank(b)).collect::<Result<Vec<_>>>()?;
        (up.progress)(total, total);
        let mut vecs = Vec::with_capacity(model.vecs.len());
        for v in &model.vecs {
            let memory = small("a norm or bias", v.len() * 4)?;
            driver.write(memory.address, bytemuck::cast_slice(v))?;
            vecs.push(memory);
        }
        Ok(Self {
            step: small("step", (StepState::WORDS + max_pages) * 4)?,
            ids: small("token ids", MAX_IDS * 4)?,
            ring: small("sampled tokens", RING * RING_WORDS * 4)?,
            counters: small("activation counters", counted * 4)?,
            driver: Arc::clone(driver),
            mats,
            banks,
            vecs,
            rope,
            caches,
            cache_format: options.cache,
            max_context,
            max_pages,
            counter_len,
            pool: Mutex::default(),
            weight_bytes: total,
            model,
        })
    }
}
