//! The answer does not depend on where experts are: under every memory budget and every way of serving those that the device
//! does not hold, logits, routing and greedy tokens are those of a device that holds all of them.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a failure is a failed test; a skipped part is printed")]

use std::{
    collections::{BTreeSet, HashSet},
    fs,
    io::BufWriter,
    path::{Path, PathBuf},
    sync::Arc,
};

use pleiad_models::{
    Bytes, Checkpoint, Format,
    synth::{self, Quant, Shape, SynthOptions},
};
use pleiad_runtime::{
    Activations, CacheFormat, DeviceChoice, Engine, EngineOptions, Error, GenerateOptions, Model, SamplingParams,
    engine::{self, Loaded},
    eval::Evaluation,
    executor::{Executor, ExpertOptions},
    experts::{
        bank::fingerprint,
        budget::Needs,
        profile::Profile,
        trace::Served,
        ways::{Way, WayChoice},
    },
    gpu::GpuDevice,
};
use pleiad_tests::{
    Answer, Answered, Fed, Setup, TempDir, Tolerance, answers, assert_same, budgets, collect, devices, fast_devices,
    golden_setup, is_slow, open, skipped, streams_from, tiny, ways,
};

/// Margins below this, in nats, are ties: rounding may decide them either way.
const TIE: f64 = 0.02;

fn only(way: Way) -> WayChoice {
    WayChoice::Only(way)
}

// ---- logits ----

/// Token ids to feed to a model.
struct Case {
    name: String,
    model: Arc<Model>,
    ids: Vec<u32>,
    /// Tokens of a step.
    chunks: Vec<usize>,
    activations: Activations,
}

impl Case {
    fn golden(name: &str, chunks: &[usize]) -> Self {
        let (setup, ids) = golden_setup(name, 0);
        Self { name: name.into(), model: setup.model, ids, chunks: chunks.to_vec(), activations: setup.activations }
    }

    fn setup(&self) -> Setup {
        let chunk = self.chunks.iter().copied().max().unwrap();
        Setup { model: Arc::clone(&self.model), positions: self.ids.len(), chunk, activations: self.activations }
    }
}

/// Compares logits and routing under every budget and way that is `wanted` with those of the same device holding everything.
fn logits_on(test: &str, device: &Arc<GpuDevice>, case: &Case, wanted: impl Fn(&str, WayChoice) -> bool) {
    let setup = case.setup();
    let run = |executor: &mut Executor, chunk: usize| setup.evaluate(executor, &case.ids, chunk).unwrap();
    let exact: Vec<Evaluation> = {
        let mut executor = setup.load(device, ExpertOptions::default()).unwrap();
        case.chunks.iter().map(|&chunk| run(&mut executor, chunk)).collect()
    };
    let needs = setup.needs();
    assert!(needs.least() < needs.whole(), "{}: nothing can be left out", case.name);
    let mut runs = 0;
    for (name, budget) in budgets(&needs) {
        let partial = budget < needs.whole();
        for misses in ways(device, test) {
            // With everything resident there is nothing to choose from; what is new is that its use is recorded.
            if !wanted(name, misses) || !(partial || misses == WayChoice::Auto) {
                continue;
            }
            let what = format!("{} on {}, {name}, misses by {misses}", case.name, device.name());
            let options = ExpertOptions { budget: Some(budget), misses, trace: !partial, ..ExpertOptions::default() };
            let mut executor = match setup.load(device, options) {
                Err(e @ Error::Limit { .. }) if misses == only(Way::Gather) => {
                    skipped(&what, &e.to_string());
                    continue;
                }
                loaded => loaded.unwrap_or_else(|e| panic!("{what}: {e}")),
            };
            let report = executor.experts().unwrap();
            assert!(report.device_bytes <= budget, "{what}: {} of {budget} bytes", report.device_bytes);
            for (&slots, layer) in report.slots.iter().zip(&needs.layers) {
                assert!(slots >= layer.floor() && slots <= layer.experts, "{what}: {:?}", report.slots);
            }
            assert_eq!(report.slots.iter().zip(&needs.layers).any(|(&s, l)| s < l.experts), partial, "{what}");
            // Experts that move from device to CPU meet rows that were rounded to 8 bits.
            let rounds = case.activations == Activations::Q8 && matches!(misses, WayChoice::Auto | WayChoice::Only(Way::Cpu));
            let tolerance = if rounds { Tolerance::REQUANTISED } else { Tolerance::ROUNDING };
            for (&chunk, exact) in case.chunks.iter().zip(&exact) {
                let got = run(&mut executor, chunk);
                assert_same(&format!("{what}, chunks of {chunk}"), exact, &got, tolerance);
            }
            let stats = executor.stats();
            let lookups = case.chunks.len() * case.ids.len() * setup.activations();
            assert_eq!(stats.expert_hits + stats.expert_misses, lookups as u64, "{what}");
            // A run in which nothing was missing shows nothing.
            assert_eq!(stats.expert_misses > 0, partial, "{what}");
            runs += 1;
        }
    }
    assert!(runs > 0, "{}: no budget and no way was wanted", case.name);
}

/// Which budgets and ways are tried: all of them, on a slow device those of the floor, where most is missing.
fn budgets_on(test: &str, device: &GpuDevice) -> impl Fn(&str, WayChoice) -> bool + use<> {
    let slow = is_slow(device);
    if slow {
        skipped(&format!("{test} with more than the floor on {}", device.name()), "it is too slow for all budgets");
    }
    move |budget, _| !slow || budget == "the floor"
}

#[test]
fn logits_of_the_embedded_model() {
    let test = "logits_of_the_embedded_model";
    let ids = answers().swap_remove(1).prompt;
    let chunks = vec![1, 7, 12];
    let case = |activations: Activations| Case {
        name: format!("the embedded model in {activations:?}"),
        model: tiny().1,
        ids: ids[..12].to_vec(),
        chunks: chunks.clone(),
        activations,
    };
    for device in devices(test) {
        logits_on(test, &device, &case(Activations::F32), budgets_on(test, &device));
        if is_slow(&device) {
            skipped(&format!("{test} in 8 bits on {}", device.name()), "it is too slow for both");
        } else {
            logits_on(test, &device, &case(Activations::Q8), |budget, _| budget == "the floor");
        }
    }
}

#[test]
fn logits_of_256_experts() {
    let test = "logits_of_256_experts";
    let case = Case::golden("v3-256experts", &[1, 7, 24]);
    assert_eq!(case.model.banks[0].len(), 256);
    for device in devices(test) {
        logits_on(test, &device, &case, budgets_on(test, &device));
    }
}

#[test]
fn logits_of_chunks_that_stream() {
    let test = "logits_of_chunks_that_stream";
    // One long chunk; two and a shorter one which needs more experts than there are slots; many short ones.
    let case = Case::golden("v3-long", &[300, 130, 7]);
    assert!((8..130).contains(&streams_from(&case.model)));
    for device in devices(test) {
        logits_on(test, &device, &case, budgets_on(test, &device));
    }
    let (_, model) = tiny();
    let ids: Vec<u32> = (0..264).map(|i| 5 + i * 37 % 2900).collect();
    assert!(streams_from(&model) <= ids.len());
    let case = Case { name: "the embedded model".into(), model, ids, chunks: vec![264], activations: Activations::F32 };
    for device in fast_devices(test) {
        logits_on(test, &device, &case, |_, misses| misses == only(Way::Resume));
    }
}

/// Tables go from the host to the device's kernels and back.
#[test]
fn decoding_and_streaming_take_turns() {
    let test = "decoding_and_streaming_take_turns";
    let case = Case::golden("v3-long", &[300]);
    let setup = case.setup();
    let run =
        |executor: &mut Executor, (tokens, chunk): (usize, usize)| setup.evaluate(executor, &case.ids[..tokens], chunk).unwrap();
    for device in devices(test) {
        let turns = [(9, 1), (300, 300), (12, 1), (20, 4), (7, 1), (300, 150)];
        let mut whole = setup.load(&device, ExpertOptions::default()).unwrap();
        let exact = turns.map(|turn| run(&mut whole, turn));
        drop(whole);
        for misses in ways(&device, test) {
            let options = ExpertOptions { budget: Some(setup.needs().least()), misses, ..ExpertOptions::default() };
            let mut executor = setup.load(&device, options).unwrap();
            for (turn, exact) in turns.into_iter().zip(&exact) {
                let what = format!("{} on {}, misses by {misses}, {turn:?}", case.name, device.name());
                assert_same(&what, exact, &run(&mut executor, turn), Tolerance::ROUNDING);
            }
        }
    }
}

/// A file of random weights, made at the first run.
fn moonlight() -> PathBuf {
    let options = SynthOptions { shape: Shape::Moonlight, quant: Quant::Q4KM, layers: Some(3), mtp: false, seed: 7 };
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let path = directory.join("moonlight-3-layers-seed-7.gguf");
    if fs::metadata(&path).map(|m| m.len()).ok() != Some(synth::size(&options).unwrap()) {
        fs::create_dir_all(directory).unwrap();
        let part = directory.join(format!("moonlight-{}.part", std::process::id()));
        let mut out = BufWriter::new(fs::File::create(&part).unwrap());
        synth::write(&options, &mut out, &mut |_, _| {}).unwrap();
        drop(out.into_inner().unwrap());
        fs::rename(&part, &path).unwrap();
    }
    path
}

/// Two mixture layers of 64 experts, one with blobs as the file has them, one whose down projections have to be packed.
#[test]
fn logits_of_moonlight() {
    let test = "logits_of_moonlight";
    let devices = fast_devices(test);
    if devices.is_empty() {
        return;
    }
    let (_, model) = open(&moonlight());
    let vocab = model.config.vocab_size as u32;
    let ids = (0..10).map(|i| (i * 104_729 + 17) % vocab).collect();
    let case = Case { name: "moonlight".into(), model, ids, chunks: vec![1, 10], activations: Activations::F32 };
    for device in devices {
        // Every load moves more than a gigabyte.
        let wanted = |budget: &str, misses: WayChoice| match budget {
            "everything" => false,
            "half" => misses == WayChoice::Auto,
            _ => true,
        };
        logits_on(test, &device, &case, wanted);
    }
}

/// Blobs of many formats: some lie in the file as a slot holds them, some are packed.
#[test]
fn logits_of_every_kind_of_blob() {
    let test = "logits_of_every_kind_of_blob";
    let devices = fast_devices(test);
    let plain = [Format::BF16, Format::Q4_0, Format::Q6K, Format::IQ4XS].map(Quant::Plain);
    for quant in plain.into_iter().chain([Quant::Q3KM, Quant::MXFP4Moe]).filter(|_| !devices.is_empty()) {
        let mut file = Vec::new();
        let options = SynthOptions { shape: Shape::Tiny256, quant, layers: Some(3), mtp: false, seed: 3 };
        synth::write(&options, &mut file, &mut |_, _| {}).unwrap();
        let checkpoint = Checkpoint::from_gguf_bytes("synthesised", Bytes::new(file)).unwrap();
        let model = Arc::new(Model::new(&checkpoint.config, &checkpoint.weights));
        let (ids, chunks) = (vec![3, 141, 59, 265, 35, 897], vec![1, 6]);
        let case = Case { name: format!("experts in {quant}"), model, ids, chunks, activations: Activations::F32 };
        for device in &devices {
            logits_on(test, device, &case, |budget, misses| budget == "the floor" && misses != WayChoice::Auto);
        }
    }
}

// ---- greedy tokens ----

fn load(device: &GpuDevice, adjust: impl FnOnce(&mut EngineOptions)) -> Result<Loaded, Error> {
    let device = DeviceChoice::Wgpu(Some(device.adapter.index));
    let mut options = EngineOptions { device, context: Some(256), chunk: 64, trace: true, ..EngineOptions::default() };
    adjust(&mut options);
    pollster::block_on(engine::load(&Checkpoint::tiny().unwrap(), options, &mut |_, _| {}))
}

/// What the embedded model needs with the options of [`load`].
fn engine_needs(model: &Model) -> Needs {
    Needs::of(model, 512, 256, CacheFormat::F16, Activations::Q8, 64)
}

fn ask(engine: &Engine, what: &str, answer: &Answer, max: usize) -> Answered {
    let options = GenerateOptions { max_tokens: Some(max), end: vec![1], routing: true };
    let session = engine.session();
    collect(what, session.generate(answer.prompt.clone(), SamplingParams::default(), options), &mut |_| {})
}

/// One generation by itself, with its counts; then two sessions that take turns.
fn answers_hold(what: &str, engine: &Engine, activations: usize) {
    let all = answers();
    // None of these is a tie anywhere.
    let [short, first, second] = [&all[0], &all[1], &all[7]];
    assert!([short, first, second].iter().all(|a| a.smallest_margin > TIE));
    let fed = |a: &Answered| a.stats.prompt_tokens - a.stats.reused_tokens + a.stats.generated_tokens - 1;

    let got = ask(engine, what, short, 6);
    assert_eq!(got.tokens, short.tokens[..6], "{what}");
    assert_eq!(got.activations as usize, fed(&got) * activations, "{what}: sum of activations");
    assert_eq!(got.rows.len(), fed(&got) * activations, "{what}: rows of the trace");
    assert_eq!(got.notices, Vec::<String>::new(), "{what}");

    let max = 20;
    let options = GenerateOptions { max_tokens: Some(max), end: vec![1], routing: false };
    let (a, b) = (engine.session(), engine.session());
    let streams = [(&a, first), (&b, second)].map(|(session, answer)| {
        let generation = session.generate(answer.prompt.clone(), SamplingParams::default(), options.clone());
        (generation, answer)
    });
    for (generation, answer) in streams {
        let got = collect(what, generation, &mut |_| {});
        assert_eq!(got.tokens, answer.tokens[..max], "{what}, sessions in turn");
        assert_eq!(got.rows.len(), fed(&got) * activations, "{what}, sessions in turn: rows of the trace");
        let positions: BTreeSet<u32> = got.rows.iter().map(|r| r.position).collect();
        assert_eq!(positions.len(), fed(&got), "{what}: every position is in the trace");
    }
}

#[test]
fn greedy_tokens() {
    let test = "greedy_tokens";
    let (_, model) = tiny();
    let needs = engine_needs(&model);
    let activations = needs.working_set();
    let (half, floor) = (("half", needs.at_share(0.5)), ("the floor", needs.least()));
    for device in devices(test) {
        let mut runs: Vec<_> = ways(&device, test).into_iter().map(|way| (floor, way, 4)).collect();
        if is_slow(&device) {
            skipped(&format!("{test} with half of the experts on {}", device.name()), "it is too slow for all budgets");
        } else {
            runs.extend(ways(&device, test).into_iter().map(|way| (half, way, 1)));
            runs.extend([(floor, WayChoice::Auto, 1), (half, only(Way::Resume), 4)]);
            runs.push((("everything", needs.whole()), WayChoice::Auto, 4));
        }
        for ((name, budget), misses, in_flight) in runs {
            let what = format!("{name}, misses by {misses}, {in_flight} in flight, on {}", device.name());
            let loaded = load(&device, |o| {
                (o.memory_budget, o.misses, o.in_flight) = (Some(budget), misses, Some(in_flight));
            });
            let engine = Engine::start(loaded.unwrap_or_else(|e| panic!("{what}: {e}"))).unwrap();
            answers_hold(&what, &engine, activations);
            let report = engine.experts().unwrap();
            let Some(ways) = report.ways else {
                assert_eq!(budget, needs.whole(), "{what}");
                continue;
            };
            assert!(report.bank.is_some() && budget < needs.whole(), "{what}");
            assert!(ways.ways.iter().map(|w| w.tokens).sum::<u64>() > 0, "{what}: {ways:?}");
            if let WayChoice::Only(way) = misses {
                assert!(ways.chosen == way && ways.ways.len() == 1, "{what}: {ways:?}");
            }
        }
    }
}

/// Where few tokens miss, steps are submitted ahead of others that may still halt: those behind one that does start again.
#[test]
fn steps_submitted_ahead_of_a_halt_start_again() {
    let test = "steps_submitted_ahead_of_a_halt_start_again";
    let (_, model) = tiny();
    let needs = Needs::of(&model, 512, 256, CacheFormat::F16, Activations::F32, 64);
    let blobs: u64 = needs.layers.iter().map(|l| l.blob).sum();
    let prompt = answers().swap_remove(0).prompt;
    for device in fast_devices(test) {
        let run = |budget: Option<u64>, misses: WayChoice| {
            let what = format!("misses by {misses} on {}", device.name());
            let loaded = load(&device, |o| {
                (o.memory_budget, o.misses, o.in_flight, o.activations) = (budget, misses, Some(8), Activations::F32);
            });
            let engine = Engine::start(loaded.unwrap_or_else(|e| panic!("{what}: {e}"))).unwrap();
            let sampling = SamplingParams { temperature: 1.0, seed: 11, ..SamplingParams::default() };
            let options = GenerateOptions { max_tokens: Some(180), end: Vec::new(), routing: false };
            let got = collect(&what, engine.session().generate(prompt.clone(), sampling, options), &mut |_| {});
            (got.tokens, got.stats.decode_device)
        };
        let (exact, _) = run(None, WayChoice::Auto);
        assert_eq!(exact.len(), 180);
        for out in [1, 3] {
            // The CPU's way, alone or as one of several, also takes experts in for the future.
            let admits = |w: &WayChoice| matches!(w, WayChoice::Auto | WayChoice::Only(Way::Cpu));
            for misses in ways(&device, test).into_iter().filter(|w| out == 1 || admits(w)) {
                let (tokens, stats) = run(Some(needs.whole() - out * blobs), misses);
                assert_eq!(tokens, exact, "{out} experts a layer left out, misses by {misses} on {}", device.name());
                assert!(stats.expert_misses > 0 && stats.expert_hits > stats.expert_misses, "{stats:?}");
            }
        }
    }
}

// ---- budgets and profiles ----

#[test]
fn a_budget_below_the_floor_names_the_one_that_would_do() {
    let test = "a_budget_below_the_floor_names_the_one_that_would_do";
    let (_, model) = tiny();
    let needs = engine_needs(&model);
    let answer = answers().swap_remove(0);
    for device in devices(test) {
        for budget in [needs.least() - 1, 1 << 20, 0] {
            let error = load(&device, |o| o.memory_budget = Some(budget)).err().unwrap();
            let message = error.to_string();
            let Error::Budget { what, budget: said, least } = error else { panic!("{message}") };
            assert_eq!((said, least), (budget, needs.least()), "{message}");
            assert!(what.contains("Pleiad Tiny") && message.contains("--memory-budget"), "{message}");
            assert!(message.contains(&format!("at least {} MiB", least.div_ceil(1 << 20))), "{message}");
        }
        // To the byte, and in the whole MiB that people are told.
        for budget in [needs.least(), needs.least().next_multiple_of(1 << 20)] {
            let what = format!("{budget} bytes on {}", device.name());
            let engine = Engine::start(load(&device, |o| o.memory_budget = Some(budget)).unwrap()).unwrap();
            let report = engine.experts().unwrap();
            assert!(report.device_bytes <= budget && report.notices.is_empty(), "{what}: {report:?}");
            if budget == needs.least() {
                assert!(report.slots.iter().zip(&needs.layers).all(|(&n, l)| n == l.floor()), "{what}: {:?}", report.slots);
            }
            assert_eq!(ask(&engine, &what, &answer, 6).tokens, answer.tokens[..6], "{what}");
        }
    }
}

#[test]
fn a_profile_warms_the_next_start() {
    let test = "a_profile_warms_the_next_start";
    let (_, model) = tiny();
    let answer = answers().swap_remove(1);
    for device in fast_devices(test) {
        let directory = TempDir::new("profile");
        let needs = engine_needs(&model);
        let loaded = load(&device, |o| {
            (o.memory_budget, o.directory) = (Some(needs.at_share(0.5)), Some(directory.path().to_owned()));
        });
        let engine = Engine::start(loaded.unwrap()).unwrap();
        let said = ask(&engine, test, &answer, 8);
        drop(engine);
        let experts: Vec<usize> = needs.layers.iter().map(|l| l.experts).collect();
        let profile = Profile::load(directory.path(), &fingerprint(&model).unwrap(), &experts).unwrap();
        let fed = said.stats.prompt_tokens + said.stats.generated_tokens - 1;
        assert_eq!(profile.tokens, fed as u64);
        for (heat, layer) in profile.heat.iter().zip(&needs.layers) {
            assert!((heat.iter().sum::<f32>() - layer.top_k as f32).abs() < 1e-3, "{heat:?}");
        }

        // What is resident shows in the first step: no layer changes before its router has run.
        let (ids, chunk) = (&answer.prompt[..12], 12);
        let setup = Setup { model: Arc::clone(&model), positions: 64, chunk, activations: Activations::Q8 };
        let first_step = |directory: Option<PathBuf>| {
            let (budget, misses) = (Some(setup.needs().at_share(0.5)), only(Way::Resume));
            let options = ExpertOptions { budget, misses, directory, trace: true, ..ExpertOptions::default() };
            let mut executor = setup.load(&device, options).unwrap();
            let slots = executor.experts().unwrap().slots;
            (setup.feed(&mut executor, ids, chunk), slots)
        };
        let (warm, slots) = first_step(Some(directory.path().to_owned()));
        let mut seen = HashSet::new();
        for (bank, layer) in needs.layers.iter().enumerate() {
            let heat = &profile.heat[bank];
            let mut order: Vec<usize> = (0..layer.experts).collect();
            order.sort_by(|&a, &b| heat[b].total_cmp(&heat[a]).then(a.cmp(&b)));
            let hot = &order[..slots[bank]];
            for row in warm.rows.iter().filter(|r| usize::from(r.layer) == layer.layer) {
                assert_eq!(row.served == Served::Hit, hot.contains(&usize::from(row.expert)), "{row:?}, resident: {hot:?}");
                seen.insert(row.served);
            }
        }
        assert!(seen.contains(&Served::Hit), "nothing was resident");
        let (cold, _) = first_step(None);
        let hits = |fed: &Fed| fed.steps[0].expert_hits;
        assert!(hits(&warm) > hits(&cold), "{} hits with the profile, {} without", hits(&warm), hits(&cold));
    }
}
