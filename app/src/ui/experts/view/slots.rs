//! What more room on the GPU would buy: the hit rate that the tokens seen would have had with other numbers of slots.

use egui::{Role, Slider, Ui, WidgetInfo};
use egui_plot::{HLine, HoverPosition, Line, LineStyle, Plot, PlotPoint, PlotPoints, VLine};

use crate::{
    activity::Shape,
    ui::{Theme, parts},
};

/// What the tab keeps between frames.
#[derive(Default)]
pub struct Slots {
    /// The number of slots that is asked about.
    asked: Option<usize>,
}

/// What the tab is drawn from.
pub struct SlotsContext<'a> {
    /// Layers and experts.
    pub shape: &'a Shape,
    /// Hit rates in per cent by slots of a layer, from 0 to all experts; empty: nothing was looked up.
    pub curve: &'a [PlotPoint],
    /// Slots that a layer has now, on average; `None`: it is not known, or there are none.
    pub slots: Option<f64>,
    /// Hits a lookup that there were in fact, from 0 to 1.
    pub measured: Option<f64>,
}

impl Slots {
    /// Draws the tab.
    pub fn show(&mut self, ui: &mut Ui, cx: &SlotsContext<'_>) {
        let (curve, experts) = (cx.curve, cx.shape.experts);
        if curve.is_empty() {
            ui.label(parts::muted(ui, "Ask something first: this is worked out from the tokens that were seen."));
            return;
        }
        // A token's experts are needed at once.
        let fewest = cx.shape.top_k.clamp(1, experts.max(1));
        let now = cx.slots.map(|s| s.round() as usize);
        let mut asked = self.asked.or(now).unwrap_or(experts / 2).clamp(fewest, experts.max(1));
        ui.label("Experts of each layer on the GPU");
        let slider = Slider::new(&mut asked, fewest..=experts.max(1)).suffix(format!(" of {experts}"));
        let slider = ui.name_inputs("Experts of each layer on the GPU", |ui| ui.add(slider));
        if slider.on_hover_text("How many experts of each layer would be on the GPU at once").changed() {
            self.asked = Some(asked);
        }
        let said = sentence(curve, asked, experts);
        ui.label(&said);
        if let Some(now) = now {
            let measured = cx.measured.map_or_else(String::new, |r| format!(" In fact {:.0} % were.", 100.0 * r));
            ui.label(parts::small(ui, format!("Now: {}{measured}", sentence(curve, now, experts))));
        }
        let t = Theme::of(ui.ctx());
        let rate = rate(curve, asked);
        let slots = cx.slots;
        let plot = Plot::new("hit rate by slots")
            .height(150.0)
            .allow_drag(false)
            .allow_zoom(false)
            .allow_scroll(false)
            .allow_boxed_zoom(false)
            .allow_double_click_reset(false)
            .include_y(0.0)
            .include_y(100.0)
            .include_x(0.0)
            .include_x(experts as f64)
            .y_axis_formatter(|mark, _| format!("{:.0} %", mark.value))
            .x_axis_label("Experts of each layer on the GPU")
            .label_formatter(|at| {
                let (HoverPosition::NearDataPoint { position: p, .. } | HoverPosition::Elsewhere { position: p }) = at;
                Some(format!("{:.0} slots: {:.0} %", p.x, p.y))
            })
            .show(ui, |plot| {
                plot.line(Line::new("least recently used leaves", PlotPoints::Borrowed(curve)).color(t.plots[0]).width(2.0));
                plot.vline(VLine::new("asked about", asked as f64).color(t.plots[1]).style(LineStyle::dashed_dense()));
                plot.hline(HLine::new("found", rate).color(t.plots[1]).style(LineStyle::dotted_dense()));
                if let Some(slots) = slots {
                    plot.vline(VLine::new("now", slots).color(t.muted));
                }
            });
        plot.response.widget_info(|| WidgetInfo::labeled(Role::Figure, true, format!("Hit rate by number of slots. {said}")));
        let key = "Dashed: what is asked about. Plain upright line: what there is now. Counted over all tokens; slots begin \
                   empty, and the expert that was used longest ago leaves.";
        ui.label(parts::small(ui, key));
    }
}

/// The hit rate with `slots` slots a layer, in per cent.
fn rate(curve: &[PlotPoint], slots: usize) -> f64 {
    curve.get(slots).or(curve.last()).map_or(0.0, |p| p.y)
}

fn sentence(curve: &[PlotPoint], slots: usize, experts: usize) -> String {
    format!("With {slots} of {experts} experts of each layer on the GPU, about {:.0} % would be found.", rate(curve, slots))
}

#[cfg(test)]
mod tests {
    use super::{
        super::{data::Data, fixture},
        *,
    };

    #[test]
    fn the_sentence_is_what_the_curve_says() {
        let mut activity = fixture::activity(3, 16, 512);
        fixture::answer(&mut activity, 1, 300, 10);
        let mut data = Data::default();
        data.tick(&activity, 0.0);
        let curve = data.curve(&activity);
        assert_eq!(curve.len(), 17);
        assert!(curve.is_sorted_by(|a, b| a.y <= b.y) && curve[16].y > 80.0);
        let expected = activity.lru().hit_rate(8).map_or(0.0, |r| 100.0 * r);
        assert!((rate(&curve, 8) - expected).abs() < 1e-9);
        let said = sentence(&curve, 8, 16);
        assert_eq!(said, format!("With 8 of 16 experts of each layer on the GPU, about {expected:.0} % would be found."));
    }
}
