//! Models made of random weights, plans of a few operations, and both executors side by side.

mod compare;
mod random;

use std::sync::Arc;

use pleiad_models::{
    Config, Tensor,
    config::{Attention, Family, GroupScore, Moe, Rope, Scoring},
    weights::{Experts, Mlp},
};
use pleiad_runtime::{
    CacheFormat, Model, Result,
    cpu::CpuExecutor,
    executor::{ExpertOptions, LoadOptions, PlanId, Readback, StepOutput},
    gpu::{GpuDevice, GpuExecutor},
    model::LayerIds,
    plan::{Act, BankId, Kind, MatId, Op, Plan, Rows, VecId},
    step::{PAGE, StepState},
};

pub use compare::{Difference, bits, compare, floats, nmse, ulp};
use random::part;
pub use random::{Rng, Weights, repeated, tensor, tensor_of};

/// Outputs of a plan as bits, one vector an output, and what the step read back.
pub type Outputs = (Vec<Vec<u32>>, StepOutput);

/// A mixture for `config`.
pub fn moe(experts: usize, top_k: usize, inner: usize) -> Moe {
    Moe {
        num_experts: experts,
        top_k,
        num_shared: 0,
        intermediate_size: inner,
        scoring: Scoring::Sigmoid,
        num_groups: 1,
        top_k_groups: 1,
        group_score: GroupScore::TopTwo,
        norm_top_k: true,
        scaling_factor: 2.5,
    }
}

/// A configuration that only says what operations read from it.
pub fn config(attention: Attention, interleaved: bool, moe: Option<Moe>) -> Config {
    Config {
        family: Family::DeepseekV3,
        name: "test".into(),
        vocab_size: 0,
        hidden_size: 0,
        num_layers: 1,
        num_mtp_layers: 0,
        max_positions: 1 << 20,
        rms_norm_eps: 1e-6,
        latent_norm_eps: 1e-6,
        tie_word_embeddings: false,
        attention,
        rope: Rope { theta: 10_000.0, interleaved, yarn: None },
        intermediate_size: 0,
        moe,
        dense_layers: vec![false],
    }
}

/// The least attention that a model can have.
pub fn small_attention() -> Attention {
    Attention { num_heads: 1, q_lora_rank: None, kv_lora_rank: 32, qk_nope_head_dim: 8, qk_rope_head_dim: 4, v_head_dim: 8 }
}

/// A model and a plan in the making, with what goes in and comes out.
pub struct Setup {
    /// What it is, for messages.
    pub name: String,
    /// What operations read of the configuration.
    pub config: Config,
    /// Matrices.
    pub mats: Vec<Tensor>,
    /// Vectors.
    pub vecs: Vec<Vec<f32>>,
    /// Experts.
    pub banks: Vec<Experts>,
    /// The operations.
    pub plan: Plan,
    /// Activations written before the step, `[T, width]`.
    pub inputs: Vec<(Act, Vec<f32>)>,
    /// The same of ids.
    pub id_inputs: Vec<(Act, Vec<u32>)>,
    /// Activations read after it.
    pub outputs: Vec<Act>,
    /// Token ids.
    pub ids: Vec<u32>,
    /// State of the step.
    pub step: StepState,
    /// Tokens of the step.
    pub tokens: usize,
    /// Positions of the cache.
    pub positions: usize,
    /// How the cache is stored.
    pub cache: CacheFormat,
    /// Fed through `Op::Latent` before the step: rows of `[latent | key]` and the norm's weight.
    pub history: Vec<f32>,
    /// Where weights repeat: what says how one period of them comes out, and the columns of a period.
    pub period: Option<(Box<Setup>, usize)>,
}

impl Setup {
    /// A step of `tokens` tokens of a plan for up to `max_tokens`.
    pub fn new(name: impl Into<String>, tokens: usize, max_tokens: usize) -> Self {
        Self {
            name: name.into(),
            config: config(small_attention(), true, None),
            mats: Vec::new(),
            vecs: Vec::new(),
            banks: Vec::new(),
            plan: Plan::new(max_tokens),
            inputs: Vec::new(),
            id_inputs: Vec::new(),
            outputs: Vec::new(),
            ids: vec![0; tokens],
            step: StepState { tokens: tokens as u32, ..StepState::default() },
            tokens,
            positions: max_tokens.max(64),
            cache: CacheFormat::F32,
            history: Vec::new(),
            period: None,
        }
    }

    /// Adds a matrix.
    pub fn mat(&mut self, t: Tensor) -> MatId {
        self.mats.push(t);
        MatId(self.mats.len() as u32 - 1)
    }

    /// Adds a vector.
    pub fn vec(&mut self, v: Vec<f32>) -> VecId {
        self.vecs.push(v);
        VecId(self.vecs.len() as u32 - 1)
    }

    /// Stacks, or where the format has scales of its own a tensor for each expert.
    pub fn bank(&mut self, gate: Tensor, up: Tensor, down: Tensor) -> BankId {
        let separate = [&gate, &up, &down].iter().any(|t| t.scales.is_some());
        self.banks.push(if separate {
            let each = |e: usize| Mlp { gate: part(&gate, e), up: part(&up, e), down: part(&down, e) };
            Experts::Separate((0..gate.count).map(each).collect())
        } else {
            Experts::Stacked(Mlp { gate, up, down })
        });
        BankId(self.banks.len() as u32 - 1)
    }

    /// An f32 or Q8 input of one row a token.
    pub fn input(&mut self, kind: Kind, width: usize, data: Vec<f32>) -> Act {
        let act = self.plan.act(format!("in{}", self.inputs.len()), kind, Rows::Tokens, width);
        assert_eq!(data.len(), self.tokens * width);
        self.inputs.push((act, data));
        act
    }

    /// An input of ids.
    pub fn id_input(&mut self, width: usize, data: Vec<u32>) -> Act {
        let act = self.plan.act(format!("ids{}", self.id_inputs.len()), Kind::U32, Rows::Tokens, width);
        self.id_inputs.push((act, data));
        act
    }

    /// An output of one row a token.
    pub fn output(&mut self, kind: Kind, width: usize) -> Act {
        self.output_rows(kind, Rows::Tokens, width)
    }

    /// An output.
    pub fn output_rows(&mut self, kind: Kind, rows: Rows, width: usize) -> Act {
        let act = self.plan.act(format!("out{}", self.outputs.len()), kind, rows, width);
        self.outputs.push(act);
        act
    }

    /// Adds an operation.
    pub fn op(&mut self, op: Op) {
        self.plan.ops.push(op);
    }

    /// The model that it makes.
    pub fn model(&self) -> Arc<Model> {
        // What layers and the embedding are is of no interest to single operations.
        let layer = LayerIds {
            attn_norm: VecId(0),
            query: pleiad_runtime::model::QueryIds::Full(MatId(0)),
            kv_a: MatId(0),
            kv_a_norm: VecId(0),
            k_b: MatId(0),
            v_b: MatId(0),
            k_up: MatId(0),
            o: MatId(0),
            ffn_norm: VecId(0),
            ffn: pleiad_runtime::model::FfnIds::Moe { router: MatId(0), bias: None, bank: BankId(0), shared: None },
        };
        Arc::new(Model {
            config: self.config.clone(),
            mats: self.mats.clone(),
            vecs: self.vecs.clone(),
            banks: self.banks.clone(),
            embed: MatId(0),
            out_norm: VecId(0),
            head: MatId(0),
            layers: vec![layer],
            mtp: None,
        })
    }

    /// How the model is loaded.
    pub fn options(&self) -> LoadOptions {
        LoadOptions {
            positions: self.positions,
            max_context: self.positions,
            cache: self.cache,
            threads: Some(1),
            experts: ExpertOptions::default(),
        }
    }

    /// Its page table: pages in no order.
    pub fn pages(&self) -> Vec<u32> {
        Rng::new(77).permutation(self.positions.div_ceil(PAGE))
    }

    /// The plan that appends `history` to the cache, what it reads, and how many rows.
    pub fn history_plan(&self) -> Option<(Plan, Act, usize)> {
        let width = self.config.attention.cache_width();
        let rows = self.history.len() / width;
        if rows == 0 {
            return None;
        }
        let mut plan = Plan::new(rows);
        let kv = plan.act("history", Kind::F32, Rows::Tokens, width);
        plan.ops.push(Op::Latent { kv, norm: VecId(0), eps: 1e-6, layer: 0 });
        Some((plan, kv, rows))
    }

    /// The outputs, by the twins.
    ///
    /// # Errors
    ///
    /// A plan that does not fit the model.
    pub fn expected(&self) -> Result<Outputs> {
        if let Some((one, width)) = &self.period {
            let (outputs, step) = one.expected()?;
            let repeat = |(out, &act): (&Vec<u32>, &Act)| {
                let all = self.plan.decl(act).width;
                out.chunks(*width).flat_map(|row| (0..all).map(|i| row[i % width])).collect()
            };
            return Ok((outputs.iter().zip(&self.outputs).map(repeat).collect(), step));
        }
        let mut e = CpuExecutor::plain(self.model(), &self.options())?;
        if let Some((plan, kv, rows)) = self.history_plan() {
            let id = e.compile(&plan)?;
            e.write_step(&StepState { tokens: rows as u32, ..StepState::default() }, &self.pages());
            e.write_act(id, kv, &bits(&self.history));
            let ticket = e.submit(id, rows, Readback::default())?;
            e.wait(ticket)?;
        }
        let plan = e.compile(&self.plan)?;
        e.write_step(&self.step, &self.pages());
        e.write_ids(&self.ids);
        self.inputs.iter().for_each(|(a, data)| e.write_act(plan, *a, &bits(data)));
        self.id_inputs.iter().for_each(|(a, data)| e.write_act(plan, *a, data));
        let ticket = e.submit(plan, self.tokens, Readback { token: true, counters: true })?;
        let out = e.wait(ticket)?;
        Ok((self.outputs.iter().map(|&a| e.read_act(plan, a, self.rows(a))).collect(), out))
    }

    /// The outputs of so many runs on the same data, by an adapter.
    ///
    /// # Errors
    ///
    /// Those of the device.
    pub async fn actual(&self, device: &Arc<GpuDevice>, runs: usize) -> Result<Vec<Outputs>> {
        let (mut e, plan) = self.prepare(device).await?;
        let mut all = Vec::with_capacity(runs);
        for run in 0..runs {
            if run > 0 {
                self.write(&mut e, plan)?;
            }
            e.reset_counters();
            let ticket = e.submit(plan, self.tokens, Readback { token: true, counters: true })?;
            let out = e.wait(ticket).await?;
            let mut outputs = Vec::with_capacity(self.outputs.len());
            for &a in &self.outputs {
                outputs.push(e.read_act(plan, a, self.rows(a)).await?);
            }
            all.push((outputs, out));
        }
        Ok(all)
    }

    /// The model on an adapter, ready for the step.
    ///
    /// # Errors
    ///
    /// Those of the device.
    pub async fn prepare(&self, device: &Arc<GpuDevice>) -> Result<(GpuExecutor, PlanId)> {
        let mut e = GpuExecutor::load(Arc::clone(device), self.model(), &self.options(), &mut |_, _| {}).await?;
        if let Some((plan, kv, rows)) = self.history_plan() {
            let id = e.prepare(&[plan], &mut |_, _| {}).await?[0];
            e.write_step(&StepState { tokens: rows as u32, ..StepState::default() }, &self.pages());
            e.write_act(id, kv, &bits(&self.history))?;
            let ticket = e.submit(id, rows, Readback::default())?;
            e.wait(ticket).await?;
        }
        let plan = e.prepare(std::slice::from_ref(&self.plan), &mut |_, _| {}).await?[0];
        self.write(&mut e, plan)?;
        Ok((e, plan))
    }

    /// Writes what the step reads.
    fn write(&self, e: &mut GpuExecutor, plan: PlanId) -> Result<()> {
        e.write_step(&self.step, &self.pages());
        e.write_ids(&self.ids);
        for (a, data) in &self.inputs {
            e.write_act(plan, *a, &bits(data))?;
        }
        for (a, data) in &self.id_inputs {
            e.write_act(plan, *a, data)?;
        }
        Ok(())
    }

    /// Rows of an activation.
    pub fn rows(&self, act: Act) -> usize {
        match self.plan.decl(act).rows {
            Rows::Tokens => self.tokens,
            Rows::One => 1,
        }
    }
}
