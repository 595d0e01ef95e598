//! What all plans of a model share on a device, or on several: weights, tables, latent caches, and what changes from step to step.
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
    placement::{Placement, bank_name},
    slots::CudaSlots,
};
use crate::{
    error::{Error, Result},
    executor::{CacheFormat, LoadOptions},
    experts::{
        balance::Layout,
        bank::{BlobLayout, HostBank, pack_rows, row_stride},
        policy::ABSENT,
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

/// Neighbouring slots in one device's memory.
pub(crate) struct Slab {
    pub device: usize,
    pub memory: Memory,
    /// The first slot.
    pub first: usize,
    pub slots: usize,
}

/// The routed experts of one layer, each in a slot. On one device with as many slots as experts, expert e has slot e.
pub(crate) struct CudaBank {
    /// One a device.
    pub slabs: Vec<Slab>,
    /// Slots of all slabs.
    pub slots: usize,
    /// `[E, devices]`: the slot of each expert on each device, or [`ABSENT`]; on one device none is needed.
    pub table: Option<Memory>,
    pub gate: Part,
    pub up: Part,
    pub down: Part,
    /// Words from blob to blob.
    pub blob_words: usize,
}

impl CudaBank {
    /// The address of a slot.
    pub fn place(&self, slot: u32) -> Option<u64> {
        let slot = slot as usize;
        let slab = self.slabs.iter().find(|s| (s.first..s.first + s.slots).contains(&slot))?;
        Some(slab.memory.address + (slot - slab.first) as u64 * self.blob_words as u64 * 4)
    }
}

const PARTS: [ExpertPart; 3] = [ExpertPart::Gate, ExpertPart::Up, ExpertPart::Down];

/// Addresses of what every device has for itself.
#[derive(Clone, Copy)]
pub(crate) struct Local {
    /// The step as it was last copied there; the first device has the step itself.
    pub step: u64,
    /// `[positions, dr / 2]` pairs of cos and sin.
    pub rope: u64,
    /// `[layers, E]`, and what the module that drafts counts; those of the layers that are at home there are used.
    pub counters: u64,
}

/// A model on a device, or on several.
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
    /// Where a model's parts are.
    pub placement: Placement,
    /// One a device.
    pub locals: Vec<Local>,
    /// What these point to.
    pub _locals: Vec<Memory>,
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
    /// Counters that are read, `[layers, E]`.
    pub counter_len: usize,
    /// Activations and scratch by device and name: steps run one after the other, so all plans share them.
    pub pool: Mutex<HashMap<(usize, String), Arc<Memory>>>,
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

    fn matrix(&mut self, t: &Tensor, device: usize) -> Result<CudaMatrix> {
        if t.format == Format::F8E4M3 && t.count > 1 {
            return Err(Error::Gpu(format!("{}: a stack of FP8 matrices", t.name)));
        }
        let (rows, stride) = (t.count * t.rows, row_stride(t, ROW_ALIGN));
        let memory = Memory::on(self.driver, device, &t.name, (rows * stride) as u64)?;
        self.rows(memory.address, t, 0, rows)?;
        Ok(CudaMatrix { memory, format: t.format, count: t.count, rows: t.rows, cols: t.cols, row_words: stride / 4 })
    }

    /// So many slots of a layer on each of the first devices.
    fn bank(&self, experts: &Experts, devices: usize, slots: usize) -> Result<CudaBank> {
        let layout = BlobLayout::of(experts, ROW_ALIGN);
        let [gate, up, down] = [0, 1, 2].map(|i| {
            let t = experts.first(PARTS[i]);
            let (row_words, offset) = (layout.rows[i] / 4, layout.offsets[i] / 4);
            Part { format: t.format, rows: t.rows, cols: t.cols, row_words, offset }
        });
        let what = bank_name(experts, slots);
        let slab = |device: usize| {
            let memory = Memory::on(self.driver, device, &what, (slots * layout.stride) as u64)?;
            Ok(Slab { device, memory, first: device * slots, slots })
        };
        let slabs = (0..devices).map(slab).collect::<Result<_>>()?;
        Ok(CudaBank { slabs, slots: devices * slots, table: None, gate, up, down, blob_words: layout.stride / 4 })
    }

    /// The bank of a layer whose experts are spread over several devices.
    fn spread(&mut self, experts: &Experts, layout: &Layout, devices: usize, home: usize) -> Result<CudaBank> {
        let room = layout.experts.len() / devices;
        let mut bank = self.bank(experts, devices, room)?;
        self.fill_bank(&bank, experts, &layout.experts)?;
        let mut table = vec![ABSENT; experts.len() * devices];
        for (slots, row) in layout.slots.iter().zip(table.chunks_mut(devices)) {
            slots.iter().for_each(|&slot| row[slot / room] = slot as u32);
        }
        let memory = Memory::on(self.driver, home, "table of experts' copies", (table.len() * 4) as u64)?;
        self.driver.write(memory.address, bytemuck::cast_slice(&table))?;
        bank.table = Some(memory);
        Ok(bank)
    }

    /// Packs into each slot the expert that is said to be there.
    fn fill_bank(&mut self, bank: &CudaBank, experts: &Experts, places: &[usize]) -> Result<()> {
        for (&e, slot) in places.iter().zip(0..) {
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
        let placement = Placement::on(&**driver, &model, cache_bytes, &options.experts)?;
        let several = placement.devices > 1;
        let total = if several { placement.weight_bytes(&model) } else { weight_bytes(&model, residency) };
        let all = total + cache_bytes * model.caches() as u64;
        if let Some(free) = driver.free_memory(0).filter(|&free| !several && all > free) {
            let positions = options.positions.max(1).next_multiple_of(PAGE);
            let what = format!("{} with its latent cache of {positions} positions", config.name);
            return Err(Error::OutOfMemory { what, bytes: all, limit: Some(free) });
        }
        let small = |what: &str, bytes: usize| Memory::new(driver, what, bytes as u64);
        let caches = (0..model.caches())
            .map(|layer| Memory::on(driver, placement.homes[layer], &format!("latent cache of layer {layer}"), cache_bytes))
            .collect::<Result<Vec<_>>>()?;
        let table = rope::table(&config.rope, dr, max_context);
        let table: &[u8] = bytemuck::cast_slice(&table);
        let rope = small("rotary table", table.len())?;
        driver.write(rope.address, table)?;
        let experts = config.moe.as_ref().map_or(0, |m| m.num_experts);
        let counter_len = model.layers.len() * experts;
        let partial = (0..residency.banks()).any(|b| residency.is_partial(b));
        // On several devices all experts are resident, and who chose them is not recorded.
        let slots = (!several && (partial || (options.experts.trace && residency.banks() > 0)))
            .then(|| CudaSlots::new(driver, &model, residency, options.experts.chunk.max(1)))
            .transpose()?;

        let mut up = Uploader { driver, packed: Vec::new(), done: 0, total, progress };
        (up.progress)(0, total);
        let mats = model.mats.iter().zip(&placement.mats).map(|(t, &d)| up.matrix(t, d)).collect::<Result<Vec<_>>>()?;
        let bank_homes = placement.bank_homes(&model);
        let mut banks = Vec::with_capacity(model.banks.len() + 1);
        for (b, experts) in model.all_banks().enumerate() {
            if let Some(layout) = placement.layouts.get(b) {
                banks.push(up.spread(experts, layout, placement.devices, bank_homes.get(b).copied().unwrap_or(0))?);
                continue;
            }
            // The module that drafts has all of its experts.
            let own = b >= residency.banks();
            let bank = up.bank(experts, 1, if own { experts.len() } else { residency.slots(b) })?;
            match host.as_deref_mut().filter(|_| residency.is_partial(b)) {
                Some(host) => up.fill_slots(&bank, b, residency, host)?,
                None => up.fill_bank(&bank, experts, &(0..experts.len()).collect::<Vec<_>>())?,
            }
            banks.push(bank);
        }
        (up.progress)(total, total);
        let mut vecs = Vec::with_capacity(model.vecs.len());
        for (v, &device) in model.vecs.iter().zip(&placement.vecs) {
            let memory = Memory::on(driver, device, "a norm or bias", (v.len() * 4) as u64)?;
            driver.write(memory.address, bytemuck::cast_slice(v))?;
            vecs.push(memory);
        }
        let (step_bytes, counter_bytes) = ((StepState::WORDS + max_pages) * 4, model.caches() * experts * 4);
        let (step, counters) = (small("step", step_bytes)?, small("activation counters", counter_bytes)?);
        let mut locals = vec![Local { step: step.address, rope: rope.address, counters: counters.address }];
        let mut owned = vec![rope, counters];
        for device in 1..placement.devices {
            let own = |what: &str, bytes: usize| Memory::on(driver, device, what, bytes as u64);
            let memories =
                [own("step", step_bytes)?, own("rotary table", table.len())?, own("activation counters", counter_bytes)?];
            let [step, rope, counters] = memories.each_ref().map(|m| m.address);
            driver.write(rope, table)?;
            locals.push(Local { step, rope, counters });
            owned.extend(memories);
        }
        Ok(Self {
            step,
            ids: small("token ids", MAX_IDS * 4)?,
            ring: small("sampled tokens", RING * RING_WORDS * 4)?,
            placement,
            locals,
            _locals: owned,
            driver: Arc::clone(driver),
            mats,
            banks,
            slots,
            vecs,
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

    /// Where `bytes` bytes from byte `offset` of a buffer on are, one piece after the other: the counters of a layer are where that
    /// is at home.
    pub fn pieces(&self, buffer: u64, offset: u64, bytes: usize) -> Vec<(u64, usize)> {
        let layers = self.model.layers.len();
        if self.locals.len() == 1 || buffer != self.locals[0].counters {
            return vec![(buffer + offset, bytes)];
        }
        let row = self.counter_len / layers.max(1) * 4;
        let wanted = offset as usize..offset as usize + bytes;
        let of = |(layer, &home): (usize, &usize)| {
            let (from, to) = (wanted.start.max(layer * row), wanted.end.min((layer + 1) * row));
            (from < to).then(|| (self.locals[home].counters + from as u64, to - from))
        };
        self.placement.homes.iter().take(layers).enumerate().filter_map(of).collect()
    }

    /// What steps read and write of it.
    pub fn shared(&self) -> Shared<u64> {
        let words = |m: &Memory| (m.address, m.bytes as usize / 4);
        Shared {
            model: Arc::clone(&self.model),
            step: self.step.address,
            ids: self.ids.address,
            ring: self.ring.address,
            counters: self.locals[0].counters,
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
