//! Both executors side by side, on every adapter.

use std::sync::{Arc, OnceLock};

pub use pleiad_conformance::setup::{Rng, Setup, bits, config, floats, moe, nmse, small_attention, tensor};
use pleiad_runtime::{
    executor::StepOutput,
    gpu::{self, DeviceOptions, GpuDevice},
    plan::Kind,
};

/// Runs on adapters, and compares.
pub trait Check {
    /// The outputs, by the twins.
    fn twin(&self) -> (Vec<Vec<u32>>, StepOutput);
    /// The outputs, by an adapter.
    fn on(&self, device: &Arc<GpuDevice>) -> (Vec<Vec<u32>>, StepOutput);
    /// Runs on every adapter; f32 and Q8 outputs must agree with the twins' within `bound` (NMSE), ids exactly.
    fn check(&self, places: &[Place], bound: f64);
}

impl Check for Setup {
    fn twin(&self) -> (Vec<Vec<u32>>, StepOutput) {
        self.expected().unwrap_or_else(|e| panic!("{}: {e}", self.name))
    }

    fn on(&self, device: &Arc<GpuDevice>) -> (Vec<Vec<u32>>, StepOutput) {
        let mut all = pollster::block_on(self.actual(device, 1)).unwrap_or_else(|e| panic!("{}: {e}", self.name));
        all.remove(0)
    }

    fn check(&self, places: &[Place], bound: f64) {
        let (expected, _) = self.twin();
        for place in places {
            let (actual, _) = self.on(&place.device);
            for ((&act, e), a) in self.outputs.iter().zip(&expected).zip(&actual) {
                let decl = self.plan.decl(act);
                let case = format!("{} on {}, {}", self.name, place.name, decl.name);
                if decl.kind == Kind::U32 {
                    assert_eq!(e, a, "{case}");
                    continue;
                }
                let error = nmse(&floats(e), &floats(a));
                assert!(error <= bound, "{case}: NMSE {error:e}, the bound is {bound:e}; {}", worst(&floats(e), &floats(a)));
            }
        }
    }
}

/// Where two vectors differ most.
fn worst(a: &[f32], b: &[f32]) -> String {
    let key = |i: usize| if b[i].is_finite() { (a[i] - b[i]).abs() } else { f32::INFINITY };
    let i = (0..a.len()).max_by(|&i, &j| key(i).total_cmp(&key(j))).unwrap_or(0);
    let off = (0..a.len()).filter(|&i| key(i) > 1e-3 * a[i].abs().max(1e-3)).count();
    format!("element {i} of {}: {} expected, {} found; {off} differ by more than 0.1 %", a.len(), a[i], b[i])
}

/// A device opened in one of the ways that tests use.
#[derive(Clone)]
pub struct Place {
    pub name: String,
    pub device: Arc<GpuDevice>,
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
