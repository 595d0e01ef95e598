//! `cargo xtask platforms`: the workspace type-checks for the other desktop systems.

use anyhow::Result;

use crate::{run_with, say, targets::Compiler};

/// The second is the ARM processors' too.
const TARGETS: [&str; 2] = ["x86_64-pc-windows-msvc", "aarch64-apple-darwin"];

/// Checks every target whose standard library is installed, can be installed, or can be built.
pub(crate) fn check() -> Result<()> {
    for target in TARGETS {
        let Some(compiler) = Compiler::of(target) else {
            say(&format!("SKIPPED type-check for {target}: its std is not here (rustup target add {target})"));
            continue;
        };
        let folder: &[&str] = if compiler.builds_std { &["--target-dir", "target/platforms"] } else { &[] };
        let what = ["--workspace", "--exclude", "xtask", "--target", target];
        run_with(&compiler.cargo, &[&["check"], compiler.args, &what, folder].concat(), compiler.vars)?;
    }
    Ok(())
}
