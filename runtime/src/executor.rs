//! One interface over the backends: a model on a device, its plans, and steps through them.

use std::{path::PathBuf, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{
    Result,
    cpu::CpuExecutor,
    cuda::{CudaDevices, CudaExecutor},
    experts::{ExpertReport, trace::Routed, ways::WayChoice},
    gpu::{GpuDevice, GpuExecutor},
    model::Model,
    plan::{Act, Plan, VecId},
    step::StepState,
};

/// Precision of activations in quantised products: a property of the run, the same on every device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Activations {
    /// Single precision.
    F32,
    /// 8-bit blocks ([`crate::q8`]) and integer dot products.
    #[default]
    Q8,
}

/// How the latent cache is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CacheFormat {
    /// Half precision.
    #[default]
    F16,
    /// Single precision, for tests and comparisons.
    F32,
}

/// Where to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeviceChoice {
    /// A discrete GPU, else an integrated one, else the CPU; never a software adapter.
    #[default]
    Auto,
    /// The CPU backend.
    Cpu,
    /// The adapter of that index; `None`: the best that is no software.
    Wgpu(Option<usize>),
    /// A CUDA device, or several that share the model.
    Cuda(CudaDevices),
}

/// What a device needs to know to load a model.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// Positions in the latent cache, over all sessions.
    pub positions: usize,
    /// Positions that rotary tables cover: the longest context of one session.
    pub max_context: usize,
    /// Storage of the latent cache.
    pub cache: CacheFormat,
    /// CPU threads; `None`: all.
    pub threads: Option<usize>,
    /// How a GPU places experts.
    pub experts: ExpertOptions,
}

/// How a GPU places experts, and how those that it does not hold are served.
#[derive(Clone, Debug)]
pub struct ExpertOptions {
    /// Most bytes of device memory for weights, latent cache and working memory together; `None`: what the device has.
    pub budget: Option<u64>,
    /// How experts that are not resident are served.
    pub misses: WayChoice,
    /// Where packed experts and the profile of their use are kept between runs; `None`: nowhere.
    pub directory: Option<PathBuf>,
    /// Most experts taken in after a token for whose sake nothing had to be fetched.
    pub admissions: usize,
    /// Most tokens of one step.
    pub chunk: usize,
    /// Precision of activations in the plans to come: what working memory is estimated from.
    pub activations: Activations,
    /// Report which experts every token chose, and how they were served.
    pub trace: bool,
}

impl Default for ExpertOptions {
    fn default() -> Self {
        Self {
            budget: None,
            misses: WayChoice::Auto,
            directory: None,
            admissions: 2,
            chunk: 512,
            activations: Activations::default(),
            trace: false,
        }
    }
}

/// A plan prepared by an executor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PlanId(pub usize);

/// A step that was submitted; steps complete in order.
#[derive(Debug, PartialEq, Eq)]
pub struct Ticket(pub u64);

/// What to read back from a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Readback {
    /// The sampled token.
    pub token: bool,
    /// The activation counters.
    pub counters: bool,
}

/// What came back from a step.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StepOutput {
    /// The sampled token.
    pub token: u32,
    /// Its logit, after penalties.
    pub logit: f32,
    /// Tokens sampled before it in the same step, and their logits: drafts that were right.
    pub before: Vec<(u32, f32)>,
    /// Activations of every expert since the counters were reset: `[layers, E]`, if asked for.
    pub counters: Option<Vec<u32>>,
    /// The experts that its tokens chose, with [`ExpertOptions::trace`].
    pub routed: Option<Arc<[Routed]>>,
}

/// What a device did, since it was loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeviceStats {
    /// Kernels started.
    pub dispatches: u64,
    /// Command buffers submitted.
    pub submissions: u64,
    /// Results read back.
    pub readbacks: u64,
    /// Bind groups made.
    pub bind_groups: u64,
    /// Bytes of weights on the device.
    pub weight_bytes: u64,
    /// Bytes uploaded.
    pub uploaded_bytes: u64,
    /// Experts chosen for a token that were resident. Counted where a layer has fewer slots than experts, or with a trace.
    pub expert_hits: u64,
    /// Experts chosen for a token that were not.
    pub expert_misses: u64,
    /// Bytes of experts moved to the device while running.
    pub expert_bytes: u64,
    /// Times that a step stopped at a layer for the host to serve its misses.
    pub rendezvous: u64,
    /// Time by kind of work, where the device can tell.
    pub work: WorkTimes,
}

/// Time that steps took by kind of work, in nanoseconds. Only the CPU backend runs operations one by one and can tell; of other
/// devices all are 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct WorkTimes {
    /// Attention: queries and keys rotated, rows appended to the latent cache, heads attending.
    pub attention: u64,
    /// Routers, experts, and the sum of what experts said.
    pub experts: u64,
    /// Products with weights that every token takes, norms and embeddings.
    pub dense: u64,
    /// Logits and sampling.
    pub output: u64,
    /// The module that drafts tokens.
    pub drafting: u64,
}

impl WorkTimes {
    /// All of it.
    pub fn total(self) -> u64 {
        let Self { attention, experts, dense, output, drafting } = self;
        attention + experts + dense + output + drafting
    }

    /// What was added since `before`.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        self.each(before, |now, before| now - before)
    }

    /// This and more.
    #[must_use]
    pub fn plus(self, more: Self) -> Self {
        self.each(more, |a, b| a + b)
    }

    fn each(self, other: Self, f: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            attention: f(self.attention, other.attention),
            experts: f(self.experts, other.experts),
            dense: f(self.dense, other.dense),
            output: f(self.output, other.output),
            drafting: f(self.drafting, other.drafting),
        }
    }
}

impl DeviceStats {
    /// What was done since `before`; sizes are those of now.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self {
            dispatches: self.dispatches - before.dispatches,
            submissions: self.submissions - before.submissions,
            readbacks: self.readbacks - before.readbacks,
            bind_groups: self.bind_groups - before.bind_groups,
            weight_bytes: self.weight_bytes,
            uploaded_bytes: self.uploaded_bytes - before.uploaded_bytes,
            expert_hits: self.expert_hits - before.expert_hits,
            expert_misses: self.expert_misses - before.expert_misses,
            expert_bytes: self.expert_bytes - before.expert_bytes,
            rendezvous: self.rendezvous - before.rendezvous,
            work: self.work.since(before.work),
        }
    }
}

/// A model on a device.
pub enum Executor {
    /// The CPU backend.
    Cpu(Box<CpuExecutor>),
    /// A GPU through wgpu.
    Gpu(Box<GpuExecutor>),
    /// A GPU, or several, through CUDA.
    Cuda(Box<CudaExecutor>),
}

impl Executor {
    /// Loads `model` on the CPU, or on `device` where one is given. `progress` is called with bytes done and in all.
    pub async fn load(
        device: Option<Arc<GpuDevice>>,
        model: Arc<Model>,
        options: &LoadOptions,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self> {
        Ok(match device {
            None => Self::Cpu(Box::new(CpuExecutor::load(model, options)?)),
            Some(device) => Self::Gpu(Box::new(GpuExecutor::load(device, model, options, progress).await?)),
        })
    }

    /// Prepares plans without blocking. `progress` is called with kernels compiled and in all, if there are any.
    pub async fn prepare(&mut self, plans: &[Plan], progress: &mut dyn FnMut(u64, u64)) -> Result<Vec<PlanId>> {
        match self {
            Self::Cpu(e) => plans.iter().map(|plan| e.compile(plan)).collect(),
            Self::Gpu(e) => e.prepare(plans, progress).await,
            Self::Cuda(e) => plans.iter().map(|plan| e.compile(plan)).collect(),
        }
    }

    /// Prepares a plan. In a browser [`Executor::prepare`] tells errors in time, and this one later.
    pub fn compile(&mut self, plan: &Plan) -> Result<PlanId> {
        match self {
            Self::Cpu(e) => e.compile(plan),
            Self::Gpu(e) => e.compile(plan),
            Self::Cuda(e) => e.compile(plan),
        }
    }

    /// Sets what the next steps read: position, sampling, and the pages of the session's cache.
    pub fn write_step(&mut self, step: &StepState, pages: &[u32]) {
        match self {
            Self::Cpu(e) => e.write_step(step, pages),
            Self::Gpu(e) => e.write_step(step, pages),
            Self::Cuda(e) => e.write_step(step, pages),
        }
    }

    /// Sets the pages alone: those in use stay, others follow. Allowed while steps are under way.
    pub fn write_pages(&mut self, pages: &[u32]) {
        match self {
            Self::Cpu(e) => e.write_pages(pages),
            Self::Gpu(e) => e.write_pages(pages),
            Self::Cuda(e) => e.write_pages(pages),
        }
    }

    /// Sets the token ids of the next step.
    pub fn write_ids(&mut self, ids: &[u32]) {
        match self {
            Self::Cpu(e) => e.write_ids(ids),
            Self::Gpu(e) => e.write_ids(ids),
            Self::Cuda(e) => e.write_ids(ids),
        }
    }

    /// Replaces a vector of weights (benchmarks of routing).
    pub fn write_vector(&mut self, id: VecId, values: &[f32]) {
        match self {
            Self::Cpu(e) => e.write_vector(id, values),
            Self::Gpu(e) => e.write_vector(id, values),
            Self::Cuda(e) => e.write_vector(id, values),
        }
    }

    /// Starts a step of `tokens` tokens.
    pub fn submit(&mut self, plan: PlanId, tokens: usize, readback: Readback) -> Result<Ticket> {
        match self {
            Self::Cpu(e) => e.submit(plan, tokens, readback),
            Self::Gpu(e) => e.submit(plan, tokens, readback),
            Self::Cuda(e) => e.submit(plan, tokens, readback),
        }
    }

    /// Waits for a step.
    pub async fn wait(&mut self, ticket: Ticket) -> Result<StepOutput> {
        match self {
            Self::Cpu(e) => e.wait(ticket),
            Self::Gpu(e) => e.wait(ticket).await,
            Self::Cuda(e) => e.wait(ticket).await,
        }
    }

    /// Reads the first `rows` rows of an f32 or u32 activation, as bits.
    pub async fn read_act(&mut self, plan: PlanId, act: Act, rows: usize) -> Result<Vec<u32>> {
        match self {
            Self::Cpu(e) => Ok(e.read_act(plan, act, rows)),
            Self::Gpu(e) => e.read_act(plan, act, rows).await,
            Self::Cuda(e) => e.read_act(plan, act, rows).await,
        }
    }

    /// Sets the activation counters to zero.
    pub fn reset_counters(&mut self) {
        match self {
            Self::Cpu(e) => e.reset_counters(),
            Self::Gpu(e) => e.reset_counters(),
            Self::Cuda(e) => e.reset_counters(),
        }
    }

    /// Where experts are and how misses are served; `None` on the CPU.
    pub fn experts(&self) -> Option<ExpertReport> {
        match self {
            Self::Cpu(_) => None,
            Self::Gpu(e) => Some(e.experts()),
            Self::Cuda(e) => Some(e.experts()),
        }
    }

    /// Which experts the device holds: `[mixture layers, E]`. Empty on the CPU, where there is nothing to tell.
    pub async fn resident(&mut self) -> Result<Vec<bool>> {
        match self {
            Self::Cpu(_) => Ok(Vec::new()),
            Self::Gpu(e) => e.resident().await,
            Self::Cuda(e) => e.resident().await,
        }
    }

    /// Bytes of working memory, where the latent cache takes `cache` bytes: what the CPU has allocated so far, what was planned
    /// for another device.
    pub fn work_bytes(&self, cache: u64) -> u64 {
        if let Self::Cpu(e) = self {
            return e.work_bytes();
        }
        let planned = self.experts().map_or(0, |r| r.device_bytes);
        planned.saturating_sub(self.stats().weight_bytes).saturating_sub(cache)
    }

    /// Keeps what was learnt about the use of experts for the next start.
    pub fn save_profile(&self) -> Result<()> {
        match self {
            Self::Cpu(_) => Ok(()),
            Self::Gpu(e) => e.save_profile(),
            Self::Cuda(e) => e.save_profile(),
        }
    }

    /// What the device did so far.
    pub fn stats(&self) -> DeviceStats {
        match self {
            Self::Cpu(e) => e.stats(),
            Self::Gpu(e) => e.stats(),
            Self::Cuda(e) => e.stats(),
        }
    }
}
