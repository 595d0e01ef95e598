//! The answer does not depend on where experts are: under every memory budget and every way of serving those that the device does
//! not hold, logits, routing and tokens are those of a device that holds all of them.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use pleiad_models::Checkpoint;
use pleiad_runtime::{
    Activations, CacheFormat, Model,
    cuda::CudaExecutor,
    eval::{EvalOptions, Evaluation, evaluate},
    executor::{Executor, ExpertOptions, LoadOptions, PlanId, Readback},
    experts::{
        budget::Needs,
        trace::{Routed, Served},
        ways::{Way, WayChoice},
    },
    forward::{AttentionForm, Options, Output, Speculation, record},
    step::StepState,
};

use crate::{
    backend::{Place, ROW_ALIGN, places},
    emulator::{Emulator, compiler},
    support::{Rng, nmse},
};

const WAYS: [Way; 3] = [Way::Gather, Way::Cpu, Way::Resume];
const TOKEN: Readback = Readback { token: true, counters: false };

/// A model, and how it is run.
struct Case {
    model: Arc<Model>,
    positions: usize,
    chunk: usize,
}

impl Case {
    fn tiny(chunk: usize) -> Self {
        let checkpoint = Checkpoint::tiny().unwrap();
        Self { model: Arc::new(Model::new(&checkpoint.config, &checkpoint.weights)), positions: 64, chunk }
    }

    fn needs(&self) -> Needs {
        let (positions, cache, activations) = (self.positions, CacheFormat::F16, Activations::F32);
        Needs::aligned(&self.model, positions, positions, cache, activations, self.chunk, ROW_ALIGN)
    }

    fn load(&self, place: &Place, experts: ExpertOptions) -> CudaExecutor {
        let experts = ExpertOptions { chunk: self.chunk, activations: Activations::F32, ..experts };
        let (positions, cache) = (self.positions, CacheFormat::F16);
        let options = LoadOptions { positions, max_context: positions, cache, threads: Some(1), experts };
        let mut progress = |_, _| {};
        let load = CudaExecutor::load(Arc::clone(&place.device), Arc::clone(&self.model), &options, &mut progress);
        pollster::block_on(load).unwrap()
    }

    fn at(&self, budget: u64, way: Way) -> ExpertOptions {
        ExpertOptions { budget: Some(budget), misses: WayChoice::Only(way), ..ExpertOptions::default() }
    }

    fn evaluate(&self, executor: CudaExecutor, ids: &[u32], chunk: usize) -> (Evaluation, Executor) {
        let how = EvalOptions { chunk, activations: Activations::F32, attention: AttentionForm::Absorbed };
        let mut executor = Executor::Cuda(Box::new(executor));
        let evaluation = pollster::block_on(evaluate(&mut executor, &self.model, how, ids, &mut |_, _| {})).unwrap();
        (evaluation, executor)
    }

    fn plan(&self, executor: &mut CudaExecutor, max_tokens: usize, speculation: Option<Speculation>) -> PlanId {
        let (output, activations, attention) = (Output::Token, Activations::F32, AttentionForm::Absorbed);
        executor.compile(&record(&self.model, Options { max_tokens, output, activations, attention, speculation })).unwrap()
    }
}

fn same(what: &str, exact: &Evaluation, got: &Evaluation) {
    let error = nmse(&exact.logits, &got.logits);
    println!("{what}: NMSE {error:e}");
    assert!(error < 1e-9, "{what}: NMSE {error:e}");
    let ids = |e: &Evaluation| e.routing.iter().map(|(layer, r)| (*layer, r.0.clone())).collect::<BTreeMap<_, _>>();
    assert_eq!(ids(exact), ids(got), "{what}: routing");
}

#[test]
fn logits_of_the_embedded_model() {
    let case = Case::tiny(12);
    let mut rng = Rng::new(60);
    let ids: Vec<u32> = (0..12).map(|_| rng.below(case.model.config.vocab_size) as u32).collect();
    let needs = case.needs();
    for place in places("logits_of_the_embedded_model") {
        for chunk in [1, 5, 12] {
            let (exact, _) = case.evaluate(case.load(&place, ExpertOptions::default()), &ids, chunk);
            let everything = ExpertOptions { trace: true, ..ExpertOptions::default() };
            let (tracked, _) = case.evaluate(case.load(&place, everything), &ids, chunk);
            same(&format!("{}, everything, chunks of {chunk}", place.name), &exact, &tracked);
            for (name, budget) in [("half", needs.at_share(0.5)), ("the floor", needs.least())] {
                for way in WAYS {
                    let what = format!("{}, {name}, {way}, chunks of {chunk}", place.name);
                    let loaded = case.load(&place, case.at(budget, way));
                    let report = loaded.experts();
                    assert!(report.device_bytes <= budget && report.notices.is_empty(), "{what}: {report:?}");
                    let (got, executor) = case.evaluate(loaded, &ids, chunk);
                    same(&what, &exact, &got);
                    let stats = executor.stats();
                    assert_eq!(stats.expert_hits + stats.expert_misses, (ids.len() * needs.working_set()) as u64, "{what}");
                    assert!(stats.expert_misses > 0, "{what}: a run in which nothing was missing shows nothing");
                    let resident = pollster::block_on(async {
                        let mut e = executor;
                        e.resident().await
                    })
                    .unwrap();
                    let slots: usize = report.slots.iter().sum();
                    assert!(resident.iter().filter(|&&r| r).count() <= slots, "{what}");
                }
            }
        }
    }
}

/// Experts pass through the coldest slots of a layer, written beside the products of the round before.
#[test]
fn logits_of_chunks_that_stream() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/golden/v3-long");
    let checkpoint = Checkpoint::open(&directory).unwrap();
    let model = Arc::new(Model::new(&checkpoint.config, &checkpoint.weights));
    let moe = model.config.moe.clone().unwrap();
    let tokens = (32 * moe.num_experts).div_ceil(moe.top_k) + 3;
    let mut rng = Rng::new(61);
    let ids: Vec<u32> = (0..tokens).map(|_| rng.below(model.config.vocab_size) as u32).collect();
    let case = Case { model, positions: tokens.next_multiple_of(64), chunk: tokens };
    for place in places("logits_of_chunks_that_stream") {
        let (exact, _) = case.evaluate(case.load(&place, ExpertOptions::default()), &ids, tokens);
        let (got, executor) = case.evaluate(case.load(&place, case.at(case.needs().least(), Way::Resume)), &ids, tokens);
        same(&format!("{tokens} tokens on {}", place.name), &exact, &got);
        let stats = executor.stats();
        assert!(stats.rendezvous == 0 && stats.expert_bytes > 0, "{}: {stats:?}", place.name);
    }
}

/// Decodes token `id` at position 0; what it left, and what it took: submissions, readbacks, rendezvous.
fn decode(executor: &mut CudaExecutor, plan: PlanId, id: u32) -> (Arc<[Routed]>, (u64, u64, u64)) {
    executor.write_step(&StepState { tokens: 1, ..StepState::default() }, &[0]);
    executor.write_ids(&[id]);
    let before = executor.stats();
    let ticket = executor.submit(plan, 1, TOKEN).unwrap();
    let output = pollster::block_on(executor.wait(ticket)).unwrap();
    let did = executor.stats().since(before);
    (output.routed.unwrap(), (did.submissions, did.readbacks, did.rendezvous))
}

#[test]
fn a_token_that_finds_its_experts_is_one_graph_and_one_copy() {
    let Some(compiler) = compiler() else {
        println!("SKIPPED a_token_that_finds_its_experts_is_one_graph_and_one_copy: no C++ compiler (g++ or clang++, on Linux)");
        return;
    };
    let case = Case::tiny(1);
    let lookups = case.needs().working_set();
    let on = || {
        let emulator = Arc::new(Emulator::new(compiler));
        (Place { name: "emulated CUDA".into(), device: Arc::clone(&emulator) as _ }, emulator)
    };
    let (place, emulator) = on();
    let mut executor = case.load(&place, ExpertOptions { trace: true, ..ExpertOptions::default() });
    let plan = case.plan(&mut executor, 1, None);
    for id in [7, 301, 12] {
        let (rows, did) = decode(&mut executor, plan, id);
        assert_eq!((did, rows.len()), ((1, 1, 0), lookups));
        assert!(rows.iter().all(|r| r.served == Served::Hit && r.bytes == 0));
    }
    assert_eq!(emulator.graphs(), 1, "a trace needs no other graph");
    drop(executor);
    assert_eq!(emulator.buffers(), 0, "all memory is given back");

    for way in WAYS {
        let (place, emulator) = on();
        let experts = ExpertOptions { trace: true, admissions: lookups, ..case.at(case.needs().least(), way) };
        let mut executor = case.load(&place, experts);
        let plan = case.plan(&mut executor, 1, None);
        let (mut settled, mut missed) = (0, 0);
        // As long as layers were likely to miss, a submission ends early, to save work behind a halt.
        for n in 0..64 {
            let (rows, did) = decode(&mut executor, plan, 301);
            let misses: Vec<&Routed> = rows.iter().filter(|r| r.served != Served::Hit).collect();
            let what = format!("{way}, token {n}: {did:?}, {} missed", misses.len());
            assert_eq!(rows.len(), lookups, "{what}");
            let served = match way {
                Way::Gather => Served::Gathered,
                Way::Cpu => Served::Cpu,
                Way::Resume => Served::Fetched,
            };
            assert!(misses.iter().all(|r| r.served == served), "{what}: {misses:?}");
            // Kernels need nobody.
            assert!(way != Way::Gather || did == (1, 1, 0), "{what}");
            assert!(way == Way::Gather || (did.2 > 0) != misses.is_empty(), "{what}");
            missed += misses.len();
            settled = if misses.is_empty() && did == (1, 1, 0) { settled + 1 } else { 0 };
            if settled == 4 {
                break;
            }
        }
        assert_eq!(settled, 4, "{way}: never one graph and one copy");
        assert!(missed > 0, "{way}: nothing was missing at the start");
        println!("{way}: {missed} misses, {} graphs", emulator.graphs());
    }
}

/// Several steps are under way while experts are missing: what was behind a halt is done again.
#[test]
fn tokens_in_flight_with_drafts_and_without() {
    let checkpoint = Checkpoint::tiny().unwrap();
    let model = Arc::new(Model::with_mtp(&checkpoint.config, &checkpoint.weights));
    let case = Case { model, positions: 128, chunk: 16 };
    let mut rng = Rng::new(62);
    let ids: Vec<u32> = (0..11).map(|_| rng.below(case.model.config.vocab_size) as u32).collect();
    let run = |place: &Place, experts: ExpertOptions, k: usize| {
        let mut executor = case.load(place, experts);
        let speculation = |verify| (k > 0).then_some(Speculation { verify, draft: k });
        let plans = [case.plan(&mut executor, 16, speculation(0)), case.plan(&mut executor, k + 1, speculation(k))];
        executor.write_step(&StepState { tokens: 11, ..StepState::default() }, &[1, 0]);
        executor.write_ids(&ids);
        let mut tickets = vec![executor.submit(plans[0], 11, TOKEN).unwrap()];
        let mut tokens = Vec::new();
        for n in 0..8 {
            if n < 7 {
                tickets.push(executor.submit(plans[1], k + 1, TOKEN).unwrap());
            }
            let output = pollster::block_on(executor.wait(tickets.remove(0))).unwrap();
            tokens.extend(output.before.iter().map(|t| t.0));
            tokens.push(output.token);
        }
        (tokens, executor.stats())
    };
    for place in places("tokens_in_flight_with_drafts_and_without") {
        for k in [0, 2] {
            let (exact, stats) = run(&place, ExpertOptions::default(), k);
            assert_eq!((stats.submissions, stats.readbacks), (8, 8), "{}, {k} drafts", place.name);
            assert!(k == 0 || exact.len() > 8, "{}: no draft was right: {exact:?}", place.name);
            for way in WAYS {
                let (got, stats) = run(&place, ExpertOptions { trace: true, ..case.at(case.needs().least(), way) }, k);
                assert_eq!(exact, got, "{}, {way}, {k} drafts", place.name);
                assert!(stats.expert_misses > 0, "{}, {way}, {k} drafts", place.name);
            }
        }
    }
}
