//! What the operations run on: the CUDA backend on an emulated device, and on a real one where the feature `cuda` finds one.

use std::sync::{Arc, OnceLock};

use pleiad_runtime::cuda::{self, Driver};

pub use pleiad_runtime::cuda::CudaExecutor as DeviceExecutor;

use crate::emulator::{Emulator, compiler};

pub type Device = dyn Driver;

/// A device that tests use.
#[derive(Clone)]
pub struct Place {
    pub name: String,
    pub device: Arc<Device>,
}

/// The emulated device, and the first real one. Says so by name if there is none.
pub fn places(test: &str) -> Vec<Place> {
    static REAL: OnceLock<Option<Place>> = OnceLock::new();
    let open = || cuda::open(None).ok().map(|device| Place { name: device.info().name.clone(), device });
    let mut all: Vec<Place> = REAL.get_or_init(open).iter().cloned().collect();
    match compiler() {
        Some(compiler) => all.push(Place { name: "emulated CUDA".into(), device: Arc::new(Emulator::new(compiler)) }),
        None => println!("SKIPPED {test} on an emulated device: no C++ compiler (g++ or clang++, on Linux)"),
    }
    all
}

/// [`places`]: there is one way to open them.
pub fn all_places(test: &str) -> Vec<Place> {
    places(test)
}
