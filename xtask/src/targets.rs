//! Compilers for other targets: rustup's, which fetches a target's standard library, or the distribution's, which comes with the
//! library's source and builds it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{cargo, succeeds};

/// How a target's programs are compiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Compiler {
    /// The cargo to call.
    pub cargo: String,
    /// What goes after cargo's command.
    pub args: &'static [&'static str],
    /// Environment variables.
    pub vars: &'static [(&'static str, &'static str)],
    /// Whether the standard library is built along, which asks for a folder of its own.
    pub builds_std: bool,
}

impl Compiler {
    /// The compiler whose standard library for a target is here, or can be fetched or built.
    pub fn of(target: &str) -> Option<Self> {
        Self::fetched(target).or_else(Self::distribution)
    }

    fn fetched(target: &str) -> Option<Self> {
        let list = Command::new("rustup").args(["target", "list", "--installed"]).output();
        let here = list.is_ok_and(|o| String::from_utf8_lossy(&o.stdout).lines().any(|l| l == target));
        let found = here || succeeds("rustup", &["target", "add", target]);
        found.then(|| Self { cargo: cargo(), args: &[], vars: &[], builds_std: false })
    }

    /// A distribution's cargo whose compiler has the library's source beside it: `-Zbuild-std` builds it for any target.
    pub fn distribution() -> Option<Self> {
        let source = fs::read_dir("/usr/src").ok()?.flatten().any(|e| e.file_name().to_string_lossy().starts_with("rustc-"));
        (source && succeeds("/usr/bin/cargo", &["--version"])).then(|| Self {
            cargo: "/usr/bin/cargo".into(),
            args: &["-Zbuild-std=std,panic_abort"],
            vars: &[("RUSTC", "/usr/bin/rustc"), ("RUSTC_BOOTSTRAP", "1")],
            builds_std: true,
        })
    }
}

/// The variable that names the linker of programs for browsers.
pub(crate) const WASM_LINKER: &str = "CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER";

/// What links a distribution's programs for browsers: its `rust-lld`, rustup's, or the package that its `rust-lld` is a link to,
/// which is installed.
///
/// # Errors
/// In words, what to do where that cannot be.
pub(crate) fn wasm_linker() -> Result<PathBuf, String> {
    let own = Path::new("/usr/bin/rust-lld");
    if own.exists() {
        return Ok(own.into());
    }
    let sysroot = Command::new("rustc").args(["--print", "sysroot"]).output();
    let sysroot = sysroot.ok().and_then(|o| String::from_utf8(o.stdout).ok()).unwrap_or_default();
    let hosts = fs::read_dir(Path::new(sysroot.trim()).join("lib/rustlib")).into_iter().flatten().flatten();
    if let Some(linker) = hosts.map(|host| host.path().join("bin/rust-lld")).find(|linker| linker.exists()) {
        return Ok(linker);
    }
    // Debian's is a link to the linker of one version of LLVM, such as lld-22, whose package is called the same.
    let package = fs::read_link(own).ok().and_then(|to| Some(to.file_name()?.to_string_lossy().into_owned()));
    debian_install(&[package.as_deref().unwrap_or("lld")])?;
    let found = [own, Path::new("/usr/bin/wasm-ld")].into_iter().find(|linker| linker.exists());
    found.map(PathBuf::from).ok_or_else(|| "lld was installed, and there is no rust-lld".to_owned())
}

/// Installs Debian's packages, as root.
///
/// # Errors
/// In words, what to do where that cannot be.
pub(crate) fn debian_install(packages: &[&str]) -> Result<(), String> {
    let list = packages.join(" ");
    if !succeeds("apt-get", &["--version"]) {
        return Err(format!("install what Debian calls {list}"));
    }
    if !Command::new("id").arg("-u").output().is_ok_and(|o| o.stdout.trim_ascii() == b"0") {
        return Err(format!("run as root, or first: apt-get install {list}"));
    }
    eprintln!("+ apt-get install {list}");
    let install =
        format!("apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends {list}");
    match Command::new("sh").args(["-c", &install]).output() {
        Ok(done) if done.status.success() => Ok(()),
        Ok(done) => {
            let words = String::from_utf8_lossy(&done.stderr).trim_end().to_owned();
            Err(format!("apt-get install {list} failed: {}", words.lines().last().unwrap_or("it says nothing")))
        }
        Err(e) => Err(format!("apt-get cannot be run: {e}")),
    }
}
