//! `pleiad bench`: prefill and decode speed, measured as llama-bench measures them.
//!
//! Every test runs once to warm up, then `-r` times, each time with other random tokens, so that nothing is found in the
//! cache. Prefill is the time to the first token of a prompt of p tokens; decode is the time of n tokens after the
//! first one of a prompt of one token.

use std::{num::NonZeroUsize, time::Instant};

use anyhow::{Result, anyhow, bail};
use clap::{Args, ValueEnum};
use pleiad_models::inspect;
use pleiad_runtime::{
    Engine, Event, GenerateOptions, SamplingParams,
    engine::GenerationStats,
    executor::DeviceStats,
    experts::{ExpertReport, walk::Routing},
};
use serde::Serialize;

use self::cases::{Case, Kind, tests};
use super::{
    args::{EngineArgs, ModelArgs},
    open::{self, Opened},
    term::{Bar, Stream, Unit, size},
};

mod cases;

/// Arguments of `pleiad bench`.
#[derive(Args, Clone, Debug)]
pub struct BenchArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    /// Tokens of the prompts to read, one test each; 0: none
    #[arg(short = 'p', long, value_name = "P,...", value_delimiter = ',', default_value = "512")]
    pub n_prompt: Vec<usize>,
    /// Tokens to generate, one test each; 0: none
    #[arg(short = 'n', long, value_name = "N,...", value_delimiter = ',', default_value = "128")]
    pub n_gen: Vec<usize>,
    /// Positions that the context has before tokens are generated, for each -n a test each
    #[arg(short = 'd', long, value_name = "D,...", value_delimiter = ',', default_value = "0")]
    pub n_depth: Vec<usize>,
    /// Instead of all tests, time each kernel of the step that decodes a token, at these lengths of the context (CUDA)
    #[arg(long, value_name = "L,...", value_delimiter = ',')]
    pub profile: Vec<u32>,
    /// Repetitions of each test
    #[arg(short, long, value_name = "R", default_value = "5")]
    pub repetitions: NonZeroUsize,
    /// Form of the result
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Form,
    /// uniform: tokens choose experts by the weights, which is almost uniform if these are random; walk: selection biases wander
    /// besides, so that a token's experts resemble those of the tokens before it
    #[arg(long, value_name = "ROUTING", default_value = "uniform")]
    pub routing: Routing,
    #[command(flatten)]
    pub engine: EngineArgs,
}

/// `--output`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// A Markdown table
    #[default]
    Md,
    /// JSON
    Json,
}

/// What the random numbers begin with.
const FIRST: u64 = 0x9e37_79b9_7f4a_7c15;

/// Everything that was measured.
#[derive(Serialize)]
struct Report {
    version: &'static str,
    model: String,
    source: String,
    parameters: u64,
    active_parameters: u64,
    weight_bytes: u64,
    device: String,
    backend: String,
    activations: pleiad_runtime::Activations,
    cache: pleiad_runtime::CacheFormat,
    /// `None`: all.
    threads: Option<usize>,
    /// `None`: the device's default.
    in_flight: Option<usize>,
    /// Tokens drafted for each step; `None`: as many as pay.
    draft: Option<usize>,
    chunk: usize,
    context: usize,
    /// From opening the file to an engine that is ready.
    load_seconds: f64,
    /// From opening the file to the first token of the first request, whose kernels were prepared for it.
    first_token_seconds: f64,
    tests: Vec<Test>,
    /// Where experts were, and how misses were served.
    experts: Option<ExpertReport>,
    routing: Routing,
    memory: Memory,
}

#[derive(Serialize)]
struct Memory {
    /// Most memory that the process had resident, mapped files included; `None` where the system does not tell.
    peak_host_bytes: Option<u64>,
    /// Weights on the device.
    weight_bytes: u64,
}

#[derive(Serialize)]
struct Test {
    /// `pp512`, `tg128`, `tg128 @ d1024`, as llama-bench calls them.
    name: String,
    kind: Kind,
    tokens: usize,
    /// Positions that the context has before.
    depth: usize,
    tokens_per_second: Statistics,
    /// Prefill: mean seconds from the request to its first token.
    #[serde(skip_serializing_if = "Option::is_none")]
    seconds_to_first_token: Option<f64>,
    /// Decode: what came of drafts, where any were made.
    #[serde(skip_serializing_if = "Option::is_none")]
    drafts: Option<Drafts>,
    /// Decode: what one token takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    per_token: Option<PerToken>,
}

/// Drafts of all repetitions.
#[derive(Serialize)]
struct Drafts {
    drafted: usize,
    accepted: usize,
    /// Share of the drafts that were right.
    acceptance: f64,
    tokens_per_step: f64,
}

#[derive(Debug, PartialEq, Serialize)]
struct Statistics {
    mean: f64,
    /// Of the sample; 0 for one repetition.
    stddev: f64,
    each: Vec<f64>,
}

/// What decoding one token takes: counted on the device, over all repetitions.
#[derive(Serialize)]
struct PerToken {
    dispatches: f64,
    submissions: f64,
    readbacks: f64,
    bind_groups: f64,
    uploaded_bytes: f64,
    /// Computed from the shapes and formats in the file.
    weight_bytes_read: u64,
    /// Experts that a token uses and that are resident; all of them where nothing is left out.
    expert_hits: f64,
    expert_misses: f64,
    /// Bytes of experts moved to the device.
    expert_bytes: f64,
    /// Times that the host served misses while the device waited.
    rendezvous: f64,
}

impl Statistics {
    fn of(each: Vec<f64>) -> Self {
        let n = each.len().max(1) as f64;
        let mean = each.iter().sum::<f64>() / n;
        let squares: f64 = each.iter().map(|x| (x - mean).powi(2)).sum();
        Self { mean, stddev: if each.len() > 1 { (squares / (n - 1.0)).sqrt() } else { 0.0 }, each }
    }
}

/// Runs `pleiad bench`.
pub fn run(args: &BenchArgs) -> Result<()> {
    if !args.profile.is_empty() {
        return super::profile::run(args);
    }
    let tests = tests(args);
    let Some(needed) = tests.iter().map(Case::positions).max() else {
        bail!("nothing to measure: both -p and -n are 0");
    };
    let mut options = args.engine.options()?;
    let context = options.context.unwrap_or(needed);
    if context < needed {
        bail!("--ctx-size {context}: these tests need {needed}");
    }
    options.context = Some(context);
    options.routing = args.routing;
    let json = args.output == Form::Json;
    let start = Instant::now();
    let opened = open::engine(&args.model.model, options.clone(), json)?;
    let module = opened.checkpoint.config.num_mtp_layers > 0 && options.draft != Some(0);
    let mut bench = Bench { engine: &opened.engine, drafts: true, random: FIRST };
    bench.generate(1, 1, false)?;
    let first_token_seconds = start.elapsed().as_secs_f64();

    let what = inspect::describe(&opened.checkpoint);
    let mut bar = Bar::new("Measuring", Unit::Of("runs"), json);
    let runs = (tests.len() * (args.repetitions.get() + 1)) as u64;
    let mut done = 0;
    let mut results = Vec::new();
    for case in tests {
        // Where tokens are drafted, decoding is measured without drafts as well, in turns.
        let ways: &[bool] = if module && case.kind == Kind::Decode { &[true, false] } else { &[true] };
        let mut each = vec![Vec::new(); ways.len()];
        for repetition in 0..=args.repetitions.get() {
            bar.set(done, runs);
            // The positions before a decoding test are the same each time, so that they are computed once.
            let random = if case.depth > 0 { FIRST } else { bench.random };
            for (each, &drafts) in each.iter_mut().zip(ways) {
                (bench.drafts, bench.random) = (drafts, random);
                let stats = bench.test(case)?;
                // The first one warms up.
                if repetition > 0 {
                    each.push(stats);
                }
            }
            done += 1;
        }
        for (each, &drafts) in each.iter().zip(ways) {
            let mut result = test(case, each, &opened, what.parameters.active_bytes);
            if !drafts {
                result.name += " draft 0";
            }
            results.push(result);
        }
    }
    bar.clear();

    let info = opened.engine.info();
    let report = Report {
        version: env!("CARGO_PKG_VERSION"),
        model: info.model.clone(),
        source: what.source.clone(),
        parameters: what.parameters.total,
        active_parameters: what.parameters.active,
        weight_bytes: info.weight_bytes,
        device: info.device.clone(),
        backend: info.backend.clone(),
        activations: info.activations,
        cache: options.cache,
        threads: options.threads,
        in_flight: options.in_flight,
        draft: options.draft,
        chunk: options.chunk,
        context: info.context,
        load_seconds: opened.seconds,
        first_token_seconds,
        tests: results,
        experts: opened.engine.experts(),
        routing: args.routing,
        memory: Memory { peak_host_bytes: peak_host_bytes(), weight_bytes: info.weight_bytes },
    };
    let mut out = Stream::stdout();
    if json { out.json(&report) } else { print(&mut out, &report) }
}

struct Bench<'a> {
    engine: &'a Engine,
    drafts: bool,
    random: u64,
}

impl Bench<'_> {
    fn test(&mut self, Case { kind, tokens, depth }: Case) -> Result<GenerationStats> {
        match kind {
            Kind::Prefill => self.generate(tokens, 1, false),
            Kind::Decode => self.generate(depth.max(1), tokens + 1, depth > 0),
        }
    }

    /// Reads `prompt` random tokens and generates `tokens` more, whatever they are. `again`: some of them may be in the cache.
    fn generate(&mut self, prompt: usize, tokens: usize, again: bool) -> Result<GenerationStats> {
        let vocab = self.engine.config().vocab_size as u64;
        let ids = (0..prompt).map(|_| (self.next() % vocab) as u32).collect();
        let options = GenerateOptions { max_tokens: Some(tokens), end: Vec::new(), routing: false };
        let session = self.engine.session();
        let session = if self.drafts { session } else { session.without_drafts() };
        let mut generation = session.generate(ids, SamplingParams::default(), options);
        while let Some(event) = generation.next_blocking() {
            match event {
                Event::Done { stats, .. } if (again || stats.reused_tokens == 0) && stats.generated_tokens == tokens => {
                    return Ok(stats);
                }
                Event::Done { stats, .. } => bail!(
                    "a run generated {} of {tokens} tokens and found {} in the cache",
                    stats.generated_tokens,
                    stats.reused_tokens
                ),
                Event::Failed(error) => return Err(error.into()),
                // Figures of two devices would be mixed.
                Event::Notice(notice) => bail!("{notice}"),
                Event::Prompt(_) | Event::Routed(_) | Event::Token { .. } => {}
            }
        }
        Err(anyhow!("the engine ended without an answer"))
    }

    /// xorshift64*.
    fn next(&mut self) -> u64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }
}

fn test(case: Case, each: &[GenerationStats], opened: &Opened, active_bytes: u64) -> Test {
    let Case { kind, tokens, depth } = case;
    let seconds = |s: &GenerationStats| if kind == Kind::Prefill { s.prefill_seconds } else { s.decode_seconds };
    let rates = each.iter().map(|s| tokens as f64 / seconds(s).max(1e-9)).collect();
    let mean_seconds = each.iter().map(seconds).sum::<f64>() / each.len().max(1) as f64;
    let decoded = (tokens * each.len()).max(1) as f64;
    let a_token = |count: fn(&DeviceStats) -> u64| each.iter().map(|s| count(&s.decode_device)).sum::<u64>() as f64 / decoded;
    let sum = |count: fn(&GenerationStats) -> usize| each.iter().map(count).sum::<usize>();
    let (drafted, accepted, steps) = (sum(|s| s.drafted), sum(|s| s.accepted), sum(|s| s.steps));
    let drafts = (kind == Kind::Decode && drafted > 0).then(|| Drafts {
        drafted,
        accepted,
        acceptance: accepted as f64 / drafted as f64,
        tokens_per_step: decoded / steps.max(1) as f64,
    });
    let config = &opened.checkpoint.config;
    let mixtures = (0..config.num_layers).filter(|&i| config.is_moe(i)).count();
    Test {
        name: case.name(),
        kind,
        tokens,
        depth,
        tokens_per_second: Statistics::of(rates),
        seconds_to_first_token: (kind == Kind::Prefill).then_some(mean_seconds),
        drafts,
        per_token: (kind == Kind::Decode).then(|| PerToken {
            dispatches: a_token(|d| d.dispatches),
            submissions: a_token(|d| d.submissions),
            readbacks: a_token(|d| d.readbacks),
            bind_groups: a_token(|d| d.bind_groups),
            uploaded_bytes: a_token(|d| d.uploaded_bytes),
            weight_bytes_read: active_bytes,
            expert_hits: match opened.engine.experts().and_then(|e| e.bank) {
                Some(_) => a_token(|d| d.expert_hits),
                None => (config.moe.as_ref().map_or(0, |m| m.top_k) * mixtures) as f64,
            },
            expert_misses: a_token(|d| d.expert_misses),
            expert_bytes: a_token(|d| d.expert_bytes),
            rendezvous: a_token(|d| d.rendezvous),
        }),
    }
}

/// The most memory that this process had resident, where Linux tells.
fn peak_host_bytes() -> Option<u64> {
    peak_in(&std::fs::read_to_string("/proc/self/status").ok()?)
}

fn peak_in(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

fn print(out: &mut Stream, r: &Report) -> Result<()> {
    let name = if r.model.is_empty() { &r.source } else { &r.model };
    out.line(&format!("| {:<28} | {:>10} | {:<30} | {:>8} | {:>20} |", "model", "size", "device", "test", "tok/s"))?;
    out.line(&format!("| {:-<28} | {:->9}: | {:-<30} | {:->7}: | {:->19}: |", "", "", "", "", ""))?;
    for t in &r.tests {
        let rate = format!("{:.2} ± {:.2}", t.tokens_per_second.mean, t.tokens_per_second.stddev);
        out.line(&format!("| {name:<28} | {:>10} | {:<30} | {:>8} | {rate:>20} |", size(r.weight_bytes), r.device, t.name))?;
    }
    out.line("")?;
    for t in &r.tests {
        if let Some(p) = &t.per_token {
            out.line(&format!(
                "{}: a token takes {:.1} dispatches, {:.2} submissions, {:.2} readbacks, {:.2} bind groups made, {} of weights, \
                 {:.0} bytes uploaded",
                t.name,
                p.dispatches,
                p.submissions,
                p.readbacks,
                p.bind_groups,
                size(p.weight_bytes_read),
                p.uploaded_bytes
            ))?;
        }
    }
    for (t, d) in r.tests.iter().filter_map(|t| Some((t, t.drafts.as_ref()?))) {
        out.line(&format!(
            "{}: {} of {} drafts right ({:.1} %), {:.2} tokens a step",
            t.name,
            d.accepted,
            d.drafted,
            100.0 * d.acceptance,
            d.tokens_per_step
        ))?;
    }
    if let Some(e) = r.experts.as_ref().filter(|e| e.bank.is_some()) {
        let slots: usize = e.slots.iter().sum();
        out.line(&format!(
            "{slots} of {} experts resident, {} planned on the device",
            e.experts * e.slots.len(),
            size(e.device_bytes)
        ))?;
        for p in r.tests.iter().filter_map(|t| t.per_token.as_ref()) {
            let used = (p.expert_hits + p.expert_misses).max(1.0);
            out.line(&format!(
                "a token found {:.1} % of its experts; {} moved, {:.2} rendezvous",
                100.0 * p.expert_hits / used,
                size(p.expert_bytes as u64),
                p.rendezvous
            ))?;
        }
        if let Some(ways) = &e.ways {
            out.line(&serde_json::to_string(ways)?)?;
        }
    }
    let peak = r.memory.peak_host_bytes.map_or_else(String::new, |b| format!("; at most {} resident", size(b)));
    Ok(out.line(&format!("ready after {:.2} s, first token after {:.2} s{peak}", r.load_seconds, r.first_token_seconds))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_of_a_sample() {
        let s = Statistics::of(vec![2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0]);
        assert_eq!(s.mean, 5.0);
        assert!((s.stddev - (32.0f64 / 7.0).sqrt()).abs() < 1e-12);
        assert_eq!(Statistics::of(vec![3.0]).stddev, 0.0);
    }

    #[test]
    fn peak_memory_as_linux_writes_it() {
        assert_eq!(peak_in("VmPeak:\t 10 kB\nVmHWM:\t     2048 kB\nVmRSS:\t 1 kB\n"), Some(2048 * 1024));
        assert_eq!(peak_in("nothing"), None);
    }
}
