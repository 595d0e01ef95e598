//! `pleiad fit`: what would go where under a memory budget, before anything is loaded.

use std::num::NonZeroUsize;

use anyhow::Result;
use clap::Args;
use pleiad_runtime::{
    Activations, CacheFormat, Error, Model,
    experts::budget::{Needs, Placement, place_for},
    step::PAGE,
};
use serde::Serialize;

use super::{
    args::{CacheType, Precision, parse_draft, parse_size},
    open,
    term::{Stream, size},
};

/// Arguments of `pleiad fit`.
#[derive(Args, Clone, Debug)]
pub struct FitArgs {
    /// A Hugging Face directory, a .gguf file (of a split model any part), or `tiny`
    #[arg(value_name = "MODEL", required_unless_present = "named")]
    pub model: Option<String>,
    /// The same, as other commands take it
    #[arg(short = 'm', long = "model", value_name = "MODEL", conflicts_with = "model")]
    pub named: Option<String>,
    /// Most memory on the GPU: 6GiB, 512MiB, ... [default: a table of budgets]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub memory_budget: Option<u64>,
    /// Longest context, in tokens [default: the model's, at most 8192]
    #[arg(short, long, value_name = "N")]
    pub ctx_size: Option<NonZeroUsize>,
    /// Tokens of a prompt computed at once
    #[arg(long, visible_alias = "ubatch-size", value_name = "C", default_value = "512")]
    pub chunk: NonZeroUsize,
    /// 0: leave out the module that drafts tokens, as other commands do with --draft 0
    #[arg(long, value_name = "K", value_parser = parse_draft)]
    pub draft: Option<usize>,
    /// Storage of the latent cache
    #[arg(long, value_enum, default_value_t)]
    pub cache_type: CacheType,
    /// Precision of activations in products with quantised weights
    #[arg(long, value_enum, default_value_t)]
    pub activations: Precision,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// The context of a session where nothing else is asked for, as the engine has it.
const DEFAULT_CONTEXT: usize = 8192;

/// Shares of experts in the table of budgets.
const SHARES: [f64; 4] = [1.0, 0.75, 0.5, 0.25];

/// What was found.
#[derive(Serialize)]
struct Report {
    model: String,
    source: String,
    context: usize,
    /// Of the latent cache, over all sessions.
    positions: usize,
    chunk: usize,
    cache: CacheFormat,
    activations: Activations,
    needs: Needs,
    /// With the module that drafts tokens, where drafts are left to the budget: the least budget that holds it too.
    drafts_from_bytes: Option<u64>,
    /// The least budget that would do.
    least_bytes: u64,
    /// The budget with which everything is resident.
    whole_bytes: u64,
    /// For the budget given, or for several.
    placements: Vec<Placed>,
    advice: Option<String>,
}

impl Report {
    /// What the model is called.
    fn title(&self) -> &str {
        if self.model.is_empty() { &self.source } else { &self.model }
    }
}

/// A budget, and what goes where.
#[derive(Serialize)]
struct Placed {
    budget: u64,
    /// Slots of each mixture layer.
    slots: Vec<usize>,
    resident_share: f64,
    expert_bytes: u64,
    gpu_bytes: u64,
    host_bytes: u64,
    whole: bool,
    /// Whether the module that drafts tokens, if there is one, is loaded.
    drafts: bool,
}

impl Placed {
    fn new(p: &Placement, budget: u64, drafts: bool) -> Self {
        Self {
            budget,
            slots: p.slots.clone(),
            resident_share: p.resident_share(),
            expert_bytes: p.expert_bytes(),
            gpu_bytes: p.total(),
            host_bytes: p.host_bytes(),
            whole: p.is_whole(),
            drafts,
        }
    }
}

/// Runs `pleiad fit`.
pub fn run(args: &FitArgs) -> Result<()> {
    let report = examine(args)?;
    let mut out = Stream::stdout();
    if args.json {
        return out.json(&report);
    }
    out.line(&format!("{}: context {}, chunks of {} tokens", report.title(), report.context, report.chunk))?;
    out.line("")?;
    for line in if args.memory_budget.is_some() { parts(&report) } else { table(&report) } {
        out.line(&line)?;
    }
    if let Some(advice) = &report.advice {
        out.line(advice)?;
    }
    Ok(())
}

fn examine(args: &FitArgs) -> Result<Report> {
    let name = args.model.as_deref().or(args.named.as_deref()).unwrap_or("tiny");
    let checkpoint = open::checkpoint(name)?;
    let config = &checkpoint.config;
    let context = args.ctx_size.map_or(config.max_positions.min(DEFAULT_CONTEXT), NonZeroUsize::get);
    if context > config.max_positions {
        let (needed, limit) = (context as u64, config.max_positions as u64);
        return Err(Error::Limit { what: "--ctx-size, in positions of this model".into(), needed, limit }.into());
    }
    // Room for two full contexts, as the engine makes it.
    let positions = context.saturating_mul(2).div_ceil(PAGE).saturating_mul(PAGE);
    let cache = match args.cache_type {
        CacheType::F16 => CacheFormat::F16,
        CacheType::F32 => CacheFormat::F32,
    };
    let activations = match args.activations {
        Precision::F32 => Activations::F32,
        Precision::Q8 => Activations::Q8,
    };
    let chunk = args.chunk.get();
    let model = match args.draft {
        Some(0) => Model::new(config, &checkpoint.weights),
        _ => Model::with_mtp(config, &checkpoint.weights),
    };
    let of = |model: &Model| Needs::of(model, positions, context, cache, activations, chunk);
    let needs = of(&model);
    // A budget that does not hold the module as well is the model's, unless drafts were asked for: as the engine has it.
    let bare = (args.draft.is_none() && model.mtp.is_some()).then(|| of(&model.without_mtp()));
    let (least_bytes, whole_bytes) = (bare.as_ref().unwrap_or(&needs).least(), needs.whole());
    let drafts_from_bytes = bare.as_ref().map(|_| needs.least());
    let (model, source) = (config.name.clone(), checkpoint.source.name.clone());
    let (placements, advice) = (Vec::new(), None);
    let mut report = Report {
        model,
        source,
        context,
        positions,
        chunk,
        cache,
        activations,
        needs,
        drafts_from_bytes,
        least_bytes,
        whole_bytes,
        placements,
        advice,
    };
    for budget in args.memory_budget.map_or_else(|| budgets(&report.needs, least_bytes), |b| vec![b]) {
        let left_out = bare.as_ref().filter(|_| !report.needs.fits(Some(budget)));
        let placement = place_for(report.title(), left_out.unwrap_or(&report.needs), Some(budget), None)?;
        if args.memory_budget.is_some() {
            report.advice = advise(&placement);
        }
        report.placements.push(Placed::new(&placement, budget, left_out.is_none()));
    }
    // What is told of one budget are the parts that are loaded under it.
    if let Some(bare) = bare.filter(|_| args.memory_budget.is_some() && report.placements.iter().all(|p| !p.drafts)) {
        report.needs = bare;
    }
    Ok(report)
}

/// The budgets worth a row: for the shares of experts above the floor, then the floor itself, and the least where that is less,
/// as the module that drafts tokens may be left out.
fn budgets(needs: &Needs, least: u64) -> Vec<u64> {
    let floor = needs.least();
    let mut all: Vec<u64> = SHARES.iter().map(|&s| needs.at_share(s)).filter(|&b| b > floor).collect();
    all.push(floor);
    all.extend((least < floor).then_some(least));
    all
}

/// A budget as people can type it, rounded up.
fn typed(bytes: u64) -> String {
    if bytes < 16 << 20 { format!("{}KiB", bytes.div_ceil(1 << 10)) } else { format!("{}MiB", bytes.div_ceil(1 << 20)) }
}

/// `size`, or a dash for nothing.
fn or_dash(bytes: u64) -> String {
    if bytes == 0 { "-".into() } else { size(bytes) }
}

/// Slots a layer: `64`, or `31 to 32`; of how many experts.
fn slots(report: &Report, placed: &Placed) -> String {
    let range = |all: &[usize]| match (all.iter().min(), all.iter().max()) {
        (Some(a), Some(b)) if a != b => format!("{a} to {b}"),
        (Some(a), _) => a.to_string(),
        (None, _) => "0".into(),
    };
    let experts: Vec<usize> = report.needs.layers.iter().map(|l| l.experts).collect();
    format!("{} of {}", range(&placed.slots), range(&experts))
}

/// Rows of text in columns: the first to the left, the others to the right.
fn columns(rows: &[Vec<String>]) -> Vec<String> {
    let width = |i: usize| rows.iter().filter_map(|r| r.get(i)).map(|c| c.chars().count()).max().unwrap_or(0);
    let cell = |(i, text): (usize, &String)| {
        let width = width(i);
        if i == 0 { format!("{text:<width$}") } else { format!("{text:>width$}") }
    };
    rows.iter().map(|row| row.iter().enumerate().map(cell).collect::<Vec<_>>().join("   ")).collect()
}

/// The weights, the cache and the working memory: what does not depend on the budget.
fn fixed(report: &Report) -> [(String, u64); 3] {
    let format = match report.cache {
        CacheFormat::F16 => "f16",
        CacheFormat::F32 => "f32",
    };
    [
        ("weights without experts".into(), report.needs.dense),
        (format!("latent cache, {} positions ({format})", report.positions), report.needs.cache),
        ("working memory".into(), report.needs.work),
    ]
}

/// What goes where under one budget.
fn parts(report: &Report) -> Vec<String> {
    let Some(placed) = report.placements.first() else { return Vec::new() };
    let layers = report.needs.layers.len();
    let mut rows = vec![["", "on the GPU", "in host memory"].map(String::from).to_vec()];
    rows.extend(fixed(report).into_iter().map(|(what, bytes)| vec![what, size(bytes), "-".into()]));
    if layers > 0 {
        let what = format!("experts, {} in each of {layers} layers", slots(report, placed));
        rows.push(vec![what, size(placed.expert_bytes), or_dash(placed.host_bytes)]);
    }
    rows.push(vec!["total".into(), size(placed.gpu_bytes), or_dash(placed.host_bytes)]);
    let mut lines = columns(&rows);
    lines.push(String::new());
    if layers > 0 {
        // Never 100 % where one expert is missing.
        let share = (placed.resident_share * 1000.0).floor() / 10.0;
        lines.push(format!("{share} % of the experts are resident"));
    }
    lines.push(format!("least budget: {}; everything is resident with {}", typed(report.least_bytes), typed(report.whole_bytes)));
    if let Some(from) = report.drafts_from_bytes.filter(|_| !placed.drafts) {
        lines.push(format!("drafts are off: the module that makes them fits from {} on", typed(from)));
    }
    lines
}

/// Budgets, and what goes where under each.
fn table(report: &Report) -> Vec<String> {
    let mut lines = columns(&fixed(report).map(|(what, bytes)| vec![what, size(bytes)]));
    lines.push(String::new());
    let layers = report.needs.layers.len();
    if layers == 0 {
        lines.push(format!("no experts; everything is resident with --memory-budget {}", typed(report.whole_bytes)));
        return lines;
    }
    let head = ["experts resident", "in each layer", "experts on the GPU", "in host memory", "--memory-budget"];
    let mut rows = vec![head.map(String::from).to_vec()];
    for p in &report.placements {
        let floor = match (p.budget == report.least_bytes && !p.whole, p.drafts) {
            (true, true) => " (the floor)",
            (true, false) => " (the floor, without drafts)",
            (false, _) => "",
        };
        rows.push(vec![
            format!("{:.0} %{floor}", p.resident_share * 100.0),
            slots(report, p),
            size(p.expert_bytes),
            or_dash(p.host_bytes),
            typed(p.budget),
        ]);
    }
    lines.extend(columns(&rows));
    lines
}

/// What to change about a placement, where something small would help much.
fn advise(p: &Placement) -> Option<String> {
    let budget = p.budget.filter(|_| !p.is_whole())?;
    let more = p.needs.whole().saturating_sub(budget);
    if more <= budget / 8 {
        return Some(format!("{} more would make every expert resident", size(more)));
    }
    let quarter = p.expert_bytes() / 4;
    if p.needs.cache > quarter {
        return Some("a smaller --ctx-size would leave room for more experts".into());
    }
    (p.needs.work > quarter).then(|| "a smaller --chunk would leave room for more experts".into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

    use clap::Parser;
    use pleiad_runtime::experts::budget::LayerNeeds;

    use super::*;

    const MIB: u64 = 1 << 20;

    #[derive(Parser)]
    struct Only {
        #[command(flatten)]
        fit: FitArgs,
    }

    fn needs(dense: u64, cache: u64, work: u64) -> Needs {
        let layers = (1..=4).map(|layer| LayerNeeds { layer, experts: 64, top_k: 6, blob: 5 * MIB }).collect();
        Needs { dense: dense * MIB, cache: cache * MIB, work: work * MIB, layers }
    }

    fn report(needs: Needs, budgets: &[u64]) -> Report {
        let place = |&b| Placed::new(&place_for("x", &needs, Some(b), None).unwrap(), b, true);
        Report {
            model: "x".into(),
            source: "x.gguf".into(),
            context: 100,
            positions: 256,
            chunk: 512,
            cache: CacheFormat::F16,
            activations: Activations::Q8,
            drafts_from_bytes: None,
            least_bytes: needs.least(),
            whole_bytes: needs.whole(),
            placements: budgets.iter().map(place).collect(),
            advice: None,
            needs,
        }
    }

    #[test]
    fn the_model_is_named_once() {
        let model = |args: &[&str]| Only::try_parse_from([&["x"], args].concat()).map(|o| o.fit.model.or(o.fit.named));
        assert_eq!(model(&["a"]).unwrap().unwrap(), "a");
        assert_eq!(model(&["-m", "a"]).unwrap().unwrap(), "a");
        assert!(model(&[]).is_err() && model(&["a", "-m", "b"]).is_err());
    }

    #[test]
    fn the_table_stops_at_the_floor() {
        let needs = needs(100, 10, 10);
        // 18 of 64 are the floor: a quarter would be less.
        let budgets = budgets(&needs, needs.least());
        assert_eq!(budgets, [1400 * MIB, 1080 * MIB, 760 * MIB, 480 * MIB]);
        let lines = table(&report(needs, &budgets));
        let row = |what: &str| lines.iter().find(|l| l.starts_with(what)).unwrap_or_else(|| panic!("{what}: {lines:#?}"));
        assert!(row("100 %").contains("64 of 64") && row("100 %").contains(" - ") && row("100 %").ends_with("1400MiB"));
        assert!(row("50 %").contains("32 of 64") && row("50 %").contains("1.2 GiB") && row("50 %").ends_with("760MiB"));
        assert!(row("28 % (the floor)").contains("18 of 64") && !lines.iter().any(|l| l.starts_with("25 %")));
    }

    #[test]
    fn parts_add_up() {
        let needs = needs(100, 10, 10);
        let lines = parts(&report(needs.clone(), &[765 * MIB]));
        let row = |what: &str| lines.iter().find(|l| l.starts_with(what)).unwrap_or_else(|| panic!("{what}: {lines:#?}"));
        assert!(row("experts").contains("32 to 33 of 64 in each of 4 layers") && row("experts").contains("645.0 MiB"));
        assert!(row("total").contains("765.0 MiB") && row("total").ends_with("1.2 GiB"));
        assert!(row("latent cache").contains("256 positions") && row("latent cache").ends_with('-'));
        assert!(row("50.3 %").ends_with("resident") && row("least budget: 480MiB").ends_with("1400MiB"));
        let whole = parts(&report(needs, &[u64::MAX]));
        assert!(whole.iter().any(|l| l.starts_with("100 %")) && whole.iter().any(|l| l.starts_with("total") && l.ends_with('-')));
    }

    #[test]
    fn budgets_can_be_typed() {
        assert_eq!([typed(1), typed(MIB), typed(16 * MIB), typed(16 * MIB + 1)], ["1KiB", "1024KiB", "16MiB", "17MiB"]);
        assert_eq!(parse_size(&typed(30 * MIB + 7)).unwrap(), 31 * MIB);
    }

    #[test]
    fn advice_is_for_those_who_need_it() {
        let advice = |needs: Needs, budget: u64| advise(&place_for("x", &needs, Some(budget * MIB), None).unwrap());
        assert_eq!(advice(needs(100, 10, 10), 1400), None);
        assert_eq!(advice(needs(100, 10, 10), 700), None);
        assert!(advice(needs(100, 10, 10), 1300).unwrap().starts_with("100.0 MiB more"));
        assert!(advice(needs(100, 300, 10), 900).unwrap().contains("--ctx-size"));
        assert!(advice(needs(100, 10, 300), 900).unwrap().contains("--chunk"));
    }

    #[test]
    fn the_embedded_model_fits_as_it_says() {
        let fit = |more: &[&str]| examine(&Only::try_parse_from([&["x", "tiny"], more].concat()).unwrap().fit);
        let whole = fit(&["--memory-budget", "4GiB"]).unwrap();
        assert!(whole.placements.iter().all(|p| p.whole && p.host_bytes == 0 && p.gpu_bytes == whole.whole_bytes));
        let rows = fit(&[]).unwrap().placements;
        assert!(rows.iter().all(|p| p.gpu_bytes <= p.budget) && rows.windows(2).all(|w| w[0].budget > w[1].budget));
        assert!(rows.len() > 1 && rows[0].whole && !rows[1].whole);
        // The engine leaves the module that drafts out where it does not fit: the least budget is that of the model alone.
        let (least, alone) = (fit(&[]).unwrap(), fit(&["--draft", "0"]).unwrap());
        assert_eq!((least.least_bytes, alone.drafts_from_bytes), (alone.least_bytes, None));
        assert!(table(&least).iter().any(|l| l.contains("(the floor, without drafts)")));
        let from = least.drafts_from_bytes.unwrap();
        let under = |budget: u64| fit(&["--memory-budget", &budget.to_string()]).unwrap();
        assert!(under(from).placements[0].drafts && !under(from - 1).placements[0].drafts);
        assert_eq!(under(from - 1).needs.fixed(), alone.needs.fixed());
        assert!(parts(&under(from - 1)).iter().any(|l| l.starts_with("drafts are off")));
        let error = fit(&["--memory-budget", "64KiB"]).err().unwrap().to_string();
        assert!(error.contains("--memory-budget"), "{error}");
    }
}
