//! The CPU's kernels: matrix products in every format, quantisation of activations, latent attention.
//!
//! | module | what it holds |
//! |---|---|
//! | [`pool`] | threads that share the tasks of a call |
//! | [`isa`] | instruction sets, found at run time |
//! | [`matmul`](mod@matmul) | jobs, cut into tasks |
//! | `rows` | rows of weights by up to four rows of activations: decoding |
//! | `panel` | panels of weights by many rows of f32 activations: prefill |
//! | `vnni` | both for 8-bit activations with AVX-512 |
//! | `bytes` | panels for 8-bit activations with AVX2 |
//! | [`quantise`](mod@quantise) | activations to 8 bits |
//! | [`attend`](mod@attend) | attention over the latent cache |
//! | `simd` | vectors of each instruction set behind one trait |
//! | `fields`, `chunk` | where the fields of blocks lie, and how they are unpacked |
//!
//! Every output element is computed by one task in an order that depends on shapes alone, so results do not depend on
//! the number of threads.

#![allow(clippy::needless_range_loop, reason = "loops over small arrays of registers that must unroll")]
#![allow(clippy::needless_pass_by_value, reason = "a kernel is a value that is used up")]
#![allow(clippy::missing_safety_doc, reason = "trait methods of `simd` and `vnni` share one contract, at the trait")]

pub mod attend;
#[cfg(target_arch = "x86_64")]
mod bytes;
mod chunk;
mod fields;
pub mod isa;
pub mod matmul;
mod panel;
pub mod pool;
pub mod quantise;
mod rows;
mod simd;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod vnni;

pub use attend::{AttendArgs, CacheRows, attend};
pub use isa::Isa;
pub use matmul::{Input, Job, Output, matmul};
pub use pool::Pool;
pub use quantise::quantise;

/// What kernels run on: an instruction set and a pool of threads.
pub struct Cpu {
    isa: Isa,
    pool: Pool,
}

impl Cpu {
    /// The best instruction set of this machine, with `threads` threads; `None` means one for each processor.
    pub fn new(threads: Option<usize>) -> Self {
        Self { isa: Isa::detect(), pool: Pool::new(threads) }
    }

    /// A given instruction set; `None` where the machine lacks it.
    pub fn with_isa(isa: Isa, threads: Option<usize>) -> Option<Self> {
        Isa::available().contains(&isa).then(|| Self { isa, pool: Pool::new(threads) })
    }

    /// The instruction set, which the machine has.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Threads, the caller's included.
    pub fn threads(&self) -> usize {
        self.pool.threads()
    }

    /// Runs `task(i)` for every i in `0..tasks` on all threads: see [`Pool::parallel`].
    pub fn parallel(&self, tasks: usize, task: impl Fn(usize) + Sync) {
        self.pool.parallel(tasks, task);
    }
}
