//! The wgpu backend: Vulkan, Metal, Direct3D 12 and browsers.
//!
//! | module | what it holds |
//! |---|---|
//! | [`adapters`] | which GPUs there are, what they can do, which one to take |
//! | [`device`] | an open GPU, and what has gone wrong on it |
//! | `browser` | what wgpu does not tell of a browser's GPU |
//! | `errors` | errors that arrive outside any error scope, or later |
//! | `pipelines` | kernels compiled, once for each set of defines |
//! | `weights`, `state` | a model's weights, caches and step state on the device |
//! | `lower` | from plan operations to dispatches: buffers, uniforms, bind groups |
//! | `readback` | buffers that are mapped |
//! | `slots` | experts in slots: tables, record of choices, copies in host memory |
//! | `backend` | what `steps` asks of a device: one pass and one submission for each part of a step |
//! | [`exec`] | a model on a GPU, and its plans |

pub mod adapters;
mod backend;
#[cfg(target_arch = "wasm32")]
mod browser;
pub mod device;
mod errors;
pub mod exec;
pub(crate) mod lower;
mod pipelines;
mod readback;
mod slots;
mod state;
mod weights;

#[cfg(not(target_arch = "wasm32"))]
pub use adapters::enumerate_gl;
pub use adapters::{AdapterChoice, AdapterDescription, DeviceOptions, GpuAdapter, Tier, enumerate, enumerate_with, pick};
pub use device::GpuDevice;
pub use exec::GpuExecutor;

use std::sync::Arc;

use crate::error::{Error, Result};

/// Opens the best GPU that is no software adapter; `None` where there is none.
pub async fn open_best() -> Result<Option<Arc<GpuDevice>>> {
    match pick(AdapterChoice::Auto).await? {
        Some(adapter) => adapter.open(DeviceOptions::default()).await.map(Some),
        None => Ok(None),
    }
}

/// Opens the adapter of that index, whatever it is; `None`: the best that is no software adapter.
///
/// # Errors
///
/// [`Error::NoAdapter`], which lists what there is.
pub async fn open(index: Option<usize>) -> Result<Arc<GpuDevice>> {
    let choice = index.map_or(AdapterChoice::Auto, AdapterChoice::Index);
    match pick(choice).await? {
        Some(adapter) => adapter.open(DeviceOptions::default()).await,
        None => {
            let all: Vec<_> = enumerate().await.into_iter().map(|a| a.description).collect();
            Err(Error::NoAdapter { wanted: "wgpu (a GPU that is no software adapter)".into(), available: adapters::list(&all) })
        }
    }
}
