//! The log: what the program has reported, newest last.

use std::collections::VecDeque;

use egui::{self, Button, FontId, Label, ScrollArea, TextEdit, TextFormat, TextStyle, TextWrapMode, Ui, text::LayoutJob};

use super::{Action, Theme, parts, theme};
use crate::clock;

/// Most lines kept.
const MOST: usize = 2000;

/// How much a line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// What was done.
    Info,
    /// What went differently.
    Warning,
    /// What failed.
    Error,
}

impl Level {
    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Info => "Info",
            Self::Warning => "Warning",
            Self::Error => "Error",
        }
    }
}

/// A line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// When it was added, in milliseconds since 1970.
    pub time_ms: u64,
    /// How much it matters.
    pub level: Level,
    /// What it says; a single line.
    pub text: String,
    /// The text as the filter compares it.
    folded: String,
}

impl Line {
    /// The line as it is copied.
    fn plain(&self) -> String {
        format!("{}  {:<7}  {}", time_of_day(self.time_ms), self.level.name(), self.text)
    }
}

/// The log, in memory: the last lines.
#[derive(Debug, Default)]
pub struct Journal {
    lines: VecDeque<Line>,
    /// Changes with every line added.
    revision: u64,
    /// Only lines that matter at least this much; `None`: all.
    least: Option<Level>,
    /// Only lines with all of these words.
    words: String,
    /// What passes, as indices of lines, and what it was computed for.
    passing: Vec<usize>,
    passing_for: Option<(u64, Option<Level>, String)>,
}

impl Journal {
    /// Adds a line; a text of several lines adds as many.
    pub fn add(&mut self, level: Level, text: impl Into<String>) {
        let (text, time_ms) = (text.into(), clock::now_ms());
        for line in text.lines().filter(|l| !l.trim().is_empty()) {
            if self.lines.len() == MOST {
                self.lines.pop_front();
            }
            // A tab has no glyph of its own width in every font.
            let text = line.trim_end().replace('\t', "    ");
            self.lines.push_back(Line { time_ms, level, folded: text.to_lowercase(), text });
        }
        self.revision += 1;
    }

    /// The lines that are kept, oldest first.
    pub fn lines(&self) -> impl Iterator<Item = &Line> {
        self.lines.iter()
    }

    /// Computes what passes the filter, if lines or filter have changed.
    fn filter(&mut self) {
        let up_to_date =
            self.passing_for.as_ref().is_some_and(|(r, l, w)| *r == self.revision && *l == self.least && *w == self.words);
        if up_to_date {
            return;
        }
        let folded = self.words.to_lowercase();
        let words: Vec<&str> = folded.split_whitespace().collect();
        let passes = |l: &Line| self.least.is_none_or(|least| l.level >= least) && words.iter().all(|w| l.folded.contains(w));
        self.passing.clear();
        self.passing.extend(self.lines.iter().enumerate().filter(|(_, l)| passes(l)).map(|(i, _)| i));
        self.passing_for = Some((self.revision, self.least, self.words.clone()));
    }

    /// Draws the page.
    pub fn show(&mut self, ui: &mut Ui, out: &mut Vec<Action>) {
        ui.heading("Log");
        ui.horizontal_wrapped(|ui| {
            for (least, name, tooltip) in [
                (None, "All", "Show every line"),
                (Some(Level::Warning), "Warnings", "Show what went differently, and what failed"),
                (Some(Level::Error), "Errors", "Show what failed"),
            ] {
                if ui.add(Button::selectable(self.least == least, name)).on_hover_text(tooltip).clicked() {
                    self.least = least;
                }
            }
            let width = 220.0_f32.min(ui.available_width().max(120.0));
            let words = TextEdit::singleline(&mut self.words).hint_text("Filter by words").desired_width(width);
            ui.add(words).accessible_name("Filter the log by words");
            self.filter();
            let copy = ui.add_enabled(!self.passing.is_empty(), Button::new("Copy all"));
            if copy.on_hover_text("Put the lines that are shown on the clipboard").clicked() {
                let lines: Vec<String> = self.passing.iter().filter_map(|&i| self.lines.get(i)).map(Line::plain).collect();
                out.push(Action::Copy(lines.join("\n")));
            }
            ui.label(parts::small(ui, format!("{} of {} lines, times in UTC", self.passing.len(), self.lines.len())));
        });
        ui.add_space(theme::GAP);
        if self.passing.is_empty() {
            let text = if self.lines.is_empty() { "Nothing has been reported." } else { "No line matches the filter." };
            ui.label(parts::muted(ui, text));
            return;
        }
        let font = TextStyle::Monospace.resolve(ui.style());
        let height = ui.text_style_height(&TextStyle::Monospace) + 2.0;
        ui.spacing_mut().item_spacing.y = 2.0;
        ScrollArea::both().id_salt("journal").auto_shrink(false).stick_to_bottom(true).show_rows(
            ui,
            height,
            self.passing.len(),
            |ui, range| {
                let shown = self.passing.get(range).unwrap_or_default();
                for line in shown.iter().filter_map(|&i| self.lines.get(i)) {
                    ui.add(Label::new(line_job(ui, line, &font)).wrap_mode(TextWrapMode::Extend).selectable(true));
                }
            },
        );
    }
}

/// A line with its parts told apart.
fn line_job(ui: &Ui, line: &Line, font: &FontId) -> LayoutJob {
    let t = Theme::of(ui.ctx());
    let (level, text) = match line.level {
        Level::Info => (t.muted, t.text),
        Level::Warning => (t.warn, t.text),
        Level::Error => (t.bad, t.strong),
    };
    let mut job = LayoutJob::default();
    let mut add = |text: &str, colour: egui::Color32| job.append(text, 0.0, TextFormat::simple(font.clone(), colour));
    add(&time_of_day(line.time_ms), t.muted);
    add(&format!("  {:<7}  ", line.level.name()), level);
    add(&line.text, text);
    job
}

/// The time of day (UTC) as "17:03:59".
fn time_of_day(ms: u64) -> String {
    let s = ms / 1000 % 86_400;
    format!("{:02}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

    use egui_kittest::{Harness, kittest::Queryable as _};

    use super::*;

    type State = (Journal, Vec<Action>);

    fn harness(journal: Journal) -> Harness<'static, State> {
        Harness::builder()
            .with_size([700.0, 400.0])
            .build_ui_state(|ui, s: &mut State| s.0.show(ui, &mut s.1), (journal, Vec::new()))
    }

    fn some() -> Journal {
        let mut j = Journal::default();
        j.add(Level::Info, "Loaded the embedded model");
        j.add(Level::Warning, "No GPU: the CPU is used");
        j.add(Level::Error, "model.gguf: cannot be read\n  the file is cut off");
        j
    }

    #[test]
    fn lines_are_kept_up_to_a_limit_and_split() {
        let j = some();
        assert_eq!(j.lines().map(|l| l.text.as_str()).last(), Some("  the file is cut off"));
        assert_eq!(j.lines().count(), 4);
        let mut j = Journal::default();
        for i in 0..MOST + 10 {
            j.add(Level::Info, format!("line {i}"));
        }
        assert_eq!((j.lines().count(), j.lines().next().unwrap().text.as_str()), (MOST, "line 10"));
        assert_eq!(time_of_day(951_782_400_000 + 61_059_999), "16:57:39");
    }

    #[test]
    fn level_and_words_filter_and_what_is_shown_is_copied() {
        let mut h = harness(some());
        h.run();
        h.get_by_label("Warnings").click();
        h.run();
        assert_eq!(h.state().0.passing, [1, 2, 3]);
        h.get_by_label("Errors").click();
        h.run();
        assert_eq!(h.state().0.passing, [2, 3]);
        h.get_by_label("All").click();
        h.get_by_label("Filter the log by words").focus();
        h.run();
        h.get_by_label("Filter the log by words").type_text("MODEL embed");
        h.run();
        assert_eq!(h.state().0.passing, [0]);
        h.get_by_label("Copy all").click();
        h.run();
        let Action::Copy(text) = &h.state().1[0] else { panic!("{:?}", h.state().1) };
        assert!(text.ends_with("Info     Loaded the embedded model") && !text.contains('\n'), "{text}");
    }

    #[test]
    fn few_of_many_lines_are_laid_out_and_the_newest_are_shown() {
        let mut j = Journal::default();
        for i in 0..MOST {
            j.add(Level::Info, format!("line {i}"));
        }
        let mut h = harness(j);
        h.run();
        assert!(h.get_all_by_label_contains("  line ").count() < 60);
        assert!(h.query_by_label_contains("line 1999").is_some());
    }

    #[test]
    fn an_empty_log_says_so() {
        let mut h = harness(Journal::default());
        h.run();
        h.get_by_label("Nothing has been reported.");
    }
}
