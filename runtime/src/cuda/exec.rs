//! Steps through prepared plans: launches in one stream, a graph where one token is decoded, one small copy back each.
//!
//! Position, page table, sampling and token ids live in device memory, so a graph that was captured once serves every token.
//! Several steps may be in flight: the sampled token feeds the next step on the device.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use super::{
    driver::{Driver, Fetch, Graph, Launch, Memory},
    lower::{self, Dispatch},
    state::{self, CudaState, MAX_IDS, RING_WORDS},
};
use crate::{
    error::{Error, Result},
    executor::{DeviceStats, LoadOptions, PlanId, Readback, StepOutput, Ticket},
    experts::{ExpertReport, residency::Residency},
    gpu::lower::{When, most_rows, parts_of, row_words},
    model::Model,
    plan::{Act, ActDecl, Kind, Op, Plan, VecId},
    q8::Q8Rows,
    step::{RING, StepState},
};

/// Results that may be on their way at once.
const FETCHES: usize = 32;
/// Bytes of the sampled token's slot.
const TOKEN_BYTES: usize = RING_WORDS * 4;

/// An activation of a prepared plan.
struct CudaAct {
    decl: ActDecl,
    memory: Arc<Memory>,
    /// Rows of their own in each row (8-bit activations).
    parts: usize,
    /// The most rows.
    rows: usize,
}

/// A prepared plan.
struct CudaPlan {
    dispatches: Vec<Dispatch>,
    acts: Vec<CudaAct>,
    /// Launches point to them.
    _scratch: Vec<Arc<Memory>>,
    max_tokens: usize,
    /// Whether it ends by sampling the next token.
    samples: bool,
    /// Operations.
    ops: usize,
    /// Last lengths of the steps that are launched alike, ascending.
    bounds: Vec<u32>,
    /// Graphs of one token's step, by its place among `bounds`.
    graphs: HashMap<usize, (Graph, u64)>,
}

/// A step whose result was not fetched yet.
struct Pending {
    ticket: u64,
    readback: Readback,
    /// `sampled` as the step finds it unless generation has stopped.
    sampled: u32,
    fetch: Option<Fetch>,
}

/// A model on a CUDA device, with its plans.
pub struct CudaExecutor {
    state: CudaState,
    plans: Vec<CudaPlan>,
    pending: VecDeque<Pending>,
    next_ticket: u64,
    /// What the host knows of the device's step state: tokens, position, sampled.
    tokens: u32,
    pos: u32,
    sampled: u32,
    last: StepOutput,
    stats: DeviceStats,
    /// A write that failed, and where no error could be returned.
    failed: Option<Error>,
}

impl CudaExecutor {
    /// Uploads `model`, with all its experts, and makes its latent caches. `progress` is called with bytes done and in all.
    ///
    /// # Errors
    ///
    /// Out of memory, a budget that does not hold the whole model, or an error of the driver.
    pub async fn load(
        driver: Arc<dyn Driver>,
        model: Arc<Model>,
        options: &LoadOptions,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self> {
        let residency = Residency::whole(&model);
        let all = state::weight_bytes(&model, &residency) + state::cache_bytes(&model, options) * model.caches() as u64;
        if let Some(budget) = options.experts.budget.filter(|&b| all > b) {
            let what = format!("{} with all its experts on the GPU", model.config.name);
            return Err(Error::Budget { what, budget, least: all });
        }
        let state = CudaState::load(&driver, model, options, &residency, None, progress)?;
        let stats =
            DeviceStats { weight_bytes: state.weight_bytes, uploaded_bytes: state.weight_bytes, ..DeviceStats::default() };
        let (plans, pending, last) = (Vec::new(), VecDeque::new(), StepOutput::default());
        Ok(Self { state, plans, pending, next_ticket: 0, tokens: 0, pos: 0, sampled: 0, last, stats, failed: None })
    }

    /// The device.
    pub fn driver(&self) -> &Arc<dyn Driver> {
        &self.state.driver
    }

    /// Prepares a plan: kernels, activations, launches.
    ///
    /// # Errors
    ///
    /// Out of memory, a limit of the device, or a kernel that cannot be compiled.
    pub fn compile(&mut self, plan: &Plan) -> Result<PlanId> {
        if plan.max_tokens == 0 || plan.max_tokens > MAX_IDS {
            let (needed, limit) = (plan.max_tokens as u64, MAX_IDS as u64);
            return Err(Error::Limit { what: "tokens of one step".into(), needed, limit });
        }
        let lowered = lower::lower(&self.state, plan)?;
        let acts = plan.acts.iter().zip(lowered.acts).enumerate().map(|(i, (decl, memory))| CudaAct {
            parts: parts_of(plan, Act(i as u32)),
            rows: most_rows(decl, plan.max_tokens),
            decl: decl.clone(),
            memory,
        });
        let starts = lowered.dispatches.iter().map(|d| d.case.length.0).filter(|&from| from > 0).map(|from| from - 1);
        let ends = lowered.dispatches.iter().map(|d| d.case.length.1);
        let mut bounds: Vec<u32> = starts.chain(ends).chain([u32::MAX]).collect();
        bounds.sort_unstable();
        bounds.dedup();
        self.plans.push(CudaPlan {
            acts: acts.collect(),
            dispatches: lowered.dispatches,
            _scratch: lowered.scratch,
            max_tokens: plan.max_tokens,
            samples: plan.ops.iter().any(|op| matches!(op, Op::Sample { .. })),
            ops: plan.ops.len(),
            bounds,
            graphs: HashMap::new(),
        });
        Ok(PlanId(self.plans.len() - 1))
    }

    /// Sets what the next steps read. Entries of `pages` beyond the context are ignored.
    pub fn write_step(&mut self, step: &StepState, pages: &[u32]) {
        let step = StepState { halt: 0, on_miss: 0, ..*step };
        self.upload(self.state.step.address, bytemuck::bytes_of(&step));
        self.write_pages(pages);
        // A slot that no step has written since then must not look like a result.
        self.upload(self.state.ring.address, &[0xff; RING * TOKEN_BYTES]);
        (self.tokens, self.pos, self.sampled) = (step.tokens, step.pos, step.sampled);
    }

    /// Sets the pages alone: a session's next page, while it decodes.
    pub fn write_pages(&mut self, pages: &[u32]) {
        let pages = &pages[..pages.len().min(self.state.max_pages)];
        self.upload(self.state.step.address + (StepState::WORDS * 4) as u64, bytemuck::cast_slice(pages));
    }

    /// Sets the token ids of the next step. More than a step can have are ignored.
    pub fn write_ids(&mut self, ids: &[u32]) {
        self.upload(self.state.ids.address, bytemuck::cast_slice(&ids[..ids.len().min(MAX_IDS)]));
    }

    /// Replaces a vector of weights.
    pub fn write_vector(&mut self, id: VecId, values: &[f32]) {
        let Some(memory) = self.state.vecs.get(id.0 as usize) else { return };
        let n = values.len().min(memory.bytes as usize / 4);
        self.upload(memory.address, bytemuck::cast_slice(&values[..n]));
    }

    /// Writes; an error shows at the next step.
    fn upload(&mut self, address: u64, data: &[u8]) {
        if data.is_empty() {
            return;
        }
        match self.state.driver.write(address, data) {
            Ok(()) => self.stats.uploaded_bytes += data.len() as u64,
            Err(e) => self.failed = self.failed.take().or(Some(e)),
        }
    }

    fn plan(&self, plan: PlanId) -> Result<&CudaPlan> {
        self.plans.get(plan.0).ok_or_else(|| Error::Invalid(format!("there is no plan {}", plan.0)))
    }

    /// Starts a step of `tokens` tokens; what it reads was written before, or by the sampling step before it.
    ///
    /// # Errors
    ///
    /// An error of the driver, or a step that does not fit the plan or the context.
    pub fn submit(&mut self, plan: PlanId, tokens: usize, readback: Readback) -> Result<Ticket> {
        let p = self.plan(plan)?;
        if tokens == 0 || tokens > p.max_tokens {
            return Err(Error::Invalid(format!("a step of {tokens} tokens: the plan takes 1 to {}", p.max_tokens)));
        }
        let samples = p.samples;
        let (length, limit) = (self.pos as usize + tokens, self.state.max_context);
        if length > limit {
            let what = "positions of the context".into();
            return Err(Error::Limit { what, needed: length as u64, limit: limit as u64 });
        }
        let tokens = tokens as u32;
        if tokens != self.tokens {
            self.upload(self.state.step.address, &tokens.to_ne_bytes());
            self.tokens = tokens;
        }
        if let Some(e) = self.failed.take() {
            return Err(e);
        }
        self.start(plan, tokens, length as u32)?;
        let fetch = self.fetch(readback)?;
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.pending.push_back(Pending { ticket, readback, sampled: self.sampled, fetch });
        if samples {
            self.tokens = 1;
            self.pos += tokens;
            self.sampled += 1;
        }
        Ok(Ticket(ticket))
    }

    /// Starts a step's kernels: by a graph, where one token is decoded.
    fn start(&mut self, plan: PlanId, tokens: u32, length: u32) -> Result<()> {
        let driver = Arc::clone(&self.state.driver);
        let Some(plan) = self.plans.get_mut(plan.0) else { return Ok(()) };
        self.stats.submissions += 1;
        if tokens == 1 && plan.samples {
            let class = plan.bounds.partition_point(|&end| end < length);
            let (graph, kernels) = match plan.graphs.get(&class) {
                Some(&graph) => graph,
                None => {
                    let launches: Vec<Launch> = plan.launches(tokens, length).collect();
                    let graph = (driver.capture(&launches)?, launches.len() as u64);
                    plan.graphs.insert(class, graph);
                    graph
                }
            };
            self.stats.dispatches += kernels;
            return driver.replay(graph);
        }
        for launch in plan.launches(tokens, length) {
            driver.launch(&launch)?;
            self.stats.dispatches += 1;
        }
        Ok(())
    }

    /// Starts copying a step's result.
    fn fetch(&mut self, readback: Readback) -> Result<Option<Fetch>> {
        if !readback.token && !readback.counters {
            return Ok(None);
        }
        // Results that nobody fetched in time are given up, the oldest first.
        while self.pending.iter().filter(|p| p.fetch.is_some()).count() >= FETCHES {
            let oldest = self.pending.iter().position(|p| p.fetch.is_some()).and_then(|i| self.pending.remove(i));
            let Some(fetch) = oldest.and_then(|p| p.fetch) else { break };
            self.state.driver.forget(fetch);
        }
        let mut spans = Vec::new();
        if readback.token {
            spans.push((self.state.ring.address + u64::from(self.sampled) % RING as u64 * TOKEN_BYTES as u64, TOKEN_BYTES));
        }
        if readback.counters {
            spans.push((self.state.counters.address, self.state.counter_len * 4));
        }
        self.stats.readbacks += 1;
        self.state.driver.fetch(&spans).map(Some)
    }

    /// Waits for a step. A step that began after generation had stopped repeats the last token.
    ///
    /// # Errors
    ///
    /// An error of the driver; a ticket whose result was fetched or given up.
    pub async fn wait(&mut self, ticket: Ticket) -> Result<StepOutput> {
        let at = self.pending.iter().position(|p| p.ticket == ticket.0);
        let Some(step) = at.and_then(|at| self.pending.remove(at)) else {
            return Err(Error::Invalid(format!("the result of step {} is not waiting", ticket.0)));
        };
        let bytes = match step.fetch {
            Some(fetch) => self.state.driver.fetched(fetch)?,
            // Whoever waits for a step without a result waits for its end.
            None => self.read(self.state.step.address, 4)?,
        };
        let words: Vec<u32> = bytes.as_chunks().0.iter().map(|&w| u32::from_ne_bytes(w)).collect();
        let (slot, counters) = words.split_at(if step.readback.token { RING_WORDS.min(words.len()) } else { 0 });
        // A step after the end leaves the slot alone, or says that it came after the end.
        if let [token, logit, 0, sampled] = *slot
            && sampled == step.sampled
        {
            (self.last.token, self.last.logit) = (token, f32::from_bits(logit));
        }
        let counters = step.readback.counters.then(|| counters.to_vec());
        Ok(StepOutput { counters, routed: None, ..self.last.clone() })
    }

    fn read(&mut self, address: u64, bytes: usize) -> Result<Vec<u8>> {
        let fetch = self.state.driver.fetch(&[(address, bytes)])?;
        self.stats.readbacks += 1;
        self.state.driver.fetched(fetch)
    }

    fn read_words(&mut self, address: u64, words: usize) -> Result<Vec<u32>> {
        Ok(self.read(address, words * 4)?.as_chunks().0.iter().map(|&w| u32::from_ne_bytes(w)).collect())
    }

    fn plan_act(&self, plan: PlanId, act: Act) -> Result<&CudaAct> {
        let acts = &self.plan(plan)?.acts;
        acts.get(act.0 as usize).ok_or_else(|| Error::Invalid(format!("the plan has no activation {}", act.0)))
    }

    /// Reads the first `rows` rows of an activation as bits (8-bit rows: the f32 values that they stand for).
    pub async fn read_act(&mut self, plan: PlanId, act: Act, rows: usize) -> Result<Vec<u32>> {
        let a = self.plan_act(plan, act)?;
        let (words, address, kind, width) =
            (rows.min(a.rows) * row_words(&a.decl), a.memory.address, a.decl.kind, a.decl.width / a.parts);
        let words = self.read_words(address, words)?;
        Ok(if kind == Kind::Q8 { q8_values(&words, width) } else { words })
    }

    /// Sets the first rows of an activation from bits (8-bit rows: from the f32 values to quantise).
    ///
    /// # Errors
    ///
    /// More than the activation has, or an error of the driver.
    pub fn write_act(&mut self, plan: PlanId, act: Act, bits: &[u32]) -> Result<()> {
        let a = self.plan_act(plan, act)?;
        let most = a.rows * a.decl.width;
        if bits.len() > most || !bits.len().is_multiple_of(a.decl.width) {
            return Err(Error::Invalid(format!("{} elements for activation `{}` of {most}", bits.len(), a.decl.name)));
        }
        let address = a.memory.address;
        let words = match a.decl.kind {
            Kind::F32 | Kind::U32 => bits.to_vec(),
            Kind::Q8 => q8_words(bits, a.decl.width / a.parts),
        };
        self.upload(address, bytemuck::cast_slice(&words));
        self.failed.take().map_or(Ok(()), Err)
    }

    /// Sets the activation counters to zero.
    pub fn reset_counters(&mut self) {
        self.upload(self.state.counters.address, &vec![0; self.state.counter_len * 4]);
    }

    /// The activation counters, `[layers, E]`.
    pub async fn read_counters(&mut self) -> Result<Vec<u32>> {
        self.read_words(self.state.counters.address, self.state.counter_len)
    }

    fn layer_cache(&self, layer: usize) -> Result<(u64, usize)> {
        let cache = self.state.caches.get(layer).ok_or_else(|| Error::Invalid(format!("there is no layer {layer}")))?;
        Ok((cache.address, cache.bytes as usize / 4))
    }

    /// The raw words of a layer's latent cache (tests).
    pub async fn read_cache(&mut self, layer: usize) -> Result<Vec<u32>> {
        let (address, words) = self.layer_cache(layer)?;
        self.read_words(address, words)
    }

    /// Sets the first words of a layer's latent cache (tests).
    pub fn write_cache(&mut self, layer: usize, data: &[u32]) -> Result<()> {
        let (address, words) = self.layer_cache(layer)?;
        self.upload(address, bytemuck::cast_slice(&data[..data.len().min(words)]));
        self.failed.take().map_or(Ok(()), Err)
    }

    /// The step state as the device has it, without the page table (tests).
    pub async fn read_step(&mut self) -> Result<StepState> {
        let words = self.read_words(self.state.step.address, StepState::WORDS)?;
        Ok(bytemuck::pod_read_unaligned(bytemuck::cast_slice(&words)))
    }

    /// Which experts the device holds, `[mixture layers, E]`: all.
    pub fn resident(&self) -> Vec<bool> {
        vec![true; self.state.model.banks.iter().map(pleiad_models::weights::Experts::len).sum()]
    }

    /// Where experts are.
    pub fn experts(&self) -> ExpertReport {
        ExpertReport {
            device_bytes: self.state.weight_bytes + self.state.caches.iter().map(|c| c.bytes).sum::<u64>(),
            experts: self.state.banks.first().map_or(0, |b| b.slots),
            slots: self.state.model.banks.iter().map(pleiad_models::weights::Experts::len).collect(),
            ..ExpertReport::default()
        }
    }

    /// What the device did so far.
    pub fn stats(&self) -> DeviceStats {
        self.stats
    }

    /// Operations of a plan, and launches of its step of one token (benchmarks).
    pub fn launches(&self, plan: PlanId, length: u32) -> Result<(usize, usize)> {
        let plan = self.plan(plan)?;
        Ok((plan.ops, plan.launches(1, length).count()))
    }
}

impl Drop for CudaExecutor {
    fn drop(&mut self) {
        for fetch in self.pending.drain(..).filter_map(|p| p.fetch) {
            self.state.driver.forget(fetch);
        }
    }
}

impl CudaPlan {
    /// The launches of a step of so many tokens that sees so many positions.
    fn launches(&self, tokens: u32, length: u32) -> impl Iterator<Item = Launch> {
        let always = self.dispatches.iter().filter(|d| d.when == When::Always);
        always.filter(move |d| d.case.holds(tokens, length)).filter_map(move |d| {
            let grid = d.grid.map(|dim| dim.at(tokens));
            let Dispatch { function, threads, shared, .. } = *d;
            let launch = Launch { function, grid, threads, shared, arguments: Arc::clone(&d.arguments) };
            grid.iter().all(|&n| n > 0).then_some(launch)
        })
    }
}

/// Rows of `width` values in 8 bits, as the device holds them: quants, then for each block its scale and the sums of its halves.
fn q8_words(bits: &[u32], width: usize) -> Vec<u32> {
    let mut row = Q8Rows::new(1, width);
    let mut words = Vec::with_capacity(bits.len() / 4 + bits.len() / 16);
    for values in bits.chunks_exact(width) {
        row.set(0, &values.iter().map(|&b| f32::from_bits(b)).collect::<Vec<_>>());
        words.extend(row.quants.chunks_exact(4).map(|q| u32::from_le_bytes([q[0], q[1], q[2], q[3]].map(|q| q as u8))));
        for (scale, sums) in row.scales.iter().zip(row.sums.chunks_exact(2)) {
            words.extend([scale.to_bits(), u32::from(sums[0] as u16) | u32::from(sums[1] as u16) << 16]);
        }
    }
    words
}

/// The other way: the bits of the values.
fn q8_values(words: &[u32], width: usize) -> Vec<u32> {
    let mut out = Vec::with_capacity(words.len() * 4);
    for row in words.chunks_exact(width / 4 + width / 16) {
        let (quants, blocks) = row.split_at(width / 4);
        for (quants, block) in quants.chunks_exact(8).zip(blocks.chunks_exact(2)) {
            let scale = f32::from_bits(block[0]);
            let bytes = quants.iter().flat_map(|q| q.to_le_bytes());
            out.extend(bytes.map(|q| (f32::from(q as i8) * scale).to_bits()));
        }
    }
    out
}
