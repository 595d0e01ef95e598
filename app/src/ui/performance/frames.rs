//! What frames of the window take.

use egui::{Role, Ui};
use egui_plot::{HLine, HoverPosition, Line, LineStyle, PlotPoints};

use super::{answers::quiet, card};
use crate::ui::{Theme, parts};

/// What a frame with everything visible may take, in milliseconds.
const MOST: f64 = 8.0;

/// Median and worst of frame times in milliseconds; `sorted` is for reuse. `None`: there are none.
fn summary(frames: &[f32], sorted: &mut Vec<f32>) -> Option<(f32, f32)> {
    sorted.clear();
    sorted.extend(frames.iter().copied().filter(|ms| ms.is_finite()));
    sorted.sort_unstable_by(f32::total_cmp);
    Some((*sorted.get(sorted.len() / 2)?, *sorted.last()?))
}

/// Draws frame times.
pub(super) fn frames_ui(ui: &mut Ui, frames: &[f32], sorted: &mut Vec<f32>) {
    card(ui, "Window", |ui| {
        let Some((median, worst)) = summary(frames, sorted) else {
            ui.label(parts::muted(ui, "No frame was measured yet."));
            return;
        };
        let t = Theme::of(ui.ctx());
        ui.label(format!("Frames take {median:.1} ms of the CPU, the slowest of the last {} {worst:.1} ms.", sorted.len()));
        let label = |at: &HoverPosition<'_>| match at {
            HoverPosition::NearDataPoint { position, .. } => Some(format!("{:.1} ms", position.y)),
            HoverPosition::Elsewhere { .. } => None,
        };
        let plot = quiet(ui, "frames").height(80.0).include_x(0.0).include_y(MOST * 1.25).label_formatter(label);
        let shown = plot.show(ui, |plot| {
            let limit = HLine::new("limit", MOST).color(t.warn).style(LineStyle::dashed_dense()).allow_hover(false);
            plot.hline(limit);
            let points: PlotPoints<'_> = frames.iter().enumerate().map(|(i, &ms)| [i as f64, f64::from(ms)]).collect();
            plot.line(Line::new("frames", points).color(t.plots[0]).width(1.0));
        });
        parts::named(&shown.response, Role::Image, "Frame times in milliseconds");
        ui.label(parts::small(ui, format!("The dashed line is {MOST} ms, what a frame should stay below.")));
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_and_worst() {
        let mut sorted = Vec::new();
        assert_eq!(summary(&[], &mut sorted), None);
        assert_eq!(summary(&[3.0, 1.0, f32::NAN, 9.0], &mut sorted), Some((3.0, 9.0)));
        assert_eq!(summary(&[2.0], &mut sorted), Some((2.0, 2.0)));
    }
}
