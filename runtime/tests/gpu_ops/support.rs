//! Models made of random weights, and both executors side by side.

use std::sync::Arc;

use half::f16;
use pleiad_models::{
    Bytes, Config, Format, Tensor,
    config::{Attention, Family, GroupScore, Moe, Rope, Scoring},
    weights::{Experts, Mlp},
};
use pleiad_runtime::{
    CacheFormat, Model,
    cpu::CpuExecutor,
    executor::{ExpertOptions, LoadOptions, PlanId, Readback, StepOutput},
    model::LayerIds,
    plan::{Act, BankId, Kind, MatId, Op, Plan, Rows, VecId},
    step::{PAGE, StepState},
};

use crate::backend::{Device, DeviceExecutor};
pub use crate::backend::{Place, all_places, places};

/// A xorshift generator: the same numbers everywhere.
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// -1 to 1.
    pub fn unit(&mut self) -> f32 {
        (self.next() % (1 << 24)) as f32 / (1 << 23) as f32 - 1.0
    }

    pub fn vector(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.unit()).collect()
    }

    /// Rows of widely differing magnitudes, one of zeros among them.
    pub fn rows(&mut self, rows: usize, width: usize) -> Vec<f32> {
        let mut out = Vec::with_capacity(rows * width);
        for r in 0..rows {
            let scale = [1.0, 1e-3, 30.0, 0.0, 1.0, 1e3][if rows > 3 { r % 6 } else { 0 }];
            out.extend((0..width).map(|_| self.unit() * scale));
        }
        out
    }

    /// A permutation of `0..n`.
    pub fn permutation(&mut self, n: usize) -> Vec<u32> {
        let mut all: Vec<u32> = (0..n as u32).collect();
        for i in (1..n).rev() {
            all.swap(i, self.below(i + 1));
        }
        all
    }
}

/// A tensor of random weights in that format, as a file would hold it.
pub fn tensor(rng: &mut Rng, format: Format, count: usize, rows: usize, cols: usize) -> Tensor {
    let (len, bytes) = format.block();
    let blocks = count * rows * cols / len;
    assert_eq!(blocks * len, count * rows * cols, "{format} cannot have {cols} columns");
    let mut data = Vec::with_capacity(blocks * bytes);
    for _ in 0..blocks {
        let mut block: Vec<u8> = (0..bytes).map(|_| rng.next() as u8).collect();
        let mut half = |at: usize, x: f32| block[at..at + 2].copy_from_slice(&f16::from_f32(x).to_le_bytes());
        let (d, m) = (0.002 + 0.01 * rng.unit().abs(), 0.01 * rng.unit());
        match format {
            Format::F32 => block.copy_from_slice(&(rng.unit() * 0.3).to_le_bytes()),
            Format::F16 => half(0, rng.unit() * 0.3),
            Format::BF16 => block.copy_from_slice(&half::bf16::from_f32(rng.unit() * 0.3).to_le_bytes()),
            Format::F8E4M3 => block[0] = if block[0] & 0x7f == 0x7f { 0x38 } else { block[0] },
            Format::Q8_0 | Format::Q4_0 | Format::Q5_0 | Format::IQ4NL | Format::IQ4XS => half(0, d),
            Format::Q4_1 | Format::Q5_1 | Format::Q4K | Format::Q5K => {
                half(0, d);
                half(2, m);
            }
            Format::Q2K => {
                half(80, d);
                half(82, m);
            }
            Format::Q3K => half(108, d * 0.2),
            Format::Q6K => half(208, d * 0.05),
            Format::MXFP4 => block[0] = 118 + rng.below(6) as u8,
        }
        data.extend(block);
    }
    let scales = (format == Format::F8E4M3).then(|| {
        let n = count * rows.div_ceil(128) * cols.div_ceil(128);
        Bytes::new((0..n).flat_map(|_| (0.001 + 0.002 * rng.unit().abs()).to_le_bytes()).collect::<Vec<u8>>())
    });
    Tensor { name: format!("{format} {rows}x{cols}"), format, count, rows, cols, data: Bytes::new(data), scales }
}

/// Matrix `index` of a stack, as a tensor.
fn part(t: &Tensor, index: usize) -> Tensor {
    let of = |b: &Bytes| b.slice(index * b.len() / t.count, b.len() / t.count).unwrap();
    Tensor { count: 1, data: of(&t.data), scales: t.scales.as_ref().map(of), ..t.clone() }
}

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
    pub name: String,
    pub config: Config,
    pub mats: Vec<Tensor>,
    pub vecs: Vec<Vec<f32>>,
    pub banks: Vec<Experts>,
    pub plan: Plan,
    pub inputs: Vec<(Act, Vec<f32>)>,
    pub id_inputs: Vec<(Act, Vec<u32>)>,
    pub outputs: Vec<Act>,
    pub ids: Vec<u32>,
    pub step: StepState,
    /// Tokens of the step.
    pub tokens: usize,
    pub positions: usize,
    pub cache: CacheFormat,
    /// Fed through `Op::Latent` before the step: rows of `[latent | key]` and the norm's weight.
    pub history: Vec<f32>,
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
        }
    }

    pub fn mat(&mut self, t: Tensor) -> MatId {
        self.mats.push(t);
        MatId(self.mats.len() as u32 - 1)
    }

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

    pub fn output(&mut self, kind: Kind, width: usize) -> Act {
        self.output_rows(kind, Rows::Tokens, width)
    }

    pub fn output_rows(&mut self, kind: Kind, rows: Rows, width: usize) -> Act {
        let act = self.plan.act(format!("out{}", self.outputs.len()), kind, rows, width);
        self.outputs.push(act);
        act
    }

    pub fn op(&mut self, op: Op) {
        self.plan.ops.push(op);
    }

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
        })
    }

    fn options(&self) -> LoadOptions {
        LoadOptions {
            positions: self.positions,
            max_context: self.positions,
            cache: self.cache,
            threads: Some(1),
            experts: ExpertOptions::default(),
        }
    }

    fn pages(&self) -> Vec<u32> {
        Rng::new(77).permutation(self.positions.div_ceil(PAGE))
    }

    /// The plan that appends `history` to the cache.
    fn history_plan(&self) -> Option<(Plan, Act, usize)> {
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
    pub fn expected(&self) -> (Vec<Vec<u32>>, StepOutput) {
        let mut e = CpuExecutor::plain(self.model(), &self.options()).unwrap();
        if let Some((plan, kv, rows)) = self.history_plan() {
            let id = e.compile(&plan).unwrap();
            e.write_step(&StepState { tokens: rows as u32, ..StepState::default() }, &self.pages());
            e.write_act(id, kv, &bits(&self.history));
            let ticket = e.submit(id, rows, Readback::default()).unwrap();
            e.wait(ticket).unwrap();
        }
        let plan = e.compile(&self.plan).unwrap();
        e.write_step(&self.step, &self.pages());
        e.write_ids(&self.ids);
        self.inputs.iter().for_each(|(a, data)| e.write_act(plan, *a, &bits(data)));
        self.id_inputs.iter().for_each(|(a, data)| e.write_act(plan, *a, data));
        let ticket = e.submit(plan, self.tokens, Readback { token: true, counters: true }).unwrap();
        let out = e.wait(ticket).unwrap();
        (self.outputs.iter().map(|&a| e.read_act(plan, a, self.rows(a))).collect(), out)
    }

    /// The outputs, by an adapter.
    pub fn actual(&self, device: &Arc<Device>) -> (Vec<Vec<u32>>, StepOutput) {
        pollster::block_on(async {
            let (mut e, plan) = self.prepare(device).await;
            let ticket = e.submit(plan, self.tokens, Readback { token: true, counters: true }).unwrap();
            let out = e.wait(ticket).await.unwrap_or_else(|e| panic!("{}: {e}", self.name));
            let mut all = Vec::new();
            for &a in &self.outputs {
                all.push(e.read_act(plan, a, self.rows(a)).await.unwrap());
            }
            (all, out)
        })
    }

    /// The model on an adapter, ready for the step.
    pub async fn prepare(&self, device: &Arc<Device>) -> (DeviceExecutor, PlanId) {
        let load = DeviceExecutor::load(Arc::clone(device), self.model(), &self.options(), &mut |_, _| {}).await;
        let mut e = load.unwrap_or_else(|e| panic!("{}: {e}", self.name));
        if let Some((plan, kv, rows)) = self.history_plan() {
            let id = e.compile(&plan).unwrap_or_else(|e| panic!("{}: {e}", self.name));
            e.write_step(&StepState { tokens: rows as u32, ..StepState::default() }, &self.pages());
            e.write_act(id, kv, &bits(&self.history)).unwrap();
            let ticket = e.submit(id, rows, Readback::default()).unwrap();
            e.wait(ticket).await.unwrap();
        }
        let plan = e.compile(&self.plan).unwrap_or_else(|e| panic!("{}: {e}", self.name));
        e.write_step(&self.step, &self.pages());
        e.write_ids(&self.ids);
        for (a, data) in &self.inputs {
            e.write_act(plan, *a, &bits(data)).unwrap();
        }
        for (a, data) in &self.id_inputs {
            e.write_act(plan, *a, data).unwrap();
        }
        (e, plan)
    }

    fn rows(&self, act: Act) -> usize {
        match self.plan.decl(act).rows {
            Rows::Tokens => self.tokens,
            Rows::One => 1,
        }
    }

    /// Runs on every adapter; f32 and Q8 outputs must agree with the twins' within `bound` (NMSE), ids exactly.
    pub fn check(&self, places: &[Place], bound: f64) {
        let (expected, _) = self.expected();
        for place in places {
            let (actual, _) = self.actual(&place.device);
            for ((&act, e), a) in self.outputs.iter().zip(&expected).zip(&actual) {
                let decl = self.plan.decl(act);
                let case = format!("{} on {}, {}", self.name, place.name, decl.name);
                if decl.kind == Kind::U32 {
                    assert_eq!(e, a, "{case}");
                    continue;
                }
                let error = nmse(&floats(e), &floats(a));
                assert!(error <= bound, "{case}: NMSE {error:e}, the bound is {bound:e}; {}", worst(&floats(e), &floats(a)));
            }
        }
    }
}

pub fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

pub fn floats(x: &[u32]) -> Vec<f32> {
    x.iter().map(|&x| f32::from_bits(x)).collect()
}

/// `sum((a - b)^2) / sum(a^2)`, what is as good as nothing (below 1e-30) taken for zero; 0 where both are zero, infinite where
/// `b` is not finite.
pub fn nmse(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len(), "lengths differ");
    if b.iter().any(|x| !x.is_finite()) {
        return f64::INFINITY;
    }
    let exact = |x: f32| if x.abs() < 1e-30 { 0.0 } else { f64::from(x) };
    let error: f64 = a.iter().zip(b).map(|(&a, &b)| (exact(a) - exact(b)).powi(2)).sum();
    let norm = a.iter().map(|&a| exact(a).powi(2)).sum::<f64>();
    if error == 0.0 { 0.0 } else { error / norm }
}

/// Where two vectors differ most.
fn worst(a: &[f32], b: &[f32]) -> String {
    let key = |i: usize| if b[i].is_finite() { (a[i] - b[i]).abs() } else { f32::INFINITY };
    let i = (0..a.len()).max_by(|&i, &j| key(i).total_cmp(&key(j))).unwrap_or(0);
    let off = (0..a.len()).filter(|&i| key(i) > 1e-3 * a[i].abs().max(1e-3)).count();
    format!("element {i} of {}: {} expected, {} found; {off} differ by more than 0.1 %", a.len(), a[i], b[i])
}
