//! Colours, sizes and fonts: everything that is drawn takes them from here.

use egui::{
    self, Color32, Context, CornerRadius, FontFamily, FontId, Margin, Shadow, Stroke, TextStyle, Vec2, Visuals,
    style::HandleShape,
};

use crate::settings::{Settings, ThemeChoice};

/// Colours of one theme. Text colours have a contrast of at least 4.5 with the surfaces they are used on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Theme {
    /// Whether it is dark.
    pub dark: bool,
    /// Behind the conversation.
    pub page: Color32,
    /// Behind lists and tools.
    pub panel: Color32,
    /// Behind cards, popups and code.
    pub raised: Color32,
    /// Where something can be typed.
    pub field: Color32,
    /// Thin lines between things.
    pub line: Color32,
    /// What is empty of a meter.
    pub track: Color32,
    /// Text.
    pub text: Color32,
    /// Text that matters less.
    pub muted: Color32,
    /// Text of what matters most.
    pub strong: Color32,
    /// What can be acted on, and what is chosen.
    pub accent: Color32,
    /// Behind what is chosen.
    pub accent_soft: Color32,
    /// Text on the accent.
    pub on_accent: Color32,
    /// Behind what a person said.
    pub bubble: Color32,
    /// What is well.
    pub good: Color32,
    /// What needs attention.
    pub warn: Color32,
    /// What went wrong.
    pub bad: Color32,
    /// Behind words that a search found, or that a token is linked with.
    pub mark: Color32,
    /// A second and a third colour for plots, told apart from the accent also without colour vision.
    pub plots: [Color32; 3],
}

const fn rgb(hex: u32) -> Color32 {
    Color32::from_rgb((hex >> 16) as u8, (hex >> 8) as u8, hex as u8)
}

const DARK: Theme = Theme {
    dark: true,
    page: rgb(0x0f1218),
    panel: rgb(0x151a22),
    raised: rgb(0x1c222d),
    field: rgb(0x0b0e13),
    line: rgb(0x2b3340),
    track: rgb(0x434d5e),
    text: rgb(0xd5dbe6),
    muted: rgb(0x8f9bb0),
    strong: rgb(0xf4f7fc),
    accent: rgb(0x7fb2ff),
    accent_soft: rgb(0x21344f),
    on_accent: rgb(0x0b1624),
    bubble: rgb(0x1d2a3d),
    good: rgb(0x6fcf97),
    warn: rgb(0xf2b45c),
    bad: rgb(0xff8a80),
    mark: rgb(0x5a4a12),
    plots: [rgb(0x7fb2ff), rgb(0xf2b45c), rgb(0xd7a6ff)],
};

const LIGHT: Theme = Theme {
    dark: false,
    page: rgb(0xffffff),
    panel: rgb(0xf5f7fa),
    raised: rgb(0xeef1f6),
    field: rgb(0xffffff),
    line: rgb(0xd5dce6),
    track: rgb(0xb9c3d1),
    text: rgb(0x222a36),
    muted: rgb(0x5d6a7e),
    strong: rgb(0x0b111a),
    accent: rgb(0x1f5fc4),
    accent_soft: rgb(0xdbe8fb),
    on_accent: rgb(0xffffff),
    bubble: rgb(0xe8f0fb),
    good: rgb(0x1c7a43),
    warn: rgb(0x96590a),
    bad: rgb(0xb3261e),
    mark: rgb(0xffe9a3),
    plots: [rgb(0x1f5fc4), rgb(0xb45f06), rgb(0x7b3fb3)],
};

/// Size of running text where settings do not change it, in points.
pub const BODY: f32 = 14.5;
/// Space between things that belong together, in points.
pub const GAP: f32 = 8.0;
/// Space inside panels and cards.
pub const PAD: f32 = 12.0;
/// Corner radius of cards and bubbles.
pub const ROUND: u8 = 10;
/// Corner radius of buttons and fields.
pub const ROUND_SMALL: u8 = 6;
/// Widest column of running text: longer lines are hard to read.
pub const READING_WIDTH: f32 = 760.0;
/// Below this width of the window one thing is shown at a time.
pub const NARROW: f32 = 720.0;

impl Theme {
    /// The theme that is in use.
    pub fn of(ctx: &Context) -> &'static Self {
        if ctx.theme() == egui::Theme::Dark { &DARK } else { &LIGHT }
    }

    /// Small text: statistics, labels of plots.
    pub fn small() -> TextStyle {
        TextStyle::Small
    }

    /// Applies settings to a context: when the program starts, and when they change.
    pub fn apply(ctx: &Context, settings: &Settings) {
        ctx.set_theme(match settings.theme {
            ThemeChoice::System => egui::ThemePreference::System,
            ThemeChoice::Light => egui::ThemePreference::Light,
            ThemeChoice::Dark => egui::ThemePreference::Dark,
        });
        for (theme, colours) in [(egui::Theme::Dark, &DARK), (egui::Theme::Light, &LIGHT)] {
            ctx.style_mut_of(theme, |style| {
                style.visuals = colours.visuals();
                set_sizes(style, settings);
            });
        }
    }

    /// egui's colours.
    fn visuals(&self) -> Visuals {
        let mut v = if self.dark { Visuals::dark() } else { Visuals::light() };
        v.panel_fill = self.panel;
        v.window_fill = self.raised;
        v.window_stroke = Stroke::new(1.0, self.line);
        v.window_corner_radius = CornerRadius::same(ROUND);
        v.menu_corner_radius = CornerRadius::same(ROUND_SMALL);
        let shadow =
            |blur| Shadow { offset: [0, 4], blur, spread: 0, color: Color32::from_black_alpha(if self.dark { 120 } else { 40 }) };
        (v.window_shadow, v.popup_shadow) = (shadow(24), shadow(12));
        v.extreme_bg_color = self.field;
        v.faint_bg_color = if self.dark { rgb(0x191f29) } else { rgb(0xf0f3f8) };
        v.code_bg_color = self.raised;
        v.hyperlink_color = self.accent;
        v.warn_fg_color = self.warn;
        v.error_fg_color = self.bad;
        v.weak_text_color = Some(self.muted);
        v.selection.bg_fill = if self.dark { rgb(0x2d4a75) } else { rgb(0xbcd6fb) };
        v.selection.stroke = Stroke::new(1.0, self.accent);
        v.handle_shape = HandleShape::Circle;
        v.slider_trailing_fill = true;
        v.striped = true;
        let round = CornerRadius::same(ROUND_SMALL);
        let w = &mut v.widgets;
        for state in [&mut w.noninteractive, &mut w.inactive, &mut w.hovered, &mut w.active, &mut w.open] {
            state.corner_radius = round;
            state.expansion = 0.0;
        }
        w.noninteractive.bg_fill = self.panel;
        w.noninteractive.bg_stroke = Stroke::new(1.0, self.line);
        w.noninteractive.fg_stroke = Stroke::new(1.0, self.text);
        let quiet = if self.dark { rgb(0x242c39) } else { rgb(0xe4e9f1) };
        let lively = if self.dark { rgb(0x2f3a4b) } else { rgb(0xd6deea) };
        (w.inactive.bg_fill, w.inactive.weak_bg_fill) = (quiet, quiet);
        w.inactive.bg_stroke = Stroke::NONE;
        w.inactive.fg_stroke = Stroke::new(1.0, self.text);
        (w.hovered.bg_fill, w.hovered.weak_bg_fill) = (lively, lively);
        w.hovered.bg_stroke = Stroke::new(1.0, self.accent);
        w.hovered.fg_stroke = Stroke::new(1.0, self.strong);
        (w.active.bg_fill, w.active.weak_bg_fill) = (self.accent_soft, self.accent_soft);
        w.active.bg_stroke = Stroke::new(1.0, self.accent);
        w.active.fg_stroke = Stroke::new(1.0, self.strong);
        (w.open.bg_fill, w.open.weak_bg_fill) = (lively, lively);
        w.open.bg_stroke = Stroke::new(1.0, self.line);
        w.open.fg_stroke = Stroke::new(1.0, self.strong);
        v
    }
}

/// What a window is cleared with before anything is drawn.
pub fn clear_colour(visuals: &Visuals) -> [f32; 4] {
    (if visuals.dark_mode { DARK.page } else { LIGHT.page }).to_normalized_gamma_f32()
}

/// Fonts and spacing, scaled as the settings say.
fn set_sizes(style: &mut egui::Style, settings: &Settings) {
    let scale = settings.font_scale;
    let font = |size: f32, family: FontFamily| FontId::new(size * scale, family);
    style.text_styles = [
        (TextStyle::Small, font(11.5, FontFamily::Proportional)),
        (TextStyle::Body, font(BODY, FontFamily::Proportional)),
        (TextStyle::Button, font(14.0, FontFamily::Proportional)),
        (TextStyle::Heading, font(20.0, FontFamily::Proportional)),
        (TextStyle::Monospace, font(13.0, FontFamily::Monospace)),
    ]
    .into();
    style.spacing.item_spacing = Vec2::new(GAP, 6.0);
    style.spacing.button_padding = Vec2::new(9.0, 5.0);
    style.spacing.interact_size = Vec2::new(36.0, 26.0 * scale.max(1.0));
    style.spacing.window_margin = Margin::same(PAD as i8);
    style.spacing.menu_margin = Margin::same(6);
    style.spacing.scroll = egui::style::ScrollStyle::solid();
    style.spacing.scroll.bar_width = 8.0;
    style.spacing.scroll.floating = false;
    style.animation_time = if settings.reduced_motion { 0.0 } else { 0.1 };
    style.scroll_animation = if settings.reduced_motion { egui::style::ScrollAnimation::none() } else { Default::default() };
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Contrast by WCAG 2.
    fn contrast(a: Color32, b: Color32) -> f64 {
        let light = |c: Color32| {
            let linear = |x: u8| match f64::from(x) / 255.0 {
                x if x <= 0.040_45 => x / 12.92,
                x => ((x + 0.055) / 1.055).powf(2.4),
            };
            0.2126 * linear(c.r()) + 0.7152 * linear(c.g()) + 0.0722 * linear(c.b())
        };
        let (a, b) = (light(a), light(b));
        (a.max(b) + 0.05) / (a.min(b) + 0.05)
    }

    #[test]
    fn text_can_be_read_on_every_surface() {
        for t in [DARK, LIGHT] {
            for on in [t.page, t.panel, t.raised, t.field, t.bubble] {
                for text in [t.text, t.muted, t.strong, t.accent, t.good, t.warn, t.bad] {
                    assert!(contrast(text, on) >= 4.5, "{text:?} on {on:?}: {:.2}", contrast(text, on));
                }
            }
            assert!(contrast(t.on_accent, t.accent) >= 4.5);
            assert!(contrast(t.strong, t.accent_soft) >= 4.5 && contrast(t.text, t.mark) >= 4.5);
            // What is empty of a meter, on what it stands on and beside what is full of it.
            for on in [t.page, t.panel, t.raised, t.bubble] {
                assert!(contrast(t.track, on) >= 1.4, "{on:?}: {:.2}", contrast(t.track, on));
            }
            for full in [t.accent, t.muted, t.warn, t.bad] {
                assert!(contrast(t.track, full) >= 1.4, "{full:?}: {:.2}", contrast(t.track, full));
            }
            for plot in t.plots {
                assert!(contrast(plot, t.panel) >= 3.0);
            }
        }
    }
}
