//! The family's forward pass, written once.
//!
//! Per layer: norm, latent attention (project, rotate, append to the latent cache, attend, project out), norm,
//! then a dense MLP or router, experts, shared experts and their sum. After the last layer: norm, logits, sampling.
//! Formulas: DeepSeek-V2 report (arXiv 2405.04434) section 2.1, DeepSeek-V3 report (arXiv 2412.19437) section 2.1.

mod drafts;

use crate::{
    executor::Activations,
    model::{FfnIds, LayerIds, MlpIds, Model, QueryIds},
    plan::{Act, Heads, Kind, MatId, Op, Plan, Rows},
};

/// What a step is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Output {
    /// Only the latent cache (all chunks of a prompt but the last).
    Cache,
    /// The next token, sampled from the last row's logits.
    Token,
    /// The logits of every row, in the activation `logits`, and the routing of every mixture layer N in
    /// `router.N.ids` and `router.N.weights`.
    Everything,
}

/// Which form of latent attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AttentionForm {
    /// Queries go into the latent space: fewest bytes; for decoding and short chunks.
    Absorbed,
    /// Keys and values come out of it: fewest operations; for long chunks.
    Expanded,
}

/// What a step has to do with drafted tokens, where the model has a module that drafts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Speculation {
    /// How many of the step's tokens, the last ones, are drafts.
    pub verify: usize,
    /// How many are drafted for the next step. With none, the module's latent cache is kept up nevertheless.
    pub draft: usize,
}

/// What to record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Options {
    /// The most tokens of a step.
    pub max_tokens: usize,
    /// What the step is for.
    pub output: Output,
    /// Precision of activations in quantised products.
    pub activations: Activations,
    /// Form of attention.
    pub attention: AttentionForm,
    /// Drafts; `None`: without the module.
    pub speculation: Option<Speculation>,
}

/// Records the forward pass of `model`.
pub fn record(model: &Model, options: Options) -> Plan {
    let h = model.config.hidden_size;
    let rows = Rows::Tokens;
    let mut r = Recorder { model, options, plan: Plan::new(options.max_tokens), rows, form: options.attention };
    let x = r.f32("x", h);
    r.op(Op::Embed { table: model.embed, out: x });
    for (index, layer) in model.layers.iter().enumerate() {
        let start = r.plan.ops.len();
        r.attention(index, layer, x, true);
        r.feed_forward(index, layer, x);
        let end = r.plan.ops.len();
        r.plan.layers.push(start..end);
    }
    let module = options.speculation.zip(model.mtp.as_deref());
    match options.output {
        Output::Cache => {
            if let Some((_, mtp)) = module {
                r.fill(mtp, x, true);
            }
        }
        Output::Token => {
            let logits = match module {
                Some((Speculation { verify: 1.., .. }, _)) => r.head(x, Rows::Tokens),
                _ => {
                    let last = r.plan.act("last", Kind::F32, Rows::One, h);
                    r.op(Op::LastRow { x, out: last });
                    r.head(last, Rows::One)
                }
            };
            match module {
                Some((speculation, mtp)) => r.speculate(speculation, mtp, x, logits),
                None => r.op(Op::Sample { logits }),
            }
        }
        Output::Everything => {
            r.head(x, Rows::Tokens);
        }
    }
    r.plan
}

/// A normed activation in the precisions that its consumers read.
#[derive(Clone, Copy)]
struct Normed {
    f32: Option<Act>,
    q8: Option<Act>,
}

struct Recorder<'a> {
    model: &'a Model,
    options: Options,
    plan: Plan,
    /// Rows of the activations recorded now.
    rows: Rows,
    /// Form of attention recorded now.
    form: AttentionForm,
}

impl Recorder<'_> {
    fn op(&mut self, op: Op) {
        self.plan.ops.push(op);
    }

    /// The f32 activation `name`, of one row a token or (of the module that drafts) of one row, declared at first use and shared
    /// by all layers.
    fn f32(&mut self, name: &str, width: usize) -> Act {
        self.shared(name, Kind::F32, self.rows, width)
    }

    fn shared(&mut self, name: &str, kind: Kind, rows: Rows, width: usize) -> Act {
        let one = if self.rows == Rows::One { "one." } else { "" };
        let name = format!("{one}{name}");
        let name = match kind {
            Kind::Q8 => format!("{name}.{width}.q8"),
            _ => format!("{name}.{width}"),
        };
        self.plan.find(&name).unwrap_or_else(|| self.plan.act(name, kind, rows, width))
    }

    /// Whether products with all of these matrices take 8-bit activations.
    fn takes_q8(&self, mats: &[MatId]) -> bool {
        self.options.activations == Activations::Q8 && mats.iter().all(|&m| self.model.mat(m).format.is_quantised())
    }

    /// Norms `x` for consumers that read 8-bit (`true`) or f32 (`false`) rows.
    fn norm(&mut self, name: &str, x: Act, weight: crate::plan::VecId, eps: f32, consumers: &[bool]) -> Normed {
        let (rows, width) = (self.plan.decl(x).rows, self.plan.decl(x).width);
        let out = consumers.contains(&false).then(|| self.shared(name, Kind::F32, rows, width));
        let q8 = consumers.contains(&true).then(|| self.shared(name, Kind::Q8, rows, width));
        self.op(Op::Norm { x, weight, eps, out, q8 });
        Normed { f32: out, q8 }
    }

    /// The form of `x` that a product of that kind reads.
    fn pick(x: Normed, q8: bool) -> Act {
        let wanted = if q8 { x.q8 } else { x.f32 };
        wanted.expect("a norm is recorded with all its consumers")
    }

    /// `x` as a product with `w` reads it: itself, or quantised.
    fn quantised_for(&mut self, name: &str, x: Act, q8: bool) -> Act {
        if !q8 {
            return x;
        }
        let (rows, width) = (self.plan.decl(x).rows, self.plan.decl(x).width);
        let out = self.shared(name, Kind::Q8, rows, width);
        self.op(Op::Quantise { x, out });
        out
    }

    /// Attention of a layer; unless `append`, the latent cache has the rows already.
    fn attention(&mut self, index: usize, l: &LayerIds, x: Act, append: bool) {
        let config = &self.model.config;
        let (a, eps, latent_eps) = (config.attention.clone(), config.rms_norm_eps, config.latent_norm_eps);
        let (heads, r, head_dim) = (a.num_heads, a.kv_lora_rank, a.qk_head_dim());

        let first = match l.query {
            QueryIds::Full(w) | QueryIds::Lora(w, ..) => w,
        };
        let (first_q8, kv_q8) = (self.takes_q8(&[first]), self.takes_q8(&[l.kv_a]));
        let consumers = if append { &[first_q8, kv_q8][..] } else { &[first_q8] };
        let normed = self.norm("normed", x, l.attn_norm, eps, consumers);

        let q = self.f32("q", heads * head_dim);
        match l.query {
            QueryIds::Full(w) => self.op(Op::MatMul { w, x: Self::pick(normed, first_q8), out: q, add: false }),
            QueryIds::Lora(w, norm, b) => {
                let low = self.f32("q_low", self.model.mat(w).rows);
                self.op(Op::MatMul { w, x: Self::pick(normed, first_q8), out: low, add: false });
                let b_q8 = self.takes_q8(&[b]);
                let low = self.norm("q_low_normed", low, norm, latent_eps, &[b_q8]);
                self.op(Op::MatMul { w: b, x: Self::pick(low, b_q8), out: q, add: false });
            }
        }
        if append {
            self.append(index, l, Self::pick(normed, kv_q8));
        }
        let q_rope = Heads { act: q, offset: a.qk_nope_head_dim, stride: head_dim };
        self.op(Op::Rope { x: q_rope, heads });

        let attended = self.f32("attended", heads * a.v_head_dim);
        match self.form {
            AttentionForm::Absorbed => {
                let q_latent = self.f32("q_latent", heads * r);
                let weighted = self.f32("weighted_latent", heads * r);
                let each = |act, stride| Heads { act, offset: 0, stride };
                self.op(Op::HeadMatMul { w: l.k_b, x: each(q, head_dim), out: each(q_latent, r) });
                self.op(Op::Attend { q_latent, q_rope, layer: index, out: weighted });
                self.op(Op::HeadMatMul { w: l.v_b, x: each(weighted, r), out: each(attended, a.v_head_dim) });
            }
            AttentionForm::Expanded => {
                self.op(Op::AttendExpanded { q, k_up: l.k_up, v_up: l.v_b, layer: index, out: attended });
            }
        }
        let o_q8 = self.takes_q8(&[l.o]);
        let attended = self.quantised_for("attended", attended, o_q8);
        self.op(Op::MatMul { w: l.o, x: attended, out: x, add: true });
    }

    /// The rows of a layer's latent cache, from its normed input.
    fn append(&mut self, index: usize, l: &LayerIds, normed: Act) {
        let kv = self.f32("kv", self.model.config.attention.cache_width());
        self.op(Op::MatMul { w: l.kv_a, x: normed, out: kv, add: false });
        self.op(Op::Latent { kv, norm: l.kv_a_norm, eps: self.model.config.latent_norm_eps, layer: index });
    }

    fn feed_forward(&mut self, index: usize, l: &LayerIds, x: Act) {
        let eps = self.model.config.rms_norm_eps;
        match l.ffn {
            FfnIds::Dense(mlp) => {
                let q8 = self.takes_q8(&[mlp.gate, mlp.up]);
                let normed = self.norm("normed", x, l.ffn_norm, eps, &[q8]);
                self.mlp("dense", mlp, normed, q8, x);
            }
            FfnIds::Moe { router, bias, bank, shared } => {
                let Some(moe) = self.model.config.moe.clone() else { return };
                let experts = self.model.bank(bank);
                let formats = [0, 1, 2].map(|i| {
                    use pleiad_models::weights::ExpertPart::{Down, Gate, Up};
                    experts.first([Gate, Up, Down][i]).format.is_quantised()
                });
                let q8 = self.options.activations == Activations::Q8;
                let (up_q8, down_q8) = (q8 && formats[0] && formats[1], q8 && formats[2]);
                let shared_q8 = shared.map(|s| self.takes_q8(&[s.gate, s.up]));
                let router_q8 = self.takes_q8(&[router]);

                let mut consumers = vec![router_q8, up_q8];
                consumers.extend(shared_q8);
                let normed = self.norm("normed", x, l.ffn_norm, eps, &consumers);

                let logits = self.f32("router_logits", moe.num_experts);
                self.op(Op::MatMul { w: router, x: Self::pick(normed, router_q8), out: logits, add: false });
                let (ids, weights) = if self.options.output == Output::Everything {
                    (
                        self.plan.act(format!("router.{index}.ids"), Kind::U32, Rows::Tokens, moe.top_k),
                        self.plan.act(format!("router.{index}.weights"), Kind::F32, Rows::Tokens, moe.top_k),
                    )
                } else {
                    (self.shared("expert_ids", Kind::U32, self.rows, moe.top_k), self.f32("expert_weights", moe.top_k))
                };
                self.op(Op::Router { logits, bias, layer: index, ids, weights });

                let inner = self.f32("expert_inner", moe.top_k * moe.intermediate_size);
                self.op(Op::ExpertsUp { bank, x: Self::pick(normed, up_q8), ids, out: inner });
                if let (Some(s), Some(q8)) = (shared, shared_q8) {
                    self.mlp("shared", s, normed, q8, x);
                }
                let inner = self.quantised_for("expert_inner", inner, down_q8);
                let y = self.f32("expert_out", moe.top_k * self.model.config.hidden_size);
                self.op(Op::ExpertsDown { bank, x: inner, ids, out: y });
                self.op(Op::Combine { y, weights, x });
            }
        }
    }

    /// `x += down(silu(gate normed) * up normed)`.
    fn mlp(&mut self, name: &str, mlp: MlpIds, normed: Normed, q8: bool, x: Act) {
        let inner = self.f32(&format!("{name}_inner"), self.model.mat(mlp.gate).rows);
        self.op(Op::GatedMatMul { gate: mlp.gate, up: mlp.up, x: Self::pick(normed, q8), out: inner });
        let down_q8 = self.takes_q8(&[mlp.down]);
        let inner = self.quantised_for(&format!("{name}_inner"), inner, down_q8);
        self.op(Op::MatMul { w: mlp.down, x: inner, out: x, add: true });
    }

    fn head(&mut self, x: Act, rows: Rows) -> Act {
        let config = &self.model.config;
        let (eps, vocab) = (config.rms_norm_eps, config.vocab_size);
        let q8 = self.takes_q8(&[self.model.head]);
        let normed = self.norm("head_normed", x, self.model.out_norm, eps, &[q8]);
        let logits = self.plan.act("logits", Kind::F32, rows, vocab);
        self.op(Op::MatMul { w: self.model.head, x: Self::pick(normed, q8), out: logits, add: false });
        logits
    }
}
