//! Where the time of the last answer went.

use egui::{Color32, Grid, Rect, Role, ScrollArea, Sense, TextStyle, Ui, Vec2, WidgetInfo, pos2, vec2};
use pleiad_runtime::{
    engine::{GenerationStats, HostTimes},
    executor::WorkTimes,
};

use super::card;
use crate::ui::{
    Theme, parts,
    picker::{Hatch, part_ui},
    theme,
};

/// Height of a bar, in points.
const HEIGHT: f32 = 16.0;

/// A stage: its name, and the seconds it took of the prompt and of the answer.
#[derive(Debug, PartialEq)]
struct Stage {
    name: &'static str,
    seconds: [f64; 2],
}

/// Whether the device told how long each kind of work took.
fn tells(s: &GenerationStats) -> bool {
    s.prefill_device.work.total() + s.decode_device.work.total() > 0
}

/// The stages of an answer; what is left of its time is the last.
fn stages(s: &GenerationStats) -> Vec<Stage> {
    let totals = [s.prefill_seconds, s.decode_seconds];
    let mut all: Vec<Stage> = if tells(s) {
        let work = [s.prefill_device.work, s.decode_device.work];
        let of = |name, kind: fn(&WorkTimes) -> u64| Stage { name, seconds: [0, 1].map(|i: usize| kind(&work[i]) as f64 * 1e-9) };
        let drafting = of("Drafting", |w| w.drafting);
        let drafts = drafting.seconds != [0.0, 0.0];
        let kinds = [
            of("Attention", |w| w.attention),
            of("Router and experts", |w| w.experts),
            of("Dense products", |w| w.dense),
            of("Logits and sampling", |w| w.output),
        ];
        kinds.into_iter().chain(drafts.then_some(drafting)).collect()
    } else {
        let host = [s.prefill_host, s.decode_host];
        let of = |name, kind: fn(&HostTimes) -> f64| Stage { name, seconds: [0, 1].map(|i: usize| kind(&host[i])) };
        vec![of("Preparing steps", |h| h.starting), of("Waiting for the device", |h| h.waiting)]
    };
    let known = |i: usize| all.iter().map(|stage| stage.seconds[i]).sum::<f64>();
    let rest = [0, 1].map(|i: usize| (totals[i] - known(i)).max(0.0));
    all.push(Stage { name: "The rest", seconds: rest });
    all
}

/// Colour and hatching of the stage of that number; the last is what is left.
fn look(at: usize, of: usize, t: &Theme) -> (Color32, Hatch) {
    if at + 1 == of {
        return (t.muted, Hatch::Upright);
    }
    match at {
        0 => (t.plots[0], Hatch::Plain),
        1 => (t.plots[1], Hatch::Rising),
        2 => (t.plots[2], Hatch::Falling),
        3 => (t.plots[0], Hatch::Upright),
        _ => (t.plots[1], Hatch::Plain),
    }
}

/// Draws where the time of `last` went.
pub(super) fn stages_ui(ui: &mut Ui, last: Option<&GenerationStats>) {
    card(ui, "Where the time goes", |ui| {
        let Some(s) = last else {
            ui.label(parts::muted(ui, "The last answer will be told of here."));
            return;
        };
        let stages = stages(s);
        bar_ui(ui, "Reading the prompt", s.prefill_seconds, &stages, 0);
        bar_ui(ui, "Writing the answer", s.decode_seconds, &stages, 1);
        // Enlarged text may need more room than there is.
        ScrollArea::horizontal().id_salt("stages").auto_shrink([false, true]).show(ui, |ui| legend_ui(ui, &stages));
        ui.label(parts::small(ui, words(s)));
    });
}

/// What the stages are, and what cannot be told.
fn words(s: &GenerationStats) -> String {
    if tells(s) {
        return "Of the last answer. The CPU computes operation by operation, and each is timed; the rest is text, waiting for other \
                answers, and starting threads."
            .into();
    }
    let mut words = "Of the last answer. A GPU runs a step as one and does not tell how long its parts take: this is what the \
                     program sees. Preparing includes compiling kernels at their first use; waiting includes drafts"
        .to_owned();
    let stops = s.prefill_device.rendezvous + s.decode_device.rendezvous;
    if stops > 0 {
        words += &format!(", and missing experts, for which steps stopped {} times", parts::count(stops));
    }
    words + "."
}

fn bar_ui(ui: &mut Ui, name: &str, seconds: f64, stages: &[Stage], which: usize) {
    let t = Theme::of(ui.ctx());
    let all: f64 = stages.iter().map(|s| s.seconds[which]).sum();
    let label = ui.label(parts::small(ui, format!("{name}, {}", parts::seconds(seconds))));
    let (rect, response) = ui.allocate_exact_size(vec2(ui.available_width(), HEIGHT), Sense::hover());
    response.widget_info(|| WidgetInfo::new(Role::Meter));
    let response = response.labelled_by(label.id);
    if !ui.is_rect_visible(rect) {
        return;
    }
    ui.painter().rect_filled(rect, theme::ROUND_SMALL, t.field);
    let (mut left, pointer) = (rect.left(), response.hover_pos());
    let mut under = None;
    for (at, stage) in stages.iter().enumerate() {
        let width = if all > 0.0 { (stage.seconds[which] / all) as f32 * rect.width() } else { 0.0 };
        let part = Rect::from_min_max(pos2(left, rect.top()), pos2((left + width).min(rect.right()), rect.bottom()));
        left = part.right();
        if part.width() < 0.5 {
            continue;
        }
        // A hair of the ground between parts.
        let shown = part.with_max_x((part.right() - 1.0).max(part.left() + 0.5));
        let (colour, hatch) = look(at, stages.len(), t);
        part_ui(ui.painter(), shown, colour, hatch, t.page);
        if pointer.is_some_and(|p| part.contains(p)) {
            under = Some(stage);
        }
    }
    if let Some(stage) = under {
        let share = 100.0 * stage.seconds[which] / all.max(f64::MIN_POSITIVE);
        response.on_hover_text(format!("{}, {}, {share:.0} %", stage.name, parts::seconds(stage.seconds[which])));
    }
}

/// A time that may be much shorter than those that people wait for: "0.4 ms".
fn short(seconds: f64) -> String {
    match seconds {
        s if s < 0.000_05 => "-".into(),
        s if s < 0.00995 => format!("{:.1} ms", s * 1e3),
        s => parts::seconds(s),
    }
}

/// What the colours mean, and the seconds.
fn legend_ui(ui: &mut Ui, stages: &[Stage]) {
    let t = Theme::of(ui.ctx());
    let height = ui.text_style_height(&TextStyle::Body) + 3.0;
    ui.spacing_mut().interact_size.y = height;
    let grid = Grid::new("stages legend").num_columns(3).spacing(vec2(theme::PAD, 0.0)).min_row_height(height).striped(false);
    grid.show(ui, |ui| {
        for head in ["", "prompt", "answer"] {
            ui.label(parts::small(ui, head));
        }
        ui.end_row();
        for (at, stage) in stages.iter().enumerate() {
            ui.horizontal(|ui| {
                let (rect, _) = ui.allocate_exact_size(Vec2::splat(12.0), Sense::hover());
                let (colour, hatch) = look(at, stages.len(), t);
                part_ui(ui.painter(), rect, colour, hatch, t.page);
                ui.label(stage.name);
            });
            for seconds in stage.seconds {
                ui.label(short(seconds));
            }
            ui.end_row();
        }
    });
}

#[cfg(test)]
mod tests {
    use egui_kittest::{Harness, kittest::Queryable as _};
    use pleiad_runtime::executor::DeviceStats;

    use super::*;

    fn stats() -> GenerationStats {
        let work =
            WorkTimes { attention: 100_000_000, experts: 300_000_000, dense: 400_000_000, output: 50_000_000, drafting: 0 };
        let decode_device = DeviceStats { work, ..DeviceStats::default() };
        GenerationStats { prefill_seconds: 0.5, decode_seconds: 1.0, decode_device, ..GenerationStats::default() }
    }

    #[test]
    fn stages_add_up_to_the_time_there_was() {
        let all = stages(&stats());
        let answer: Vec<_> = all.iter().map(|s| (s.name, (s.seconds[1] * 1e3).round())).collect();
        let told = [
            ("Attention", 100.0),
            ("Router and experts", 300.0),
            ("Dense products", 400.0),
            ("Logits and sampling", 50.0),
            ("The rest", 150.0),
        ];
        assert_eq!(answer, told);
        assert!((all.iter().map(|s| s.seconds[0]).sum::<f64>() - 0.5).abs() < 1e-9);
        let host = HostTimes { starting: 0.2, waiting: 0.7 };
        let gpu = GenerationStats { decode_device: DeviceStats::default(), decode_host: host, ..stats() };
        let names: Vec<_> = stages(&gpu).iter().map(|s| s.name).collect();
        assert_eq!(names, ["Preparing steps", "Waiting for the device", "The rest"]);
        assert!((stages(&gpu)[2].seconds[1] - 0.1).abs() < 1e-9);
    }

    #[test]
    fn a_device_that_cannot_tell_is_said_to_be_one() {
        let shown = |s: Option<GenerationStats>| {
            Harness::builder().with_size(vec2(420.0, 400.0)).build_ui(move |ui| stages_ui(ui, s.as_ref()))
        };
        assert!(shown(None).query_by_label_contains("The last answer will be told of").is_some());
        let cpu = shown(Some(stats()));
        assert!(cpu.query_by_label("0.3 s").is_some() && cpu.query_by_label("50 ms").is_some());
        assert_eq!([short(0.0), short(0.000_42), short(0.05)], ["-", "0.4 ms", "50 ms"]);
        // Names and times of a stage are in one line.
        let line = |text: &str| cpu.get_by_label(text).rect().center().y;
        assert!((line("Router and experts") - line("0.3 s")).abs() < 2.0);
        assert!(cpu.query_by_label_contains("each is timed").is_some() && cpu.query_by_label("Drafting").is_none());
        let decode_device = DeviceStats { rendezvous: 7, ..DeviceStats::default() };
        let gpu = shown(Some(GenerationStats { decode_device, ..stats() }));
        assert!(gpu.query_by_label_contains("does not tell how long its parts take").is_some());
        assert!(gpu.query_by_label_contains("steps stopped 7 times").is_some());
    }
}
