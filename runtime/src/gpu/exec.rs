//! Steps through prepared plans: one command encoder, one compute pass, one submission and one small readback each.
//!
//! Several steps may be in flight: the sampled token feeds the next step on the device, and each step copies its result to a
//! buffer of a ring made when the model was loaded. Nothing is created while decoding.

use std::{collections::VecDeque, sync::Arc};

use async_channel::Receiver;
use wgpu::{Buffer, BufferUsages, SubmissionIndex};

use super::{
    device::GpuDevice,
    plan::GpuPlan,
    state::{GpuState, RING_WORDS},
};
use crate::{
    error::{Error, Result},
    executor::{DeviceStats, LoadOptions, PlanId, Readback, StepOutput, Ticket},
    model::Model,
    plan::{Act, Kind, Plan},
    q8::Q8Rows,
    step::{RING, StepState},
};

/// Results that may be on their way at once.
const SLOTS: usize = 32;
/// Bytes of the sampled token's slot.
const TOKEN_BYTES: u64 = (RING_WORDS * 4) as u64;
/// Most bytes read back at a time.
const READ_BYTES: u64 = 64 << 20;

type Mapped = Receiver<Result<(), wgpu::BufferAsyncError>>;

/// A submitted step whose result was not fetched yet.
struct Pending {
    ticket: u64,
    submission: SubmissionIndex,
    readback: Readback,
    /// Where the result goes.
    slot: Option<(Buffer, Mapped)>,
    /// `sampled` as the step finds it unless generation has stopped.
    sampled: u32,
}

/// A model on a GPU, with its plans.
pub struct GpuExecutor {
    gpu: Arc<GpuDevice>,
    state: GpuState,
    plans: Vec<GpuPlan>,
    pending: VecDeque<Pending>,
    free: Vec<Buffer>,
    next_ticket: u64,
    /// What the host knows of the device's step state: tokens, position, sampled.
    tokens: u32,
    pos: u32,
    sampled: u32,
    last: StepOutput,
    stats: DeviceStats,
}

impl GpuExecutor {
    /// Uploads `model` to `device` and makes its latent caches. `progress` is called with bytes done and in all.
    ///
    /// # Errors
    ///
    /// Out of memory, a limit of the device, or its loss; the device may be used again after the first two.
    pub async fn load(
        device: Arc<GpuDevice>,
        model: Arc<Model>,
        options: &LoadOptions,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self> {
        let gpu = device;
        let state = GpuState::load(&gpu, model, options, progress).await?;
        let slot_bytes = TOKEN_BYTES + (state.counter_len * 4) as u64;
        let mut free = Vec::with_capacity(SLOTS);
        for _ in 0..SLOTS {
            free.push(gpu.buffer("readback", slot_bytes, BufferUsages::MAP_READ | BufferUsages::COPY_DST).await?);
        }
        let stats =
            DeviceStats { weight_bytes: state.weights.bytes, uploaded_bytes: state.weights.bytes, ..DeviceStats::default() };
        Ok(Self {
            gpu,
            state,
            plans: Vec::new(),
            pending: VecDeque::new(),
            free,
            next_ticket: 0,
            tokens: 0,
            pos: 0,
            sampled: 0,
            last: StepOutput::default(),
            stats,
        })
    }

    /// The device.
    pub fn device(&self) -> &Arc<GpuDevice> {
        &self.gpu
    }

    /// Prepares a plan: kernels, activation buffers, bind groups.
    ///
    /// # Errors
    ///
    /// Out of memory, a limit of the device, or a kernel that its driver refuses.
    pub fn compile(&mut self, plan: &Plan) -> Result<PlanId> {
        let plan = GpuPlan::compile(&self.gpu, &self.state, plan)?;
        self.stats.bind_groups += plan.bind_groups;
        self.plans.push(plan);
        Ok(PlanId(self.plans.len() - 1))
    }

    /// Sets what the next steps read. Entries of `pages` beyond the context are ignored.
    pub fn write_step(&mut self, step: &StepState, pages: &[u32]) {
        self.upload(&self.state.step.clone(), bytemuck::cast_slice(std::slice::from_ref(step)));
        self.write_pages(pages);
        // A slot that no step has written since then must not look like a result.
        self.upload(&self.state.ring.clone(), &[u32::MAX; RING * RING_WORDS]);
        (self.tokens, self.pos, self.sampled) = (step.tokens, step.pos, step.sampled);
    }

    /// Sets the pages alone: a session's next page, while it decodes.
    pub fn write_pages(&mut self, pages: &[u32]) {
        let pages = &pages[..pages.len().min(self.state.max_pages)];
        self.upload_at(&self.state.step.clone(), (StepState::WORDS * 4) as u64, pages);
    }

    /// Sets the token ids of the next step. More than a step can have are ignored.
    pub fn write_ids(&mut self, ids: &[u32]) {
        self.upload(&self.state.ids.clone(), &ids[..ids.len().min(super::state::MAX_IDS)]);
    }

    fn upload(&mut self, buffer: &Buffer, words: &[u32]) {
        self.upload_at(buffer, 0, words);
    }

    fn upload_at(&mut self, buffer: &Buffer, offset: u64, words: &[u32]) {
        if !words.is_empty() {
            self.gpu.queue.write_buffer(buffer, offset, bytemuck::cast_slice(words));
            self.stats.uploaded_bytes += (words.len() * 4) as u64;
        }
    }

    /// Starts a step of `tokens` tokens; what it reads was written before, or by the sampling step before it.
    ///
    /// # Errors
    ///
    /// A lost device, or a step that does not fit the plan or the context.
    pub fn submit(&mut self, plan: PlanId, tokens: usize, readback: Readback) -> Result<Ticket> {
        self.gpu.check()?;
        let length = self.fits(plan, tokens)?;
        let slot = if readback.token || readback.counters { Some(self.take_slot()?) } else { None };
        if tokens as u32 != self.tokens {
            self.upload(&self.state.step.clone(), &[tokens as u32]);
            self.tokens = tokens as u32;
        }
        let plan = &self.plans[plan.0];
        let mut encoder = self.gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some("step") });
        {
            let mut pass =
                encoder.begin_compute_pass(&wgpu::ComputePassDescriptor { label: Some("step"), timestamp_writes: None });
            self.stats.dispatches += plan.encode(&mut pass, tokens as u32, length as u32);
        }
        if let Some(slot) = &slot {
            if readback.token {
                let place = u64::from(self.sampled) % RING as u64 * TOKEN_BYTES;
                encoder.copy_buffer_to_buffer(&self.state.ring, place, slot, 0, TOKEN_BYTES);
            }
            if readback.counters && self.state.counter_len > 0 {
                let bytes = (self.state.counter_len * 4) as u64;
                encoder.copy_buffer_to_buffer(&self.state.counters, 0, slot, TOKEN_BYTES, bytes);
            }
        }
        let submission = self.gpu.queue.submit([encoder.finish()]);
        self.stats.submissions += 1;
        self.stats.readbacks += u64::from(slot.is_some());
        let slot = slot.map(|buffer| {
            let mapped = map(&buffer, buffer.size());
            (buffer, mapped)
        });
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.pending.push_back(Pending { ticket, submission, readback, slot, sampled: self.sampled });
        if plan.samples {
            self.pos += tokens as u32;
            self.tokens = 1;
            self.sampled += 1;
        }
        Ok(Ticket(ticket))
    }

    /// Checks a step against plan, step state and context; returns the positions that it sees.
    fn fits(&self, plan: PlanId, tokens: usize) -> Result<usize> {
        let plan = self.plans.get(plan.0).ok_or_else(|| Error::Invalid(format!("there is no plan {}", plan.0)))?;
        if tokens == 0 || tokens > plan.max_tokens {
            return Err(Error::Invalid(format!("a step of {tokens} tokens: the plan takes 1 to {}", plan.max_tokens)));
        }
        let (length, limit) = (self.pos as usize + tokens, self.state.max_context);
        if length > limit {
            let what = "positions of the context".into();
            return Err(Error::Limit { what, needed: length as u64, limit: limit as u64 });
        }
        Ok(length)
    }

    /// A free readback buffer; results that nobody fetched in time are given up, the oldest first.
    fn take_slot(&mut self) -> Result<Buffer> {
        while self.free.is_empty() {
            let Some(oldest) = self.pending.pop_front() else { break };
            if let Some((buffer, _)) = oldest.slot {
                buffer.unmap();
                self.free.push(buffer);
            }
        }
        self.free.pop().ok_or_else(|| Error::Gpu("no readback buffer is left".into()))
    }

    /// Waits for a step. A step that began after generation had stopped repeats the last token.
    ///
    /// # Errors
    ///
    /// A lost device; a ticket whose result was fetched or given up.
    pub async fn wait(&mut self, ticket: Ticket) -> Result<StepOutput> {
        let at = self.pending.iter().position(|p| p.ticket == ticket.0);
        let Some(p) = at.and_then(|i| self.pending.remove(i)) else {
            return Err(Error::Invalid(format!("the result of step {} is not waiting", ticket.0)));
        };
        let Some((buffer, mapped)) = p.slot else {
            if cfg!(target_arch = "wasm32") {
                self.gpu.idle().await?;
            } else {
                self.gpu.block(Some(p.submission))?;
            }
            self.gpu.check()?;
            return Ok(StepOutput::default());
        };
        let words = read_mapped(&self.gpu, &buffer, buffer.size(), &mapped, Some(p.submission)).await?;
        self.free.push(buffer);
        self.gpu.check()?;
        let (slot, counters) = words.split_at(RING_WORDS.min(words.len()));
        // A step after the end leaves the slot alone, or says that it came after the end.
        if let (true, &[token, logit, 0, sampled]) = (p.readback.token, slot)
            && sampled == p.sampled
        {
            (self.last.token, self.last.logit) = (token, f32::from_bits(logit));
        }
        let counters = p.readback.counters.then(|| counters.get(..self.state.counter_len).unwrap_or_default().to_vec());
        Ok(StepOutput { counters, ..self.last.clone() })
    }

    /// Reads the first `rows` rows of an activation as bits (8-bit rows: the f32 values that they stand for).
    pub async fn read_act(&mut self, plan: PlanId, act: Act, rows: usize) -> Result<Vec<u32>> {
        let gpu_act = self.plan_act(plan, act)?;
        let words = rows.min(gpu_act.rows) * gpu_act.row_words;
        let (buffer, kind) = (gpu_act.buffer.clone(), gpu_act.kind);
        let words = self.read(&buffer, words).await?;
        Ok(match kind {
            Kind::F32 | Kind::U32 => words,
            Kind::Q8 => self.plan_act(plan, act)?.dequantise(&words).into_iter().map(f32::to_bits).collect(),
        })
    }

    /// Sets the first rows of an activation from bits (8-bit rows: from the f32 values to quantise).
    pub fn write_act(&mut self, plan: PlanId, act: Act, bits: &[u32]) -> Result<()> {
        let act = self.plan_act(plan, act)?;
        let most = act.rows * act.width;
        if bits.len() > most || !bits.len().is_multiple_of(act.width) {
            return Err(Error::Invalid(format!("{} elements for activation `{}` of {most}", bits.len(), act.name)));
        }
        let buffer = act.buffer.clone();
        match act.kind {
            Kind::F32 | Kind::U32 => self.upload(&buffer, bits),
            Kind::Q8 => {
                let width = act.width / act.parts;
                let mut rows = Q8Rows::new(bits.len() / width, width);
                for (r, row) in bits.chunks(width).enumerate() {
                    rows.set(r, &row.iter().map(|&b| f32::from_bits(b)).collect::<Vec<_>>());
                }
                let words = act.words_of(&rows);
                self.upload(&buffer, &words);
            }
        }
        Ok(())
    }

    fn plan_act(&self, plan: PlanId, act: Act) -> Result<&super::plan::GpuAct> {
        self.plans.get(plan.0).ok_or_else(|| Error::Invalid(format!("there is no plan {}", plan.0)))?.act(act)
    }

    /// The activation counters, `[layers, E]`.
    pub async fn read_counters(&mut self) -> Result<Vec<u32>> {
        self.read(&self.state.counters.clone(), self.state.counter_len).await
    }

    /// Sets the activation counters to zero.
    pub fn reset_counters(&mut self) {
        self.upload(&self.state.counters.clone(), &vec![0; self.state.counter_len]);
    }

    /// The raw words of a layer's latent cache (tests).
    pub async fn read_cache(&mut self, layer: usize) -> Result<Vec<u32>> {
        let cache = self.state.caches.get(layer).ok_or_else(|| Error::Invalid(format!("there is no layer {layer}")))?.clone();
        self.read(&cache, (cache.size() / 4) as usize).await
    }

    /// Sets the first words of a layer's latent cache (tests).
    pub fn write_cache(&mut self, layer: usize, data: &[u32]) -> Result<()> {
        let cache = self.state.caches.get(layer).ok_or_else(|| Error::Invalid(format!("there is no layer {layer}")))?.clone();
        self.upload(&cache, &data[..data.len().min((cache.size() / 4) as usize)]);
        Ok(())
    }

    /// The step state as the device has it, without the page table (tests).
    pub async fn read_step(&mut self) -> Result<StepState> {
        let words = self.read(&self.state.step.clone(), StepState::WORDS).await?;
        Ok(bytemuck::pod_read_unaligned(bytemuck::cast_slice(&words)))
    }

    /// Reads the first `words` words of `buffer`.
    async fn read(&mut self, buffer: &Buffer, words: usize) -> Result<Vec<u32>> {
        let bytes = words as u64 * 4;
        let mut out = Vec::with_capacity(words);
        if bytes == 0 {
            return Ok(out);
        }
        let piece = bytes.min(READ_BYTES);
        let staging = self.gpu.buffer("readback", piece, BufferUsages::MAP_READ | BufferUsages::COPY_DST).await?;
        for at in (0..bytes).step_by(READ_BYTES as usize) {
            let size = piece.min(bytes - at);
            let mut encoder = self.gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some("readback") });
            encoder.copy_buffer_to_buffer(buffer, at, &staging, 0, size);
            let submission = self.gpu.queue.submit([encoder.finish()]);
            self.stats.submissions += 1;
            self.stats.readbacks += 1;
            let mapped = map(&staging, size);
            out.extend(read_mapped(&self.gpu, &staging, size, &mapped, Some(submission)).await?);
        }
        self.gpu.check()?;
        Ok(out)
    }

    /// What the device did so far.
    pub fn stats(&self) -> DeviceStats {
        self.stats
    }
}

/// Starts mapping the first `size` bytes of `buffer`.
fn map(buffer: &Buffer, size: u64) -> Mapped {
    let (done, mapped) = async_channel::bounded(1);
    buffer.map_async(wgpu::MapMode::Read, 0..size, move |result| {
        let _ = done.try_send(result);
    });
    mapped
}

/// Waits until `buffer` is mapped, and copies its first `size` bytes out.
async fn read_mapped(
    gpu: &GpuDevice,
    buffer: &Buffer,
    size: u64,
    mapped: &Mapped,
    submission: Option<SubmissionIndex>,
) -> Result<Vec<u32>> {
    if mapped.is_empty() {
        gpu.block(submission)?;
    }
    match mapped.recv().await {
        Ok(Ok(())) => {}
        Ok(Err(e)) => return Err(gpu.failed(&format!("reading back: {e}"))),
        Err(_) => return Err(gpu.failed("reading back: the device gave no answer")),
    }
    let words = {
        let view = buffer.get_mapped_range(0..size).map_err(|e| gpu.failed(&format!("reading back: {e}")))?;
        let mut words = vec![0u32; view.len() / 4];
        bytemuck::cast_slice_mut(&mut words).copy_from_slice(&view);
        words
    };
    buffer.unmap();
    Ok(words)
}
