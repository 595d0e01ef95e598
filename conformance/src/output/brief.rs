//! A report made small, to be kept in a repository: what says no more than the verdict is left out.

use crate::report::{Measure, Report, Verdict};

/// A value this much below its bound says no more than that it is far from it.
const FAR: f64 = 1000.0;
/// Significant digits of numbers.
const DIGITS: usize = 2;

/// Leaves out curves; and of tests that passed places, words, and measures that have no bound, are perfect or far from their
/// bound. Other numbers keep two digits.
pub fn brief(report: &mut Report) {
    for test in &mut report.tests {
        let passed = test.verdict == Verdict::Pass;
        if passed {
            test.words.clear();
            test.measures.retain(|_, m| says_more(m));
        }
        for m in test.measures.values_mut() {
            m.curve.clear();
            if passed {
                m.at.clear();
            }
            m.value = rounded(m.value);
            m.most = m.most.map(rounded);
            m.least = m.least.map(rounded);
        }
        test.seconds = rounded((test.seconds * 100.0).round() / 100.0);
    }
}

/// Whether a measure of a test that passed says more than that it passed.
fn says_more(m: &Measure) -> bool {
    let far = m.most.is_some_and(|most| m.value < most / FAR);
    // Three runs with one result: `runs` is 1 of at most 1.
    let perfect = m.value == 0.0 || (m.value == 1.0 && m.most == Some(1.0));
    (m.most.is_some() || m.least.is_some()) && !far && !perfect
}

fn rounded(value: f64) -> f64 {
    if value.is_finite() { format!("{value:.*e}", DIGITS - 1).parse().unwrap_or(value) } else { value }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::tests::sample;

    #[test]
    fn verdicts_stay_and_what_says_no_more_goes() {
        let whole = sample();
        let mut report = whole.clone();
        brief(&mut report);
        let verdicts = |r: &Report| r.tests.iter().map(|t| (t.id.clone(), t.verdict)).collect::<Vec<_>>();
        assert_eq!(verdicts(&report), verdicts(&whole));
        assert_eq!(report.identity, whole.identity);
        let measures = |id: &str| report.tests.iter().find(|t| t.id.starts_with(id)).map(|t| t.measures.clone());
        // Passed, and near its bound: the number stays, curve and place go.
        let exp = measures("scalar/exp").unwrap_or_default();
        assert!(exp["worst"].value == 2.0 && exp["worst"].curve.is_empty() && exp["worst"].at.is_empty());
        // Failed: the place stays.
        assert_eq!(measures("scalar/tanh").unwrap_or_default()["worst"].at, "index <7>");
        // Far from its bound, or without one.
        assert!(measures("kernel/matvec").unwrap_or_default().is_empty());
        // Measures that judge nothing are what such a test is about.
        assert_eq!(measures("speed/copy").unwrap_or_default()["bandwidth"].value, 12.0);
        let again = report.clone();
        brief(&mut report);
        assert_eq!(report, again);
    }

    #[test]
    fn numbers_keep_two_digits() {
        assert_eq!([1234.5, 0.000_456_7, -9.96, 0.0].map(rounded), [1200.0, 0.000_46, -10.0, 0.0]);
        assert!(rounded(f64::NAN).is_nan() && rounded(f64::INFINITY).is_infinite());
    }
}
