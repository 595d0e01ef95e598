//! What holds for whole steps: nothing is made while decoding, results come back in any order, errors are errors.

use std::sync::Arc;

use pleiad_models::Format;
use pleiad_runtime::{
    CacheFormat, Error,
    executor::{ExpertOptions, LoadOptions, Readback},
    gpu::{self, AdapterChoice, DeviceOptions, GpuExecutor},
    plan::{Kind, Op, Plan, Rows},
};

use crate::support::{Check as _, Rng, Setup, bits, floats, places, tensor};

const TOKEN: Readback = Readback { token: true, counters: false };

/// `id -> (id * 5 + 1) % 64`, as embedding, product and argmax.
fn walk() -> Setup {
    let n = 64;
    let mut s = Setup::new("walk", 1, 1);
    let mut one_hot = tensor(&mut Rng::new(1), Format::F32, 1, n, n);
    let eye: Vec<f32> = (0..n * n).map(|i| if i / n == i % n { 1.0 } else { 0.0 }).collect();
    one_hot.data = pleiad_models::Bytes::new(bytemuck::cast_slice::<f32, u8>(&eye).to_vec());
    let mut next = one_hot.clone();
    let map: Vec<f32> = (0..n * n).map(|i| if i / n == (i % n * 5 + 1) % n { 3.0 } else { 0.0 }).collect();
    next.data = pleiad_models::Bytes::new(bytemuck::cast_slice::<f32, u8>(&map).to_vec());
    let (table, w) = (s.mat(one_hot), s.mat(next));
    let x = s.plan.act("x", Kind::F32, Rows::One, n);
    let logits = s.plan.act("logits", Kind::F32, Rows::One, n);
    s.op(Op::Embed { table, out: x });
    s.op(Op::MatMul { w, x, out: logits, add: false });
    s.op(Op::Sample { logits });
    s.positions = 256;
    s.ids = vec![2];
    s
}

#[test]
fn tokens_feed_the_next_step_on_the_device() {
    let s = walk();
    for place in places("tokens_feed_the_next_step_on_the_device") {
        pollster::block_on(async {
            for in_flight in [1, 4, 16] {
                let (mut e, plan) = s.prepare(&place.device).await.unwrap();
                let before = e.stats();
                let (mut tickets, mut tokens) = (std::collections::VecDeque::new(), Vec::new());
                for _ in 0..100 {
                    tickets.push_back(e.submit(plan, 1, TOKEN).unwrap());
                    if tickets.len() == in_flight {
                        tokens.push(e.wait(tickets.pop_front().unwrap()).await.unwrap().token);
                    }
                }
                for ticket in tickets {
                    tokens.push(e.wait(ticket).await.unwrap().token);
                }
                let expected: Vec<u32> = (0..100)
                    .scan(2, |id, _| {
                        *id = (*id * 5 + 1) % 64;
                        Some(*id)
                    })
                    .collect();
                assert_eq!(tokens, expected, "{}, {in_flight} in flight", place.name);
                let after = e.stats();
                let per_token = |a: u64, b: u64| (b - a) as f64 / 100.0;
                assert_eq!(per_token(before.submissions, after.submissions), 1.0);
                assert_eq!(per_token(before.readbacks, after.readbacks), 1.0);
                assert_eq!(per_token(before.dispatches, after.dispatches), 3.0);
                assert_eq!((before.bind_groups, before.uploaded_bytes), (after.bind_groups, after.uploaded_bytes));
            }
        });
    }
}

#[test]
fn results_may_be_fetched_late_or_never() {
    let s = walk();
    for place in places("results_may_be_fetched_late_or_never") {
        pollster::block_on(async {
            let (mut e, plan) = s.prepare(&place.device).await.unwrap();
            let tickets: Vec<_> = (0..60).map(|_| e.submit(plan, 1, TOKEN).unwrap()).collect();
            let mut tickets = tickets.into_iter().rev();
            let last = e.wait(tickets.next().unwrap()).await.unwrap().token;
            let expected = (0..60).fold(2, |id, _| (id * 5 + 1) % 64);
            assert_eq!(last, expected, "{}", place.name);
            // The first ones were given up for the later ones.
            assert!(e.wait(tickets.next_back().unwrap()).await.is_err());
            let ticket = e.submit(plan, 1, TOKEN).unwrap();
            assert_eq!(e.wait(ticket).await.unwrap().token, (expected * 5 + 1) % 64);
        });
    }
}

#[test]
fn a_plan_serves_steps_of_any_length() {
    let mut rng = Rng::new(50);
    let w = tensor(&mut rng, Format::Q8_0, 1, 48, 64);
    for tokens in [1, 8, 9, 31, 64] {
        let mut s = Setup::new(format!("{tokens} of 64 tokens"), tokens, 64);
        let w = s.mat(w.clone());
        let x = rng.vector(tokens * 64);
        let x = s.input(Kind::Q8, 64, x);
        let out = s.output(Kind::F32, 48);
        s.op(Op::MatMul { w, x, out, add: false });
        s.check(&places("a_plan_serves_steps_of_any_length"), 1e-11);
    }
}

#[test]
fn a_step_writes_no_row_beyond_its_own() {
    for place in places("a_step_writes_no_row_beyond_its_own") {
        for tokens in [1, 3, 8, 9, 33] {
            let mut rng = Rng::new(51);
            let mut s = Setup::new("tail", tokens, 40);
            let w = tensor(&mut rng, Format::F16, 1, 70, 64);
            let w = s.mat(w);
            let x = rng.vector(tokens * 64);
            let x = s.input(Kind::F32, 64, x);
            let out = s.output(Kind::F32, 70);
            s.op(Op::MatMul { w, x, out, add: false });
            pollster::block_on(async {
                let (mut e, plan) = s.prepare(&place.device).await.unwrap();
                e.write_act(plan, out, &bits(&vec![7.5; 40 * 70])).unwrap();
                let ticket = e.submit(plan, tokens, Readback::default()).unwrap();
                e.wait(ticket).await.unwrap();
                let all = floats(&e.read_act(plan, out, 40).await.unwrap());
                assert!(all[..tokens * 70].iter().all(|&x| x != 7.5));
                assert!(all[tokens * 70..].iter().all(|&x| x == 7.5), "{}, {tokens} tokens", place.name);
            });
        }
    }
}

#[test]
fn steps_that_do_not_fit_are_refused() {
    let mut s = walk();
    s.step.pos = 255;
    for place in places("steps_that_do_not_fit_are_refused") {
        pollster::block_on(async {
            let (mut e, plan) = s.prepare(&place.device).await.unwrap();
            assert!(matches!(e.submit(plan, 2, TOKEN), Err(Error::Invalid(_))));
            assert!(matches!(e.submit(plan, 0, TOKEN), Err(Error::Invalid(_))));
            e.submit(plan, 1, TOKEN).unwrap();
            assert!(matches!(e.submit(plan, 1, TOKEN), Err(Error::Limit { .. })), "{}", place.name);
        });
    }
}

#[test]
fn limits_are_named() {
    for place in places("limits_are_named") {
        let limit = place.device.max_binding();
        let s = walk();
        // A context whose cache cannot be bound.
        let positions = (limit / 72 + 64) as usize;
        if positions > 100_000_000 {
            continue;
        }
        let options =
            LoadOptions { positions, max_context: 64, cache: CacheFormat::F16, threads: None, experts: ExpertOptions::default() };
        let load = pollster::block_on(GpuExecutor::load(Arc::clone(&place.device), s.model(), &options, &mut |_, _| {}));
        let Err(error) = load else { panic!("a cache of {positions} positions") };
        assert!(matches!(&error, Error::Limit { .. } if error.to_string().contains("latent cache")), "{error}");
        // An activation that cannot be bound.
        pollster::block_on(async {
            let (mut e, _) = s.prepare(&place.device).await.unwrap();
            let mut plan = Plan::new(60_000);
            plan.act("enormous", Kind::F32, Rows::Tokens, limit as usize / 100_000);
            let error = e.compile(&plan).unwrap_err();
            assert!(error.to_string().contains("enormous"), "{error}");
            // The executor goes on working.
            let small = e.compile(&s.plan).unwrap();
            let ticket = e.submit(small, 1, TOKEN).unwrap();
            assert_eq!(e.wait(ticket).await.unwrap().token, 11);
        });
    }
}

#[test]
fn a_lost_device_is_an_error() {
    for adapter in pollster::block_on(gpu::enumerate()) {
        let device = pollster::block_on(adapter.open(DeviceOptions::default())).unwrap();
        let s = walk();
        pollster::block_on(async {
            let (mut e, plan) = s.prepare(&device).await.unwrap();
            let ticket = e.submit(plan, 1, TOKEN).unwrap();
            e.wait(ticket).await.unwrap();
            device.destroy();
            let outcome = match e.submit(plan, 1, TOKEN) {
                Ok(ticket) => e.wait(ticket).await.map(|_| ()),
                Err(e) => Err(e),
            };
            let Err(error) = outcome else { panic!("{}: a step on a lost device", adapter.description) };
            assert!(matches!(error, Error::DeviceLost(_) | Error::Gpu(_)), "{error}");
            // It stays lost.
            let Err(error) = e.submit(plan, 1, TOKEN) else { panic!("{}: another step", adapter.description) };
            assert!(matches!(error, Error::DeviceLost(_)), "{error}");
        });
    }
}

#[test]
fn a_missing_adapter_lists_those_there_are() {
    let Err(error) = pollster::block_on(gpu::pick(AdapterChoice::Index(99))) else { panic!("adapter 99") };
    assert!(matches!(error, Error::NoAdapter { .. }));
    assert!(error.to_string().contains("wgpu:99"), "{error}");
}
