//! The CPU backend: interprets plans, on all cores.
//!
//! It has two ways through every operation: the fast one ([`kernels`]: SIMD chosen at run time) and the plain one
//! ([`crate::twins`]), which tests take as their oracle.

mod buffers;
mod executor;
mod expanded;
pub mod kernels;
mod rows;

pub use executor::CpuExecutor;
pub(crate) use executor::available_memory;
