//! The tests in a browser: `web/tests`, run by node in Chromium.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use super::{
    build::{build, compiler},
    dist,
};
use crate::{cargo, root, run, say, succeeds, target_dir, targets::debian_install};

/// Names of Chromium's program, and of browsers built on it.
const BROWSERS: [&str; 10] = [
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "microsoft-edge",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    r"C:\Program Files\Google\Chrome\Application\chrome.exe",
    r"C:\Program Files (x86)\Google\Chrome\Application\chrome.exe",
    r"C:\Program Files (x86)\Microsoft\Edge\Application\msedge.exe",
];
/// The oldest node that runs the tests.
const NODE: u32 = 20;

/// Builds the site, if it is to be tested here.
pub(crate) fn prepare() -> Result<()> {
    let folder = root().join("web/tests");
    if files(&folder)?.is_empty() || needs(&folder).is_err() { Ok(()) } else { build(false) }
}

/// Builds the site and runs its tests; where something is missing that they need, names them as skipped.
pub(crate) fn test() -> Result<()> {
    let folder = root().join("web/tests");
    let files = files(&folder)?;
    if files.is_empty() {
        say("SKIPPED tests in a browser: web/tests holds none");
        return Ok(());
    }
    let browser = match needs(&folder) {
        Ok(browser) => browser,
        Err(words) => {
            for file in &files {
                say(&format!("SKIPPED web/tests/{file}: {words}"));
            }
            return Ok(());
        }
    };
    build(false)?;
    // For the browser's own compiler.
    run(&cargo(), &["run", "--quiet", "--release", "-p", "pleiad-shaders", "--example", "browser_shaders"])?;
    let counts = target_dir().join("web-tests.tap");
    let us = env::current_exe().context("this program has no path")?;
    // Two browsers at once would measure each other.
    let status = Command::new("node")
        .args(["--test", "--test-concurrency=1", "--test-reporter=spec", "--test-reporter-destination=stdout"])
        .args(["--test-reporter=tap", &format!("--test-reporter-destination={}", counts.display())])
        .args(files.iter().map(|file| folder.join(file)))
        .current_dir(root())
        .env("PLEIAD_DIST", dist())
        .env("PLEIAD_CHROMIUM", browser)
        .env("PLEIAD_XTASK", us)
        .status()
        .context("node cannot be started")?;
    let said = fs::read_to_string(&counts).unwrap_or_default();
    let count = |what: &str| last_count(&said, what).unwrap_or(0);
    say(&format!(
        "Tests in a browser: {} passed, {} failed, {} skipped",
        count("pass"),
        count("fail") + count("cancelled"),
        count("skipped")
    ));
    if !status.success() {
        bail!("the tests in a browser failed ({status})");
    }
    Ok(())
}

/// The number in node's last line `# WHAT number`.
fn last_count(tap: &str, what: &str) -> Option<u64> {
    tap.lines().rev().find_map(|line| line.strip_prefix("# ")?.strip_prefix(what)?.trim().parse().ok())
}

/// The tests' files, by name.
fn files(folder: &Path) -> Result<Vec<String>> {
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let names = fs::read_dir(folder)?.flatten().map(|e| e.file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> = names.filter(|n| [".test.js", ".test.mjs"].iter().any(|end| n.ends_with(end))).collect();
    names.sort();
    Ok(names)
}

/// Sees to it that there are node, the libraries of the tests, a compiler and a browser. Returns the browser, or in words what is
/// missing.
fn needs(folder: &Path) -> Result<PathBuf, String> {
    let version = Command::new("node").arg("--version").output().map(|o| String::from_utf8_lossy(&o.stdout).into_owned());
    let major = version.ok().and_then(|v| v.trim().trim_start_matches('v').split('.').next()?.parse::<u32>().ok());
    if major.is_none_or(|v| v < NODE) {
        return Err(format!("they need node {NODE} or newer"));
    }
    compiler().map_err(|e| format!("{e:#}"))?;
    libraries(folder)?;
    chromium()
}

/// Installs what `package-lock.json` names, unless it is there.
fn libraries(folder: &Path) -> Result<(), String> {
    let written = |file: PathBuf| fs::metadata(file).and_then(|m| m.modified()).ok();
    let locked = written(folder.join("package-lock.json"));
    if locked.is_none() || written(folder.join("node_modules/.package-lock.json")) >= locked {
        return Ok(());
    }
    let npm = if cfg!(windows) { "npm.cmd" } else { "npm" };
    eprintln!("+ npm ci");
    let install = ["ci", "--no-audit", "--no-fund", "--loglevel=error"];
    match Command::new(npm).args(install).current_dir(folder).output() {
        Ok(done) if done.status.success() => Ok(()),
        Ok(done) => {
            eprintln!("{}", String::from_utf8_lossy(&done.stderr).trim_end());
            Err("npm cannot install what web/tests/package-lock.json names".into())
        }
        Err(e) => Err(format!("they need npm, which cannot be run: {e}")),
    }
}

/// Chromium: the one that `PLEIAD_CHROMIUM` names, one that is installed, or Debian's, which is installed as root.
fn chromium() -> Result<PathBuf, String> {
    if let Some(named) = env::var_os("PLEIAD_CHROMIUM") {
        return Ok(named.into());
    }
    let find = || BROWSERS.iter().find_map(|name| on_path(name));
    find().map_or_else(
        || {
            debian_install(&["chromium"]).map_err(|words| format!("they need Chromium or Chrome: {words}"))?;
            find().ok_or_else(|| "chromium was installed and is not on the path".to_owned())
        },
        Ok,
    )
}

/// Where a program is that can be started.
fn on_path(name: &str) -> Option<PathBuf> {
    let file = if Path::new(name).is_absolute() {
        Some(PathBuf::from(name)).filter(|f| f.exists())
    } else {
        env::split_paths(&env::var_os("PATH")?).map(|folder| folder.join(name)).find(|f| f.is_file())
    }?;
    // Chrome on Windows does not say its version, it opens a window.
    (cfg!(windows) || succeeds(file.to_str()?, &["--version"])).then_some(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_count_is_taken() {
        let tap = "# Subtest: pass 7\n# pass 1\n    # pass 9\n# tests 5\n# pass 3\n# fail 0\n# skipped 2\n# duration_ms 4.2\n";
        assert_eq!([last_count(tap, "pass"), last_count(tap, "fail"), last_count(tap, "skipped")], [Some(3), Some(0), Some(2)]);
        assert_eq!(last_count("", "pass"), None);
    }
}
