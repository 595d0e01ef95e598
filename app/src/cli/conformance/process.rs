//! A process that meets a driver, as its parent sees it.

use std::{
    collections::VecDeque,
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, Receiver, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow};
use pleiad_conformance::session::Ended;

use super::child::{Adapter, Job};
use crate::cli::interrupt::{self, Interrupted};

/// Most lines of a driver's own words that are kept.
const LAST_WORDS: usize = 6;
/// Most bytes of one of them.
const LONGEST: usize = 400;
/// How often it is looked whether somebody wants to stop.
const LOOK: Duration = Duration::from_millis(100);
/// How long a process that has closed its output may take to end.
const ENDING: Duration = Duration::from_secs(20);

/// How long a process that was ended is waited for.
const GIVEN_UP: Duration = Duration::from_secs(5);

/// A process. It ends with this value.
pub struct Process {
    child: Child,
    /// Closed, it tells the process that nobody waits for it any more.
    _input: Option<ChildStdin>,
    lines: Receiver<String>,
    last_words: Arc<Mutex<VecDeque<String>>>,
}

/// What came of waiting for a line.
pub enum Heard {
    /// A line.
    Line(String),
    /// Nothing yet.
    Nothing,
    /// Nothing will come any more.
    End,
}

impl Process {
    /// Starts this program anew for a job.
    pub fn start(job: &Job) -> Result<Self> {
        let program = std::env::current_exe().context("this program cannot find itself")?;
        let mut child = Command::new(&program)
            .args(["conformance", "child"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("{} cannot be started", program.display()))?;
        let mut input = child.stdin.take();
        if let Some(input) = &mut input {
            // One that is gone already says so by its exit code.
            let _ = writeln!(input, "{}", serde_json::to_string(job)?).and_then(|()| input.flush());
        }
        let (say, lines) = mpsc::channel();
        if let Some(output) = child.stdout.take() {
            thread::spawn(move || each_line(output, |line| say.send(line).is_ok()));
        }
        let last_words = Arc::new(Mutex::new(VecDeque::new()));
        if let Some(errors) = child.stderr.take() {
            let kept = Arc::clone(&last_words);
            thread::spawn(move || {
                each_line(errors, |mut line| {
                    line.truncate(line.floor_char_boundary(LONGEST));
                    let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                    if !line.trim().is_empty() {
                        kept.push_back(line);
                    }
                    if kept.len() > LAST_WORDS {
                        kept.pop_front();
                    }
                    true
                });
            });
        }
        Ok(Self { child, _input: input, lines, last_words })
    }

    /// Waits for a line, for a moment.
    pub fn hear(&self) -> Heard {
        match self.lines.recv_timeout(LOOK) {
            Ok(line) => Heard::Line(line),
            Err(RecvTimeoutError::Timeout) => Heard::Nothing,
            Err(RecvTimeoutError::Disconnected) => Heard::End,
        }
    }

    /// Waits for the end of a process that has closed its output.
    pub fn end(mut self) -> Result<Ended> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(if status.success() { Ended::Well } else { Ended::Crashed(self.complaint(status)) });
            }
            if start.elapsed() > ENDING {
                return Ok(Ended::TooLong(format!("it did not end within {} s", ENDING.as_secs())));
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// How it ended, and what it said last.
    fn complaint(&self, status: ExitStatus) -> String {
        // What it said last may be on its way.
        thread::sleep(Duration::from_millis(20));
        let kept = self.last_words.lock().unwrap_or_else(PoisonError::into_inner);
        let said: Vec<&str> = kept.iter().map(String::as_str).collect();
        let how = format!("its process ended: {}", how(status));
        if said.is_empty() { how } else { format!("{how}\n{}", said.join("\n")) }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // One that has ended cannot be ended.
        let _ = self.child.kill();
        // One that a driver holds on to in the kernel does not end: nobody waits for it.
        let start = Instant::now();
        while start.elapsed() < GIVEN_UP && matches!(self.child.try_wait(), Ok(None)) {
            thread::sleep(Duration::from_millis(5));
        }
    }
}

fn each_line(from: impl std::io::Read, mut take: impl FnMut(String) -> bool) {
    let mut reader = BufReader::new(from);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        line.clear();
        if !take(text) {
            return;
        }
    }
}

#[cfg(unix)]
fn how(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    let name = |signal| match signal {
        4 => " (illegal instruction)",
        6 => " (aborted)",
        7 => " (bus error)",
        8 => " (arithmetic error)",
        9 => " (killed)",
        11 => " (segmentation fault)",
        _ => "",
    };
    status.signal().map_or_else(|| status.to_string(), |signal| format!("signal {signal}{}", name(signal)))
}

#[cfg(not(unix))]
fn how(status: ExitStatus) -> String {
    status.to_string()
}

/// All adapters, and what went wrong while they were looked for. OpenGL's drivers are looked for apart: one that crashes takes no
/// other along.
pub fn adapters(strict: bool, timeout: Duration) -> Result<(Vec<Adapter>, Vec<String>)> {
    let (mut all, mut complaints) = (Vec::new(), Vec::new());
    for gl in [false, true] {
        match list(&Job::List { gl, strict }, timeout) {
            Ok(found) => all.extend(found),
            Err(e) if e.is::<Interrupted>() => return Err(e),
            Err(e) => {
                let what = if gl { "OpenGL's adapters" } else { "adapters" };
                complaints.push(format!("{what} could not be listed: {e:#}"));
            }
        }
    }
    all.iter_mut().enumerate().for_each(|(number, a)| a.number = number);
    Ok((all, complaints))
}

fn list(job: &Job, timeout: Duration) -> Result<Vec<Adapter>> {
    let process = Process::start(job)?;
    let start = Instant::now();
    let mut found = None;
    loop {
        match process.hear() {
            Heard::Line(line) => found = found.or_else(|| serde_json::from_str::<Vec<Adapter>>(&line).ok()),
            Heard::Nothing if interrupt::asked() => return Err(anyhow!(Interrupted)),
            Heard::Nothing if start.elapsed() > timeout => return Err(anyhow!("it took more than {} s", timeout.as_secs_f64())),
            Heard::Nothing => {}
            Heard::End => break,
        }
    }
    // What it does once it has answered is of no interest.
    match (found, process.end()?) {
        (Some(found), _) => Ok(found),
        (None, Ended::Crashed(words) | Ended::TooLong(words)) => Err(anyhow!(words)),
        (None, Ended::Well) => Err(anyhow!("its process ended without an answer")),
    }
}
