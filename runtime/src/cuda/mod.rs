//! The CUDA backend: NVIDIA GPUs, by kernels of their own.
//!
//! | module | what it holds |
//! |---|---|
//! | [`driver`] | what is asked of a device: memory, kernels, graphs, copies |
//! | `nvidia` | NVIDIA's driver and compiler, found when the program runs (feature `cuda`) |
//! | `state` | a model's weights, caches and step state on the device |
//! | `slots` | what the device knows of experts in slots |
//! | `lower` | from plan operations to launches |
//! | `backend` | what `steps` asks of a device: launches, or a graph, and one small copy back for each part of a step |
//! | [`exec`] | a model on a CUDA device, and its plans |
//!
//! Nothing here but `nvidia` needs a GPU: the tests run the same kernels, compiled for the processor.

mod backend;
pub mod driver;
pub mod exec;
mod lower;
#[cfg(all(feature = "cuda", not(target_arch = "wasm32")))]
mod nvidia;
mod slots;
mod state;

pub use driver::{DeviceInfo, Driver, Variant};
pub use exec::CudaExecutor;
#[cfg(all(feature = "cuda", not(target_arch = "wasm32")))]
pub use nvidia::devices;

use std::sync::Arc;

use crate::error::Result;

/// The CUDA devices of this machine.
///
/// # Errors
///
/// This program was built without the backend.
#[cfg(not(all(feature = "cuda", not(target_arch = "wasm32"))))]
pub fn devices() -> Result<Vec<DeviceInfo>> {
    let what = "this program was built without the cuda feature; try --device wgpu";
    Err(crate::error::Error::Invalid(what.into()))
}

/// Opens the CUDA device of that index; `None`: the first.
///
/// # Errors
///
/// A driver or compiler that is missing, no such device, one that is too old, or a program built without the backend.
pub fn open(index: Option<usize>) -> Result<Arc<dyn Driver>> {
    #[cfg(all(feature = "cuda", not(target_arch = "wasm32")))]
    return nvidia::open(index.unwrap_or(0));
    #[cfg(not(all(feature = "cuda", not(target_arch = "wasm32"))))]
    devices().and_then(|all| {
        let (wanted, available) = (format!("cuda:{}", index.unwrap_or(0)), format!("{} devices", all.len()));
        Err(crate::error::Error::NoAdapter { wanted, available })
    })
}
