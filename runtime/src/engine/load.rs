//! From a checkpoint to a loaded model.

use std::sync::Arc;

use pleiad_models::{Checkpoint, Tokenizer};
use web_time::Instant;

use super::{EngineInfo, EngineOptions};
use crate::{
    Error, Result,
    executor::{DeviceChoice, Executor, ExpertOptions, LoadOptions},
    experts::walk::Routing,
    gpu::{self, GpuDevice},
    model::Model,
    step::{PAGE, RING},
};

/// The context of a session where nothing else is asked for: enough for a long conversation, small enough for any card.
const DEFAULT_CONTEXT: usize = 8192;

/// A model on a device, ready for [`super::Engine::start`].
pub struct Loaded {
    pub(crate) executor: Executor,
    pub(crate) model: Arc<Model>,
    pub(crate) tokenizer: Option<Tokenizer>,
    pub(crate) options: EngineOptions,
    pub(crate) load: LoadOptions,
    pub(crate) info: EngineInfo,
}

impl Loaded {
    /// What was loaded, and where.
    pub fn info(&self) -> &EngineInfo {
        &self.info
    }

    /// The GPU that it runs on; `None`: the CPU.
    pub fn device(&self) -> Option<&Arc<GpuDevice>> {
        match &self.executor {
            Executor::Cpu(_) => None,
            Executor::Gpu(e) => Some(e.device()),
        }
    }

    /// Tokens submitted before the first of them is read back.
    pub(crate) fn in_flight(&self) -> usize {
        let default = if matches!(self.executor, Executor::Cpu(_)) { 1 } else { 2 };
        self.options.in_flight.unwrap_or(default).clamp(1, RING / 2)
    }
}

/// The device that `choice` means: `None` is the CPU.
pub async fn choose_device(choice: DeviceChoice) -> Result<Option<Arc<GpuDevice>>> {
    match choice {
        DeviceChoice::Cpu => Ok(None),
        DeviceChoice::Auto => gpu::open_best().await,
        DeviceChoice::Wgpu(index) => gpu::open(index).await.map(Some),
    }
}

/// Loads a checkpoint. `progress` is called with bytes done and bytes in all.
///
/// With [`DeviceChoice::Auto`], a GPU that refuses the model is left for the CPU, and [`EngineInfo::notice`] says why.
pub async fn load(checkpoint: &Checkpoint, options: EngineOptions, progress: &mut dyn FnMut(u64, u64)) -> Result<Loaded> {
    let start = Instant::now();
    let model_context = checkpoint.config.max_positions;
    let context = options.context.unwrap_or_else(|| model_context.min(DEFAULT_CONTEXT));
    if context == 0 || context > model_context {
        return Err(Error::Limit {
            what: "--ctx-size, in positions of this model".into(),
            needed: context as u64,
            limit: model_context as u64,
        });
    }
    let positions = options.positions.unwrap_or(2 * context).max(context).next_multiple_of(PAGE);
    let mut model = Model::new(&checkpoint.config, &checkpoint.weights);
    if options.routing == Routing::Walk {
        model.add_biases();
    }
    let model = Arc::new(model);
    let experts = ExpertOptions {
        budget: options.memory_budget,
        misses: options.misses,
        directory: options.directory.clone(),
        chunk: options.chunk,
        activations: options.activations,
        trace: options.trace,
        ..ExpertOptions::default()
    };
    let load = LoadOptions { positions, max_context: context, cache: options.cache, threads: options.threads, experts };

    let mut notice = None;
    let device = match choose_device(options.device).await {
        Ok(device) => device,
        Err(e) if options.device == DeviceChoice::Auto => {
            notice = Some(format!("the GPU cannot be used ({e}); running on the CPU"));
            None
        }
        Err(e) => return Err(e),
    };
    let (mut name, mut backend) = match &device {
        Some(d) => (d.name(), "wgpu"),
        None => (String::new(), "cpu"),
    };
    let executor = match Executor::load(device.clone(), Arc::clone(&model), &load, progress).await {
        // A budget that is too small was asked for: it is for the user to say what then.
        Err(e) if options.device == DeviceChoice::Auto && device.is_some() && !matches!(e, Error::Budget { .. }) => {
            notice = Some(format!("{name} cannot hold the model ({e}); running on the CPU"));
            backend = "cpu";
            Executor::load(None, Arc::clone(&model), &load, progress).await?
        }
        other => other?,
    };
    if let Executor::Cpu(cpu) = &executor {
        name = format!("CPU ({})", cpu.describe());
    }
    let mut notices: Vec<String> = notice.into_iter().collect();
    notices.extend(executor.experts().into_iter().flat_map(|e| e.notices));
    let notice = (!notices.is_empty()).then(|| notices.join("; "));
    let info = EngineInfo {
        model: checkpoint.config.name.clone(),
        device: name,
        backend: backend.into(),
        context,
        model_context,
        activations: options.activations,
        weight_bytes: executor.stats().weight_bytes,
        load_seconds: start.elapsed().as_secs_f64(),
        notice,
    };
    Ok(Loaded { executor, model, tokenizer: checkpoint.tokenizer.clone(), options, load, info })
}
