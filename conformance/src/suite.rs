//! The tests: what there is, and running them one after the other on an open device.

use std::sync::Arc;

use pleiad_runtime::gpu::{DeviceOptions, GpuDevice};

use crate::report::{Identity, Settings, Test};

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

/// What the device is, and how it was opened.
pub fn identity(_gpu: &GpuDevice) -> Identity {
    Identity::default()
}

/// How a device is to be opened for `settings`.
pub fn device_options(settings: &Settings) -> DeviceOptions {
    if settings.strict { DeviceOptions::STRICT } else { DeviceOptions::default() }
}

/// [`identity`], with what a probe has seen.
pub async fn identify(gpu: &Arc<GpuDevice>) -> Identity {
    identity(gpu)
}

/// Ids of all tests that `settings` ask for on that device, in the order in which they would run. Tests that the device has not
/// what they need for are in it: they are reported as skipped.
pub fn list(_gpu: &GpuDevice, _settings: &Settings) -> Vec<String> {
    Vec::new()
}

/// Runs the tests of [`list`], but for those in `done`. A test that fails is told and is not the end; a lost device is reopened
/// by nobody here: the rest is told as failed.
pub async fn run(_gpu: &Arc<GpuDevice>, _settings: &Settings, _done: &[String], _sink: &mut dyn Sink) {}
