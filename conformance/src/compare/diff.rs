//! What is different between two reports.

use std::collections::BTreeMap;

use serde::Serialize;

use super::fields;
use crate::{
    report::{Measure, Report, Test, Verdict},
    summary::{number, sections, share},
};

/// Measures that are both below this share of their bounds are as good as each other: rounding alone moves them.
const NEGLIGIBLE: f64 = 0.01;

/// What is different between two reports.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Diff {
    /// What is known of the adapters, side by side: a name, and what it is in either.
    pub identity: Vec<(String, String, String)>,
    /// Tests whose verdicts differ; none: the report has no such test.
    pub verdicts: Vec<Changed>,
    /// Measures that moved, the largest step first.
    pub measures: Vec<Moved>,
    /// Tests that both have.
    pub common: usize,
}

/// A test whose verdicts differ.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Changed {
    /// Its id.
    pub id: String,
    /// In the first report.
    pub a: Option<Verdict>,
    /// In the second.
    pub b: Option<Verdict>,
    /// Why, where it is bad.
    pub words: String,
}

/// A measure that moved.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Moved {
    /// The test's id.
    pub id: String,
    /// The measure's name.
    pub measure: String,
    /// Its unit.
    pub unit: String,
    /// In the first report.
    pub a: f64,
    /// In the second.
    pub b: f64,
    /// `b / a`.
    pub ratio: f64,
}

impl Diff {
    /// Whether a test is bad in the second report that is not in the first.
    pub fn is_worse(&self) -> bool {
        let good = |v: Option<Verdict>| v.is_none_or(Verdict::is_good);
        self.verdicts.iter().any(|c| good(c.a) && !good(c.b))
    }
}

/// Compares two reports. A measure has moved if one value is more than `ratio` times the other.
pub fn diff(a: &Report, b: &Report, ratio: f64) -> Diff {
    let by_id = |r: &'_ Report| -> BTreeMap<String, Test> { r.tests.iter().map(|t| (t.id.clone(), t.clone())).collect() };
    let (ours, theirs) = (by_id(a), by_id(b));
    let mut ids: Vec<&String> = sections(a).iter().flat_map(|s| s.tests.iter().map(|t| &t.id)).collect();
    ids.extend(b.tests.iter().map(|t| &t.id).filter(|id| !ours.contains_key(*id)));
    let (mut verdicts, mut measures, mut common) = (Vec::new(), Vec::new(), 0);
    for id in ids {
        let (x, y) = (ours.get(id), theirs.get(id));
        if x.map(|t| t.verdict) != y.map(|t| t.verdict) {
            let words = [y, x].into_iter().flatten().find(|t| !t.verdict.is_good()).map(|t| t.words.clone()).unwrap_or_default();
            verdicts.push(Changed { id: id.clone(), a: x.map(|t| t.verdict), b: y.map(|t| t.verdict), words });
        }
        let (Some(x), Some(y)) = (x, y) else { continue };
        common += 1;
        for (name, m) in &x.measures {
            let Some(n) = y.measures.get(name) else { continue };
            if let Some(step) = moved(m, n, ratio) {
                let (unit, a, b) = (n.unit.clone(), m.value, n.value);
                measures.push(Moved { id: id.clone(), measure: name.clone(), unit, a, b, ratio: step });
            }
        }
    }
    measures.sort_by(|a, b| size(b.ratio).total_cmp(&size(a.ratio)));
    Diff { identity: identities(a, b), verdicts, measures, common }
}

/// How large a step is, up or down.
fn size(ratio: f64) -> f64 {
    if ratio < 1.0 { 1.0 / ratio } else { ratio }
}

/// The step from one to the other, if it is one.
fn moved(a: &Measure, b: &Measure, ratio: f64) -> Option<f64> {
    if a.value == b.value || (a.value.is_nan() && b.value.is_nan()) {
        return None;
    }
    if let (Some(x), Some(y)) = (share(a), share(b))
        && x < NEGLIGIBLE
        && y < NEGLIGIBLE
    {
        return None;
    }
    let step = if a.value.is_nan() || b.value.is_nan() || a.value == 0.0 { f64::INFINITY } else { b.value / a.value };
    // From a number to its negative, or from anything to 0, is a step whatever the ratio.
    (step <= 0.0 || size(step) > ratio).then_some(if step <= 0.0 { 0.0 } else { step })
}

fn identities(a: &Report, b: &Report) -> Vec<(String, String, String)> {
    let theirs = fields(&b.identity);
    let mut all: Vec<(String, String, String)> = Vec::new();
    for (name, value) in fields(&a.identity) {
        let other = theirs.iter().find(|(n, _)| *n == name).map(|(_, v)| v.clone()).unwrap_or_default();
        all.push((name, value, other));
    }
    for (name, value) in theirs {
        if !all.iter().any(|(n, ..)| *n == name) {
            all.push((name, String::new(), value));
        }
    }
    let lacks = |x: &Report, y: &Report| {
        let names: Vec<&str> =
            x.identity.features.iter().filter(|f| !y.identity.features.contains(f)).map(String::as_str).collect();
        names.join(", ")
    };
    all.push(("features of this one alone".to_owned(), lacks(a, b), lacks(b, a)));
    for (name, limit) in &a.identity.limits {
        if let Some(other) = b.identity.limits.get(name).filter(|other| *other != limit) {
            all.push((name.clone(), limit.to_string(), other.to_string()));
        }
    }
    let settings = |r: &Report| {
        let s = &r.settings;
        let only = if s.only.is_empty() { String::new() } else { format!(", only {}", s.only.join(" ")) };
        format!("{}{}{only}", if s.quick { "quick" } else { "full" }, if s.strict { ", strict" } else { "" })
    };
    all.push(("suite".to_owned(), settings(a), settings(b)));
    all.push(("date".to_owned(), a.date.clone(), b.date.clone()));
    all
}

/// A difference in Markdown.
pub fn markdown(d: &Diff) -> String {
    let cell = |text: &str| text.replace('|', "\\|").replace('\n', " ");
    let mut out = String::from("| | A | B | |\n|---|---|---|---|\n");
    for (name, a, b) in &d.identity {
        let mark = if a == b { "" } else { "differs" };
        out.push_str(&format!("| {} | {} | {} | {mark} |\n", cell(name), cell(a), cell(b)));
    }
    let verdict = |v: Option<Verdict>| v.map_or("not there", Verdict::name);
    out.push_str(&format!("\n{} tests are in both.\n\n", d.common));
    if d.verdicts.is_empty() {
        out.push_str("No verdict differs.\n");
    } else {
        out.push_str("| verdicts that differ | A | B | why |\n|---|---|---|---|\n");
        for c in &d.verdicts {
            out.push_str(&format!("| {} | {} | {} | {} |\n", cell(&c.id), verdict(c.a), verdict(c.b), cell(&c.words)));
        }
    }
    out.push('\n');
    if d.measures.is_empty() {
        out.push_str("No measure moved.\n");
    } else {
        out.push_str("| measures that moved | | A | B | B / A |\n|---|---|---:|---:|---:|\n");
        for m in &d.measures {
            let value = |x: f64| if m.unit.is_empty() { number(x) } else { format!("{} {}", number(x), m.unit) };
            let ratio = if m.ratio.is_finite() { number(m.ratio) } else { "beyond all".to_owned() };
            out.push_str(&format!("| {} | {} | {} | {} | {ratio} |\n", cell(&m.id), cell(&m.measure), value(m.a), value(m.b)));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::tests::sample;

    #[test]
    fn a_report_is_no_different_from_itself() {
        let d = diff(&sample(), &sample(), 2.0);
        assert!(d.verdicts.is_empty() && d.measures.is_empty() && d.common == 6 && !d.is_worse());
        assert!(markdown(&d).contains("No verdict differs.") && !markdown(&d).contains("differs |"));
    }

    #[test]
    fn verdicts_and_measures_that_differ_are_told() {
        let (a, mut b) = (sample(), sample());
        b.identity.driver = "Mesa 24".into();
        b.tests[0].verdict = Verdict::Fail;
        b.tests[0].words = "too far".into();
        b.tests.remove(4);
        let set = |t: &mut Test, name: &str, value: f64| t.measures.get_mut(name).into_iter().for_each(|m| m.value = value);
        set(&mut b.tests[0], "worst", 5.0);
        // Far below the bound in both.
        set(&mut b.tests[2], "nmse", 5e-12);
        set(&mut b.tests[4], "bandwidth", 2.5);
        let d = diff(&a, &b, 2.0);
        let told: Vec<_> = d.verdicts.iter().map(|c| (c.id.as_str(), c.a, c.b)).collect();
        assert_eq!(
            told,
            [("scalar/exp/f32", Some(Verdict::Pass), Some(Verdict::Fail)), ("subgroup/sum", Some(Verdict::Skip), None)]
        );
        assert!(d.is_worse() && !diff(&b, &a, 2.0).is_worse());
        let moved: Vec<_> = d.measures.iter().map(|m| (m.id.as_str(), m.ratio)).collect();
        assert_eq!(moved, [("speed/copy", 0.2), ("scalar/exp/f32", 2.5)]);
        assert!(diff(&a, &b, 3.0).measures.len() == 1);
        let text = markdown(&d);
        assert!(text.contains("| driver | Mesa 22.3.6 | Mesa 24 | differs |"), "{text}");
        assert!(text.contains("| scalar/exp/f32 | pass | fail | too far |"), "{text}");
        assert!(text.contains("| speed/copy | bandwidth | 12.5 GB/s | 2.5 GB/s | 0.2 |"), "{text}");
    }

    #[test]
    fn steps_over_nothing_are_steps() {
        let m = |value: f64| Measure { value, ..Measure::default() };
        assert_eq!(moved(&m(0.0), &m(0.0), 2.0), None);
        assert_eq!(moved(&m(0.0), &m(1.0), 2.0), Some(f64::INFINITY));
        assert_eq!(moved(&m(1.0), &m(0.0), 2.0), Some(0.0));
        assert_eq!(moved(&m(1.0), &m(f64::NAN), 2.0), Some(f64::INFINITY));
        assert_eq!(moved(&m(f64::NAN), &m(f64::NAN), 2.0), None);
        assert_eq!(moved(&m(1.0), &m(1.9), 2.0), None);
    }
}
