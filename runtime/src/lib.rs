//! How a model is *run*: devices, the forward pass, plans, the latent cache, sampling and the engine.
//!
//! | module | what it holds |
//! |---|---|
//! | [`model`] | a checkpoint's weights as devices want them, numbered |
//! | [`forward`] | the family's forward pass, written once, recording a [`plan::Plan`] |
//! | [`plan`] | the device operations |
//! | [`twins`] | each operation's plain Rust twin: the oracle of every kernel |
//! | [`cpu`], [`gpu`], [`cuda`] | the backends |
//! | [`step`], [`q8`], [`rope`], [`sampling`], [`pages`] | what backends must agree on |
//! | `steps` | steps through plans on a GPU: what its two backends have in common |
//! | [`executor`] | one interface over the backends |
//! | [`eval`] | logits and routing of given token ids |
//! | [`engine`] | sessions, prefix reuse, generation as a stream of events |

pub mod cpu;
pub mod cuda;
pub mod engine;
pub mod error;
pub mod eval;
pub mod executor;
pub mod experts;
pub mod forward;
pub mod gpu;
pub mod model;
pub mod pages;
pub mod plan;
pub mod q8;
pub mod rope;
pub mod sampling;
pub mod step;
mod steps;
pub mod twins;

pub use engine::{Engine, EngineOptions, Event, GenerateOptions, Generation, Session};
pub use error::{Error, Result};
pub use executor::{Activations, CacheFormat, DeviceChoice};
pub use model::Model;
pub use sampling::SamplingParams;
