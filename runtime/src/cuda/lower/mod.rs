//! From plan operations to launches.
//!
//! Everything that a step needs is made here, once: activations, and for each launch its variant, the bytes of its argument, and a
//! grid as a function of the step's tokens. Addresses never change, so launches can be captured.

mod attention;
mod drafts;
mod experts;
mod matmul;
mod rows;

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError},
};

use bytemuck::Pod;
use pleiad_shaders::{Defines, cuda};

use super::{
    driver::{Function, Memory, Variant},
    state::CudaState,
};
use crate::{
    error::{Error, Result},
    plan::{Act, ActDecl, Op, Plan, Rows, VecId},
    steps::{Case, Dim, Scheduled, When, most_rows, row_words},
};

/// Tokens up to which products run as matrix-vector kernels.
const MATVEC_TOKENS: u32 = 8;

/// A prepared launch.
pub struct Dispatch {
    /// The operation that it belongs to: an index into the plan's.
    pub(crate) op: usize,
    pub(crate) function: Function,
    pub(crate) threads: u32,
    pub(crate) shared: u32,
    pub(crate) arguments: Arc<[u8]>,
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
}

/// What lowering needs at hand.
struct Lowering<'a> {
    state: &'a CudaState,
    plan: &'a Plan,
    acts: Vec<Arc<Memory>>,
    scratch: Vec<Arc<Memory>>,
    dispatches: Vec<Dispatch>,
    functions: HashMap<Variant, Function>,
    /// The routing whose pairs are sorted in the scratch buffers at this point of the plan.
    grouped: Option<Act>,
    /// The operation at hand.
    op: usize,
    /// The layer at hand is that of the module that drafts: its experts have no slots.
    drafting: bool,
}

/// Lowers `plan`.
pub(crate) fn lower(state: &CudaState, plan: &Plan) -> Result<Lowered> {
    let mut cx = Lowering {
        state,
        plan,
        acts: Vec::with_capacity(plan.acts.len()),
        scratch: Vec::new(),
        dispatches: Vec::new(),
        functions: HashMap::new(),
        grouped: None,
        op: 0,
        drafting: false,
    };
    for decl in &plan.acts {
        let bytes = (row_words(decl) * most_rows(decl, plan.max_tokens) * 4) as u64;
        let what = format!("activation `{}` of {} tokens", decl.name, plan.max_tokens);
        let memory = cx.pooled(&format!("{:?} {}", decl.kind, decl.name), &what, bytes)?;
        cx.acts.push(memory);
    }
    for (index, op) in plan.ops.iter().enumerate() {
        cx.op = index;
        cx.op(op)?;
    }
    Ok(Lowered { dispatches: cx.dispatches, acts: cx.acts, scratch: cx.scratch })
}

impl Lowering<'_> {
    fn op(&mut self, op: &Op) -> Result<()> {
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

    /// An activation's address.
    fn act(&self, act: Act) -> u64 {
        self.acts[act.0 as usize].address
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

    fn vector(&self, id: VecId) -> u64 {
        self.state.vecs[id.0 as usize].address
    }

    fn cache(&self, layer: usize) -> Result<u64> {
        let cache = self.state.caches.get(layer).ok_or_else(|| Error::Gpu(format!("layer {layer} has no latent cache")))?;
        Ok(cache.address)
    }

    /// The buffer that all plans share by that name; one that is too small lives on in the plans made with it.
    fn pooled(&self, name: &str, what: &str, bytes: u64) -> Result<Arc<Memory>> {
        let mut pool = self.state.pool.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(memory) = pool.get(name).filter(|m| m.bytes >= bytes) {
            return Ok(Arc::clone(memory));
        }
        let memory = Arc::new(Memory::new(&self.state.driver, what, bytes)?);
        pool.insert(name.to_owned(), Arc::clone(&memory));
        Ok(memory)
    }

    /// A buffer that lives within an operation (or, for sorted pairs, within a layer); operations share it by name.
    fn scratch(&mut self, name: &str, bytes: u64) -> Result<u64> {
        let memory = self.pooled(name, name, bytes)?;
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
        let frame = cuda::Frame {
            step: self.state.step.address,
            pages: self.state.max_pages as u32,
            positions: self.state.max_context as u32,
        };
        let arguments = cuda::arguments(info, &defines, frame, &bind, &params)?.into();
        let threads = info.threads(&defines);
        let variant = Variant { kernel, defines };
        let function = match self.functions.get(&variant) {
            Some(&function) => function,
            None => {
                let function = self.state.driver.function(&variant)?;
                self.functions.insert(variant, function);
                function
            }
        };
        self.dispatches.push(Dispatch { op: self.op, function, threads, shared, arguments, grid, case, when });
        Ok(())
    }
}
