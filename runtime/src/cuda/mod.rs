//! The CUDA backend: NVIDIA GPUs, by kernels of their own.
//!
//! | module | what it holds |
//! |---|---|
//! | [`driver`] | what is asked of a device: memory, kernels, graphs, copies |
//! | `nvidia` | NVIDIA's driver and compiler, found when the program runs (feature `cuda`) |
//! | `state` | a model's weights, caches and step state on the device |
//! | `lower` | from plan operations to launches |
//! | [`exec`] | steps: launches, or a graph, and one small copy back |
//!
//! All experts are resident. Nothing here but `nvidia` needs a GPU: the tests run the same kernels, compiled for the processor.

pub mod driver;
pub mod exec;
mod lower;
mod state;

pub use driver::{DeviceInfo, Driver, Variant};
pub use exec::CudaExecutor;
