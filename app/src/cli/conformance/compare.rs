//! `pleiad conformance diff`, `matrix` and `brief`.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use pleiad_conformance::{
    compare::{diff as diffs, matrix as matrices},
    output::{self, brief as briefs},
    report::{Report, SCHEMA},
};

use crate::cli::{output::write_file, term::Stream};

/// Arguments of `pleiad conformance diff`.
#[derive(Args, Clone, Debug)]
pub struct DiffArgs {
    /// A report's JSON
    a: PathBuf,
    /// The one that it is compared with
    b: PathBuf,
    /// A measure has moved if one value is more than R times the other
    #[arg(long, value_name = "R", default_value = "2", value_parser = parse_ratio)]
    ratio: f64,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Arguments of `pleiad conformance matrix`.
#[derive(Args, Clone, Debug)]
pub struct MatrixArgs {
    /// Reports' JSON
    #[arg(required = true)]
    reports: Vec<PathBuf>,
    /// Write a page with all tests instead of printing Markdown
    #[arg(long, value_name = "FILE.html")]
    out: Option<PathBuf>,
}

/// Arguments of `pleiad conformance brief`.
#[derive(Args, Clone, Debug)]
pub struct BriefArgs {
    /// A report's JSON
    report: PathBuf,
    /// Write it there instead of printing it
    #[arg(long, value_name = "FILE.json")]
    out: Option<PathBuf>,
}

fn parse_ratio(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|r: &f64| *r >= 1.0 && r.is_finite()).ok_or_else(|| "use a number of 1 or more".into())
}

fn read(path: &Path) -> Result<Report> {
    let name = path.display();
    let text = fs::read_to_string(path).with_context(|| name.to_string())?;
    let report: Report = serde_json::from_str(&text).with_context(|| format!("{name}: it is no report of pleiad conformance"))?;
    if report.schema != SCHEMA {
        bail!("{name}: it has version {} of the format, this program reads {SCHEMA}", report.schema);
    }
    Ok(report)
}

/// Runs `pleiad conformance diff`.
pub fn diff(args: &DiffArgs) -> Result<()> {
    let (a, b) = (read(&args.a)?, read(&args.b)?);
    let found = diffs::diff(&a, &b, args.ratio);
    let mut out = Stream::stdout();
    if args.json {
        out.json(&found)?;
    } else {
        out.text(&diffs::markdown(&found))?;
    }
    if found.is_worse() {
        bail!("tests are bad in {} that are not in {}", args.b.display(), args.a.display());
    }
    Ok(())
}

/// Runs `pleiad conformance matrix`.
pub fn matrix(args: &MatrixArgs) -> Result<()> {
    let reports = args.reports.iter().map(|path| read(path)).collect::<Result<Vec<_>>>()?;
    match &args.out {
        Some(path) => write_file(path, |file| Ok(file.write_all(matrices::html(&reports).as_bytes())?)),
        None => Ok(Stream::stdout().text(&matrices::markdown(&reports))?),
    }
}

/// Runs `pleiad conformance brief`.
pub fn brief(args: &BriefArgs) -> Result<()> {
    let mut report = read(&args.report)?;
    briefs::brief(&mut report);
    let text = output::json(&report);
    match &args.out {
        Some(path) => write_file(path, |file| Ok(file.write_all(text.as_bytes())?)),
        None => Ok(Stream::stdout().text(&text)?),
    }
}
