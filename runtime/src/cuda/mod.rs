//! The CUDA backend: NVIDIA GPUs, by kernels of their own.
//!
//! | module | what it holds |
//! |---|---|
//! | [`choice`] | which of a machine's devices to use |
//! | [`driver`] | what is asked of a device, or of several: memory, kernels, graphs, copies |
//! | [`order`] | which launch waits for which, where several devices share the work |
//! | `nvidia` | NVIDIA's driver and compiler, found when the program runs (feature `cuda`) |
//! | `placement` | which of several devices has which part of a model |
//! | `state` | a model's weights, caches and step state on the device |
//! | `slots` | what the device knows of experts in slots |
//! | `lower` | from plan operations to launches |
//! | `backend` | what `steps` asks of a device: launches, or a graph, and one small copy back for each part of a step |
//! | [`exec`] | a model on a CUDA device, and its plans |
//! | [`profile`] | what kernels take, and what memory gives, for benchmarks |
//!
//! Nothing here but `nvidia` needs a GPU: the tests run the same kernels, compiled for the processor.

mod backend;
pub mod choice;
pub mod driver;
pub mod exec;
mod lower;
#[cfg(all(feature = "cuda", not(target_arch = "wasm32")))]
mod nvidia;
pub mod order;
mod placement;
pub mod profile;
mod slots;
mod state;

pub use choice::CudaDevices;
pub use driver::{DeviceInfo, Driver, Variant};
pub use exec::CudaExecutor;
#[cfg(all(feature = "cuda", not(target_arch = "wasm32")))]
pub use nvidia::devices;

use std::sync::Arc;

use crate::error::{Error, Result};

/// Most devices that share a model.
pub const MAX_DEVICES: usize = 16;

/// The CUDA devices of this machine.
///
/// # Errors
///
/// This program was built without the backend.
#[cfg(not(all(feature = "cuda", not(target_arch = "wasm32"))))]
pub fn devices() -> Result<Vec<DeviceInfo>> {
    let what = "this program was built without the cuda feature; try --device wgpu";
    Err(Error::Invalid(what.into()))
}

/// Opens the CUDA device of that index; `None`: the first.
///
/// # Errors
///
/// A driver or compiler that is missing, no such device, one that is too old, or a program built without the backend.
pub fn open(index: Option<usize>) -> Result<Arc<dyn Driver>> {
    open_all(&[index.unwrap_or(0)])
}

/// The names of a driver's devices.
pub fn names(driver: &dyn Driver) -> String {
    driver.devices().iter().map(|d| d.name.as_str()).collect::<Vec<_>>().join(" + ")
}

/// Opens the CUDA devices of these indices as one, the first of which has a model's first layers; none: all there are.
///
/// # Errors
///
/// As [`open`], an index twice, or a device that does not see another's memory.
pub fn open_all(indices: &[usize]) -> Result<Arc<dyn Driver>> {
    let all: Vec<usize> = if indices.is_empty() { (0..devices()?.len()).collect() } else { indices.to_vec() };
    if let Some(twice) = all.iter().enumerate().find(|(n, index)| all[..*n].contains(index)).map(|(_, index)| index) {
        return Err(Error::Invalid(format!("cuda:{twice} is named twice")));
    }
    if all.len() > MAX_DEVICES {
        let (needed, limit) = (all.len() as u64, MAX_DEVICES as u64);
        return Err(Error::Limit { what: "GPUs that share a model".into(), needed, limit });
    }
    #[cfg(all(feature = "cuda", not(target_arch = "wasm32")))]
    return nvidia::open(&all);
    #[cfg(not(all(feature = "cuda", not(target_arch = "wasm32"))))]
    devices().and_then(|found| {
        let (wanted, available) = (format!("cuda:{}", all.first().unwrap_or(&0)), format!("{} devices", found.len()));
        Err(Error::NoAdapter { wanted, available })
    })
}

/// Kernels of `device` cannot use the memory of `other`.
pub fn no_access(device: &str, other: &str) -> Error {
    let what =
        format!("{device} cannot use the memory of {other}, so that they cannot share a model; name GPUs of one kind that");
    Error::Gpu(format!("{what} are joined by NVLink or one PCIe switch, or one GPU alone"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

    use super::*;

    #[test]
    fn devices_that_cannot_share_are_named() {
        let words = no_access("cuda:0 (A)", "cuda:2 (B)").to_string();
        assert!(words.contains("cuda:0 (A) cannot use the memory of cuda:2 (B)"), "{words}");
        // Before any driver is asked.
        let error = open_all(&[1, 0, 1]).err().unwrap();
        assert!(error.to_string().contains("cuda:1 is named twice"), "{error}");
        let error = open_all(&(0..=MAX_DEVICES).collect::<Vec<_>>()).err().unwrap();
        assert!(matches!(error, Error::Limit { limit: 16, .. }), "{error}");
    }
}
