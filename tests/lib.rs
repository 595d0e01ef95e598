//! What the tests that cross rooms share: reference data, devices, measures.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "test support: a failure is a failed test")]

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use pleiad_models::Checkpoint;
use pleiad_runtime::{
    Activations, Error, Event, Generation, Model,
    cpu::CpuExecutor,
    cuda::{self, CudaExecutor, Driver},
    engine::GenerationStats,
    eval::{EvalOptions, Evaluation, evaluate},
    executor::{CacheFormat, DeviceStats, Executor, ExpertOptions, LoadOptions, Readback},
    experts::{
        budget::Needs,
        trace::Routed,
        ways::{Way, WayChoice},
    },
    forward::{AttentionForm, Options, Output, record},
    gpu::{self, GpuDevice},
    step::{PAGE, StepState},
};
use safetensors::SafeTensors;

/// `tests/data`, or the folder that `PLEIAD_TEST_DATA` names, for test programs that are carried to another machine.
pub fn data() -> PathBuf {
    let carried = std::env::var_os("PLEIAD_TEST_DATA").map(PathBuf::from);
    carried.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("data"))
}

/// Says that a test, or a part of it, did not run.
pub fn skipped(what: &str, why: &str) {
    println!("SKIPPED {what}: {why}");
}

/// `sum((a - b)^2) / sum(a^2)`: the error of `b` relative to the exact `a`.
pub fn nmse(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len(), "lengths differ");
    let error: f64 = a.iter().zip(b).map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2)).sum();
    error / a.iter().map(|&a| f64::from(a).powi(2)).sum::<f64>()
}

/// Hugging Face's outputs for a checkpoint (`tests/data/golden/README.md`).
pub struct Golden {
    /// The checkpoint's directory.
    pub directory: PathBuf,
    /// Token ids, `[T]`.
    pub ids: Vec<u32>,
    /// Logits of the last rows, `[rows, vocab]`.
    pub logits: Vec<f32>,
    /// Routing of the last rows, by layer: ids and weights, `[rows, K]`, sorted by id.
    pub routing: BTreeMap<usize, (Vec<u32>, Vec<f32>)>,
}

fn f32s(t: &SafeTensors<'_>, name: &str) -> Vec<f32> {
    let bytes = t.tensor(name).unwrap().data();
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

fn i64s(t: &SafeTensors<'_>, name: &str) -> Vec<u32> {
    let bytes = t.tensor(name).unwrap().data();
    bytes.chunks_exact(8).map(|b| u32::try_from(i64::from_le_bytes(b.try_into().unwrap())).unwrap()).collect()
}

/// All cases of `tests/data/golden`, by name.
pub fn goldens() -> BTreeMap<String, Golden> {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(data().join("golden")).unwrap() {
        let directory = entry.unwrap().path();
        let Ok(bytes) = std::fs::read(directory.join("golden.safetensors")) else { continue };
        let t = SafeTensors::deserialize(&bytes).unwrap();
        let layer = |n: &str| n.strip_prefix("router.")?.strip_suffix(".ids")?.parse::<usize>().ok();
        let routing = t
            .names()
            .into_iter()
            .filter_map(layer)
            .map(|l| (l, (i64s(&t, &format!("router.{l}.ids")), f32s(&t, &format!("router.{l}.weights")))))
            .collect();
        let name = directory.file_name().unwrap().to_string_lossy().into_owned();
        let golden = Golden { ids: i64s(&t, "input_ids"), logits: f32s(&t, "logits"), routing, directory };
        all.insert(name, golden);
    }
    assert!(all.len() >= 5, "the reference cases are not there");
    all
}

/// Outputs that llama.cpp's and transformers' gave for a GGUF file (`tests/data/golden-gguf/README.md`).
pub struct GoldenGguf {
    /// `q8_0`, ...
    pub name: String,
    /// The file.
    pub path: PathBuf,
    /// Token ids, `[T]`.
    pub ids: Vec<u32>,
    /// transformers on the dequantised weights, `[T, vocab]`.
    pub exact: Vec<f32>,
}

/// The GGUF files in the repository and in the directory that `PLEIAD_GOLDEN_GGUF` names.
pub fn golden_ggufs() -> Vec<GoldenGguf> {
    let mut found: BTreeMap<String, PathBuf> = BTreeMap::new();
    let more = std::env::var_os("PLEIAD_GOLDEN_GGUF").map(PathBuf::from);
    for directory in [Some(data().join("golden-gguf")), more].into_iter().flatten() {
        for entry in std::fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
            if path.extension().is_some_and(|e| e == "gguf") {
                found.insert(stem.trim_start_matches("base-").to_owned(), path);
            }
        }
    }
    found
        .into_iter()
        .map(|(name, path)| {
            let bytes = std::fs::read(path.with_extension("safetensors")).unwrap();
            let t = SafeTensors::deserialize(&bytes).unwrap();
            GoldenGguf { name, ids: i64s(&t, "input_ids"), exact: f32s(&t, "exact"), path }
        })
        .collect()
}

/// A place to run a model in a test.
#[derive(Clone)]
pub enum Place {
    /// The twins.
    Plain,
    /// The CPU backend.
    Cpu,
    /// An adapter.
    Gpu(Arc<GpuDevice>),
    /// A CUDA device.
    Cuda(Arc<dyn Driver>),
}

impl Place {
    /// For messages.
    pub fn name(&self) -> String {
        match self {
            Self::Plain => "twins".into(),
            Self::Cpu => "CPU".into(),
            Self::Gpu(d) => d.name(),
            Self::Cuda(d) => format!("{} (CUDA)", d.info().name),
        }
    }

    /// Loads a model there, with room for `positions` positions.
    pub fn load(&self, model: &Arc<Model>, positions: usize, cache: CacheFormat) -> Executor {
        let experts = ExpertOptions { chunk: positions, ..ExpertOptions::default() };
        let options = LoadOptions { positions, max_context: positions, cache, threads: None, experts };
        let model = Arc::clone(model);
        match self {
            Self::Plain => Executor::Cpu(Box::new(CpuExecutor::plain(model, &options).unwrap())),
            Self::Cpu => Executor::Cpu(Box::new(CpuExecutor::load(model, &options).unwrap())),
            Self::Gpu(d) => {
                let device = Some(Arc::clone(d));
                pollster::block_on(Executor::load(device, model, &options, &mut |_, _| {})).unwrap()
            }
            Self::Cuda(d) => {
                let mut progress = |_, _| {};
                let load = CudaExecutor::load(Arc::clone(d), model, &options, &mut progress);
                Executor::Cuda(Box::new(pollster::block_on(load).unwrap()))
            }
        }
    }
}

/// Every adapter of this machine, software ones included. Says so by name if there is none.
pub fn gpus(test: &str) -> Vec<Place> {
    let mut places = Vec::new();
    for index in 0.. {
        match pollster::block_on(gpu::open(Some(index))) {
            Ok(device) => places.push(Place::Gpu(device)),
            Err(Error::NoAdapter { .. }) => break,
            // An adapter that is there but does not open is a failure, not a reason to skip.
            Err(e) => panic!("{test}: adapter {index}: {e}"),
        }
    }
    if places.is_empty() {
        skipped(&format!("{test} on a GPU"), "no adapter (Mesa's lavapipe serves)");
    }
    places
}

/// The number of the CUDA device that tests use: that of `PLEIAD_CUDA_DEVICE`, which must be there, else the first. Says so by name if
/// there is none.
pub fn cuda_device(test: &str) -> Option<usize> {
    let wanted: Option<usize> = std::env::var("PLEIAD_CUDA_DEVICE").ok().and_then(|n| n.parse().ok());
    match (cuda::open(wanted), wanted) {
        (Ok(_), _) => Some(wanted.unwrap_or(0)),
        (Err(e), Some(n)) => panic!("{test}: PLEIAD_CUDA_DEVICE is {n}: {e}"),
        (Err(e), None) => {
            skipped(&format!("{test} on a CUDA device"), &e.to_string());
            None
        }
    }
}

/// [`cuda_device`], opened.
pub fn cuda(test: &str) -> Vec<Place> {
    cuda_device(test).map(|n| Place::Cuda(cuda::open(Some(n)).unwrap())).into_iter().collect()
}

/// A checkpoint and its model.
pub fn open(path: &Path) -> (Checkpoint, Arc<Model>) {
    let checkpoint = Checkpoint::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let model = Arc::new(Model::new(&checkpoint.config, &checkpoint.weights));
    (checkpoint, model)
}

/// A directory of its own, removed with the value.
pub struct TempDir(PathBuf);

impl TempDir {
    /// An empty one.
    pub fn new(name: &str) -> Self {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let unique = format!("pleiad-tests-{}-{}-{name}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(unique);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The one file with this ending.
    pub fn file(&self, ending: &str) -> PathBuf {
        let all = std::fs::read_dir(&self.0).unwrap().map(|e| e.unwrap().path());
        let found: Vec<PathBuf> = all.filter(|p| p.to_string_lossy().ends_with(ending)).collect();
        let [file] = &found[..] else { panic!("files ending in {ending}: {found:?}") };
        file.clone()
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        // Best effort: the system's temporary directory is cleaned anyway.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// An answer of the embedded model by transformers (`models/tiny/README.md`).
pub struct Answer {
    /// Token ids.
    pub prompt: Vec<u32>,
    /// Greedy tokens, the end token included.
    pub tokens: Vec<u32>,
    /// The least lead of a chosen token, in nats.
    pub smallest_margin: f64,
}

/// The answers in `models/tiny/answers.json`.
pub fn answers() -> Vec<Answer> {
    let all: serde_json::Value = serde_json::from_str(include_str!("../models/tiny/answers.json")).unwrap();
    let ids = |v: &serde_json::Value| v.as_array().unwrap().iter().map(|i| i.as_u64().unwrap() as u32).collect();
    let answer = |a: &serde_json::Value| Answer {
        prompt: ids(&a["prompt_ids"]),
        tokens: ids(&a["answer_ids"]),
        smallest_margin: a["smallest_margin"].as_f64().unwrap(),
    };
    all.as_array().unwrap().iter().map(answer).collect()
}

/// The embedded model.
pub fn tiny() -> (Checkpoint, Arc<Model>) {
    let checkpoint = Checkpoint::tiny().unwrap();
    let model = Arc::new(Model::new(&checkpoint.config, &checkpoint.weights));
    (checkpoint, model)
}

/// [`gpus`], opened.
pub fn devices(test: &str) -> Vec<Arc<GpuDevice>> {
    let opened = gpus(test).into_iter().filter_map(|place| match place {
        Place::Gpu(device) => Some(device),
        Place::Plain | Place::Cpu | Place::Cuda(_) => None,
    });
    opened.collect()
}

/// Whether an adapter is too slow for anything but small models.
pub fn is_slow(device: &GpuDevice) -> bool {
    format!("{} {}", device.name(), device.adapter.driver).to_lowercase().contains("swiftshader")
}

/// [`devices`] without the slow ones, which are named.
pub fn fast_devices(test: &str) -> Vec<Arc<GpuDevice>> {
    let (slow, fast): (Vec<_>, Vec<_>) = devices(test).into_iter().partition(|d| is_slow(d));
    slow.iter().for_each(|d| skipped(&format!("{test} on {}", d.name()), "it is too slow for this model"));
    fast
}

/// The ways of serving missing experts that an adapter has, each alone and the choice among them. Names what it lacks.
pub fn ways(device: &GpuDevice, test: &str) -> Vec<WayChoice> {
    let only = WayChoice::Only;
    let mut all = vec![only(Way::Cpu), only(Way::Resume), WayChoice::Auto];
    if device.host_visible {
        all.insert(0, only(Way::Gather));
    } else {
        skipped(&format!("{test}: gather on {}", device.name()), "its kernels cannot read host memory");
    }
    all
}

/// A model and the steps that are to go through it: what its placement follows from.
#[derive(Clone)]
pub struct Setup {
    /// The model.
    pub model: Arc<Model>,
    /// Positions of the latent cache, all of them for one sequence.
    pub positions: usize,
    /// Most tokens of a step.
    pub chunk: usize,
    /// Precision of activations.
    pub activations: Activations,
}

impl Setup {
    /// What the model needs on a device.
    pub fn needs(&self) -> Needs {
        Needs::of(&self.model, self.positions, self.positions, CacheFormat::F32, self.activations, self.chunk)
    }

    /// Loads the model; of `experts`, chunk and activations are those of the setup.
    pub fn load(&self, device: &Arc<GpuDevice>, experts: ExpertOptions) -> Result<Executor, Error> {
        let experts = ExpertOptions { chunk: self.chunk, activations: self.activations, ..experts };
        let (positions, max_context) = (self.positions, self.positions);
        let options = LoadOptions { positions, max_context, cache: CacheFormat::F32, threads: None, experts };
        let model = Arc::clone(&self.model);
        pollster::block_on(Executor::load(Some(Arc::clone(device)), model, &options, &mut |_, _| {}))
    }

    /// Logits and routing of `ids`, `chunk` of them at a time.
    pub fn evaluate(&self, executor: &mut Executor, ids: &[u32], chunk: usize) -> Result<Evaluation, Error> {
        let options = EvalOptions { chunk, activations: self.activations, attention: AttentionForm::Absorbed };
        pollster::block_on(evaluate(executor, &self.model, options, ids, &mut |_, _| {}))
    }

    /// Feeds `ids`, `chunk` of them at a time, and collects what the steps report.
    pub fn feed(&self, executor: &mut Executor, ids: &[u32], chunk: usize) -> Fed {
        let attention = AttentionForm::Absorbed;
        let options =
            Options { max_tokens: chunk, output: Output::Token, activations: self.activations, attention, speculation: None };
        let plan = executor.compile(&record(&self.model, options)).unwrap();
        let pages: Vec<u32> = (0..ids.len().div_ceil(PAGE) as u32).collect();
        let mut fed = Fed::default();
        executor.reset_counters();
        for (n, part) in ids.chunks(chunk).enumerate() {
            let (pos, tokens) = ((n * chunk) as u32, part.len() as u32);
            executor.write_step(&StepState { pos, tokens, counters_on: 1, ..StepState::default() }, &pages);
            executor.write_ids(part);
            let before = executor.stats();
            let ticket = executor.submit(plan, part.len(), Readback { token: true, counters: true }).unwrap();
            let output = pollster::block_on(executor.wait(ticket)).unwrap();
            fed.steps.push(executor.stats().since(before));
            fed.counters = output.counters.unwrap();
            fed.rows.extend(output.routed.iter().flat_map(|rows| rows.iter().copied()));
        }
        fed
    }

    /// Activations of one token: experts chosen for it, over all layers.
    pub fn activations(&self) -> usize {
        self.model.banks.len() * self.model.config.moe.as_ref().map_or(0, |m| m.top_k)
    }
}

/// A reference case, in f32, and its token ids.
pub fn golden_setup(name: &str, chunk: usize) -> (Setup, Vec<u32>) {
    let golden = goldens().remove(name).unwrap();
    let (_, model) = open(&golden.directory);
    (Setup { model, positions: golden.ids.len(), chunk, activations: Activations::F32 }, golden.ids)
}

/// Budgets from everything down to the floor, in bytes, each once.
pub fn budgets(needs: &Needs) -> Vec<(&'static str, u64)> {
    let all = [("everything", needs.whole()), ("half", needs.at_share(0.5)), ("the floor", needs.least())];
    // Where floors are high, half of the experts is less than they are.
    all.into_iter().filter(|&(name, budget)| name != "half" || budget > needs.least()).collect()
}

/// Tokens of a step from which on whole layers stream.
pub fn streams_from(model: &Model) -> usize {
    let moe = model.config.moe.as_ref().unwrap();
    (moe.num_experts * 32).div_ceil(moe.top_k)
}

/// What steps reported.
#[derive(Default)]
pub struct Fed {
    /// The trace, if there was one.
    pub rows: Vec<Routed>,
    /// Activations of every expert, `[layers, E]`.
    pub counters: Vec<u32>,
    /// What each step took.
    pub steps: Vec<DeviceStats>,
}

/// How far logits and routing may lie apart.
#[derive(Clone, Copy, Debug)]
pub struct Tolerance {
    /// NMSE of the logits.
    pub nmse: f64,
    /// Share of the chosen experts that may differ.
    pub routes: f64,
}

impl Tolerance {
    /// Sums in another order.
    pub const ROUNDING: Self = Self { nmse: 1e-8, routes: 0.0 };
    /// Sums in another order before they are rounded to 8 bits. Where a value lies between two of the 256 steps, the last bit of
    /// its sum decides; the whole step then shows in what follows. A wrong expert shows a hundred times as much.
    pub const REQUANTISED: Self = Self { nmse: 1e-4, routes: 0.02 };
}

/// Asserts that two evaluations of the same ids agree.
pub fn assert_same(case: &str, exact: &Evaluation, got: &Evaluation, tolerance: Tolerance) {
    let error = nmse(&exact.logits, &got.logits);
    println!("{case}: NMSE {error:.1e}");
    assert!(error < tolerance.nmse, "{case}: NMSE of logits {error:e}, the bound is {:e}", tolerance.nmse);
    assert_eq!(exact.routing.keys().collect::<Vec<_>>(), got.routing.keys().collect::<Vec<_>>(), "{case}");
    for (layer, (ids, _)) in &exact.routing {
        let got = &got.routing[layer].0;
        assert_eq!(ids.len(), got.len(), "{case}: experts of layer {layer}");
        if tolerance.routes == 0.0 {
            assert_eq!(ids, got, "{case}: experts of layer {layer}");
        }
        let differ = ids.chunks(exact.top_k).zip(got.chunks(exact.top_k));
        let differ: usize = differ.map(|(a, b)| a.iter().filter(|e| !b.contains(e)).count()).sum();
        let most = tolerance.routes * ids.len() as f64;
        assert!(differ as f64 <= most, "{case}: {differ} of {} experts of layer {layer} differ", ids.len());
    }
}

/// What a generation said.
#[derive(Default)]
pub struct Answered {
    /// Its tokens, without an end token.
    pub tokens: Vec<u32>,
    /// Sum of the activations, if asked for.
    pub activations: u64,
    /// The trace, if there was one.
    pub rows: Vec<Routed>,
    /// What the user was told.
    pub notices: Vec<String>,
    /// What it took.
    pub stats: GenerationStats,
}

/// Follows a generation to its end; `on_token` is called with the number of tokens so far.
pub fn collect(what: &str, mut generation: Generation, on_token: &mut dyn FnMut(usize)) -> Answered {
    let mut answered = Answered::default();
    while let Some(event) = generation.next_blocking() {
        match event {
            Event::Token { id, activations, .. } => {
                answered.tokens.push(id);
                answered.activations += activations.iter().flat_map(|a| a.iter()).map(|&n| u64::from(n)).sum::<u64>();
                on_token(answered.tokens.len());
            }
            Event::Routed(rows) => answered.rows.extend_from_slice(&rows),
            Event::Notice(notice) => answered.notices.push(notice),
            Event::Prompt(_) => {}
            Event::Done { stats, .. } => {
                answered.stats = stats;
                return answered;
            }
            Event::Failed(e) => panic!("{what}: {e}"),
        }
    }
    panic!("{what}: the stream ended without an end");
}
