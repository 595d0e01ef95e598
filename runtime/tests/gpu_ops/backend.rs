//! What the operations run on: every adapter that wgpu finds.

use std::sync::{Arc, OnceLock};

use pleiad_conformance::setup::{Outputs, Setup};
use pleiad_runtime::{
    Result,
    executor::PlanId,
    gpu::{self, DeviceOptions},
};

pub use pleiad_runtime::gpu::{GpuDevice as Device, GpuExecutor as DeviceExecutor};

/// Rows of weights begin at multiples of so many bytes.
pub const ROW_ALIGN: usize = 4;

/// Whether kernels can read host memory.
pub fn reads_host(device: &Arc<Device>) -> bool {
    device.host_visible
}

/// The model of a setup on a device, ready for its step.
pub async fn prepare(setup: &Setup, device: &Arc<Device>) -> Result<(DeviceExecutor, PlanId)> {
    setup.prepare(device).await
}

/// The outputs of a setup, by a device.
pub async fn actual(setup: &Setup, device: &Arc<Device>) -> Result<Outputs> {
    setup.actual(device, 1).await.map(|mut all| all.remove(0))
}

/// A device opened in one of the ways that tests use.
#[derive(Clone)]
pub struct Place {
    pub name: String,
    pub device: Arc<Device>,
}

/// Every adapter with all its features, and again with weights in small slabs. Says so by name if there is none.
pub fn places(test: &str) -> Vec<Place> {
    static ALL: OnceLock<Vec<Place>> = OnceLock::new();
    let all = ALL.get_or_init(|| {
        let mut all = Vec::new();
        for adapter in pollster::block_on(gpu::enumerate()) {
            let device = pollster::block_on(adapter.open(DeviceOptions::default())).unwrap();
            let slabs = Arc::new(device.with_slabs(170 << 10));
            all.push(Place { name: adapter.description.name.clone(), device });
            all.push(Place { name: format!("{}, in slabs", adapter.description.name), device: slabs });
        }
        all
    });
    if all.is_empty() {
        println!("SKIPPED {test}: no adapter (Mesa's lavapipe serves)");
    }
    all.clone()
}

/// [`places`], and every adapter with no more than any WebGPU device has and all checks: other variants of the kernels.
pub fn all_places(test: &str) -> Vec<Place> {
    static LEAST: OnceLock<Vec<Place>> = OnceLock::new();
    let least = LEAST.get_or_init(|| {
        let open = |adapter: gpu::GpuAdapter| {
            let device = pollster::block_on(adapter.open(DeviceOptions { plain: true, checked: true })).unwrap();
            Place { name: format!("{}, plain and checked", adapter.description.name), device }
        };
        pollster::block_on(gpu::enumerate()).into_iter().map(open).collect()
    });
    places(test).into_iter().chain(least.iter().cloned()).collect()
}
