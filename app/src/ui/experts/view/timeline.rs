//! Hit rate, bytes moved and speed, token by token, and the brush that narrows everything else to a range of tokens.

use std::ops::Range;

use egui::{self, Color32, RangeSlider, Response, Role, Sense, Ui, WidgetInfo, vec2};
use egui_plot::{HoverPosition, Line, Plot, PlotPoint, PlotPoints, Span};

use crate::{
    activity::{Phase, timeline::Sample},
    ui::{
        Theme, parts,
        plots::{self, Round},
    },
};

/// Most points that a line is drawn with: more cannot be told apart.
const MOST_POINTS: usize = 512;
/// Fewest tokens that a brush holds.
const FEWEST: usize = 2;

/// The lines of the timeline, thinned out to what can be seen.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Lines {
    hit_rate: Vec<PlotPoint>,
    bytes: Vec<PlotPoint>,
    speed: Vec<PlotPoint>,
}

/// A part and a whole, over the tokens of one point.
#[derive(Clone, Copy, Default)]
struct Mean(f64, f64);

impl Mean {
    fn add(&mut self, part: f64, whole: f64) {
        *self = Self(self.0 + part, self.1 + whole);
    }

    fn push(self, line: &mut Vec<PlotPoint>, x: f64) {
        if self.1 > 0.0 {
            line.push(PlotPoint::new(x, self.0 / self.1));
        }
    }
}

impl Lines {
    /// Of samples, oldest first, as far as they are of `tokens`. Means are shown where several share a point. Speed is that of
    /// writing: prompts are read many tokens at once.
    pub fn of(samples: &[Sample], tokens: &Range<usize>) -> Self {
        let inside = |s: &&Sample| s.range.start < tokens.end && s.range.end > tokens.start;
        let samples: Vec<&Sample> = samples.iter().filter(inside).collect();
        let bin = samples.len().div_ceil(MOST_POINTS).max(1);
        let mut lines = Self::default();
        for bin in samples.chunks(bin) {
            let [mut x, mut hit, mut bytes, mut speed] = [Mean::default(); 4];
            for s in bin {
                let n = s.tokens as f64;
                x.add(n * 0.5 * (s.range.start.max(tokens.start) + s.range.end.min(tokens.end)).saturating_sub(1) as f64, n);
                hit.add(100.0 * s.hits as f64, s.lookups as f64);
                bytes.add(s.bytes as f64, n);
                if s.phase == Phase::Answer && s.seconds > 0.0 {
                    speed.add(n, s.seconds);
                }
            }
            let x = x.0 / x.1.max(1.0);
            hit.push(&mut lines.hit_rate, x);
            bytes.push(&mut lines.bytes, x);
            speed.push(&mut lines.speed, x);
        }
        lines
    }
}

/// What the timeline keeps between frames.
#[derive(Default)]
pub struct Timeline {
    /// The tokens that everything is narrowed to, by number.
    pub brush: Option<Range<usize>>,
    /// Where a drag began.
    from: Option<f64>,
}

impl Timeline {
    /// With a brush.
    #[cfg(test)]
    pub fn narrowed(brush: Range<usize>) -> Self {
        Self { brush: Some(brush), from: None }
    }

    /// Draws three plots, one above the other, and the controls of the brush. `tokens`: the numbers of all tokens there are.
    pub fn show(&mut self, ui: &mut Ui, lines: &Lines, tokens: Range<usize>) {
        if tokens.is_empty() {
            ui.label(parts::muted(ui, "Nothing yet. Ask something and watch."));
            return;
        }
        let t = Theme::of(ui.ctx());
        let percent = |y: f64| format!("{y:.0} %");
        let bytes = |y: f64| parts::bytes(y.max(0.0) as u64);
        let speed = |y: f64| format!("{y:.1} tok/s");
        let top = |line: &[PlotPoint]| line.iter().map(|p| p.y).fold(0.0, f64::max);
        for (name, unknown, line, colour, top, words) in [
            (
                "Hit rate",
                "no slots: the whole model runs in one place",
                &lines.hit_rate,
                t.plots[0],
                100.0,
                &percent as &dyn Fn(f64) -> String,
            ),
            ("Bytes moved per token", "nothing was moved", &lines.bytes, t.plots[1], top(&lines.bytes), &bytes),
            ("Tokens per second", "not known yet", &lines.speed, t.plots[2], top(&lines.speed), &speed),
        ] {
            let last = line.last().filter(|_| top > 0.0).map_or_else(|| unknown.to_owned(), |p| words(p.y));
            ui.label(parts::small(ui, format!("{name}: {last}")));
            let blank = |_: f64| String::new();
            let ticks = if line.is_empty() || top <= 0.0 {
                // Of nothing there is no scale.
                (Round::Decimal, &blank as &dyn Fn(f64) -> String)
            } else if name.starts_with("Bytes") {
                (Round::Binary, &plots::bytes as &dyn Fn(f64) -> String)
            } else {
                (Round::Decimal, words)
            };
            let response = plot_ui(ui, name, line, colour, top.max(1e-9), &tokens, self.shaded(&tokens), words, ticks);
            response.0.widget_info(|| WidgetInfo::labeled(Role::Figure, true, format!("{name} over tokens, now {last}")));
            self.drag(&response.0, &response.1, &tokens);
        }
        self.controls_ui(ui, tokens);
    }

    /// What is shaded: the brush, or the drag under way.
    fn shaded(&self, tokens: &Range<usize>) -> Option<Range<f64>> {
        let brush = self.brush.as_ref()?;
        Some(brush.start.max(tokens.start) as f64 - 0.5..brush.end.min(tokens.end) as f64 - 0.5)
    }

    fn drag(&mut self, response: &Response, transform: &egui_plot::PlotTransform, tokens: &Range<usize>) {
        let at = response.interact_pointer_pos().map(|p| transform.value_from_position(p).x);
        if response.drag_started() {
            // Where the pointer was pressed, not where it has moved to since.
            let moved = response.total_drag_delta().map_or(0.0, |d| f64::from(d.x) / transform.dpos_dvalue_x());
            self.from = at.map(|x| x - moved);
        }
        if let (Some(from), Some(to)) = (self.from, at)
            && response.dragged()
        {
            self.set(from.min(to), from.max(to), tokens);
        }
        if response.drag_stopped() {
            self.from = None;
        } else if response.clicked() {
            self.brush = None;
        }
    }

    fn set(&mut self, from: f64, to: f64, tokens: &Range<usize>) {
        let number = |x: f64| (x.round().max(0.0) as usize).clamp(tokens.start, tokens.end.saturating_sub(1).max(tokens.start));
        let start = number(from);
        let end = (number(to) + 1).max(start + FEWEST).min(tokens.end);
        self.brush = Some(end.saturating_sub(FEWEST).min(start).max(tokens.start)..end);
    }

    /// The range in words, two handles for those who do not drag in a plot, and a button that clears it.
    fn controls_ui(&mut self, ui: &mut Ui, tokens: Range<usize>) {
        let (first, last) = (tokens.start, tokens.end.saturating_sub(1));
        ui.horizontal_wrapped(|ui| {
            let brush = self.brush.clone().unwrap_or(tokens.clone());
            let (mut low, mut high) = (brush.start.clamp(first, last), brush.end.saturating_sub(1).clamp(first, last));
            let before = (low, high);
            ui.label(parts::small(ui, "Range of tokens"));
            ui.name_inputs("Range of tokens", |ui| {
                // People count from one.
                let slider = RangeSlider::new(&mut low, &mut high, first..=last)
                    .custom_formatter(|n, _| format!("{:.0}", n + 1.0))
                    .custom_parser(|text| text.trim().parse().ok().map(|n: f64| n - 1.0));
                ui.add_enabled(first < last, slider);
            });
            if (low, high) != before {
                self.set(low as f64, high as f64, &tokens);
            }
            let clear = ui.add_enabled(self.brush.is_some(), egui::Button::new("All tokens"));
            if clear.on_hover_text("Count all tokens again").clicked() {
                self.brush = None;
            }
        });
        let text = match &self.brush {
            Some(b) => format!("Grid and measures: tokens {} to {} of {}", b.start + 1, b.end, tokens.end),
            None => "Drag in a plot to narrow grid and measures to a range of tokens.".to_owned(),
        };
        ui.label(parts::small(ui, text));
    }
}

#[expect(clippy::too_many_arguments, reason = "one plot, three times")]
fn plot_ui(
    ui: &mut Ui,
    name: &str,
    line: &[PlotPoint],
    colour: Color32,
    top: f64,
    tokens: &Range<usize>,
    shaded: Option<Range<f64>>,
    words: &dyn Fn(f64) -> String,
    (round, ticks): (Round, &dyn Fn(f64) -> String),
) -> (Response, egui_plot::PlotTransform) {
    let t = Theme::of(ui.ctx());
    let (first, last) = (tokens.start as f64 - 0.5, tokens.end as f64 - 0.5);
    let hover = |at: &HoverPosition<'_>| {
        let (HoverPosition::NearDataPoint { position, .. } | HoverPosition::Elsewhere { position }) = at;
        Some(format!("token {:.0}\n{}", position.x + 1.0, words(position.y)))
    };
    // The same room for all, so that tokens are one below the other.
    let axis = plots::axis(ui.style(), ticks).min_thickness(62.0);
    let shown = Plot::new(name)
        .height(54.0)
        .sense(Sense::click_and_drag())
        .allow_drag(false)
        .allow_zoom(false)
        .allow_scroll(false)
        .allow_boxed_zoom(false)
        .allow_double_click_reset(false)
        .show_axes([false, true])
        .show_grid([false, true])
        .set_margin_fraction(vec2(0.0, 0.08))
        .custom_y_axes(vec![axis])
        .y_grid_spacer(move |input| plots::marks(&input, round, 2))
        .label_formatter(hover)
        .show(ui, |plot| {
            plot.set_plot_bounds_x(first..=last.max(first + 1.0));
            plot.set_plot_bounds_y(0.0..=top * 1.1);
            if let Some(shaded) = shaded {
                let span = Span::new("", shaded.start..=shaded.end).fill(t.accent.gamma_multiply(0.2)).border_color(t.accent);
                plot.span(span);
            }
            plot.line(Line::new(name, PlotPoints::Borrowed(line)).color(colour).width(1.5));
        });
    (shown.response, shown.transform)
}

#[cfg(test)]
mod tests {
    use super::{super::fixture, *};

    #[test]
    fn thousands_of_tokens_are_few_points_with_the_same_mean() {
        let mut activity = fixture::activity(2, 8, 4096);
        fixture::answer(&mut activity, 1, 3000, 4);
        let tokens = activity.tokens().range();
        let lines = Lines::of(activity.timeline().samples(), &tokens);
        assert!(lines.bytes.len() <= MOST_POINTS && lines.bytes.len() > MOST_POINTS / 4, "{}", lines.bytes.len());
        assert!(lines.bytes.is_sorted_by(|a, b| a.x < b.x));
        let lookups = fixture::lookups(&activity);
        let all = 100.0 * lookups.0 as f64 / lookups.1 as f64;
        let mean = lines.hit_rate.iter().map(|p| p.y).sum::<f64>() / lines.hit_rate.len() as f64;
        assert!((mean - all).abs() < 2.0, "{mean} and {all}");
        let narrow = Lines::of(activity.timeline().samples(), &(100..200));
        assert!(narrow.bytes.iter().all(|p| (99.0..=200.0).contains(&p.x)) && !narrow.bytes.is_empty());
    }

    #[test]
    fn a_brush_stays_within_the_tokens() {
        let mut timeline = Timeline::default();
        timeline.set(-20.0, 3.2, &(0..100));
        assert_eq!(timeline.brush, Some(0..4));
        timeline.set(97.8, 900.0, &(0..100));
        assert_eq!(timeline.brush, Some(98..100));
        timeline.set(50.0, 50.0, &(0..100));
        assert_eq!(timeline.brush, Some(50..52));
        timeline.set(10.0, 20.0, &(40..100));
        assert_eq!(timeline.brush, Some(40..42));
        timeline.set(99.0, 99.0, &(0..100));
        assert_eq!(timeline.brush, Some(98..100));
    }
}
