//! Conversations to prompts: the chat template that a checkpoint carries, rendered as `transformers` renders it.
//!
//! A template comes from a file, so it is hostile until shown otherwise: rendering has a budget of steps, of nested calls
//! and of output, and ends in [`Error::Template`] where one is spent.

mod date;
mod json;

use std::io;
use std::panic::{self, AssertUnwindSafe};

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Value};
use minijinja::{Environment, Output, State, UndefinedBehavior};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::tokenizer::Tokenizer;

/// Steps of the template engine that every rendering has.
const FUEL: u64 = 50_000;
/// Steps more for each message, and for each kilobyte of [`RenderOptions::extra`].
const FUEL_PER_MESSAGE: u64 = 2_000;
/// Macros calling macros.
const MAX_DEPTH: usize = 64;
/// Bytes a rendering may write beyond four times what the messages hold.
const MAX_OUTPUT: usize = 4 << 20;
/// The longest source that is compiled.
const MAX_SOURCE: usize = 1 << 20;

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Instructions for the whole conversation.
    System,
    /// The person.
    User,
    /// The model.
    Assistant,
}

impl Role {
    /// The name that templates know.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }
}

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said.
    pub content: String,
}

impl Message {
    /// A message.
    pub fn new(role: Role, content: impl Into<String>) -> Self {
        Self { role, content: content.into() }
    }
}

/// How to render a conversation.
#[derive(Clone, Debug, Default)]
pub struct RenderOptions {
    /// End with the beginning of the assistant's turn.
    pub add_generation_prompt: bool,
    /// Whether the model should think first, for the templates that ask: both as `enable_thinking` and as `thinking`.
    pub enable_thinking: Option<bool>,
    /// More variables (`tools`, `documents`, ...).
    pub extra: serde_json::Map<String, serde_json::Value>,
    /// The time for `strftime_now`, in seconds since 1970 (UTC). `None`: the system's clock; 1970 in a browser.
    pub now: Option<u64>,
}

/// The prompt formats that can be told apart by a vocabulary's special tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fallback {
    /// DeepSeek-V2: `User: ...`, blank line, `Assistant: ...`.
    DeepseekV2,
    /// DeepSeek-V3 and R1: `<｜User｜>...<｜Assistant｜>...`.
    DeepseekV3,
    /// Moonlight and Kimi-K2: `<|im_user|>user<|im_middle|>...<|im_end|>`.
    Kimi,
    /// GLM-4.5 and later: `[gMASK]<sop><|user|>...<|assistant|>`.
    Glm,
}

impl Fallback {
    /// The format whose special tokens the tokenizer has; plain `User:` and `Assistant:` where it has none of them.
    pub fn of(tokenizer: &Tokenizer) -> Self {
        let has = |token: &str| tokenizer.token_to_id(token).is_some();
        if has("<｜User｜>") && has("<｜Assistant｜>") {
            Self::DeepseekV3
        } else if has("<|im_user|>") && has("<|im_middle|>") {
            Self::Kimi
        } else if has("[gMASK]") && has("<|user|>") {
            Self::Glm
        } else {
            Self::DeepseekV2
        }
    }

    fn source(self) -> &'static str {
        match self {
            Self::DeepseekV2 => include_str!("deepseek-v2.jinja"),
            Self::DeepseekV3 => include_str!("deepseek-v3.jinja"),
            Self::Kimi => include_str!("kimi.jinja"),
            Self::Glm => include_str!("glm.jinja"),
        }
    }

    /// Its beginning and end of text.
    fn marks(self) -> (Option<String>, Option<String>) {
        let (bos, eos) = match self {
            Self::DeepseekV2 | Self::DeepseekV3 => (Some("<｜begin▁of▁sentence｜>"), "<｜end▁of▁sentence｜>"),
            Self::Kimi => (None, "<|im_end|>"),
            Self::Glm => (None, "<|endoftext|>"),
        };
        (bos.map(str::to_owned), Some(eos.to_owned()))
    }
}

/// A compiled chat template.
#[derive(Clone, Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    source: String,
    bos: Option<String>,
    eos: Option<String>,
}

/// The template's name inside its environment; it shows in messages.
const NAME: &str = "chat_template";

impl ChatTemplate {
    /// Compiles a template. `bos` and `eos` are its variables `bos_token` and `eos_token`, undefined if `None`.
    ///
    /// # Errors
    /// [`Error::Template`] with the line, if it does not compile.
    pub fn new(source: impl Into<String>, bos: Option<String>, eos: Option<String>) -> Result<Self> {
        let source = source.into();
        if source.len() > MAX_SOURCE {
            return Err(Error::Template(format!("{} bytes are more than the limit of {MAX_SOURCE}", source.len())));
        }
        let mut environment = environment();
        guarded(|| environment.add_template_owned(NAME, without_generation_blocks(&source)))?;
        Ok(Self { environment, source, bos, eos })
    }

    /// The family's template, for checkpoints that carry none.
    pub fn fallback(kind: Fallback) -> Self {
        let (bos, eos) = kind.marks();
        Self::new(kind.source(), bos, eos).expect("the built-in templates compile: a test renders each")
    }

    /// The template in the value of `chat_template`: a string, or one of a list of `{name, template}`, where `default` goes
    /// before the first.
    pub fn pick(json: &serde_json::Value) -> Option<String> {
        let text = |v: &serde_json::Value| v.as_str().map(str::to_owned);
        if let Some(list) = json.as_array() {
            let named = |e: &&serde_json::Value| e.get("name").and_then(|n| n.as_str()) == Some("default");
            return list.iter().find(named).or_else(|| list.first())?.get("template").and_then(text);
        }
        text(json)
    }

    /// The template as it was given.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The prompt of a conversation.
    ///
    /// # Errors
    /// [`Error::Template`] where the template refuses (`raise_exception`), is wrong, or spends its budget.
    pub fn render(&self, messages: &[Message], options: RenderOptions) -> Result<String> {
        let RenderOptions { add_generation_prompt, enable_thinking, extra, now } = options;
        let held: usize = messages.iter().map(|m| m.content.len()).sum();
        let extra_size = serde_json::to_string(&extra).map_or(0, |s| s.len());
        let shares = messages.len() as u64 + extra_size as u64 / 1024;
        let mut environment = self.environment.clone();
        environment.set_fuel(Some(FUEL.saturating_add(FUEL_PER_MESSAGE.saturating_mul(shares))));
        let now = now.unwrap_or_else(date::now);
        environment.add_function("strftime_now", move |format: String| date::strftime(now, &format));

        // `tools` and `documents` as transformers has them: defined, and none.
        let mut variables: Vec<(&str, Value)> =
            vec![("tools", ().into()), ("documents", ().into()), ("add_generation_prompt", add_generation_prompt.into())];
        for (name, token) in [("bos_token", &self.bos), ("eos_token", &self.eos)] {
            variables.extend(token.as_deref().map(|token| (name, token.into())));
        }
        if let Some(thinking) = enable_thinking {
            variables.extend([("enable_thinking", thinking.into()), ("thinking", thinking.into())]);
        }
        variables.extend(extra.iter().map(|(name, value)| (name.as_str(), json::to_value(value))));
        let turn = |m: &Message| Value::from_pairs([("role", m.role.as_str()), ("content", m.content.as_str())]);
        variables.push(("messages", messages.iter().map(turn).collect()));

        let mut text =
            Bounded { bytes: Vec::new(), left: held.saturating_add(extra_size).saturating_mul(4).saturating_add(MAX_OUTPUT) };
        let context = Value::from_pairs(variables);
        guarded(|| environment.get_template(NAME)?.render_captured_to(context, &mut text).map(drop))?;
        String::from_utf8(text.bytes).map_err(|_| Error::Template("wrote what is no UTF-8".into()))
    }
}

/// Runs the template engine. It has panicked on slices of empty strings (minijinja 3.0.5, `''[::-1]`), and a file must not
/// bring the program down.
fn guarded(run: impl FnOnce() -> Result<(), minijinja::Error>) -> Result<()> {
    // Nothing that `run` changes is used after a panic: the template or the text is dropped with the error.
    match panic::catch_unwind(AssertUnwindSafe(run)) {
        Ok(result) => result.map_err(|e| Error::Template(chain(&e))),
        Err(_) => Err(Error::Template("the template engine gave up".into())),
    }
}

/// Output that ends in an error instead of filling the memory.
struct Bounded {
    bytes: Vec<u8>,
    left: usize,
}

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.left.checked_sub(bytes.len()) {
            Some(left) => {
                self.left = left;
                self.bytes.extend_from_slice(bytes);
                Ok(bytes.len())
            }
            None => Err(io::Error::other("the output is too long")),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Jinja as transformers sets it up.
fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    environment.set_syntax(syntax.expect("the delimiters are Jinja's own"));
    environment.set_undefined_behavior(UndefinedBehavior::Lenient);
    environment.set_recursion_limit(MAX_DEPTH);
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.set_formatter(python_spelling);
    environment.add_function("raise_exception", |message: String| -> Result<Value, minijinja::Error> {
        Err(minijinja::Error::new(minijinja::ErrorKind::InvalidOperation, message))
    });
    environment
        .add_filter("tojson", |value: &Value, indent: Option<Value>, options: Kwargs| json::tojson(value, indent, &options));
    environment
}

/// `True`, `False` and `None` are written as Python writes them.
fn python_spelling(out: &mut Output, state: &mut State, value: &Value) -> Result<(), minijinja::Error> {
    let written = if value.is_none() {
        out.write_str("None")
    } else {
        match bool::try_from(value.clone()) {
            Ok(flag) if value.kind() == minijinja::value::ValueKind::Bool => out.write_str(if flag { "True" } else { "False" }),
            _ => return minijinja::escape_formatter(out, state, value),
        }
    };
    written.map_err(minijinja::Error::from)
}

/// transformers marks the assistant's words for training with `{% generation %}`; for a prompt the marks mean nothing.
fn without_generation_blocks(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find("{%") {
        let (before, tag) = rest.split_at(at);
        out.push_str(before);
        let Some(end) = tag.find("%}").map(|end| end + 2) else {
            rest = tag;
            break;
        };
        let (tag, after) = tag.split_at(end);
        let word =
            tag.trim_start_matches("{%").trim_end_matches("%}").trim_matches(|c: char| c == '-' || c == '+' || c.is_whitespace());
        match word {
            "generation" => out.push_str(&tag.replacen(word, "if true", 1)),
            "endgeneration" => out.push_str(&tag.replacen(word, "endif", 1)),
            _ => out.push_str(tag),
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

/// An error and its causes, in one line.
fn chain(error: &minijinja::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text.replace('\n', " ")
}
