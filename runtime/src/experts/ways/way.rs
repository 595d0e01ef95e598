//! The ways, who chooses among them, and what is told of the choice.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::Error;

/// How missing experts of a token are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    /// A kernel reads them from a host-visible bank into slots.
    Gather,
    /// The CPU computes them while the GPU computes the resident ones.
    Cpu,
    /// The plan stops at the layer, the host uploads them into slots, the plan resumes.
    Resume,
}

impl Way {
    /// Whether every missing expert comes to live in a slot.
    pub fn admits_all(self) -> bool {
        self != Self::Cpu
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Gather => "gather",
            Self::Cpu => "cpu",
            Self::Resume => "resume",
        })
    }
}

impl FromStr for Way {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self, Error> {
        match s {
            "gather" => Ok(Self::Gather),
            "cpu" => Ok(Self::Cpu),
            "resume" => Ok(Self::Resume),
            _ => Err(Error::Invalid(format!("no such way of serving missing experts: {s}; there are gather, cpu and resume"))),
        }
    }
}

/// Who chooses the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum WayChoice {
    /// What measures best.
    #[default]
    Auto,
    /// The user.
    Only(Way),
}

impl WayChoice {
    /// Whether it can be had where the model runs.
    ///
    /// # Errors
    ///
    /// In a browser, for all but [`Way::Resume`]: kernels cannot read host memory there, and nothing may run beside the worker.
    pub fn check(self, browser: bool) -> Result<(), Error> {
        match self {
            Self::Only(way @ (Way::Gather | Way::Cpu)) if browser => Err(Error::Invalid(format!(
                "in a browser missing experts can only be uploaded while the model waits: choose auto or resume, not {way}"
            ))),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for WayChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.pad("auto"),
            Self::Only(way) => way.fmt(f),
        }
    }
}

impl FromStr for WayChoice {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self, Error> {
        if s == "auto" { Ok(Self::Auto) } else { s.parse().map(Self::Only) }
    }
}

impl From<WayChoice> for String {
    fn from(choice: WayChoice) -> Self {
        choice.to_string()
    }
}

impl TryFrom<String> for WayChoice {
    type Error = Error;

    fn try_from(s: String) -> Result<Self, Error> {
        s.parse()
    }
}

/// What is known of a decoded token besides its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// How its misses were served.
    pub way: Way,
    /// Experts that were missing, over all layers.
    pub misses: u32,
    /// Layers in which at least one was.
    pub layers_missed: u32,
}

/// What the choice rests on, for `--json` and the app.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WaysReport {
    /// Who chooses.
    pub choice: WayChoice,
    /// The way in use, probes aside.
    pub chosen: Way,
    /// Short runs of other ways, for measuring.
    pub probes: u64,
    /// Changes from way to way, those for probes included.
    pub switches: u64,
    /// Times that a way's cost was seen to change.
    pub drifts: u64,
    /// Share of all time that probes cost beyond what the chosen way would have taken.
    pub probing: f64,
    /// Every available way.
    pub ways: Vec<WayReport>,
}

/// What was measured of a way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WayReport {
    /// The way.
    pub way: Way,
    /// Tokens decoded with it.
    pub tokens: u64,
    /// Their share of all tokens.
    pub share: f64,
    /// Robust mean of the seconds of its recent tokens that missed; `None` before the first.
    pub seconds_per_token: Option<f64>,
    /// Mean misses of those tokens.
    pub misses_per_token: Option<f64>,
    /// What a token is expected to take with the misses that this way has now; `None` where nothing is known.
    pub expected_seconds: Option<f64>,
}
