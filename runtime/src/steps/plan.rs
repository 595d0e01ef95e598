//! A plan prepared for a device, and the parts of it that steps are made of.

use std::ops::Range;

use super::{
    acts::PlacedAct,
    backend::{Backend, Lowered},
};
use crate::{
    error::{Error, Result},
    plan::{Act, Op, Plan},
};

/// The operations of a mixture layer, by their places in the plan.
#[derive(Clone, Debug)]
pub struct Mixture {
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
    pub fn is_product(&self, op: usize) -> bool {
        op == self.up || op == self.down || Some(op) == self.inner
    }
}

/// A part of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// Operations.
    Ops(Range<usize>),
    /// The lookup of a mixture's slots among the experts of the round.
    Place(usize),
    /// The products of a mixture's experts, and nothing else of its layer.
    Products(usize),
}

/// What a part runs for.
#[derive(Clone, Copy, Debug)]
pub struct StepShape {
    pub tokens: u32,
    /// Positions that the cache holds after it.
    pub length: u32,
    /// Kernels fetch missing experts by themselves.
    pub gather: bool,
}

/// A plan prepared for a device.
pub struct Prepared<B: Backend> {
    pub dispatches: B::Dispatches,
    pub acts: Vec<PlacedAct<B::Buffer>>,
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
}

impl<B: Backend> Prepared<B> {
    /// What steps through `plan`, of a model with so many decoder layers, need to know of it.
    pub fn new(plan: &Plan, lowered: Lowered<B>, layers: usize) -> Self {
        let acts = plan.acts.iter().zip(lowered.acts).enumerate();
        Self {
            acts: acts.map(|(i, (_, buffer))| PlacedAct::new(plan, Act(i as u32), buffer)).collect(),
            mixtures: Mixture::all(plan, layers),
            ops: plan.ops.len(),
            dispatches: lowered.dispatches,
            max_tokens: plan.max_tokens,
            samples: plan.ops.iter().any(|op| matches!(op, Op::Sample { .. } | Op::Verify { .. })),
            verifies: plan.verifies(),
            drafts: plan.ops.iter().filter(|op| matches!(op, Op::Draft { .. })).count(),
        }
    }

    /// The activation.
    pub fn act(&self, act: Act) -> Result<&PlacedAct<B::Buffer>> {
        self.acts.get(act.0 as usize).ok_or_else(|| Error::Invalid(format!("the plan has no activation {}", act.0)))
    }

    /// Experts chosen for a token.
    pub fn top_k(&self) -> usize {
        self.mixtures.first().map_or(0, |m| m.top_k)
    }

    /// Whether a step of so many tokens decodes: one token, or one and drafts.
    pub fn decodes(&self, tokens: u32) -> bool {
        tokens == 1 || self.verifies > 1
    }

    /// The activations that experts read, each once.
    pub fn cold_inputs(&self) -> impl Iterator<Item = &PlacedAct<B::Buffer>> {
        let first = |i: usize| !self.mixtures[..i].iter().any(|m| m.x == self.mixtures[i].x);
        (0..self.mixtures.len()).filter(move |&i| first(i)).filter_map(|i| self.act(self.mixtures[i].x).ok())
    }

    /// Words of their first `tokens` rows.
    pub fn cold_words(&self, tokens: usize) -> usize {
        self.cold_inputs().map(|a| a.row_words * tokens).sum()
    }
}
