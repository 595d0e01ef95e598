//! Running the programs that are compared, and reading the speeds that they report.

use std::{
    fmt,
    io::Read,
    path::PathBuf,
    process::{Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

/// Why a program gave no result.
#[derive(Debug, PartialEq)]
pub enum Stopped {
    /// In words.
    Failed(String),
    /// It was still running at the deadline, and was stopped.
    Deadline,
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(why) => f.write_str(why),
            Self::Deadline => f.write_str("stopped at the time limit"),
        }
    }
}

impl std::error::Error for Stopped {}

/// Runs `command`, whose first part is the program, and parses what it prints as JSON.
pub fn json(command: &[String], deadline: Option<Instant>) -> Result<Value, Stopped> {
    let output = run(command, deadline)?;
    serde_json::from_slice(&output).map_err(|e| Stopped::Failed(format!("its output is not the JSON expected: {e}")))
}

/// Runs `command` and returns what it prints; stops it at the deadline.
pub fn run(command: &[String], deadline: Option<Instant>) -> Result<Vec<u8>, Stopped> {
    let failed = |why: String| Stopped::Failed(why);
    let Some((program, arguments)) = command.split_first() else { return Err(failed("nothing to run".into())) };
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| failed(format!("{program} cannot be started: {e}")))?;
    // Both pipes are emptied while it runs: a full one would stop it.
    let output = child.stdout.take().map(drain);
    let errors = child.stderr.take().map(drain);
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if deadline.is_some_and(|d| Instant::now() >= d) => {
                // It may have ended by itself in between; then there is nothing to kill.
                let _ = child.kill();
                let _ = child.wait();
                return Err(Stopped::Deadline);
            }
            Ok(None) => thread::sleep(Duration::from_millis(20)),
            Err(e) => return Err(failed(format!("{program} cannot be waited for: {e}"))),
        }
    };
    let text = |pipe: Option<thread::JoinHandle<Vec<u8>>>| pipe.and_then(|p| p.join().ok()).unwrap_or_default();
    let (output, errors) = (text(output), text(errors));
    if status.success() { Ok(output) } else { Err(failed(words(&String::from_utf8_lossy(&errors), status))) }
}

fn drain(mut pipe: impl Read + Send + 'static) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut all = Vec::new();
        // What was read before an error is kept.
        let _ = pipe.read_to_end(&mut all);
        all
    })
}

/// Most characters of an error in a table.
const LONGEST: usize = 300;

/// What a program said of its failure: from its last line with an "error" on, else its last line, else how it ended.
fn words(errors: &str, status: ExitStatus) -> String {
    let lines: Vec<&str> = errors.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
    let from = lines.iter().rposition(|l| l.to_ascii_lowercase().contains("error")).or(lines.len().checked_sub(1));
    let said = from.and_then(|i| lines.get(i..)).map(|l| l.join(" ")).unwrap_or_default();
    let said: String = said.strip_prefix("error: ").unwrap_or(&said).chars().take(LONGEST).collect();
    match (said.is_empty(), status.code()) {
        (true, _) => format!("failed without a word ({status})"),
        (false, Some(_)) => said,
        // A signal, or what a system has in its place.
        (false, None) => format!("{said} ({status})"),
    }
}

/// Tokens per second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Speeds {
    /// Of reading a prompt.
    pub prefill: Option<f64>,
    /// Of generating.
    pub decode: Option<f64>,
}

/// The speeds that `pleiad bench -o json` or `llama-bench -o json` reports.
pub fn speeds(json: &Value) -> Result<Speeds, String> {
    let mut speeds = Speeds::default();
    let tests = json["tests"].as_array().or(json.as_array()).ok_or("there is no list of tests in its output")?;
    for test in tests {
        let (mean, prefill) = match test.get("avg_ts") {
            Some(mean) => (mean, test["n_gen"] == 0),
            None => (&test["tokens_per_second"]["mean"], test["kind"] == "prefill"),
        };
        let mean = mean.as_f64().filter(|v| v.is_finite()).ok_or("a test in its output has no speed")?;
        *(if prefill { &mut speeds.prefill } else { &mut speeds.decode }) = Some(mean);
    }
    Ok(speeds)
}

/// The pleiad beside this program, where there is one; else the one that the system finds.
pub fn pleiad() -> PathBuf {
    let name = format!("pleiad{}", std::env::consts::EXE_SUFFIX);
    let beside = std::env::current_exe().ok().and_then(|p| Some(p.parent()?.join(&name)));
    beside.filter(|p| p.is_file()).unwrap_or_else(|| name.into())
}

/// A command as its parts.
pub fn parts<const N: usize>(parts: [&str; N]) -> Vec<String> {
    parts.map(String::from).to_vec()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

    use serde_json::json;

    use super::*;

    #[cfg(unix)]
    fn shell(script: &str, deadline: Option<Instant>) -> Result<Value, Stopped> {
        json(&parts(["sh", "-c", script]), deadline)
    }

    #[cfg(unix)]
    #[test]
    fn programs_are_read_and_their_failures_told() {
        assert_eq!(shell("echo noise >&2; echo '[1]'", None).unwrap(), json!([1]));
        let failed = |script: &str| shell(script, None).unwrap_err().to_string();
        assert_eq!(failed("echo warning >&2; echo 'error: no GPU' >&2; echo '  at all' >&2; exit 1"), "no GPU at all");
        assert_eq!(failed("echo first >&2; echo last >&2; exit 2"), "last");
        assert!(failed("exit 3").contains('3') && failed("kill -9 $$").contains("signal"));
        assert!(failed("echo '{'").contains("JSON"));
        assert!(run(&parts(["there-is-no-such-program"]), None).unwrap_err().to_string().contains("cannot be started"));
    }

    #[cfg(unix)]
    #[test]
    fn a_program_is_stopped_at_the_deadline() {
        let start = Instant::now();
        assert_eq!(run(&parts(["sleep", "30"]), Some(start + Duration::from_millis(100))), Err(Stopped::Deadline));
        assert!(start.elapsed() < Duration::from_secs(20));
    }

    #[cfg(unix)]
    #[test]
    fn long_output_does_not_block() {
        let output = run(&parts(["sh", "-c", "yes | head -c 1000000; yes | head -c 1000000 >&2"]), None).unwrap();
        assert_eq!(output.len(), 1_000_000);
    }

    #[test]
    fn speeds_of_both_programs() {
        let ours = json!({"tests": [
            {"kind": "prefill", "tokens_per_second": {"mean": 100.0}},
            {"kind": "decode", "tokens_per_second": {"mean": 10.0}}]});
        let theirs = json!([{"n_prompt": 512, "n_gen": 0, "avg_ts": 100.0}, {"n_prompt": 0, "n_gen": 32, "avg_ts": 10.0}]);
        for report in [ours, theirs] {
            assert_eq!(speeds(&report).unwrap(), Speeds { prefill: Some(100.0), decode: Some(10.0) });
        }
        assert_eq!(speeds(&json!({"tests": []})).unwrap(), Speeds::default());
        for bad in [json!({}), json!([{"n_gen": 0}]), json!({"tests": [{"kind": "decode"}]}), json!([{"avg_ts": "fast"}])] {
            assert!(speeds(&bad).is_err(), "{bad}");
        }
    }
}
