//! The command line: one file for each command.

mod app;
mod args;
mod bench;
mod chat;
mod conformance;
mod devices;
mod eval;
mod fit;
mod generate;
mod inspect;
mod interrupt;
mod open;
mod output;
mod profile;
mod run;
mod synth;
mod term;
mod trace;

use std::{
    ffi::OsString,
    io,
    panic::{self, AssertUnwindSafe},
    process::ExitCode,
};

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand, parser::ValueSource};

use self::{
    app::WindowArgs,
    run::{RunArgs, TalkArgs},
};

/// The command line.
#[derive(Parser, Debug)]
#[command(name = "pleiad", version, about, long_about = None, args_conflicts_with_subcommands = true, after_help = EXAMPLES)]
#[command(about = "Runs DeepSeek-V3-class mixture-of-experts models on any GPU, or on the CPU")]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    window: WindowArgs,
    #[command(flatten)]
    talk: TalkArgs,
}

const EXAMPLES: &str = "\
Without a command: the app in a window; without a display a chat in this terminal; where nobody types, one answer to the
prompt on standard input.

Examples:
  pleiad
  pleiad run \"What is the capital of France?\"
  pleiad -m DeepSeek-V2-Lite-Chat.Q4_K_M.gguf --device cpu
  echo \"What is 47 + 85?\" | pleiad --temp 0

Exit codes: 0 done, 1 failed, 2 wrong usage.";

#[derive(Subcommand, Debug)]
enum Command {
    /// One answer, or a chat without a prompt
    #[command(after_help = "\
Examples:
  pleiad run \"What is 47 + 85?\" --temp 0
  pleiad run -m moonlight/ -sys \"Answer in one sentence.\" \"Why is the sky blue?\"
  pleiad run --raw -n 32 \"Once upon a time\"
  pleiad run --json \"What is the capital of France?\"
  pleiad run - < question.txt")]
    Run(Box<RunArgs>),
    /// Logits and routing for given token ids
    #[command(after_help = "\
Examples:
  pleiad eval -m model/ --tokens ids.safetensors --out logits.safetensors
  pleiad eval --tokens ids.json --out logits.safetensors --chunk 1 --activations f32 --cache-type f32")]
    Eval(eval::EvalArgs),
    /// Prefill and decode speed
    #[command(after_help = "\
Examples:
  pleiad bench
  pleiad bench -m model.gguf -p 128,512 -n 64 -r 3 --device cpu -t 8
  pleiad bench -o json > bench.json")]
    Bench(bench::BenchArgs),
    /// Every device, its kernels and limits, and which one is chosen
    #[command(after_help = "Example:\n  pleiad devices --json")]
    Devices(devices::DevicesArgs),
    /// Whether each adapter computes these models right, and how fast: a report for each
    #[command(after_help = "\
Examples:
  pleiad conformance --quick
  pleiad conformance --device wgpu:0 --strict-web --out reports/
  pleiad conformance --only kernel/matvec --only speed
  pleiad conformance diff before.json after.json
  pleiad conformance matrix reports/*.json
  pleiad conformance brief report.json --out small.json

Exit codes: 0 every test ended as it should, 1 some did not, 2 wrong usage.")]
    Conformance(Box<conformance::ConformanceArgs>),
    /// What is in a checkpoint
    #[command(after_help = "\
Examples:
  pleiad inspect tiny
  pleiad inspect model.gguf --tensors
  pleiad inspect model/ --json")]
    Inspect(inspect::InspectArgs),
    /// What would go where under a memory budget, before anything is loaded
    #[command(after_help = "\
Examples:
  pleiad fit model.gguf
  pleiad fit model.gguf --memory-budget 6GiB --ctx-size 8192")]
    Fit(fit::FitArgs),
    /// What routing traces say: see `pleiad run --trace`
    #[command(after_help = "\
Examples:
  pleiad run --trace trace.csv \"Why is the sky blue?\"
  pleiad trace replay trace.csv --slots 16,32")]
    Trace(trace::TraceArgs),
    /// Random weights in a published shape, for benchmarks
    #[command(after_help = "\
Examples:
  pleiad synth --shape deepseek-v2-lite --quant Q4_K_M v2-lite.gguf
  pleiad synth --shape deepseek-v3 --layers 5 --quant Q8_0 v3-5-layers.gguf")]
    Synth(synth::SynthArgs),
}

/// The program: reads the arguments, does what they say, and returns the exit code.
pub fn main() -> ExitCode {
    install_panic_hook();
    let matches = Cli::command().get_matches_from(std::env::args_os().map(llama_spelling));
    let model_named = matches.value_source("model") == Some(ValueSource::CommandLine);
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|e| e.exit());
    let result = panic::catch_unwind(AssertUnwindSafe(|| match cli.command {
        None => app::run(cli.window, cli.talk, model_named),
        Some(Command::Run(args)) => run::run(&args),
        Some(Command::Eval(args)) => eval::run(&args),
        Some(Command::Bench(args)) => bench::run(&args),
        Some(Command::Devices(args)) => devices::run(&args),
        Some(Command::Conformance(args)) => conformance::run(&args),
        Some(Command::Inspect(args)) => inspect::run(&args),
        Some(Command::Fit(args)) => fit::run(&args),
        Some(Command::Trace(args)) => trace::run(&args),
        Some(Command::Synth(args)) => synth::run(&args),
    }));
    match result {
        Ok(Ok(())) => ExitCode::SUCCESS,
        // Whoever read the output has enough.
        Ok(Err(e)) if is_broken_pipe(&e) => ExitCode::SUCCESS,
        Ok(Err(e)) if e.is::<interrupt::Interrupted>() => ExitCode::from(interrupt::EXIT_CODE),
        Ok(Err(e)) => {
            // Where nobody can read it, the exit code is all there is.
            let _ = term::Stream::stderr().line(&format!("error: {}", one_line(&e)));
            ExitCode::FAILURE
        }
        // The hook has said what there is to say.
        Err(_) => ExitCode::FAILURE,
    }
}

/// llama.cpp's `-sys`, which would read as `-s ys`.
fn llama_spelling(argument: OsString) -> OsString {
    if argument == "-sys" { "--system-prompt".into() } else { argument }
}

/// An error and its causes in one line, joined by ": ". Messages that already end in their cause are not repeated.
fn one_line(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if text.is_empty() {
            text = cause;
        } else if !text.ends_with(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text.split(['\n', '\r']).map(str::trim).filter(|l| !l.is_empty()).collect::<Vec<_>>().join("; ")
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let broken = |e: &io::Error| e.kind() == io::ErrorKind::BrokenPipe;
    error.chain().any(|cause| {
        cause.downcast_ref::<io::Error>().is_some_and(broken)
            || cause.downcast_ref::<serde_json::Error>().is_some_and(|e| e.io_error_kind() == Some(io::ErrorKind::BrokenPipe))
    })
}

/// A panic is a bug: one line that asks for a report, and all details where RUST_BACKTRACE asks for them.
fn install_panic_hook() {
    let details = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if std::env::var_os("RUST_BACKTRACE").is_some_and(|v| v != "0") {
            details(info);
        }
        let place = info.location().map_or_else(String::new, |l| format!(" at {}:{}", l.file(), l.line()));
        let what = info.payload_as_str().unwrap_or("no message").replace('\n', " ");
        let line =
            format!("error: internal error{place}: {what}; this is a bug in Pleiad: please report this line and the command");
        let _ = term::Stream::stderr().line(&line);
    }));
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn errors_are_one_line_without_repetition() {
        let io = io::Error::new(io::ErrorKind::NotFound, "no such file");
        let inner = pleiad_models::Error::io("model.gguf", io);
        assert_eq!(one_line(&anyhow::Error::from(inner)), "model.gguf: no such file");
        let chained = anyhow::anyhow!("a\n  b\n").context("c");
        assert_eq!(one_line(&chained), "c: a; b");
    }

    #[test]
    fn broken_pipes_are_recognised() {
        let broken = || io::Error::from(io::ErrorKind::BrokenPipe);
        assert!(is_broken_pipe(&anyhow::Error::from(broken()).context("x")));
        assert!(is_broken_pipe(&serde_json::Error::io(broken()).into()));
        assert!(!is_broken_pipe(&anyhow::anyhow!("x")));
    }
}
