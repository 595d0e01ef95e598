//! A plan: the forward pass as a flat list of device operations, recorded once and replayed.
//!
//! The family's forward pass is written once, in [`crate::forward`], as calls that record [`Op`]s. A
//! device turns the recorded plan into whatever it replays fastest: the CPU backend interprets it, the
//! GPU backend prepares pipelines, buffers and bind groups. What changes from step to step (token ids,
//! positions, the page table of the latent cache, sampling) lives in a small step state, never in the plan.
//!
//! Activations are matrices of one row a token: `[T, width]`, row-major, T being the tokens of the step.

use std::ops::Range;

/// An activation of a plan: an index into [`Plan::acts`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Act(pub u32);

/// A weight matrix, or stack of matrices, of the model: an index into [`crate::model::Model::mats`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MatId(pub u32);

/// A weight vector (f32): an index into [`crate::model::Model::vecs`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VecId(pub u32);

/// The routed experts of one layer: an index into [`crate::model::Model::banks`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BankId(pub u32);

/// What an activation's elements are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// f32.
    F32,
    /// u32 (expert ids).
    U32,
    /// Signed bytes in blocks of 32 with an f32 scale: see [`crate::q8`]. `width` is a multiple of 32.
    Q8,
}

/// How many rows an activation has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rows {
    /// One for each token of the step.
    Tokens,
    /// One.
    One,
}

/// An activation's declaration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActDecl {
    /// A name for people and tests.
    pub name: String,
    /// Element kind.
    pub kind: Kind,
    /// Rows.
    pub rows: Rows,
    /// Elements a row.
    pub width: usize,
}

/// One vector a head inside the rows of an f32 activation: head `h` of token `t` is at
/// `t * width(act) + offset + h * stride`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heads {
    /// The activation.
    pub act: Act,
    /// First element of head 0.
    pub offset: usize,
    /// Elements from one head to the next.
    pub stride: usize,
}

/// A device operation. Each has a plain twin of the same name in [`crate::twins`].
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// `out[t] = table[id[t]]`, the step's token ids. f32.
    Embed {
        /// `[vocab, h]`.
        table: MatId,
        /// `[T, h]`.
        out: Act,
    },
    /// RMS norm: `x / sqrt(mean(x^2) + eps) * weight`, written as f32, as Q8, or both.
    Norm {
        /// `[T, n]` f32.
        x: Act,
        /// `[n]`.
        weight: VecId,
        /// Added to the mean square.
        eps: f32,
        /// `[T, n]` f32.
        out: Option<Act>,
        /// `[T, n]` Q8.
        q8: Option<Act>,
    },
    /// `out = q8(x)`.
    Quantise {
        /// `[T, n]` f32.
        x: Act,
        /// `[T, n]` Q8.
        out: Act,
    },
    /// `out[t] = W x[t]`, or `out[t] += W x[t]`.
    MatMul {
        /// `[m, n]`.
        w: MatId,
        /// `[T, n]`, f32 or (quantised weights only) Q8.
        x: Act,
        /// `[T, m]` f32.
        out: Act,
        /// Add to what is there (the residual stream).
        add: bool,
    },
    /// `out[t] = silu(G x[t]) * (U x[t])`.
    GatedMatMul {
        /// G, `[m, n]`.
        gate: MatId,
        /// U, `[m, n]`.
        up: MatId,
        /// `[T, n]`, f32 or Q8.
        x: Act,
        /// `[T, m]` f32.
        out: Act,
    },
    /// `out[t][h] = W[h] x[t][h]` for every head: into the latent space and out of it.
    HeadMatMul {
        /// H matrices `[m, n]`.
        w: MatId,
        /// n elements a head, f32.
        x: Heads,
        /// m elements a head, f32.
        out: Heads,
    },
    /// Rotates the rope part of every head of `x` in place, to the position of each token.
    Rope {
        /// The rope parts, dr elements a head.
        x: Heads,
        /// Number of heads.
        heads: usize,
    },
    /// Appends a row to the latent cache of `layer` for every token: `[rms_norm(latent) | rope(key)]`.
    Latent {
        /// `[T, r + dr]` f32: raw latent, raw key.
        kv: Act,
        /// `[r]`.
        norm: VecId,
        /// The norm's epsilon.
        eps: f32,
        /// Whose cache.
        layer: usize,
    },
    /// Latent attention in absorbed form. For every head, over the rows `0..=position` of the cache:
    /// `softmax(scale * (q_latent . latent + q_rope . key)) latent`.
    Attend {
        /// Queries in latent space: `[T, H * r]` f32.
        q_latent: Act,
        /// Rotated rope parts of the queries, dr elements a head.
        q_rope: Heads,
        /// Whose cache.
        layer: usize,
        /// `[T, H * r]` f32.
        out: Act,
    },
    /// Latent attention in expanded form, for long chunks: keys `W_UK latent` and values `W_UV latent` of
    /// every cached row are made first, then heads attend as in ordinary attention.
    AttendExpanded {
        /// Queries: `[T, H * (dn + dr)]` f32, rope part rotated.
        q: Act,
        /// W_UK: H matrices `[dn, r]`.
        k_up: MatId,
        /// W_UV: H matrices `[dv, r]`.
        v_up: MatId,
        /// Whose cache.
        layer: usize,
        /// `[T, H * dv]` f32.
        out: Act,
    },
    /// Chooses experts ([`crate::model::Model::config`]`.moe`): scores, groups, top-k, weights. Ids ascend.
    /// With counters on, adds one to the layer's counter of every chosen expert.
    Router {
        /// `[T, E]` f32.
        logits: Act,
        /// `[E]`, for selection only.
        bias: Option<VecId>,
        /// The layer, for counters.
        layer: usize,
        /// `[T, K]` u32.
        ids: Act,
        /// `[T, K]` f32.
        weights: Act,
    },
    /// `out[t][k] = silu(G x[t]) * (U x[t])` with the gate and up matrices of expert `ids[t][k]`.
    ExpertsUp {
        /// The experts.
        bank: BankId,
        /// `[T, h]`, f32 or Q8.
        x: Act,
        /// `[T, K]`.
        ids: Act,
        /// `[T, K * i]` f32.
        out: Act,
    },
    /// `out[t][k] = D x[t][k]` with the down matrix of expert `ids[t][k]`.
    ExpertsDown {
        /// The experts.
        bank: BankId,
        /// `[T, K * i]`, f32 or Q8.
        x: Act,
        /// `[T, K]`.
        ids: Act,
        /// `[T, K * h]` f32.
        out: Act,
    },
    /// `x[t] += sum over k, ascending, of weights[t][k] * y[t][k]`.
    Combine {
        /// `[T, K * h]` f32.
        y: Act,
        /// `[T, K]` f32.
        weights: Act,
        /// `[T, h]` f32.
        x: Act,
    },
    /// `out = x[T - 1]`.
    LastRow {
        /// `[T, n]` f32.
        x: Act,
        /// `[1, n]` f32.
        out: Act,
    },
    /// `out[t] = [a[t] | b[t]]`.
    Join {
        /// `[T, n]` f32.
        a: Act,
        /// `[T, m]` f32.
        b: Act,
        /// `[T, n + m]` f32.
        out: Act,
    },
    /// Samples from a row of `logits` of a step whose last tokens are drafts. Row 0 is that of the last token that is none. Row
    /// n + 1 counts only if what was sampled from row n is the draft that it was computed for, and ends nothing. So each token is
    /// drawn as without drafts: with probability p(draft) it is the draft, else it has the distribution of what is left of p.
    /// ([`crate::step::StepState::take`].)
    Verify {
        /// `[rows, vocab]` f32.
        logits: Act,
        /// Which row.
        row: usize,
    },
    /// Moves the step's token ids up by one row: row t gets the token after it. The last row that counts gets the token sampled
    /// from it or, where `given`, the id that was written behind the step's own.
    Shift {
        /// All ids are known.
        given: bool,
    },
    /// `out` = the last row of `x` that counts: that from which the last token was sampled.
    TakenRow {
        /// `[T, n]` f32.
        x: Act,
        /// `[1, n]` f32.
        out: Act,
    },
    /// Leaves the rows of the step behind: what follows works on one row, at the position of the last one that counts. Without
    /// drafts to come, the next step decodes the last token sampled.
    Settle {
        /// Drafts to come.
        drafts: usize,
    },
    /// Drafts the token with the largest of `logits`; it becomes the id of the row that follows, one position on. After the last
    /// draft, the next step has the last token sampled and all drafts.
    Draft {
        /// `[1, vocab]` f32.
        logits: Act,
        /// Which draft, from 0.
        index: usize,
        /// Drafts in all.
        of: usize,
    },
    /// Samples from `logits` as the step's sampling parameters say; the id becomes the step's next token, its
    /// position follows.
    Sample {
        /// `[1, vocab]` f32.
        logits: Act,
    },
}

/// A recorded forward pass.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// The most tokens of a step.
    pub max_tokens: usize,
    /// The activations.
    pub acts: Vec<ActDecl>,
    /// The operations, in order.
    pub ops: Vec<Op>,
    /// `ops` of each decoder layer, for timings.
    pub layers: Vec<Range<usize>>,
}

impl Plan {
    /// A plan for steps of up to `max_tokens` tokens.
    pub fn new(max_tokens: usize) -> Self {
        Self { max_tokens, ..Self::default() }
    }

    /// Declares an activation.
    pub fn act(&mut self, name: impl Into<String>, kind: Kind, rows: Rows, width: usize) -> Act {
        let act = Act(self.acts.len() as u32);
        self.acts.push(ActDecl { name: name.into(), kind, rows, width });
        act
    }

    /// The declaration of `act`.
    pub fn decl(&self, act: Act) -> &ActDecl {
        &self.acts[act.0 as usize]
    }

    /// Rows that it samples from; 0 where drafts are no business of its.
    pub fn verifies(&self) -> usize {
        self.ops.iter().filter(|op| matches!(op, Op::Verify { .. })).count()
    }

    /// The activation of that name.
    pub fn find(&self, name: &str) -> Option<Act> {
        self.acts.iter().position(|a| a.name == name).map(|i| Act(i as u32))
    }
}
