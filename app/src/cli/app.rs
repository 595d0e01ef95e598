//! `pleiad` without a command: the window, or the terminal where there is no display.

use std::{io::IsTerminal as _, path::PathBuf};

use anyhow::Result;
use clap::Args;

use super::{
    args::{DeviceArgs, EngineArgs},
    run::{self, RunArgs, TalkArgs},
    term::note,
};
use crate::{
    chats::Setup,
    loading::Source,
    settings::LoadSettings,
    window::{self, Options},
};

/// Arguments of the window.
#[derive(Args, Clone, Debug)]
pub struct WindowArgs {
    /// Chat in this terminal, without a window
    #[arg(long)]
    pub no_window: bool,
    /// Where the window keeps conversations and settings [default: where the system keeps such things]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
}

/// Opens the window; where there is no display, or text is piped in, chats or answers in the terminal. `model_named`: the model
/// was given, rather than left to what was open last.
pub fn run(window: WindowArgs, talk: TalkArgs, model_named: bool) -> Result<()> {
    let terminal = window.no_window || talk.json || talk.json_stream || talk.raw || talk.trace.is_some();
    if !terminal && window::display() && !piped() {
        match window::run(options(window, &talk, model_named)) {
            Ok(()) => return Ok(()),
            Err(e) if std::io::stdin().is_terminal() => note(&format!("note: {e:#}; chatting in the terminal")),
            Err(e) => return Err(e),
        }
    }
    run::run(&RunArgs { prompt: None, talk })
}

/// Whether standard input is a pipe or a file: somebody wants that answered. A program started from a menu has neither.
fn piped() -> bool {
    #[cfg(unix)]
    {
        use std::os::{fd::AsFd as _, unix::fs::FileTypeExt as _};
        let file = std::io::stdin().as_fd().try_clone_to_owned().map(std::fs::File::from);
        let kind = file.and_then(|f| f.metadata()).map(|m| m.file_type());
        kind.is_ok_and(|k| k.is_fifo() || k.is_file() || k.is_socket())
    }
    #[cfg(not(unix))]
    !std::io::stdin().is_terminal()
}

/// What the window opens with: what was not given on the command line stays as the settings have it.
fn options(window: WindowArgs, talk: &TalkArgs, model_named: bool) -> Options {
    let name = &talk.model.model;
    let key = match name.as_str() {
        "tiny" => name.clone(),
        _ => std::fs::canonicalize(name).map_or_else(|_| name.clone(), |path| path.display().to_string()),
    };
    let engine = talk.engine.clone();
    Options {
        model: Source::of(&key).filter(|_| model_named),
        load: Some(Box::new(move |load| override_load(load, &engine))),
        setup: setup(talk),
        data: window.data_dir,
    }
}

fn override_load(load: &mut LoadSettings, engine: &EngineArgs) {
    let DeviceArgs { device, memory_budget, misses, threads, .. } = &engine.device;
    let key = device.key();
    if key != "auto" {
        load.device = key;
    }
    load.memory_budget = memory_budget.or(load.memory_budget);
    if *misses != Default::default() {
        load.misses = *misses;
    }
    load.threads = threads.map(std::num::NonZeroUsize::get).or(load.threads);
    load.draft = engine.draft.or(load.draft);
    load.context = engine.ctx_size.map(std::num::NonZeroUsize::get).or(load.context);
    if engine.device.activations() != Default::default() {
        load.activations = engine.device.activations();
    }
    if engine.device.cache() != Default::default() {
        load.cache = engine.device.cache();
    }
}

/// How answers are made in a conversation that the command line says something about.
fn setup(talk: &TalkArgs) -> Option<Setup> {
    let s = &talk.sampling;
    let sampling = s.sampling();
    let system = talk.system_prompt.clone().unwrap_or_default();
    let setup = Setup { system, sampling, max_tokens: s.max_tokens(), ..Setup::default() };
    (setup != Setup::default()).then_some(setup)
}
