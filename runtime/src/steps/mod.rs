//! Steps through prepared plans on a GPU, however it is driven: what wgpu and CUDA have in common.
//!
//! Several steps may be in flight: the sampled token feeds the next step on the device, and each step leaves a small result that is
//! fetched later. A step is one submission and one readback while every expert that it chooses is resident; one whose layers
//! miss experts takes more (see `misses`).
//!
//! | module | what it holds |
//! |---|---|
//! | `backend` | what is asked of a device |
//! | `plan`, `dispatch`, `acts` | a prepared plan: its parts, which dispatches they are made of, its activations |
//! | `exec` | a model on a device, its plans, steps that are submitted and waited for |
//! | `send` | submissions and their results |
//! | `result` | what a step leaves for the host |
//! | `access` | what callers read and write besides |
//! | `tables` | experts in slots, as the host sees them on the device |
//! | `place` | how a model comes to be placed, with less where memory is refused |
//! | `serve` | what the host keeps to serve misses |
//! | `misses` | steps that miss experts |
//! | `stream` | experts on their way to slots, one by one or whole layers |
//! | `account` | what is learnt from a step that is over |

mod access;
mod account;
mod acts;
mod backend;
mod dispatch;
mod exec;
mod misses;
mod place;
mod plan;
mod result;
mod send;
mod serve;
mod stream;
mod tables;

pub use acts::{most_rows, parts_of, row_words};
pub use backend::{Backend, Lowered, MAX_IDS, RING_WORDS, Shared, Span};
pub use dispatch::{Case, Dim, Scheduled, When, select};
pub use exec::Steps;
pub use plan::{Part, Prepared, StepShape};
pub use tables::Tables;
