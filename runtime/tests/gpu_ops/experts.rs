//! The router and the routed experts.

use pleiad_models::{
    Format,
    config::{GroupScore, Scoring},
};
use pleiad_runtime::plan::{Act, Kind, Op, Rows};

use crate::support::{Check as _, Rng, Setup, all_places, config, moe, places, small_attention, tensor};

/// A router's setup: its ids and weights are the outputs.
fn router(name: String, moe: pleiad_models::config::Moe, logits: Vec<f32>, bias: Option<Vec<f32>>) -> Setup {
    let tokens = logits.len() / moe.num_experts;
    let mut s = Setup::new(name, tokens, tokens);
    let (experts, k) = (moe.num_experts, moe.top_k);
    s.config = config(small_attention(), true, Some(moe));
    let logits = s.input(Kind::F32, experts, logits);
    let bias = bias.map(|b| s.vec(b));
    let ids = s.output(Kind::U32, k);
    let weights = s.output(Kind::F32, k);
    s.op(Op::Router { logits, bias, layer: 0, ids, weights });
    s.step.counters_on = 1;
    s
}

/// Also compares the counters.
fn check_router(s: &Setup, test: &str) {
    let places = all_places(test);
    s.check(&places, 1e-11);
    let (_, expected) = s.twin();
    for place in &places {
        let (_, actual) = s.on(&place.device);
        assert_eq!(expected.counters, actual.counters, "{} on {}: counters", s.name, place.name);
    }
}

#[test]
fn router_of_every_kind() {
    let mut rng = Rng::new(20);
    for (experts, k, groups, kept) in
        [(8, 2, 1, 1), (64, 6, 1, 1), (64, 8, 8, 3), (256, 8, 8, 4), (160, 6, 8, 3), (512, 64, 64, 40), (33, 5, 1, 1)]
    {
        for scoring in [Scoring::Softmax, Scoring::Sigmoid] {
            for group_score in [GroupScore::Max, GroupScore::TopTwo] {
                for (biased, norm, tokens) in [(false, false, 1), (true, true, 33)] {
                    let mut m = moe(experts, k, 32);
                    (m.scoring, m.group_score, m.num_groups, m.top_k_groups) = (scoring, group_score, groups, kept);
                    m.norm_top_k = norm;
                    let name = format!("{experts} choose {k}, {groups} groups {group_score:?}, {scoring:?}, bias {biased}");
                    let logits = rng.vector(tokens * experts).iter().map(|x| x * 4.0).collect();
                    // Partly negative, larger than any score: a group that is out must stay out.
                    let bias = biased.then(|| rng.vector(experts).iter().map(|x| x * 1.5 - 0.5).collect());
                    check_router(&router(name, m, logits, bias), "router_of_every_kind");
                }
            }
        }
    }
}

#[test]
fn router_breaks_ties_by_the_lower_id() {
    for (scoring, value) in
        [(Scoring::Sigmoid, 0.0), (Scoring::Softmax, 0.0), (Scoring::Sigmoid, 60.0), (Scoring::Sigmoid, -200.0)]
    {
        let mut m = moe(64, 6, 32);
        m.scoring = scoring;
        m.norm_top_k = value > -1.0;
        let mut logits = vec![value; 2 * 64];
        // In the second row the ties begin after two clear winners.
        (logits[64 + 40], logits[64 + 13]) = (value + 3.0, value + 2.0);
        check_router(&router(format!("ties at {value}, {scoring:?}"), m, logits, None), "router ties");
    }
}

#[test]
fn a_router_counts_nothing_when_told_so() {
    let mut s = router("no counters".into(), moe(16, 4, 32), Rng::new(21).vector(48), None);
    s.step.counters_on = 0;
    check_router(&s, "a_router_counts_nothing_when_told_so");
    assert_eq!(s.twin().1.counters, Some(vec![0; 16]));
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

struct Shape {
    experts: usize,
    k: usize,
    hidden: usize,
    inner: usize,
    tokens: usize,
    max_tokens: usize,
}

/// Up form, then down form on its result, quantised where `kind` says so.
fn experts(rng: &mut Rng, formats: [Format; 3], kind: Kind, shape: &Shape) -> Setup {
    let Shape { experts, k, hidden, inner, tokens, max_tokens } = *shape;
    let [g, u, d] = formats;
    let name = format!("{experts} experts of {g} {u} {d}, {kind:?}, {hidden}x{inner}, {tokens} of {max_tokens} tokens");
    let mut s = Setup::new(name, tokens, max_tokens);
    s.config = config(small_attention(), true, Some(moe(experts, k, inner)));
    let gate = tensor(rng, g, experts, inner, hidden);
    let up = tensor(rng, u, experts, inner, hidden);
    let down = tensor(rng, d, experts, hidden, inner);
    let bank = s.bank(gate, up, down);
    let x = rng.vector(tokens * hidden);
    let x = s.input(kind, hidden, x);
    let ids = routing(rng, tokens, experts, k);
    let ids = s.id_input(k, ids);
    let out = s.output(Kind::F32, k * inner);
    s.op(Op::ExpertsUp { bank, x, ids, out });
    let down_kind = if d.is_quantised() { kind } else { Kind::F32 };
    // The down form reads rows of its own, so that neither form's error hides the other's.
    let y = rng.vector(tokens * k * inner);
    let y = s.input(Kind::F32, k * inner, y);
    let y: Act = if down_kind == Kind::Q8 {
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

#[test]
fn experts_of_every_format() {
    let places = places("experts_of_every_format");
    let mut rng = Rng::new(22);
    for format in Format::ALL {
        let (hidden, inner) = match format.block_len() {
            256 => (256, 256),
            32 => (96, 64),
            _ => (72, 40),
        };
        let kinds: &[Kind] = if format.is_quantised() { &[Kind::F32, Kind::Q8] } else { &[Kind::F32] };
        for &kind in kinds {
            for (tokens, max_tokens) in [(5, 40), (40, 40)] {
                let shape = Shape { experts: 7, k: 3, hidden, inner, tokens, max_tokens };
                experts(&mut rng, [format; 3], kind, &shape).check(&places, 1e-10);
            }
        }
    }
}

#[test]
fn experts_of_mixed_formats_and_many() {
    let places = all_places("experts_of_mixed_formats_and_many");
    let mut rng = Rng::new(23);
    let mixed = [Format::Q4K, Format::Q5K, Format::Q6K];
    for (experts_, k, tokens) in [(64, 6, 1), (64, 6, 100), (5, 5, 64), (200, 8, 33)] {
        let shape = Shape { experts: experts_, k, hidden: 256, inner: 256, tokens, max_tokens: tokens };
        experts(&mut rng, mixed, Kind::Q8, &shape).check(&places, 1e-10);
    }
    let shape = Shape { experts: 64, k: 6, hidden: 130, inner: 50, tokens: 70, max_tokens: 70 };
    experts(&mut rng, [Format::BF16, Format::F32, Format::F16], Kind::F32, &shape).check(&places, 1e-10);
}

/// Two layers share the buffers in which pairs are sorted: the second must not read the first's.
#[test]
fn each_routing_is_sorted_by_itself() {
    let places = places("each_routing_is_sorted_by_itself");
    let mut rng = Rng::new(24);
    let shape = Shape { experts: 9, k: 2, hidden: 64, inner: 32, tokens: 30, max_tokens: 30 };
    let mut s = experts(&mut rng, [Format::F16; 3], Kind::F32, &shape);
    let ids = routing(&mut rng, 30, 9, 2);
    let ids = s.id_input(2, ids);
    let x = s.inputs[0].0;
    let out = s.output(Kind::F32, 2 * 32);
    s.op(Op::ExpertsUp { bank: pleiad_runtime::plan::BankId(0), x, ids, out });
    s.check(&places, 1e-10);
}
