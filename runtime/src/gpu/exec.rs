//! Steps through prepared plans: one command encoder, one compute pass, one submission and one small readback each.
//!
//! Several steps may be in flight: the sampled token feeds the next step on the device, and each step copies its result to a
//! buffer of a ring made when the model was loaded. Nothing is created while decoding. A step whose layers miss experts takes
//! more than one submission: see `serve`.

use std::{collections::VecDeque, sync::Arc};

use web_time::Instant;
use wgpu::{Buffer, BufferUsages, SubmissionIndex};

use super::{
    device::GpuDevice,
    lower,
    pipelines::Variant,
    plan::{GpuPlan, Part, StepShape},
    readback::{Layout, Mapped, Taken, map},
    serve::Server,
    slots::CHOICE_WORDS,
    state::{GpuState, RING_WORDS},
};
use crate::{
    error::{Error, Result},
    executor::{DeviceStats, LoadOptions, PlanId, Readback, StepOutput, Ticket},
    experts::{ExpertReport, policy::ABSENT, trace::Served, ways::Way},
    model::Model,
    plan::{Act, Kind, Plan, VecId},
    q8::Q8Rows,
    step::{MAX_TAKEN, RING, StepState},
};

/// Results that may be on their way at once.
const SLOTS: usize = 32;
/// Bytes of the sampled token's slot.
const TOKEN_BYTES: u64 = (RING_WORDS * 4) as u64;
/// Kernels that a browser compiles at a time.
const TOGETHER: usize = 4;

/// What a step was asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    pub plan: usize,
    pub tokens: u32,
    /// Positions that the cache holds after it.
    pub length: u32,
    pub readback: Readback,
    /// `sampled` as the step finds it unless generation has stopped.
    pub sampled: u32,
}

/// A part of a step on its way.
pub(super) struct Flight {
    pub submission: SubmissionIndex,
    /// Where its result goes.
    pub slot: Option<(Buffer, Mapped)>,
    pub layout: Layout,
    /// The operation before which it ends.
    pub end: usize,
}

/// How far a step is.
pub(super) enum Stage {
    /// Not submitted: steps before it may have to be taken up again, or it takes more than one submission.
    Waiting,
    /// Submitted, to its end or to a layer on the way.
    Running(Flight),
    /// Over.
    Done(StepOutput),
}

/// A step whose result was not fetched yet.
pub(super) struct Pending {
    pub ticket: u64,
    pub run: Run,
    pub stage: Stage,
    /// How its misses are served.
    pub way: Option<Way>,
    pub started: Instant,
    /// Misses served so far: bank, expert, how.
    pub served: Vec<(usize, u16, Served)>,
}

/// A model on a GPU, with its plans.
pub struct GpuExecutor {
    pub(super) gpu: Arc<GpuDevice>,
    pub(super) state: GpuState,
    /// Where experts live in slots, or their use is recorded.
    pub(super) server: Option<Box<Server>>,
    pub(super) plans: Vec<GpuPlan>,
    pub(super) pending: VecDeque<Pending>,
    /// Buffers to read back by.
    pub(super) free: Vec<Buffer>,
    next_ticket: u64,
    /// What the host knows of the device's step state: tokens, position, sampled.
    pub(super) tokens: u32,
    /// How many of these tokens are drafts.
    drafted: u32,
    /// Where steps under way end if all drafts are right.
    pos: u32,
    sampled: u32,
    last: StepOutput,
    report: ExpertReport,
    pub(super) stats: DeviceStats,
}

impl GpuExecutor {
    /// Uploads `model` to `device` and makes its latent caches. `progress` is called with bytes done and in all.
    ///
    /// Where the budget, or the device, does not hold all experts, as many as fit get slots.
    ///
    /// # Errors
    ///
    /// Out of memory, a limit of the device, or its loss; the device may be used again after the first two. A budget that does
    /// not hold what a token needs at the least.
    pub async fn load(
        device: Arc<GpuDevice>,
        model: Arc<Model>,
        options: &LoadOptions,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self> {
        let gpu = device;
        let (state, server, report) = super::serve::load(&gpu, model, options, progress).await?;
        let banks = state.model.banks.len();
        let top_k = state.model.config.moe.as_ref().map_or(0, |m| m.top_k);
        // Tokens of a step that decodes.
        let tokens = if state.model.mtp.is_some() { MAX_TAKEN } else { 1 };
        let taken = if state.model.mtp.is_some() { StepState::TAKEN.1 } else { 0 };
        let record = if state.slots.is_some() { tokens * banks * top_k * CHOICE_WORDS } else { 0 };
        // Of each; its experts read h values, in 8 bits or in f32, or in both.
        let rows = if server.as_ref().is_some_and(|s| s.partial()) { tokens * state.model.config.hidden_size * 2 } else { 0 };
        let slot_words = Layout { record, rows, counters: state.counter_len, taken }.words();
        let mut free = Vec::with_capacity(SLOTS);
        for _ in 0..SLOTS {
            let usage = BufferUsages::MAP_READ | BufferUsages::COPY_DST;
            free.push(gpu.buffer("readback", (slot_words * 4) as u64, usage).await?);
        }
        gpu.settled().await?;
        let stats =
            DeviceStats { weight_bytes: state.weights.bytes, uploaded_bytes: state.weights.bytes, ..DeviceStats::default() };
        Ok(Self {
            gpu,
            state,
            server,
            plans: Vec::new(),
            pending: VecDeque::new(),
            free,
            next_ticket: 0,
            tokens: 0,
            drafted: 0,
            pos: 0,
            sampled: 0,
            last: StepOutput::default(),
            report,
            stats,
        })
    }

    /// The device.
    pub fn device(&self) -> &Arc<GpuDevice> {
        &self.gpu
    }

    /// Prepares plans without blocking: kernels, each known to be taken by the driver, then buffers and bind groups. `progress` is called with kernels done and in all.
    ///
    /// # Errors
    ///
    /// Those of [`GpuExecutor::compile`].
    pub async fn prepare(&mut self, plans: &[Plan], progress: &mut dyn FnMut(u64, u64)) -> Result<Vec<PlanId>> {
        let mut kernels: Vec<Variant> = Vec::new();
        for plan in plans {
            for kernel in lower::kernels(&self.gpu, &self.state, plan)? {
                if !kernels.contains(&kernel) {
                    kernels.push(kernel);
                }
            }
            self.gpu.settled().await?;
        }
        let all = kernels.len() as u64;
        progress(0, all);
        let mut done = 0;
        for some in kernels.chunks(TOGETHER) {
            let begun = some.iter().map(|kernel| self.gpu.begin(kernel)).collect::<Result<Vec<_>>>()?;
            for kernel in begun {
                self.gpu.end(kernel).await?;
                done += 1;
                progress(done, all);
            }
        }
        let mut ids = Vec::with_capacity(plans.len());
        for plan in plans {
            ids.push(self.compile(plan)?);
            self.gpu.settled().await?;
        }
        Ok(ids)
    }

    /// Prepares a plan: kernels, activation buffers, bind groups.
    ///
    /// # Errors
    ///
    /// Out of memory, a limit of the device, or a kernel that its driver refuses.
    pub fn compile(&mut self, plan: &Plan) -> Result<PlanId> {
        if let Some(slots) = self.state.slots.as_ref().filter(|s| plan.max_tokens > s.tokens) {
            let (needed, limit) = (plan.max_tokens as u64, slots.tokens as u64);
            return Err(Error::Limit { what: "tokens of one step, as the model was loaded".into(), needed, limit });
        }
        let plan = GpuPlan::compile(&self.gpu, &self.state, plan)?;
        self.stats.bind_groups += plan.bind_groups;
        self.plans.push(plan);
        Ok(PlanId(self.plans.len() - 1))
    }

    /// Sets what the next steps read. Entries of `pages` beyond the context are ignored.
    pub fn write_step(&mut self, step: &StepState, pages: &[u32]) {
        let on_miss = self.server.as_mut().map_or(0, |s| {
            // What follows has not to do with the token before.
            s.last_done = None;
            s.on_miss
        });
        let step = StepState { halt: 0, on_miss, ..*step };
        self.upload(&self.state.step.clone(), bytemuck::cast_slice(std::slice::from_ref(&step)));
        self.write_pages(pages);
        // A slot that no step has written since then must not look like a result.
        self.upload(&self.state.ring.clone(), &[u32::MAX; RING * RING_WORDS]);
        (self.tokens, self.drafted) = (step.tokens, step.drafted);
        (self.pos, self.sampled) = (step.pos, step.sampled);
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

    /// Replaces a vector of weights.
    pub fn write_vector(&mut self, id: VecId, values: &[f32]) {
        let Some(place) = self.state.weights.vector_places.get(id.0 as usize).copied() else { return };
        let words: &[u32] = bytemuck::cast_slice(values);
        let words = &words[..words.len().min((place.size / 4) as usize)];
        self.upload_at(&self.state.weights.vectors.clone(), place.offset, words);
    }

    pub(super) fn upload(&mut self, buffer: &Buffer, words: &[u32]) {
        self.upload_at(buffer, 0, words);
    }

    pub(super) fn upload_at(&mut self, buffer: &Buffer, offset: u64, words: &[u32]) {
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
        let length = self.fits(plan, tokens)? as u32;
        let run = Run { plan: plan.0, tokens: tokens as u32, length, readback, sampled: self.sampled };
        // Steps that may miss experts are completed in order, and none is given up.
        if self.server.is_none() && (readback.token || readback.counters) {
            self.reclaim();
        }
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.pending.push_back(Pending {
            ticket,
            run,
            stage: Stage::Waiting,
            way: None,
            started: Instant::now(),
            served: Vec::new(),
        });
        let last = self.pending.len() - 1;
        if self.may_start(last)
            && let Err(e) = self.start(last)
        {
            // Nobody has a ticket for it.
            self.pending.pop_back();
            return Err(e);
        }
        if self.plans[plan.0].samples {
            self.pos += tokens as u32;
            self.sampled += 1;
        }
        Ok(Ticket(ticket))
    }

    /// Submits operations of step `i` from `from` on, after `lead`, up to `end`, with its readback.
    pub(super) fn send(&mut self, i: usize, lead: &[Part], from: usize, end: usize) -> Result<()> {
        let Some(p) = self.pending.get(i) else { return Ok(()) };
        let run = p.run;
        let plan = &self.plans[run.plan];
        let whole = end == plan.ops;
        let tracked = self.state.slots.is_some();
        // Misses are known from the record; without layers that miss it is of interest once, at the end.
        let misses = self.server.as_ref().is_some_and(|s| s.partial());
        let (token, counters) = (whole && run.readback.token, whole && run.readback.counters);
        let layout = Layout {
            record: if tracked && (whole || misses) {
                plan.mixtures.len() * run.tokens as usize * plan.top_k() * CHOICE_WORDS
            } else {
                0
            },
            rows: if self.wants_rows(i) { plan.cold_words(run.tokens as usize) } else { 0 },
            counters: if counters { self.state.counter_len } else { 0 },
            taken: if token && plan.verifies > 0 { StepState::TAKEN.1 } else { 0 },
        };
        let reads = token || counters || layout.record > 0;
        let slot = if reads { Some(self.take_slot(layout.words())?) } else { None };
        if run.tokens != self.tokens {
            self.upload(&self.state.step.clone(), &[run.tokens]);
            self.tokens = run.tokens;
        }
        let drafted = self.plans[run.plan].verifies.saturating_sub(1) as u32;
        if self.plans[run.plan].verifies > 0 && drafted != self.drafted {
            self.upload_at(&self.state.step.clone(), StepState::DRAFTED, &[drafted]);
            self.drafted = drafted;
        }
        let plan = &self.plans[run.plan];
        let mut encoder = self.gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some("step") });
        {
            let gather = self.pending[i].way == Some(Way::Gather);
            let shape = StepShape { tokens: run.tokens, length: run.length, gather };
            let mut pass =
                encoder.begin_compute_pass(&wgpu::ComputePassDescriptor { label: Some("step"), timestamp_writes: None });
            for part in lead.iter().chain([&Part::Ops(from..end)]) {
                self.stats.dispatches += plan.encode(&mut pass, part, shape);
            }
        }
        if let Some(slot) = &slot {
            let mut at = 0;
            let mut copy = |from: &Buffer, offset: u64, words: usize, place: u64| {
                encoder.copy_buffer_to_buffer(from, offset, slot, place, (words * 4) as u64);
            };
            if token && layout.taken == 0 {
                copy(&self.state.ring, u64::from(run.sampled) % RING as u64 * TOKEN_BYTES, RING_WORDS, 0);
            }
            if misses {
                copy(&self.state.step, StepState::HALT, 1, TOKEN_BYTES);
            }
            at += Layout::HEAD;
            if let Some(slots) = self.state.slots.as_ref().filter(|_| layout.record > 0) {
                copy(&slots.tables, (slots.record * 4) as u64, layout.record, (at * 4) as u64);
            }
            at += layout.record;
            if layout.rows > 0 {
                for act in plan.cold_inputs() {
                    let words = act.row_words * run.tokens as usize;
                    copy(&act.buffer, 0, words, (at * 4) as u64);
                    at += words;
                }
            }
            if layout.counters > 0 {
                copy(&self.state.counters, 0, layout.counters, (at * 4) as u64);
            }
            at += layout.counters;
            if layout.taken > 0 {
                copy(&self.state.step, StepState::TAKEN.0, layout.taken, (at * 4) as u64);
            }
        }
        let submission = self.gpu.queue.submit([encoder.finish()]);
        self.stats.submissions += 1;
        self.stats.readbacks += u64::from(slot.is_some());
        let slot = slot.map(|buffer| {
            let mapped = map(&buffer, (layout.words() * 4) as u64);
            (buffer, mapped)
        });
        if whole && plan.samples {
            self.tokens = plan.drafts as u32 + 1;
            if plan.verifies > 0 {
                self.drafted = plan.drafts as u32;
            }
        }
        self.pending[i].stage = Stage::Running(Flight { submission, slot, layout, end });
        Ok(())
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

    /// Waits for a step. A step that began after generation had stopped repeats the last token.
    ///
    /// # Errors
    ///
    /// A lost device; a ticket whose result was fetched or given up.
    pub async fn wait(&mut self, ticket: Ticket) -> Result<StepOutput> {
        let Some(at) = self.pending.iter().position(|p| p.ticket == ticket.0) else {
            return Err(Error::Invalid(format!("the result of step {} is not waiting", ticket.0)));
        };
        // Steps may miss experts: they are completed in order.
        let first = if self.server.is_some() { 0 } else { at };
        for i in first..=at {
            if let Err(e) = self.complete(i).await {
                // What else is under way is of no use any more.
                while let Some(mut p) = self.pending.pop_front() {
                    self.give_up(&mut p);
                }
                return Err(e);
            }
        }
        match self.pending.remove(at).map(|p| p.stage) {
            Some(Stage::Done(output)) => Ok(output),
            _ => Err(Error::Invalid(format!("the result of step {} is not waiting", ticket.0))),
        }
    }

    /// The result of a run from what it has read back, and whether it came before the end of the generation.
    pub(super) fn output(&mut self, run: &Run, words: &[u32], layout: Layout) -> (StepOutput, bool) {
        let slot = words.get(..RING_WORDS).unwrap_or_default();
        let mut alive = true;
        self.last.before.clear();
        if layout.taken > 0 {
            let taken = Taken::of(words, layout);
            alive = taken.count > 0;
            if let Some((last, before)) = taken.tokens.split_last() {
                (self.last.token, self.last.logit) = *last;
                self.last.before = before.to_vec();
                // What was counted on was that all drafts are right.
                self.pos = self.pos.saturating_sub(self.plans[run.plan].verifies as u32 - taken.count);
                self.sampled += taken.count - 1;
            }
        } else if run.readback.token {
            // A step after the end leaves the slot alone, or says that it came after the end.
            match *slot {
                [token, logit, 0, sampled] if sampled == run.sampled => {
                    (self.last.token, self.last.logit) = (token, f32::from_bits(logit));
                }
                _ => alive = false,
            }
        }
        let at = Layout::HEAD + layout.record + layout.rows;
        let counters = run.readback.counters.then(|| words.get(at..at + layout.counters).unwrap_or_default().to_vec());
        (StepOutput { counters, routed: None, ..self.last.clone() }, alive)
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

    /// What the device did so far.
    pub fn stats(&self) -> DeviceStats {
        self.stats
    }

    /// Which experts the device holds: `[mixture layers, E]`. One more readback while kernels keep the tables.
    pub async fn resident(&mut self) -> Result<Vec<bool>> {
        let slots = self.state.slots.as_ref().map(|s| (s.tables.clone(), s.experts, s.record));
        let (Some(server), Some((tables, experts, words))) = (self.server.as_ref(), slots) else {
            return Ok(vec![true; self.state.model.banks.len() * self.report.experts]);
        };
        let banks = server.residency.banks();
        if !server.gathering {
            let table = |bank| server.residency.table(bank).iter().map(|&slot| slot != ABSENT);
            return Ok((0..banks).flat_map(table).collect());
        }
        Ok(self.read(&tables, words).await?.iter().take(banks * experts).map(|&slot| slot != ABSENT).collect())
    }

    /// Where experts are, and how misses are served.
    pub fn experts(&self) -> ExpertReport {
        let ways = self.server.as_ref().filter(|s| s.partial()).map(|s| s.ways());
        ExpertReport { ways, ..self.report.clone() }
    }
}
