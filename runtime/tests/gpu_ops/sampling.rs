//! Sampling on the device.

use pleiad_runtime::{
    executor::{PlanId, Readback},
    plan::{Act, Kind, Op, Rows},
    sampling::SamplingParams,
    step::StepState,
};

use crate::{
    backend::{DeviceExecutor, prepare},
    support::{Check as _, Rng, Setup, all_places, bits},
};

/// A setup that samples from `logits`.
fn setup(name: String, logits: &[f32], params: &SamplingParams, end: &[u32]) -> Setup {
    let mut s = Setup::new(name, 1, 1);
    let act = s.plan.act("logits", Kind::F32, Rows::One, logits.len());
    s.inputs.push((act, logits.to_vec()));
    params.write(end, &mut s.step);
    s.op(Op::Sample { logits: act });
    s
}

fn check(s: &Setup, test: &str) {
    let (_, expected) = s.twin();
    for place in all_places(test) {
        let (_, actual) = s.on(&place.device);
        let case = format!("{} on {}", s.name, place.name);
        assert_eq!(expected.token, actual.token, "{case}");
        let error = (expected.logit - actual.logit).abs();
        assert!(error <= 1e-6 * expected.logit.abs(), "{case}: logit {} expected, {} found", expected.logit, actual.logit);
    }
}

#[test]
fn greedy() {
    let mut rng = Rng::new(30);
    for vocab in [1, 7, 256, 1000, 100_003] {
        let mut logits = rng.vector(vocab);
        check(&setup(format!("greedy of {vocab}"), &logits, &SamplingParams::default(), &[]), "greedy");
        // The lowest id wins a tie.
        let (first, last) = (vocab / 3, vocab - 1);
        (logits[first], logits[last]) = (5.0, 5.0);
        check(&setup(format!("ties of {vocab}"), &logits, &SamplingParams::default(), &[]), "greedy");
        logits.fill(-1e30);
        check(&setup(format!("all equal of {vocab}"), &logits, &SamplingParams::default(), &[]), "greedy");
    }
}

#[test]
fn draws() {
    let mut rng = Rng::new(31);
    for vocab in [5, 300, 32_000] {
        let logits: Vec<f32> = rng.vector(vocab).iter().map(|x| x * 6.0).collect();
        for (i, (temperature, top_k, top_p, min_p)) in [
            (1.0, 0, 1.0, 0.0),
            (0.7, 0, 1.0, 0.0),
            (1.5, 40, 1.0, 0.0),
            (1.0, 0, 0.9, 0.0),
            (0.8, 0, 1.0, 0.05),
            (0.9, 50, 0.95, 0.02),
            (2.0, 1, 1.0, 0.0),
            (1.0, 0, 0.01, 0.0),
        ]
        .into_iter()
        .enumerate()
        {
            let seed = 1234 + i as u64 + (77 << 32);
            let params = SamplingParams { temperature, top_k, top_p, min_p, seed, ..SamplingParams::default() };
            for sampled in 0..4 {
                let mut s = setup(format!("draw {sampled} of {vocab}, {params:?}"), &logits, &params, &[]);
                s.step.sampled = sampled;
                check(&s, "draws");
            }
        }
    }
}

#[test]
fn penalties() {
    let mut rng = Rng::new(32);
    let logits: Vec<f32> = rng.vector(500).iter().map(|x| x * 3.0).collect();
    for (repeat_penalty, frequency_penalty, presence_penalty, penalty_last_n) in
        [(1.5, 0.0, 0.0, 64), (1.0, 0.7, 0.0, 64), (1.0, 0.0, 2.0, 256), (1.3, 0.2, 0.4, 10), (3.0, 0.0, 0.0, 0)]
    {
        let params = SamplingParams { repeat_penalty, frequency_penalty, presence_penalty, penalty_last_n, ..Default::default() };
        for remembered in [0, 1, 30, 300] {
            let mut s = setup(format!("{params:?} of {remembered}"), &logits, &params, &[]);
            let mut order: Vec<u32> = (0..500).collect();
            order.sort_by(|&a, &b| logits[b as usize].total_cmp(&logits[a as usize]));
            for i in 0..remembered {
                // The best ones, some of them often; and an id beyond the vocabulary.
                s.step.remember(if i % 17 == 5 { 9999 } else { order[i % 20] });
            }
            check(&s, "penalties");
        }
    }
}

/// Logits of the next step, after the ones that it finds were used.
async fn step(e: &mut DeviceExecutor, plan: PlanId, act: Act, logits: &[f32]) -> (u32, StepState) {
    e.write_act(plan, act, &bits(logits)).unwrap();
    let ticket = e.submit(plan, 1, Readback { token: true, counters: false }).unwrap();
    let token = e.wait(ticket).await.unwrap().token;
    (token, e.read_step().await.unwrap())
}

#[test]
fn a_step_prepares_the_next_and_an_end_token_stops() {
    let params = SamplingParams { repeat_penalty: 1.1, ..SamplingParams::default() };
    let vocab = 50;
    let peak = |id: usize| -> Vec<f32> { (0..vocab).map(|i| if i == id { 9.0 } else { 0.0 }).collect() };
    let mut s = setup("steps".into(), &peak(3), &params, &[7, 11]);
    s.step.pos = 20;
    for place in all_places("a_step_prepares_the_next_and_an_end_token_stops") {
        pollster::block_on(async {
            let (mut e, plan) = prepare(&s, &place.device).await.unwrap();
            let act = s.inputs[0].0;
            let mut twin = s.step;
            for id in [3, 4, 3, 11] {
                let (token, found) = step(&mut e, plan, act, &peak(id)).await;
                twin.advance(id as u32);
                assert_eq!(token, id as u32, "{}", place.name);
                assert_eq!(bytemuck::bytes_of(&found), bytemuck::bytes_of(&twin), "{}: state after {id}", place.name);
            }
            assert_eq!(twin.stopped, 1);
            // A surplus step repeats the token and leaves no trace.
            for _ in 0..2 {
                let (token, found) = step(&mut e, plan, act, &peak(5)).await;
                assert_eq!(token, 11, "{}: a step after the end", place.name);
                assert_eq!((found.sampled, found.recent_len, found.recent), (twin.sampled, twin.recent_len, twin.recent));
            }
        });
    }
}
