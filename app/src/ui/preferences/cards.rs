//! The cards of the page, each changing a copy of the settings. Each says whether it changed it.

use egui::{self, Button, Color32, Id, Label, Layout, Mesh, Rect, Response, RichText, Slider, TextEdit, Ui, Vec2};
use pleiad_runtime::{
    Activations,
    experts::ways::{Way, WayChoice},
};

use super::units;
use crate::{
    loading::options,
    settings::{Palette, Settings, ThemeChoice},
    ui::{
        Action, Command,
        experts::colours,
        icons::Icon,
        parts,
        picker::ONE_WAY,
        setup::inputs::{self, Taken},
        theme,
    },
};

/// Below this width of a card labels stand above what they name.
const ROOMY: f32 = 520.0;
/// The fonts that are part of the program, and what they are licensed under.
const FONTS: &str = "Ubuntu (UFL 1.0), Hack (MIT), Noto Emoji (OFL 1.1), emoji-icon-font (MIT), KaTeX (OFL 1.1)";
/// Width of the column of labels.
const LABELS: f32 = 190.0;

/// A card with a heading.
pub(super) fn card<R>(ui: &mut Ui, title: &str, add: impl FnOnce(&mut Ui) -> R) -> R {
    let result = parts::card(ui, |ui| {
        ui.set_width(ui.available_width());
        let heading = ui.label(RichText::new(title).strong().color(crate::ui::Theme::of(ui.ctx()).strong));
        ui.ctx().accesskit_node_builder(heading.id, |node| node.set_role(egui::Role::Heading));
        add(ui)
    });
    ui.add_space(theme::GAP);
    result
}

/// A row: a label, and what it names. `add` is given the label's id.
fn row<R>(ui: &mut Ui, name: &str, add: impl FnOnce(&mut Ui, Id) -> R) -> R {
    if ui.available_width() < ROOMY {
        let label = ui.label(name);
        return ui.vertical(|ui| add(ui, label.id)).inner;
    }
    ui.horizontal_top(|ui| {
        let height = ui.spacing().interact_size.y;
        let layout = Layout::left_to_right(egui::Align::Center);
        let label = ui.allocate_ui_with_layout(Vec2::new(LABELS, height), layout, |ui| {
            ui.set_min_width(LABELS);
            ui.add(Label::new(name).wrap())
        });
        ui.vertical(|ui| add(ui, label.inner.id)).inner
    })
    .inner
}

/// A text beside a label, on the same line as it.
fn value(ui: &mut Ui, text: &str) {
    let line = ui.text_style_height(&egui::TextStyle::Body);
    ui.add_space(((ui.spacing().interact_size.y - line) / 2.0).max(0.0));
    ui.add(Label::new(text).wrap());
}

/// An explanation below what it is about.
fn explain(ui: &mut Ui, text: &str) {
    ui.add(Label::new(parts::small(ui, text)).wrap());
}

pub(super) fn appearance(ui: &mut Ui, new: &mut Settings) -> bool {
    let mut changed = row(ui, "Theme", |ui, _| {
        ui.horizontal_wrapped(|ui| {
            let mut changed = false;
            for (choice, name) in
                [(ThemeChoice::System, "As the system"), (ThemeChoice::Light, "Light"), (ThemeChoice::Dark, "Dark")]
            {
                changed |= ui.selectable_value(&mut new.theme, choice, name).changed();
            }
            changed
        })
        .inner
    });
    changed |= row(ui, "Text size", |ui, label| {
        let percent = |x: f64, _: std::ops::RangeInclusive<usize>| format!("{:.0} %", x * 100.0);
        let parse = |text: &str| text.trim().trim_end_matches('%').trim().parse::<f64>().ok().map(|p| p / 100.0);
        let id = Id::unique("preferences text size");
        let scale = new.font_scale;
        let (_, taken) = ui
            .horizontal(|ui| {
                inputs::slider(ui, id, label, scale, |x| {
                    Slider::new(x, 0.7..=2.0).step_by(0.05).custom_formatter(percent).custom_parser(parse)
                })
            })
            .inner;
        taken.map(|x| new.font_scale = x).is_some()
    });
    changed |= row(ui, "Colours for amounts", |ui, _| {
        let mut changed = false;
        for (palette, name, explanation) in [
            (Palette::Viridis, "Viridis", "Blue, green, yellow"),
            (Palette::Inferno, "Inferno", "Black, red, yellow"),
            (Palette::Cividis, "Cividis", "Blue, grey, yellow"),
        ] {
            ui.horizontal(|ui| {
                let width = 110.0;
                let (rect, _) = ui.allocate_exact_size(Vec2::new(width, 14.0), egui::Sense::hover());
                bar(ui, rect, palette);
                changed |= inputs::choice(ui, &mut new.palette, palette, name, explanation);
            });
        }
        changed
    });
    changed |= inputs::tick(ui, &mut new.reduced_motion, "Reduced motion");
    explain(ui, "No animation, blinking or smooth scrolling.");
    changed
}

/// Paints a palette.
fn bar(ui: &Ui, rect: Rect, palette: Palette) {
    if !ui.is_rect_visible(rect) {
        return;
    }
    const PARTS: usize = 32;
    let colours = colours::amounts(palette);
    let mut mesh = Mesh::default();
    for i in 0..=PARTS {
        let at = i as f32 / PARTS as f32;
        let [r, g, b] = colours[i * (colours::STEPS - 1) / PARTS];
        let (x, colour) = (rect.left() + at * rect.width(), Color32::from_rgb(r, g, b));
        mesh.colored_vertex(egui::pos2(x, rect.top()), colour);
        mesh.colored_vertex(egui::pos2(x, rect.bottom()), colour);
        if i > 0 {
            let n = 2 * i as u32;
            mesh.add_triangle(n - 2, n - 1, n);
            mesh.add_triangle(n - 1, n, n + 1);
        }
    }
    ui.painter().add(mesh);
}

pub(super) fn conversation(ui: &mut Ui, new: &mut Settings) -> bool {
    let mut changed = inputs::tick(ui, &mut new.enter_sends, "Enter sends a message");
    let with = if cfg!(target_os = "macos") { "Command" } else { "Ctrl" };
    if new.enter_sends {
        explain(ui, "Shift+Enter begins a line.");
    } else {
        explain(ui, &format!("Enter begins a line, {with}+Enter sends."));
    }
    changed |= inputs::tick(ui, &mut new.unfold_reasoning, "Unfold reasoning");
    explain(ui, "Reasoning is shown while and after it is written, rather than folded.");
    changed |= row(ui, "Default system prompt", |ui, label| {
        let edit = TextEdit::multiline(&mut new.system).hint_text("None").desired_rows(3).desired_width(f32::INFINITY);
        ui.add(edit).labelled_by(label).changed()
    });
    explain(ui, "New conversations begin with it.");
    changed
}

/// `page`: in a browser.
pub(super) fn models(ui: &mut Ui, new: &mut Settings, page: bool) -> bool {
    explain(ui, "For the next model that is loaded.");
    let load = &mut new.load;
    let mut changed = row(ui, "Device", |ui, label| {
        let id = Id::unique("preferences device");
        let texts = (load.device.as_str(), "auto");
        let device = inputs::field(ui, id, label, texts, Taken::AtEnd, units::device);
        explain(ui, "auto, cpu, or wgpu:N, as the page of devices counts.");
        device.map(|d| load.device = d).is_some()
    });
    changed |= row(ui, "Memory budget", |ui, label| {
        let id = Id::unique("preferences budget");
        let current = units::size_text(load.memory_budget);
        let careful = parts::bytes(options::CAREFUL_BUDGET);
        let (hint, explanation) = if page {
            (
                careful.as_str(),
                "Most memory on the device, as 6 GiB, or \u{201c}everything\u{201d}. Experts that do not fit are read from the file.",
            )
        } else {
            ("All there is", "Most memory on the device, as 6 GiB. Experts that do not fit stay in main memory.")
        };
        let budget = inputs::field(ui, id, label, (&current, hint), Taken::AtEnd, units::size);
        explain(ui, explanation);
        budget.map(|b| load.memory_budget = b).is_some()
    });
    changed |= row(ui, "Experts not on the device", |ui, _| {
        let mut changed = false;
        if page {
            explain(ui, ONE_WAY);
            return changed;
        }
        for (way, name, explanation) in [
            (WayChoice::Auto, "Automatic", "What is fastest, measured while tokens are written"),
            (WayChoice::Only(Way::Gather), "Gather", "The GPU reads them from main memory"),
            (WayChoice::Only(Way::Cpu), "CPU", "The CPU computes them where they are"),
            (WayChoice::Only(Way::Resume), "Resume", "They are uploaded while the GPU waits"),
        ] {
            changed |= inputs::choice(ui, &mut load.misses, way, name, "");
            explain(ui, explanation);
        }
        changed
    });
    changed |= row(ui, "Context, in tokens", |ui, label| {
        let id = Id::unique("preferences context");
        let current = load.context.map_or_else(String::new, |n| n.to_string());
        let hint = "The model's, at most 8192";
        let context = inputs::field(ui, id, label, (&current, hint), Taken::AtEnd, inputs::at_least_one);
        context.map(|c| load.context = c).is_some()
    });
    changed |= row(ui, "Activations", |ui, _| {
        let mut changed = inputs::choice(ui, &mut load.activations, Activations::Q8, "8 bits", "");
        explain(ui, "Faster; in products with quantised weights only.");
        changed |= inputs::choice(ui, &mut load.activations, Activations::F32, "Single precision", "");
        changed
    });
    changed
}

pub(super) fn experts(ui: &mut Ui, new: &mut Settings) -> bool {
    row(ui, "Half-life of the recent view", |ui, label| {
        let id = Id::unique("preferences half-life");
        let half_life = new.half_life;
        let (_, taken) = ui
            .horizontal(|ui| {
                inputs::slider(ui, id, label, half_life, |x| Slider::new(x, 1.0..=512.0).logarithmic(true).integer())
            })
            .inner;
        explain(ui, "In tokens: what was chosen so many tokens ago counts half.");
        taken.map(|x| new.half_life = x).is_some()
    })
}

pub(super) fn storage(ui: &mut Ui, places: Option<&[(String, String)]>, out: &mut Vec<Action>) {
    let Some(places) = places else {
        explain(
            ui,
            "Conversations, settings and models are kept in this browser, for this site. Clearing its data removes them.",
        );
        return;
    };
    if places.is_empty() {
        explain(ui, "Nothing is kept between runs.");
    }
    for (name, path) in places {
        row(ui, name, |ui, _| {
            ui.horizontal(|ui| {
                let copy = Icon::Copy.button(ui, &format!("Copy the path of {name}"), "Copy the path");
                if copy.clicked() {
                    out.push(Action::Copy(path.clone()));
                }
                let path = RichText::new(path).text_style(egui::TextStyle::Monospace);
                ui.add(Label::new(path).wrap().selectable(true));
            });
        });
    }
}

pub(super) fn about(ui: &mut Ui, out: &mut Vec<Action>) {
    row(ui, "Version", |ui, _| value(ui, env!("CARGO_PKG_VERSION")));
    row(ui, "Licence", |ui, _| value(ui, &env!("CARGO_PKG_LICENSE").replace(" OR ", " or ")));
    row(ui, "Fonts", |ui, _| value(ui, FONTS));
    ui.horizontal_wrapped(|ui| {
        for (command, name) in [(Command::ShowShortcuts, "Keyboard shortcuts..."), (Command::ShowLog, "Log")] {
            let button: Response = ui.add(Button::new(name));
            if button.on_hover_text(command.tooltip(ui.ctx())).clicked() {
                out.push(Action::Run(command));
            }
        }
    });
}
