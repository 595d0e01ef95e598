//! The buffers that a model's state and plans take on a GPU, in bytes.
//!
//! This repeats what `gpu/state.rs`, `gpu/lower` and `engine/plans.rs` do, without a device; a test compares the sum with what a
//! device's allocator reports.

use std::collections::HashMap;

use pleiad_shaders::shape;

use super::sum;
use crate::{
    executor::{Activations, CacheFormat},
    forward::{AttentionForm, Options, Output, Speculation},
    model::Model,
    plan::{Act, Kind, MatId, Op, Plan, Rows},
    step::{PAGE, RING, StepState},
};

/// Most tokens drafted of the engine's own accord.
const DRAFTS: usize = 3;
/// Token ids that fit a step.
const MAX_IDS: u64 = 65_535;
/// Words of a sampled token.
const RING_WORDS: u64 = 4;
/// Tokens up to which products run as matrix-vector kernels.
const MATVEC_TOKENS: u64 = 8;
/// Pairs of token and expert in a tile.
const TILE: u64 = 32;
/// Bytes that the parameters of a dispatch take in their buffer, alignment included.
const PARAMS: u64 = 256;

/// Bytes of what all plans share besides weights and caches: rotary table, step state with the page table, token ids, ring of
/// sampled tokens, and counters.
pub(super) fn state_bytes(model: &Model, context: u64) -> u64 {
    let moe = model.config.moe.as_ref();
    let rope = context.saturating_mul(model.config.attention.qk_rope_head_dim as u64 / 2 * 8).max(8);
    let step = context.div_ceil(PAGE as u64).saturating_add(StepState::WORDS as u64).saturating_mul(4);
    let counters = (model.caches() * moe.map_or(0, |m| m.num_experts)).max(1) as u64 * 4;
    sum([rope, step, MAX_IDS * 4, RING as u64 * RING_WORDS * 4, counters].into_iter())
}

/// Bytes of what keeps track of experts that come and go: for each mixture layer the slot of every expert, the layer's time, count
/// and last use of every expert, and a record of what the tokens of a step chose; the list of experts to copy, and one more table.
pub(super) fn residency_bytes(model: &Model, chunk: usize) -> u64 {
    let Some(moe) = &model.config.moe else { return 0 };
    let (experts, top_k) = (moe.num_experts as u64, moe.top_k as u64);
    let record = (chunk.max(1) as u64).saturating_mul(top_k * 2);
    let layer = (experts + 1 + 2 * experts).saturating_add(record).saturating_mul(4);
    layer.saturating_mul(model.banks.len() as u64).saturating_add(4 * (experts + 1 + 2 * top_k))
}

/// The plans that an engine may come to compile for steps of up to `chunk` tokens.
pub(super) fn plans(model: &Model, activations: Activations, chunk: usize) -> Vec<Options> {
    let a = &model.config.attention;
    let (dn, dr, dv, r) = (a.qk_nope_head_dim, a.qk_rope_head_dim, a.v_head_dim, a.kv_lora_rank);
    let (absorbed, expanded) = (2 * r + dr, dn + dr + dv);
    let expanded_from = if absorbed <= expanded { usize::MAX } else { (dn + dv) * r / (absorbed - expanded) };
    let all = plans_for(activations, chunk.max(1), expanded_from);
    if model.mtp.is_none() {
        return all;
    }
    // The same with drafts, as many as are made of the engine's own accord, and steps that verify them.
    let mut with = Vec::new();
    for (o, draft) in all.iter().flat_map(|o| (0..=DRAFTS).map(move |draft| (o, draft))) {
        let draft = if o.output == Output::Cache { 0 } else { draft };
        with.push(Options { speculation: Some(Speculation { verify: 0, draft }), ..*o });
        if o.max_tokens == 1 && draft > 0 {
            let (max_tokens, attention) = (draft + 1, AttentionForm::Absorbed);
            with.push(Options { max_tokens, attention, speculation: Some(Speculation { verify: draft, draft }), ..*o });
        }
    }
    with.extend(all.iter().find(|o| o.max_tokens == 1 && o.output == Output::Token));
    let mut each = Vec::new();
    for o in with {
        if !each.contains(&o) {
            each.push(o);
        }
    }
    each
}

fn plans_for(activations: Activations, chunk: usize, expanded_from: usize) -> Vec<Options> {
    let options = |tokens: usize, output| {
        let attention = if tokens > expanded_from { AttentionForm::Expanded } else { AttentionForm::Absorbed };
        let max_tokens = match (tokens, attention) {
            (1, _) => 1,
            (_, AttentionForm::Absorbed) => chunk.min(expanded_from),
            (_, AttentionForm::Expanded) => chunk,
        };
        Options { max_tokens, output, activations, attention, speculation: None }
    };
    // Decoding; the last chunk of a prompt, short or long; the chunks before it, which are full.
    let last = [1, chunk.min(2), chunk.min(expanded_from.max(1)), chunk].map(|tokens| options(tokens, Output::Token));
    let mut all = Vec::new();
    for o in last.into_iter().chain([options(chunk, Output::Cache)]) {
        if !all.contains(&o) {
            all.push(o);
        }
    }
    all
}

/// Sizes of the buffers that plans share, by name.
pub(super) type Pool = HashMap<String, u64>;

/// Bytes that one plan adds to `pool`, and of its parameters.
pub(super) fn plan_bytes(model: &Model, plan: &Plan, context: u64, cache: CacheFormat, pool: &mut Pool) -> u64 {
    let mut b = Buffers { model, plan, tokens: plan.max_tokens as u64, context, cache, pool, bytes: 0 };
    for decl in &plan.acts {
        let words = match decl.kind {
            Kind::F32 | Kind::U32 => decl.width,
            Kind::Q8 => decl.width / 4 + decl.width / 16,
        };
        let rows = if decl.rows == Rows::One { 1 } else { b.tokens };
        b.pooled(&format!("{:?} {}", decl.kind, decl.name), (words as u64 * 4).saturating_mul(rows));
    }
    let mut pieces = 0;
    for op in &plan.ops {
        match *op {
            Op::GatedMatMul { gate, up, x, out } => b.gated_mat_mul(gate, up, x, out),
            Op::Attend { q_latent, .. } => b.attend(q_latent),
            Op::AttendExpanded { q, .. } => pieces = b.attend_expanded(q),
            Op::ExpertsUp { bank, ids, .. } | Op::ExpertsDown { bank, ids, .. } => b.group(model.bank(bank).len(), ids),
            _ => {}
        }
    }
    // Equal parameters share a place; every piece of the context has its own in each of three kernels.
    let dispatches = (plan.ops.len() as u64).saturating_add(pieces.saturating_mul(4));
    b.bytes.saturating_add(dispatches.saturating_mul(PARAMS))
}

/// The buffers of a plan under way.
struct Buffers<'a> {
    model: &'a Model,
    plan: &'a Plan,
    tokens: u64,
    context: u64,
    cache: CacheFormat,
    pool: &'a mut Pool,
    bytes: u64,
}

impl Buffers<'_> {
    /// Plans share buffers by name; one that is too small lives on in the plans made with it.
    fn pooled(&mut self, name: &str, bytes: u64) {
        let size = bytes.max(1).checked_next_multiple_of(16).unwrap_or(u64::MAX);
        if self.pool.get(name).is_none_or(|&there| there < bytes) {
            self.bytes = self.bytes.saturating_add(size);
            self.pool.insert(name.to_owned(), size);
        }
    }

    fn rows(&self, act: Act) -> u64 {
        if self.plan.decl(act).rows == Rows::One { 1 } else { self.tokens }
    }

    /// Gates and ups of different kinds are multiplied one after the other.
    fn gated_mat_mul(&mut self, gate: MatId, up: MatId, x: Act, out: Act) {
        if self.model.mat(gate).format.is_quantised() != self.model.mat(up).format.is_quantised() {
            let bytes = self.rows(x).saturating_mul(self.plan.decl(out).width as u64 * 4);
            self.pooled("gate products", bytes);
            self.pooled("up products", bytes);
        }
    }

    /// A long cache is cut in parts, so that about 64 workgroups share the work of few tokens: at first few parts, then many.
    fn attend(&mut self, q_latent: Act) {
        let a = &self.model.config.attention;
        let (heads, r, dr) = (a.num_heads as u64, a.kv_lora_rank as u64, a.qk_rope_head_dim as u64);
        let rows = self.rows(q_latent);
        let shape = shape::attend(r as u32, dr as u32, heads as u32, self.cache == CacheFormat::F32);
        let groups = heads.div_ceil(u64::from(shape.heads_per_group));
        let most = 64u64.div_ceil(groups.saturating_mul(rows).max(1)).min(32);
        if most > 1 && rows <= MATVEC_TOKENS {
            for splits in [most.min(8), most] {
                self.pooled("partial attention", rows * heads * splits * (r + 2) * 4);
            }
        }
    }

    /// Keys and values of at most 1024 positions at a time, and at most 32 MiB of either. Returns the pieces of the context.
    fn attend_expanded(&mut self, q: Act) -> u64 {
        let a = &self.model.config.attention;
        let (heads, dn, dv) = (a.num_heads as u64, a.qk_nope_head_dim as u64, a.v_head_dim as u64);
        let row_bytes = (heads * dn.max(dv) * 4).max(1);
        let whole = self.context.checked_next_multiple_of(32).unwrap_or(u64::MAX);
        let count = ((32 << 20) / row_bytes).clamp(32, 1024).min(whole);
        self.pooled("expanded latents", count * a.kv_lora_rank as u64 * 4);
        self.pooled("expanded rope keys", count * a.qk_rope_head_dim as u64 * 4);
        self.pooled("expanded keys", count * heads * dn * 4);
        self.pooled("expanded values", count * heads * dv * 4);
        self.pooled("running maxima and sums", self.rows(q).saturating_mul(heads * 8));
        self.context.div_ceil(count)
    }

    /// The slots of chosen experts; in long steps pairs of token and expert, sorted by expert, in tiles.
    fn group(&mut self, experts: usize, ids: Act) {
        let (rows, experts) = (self.rows(ids), experts as u64);
        self.pooled("slots of chosen experts", rows.saturating_mul(self.plan.decl(ids).width as u64 * 4));
        if self.plan.decl(ids).rows == Rows::Tokens && rows > MATVEC_TOKENS {
            let pairs = rows.saturating_mul(self.plan.decl(ids).width as u64);
            self.pooled("pairs of each slot", experts * 4);
            self.pooled("pairs sorted by slot", pairs.saturating_mul(4));
            let tiles = pairs / TILE + pairs.min(experts);
            self.pooled("tiles of experts", (tiles.saturating_mul(4) + 4).saturating_mul(4));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::print_stdout)] // a failed unwrap is a failed test

    use std::sync::Arc;

    use pleiad_models::Checkpoint;

    use super::*;
    use crate::{
        executor::{ExpertOptions, LoadOptions},
        experts::budget::{Needs, place},
        forward::record,
        gpu::{self, DeviceOptions, GpuExecutor},
    };

    #[test]
    fn every_step_has_its_plan() {
        let plans = |chunk, from| {
            let of = |o: &Options| (o.max_tokens, o.output, o.attention == AttentionForm::Expanded);
            plans_for(Activations::Q8, chunk, from).iter().map(of).collect::<Vec<_>>()
        };
        use Output::{Cache, Token};
        let long = [(1, Token, false), (171, Token, false), (512, Token, true), (512, Cache, true)];
        assert_eq!(plans(512, 171), long);
        assert_eq!(plans(64, 171), [(1, Token, false), (64, Token, false), (64, Cache, false)]);
        assert_eq!(plans(1, 171), [(1, Token, false), (1, Cache, false)]);
        assert_eq!(plans(8, usize::MAX), [(1, Token, false), (8, Token, false), (8, Cache, false)]);
        assert_eq!(plans(8, 0), [(1, Token, true), (8, Token, true), (8, Cache, true)]);
    }

    /// What a device's allocator reports for a model and all its plans, against what was foretold, under several budgets.
    #[test]
    fn needs_are_what_a_gpu_allocates() {
        let checkpoint = Checkpoint::tiny().unwrap();
        needs_are_what_it_allocates(Model::new(&checkpoint.config, &checkpoint.weights));
        needs_are_what_it_allocates(Model::with_mtp(&checkpoint.config, &checkpoint.weights));
    }

    fn needs_are_what_it_allocates(model: Model) {
        let model = Arc::new(model);
        let (positions, max_context, cache, chunk, activations) = (256, 200, CacheFormat::F16, 100, Activations::Q8);
        let needs = Needs::of(&model, positions, max_context, cache, activations, chunk);
        for budget in [None, Some(needs.at_share(0.5)), Some(needs.least())] {
            let reporting = pollster::block_on(gpu::enumerate()).into_iter().find_map(|adapter| {
                let device = pollster::block_on(adapter.open(DeviceOptions::default())).ok()?;
                device.device.generate_allocator_report().map(|_| device)
            });
            let Some(device) = reporting else {
                return println!("SKIPPED needs_are_what_a_gpu_allocates: no adapter reports its allocations");
            };
            let experts = ExpertOptions { budget, chunk, activations, ..ExpertOptions::default() };
            let options = LoadOptions { positions, max_context, cache, threads: None, experts };
            let mut progress = |_, _| {};
            let load = GpuExecutor::load(Arc::clone(&device), Arc::clone(&model), &options, &mut progress);
            let mut executor = pollster::block_on(load).unwrap();
            for options in plans(&model, activations, chunk) {
                executor.compile(&record(&model, options)).unwrap();
            }
            let placement = place(&needs, budget, None).unwrap();
            if placement.is_whole() {
                assert_eq!(executor.stats().weight_bytes, needs.dense + placement.expert_bytes());
            }
            let report = device.device.generate_allocator_report().unwrap();
            let elsewhere = ["readback", "(wgpu", "staging", "host's experts"];
            let ours = |name: &str| !elsewhere.iter().any(|other| name.contains(other));
            let counted: Vec<_> = report.allocations.iter().filter(|a| ours(&a.name)).collect();
            let total: u64 = counted.iter().map(|a| a.size).sum();
            let foretold = placement.total();
            // Allocations are rounded up to whole units of the device.
            let slack = 256 * counted.len() as u64;
            assert!(total <= foretold + slack, "{budget:?}: {total} allocated, {foretold} foretold: {counted:#?}");
            // Parameters are counted at their most, and what keeps track of experts whether or not there is need for it.
            let top_k = model.config.moe.as_ref().unwrap().top_k;
            let most = |o: Options| (record(&model, o).ops.len() as u64 + 8) * PARAMS + (o.max_tokens * top_k * 4 + 16) as u64;
            let most: u64 = plans(&model, activations, chunk).into_iter().map(most).sum();
            let least = foretold - most - residency_bytes(&model, chunk);
            assert!(total >= least, "{budget:?}: {total} allocated, at least {least} foretold: {counted:#?}");
        }
    }
}
