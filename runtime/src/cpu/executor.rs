//! Interprets plans operation by operation.

use std::{collections::VecDeque, sync::Arc};

use pleiad_models::{
    Matrix, Tensor,
    weights::{ExpertPart, Experts},
};
use web_time::Instant;

use super::{
    buffers::{Cache, Prepared},
    kernels::{self, AttendArgs, CacheRows, Cpu, Input, Job, Output},
    rows::{self, for_rows},
};
use crate::{
    Error, Result,
    executor::{DeviceStats, LoadOptions, PlanId, Readback, StepOutput, Ticket},
    experts::trace::{Routed, Served},
    model::Model,
    plan::{Act, BankId, Heads, Kind, MatId, Op, Plan, VecId},
    rope,
    sampling::sample,
    step::StepState,
    twins,
};

/// A model on the CPU.
pub struct CpuExecutor {
    model: Arc<Model>,
    cpu: Cpu,
    /// Take the twins instead of the fast kernels.
    plain: bool,
    plans: Vec<Prepared>,
    step: StepState,
    pages: Vec<u32>,
    ids: Vec<u32>,
    cache: Vec<Cache>,
    rope: Vec<[f32; 2]>,
    counters: Vec<u32>,
    /// How many of them are the decoder layers'.
    counted: usize,
    scratch: Vec<f32>,
    rows: Vec<u32>,
    done: VecDeque<StepOutput>,
    next_ticket: u64,
    stats: DeviceStats,
    /// Report which experts every token chose.
    trace: bool,
    routed: Vec<Routed>,
}

/// Most bytes of weights that are read into memory where they cannot be mapped: what a browser's program may have.
const WEIGHTS_LIMIT: u64 = 512 << 20;

impl CpuExecutor {
    /// Loads `model`: weights that are mapped stay where they are, others are read into memory; the latent cache is allocated.
    pub fn load(model: Arc<Model>, options: &LoadOptions) -> Result<Self> {
        Self::with(model, options, Cpu::new(options.threads), false)
    }

    /// The plain path: every operation by its twin. Slow; the oracle of the tests.
    pub fn plain(model: Arc<Model>, options: &LoadOptions) -> Result<Self> {
        Self::with(model, options, Cpu::new(Some(1)), true)
    }

    /// The fast path on a given choice of instruction set and threads.
    pub fn with_cpu(model: Arc<Model>, options: &LoadOptions, cpu: Cpu) -> Result<Self> {
        Self::with(model, options, cpu, false)
    }

    fn with(model: Arc<Model>, options: &LoadOptions, cpu: Cpu, plain: bool) -> Result<Self> {
        let limit = if cfg!(target_arch = "wasm32") { Some(WEIGHTS_LIMIT) } else { available_memory() };
        let model = model.in_memory(limit)?;
        let config = &model.config;
        let width = config.attention.cache_width();
        let rows = options.positions.next_multiple_of(crate::step::PAGE);
        let element = if options.cache == crate::CacheFormat::F16 { 2 } else { 4 };
        let bytes = (rows * width * element * model.caches()) as u64;
        // Weights are mapped: the system pages them as it sees fit. The budget is for what must be there.
        if let Some(budget) = options.experts.budget.filter(|&b| bytes > b) {
            let what = format!("a latent cache of {rows} positions");
            return Err(Error::Budget { what, budget, least: bytes });
        }
        if let Some(available) = available_memory()
            && bytes > available
        {
            let what = format!("the latent cache of {rows} positions");
            return Err(Error::OutOfMemory { what, bytes, limit: Some(available) });
        }
        let experts = config.moe.as_ref().map_or(0, |m| m.num_experts);
        let weight_bytes = model_bytes(&model);
        Ok(Self {
            cache: (0..model.caches()).map(|_| Cache::new(options.cache, rows, width)).collect(),
            rope: rope::table(&config.rope, config.attention.qk_rope_head_dim, options.max_context),
            counters: vec![0; model.caches() * experts],
            counted: model.layers.len() * experts,
            model,
            cpu,
            plain,
            plans: Vec::new(),
            step: StepState::default(),
            pages: Vec::new(),
            ids: Vec::new(),
            scratch: Vec::new(),
            rows: Vec::new(),
            done: VecDeque::new(),
            next_ticket: 0,
            stats: DeviceStats { weight_bytes, ..DeviceStats::default() },
            trace: options.experts.trace,
            routed: Vec::new(),
        })
    }

    /// The instruction set and number of threads in use, for people.
    pub fn describe(&self) -> String {
        let threads = self.cpu.threads();
        format!("{}, {threads} {}", self.cpu.isa().name(), if threads == 1 { "thread" } else { "threads" })
    }

    /// Prepares a plan: allocates its activations.
    pub fn compile(&mut self, plan: &Plan) -> Result<PlanId> {
        self.plans.push(Prepared::new(plan));
        Ok(PlanId(self.plans.len() - 1))
    }

    /// Sets what the next steps read.
    pub fn write_step(&mut self, step: &StepState, pages: &[u32]) {
        self.step = *step;
        self.write_pages(pages);
    }

    /// Sets the pages alone.
    pub fn write_pages(&mut self, pages: &[u32]) {
        self.pages.clear();
        self.pages.extend_from_slice(pages);
    }

    /// Sets the token ids of the next step.
    pub fn write_ids(&mut self, ids: &[u32]) {
        self.ids.clear();
        self.ids.extend_from_slice(ids);
    }

    /// Replaces a vector of weights.
    pub fn write_vector(&mut self, id: VecId, values: &[f32]) {
        // The model is shared; a benchmark can pay for a copy of its numbering (tensors stay where they are).
        if let Some(vector) = Arc::make_mut(&mut self.model).vecs.get_mut(id.0 as usize) {
            vector.iter_mut().zip(values).for_each(|(to, from)| *to = *from);
        }
    }

    /// Runs a step to its end.
    pub fn submit(&mut self, plan: PlanId, tokens: usize, readback: Readback) -> Result<Ticket> {
        self.step.tokens = tokens as u32;
        let verifies = self.plans.get(plan.0).map_or(0, |p| p.plan.verifies());
        self.step.drafted = verifies.saturating_sub(1) as u32;
        let Some(mut prepared) = self.plans.get_mut(plan.0).map(std::mem::take) else {
            return Err(Error::Invalid(format!("there is no plan {}", plan.0)));
        };
        let ops = std::mem::take(&mut prepared.plan.ops);
        let mut output = StepOutput::default();
        let (mut clock, mut drafting) = (Instant::now(), false);
        for op in &ops {
            self.run(op, &mut prepared, tokens, &mut output);
            // What follows in a plan is the work of the module that drafts.
            drafting |= matches!(op, Op::Shift { .. });
            let now = Instant::now();
            let nanos = now.duration_since(clock).as_nanos() as u64;
            *self.time_of(op, drafting) += nanos;
            clock = now;
        }
        self.stats.dispatches += ops.len() as u64;
        prepared.plan.ops = ops;
        self.plans[plan.0] = prepared;
        // Rows of drafts that were wrong, and of what follows them, are nobody's.
        if verifies > 0 {
            let end = self.step.began + (tokens + self.step.count as usize).saturating_sub(verifies) as u32;
            self.routed.retain(|r| r.position < end);
        }
        output.counters = readback.counters.then(|| self.counters[..self.counted].to_vec());
        output.routed = self.trace.then(|| std::mem::take(&mut self.routed).into());
        self.done.push_back(output);
        self.next_ticket += 1;
        Ok(Ticket(self.next_ticket - 1))
    }

    /// The result of the oldest step that was not waited for.
    pub fn wait(&mut self, _ticket: Ticket) -> Result<StepOutput> {
        self.done.pop_front().ok_or_else(|| Error::Invalid("no step is under way".into()))
    }

    /// The first `rows` rows of an f32 or u32 activation, as bits.
    pub fn read_act(&self, plan: PlanId, act: Act, rows: usize) -> Vec<u32> {
        let p = &self.plans[plan.0];
        let n = rows * p.width(act);
        match p.plan.decl(act).kind {
            Kind::U32 => p.u32(act)[..n].to_vec(),
            Kind::F32 => p.f32(act)[..n].iter().map(|x| x.to_bits()).collect(),
            Kind::Q8 => (0..rows).flat_map(|r| p.q8(act).dequantise(r)).map(f32::to_bits).collect(),
        }
    }

    /// Sets rows of an activation from bits (Q8: from the f32 values to quantise).
    pub fn write_act(&mut self, plan: PlanId, act: Act, bits: &[u32]) {
        let p = &mut self.plans[plan.0];
        let width = p.width(act);
        match p.plan.decl(act).kind {
            Kind::U32 => p.u32_mut(act)[..bits.len()].copy_from_slice(bits),
            Kind::F32 => p.f32_mut(act).iter_mut().zip(bits).for_each(|(x, &b)| *x = f32::from_bits(b)),
            Kind::Q8 => {
                for (r, row) in bits.chunks(width).enumerate() {
                    let row: Vec<f32> = row.iter().map(|&b| f32::from_bits(b)).collect();
                    p.q8_mut(act).set(r, &row);
                }
            }
        }
    }

    /// The step as the last step left it.
    pub fn step(&self) -> &StepState {
        &self.step
    }

    /// Activations of every expert: `[layers, E]`.
    pub fn counters(&self) -> &[u32] {
        &self.counters[..self.counted]
    }

    /// Sets the activation counters to zero.
    pub fn reset_counters(&mut self) {
        self.counters.fill(0);
    }

    /// The row of the latent cache that holds `position`, for tests.
    pub fn cache_row(&self, layer: usize, position: usize) -> Vec<f32> {
        self.cache[layer].get(&self.pages, position, self.model.config.attention.cache_width())
    }

    /// What the device did so far.
    pub fn stats(&self) -> DeviceStats {
        self.stats
    }

    /// Bytes of activations, rotary tables and counters so far.
    pub fn work_bytes(&self) -> u64 {
        let plans: usize = self.plans.iter().map(Prepared::bytes).sum();
        let tables = size_of_val(self.rope.as_slice()) + 4 * (self.scratch.len() + self.counters.len());
        (plans + tables) as u64
    }

    /// The kind of work that an operation is.
    fn time_of(&mut self, op: &Op, drafting: bool) -> &mut u64 {
        let head = self.model.head;
        let work = &mut self.stats.work;
        match *op {
            _ if drafting => &mut work.drafting,
            Op::Rope { .. } | Op::Latent { .. } | Op::HeadMatMul { .. } | Op::Attend { .. } | Op::AttendExpanded { .. } => {
                &mut work.attention
            }
            Op::Router { .. } | Op::ExpertsUp { .. } | Op::ExpertsDown { .. } | Op::Combine { .. } => &mut work.experts,
            Op::MatMul { w, .. } if w == head => &mut work.output,
            Op::LastRow { .. } | Op::Sample { .. } | Op::Verify { .. } => &mut work.output,
            _ => &mut work.dense,
        }
    }

    fn run(&mut self, op: &Op, p: &mut Prepared, tokens: usize, output: &mut StepOutput) {
        match *op {
            Op::Embed { table, out } => self.embed(p, table, out, p.rows(out, tokens)),
            Op::Norm { x, weight, eps, out, q8 } => self.norm(p, x, weight, eps, out, q8, tokens),
            Op::Quantise { x, out } => {
                let rows = p.rows(x, tokens);
                let mut q = std::mem::take(p.q8_mut(out));
                self.quantise(&p.f32(x)[..rows * q.width], rows, &mut q);
                *p.q8_mut(out) = q;
            }
            Op::MatMul { w, x, out, add } => {
                let rows = p.rows(x, tokens);
                let model = Arc::clone(&self.model);
                self.identity(rows);
                let job = Job { w: model.mat(w).stacked(), gate: None, x: &self.rows, out: &self.rows };
                self.product(p, &[job], x, out, model.mat(w).cols, model.mat(w).rows, add);
            }
            Op::GatedMatMul { gate, up, x, out } => {
                let rows = p.rows(x, tokens);
                let model = Arc::clone(&self.model);
                self.identity(rows);
                let gate = Some(model.mat(gate).stacked());
                let w = model.mat(up);
                let job = Job { w: w.stacked(), gate, x: &self.rows, out: &self.rows };
                self.product(p, &[job], x, out, w.cols, w.rows, false);
            }
            Op::HeadMatMul { w, x, out } => self.heads(p, w, x, out, p.rows(x.act, tokens)),
            Op::Rope { x, heads } => self.rotate(p, x, heads, p.rows(x.act, tokens)),
            Op::Latent { kv, norm, eps, layer } => self.append(p, kv, norm, eps, layer, p.rows(kv, tokens)),
            Op::Attend { q_latent, q_rope, layer, out } => {
                self.attend(p, q_latent, q_rope, layer, out, p.rows(q_latent, tokens));
            }
            Op::AttendExpanded { q, k_up, v_up, layer, out } => self.attend_expanded(p, q, k_up, v_up, layer, out, tokens),
            Op::Router { logits, bias, layer, ids, weights } => {
                self.route(p, logits, bias, layer, ids, weights, p.rows(logits, tokens));
            }
            Op::ExpertsUp { bank, x, ids, out } => self.experts(p, bank, x, ids, out, p.rows(ids, tokens), true),
            Op::ExpertsDown { bank, x, ids, out } => self.experts(p, bank, x, ids, out, p.rows(ids, tokens), false),
            Op::Combine { y, weights, x } => {
                let (k, width, tokens) = (p.width(weights), p.width(y), p.rows(x, tokens));
                let mut target = std::mem::take(p.f32_mut(x));
                let h = width / k;
                let (y, weights) = (p.f32(y), p.f32(weights));
                for_rows(&self.cpu, &mut target[..tokens * h], h, |t, x| {
                    twins::combine(&y[t * width..(t + 1) * width], &weights[t * k..(t + 1) * k], x);
                });
                *p.f32_mut(x) = target;
            }
            Op::LastRow { x, out } => {
                let width = p.width(x);
                let row = p.f32(x)[(tokens - 1) * width..tokens * width].to_vec();
                p.f32_mut(out).copy_from_slice(&row);
            }
            Op::Join { a, b, out } => {
                let (n, m, rows) = (p.width(a), p.width(b), p.rows(out, tokens));
                let mut target = std::mem::take(p.f32_mut(out));
                for (t, row) in target.chunks_mut(n + m).take(rows).enumerate() {
                    twins::join(&p.f32(a)[t * n..(t + 1) * n], &p.f32(b)[t * m..(t + 1) * m], row);
                }
                *p.f32_mut(out) = target;
            }
            Op::Verify { logits, row } => {
                if self.step.takes(row) {
                    let vocab = p.width(logits);
                    let logits = &mut p.f32_mut(logits)[row * vocab..(row + 1) * vocab];
                    let (token, logit) = sample(logits, &self.step);
                    self.step.take(row, token, logit, &self.ids);
                    if row > 0 {
                        output.before.push((output.token, output.logit));
                    }
                    (output.token, output.logit) = (token, logit);
                } else if row == 0 {
                    output.token = self.ids.first().copied().unwrap_or_default();
                }
            }
            Op::Shift { given } => self.step.shift(&mut self.ids, given),
            Op::TakenRow { x, out } => {
                let (width, row) = (p.width(x), self.step.taken_row());
                let row = p.f32(x)[row * width..(row + 1) * width].to_vec();
                p.f32_mut(out).copy_from_slice(&row);
            }
            Op::Settle { drafts } => self.step.settle(&mut self.ids, drafts),
            Op::Draft { logits, index, of } => {
                let token = twins::largest(p.f32(logits)) as u32;
                self.step.draft(&mut self.ids, token, index, of);
            }
            Op::Sample { logits } => {
                let (token, logit) = sample(p.f32_mut(logits), &self.step);
                let token = if self.step.stopped == 0 { token } else { self.ids.first().copied().unwrap_or(token) };
                self.step.advance(token);
                self.ids.clear();
                self.ids.push(token);
                (output.token, output.logit) = (token, logit);
            }
        }
    }

    /// Makes `rows` the list 0, 1, ..., n - 1.
    fn identity(&mut self, n: usize) {
        let have = self.rows.len() as u32;
        self.rows.extend(have..n as u32);
        self.rows.truncate(n);
    }

    fn quantise(&self, x: &[f32], rows: usize, out: &mut crate::q8::Q8Rows) {
        if self.plain {
            let width = out.width;
            (0..rows).for_each(|r| out.set(r, &x[r * width..(r + 1) * width]));
        } else {
            kernels::quantise(&self.cpu, x, rows, out);
        }
    }

    fn embed(&mut self, p: &mut Prepared, table: MatId, out: Act, tokens: usize) {
        let table = self.model.mat(table).stacked();
        let (h, ids) = (table.cols, &self.ids);
        let out = &mut p.f32_mut(out)[..tokens * h];
        for_rows(&self.cpu, out, h, |t, row| table.dequantise_row(ids[t] as usize, row));
    }

    #[expect(clippy::too_many_arguments, reason = "an operation's fields")]
    fn norm(&mut self, p: &mut Prepared, x: Act, weight: VecId, eps: f32, out: Option<Act>, q8: Option<Act>, tokens: usize) {
        let (rows, n) = (p.rows(x, tokens), p.width(x));
        let mut target = match out {
            Some(out) => std::mem::take(p.f32_mut(out)),
            None => std::mem::take(&mut self.scratch),
        };
        target.resize(target.len().max(rows * n), 0.0);
        let (source, weight, plain) = (p.f32(x), self.model.vec(weight), self.plain);
        for_rows(&self.cpu, &mut target[..rows * n], n, |r, row| {
            let x = &source[r * n..(r + 1) * n];
            if plain { twins::norm(x, weight, eps, row) } else { rows::norm(x, weight, eps, row) }
        });
        if let Some(q8) = q8 {
            let mut q = std::mem::take(p.q8_mut(q8));
            self.quantise(&target[..rows * n], rows, &mut q);
            *p.q8_mut(q8) = q;
        }
        match out {
            Some(out) => *p.f32_mut(out) = target,
            None => self.scratch = target,
        }
    }

    /// Products of whole rows: input row i is row `job.x[i]` of `x` cut into rows of `cols`.
    #[expect(clippy::too_many_arguments, reason = "an operation's fields")]
    fn product(&self, p: &mut Prepared, jobs: &[Job<'_>], x: Act, out: Act, cols: usize, rows: usize, add: bool) {
        let mut target = std::mem::take(p.f32_mut(out));
        let mut rows_out = Output { data: &mut target, offset: 0, stride: rows };
        if p.is_q8(x) {
            let mut q = std::mem::take(p.q8_mut(x));
            let width = std::mem::replace(&mut q.width, cols);
            self.matmul(jobs, &Input::Q8(&q), &mut rows_out, add);
            q.width = width;
            *p.q8_mut(x) = q;
        } else {
            self.matmul(jobs, &Input::F32 { data: p.f32(x), offset: 0, stride: cols }, &mut rows_out, add);
        }
        *p.f32_mut(out) = target;
    }

    fn matmul(&self, jobs: &[Job<'_>], x: &Input<'_>, out: &mut Output<'_>, add: bool) {
        if !self.plain {
            return kernels::matmul(&self.cpu, jobs, x, out, add);
        }
        for job in jobs {
            let (mut y, mut g) = (vec![0.0; job.w.rows], vec![0.0; job.w.rows]);
            for (&from, &to) in job.x.iter().zip(job.out) {
                let apply = |w: &Matrix<'_>, y: &mut [f32]| match *x {
                    Input::F32 { data, offset, stride } => {
                        let at = offset + from as usize * stride;
                        twins::matvec_f32(w, &data[at..at + w.cols], y);
                    }
                    Input::Q8(q) => twins::matvec_q8(w, q, from as usize, y),
                };
                apply(&job.w, &mut y);
                if let Some(gate) = &job.gate {
                    apply(gate, &mut g);
                    y.iter_mut().zip(&g).for_each(|(y, &g)| *y = twins::gated(g, *y));
                }
                let at = out.offset + to as usize * out.stride;
                for (o, y) in out.data[at..].iter_mut().zip(&y) {
                    *o = if add { *o + y } else { *y };
                }
            }
        }
    }

    fn heads(&mut self, p: &mut Prepared, w: MatId, x: Heads, out: Heads, tokens: usize) {
        let model = Arc::clone(&self.model);
        let w: &Tensor = model.mat(w);
        let (width_in, width_out) = (p.width(x.act), p.width(out.act));
        // A token's heads lie a stride apart, and tokens a whole number of strides: one row index serves both.
        let row = |t: usize, h: usize, width: usize, stride: usize| (t * (width / stride) + h) as u32;
        let from: Vec<Vec<u32>> = (0..w.count).map(|h| (0..tokens).map(|t| row(t, h, width_in, x.stride)).collect()).collect();
        let to: Vec<Vec<u32>> = (0..w.count).map(|h| (0..tokens).map(|t| row(t, h, width_out, out.stride)).collect()).collect();
        let jobs: Vec<Job<'_>> = (0..w.count).map(|h| Job { w: w.matrix(h), gate: None, x: &from[h], out: &to[h] }).collect();
        let mut target = std::mem::take(p.f32_mut(out.act));
        let input = Input::F32 { data: p.f32(x.act), offset: x.offset, stride: x.stride };
        self.matmul(&jobs, &input, &mut Output { data: &mut target, offset: out.offset, stride: out.stride }, false);
        *p.f32_mut(out.act) = target;
    }

    /// `(cos, sin)` of the position of token `t`.
    fn angles(&self, t: usize) -> &[[f32; 2]] {
        let half = self.model.config.attention.qk_rope_head_dim / 2;
        let at = (self.step.pos as usize + t) * half;
        &self.rope[at..at + half]
    }

    fn rotate(&mut self, p: &mut Prepared, x: Heads, heads: usize, tokens: usize) {
        let (dim, interleaved) = (self.model.config.attention.qk_rope_head_dim, self.model.config.rope.interleaved);
        let width = p.width(x.act);
        let data = &mut p.f32_mut(x.act)[..tokens * width];
        for_rows(&self.cpu, data, width, |t, row| {
            for h in 0..heads {
                let at = x.offset + h * x.stride;
                twins::rope(&mut row[at..at + dim], self.angles(t), interleaved);
            }
        });
    }

    fn append(&mut self, p: &mut Prepared, kv: Act, norm: VecId, eps: f32, layer: usize, tokens: usize) {
        let width = p.width(kv);
        let interleaved = self.model.config.rope.interleaved;
        for (t, kv) in p.f32(kv)[..tokens * width].chunks(width).enumerate() {
            let row = twins::latent(kv, self.model.vec(norm), eps, self.angles(t), interleaved);
            self.cache[layer].set(&self.pages, self.step.pos as usize + t, &row);
        }
    }

    fn attend(&mut self, p: &mut Prepared, q_latent: Act, q_rope: Heads, layer: usize, out: Act, tokens: usize) {
        let config = &self.model.config;
        let (a, scale, pos) = (&config.attention, config.softmax_scale(), self.step.pos as usize);
        let (heads, r, dr) = (a.num_heads, a.kv_lora_rank, a.qk_rope_head_dim);
        let mut target = std::mem::take(p.f32_mut(out));
        let (ql, qr, q_width) = (p.f32(q_latent), p.f32(q_rope.act), p.width(q_rope.act));
        if self.plain {
            for t in 0..tokens {
                let rows: Vec<Vec<f32>> = (0..=pos + t).map(|i| self.cache[layer].get(&self.pages, i, r + dr)).collect();
                let rows: Vec<&[f32]> = rows.iter().map(Vec::as_slice).collect();
                for h in 0..heads {
                    let at = t * q_width + q_rope.offset + h * q_rope.stride;
                    let i = (t * heads + h) * r;
                    let shape = twins::AttendShape { latent: r, rope: dr, scale };
                    twins::attend(shape, &ql[i..i + r], &qr[at..at + dr], &rows, &mut target[i..i + r]);
                }
            }
        } else {
            let args = AttendArgs {
                q_latent: ql,
                q_rope: qr,
                rope_offset: q_rope.offset,
                rope_token: q_width,
                rope_head: q_rope.stride,
                cache: self.rows_of(layer),
                pages: &self.pages,
                pos,
                tokens,
                heads,
                latent: r,
                rope: dr,
                scale,
            };
            kernels::attend(&self.cpu, &args, &mut target[..tokens * heads * r]);
        }
        *p.f32_mut(out) = target;
    }

    fn rows_of(&self, layer: usize) -> CacheRows<'_> {
        match &self.cache[layer] {
            Cache::F16(v) => CacheRows::F16(v),
            Cache::F32(v) => CacheRows::F32(v),
        }
    }

    #[expect(clippy::too_many_arguments, reason = "an operation's fields")]
    fn attend_expanded(&mut self, p: &mut Prepared, q: Act, k_up: MatId, v_up: MatId, layer: usize, out: Act, tokens: usize) {
        let config = &self.model.config;
        let (a, scale, pos) = (config.attention.clone(), config.softmax_scale(), self.step.pos as usize);
        let (heads, width) = (a.num_heads, a.cache_width());
        let (d, dv) = (a.qk_head_dim(), a.v_head_dim);
        let mut target = std::mem::take(p.f32_mut(out));
        let rows: Vec<Vec<f32>> = (0..pos + tokens).map(|i| self.cache[layer].get(&self.pages, i, width)).collect();
        let q = p.f32(q);
        if self.plain {
            let shape = twins::ExpandedShape { nope: a.qk_nope_head_dim, value: dv, latent: a.kv_lora_rank, scale };
            let (k, v) = (self.model.mat(k_up), self.model.mat(v_up));
            for h in 0..heads {
                let (k, v) = (k.matrix(h).to_f32(), v.matrix(h).to_f32());
                for t in 0..tokens {
                    let seen: Vec<&[f32]> = rows[..=pos + t].iter().map(Vec::as_slice).collect();
                    let at = (t * heads + h) * d;
                    let to = (t * heads + h) * dv;
                    twins::attend_expanded(shape, &q[at..at + d], &k, &v, &seen, &mut target[to..to + dv]);
                }
            }
        } else {
            let args = super::expanded::Args {
                attention: &a,
                scale,
                pos,
                tokens,
                q,
                k_up: self.model.mat(k_up),
                v_up: self.model.mat(v_up),
                rows: &rows.concat(),
            };
            super::expanded::attend(&self.cpu, &args, &mut target);
        }
        *p.f32_mut(out) = target;
    }

    #[expect(clippy::too_many_arguments, reason = "an operation's fields")]
    fn route(&mut self, p: &mut Prepared, logits: Act, bias: Option<VecId>, layer: usize, ids: Act, weights: Act, tokens: usize) {
        let model = Arc::clone(&self.model);
        let Some(moe) = &model.config.moe else { return };
        let bias = bias.map(|b| model.vec(b));
        let k = moe.top_k;
        let (mut ids_out, mut weights_out) = (std::mem::take(p.u32_mut(ids)), std::mem::take(p.f32_mut(weights)));
        let logits = p.f32(logits);
        let e = moe.num_experts;
        for t in 0..tokens {
            let at = t * k..(t + 1) * k;
            twins::route(moe, &logits[t * e..(t + 1) * e], bias, &mut ids_out[at.clone()], &mut weights_out[at]);
        }
        // The layer of the module that drafts is nobody's business.
        let counted = layer < model.layers.len() && self.step.stopped == 0;
        if self.step.counters_on != 0 && counted {
            ids_out[..tokens * k].iter().for_each(|&id| self.counters[layer * e + id as usize] += 1);
        }
        if self.trace && counted {
            for t in 0..tokens {
                let at = t * k..(t + 1) * k;
                let position = self.step.pos + t as u32;
                self.routed.extend(Routed::ranked(position, layer, &ids_out[at.clone()], &weights_out[at], Served::Host));
            }
        }
        *p.u32_mut(ids) = ids_out;
        *p.f32_mut(weights) = weights_out;
    }

    /// Both expert products: one job for every expert that any token chose.
    #[expect(clippy::too_many_arguments, reason = "an operation's fields")]
    fn experts(&mut self, p: &mut Prepared, bank: BankId, x: Act, ids: Act, out: Act, tokens: usize, up: bool) {
        let model = Arc::clone(&self.model);
        let (bank, k) = (model.bank(bank), p.width(ids));
        // Pairs (token, rank) of each expert; the up form reads a token's row, the down form a pair's.
        let mut from: Vec<Vec<u32>> = vec![Vec::new(); bank.len()];
        let mut to: Vec<Vec<u32>> = vec![Vec::new(); bank.len()];
        for (pair, &expert) in p.u32(ids)[..tokens * k].iter().enumerate() {
            from[expert as usize].push(if up { pair / k } else { pair } as u32);
            to[expert as usize].push(pair as u32);
        }
        let jobs: Vec<Job<'_>> = (0..bank.len())
            .filter(|&e| !from[e].is_empty())
            .map(|e| Job {
                w: bank.matrix(e, if up { ExpertPart::Up } else { ExpertPart::Down }),
                gate: up.then(|| bank.matrix(e, ExpertPart::Gate)),
                x: &from[e],
                out: &to[e],
            })
            .collect();
        let Some(first) = jobs.first() else { return };
        let (rows, cols) = (first.w.rows, first.w.cols);
        self.product(p, &jobs, x, out, cols, rows, false);
    }
}

/// Bytes of all weights, scales of experts left out.
fn model_bytes(model: &Model) -> u64 {
    let mats: usize = model.mats.iter().map(Tensor::bytes).sum();
    let experts: usize =
        model.all_banks().flat_map(Experts::mlps).flat_map(|m| [&m.gate, &m.up, &m.down]).map(|t| t.data.len()).sum();
    (mats + experts) as u64
}

/// Memory that the system would give now, where it says so.
pub(crate) fn available_memory() -> Option<u64> {
    let info = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = info.lines().find_map(|l| l.strip_prefix("MemAvailable:"))?;
    Some(line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()? * 1024)
}
