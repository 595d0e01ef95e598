//! `cargo xtask platforms`: the workspace type-checks for the other desktop systems.

use std::process::Command;

use anyhow::Result;

use crate::{cargo, root, run, run_with, say};

const TARGETS: [&str; 3] = ["x86_64-pc-windows-msvc", "aarch64-apple-darwin", "aarch64-unknown-linux-gnu"];

/// Checks every target whose standard library is installed, can be installed, or can be built.
pub(crate) fn check() -> Result<()> {
    for target in TARGETS {
        if installed(target) {
            run(&cargo(), &["check", "--workspace", "--exclude", "xtask", "--target", target])?;
        } else if let Some(cargo) = distribution_cargo() {
            // Debian's compiler comes with the library's source: `-Zbuild-std` builds it for any target.
            let vars = [("RUSTC", "/usr/bin/rustc"), ("RUSTC_BOOTSTRAP", "1")];
            let args = ["check", "-Zbuild-std=std,panic_abort", "--workspace", "--exclude", "xtask", "--target", target];
            let build = ["--target-dir", "target/platforms"];
            run_with(cargo, &[&args[..], &build[..]].concat(), &vars)?;
        } else {
            say(&format!("SKIPPED type-check for {target}: its std is not here (rustup target add {target})"));
        }
    }
    Ok(())
}

fn succeeds(program: &str, args: &[&str]) -> bool {
    Command::new(program).args(args).current_dir(root()).output().is_ok_and(|o| o.status.success())
}

fn installed(target: &str) -> bool {
    let list = Command::new("rustup").args(["target", "list", "--installed"]).output();
    let is_there = |o: &[u8]| String::from_utf8_lossy(o).lines().any(|l| l == target);
    list.is_ok_and(|o| is_there(&o.stdout)) || succeeds("rustup", &["target", "add", target])
}

/// A distribution's cargo whose compiler has the library's source beside it.
fn distribution_cargo() -> Option<&'static str> {
    let source = std::fs::read_dir("/usr/src").ok()?.flatten().any(|e| e.file_name().to_string_lossy().starts_with("rustc-"));
    (source && succeeds("/usr/bin/cargo", &["--version"])).then_some("/usr/bin/cargo")
}
