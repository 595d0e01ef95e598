//! Steps on a CUDA device: a graph where tokens are decoded, one small copy back each.

use std::sync::Arc;

use super::{
    backend::{Cuda, count},
    driver::Driver,
};
use crate::{error::Result, executor::PlanId, steps::Steps};

/// A model on a CUDA device, with its plans.
pub type CudaExecutor = Steps<Cuda>;

impl Steps<Cuda> {
    /// The device.
    pub fn driver(&self) -> &Arc<dyn Driver> {
        &self.backend.state.driver
    }

    /// Operations of a plan, and launches of its step of one token (benchmarks).
    pub fn launches(&self, plan: PlanId, length: u32) -> Result<(usize, usize)> {
        let plan = self.plan(plan)?;
        Ok((plan.ops, count(plan, length)))
    }
}
