//! Devices, memory and timings.

mod answers;
mod devices;
mod frames;
mod stages;
#[cfg(test)]
mod tests;

use egui::{Color32, Grid, Label, RichText, Role, ScrollArea, TextStyle, Ui, vec2};
use pleiad_runtime::{
    Activations,
    engine::{EngineInfo, GenerationStats, MemoryUse},
    experts::{
        ExpertReport,
        bank::BankKind,
        ways::{WayReport, WaysReport},
    },
};

use super::{
    Action, Theme, parts,
    picker::{Elsewhere, memory_ui, way_name},
    theme,
};
use crate::{
    loading::{LoadedModel, Models, Share, devices::Devices},
    settings::Settings,
};

/// Widest page, in points.
const WIDEST: f32 = 1240.0;
/// From this width on, cards stand in two columns, at the usual size of text.
const TWO_COLUMNS: f32 = 940.0;

/// What the page is drawn from.
pub struct PerformanceContext<'a> {
    /// What is loaded.
    pub models: &'a Models,
    /// The devices there are.
    pub devices: &'a Devices,
    /// The statistics of the last answers, oldest first.
    pub answers: &'a [GenerationStats],
    /// Milliseconds of CPU that the last frames of the window took, oldest first.
    pub frames: &'a [f32],
    /// What a person has chosen.
    pub settings: &'a Settings,
    /// Whether this is a page in a browser.
    pub page: bool,
    /// Bytes of memory that parts of the program take, by name, where somebody measures them.
    pub memory: &'a [(String, u64)],
}

/// What the page keeps between frames.
#[derive(Debug, Default)]
pub struct PerformanceView {
    /// Frame times in order of size: kept for its memory.
    sorted: Vec<f32>,
}

impl PerformanceView {
    /// Draws the page.
    pub fn show(&mut self, ui: &mut Ui, cx: &PerformanceContext<'_>, out: &mut Vec<Action>) {
        ScrollArea::vertical().auto_shrink([false, false]).show(ui, |ui| {
            ui.set_max_width(WIDEST.min(ui.available_width()));
            let heading = ui.heading("Performance");
            parts::named(&heading, Role::Heading, "Performance");
            ui.add_space(theme::GAP);
            if ui.available_width() < TWO_COLUMNS * parts::text_scale(ui.style()).max(1.0) {
                models_ui(ui, cx, out);
                stages::stages_ui(ui, cx.answers.last());
                answers::answers_ui(ui, cx.answers);
                devices::devices_ui(ui, cx.devices, cx.page, out);
                program_ui(ui, cx.memory);
                frames::frames_ui(ui, cx.frames, &mut self.sorted);
                return;
            }
            // Columns justify what is in them, texts too.
            ui.columns_const(|[left, right]| {
                left.vertical(|ui| {
                    models_ui(ui, cx, out);
                    devices::devices_ui(ui, cx.devices, cx.page, out);
                    program_ui(ui, cx.memory);
                });
                right.vertical(|ui| {
                    stages::stages_ui(ui, cx.answers.last());
                    answers::answers_ui(ui, cx.answers);
                    frames::frames_ui(ui, cx.frames, &mut self.sorted);
                });
            });
        });
    }
}

/// A card with a heading, as wide as there is room.
fn card(ui: &mut Ui, title: &str, add: impl FnOnce(&mut Ui)) {
    parts::card(ui, |ui| {
        ui.set_width(ui.available_width());
        let strong = Theme::of(ui.ctx()).strong;
        let heading = ui.label(RichText::new(title).color(strong).strong());
        parts::named(&heading, Role::Heading, title);
        ui.add_space(4.0);
        add(ui);
    });
    ui.add_space(theme::GAP);
}

/// Rows of a name and a value.
fn facts_ui<'a>(ui: &mut Ui, salt: (&str, &str), facts: impl IntoIterator<Item = (&'a str, String)>) {
    let facts: Vec<(&str, String)> = facts.into_iter().collect();
    let font = TextStyle::Body.resolve(ui.style());
    let width = |name: &str| ui.painter().layout_no_wrap(name.to_owned(), font.clone(), Color32::WHITE).size().x;
    // Values have what names leave of the card, and break there.
    let names = facts.iter().map(|(name, _)| width(name)).fold(0.0, f32::max);
    let values = (ui.available_width() - names - theme::PAD - 2.0).max(60.0);
    Grid::new(salt)
        .num_columns(2)
        .striped(false)
        .min_row_height(0.0)
        .max_col_width(values.max(names))
        .spacing(vec2(theme::PAD, 3.0))
        .show(ui, |ui| {
            for (name, value) in facts {
                ui.label(parts::muted(ui, name));
                ui.add(Label::new(value).wrap());
                ui.end_row();
            }
        });
}

/// A table: the first column is text, the others are numbers. Scrolls sideways where there is no room.
fn table_ui(ui: &mut Ui, id: &str, head: &[&str], rows: impl FnOnce(&mut Ui)) {
    ScrollArea::horizontal().id_salt((id, "scroll")).auto_shrink([false, true]).show(ui, |ui| {
        let grid = Grid::new(id).num_columns(head.len()).striped(true).min_row_height(0.0).spacing(vec2(theme::PAD, 4.0));
        grid.show(ui, |ui| {
            for name in head {
                ui.label(parts::small(ui, *name));
            }
            ui.end_row();
            rows(ui);
        });
    });
}

/// What the program itself takes.
fn program_ui(ui: &mut Ui, memory: &[(String, u64)]) {
    if !memory.is_empty() {
        card(ui, "Memory of the program", |ui| {
            facts_ui(ui, ("program facts", ""), memory.iter().map(|(name, bytes)| (name.as_str(), parts::bytes(*bytes))));
        });
    }
}

/// What runs, where it lies, and how misses are served: for each model that is loaded.
fn models_ui(ui: &mut Ui, cx: &PerformanceContext<'_>, out: &mut Vec<Action>) {
    if cx.models.loaded().is_empty() {
        card(ui, "Model", |ui| {
            ui.label(parts::muted(ui, "No model is loaded."));
            ui.horizontal(|ui| {
                if ui.button("Choose a model...").clicked() {
                    out.push(Action::OpenPicker);
                }
            });
        });
        return;
    }
    for (i, model) in cx.models.loaded().iter().enumerate() {
        ui.push_id(i, |ui| {
            let title = if i == 0 { "Model" } else { "Second model" };
            card(ui, title, |ui| model_ui(ui, model));
            let report = model.engine.experts();
            let memory = model.engine.memory();
            card(ui, "Memory", |ui| memory_card_ui(ui, model.engine.info(), report.as_ref(), memory, cx.page));
            if let Some(report) = &report {
                card(ui, "Missing experts", |ui| misses_ui(ui, report));
            }
        });
    }
}

fn model_ui(ui: &mut Ui, model: &LoadedModel) {
    let info = model.engine.info();
    let backend = match info.backend.as_str() {
        "cpu" => "CPU",
        "wgpu" => "GPU (wgpu)",
        other => other,
    };
    let activations = match info.activations {
        Activations::F32 => "single precision",
        Activations::Q8 => "8-bit blocks",
    };
    let context = format!("{} of {} tokens", parts::count(info.context as u64), parts::count(info.model_context as u64));
    let facts = [
        ("Name", model.name.clone()),
        ("Device", info.device.clone()),
        ("Backend", backend.to_owned()),
        ("Context", context),
        ("Activations", activations.to_owned()),
        ("Weights", parts::bytes(info.weight_bytes)),
        ("Loaded in", format!("{:.2} s", info.load_seconds)),
    ];
    facts_ui(ui, ("model facts", ""), facts);
    if let Some(notice) = &model.notice {
        let warn = Theme::of(ui.ctx()).warn;
        ui.label(RichText::new(notice.as_str()).color(warn));
    }
}

/// The parts of the memory, as far as they are known of a model that runs.
fn shares(info: &EngineInfo, report: Option<&ExpertReport>, memory: MemoryUse) -> Vec<Share> {
    let (cache, work) = (memory.cache_bytes, memory.work_bytes);
    let Some(r) = report else {
        // Without a report everything is computed from host memory.
        let host = |what, host| Share { what, device: 0, host };
        return vec![host("weights", info.weight_bytes), host("latent cache", cache), host("working memory", work)];
    };
    // The weights of a GPU are those that are not experts, and the slots.
    let weights = info.weight_bytes.saturating_sub(r.slot_bytes);
    vec![
        Share { what: "weights without experts", device: weights, host: 0 },
        Share { what: "experts", device: r.slot_bytes, host: host_bytes(r) },
        Share { what: "latent cache", device: cache, host: 0 },
        Share { what: "working memory", device: work, host: 0 },
    ]
}

/// Bytes of the experts that the host keeps: all those of layers that lack some, at the mean size of a slot.
fn host_bytes(r: &ExpertReport) -> u64 {
    let slots: u64 = r.slots.iter().map(|&n| n as u64).sum();
    let partial = r.slots.iter().filter(|&&n| n < r.experts).count() as u64;
    let slot = r.slot_bytes.checked_div(slots).unwrap_or(0);
    slot.saturating_mul(partial).saturating_mul(r.experts as u64)
}

/// Where the host's experts are.
fn bank_name(bank: BankKind) -> &'static str {
    match bank {
        BankKind::Checkpoint => "read from the model's files as they lie there",
        BankKind::File => "packed, in a file in the directory for caches",
        BankKind::Memory => "packed, in host memory",
        BankKind::OnTheFly => "packed at every use, as there is no room to keep them packed",
    }
}

/// How full the latent cache is.
fn cache_ui(ui: &mut Ui, memory: MemoryUse) {
    if memory.positions == 0 {
        return;
    }
    let share = memory.taken as f64 / memory.positions as f64;
    let (taken, all) = (parts::count(memory.taken as u64), parts::count(memory.positions as u64));
    let percent = if share > 0.0 && share < 0.1 { format!("{:.1}", 100.0 * share) } else { format!("{:.0}", 100.0 * share) };
    let words = format!("Latent cache: {taken} of {all} positions hold tokens, {percent} %");
    let colour = Theme::of(ui.ctx()).plots[2];
    ui.horizontal_wrapped(|ui| {
        let bar = parts::meter(ui, share as f32, vec2(72.0, 6.0), colour);
        parts::named(&bar, Role::Meter, &words);
        ui.label(parts::small(ui, &words)).on_hover_text("Of all conversations; what they begin with alike is there once");
    });
}

fn memory_card_ui(ui: &mut Ui, info: &EngineInfo, report: Option<&ExpertReport>, memory: MemoryUse, page: bool) {
    let in_file = page && report.is_some_and(|r| r.bank != Some(BankKind::Memory));
    memory_ui(ui, &shares(info, report, memory), if in_file { Elsewhere::File } else { Elsewhere::Host });
    cache_ui(ui, memory);
    let Some(r) = report else {
        ui.label(parts::small(ui, "The CPU computes everything from host memory."));
        return;
    };
    let slots: usize = r.slots.iter().sum();
    let experts = r.experts * r.slots.len();
    let range = match (r.slots.iter().min(), r.slots.iter().max()) {
        (Some(a), Some(b)) if a != b => format!("{a} to {b}"),
        (Some(a), _) => a.to_string(),
        (None, _) => "0".into(),
    };
    let mut facts = vec![("Budget", r.budget.map_or_else(|| "none".to_owned(), parts::bytes))];
    if experts > 0 {
        // Never 100 % where one expert is missing.
        let share = (slots as f64 / experts as f64 * 1000.0).floor() / 10.0;
        facts.push(("Resident", format!("{share} % of experts; {range} of {} in each of {} layers", r.experts, r.slots.len())));
    }
    if let Some(bank) = r.bank {
        facts.push(("Other experts", bank_name(bank).to_owned()));
    }
    facts_ui(ui, ("memory facts", ""), facts);
    for notice in &r.notices {
        let warn = Theme::of(ui.ctx()).warn;
        ui.label(RichText::new(notice.as_str()).color(warn));
    }
}

fn misses_ui(ui: &mut Ui, report: &ExpertReport) {
    match &report.ways {
        Some(ways) => ways_ui(ui, ways),
        None => {
            ui.label(parts::muted(ui, "Every expert is resident: none can be missing."));
        }
    }
}

/// Numbers that may not be known yet.
fn or_dash(number: Option<String>) -> String {
    number.unwrap_or_else(|| "-".into())
}

fn ways_ui(ui: &mut Ui, ways: &WaysReport) {
    let tokens: u64 = ways.ways.iter().map(|w| w.tokens).sum();
    if tokens == 0 {
        ui.label(parts::muted(ui, "No token was written yet; then the ways of serving them are measured."));
    }
    table_ui(ui, "ways", &["Way", "Tokens", "Share", "Time a token", "Missing a token"], |ui| {
        for w in &ways.ways {
            way_ui(ui, w, w.way == ways.chosen);
        }
    });
    let probing = format!(
        "{} short measurements of other ways took {:.1} % of the time; the way changed {} times.",
        ways.probes,
        ways.probing * 100.0,
        ways.switches
    );
    ui.label(parts::small(ui, probing));
}

fn way_ui(ui: &mut Ui, w: &WayReport, chosen: bool) {
    let name = if chosen { format!("{} (in use)", way_name(w.way)) } else { way_name(w.way).to_owned() };
    ui.label(if chosen { RichText::new(name).strong() } else { RichText::new(name) });
    ui.label(parts::count(w.tokens));
    ui.label(format!("{:.0} %", w.share * 100.0));
    ui.label(or_dash(w.seconds_per_token.map(|s| format!("{:.2} ms", s * 1e3))));
    ui.label(or_dash(w.misses_per_token.map(|m| format!("{m:.1}"))));
    ui.end_row();
}
