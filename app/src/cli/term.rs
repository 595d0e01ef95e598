//! The terminal: colours, progress bars, and what ends a program quietly.

use std::{
    borrow::Cow,
    io::{self, IsTerminal as _, Write},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

pub use crate::sizes::size;

/// A bar appears only for what takes longer.
const PATIENCE: Duration = Duration::from_millis(400);

/// Whether people, rather than a program, type the input.
pub fn stdin_is_terminal() -> bool {
    io::stdin().is_terminal()
}

/// Standard output or standard error, with what its reader can make of it.
pub struct Stream {
    writer: Box<dyn Write>,
    /// Whether it is a terminal.
    pub terminal: bool,
    colour: bool,
}

impl Stream {
    /// Standard output.
    pub fn stdout() -> Self {
        let raw = io::stdout();
        let terminal = raw.is_terminal();
        let colour = terminal && anstream::AutoStream::choice(&raw) != anstream::ColorChoice::Never;
        // The wrapped stream translates colours for old consoles. Files and pipes get every byte as it is.
        Self { writer: if terminal { Box::new(anstream::AutoStream::auto(raw)) } else { Box::new(raw) }, terminal, colour }
    }

    /// Standard error.
    pub fn stderr() -> Self {
        let raw = io::stderr();
        let terminal = raw.is_terminal();
        let colour = terminal && anstream::AutoStream::choice(&raw) != anstream::ColorChoice::Never;
        Self { writer: if terminal { Box::new(anstream::AutoStream::auto(raw)) } else { Box::new(raw) }, terminal, colour }
    }

    /// Writes text as it is, and shows it at once. On a terminal, control characters that a model or a file may have
    /// written are made visible: they could do anything to it.
    pub fn text(&mut self, text: &str) -> io::Result<()> {
        let shown = if self.terminal { harmless(text) } else { Cow::Borrowed(text) };
        self.writer.write_all(shown.as_bytes())?;
        self.writer.flush()
    }

    /// Writes text that matters less; dimmed where there are colours.
    pub fn dim(&mut self, text: &str) -> io::Result<()> {
        if !self.colour {
            return self.text(text);
        }
        write!(self.writer, "\x1b[2m{}\x1b[0m", harmless(text))?;
        self.writer.flush()
    }

    /// [`Stream::text`] and the end of the line.
    pub fn line(&mut self, text: &str) -> io::Result<()> {
        self.text(text)?;
        self.text("\n")
    }

    /// [`Stream::dim`] and the end of the line.
    pub fn dim_line(&mut self, text: &str) -> io::Result<()> {
        self.dim(text)?;
        self.text("\n")
    }

    /// A value as JSON over several lines.
    pub fn json(&mut self, value: &impl serde::Serialize) -> anyhow::Result<()> {
        serde_json::to_writer_pretty(&mut self.writer, value)?;
        Ok(self.text("\n")?)
    }
}

/// The text with control characters other than line ends and tabs replaced by U+FFFD.
fn harmless(text: &str) -> Cow<'_, str> {
    let harmful = |c: char| c.is_control() && c != '\n' && c != '\t';
    if text.contains(harmful) { Cow::Owned(text.replace(harmful, "\u{FFFD}")) } else { Cow::Borrowed(text) }
}

/// Says something on standard error. Where nobody can read it, nobody can be told so.
pub fn note(text: &str) {
    let _ = Stream::stderr().dim_line(text);
}

/// What a bar counts.
#[derive(Clone, Copy, Debug)]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Anything else, by its name.
    Of(&'static str),
}

/// A progress bar on standard error for what takes a while: none for a program that reads, none where it is quick.
pub struct Bar {
    message: &'static str,
    unit: Unit,
    quiet: bool,
    started: Instant,
    /// What is being done.
    now: String,
    bar: Option<ProgressBar>,
}

impl Bar {
    /// A bar; `quiet`: never shown.
    pub fn new(message: &'static str, unit: Unit, quiet: bool) -> Self {
        Self {
            message,
            unit,
            quiet: quiet || !io::stderr().is_terminal(),
            started: Instant::now(),
            now: String::new(),
            bar: None,
        }
    }

    /// `done` of `total`.
    pub fn set(&mut self, done: u64, total: u64) {
        if self.quiet || (self.bar.is_none() && (self.started.elapsed() < PATIENCE || done >= total)) {
            return;
        }
        let bar = self.bar.get_or_insert_with(|| {
            let counts = match self.unit {
                Unit::Bytes => "{bytes} of {total_bytes}, {bytes_per_sec}",
                Unit::Of(_) => "{pos} of {len} {prefix}",
            };
            let template = format!("{{msg}} [{{bar:30}}] {counts}, {{eta}} left");
            let style = ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar());
            let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
            bar.set_style(style.progress_chars("=> "));
            bar.set_message(self.message);
            if let Unit::Of(name) = self.unit {
                bar.set_prefix(if self.now.is_empty() { name.to_owned() } else { format!("{name}: {}", self.now) });
            }
            bar.with_elapsed(self.started.elapsed())
        });
        bar.set_length(total);
        bar.set_position(done);
    }

    /// Says what is being done now, beside what is counted.
    pub fn tell(&mut self, what: &str) {
        self.now = harmless(what).into_owned();
        if let (Some(bar), Unit::Of(name)) = (&self.bar, self.unit) {
            bar.set_prefix(format!("{name}: {}", self.now));
        }
    }

    /// Takes the bar away.
    pub fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_do_not_reach_a_terminal() {
        assert_eq!(harmless("a\tb\nc 世"), "a\tb\nc 世");
        assert_eq!(harmless("\x1b[2Ja\r\u{9b}"), "\u{FFFD}[2Ja\u{FFFD}\u{FFFD}");
    }
}
