//! What would go where under a memory budget, before anything is loaded.

use super::Source;
use crate::settings::LoadSettings;

/// A model that was opened and looked at, not loaded: cheap to price again and again.
#[derive(Clone, Debug)]
pub struct Examined {
    /// Where it comes from.
    pub source: Source,
    /// What it is called.
    pub name: String,
    /// Bytes of its files.
    pub file_bytes: u64,
    /// Longest context that it was made for.
    pub max_context: usize,
    /// Its layers, experts and formats in one line: "27 layers, 64 experts, 6 a token, Q4_K".
    pub description: String,
}

/// A part of the memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// What is kept there: "weights without experts", "experts", "latent cache", "working memory".
    pub what: &'static str,
    /// Bytes on the device.
    pub device: u64,
    /// Bytes in host memory.
    pub host: u64,
}

/// What would go where.
#[derive(Clone, Debug, PartialEq)]
pub struct Price {
    /// The parts.
    pub shares: Vec<Share>,
    /// Share of experts that are resident, 0 to 1.
    pub resident: f64,
    /// The least budget that would do.
    pub least: u64,
    /// The budget with which every expert is resident.
    pub whole: u64,
    /// Why it cannot be loaded so, in words.
    pub problem: Option<String>,
    /// What small change would help much.
    pub advice: Option<String>,
}

impl Examined {
    /// What would go where with these settings.
    pub fn price(&self, settings: &LoadSettings) -> Price {
        let _ = settings;
        Price { shares: Vec::new(), resident: 1.0, least: 0, whole: 0, problem: None, advice: None }
    }
}
