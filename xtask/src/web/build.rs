//! From the workspace to `web/dist`.

use std::{
    env, fs,
    path::{Path, PathBuf},
    time::{Instant, SystemTime},
};

use anyhow::{Context, Result, anyhow, bail};

use super::{TARGET, dist, optimise};
use crate::{
    cargo, root, run, run_with, target_dir,
    targets::{Compiler, WASM_LINKER, debian_install, wasm_linker},
};

/// What is fetched before the app starts, compressed and without the model, is no more than this, in bytes.
const LIMIT: u64 = 12_000_000;
/// What wasm-bindgen makes.
const PARTS: [&str; 2] = ["pleiad_web_bg.wasm", "pleiad_web.js"];
/// The embedded model: its place in the workspace, and its name on the site.
const MODEL: [&str; 2] = ["models/tiny/pleiad-tiny-q8_0.gguf", "pleiad-tiny.gguf"];
/// Debian's compiler, and the source of its standard library.
const DEBIAN: [&str; 4] = ["rustc-web", "cargo-web", "rust-web-src", "rust-web-llvm"];

/// A file of the site, in bytes.
struct Size {
    name: &'static str,
    raw: u64,
    gzip: u64,
    brotli: u64,
}

/// Builds the site. To optimise it saves a few per cent of its size and takes a minute or two.
pub(crate) fn build(optimise: bool) -> Result<()> {
    let start = Instant::now();
    let wasm = compile()?;
    let parts = target_dir().join("web-parts");
    let optimised = bind(&wasm, &parts, optimise)?;

    let dist = dist();
    if dist.exists() {
        fs::remove_dir_all(&dist).with_context(|| format!("{} cannot be emptied", dist.display()))?;
    }
    copy_folder(&root().join("web/site"), &dist)?;
    copy_folder(&parts, &dist)?;
    copy(&root().join(MODEL[0]), &dist.join(MODEL[1]))?;

    let sizes: Vec<Size> = PARTS.iter().map(|name| Size::of(name, &dist)).collect::<Result<_>>()?;
    fs::write(dist.join("build.json"), describe(&sizes, optimised))?;
    report(&sizes, Size::on_disk(&dist.join(MODEL[1]))?);
    eprintln!("web/dist is built ({:.0} s).", start.elapsed().as_secs_f64());
    let sum: u64 = sizes.iter().map(|s| s.brotli).sum();
    if sum > LIMIT {
        bail!("the app's program is {sum} bytes compressed: more than the {LIMIT} that it may be");
    }
    Ok(())
}

/// Where a compiler for browsers is, or was installed.
pub(super) fn compiler() -> Result<Compiler> {
    Compiler::of(TARGET).map_or_else(
        || {
            debian_install(&DEBIAN)
                .map_err(|words| anyhow!("no compiler for {TARGET}: rustup target add {TARGET}; without rustup, {words}"))?;
            Compiler::distribution().ok_or_else(|| anyhow!("{} were installed, and cannot build for {TARGET}", DEBIAN.join(", ")))
        },
        Ok,
    )
}

/// The program as the compiler writes it.
fn compile() -> Result<PathBuf> {
    let compiler = compiler()?;
    let folder = if compiler.builds_std { target_dir().join("web-std") } else { target_dir() };
    let folder_name = path(&folder)?;
    let what = ["build", "-p", "pleiad-web", "--profile", "web", "--target", TARGET, "--target-dir", folder_name];
    let linker =
        if compiler.builds_std { Some(wasm_linker().map_err(|words| anyhow!("no linker for {TARGET}: {words}"))?) } else { None };
    let mut vars = compiler.vars.to_vec();
    if let Some(linker) = &linker {
        vars.push((WASM_LINKER, path(linker)?));
    }
    run_with(&compiler.cargo, &[&what, compiler.args].concat(), &vars)?;
    Ok(folder.join(TARGET).join("web/pleiad_web.wasm"))
}

/// The module that JavaScript imports and the wasm that it loads, compressed too, in a folder of their own. Says whether they were
/// optimised. Nothing is done where they were made of the same program before.
fn bind(wasm: &Path, parts: &Path, optimise: bool) -> Result<bool> {
    let stamp_file = target_dir().join("web-parts.stamp");
    let [plain, optimised] = stamps(wasm)?;
    if PARTS.iter().all(|name| parts.join(format!("{name}.br")).exists()) {
        match fs::read_to_string(&stamp_file) {
            Ok(stamp) if stamp == optimised => return Ok(true),
            Ok(stamp) if stamp == plain && !optimise => return Ok(false),
            _ => {}
        }
    }
    let _ = fs::remove_file(&stamp_file);
    if parts.exists() {
        fs::remove_dir_all(parts)?;
    }
    let packer = packer()?;
    run(path(&packer)?, &["bindgen", path(wasm)?, path(parts)?])?;
    let optimiser = if optimise { optimise::find() } else { None };
    if let Some(optimiser) = &optimiser {
        optimiser.run(&parts.join(PARTS[0]))?;
    }
    let files: Vec<String> = PARTS.iter().map(|name| path(&parts.join(name)).map(str::to_owned)).collect::<Result<_>>()?;
    let files: Vec<&str> = files.iter().map(String::as_str).collect();
    run(path(&packer)?, &[&["compress"], &files[..]].concat())?;
    fs::write(&stamp_file, if optimiser.is_some() { optimised } else { plain })?;
    Ok(optimiser.is_some())
}

/// The program `web-pack`, built.
fn packer() -> Result<PathBuf> {
    run(&cargo(), &["build", "--quiet", "--release", "-p", "xtask", "--features", "web-pack", "--bin", "web-pack"])?;
    Ok(target_dir().join("release").join(format!("web-pack{}", env::consts::EXE_SUFFIX)))
}

/// What parts are made of: without optimising, and with it.
fn stamps(wasm: &Path) -> Result<[String; 2]> {
    let about = fs::metadata(wasm).with_context(|| format!("{} is not there", wasm.display()))?;
    let written = about.modified()?.duration_since(SystemTime::UNIX_EPOCH)?.as_nanos();
    let plain = format!("{} {} {written}", wasm.display(), about.len());
    let optimised = format!("{plain} {}", optimise::FLAGS.join(" "));
    Ok([plain, optimised])
}

fn path(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("{} has a name that is not text", path.display()))
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).map(drop).with_context(|| format!("{} cannot be copied to {}", from.display(), to.display()))
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("{} cannot be made", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("{} cannot be read", from.display()))? {
        let entry = entry?;
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() { copy_folder(&from, &to) } else { copy(&from, &to) }?;
    }
    Ok(())
}

impl Size {
    fn of(name: &'static str, dist: &Path) -> Result<Self> {
        let of = |end: &str| Self::on_disk(&dist.join(format!("{name}{end}")));
        Ok(Self { name, raw: of("")?, gzip: of(".gz")?, brotli: of(".br")? })
    }

    fn on_disk(file: &Path) -> Result<u64> {
        Ok(fs::metadata(file).with_context(|| format!("{} is not there", file.display()))?.len())
    }
}

/// The text of `build.json`.
fn describe(sizes: &[Size], optimised: bool) -> String {
    let files: Vec<String> = sizes
        .iter()
        .map(|s| format!("    \"{}\": {{ \"bytes\": {}, \"gzip\": {}, \"brotli\": {} }}", s.name, s.raw, s.gzip, s.brotli))
        .collect();
    let version = env!("CARGO_PKG_VERSION");
    format!(
        "{{\n  \"version\": \"{version}\",\n  \"optimised\": {optimised},\n  \"files\": {{\n{}\n  }}\n}}\n",
        files.join(",\n")
    )
}

fn report(sizes: &[Size], model: u64) {
    let row = |name: &str, cells: [String; 3]| eprintln!("{name:<20} {:>12} {:>12} {:>12}", cells[0], cells[1], cells[2]);
    row("bytes", ["raw".into(), "gzip".into(), "brotli".into()]);
    for s in sizes {
        row(s.name, [s.raw, s.gzip, s.brotli].map(grouped));
    }
    row(MODEL[1], [grouped(model), String::new(), String::new()]);
}

/// A number with its thousands apart.
fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_apart() {
        assert_eq!([0, 12, 123, 1234, 12_000_000].map(grouped), ["0", "12", "123", "1 234", "12 000 000"]);
    }
}
