//! The tests: what there is, and running them one after the other on an open device.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use pleiad_models::Checkpoint;
use pleiad_runtime::gpu::{self, DeviceOptions, GpuAdapter, GpuDevice};
use web_time::Instant;

use crate::{
    case::{Case, Cases, Context},
    identity, integer, kernel, memory, model,
    report::{Identity, Settings, Test, Verdict},
    scalar, speed, subgroup,
};

/// The sections in the order in which they run: a name and what it shows.
pub const SECTIONS: &[(&str, &str)] = &[
    ("scalar", "arithmetic of single numbers against f64, judged by WGSL's bounds"),
    ("integer", "integer products, shifts and divisions at their edges"),
    ("memory", "what workgroup memory holds at first, and what lies behind the end of a buffer"),
    ("subgroup", "operations among the threads of a subgroup"),
    ("kernel", "every kernel and variant against its plain counterpart"),
    ("model", "logits, experts and tokens of whole models"),
    ("speed", "what the device reaches"),
];

/// Names of measures that more than one test has: a name, its unit, what it means.
pub const MEASURES: &[(&str, &str, &str)] = &[
    ("nmse", "", "sum of squared differences over sum of squares"),
    ("worst", "ulp", "largest difference, in units in the last place of the true value"),
    ("runs", "", "different results of three runs on the same data"),
    ("wrong", "", "elements that differ where none may"),
    ("mean", "ulp", "mean difference, in units in the last place of the true value"),
    ("of permitted", "", "largest difference, as a share of what WGSL permits for that argument"),
    ("agreement", "", "share of positions with the same most likely token"),
    ("margin", "", "largest lead of an expert that should have been chosen over one that was"),
];

/// Who is told while a suite runs.
pub trait Sink {
    /// A test begins: the number of it among all that will run, and its id.
    fn begin(&mut self, index: usize, of: usize, id: &str);
    /// It has ended.
    fn end(&mut self, test: &Test);
    /// Whether to stop before the next test.
    fn stop(&self) -> bool {
        false
    }
}

/// How a device is to be opened for `settings`.
pub fn device_options(settings: &Settings) -> DeviceOptions {
    if settings.strict { DeviceOptions::STRICT } else { DeviceOptions::default() }
}

/// The adapters that `settings` may be run on; in strict mode what WebGPU does not allow is refused on them.
pub async fn adapters(settings: &Settings) -> Vec<GpuAdapter> {
    gpu::enumerate_with(settings.strict).await
}

/// What the device is, and how it was opened. Sizes of subgroups that kernels see are told by [`identify`] alone.
pub fn identity(gpu: &GpuDevice) -> Identity {
    identity::told(gpu)
}

/// [`identity`], with what a probe has seen.
pub async fn identify(gpu: &Arc<GpuDevice>) -> Identity {
    Identity { subgroup_sizes_seen: subgroup::sizes_seen(gpu).await, ..identity::told(gpu) }
}

fn cases(settings: &Settings) -> Vec<Case> {
    let mut all = Cases::new(settings);
    scalar::add(&mut all);
    integer::add(&mut all);
    memory::add(&mut all);
    subgroup::add(&mut all);
    kernel::add(&mut all);
    model::add(&mut all);
    speed::add(&mut all);
    all.into_all()
}

/// Ids of all tests that `settings` ask for on that device, in the order in which they would run. Tests that the device has not
/// what they need for are in it: they are reported as skipped.
pub fn list(_gpu: &GpuDevice, settings: &Settings) -> Vec<String> {
    cases(settings).into_iter().map(|c| c.id).collect()
}

/// Runs the tests of [`list`], but for those in `done`. A test that fails is told and is not the end; a lost device is reopened
/// by nobody here: the rest is told as failed.
pub async fn run(gpu: &Arc<GpuDevice>, settings: &Settings, done: &[String], sink: &mut dyn Sink) {
    run_with(gpu, settings, done, sink, None).await;
}

/// [`run`] with the embedded model given: a browser's program does not hold it, and without it tests of models are skipped there.
pub async fn run_with(
    gpu: &Arc<GpuDevice>,
    settings: &Settings,
    done: &[String],
    sink: &mut dyn Sink,
    tiny: Option<Arc<Checkpoint>>,
) {
    let all = cases(settings);
    let done: HashSet<&str> = done.iter().map(String::as_str).collect();
    let of = all.len();
    for (index, case) in all.into_iter().enumerate() {
        if done.contains(case.id.as_str()) {
            continue;
        }
        if sink.stop() {
            return;
        }
        sink.begin(index, of, &case.id);
        let started = Instant::now();
        let mut test = match gpu.check() {
            Ok(()) => {
                let kept = gpu.kept();
                let test = case.run(Context { gpu: Arc::clone(gpu), quick: settings.quick, tiny: tiny.clone() }).await;
                gpu.free_after(kept);
                test
            }
            Err(e) => {
                let words = format!("not run: {e}");
                Test { id: case.id, verdict: Verdict::Fail, words, measures: BTreeMap::new(), seconds: 0.0 }
            }
        };
        test.seconds = started.elapsed().as_secs_f64();
        sink.end(&test);
    }
}
