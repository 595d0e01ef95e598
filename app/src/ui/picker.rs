//! Choosing a model, and what would go where.

mod address;
mod controls;
mod memory;
mod shelf;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use egui::{Align, Button, Context, Frame, Id, Label, Layout, Modal, Response, RichText, Role, ScrollArea, Ui, vec2};

pub(super) use controls::{ONE_WAY, way_name};
pub(super) use memory::{Elsewhere, Hatch, memory_ui, part_ui};
use shelf::ShelfView;

use super::{Action, Theme, parts, theme};
use crate::{
    loading::{Examined, Found, Loading, Models, Price, Source, devices::Devices, host::HostMemory, options, shelf::Shelf},
    settings::{LoadSettings, Settings},
};

/// Widest picker, in points.
const WIDEST: f32 = 880.0;
/// Width of the list of models, where it stands beside the details.
const LIST: f32 = 250.0;
/// Below this width it stands above.
const STACKED: f32 = 620.0;
/// Height of what scrolls with a model of the usual kind.
const USUAL: f32 = 500.0;
/// Height of what does not scroll: heading, buttons, margins.
const AROUND: f32 = 130.0;

/// What the picker is drawn from.
pub struct PickerContext<'a> {
    /// What is loaded.
    pub models: &'a Models,
    /// What is being loaded.
    pub loading: Option<&'a Loading>,
    /// The model that was looked at last, for its price.
    pub examined: Option<&'a Examined>,
    /// A model is being looked at.
    pub examining: bool,
    /// Why looking at a model, or loading it, failed; in words.
    pub problem: Option<&'a str>,
    /// The devices there are.
    pub devices: &'a Devices,
    /// Where models are kept for a page; `None`: there are files.
    pub shelf: Option<&'a dyn Shelf>,
    /// What a person has chosen.
    pub settings: &'a Settings,
    /// How models are loaded on this visit: as `settings` say, or a link to this page.
    pub load: &'a LoadSettings,
}

impl PickerContext<'_> {
    /// Whether this is a page in a browser.
    fn page(&self) -> bool {
        cfg!(target_arch = "wasm32") || self.shelf.is_some()
    }
}

/// What the picker keeps between frames.
#[derive(Debug, Default)]
pub struct PickerView {
    /// Whether it is open.
    pub open: bool,
    /// Whether it was, in the frame before.
    was_open: bool,
    /// How to load: settings as they will be once something is loaded.
    draft: LoadSettings,
    /// Which of the recent models are there.
    found: Found,
    /// The model that was clicked at last.
    asked: Option<String>,
    /// What is being done with the models that are kept.
    shelf: ShelfView,
}

impl PickerView {
    /// Draws the picker over everything else, if it is open.
    pub fn show(&mut self, ctx: &Context, cx: &PickerContext<'_>, out: &mut Vec<Action>) {
        if !self.open {
            self.was_open = false;
            return;
        }
        if !self.was_open {
            self.was_open = true;
            self.draft = cx.load.clone();
            self.asked = None;
            self.shelf.settle();
            self.look_for_recent(ctx, &cx.settings.recent);
        } else if !self.found.is_of(&cx.settings.recent) {
            self.look_for_recent(ctx, &cx.settings.recent);
        }
        let t = Theme::of(ctx);
        let screen = ctx.content_rect();
        let width = (screen.width() - 2.0 * (theme::GAP + theme::PAD)).clamp(120.0, WIDEST);
        let height = (screen.height() - AROUND).max(80.0);
        let frame = Frame::new().fill(t.panel).stroke((1.0, t.line)).corner_radius(theme::ROUND).inner_margin(theme::PAD);
        let modal = Modal::new(Id::unique("model picker")).frame(frame).show(ctx, |ui| {
            ui.set_width(width);
            let heading = ui.heading("Models");
            parts::named(&heading, Role::Heading, "Models");
            ui.add_space(theme::GAP);
            // As high as with a model in it: what is pointed at stays where it is while one is looked at.
            let usual = height.min(USUAL);
            let scroll = ScrollArea::vertical().max_height(height).min_scrolled_height(usual);
            scroll.auto_shrink([false, true]).show(ui, |ui| {
                ui.set_min_height(usual);
                if width < STACKED {
                    self.list_ui(ui, cx, out);
                    ui.separator();
                    self.details_ui(ui, cx, out);
                    return;
                }
                ui.horizontal_top(|ui| {
                    ui.vertical(|ui| {
                        ui.set_width(LIST);
                        self.list_ui(ui, cx, out);
                    });
                    ui.add_space(theme::PAD);
                    ui.vertical(|ui| {
                        ui.set_width(ui.available_width());
                        self.details_ui(ui, cx, out);
                    });
                });
            });
            ui.add_space(theme::GAP);
            self.buttons_ui(ui, cx, out);
        });
        if modal.should_close() {
            self.open = false;
        }
    }

    fn look_for_recent(&mut self, ctx: &Context, recent: &[String]) {
        let ctx = ctx.clone();
        self.found = Found::look(recent, Arc::new(move || ctx.request_repaint()));
    }

    /// The settings that a price is asked for: where the program chooses and would take the CPU, those of the CPU.
    fn to_price(&self, cx: &PickerContext<'_>) -> LoadSettings {
        let mut settings = self.draft.clone();
        settings.memory_budget = options::budget(&settings, cx.page());
        if controls::is_auto(&settings.device) && cx.devices.best().is_some_and(|d| d.key == "cpu") {
            settings.device = "cpu".into();
        }
        settings
    }

    /// The models that can be chosen, and those that are loaded.
    fn list_ui(&mut self, ui: &mut Ui, cx: &PickerContext<'_>, out: &mut Vec<Action>) {
        let chosen = match (&self.asked, cx.examined) {
            (Some(key), _) => Some(key.clone()),
            (None, examined) => examined.map(|e| e.source.key()),
        };
        // What is kept has a list of its own.
        let listed = |key: &str| key == "tiny" || (cx.shelf.is_some() && key.starts_with(shelf::KEPT));
        let recent = cx.settings.recent.iter().filter(|k| !listed(k)).filter_map(|k| Source::of(k));
        for source in std::iter::once(Source::Tiny).chain(recent) {
            let key = source.key();
            let note = if self.found.is_missing(&key) {
                "not found"
            } else if cx.models.get(Some(&key)).is_some() {
                "loaded"
            } else {
                ""
            };
            if model_ui(ui, chosen.as_deref() == Some(&key), &source, note).clicked() {
                self.asked = Some(key);
                out.push(Action::Examine(source));
            }
        }
        ui.add_space(theme::GAP);
        let file_hint = if cx.page() { "A .gguf file" } else { "A .gguf file; of a split model any part" };
        ui.horizontal_wrapped(|ui| {
            if ui.button("Open a file...").on_hover_text(file_hint).clicked() {
                self.asked = None;
                out.push(Action::ChooseModel { folder: false });
            }
            let folder =
                !cx.page() && ui.button("Open a folder...").on_hover_text("A folder with config.json, as published").clicked();
            if folder {
                self.asked = None;
                out.push(Action::ChooseModel { folder: true });
            }
        });
        let dropped = if cx.page() {
            "A file can also be dropped on the page. It is read where it lies."
        } else {
            "Files and folders can also be dropped on the window."
        };
        ui.label(parts::small(ui, dropped));
        if let Some(kept) = cx.shelf
            && let Some(source) = self.shelf.show(ui, kept, cx, chosen.as_deref(), out)
        {
            self.asked = Some(source.key());
            out.push(Action::Examine(source));
        }
        if cx.models.loaded().is_empty() {
            return;
        }
        parts::section(ui, "Loaded");
        for model in cx.models.loaded() {
            ui.horizontal(|ui| {
                ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
                    let unload = ui.small_button("Unload");
                    parts::named(&unload, Role::Button, &format!("Unload {}", model.name));
                    if unload.clicked() {
                        out.push(Action::Unload(model.key()));
                    }
                    ui.with_layout(Layout::left_to_right(Align::Center), |ui| {
                        let device = &model.engine.info().device;
                        ui.add(Label::new(model.name.as_str()).truncate()).on_hover_text(format!("{} on {device}", model.name));
                    });
                });
            });
        }
    }

    /// What is known of the model that was chosen.
    fn details_ui(&mut self, ui: &mut Ui, cx: &PickerContext<'_>, out: &mut Vec<Action>) {
        let t = Theme::of(ui.ctx());
        if let Some(loading) = cx.loading {
            loading_ui(ui, loading, out);
            ui.add_space(theme::GAP);
        }
        if let Some(why) = cx.problem {
            ui.label(RichText::new(why).color(t.bad));
        }
        if cx.examining {
            ui.horizontal(|ui| {
                ui.spinner();
                ui.label(parts::muted(ui, "Looking at the model"));
            });
            return;
        }
        let Some(examined) = cx.examined else {
            if cx.problem.is_none() && cx.loading.is_none() {
                ui.label(parts::muted(ui, "Choose a model to see what would go where."));
            }
            return;
        };
        ui.label(RichText::new(examined.name.as_str()).color(t.strong).size(17.0).strong()).on_hover_text(examined.source.key());
        ui.label(parts::muted(ui, format!("{}; {}", examined.description, parts::bytes(examined.file_bytes))));
        if let Some(kept) = cx.shelf {
            shelf::keep_ui(ui, kept, &examined.source, out);
        }
        ui.add_space(theme::GAP);
        controls::device_ui(ui, &mut self.draft, cx.devices);
        if let Some(why) = cx.devices.no_gpu(cx.page()).filter(|_| cx.page()) {
            ui.label(parts::small(ui, why));
        }
        let on_cpu = self.to_price(cx).device == "cpu";
        if !on_cpu {
            let price = examined.price(&self.to_price(cx));
            controls::budget_ui(ui, &mut self.draft, &price, cx.page());
        }
        controls::context_ui(ui, &mut self.draft, examined);
        if !on_cpu {
            controls::misses_ui(ui, &mut self.draft, cx.page());
        }
        ui.add_space(theme::GAP);
        let price = examined.price(&self.to_price(cx));
        parts::card(ui, |ui| {
            ui.set_width(ui.available_width());
            let elsewhere = if cx.page() && !on_cpu { Elsewhere::File } else { Elsewhere::Host };
            price_ui(ui, &price, on_cpu, elsewhere, examined.host_memory());
            let budget = options::budget(&self.draft, cx.page());
            if price.problem.is_some() && !on_cpu && budget.is_some_and(|b| b < price.least) {
                let least = format!("Take the least, {}", parts::bytes(price.least));
                if ui.button(least).clicked() {
                    self.draft.memory_budget = Some(price.least);
                }
            }
        });
    }

    /// What can be done with the model that was chosen.
    fn buttons_ui(&mut self, ui: &mut Ui, cx: &PickerContext<'_>, out: &mut Vec<Action>) {
        let t = Theme::of(ui.ctx());
        let examined = cx.examined.filter(|_| !cx.examining);
        let can = cx.loading.is_none() && examined.is_some_and(|e| e.price(&self.to_price(cx)).problem.is_none());
        let first = cx.models.loaded().first();
        ui.horizontal_wrapped(|ui| {
            let load = Button::new(RichText::new("Load").color(if can { t.on_accent } else { t.muted }));
            let load = if can { load.fill(t.accent) } else { load };
            let load = ui.add_enabled(can, load.min_size(vec2(80.0, 0.0)));
            let load = match first {
                Some(model) => load.on_hover_text(format!("Takes the place of {}", model.name)),
                None => load,
            };
            let beside = first.is_some()
                && ui
                    .add_enabled(can, Button::new("Load beside"))
                    .on_hover_text("As a second mind; the others stay loaded")
                    .clicked();
            if let Some(examined) = examined.filter(|_| load.clicked() || beside) {
                // What a link said is kept only once somebody chooses it.
                if self.draft != *cx.load {
                    let settings = Settings { load: self.draft.clone(), ..cx.settings.clone() };
                    out.push(Action::SetSettings(Box::new(settings)));
                }
                out.push(Action::Load { source: examined.source.clone(), keep: beside });
            }
            if ui.button("Close").clicked() {
                self.open = false;
            }
        });
    }
}

/// A model in the list.
fn model_ui(ui: &mut Ui, chosen: bool, source: &Source, note: &str) -> Response {
    let t = Theme::of(ui.ctx());
    let name = source.name();
    let missing = note == "not found";
    let text = RichText::new(name.as_str()).color(if missing { t.muted } else { t.text });
    let button = Button::selectable(chosen, text)
        .right_text(parts::small(ui, note))
        .truncate()
        .frame_when_inactive(chosen)
        .min_size(vec2(ui.available_width(), 0.0));
    let response = ui.add(button);
    parts::named(&response, Role::Button, &if note.is_empty() { name } else { format!("{name}, {note}") });
    match source {
        Source::Tiny => response.on_hover_text("A small model that is part of the program, for trying things out"),
        #[cfg(not(target_arch = "wasm32"))]
        Source::Path(path) => response.on_hover_text(path.display().to_string()),
        #[cfg(target_arch = "wasm32")]
        Source::Opened(..) | Source::Kept(_) => response,
    }
}

/// How far loading is.
fn loading_ui(ui: &mut Ui, loading: &Loading, out: &mut Vec<Action>) {
    parts::card(ui, |ui| {
        ui.set_width(ui.available_width());
        ui.label(format!("Loading {}", loading.source.name()));
        let doing = if loading.doing.is_empty() { "Getting ready" } else { &loading.doing };
        if let Some(share) = loading.share() {
            let bar = parts::meter(ui, share as f32, vec2(ui.available_width(), 10.0), Theme::of(ui.ctx()).accent);
            parts::named(&bar, Role::ProgressIndicator, &format!("{doing}, {:.0} %", share * 100.0));
            ui.label(parts::small(ui, format!("{doing}: {}", progress(loading))));
        } else {
            ui.horizontal(|ui| {
                ui.spinner();
                ui.label(parts::muted(ui, format!("{doing}, {}", parts::seconds(loading.seconds))));
            });
        }
        if ui.button("Cancel").clicked() {
            out.push(Action::CancelLoading);
        }
    });
}

/// How much of it is done, speed and the time that is left: "1.0 GiB of 4.0 GiB, 512.0 MiB/s, 6.0 s left".
fn progress(loading: &Loading) -> String {
    if !loading.counts_bytes() {
        return format!("{} of {}", parts::count(loading.done), parts::count(loading.total));
    }
    // The first moments say little.
    let speed = if loading.seconds >= 0.5 { loading.done as f64 / loading.seconds } else { 0.0 };
    shelf::progress(loading.done, Some(loading.total), speed)
}

/// What goes where, and what is to be said about it.
fn price_ui(ui: &mut Ui, price: &Price, on_cpu: bool, elsewhere: Elsewhere, host: Option<HostMemory>) {
    let t = Theme::of(ui.ctx());
    memory_ui(ui, &price.shares, elsewhere);
    if !on_cpu && price.shares.iter().any(|s| s.what == "experts") {
        // Never 100 % where one expert is missing.
        let share = (price.resident * 1000.0).floor() / 10.0;
        ui.label(format!("{share} % of experts resident"));
    }
    if let Some(why) = &price.problem {
        ui.label(RichText::new(why.as_str()).color(t.bad));
    }
    if let Some(why) = host_warning(price.totals().1, host) {
        ui.label(RichText::new(why).color(t.warn));
    }
    if let Some(from) = price.drafts_from.filter(|_| price.problem.is_none()) {
        let why = format!("Drafts are off: the module that makes them fits from {} on", parts::bytes(from));
        ui.label(parts::muted(ui, why)).on_hover_text("Without it a token a step is written; answers are the same");
    }
    if let Some(advice) = &price.advice {
        ui.label(parts::muted(ui, advice.as_str()));
    }
}

/// What to know where a model takes much of this computer's memory.
fn host_warning(bytes: u64, host: Option<HostMemory>) -> Option<String> {
    let host = host?;
    if bytes > host.total {
        let all = parts::bytes(host.total);
        return Some(format!(
            "This computer has {all} of memory: parts would be read from the disk again and again, which is slow"
        ));
    }
    (bytes > host.available)
        .then(|| format!("Only {} of this computer's memory are free at present", parts::bytes(host.available)))
}
