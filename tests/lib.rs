//! What the tests that cross rooms share: reference data, devices, measures.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "test support: a failure is a failed test")]

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use pleiad_models::Checkpoint;
use pleiad_runtime::{
    Error, Model,
    cpu::CpuExecutor,
    executor::{CacheFormat, Executor, ExpertOptions, LoadOptions},
    gpu::{self, GpuDevice},
};
use safetensors::SafeTensors;

/// `tests/data`.
pub fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data")
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
}

impl Place {
    /// For messages.
    pub fn name(&self) -> String {
        match self {
            Self::Plain => "twins".into(),
            Self::Cpu => "CPU".into(),
            Self::Gpu(d) => d.name(),
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

/// A checkpoint and its model.
pub fn open(path: &Path) -> (Checkpoint, Arc<Model>) {
    let checkpoint = Checkpoint::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let model = Arc::new(Model::new(&checkpoint.config, &checkpoint.weights));
    (checkpoint, model)
}
