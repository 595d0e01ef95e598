//! `pleiad-benches window`: the app, drawn frame by frame into a picture instead of a window.
//!
//! What a frame costs is the CPU time of the thread that draws it: taking news, laying out, tessellating, filling buffers,
//! encoding and submitting. What the GPU does meanwhile is not part of it (a software GPU does it on other threads).

mod scenes;
mod screen;

use anyhow::{Result, ensure};
use clap::Args;
use serde_json::{Value, json};

use crate::stats::{median, number, percent, ratio, table};

/// Most CPU time of a frame, in milliseconds: half of one at 60 a second.
const BUDGET: f64 = 8.0;

/// Arguments of `pleiad-benches window`.
#[derive(Args, Clone, Debug)]
pub struct WindowArgs {
    /// Seconds of each scene
    #[arg(long, default_value_t = 6.0)]
    pub seconds: f64,
    /// Rounds of decoding with and without the experts in view
    #[arg(long, default_value_t = 5)]
    pub rounds: usize,
    /// Tokens decoded in a round
    #[arg(short, long, default_value_t = 256)]
    pub n: usize,
    /// Device that the embedded model runs on, as `pleiad --device`
    #[arg(long, default_value = "auto")]
    pub device: String,
    /// CPU threads of the engine; 0: all but one, which the window has
    #[arg(short, long, default_value_t = 0)]
    pub threads: usize,
    /// Write all figures as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<std::path::PathBuf>,
}

/// Milliseconds of CPU that frames took.
pub struct Frames(Vec<f64>);

impl Frames {
    fn at(&self, share: f64) -> Option<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted.get(((sorted.len() as f64 - 1.0) * share).round() as usize).copied()
    }

    fn row(&self, name: &str) -> Vec<String> {
        let late = self.0.iter().filter(|&&ms| ms > BUDGET).count() as f64 / self.0.len().max(1) as f64;
        let share = |s| number(self.at(s), 2);
        vec![name.into(), self.0.len().to_string(), share(0.5), share(0.95), share(0.99), share(1.0), percent(Some(late))]
    }

    fn json(&self) -> Value {
        json!({ "frames": self.0.len(), "median_ms": self.at(0.5), "p95_ms": self.at(0.95), "p99_ms": self.at(0.99), "most_ms": self.at(1.0) })
    }
}

/// Runs `pleiad-benches window`.
#[expect(clippy::print_stdout, reason = "a report")]
pub fn run(args: &WindowArgs) -> Result<()> {
    ensure!(args.seconds > 0.0 && args.rounds > 0 && args.n > 1, "--seconds, --rounds and -n must be more than nothing");
    let mut report = serde_json::Map::new();
    let mut rows = Vec::new();
    for (name, scene) in scenes::ALL {
        let frames = scene(args.seconds)?;
        rows.push(frames.row(name));
        report.insert(name.into(), frames.json());
    }
    let head = [
        ("scene", false),
        ("frames", true),
        ("median ms", true),
        ("95 %", true),
        ("99 %", true),
        ("most", true),
        ("over 8 ms", true),
    ];
    println!("{}", table(&head, &rows));

    let mut speeds = scenes::Speeds::default();
    for _ in 0..args.rounds {
        scenes::decode(args, &mut speeds)?;
    }
    let (alone, hidden, shown) = (median(&speeds.alone), median(&speeds.hidden), median(&speeds.shown));
    let rows = [
        vec!["without a window".into(), number(alone, 1), number(ratio(alone, hidden), 3)],
        vec!["window, experts hidden".into(), number(hidden, 1), number(ratio(hidden, hidden), 3)],
        vec!["window, experts shown".into(), number(shown, 1), number(ratio(shown, hidden), 3)],
    ];
    println!("{}", table(&[("decoding", false), ("tok/s", true), ("to hidden", true)], &rows));
    report.insert(
        "decode".into(),
        json!({ "alone": speeds.alone, "hidden": speeds.hidden, "shown": speeds.shown, "shown_to_hidden": ratio(shown, hidden) }),
    );
    if let Some(path) = &args.json {
        std::fs::write(path, format!("{:#}\n", Value::Object(report)))?;
    }
    Ok(())
}
