//! What a run of the suite found on one adapter. Its JSON is published: `schema` in it counts the changes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The version of the format.
pub const SCHEMA: u32 = 1;

/// What was found on one adapter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`] of the program that wrote it.
    pub schema: u32,
    /// The program and its version.
    pub program: String,
    /// When it began, RFC 3339 in UTC.
    pub date: String,
    /// What was asked for.
    pub settings: Settings,
    /// What it ran on.
    pub identity: Identity,
    /// Its tests, in the order in which they ran.
    pub tests: Vec<Test>,
    /// Whether every test that was listed has a result here.
    pub complete: bool,
}

/// What a run is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// The short form: fewer shapes, values and repetitions.
    pub quick: bool,
    /// Default limits of WebGPU, no optional features.
    pub strict: bool,
    /// Only tests whose id contains one of these; none: all.
    pub only: Vec<String>,
}

/// An adapter, and the software around it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Identity {
    /// The adapter's own name.
    pub name: String,
    /// Discrete, integrated, virtual or software.
    pub kind: String,
    /// `Vulkan`, `Metal`, `Dx12`, `Gl` or `BrowserWebGpu`.
    pub backend: String,
    /// The driver, with its version, as far as it tells.
    pub driver: String,
    /// PCI ids; 0: not told.
    pub vendor_id: u32,
    /// PCI ids; 0: not told.
    pub device_id: u32,
    /// Whether it computes on the CPU.
    pub software: bool,
    /// Versions of what lies between: `wgpu`, `naga`, `browser`, ...
    pub versions: BTreeMap<String, String>,
    /// The operating system and architecture.
    pub platform: String,
    /// Names of features that the device was opened with.
    pub features: Vec<String>,
    /// Limits that the device was opened with.
    pub limits: BTreeMap<String, u64>,
    /// Smallest and largest size of a subgroup that the adapter tells; none without subgroups.
    pub subgroup_sizes: Option<(u32, u32)>,
    /// Sizes of subgroups that kernels saw.
    pub subgroup_sizes_seen: Vec<u32>,
    /// The tier of kernels that models would use: `plain` or `subgroup`.
    pub tier: String,
}

/// What one test found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Test {
    /// `section/...`, the same on every adapter: `scalar/exp/f32`, `kernel/matvec/Q4_K/subgroup/rows 3 columns 4096`. Parts are
    /// separated by `/`; the first names one of [`crate::suite::SECTIONS`].
    pub id: String,
    /// How it ended.
    pub verdict: Verdict,
    /// Why, where it did not pass; what else is worth telling, where it did.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub words: String,
    /// What was measured, by the names of [`crate::suite::MEASURES`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub measures: BTreeMap<String, Measure>,
    /// Seconds that it took.
    pub seconds: f64,
}

/// A number, and what bounds it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Measure {
    /// The number. Not finite: `null` in JSON.
    #[serde(deserialize_with = "finite_or_nan")]
    pub value: f64,
    /// `ulp`, `GB/s`, `us`, ... Empty: a pure number.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub unit: String,
    /// The largest value with which the test passes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub most: Option<f64>,
    /// The smallest value with which the test passes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub least: Option<f64>,
    /// Where it was found: an index, an argument in hexadecimal, ...
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub at: String,
    /// Points of a curve, for plots: error over K, GB/s over bytes, ULP over the argument.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub curve: Vec<(f64, f64)>,
}

/// How a test ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Within every bound.
    Pass,
    /// Outside some bound, or an error of the device.
    Fail,
    /// Not run: the words say what is missing.
    Skip,
    /// It measures and judges nothing.
    Info,
    /// The process that ran it ended.
    Crash,
    /// It took too long and was ended.
    Timeout,
    /// It failed, as declared.
    ExpectedFail,
    /// It passed, though declared to fail.
    UnexpectedPass,
}

impl Verdict {
    /// Whether this is what a run should end with.
    pub fn is_good(self) -> bool {
        matches!(self, Self::Pass | Self::Skip | Self::Info | Self::ExpectedFail)
    }
}

impl Measure {
    /// Whether the value is within its bounds. A value that is no number never is.
    pub fn is_within(&self) -> bool {
        let bounded = self.most.is_some() || self.least.is_some();
        !bounded || self.most.is_none_or(|m| self.value <= m) && self.least.is_none_or(|l| self.value >= l)
    }
}

/// JSON has no NaN and no infinity: `serde_json` writes `null` for them.
fn finite_or_nan<'de, D: serde::Deserializer<'de>>(d: D) -> Result<f64, D::Error> {
    Ok(Option::<f64>::deserialize(d)?.unwrap_or(f64::NAN))
}
