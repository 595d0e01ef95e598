//! `sample`: the same token for the same random number, whatever the device.

use pleiad_runtime::{
    plan::{Kind, Op, Rows},
    sampling::SamplingParams,
};

use super::RUNS;
use crate::{
    case::{Cases, Context, Outcome, Result},
    report::Measure,
    setup::{Rng, Setup},
};

/// A step that samples from `logits`.
fn setup(logits: &[f32], params: &SamplingParams) -> Setup {
    let mut s = Setup::new("sampling", 1, 1);
    let act = s.plan.act("logits", Kind::F32, Rows::One, logits.len());
    s.inputs.push((act, logits.to_vec()));
    params.write(&[], &mut s.step);
    s.op(Op::Sample { logits: act });
    s
}

/// Tokens of all setups against the twin's.
async fn check(cx: &Context, setups: &[Setup]) -> Result {
    let (mut wrong, mut at, mut different, mut worst) = (0usize, String::new(), 1usize, 0.0f64);
    for (i, s) in setups.iter().enumerate() {
        let (_, expected) = s.expected()?;
        let found = s.actual(&cx.gpu, RUNS).await?;
        different = different.max(1 + found.iter().skip(1).filter(|f| f.1 != found[0].1).count());
        let (token, logit) = (found[0].1.token, found[0].1.logit);
        if token != expected.token {
            wrong += 1;
            if at.is_empty() {
                at = format!("draw {i}: token {token}, not {}", expected.token);
            }
        } else if expected.logit != 0.0 {
            worst = worst.max(f64::from((logit - expected.logit).abs() / expected.logit.abs()));
        }
    }
    Ok(Outcome::new()
        .with("wrong", Measure::new(wrong as f64, "").most(0.0).at(at))
        .with("runs", Measure::new(different as f64, "").most(1.0))
        .with("relative error of the logit", Measure::new(worst, "").most(1e-6)))
}

pub(super) fn add(cases: &mut Cases<'_>) {
    let quick = cases.settings.quick;
    for vocab in [1, 7, 1000, 129_280, 256, 100_003] {
        if quick && vocab > 1000 && vocab != 100_003 {
            continue;
        }
        cases.add(format!("kernel/sample/greedy/vocabulary {vocab}"), async move |cx: Context| {
            let logits = Rng::new(30).vector(vocab);
            check(&cx, &[setup(&logits, &SamplingParams::default())]).await
        });
        cases.add(format!("kernel/sample/ties/vocabulary {vocab}"), async move |cx: Context| {
            // The lowest id wins: of two, of neighbours, of all.
            let mut two = Rng::new(30).vector(vocab);
            (two[vocab / 3], two[vocab - 1]) = (5.0, 5.0);
            let mut near = two.clone();
            (near[vocab / 2], near[(vocab / 2 + 1) % vocab]) = (6.0, 6.0);
            let all = vec![-1e30; vocab];
            let setups = [two, near, all].map(|l| setup(&l, &SamplingParams::default()));
            check(&cx, &setups).await
        });
    }
    for (temperature, top_k, top_p, min_p) in [
        (1.0, 0, 1.0, 0.0),
        (0.7, 0, 1.0, 0.0),
        (1.5, 40, 1.0, 0.0),
        (1.0, 0, 0.9, 0.0),
        (0.8, 0, 1.0, 0.05),
        (0.9, 50, 0.95, 0.02),
        (2.0, 1, 1.0, 0.0),
        (1.0, 0, 0.01, 0.0),
    ] {
        let id = format!("kernel/sample/draws/temperature {temperature} top_k {top_k} top_p {top_p} min_p {min_p}");
        cases.add(id, async move |cx: Context| {
            let params =
                SamplingParams { temperature, top_k, top_p, min_p, seed: 1234 + (77 << 32), ..SamplingParams::default() };
            let mut setups = Vec::new();
            for vocab in if cx.quick { &[300, 32_000][..] } else { &[5, 300, 32_000] } {
                let logits: Vec<f32> = Rng::new(31).vector(*vocab).iter().map(|x| x * 6.0).collect();
                for sampled in 0..if cx.quick { 2 } else { 8 } {
                    let mut s = setup(&logits, &params);
                    s.step.sampled = sampled;
                    setups.push(s);
                }
            }
            check(&cx, &setups).await
        });
    }
    for (name, repeat_penalty, frequency_penalty, presence_penalty, penalty_last_n) in [
        ("repeat", 1.5, 0.0, 0.0, 64),
        ("frequency", 1.0, 0.7, 0.0, 64),
        ("presence", 1.0, 0.0, 2.0, 256),
        ("all", 1.3, 0.2, 0.4, 10),
        ("none", 3.0, 0.0, 0.0, 0),
    ] {
        cases.add(format!("kernel/sample/penalties/{name}"), async move |cx: Context| {
            let params =
                SamplingParams { repeat_penalty, frequency_penalty, presence_penalty, penalty_last_n, ..Default::default() };
            let logits: Vec<f32> = Rng::new(32).vector(500).iter().map(|x| x * 3.0).collect();
            let mut order: Vec<u32> = (0..500).collect();
            order.sort_by(|&a, &b| logits[b as usize].total_cmp(&logits[a as usize]));
            let remembering = |n: usize| {
                let mut s = setup(&logits, &params);
                // The best ones, some of them often; and an id beyond the vocabulary.
                (0..n).for_each(|i| s.step.remember(if i % 17 == 5 { 9999 } else { order[i % 20] }));
                s
            };
            check(&cx, &[0, 1, 30, 300].map(remembering)).await
        });
    }
}
