//! What is shown where there is nothing to show: no model, a model that is being loaded, no conversation.

use egui::{Align, Button, Layout, RichText, Role, Ui, Vec2};

use super::{
    super::{Action, Command, Theme, parts, theme},
    ChatContext,
};

/// Questions to begin with. The embedded model can answer these.
pub(super) const EXAMPLES: [&str; 3] =
    ["What is 47 + 85?", "What is the capital of France?", "Tell me a short story about a cat."];

/// An empty conversation. The question that was chosen.
pub(super) fn start_ui(ui: &mut Ui, cx: &ChatContext<'_>, out: &mut Vec<Action>) -> Option<&'static str> {
    let t = Theme::of(ui.ctx());
    let mut chosen = None;
    let height = ui.available_height();
    ui.with_layout(Layout::top_down(Align::Center), |ui| {
        ui.set_max_width(ui.available_width().min(theme::READING_WIDTH));
        ui.add_space((height * 0.28 - 40.0).max(theme::PAD));
        match cx.model {
            Some(model) => {
                ui.label(RichText::new(format!("Ask {model}")).heading().color(t.strong));
                ui.add_space(theme::GAP);
                ui.label(parts::muted(ui, "It runs on this computer. Nothing you write leaves it."));
                ui.add_space(theme::PAD);
                for example in EXAMPLES {
                    let width = ui.available_width().min(360.0);
                    if ui.add(Button::new(example).wrap().min_size(Vec2::new(width, 34.0))).clicked() {
                        chosen = Some(example);
                    }
                }
            }
            None => model_ui(ui, cx, out),
        }
    });
    chosen
}

/// Why there is no model, and what to do.
fn model_ui(ui: &mut Ui, cx: &ChatContext<'_>, out: &mut Vec<Action>) {
    let t = Theme::of(ui.ctx());
    if let Some(share) = cx.loading {
        loading_ui(ui, share);
        return;
    }
    if let Some(problem) = cx.problem {
        ui.label(RichText::new("The model could not be loaded").heading().color(t.strong));
        ui.add_space(theme::GAP);
        ui.label(RichText::new(problem).color(t.bad));
    } else {
        ui.label(RichText::new("No model is loaded").heading().color(t.strong));
        ui.add_space(theme::GAP);
        ui.label(parts::muted(ui, "Choose one to talk with; a small one comes with the program."));
    }
    ui.add_space(theme::PAD);
    picker_button(ui, out);
}

fn picker_button(ui: &mut Ui, out: &mut Vec<Action>) {
    let tip = Command::OpenPicker.tooltip(ui.ctx());
    if ui.button(Command::OpenPicker.name()).on_hover_text(tip).clicked() {
        out.push(Action::OpenPicker);
    }
}

fn loading_ui(ui: &mut Ui, share: Option<f32>) {
    let words = match share {
        Some(share) => format!("Loading the model, {:.0} %", 100.0 * share.clamp(0.0, 1.0)),
        None => "Loading the model...".to_owned(),
    };
    ui.label(parts::muted(ui, &words));
    if let Some(share) = share {
        let width = ui.available_width().min(320.0);
        let bar = parts::meter(ui, share, Vec2::new(width, 6.0), Theme::of(ui.ctx()).accent);
        parts::named(&bar, Role::ProgressIndicator, &words);
    }
}

/// The same in one line, above the box, where there is a conversation.
pub(super) fn banner_ui(ui: &mut Ui, cx: &ChatContext<'_>, out: &mut Vec<Action>) {
    if let Some(share) = cx.loading {
        ui.horizontal_wrapped(|ui| loading_ui(ui, share));
    } else if cx.model.is_none() {
        ui.horizontal_wrapped(|ui| {
            let t = Theme::of(ui.ctx());
            match cx.problem {
                Some(problem) => ui.label(RichText::new(format!("The model could not be loaded: {problem}")).color(t.bad)),
                None => ui.label(RichText::new("No model is loaded").color(t.warn)),
            };
            picker_button(ui, out);
        });
    }
}
