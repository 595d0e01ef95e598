//! `pleiad conformance`: whether each adapter of this machine computes right, and how fast.
//!
//! | module | what it does |
//! |---|---|
//! | `child` | the process that meets a driver: lists adapters, or runs the suite on one |
//! | `process` | such a process, as its parent sees it |
//! | `drive` | a run on one adapter, over crashes, hangs and interruptions |
//! | `compare` | `diff`, `matrix` and `brief` |

mod child;
mod compare;
mod drive;
mod process;

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, anyhow, bail};
use clap::{Args, Subcommand, error::ErrorKind};
use pleiad_conformance::{
    expect::{self, Expectation},
    output::{self, junit, page, text},
    report::{Report, Settings},
    schema,
    session::{self, Session},
    summary::bad,
    wire::Plant,
};

use super::{
    interrupt::{self, Interrupted},
    output::write_file,
    term::{Stream, note},
};
use child::Adapter;
use drive::Drive;

/// Arguments of `pleiad conformance`.
#[derive(Args, Clone, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub struct ConformanceArgs {
    #[command(subcommand)]
    command: Option<Sub>,
    #[command(flatten)]
    suite: SuiteArgs,
}

#[derive(Subcommand, Clone, Debug)]
enum Sub {
    /// What is different between two reports: verdicts, and measures that moved; exit code 1 where a verdict became bad
    Diff(compare::DiffArgs),
    /// Reports side by side, as Markdown or as a page
    Matrix(compare::MatrixArgs),
    /// A report made small, to be kept: verdicts, and the numbers near their bounds
    Brief(compare::BriefArgs),
    /// The JSON schema of reports
    Schema,
    /// Runs in a process of its own, for the command itself
    #[command(hide = true)]
    Child,
}

#[derive(Args, Clone, Debug)]
struct SuiteArgs {
    /// all, or wgpu:N, N as `pleiad devices` counts; adapters that OpenGL alone reaches come behind those
    #[arg(long, value_name = "DEVICE", default_value = "all", value_parser = parse_which)]
    device: Which,
    /// Fewer shapes, values and repetitions
    #[arg(long)]
    quick: bool,
    /// WebGPU's default limits and no optional features, as the least browser has them
    #[arg(long)]
    strict_web: bool,
    /// Only tests whose id contains this text (repeatable)
    #[arg(long, value_name = "TEXT")]
    only: Vec<String>,
    /// Where reports go: JSON, JUnit XML and HTML for each adapter
    #[arg(long, value_name = "DIR", default_value = "pleiad-conformance")]
    out: PathBuf,
    /// Go on with the run that was interrupted in that directory
    #[arg(long)]
    resume: bool,
    /// Longest time for a test, in seconds: then its process is ended, and the run goes on behind it
    #[arg(long, value_name = "SECONDS", default_value = "300", value_parser = parse_seconds)]
    timeout: Duration,
    /// Expected failures, beside those that are built in (repeatable): a JSON list of objects with `test` (an id; * stands for any
    /// text), `adapter`, `vendor_id`, `device_id`, `backend`, `driver` {`name`, `from`, `below`}, `quick`, `verdict` and `reason`
    #[arg(long, value_name = "FILE")]
    expect: Vec<PathBuf>,
    /// Print the reports as a JSON list
    #[arg(long)]
    json: bool,
    /// Plants a failure (tests of this command): crash:ID or hang:ID
    #[arg(long, value_name = "FAILURE", value_parser = parse_plant, hide = true)]
    plant: Option<Plant>,
}

#[derive(Clone, Copy, Debug)]
enum Which {
    All,
    Index(usize),
}

fn parse_which(text: &str) -> Result<Which, String> {
    let number = |n: &str| n.parse().map(Which::Index).map_err(|_| format!("`{n}` is no device number"));
    match text.split_once(':') {
        None if text == "all" => Ok(Which::All),
        Some(("wgpu", n)) => number(n),
        _ => Err("use all or wgpu:N".into()),
    }
}

fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|s: &f64| *s > 0.0 && *s <= 1e6);
    seconds.map(Duration::from_secs_f64).ok_or_else(|| "use a number of seconds above 0".into())
}

fn parse_plant(text: &str) -> Result<Plant, String> {
    match text.split_once(':') {
        Some(("crash", id)) => Ok(Plant::Crash(id.into())),
        Some(("hang", id)) => Ok(Plant::Hang(id.into())),
        _ => Err("use crash:ID or hang:ID".into()),
    }
}

/// Runs `pleiad conformance`.
pub fn run(args: &ConformanceArgs) -> Result<()> {
    match &args.command {
        None => test(&args.suite),
        Some(Sub::Diff(args)) => compare::diff(args),
        Some(Sub::Matrix(args)) => compare::matrix(args),
        Some(Sub::Brief(args)) => compare::brief(args),
        Some(Sub::Schema) => Ok(Stream::stdout().text(schema::TEXT)?),
        Some(Sub::Child) => child::run(),
    }
}

/// What is wrong with the arguments: exit code 2.
fn misused(words: &str) -> ! {
    clap::Error::raw(ErrorKind::ValueValidation, format!("{words}\n")).exit()
}

fn expected(files: &[PathBuf]) -> Result<Vec<Expectation>> {
    let mut all = expect::built_in()?;
    for file in files {
        let name = file.display();
        let text = fs::read_to_string(file).unwrap_or_else(|e| misused(&format!("{name}: {e}")));
        all.extend(expect::parse(&text).unwrap_or_else(|e| misused(&format!("{name}: {e}"))));
    }
    Ok(all)
}

fn test(args: &SuiteArgs) -> Result<()> {
    let expected = expected(&args.expect)?;
    let settings = Settings { quick: args.quick, strict: args.strict_web, only: args.only.clone() };
    interrupt::install();
    let _asked = interrupt::guard();
    let adapters = chosen(args, &settings)?;
    fs::create_dir_all(&args.out).with_context(|| args.out.display().to_string())?;

    let (mut stems, mut reports, mut interrupted) = (Vec::new(), Vec::new(), false);
    for adapter in &adapters {
        let stem = unique(output::file_stem(&adapter.identity, args.strict_web), &mut stems);
        let mut report = match begun(args, &settings, adapter, &stem)? {
            Begun::Finished(report) => report,
            Begun::Left(session) => {
                let drive =
                    Drive { adapter, settings: &settings, timeout: args.timeout, plant: args.plant.as_ref(), quiet: args.json };
                let partial = partial(&args.out, &stem);
                let (session, was_interrupted) = drive.run(session, &partial)?;
                interrupted = was_interrupted;
                let report = session.report();
                if report.complete {
                    fs::remove_file(&partial).with_context(|| partial.display().to_string())?;
                }
                report
            }
        };
        if !settings.only.is_empty() && report.tests.is_empty() && !interrupted {
            continue;
        }
        expect::apply(&mut report, &expected);
        write(&args.out, &stem, &report)?;
        reports.push((adapter, stem, report));
        if interrupted {
            break;
        }
    }
    if reports.is_empty() {
        misused(&format!("no test's id contains {}", settings.only.join(" or ")));
    }
    show(args, &reports)?;
    if interrupted {
        note("interrupted: --resume goes on with it");
        return Err(anyhow!(Interrupted));
    }
    match reports.iter().map(|(.., r)| bad(r)).sum::<usize>() {
        0 => Ok(()),
        1 => bail!("1 test ended badly: see above, or the reports in {}", args.out.display()),
        n => bail!("{n} tests ended badly: see above, or the reports in {}", args.out.display()),
    }
}

/// The adapters that are asked for.
fn chosen(args: &SuiteArgs, settings: &Settings) -> Result<Vec<Adapter>> {
    let (found, complaints) = process::adapters(settings.strict, args.timeout)?;
    complaints.iter().for_each(|c| note(&format!("note: {c}")));
    let names = || found.iter().map(|a| format!("{} {}", a.device(), text::adapter(&a.identity))).collect::<Vec<_>>().join(", ");
    let wanted: Vec<Adapter> = match args.device {
        Which::All => found.clone(),
        Which::Index(n) => found.iter().filter(|a| a.number == n).cloned().collect(),
    };
    match args.device {
        _ if found.is_empty() => bail!("no GPU was found (Vulkan, Metal, Direct3D 12, OpenGL)"),
        Which::Index(n) if wanted.is_empty() => misused(&format!("there is no wgpu:{n}; there is {}", names())),
        _ => Ok(wanted),
    }
}

fn unique(stem: String, known: &mut Vec<String>) -> String {
    let stem =
        (1..).map(|n| if n == 1 { stem.clone() } else { format!("{stem}-{n}") }).find(|s| !known.contains(s)).unwrap_or(stem);
    known.push(stem.clone());
    stem
}

fn partial(out: &Path, stem: &str) -> PathBuf {
    out.join(format!("{stem}.partial.jsonl"))
}

/// What there is of a run.
enum Begun {
    Finished(Report),
    Left(Session),
}

/// A new run, or the one that is to be resumed.
fn begun(args: &SuiteArgs, settings: &Settings, adapter: &Adapter, stem: &str) -> Result<Begun> {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let program = format!("pleiad {}", env!("CARGO_PKG_VERSION"));
    let new = Session::new(&program, session::rfc3339(seconds), settings.clone(), adapter.identity.clone());
    if !args.resume {
        return Ok(Begun::Left(new));
    }
    let file = partial(&args.out, stem);
    if let Ok(text) = fs::read_to_string(&file) {
        let left = Session::read(&text).filter(|s| s.is_same_run(&new));
        let left = left
            .with_context(|| format!("{}: it is of another run; leave out --resume, or choose another --out", file.display()))?;
        note(&format!("{}: {} tests are known, it goes on behind them", file.display(), left.tests.len()));
        return Ok(Begun::Left(left.resumed()));
    }
    let file = args.out.join(format!("{stem}.json"));
    let report = fs::read_to_string(&file).ok().and_then(|text| serde_json::from_str::<Report>(&text).ok());
    match report.filter(|r| r.complete && new.is_run_of(r)) {
        Some(report) => {
            note(&format!("{}: it is complete already", file.display()));
            Ok(Begun::Finished(report))
        }
        None => Ok(Begun::Left(new)),
    }
}

fn write(out: &Path, stem: &str, report: &Report) -> Result<()> {
    let files = [("json", output::json(report)), ("xml", junit::xml(report)), ("html", page::html(report))];
    for (ending, text) in files {
        write_file(&out.join(format!("{stem}.{ending}")), |file| Ok(std::io::Write::write_all(file, text.as_bytes())?))?;
    }
    Ok(())
}

fn show(args: &SuiteArgs, reports: &[(&Adapter, String, Report)]) -> Result<()> {
    let mut out = Stream::stdout();
    if args.json {
        return out.json(&reports.iter().map(|(.., r)| r).collect::<Vec<_>>());
    }
    for (adapter, stem, report) in reports {
        out.line(&format!("{} {}", adapter.device(), text::adapter(&report.identity)))?;
        for line in text::table(report) {
            out.line(&line)?;
        }
        out.dim_line(&format!("{}: also .json and .xml", args.out.join(format!("{stem}.html")).display()))?;
        out.line("")?;
    }
    Ok(())
}
