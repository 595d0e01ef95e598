//! Both executors side by side, on every device that the tests are for.

use std::sync::Arc;

pub use pleiad_conformance::setup::{Rng, Setup, bits, config, floats, moe, nmse, small_attention, tensor};
use pleiad_runtime::{
    executor::StepOutput,
    experts::policy::{HALF_LIFE, Heat},
    plan::Kind,
};

use crate::backend::{Device, actual};
pub use crate::backend::{Place, all_places, places};

/// Runs on adapters, and compares.
pub trait Check {
    /// The outputs, by the twins.
    fn twin(&self) -> (Vec<Vec<u32>>, StepOutput);
    /// The outputs, by an adapter.
    fn on(&self, device: &Arc<Device>) -> (Vec<Vec<u32>>, StepOutput);
    /// Runs on every adapter; f32 and Q8 outputs must agree with the twins' within `bound` (NMSE), ids exactly.
    fn check(&self, places: &[Place], bound: f64);
}

impl Check for Setup {
    fn twin(&self) -> (Vec<Vec<u32>>, StepOutput) {
        self.expected().unwrap_or_else(|e| panic!("{}: {e}", self.name))
    }

    fn on(&self, device: &Arc<Device>) -> (Vec<Vec<u32>>, StepOutput) {
        pollster::block_on(actual(self, device)).unwrap_or_else(|e| panic!("{}: {e}", self.name))
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

/// One layer as `admit` keeps it.
pub struct Layer {
    /// The slot of each expert.
    pub slot: Vec<Option<u32>>,
    heat: Vec<Heat>,
}

impl Layer {
    /// The first experts have slots.
    pub fn new(experts: usize, slots: usize) -> Self {
        Self { slot: (0..experts).map(|e| (e < slots).then_some(e as u32)).collect(), heat: vec![Heat::default(); experts] }
    }

    /// Serves a token; says which of its experts were resident.
    pub fn token(&mut self, now: u32, chosen: &[usize]) -> Vec<bool> {
        let scores: Vec<f32> = self.heat.iter().map(|h| h.score(now, HALF_LIFE)).collect();
        let hits: Vec<bool> = chosen.iter().map(|&e| self.slot[e].is_some()).collect();
        for &e in chosen {
            self.heat[e].touch(now, HALF_LIFE);
        }
        for (&e, _) in chosen.iter().zip(&hits).filter(|(_, hit)| !**hit) {
            let resident = (0..self.slot.len()).filter(|v| self.slot[*v].is_some() && !chosen.contains(v));
            let victim = resident.min_by(|&a, &b| scores[a].total_cmp(&scores[b]).then(a.cmp(&b))).unwrap();
            self.slot[e] = self.slot[victim].take();
        }
        hits
    }
}
