//! Side by side: Pleiad and llama.cpp on the same file, machine and threads, in alternating runs.
//!
//!     cargo run --release -p pleiad-benches -- --model v2-lite.gguf --peer path/to/llama-bench
//!
//! Alternating the runs spreads what else the machine does over both. Figures are medians of the runs' means, and
//! ratios compare runs of one invocation only.

use std::{path::PathBuf, process::Command};

use anyhow::{Context, Result, bail};
use clap::Parser;
use serde_json::Value;

/// Compares `pleiad bench` with llama.cpp's `llama-bench`.
#[derive(Parser)]
struct Args {
    /// A GGUF file.
    #[arg(long)]
    model: PathBuf,
    /// llama.cpp's llama-bench.
    #[arg(long)]
    peer: Option<PathBuf>,
    /// The pleiad binary.
    #[arg(long, default_value = "target/release/pleiad")]
    pleiad: PathBuf,
    /// Pleiad's devices, in turn.
    #[arg(long, value_delimiter = ',', default_value = "cpu")]
    device: Vec<String>,
    /// Threads of both.
    #[arg(short, long)]
    threads: Option<usize>,
    /// Tokens of the prompt.
    #[arg(short, long, default_value_t = 512)]
    prompt: usize,
    /// Tokens to decode.
    #[arg(short = 'n', long, default_value_t = 32)]
    predict: usize,
    /// Rounds: each runs every contender once.
    #[arg(short, long, default_value_t = 3)]
    rounds: usize,
}

/// Tokens per second of one contender.
struct Contender {
    name: String,
    command: Vec<String>,
    prefill: Vec<f64>,
    decode: Vec<f64>,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let model = args.model.display().to_string();
    let common = [("-p", args.prompt), ("-n", args.predict), ("-r", 1)];
    let common: Vec<String> = common.iter().flat_map(|(k, v)| [(*k).to_owned(), v.to_string()]).collect();
    let threads = args.threads.map_or_else(Vec::new, |t| vec!["-t".to_owned(), t.to_string()]);
    let mut contenders: Vec<Contender> = args
        .device
        .iter()
        .map(|device| {
            let mut command = vec![args.pleiad.display().to_string(), "bench".into(), "-m".into(), model.clone()];
            command.extend(["--device".into(), device.clone(), "-o".into(), "json".into()]);
            command.extend(common.iter().chain(&threads).cloned());
            Contender { name: format!("pleiad {device}"), command, prefill: Vec::new(), decode: Vec::new() }
        })
        .collect();
    if let Some(peer) = &args.peer {
        let mut command = vec![peer.display().to_string(), "-m".into(), model.clone(), "-o".into(), "json".into()];
        command.extend(common.iter().chain(&threads).cloned());
        contenders.push(Contender { name: "llama.cpp".into(), command, prefill: Vec::new(), decode: Vec::new() });
    }
    for round in 0..args.rounds {
        for c in &mut contenders {
            eprintln!("round {} of {}: {}", round + 1, args.rounds, c.name);
            c.run()?;
        }
    }
    report(&args, &contenders);
    Ok(())
}

impl Contender {
    fn run(&mut self) -> Result<()> {
        let Some((program, arguments)) = self.command.split_first() else { bail!("nothing to run") };
        let output = Command::new(program).args(arguments).output().with_context(|| format!("{program} cannot be started"))?;
        if !output.status.success() {
            bail!("{} failed: {}", self.name, String::from_utf8_lossy(&output.stderr).trim());
        }
        let json: Value = serde_json::from_slice(&output.stdout).with_context(|| format!("{}: its output", self.name))?;
        if let Some(tests) = json["tests"].as_array() {
            for test in tests {
                let speed = test["tokens_per_second"]["mean"].as_f64().context("no speed")?;
                if test["kind"] == "prefill" { self.prefill.push(speed) } else { self.decode.push(speed) }
            }
        } else {
            for test in json.as_array().context("no list of tests")? {
                let speed = test["avg_ts"].as_f64().context("no speed")?;
                if test["n_gen"] == 0 { self.prefill.push(speed) } else { self.decode.push(speed) }
            }
        }
        Ok(())
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Prints a table; ratios are to the last contender.
#[expect(clippy::print_stdout, reason = "the result")]
fn report(args: &Args, contenders: &[Contender]) {
    let Some(last) = contenders.last() else { return };
    let base = (median(&last.prefill), median(&last.decode));
    println!("| {} | prefill {} tok/s | ratio | decode {} tok/s | ratio |", args.model.display(), args.prompt, args.predict);
    println!("|---|---|---|---|---|");
    for c in contenders {
        let (p, d) = (median(&c.prefill), median(&c.decode));
        println!("| {} | {p:.1} | {:.2} | {d:.2} | {:.2} |", c.name, p / base.0, d / base.1);
    }
}
