//! What all plans of a model share on a device: weights, tables, latent caches, and what changes from step to step.
//!
//! Rows of weights are packed as [`pleiad_models::blocks`] says and begin at multiples of 16 bytes: kernels read 16 bytes at a time.
//! Experts lie in slots as [`BlobLayout`] says, so that what the host's bank hands out is copied as it is.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use pleiad_models::{
    Format, Tensor,
    format::F8_BLOCK,
    weights::{ExpertPart, Experts},
};

use super::{
    driver::{Driver, Memory},
    slots::CudaSlots,
};
use crate::{
    error::{Error, Result},
    executor::{CacheFormat, LoadOptions},
    experts::{
        bank::{BlobLayout, HostBank, pack_rows, row_stride},
        residency::Residency,
    },
    model::Model,
    rope,
    step::{PAGE, RING, StepState},
    steps::{MAX_IDS, RING_WORDS, Shared},
};

/// Rows begin at multiples of so many bytes.
pub(crate) const ROW_ALIGN: usize = 16;
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

/// The routed experts of one layer on the device, each in a slot. Where there are as many slots as experts, expert e has slot e.
pub(crate) struct CudaBank {
    pub memory: Memory,
    pub slots: usize,
    pub gate: Part,
    pub up: Part,
    pub down: Part,
    /// Words from blob to blob.
    pub blob_words: usize,
}

impl CudaBank {
    /// The address of a slot.
    pub fn place(&self, slot: u32) -> Option<u64> {
        let known = (slot as usize) < self.slots;
        known.then(|| self.memory.address + u64::from(slot) * self.blob_words as u64 * 4)
    }
}

const PARTS: [ExpertPart; 3] = [ExpertPart::Gate, ExpertPart::Up, ExpertPart::Down];

/// A model on a device.
pub(crate) struct CudaState {
    pub driver: Arc<dyn Driver>,
    pub model: Arc<Model>,
    pub mats: Vec<CudaMatrix>,
    /// Those of the decoder layers, then those of the module that drafts.
    pub banks: Vec<CudaBank>,
    /// Where experts live in slots, or their use is recorded.
    pub slots: Option<CudaSlots>,
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
    /// `[layers, E]`, and what the module that drafts counts.
    pub counters: Memory,
    /// Elements of `counters` that are read.
    pub counter_len: usize,
    /// Activations and scratch by name: steps run one after the other, so all plans share them.
    pub pool: Mutex<HashMap<String, Arc<Memory>>>,
    /// Bytes of weights.
    pub weight_bytes: u64,
}

/// Packs rows and writes them to the device.
struct Uploader<'a> {
    driver: &'a Arc<dyn Driver>,
    packed: Vec<u8>,
    done: u64,
    total: u64,
    progress: &'a mut dyn FnMut(u64, u64),
}

impl Uploader<'_> {
    /// Rows `first .. first + rows` of a stack, to `address`. Of F8 `first` is a multiple of 128.
    fn rows(&mut self, address: u64, t: &Tensor, first: usize, rows: usize) -> Result<()> {
        let stride = row_stride(t, ROW_ALIGN);
        let unit = if t.format == Format::F8E4M3 { F8_BLOCK } else { 1 };
        let step = (CHUNK / stride.max(1)).max(1).next_multiple_of(unit);
        for from in (0..rows).step_by(step) {
            let n = step.min(rows - from);
            self.packed.clear();
            self.packed.resize(n * stride, 0);
            pack_rows(&t.part(first + from, n)?.matrix(), stride, &mut self.packed);
            self.driver.write(address + (from * stride) as u64, &self.packed)?;
            self.count((n * stride) as u64);
        }
        Ok(())
    }

    fn count(&mut self, bytes: u64) {
        self.done += bytes;
        (self.progress)(self.done.min(self.total), self.total);
    }

    fn matrix(&mut self, t: &Tensor) -> Result<CudaMatrix> {
        if t.format == Format::F8E4M3 && t.count > 1 {
            return Err(Error::Gpu(format!("{}: a stack of FP8 matrices", t.name)));
        }
        let (rows, stride) = (t.count * t.rows, row_stride(t, ROW_ALIGN));
        let memory = Memory::new(self.driver, &t.name, (rows * stride) as u64)?;
        self.rows(memory.address, t, 0, rows)?;
        Ok(CudaMatrix { memory, format: t.format, count: t.count, rows: t.rows, cols: t.cols, row_words: stride / 4 })
    }

    /// The slots of a layer.
    fn bank(&self, experts: &Experts, slots: usize) -> Result<CudaBank> {
        let layout = BlobLayout::of(experts, ROW_ALIGN);
        let [gate, up, down] = [0, 1, 2].map(|i| {
            let t = experts.first(PARTS[i]);
            let (row_words, offset) = (layout.rows[i] / 4, layout.offsets[i] / 4);
            Part { format: t.format, rows: t.rows, cols: t.cols, row_words, offset }
        });
        let what = format!("{slots} slots for experts of {}", experts.first(ExpertPart::Gate).name);
        let memory = Memory::new(self.driver, &what, (slots * layout.stride) as u64)?;
        Ok(CudaBank { memory, slots, gate, up, down, blob_words: layout.stride / 4 })
    }

    /// Packs every expert into its own slot.
    fn fill_bank(&mut self, bank: &CudaBank, experts: &Experts) -> Result<()> {
        for (e, slot) in (0..experts.len()).zip(0..) {
            let Some(address) = bank.place(slot) else { continue };
            for (part, place) in PARTS.into_iter().zip([bank.gate, bank.up, bank.down]) {
                let (t, first) = experts.place(e, part);
                self.rows(address + (place.offset * 4) as u64, t, first, t.rows)?;
            }
        }
        Ok(())
    }

    /// Copies those who live in slots from the host's bank.
    fn fill_slots(&mut self, bank: &CudaBank, b: usize, residency: &Residency, host: &mut HostBank) -> Result<()> {
        for slot in 0..bank.slots as u32 {
            let (Some(expert), Some(address)) = (residency.owner(b, slot), bank.place(slot)) else { continue };
            let (driver, mut bytes) = (self.driver, 0);
            host.blob(b, expert, &mut |offset, data| {
                bytes += data.len() as u64;
                driver.write(address + offset as u64, data)
            })?;
            self.count(bytes);
        }
        Ok(())
    }
}

/// Bytes of weights on a device, of routed experts as many as `residency` has slots for.
pub(crate) fn weight_bytes(model: &Model, residency: &Residency) -> u64 {
    let mats: usize = model.mats.iter().map(|t| t.count * t.rows * row_stride(t, ROW_ALIGN)).sum();
    let blobs = |(b, experts): (usize, &Experts)| {
        let slots = if b < residency.banks() { residency.slots(b) } else { experts.len() };
        slots * BlobLayout::of(experts, ROW_ALIGN).stride
    };
    let vecs: usize = model.vecs.iter().map(|v| v.len() * 4).sum();
    (mats + vecs + model.all_banks().enumerate().map(blobs).sum::<usize>()) as u64
}

/// Bytes of the latent cache of one layer.
pub(crate) fn cache_bytes(model: &Model, options: &LoadOptions) -> u64 {
    let attention = &model.config.attention;
    let element = if options.cache == CacheFormat::F16 { 2 } else { 4 };
    let positions = options.positions.max(1).next_multiple_of(PAGE);
    (positions * (attention.kv_lora_rank + attention.qk_rope_head_dim) * element) as u64
}

impl CudaState {
    /// Uploads the weights, and of the experts those that `residency` has in slots, and makes the caches. `host`: the experts of
    /// layers with fewer slots than experts, rows at multiples of [`ROW_ALIGN`]. `progress` is called with bytes done and in all.
    ///
    /// # Errors
    ///
    /// Out of memory, experts that cannot be read, or an error of the driver.
    pub fn load(
        driver: &Arc<dyn Driver>,
        model: Arc<Model>,
        options: &LoadOptions,
        residency: &Residency,
        mut host: Option<&mut HostBank>,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self> {
        let config = &model.config;
        let (r, dr) = (config.attention.kv_lora_rank, config.attention.qk_rope_head_dim);
        if !r.is_multiple_of(2) || !dr.is_multiple_of(2) {
            return Err(Error::Gpu(format!("latents of {r} and rope keys of {dr} elements: the kernels need even numbers")));
        }
        let max_context = options.max_context.max(1);
        let max_pages = max_context.div_ceil(PAGE);
        let cache_bytes = cache_bytes(&model, options);
        let total = weight_bytes(&model, residency);
        let all = total + cache_bytes * model.caches() as u64;
        if let Some(free) = driver.free_memory().filter(|&free| all > free) {
            let positions = options.positions.max(1).next_multiple_of(PAGE);
            let what = format!("{} with its latent cache of {positions} positions", config.name);
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
        let experts = config.moe.as_ref().map_or(0, |m| m.num_experts);
        let counter_len = model.layers.len() * experts;
        let partial = (0..residency.banks()).any(|b| residency.is_partial(b));
        let slots = (partial || (options.experts.trace && residency.banks() > 0))
            .then(|| CudaSlots::new(driver, &model, residency, options.experts.chunk.max(1)))
            .transpose()?;

        let mut up = Uploader { driver, packed: Vec::new(), done: 0, total, progress };
        (up.progress)(0, total);
        let mats = model.mats.iter().map(|t| up.matrix(t)).collect::<Result<Vec<_>>>()?;
        let mut banks = Vec::with_capacity(model.banks.len() + 1);
        for (b, experts) in model.all_banks().enumerate() {
            // The module that drafts has all of its experts.
            let own = b >= residency.banks();
            let bank = up.bank(experts, if own { experts.len() } else { residency.slots(b) })?;
            match host.as_deref_mut().filter(|_| residency.is_partial(b)) {
                Some(host) => up.fill_slots(&bank, b, residency, host)?,
                None => up.fill_bank(&bank, experts)?,
            }
            banks.push(bank);
        }
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
            counters: small("activation counters", model.caches() * experts * 4)?,
            driver: Arc::clone(driver),
            mats,
            banks,
            slots,
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

    /// What steps read and write of it.
    pub fn shared(&self) -> Shared<u64> {
        let words = |m: &Memory| (m.address, m.bytes as usize / 4);
        Shared {
            model: Arc::clone(&self.model),
            step: self.step.address,
            ids: self.ids.address,
            ring: self.ring.address,
            counters: self.counters.address,
            counter_len: self.counter_len,
            caches: self.caches.iter().map(words).collect(),
            vectors: self.vecs.iter().map(|v| (v.address, 0, v.bytes as usize / 4)).collect(),
            blob_words: self.banks.iter().map(|b| b.blob_words).collect(),
            slots: self.slots.as_ref().map(CudaSlots::tables),
            max_context: self.max_context,
            max_pages: self.max_pages,
            weight_bytes: self.weight_bytes,
        }
    }

    /// Copies a piece of an expert to a slot, from byte `offset` of its blob on; `aside`: beside what runs, see
    /// [`Driver::upload_aside`].
    ///
    /// # Errors
    ///
    /// No such slot, more than it has room for, or an error of the driver.
    pub fn write_slot(&self, bank: usize, slot: u32, offset: usize, data: &[u8], aside: bool) -> Result<()> {
        let fits = |b: &&CudaBank| offset.checked_add(data.len()).is_some_and(|end| end <= b.blob_words * 4);
        let Some(address) = self.banks.get(bank).filter(fits).and_then(|b| b.place(slot)) else {
            let what = format!("{} bytes from {offset} on in slot {slot} of bank {bank}", data.len());
            return Err(Error::Invalid(what));
        };
        let address = address + offset as u64;
        if aside { self.driver.upload_aside(address, data) } else { self.driver.write(address, data) }
    }
}
