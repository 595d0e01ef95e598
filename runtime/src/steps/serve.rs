//! What the host keeps to serve a device that does not hold all experts.

use std::path::PathBuf;

use web_time::Instant;

use crate::{
    error::Result,
    experts::{
        bank::HostBank,
        cold::Cold,
        profile::Profile,
        residency::Residency,
        ways::{Chooser, Split, WayChoice, WaysReport},
    },
};

/// The host's side of experts in slots.
pub(super) struct Server {
    /// Who lives where. Behind the device's own table while `gathering`.
    pub residency: Residency,
    pub host: Option<HostBank>,
    pub cold: Option<Cold>,
    pub chooser: Chooser,
    pub split: Split,
    pub choice: WayChoice,
    /// Kernels fetch missing experts and keep the tables.
    pub gathering: bool,
    /// `on_miss` as the device has it.
    pub on_miss: u32,
    /// Most experts taken in after a token.
    pub admissions: usize,
    pub trace: bool,
    /// Recent share of tokens that missed, and of their partial layers.
    pub token_misses: f32,
    pub layer_misses: f32,
    /// When the last decoded token was done.
    pub last_done: Option<Instant>,
    /// Uses of each expert since the start, for the profile.
    pub uses: Vec<Vec<u32>>,
    pub tokens: u64,
    pub remembered: Option<Remembered>,
}

/// What is known of a model from earlier runs.
pub(super) struct Remembered {
    /// Where it is kept.
    pub directory: PathBuf,
    /// The model's name there.
    pub fingerprint: String,
    pub profile: Option<Profile>,
}

impl Server {
    /// Whether there are layers with fewer slots than experts.
    pub fn partial(&self) -> bool {
        self.host.is_some()
    }

    /// How many.
    pub fn partial_layers(&self) -> usize {
        (0..self.residency.banks()).filter(|&b| self.residency.is_partial(b)).count()
    }

    /// How misses were served.
    pub fn ways(&self) -> WaysReport {
        self.chooser.report()
    }

    /// Adds what was learnt to the profile, and keeps it.
    pub fn save_profile(&self) -> Result<()> {
        let Some(known) = self.remembered.as_ref().filter(|_| self.tokens > 0) else { return Ok(()) };
        let mut profile = known.profile.clone().unwrap_or_default();
        profile.blend(&self.uses, self.tokens);
        profile.save(&known.directory, &known.fingerprint)
    }
}
