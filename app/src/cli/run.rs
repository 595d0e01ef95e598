//! `pleiad run`, and `pleiad` without a command: one answer, or a chat.

use std::{io::Read as _, path::PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use pleiad_runtime::{EngineOptions, GenerateOptions, SamplingParams, engine::DoneReason};
use serde_json::json;

use super::{
    args::{EngineArgs, ModelArgs, SamplingArgs},
    chat,
    generate::{self, Answer, TraceFile},
    interrupt::{self, Interrupted},
    open::{self, Opened},
    term::{self, Stream, note},
};
use crate::{
    conversation::{Conversation, Prompter},
    thinking::{Piece, Splitter},
};

/// What a chat and a single answer have in common.
#[derive(Args, Clone, Debug)]
pub struct TalkArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    /// Instructions that come before the conversation (also -sys)
    #[arg(long, visible_alias = "sys", value_name = "TEXT")]
    pub system_prompt: Option<String>,
    /// Take the prompt as it is: no chat template
    #[arg(long, visible_alias = "no-template")]
    pub raw: bool,
    /// Print one JSON object: text, token ids, why it ended, statistics
    #[arg(long)]
    pub json: bool,
    /// Print a line of JSON for every token, and one at the end
    #[arg(long, conflicts_with = "json")]
    pub json_stream: bool,
    /// Say more: how it was loaded, the seed, statistics
    #[arg(short, long)]
    pub verbose: bool,
    /// Write which experts every token chose, and how they were served: CSV, or JSON lines where the name ends in .jsonl
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
    #[command(flatten)]
    pub engine: EngineArgs,
    #[command(flatten)]
    pub sampling: SamplingArgs,
}

/// Arguments of `pleiad run`.
#[derive(Args, Clone, Debug)]
pub struct RunArgs {
    /// The prompt; `-`: standard input. Without it a chat, where a person types; else standard input
    #[arg(value_name = "PROMPT")]
    pub prompt: Option<String>,
    #[command(flatten)]
    pub talk: TalkArgs,
}

/// Runs `pleiad run`.
pub fn run(args: &RunArgs) -> Result<()> {
    let talk = &args.talk;
    let chat = args.prompt.is_none() && term::stdin_is_terminal() && !talk.json && !talk.json_stream;
    let prompt = match args.prompt.as_deref() {
        Some(text) if text != "-" => Some(text.to_owned()),
        _ if chat => None,
        _ => Some(read_stdin()?),
    };
    if prompt.as_ref().is_some_and(|p| p.is_empty()) {
        bail!("the prompt is empty");
    }
    interrupt::install();
    let engine_options = EngineOptions { trace: talk.trace.is_some(), ..talk.engine.options()? };
    let opened = open::engine(&talk.model.model, engine_options, talk.json || talk.json_stream)?;
    let mut trace = talk.trace.as_deref().map(TraceFile::create).transpose()?;
    let sampling = talk.sampling.params(&opened.checkpoint.generation);
    if talk.verbose {
        describe(talk, &opened, &sampling);
    }
    match prompt {
        Some(text) => once(talk, &opened, sampling, &text, &mut trace)?,
        None => chat::chat(talk, &opened, sampling, &mut trace)?,
    }
    trace.map_or(Ok(()), TraceFile::finish)
}

fn read_stdin() -> Result<String> {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).context("standard input")?;
    // The last line's end belongs to the file, not to the prompt.
    Ok(text.strip_suffix('\n').map(|t| t.strip_suffix('\r').unwrap_or(t)).unwrap_or(&text).to_owned())
}

/// What was loaded, on standard error.
fn describe(talk: &TalkArgs, opened: &Opened, s: &SamplingParams) {
    let info = opened.engine.info();
    note(&format!(
        "{} on {} ({}), {} of weights, ready after {:.2} s, context {} of {}",
        name(opened),
        info.device,
        info.backend,
        term::size(info.weight_bytes),
        opened.seconds,
        info.context,
        info.model_context
    ));
    if let Some(e) = opened.engine.experts().filter(|e| e.bank.is_some()) {
        let (least, most) = (e.slots.iter().min().copied().unwrap_or(0), e.slots.iter().max().copied().unwrap_or(0));
        note(&format!(
            "{least} to {most} of {} experts a layer on the GPU ({}), {} planned in all; misses: {}",
            e.experts,
            term::size(e.slot_bytes),
            term::size(e.device_bytes),
            talk.engine.device.misses
        ));
    }
    note(&format!(
        "seed {}, temp {}, top-k {}, top-p {}, min-p {}, repeat-penalty {}, frequency-penalty {}, presence-penalty {}",
        s.seed, s.temperature, s.top_k, s.top_p, s.min_p, s.repeat_penalty, s.frequency_penalty, s.presence_penalty
    ));
}

/// The model's name, or where it came from.
pub fn name(opened: &Opened) -> &str {
    let info = opened.engine.info();
    if info.model.is_empty() { &opened.checkpoint.source.name } else { &info.model }
}

/// What a generation is asked for.
pub fn options(talk: &TalkArgs, opened: &Opened) -> GenerateOptions {
    let end = if talk.sampling.ignore_eos { Vec::new() } else { opened.checkpoint.special.eos.clone() };
    GenerateOptions { max_tokens: talk.sampling.max_tokens(), end, routing: false }
}

/// What turns text into prompts. Says so where the model carries no chat template.
pub fn prompter(talk: &TalkArgs, opened: &Opened) -> Result<Prompter> {
    let prompter = Prompter::new(&opened.checkpoint)?;
    if prompter.fallback.is_some() && !talk.raw {
        note("note: the model carries no chat template and gets that of its family; --raw does without");
    }
    Ok(prompter)
}

/// One answer.
fn once(talk: &TalkArgs, opened: &Opened, sampling: SamplingParams, text: &str, trace: &mut Option<TraceFile>) -> Result<()> {
    let prompter = prompter(talk, opened)?;
    let prompt = if talk.raw {
        prompter.raw(text)?
    } else {
        let mut conversation = Conversation::new(talk.system_prompt.as_deref());
        conversation.ask(text);
        prompter.prompt(&conversation)?
    };
    let options = options(talk, opened);
    let session = opened.engine.session();
    let mut out = Stream::stdout();
    if talk.json_stream {
        let mut each = |id: Option<u32>, text: &str, seconds: f64| {
            out.text(&format!("{}\n", json!({ "event": "token", "id": id, "text": text, "seconds": seconds })))?;
            Ok(())
        };
        let answer = generate::answer(&session, prompt.ids, sampling.clone(), options, true, trace.as_mut(), &mut each)?;
        let mut last = result(opened, &sampling, &answer);
        last["event"] = "done".into();
        out.text(&format!("{last}\n"))?;
        return finish(&answer);
    }
    if talk.json {
        let mut silent = |_: Option<u32>, _: &str, _: f64| Ok(());
        let answer = generate::answer(&session, prompt.ids, sampling.clone(), options, true, trace.as_mut(), &mut silent)?;
        out.json(&result(opened, &sampling, &answer))?;
        return finish(&answer);
    }
    let answer = {
        let mut printer = Printer::new(&mut out, prompt.thinking);
        let mut print = |_: Option<u32>, text: &str, _: f64| printer.push(text);
        let answer = generate::answer(&session, prompt.ids, sampling, options, false, trace.as_mut(), &mut print)?;
        printer.finish()?;
        answer
    };
    let mut err = Stream::stderr();
    if talk.verbose || err.terminal {
        err.dim_line(&generate::summary(&answer.stats, opened.engine.info()))?;
    }
    finish(&answer)
}

fn finish(answer: &Answer) -> Result<()> {
    if answer.reason == DoneReason::Cancelled {
        return Err(Interrupted.into());
    }
    if answer.reason == DoneReason::Context {
        note("note: the context is full; --ctx-size sets its length");
    }
    Ok(())
}

/// An answer for programs.
fn result(opened: &Opened, s: &SamplingParams, answer: &Answer) -> serde_json::Value {
    let info = opened.engine.info();
    json!({
        "text": answer.text,
        "tokens": answer.tokens,
        "reason": answer.reason,
        "model": name(opened),
        "device": info.device,
        "backend": info.backend,
        "activations": info.activations,
        "context": info.context,
        "sampling": {
            "temp": s.temperature,
            "top_k": s.top_k,
            "top_p": s.top_p,
            "min_p": s.min_p,
            "repeat_penalty": s.repeat_penalty,
            "frequency_penalty": s.frequency_penalty,
            "presence_penalty": s.presence_penalty,
            "repeat_last_n": s.penalty_last_n,
            "seed": s.seed,
        },
        "load_seconds": opened.seconds,
        "stats": answer.stats,
        "experts": opened.engine.experts(),
    })
}

/// Prints an answer as it comes. On a terminal reasoning is dimmed, its marks are left out, and a blank line follows it.
pub struct Printer<'a> {
    out: &'a mut Stream,
    splitter: Splitter,
    /// What the last characters were: the end of a line, and of reasoning. `None`: nothing was shown yet.
    last: Option<(bool, bool)>,
}

impl<'a> Printer<'a> {
    /// `thinking`: the prompt has already opened the reasoning.
    pub fn new(out: &'a mut Stream, thinking: bool) -> Self {
        Self { out, splitter: Splitter::new(thinking), last: None }
    }

    /// More of the answer.
    pub fn push(&mut self, text: &str) -> Result<()> {
        if self.out.terminal {
            let pieces = self.splitter.push(text);
            return self.show(pieces);
        }
        if !text.is_empty() {
            self.last = Some((text.ends_with('\n'), false));
        }
        Ok(self.out.text(text)?)
    }

    /// The end of the answer: the next text begins a line.
    pub fn finish(mut self) -> Result<()> {
        let pieces = std::mem::take(&mut self.splitter).finish();
        self.show(pieces)?;
        if !matches!(self.last, Some((true, _))) {
            self.out.text("\n")?;
        }
        Ok(())
    }

    fn show(&mut self, pieces: Vec<Piece>) -> Result<()> {
        for piece in pieces {
            let (thought, text) = match &piece {
                Piece::Thought(text) => (true, text.as_str()),
                Piece::Answer(text) => (false, text.as_str()),
            };
            // Lines around reasoning are left empty here, not as each model does it.
            let begins = self.last.is_none_or(|(_, was_thought)| was_thought != thought);
            let shown = if begins { text.trim_start_matches('\n') } else { text };
            if shown.is_empty() {
                continue;
            }
            if let (true, Some((ended_line, _))) = (begins, self.last) {
                self.out.text(if ended_line { "\n" } else { "\n\n" })?;
            }
            if thought {
                self.out.dim(shown)?;
            } else {
                self.out.text(shown)?;
            }
            self.last = Some((shown.ends_with('\n'), thought));
        }
        Ok(())
    }
}
