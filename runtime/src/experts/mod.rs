//! Experts that do not all fit the GPU: what goes where, who may stay, and how misses are served.
//!
//! | module | what it holds |
//! |---|---|
//! | [`budget`] | one memory budget, shared by weights, expert slots and latent cache |
//! | [`balance`] | which GPU of several holds which experts and layers |
//! | [`bank`] | the host's packed experts: the bytes that a slot holds |
//! | [`policy`] | how hot an expert is |
//! | [`residency`] | which expert lives in which slot |
//! | [`ways`] | the choice among gather, CPU and resume, measured while decoding |
//! | [`profile`] | which experts a model used before, for a warm start |
//! | `record` | words of tables, record and heat on a device |
//! | [`trace`], [`replay`] | what was routed and served; what other policies would have made of it |
//! | [`walk`] | routing with locality for benchmarks with random weights |
//! | `cold` | missing experts on the CPU |

pub mod balance;
pub mod bank;
pub mod budget;
pub(crate) mod cold;
pub mod policy;
pub mod profile;
pub(crate) mod record;
pub mod replay;
pub mod residency;
pub mod trace;
pub mod walk;
pub mod ways;

use serde::{Deserialize, Serialize};

/// Where a model's experts are, and how misses are served.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ExpertReport {
    /// The memory budget in bytes; `None`: whatever the device had.
    pub budget: Option<u64>,
    /// Bytes planned on the device: weights, slots, latent cache, working memory.
    pub device_bytes: u64,
    /// Bytes of the slots among them.
    pub slot_bytes: u64,
    /// Experts a mixture layer.
    pub experts: usize,
    /// Slots of each mixture layer.
    pub slots: Vec<usize>,
    /// Further slots of each, with copies of experts, where several GPUs share them.
    #[serde(default)]
    pub copies: Vec<usize>,
    /// Where the host's experts are; `None`: all experts are resident.
    pub bank: Option<bank::BankKind>,
    /// How misses were served; `None`: there can be none.
    pub ways: Option<ways::WaysReport>,
    /// What went differently from what was asked for.
    pub notices: Vec<String>,
}
