//! Failures that are known: a JSON list of declarations.
//!
//! ```json
//! [
//!   {
//!     "test": "kernel/matvec/*/subgroup/*",
//!     "adapter": "llvmpipe",
//!     "backend": "Vulkan",
//!     "driver": { "name": "Mesa", "from": "22.3", "below": "23.1" },
//!     "verdict": "fail",
//!     "reason": "what goes wrong, and where that is reported"
//!   }
//! ]
//! ```
//!
//! | field | what it says |
//! |---|---|
//! | `test` | the test's id; `*` stands for any text |
//! | `adapter` | text in the adapter's name, in upper or lower case; left out: any |
//! | `vendor_id`, `device_id` | PCI ids, as numbers; left out: any |
//! | `backend` | as a report names it: `Vulkan`, `BrowserWebGpu`, ...; left out: any |
//! | `driver` | versions `from` (itself included) and `below` (itself not), each may be left out; the version is the first number with dots behind the text `name` in what the driver tells |
//! | `quick` | true or false: in the quick form only, or in the long one only; left out: in both |
//! | `verdict` | `fail` (if left out), `crash` or `timeout`: another one is not as declared |
//! | `reason` | why |

use serde::{Deserialize, Serialize};

use crate::report::{Report, Verdict};

/// What ships with the program.
const BUILT_IN: &str = include_str!("../expected.json");

/// A declared failure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expectation {
    /// The test's id; `*` stands for any text.
    pub test: String,
    /// Text in the adapter's name; empty: any.
    #[serde(default)]
    pub adapter: String,
    /// PCI id.
    #[serde(default)]
    pub vendor_id: Option<u32>,
    /// PCI id.
    #[serde(default)]
    pub device_id: Option<u32>,
    /// The backend; empty: any.
    #[serde(default)]
    pub backend: String,
    /// Versions of the driver.
    #[serde(default)]
    pub driver: Option<Versions>,
    /// In the quick form only, or in the long one only: a rare argument may need the long one to be met.
    #[serde(default)]
    pub quick: Option<bool>,
    /// How it fails.
    #[serde(default = "fail")]
    pub verdict: Verdict,
    /// Why.
    pub reason: String,
}

/// A range of versions.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Versions {
    /// The version is the first one behind this text.
    #[serde(default)]
    pub name: String,
    /// The first version of the range; empty: any.
    #[serde(default)]
    pub from: String,
    /// The first version behind the range; empty: any.
    #[serde(default)]
    pub below: String,
}

fn fail() -> Verdict {
    Verdict::Fail
}

/// What is wrong with a list of declarations.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is no such list.
    #[error("it is no list of expected failures: {0}")]
    Format(#[from] serde_json::Error),
    /// A declaration makes no sense.
    #[error("the expected failure of `{test}` {what}")]
    Declaration {
        /// Its test.
        test: String,
        /// What is wrong with it.
        what: &'static str,
    },
}

/// Reads a list of declarations.
///
/// # Errors
/// Where it is none.
pub fn parse(text: &str) -> Result<Vec<Expectation>, Error> {
    let all: Vec<Expectation> = serde_json::from_str(text)?;
    for e in &all {
        let wrong = |what| Err(Error::Declaration { test: e.test.clone(), what });
        if !matches!(e.verdict, Verdict::Fail | Verdict::Crash | Verdict::Timeout) {
            return wrong("has a verdict other than fail, crash or timeout");
        }
        if e.reason.trim().is_empty() {
            return wrong("has no reason");
        }
        let unreadable = |text: &String| !text.is_empty() && version(text).is_none();
        if e.driver.as_ref().is_some_and(|d| unreadable(&d.from) || unreadable(&d.below)) {
            return wrong("has a driver's version that is none");
        }
    }
    Ok(all)
}

/// What ships with the program.
///
/// # Errors
/// Never, which is tested.
pub fn built_in() -> Result<Vec<Expectation>, Error> {
    parse(BUILT_IN)
}

/// Judges a report's tests by what was declared.
pub fn apply(report: &mut Report, expected: &[Expectation]) {
    let here: Vec<&Expectation> = expected.iter().filter(|e| e.is_about(report)).collect();
    for test in &mut report.tests {
        let of: Vec<_> = here.iter().filter(|e| matches(&e.test, &test.id)).collect();
        if let Some(e) = of.iter().find(|e| e.verdict == test.verdict) {
            let found = if test.words.is_empty() { String::new() } else { format!("; found: {}", test.words) };
            test.words = format!("{} as declared: {}{found}", e.verdict.name(), e.reason);
            test.verdict = Verdict::ExpectedFail;
        } else if let (Verdict::Pass, Some(e)) = (test.verdict, of.first()) {
            test.words = format!("declared to {}: {}", e.verdict.name(), e.reason);
            test.verdict = Verdict::UnexpectedPass;
        }
    }
}

impl Expectation {
    fn is_about(&self, report: &Report) -> bool {
        let identity = &report.identity;
        let same = |wanted: &str, is: &str| wanted.is_empty() || wanted.eq_ignore_ascii_case(is);
        self.quick.is_none_or(|quick| quick == report.settings.quick)
            && identity.name.to_lowercase().contains(&self.adapter.to_lowercase())
            && self.vendor_id.is_none_or(|id| id == identity.vendor_id)
            && self.device_id.is_none_or(|id| id == identity.device_id)
            && same(&self.backend, &identity.backend)
            && self.driver.as_ref().is_none_or(|d| d.contain(&identity.driver))
    }
}

impl Versions {
    fn contain(&self, driver: &str) -> bool {
        let Some((_, behind)) = driver.split_once(self.name.as_str()) else { return false };
        // A driver that does not tell its version may be any.
        let Some(is) = version(behind) else { return self.from.is_empty() && self.below.is_empty() };
        version(&self.from).is_none_or(|from| is >= from) && version(&self.below).is_none_or(|below| is < below)
    }
}

/// The first number in a text that has dots, or else the first number, part by part.
fn version(text: &str) -> Option<Vec<u64>> {
    let numbers = || text.split(|c: char| !c.is_ascii_digit() && c != '.').map(|n| n.trim_matches('.')).filter(|n| !n.is_empty());
    let found = numbers().find(|n| n.contains('.')).or_else(|| numbers().next())?;
    found.split('.').map(|part| part.parse().ok()).collect()
}

/// Whether a text is as the pattern, in which `*` stands for any text.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut left) = text.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    // What is behind the last star is at the end; all between are found as early as they are.
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        match left.split_once(part) {
            Some((_, behind)) => left = behind,
            None => return false,
        }
    }
    left.ends_with(last)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

    use super::*;
    use crate::report::{Identity, Settings, Test};

    #[test]
    fn what_ships_can_be_read() {
        for e in built_in().unwrap() {
            assert!(!e.adapter.is_empty() || e.vendor_id.is_some() || !e.backend.is_empty(), "{} is about all adapters", e.test);
        }
    }

    #[test]
    fn stars_stand_for_any_text() {
        assert!(matches("a/b", "a/b") && !matches("a/b", "a/bc") && !matches("a", "ab"));
        assert!(matches("*", "") && matches("a*", "a") && matches("a*c", "abbc") && matches("*b*", "abc"));
        assert!(
            matches("kernel/*/subgroup/*", "kernel/matvec/Q4_K/subgroup/3") && !matches("kernel/*/plain*", "kernel/subgroup")
        );
        assert!(!matches("ab*ba", "aba") && matches("a*b*b", "abb") && !matches("a*bb*b", "abb"));
    }

    #[test]
    fn drivers_are_told_apart_by_version() {
        let range = |name: &str, from: &str, below: &str| Versions { name: name.into(), from: from.into(), below: below.into() };
        let mesa = "llvmpipe Mesa 22.3.6 (LLVM 15.0.6)";
        assert!(range("", "22.3", "23").contain(mesa) && !range("", "22.3.7", "").contain(mesa));
        assert!(range("LLVM", "15", "16").contain(mesa) && !range("", "", "22.3.6").contain(mesa));
        assert!(!range("NVIDIA", "", "").contain(mesa) && range("", "22.3.6", "22.10").contain(mesa));
        assert!(range("", "", "").contain("unknown") && !range("", "1", "").contain("unknown"));
    }

    fn report(verdict: Verdict) -> Report {
        let test = Test { id: "a/x/1".into(), verdict, words: "w".into(), measures: Default::default(), seconds: 0.0 };
        Report {
            schema: crate::report::SCHEMA,
            program: String::new(),
            date: String::new(),
            settings: Settings::default(),
            identity: Identity {
                name: "Llvmpipe 1".into(),
                backend: "Vulkan".into(),
                driver: "Mesa 22.3.6".into(),
                ..Identity::default()
            },
            tests: vec![test],
            complete: true,
        }
    }

    fn judged(declared: &str, verdict: Verdict) -> (Verdict, String) {
        let mut report = report(verdict);
        apply(&mut report, &parse(declared).unwrap());
        (report.tests[0].verdict, report.tests[0].words.clone())
    }

    #[test]
    fn a_declared_failure_is_good_and_one_that_passes_is_not() {
        let all = r#"[{"test":"a/*","adapter":"llvmpipe","driver":{"from":"22"},"reason":"because"}]"#;
        let (verdict, words) = judged(all, Verdict::Fail);
        assert!(verdict == Verdict::ExpectedFail && verdict.is_good(), "{verdict:?}");
        assert_eq!(words, "fail as declared: because; found: w");
        let (verdict, words) = judged(all, Verdict::Pass);
        assert!(verdict == Verdict::UnexpectedPass && !verdict.is_good() && words.contains("because"));
        // Another way to fail is not as declared; what did not run says nothing.
        for other in [Verdict::Crash, Verdict::Timeout, Verdict::Skip, Verdict::Info] {
            assert_eq!(judged(all, other).0, other);
        }
        for elsewhere in [
            r#"[{"test":"b/*","reason":"r"}]"#,
            r#"[{"test":"a/*","adapter":"GeForce","reason":"r"}]"#,
            r#"[{"test":"a/*","backend":"Gl","reason":"r"}]"#,
            r#"[{"test":"a/*","driver":{"below":"22.3"},"reason":"r"}]"#,
            r#"[{"test":"a/*","vendor_id":1,"reason":"r"}]"#,
            r#"[{"test":"a/*","quick":true,"reason":"r"}]"#,
        ] {
            assert_eq!(judged(elsewhere, Verdict::Fail).0, Verdict::Fail, "{elsewhere}");
        }
        assert_eq!(judged(r#"[{"test":"a/*","quick":false,"reason":"r"}]"#, Verdict::Fail).0, Verdict::ExpectedFail);
        let crash = r#"[{"test":"a/x/1","verdict":"crash","reason":"r"}]"#;
        assert_eq!(judged(crash, Verdict::Crash).0, Verdict::ExpectedFail);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for bad in [
            "{}",
            r#"[{"test":"a"}]"#,
            r#"[{"test":"a","reason":" "}]"#,
            r#"[{"test":"a","reason":"r","verdict":"pass"}]"#,
            r#"[{"test":"a","reason":"r","colour":"red"}]"#,
            r#"[{"test":"a","reason":"r","driver":{"from":"new"}}]"#,
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
