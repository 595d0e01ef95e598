//! Small things that several panels draw.

use egui::{self, Color32, CornerRadius, Rect, Response, RichText, Role, Sense, Ui, Vec2, WidgetInfo};

use super::{Theme, theme};

pub use crate::sizes::size as bytes;

/// A button that shows a symbol. `name` is what it is called, for screen readers and (with `tooltip`) for those who point at it.
pub fn icon_button(ui: &mut Ui, symbol: &str, name: &str, tooltip: &str) -> Response {
    let button = egui::Button::new(RichText::new(symbol).size(15.0)).frame_when_inactive(false).min_size(Vec2::splat(26.0));
    let response = ui.add(button);
    named(&response, Role::Button, name);
    response.on_hover_text(tooltip)
}

/// Gives a widget the name that screen readers say.
pub fn named(response: &Response, kind: Role, name: &str) {
    let enabled = response.enabled();
    response.widget_info(|| WidgetInfo::labeled(kind, enabled, name));
}

/// Text that matters less.
pub fn muted(ui: &Ui, text: impl Into<String>) -> RichText {
    RichText::new(text).color(Theme::of(ui.ctx()).muted)
}

/// Small text that matters less.
pub fn small(ui: &Ui, text: impl Into<String>) -> RichText {
    muted(ui, text).text_style(Theme::small())
}

/// A heading within a panel.
pub fn section(ui: &mut Ui, title: &str) {
    ui.add_space(theme::GAP);
    let strong = Theme::of(ui.ctx()).strong;
    let response = ui.label(RichText::new(title).color(strong).strong());
    named(&response, Role::Heading, title);
}

/// How much larger text is than by itself.
pub fn text_scale(style: &egui::Style) -> f32 {
    style.text_styles.get(&egui::TextStyle::Body).map_or(1.0, |font| font.size / theme::BODY)
}

/// Draws on a card.
pub fn card<R>(ui: &mut Ui, add: impl FnOnce(&mut Ui) -> R) -> R {
    let t = Theme::of(ui.ctx());
    egui::Frame::new()
        .fill(t.raised)
        .stroke(egui::Stroke::new(1.0, t.line))
        .corner_radius(theme::ROUND)
        .inner_margin(theme::PAD)
        .show(ui, add)
        .inner
}

/// A short text on a coloured ground, as "q8" or "12 tok/s".
pub fn chip(ui: &mut Ui, text: &str, colour: Color32, tooltip: &str) -> Response {
    let t = Theme::of(ui.ctx());
    egui::Frame::new()
        .fill(t.raised)
        .corner_radius(theme::ROUND)
        .inner_margin(egui::Margin::symmetric(8, 2))
        .show(ui, |ui| ui.label(RichText::new(text).color(colour).text_style(Theme::small())))
        .inner
        .on_hover_text(tooltip)
}

/// How much of something is done or full, from 0 to 1, on a track that shows the rest. Its name is for the caller to give.
pub fn meter(ui: &mut Ui, share: f32, size: Vec2, colour: Color32) -> Response {
    let (rect, response) = ui.allocate_exact_size(size, Sense::hover());
    if ui.is_rect_visible(rect) {
        let round = CornerRadius::same((rect.height() / 2.0).min(f32::from(theme::ROUND_SMALL)) as u8);
        ui.painter().rect_filled(rect, round, Theme::of(ui.ctx()).track);
        let share = if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 };
        if share > 0.0 {
            // Of a little there is a dot at least.
            let width = (share * rect.width()).max(rect.height()).min(rect.width());
            ui.painter().rect_filled(Rect::from_min_size(rect.min, Vec2::new(width, rect.height())), round, colour);
        }
    }
    response
}

/// A duration for people: "12 ms", "0.8 s", "12 s", "3 min 5 s".
pub fn seconds(s: f64) -> String {
    let whole = s.round() as u64;
    match s {
        s if s < 0.0995 => format!("{:.0} ms", s * 1e3),
        s if s < 9.95 => format!("{s:.1} s"),
        _ if whole < 60 => format!("{whole} s"),
        _ => format!("{} min {} s", whole / 60, whole % 60),
    }
}

/// A large number with thin spaces: "12 345".
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push('\u{2009}');
        }
        text.push(c);
    }
    text
}

/// How long ago, for people: "now", "5 min", "3 h", "2 d", or the date.
pub fn ago(then_ms: u64, now_ms: u64) -> String {
    let s = now_ms.saturating_sub(then_ms) / 1000;
    match s {
        0..60 => "now".into(),
        60..3600 => format!("{} min", s / 60),
        3600..86_400 => format!("{} h", s / 3600),
        86_400..2_592_000 => format!("{} d", s / 86_400),
        _ => date(then_ms),
    }
}

/// The date (UTC) as "2026-11-22", by the civil-calendar algorithm of H. Hinnant.
pub fn date(ms: u64) -> String {
    let days = (ms / 86_400_000) as i64 + 719_468;
    let era = days.div_euclid(146_097);
    let doe = days.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let day = doy - (153 * mp + 2) / 5 + 1;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let year = yoe + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_for_people() {
        assert_eq!([bytes(0), bytes(1023), bytes(1024), bytes(3 << 29)], ["0 B", "1023 B", "1.0 KiB", "1.5 GiB"]);
        assert_eq!([count(7), count(1234), count(1_234_567)], ["7", "1\u{2009}234", "1\u{2009}234\u{2009}567"]);
        assert_eq!([seconds(0.25), seconds(12.4), seconds(119.7), seconds(0.012)], ["0.2 s", "12 s", "2 min 0 s", "12 ms"]);
        assert_eq!([date(0), date(951_782_400_000), date(1_795_305_600_000)], ["1970-01-01", "2000-02-29", "2026-11-22"]);
        assert_eq!([ago(0, 59_000), ago(0, 3_600_000), ago(0, 90_000_000)], ["now", "1 h", "1 d"]);
    }
}
