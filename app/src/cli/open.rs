//! Opening a model and starting an engine.

use std::{path::Path, sync::Arc, time::Instant};

use anyhow::{Result, bail};
use pleiad_models::{Checkpoint, inspect};
use pleiad_runtime::{
    Activations, DeviceChoice, Engine, EngineOptions, Model,
    engine::{choose_device, load},
    executor::{Executor, LoadOptions},
};

use super::{
    args::DeviceArgs,
    term::{Bar, Unit, note, size},
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
    let context = options.context.unwrap_or(8192).min(checkpoint.config.max_positions);
    check_budget(&checkpoint, options.memory_budget, options.positions.unwrap_or(2 * context))?;
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

/// Loads a model for sequences of up to `positions` tokens.
pub fn executor(checkpoint: &Checkpoint, args: &DeviceArgs, positions: usize, quiet: bool) -> Result<Bare> {
    let choice = args.choice()?;
    check_budget(checkpoint, args.memory_budget, positions)?;
    let model = Arc::new(Model::new(&checkpoint.config, &checkpoint.weights));
    let options = LoadOptions {
        positions,
        max_context: positions,
        cache: args.cache(),
        threads: args.threads.map(std::num::NonZeroUsize::get),
    };
    let mut bar = Bar::new("Loading", Unit::Bytes, quiet);
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
        Err(e) if auto && let Some(gpu) = name.take() => {
            note(&format!("note: {gpu} cannot hold the model ({e}); running on the CPU"));
            load_on(None)?
        }
        other => other?,
    };
    bar.clear();
    let device = match (&executor, name) {
        (Executor::Cpu(cpu), _) => format!("CPU ({})", cpu.describe()),
        (_, name) => name.unwrap_or_default(),
    };
    Ok(Bare { executor, model, device, activations: args.activations() })
}

/// Refuses a model that needs more than the budget allows: nothing is left out of memory yet.
fn check_budget(checkpoint: &Checkpoint, budget: Option<u64>, positions: usize) -> Result<()> {
    let Some(budget) = budget else { return Ok(()) };
    let what = inspect::describe(checkpoint);
    let (weights, cache) = (what.parameters.total_bytes, what.cache_bytes_per_token * positions as u64);
    if weights.saturating_add(cache) > budget {
        bail!(
            "--memory-budget {}: {} needs {} for its weights and {} for a latent cache of {positions} positions; \
             raise the budget, or lower --ctx-size",
            size(budget),
            what.source,
            size(weights),
            size(cache)
        );
    }
    Ok(())
}
