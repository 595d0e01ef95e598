//! From plan operations to launches.
//!
//! Everything that a step needs is made here, once: activations, and for each launch its variant, the bytes of its argument, and a
//! grid as a function of the step's tokens. Addresses never change, so launches can be captured.

mod attention;
mod drafts;
mod experts;
mod matmul;
mod rows;
mod several;

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError},
};

use bytemuck::Pod;
use pleiad_shaders::{Defines, cuda};

use several::Whereabouts;

use super::{
    driver::{DeviceInfo, Function, Memory, Touch, Use, Variant},
    state::{CudaState, Local},
};
use crate::{
    error::{Error, Result},
    plan::{Act, ActDecl, Op, Plan, Rows, VecId},
    steps::{Case, Dim, Scheduled, When},
};

/// Tokens up to which products run as matrix-vector kernels.
const MATVEC_TOKENS: u32 = 8;

/// A prepared launch.
pub struct Dispatch {
    /// Where: an index into the driver's devices.
    pub(crate) device: usize,
    /// The operation that it belongs to: an index into the plan's.
    pub(crate) op: usize,
    pub(crate) function: Function,
    pub(crate) threads: u32,
    pub(crate) shared: u32,
    pub(crate) arguments: Arc<[u8]>,
    pub(crate) touches: Arc<[Touch]>,
    pub(crate) grid: [Dim; 3],
    pub(crate) case: Case,
    pub(crate) when: When,
}

impl Scheduled for Dispatch {
    fn op(&self) -> usize {
        self.op
    }

    fn case(&self) -> Case {
        self.case
    }

    fn when(&self) -> When {
        self.when
    }

    fn grid(&self) -> [Dim; 3] {
        self.grid
    }
}

/// A launch as `lower` describes it.
struct Emit<'a> {
    kernel: &'static str,
    defines: Defines,
    params: Vec<u8>,
    bind: Vec<(&'a str, u64)>,
    grid: [Dim; 3],
    case: Case,
    when: When,
    shared: u32,
}

impl<'a> Emit<'a> {
    fn new(kernel: &'static str, params: &impl Pod, bind: Vec<(&'a str, u64)>, grid: [Dim; 3]) -> Self {
        let params = bytemuck::bytes_of(params).to_vec();
        Self { kernel, defines: Defines::new(), params, bind, grid, case: Case::ALWAYS, when: When::Always, shared: 0 }
    }

    fn with(self, defines: Defines) -> Self {
        Self { defines, ..self }
    }

    fn when(self, case: Case) -> Self {
        Self { case, ..self }
    }

    fn only(self, when: When) -> Self {
        Self { when, ..self }
    }

    fn shared(self, shared: u32) -> Self {
        Self { shared, ..self }
    }
}

/// How many rows an operation works on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RowCount {
    /// Those of the step, up to so many.
    Step(u32),
    /// Always as many.
    Fixed(u32),
}

impl RowCount {
    /// The `tokens` field of parameters.
    fn param(self) -> u32 {
        match self {
            Self::Step(_) => 0,
            Self::Fixed(n) => n,
        }
    }

    /// The most rows.
    fn most(self) -> u32 {
        match self {
            Self::Step(n) | Self::Fixed(n) => n,
        }
    }

    /// One block a row.
    fn each(self) -> Dim {
        match self {
            Self::Step(_) => Dim::Each(1),
            Self::Fixed(n) => Dim::Fixed(n),
        }
    }

    /// One block for `tile` rows.
    fn per(self, tile: u32) -> Dim {
        match self {
            Self::Step(_) => Dim::Per(tile),
            Self::Fixed(n) => Dim::Fixed(n.div_ceil(tile)),
        }
    }
}

const ONE: Dim = Dim::Fixed(1);

/// A plan lowered.
pub(crate) struct Lowered {
    pub dispatches: Vec<Dispatch>,
    /// One buffer an activation.
    pub acts: Vec<Arc<Memory>>,
    /// What else launches point to.
    pub scratch: Vec<Arc<Memory>>,
    /// The kernels of the launches, by device and variant.
    pub functions: HashMap<(usize, Variant), Function>,
}

/// What lowering needs at hand.
struct Lowering<'a> {
    state: &'a CudaState,
    plan: &'a Plan,
    /// Of each device; on one device, all.
    acts: Vec<Vec<Option<Arc<Memory>>>>,
    scratch: Vec<Arc<Memory>>,
    dispatches: Vec<Dispatch>,
    functions: HashMap<(usize, Variant), Function>,
    /// The routings whose pairs are sorted in a device's scratch buffers at this point of the plan.
    grouped: Vec<(usize, Act)>,
    /// The device at hand.
    device: usize,
    /// Who has what, where there are several devices.
    whereabouts: Whereabouts,
    /// What is emitted writes a part of its output, and other devices the rest.
    writes_part: bool,
    /// The operation at hand.
    op: usize,
    /// The layer at hand is that of the module that drafts: its experts have no slots.
    drafting: bool,
}

/// Lowers `plan`.
pub(crate) fn lower(state: &CudaState, plan: &Plan) -> Result<Lowered> {
    let devices = state.placement.devices;
    let mut cx = Lowering {
        state,
        plan,
        acts: vec![vec![None; plan.acts.len()]; devices],
        scratch: Vec::new(),
        dispatches: Vec::new(),
        functions: HashMap::new(),
        grouped: Vec::new(),
        device: 0,
        whereabouts: Whereabouts::new(plan.acts.len()),
        writes_part: false,
        op: 0,
        drafting: false,
    };
    let all = || (0..plan.acts.len() as u32).map(Act);
    if devices == 1 {
        all().try_for_each(|act| cx.hold(0, act).map(drop))?;
    }
    for (index, op) in plan.ops.iter().enumerate() {
        cx.op = index;
        if devices == 1 { cx.single(op)? } else { cx.op_of_several(op)? }
    }
    let mut acts = Vec::with_capacity(plan.acts.len());
    for act in all() {
        let (index, device) = (act.0 as usize, cx.whereabouts.of(act.0 as usize));
        cx.hold(device, act)?;
        acts.extend(cx.acts[device][index].clone());
    }
    cx.scratch.extend(cx.acts.into_iter().flatten().flatten());
    Ok(Lowered { dispatches: cx.dispatches, acts, scratch: cx.scratch, functions: cx.functions })
}

impl<'a> Lowering<'a> {
    /// Lowers an operation for the device at hand.
    fn single(&mut self, op: &Op) -> Result<()> {
        match *op {
            Op::Embed { table, out } => self.embed(table, out),
            Op::Norm { x, weight, eps, out, q8 } => self.norm(x, weight, eps, out, q8),
            Op::Quantise { x, out } => self.quantise(x, out),
            Op::MatMul { w, x, out, add } => self.mat_mul(w, x, out, add),
            Op::GatedMatMul { gate, up, x, out } => self.gated_mat_mul(gate, up, x, out),
            Op::HeadMatMul { w, x, out } => self.head_mat_mul(w, x, out),
            Op::Rope { x, heads } => self.rope(x, heads),
            Op::Latent { kv, norm, eps, layer } => self.latent(kv, norm, eps, layer),
            Op::Attend { q_latent, q_rope, layer, out } => self.attend(q_latent, q_rope, layer, out),
            Op::AttendExpanded { q, k_up, v_up, layer, out } => self.attend_expanded(q, k_up, v_up, layer, out),
            Op::Router { logits, bias, layer, ids, weights } => self.router(logits, bias, layer, ids, weights),
            Op::ExpertsUp { bank, x, ids, out } => self.experts_up(bank, x, ids, out),
            Op::ExpertsDown { bank, x, ids, out } => self.experts_down(bank, x, ids, out),
            Op::Combine { y, weights, x } => self.combine(y, weights, x),
            Op::LastRow { x, out } => self.last_row(x, out),
            Op::Sample { logits } => self.sample(logits),
            Op::Verify { logits, row } => self.verify(logits, row),
            Op::Join { a, b, out } => self.join(a, b, out),
            Op::Shift { given } => self.shift(given),
            Op::TakenRow { x, out } => self.taken_row(x, out),
            Op::Settle { drafts } => self.settle(drafts),
            Op::Draft { logits, index, of } => self.draft(logits, index, of),
        }
    }

    fn decl(&self, act: Act) -> &ActDecl {
        self.plan.decl(act)
    }

    /// An activation's address on the device at hand.
    fn act(&self, act: Act) -> u64 {
        self.acts[self.device][act.0 as usize].as_ref().map_or(0, |memory| memory.address)
    }

    fn width(&self, act: Act) -> u32 {
        self.decl(act).width as u32
    }

    fn row_count(&self, act: Act) -> RowCount {
        match self.decl(act).rows {
            Rows::Tokens => RowCount::Step(self.plan.max_tokens as u32),
            Rows::One => RowCount::Fixed(1),
        }
    }

    /// What the device at hand is.
    fn info(&self) -> &'a DeviceInfo {
        let driver = &self.state.driver;
        driver.devices().get(self.device).unwrap_or_else(|| driver.info())
    }

    /// What the device at hand has of its own.
    fn local(&self) -> Local {
        self.state.locals[self.device]
    }

    fn vector(&self, id: VecId) -> u64 {
        self.state.vecs[id.0 as usize].address
    }

    fn cache(&self, layer: usize) -> Result<u64> {
        let cache = self.state.caches.get(layer).ok_or_else(|| Error::Gpu(format!("layer {layer} has no latent cache")))?;
        Ok(cache.address)
    }

    /// The buffer that all plans share by that name on a device; one that is too small lives on in the plans made with it.
    fn pooled(&self, device: usize, name: &str, what: &str, bytes: u64) -> Result<Arc<Memory>> {
        let name = (device, name.to_owned());
        let mut pool = self.state.pool.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(memory) = pool.get(&name).filter(|m| m.bytes >= bytes) {
            return Ok(Arc::clone(memory));
        }
        let memory = Arc::new(Memory::on(&self.state.driver, device, what, bytes)?);
        pool.insert(name, Arc::clone(&memory));
        Ok(memory)
    }

    /// A buffer that lives within an operation (or, for sorted pairs, within a layer); operations share it by name.
    fn scratch(&mut self, name: &str, bytes: u64) -> Result<u64> {
        let memory = self.pooled(self.device, name, name, bytes)?;
        let address = memory.address;
        if !self.scratch.iter().any(|m| m.address == address) {
            self.scratch.push(memory);
        }
        Ok(address)
    }

    /// Adds a launch.
    fn emit(&mut self, e: Emit<'_>) -> Result<()> {
        let Emit { kernel, defines, params, bind, grid, case, when, shared } = e;
        let info = cuda::kernel(kernel).ok_or_else(|| Error::Shader(format!("there is no kernel `{kernel}`")))?;
        let (device, writes_step) = (self.device, info.writes_step(&defines));
        let (first, stale) = self.whereabouts.step(device, writes_step);
        let step = if first { self.state.step.address } else { self.local().step };
        if stale {
            let words = self.state.step.bytes / 4;
            self.copy(self.state.step.address, step, words as u32, RowCount::Fixed(1))?;
        }
        let frame = cuda::Frame { step, pages: self.state.max_pages as u32, positions: self.state.max_context as u32 };
        let arguments = cuda::arguments(info, &defines, frame, &bind, &params)?.into();
        let threads = info.threads(&defines);
        let step = Touch { address: frame.step, how: if writes_step { Use::Write } else { Use::Read } };
        let touch = |(name, address): &(&str, u64)| {
            let written = info.pointers.iter().any(|p| p.name == *name && p.written);
            let how = match written {
                true if self.writes_part && *name == "out" => Use::Part,
                true => Use::Write,
                false => Use::Read,
            };
            Touch { address: *address, how }
        };
        let touches = bind.iter().map(touch).chain([step]).collect();
        let variant = (device, Variant { kernel, defines });
        let function = match self.functions.get(&variant) {
            Some(&function) => function,
            None => {
                let function = self.state.driver.function(device, &variant.1)?;
                self.functions.insert(variant, function);
                function
            }
        };
        let op = self.op;
        self.dispatches.push(Dispatch { device, op, function, threads, shared, arguments, touches, grid, case, when });
        Ok(())
    }
}
