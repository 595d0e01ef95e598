//! Which runs there are, with the commands that make them.

use super::{CudaArgs, Form, Setting, files::Model, row::Row};
use crate::{offload::Peer, program::parts};

/// What a run is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Prefill, and decoding from an empty context.
    Speed,
    /// Decoding with something in the context.
    Depth,
    /// The time of each kernel.
    Profile,
}

impl Kind {
    /// Its name in labels.
    pub fn name(self) -> &'static str {
        match self {
            Self::Speed => "speed",
            Self::Depth => "depth",
            Self::Profile => "profile",
        }
    }

    /// How often it runs. A profile has repetitions of its own.
    pub fn rounds(self, rounds: usize) -> usize {
        if self == Self::Profile { 1 } else { rounds }
    }
}

/// Tokens decoded at each depth.
const DEPTH_TOKENS: usize = 32;
/// Steps that a profile takes the median of.
const REPETITIONS: usize = 20;

/// The depths that the model has positions for, each once: a depth beyond them is cut.
pub fn depths(setting: &Setting, model: &Model) -> Vec<usize> {
    let positions = model.shape.config().max_positions;
    // What `pleiad bench` takes besides, and what a profile's repetitions take.
    let most = positions.saturating_sub(DEPTH_TOKENS + 2) / 64 * 64;
    let mut all: Vec<usize> = setting.depths.iter().map(|&d| d.min(most)).filter(|&d| d > 0).collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// The names of the tests of decoding at these depths.
pub fn depth_test(depth: usize) -> String {
    format!("tg{DEPTH_TOKENS} @ d{depth}")
}

/// The runs of one model.
pub fn rows(args: &CudaArgs, setting: &Setting, index: usize, model: &Model) -> Vec<Row> {
    let p = Plan { setting, index, model };
    let mut rows = Vec::new();
    for device in &args.device {
        rows.push(p.pleiad(device, Kind::Speed));
        rows.push(p.pleiad(device, Kind::Depth));
        // Of one device.
        if device.starts_with("cuda") && device != "cuda:all" {
            rows.push(p.pleiad(device, Kind::Profile));
        }
    }
    // llama.cpp has no FP8.
    for peer in args.peer.iter().filter(|_| model.form != Form::Fp8) {
        rows.extend([Kind::Speed, Kind::Depth].map(|kind| p.peer(peer, kind)));
    }
    let wanted = args.only.as_ref().map(|t| t.to_lowercase());
    rows.retain(|r| wanted.as_ref().is_none_or(|w| r.label.to_lowercase().contains(w)));
    if depths(setting, model).is_empty() {
        rows.retain(|r| r.kind != Kind::Depth);
    }
    rows
}

struct Plan<'a> {
    setting: &'a Setting,
    index: usize,
    model: &'a Model,
}

impl Plan<'_> {
    fn row(&self, kind: Kind, name: String, command: Vec<String>) -> Row {
        let label = format!("{}, {name}, {}", self.model.name(), kind.name());
        Row { model: self.index, kind, name, label, command, samples: Vec::new(), ended: None }
    }

    /// What both programs are told to measure.
    fn tests(&self, kind: Kind) -> Vec<String> {
        let list = |all: &[usize]| all.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
        let tests = match kind {
            Kind::Speed => parts(["-p", &list(&self.setting.prompts), "-n", &self.setting.predict.to_string()]).to_vec(),
            _ => {
                let depths = list(&depths(self.setting, self.model));
                parts(["-p", "0", "-n", &DEPTH_TOKENS.to_string(), "-d", &depths]).to_vec()
            }
        };
        [tests, parts(["-r", "1", "-o", "json"])].concat()
    }

    fn path(&self) -> String {
        self.model.path.display().to_string()
    }

    fn pleiad(&self, device: &str, kind: Kind) -> Row {
        let mut command = parts([&self.setting.pleiad, "bench", "-m", &self.path(), "--device", device]);
        if kind == Kind::Profile {
            let lengths: Vec<String> = [1].into_iter().chain(depths(self.setting, self.model)).map(|n| n.to_string()).collect();
            command.extend(parts(["--profile", &lengths.join(","), "-r", &REPETITIONS.to_string(), "-o", "json"]));
        } else {
            // llama-bench drafts nothing.
            command.extend(parts(["--draft", "0"]));
            command.extend(self.tests(kind));
        }
        self.row(kind, format!("pleiad {device}"), command)
    }

    fn peer(&self, peer: &Peer, kind: Kind) -> Row {
        let mut command = parts([&peer.path, "-m", &self.path(), "-ngl", "99", "-fa", "1"]);
        command.extend(self.tests(kind));
        self.row(kind, peer.name.clone(), command)
    }
}
