//! One run of the plan, and what came of it.

use std::fmt;

use serde_json::Value;

use super::plan::Kind;
use crate::stats;

/// One contender, for one purpose.
#[derive(Debug)]
pub struct Row {
    /// Which of the models.
    pub model: usize,
    /// What for.
    pub kind: Kind,
    /// The contender: Pleiad and its device, or a peer.
    pub name: String,
    /// The whole in a few words.
    pub label: String,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// What was measured, a round each.
    pub samples: Vec<Sample>,
    /// Why there are no more.
    pub ended: Option<Ended>,
}

/// Why a row ended before its last round.
#[derive(Clone, Debug, PartialEq)]
pub enum Ended {
    /// In words.
    Failed(String),
    /// The time for all rows was over.
    Limit,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(why) => f.write_str(why),
            Self::Limit => f.write_str("the time limit was reached"),
        }
    }
}

impl Row {
    /// The median over the rounds of a test's tokens per second.
    pub fn speed(&self, test: &str) -> Option<f64> {
        let of = |s: &Sample| s.tests.iter().find(|(name, _)| name == test).map(|(_, speed)| *speed);
        stats::median(&self.samples.iter().filter_map(of).collect::<Vec<_>>())
    }

    /// What should be known beside the figures.
    pub fn notes(&self, rounds: usize) -> String {
        let (done, rounds) = (self.samples.len(), self.kind.rounds(rounds));
        match &self.ended {
            Some(ended) if done == 0 => format!("{}: {ended}", self.kind.name()),
            Some(ended) => format!("{}: {done} of {rounds} rounds: {ended}", self.kind.name()),
            None if done == 0 => format!("{}: not measured yet", self.kind.name()),
            None if done < rounds => format!("{}: {done} of {rounds} rounds so far", self.kind.name()),
            None => String::new(),
        }
    }
}

/// One run's result.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Tests, as llama-bench names them, and their tokens per second.
    pub tests: Vec<(String, f64)>,
    /// What a profile found.
    pub profile: Option<Profile>,
    /// Bytes of weights that a token reads, where Pleiad tells.
    pub weight_bytes: Option<f64>,
    /// How long the run took.
    pub seconds: f64,
    /// All that it printed.
    pub report: Value,
}

impl Sample {
    /// Reads what a run printed.
    pub fn new(kind: Kind, report: Value, seconds: f64) -> Result<Self, String> {
        if kind == Kind::Profile {
            let profile = Profile::new(&report)?;
            let weight_bytes = Some(profile.weight_bytes);
            return Ok(Self { tests: Vec::new(), profile: Some(profile), weight_bytes, seconds, report });
        }
        let list = report["tests"].as_array().or(report.as_array()).ok_or("there is no list of tests in its output")?;
        let tests = list.iter().map(test).collect::<Result<Vec<_>, _>>()?;
        let weight_bytes = list.iter().find_map(|t| t["per_token"]["weight_bytes_read"].as_f64());
        Ok(Self { tests, profile: None, weight_bytes, seconds, report })
    }
}

/// A test's name and tokens per second, from either program.
fn test(test: &Value) -> Result<(String, f64), String> {
    let speed = |v: &Value| v.as_f64().filter(|v| v.is_finite()).ok_or("a test in its output has no speed".to_owned());
    if let Some(mean) = test.get("avg_ts") {
        let count = |key: &str| test[key].as_u64().unwrap_or(0);
        let name = match (count("n_prompt"), count("n_gen"), count("n_depth")) {
            (p, 0, 0) => format!("pp{p}"),
            (p, 0, d) => format!("pp{p} @ d{d}"),
            (_, n, 0) => format!("tg{n}"),
            (_, n, d) => format!("tg{n} @ d{d}"),
        };
        return Ok((name, speed(mean)?));
    }
    let name = test["name"].as_str().ok_or("a test in its output has no name")?;
    Ok((name.to_owned(), speed(&test["tokens_per_second"]["mean"])?))
}

/// What `pleiad bench --profile` reports.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    /// Bytes a second of a copy, read and written.
    pub bandwidth: f64,
    /// Bytes of weights that a token reads.
    pub weight_bytes: f64,
    /// By the length of the context.
    pub steps: Vec<Step>,
}

/// The step of one token.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// Positions that it sees.
    pub length: u64,
    /// Seconds of the whole.
    pub seconds: f64,
    /// Bytes of the latent caches that it reads.
    pub cache_bytes: f64,
    /// What its kernels take, those that take longest first.
    pub terms: Vec<Term>,
}

/// Launches of one kernel for one purpose.
#[derive(Clone, Debug, PartialEq)]
pub struct Term {
    /// The kernel, and what it makes.
    pub name: String,
    /// Launches in a step.
    pub launches: u64,
    /// Seconds of all of them.
    pub seconds: f64,
}

impl Step {
    /// Seconds of its kernels, timed by themselves.
    pub fn sum(&self) -> f64 {
        self.terms.iter().map(|t| t.seconds).sum()
    }

    /// Seconds of the attention kernels.
    pub fn attention(&self) -> f64 {
        self.terms.iter().filter(|t| t.name.starts_with("attend")).map(|t| t.seconds).sum()
    }
}

impl Profile {
    fn new(json: &Value) -> Result<Self, String> {
        let number = |v: &Value, what: &str| v.as_f64().filter(|x| x.is_finite()).ok_or(format!("its output has no {what}"));
        let list = |v: &'_ Value, what: &str| v.as_array().cloned().ok_or(format!("its output has no {what}"));
        let term = |k: &Value| {
            let [kernel, makes] = ["kernel", "makes"].map(|key| k[key].as_str().unwrap_or(""));
            let name = if makes.is_empty() { kernel.to_owned() } else { format!("{kernel}: {makes}") };
            Ok(Term { name, launches: k["launches"].as_u64().unwrap_or(0), seconds: number(&k["seconds"], "seconds")? })
        };
        let step = |s: &Value| {
            let terms = list(&s["kernels"], "kernels")?.iter().map(term).collect::<Result<_, String>>()?;
            let (seconds, cache_bytes) = (number(&s["seconds"], "seconds")?, number(&s["cache_bytes"], "cache_bytes")?);
            Ok(Step { length: s["length"].as_u64().unwrap_or(0), seconds, cache_bytes, terms })
        };
        Ok(Self {
            bandwidth: number(&json["copy_bytes_per_second"], "copy_bytes_per_second")?,
            weight_bytes: number(&json["weight_bytes_read"], "weight_bytes_read")?,
            steps: list(&json["steps"], "steps")?.iter().map(step).collect::<Result<_, String>>()?,
        })
    }
}
