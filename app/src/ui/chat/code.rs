//! Blocks of code: highlighted once, and line by line while they are written.

use std::collections::HashMap;

use egui::{Align, Color32, FontId, Frame, Id, Label, Layout, RichText, ScrollArea, TextFormat, TextStyle, Ui, text::LayoutJob};
use egui_commonmark::syntect::{
    easy::HighlightLines,
    highlighting::{self, HighlightState, ThemeSet},
    parsing::{ParseState, SyntaxSet},
    util::LinesWithEndings,
};

use super::{
    super::{Action, Theme, icons::Icon, parts, theme},
    buttons,
};

/// Longest code that is highlighted, in bytes, and its longest line.
const LONGEST: usize = 200_000;
const LONGEST_LINE: usize = 4_000;
/// Blocks remembered.
const REMEMBERED: usize = 256;

/// Grammars and colours, and what was highlighted.
#[derive(Default)]
pub(super) struct Highlighter {
    loaded: Option<(SyntaxSet, ThemeSet)>,
    blocks: HashMap<Id, Painted>,
}

/// How code looks.
#[derive(Clone, PartialEq)]
struct Look {
    font: FontId,
    dark: bool,
    lang: String,
}

/// A block that was highlighted.
struct Painted {
    look: Look,
    text: String,
    job: LayoutJob,
    /// The lines that are complete: their length in bytes, their colours, and the state after them.
    done: usize,
    head: LayoutJob,
    state: Option<(HighlightState, ParseState)>,
}

impl Highlighter {
    /// Code with its colours. `id` names the block; its text may grow.
    fn job(&mut self, id: Id, text: &str, look: Look, t: &Theme) -> LayoutJob {
        if self.blocks.len() > REMEMBERED && !self.blocks.contains_key(&id) {
            self.blocks.clear();
        }
        if let Some(p) = self.blocks.get(&id).filter(|p| p.look == look && p.text == text) {
            return p.job.clone();
        }
        let plain = TextFormat::simple(look.font.clone(), t.text);
        if look.lang.is_empty() || text.len() > LONGEST {
            return LayoutJob::single_section(text.to_owned(), plain);
        }
        let (syntaxes, themes) =
            self.loaded.get_or_insert_with(|| (SyntaxSet::load_defaults_newlines(), ThemeSet::load_defaults()));
        let colours = themes.themes.get(if t.dark { "base16-ocean.dark" } else { "InspiredGitHub" });
        let (Some(syntax), Some(colours)) = (syntaxes.find_syntax_by_token(&look.lang), colours) else {
            return LayoutJob::single_section(text.to_owned(), plain);
        };
        let kept =
            self.blocks.remove(&id).filter(|p| p.look == look && p.text.get(..p.done).is_some_and(|d| text.starts_with(d)));
        let mut p = kept.unwrap_or_else(|| Painted {
            look,
            text: String::new(),
            job: LayoutJob::default(),
            done: 0,
            head: LayoutJob::default(),
            state: None,
        });
        let begin = |state: Option<(HighlightState, ParseState)>| match state {
            Some((h, s)) => HighlightLines::from_state(colours, h, s),
            None => HighlightLines::new(syntax, colours),
        };
        let paint = |lines: &mut HighlightLines<'_>, line: &str, job: &mut LayoutJob| {
            let runs = if line.len() <= LONGEST_LINE { lines.highlight_line(line, syntaxes).ok() } else { None };
            match runs {
                Some(runs) => {
                    for (style, run) in runs {
                        job.append(run, 0.0, TextFormat { color: readable(style.foreground, t), ..plain.clone() });
                    }
                }
                None => job.append(line, 0.0, plain.clone()),
            }
        };
        let mut lines = begin(p.state.take());
        let mut rest = "";
        for line in LinesWithEndings::from(text.get(p.done..).unwrap_or("")) {
            if !line.ends_with('\n') {
                rest = line;
                break;
            }
            paint(&mut lines, line, &mut p.head);
            p.done += line.len();
        }
        p.state = Some(lines.state());
        p.job = p.head.clone();
        if !rest.is_empty() {
            paint(&mut begin(p.state.clone()), rest, &mut p.job);
        }
        p.text.clear();
        p.text.push_str(text);
        let job = p.job.clone();
        self.blocks.insert(id, p);
        job
    }

    /// Draws a block of code.
    pub fn ui(&mut self, ui: &mut Ui, id: Id, lang: &str, text: &str, out: &mut Vec<Action>) {
        let t = Theme::of(ui.ctx());
        let look = Look { font: TextStyle::Monospace.resolve(ui.style()), dark: t.dark, lang: lang.to_owned() };
        let job = self.job(id, text, look, t);
        Frame::new().fill(t.raised).corner_radius(theme::ROUND_SMALL).inner_margin(theme::GAP).show(ui, |ui| {
            ui.set_width(ui.available_width());
            ui.horizontal(|ui| {
                ui.label(parts::small(ui, if lang.is_empty() { "code" } else { lang }));
                ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
                    if buttons::button(ui, Icon::Copy, "Copy code", "Copy this code", None).clicked() {
                        out.push(Action::Copy(text.to_owned()));
                    }
                });
            });
            ScrollArea::horizontal().id_salt("code").show(ui, |ui| {
                if text.is_empty() {
                    ui.label(RichText::new(" ").monospace());
                } else {
                    ui.add(Label::new(job).extend());
                }
            });
        });
    }
}

/// A colour of a grammar's theme, moved towards that of text until it can be read on the ground of code.
fn readable(colour: highlighting::Color, t: &Theme) -> Color32 {
    let mut c = Color32::from_rgb(colour.r, colour.g, colour.b);
    for _ in 0..8 {
        if contrast(c, t.raised) >= 4.5 {
            break;
        }
        c = c.lerp_to_gamma(t.strong, 0.2);
    }
    c
}

/// Contrast by WCAG 2.
fn contrast(a: Color32, b: Color32) -> f32 {
    let light = |c: Color32| {
        let linear = |x: u8| match f32::from(x) / 255.0 {
            x if x <= 0.040_45 => x / 12.92,
            x => ((x + 0.055) / 1.055).powf(2.4),
        };
        0.2126 * linear(c.r()) + 0.7152 * linear(c.g()) + 0.0722 * linear(c.b())
    };
    let (a, b) = (light(a), light(b));
    (a.max(b) + 0.05) / (a.min(b) + 0.05)
}

#[cfg(test)]
mod tests {
    use egui::Context;

    use super::*;

    #[test]
    fn code_under_way_has_the_colours_of_the_whole_and_can_be_read() {
        let text = "fn main() {\n    /* open\n    still */ let s = \"日本\";\n}\n// end";
        let ctx = Context::default();
        for theme in [egui::Theme::Dark, egui::Theme::Light] {
            ctx.set_theme(theme);
            let t = Theme::of(&ctx);
            let look = Look { font: FontId::monospace(13.0), dark: t.dark, lang: "rust".into() };
            let whole = Highlighter::default().job(Id::unique("whole"), text, look.clone(), t);
            let mut growing = Highlighter::default();
            for (end, _) in text.char_indices() {
                growing.job(Id::unique("growing"), &text[..end], look.clone(), t);
            }
            let last = growing.job(Id::unique("growing"), text, look, t);
            assert_eq!(whole, last);
            assert_eq!(whole.text, text);
            assert!(whole.sections.iter().map(|s| s.format.color).collect::<std::collections::HashSet<_>>().len() > 2);
            assert!(whole.sections.iter().all(|s| contrast(s.format.color, t.raised) >= 4.5));
        }
    }
}
