//! Verification and drafting on the device.

use pleiad_models::Format;
use pleiad_runtime::{
    cpu::CpuExecutor,
    executor::{ExpertOptions, LoadOptions, Readback},
    plan::{Act, Kind, Op, Rows},
    sampling::SamplingParams,
    step::StepState,
};

use crate::{
    backend::prepare,
    support::{Check as _, Rng, Setup, all_places, bits, floats, places, tensor},
};

const VOCAB: usize = 300;
const TOKEN: Readback = Readback { token: true, counters: false };

struct Case {
    setup: Setup,
    logits: Act,
    drafts: Act,
    hidden: Act,
    embedded: Act,
    row: Act,
}

/// A step that verifies `k` drafts and makes `k`, without the model between.
fn case(k: usize, params: &SamplingParams) -> Case {
    let mut rng = Rng::new(60);
    let mut s = Setup::new(format!("{k} drafts, {params:?}"), k + 1, k + 1);
    let table = tensor(&mut rng, Format::F32, 1, VOCAB, 32);
    let table = s.mat(table);
    let logits = s.plan.act("logits", Kind::F32, Rows::Tokens, VOCAB);
    let drafts = s.plan.act("draft logits", Kind::F32, Rows::One, VOCAB);
    let hidden = s.plan.act("hidden", Kind::F32, Rows::Tokens, 40);
    let embedded = s.plan.act("embedded", Kind::F32, Rows::Tokens, 32);
    let row = s.plan.act("row", Kind::F32, Rows::One, 40);
    (0..=k).for_each(|row| s.op(Op::Verify { logits, row }));
    s.op(Op::Shift { given: false });
    s.op(Op::Embed { table, out: embedded });
    s.op(Op::TakenRow { x: hidden, out: row });
    s.op(Op::Settle { drafts: k });
    (0..k).for_each(|index| s.op(Op::Draft { logits: drafts, index, of: k }));
    params.write(&[299], &mut s.step);
    (s.step.pos, s.step.drafted) = (17, k as u32);
    s.ids = (0..=k as u32).map(|i| 10 * i).collect();
    s.positions = 256;
    Case { setup: s, logits, drafts, hidden, embedded, row }
}

/// Logits with which the first `right` of the drafts that are due turn out right; then an end token, or another one.
fn verified(drafts: &[u32], right: usize, end: bool) -> Vec<f32> {
    let mut rng = Rng::new(61 + right as u64);
    let mut all = rng.vector((drafts.len() + 1) * VOCAB);
    for row in 0..=drafts.len() {
        let wanted = drafts.get(row).filter(|_| row < right).copied().unwrap_or(if end { 299 } else { 123 });
        all[row * VOCAB + wanted as usize] = 30.0;
    }
    all
}

#[test]
fn steps_with_drafts_are_those_of_the_twins() {
    for k in [1, 3, 7] {
        for params in [
            SamplingParams::default(),
            SamplingParams {
                temperature: 0.8,
                top_k: 40,
                top_p: 0.95,
                repeat_penalty: 1.1,
                seed: 5,
                ..SamplingParams::default()
            },
        ] {
            let c = case(k, &params);
            for place in all_places("steps_with_drafts_are_those_of_the_twins") {
                let options = LoadOptions {
                    positions: 256,
                    max_context: 256,
                    cache: c.setup.cache,
                    threads: Some(1),
                    experts: ExpertOptions::default(),
                };
                let mut twin = CpuExecutor::plain(c.setup.model(), &options).unwrap();
                let twin_plan = twin.compile(&c.setup.plan).unwrap();
                twin.write_step(&c.setup.step, &[0, 1, 2, 3]);
                twin.write_ids(&c.setup.ids);
                pollster::block_on(async {
                    let (mut gpu, plan) = prepare(&c.setup, &place.device).await.unwrap();
                    let mut due = c.setup.ids[1..].to_vec();
                    for (n, (right, end)) in
                        [(k, false), (0, false), (1, false), (k - 1, true), (0, false)].into_iter().enumerate()
                    {
                        let what = format!("{} on {}, step {n}", c.setup.name, place.name);
                        let mut rng = Rng::new(70 + n as u64);
                        let inputs = [
                            (c.logits, verified(&due, right, end)),
                            (c.drafts, rng.vector(VOCAB)),
                            (c.hidden, rng.vector((k + 1) * 40)),
                        ];
                        for (act, values) in &inputs {
                            twin.write_act(twin_plan, *act, &bits(values));
                            gpu.write_act(plan, *act, &bits(values)).unwrap();
                        }
                        let ticket = twin.submit(twin_plan, k + 1, TOKEN).unwrap();
                        let expected = twin.wait(ticket).unwrap();
                        let ticket = gpu.submit(plan, k + 1, TOKEN).unwrap();
                        let got = gpu.wait(ticket).await.unwrap();
                        let state: StepState = gpu.read_step().await.unwrap();
                        let mut wanted = *twin.step();
                        // Logits agree to rounding.
                        for (w, s) in wanted.logits.iter_mut().zip(state.logits) {
                            assert!((*w - s).abs() <= 1e-5 * w.abs().max(1.0), "{what}: logit {s} instead of {w}");
                            *w = s;
                        }
                        assert_eq!(bytemuck::bytes_of(&state), bytemuck::bytes_of(&wanted), "{what}: {state:?}\n{wanted:?}");
                        if n == 4 {
                            // It came after the end.
                            assert_eq!((state.count, state.stopped), (0, 1), "{what}");
                            continue;
                        }
                        assert_eq!((got.token, got.before.len()), (expected.token, expected.before.len()), "{what}");
                        let tokens = |all: &[(u32, f32)]| all.iter().map(|t| t.0).collect::<Vec<_>>();
                        assert_eq!(tokens(&got.before), tokens(&expected.before), "{what}");
                        if params.temperature == 0.0 {
                            assert_eq!(expected.before.len(), right, "{what}");
                        }
                        for (act, rows) in [(c.embedded, expected.before.len() + 1), (c.row, 1)] {
                            let found = floats(&gpu.read_act(plan, act, rows).await.unwrap());
                            assert_eq!(found, floats(&twin.read_act(twin_plan, act, rows)), "{what}");
                        }
                        due = state.drafts[..k].to_vec();
                    }
                });
            }
        }
    }
}

#[test]
fn rows_side_by_side() {
    for (n, m, tokens) in [(1, 1, 1), (300, 7, 3), (64, 64, 40)] {
        let mut rng = Rng::new(62);
        let mut s = Setup::new(format!("{n} beside {m}, {tokens} tokens"), tokens, tokens + 2);
        let (a, b) = (rng.vector(tokens * n), rng.vector(tokens * m));
        let (a, b) = (s.input(Kind::F32, n, a), s.input(Kind::F32, m, b));
        let out = s.output(Kind::F32, n + m);
        s.op(Op::Join { a, b, out });
        s.check(&places("rows_side_by_side"), 0.0);
    }
}

#[test]
fn ids_move_up_by_one_row() {
    for tokens in [1, 3, 256, 257, 700] {
        let mut rng = Rng::new(63);
        let mut s = Setup::new(format!("{tokens} ids"), tokens, 700);
        let table = tensor(&mut rng, Format::F32, 1, 64, 32);
        let table = s.mat(table);
        let out = s.output(Kind::F32, 32);
        s.op(Op::Shift { given: true });
        s.op(Op::Embed { table, out });
        s.ids = (0..=tokens).map(|_| rng.below(64) as u32).collect();
        s.check(&places("ids_move_up_by_one_row"), 0.0);
    }
}
