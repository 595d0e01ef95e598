//! `pleiad bench --profile`: what the time of a decoded token is spent on, kernel by kernel.

use std::sync::Arc;

use anyhow::{Result, bail};
use pleiad_models::inspect;
use pleiad_runtime::{
    DeviceChoice, Model, cuda,
    cuda::profile::{Profiler, StepProfile, copy_bandwidth},
    executor::{ExpertOptions, LoadOptions},
};
use serde::Serialize;

use super::{
    bench::{BenchArgs, Form},
    open,
    term::{Bar, Stream, Unit, size},
};

/// Bytes of the buffers that are copied to find the memory's bandwidth: many times what any device caches.
const COPIED: u64 = 1 << 30;

/// Everything that was measured.
#[derive(Serialize)]
struct Report {
    version: &'static str,
    model: String,
    device: String,
    architecture: String,
    backend: &'static str,
    repetitions: usize,
    /// Bytes a second that a copy within the device's memory reads and writes.
    copy_bytes_per_second: f64,
    /// Bytes of weights that a token reads.
    weight_bytes_read: u64,
    steps: Vec<StepProfile>,
}

/// Runs `pleiad bench --profile`.
pub fn run(args: &BenchArgs) -> Result<()> {
    let device = &args.engine.device;
    let DeviceChoice::Cuda(devices) = device.choice()? else { bail!("--profile is for CUDA devices: --device cuda") };
    let driver = cuda::open_all(&devices.indices())?;
    let repetitions = args.repetitions.get();
    let needed = args.profile.iter().max().map_or(1, |&n| n.max(1) as usize) + repetitions + 1;
    let context = args.engine.ctx_size.map_or(needed, |n| n.get());
    if context < needed {
        bail!("--ctx-size {context}: these lengths need {needed}");
    }
    let checkpoint = open::checkpoint(&args.model.model)?;
    let model = Arc::new(Model::new(&checkpoint.config, &checkpoint.weights));
    // Before the model takes the memory.
    let copied = driver.free_memory(0).map_or(COPIED, |free| COPIED.min(free / 4));
    let copy_bytes_per_second = copy_bandwidth(&driver, copied, repetitions.max(10))?;
    let options = LoadOptions {
        positions: context,
        max_context: context,
        cache: device.cache(),
        threads: None,
        experts: ExpertOptions { budget: device.memory_budget, ..ExpertOptions::default() },
    };
    let json = args.output == Form::Json;
    let mut bar = Bar::new("Loading", Unit::Bytes, json);
    let profiler = Profiler::new(&driver, &model, &options, device.activations(), &mut |done, all| bar.set(done, all))?;
    bar.clear();
    let steps = args.profile.iter().map(|&n| profiler.step(n, repetitions)).collect::<Result<_, _>>()?;
    let what = inspect::describe(&checkpoint);
    let report = Report {
        version: env!("CARGO_PKG_VERSION"),
        model: checkpoint.config.name.clone(),
        device: cuda::names(&*driver),
        architecture: driver.info().architecture.clone(),
        backend: "cuda",
        repetitions,
        copy_bytes_per_second,
        weight_bytes_read: what.parameters.active_bytes,
        steps,
    };
    let mut out = Stream::stdout();
    if json { out.json(&report) } else { print(&mut out, &report) }
}

fn print(out: &mut Stream, r: &Report) -> Result<()> {
    let bandwidth = r.copy_bytes_per_second;
    let floor = r.weight_bytes_read as f64 / bandwidth;
    out.line(&format!(
        "{} ({}): a copy moves {}/s; {} of weights a token take {:.3} ms at the least",
        r.device,
        r.architecture,
        size(bandwidth as u64),
        size(r.weight_bytes_read),
        floor * 1e3
    ))?;
    for step in &r.steps {
        out.line(&format!("\n{} positions: {:.3} ms a token", step.length, step.seconds * 1e3))?;
        let sum: f64 = step.kernels.iter().map(|k| k.seconds).sum();
        out.line(&format!("| {:<36} | {:<24} | {:>8} | {:>10} | {:>6} |", "kernel", "makes", "launches", "µs", "share"))?;
        out.line(&format!("| {:-<36} | {:-<24} | {:->7}: | {:->9}: | {:->5}: |", "", "", "", "", ""))?;
        for k in &step.kernels {
            let share = 100.0 * k.seconds / sum.max(1e-12);
            let (kernel, makes, launches) = (&k.kernel, &k.makes, k.launches);
            out.line(&format!("| {kernel:<36} | {makes:<24} | {launches:>8} | {:>10.1} | {share:>4.1} % |", k.seconds * 1e6))?;
        }
    }
    Ok(())
}
