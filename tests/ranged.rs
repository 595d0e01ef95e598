//! A model that is read in ranges computes what the mapped one does, on every device and under every memory budget; reads are
//! small, and those that fail are errors in words.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a failure is a failed test; a skipped part is printed")]

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
};

use pleiad_models::{Bytes, Checkpoint, Ranged, TINY_GGUF};
use pleiad_runtime::{
    Activations, CacheFormat, DeviceChoice, Engine, EngineOptions, Error, GenerateOptions, Model, SamplingParams,
    cpu::CpuExecutor,
    engine,
    eval::Evaluation,
    executor::{Executor, ExpertOptions, LoadOptions},
    experts::ways::{Way, WayChoice},
};
use pleiad_tests::{
    Place, Setup, Tolerance, answers, assert_same, budgets, collect, devices, fast_devices, golden_ggufs, is_slow, skipped,
    streams_from, ways,
};

/// Most bytes that one read may ask for.
const LARGEST: usize = 8 << 20;

/// A file that counts how it is read, and fails when it is told to.
struct Counted {
    bytes: Vec<u8>,
    reads: AtomicUsize,
    largest: AtomicUsize,
    /// Reads that still succeed.
    left: AtomicUsize,
    /// Reads of this byte fail.
    hole: AtomicU64,
}

impl Counted {
    fn new(bytes: &[u8]) -> Arc<Self> {
        let none = || AtomicUsize::new(0);
        let (left, hole) = (AtomicUsize::new(usize::MAX), AtomicU64::new(u64::MAX));
        Arc::new(Self { bytes: bytes.to_vec(), reads: none(), largest: none(), left, hole })
    }
}

impl Ranged for Counted {
    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let is_hole = (offset..offset + out.len() as u64).contains(&self.hole.load(Relaxed));
        if is_hole || self.left.fetch_update(Relaxed, Relaxed, |n| n.checked_sub(1)).is_err() {
            return Err(io::Error::other("the file has gone"));
        }
        self.reads.fetch_add(1, Relaxed);
        self.largest.fetch_max(out.len(), Relaxed);
        out.copy_from_slice(&self.bytes[offset as usize..][..out.len()]);
        Ok(())
    }
}

/// A file, and the model in it both ways.
struct Both {
    name: String,
    bytes: Vec<u8>,
    file: Arc<Counted>,
    mapped: Setup,
    ranged: Setup,
    ids: Vec<u32>,
}

fn model(checkpoint: &Checkpoint) -> Arc<Model> {
    Arc::new(Model::new(&checkpoint.config, &checkpoint.weights))
}

impl Both {
    fn new(name: &str, bytes: &[u8], ids: Vec<u32>, chunk: usize) -> Self {
        let file = Counted::new(bytes);
        let mapped = Checkpoint::from_gguf_bytes("model.gguf", Bytes::new(bytes.to_vec())).unwrap();
        let ranged = Checkpoint::from_ranged("model.gguf", Arc::<Counted>::clone(&file), false).unwrap();
        assert_eq!(mapped.config, ranged.config);
        let setup = |c: &Checkpoint| Setup { model: model(c), positions: ids.len(), chunk, activations: Activations::F32 };
        let (mapped, ranged) = (setup(&mapped), setup(&ranged));
        Self { name: name.into(), bytes: bytes.to_vec(), file, mapped, ranged, ids }
    }

    /// The reference files in the repository, and the embedded model.
    fn all() -> Vec<Self> {
        let golden = golden_ggufs().into_iter().map(|g| Self::new(&g.name, &std::fs::read(&g.path).unwrap(), g.ids, 16));
        golden.chain([Self::tiny()]).collect()
    }

    fn tiny() -> Self {
        let answer = answers().swap_remove(0);
        Self::new("the embedded model", TINY_GGUF, [answer.prompt, answer.tokens].concat(), 16)
    }

    fn options(&self) -> LoadOptions {
        let (positions, experts) = (self.ids.len(), ExpertOptions { chunk: self.mapped.chunk, ..ExpertOptions::default() });
        LoadOptions { positions, max_context: positions, cache: CacheFormat::F32, threads: None, experts }
    }

    /// Evaluates the ids with either model.
    fn evaluate(&self, what: &str, mut load: impl FnMut(&Setup) -> Executor, chunk: usize) -> [Evaluation; 2] {
        [&self.mapped, &self.ranged].map(|setup| {
            let mut executor = load(setup);
            setup.evaluate(&mut executor, &self.ids, chunk).unwrap_or_else(|e| panic!("{what}: {e}"))
        })
    }
}

#[test]
fn logits_on_the_cpu() {
    for both in Both::all() {
        for place in [Place::Plain, Place::Cpu] {
            let what = format!("{} on {}", both.name, place.name());
            let load = |s: &Setup| place.load(&s.model, s.positions, CacheFormat::F32);
            let [mapped, ranged] = both.evaluate(&what, load, both.mapped.chunk);
            assert!(mapped.logits == ranged.logits && mapped.routing == ranged.routing, "{what}");
        }
        assert!(both.file.largest.load(Relaxed) <= LARGEST && both.file.reads.load(Relaxed) > 0);
    }
}

#[test]
fn logits_on_gpus() {
    let test = "logits_on_gpus";
    for device in devices(test) {
        for both in Both::all() {
            if is_slow(&device) && both.name.contains("embedded") {
                skipped(&format!("{test}: {} on {}", both.name, device.name()), "it is too slow for this model");
                continue;
            }
            for (name, budget) in budgets(&both.mapped.needs()) {
                let all = if name == "everything" { vec![WayChoice::Auto] } else { ways(&device, test) };
                for misses in all.into_iter().filter(|&w| name == "everything" || w != WayChoice::Auto) {
                    let what = format!("{}, {name}, misses by {misses}, on {}", both.name, device.name());
                    let load = |s: &Setup| {
                        s.load(&device, ExpertOptions { budget: Some(budget), misses, ..ExpertOptions::default() })
                            .unwrap_or_else(|e| panic!("{what}: {e}"))
                    };
                    let [mapped, ranged] = both.evaluate(&what, load, both.mapped.chunk);
                    assert_same(&what, &mapped, &ranged, Tolerance::ROUNDING);
                }
            }
            assert!(both.file.largest.load(Relaxed) <= LARGEST);
        }
    }
}

/// Whole layers of experts that pass through a few slots.
#[test]
fn long_chunks_on_gpus() {
    let test = "long_chunks_on_gpus";
    let tokens = streams_from(&Both::tiny().mapped.model);
    let prompts: Vec<u32> = answers().into_iter().flat_map(|a| a.prompt).collect();
    let ids: Vec<u32> = prompts.iter().copied().cycle().take(tokens + 3).collect();
    let both = Both::new("the embedded model", TINY_GGUF, ids, tokens);
    for device in fast_devices(test) {
        let what = format!("{} in chunks of {tokens} on {}", both.name, device.name());
        let budget = Some(both.mapped.needs().least());
        let misses = WayChoice::Only(Way::Resume);
        let load = |s: &Setup| {
            let executor = s.load(&device, ExpertOptions { budget, misses, ..ExpertOptions::default() }).unwrap();
            assert!(is_partial(&executor));
            executor
        };
        let [mapped, ranged] = both.evaluate(&what, load, tokens);
        assert_same(&what, &mapped, &ranged, Tolerance::ROUNDING);
    }
}

fn is_partial(executor: &Executor) -> bool {
    executor.experts().is_some_and(|e| e.slots.iter().all(|&slots| slots < e.experts))
}

#[test]
fn an_engine_answers_from_ranges() {
    let answer = answers().swap_remove(0);
    let file = Counted::new(TINY_GGUF);
    let checkpoint = Checkpoint::from_ranged("tiny.gguf", file, false).unwrap();
    let options = EngineOptions { device: DeviceChoice::Cpu, context: Some(256), ..EngineOptions::default() };
    let loaded = pollster::block_on(engine::load(&checkpoint, options, &mut |_, _| {})).unwrap();
    let engine = Engine::start(loaded).unwrap();
    let options = GenerateOptions { max_tokens: Some(10), end: vec![1], routing: false };
    let session = engine.session();
    let generation = session.generate(answer.prompt.clone(), SamplingParams::default(), options);
    let got = collect("from ranges", generation, &mut |_| {});
    let (end, words) = answer.tokens.split_last().unwrap();
    assert_eq!((got.tokens.as_slice(), *end), (words, 1));
}

/// Memory that the weights would take is limited where they cannot be mapped.
#[test]
fn the_cpu_reads_no_more_than_it_may() {
    let both = Both::tiny();
    let said = both.ranged.model.in_memory(Some(1 << 20)).unwrap_err().to_string();
    assert!(said.contains("out of memory") && said.contains("on the CPU") && said.contains("1 MiB are available"), "{said}");
    let read = both.file.reads.load(Relaxed);
    assert!(Arc::ptr_eq(&both.mapped.model, &both.mapped.model.in_memory(Some(0)).unwrap()));
    let here = both.ranged.model.in_memory(Some(64 << 20)).unwrap();
    assert!(both.file.reads.load(Relaxed) > read && here.tensors().all(pleiad_models::Tensor::is_resident));
    for (a, b) in here.tensors().zip(both.mapped.model.tensors()) {
        assert!(a.name == b.name && a.data[..] == b.data[..], "{}", a.name);
    }
}

/// The header alone says what a model needs.
#[test]
fn sizes_follow_from_the_header() {
    for both in Both::all() {
        let head =
            Checkpoint::from_head("model.gguf", &both.bytes[..both.bytes.len() / 2], both.bytes.len() as u64).unwrap().unwrap();
        let setup = Setup { model: model(&head), ..both.mapped.clone() };
        let (ours, needs) = (setup.needs(), both.mapped.needs());
        assert_eq!((ours.whole(), ours.least(), ours.fixed()), (needs.whole(), needs.least(), needs.fixed()), "{}", both.name);
        // And nothing can be loaded.
        let said = CpuExecutor::load(setup.model, &both.options()).err().unwrap().to_string();
        assert!(said.contains("only the file's header is here"), "{said}");
    }
}

fn told(what: &str, error: &Error) {
    let said = error.to_string();
    assert!(matches!(error, Error::Model(_)), "{what}: {said}");
    for part in ["model.gguf", "tensor `", "cannot be read: the file has gone"] {
        assert!(said.contains(part), "{what}: {said}");
    }
}

#[test]
fn reads_that_fail_are_told() {
    let test = "reads_that_fail_are_told";
    let both = Both::new("the embedded model", TINY_GGUF, vec![0, 3, 342, 279, 269, 389], 2);
    let (file, options) = (&both.file, both.options());
    let load = |what: &str, place: &dyn Fn() -> Result<Executor, Error>| {
        let before = file.reads.load(Relaxed);
        place().unwrap();
        let all = file.reads.load(Relaxed) - before;
        for n in [0, 1, all / 3, all / 2, all - 1] {
            file.left.store(n, Relaxed);
            told(&format!("{what}, after {n} of {all} reads"), &place().err().unwrap());
            file.left.store(usize::MAX, Relaxed);
        }
        for part in [2, 3, 4, 5] {
            file.hole.store(both.bytes.len() as u64 * (part - 1) / part, Relaxed);
            told(what, &place().err().unwrap());
            file.hole.store(u64::MAX, Relaxed);
        }
        place().unwrap();
    };
    load("CPU", &|| CpuExecutor::load(Arc::clone(&both.ranged.model), &options).map(|e| Executor::Cpu(Box::new(e))));
    for device in fast_devices(test) {
        let all = |budget, way| ExpertOptions { budget, misses: WayChoice::Only(way), ..ExpertOptions::default() };
        load(&device.name(), &|| both.ranged.load(&device, all(None, Way::Resume)));
        let least = Some(both.mapped.needs().least());
        load(&format!("{}, the floor", device.name()), &|| both.ranged.load(&device, all(least, Way::Resume)));
        // While it runs: the CPU reads the experts that it computes.
        let mut executor = both.ranged.load(&device, all(least, Way::Cpu)).unwrap();
        assert!(is_partial(&executor));
        file.left.store(0, Relaxed);
        let error = both.ranged.evaluate(&mut executor, &both.ids, 2).err().unwrap();
        told(&format!("{}, running", device.name()), &error);
        file.left.store(usize::MAX, Relaxed);
    }
}
