//! `offload`: models whose experts do not all fit the GPU. For every model, routing and share of resident experts each way
//! to serve misses, beside llama.cpp with as many layers' experts on the GPU, and everything on the CPU; in one go.
//!
//! A contender that fails is a row with its error. The tables and the JSON are written anew after every run.

use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};

use self::{
    fit::{Fit, Share},
    report::{Entry, Report},
    row::{Ended, Row, Sample},
};
use crate::{
    outputs::Outputs,
    program::{self, Stopped, parts},
    stats,
};

mod fit;
mod plan;
mod report;
mod row;

pub use self::{plan::Peer, report::write};

/// Arguments of `offload`.
#[derive(Args, Debug)]
pub struct OffloadArgs {
    /// A GGUF file; several: once each
    #[arg(short, long, required = true)]
    model: Vec<String>,
    /// A llama-bench, as name=path; several: once each
    #[arg(long, value_name = "NAME=PATH")]
    peer: Vec<Peer>,
    /// The pleiad binary [default: the one beside this program]
    #[arg(long)]
    pleiad: Option<PathBuf>,
    /// Pleiad's devices, in turn
    #[arg(long, value_delimiter = ',', default_value = "auto")]
    device: Vec<String>,
    /// How tokens choose experts: as the file says, which is nearly uniform for random weights, or with biases that wander
    #[arg(long, value_enum, value_delimiter = ',', default_value = "uniform,walk")]
    routing: Vec<Routing>,
    /// Shares of resident experts, in percent, and `floor` [default: 100,75,50,25,floor]
    #[arg(long, value_delimiter = ',')]
    shares: Vec<Share>,
    /// How misses are served
    #[arg(long, value_enum, value_delimiter = ',', default_value = "gather,cpu,resume,auto")]
    ways: Vec<Way>,
    /// Tokens of the prompt
    #[arg(short, long, default_value_t = 512)]
    prompt: usize,
    /// Tokens to decode [default: 64]
    #[arg(short = 'n', long)]
    predict: Option<usize>,
    /// Rounds: each runs every contender once [default: 3]
    #[arg(short, long)]
    rounds: Option<usize>,
    /// Longest context, in tokens [default: what the tests need]
    #[arg(short, long)]
    ctx_size: Option<usize>,
    /// Tokens of a prompt computed at once, by all programs
    #[arg(long, default_value_t = 512)]
    chunk: usize,
    /// CPU threads of all programs
    #[arg(short, long)]
    threads: Option<usize>,
    /// Pleiad's directory of packed experts and profiles; `none`: nowhere
    #[arg(long)]
    cache_dir: Option<PathBuf>,
    /// Without the runs that are on the CPU altogether
    #[arg(long)]
    no_cpu: bool,
    /// Less of everything that is not asked for: -n 16, one round, 100, 50 % and the floor
    #[arg(long)]
    quick: bool,
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

/// How tokens choose experts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Routing {
    /// As the file says
    Uniform,
    /// With biases that wander
    Walk,
}

impl Routing {
    fn name(self) -> &'static str {
        if self == Self::Uniform { "uniform" } else { "walk" }
    }

    fn title(self) -> &'static str {
        if self == Self::Uniform { "as in the file (uniform for random weights)" } else { "by wandering biases (walk)" }
    }
}

/// How misses are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Way {
    /// Kernels copy experts from host memory
    Gather,
    /// The CPU computes them
    Cpu,
    /// They are uploaded while the GPU waits
    Resume,
    /// Chosen while decoding
    Auto,
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Self::Gather => "gather",
            Self::Cpu => "cpu",
            Self::Resume => "resume",
            Self::Auto => "auto",
        }
    }
}

/// What all runs have in common.
#[derive(Clone, Debug)]
pub struct Setting {
    pleiad: String,
    shares: Vec<Share>,
    prompt: usize,
    predict: usize,
    rounds: usize,
    context: usize,
    chunk: usize,
    /// Unix time in seconds.
    started: u64,
}

impl Setting {
    fn new(args: &OffloadArgs) -> Self {
        let predict = args.predict.unwrap_or(if args.quick { 16 } else { 64 });
        let percents: &[f64] = if args.quick { &[100.0, 50.0] } else { &[100.0, 75.0, 50.0, 25.0] };
        let shares = percents.iter().map(|&p| Share::Percent(p)).chain([Share::Floor]).collect();
        // `pleiad bench` takes two positions more than a prompt, and three more than it decodes.
        let needed = (args.prompt + 2).max(predict + 3).next_multiple_of(64);
        Self {
            pleiad: args.pleiad.clone().unwrap_or_else(program::pleiad).display().to_string(),
            shares: if args.shares.is_empty() { shares } else { args.shares.clone() },
            prompt: args.prompt,
            predict,
            rounds: args.rounds.unwrap_or(if args.quick { 1 } else { 3 }).max(1),
            context: args.ctx_size.unwrap_or(needed),
            chunk: args.chunk,
            started: SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs()),
        }
    }
}

/// Runs `offload`.
pub fn run(args: &OffloadArgs) -> Result<()> {
    let setting = Setting::new(args);
    let mut models = Vec::new();
    let mut rows = Vec::new();
    for (i, path) in args.model.iter().enumerate() {
        let fit = examine(&setting, path);
        match &fit {
            Ok(fit) => rows.extend(plan::rows(args, &setting, i, path, fit)),
            Err(why) => eprintln!("{path}: {why}"),
        }
        models.push(Entry { path: path.clone(), fit });
    }
    if rows.is_empty() {
        bail!("there is nothing to measure");
    }
    if args.dry_run {
        print(&rows.iter().map(|r| r.command.join(" ") + "\n").collect::<String>());
        return Ok(());
    }
    let mut report = Report { setting, routing: args.routing.clone(), models, rows };
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

/// What a model needs, or why nobody knows.
fn examine(setting: &Setting, path: &str) -> Result<Fit, String> {
    let (context, chunk) = (setting.context.to_string(), setting.chunk.to_string());
    let command = parts([&setting.pleiad, "fit", path, "--json", "--ctx-size", &context, "--chunk", &chunk]);
    let json = program::json(&command, None).map_err(|e| e.to_string())?;
    Fit::from_json(&json).map_err(|e| e.to_string())
}

/// Runs every contender once a round, in turn and in every second round backwards.
fn measure(args: &OffloadArgs, report: &mut Report, files: &Outputs) -> Result<()> {
    let rounds = report.setting.rounds;
    let (start, total) = (Instant::now(), report.rows.len() * rounds);
    let limit = args.limit_minutes.map(|m| start + minutes(m));
    let guesses: Vec<f64> = report.rows.iter().map(|r| guess(r, report)).collect();
    let within = args.limit_minutes.map_or_else(String::new, |m| format!("; the limit is {m} min"));
    let estimate = remaining(&report.rows, &guesses, rounds);
    eprintln!("{total} runs; about {} by the sizes of the files, known better after the first ones{within}", span(estimate));
    let mut done = 0;
    for round in 0..rounds {
        let mut order: Vec<usize> = (0..report.rows.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for i in order {
            done += 1;
            let Some(row) = report.rows.get_mut(i).filter(|r| r.ended.is_none()) else { continue };
            let said = once(row, limit, minutes(args.run_minutes));
            let label = row.label();
            files.write(&report.markdown(), &report.json())?;
            let name = report
                .rows
                .get(i)
                .and_then(|r| report.models.get(r.model))
                .and_then(|m| m.fit.as_ref().ok())
                .map_or("", |f| &f.title);
            let left = span(remaining(&report.rows, &guesses, rounds));
            eprintln!("[{done}/{total}, {}, {left} left] {name}, {label}: {said}", span(start.elapsed().as_secs_f64()));
        }
    }
    Ok(())
}

/// Runs a row's command once; returns what to say of it.
fn once(row: &mut Row, limit: Option<Instant>, longest: Duration) -> String {
    let start = Instant::now();
    let over = |now: Instant| limit.is_some_and(|l| now >= l);
    if over(start) {
        row.ended = Some(Ended::Limit);
        return "skipped".into();
    }
    let deadline = limit.map_or(start + longest, |l| l.min(start + longest));
    let result = program::json(&row.command, Some(deadline)).and_then(|json| {
        let seconds = start.elapsed().as_secs_f64();
        Sample::new(json, seconds).map_err(Stopped::Failed)
    });
    match result {
        Ok(sample) => {
            let (speeds, hits) = (sample.speeds, sample.experts.as_ref().and_then(|e| e.hit_rate));
            let hits = hits.map_or_else(String::new, |h| format!(", {} hits", stats::percent(Some(h))));
            row.samples.push(sample);
            format!("prefill {}, decode {} tok/s{hits}", stats::number(speeds.prefill, 1), stats::number(speeds.decode, 2))
        }
        Err(stopped) => {
            row.ended = Some(match stopped {
                Stopped::Deadline if over(Instant::now()) => Ended::Limit,
                Stopped::Deadline => Ended::Failed(format!("took longer than {}", span(longest.as_secs_f64()))),
                Stopped::Failed(why) => Ended::Failed(why),
            });
            row.notes(usize::MAX)
        }
    }
}

/// Seconds that a run may take, before any was seen: the file is read at 1 GB/s, and every test runs twice.
fn guess(row: &Row, report: &Report) -> f64 {
    let size = report.models.get(row.model).and_then(|m| fs::metadata(&m.path).ok()).map_or(0, |m| m.len()) as f64;
    let (prefill, decode) = if row.share.is_some() { (500.0, 20.0) } else { (50.0, 8.0) };
    1.0 + size / 1e9 + 2.0 * (report.setting.prompt as f64 / prefill + report.setting.predict as f64 / decode)
}

/// Seconds that the runs still to do may take: as long as those of the same row did, else as guessed, corrected by how far
/// the guesses of the rows measured were off.
fn remaining(rows: &[Row], guesses: &[f64], rounds: usize) -> f64 {
    let mean = |r: &Row| stats::median(&r.samples.iter().map(|s| s.seconds).collect::<Vec<_>>());
    let seen = rows.iter().zip(guesses).filter_map(|(r, g)| Some(mean(r)? / g)).collect::<Vec<_>>();
    let correction = stats::median(&seen).unwrap_or(1.0);
    let open = rows.iter().zip(guesses).filter(|(r, _)| r.ended.is_none());
    open.map(|(r, g)| (rounds.saturating_sub(r.samples.len())) as f64 * mean(r).unwrap_or(g * correction)).sum()
}

/// So many minutes, of whatever a user may say.
pub fn minutes(m: f64) -> Duration {
    // A day is more than anything takes.
    Duration::from_secs_f64((m * 60.0).clamp(0.0, 86_400.0))
}

/// Seconds or minutes, for people.
pub fn span(seconds: f64) -> String {
    if seconds < 100.0 { format!("{seconds:.0} s") } else { format!("{:.0} min", seconds / 60.0) }
}

#[expect(clippy::print_stdout, reason = "the result")]
fn print(text: &str) {
    print!("{text}");
}

#[cfg(test)]
mod tests;
