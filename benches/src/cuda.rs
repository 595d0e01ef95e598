//! `cuda`: everything that is to be known of the CUDA backend on a machine that has such a GPU, in one go. For every published
//! shape and format: prefill, decoding at several depths and its share of what memory allows, beside Pleiad's other devices and
//! llama.cpp; and what the time of a token is spent on.
//!
//! Models are made of random weights, and kept. A contender that fails is a row with its error. The tables and the JSON are written
//! anew after every run.

use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use pleiad_models::synth::Shape;
use serde_json::Value;

use self::{
    files::Model,
    report::Report,
    row::{Ended, Row, Sample},
};
use crate::{
    offload::{Peer, minutes, span},
    outputs::Outputs,
    program::{self, Stopped, parts},
    stats,
};

mod files;
mod plan;
mod report;
mod row;

/// Arguments of `cuda`.
#[derive(Args, Debug)]
pub struct CudaArgs {
    /// Where models are made and kept
    #[arg(long, value_name = "DIR", default_value = "bench-models")]
    folder: PathBuf,
    /// Shapes, as `pleiad synth` names them
    #[arg(long, value_delimiter = ',', default_value = "deepseek-v2-lite,moonlight,glm-4.7-flash", value_parser = shape)]
    shape: Vec<Shape>,
    /// Formats of the weights
    #[arg(long, value_enum, value_delimiter = ',', default_value = "bf16,fp8,q4_k")]
    format: Vec<Form>,
    /// Only the first N layers of each shape, to try things out
    #[arg(long, value_name = "N")]
    layers: Option<usize>,
    /// Pleiad's devices, in turn; ratios are to the first
    #[arg(long, value_delimiter = ',', default_value = "cuda:0,wgpu")]
    device: Vec<String>,
    /// A llama-bench, as name=path; several: once each
    #[arg(long, value_name = "NAME=PATH")]
    peer: Vec<Peer>,
    /// The pleiad binary, built with the feature `cuda` [default: the one beside this program]
    #[arg(long)]
    pleiad: Option<PathBuf>,
    /// Tokens of the prompts [default: 512,4096; quick: 512]
    #[arg(short, long, value_delimiter = ',')]
    prompt: Vec<usize>,
    /// Tokens to decode [default: 128; quick: 32]
    #[arg(short = 'n', long)]
    predict: Option<usize>,
    /// Positions that the context has before tokens are decoded [default: 1024,8192,32768; quick: 1024,8192]
    #[arg(short, long, value_delimiter = ',')]
    depth: Vec<usize>,
    /// Rounds: each runs every contender once [default: 3; quick: 1]
    #[arg(short, long)]
    rounds: Option<usize>,
    /// Less of everything that is not asked for
    #[arg(long)]
    quick: bool,
    /// Only runs whose description has this text: a shape, a format, a device, `depth`, `profile`
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Remove each model after its runs, where the disk does not hold all of them
    #[arg(long)]
    discard: bool,
    /// After so many minutes what is running is stopped and what remains is skipped
    #[arg(long, value_name = "M")]
    limit_minutes: Option<f64>,
    /// One run that takes longer has failed
    #[arg(long, value_name = "M", default_value_t = 15.0)]
    run_minutes: f64,
    /// Write every figure to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the tables to this file [default: that of --json with the extension md]
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
    /// Print the commands and run none of them
    #[arg(long)]
    dry_run: bool,
}

fn shape(name: &str) -> Result<Shape, String> {
    let names = || Shape::ALL.map(Shape::name).join(", ");
    Shape::from_name(name).ok_or_else(|| format!("known are {}", names()))
}

/// Format of the weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// As published
    Bf16,
    /// In blocks of 128x128, a Hugging Face directory
    Fp8,
    /// llama.cpp's mix Q4_K_M
    #[value(name = "q4_k")]
    Q4K,
}

impl Form {
    /// As `pleiad synth` names it.
    fn quant(self) -> &'static str {
        match self {
            Self::Bf16 => "BF16",
            Self::Fp8 => "F8_E4M3",
            Self::Q4K => "Q4_K_M",
        }
    }
}

/// What all runs have in common.
#[derive(Clone, Debug)]
pub struct Setting {
    pleiad: String,
    prompts: Vec<usize>,
    predict: usize,
    depths: Vec<usize>,
    rounds: usize,
    /// Unix time in seconds.
    started: u64,
}

impl Setting {
    fn new(args: &CudaArgs) -> Self {
        let or = |given: &[usize], all: &[usize], quick: &[usize]| match given {
            [] if args.quick => quick.to_vec(),
            [] => all.to_vec(),
            given => given.to_vec(),
        };
        Self {
            pleiad: args.pleiad.clone().unwrap_or_else(program::pleiad).display().to_string(),
            prompts: or(&args.prompt, &[512, 4096], &[512]),
            predict: args.predict.unwrap_or(if args.quick { 32 } else { 128 }),
            depths: or(&args.depth, &[1024, 8192, 32_768], &[1024, 8192]),
            rounds: args.rounds.unwrap_or(if args.quick { 1 } else { 3 }).max(1),
            started: SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs()),
        }
    }
}

/// Runs `cuda`.
pub fn run(args: &CudaArgs) -> Result<()> {
    let setting = Setting::new(args);
    let models: Vec<Model> =
        args.shape.iter().flat_map(|&shape| args.format.iter().map(move |&form| Model::new(args, shape, form))).collect();
    let rows: Vec<Row> = models.iter().enumerate().flat_map(|(i, m)| plan::rows(args, &setting, i, m)).collect();
    if rows.is_empty() {
        bail!("there is nothing to measure");
    }
    if args.dry_run {
        for (i, model) in models.iter().enumerate().filter(|(i, _)| rows.iter().any(|r| r.model == *i)) {
            print(&(model.make(&setting.pleiad).join(" ") + "\n"));
            rows.iter().filter(|r| r.model == i).for_each(|r| print(&(r.command.join(" ") + "\n")));
        }
        return Ok(());
    }
    let devices = program::json(&parts([&setting.pleiad, "devices", "--json"]), None)?;
    if let Some(why) = missing(&args.device, &devices) {
        bail!(why);
    }
    let mut report = Report { setting, models, rows };
    let files = Outputs::new(args.json.as_ref(), args.markdown.as_ref());
    // Before anything runs: a path that cannot be written is found out now.
    files.write(&report.markdown(), &report.json())?;
    let outcome = measure(args, &mut report, &files);
    print(&report.markdown());
    outcome?;
    if report.rows.iter().all(|r| r.samples.is_empty()) {
        bail!("nothing could be measured");
    }
    Ok(())
}

/// Why a CUDA device that was asked for cannot be used; `devices` is what `pleiad devices --json` says.
fn missing(wanted: &[String], devices: &Value) -> Option<String> {
    let there: Vec<&str> =
        devices["cuda"]["devices"].as_array().into_iter().flatten().filter_map(|d| d["device"].as_str()).collect();
    let lacks = |name: &&String| match name.as_str() {
        "cuda" | "cuda:all" => there.is_empty(),
        name => name.starts_with("cuda:") && !there.contains(&name),
    };
    let name = wanted.iter().find(lacks)?;
    let why = match devices["cuda"]["error"].as_str() {
        Some(why) => why.to_owned(),
        None if there.is_empty() => "this machine has no CUDA device".into(),
        None => format!("there are {}", there.join(", ")),
    };
    Some(format!("{name} cannot be used: {why}"))
}

/// What is left to do, and how long it may take.
struct Clock {
    start: Instant,
    limit: Option<Instant>,
    longest: Duration,
    /// Runs to do in all, and done.
    total: usize,
    done: usize,
}

impl Clock {
    fn over(&self) -> bool {
        self.limit.is_some_and(|l| Instant::now() >= l)
    }

    /// Seconds left: what runs took so far, for those that are left.
    fn left(&self) -> f64 {
        self.start.elapsed().as_secs_f64() / self.done.max(1) as f64 * (self.total - self.done.min(self.total)) as f64
    }

    fn say(&self, what: &str) {
        let left = if self.done == 0 { String::new() } else { format!(", {} left", span(self.left())) };
        eprintln!("[{}/{}, {}{left}] {what}", self.done, self.total, span(self.start.elapsed().as_secs_f64()));
    }
}

/// Model by model: makes it, and runs every contender once a round, in every second round backwards.
fn measure(args: &CudaArgs, report: &mut Report, files: &Outputs) -> Result<()> {
    let rounds = report.setting.rounds;
    let start = Instant::now();
    let limit = args.limit_minutes.map(|m| start + minutes(m));
    let total = report.rows.iter().map(|r| r.kind.rounds(rounds)).sum();
    let mut clock = Clock { start, limit, longest: minutes(args.run_minutes), total, done: 0 };
    fs::create_dir_all(&args.folder).with_context(|| format!("{} cannot be made", args.folder.display()))?;
    for index in 0..report.models.len() {
        let mine: Vec<usize> = (0..report.rows.len()).filter(|&i| report.rows.get(i).is_some_and(|r| r.model == index)).collect();
        let Some(model) = report.models.get_mut(index).filter(|_| !mine.is_empty()) else { continue };
        let name = model.name();
        clock.say(&format!("{name}: the model"));
        let made = if clock.over() { Err(Stopped::Deadline) } else { model.ensure(&report.setting.pleiad, limit) };
        if let Err(stopped) = &made {
            for &i in &mine {
                let Some(row) = report.rows.get_mut(i) else { continue };
                clock.done += row.kind.rounds(rounds);
                row.ended = Some(match stopped {
                    Stopped::Deadline => Ended::Limit,
                    Stopped::Failed(why) => Ended::Failed(format!("no model: {why}")),
                });
            }
            clock.say(&format!("{name}: {stopped}"));
            files.write(&report.markdown(), &report.json())?;
            continue;
        }
        for round in 0..rounds {
            let order: Vec<usize> = if round % 2 == 1 { mine.iter().rev().copied().collect() } else { mine.clone() };
            for i in order {
                let Some(row) = report.rows.get_mut(i).filter(|r| round < r.kind.rounds(rounds)) else { continue };
                clock.done += 1;
                if row.ended.is_none() {
                    let said = once(row, &clock);
                    let label = row.label.clone();
                    files.write(&report.markdown(), &report.json())?;
                    clock.say(&format!("{label}: {said}"));
                }
            }
        }
        if let Some(model) = report.models.get(index).filter(|_| args.discard) {
            model.remove();
        }
    }
    Ok(())
}

/// Runs a row's command once; returns what to say of it.
fn once(row: &mut Row, clock: &Clock) -> String {
    if clock.over() {
        row.ended = Some(Ended::Limit);
        return "skipped".into();
    }
    let start = Instant::now();
    let deadline = clock.limit.map_or(start + clock.longest, |l| l.min(start + clock.longest));
    let result = program::json(&row.command, Some(deadline))
        .and_then(|json| Sample::new(row.kind, json, start.elapsed().as_secs_f64()).map_err(Stopped::Failed));
    match result {
        Ok(sample) => {
            let said = sample.tests.iter().map(|(name, speed)| format!("{name} {}", stats::number(Some(*speed), 1)));
            let said = said.collect::<Vec<_>>().join(", ");
            row.samples.push(sample);
            if said.is_empty() { "done".into() } else { format!("{said} tok/s") }
        }
        Err(stopped) => {
            let ended = match stopped {
                Stopped::Deadline if clock.over() => Ended::Limit,
                Stopped::Deadline => Ended::Failed(format!("took longer than {}", span(clock.longest.as_secs_f64()))),
                Stopped::Failed(why) => Ended::Failed(why),
            };
            let said = ended.to_string();
            row.ended = Some(ended);
            said
        }
    }
}

#[expect(clippy::print_stdout, reason = "the result")]
fn print(text: &str) {
    print!("{text}");
}

#[cfg(test)]
mod tests;
