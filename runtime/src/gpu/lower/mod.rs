//! From plan operations to dispatches.
//!
//! Everything that a step needs is made here, once: activation buffers, uniforms, bind groups, and for each dispatch a grid
//! as a function of the step's tokens. Uniforms lie in one buffer and are chosen by dynamic offset, so that dispatches that
//! differ in parameters alone share a bind group.

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
use pleiad_shaders::Access;
use wgpu::{BindGroup, Buffer, BufferUsages};

use super::{
    backend::Wgpu,
    device::GpuDevice,
    pipelines::{Pipeline, Variant},
    state::GpuState,
};
use crate::{
    error::{Error, Result},
    plan::{Act, ActDecl, Op, Plan, Rows},
    steps::{Case, Dim, Lowered, Scheduled, When, most_rows, row_words},
};

pub(crate) use experts::{GATHER_WORKGROUPS, PLACE_THREADS, TILE, admit_params, router_params};

/// Tokens up to which products run as matrix-vector kernels.
pub(crate) const MATVEC_TOKENS: u32 = 8;

/// A prepared dispatch.
pub struct Dispatch {
    /// The operation that it belongs to: an index into the plan's.
    pub(crate) op: usize,
    pub(crate) pipeline: Arc<Pipeline>,
    pub(crate) bind_group: BindGroup,
    /// Byte offset of its parameters in the plan's uniform buffer.
    pub(crate) params: u32,
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

/// A buffer, or a part of it, to bind.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Bound {
    buffer: Buffer,
    offset: u64,
    size: u64,
}

impl From<&Buffer> for Bound {
    fn from(buffer: &Buffer) -> Self {
        Self { buffer: buffer.clone(), offset: 0, size: buffer.size() }
    }
}

/// A dispatch as `lower` describes it.
struct Emit<'a> {
    variant: Variant,
    params: Vec<u8>,
    bind: Vec<(&'a str, Bound)>,
    grid: [Dim; 3],
    case: Case,
    when: When,
}

impl<'a> Emit<'a> {
    fn new(variant: Variant, params: &impl Pod, bind: Vec<(&'a str, Bound)>, grid: [Dim; 3]) -> Self {
        Self { variant, params: bytemuck::bytes_of(params).to_vec(), bind, grid, case: Case::ALWAYS, when: When::Always }
    }

    fn only(self, when: When) -> Self {
        Self { when, ..self }
    }

    fn when(self, case: Case) -> Self {
        Self { case, ..self }
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

    /// One workgroup a row.
    fn each(self) -> Dim {
        match self {
            Self::Step(_) => Dim::Each(1),
            Self::Fixed(n) => Dim::Fixed(n),
        }
    }

    /// One workgroup for `tile` rows.
    fn per(self, tile: u32) -> Dim {
        match self {
            Self::Step(_) => Dim::Per(tile),
            Self::Fixed(n) => Dim::Fixed(n.div_ceil(tile)),
        }
    }
}

struct Described {
    pipeline: Arc<Pipeline>,
    bind: Vec<(u32, Bound)>,
    params: u32,
    grid: [Dim; 3],
    case: Case,
    when: When,
    op: usize,
}

/// What lowering needs at hand.
pub(crate) struct Lowering<'a> {
    gpu: &'a GpuDevice,
    state: &'a GpuState,
    plan: &'a Plan,
    acts: Vec<Buffer>,
    scratch: HashMap<&'static str, Buffer>,
    uniforms: Vec<u8>,
    uniform_places: HashMap<Vec<u8>, u32>,
    described: Vec<Described>,
    /// The routing whose pairs are sorted in the scratch buffers at this point of the plan.
    grouped: Option<Act>,
    /// The operation at hand.
    op: usize,
    /// The layer at hand is that of the module that drafts: its experts have no slots.
    drafting: bool,
    /// Collects the kernels instead of describing dispatches.
    kernels: Option<Vec<Variant>>,
}

/// Lowers `plan` for `gpu`.
pub(crate) fn lower(gpu: &GpuDevice, state: &GpuState, plan: &Plan) -> Result<Lowered<Wgpu>> {
    described(gpu, state, plan, None)?.finish()
}

/// The kernels that [`lower`] will use, each as often as it does. Makes the plan's buffers, and nothing else.
pub(crate) fn kernels(gpu: &GpuDevice, state: &GpuState, plan: &Plan) -> Result<Vec<Variant>> {
    Ok(described(gpu, state, plan, Some(Vec::new()))?.kernels.unwrap_or_default())
}

fn described<'a>(gpu: &'a GpuDevice, state: &'a GpuState, plan: &'a Plan, kernels: Option<Vec<Variant>>) -> Result<Lowering<'a>> {
    let mut cx = Lowering {
        gpu,
        state,
        plan,
        acts: Vec::with_capacity(plan.acts.len()),
        scratch: HashMap::new(),
        uniforms: Vec::new(),
        uniform_places: HashMap::new(),
        described: Vec::new(),
        grouped: None,
        op: 0,
        drafting: false,
        kernels,
    };
    for decl in &plan.acts {
        let bytes = (row_words(decl) * most_rows(decl, plan.max_tokens) * 4) as u64;
        let what = format!("activation `{}` of {} tokens", decl.name, plan.max_tokens);
        let buffer = cx.pooled(&format!("{:?} {}", decl.kind, decl.name), &what, bytes)?;
        cx.acts.push(buffer);
    }
    for (index, op) in plan.ops.iter().enumerate() {
        cx.op = index;
        cx.op(op)?;
    }
    Ok(cx)
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
            Op::LastRow { x, out } => self.row_of(x, out, false),
            Op::Sample { logits } => self.sample(logits, None),
            Op::Verify { logits, row } => self.sample(logits, Some(row)),
            Op::Join { a, b, out } => self.join(a, b, out),
            Op::Shift { given } => self.shift(given),
            Op::TakenRow { x, out } => self.row_of(x, out, true),
            Op::Settle { drafts } => self.settle(drafts),
            Op::Draft { logits, index, of } => self.draft(logits, index, of),
        }
    }

    fn decl(&self, act: Act) -> &ActDecl {
        self.plan.decl(act)
    }

    /// The whole activation.
    fn act(&self, act: Act) -> Bound {
        Bound::from(&self.acts[act.0 as usize])
    }

    fn width(&self, act: Act) -> u32 {
        self.decl(act).width as u32
    }

    fn row_count(&self, act: Act) -> RowCount {
        match self.decl(act).rows {
            Rows::Tokens => RowCount::Step(self.max_tokens()),
            Rows::One => RowCount::Fixed(1),
        }
    }

    fn max_tokens(&self) -> u32 {
        self.plan.max_tokens as u32
    }

    fn step(&self) -> Bound {
        Bound::from(&self.state.step)
    }

    fn vector(&self, id: crate::plan::VecId) -> Bound {
        let weights = &self.state.weights;
        let place = weights.vector_places[id.0 as usize];
        Bound { buffer: weights.vectors.clone(), offset: place.offset, size: place.size }
    }

    /// A storage buffer that can be bound whole.
    fn storage(&self, what: &str, bytes: u64) -> Result<Buffer> {
        let limit = self.gpu.max_binding();
        if bytes > limit {
            return Err(Error::Limit { what: format!("{what}: bytes of one GPU binding"), needed: bytes, limit });
        }
        // Kernels may see it as vec4s.
        let usage = BufferUsages::STORAGE | BufferUsages::COPY_SRC | BufferUsages::COPY_DST;
        self.gpu.buffer_now(what, bytes.next_multiple_of(16).max(16), usage)
    }

    /// The buffer that all plans share by that name; one that is too small lives on in the plans made with it.
    fn pooled(&self, name: &str, what: &str, bytes: u64) -> Result<Buffer> {
        let mut pool = self.state.pool.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(buffer) = pool.get(name).filter(|b| b.size() >= bytes) {
            return Ok(buffer.clone());
        }
        let buffer = self.storage(what, bytes)?;
        pool.insert(name.to_owned(), buffer.clone());
        Ok(buffer)
    }

    /// A buffer that lives within an operation (or, for sorted pairs, within a layer); operations share it by name.
    fn scratch(&mut self, name: &'static str, bytes: u64) -> Result<Bound> {
        if let Some(buffer) = self.scratch.get(name)
            && buffer.size() >= bytes
        {
            return Ok(Bound::from(buffer));
        }
        let buffer = self.pooled(name, name, bytes)?;
        let bound = Bound::from(&buffer);
        self.scratch.insert(name, buffer);
        Ok(bound)
    }

    /// The offset of `params` among the plan's uniforms; equal ones share a place.
    fn uniform(&mut self, params: Vec<u8>) -> u32 {
        if let Some(&place) = self.uniform_places.get(&params) {
            return place;
        }
        let align = self.gpu.limits.min_uniform_buffer_offset_alignment.max(16) as usize;
        let place = self.uniforms.len().next_multiple_of(align);
        self.uniforms.resize(place, 0);
        self.uniforms.extend_from_slice(&params);
        self.uniform_places.insert(params, place as u32);
        place as u32
    }

    /// Adds a dispatch.
    fn emit(&mut self, e: Emit<'_>) -> Result<()> {
        let Emit { variant, params, bind, grid, case, when } = e;
        if let Some(kernels) = &mut self.kernels {
            kernels.push(variant);
            return Ok(());
        }
        let pipeline = self.gpu.pipeline(&variant)?;
        let limit = self.gpu.limits.max_compute_workgroups_per_dimension;
        for dim in grid {
            let needed = dim.at(self.max_tokens().min(case.tokens.1));
            if needed > limit {
                let what = format!("{}: workgroups along one dimension", pipeline.label);
                return Err(Error::Limit { what, needed: u64::from(needed), limit: u64::from(limit) });
            }
        }
        let mut bound = Vec::with_capacity(bind.len());
        for b in &pipeline.interface.bindings {
            if b.access == Access::Uniform {
                if params.len() as u64 != u64::from(b.min_size) {
                    let (is, has) = (b.min_size, params.len());
                    return Err(Error::Gpu(format!("{}: `{}` has {is} bytes, not {has}", pipeline.label, b.name)));
                }
                continue;
            }
            let Some((_, what)) = bind.iter().find(|(name, _)| *name == b.name) else {
                return Err(Error::Gpu(format!("{}: nothing to bind to `{}`", pipeline.label, b.name)));
            };
            if b.access == Access::ReadWrite
                && let Some((other, _)) = bind.iter().find(|(n, o)| *n != b.name && o.buffer == what.buffer)
            {
                return Err(Error::Gpu(format!("{}: writes `{}`, which is `{other}` too", pipeline.label, b.name)));
            }
            bound.push((b.index, what.clone()));
        }
        let params = self.uniform(params);
        self.described.push(Described { pipeline, bind: bound, params, grid, case, when, op: self.op });
        Ok(())
    }

    fn finish(self) -> Result<Lowered<Wgpu>> {
        let usage = BufferUsages::UNIFORM | BufferUsages::COPY_DST;
        let uniforms = self.gpu.buffer_now("parameters of a plan", self.uniforms.len() as u64, usage)?;
        if !self.uniforms.is_empty() {
            let mut bytes = self.uniforms;
            bytes.resize(bytes.len().next_multiple_of(4), 0);
            self.gpu.queue.write_buffer(&uniforms, 0, &bytes);
        }
        #[expect(clippy::mutable_key_type, reason = "a buffer hashes by its identity, which never changes")]
        let mut groups: HashMap<(String, Vec<(u32, Bound)>), BindGroup> = HashMap::new();
        let dispatches = self.gpu.scoped_now("bind groups of a plan", 0, || {
            self.described
                .into_iter()
                .map(|mut d| {
                    let bind_group = groups
                        .entry((d.pipeline.label.clone(), std::mem::take(&mut d.bind)))
                        .or_insert_with_key(|(_, bind)| bind_group(self.gpu, &d.pipeline, &uniforms, bind))
                        .clone();
                    let Described { pipeline, params, grid, case, when, op, .. } = d;
                    Dispatch { op, pipeline, bind_group, params, grid, case, when }
                })
                .collect()
        })?;
        Ok(Lowered { dispatches, acts: self.acts, bind_groups: groups.len() as u64 })
    }
}

fn bind_group(gpu: &GpuDevice, pipeline: &Pipeline, uniforms: &Buffer, bind: &[(u32, Bound)]) -> BindGroup {
    let storage = bind.iter().map(|(index, b)| (*index, &b.buffer, b.offset, b.size));
    let params = pipeline.interface.bindings.iter().filter(|b| b.access == Access::Uniform);
    let params = params.map(|b| (b.index, uniforms, 0, u64::from(b.min_size)));
    let entries: Vec<_> = storage
        .chain(params)
        .map(|(binding, buffer, offset, size)| wgpu::BindGroupEntry {
            binding,
            resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                buffer,
                offset,
                size: std::num::NonZeroU64::new(size),
            }),
        })
        .collect();
    gpu.device.create_bind_group(&wgpu::BindGroupDescriptor {
        label: Some(&pipeline.label),
        layout: &pipeline.layout,
        entries: &entries,
    })
}
