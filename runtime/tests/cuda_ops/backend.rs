//! What the operations run on: the CUDA backend on an emulated device.

use std::sync::Arc;

use pleiad_runtime::cuda::Driver;

pub use pleiad_runtime::cuda::CudaExecutor as DeviceExecutor;

use crate::emulator::{Emulator, compiler};

pub type Device = dyn Driver;

/// A device that tests use.
#[derive(Clone)]
pub struct Place {
    pub name: String,
    pub device: Arc<Device>,
}

/// The emulated device. Says so by name if there is none.
pub fn places(test: &str) -> Vec<Place> {
    let Some(compiler) = compiler() else {
        println!("SKIPPED {test}: no C++ compiler (g++ or clang++, on Linux)");
        return Vec::new();
    };
    vec![Place { name: "emulated CUDA".into(), device: Arc::new(Emulator::new(compiler)) }]
}

/// [`places`]: there is one way to open it.
pub fn all_places(test: &str) -> Vec<Place> {
    places(test)
}
