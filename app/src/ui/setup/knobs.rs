//! Sampling parameters, each with its default and a way back to it.

use egui::{self, Id, Layout, Slider, Ui};
use pleiad_runtime::SamplingParams;

use super::inputs;
use crate::{
    chats::Sampling,
    ui::{icons::Icon, parts},
};

/// A parameter.
struct Knob {
    name: &'static str,
    explanation: &'static str,
    least: f32,
    most: f32,
    step: f64,
    get: fn(&Sampling) -> Option<f32>,
    set: fn(&mut Sampling, Option<f32>),
    /// What is used where nothing is set.
    default: fn(&SamplingParams) -> f32,
}

/// Every parameter that has a slider.
const KNOBS: [Knob; 7] = [
    Knob {
        name: "Temperature",
        explanation: "How freely tokens are drawn. 0: always the likeliest",
        least: 0.0,
        most: 2.0,
        step: 0.05,
        get: |s| s.temperature,
        set: |s, x| s.temperature = x,
        default: |p| p.temperature,
    },
    Knob {
        name: "Top-k",
        explanation: "Only so many of the likeliest tokens. 0: all",
        least: 0.0,
        most: 200.0,
        step: 1.0,
        get: |s| s.top_k.map(|k| k as f32),
        set: |s, x| s.top_k = x.map(|x| x.round() as u32),
        default: |p| p.top_k as f32,
    },
    Knob {
        name: "Top-p",
        explanation: "Only the likeliest tokens that together have this probability. 1: all",
        // 0 would keep nothing.
        least: 0.01,
        most: 1.0,
        step: 0.01,
        get: |s| s.top_p,
        set: |s, x| s.top_p = x,
        default: |p| p.top_p,
    },
    Knob {
        name: "Min-p",
        explanation: "Only tokens at least this likely, relative to the likeliest. 0: all",
        least: 0.0,
        most: 1.0,
        step: 0.01,
        get: |s| s.min_p,
        set: |s, x| s.min_p = x,
        default: |p| p.min_p,
    },
    Knob {
        name: "Repetition penalty",
        explanation: "Makes recent tokens less likely. 1: off",
        least: 1.0,
        most: 2.0,
        step: 0.01,
        get: |s| s.repeat_penalty,
        set: |s, x| s.repeat_penalty = x,
        default: |p| p.repeat_penalty,
    },
    Knob {
        name: "Frequency penalty",
        explanation: "Makes tokens less likely each time they occur. 0: off",
        least: -2.0,
        most: 2.0,
        step: 0.05,
        get: |s| s.frequency_penalty,
        set: |s, x| s.frequency_penalty = x,
        default: |p| p.frequency_penalty,
    },
    Knob {
        name: "Presence penalty",
        explanation: "Makes tokens less likely once they have occurred. 0: off",
        least: -2.0,
        most: 2.0,
        step: 0.05,
        get: |s| s.presence_penalty,
        set: |s, x| s.presence_penalty = x,
        default: |p| p.presence_penalty,
    },
];

/// Draws a row for each parameter. The settings with what was changed.
pub(super) fn knobs_ui(ui: &mut Ui, sampling: &Sampling, defaults: &SamplingParams) -> Option<Sampling> {
    let mut changed = None;
    for knob in &KNOBS {
        if let Some(value) = ui.push_id(knob.name, |ui| knob.show(ui, sampling, defaults)).inner {
            let mut new = sampling.clone();
            (knob.set)(&mut new, value);
            changed = Some(new);
        }
    }
    changed
}

impl Knob {
    /// Draws the row. What it was set to; `Some(None)`: back to the default.
    fn show(&self, ui: &mut Ui, sampling: &Sampling, defaults: &SamplingParams) -> Option<Option<f32>> {
        let own = (self.get)(sampling);
        let default = (self.default)(defaults);
        let mut reset = false;
        let label = ui
            .horizontal(|ui| {
                let label = ui.label(self.name).on_hover_text(self.explanation);
                ui.with_layout(Layout::right_to_left(egui::Align::Center), |ui| {
                    if own.is_some() {
                        let tooltip = format!("Back to the default, {}", short(default));
                        reset = Icon::Reset.button(ui, &format!("Reset {}", self.name), &tooltip).clicked();
                    } else {
                        ui.label(parts::small(ui, "default")).on_hover_text("What the model recommends, else a usual value");
                    }
                });
                label
            })
            .inner;
        let id = Id::unique(("sampling", self.name));
        let (response, taken) = ui
            .horizontal(|ui| {
                inputs::slider(ui, id, label.id, own.unwrap_or(default), |x| {
                    let slider = Slider::new(x, self.least..=self.most).step_by(self.step).max_decimals(2);
                    if self.step == 1.0 { slider.integer() } else { slider }
                })
            })
            .inner;
        response.on_hover_text(self.explanation);
        if reset { Some(None) } else { taken.map(Some) }
    }
}

/// A number without more digits than it needs.
fn short(x: f32) -> String {
    let text = format!("{x:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_is_what_is_read() {
        for knob in &KNOBS {
            let mut sampling = Sampling::default();
            assert_eq!((knob.get)(&sampling), None);
            (knob.set)(&mut sampling, Some(1.0));
            assert_eq!((knob.get)(&sampling), Some(1.0), "{}", knob.name);
            assert_ne!(sampling, Sampling::default());
            assert!(knob.least < knob.most);
        }
        assert_eq!([short(0.8), short(40.0), short(0.95), short(1.0)], ["0.8", "40", "0.95", "1"]);
    }
}
