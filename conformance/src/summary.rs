//! What a report comes down to: counts for each section, and the measure that is closest to its bound, or furthest beyond.

use crate::{
    report::{Measure, Report, Test, Verdict},
    suite::SECTIONS,
};

/// All verdicts, the bad ones last.
pub const VERDICTS: [Verdict; 8] = [
    Verdict::Pass,
    Verdict::Info,
    Verdict::Skip,
    Verdict::ExpectedFail,
    Verdict::UnexpectedPass,
    Verdict::Fail,
    Verdict::Crash,
    Verdict::Timeout,
];

impl Verdict {
    /// As it is written for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::Skip => "skip",
            Self::Info => "info",
            Self::Crash => "crash",
            Self::Timeout => "timeout",
            Self::ExpectedFail => "expected fail",
            Self::UnexpectedPass => "unexpected pass",
        }
    }
}

/// A section of a report.
#[derive(Clone, Debug)]
pub struct Section<'a> {
    /// Its name.
    pub name: &'a str,
    /// What it shows.
    pub about: &'static str,
    /// Its tests.
    pub tests: Vec<&'a Test>,
}

/// The section of a test.
pub fn section_of(id: &str) -> &str {
    id.split_once('/').map_or(id, |(section, _)| section)
}

/// The sections of a report that have tests, in the order in which they run.
pub fn sections(report: &Report) -> Vec<Section<'_>> {
    let mut found: Vec<Section<'_>> = SECTIONS.iter().map(|&(name, about)| Section { name, about, tests: Vec::new() }).collect();
    for test in &report.tests {
        let name = section_of(&test.id);
        match found.iter_mut().find(|s| s.name == name) {
            Some(section) => section.tests.push(test),
            None => found.push(Section { name, about: "the adapter itself", tests: vec![test] }),
        }
    }
    found.retain(|s| !s.tests.is_empty());
    found
}

/// How many tests ended so.
pub fn count<'a>(tests: impl IntoIterator<Item = &'a Test>, verdict: Verdict) -> usize {
    tests.into_iter().filter(|t| t.verdict == verdict).count()
}

/// How many ended as they should not.
pub fn bad(report: &Report) -> usize {
    report.tests.iter().filter(|t| !t.verdict.is_good()).count()
}

/// A measure as a share of its bound: 1 is just within. None without a bound.
pub fn share(m: &Measure) -> Option<f64> {
    if m.most.is_none() && m.least.is_none() {
        return None;
    }
    if m.value.is_nan() {
        return Some(f64::INFINITY);
    }
    // Where nothing is allowed there is no share: it is within, or beyond all measure.
    let of = |a: f64, b: f64| if a <= 0.0 { 0.0 } else { a / b.max(0.0) };
    let above = m.most.map(|most| of(m.value, most));
    let below = m.least.map(|least| of(least, m.value));
    Some(above.unwrap_or(0.0).max(below.unwrap_or(0.0)))
}

/// [`share`] in per cent, in brackets; empty where that says nothing.
pub fn percent(m: &Measure) -> String {
    share(m).filter(|s| *s < 100.0).map_or_else(String::new, |s| format!(" ({:.0} %)", 100.0 * s))
}

/// The test and measure nearest to its bound, or furthest beyond.
pub fn worst<'a>(tests: impl IntoIterator<Item = &'a Test>) -> Option<(&'a Test, &'a str, &'a Measure)> {
    let mut found: Option<(f64, (&Test, &str, &Measure))> = None;
    for test in tests {
        for (name, measure) in &test.measures {
            let Some(share) = share(measure) else { continue };
            if found.is_none_or(|(worst, _)| share > worst) {
                found = Some((share, (test, name, measure)));
            }
        }
    }
    found.map(|(_, what)| what)
}

/// A number for people: three digits that count.
pub fn number(x: f64) -> String {
    if x.is_nan() {
        return "not finite".into();
    }
    let a = x.abs();
    if x == 0.0 {
        "0".into()
    } else if !(1e-3..1e6).contains(&a) {
        format!("{x:.1e}")
    } else if x.fract() == 0.0 || a >= 1000.0 {
        format!("{x:.0}")
    } else {
        let digits = if a >= 100.0 {
            0
        } else if a >= 10.0 {
            1
        } else if a >= 1.0 {
            2
        } else {
            4
        };
        let text = format!("{x:.digits$}");
        if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
    }
}

/// A measure for people: value, unit, bound and place.
pub fn words(name: &str, m: &Measure) -> String {
    let mut text = format!("{name} {}", number(m.value));
    let mut add = |s: &str| text.push_str(s);
    if !m.unit.is_empty() {
        add(&format!(" {}", m.unit));
    }
    if let Some(most) = m.most {
        add(&format!(", at most {}", number(most)));
    }
    if let Some(least) = m.least {
        add(&format!(", at least {}", number(least)));
    }
    if !m.at.is_empty() {
        add(&format!(", at {}", m.at));
    }
    text
}

/// The whole of it in a sentence.
pub fn sentence(report: &Report) -> String {
    let all = report.tests.len();
    let of = |v| count(&report.tests, v);
    let mut parts = vec![format!("{} of {all} tests passed", of(Verdict::Pass))];
    for (verdict, what) in [
        (Verdict::Fail, "failed"),
        (Verdict::Crash, "crashed"),
        (Verdict::Timeout, "took too long"),
        (Verdict::UnexpectedPass, "passed though declared to fail"),
        (Verdict::ExpectedFail, "failed as declared"),
        (Verdict::Skip, "skipped"),
        (Verdict::Info, "only measure"),
    ] {
        if of(verdict) > 0 {
            parts.push(format!("{} {what}", of(verdict)));
        }
    }
    let end = if report.complete { "" } else { "; the run is not complete" };
    format!("{}{end}", parts.join(", "))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

    use super::*;

    #[test]
    fn numbers_have_the_digits_that_count() {
        let all = [0.0, 1.0, 2.5, 0.125, 12.34, 456.7, 123456.0, 1e-9, 2.5e7, -0.5];
        let text = ["0", "1", "2.5", "0.125", "12.3", "457", "123456", "1.0e-9", "2.5e7", "-0.5"];
        assert_eq!(all.map(number), text);
        assert_eq!(number(f64::NAN), "not finite");
        assert_eq!(number(100.4), "100");
    }

    #[test]
    fn the_worst_measure_is_the_one_nearest_to_its_bound() {
        let measure = |value, most, least| Measure { value, most, least, ..Measure::default() };
        assert_eq!(share(&measure(1.0, None, None)), None);
        assert_eq!(share(&measure(1.0, Some(2.0), None)), Some(0.5));
        assert_eq!(share(&measure(5.0, None, Some(10.0))), Some(2.0));
        assert_eq!(share(&measure(0.0, Some(0.0), None)), Some(0.0));
        assert_eq!(share(&measure(1.0, Some(0.0), None)), Some(f64::INFINITY));
        assert_eq!(share(&measure(f64::NAN, Some(1.0), None)), Some(f64::INFINITY));
        let test = |id: &str, value| Test {
            id: id.into(),
            verdict: Verdict::Pass,
            words: String::new(),
            measures: [("nmse".to_owned(), measure(value, Some(1.0), None))].into(),
            seconds: 0.0,
        };
        let tests = [test("a/1", 0.1), test("a/2", 0.9), test("a/3", 0.5)];
        assert_eq!(worst(&tests).unwrap().0.id, "a/2");
        assert!(worst(&[]).is_none());
    }
}
