//! `router`, `experts_matvec`, `experts_matmat`, `group_count`, `group_fill`.

use pleiad_models::{
    Format,
    config::{GroupScore, Moe, Scoring},
};
use pleiad_runtime::{
    gpu::Tier,
    plan::{Act, BankId, Kind, Op, Rows},
};

use super::{
    Bound, measure, measure_any,
    products::{kind_name, kinds, other, tier_name},
};
use crate::{
    case::{Cases, Context},
    setup::{Rng, Setup, config, moe, small_attention, tensor},
};

/// A router whose ids and weights are the outputs, and whose counters count.
fn router(moe: Moe, logits: Vec<f32>, bias: Option<Vec<f32>>) -> Setup {
    let (experts, k) = (moe.num_experts, moe.top_k);
    let tokens = logits.len() / experts;
    let mut s = Setup::new("router", tokens, tokens);
    s.config = config(small_attention(), true, Some(moe));
    let logits = s.input(Kind::F32, experts, logits);
    let bias = bias.map(|b| s.vec(b));
    let ids = s.output(Kind::U32, k);
    let weights = s.output(Kind::F32, k);
    s.op(Op::Router { logits, bias, layer: 0, ids, weights });
    s.step.counters_on = 1;
    s
}

/// Distinct ascending ids for every token; expert 0 gets far more than its share.
fn routing(rng: &mut Rng, tokens: usize, experts: usize, k: usize) -> Vec<u32> {
    let mut all = Vec::new();
    for t in 0..tokens {
        let mut ids = rng.permutation(experts);
        if t % 3 != 0 {
            ids.retain(|&e| e != 0);
            ids.insert(0, 0);
        }
        ids.truncate(k);
        ids.sort_unstable();
        all.extend(ids);
    }
    all
}

#[derive(Clone, Copy)]
struct Shape {
    experts: usize,
    k: usize,
    hidden: usize,
    inner: usize,
    tokens: usize,
    most: usize,
}

/// Up form, then down form on rows of its own, so that neither form's error hides the other's.
fn experts([g, u, d]: [Format; 3], kind: Kind, shape: &Shape) -> Setup {
    let Shape { experts, k, hidden, inner, tokens, most } = *shape;
    let mut rng = Rng::new(22 + tokens as u64);
    let mut s = Setup::new("experts", tokens, most);
    s.config = config(small_attention(), true, Some(moe(experts, k, inner)));
    let gate = tensor(&mut rng, g, experts, inner, hidden);
    let up = tensor(&mut rng, u, experts, inner, hidden);
    let down = tensor(&mut rng, d, experts, hidden, inner);
    let bank = s.bank(gate, up, down);
    let x = rng.vector(tokens * hidden);
    let x = s.input(kind, hidden, x);
    let ids = routing(&mut rng, tokens, experts, k);
    let ids = s.id_input(k, ids);
    let out = s.output(Kind::F32, k * inner);
    s.op(Op::ExpertsUp { bank, x, ids, out });
    let y = rng.vector(tokens * k * inner);
    let y = s.input(Kind::F32, k * inner, y);
    let y: Act = if kind == Kind::Q8 && d.is_quantised() {
        let q = s.plan.act("y.q8", Kind::Q8, Rows::Tokens, k * inner);
        s.op(Op::Quantise { x: y, out: q });
        q
    } else {
        y
    };
    let out = s.output(Kind::F32, k * hidden);
    s.op(Op::ExpertsDown { bank, x: y, ids, out });
    s
}

/// Tokens, tokens of the plan, hidden and inner size.
type Size = (usize, usize, (usize, usize));

fn sizes(format: Format, quick: bool) -> Vec<Size> {
    let (short, long) = match format.block_len() {
        256 => ((256, 256), (1024, 256)),
        32 => ((96, 64), (1056, 96)),
        _ => ((72, 40), (1024, 136)),
    };
    let mut all = vec![(3, 3, long), (40, 40, short)];
    if !quick {
        all.extend([(5, 40, short), (2, 2, (long.0, long.0))]);
        // Rows that end within a group of four.
        if !format.is_quantised() {
            all.extend([(3, 3, (130, 130)), (40, 40, (130, 50))]);
        }
    }
    all
}

fn product(cases: &mut Cases<'_>, formats: [Format; 3], kind: Kind, tier: Tier, (tokens, most, size): Size) {
    let [gate, format, _] = formats;
    let (hidden, inner) = size;
    let many = tokens > 8;
    let kernel = if many { "experts_matmat" } else { "experts_matvec" };
    let gated = if gate == format { String::new() } else { format!("/gated by {gate}") };
    let tier_part = if many { String::new() } else { format!("/{}", tier_name(tier)) };
    let of = if most > tokens { format!(" of {most}") } else { String::new() };
    let kind_part = kind_name(kind);
    let id = format!("kernel/{kernel}/{format}/{kind_part}{gated}{tier_part}/{hidden} by {inner} tokens {tokens}{of}");
    cases.add(id, async move |cx: Context| {
        // Experts of many tokens are the same on both tiers, those of few the tier's.
        let tier = if many { cx.gpu.tier } else { tier };
        let shape = Shape { experts: 5, k: 2, hidden, inner, tokens, most };
        measure(&cx, tier, &experts(formats, kind, &shape), Bound::Nmse(1e-10)).await
    });
}

pub(super) fn add(cases: &mut Cases<'_>) {
    routers(cases);
    let quick = cases.settings.quick;
    for (n, format) in Format::ALL.into_iter().enumerate() {
        for &kind in kinds(format) {
            for (tokens, most, size) in sizes(format, quick) {
                let many = tokens > 8;
                if quick && format.is_quantised() && kind == Kind::F32 && (n + usize::from(many)).is_multiple_of(2) {
                    continue;
                }
                let mut gates = vec![format];
                if !quick && other(format) != format {
                    gates.push(other(format));
                }
                let tiers: &[Tier] = match (many, quick) {
                    (true, _) => &[Tier::Plain],
                    (false, true) => &[if n.is_multiple_of(2) { Tier::Subgroup } else { Tier::Plain }],
                    (false, false) => &[Tier::Subgroup, Tier::Plain],
                };
                for gate in gates {
                    // A gate of larger blocks needs rows of them.
                    let (mut hidden, inner) = size;
                    hidden = hidden.next_multiple_of(gate.block_len());
                    for &tier in tiers {
                        product(cases, [gate, format, format], kind, tier, (tokens, most, (hidden, inner)));
                    }
                }
            }
        }
    }
    grouping(cases);
}

fn routers(cases: &mut Cases<'_>) {
    let quick = cases.settings.quick;
    for (experts, k, groups, kept) in
        [(8, 2, 1, 1), (64, 6, 1, 1), (256, 8, 8, 4), (160, 6, 8, 3), (512, 64, 64, 40), (33, 5, 1, 1), (64, 8, 8, 3)]
    {
        for scoring in [Scoring::Sigmoid, Scoring::Softmax] {
            for (group_score, biased, norm, tokens) in [
                (GroupScore::TopTwo, true, true, 33),
                (GroupScore::Max, false, false, 1),
                (GroupScore::TopTwo, false, true, 1),
                (GroupScore::Max, true, false, 33),
            ] {
                if quick && (tokens == 33) != (scoring == Scoring::Sigmoid) {
                    continue;
                }
                let bias = if biased { " biased" } else { "" };
                let scores = if scoring == Scoring::Sigmoid { "sigmoid" } else { "softmax" };
                let id = format!(
                    "kernel/router/{scores}{bias}/{k} of {experts} in {groups} groups by {group_score:?} tokens {tokens}"
                );
                cases.add(id, async move |cx: Context| {
                    let mut rng = Rng::new(experts as u64);
                    let mut m = moe(experts, k, 32);
                    (m.scoring, m.group_score, m.num_groups, m.top_k_groups) = (scoring, group_score, groups, kept);
                    m.norm_top_k = norm;
                    let logits = rng.vector(tokens * experts).iter().map(|x| x * 4.0).collect();
                    // Partly negative, larger than any score: a group that is out must stay out.
                    let bias = biased.then(|| rng.vector(experts).iter().map(|x| x * 1.5 - 0.5).collect());
                    measure_any(&cx, &router(m, logits, bias), Bound::Nmse(1e-11)).await
                });
            }
        }
    }
    // Equal scores: the lower id. Ties of groups likewise.
    for (scoring, value, groups) in [
        (Scoring::Sigmoid, 0.0, 1),
        (Scoring::Softmax, 0.0, 1),
        (Scoring::Sigmoid, 60.0, 1),
        (Scoring::Sigmoid, -200.0, 1),
        (Scoring::Sigmoid, 0.5, 8),
    ] {
        let id = format!("kernel/router/ties/{scoring:?} of {value} in {groups} groups");
        cases.add(id, async move |cx: Context| {
            let mut m = moe(64, 6, 32);
            (m.scoring, m.num_groups, m.top_k_groups) = (scoring, groups, groups.min(3));
            m.norm_top_k = value > -1.0;
            let mut logits = vec![value; 2 * 64];
            // In the second row the ties begin after two clear winners.
            (logits[64 + 40], logits[64 + 13]) = (value + 3.0, value + 2.0);
            measure_any(&cx, &router(m, logits, None), Bound::Nmse(1e-11)).await
        });
    }
}

/// Many experts, few experts, experts nobody chooses, and two routings whose pairs are sorted in the same buffers.
fn grouping(cases: &mut Cases<'_>) {
    for (count, k, tokens) in [(64, 6, 100), (5, 5, 64), (200, 8, 33)] {
        if cases.settings.quick && tokens == 100 {
            continue;
        }
        cases.add(format!("kernel/group_fill/{k} of {count} experts tokens {tokens}"), async move |cx: Context| {
            let shape = Shape { experts: count, k, hidden: 32, inner: 32, tokens, most: tokens };
            measure_any(&cx, &experts([Format::F16; 3], Kind::F32, &shape), Bound::Nmse(1e-10)).await
        });
    }
    cases.add("kernel/group_count/two routings", async |cx: Context| {
        let shape = Shape { experts: 9, k: 2, hidden: 64, inner: 32, tokens: 30, most: 30 };
        let mut s = experts([Format::F16; 3], Kind::F32, &shape);
        let ids = routing(&mut Rng::new(24), 30, 9, 2);
        let ids = s.id_input(2, ids);
        let x = s.inputs[0].0;
        let out = s.output(Kind::F32, 2 * 32);
        s.op(Op::ExpertsUp { bank: BankId(0), x, ids, out });
        measure_any(&cx, &s, Bound::Nmse(1e-10)).await
    });
}
