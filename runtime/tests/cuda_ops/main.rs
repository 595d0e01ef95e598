//! The CUDA kernels and their launches against the twins: the operations' tests of `gpu_ops`, on a device that runs the kernels'
//! own text on the processor.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a failure is a failed test; a skipped part is printed")]

#[path = "../gpu_ops/attention.rs"]
mod attention;
mod backend;
#[path = "../gpu_ops/dense.rs"]
mod dense;
#[path = "../gpu_ops/drafts.rs"]
mod drafts;
mod emulator;
#[path = "../gpu_ops/experts.rs"]
mod experts;
mod halted;
mod mixed;
mod placement;
#[path = "../gpu_ops/rows.rs"]
mod rows;
#[path = "../gpu_ops/sampling.rs"]
mod sampling;
mod several;
#[path = "../gpu_ops/slots.rs"]
mod slot_tokens;
mod slots;
#[path = "../gpu_ops/support.rs"]
mod support;
mod whole;
