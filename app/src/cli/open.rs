//! Opening a model and starting an engine.

use std::{path::Path, sync::Arc, time::Instant};

use anyhow::Result;
use pleiad_models::Checkpoint;
use pleiad_runtime::{
    Activations, DeviceChoice, Engine, EngineOptions, Model,
    cuda::{self, CudaExecutor},
    engine::{choose_device, load},
    executor::{Executor, ExpertOptions, LoadOptions},
};

use super::{
    args::DeviceArgs,
    term::{Bar, Unit, note},
};

/// Opens a model by the name that was given to `--model`.
pub fn checkpoint(model: &str) -> Result<Checkpoint> {
    Ok(if model == "tiny" { Checkpoint::tiny()? } else { Checkpoint::open(Path::new(model))? })
}

/// A model, and an engine that runs it.
pub struct Opened {
    /// The model.
    pub checkpoint: Checkpoint,
    /// The engine.
    pub engine: Engine,
    /// Seconds from the start to an engine that is ready.
    pub seconds: f64,
}

/// Opens a model and starts an engine for it. `quiet`: without a progress bar.
pub fn engine(model: &str, options: EngineOptions, quiet: bool) -> Result<Opened> {
    let start = Instant::now();
    let checkpoint = checkpoint(model)?;
    let mut bar = Bar::new("Loading", Unit::Bytes, quiet);
    let loaded = pollster::block_on(load(&checkpoint, options, &mut |done, total| bar.set(done, total)))?;
    bar.clear();
    if let Some(notice) = &loaded.info().notice {
        note(&format!("note: {notice}"));
    }
    let engine = Engine::start(loaded)?;
    Ok(Opened { checkpoint, engine, seconds: start.elapsed().as_secs_f64() })
}

/// A model on a device, without an engine.
pub struct Bare {
    /// The device with the model's weights.
    pub executor: Executor,
    /// The weights, numbered.
    pub model: Arc<Model>,
    /// The device's name.
    pub device: String,
    /// Precision of activations.
    pub activations: Activations,
}

/// Loads a model for sequences of up to `positions` tokens, fed `chunk` at a time.
pub fn executor(checkpoint: &Checkpoint, args: &DeviceArgs, positions: usize, chunk: usize, quiet: bool) -> Result<Bare> {
    let choice = args.choice()?;
    let model = Arc::new(Model::new(&checkpoint.config, &checkpoint.weights));
    let options = LoadOptions {
        positions,
        max_context: positions,
        cache: args.cache(),
        threads: args.threads.map(std::num::NonZeroUsize::get),
        experts: ExpertOptions {
            budget: args.memory_budget,
            misses: args.misses,
            directory: args.directory(),
            chunk,
            activations: args.activations(),
            ..ExpertOptions::default()
        },
    };
    let mut bar = Bar::new("Loading", Unit::Bytes, quiet);
    if let DeviceChoice::Cuda(devices) = choice {
        let driver = cuda::open_all(&devices.indices())?;
        let device = cuda::names(&*driver);
        let mut progress = |d, t| bar.set(d, t);
        let load = CudaExecutor::load(driver, Arc::clone(&model), &options, &mut progress);
        let executor = Executor::Cuda(Box::new(pollster::block_on(load)?));
        bar.clear();
        return Ok(Bare { executor, model, device, activations: args.activations() });
    }
    let mut load_on =
        |device| pollster::block_on(Executor::load(device, Arc::clone(&model), &options, &mut |d, t| bar.set(d, t)));
    let auto = choice == DeviceChoice::Auto;
    let device = match pollster::block_on(choose_device(choice)) {
        Err(e) if auto => {
            note(&format!("note: the GPU cannot be used ({e}); running on the CPU"));
            None
        }
        other => other?,
    };
    let mut name = device.as_ref().map(|d| d.name());
    let executor = match load_on(device) {
        // A budget that is too small was asked for: it is for the user to say what then.
        Err(e)
            if auto
                && !matches!(e, pleiad_runtime::Error::Budget { .. })
                && let Some(gpu) = name.take() =>
        {
            note(&format!("note: {gpu} cannot hold the model ({e}); running on the CPU"));
            load_on(None)?
        }
        other => other?,
    };
    bar.clear();
    for notice in executor.experts().into_iter().flat_map(|e| e.notices) {
        note(&format!("note: {notice}"));
    }
    let device = match (&executor, name) {
        (Executor::Cpu(cpu), _) => format!("CPU ({})", cpu.describe()),
        (_, name) => name.unwrap_or_default(),
    };
    Ok(Bare { executor, model, device, activations: args.activations() })
}
