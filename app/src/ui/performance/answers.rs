//! What the last answers took.

use egui::{Color32, Role, Ui, Vec2b};
use egui_plot::{HoverPosition, Line, Plot, PlotPoints, Points};
use pleiad_runtime::engine::GenerationStats;

use super::{card, or_dash, table_ui};
use crate::ui::{
    Theme, parts,
    plots::{self, Round},
};

/// Answers in the table.
const ROWS: usize = 12;
/// Height of a plot, in points.
pub(super) const HEIGHT: f32 = 110.0;

/// Tokens a second of the prompt, those found in the cache aside; `None`: nothing was computed.
fn reading(s: &GenerationStats) -> Option<f64> {
    let tokens = s.prompt_tokens.saturating_sub(s.reused_tokens);
    (tokens > 0 && s.prefill_seconds > 0.0).then(|| tokens as f64 / s.prefill_seconds)
}

/// Tokens that were decoded: the first one comes with the prompt.
fn decoded(s: &GenerationStats) -> Option<f64> {
    s.generated_tokens.checked_sub(1).filter(|&n| n > 0).map(|n| n as f64)
}

/// Decoded tokens a second.
fn writing(s: &GenerationStats) -> Option<f64> {
    decoded(s).filter(|_| s.decode_seconds > 0.0).map(|n| n / s.decode_seconds)
}

/// An amount for each decoded token.
fn each(s: &GenerationStats, amount: u64) -> Option<f64> {
    decoded(s).map(|n| amount as f64 / n)
}

/// A number with as many digits as say something.
fn number(x: f64) -> String {
    if x > 0.0 && x < 10.0 { format!("{x:.1}") } else { format!("{x:.0}") }
}

/// Draws a table of the last answers, and how fast they came.
pub(super) fn answers_ui(ui: &mut Ui, answers: &[GenerationStats]) {
    card(ui, "Answers", |ui| {
        if answers.is_empty() {
            ui.label(parts::muted(ui, "Nothing was answered yet since the program started."));
            return;
        }
        let t = Theme::of(ui.ctx());
        plot_ui(ui, "Reading the prompt, tokens a second", answers, reading, t.plots[0]);
        plot_ui(ui, "Writing the answer, tokens a second", answers, writing, t.plots[1]);
        let head = [
            "Answer",
            "Prompt",
            "Reading",
            "First token",
            "Tokens",
            "Writing",
            "Tokens a step",
            "Drafts right",
            "Dispatches",
            "Submissions",
            "Readbacks",
            "Uploads",
        ];
        table_ui(ui, "answers", &head, |ui| {
            // The latest first.
            for (i, s) in answers.iter().enumerate().rev().take(ROWS) {
                row_ui(ui, i + 1, s);
            }
        });
        ui.label(parts::small(
            ui,
            "Reading and writing in tokens a second; dispatches, submissions, readbacks and uploads for \
             each token written.",
        ));
    });
}

fn row_ui(ui: &mut Ui, nth: usize, s: &GenerationStats) {
    let d = &s.decode_device;
    let prompt = match s.reused_tokens {
        0 => parts::count(s.prompt_tokens as u64),
        reused => format!("{} ({} cached)", parts::count(s.prompt_tokens as u64), parts::count(reused as u64)),
    };
    ui.label(nth.to_string());
    ui.label(prompt);
    ui.label(or_dash(reading(s).map(number)));
    ui.label(format!("{:.2} s", s.prefill_seconds));
    ui.label(parts::count(s.generated_tokens as u64));
    ui.label(or_dash(writing(s).map(number)));
    ui.label(or_dash(s.tokens_per_step().filter(|_| s.drafted > 0).map(|n| format!("{n:.2}"))));
    ui.label(or_dash(s.acceptance().map(|right| format!("{:.0} % of {}", 100.0 * right, parts::count(s.drafted as u64)))));
    for amount in [d.dispatches, d.submissions, d.readbacks] {
        ui.label(or_dash(each(s, amount).map(number)));
    }
    ui.label(or_dash(each(s, d.uploaded_bytes).map(|b| parts::bytes(b as u64))));
    ui.end_row();
}

/// A line over all answers, which does not take the wheel from the page.
pub(super) fn quiet<'a>(ui: &Ui, id: &'static str) -> Plot<'a> {
    Plot::new(("performance", id))
        .height(HEIGHT)
        .allow_drag(false)
        .allow_zoom(false)
        .allow_scroll(false)
        .allow_boxed_zoom(false)
        .allow_axis_zoom_drag(false)
        .allow_double_click_reset(false)
        .custom_y_axes(vec![plots::axis(ui.style(), number)])
        .y_grid_spacer(|input| plots::marks(&input, Round::Decimal, 4))
        .show_axes(Vec2b::new(false, true))
        .show_grid(Vec2b::new(false, true))
        .grid_color(Theme::of(ui.ctx()).muted)
        .show_background(false)
        .include_y(0.0)
}

fn plot_ui(
    ui: &mut Ui,
    name: &'static str,
    answers: &[GenerationStats],
    of: fn(&GenerationStats) -> Option<f64>,
    colour: Color32,
) {
    let values: Vec<[f64; 2]> = answers.iter().enumerate().filter_map(|(i, s)| Some([(i + 1) as f64, of(s)?])).collect();
    let Some(last) = values.last() else { return };
    ui.label(parts::small(ui, format!("{name}; the latest {}", number(last[1]))));
    let label = |at: &HoverPosition<'_>| match at {
        HoverPosition::NearDataPoint { position, .. } => {
            Some(format!("answer {:.0}, {} tokens a second", position.x, number(position.y)))
        }
        HoverPosition::Elsewhere { .. } => None,
    };
    let shown = quiet(ui, name).include_x(0.5).include_x(answers.len() as f64 + 0.5).label_formatter(label).show(ui, |plot| {
        plot.line(Line::new(name, PlotPoints::from(values.clone())).color(colour).width(1.5));
        plot.points(Points::new(format!("{name}, answers"), PlotPoints::from(values)).color(colour).radius(3.0));
    });
    parts::named(&shown.response, Role::Image, name);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speeds_leave_out_what_was_not_computed() {
        let s = GenerationStats {
            prompt_tokens: 110,
            reused_tokens: 10,
            generated_tokens: 21,
            prefill_seconds: 0.5,
            decode_seconds: 2.0,
            ..GenerationStats::default()
        };
        assert_eq!((reading(&s), writing(&s), each(&s, 40)), (Some(200.0), Some(10.0), Some(2.0)));
        let one = GenerationStats { generated_tokens: 1, reused_tokens: 110, ..s };
        assert_eq!((reading(&one), writing(&one), each(&one, 40)), (None, None, None));
        let none = GenerationStats::default();
        assert_eq!((reading(&none), writing(&none), each(&none, 1)), (None, None, None));
        assert_eq!([number(3.25), number(123.4)], ["3.2", "123"]);
    }
}
