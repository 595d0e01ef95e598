//! The embedded model as a whole, and what single operations do not show: fused sums, graphs, refusals.

use std::sync::Arc;

use pleiad_models::{Checkpoint, Format};
use pleiad_runtime::{
    Activations, CacheFormat, Error, Model,
    cpu::CpuExecutor,
    cuda::{
        CudaExecutor, Driver,
        profile::{Profiler, copy_bandwidth},
    },
    eval::{EvalOptions, evaluate},
    executor::{Executor, ExpertOptions, LoadOptions, Readback},
    forward::{AttentionForm, Options, Output, Speculation, record},
    plan::{Kind, Op, Plan, Rows},
    step::StepState,
};

use crate::{
    backend::places,
    emulator::{Emulator, compiler},
    support::{Check as _, Rng, Setup, config, moe, nmse, small_attention, tensor},
};

fn options(positions: usize) -> LoadOptions {
    LoadOptions {
        positions,
        max_context: positions,
        cache: CacheFormat::F16,
        threads: Some(1),
        experts: ExpertOptions::default(),
    }
}

fn tiny() -> Arc<Model> {
    let checkpoint = Checkpoint::tiny().unwrap();
    Arc::new(Model::new(&checkpoint.config, &checkpoint.weights))
}

fn on_cuda(driver: Arc<dyn Driver>, model: &Arc<Model>, options: &LoadOptions) -> Result<CudaExecutor, Error> {
    pollster::block_on(CudaExecutor::load(driver, Arc::clone(model), options, &mut |_, _| {}))
}

/// Ids of a text of any kind.
fn ids(n: usize, model: &Model) -> Vec<u32> {
    let mut rng = Rng::new(50);
    (0..n).map(|_| rng.below(model.config.vocab_size) as u32).collect()
}

#[test]
fn the_embedded_model_agrees_with_the_twins() {
    let model = tiny();
    for place in places("the_embedded_model_agrees_with_the_twins") {
        let ids = ids(24, &model);
        for (activations, attention, chunk) in [
            (Activations::F32, AttentionForm::Absorbed, 1),
            (Activations::F32, AttentionForm::Expanded, 24),
            (Activations::Q8, AttentionForm::Absorbed, 24),
            (Activations::Q8, AttentionForm::Absorbed, 7),
        ] {
            let how = EvalOptions { chunk, activations, attention };
            let run = |mut e: Executor| pollster::block_on(evaluate(&mut e, &model, how, &ids, &mut |_, _| {})).unwrap();
            let plain = run(Executor::Cpu(Box::new(CpuExecutor::plain(Arc::clone(&model), &options(64)).unwrap())));
            let cuda = run(Executor::Cuda(Box::new(on_cuda(Arc::clone(&place.device), &model, &options(64)).unwrap())));
            let fast = run(Executor::Cpu(Box::new(CpuExecutor::load(Arc::clone(&model), &options(64)).unwrap())));
            let vocab = model.config.vocab_size;
            // With q8 a difference in the last bit can move a value across the boundary between two steps, and a token to another
            // expert: not every row is close, on the processor's fast path either, but more than half of them are.
            let errors = |e: &pleiad_runtime::eval::Evaluation| {
                let rows = plain.logits.chunks(vocab).zip(e.logits.chunks(vocab));
                let mut all: Vec<f64> = rows.map(|(a, b)| nmse(a, b)).collect();
                all.sort_by(f64::total_cmp);
                (all[all.len() / 2], all[all.len() - 1])
            };
            let ((middle, worst), cpu) = (errors(&cuda), errors(&fast));
            let case = format!("{how:?} on {}: NMSE of rows {middle:e}, {worst:e} at most; fast CPU path {cpu:?}", place.name);
            println!("{case}");
            let bound =
                if activations == Activations::F32 { (1e-7, 1e-7) } else { (1e-3f64.max(4.0 * cpu.0), 0.1f64.max(4.0 * cpu.1)) };
            assert!(middle < bound.0 && worst < bound.1, "{case}; the bounds are {bound:?}");
            if activations == Activations::F32 {
                let chosen = |e: &pleiad_runtime::eval::Evaluation| e.routing.values().map(|r| r.0.clone()).collect::<Vec<_>>();
                assert_eq!(chosen(&plain), chosen(&cuda), "{how:?} on {}: routing", place.name);
            }
        }
    }
}

#[test]
fn decoding_replays_one_graph() {
    let Some(compiler) = compiler() else {
        println!("SKIPPED decoding_replays_one_graph: no C++ compiler (g++ or clang++, on Linux)");
        return;
    };
    let model = tiny();
    let emulator = Arc::new(Emulator::new(compiler));
    let driver: Arc<dyn Driver> = Arc::clone(&emulator) as Arc<dyn Driver>;
    let mut cuda = on_cuda(driver, &model, &options(128)).unwrap();
    let mut cpu = CpuExecutor::plain(Arc::clone(&model), &options(128)).unwrap();
    let record = |max_tokens| {
        let (output, activations, attention) = (Output::Token, Activations::F32, AttentionForm::Absorbed);
        record(&model, Options { max_tokens, output, activations, attention, speculation: None })
    };
    let (prompt, one) = (record(16), record(1));
    let plans = [cuda.compile(&prompt).unwrap(), cuda.compile(&one).unwrap()];
    let twins = [cpu.compile(&prompt).unwrap(), cpu.compile(&one).unwrap()];
    let ids = ids(11, &model);
    let step = StepState { tokens: 11, counters_on: 1, ..StepState::default() };
    cuda.write_step(&step, &[1, 0]);
    cpu.write_step(&step, &[1, 0]);
    cuda.write_ids(&ids);
    cpu.write_ids(&ids);
    let token = Readback { token: true, counters: true };
    let mut tickets = Vec::new();
    let mut expected = Vec::new();
    // Several steps are under way before the first is waited for.
    for i in 0..6 {
        let (tokens, plan) = if i == 0 { (11, 0) } else { (1, 1) };
        tickets.push(cuda.submit(plans[plan], tokens, token).unwrap());
        let ticket = cpu.submit(twins[plan], tokens, token).unwrap();
        expected.push(cpu.wait(ticket).unwrap());
    }
    for (ticket, expected) in tickets.into_iter().zip(expected) {
        let found = pollster::block_on(cuda.wait(ticket)).unwrap();
        assert_eq!((found.token, found.counters), (expected.token, expected.counters));
        assert!((found.logit - expected.logit).abs() < 1e-3 * expected.logit.abs(), "{} {}", found.logit, expected.logit);
    }
    assert_eq!(emulator.graphs(), 1, "one graph serves every token");
    let stats = cuda.stats();
    assert_eq!((stats.submissions, stats.readbacks), (6, 6));
    let found = pollster::block_on(cuda.read_step()).unwrap();
    assert_eq!(bytemuck::bytes_of(&found), bytemuck::bytes_of(cpu.step()));
    // What does not fit is refused, and takes nothing along.
    assert!(matches!(cuda.submit(plans[1], 2, token), Err(Error::Invalid(_))));
    assert!(matches!(cuda.submit(plans[0], 0, token), Err(Error::Invalid(_))));
    cuda.write_step(&StepState { pos: 128, tokens: 1, ..StepState::default() }, &[]);
    assert!(matches!(cuda.submit(plans[1], 1, token), Err(Error::Limit { .. })));
    drop(cuda);
    assert_eq!(emulator.buffers(), 0, "all memory is given back");
}

#[test]
fn drafts_of_the_embedded_model_are_those_of_the_twins() {
    let checkpoint = Checkpoint::tiny().unwrap();
    let model = Arc::new(Model::with_mtp(&checkpoint.config, &checkpoint.weights));
    let k = 2;
    let record = |max_tokens, verify| {
        let (output, activations, attention) = (Output::Token, Activations::F32, AttentionForm::Absorbed);
        record(
            &model,
            Options { max_tokens, output, activations, attention, speculation: Some(Speculation { verify, draft: k }) },
        )
    };
    let (prompt, step) = (record(16, 0), record(k + 1, k));
    let ids = ids(11, &model);
    for place in places("drafts_of_the_embedded_model_are_those_of_the_twins") {
        let mut cuda = on_cuda(Arc::clone(&place.device), &model, &options(128)).unwrap();
        let mut cpu = CpuExecutor::plain(Arc::clone(&model), &options(128)).unwrap();
        let plans = [cuda.compile(&prompt).unwrap(), cuda.compile(&step).unwrap()];
        let twins = [cpu.compile(&prompt).unwrap(), cpu.compile(&step).unwrap()];
        let start = StepState { tokens: 11, counters_on: 1, ..StepState::default() };
        cuda.write_step(&start, &[1, 0]);
        cpu.write_step(&start, &[1, 0]);
        cuda.write_ids(&ids);
        cpu.write_ids(&ids);
        let token = Readback { token: true, counters: false };
        let mut tokens = Vec::new();
        for n in 0..6 {
            let (rows, plan) = if n == 0 { (11, 0) } else { (k + 1, 1) };
            let ticket = cpu.submit(twins[plan], rows, token).unwrap();
            cpu.wait(ticket).unwrap();
            let ticket = cuda.submit(plans[plan], rows, token).unwrap();
            pollster::block_on(cuda.wait(ticket)).unwrap();
            let (mut found, expected) = (pollster::block_on(cuda.read_step()).unwrap(), *cpu.step());
            for (f, e) in found.logits.iter_mut().zip(expected.logits) {
                assert!((*f - e).abs() <= 1e-3 * e.abs().max(1.0), "{}, step {n}: logit {f} instead of {e}", place.name);
                *f = e;
            }
            let brief = |s: &StepState| (s.pos, s.tokens, s.sampled, s.count, s.open, s.taken, s.drafted, s.drafts, s.began);
            assert_eq!(brief(&found), brief(&expected), "{}, step {n}", place.name);
            assert!(bytemuck::bytes_of(&found) == bytemuck::bytes_of(&expected), "{}, step {n}", place.name);
            tokens.extend_from_slice(&found.taken[..found.count as usize]);
        }
        println!("{}: {tokens:?}", place.name);
        assert!(tokens.len() > 6, "{}: no draft was right, so nothing was shown: {tokens:?}", place.name);
    }
}

#[test]
fn a_step_is_timed_kernel_by_kernel() {
    let model = tiny();
    for place in places("a_step_is_timed_kernel_by_kernel") {
        let profiler = Profiler::new(&place.device, &model, &options(256), Activations::F32, &mut |_, _| {}).unwrap();
        let layers = model.layers.len();
        for length in [1, 200] {
            let step = profiler.step(length, 2).unwrap();
            let launches = |kernel: &str, makes: &str| {
                let of = step.kernels.iter().filter(|k| k.kernel.starts_with(kernel) && k.makes.contains(makes));
                of.map(|k| k.launches).sum::<usize>()
            };
            let parts = if launches("attend_merge", "") > 0 { 2 } else { 1 };
            let found = (launches("attend", ""), launches("sample", ""), launches("matvec", "logits"));
            assert_eq!(found, (layers * parts, 1, model.banks.len() + 1));
            assert_eq!(step.cache_bytes, (layers * length as usize * model.config.attention.cache_width() * 2) as u64);
            assert!(step.seconds > 0.0 && step.kernels.iter().all(|k| k.seconds > 0.0), "{step:?}");
            assert!(step.kernels.is_sorted_by(|a, b| a.seconds >= b.seconds));
        }
        assert!(matches!(profiler.step(254, 2), Err(Error::Limit { .. })));
        assert!(copy_bandwidth(&place.device, 1 << 17, 2).unwrap() > 0.0);
    }
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let Some(compiler) = compiler() else {
        println!("SKIPPED what_does_not_fit_is_refused_by_name: no C++ compiler (g++ or clang++, on Linux)");
        return;
    };
    let model = tiny();
    let emulator = Arc::new(Emulator::new(compiler));
    let driver: Arc<dyn Driver> = Arc::clone(&emulator) as Arc<dyn Driver>;
    let mut small = options(128);
    small.experts.budget = Some(1 << 20);
    let error = on_cuda(Arc::clone(&driver), &model, &small).err().unwrap();
    assert!(matches!(error, Error::Budget { budget: 1_048_576, .. }), "{error}");
    let error = on_cuda(driver, &model, &options(1 << 24)).err().unwrap();
    assert!(matches!(error, Error::OutOfMemory { limit: Some(limit), bytes, .. } if bytes > limit), "{error}");
    let words = error.to_string();
    assert!(words.contains("Pleiad Tiny on the GPU needs") && words.contains("4096 MiB are available"), "{words}");
    assert_eq!(emulator.buffers(), 0);
}

#[test]
fn experts_with_their_weighted_sum() {
    let places = places("experts_with_their_weighted_sum");
    let mut rng = Rng::new(51);
    for (format, hidden, inner) in [(Format::Q4K, 70, 256), (Format::Q8_0, 33, 96), (Format::BF16, 130, 40), (Format::F32, 5, 8)]
    {
        for kind in [Kind::F32, Kind::Q8].into_iter().filter(|&k| k == Kind::F32 || format.is_quantised()) {
            for (k, tokens, max_tokens) in [(1, 1, 1), (3, 2, 2), (8, 3, 40), (11, 1, 1), (4, 20, 40)] {
                let name = format!("{k} experts of {format} {hidden}x{inner} in sum, {kind:?}, {tokens} of {max_tokens} tokens");
                let mut s = Setup::new(name, tokens, max_tokens);
                s.config = config(small_attention(), true, Some(moe(13, k, inner)));
                let gate = tensor(&mut rng, Format::F32, 13, inner, hidden);
                let up = tensor(&mut rng, Format::F32, 13, inner, hidden);
                let down = tensor(&mut rng, format, 13, hidden, inner);
                let bank = s.bank(gate, up, down);
                let ids = (0..tokens).flat_map(|t| (0..k as u32).map(move |i| (i + t as u32) % 13)).collect();
                let ids = s.id_input(k, ids);
                let values = rng.vector(tokens * k * inner);
                let mut y = s.input(Kind::F32, k * inner, values);
                if kind == Kind::Q8 {
                    let q8 = s.plan.act("y.q8", Kind::Q8, Rows::Tokens, k * inner);
                    s.op(Op::Quantise { x: y, out: q8 });
                    y = q8;
                }
                let weights = rng.vector(tokens * k);
                let weights = s.input(Kind::F32, k, weights);
                let before = rng.vector(tokens * hidden);
                let x = s.input(Kind::F32, hidden, before);
                s.outputs.push(x);
                let out = s.plan.act("products", Kind::F32, Rows::Tokens, k * hidden);
                s.op(Op::ExpertsDown { bank, x: y, ids, out });
                s.op(Op::Combine { y: out, weights, x });
                s.check(&places, 1e-10);
            }
        }
    }
    // A plan of nothing is prepared, and does nothing.
    for place in places {
        let mut e = on_cuda(place.device, &tiny(), &options(64)).unwrap();
        let plan = e.compile(&Plan::new(1)).unwrap();
        let ticket = e.submit(plan, 1, Readback::default()).unwrap();
        assert!(pollster::block_on(e.wait(ticket)).is_ok());
    }
}
