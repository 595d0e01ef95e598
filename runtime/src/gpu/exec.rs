//! Steps on a device of wgpu's: one pass, one submission, one readback each.

use std::sync::Arc;

use super::{backend::Wgpu, device::GpuDevice, lower, pipelines::Variant};
use crate::{error::Result, executor::PlanId, plan::Plan, steps::Steps};

/// Kernels that a browser compiles at a time.
const TOGETHER: usize = 4;

/// A model on a GPU, with its plans.
pub type GpuExecutor = Steps<Wgpu>;

impl Steps<Wgpu> {
    /// The device.
    pub fn device(&self) -> &Arc<GpuDevice> {
        &self.backend.gpu
    }

    /// Prepares plans without blocking: kernels, each known to be taken by the driver, then buffers and bind groups. `progress` is
    /// called with kernels done and in all.
    ///
    /// # Errors
    ///
    /// Those of [`GpuExecutor::compile`].
    pub async fn prepare(&mut self, plans: &[Plan], progress: &mut dyn FnMut(u64, u64)) -> Result<Vec<PlanId>> {
        let gpu = Arc::clone(self.device());
        let mut kernels: Vec<Variant> = Vec::new();
        for plan in plans {
            for kernel in lower::kernels(&gpu, &self.backend.state, plan)? {
                if !kernels.contains(&kernel) {
                    kernels.push(kernel);
                }
            }
            gpu.settled().await?;
        }
        let all = kernels.len() as u64;
        progress(0, all);
        let mut done = 0;
        for some in kernels.chunks(TOGETHER) {
            let begun = some.iter().map(|kernel| gpu.begin(kernel)).collect::<Result<Vec<_>>>()?;
            for kernel in begun {
                gpu.end(kernel).await?;
                done += 1;
                progress(done, all);
            }
        }
        let mut ids = Vec::with_capacity(plans.len());
        for plan in plans {
            ids.push(self.compile(plan)?);
            gpu.settled().await?;
        }
        Ok(ids)
    }
}
