//! A plan prepared for a GPU: replaying it encodes dispatches and nothing else.

use std::{ops::Range, sync::Arc};

use wgpu::Buffer;

use super::{
    device::GpuDevice,
    lower::{self, Dispatch, When, most_rows, row_words},
    state::GpuState,
};
use crate::{
    error::{Error, Result},
    plan::{Act, Kind, Op, Plan},
    q8::Q8Rows,
};

/// An activation of a prepared plan.
pub(crate) struct GpuAct {
    pub name: String,
    pub buffer: Buffer,
    pub kind: Kind,
    /// Elements of a row.
    pub width: usize,
    /// Rows of their own in each row (8-bit activations).
    pub parts: usize,
    /// Words of a row.
    pub row_words: usize,
    /// The most rows.
    pub rows: usize,
}

impl GpuAct {
    /// Rows of 8-bit blocks as the device holds them: quants, then for each block its scale and the sums of its halves.
    pub fn words_of(&self, rows: &Q8Rows) -> Vec<u32> {
        let mut words = Vec::with_capacity(rows.quants.len() / 4 + rows.quants.len() / 16);
        for ((quants, scales), sums) in
            rows.quants.chunks(rows.width).zip(rows.scales.chunks(rows.width / 32)).zip(rows.sums.chunks(rows.width / 16))
        {
            words.extend(quants.chunks_exact(4).map(|q| u32::from_le_bytes([q[0], q[1], q[2], q[3]].map(|q| q as u8))));
            for (scale, sums) in scales.iter().zip(sums.chunks_exact(2)) {
                words.push(scale.to_bits());
                words.push(u32::from(sums[0] as u16) | u32::from(sums[1] as u16) << 16);
            }
        }
        words
    }

    /// The other way.
    pub fn rows_of(&self, words: &[u32]) -> Q8Rows {
        let width = self.width / self.parts;
        let mut rows = Q8Rows { width, ..Q8Rows::default() };
        for row in words.chunks_exact(width / 4 + width / 16) {
            let (quants, blocks) = row.split_at(width / 4);
            rows.quants.extend(quants.iter().flat_map(|q| q.to_le_bytes().map(|b| b as i8)));
            for block in blocks.chunks_exact(2) {
                rows.scales.push(f32::from_bits(block[0]));
                rows.sums.extend([block[1] as i16, (block[1] >> 16) as i16]);
            }
        }
        rows
    }

    /// The other way: f32 values.
    pub fn dequantise(&self, words: &[u32]) -> Vec<f32> {
        let width = self.width / self.parts;
        let mut out = Vec::with_capacity(words.len() * 4);
        for row in words.chunks_exact(width / 4 + width / 16) {
            let (quants, blocks) = row.split_at(width / 4);
            for (quants, block) in quants.chunks_exact(8).zip(blocks.chunks_exact(2)) {
                let scale = f32::from_bits(block[0]);
                let bytes = quants.iter().flat_map(|q| q.to_le_bytes());
                out.extend(bytes.map(|q| f32::from(q as i8) * scale));
            }
        }
        out
    }
}

/// The operations of a mixture layer, by their places in the plan.
#[derive(Clone, Debug)]
pub(crate) struct Mixture {
    pub layer: usize,
    pub bank: usize,
    /// After it the experts are known.
    pub router: usize,
    pub up: usize,
    /// Quantises what lies between up and down.
    pub inner: Option<usize>,
    pub down: usize,
    /// Before it all experts must have been computed.
    pub combine: usize,
    /// What experts read, `[T, h]`.
    pub x: Act,
    /// What they write, `[T, K * h]`.
    pub y: Act,
    pub top_k: usize,
}

impl Mixture {
    /// Those of the first `layers` layers: what comes after them is always resident.
    fn all(plan: &Plan, layers: usize) -> Vec<Self> {
        let mut all = Vec::new();
        let mut router = None;
        for (at, op) in plan.ops.iter().enumerate() {
            match *op {
                Op::Router { layer, ids, .. } => {
                    router = (layer < layers).then(|| (layer, at, plan.decl(ids).width));
                }
                Op::ExpertsUp { bank, x, out, .. } => {
                    let Some((layer, router, top_k)) = router else { continue };
                    let find = |wanted: &dyn Fn(&Op) -> bool| (at..plan.ops.len()).find(|&i| wanted(&plan.ops[i]));
                    let down = find(&|o| matches!(o, Op::ExpertsDown { bank: b, .. } if *b == bank));
                    let combine = find(&|o| matches!(o, Op::Combine { .. }));
                    let (Some(down), Some(combine)) = (down, combine) else { continue };
                    let Op::ExpertsDown { out: y, .. } = plan.ops[down] else { continue };
                    let inner = find(&|o| matches!(o, Op::Quantise { x, .. } if *x == out)).filter(|&i| i < down);
                    let bank = bank.0 as usize;
                    all.push(Self { layer, bank, router, up: at, inner, down, combine, x, y, top_k });
                }
                _ => {}
            }
        }
        all
    }

    /// Whether an operation is a product of this layer's experts, or belongs to one.
    fn is_product(&self, op: usize) -> bool {
        op == self.up || op == self.down || Some(op) == self.inner
    }
}

/// A part of a plan.
#[derive(Clone, Debug)]
pub(crate) enum Part {
    /// Operations.
    Ops(Range<usize>),
    /// The lookup of a mixture's slots among the experts of the round.
    Place(usize),
    /// The products of a mixture's experts, and nothing else of its layer.
    Products(usize),
}

/// What a part is encoded for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StepShape {
    pub tokens: u32,
    /// Positions that the cache holds after it.
    pub length: u32,
    /// Kernels fetch missing experts by themselves.
    pub gather: bool,
}

/// A plan prepared for a GPU.
pub(crate) struct GpuPlan {
    dispatches: Vec<Dispatch>,
    acts: Vec<GpuAct>,
    /// Its mixture layers, in order.
    pub mixtures: Vec<Mixture>,
    /// Operations.
    pub ops: usize,
    pub max_tokens: usize,
    /// Whether it ends by sampling the next token.
    pub samples: bool,
    /// Rows that it samples from where it has to do with drafts, else 0.
    pub verifies: usize,
    /// Tokens that it drafts for the next step.
    pub drafts: usize,
    /// Bind groups made for it.
    pub bind_groups: u64,
}

impl GpuPlan {
    /// Makes everything that steps through `plan` need.
    pub fn compile(gpu: &GpuDevice, state: &GpuState, plan: &Plan) -> Result<Self> {
        if plan.max_tokens == 0 || plan.max_tokens > super::state::MAX_IDS {
            return Err(Error::Limit {
                what: "tokens of one step".into(),
                needed: plan.max_tokens as u64,
                limit: super::state::MAX_IDS as u64,
            });
        }
        let lowered = lower::lower(gpu, state, plan)?;
        let acts = plan.acts.iter().zip(lowered.acts).enumerate().map(|(i, (decl, buffer))| GpuAct {
            kind: decl.kind,
            width: decl.width,
            parts: lower::parts_of(plan, Act(i as u32)),
            name: decl.name.clone(),
            buffer,
            row_words: row_words(decl),
            rows: most_rows(decl, plan.max_tokens),
        });
        Ok(Self {
            acts: acts.collect(),
            mixtures: Mixture::all(plan, state.model.layers.len()),
            ops: plan.ops.len(),
            dispatches: lowered.dispatches,
            max_tokens: plan.max_tokens,
            samples: plan.ops.iter().any(|op| matches!(op, Op::Sample { .. } | Op::Verify { .. })),
            verifies: plan.verifies(),
            drafts: plan.ops.iter().filter(|op| matches!(op, Op::Draft { .. })).count(),
            bind_groups: lowered.bind_groups,
        })
    }

    /// The activation.
    pub fn act(&self, act: Act) -> Result<&GpuAct> {
        self.acts.get(act.0 as usize).ok_or_else(|| Error::Invalid(format!("the plan has no activation {}", act.0)))
    }

    /// Experts chosen for a token.
    pub fn top_k(&self) -> usize {
        self.mixtures.first().map_or(0, |m| m.top_k)
    }

    /// The activations that experts read, each once.
    pub fn cold_inputs(&self) -> impl Iterator<Item = &GpuAct> {
        let first = |i: usize| !self.mixtures[..i].iter().any(|m| m.x == self.mixtures[i].x);
        (0..self.mixtures.len()).filter(move |&i| first(i)).filter_map(|i| self.act(self.mixtures[i].x).ok())
    }

    /// Words of their first `tokens` rows.
    pub fn cold_words(&self, tokens: usize) -> usize {
        self.cold_inputs().map(|a| a.row_words * tokens).sum()
    }

    /// Encodes a part of the plan; returns the number of dispatches.
    pub fn encode(&self, pass: &mut wgpu::ComputePass<'_>, part: &Part, shape: StepShape) -> u64 {
        let (ops, only) = match part {
            Part::Ops(ops) => (ops.clone(), None),
            Part::Products(m) => (self.mixtures[*m].up..self.mixtures[*m].down + 1, Some(*m)),
            Part::Place(m) => (self.mixtures[*m].router..self.mixtures[*m].router + 1, None),
        };
        let placing = matches!(part, Part::Place(_));
        let belongs = |d: &&Dispatch| {
            let now = match d.when {
                When::Always => !placing,
                When::Gather => !placing && shape.gather,
                When::Place => placing,
            };
            let wanted = only.is_none_or(|m| self.mixtures[m].is_product(d.op));
            now && wanted && ops.contains(&d.op) && d.case.holds(shape.tokens, shape.length)
        };
        let mut count = 0;
        let mut current = None;
        for d in self.dispatches.iter().filter(belongs) {
            let [x, y, z] = d.grid.map(|dim| dim.at(shape.tokens));
            if x == 0 || y == 0 || z == 0 {
                continue;
            }
            if !current.is_some_and(|c| Arc::ptr_eq(c, &d.pipeline)) {
                pass.set_pipeline(&d.pipeline.pipeline);
                current = Some(&d.pipeline);
            }
            pass.set_bind_group(0, &d.bind_group, &[d.params]);
            pass.dispatch_workgroups(x, y, z);
            count += 1;
        }
        count
    }
}
