//! The devices there are, found beside the window: asking drivers takes time.

use super::Wake;

/// A device, for people.
#[derive(Clone, Debug, PartialEq)]
pub struct Device {
    /// What settings call it: `cpu`, `wgpu:0`.
    pub key: String,
    /// Its name.
    pub name: String,
    /// "discrete", "integrated", "software", "CPU".
    pub kind: String,
    /// Graphics interface and driver; instructions for the CPU.
    pub driver: String,
    /// Which kernels it runs: "subgroup", "plain"; empty for the CPU.
    pub tier: String,
    /// Features and limits that matter, as name and value.
    pub facts: Vec<(String, String)>,
    /// Whether `auto` means it.
    pub best: bool,
}

/// Devices that are being looked for, or were found.
#[derive(Debug, Default)]
pub struct Devices {}

impl Devices {
    /// Looks for them beside the window; `wake` when they are found.
    pub fn look(wake: &Wake) -> Self {
        let _ = wake;
        Self {}
    }

    /// What was found; `None`: not yet.
    pub fn found(&self) -> Option<&[Device]> {
        None
    }
}
