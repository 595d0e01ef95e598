//! `pleiad trace`: what can be learnt from a trace of routing (`pleiad run --trace`).

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};
use pleiad_runtime::experts::{
    replay::{Policy, Replayed, Trace, replay},
    trace::{self, Recorded},
};
use serde::Serialize;

use super::{
    bench::Form,
    term::{Bar, Stream, Unit, size},
};

/// Without `--slots`: these eighths of a layer's experts.
const EIGHTHS: [usize; 4] = [1, 2, 4, 6];

/// Arguments of `pleiad trace`.
#[derive(Args, Clone, Debug)]
pub struct TraceArgs {
    #[command(subcommand)]
    command: TraceCommand,
}

#[derive(Subcommand, Clone, Debug)]
enum TraceCommand {
    /// Hit rates that other policies and numbers of slots would have had
    #[command(after_help = "\
lru: the least recently used expert leaves; lfu: the least often used; lfru: uses count half after a half-life;
static: the best set of the first half stays; belady: the best that one who knows the future could do.
All begin with empty slots, and admit every miss but for static and belady.

Examples:
  pleiad trace replay trace.csv
  pleiad trace replay trace.jsonl --slots 8,16,32 --half-life 32,128 -o json")]
    Replay(ReplayArgs),
}

/// Arguments of `pleiad trace replay`.
#[derive(Args, Clone, Debug)]
struct ReplayArgs {
    /// A trace, as CSV or JSON lines
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Experts that each layer can hold [default: 12.5, 25, 50 and 75 % of the experts in the trace]
    #[arg(long, value_name = "N,...", value_delimiter = ',')]
    slots: Vec<usize>,
    /// Tokens after which a use counts half, one row of lfru each
    #[arg(long, value_name = "TOKENS,...", value_delimiter = ',', value_parser = half_life, default_value = "16,32,64,256")]
    half_life: Vec<f32>,
    /// Form of the result
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
}

fn half_life(text: &str) -> Result<f32, String> {
    let tokens: f32 = text.parse().map_err(|e| format!("{e}"))?;
    if tokens > 0.0 && tokens.is_finite() { Ok(tokens) } else { Err("a half-life is a positive number of tokens".into()) }
}

/// What `replay` found.
#[derive(Serialize)]
struct Report {
    file: String,
    tokens: usize,
    layers: usize,
    experts: usize,
    top_k: usize,
    /// Experts chosen, over all tokens and layers.
    lookups: u64,
    recorded: RecordedReport,
    results: Vec<ResultReport>,
}

/// What the run that wrote the trace had.
#[derive(Serialize)]
struct RecordedReport {
    #[serde(flatten)]
    counts: Recorded,
    /// `None` where the model ran on the CPU.
    hit_rate: Option<f64>,
}

#[derive(Serialize)]
struct ResultReport {
    #[serde(flatten)]
    replayed: Replayed,
    hit_rate: f64,
}

/// Runs `pleiad trace`.
pub fn run(args: &TraceArgs) -> Result<()> {
    match &args.command {
        TraceCommand::Replay(args) => {
            let report = replay_all(args)?;
            let mut out = Stream::stdout();
            if args.output == Form::Json { out.json(&report) } else { Ok(out.text(&table(&report))?) }
        }
    }
}

fn replay_all(args: &ReplayArgs) -> Result<Report> {
    let rows = trace::read(&args.file)?;
    let recorded = Recorded::of(&rows);
    let trace = Trace::of(&rows).with_context(|| args.file.display().to_string())?;
    drop(rows);
    if let Some(none) = args.slots.iter().find(|&&n| n == 0) {
        bail!("--slots {none}: a layer without slots has no hits");
    }
    let mut slots = if args.slots.is_empty() { default_slots(trace.experts()) } else { args.slots.clone() };
    slots.sort_unstable();
    slots.dedup();
    let policies = policies(&args.half_life);
    let mut bar = Bar::new("Replaying", Unit::Of("runs"), args.output == Form::Json);
    let mut results = Vec::new();
    for &policy in &policies {
        for &n in &slots {
            bar.set(results.len() as u64, (policies.len() * slots.len()) as u64);
            let replayed = replay(&trace, policy, n);
            results.push(ResultReport { replayed, hit_rate: replayed.hit_rate() });
        }
    }
    bar.clear();
    Ok(Report {
        file: args.file.display().to_string(),
        tokens: trace.tokens(),
        layers: trace.layers(),
        experts: trace.experts(),
        top_k: trace.top_k(),
        lookups: trace.lookups(),
        recorded: RecordedReport { counts: recorded, hit_rate: recorded.hit_rate() },
        results,
    })
}

/// Every policy, one LFRU for each half-life.
fn policies(half_lives: &[f32]) -> Vec<Policy> {
    let lfru = half_lives.iter().map(|&half_life| Policy::Lfru { half_life });
    [Policy::Lru, Policy::Lfu].into_iter().chain(lfru).chain([Policy::Static, Policy::Belady]).collect()
}

fn default_slots(experts: usize) -> Vec<usize> {
    EIGHTHS.iter().map(|eighths| (experts * eighths).div_ceil(8)).collect()
}

/// One row a policy, one column a number of slots, and a line on the trace.
fn table(r: &Report) -> String {
    let mut slots: Vec<usize> = r.results.iter().map(|x| x.replayed.slots).collect();
    slots.sort_unstable();
    slots.dedup();
    let share = |n: usize| 100.0 * n as f64 / r.experts.max(1) as f64;
    let heads: Vec<String> = slots.iter().map(|&n| format!("{n} slots ({:.1} %)", share(n))).collect();
    let width = heads.iter().map(String::len).max().unwrap_or(0);
    let mut text = format!("| {:<12} |", "policy");
    heads.iter().for_each(|head| text += &format!(" {head:>width$} |"));
    text += &format!("\n| {:-<12} |", "");
    heads.iter().for_each(|_| text += &format!(" {:->1$}: |", "", width - 1));
    for of_policy in r.results.chunk_by(|x, y| x.replayed.policy == y.replayed.policy) {
        text += &of_policy.first().map_or_else(String::new, |x| format!("\n| {:<12} |", x.replayed.policy));
        let rate = |x: &ResultReport| format!("{:.2} %", 100.0 * x.hit_rate);
        of_policy.iter().for_each(|x| text += &format!(" {:>width$} |", rate(x)));
    }
    let recorded = match r.recorded.hit_rate {
        Some(rate) => format!("{:.2} % hits, {} moved", 100.0 * rate, size(r.recorded.counts.bytes)),
        None => "no residency, as the model ran on the CPU".into(),
    };
    let Report { tokens, layers, experts, top_k, lookups, .. } = r;
    text += &format!(
        "\n\ntokens: {tokens}, layers: {layers}, experts: {experts}, top-k: {top_k}, chosen: {lookups}; as recorded: {recorded}\n"
    );
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a failed unwrap is a failed test
    use clap::Parser;
    use pleiad_runtime::experts::trace::{Routed, Served, TraceFormat, TraceWriter};

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: TraceArgs,
    }

    fn parsed(line: &[&str]) -> Result<ReplayArgs, clap::Error> {
        let TraceCommand::Replay(args) = Line::try_parse_from(["trace", "replay"].iter().chain(line).copied())?.args.command;
        Ok(args)
    }

    #[test]
    fn arguments() {
        let args = parsed(&["t.csv"]).unwrap();
        assert_eq!((args.slots, args.half_life, args.output), (vec![], vec![16.0, 32.0, 64.0, 256.0], Form::Md));
        let args = parsed(&["t.csv", "--slots", "8,16", "--half-life", "0.5", "-o", "json"]).unwrap();
        assert_eq!((args.slots, args.half_life, args.output), (vec![8, 16], vec![0.5], Form::Json));
        for wrong in [&["t", "--half-life", "0"][..], &["t", "--half-life", "inf"], &["t", "--slots", "-1"], &[]] {
            assert!(parsed(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn slots_by_default() {
        assert_eq!(default_slots(64), [8, 16, 32, 48]);
        assert_eq!(default_slots(5), [1, 2, 3, 4]);
        assert_eq!(default_slots(1), [1, 1, 1, 1]);
    }

    /// A file with a cycle of four experts, recorded with one hit in four.
    fn cycle(name: &str) -> PathBuf {
        let row = |position: u32| {
            let (served, bytes) = if position.is_multiple_of(4) { (Served::Hit, 0) } else { (Served::Fetched, 1024) };
            Routed { position, layer: 1, rank: 0, expert: (position % 4) as u16, weight: 1.0, served, bytes }
        };
        let rows: Vec<Routed> = (0..40).map(row).collect();
        let path = std::env::temp_dir().join(format!("pleiad-{name}-{}.csv", std::process::id()));
        let mut writer = TraceWriter::new(std::fs::File::create(&path).unwrap(), TraceFormat::Csv).unwrap();
        writer.rows(&rows).unwrap();
        writer.finish().unwrap();
        path
    }

    #[test]
    fn a_table_of_a_trace() {
        let file = cycle("table");
        let args = ReplayArgs { file: file.clone(), slots: vec![4, 3, 4], half_life: vec![16.0], output: Form::Md };
        let report = replay_all(&args);
        std::fs::remove_file(&file).unwrap();
        let text = table(&report.unwrap());
        // With a slot too few recency never hits, and a fixed set hits nine times each of three; else only first uses miss.
        let expected = "\
| policy       | 3 slots (75.0 %) | 4 slots (100.0 %) |
| ------------ | ---------------: | ----------------: |
| lru          |           0.00 % |           90.00 % |";
        let words = |line: &str| line.split_whitespace().map(|w| w.trim_start_matches('-').to_owned()).collect::<Vec<_>>();
        for (line, expected) in text.lines().zip(expected.lines()) {
            assert_eq!(words(line), words(expected), "{text}");
        }
        let cells: Vec<String> = text.lines().map(|line| words(line).join(" ")).collect();
        assert!(cells.contains(&"| static | 67.50 % | 90.00 % |".to_owned()), "{text}");
        assert!(cells.iter().any(|l| l.starts_with("| lfru 16 | ") && l.ends_with(" | 90.00 % |")), "{text}");
        let last = "tokens: 40, layers: 1, experts: 4, top-k: 1, chosen: 40; as recorded: 25.00 % hits, 30.0 KiB moved";
        assert_eq!(text.lines().last().unwrap(), last);
        let width = text.lines().next().unwrap().len();
        assert!(text.lines().take_while(|l| !l.is_empty()).all(|l| l.len() == width), "{text}");
    }

    #[test]
    fn json_has_every_cell() {
        let file = cycle("json");
        let args = ReplayArgs { file: file.clone(), slots: vec![], half_life: vec![16.0, 64.0], output: Form::Json };
        let report = replay_all(&args);
        std::fs::remove_file(&file).unwrap();
        let value = serde_json::to_value(report.unwrap()).unwrap();
        // 1, 1, 2 and 3 slots by default; six policies.
        assert_eq!(value["results"].as_array().unwrap().len(), 6 * 3);
        let first = serde_json::json!({"policy": "lru", "slots": 1, "lookups": 40, "hits": 0, "hit_rate": 0.0});
        assert_eq!(value["results"][0], first);
        assert_eq!((&value["results"][6]["policy"], &value["results"][6]["half_life"]), (&"lfru".into(), &16.0.into()));
        let recorded = serde_json::json!({"lookups": 40, "hits": 10, "bytes": 30720, "hit_rate": 0.25});
        assert_eq!(value["recorded"], recorded);
        let shape: Vec<u64> = ["tokens", "layers", "experts", "top_k"].map(|k| value[k].as_u64().unwrap()).to_vec();
        assert_eq!(shape, [40, 1, 4, 1]);
    }

    #[test]
    fn what_cannot_be_replayed_is_refused() {
        let args = ReplayArgs { file: "no-such-trace.csv".into(), slots: vec![], half_life: vec![], output: Form::Md };
        assert!(replay_all(&args).unwrap_err_string().starts_with("no-such-trace.csv: "));
        let file = cycle("zero");
        let refused = replay_all(&ReplayArgs { file: file.clone(), slots: vec![0], ..args });
        std::fs::remove_file(&file).unwrap();
        assert!(refused.unwrap_err_string().contains("--slots 0"));
    }

    trait UnwrapErrString {
        fn unwrap_err_string(self) -> String;
    }

    impl UnwrapErrString for Result<Report> {
        fn unwrap_err_string(self) -> String {
            self.err().unwrap().to_string()
        }
    }
}
