//! The chat in a terminal.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, bail};
use pleiad_runtime::{SamplingParams, Session, engine::GenerationStats};
use rustyline::{
    Config, Editor, Helper,
    completion::Completer,
    error::ReadlineError,
    highlight::Highlighter,
    hint::Hinter,
    history::FileHistory,
    validate::{ValidationContext, ValidationResult, Validator},
};

use super::{
    generate::{self, TraceFile},
    open::Opened,
    run::{self, Printer, TalkArgs},
    term::{Stream, note, size},
};
use crate::conversation::{Conversation, Prompter, whole_turn};

const HELP: &str = "\
/help            this list
/clear           begin a new conversation (the system prompt stays)
/regenerate, /r  answer the last question again
/system TEXT     set the system prompt; without TEXT: remove it
/save FILE       save the conversation: Markdown, or JSON where FILE ends in .json
/stats           what the last answer took
/exit            leave (so do Ctrl-D and pressing Ctrl-C twice)

Ctrl-C stops an answer. Pasted text keeps its lines. A line that ends in \\ goes on in the next one; text between
\"\"\" and \"\"\" may have several lines. A message that begins with / is written with //.";

/// What was typed.
#[derive(Debug, PartialEq, Eq)]
enum Input<'a> {
    Nothing,
    Message(String),
    Help,
    Clear,
    Regenerate,
    System(&'a str),
    Save(&'a str),
    Stats,
    Exit,
    Unknown(&'a str),
}

impl<'a> Input<'a> {
    fn parse(line: &'a str) -> Self {
        let trimmed = line.trim();
        if let Some(inner) = trimmed.strip_prefix("\"\"\"") {
            return Self::message(inner.strip_suffix("\"\"\"").unwrap_or(inner).trim_matches('\n'));
        }
        let Some(command) = trimmed.strip_prefix('/') else { return Self::message(&trimmed.replace("\\\n", "\n")) };
        if command.starts_with('/') {
            return Self::message(command);
        }
        let (name, rest) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
        match name {
            "help" | "?" => Self::Help,
            "clear" | "new" => Self::Clear,
            "regenerate" | "regen" | "r" => Self::Regenerate,
            "system" => Self::System(rest.trim()),
            "save" => Self::Save(rest.trim()),
            "stats" => Self::Stats,
            "exit" | "quit" | "q" | "bye" => Self::Exit,
            _ => Self::Unknown(name),
        }
    }

    fn message(text: &str) -> Self {
        if text.trim().is_empty() { Self::Nothing } else { Self::Message(text.to_owned()) }
    }
}

/// Knows when a message is complete.
struct Lines;

impl Validator for Lines {
    fn validate(&self, ctx: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        Ok(if is_complete(ctx.input()) { ValidationResult::Valid(None) } else { ValidationResult::Incomplete })
    }

    fn validate_while_typing(&self) -> bool {
        false
    }
}

fn is_complete(input: &str) -> bool {
    match input.trim_start().strip_prefix("\"\"\"") {
        Some(inner) => inner.trim_end().ends_with("\"\"\""),
        None => !input.ends_with('\\'),
    }
}

impl Completer for Lines {
    type Candidate = String;
}

impl Hinter for Lines {
    type Hint = String;
}

impl Highlighter for Lines {}
impl Helper for Lines {}

struct Chat<'a> {
    talk: &'a TalkArgs,
    opened: &'a Opened,
    session: Session,
    prompter: Prompter,
    sampling: SamplingParams,
    conversation: Conversation,
    last: Option<GenerationStats>,
    trace: &'a mut Option<TraceFile>,
    out: Stream,
}

/// Chats until the person leaves.
pub fn chat(talk: &TalkArgs, opened: &Opened, sampling: SamplingParams, trace: &mut Option<TraceFile>) -> Result<()> {
    let mut chat = Chat {
        talk,
        opened,
        session: opened.engine.session(),
        prompter: run::prompter(talk, opened)?,
        sampling,
        conversation: Conversation::new(talk.system_prompt.as_deref()),
        last: None,
        trace,
        out: Stream::stdout(),
    };
    let info = opened.engine.info();
    chat.out.dim_line(&format!(
        "{} on {}, {} context. /help lists the commands.",
        run::name(opened),
        info.device,
        tokens(info.context)
    ))?;
    let config = Config::builder().max_history_size(1000)?.auto_add_history(true).history_ignore_space(true).build();
    let mut editor: Editor<Lines, FileHistory> = Editor::with_config(config)?;
    editor.set_helper(Some(Lines));
    let history = history_file();
    if let Some(file) = &history {
        // There is none the first time.
        let _ = editor.load_history(file);
    }
    let mut leaving = false;
    loop {
        match editor.readline("> ") {
            Ok(line) => {
                leaving = false;
                if let Some(file) = &history {
                    // A chat works without a history, too.
                    let _ = editor.append_history(file);
                }
                if !chat.handle(&line)? {
                    return Ok(());
                }
            }
            Err(ReadlineError::Interrupted) if !leaving => {
                leaving = true;
                note("(Ctrl-C again, or Ctrl-D, leaves)");
            }
            Err(ReadlineError::Interrupted | ReadlineError::Eof) => return Ok(()),
            Err(e) => return Err(e).context("the terminal"),
        }
    }
}

fn tokens(n: usize) -> String {
    if n == 1 { "1 token".into() } else { format!("{n} tokens") }
}

/// Where lines are remembered: the user's state directory.
fn history_file() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let base = if cfg!(windows) {
        set("LOCALAPPDATA")?
    } else {
        set("XDG_STATE_HOME").or_else(|| Some(set("HOME")?.join(".local/state")))?
    };
    let directory = base.join("pleiad");
    std::fs::create_dir_all(&directory).ok()?;
    Some(directory.join("history.txt"))
}

impl Chat<'_> {
    /// Does what a line says; `false`: leave.
    fn handle(&mut self, line: &str) -> Result<bool> {
        match Input::parse(line) {
            Input::Nothing => {}
            Input::Exit => return Ok(false),
            Input::Help => self.out.line(HELP)?,
            Input::Clear => {
                self.conversation.clear();
                self.out.dim_line("A new conversation.")?;
            }
            Input::System(text) => {
                self.conversation.set_system(text);
                self.out.dim_line(if text.is_empty() { "No system prompt." } else { "System prompt set." })?;
            }
            Input::Save(file) => match self.save(file) {
                Ok(()) => self.out.dim_line(&format!("Saved as {file}."))?,
                Err(e) => self.complain(&e)?,
            },
            Input::Stats => self.stats()?,
            Input::Unknown(name) => self.out.dim_line(&format!("There is no command /{name}; /help lists them."))?,
            Input::Message(text) => {
                self.conversation.ask(&text);
                if !self.reply()? {
                    // The person may want to say it differently; nothing else is lost.
                    self.conversation.take_back();
                }
            }
            Input::Regenerate => match self.conversation.forget_answer() {
                Some(old) => {
                    if !self.reply()? {
                        self.conversation.answer(&old);
                    }
                }
                None => self.out.dim_line("There is no answer yet.")?,
            },
        }
        Ok(true)
    }

    fn complain(&mut self, error: &anyhow::Error) -> Result<()> {
        Ok(Stream::stderr().line(&format!("error: {}", super::one_line(error)))?)
    }

    /// Answers the last message. `false`: there is no answer; the person was told why.
    fn reply(&mut self) -> Result<bool> {
        let prompt = match self.conversation.last_question() {
            Some(question) if self.talk.raw => self.prompter.raw(question),
            _ => self.prompter.prompt(&self.conversation),
        };
        let prompt = match prompt {
            Ok(prompt) => prompt,
            Err(e) => {
                self.complain(&e)?;
                return Ok(false);
            }
        };
        let options = run::options(self.talk, self.opened);
        let thinking = prompt.thinking;
        let mut printer = Printer::new(&mut self.out, thinking);
        let mut broken = false;
        let mut print = |_: Option<u32>, text: &str, _: f64| printer.push(text).inspect_err(|_| broken = true);
        let (sampling, trace) = (self.sampling.clone(), self.trace.as_mut());
        let answer = generate::answer(&self.session, prompt.ids, sampling, options, false, trace, &mut print);
        // Another answer is another draw, also where the seed was given.
        self.sampling.seed = self.sampling.seed.wrapping_add(1);
        let answer = match answer {
            Ok(answer) => answer,
            Err(e) if broken => return Err(e),
            Err(e) => {
                printer.finish()?;
                self.complain(&e)?;
                return Ok(false);
            }
        };
        printer.finish()?;
        if answer.reason == pleiad_runtime::engine::DoneReason::Context {
            note("note: the context is full; /clear begins a new conversation, --ctx-size sets its length");
        }
        self.last = Some(answer.stats);
        if self.talk.verbose || self.out.terminal {
            note(&generate::summary(&answer.stats, self.opened.engine.info()));
        }
        if answer.tokens.is_empty() {
            return Ok(false);
        }
        self.conversation.answer(&whole_turn(thinking, &answer.text));
        Ok(true)
    }

    fn stats(&mut self) -> Result<()> {
        let info = self.opened.engine.info();
        let Some(s) = self.last else { return Ok(self.out.dim_line("There is no answer yet.")?) };
        let used = s.prompt_tokens + s.generated_tokens;
        let seconds = |s: f64| format!("{:.3} s", Duration::from_secs_f64(s.max(0.0)).as_secs_f64());
        let d = s.decode_device;
        let lines = [
            ("model", format!("{}, {} of weights", run::name(self.opened), size(info.weight_bytes))),
            ("device", format!("{} ({})", info.device, info.backend)),
            (
                "prompt",
                format!("{}, {} of them reused, {}", tokens(s.prompt_tokens), s.reused_tokens, seconds(s.prefill_seconds)),
            ),
            ("answer", format!("{}, {} after the first", tokens(s.generated_tokens), seconds(s.decode_seconds))),
            ("context", format!("{used} of {} used", tokens(info.context))),
            ("decoding", format!("{} dispatches, {} submissions, {} readbacks", d.dispatches, d.submissions, d.readbacks)),
        ];
        // The CPU backend dispatches and submits nothing; an answer that was stopped was not counted.
        let lines = lines.into_iter().filter(|(label, _)| *label != "decoding" || d.submissions > 0);
        for (label, text) in lines {
            self.out.line(&format!("{label:<9} {text}"))?;
        }
        Ok(())
    }

    fn save(&self, file: &str) -> Result<()> {
        if file.is_empty() {
            bail!("/save needs a file name");
        }
        let text = if file.to_ascii_lowercase().ends_with(".json") {
            self.conversation.to_json(run::name(self.opened))
        } else {
            self.conversation.to_markdown(run::name(self.opened))
        };
        std::fs::write(file, text).with_context(|| file.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_and_messages() {
        assert_eq!(Input::parse("  "), Input::Nothing);
        assert_eq!(Input::parse("hello\n  there "), Input::Message("hello\n  there".into()));
        assert_eq!(Input::parse("/r"), Input::Regenerate);
        assert_eq!(Input::parse("/system  be brief "), Input::System("be brief"));
        assert_eq!(Input::parse("/save my file.md"), Input::Save("my file.md"));
        assert_eq!(Input::parse("/nonsense 1"), Input::Unknown("nonsense"));
        assert_eq!(Input::parse("//etc is a directory"), Input::Message("/etc is a directory".into()));
        assert_eq!(Input::parse("one\\\ntwo"), Input::Message("one\ntwo".into()));
        assert_eq!(Input::parse("\"\"\"\n/clear\n  x\n\"\"\""), Input::Message("/clear\n  x".into()));
    }

    #[test]
    fn messages_of_several_lines() {
        assert!(is_complete("hello"));
        assert!(!is_complete("hello\\"));
        assert!(!is_complete("\"\"\"hello"));
        assert!(is_complete("\"\"\"hello\nthere\"\"\""));
        assert!(!is_complete("\"\"\""));
    }
}
