//! One answer: what the engine says, put together.

use std::{
    fs::File,
    io::BufWriter,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, anyhow};
use pleiad_runtime::{
    Event, GenerateOptions, SamplingParams, Session,
    engine::{DoneReason, EngineInfo, GenerationStats},
    experts::trace::{Routed, TraceFormat, TraceWriter},
};

use super::{
    interrupt,
    term::{Bar, Unit, note},
};
use crate::thinking::{CLOSE, OPEN};

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// All of its text, reasoning included.
    pub text: String,
    /// Its tokens, without the one that ended it.
    pub tokens: Vec<u32>,
    /// Why it ended.
    pub reason: DoneReason,
    /// What it took.
    pub stats: GenerationStats,
}

/// Takes a token, its text, and the seconds since the start.
pub type Each<'a> = dyn FnMut(Option<u32>, &str, f64) -> Result<()> + 'a;

/// Generates an answer to `prompt`. Ctrl-C ends it early.
///
/// Every token goes to `each`, with its text and the seconds since the start; so does text that was held back to the end,
/// without a token.
pub fn answer(
    session: &Session,
    prompt: Vec<u32>,
    sampling: SamplingParams,
    options: GenerateOptions,
    quiet: bool,
    mut trace: Option<&mut TraceFile>,
    each: &mut Each<'_>,
) -> Result<Answer> {
    // Marks of reasoning are text, whether or not the vocabulary calls them special.
    let marks = session.engine().tokenizer().map(|t| [OPEN, CLOSE].map(|mark| (t.token_to_id(mark), mark)));
    let mut bar = Bar::new("Reading the prompt", Unit::Of("tokens"), quiet);
    let (mut text, mut tokens) = (String::new(), Vec::new());
    let _guard = interrupt::guard();
    let mut generation = session.generate(prompt, sampling, options);
    while let Some(event) = generation.next_blocking() {
        if interrupt::asked() {
            generation.cancel();
        }
        match event {
            Event::Prompt(p) => bar.set((p.done - p.reused) as u64, (p.total - p.reused) as u64),
            Event::Token { id, text: mut piece, seconds, .. } => {
                bar.clear();
                if let Some((_, mark)) = marks.iter().flatten().find(|(mark_id, _)| *mark_id == Some(id))
                    && !piece.contains(mark)
                {
                    piece.push_str(mark);
                }
                tokens.push(id);
                text.push_str(&piece);
                each(Some(id), &piece, seconds)?;
            }
            Event::Done { reason, text: rest, stats } => {
                bar.clear();
                if !rest.is_empty() {
                    text.push_str(&rest);
                    each(None, &rest, stats.prefill_seconds + stats.decode_seconds)?;
                }
                return Ok(Answer { text, tokens, reason, stats });
            }
            Event::Routed(rows) => {
                if let Some(trace) = &mut trace {
                    trace.rows(&rows)?;
                }
            }
            Event::Notice(notice) => {
                bar.clear();
                note(&format!("note: {notice}"));
            }
            Event::Failed(error) => return Err(error.into()),
        }
    }
    Err(anyhow!("the engine ended without an answer"))
}

/// A file that a trace of routing is written to.
pub struct TraceFile {
    path: PathBuf,
    writer: TraceWriter<BufWriter<File>>,
}

impl TraceFile {
    /// Makes the file, or empties it.
    pub fn create(path: &Path) -> Result<Self> {
        let named = || path.display().to_string();
        let file = File::create(path).with_context(named)?;
        let writer = TraceWriter::new(BufWriter::new(file), TraceFormat::from_path(path)).with_context(named)?;
        Ok(Self { path: path.to_owned(), writer })
    }

    fn rows(&mut self, rows: &[Routed]) -> Result<()> {
        self.writer.rows(rows).with_context(|| self.path.display().to_string())
    }

    /// Writes what is left.
    pub fn finish(self) -> Result<()> {
        let path = self.path;
        self.writer.finish().map(|_| ()).with_context(|| path.display().to_string())
    }
}

/// What an answer took, in one line.
pub fn summary(stats: &GenerationStats, info: &EngineInfo) -> String {
    let computed = stats.prompt_tokens - stats.reused_tokens;
    let rate = |tokens: usize, seconds: f64| match seconds > 0.0 && tokens > 0 {
        true => format!(", {:.1} tok/s", tokens as f64 / seconds),
        false => String::new(),
    };
    let (hits, misses) = (stats.decode_device.expert_hits, stats.decode_device.expert_misses);
    let hit_rate = match hits + misses {
        0 => String::new(),
        all => format!(" | {:.1} % of experts resident", 100.0 * hits as f64 / all as f64),
    };
    let drafts = match (stats.acceptance(), stats.tokens_per_step()) {
        (Some(right), Some(each)) => {
            format!(" | {} of {} drafts right ({:.0} %), {each:.2} tokens a step", stats.accepted, stats.drafted, 100.0 * right)
        }
        _ => String::new(),
    };
    format!(
        "[prompt {} tokens, {} reused{} | answer {} tokens{}{drafts}{hit_rate} | {}]",
        stats.prompt_tokens,
        stats.reused_tokens,
        rate(computed, stats.prefill_seconds),
        stats.generated_tokens,
        // The first token comes with the prompt.
        rate(stats.generated_tokens.saturating_sub(1), stats.decode_seconds),
        info.device
    )
}
