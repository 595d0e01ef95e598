//! Choosing a model, and what would go where.

mod controls;
mod memory;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use egui::{
    Align, Button, Context, Frame, Id, Label, Layout, Modal, ProgressBar, Response, RichText, Role, ScrollArea, Ui, vec2,
};

pub(super) use controls::way_name;
pub(super) use memory::memory_ui;

use super::{Action, Theme, parts, theme};
use crate::{
    loading::{Examined, Found, Loading, Models, Price, Source, devices::Devices, host::HostMemory},
    settings::{LoadSettings, Settings},
};

/// Widest picker, in points.
const WIDEST: f32 = 880.0;
/// Width of the list of models, where it stands beside the details.
const LIST: f32 = 250.0;
/// Below this width it stands above.
const STACKED: f32 = 620.0;
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
    /// What a person has chosen.
    pub settings: &'a Settings,
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
            self.draft = cx.settings.load.clone();
            self.asked = None;
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
            ScrollArea::vertical().max_height(height).auto_shrink([false, true]).show(ui, |ui| {
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
    fn to_price(&self, devices: &Devices) -> LoadSettings {
        let mut settings = self.draft.clone();
        if controls::is_auto(&settings.device) && devices.best().is_some_and(|d| d.key == "cpu") {
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
        let recent = cx.settings.recent.iter().filter(|k| *k != "tiny").filter_map(|k| Source::of(k));
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
        if cfg!(not(target_arch = "wasm32")) {
            ui.add_space(theme::GAP);
            ui.horizontal_wrapped(|ui| {
                if ui.button("Open a file...").on_hover_text("A .gguf file; of a split model any part").clicked() {
                    self.asked = None;
                    out.push(Action::ChooseModel { folder: false });
                }
                if ui.button("Open a folder...").on_hover_text("A folder with config.json, as published").clicked() {
                    self.asked = None;
                    out.push(Action::ChooseModel { folder: true });
                }
            });
            ui.label(parts::small(ui, "Files and folders can also be dropped on the window."));
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
        ui.add_space(theme::GAP);
        controls::device_ui(ui, &mut self.draft, cx.devices);
        let on_cpu = self.to_price(cx.devices).device == "cpu";
        if !on_cpu {
            let price = examined.price(&self.to_price(cx.devices));
            controls::budget_ui(ui, &mut self.draft, &price);
        }
        controls::context_ui(ui, &mut self.draft, examined);
        if !on_cpu {
            controls::misses_ui(ui, &mut self.draft);
        }
        ui.add_space(theme::GAP);
        let price = examined.price(&self.to_price(cx.devices));
        parts::card(ui, |ui| {
            ui.set_width(ui.available_width());
            price_ui(ui, &price, on_cpu, examined.host_memory());
            if price.problem.is_some() && self.draft.memory_budget.is_some_and(|b| b < price.least) {
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
        let can = cx.loading.is_none() && examined.is_some_and(|e| e.price(&self.to_price(cx.devices)).problem.is_none());
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
                let settings = Settings { load: self.draft.clone(), ..cx.settings.clone() };
                out.push(Action::SetSettings(Box::new(settings)));
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
        if loading.total == 0 {
            ui.horizontal(|ui| {
                ui.spinner();
                ui.label(parts::muted(ui, format!("Getting ready, {}", parts::seconds(loading.seconds))));
            });
        } else {
            let share = (loading.done as f64 / loading.total as f64).clamp(0.0, 1.0) as f32;
            let bar = ui.add(ProgressBar::new(share).desired_height(14.0).corner_radius(theme::ROUND_SMALL));
            let text = progress(loading);
            parts::named(&bar, Role::ProgressIndicator, &format!("Loading, {:.0} %", share * 100.0));
            ui.label(parts::small(ui, text));
        }
        if ui.button("Cancel").clicked() {
            out.push(Action::CancelLoading);
        }
    });
}

/// Bytes, speed and the time that is left: "1.0 GiB of 4.0 GiB, 512.0 MiB/s, 6.0 s left".
fn progress(loading: &Loading) -> String {
    let mut text = format!("{} of {}", parts::bytes(loading.done), parts::bytes(loading.total));
    let speed = loading.done as f64 / loading.seconds;
    // The first moments say little.
    if loading.seconds >= 0.5 && loading.done > 0 {
        let left = loading.total.saturating_sub(loading.done) as f64 / speed;
        text += &format!(", {}/s, {} left", parts::bytes(speed as u64), parts::seconds(left));
    }
    text
}

/// What goes where, and what is to be said about it.
fn price_ui(ui: &mut Ui, price: &Price, on_cpu: bool, host: Option<HostMemory>) {
    let t = Theme::of(ui.ctx());
    memory_ui(ui, &price.shares);
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
