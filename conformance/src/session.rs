//! A run of the suite on one adapter, put together from lines. What is known of it can be written down at any time, and a run
//! that was interrupted, or whose process has ended, goes on behind what is known.

use serde::{Deserialize, Serialize};

use crate::{
    report::{Identity, Report, SCHEMA, Settings, Test, Verdict},
    wire::Line,
};

/// The id under which it is told that the device could not be opened.
pub const OPEN: &str = "device/open";
/// The id under which it is told that a process ended wrongly after all of its tests.
pub const CLOSE: &str = "device/close";

/// What a run on an adapter has found so far.
#[derive(Clone, Debug, PartialEq)]
pub struct Session {
    /// What is written first.
    pub head: Head,
    /// Ids of all tests; empty until the device was open once.
    pub list: Vec<String>,
    /// What they found.
    pub tests: Vec<Test>,
    /// The test that runs.
    pub running: Option<String>,
    /// Whether the device was open in this process.
    open: bool,
    /// What the process said last, if it was its last line.
    over: Option<Over>,
}

/// What a run is, before anything is found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Head {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The program and its version.
    pub program: String,
    /// When it began, RFC 3339 in UTC.
    pub date: String,
    /// What is asked for.
    pub settings: Settings,
    /// What it runs on: what is known before it is open, then all.
    pub identity: Identity,
}

impl Head {
    fn is_same(&self, program: &str, settings: &Settings, identity: &Identity) -> bool {
        let key = |i: &Identity| (i.name.clone(), i.backend.clone(), i.driver.clone(), i.vendor_id, i.device_id);
        self.program == program && self.settings == *settings && key(&self.identity) == key(identity)
    }
}

/// A line of the file of a run that is under way.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Kept {
    Head(Head),
    List(Vec<String>),
    Test(Test),
}

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Over {
    Done,
    Broken(String),
    Refused(String),
}

/// How a process that ran the suite ended, as its parent sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// By itself, without complaint.
    Well,
    /// By itself or by the system, with a complaint: in words.
    Crashed(String),
    /// It was ended since it took too long: in words.
    TooLong(String),
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Another process, for the tests that are left.
    Again,
    /// Nothing: all is known, or no more can be.
    Finish,
}

impl Session {
    /// A run that begins. `identity`: what is known of the adapter.
    pub fn new(program: &str, date: String, settings: Settings, identity: Identity) -> Self {
        let head = Head { schema: SCHEMA, program: program.to_owned(), date, settings, identity };
        Self { head, list: Vec::new(), tests: Vec::new(), running: None, open: false, over: None }
    }

    /// The run that a file holds, as far as it is whole: its last line may have been cut. `None`: it is no such file.
    pub fn read(text: &str) -> Option<Self> {
        let mut lines = text.lines().filter_map(|line| serde_json::from_str::<Kept>(line).ok());
        let Some(Kept::Head(head)) = lines.next() else { return None };
        if head.schema != SCHEMA {
            return None;
        }
        let mut session = Self { head, list: Vec::new(), tests: Vec::new(), running: None, open: false, over: None };
        for line in lines {
            match line {
                Kept::Head(head) => session.head = head,
                Kept::List(list) => session.list = list,
                Kept::Test(test) => session.tests.push(test),
            }
        }
        Some(session)
    }

    /// The whole of it as the text of a file, a line each.
    pub fn text(&self) -> String {
        let mut text = line(&Kept::Head(self.head.clone()));
        if !self.list.is_empty() {
            text.push_str(&line(&Kept::List(self.list.clone())));
        }
        self.tests.iter().for_each(|test| text.push_str(&Self::test_text(test)));
        text
    }

    /// What is appended to the file when head or list have changed.
    pub fn head_text(&self) -> String {
        line(&Kept::Head(self.head.clone())) + &line(&Kept::List(self.list.clone()))
    }

    /// What is appended to the file for a test.
    pub fn test_text(test: &Test) -> String {
        line(&Kept::Test(test.clone()))
    }

    /// Whether `other` is the same run: the same program, adapter, driver and settings.
    pub fn is_same_run(&self, other: &Self) -> bool {
        self.head.is_same(&other.head.program, &other.head.settings, &other.head.identity)
    }

    /// Whether a report is of such a run.
    pub fn is_run_of(&self, report: &Report) -> bool {
        self.head.is_same(&report.program, &report.settings, &report.identity)
    }

    /// The run without what is tried again when it is resumed: opening the device.
    #[must_use]
    pub fn resumed(mut self) -> Self {
        self.tests.retain(|t| t.id != OPEN && t.id != CLOSE);
        self
    }

    /// A process begins.
    pub fn begin(&mut self) {
        (self.running, self.open, self.over) = (None, false, None);
    }

    /// Ids of tests that need not run any more.
    pub fn done(&self) -> Vec<String> {
        self.tests.iter().map(|t| t.id.clone()).collect()
    }

    /// Takes a line. Says whether the head or the list has changed, or a test has ended.
    pub fn take(&mut self, line: Line) -> Taken {
        match line {
            Line::Open { identity, list } => {
                self.open = true;
                self.head.identity = *identity;
                self.list = list;
                Taken::Head
            }
            Line::Begin { id } => {
                self.running = Some(id);
                Taken::Nothing
            }
            Line::End { test } => {
                self.running = None;
                self.add(test)
            }
            Line::Over { identity, broken } => {
                self.head.identity = merged(*identity, &self.head.identity);
                self.over = Some(if broken.is_empty() { Over::Done } else { Over::Broken(broken) });
                Taken::Head
            }
            Line::Refused { why } => {
                self.over = Some(Over::Refused(why));
                Taken::Nothing
            }
        }
    }

    fn add(&mut self, test: Test) -> Taken {
        // Told twice, the first one counts.
        if self.tests.iter().any(|t| t.id == test.id) {
            return Taken::Nothing;
        }
        self.tests.push(test);
        Taken::Test
    }

    /// The process has ended. `before`: how many tests were known when it began; `seconds`: how long the test that was running,
    /// or opening the device, has taken. Says what to do next, and whether a test was added.
    pub fn end(&mut self, ended: Ended, before: usize, seconds: f64) -> (Next, Taken) {
        let test =
            |id: &str, verdict, words: String| Test { id: id.to_owned(), verdict, words, measures: Default::default(), seconds };
        let (verdict, words) = match ended {
            Ended::Well => (Verdict::Fail, String::new()),
            Ended::Crashed(words) => (Verdict::Crash, words),
            Ended::TooLong(words) => (Verdict::Timeout, words),
        };
        if let Some(id) = self.running.take() {
            let words = if words.is_empty() { "the process that ran it ended".to_owned() } else { words };
            let verdict = if verdict == Verdict::Fail { Verdict::Crash } else { verdict };
            return (Next::Again, self.add(test(&id, verdict, words)));
        }
        if !self.open {
            let words = match self.over.take() {
                Some(Over::Refused(why)) => why,
                _ if words.is_empty() => "the process that opens it ended without a word".to_owned(),
                _ => words,
            };
            return (Next::Finish, self.add(test(OPEN, verdict, words)));
        }
        match self.over.take() {
            Some(Over::Done) if verdict == Verdict::Fail => (Next::Finish, Taken::Nothing),
            Some(Over::Done) => (Next::Finish, self.add(test(CLOSE, verdict, words))),
            // The device is of no use any more; another one may be. Without a new result it would go on for ever.
            Some(Over::Broken(_)) if self.tests.len() > before => (Next::Again, Taken::Nothing),
            Some(Over::Broken(why)) => (Next::Finish, self.add(test(OPEN, Verdict::Fail, why))),
            _ if self.tests.len() > before => (Next::Again, Taken::Nothing),
            _ => (Next::Finish, self.add(test(OPEN, verdict, words))),
        }
    }

    /// Whether every test that was listed has a result.
    pub fn is_complete(&self) -> bool {
        !self.list.is_empty() && self.list.iter().all(|id| self.tests.iter().any(|t| t.id == *id))
    }

    /// What is known, with tests in the order of the list.
    pub fn report(&self) -> Report {
        let mut tests = self.tests.clone();
        let place = |t: &Test| self.list.iter().position(|id| *id == t.id).unwrap_or(usize::MAX);
        tests.sort_by_key(place);
        let Head { schema, program, date, settings, identity } = self.head.clone();
        Report { schema, program, date, settings, identity, tests, complete: self.is_complete() }
    }
}

/// What a line, or the end of a process, has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// Nothing that is written down.
    Nothing,
    /// The head or the list.
    Head,
    /// One test more: the last one.
    Test,
}

/// What a process knows at its end; one that ran only the rest of the tests has not seen all.
fn merged(mut identity: Identity, before: &Identity) -> Identity {
    identity.subgroup_sizes_seen.extend(&before.subgroup_sizes_seen);
    identity.subgroup_sizes_seen.sort_unstable();
    identity.subgroup_sizes_seen.dedup();
    identity
}

/// Seconds since 1970 as a date and time, RFC 3339 in UTC.
pub fn rfc3339(seconds: u64) -> String {
    let (days, s) = (seconds / 86400, seconds % 86400);
    // Years begin in March, so that the day that some have more is the last one; 400 of them have 146,097 days.
    let shifted = days + 719_468;
    let (era, day) = (shifted / 146_097, shifted % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let of_month = of_year - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = year + era * 400 + next;
    format!("{year:04}-{month:02}-{of_month:02}T{:02}:{:02}:{:02}Z", s / 3600, s / 60 % 60, s % 60)
}

fn line(kept: &Kept) -> String {
    // Nothing of it can fail to be JSON.
    format!("{}\n", serde_json::to_string(kept).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

    use super::*;

    fn session() -> Session {
        let identity = Identity { name: "X".into(), ..Identity::default() };
        Session::new("pleiad 0", "2026-01-01T00:00:00Z".into(), Settings::default(), identity)
    }

    fn open(s: &mut Session) {
        s.begin();
        let list = ["a/1", "a/2", "b/3"].map(str::to_owned).to_vec();
        s.take(Line::Open { identity: Box::new(s.head.identity.clone()), list });
    }

    fn pass(s: &mut Session, id: &str) {
        s.take(Line::Begin { id: id.into() });
        let test =
            Test { id: id.into(), verdict: Verdict::Pass, words: String::new(), measures: Default::default(), seconds: 1.0 };
        assert_eq!(s.take(Line::End { test }), Taken::Test);
    }

    fn over(s: &mut Session, broken: &str) {
        s.take(Line::Over { identity: Box::new(s.head.identity.clone()), broken: broken.into() });
    }

    fn verdicts(s: &Session) -> Vec<(String, Verdict)> {
        s.report().tests.into_iter().map(|t| (t.id, t.verdict)).collect()
    }

    #[test]
    fn a_crash_and_a_hang_are_results_and_it_goes_on_behind_them() {
        let mut s = session();
        open(&mut s);
        s.take(Line::Begin { id: "a/1".into() });
        assert_eq!(s.end(Ended::Crashed("signal 6".into()), 0, 2.0), (Next::Again, Taken::Test));
        assert_eq!(s.done(), ["a/1"]);
        open(&mut s);
        s.take(Line::Begin { id: "a/2".into() });
        assert_eq!(s.end(Ended::TooLong("60 s".into()), 1, 60.0), (Next::Again, Taken::Test));
        assert!(!s.report().complete);
        open(&mut s);
        pass(&mut s, "b/3");
        over(&mut s, "");
        assert_eq!(s.end(Ended::Well, 2, 0.0), (Next::Finish, Taken::Nothing));
        let found = [("a/1", Verdict::Crash), ("a/2", Verdict::Timeout), ("b/3", Verdict::Pass)];
        assert_eq!(verdicts(&s), found.map(|(id, v)| (id.to_owned(), v)));
        assert!(s.report().complete && s.report().tests[0].words == "signal 6");
    }

    #[test]
    fn a_broken_device_is_opened_anew_as_long_as_that_helps() {
        let mut s = session();
        open(&mut s);
        pass(&mut s, "a/1");
        over(&mut s, "lost");
        assert_eq!(s.end(Ended::Well, 0, 0.0), (Next::Again, Taken::Nothing));
        open(&mut s);
        over(&mut s, "lost");
        assert_eq!(s.end(Ended::Well, 1, 0.0), (Next::Finish, Taken::Test));
        assert_eq!(verdicts(&s)[1], (OPEN.to_owned(), Verdict::Fail));
        assert!(!s.report().complete);
    }

    #[test]
    fn what_happens_before_and_behind_the_tests_is_told() {
        let mut s = session();
        s.begin();
        s.take(Line::Refused { why: "no such limit".into() });
        assert_eq!(s.end(Ended::Well, 0, 0.0), (Next::Finish, Taken::Test));
        assert_eq!(s.tests[0].words, "no such limit");
        let mut s = session();
        s.begin();
        s.end(Ended::Crashed("signal 11".into()), 0, 0.0);
        assert_eq!(verdicts(&s), [(OPEN.to_owned(), Verdict::Crash)]);
        let mut s = session();
        open(&mut s);
        ["a/1", "a/2", "b/3"].iter().for_each(|id| pass(&mut s, id));
        over(&mut s, "");
        assert_eq!(s.end(Ended::Crashed("signal 11".into()), 0, 0.0), (Next::Finish, Taken::Test));
        assert_eq!(verdicts(&s)[3], (CLOSE.to_owned(), Verdict::Crash));
        assert!(s.report().complete);
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        let cases = [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_798_761_599, "2026-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ];
        for (seconds, text) in cases {
            assert_eq!(rfc3339(seconds), text);
        }
    }

    #[test]
    fn what_was_written_is_read_back_though_the_last_line_was_cut() {
        let mut s = session();
        open(&mut s);
        pass(&mut s, "a/1");
        pass(&mut s, "b/3");
        let text = s.text();
        assert_eq!(Session::read(&text).unwrap().report(), s.report());
        let cut = Session::read(&text[..text.len() - 5]).unwrap();
        assert_eq!(cut.done(), ["a/1"]);
        assert!(cut.is_same_run(&s));
        let mut other = s.clone();
        other.head.settings.quick = true;
        assert!(!cut.is_same_run(&other));
        assert_eq!(Session::read("{}"), None);
        assert_eq!(Session::read(""), None);
    }
}
