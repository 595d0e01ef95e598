//! Plain Rust twins of the device operations: slow, obvious, in the order of the formulas.
//!
//! Each is the oracle of the kernels of the same name. Sums run in f64 where a kernel's order of summation is
//! its own business, so that a twin is the exact answer rather than another rounding of it.

mod attention;
mod matmul;
mod router;
mod rows;

pub use attention::{AttendShape, ExpandedShape, attend, attend_expanded, latent, rope};
pub use matmul::{gated, matvec_f32, matvec_q8, silu};
pub use router::{route, score_groups};
pub use rows::{combine, join, largest, norm};
