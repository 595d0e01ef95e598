//! From a checkpoint to a loaded model.

use std::sync::Arc;

use pleiad_models::{Checkpoint, Tokenizer};
use web_time::Instant;

use super::{EngineInfo, EngineOptions, drafting, plans::Plans};
use crate::{
    Error, Result,
    cuda::{self, CudaDevices, CudaExecutor},
    executor::{DeviceChoice, Executor, ExpertOptions, LoadOptions},
    experts::{budget::Needs, walk::Routing},
    gpu::{self, GpuDevice},
    model::Model,
    step::{MAX_DRAFT, PAGE, RING},
};

/// The context of a session where nothing else is asked for: enough for a long conversation, small enough for any card.
const DEFAULT_CONTEXT: usize = 8192;

/// Most bytes of weights and latent cache that the CPU takes in a browser, where all of them are in the program's own memory.
const CPU_LIMIT: u64 = 1 << 30;

/// Tokens submitted before the first of them is read back, on a GPU. A browser takes milliseconds to hand a result over.
const IN_FLIGHT: usize = if cfg!(target_arch = "wasm32") { 4 } else { 2 };

/// What loading is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Weights are put where the device has them, in bytes.
    Weights,
    /// Kernels are compiled, one by one.
    Kernels,
}

/// A model on a device, ready for [`super::Engine::start`].
pub struct Loaded {
    pub(crate) executor: Executor,
    pub(crate) model: Arc<Model>,
    pub(crate) tokenizer: Option<Tokenizer>,
    pub(crate) options: EngineOptions,
    pub(crate) load: LoadOptions,
    pub(crate) info: EngineInfo,
    pub(crate) plans: Plans,
}

impl Loaded {
    /// What was loaded, and where.
    pub fn info(&self) -> &EngineInfo {
        &self.info
    }

    /// The adapter that it runs on; `None`: the CPU, or CUDA.
    pub fn device(&self) -> Option<&Arc<GpuDevice>> {
        match &self.executor {
            Executor::Cpu(_) | Executor::Cuda(_) => None,
            Executor::Gpu(e) => Some(e.device()),
        }
    }
}

/// Tokens submitted before the first of them is read back: `asked`, or what suits the device.
pub(crate) fn in_flight(executor: &Executor, asked: Option<usize>) -> usize {
    let default = if matches!(executor, Executor::Cpu(_)) { 1 } else { IN_FLIGHT };
    asked.unwrap_or(default).clamp(1, RING / 2)
}

/// The adapter that `choice` means: `None` is the CPU, or a device of CUDA's.
pub async fn choose_device(choice: DeviceChoice) -> Result<Option<Arc<GpuDevice>>> {
    match choice {
        // CUDA's devices are no adapters: see `cuda::open`.
        DeviceChoice::Cpu | DeviceChoice::Cuda(_) => Ok(None),
        DeviceChoice::Auto => gpu::open_best().await,
        DeviceChoice::Wgpu(index) => gpu::open(index).await.map(Some),
    }
}

/// Whether the CPU may be tried in place of a GPU.
///
/// # Errors
///
/// In a browser, for a model that the program's memory would not hold.
pub(crate) fn cpu_may(model: &Model, options: &LoadOptions, browser: bool) -> Result<()> {
    let needs = Needs::of(
        model,
        options.positions,
        options.max_context,
        options.cache,
        options.experts.activations,
        options.experts.chunk,
    );
    let experts: u64 = needs.layers.iter().map(|l| l.blob.saturating_mul(l.experts as u64)).sum();
    let needed = needs.dense.saturating_add(needs.cache).saturating_add(experts);
    if browser && needed > CPU_LIMIT {
        let what = "bytes of a model that the CPU runs in a browser (a browser's GPU runs larger ones)".into();
        return Err(Error::Limit { what, needed, limit: CPU_LIMIT });
    }
    Ok(())
}

/// Loads a checkpoint. `progress` is called with bytes done and bytes in all.
///
/// With [`DeviceChoice::Auto`], a GPU that refuses the model is left for the CPU, and [`EngineInfo::notice`] says why. Kernels are
/// compiled at first use; in a browser, where that has to wait for the driver, as with [`load_with`].
pub async fn load(checkpoint: &Checkpoint, options: EngineOptions, progress: &mut dyn FnMut(u64, u64)) -> Result<Loaded> {
    let mut weights = |stage, done, all| {
        if stage == Stage::Weights {
            progress(done, all);
        }
    };
    start(checkpoint, options, cfg!(target_arch = "wasm32"), &mut weights).await
}

/// [`load`], with all kernels that the engine will use. `progress` is called with a stage, and what is done of it and in all.
///
/// # Errors
///
/// Those of [`load`]; a kernel that the driver refuses, by its name.
pub async fn load_with(
    checkpoint: &Checkpoint,
    options: EngineOptions,
    progress: &mut dyn FnMut(Stage, u64, u64),
) -> Result<Loaded> {
    start(checkpoint, options, true, progress).await
}

async fn start(
    checkpoint: &Checkpoint,
    options: EngineOptions,
    kernels: bool,
    progress: &mut dyn FnMut(Stage, u64, u64),
) -> Result<Loaded> {
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
    if let Some(draft) = options.draft.filter(|&k| k > MAX_DRAFT) {
        return Err(Error::Limit { what: "--draft, in tokens".into(), needed: draft as u64, limit: MAX_DRAFT as u64 });
    }
    let positions = options.positions.unwrap_or(2 * context).max(context).next_multiple_of(PAGE);
    let mut model = match options.draft {
        Some(0) => Model::new(&checkpoint.config, &checkpoint.weights),
        _ => Model::with_mtp(&checkpoint.config, &checkpoint.weights),
    };
    // A budget that does not hold the module as well is the model's, unless drafts were asked for.
    if options.draft.is_none() && options.memory_budget.is_some() && model.mtp.is_some() {
        let needs = Needs::of(&model, positions, context, options.cache, options.activations, options.chunk);
        if !needs.fits(options.memory_budget) {
            model = model.without_mtp();
        }
    }
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
    let mut plans = Plans::new(&model, options.activations, options.chunk, drafting::numbers(options.draft));
    let placed = match (&device, options.device) {
        (Some(device), _) => on_gpu(device, &model, &load, kernels.then_some(&mut plans), progress).await,
        (None, DeviceChoice::Cuda(devices)) => {
            let mut weights = |done, all| progress(Stage::Weights, done, all);
            let executor = on_cuda(devices, &model, &load, &mut weights).await?;
            (name, backend) = (cuda::names(&**executor.driver()), "cuda");
            Ok(Executor::Cuda(Box::new(executor)))
        }
        (None, _) => on_cpu(&model, &load).await,
    };
    let executor = match placed {
        // A budget that is too small was asked for: it is for the user to say what then.
        Err(e) if options.device == DeviceChoice::Auto && device.is_some() && !matches!(e, Error::Budget { .. }) => {
            // Of the two errors the first one says more.
            cpu_may(&model, &load, cfg!(target_arch = "wasm32")).map_err(|_| e.clone())?;
            notice = Some(format!("{name} cannot hold the model ({e}); running on the CPU"));
            backend = "cpu";
            plans.forget();
            on_cpu(&model, &load).await?
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
    Ok(Loaded { executor, model, tokenizer: checkpoint.tokenizer.clone(), options, load, info, plans })
}

async fn on_cpu(model: &Arc<Model>, load: &LoadOptions) -> Result<Executor> {
    cpu_may(model, load, cfg!(target_arch = "wasm32"))?;
    Executor::load(None, Arc::clone(model), load, &mut |_, _| {}).await
}

/// Opens CUDA devices, and loads the model on them.
pub(crate) async fn on_cuda(
    devices: CudaDevices,
    model: &Arc<Model>,
    load: &LoadOptions,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<CudaExecutor> {
    CudaExecutor::load(cuda::open_all(&devices.indices())?, Arc::clone(model), load, progress).await
}

/// Loads the model on `device`, and prepares `plans` for it.
async fn on_gpu(
    device: &Arc<GpuDevice>,
    model: &Arc<Model>,
    load: &LoadOptions,
    plans: Option<&mut Plans>,
    progress: &mut dyn FnMut(Stage, u64, u64),
) -> Result<Executor> {
    let mut weights = |done, all| progress(Stage::Weights, done, all);
    let mut executor = Executor::load(Some(Arc::clone(device)), Arc::clone(model), load, &mut weights).await?;
    if let Some(plans) = plans {
        plans.prepare(&mut executor, model, &mut |done, all| progress(Stage::Kernels, done, all)).await?;
    }
    Ok(executor)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

    use super::*;

    #[test]
    fn a_budget_without_room_for_the_module_is_the_models() {
        let checkpoint = Checkpoint::tiny().unwrap();
        let needs = |model: &Model| Needs::of(model, 512, 256, crate::CacheFormat::F16, crate::Activations::Q8, 16).least();
        let least = needs(&Model::new(&checkpoint.config, &checkpoint.weights));
        let with = needs(&Model::with_mtp(&checkpoint.config, &checkpoint.weights));
        assert!(least < with);
        for (budget, draft, module) in [(least, None, false), (with, None, true), (least, Some(1), true), (with, Some(0), false)]
        {
            let options = EngineOptions {
                device: DeviceChoice::Cpu,
                context: Some(256),
                chunk: 16,
                memory_budget: Some(budget),
                draft,
                ..EngineOptions::default()
            };
            let loaded = pollster::block_on(load(&checkpoint, options, &mut |_, _| {})).unwrap();
            assert_eq!(loaded.model.mtp.is_some(), module, "{budget} of {with}, {draft:?}");
        }
    }

    #[test]
    fn the_cpu_takes_small_models_in_a_browser() {
        let checkpoint = Checkpoint::tiny().unwrap();
        let model = Model::new(&checkpoint.config, &checkpoint.weights);
        let of = |positions| LoadOptions {
            positions,
            max_context: 512,
            cache: crate::CacheFormat::F16,
            threads: None,
            experts: ExpertOptions::default(),
        };
        assert!(cpu_may(&model, &of(1024), true).is_ok());
        let error = cpu_may(&model, &of(1 << 24), true).unwrap_err().to_string();
        assert!(error.contains("browser"), "{error}");
        assert!(cpu_may(&model, &of(1 << 24), false).is_ok());
    }
}
