//! `pleiad conformance` as people and scripts run it: processes that crash and hang, runs that are interrupted and resumed, what is
//! written, and what of it can be compared. It takes the software adapters that there are; where there is none, it says so.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // a failed unwrap is a failed test; skips are printed

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use pleiad_conformance::{
    report::{Report, Verdict},
    schema,
};
use serde_json::{Value, json};

/// A handful of quick tests.
const ONLY: [&str; 4] = ["--only", "integer/", "--only", "memory/"];

fn pleiad(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pleiad"));
    command.arg("conformance").args(args).stdin(Stdio::null()).env_remove("RUST_BACKTRACE").env("NO_COLOR", "1");
    command.env("XDG_RUNTIME_DIR", std::env::temp_dir());
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A directory of its own for a test, gone afterwards.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("pleiad-conformance-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }

    fn file(&self, name: &str, content: &str) -> String {
        let path = self.0.join(name);
        fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// The one file in a directory of it with this ending.
    fn one(&self, ending: &str) -> PathBuf {
        let all = fs::read_dir(&self.0).unwrap().map(|e| e.unwrap().path());
        let found: Vec<PathBuf> = all.filter(|p| p.to_string_lossy().ends_with(ending)).collect();
        let [file] = &found[..] else { panic!("files ending in {ending}: {found:?}") };
        file.clone()
    }

    fn report(&self) -> Report {
        read(&self.one(".json"))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn read(path: &Path) -> Report {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// The adapter that tests run on: lavapipe, or else the first one.
fn adapter(test: &str) -> Option<String> {
    let output = Command::new(env!("CARGO_BIN_EXE_pleiad")).args(["devices", "--json"]).output().unwrap();
    let devices: Value = serde_json::from_slice(&output.stdout).unwrap();
    let all = devices["adapters"].as_array().unwrap();
    let fast = |a: &&Value| a["name"].as_str().unwrap().contains("llvmpipe");
    let found = all.iter().find(fast).or(all.first()).map(|a| a["device"].as_str().unwrap().to_owned());
    if found.is_none() {
        println!("SKIPPED {test}: no adapter (Mesa's lavapipe serves)");
    }
    found
}

/// Runs some quick tests on an adapter, with `more` arguments.
fn run(device: &str, out: &Scratch, more: &[&str]) -> Output {
    let args = ["--quick", "--device", device, "--out", out.path()];
    pleiad(&[&args[..], more].concat()).output().unwrap()
}

fn verdict(report: &Report, id: &str) -> Verdict {
    report.tests.iter().find(|t| t.id == id).unwrap_or_else(|| panic!("{id}")).verdict
}

fn verdicts(report: &Report) -> Vec<(String, Verdict)> {
    report.tests.iter().map(|t| (t.id.clone(), t.verdict)).collect()
}

/// The whole quick suite, all that is written, and what says so.
#[test]
fn the_quick_suite_runs_and_its_reports_are_as_published() {
    let Some(device) = adapter("the quick suite") else { return };
    let out = Scratch::new("quick");
    let start = Instant::now();
    let output = run(&device, &out, &[]);
    let seconds = start.elapsed().as_secs_f64();
    let (shown, said) = (text(&output.stdout), text(&output.stderr));
    println!("{shown}{said}{seconds:.0} s");
    assert_eq!(output.status.code(), Some(0), "{shown}{said}");

    let json: Value = serde_json::from_str(&fs::read_to_string(out.one(".json")).unwrap()).unwrap();
    assert_eq!(schema::violations(&json), [""; 0]);
    let report = out.report();
    assert!(report.complete && report.settings.quick && report.tests.len() > 50, "{} tests", report.tests.len());
    let mut ids: Vec<&str> = report.tests.iter().map(|t| t.id.as_str()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), report.tests.len(), "ids are used once");
    for section in pleiad_conformance::suite::SECTIONS {
        let of = report.tests.iter().filter(|t| t.id.starts_with(&format!("{}/", section.0)));
        assert!(of.count() > 0, "{}", section.0);
        assert!(shown.contains(section.0));
    }
    let i = &report.identity;
    assert!(!i.name.is_empty() && !i.limits.is_empty() && i.versions.contains_key("wgpu") && i.versions.contains_key("naga"));
    let passed = report.tests.iter().filter(|t| t.verdict == Verdict::Pass).count();
    assert!(shown.contains(&format!("{passed} of {} tests passed", report.tests.len())), "{shown}");

    let page = fs::read_to_string(out.one(".html")).unwrap();
    assert_eq!(page.matches("<tr data-section=").count(), report.tests.len());
    assert!(page.contains("<svg") && !page.contains("https://") && !page.contains("src="));
    let xml = fs::read_to_string(out.one(".xml")).unwrap();
    assert_eq!(xml.matches("<testcase ").count(), report.tests.len());
    assert!(fs::read_dir(&out.0).unwrap().count() == 3, "nothing else is left");
}

#[test]
fn a_crash_and_a_hang_are_found_and_named_and_the_run_goes_on() {
    let Some(device) = adapter("crashes and hangs") else { return };
    let out = Scratch::new("plain");
    assert_eq!(run(&device, &out, &ONLY).status.code(), Some(0));
    let plain = out.report();
    let id = plain.tests[1].id.clone();
    for (plant, expected, word) in
        [("crash", Verdict::Crash, "its process ended"), ("hang", Verdict::Timeout, "took more than 20 s")]
    {
        let out = Scratch::new(plant);
        let planted = format!("{plant}:{id}");
        let output = run(&device, &out, &[&ONLY[..], &["--plant", &planted, "--timeout", "20"]].concat());
        let shown = text(&output.stdout);
        assert_eq!(output.status.code(), Some(1), "{shown}{}", text(&output.stderr));
        let report = out.report();
        assert!(report.complete && report.tests.len() == plain.tests.len());
        assert_eq!(verdict(&report, &id), expected);
        let words = &report.tests.iter().find(|t| t.id == id).unwrap().words;
        assert!(words.contains(word), "{words}");
        assert!(shown.contains(&format!("{:<8} {id}", expected.name().to_uppercase())), "{shown}");
        // All others are as they are without it.
        for test in report.tests.iter().filter(|t| t.id != id) {
            assert_eq!(test.verdict, verdict(&plain, &test.id), "{}", test.id);
        }
        assert!(text(&output.stderr).contains("1 test ended badly"));
    }
}

/// Whether programs started here can be interrupted: those that a script starts in the background are not.
fn interrupts() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|l| l.strip_prefix("SigIgn:")).and_then(|m| u64::from_str_radix(m.trim(), 16).ok());
    let can = cfg!(unix) && ignored.is_none_or(|mask| mask & (1 << 1) == 0);
    if !can {
        println!("SKIPPED interrupting a run, which is ended instead: interrupts are ignored here");
    }
    can
}

#[test]
fn an_interrupted_run_goes_on_where_it_was() {
    let Some(device) = adapter("resuming") else { return };
    let out = Scratch::new("resume");
    let whole = Scratch::new("whole");
    assert_eq!(run(&device, &whole, &ONLY).status.code(), Some(0));
    let ids: Vec<String> = whole.report().tests.iter().map(|t| t.id.clone()).collect();
    // It hangs at the last test, and is ended there.
    let plant = format!("hang:{}", ids.last().unwrap());
    let args =
        [&["--quick", "--device", &device, "--out", out.path(), "--timeout", "100", "--plant", &plant], &ONLY[..]].concat();
    let mut child = pleiad(&args).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let known = || {
        let all = fs::read_dir(&out.0).unwrap().map(|e| e.unwrap().path());
        let partial = all.into_iter().find(|p| p.to_string_lossy().ends_with(".partial.jsonl"));
        partial.map_or(0, |p| fs::read_to_string(p).unwrap_or_default().matches("\"test\":").count())
    };
    let start = Instant::now();
    while known() + 1 < ids.len() {
        assert!(start.elapsed() < Duration::from_secs(90), "{} of {} tests", known(), ids.len());
        std::thread::sleep(Duration::from_millis(50));
    }
    if interrupts() {
        // As Ctrl-C does: it ends with what there is.
        Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(130));
        let report = out.report();
        assert!(!report.complete && report.tests.len() + 1 == ids.len());
        fs::remove_file(out.one(".json")).unwrap();
    } else {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    // A line that was being written is no harm.
    let partial = out.one(".partial.jsonl");
    let mut cut = fs::read_to_string(&partial).unwrap();
    cut.truncate(cut.len() - 20);
    fs::write(&partial, cut).unwrap();

    let output = run(&device, &out, &[&ONLY[..], &["--resume"]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains(&format!("{} tests are known", ids.len() - 2)), "{}", text(&output.stderr));
    let report = out.report();
    assert!(report.complete);
    assert_eq!(report.tests.iter().map(|t| t.id.clone()).collect::<Vec<_>>(), ids);
    // Nothing is left to do, and another run is not mixed up with this one.
    let again = run(&device, &out, &[&ONLY[..], &["--resume"]].concat());
    assert!(again.status.success() && text(&again.stderr).contains("complete already"), "{}", text(&again.stderr));
    assert_eq!(verdicts(&out.report()), verdicts(&report));
}

#[test]
fn expected_failures_are_declared_in_a_file() {
    let Some(device) = adapter("expected failures") else { return };
    let out = Scratch::new("expected");
    assert_eq!(run(&device, &out, &ONLY).status.code(), Some(0));
    let plain = out.report();
    let passes: Vec<&str> = plain.tests.iter().filter(|t| t.verdict == Verdict::Pass).map(|t| t.id.as_str()).collect();
    let (crashes, passing) = (passes[0], passes[1]);
    let declared = json!([{ "test": crashes, "verdict": "crash", "backend": plain.identity.backend, "reason": "it is planted" }]);
    let file = out.file("known.txt", &declared.to_string());
    let plant = format!("crash:{crashes}");
    let output = run(&device, &out, &[&ONLY[..], &["--plant", &plant, "--expect", &file]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stdout));
    assert_eq!(verdict(&out.report(), crashes), Verdict::ExpectedFail);

    let declared = json!([{ "test": passing, "adapter": plain.identity.name, "reason": "long ago" }]);
    let file = out.file("known.txt", &declared.to_string());
    let output = run(&device, &out, &[&ONLY[..], &["--expect", &file]].concat());
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(verdict(&out.report(), passing), Verdict::UnexpectedPass);
    assert!(text(&output.stdout).contains("declared to fail: long ago"), "{}", text(&output.stdout));
}

#[test]
fn reports_are_compared() {
    let Some(device) = adapter("comparing reports") else { return };
    let out = Scratch::new("compare");
    assert_eq!(run(&device, &out, &ONLY).status.code(), Some(0));
    let a = out.one(".json");
    let mut other = read(&a);
    other.identity.name = "Another GPU".into();
    let changed = other.tests.iter_mut().find(|t| t.verdict == Verdict::Pass).unwrap();
    changed.verdict = Verdict::Fail;
    let id = changed.id.clone();
    let b = out.file("b.txt", &pleiad_conformance::output::json(&other));
    let a = a.to_str().unwrap();

    let same = pleiad(&["diff", a, a]).output().unwrap();
    assert!(same.status.success() && text(&same.stdout).contains("No verdict differs."), "{}", text(&same.stdout));
    let differ = pleiad(&["diff", a, &b]).output().unwrap();
    assert_eq!(differ.status.code(), Some(1));
    assert!(text(&differ.stdout).contains(&format!("| {id} | pass | fail |")), "{}", text(&differ.stdout));
    let parsed: Value = serde_json::from_slice(&pleiad(&["diff", "--json", a, &b]).output().unwrap().stdout).unwrap();
    assert_eq!(parsed["verdicts"][0]["id"], json!(id));

    let matrix = text(&pleiad(&["matrix", a, &b]).output().unwrap().stdout);
    assert!(matrix.contains("Another GPU") && matrix.contains(&format!("| {id} | pass | fail |")), "{matrix}");
    let page = out.0.join("matrix.html");
    assert!(pleiad(&["matrix", a, &b, "--out", page.to_str().unwrap()]).status().unwrap().success());
    assert!(fs::read_to_string(page).unwrap().contains("2 adapters side by side"));
    assert_eq!(text(&pleiad(&["schema"]).output().unwrap().stdout), schema::TEXT);
}

#[test]
fn the_reports_of_the_repository_are_as_published() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/reports");
    let all = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path());
    let reports: Vec<PathBuf> = all.filter(|p| p.extension().is_some_and(|e| e == "json")).collect();
    assert!(reports.len() > 1);
    for path in &reports {
        let json: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
        assert_eq!(schema::violations(&json), [""; 0], "{}", path.display());
        assert!(read(path).tests.len() > 100, "{}", path.display());
    }
    let paths: Vec<&str> = reports.iter().map(|p| p.to_str().unwrap()).collect();
    // They are brief: nothing more is to be left out.
    let brief: Report = serde_json::from_slice(&pleiad(&["brief", paths[0]]).output().unwrap().stdout).unwrap();
    assert_eq!(brief, read(&reports[0]));
    let matrix = pleiad(&[&["matrix"], &paths[..]].concat()).output().unwrap();
    assert!(matrix.status.success() && text(&matrix.stdout).contains("| **kernel** |"));
}

#[test]
fn wrong_usage_exits_with_2_and_broken_files_with_1() {
    let out = Scratch::new("usage");
    let broken = out.file("broken.json", "[{}]");
    let mut wrong: Vec<Vec<&str>> = vec![
        vec!["--device", "cpu"],
        vec!["--timeout", "0"],
        vec!["--plant", "x"],
        vec!["--expect", "no-such-file"],
        vec!["--expect", &broken],
        vec!["diff", "one"],
        vec!["matrix"],
    ];
    if adapter("choosing adapters and tests").is_some() {
        wrong.push(vec!["--device", "wgpu:99"]);
        wrong.push(vec!["--device", "wgpu:0", "--only", "no such test"]);
    }
    for args in wrong {
        let out = ["--out", out.path()];
        let out = if args[0].starts_with('-') { &out[..] } else { &[] };
        let output = pleiad(&args).args(out).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", text(&output.stderr));
        assert!(!output.stderr.is_empty());
    }
    for args in [["diff", &broken, &broken], ["matrix", &broken, "no-such-file"]] {
        let output = pleiad(&args).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(text(&output.stderr).lines().count(), 1, "{}", text(&output.stderr));
    }
}
