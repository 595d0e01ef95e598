//! `wasm-opt`, where it can be had: binaryen's own, or the one of npm's package `binaryen`, which node runs.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Context, Result, bail};

use crate::{succeeds, target_dir};

/// What it does, and the features that the program uses: what `.cargo/config.toml` asks for and what Rust's target has by itself.
pub(super) const FLAGS: [&str; 9] = [
    "-O1",
    "--enable-simd",
    "--enable-bulk-memory",
    "--enable-nontrapping-float-to-int",
    "--enable-sign-ext",
    "--enable-mutable-globals",
    "--enable-reference-types",
    "--enable-multivalue",
    "--strip-producers",
];
/// The oldest binaryen that reads what today's compilers write.
const OLDEST: u32 = 118;
/// The package of npm.
const PACKAGE: &str = "binaryen@132.0.0";

/// An optimiser: the command that starts it.
pub(super) struct Optimiser(Vec<String>);

/// Finds one, or installs npm's; where neither can be had, says so.
pub(super) fn find() -> Option<Optimiser> {
    if version().is_some_and(|v| v >= OLDEST) {
        return Some(Optimiser(vec!["wasm-opt".into()]));
    }
    let found = npm();
    if found.is_none() {
        eprintln!(
            "SKIPPED wasm-opt: neither binaryen {OLDEST} or newer nor node with npm is here; the program is larger without"
        );
    }
    found
}

/// The version of the one on the path: "wasm-opt version 123 (...)".
fn version() -> Option<u32> {
    let said = Command::new("wasm-opt").arg("--version").output().ok()?;
    String::from_utf8_lossy(&said.stdout).split_whitespace().find_map(|word| word.parse().ok())
}

fn npm() -> Option<Optimiser> {
    if !succeeds("node", &["--version"]) {
        return None;
    }
    let folder = target_dir().join("web-tools");
    let program = folder.join("node_modules/binaryen/bin/wasm-opt");
    let version = PACKAGE.rsplit('@').next()?;
    let about = folder.join("node_modules/binaryen/package.json");
    if !fs::read_to_string(about).is_ok_and(|text| text.contains(&format!("\"version\": \"{version}\""))) {
        fs::create_dir_all(&folder).ok()?;
        // On Windows npm is a script, which only a shell finds.
        let npm = if cfg!(windows) { "npm.cmd" } else { "npm" };
        eprintln!("+ npm install {PACKAGE}");
        let install =
            ["install", "--no-save", "--no-audit", "--no-fund", "--loglevel=error", "--prefix", folder.to_str()?, PACKAGE];
        let done = Command::new(npm).args(install).output().ok()?;
        if !done.status.success() {
            eprintln!("{}", String::from_utf8_lossy(&done.stderr).trim_end());
            return None;
        }
    }
    program.exists().then(|| Optimiser(vec!["node".into(), program.to_string_lossy().into_owned()]))
}

impl Optimiser {
    /// Optimises a program in its place.
    pub fn run(&self, wasm: &Path) -> Result<()> {
        let start = Instant::now();
        let smaller: PathBuf = wasm.with_extension("opt");
        let (program, before) = self.0.split_first().context("no optimiser")?;
        eprintln!("+ wasm-opt {}", FLAGS.join(" "));
        let mut command = Command::new(program);
        command.args(before).args(FLAGS).arg(wasm).arg("-o").arg(&smaller);
        let status = command.status().with_context(|| format!("{program} cannot be started"))?;
        if !status.success() {
            bail!("wasm-opt failed ({status})");
        }
        fs::rename(&smaller, wasm)?;
        eprintln!("  {:.0} s", start.elapsed().as_secs_f64());
        Ok(())
    }
}
