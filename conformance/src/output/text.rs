//! A report for a terminal.

use crate::{
    report::{Identity, Report, Test, Verdict},
    summary::{count, percent, sections, sentence, words},
};

/// An adapter in a line: what it is called, how it is reached, its driver.
pub fn adapter(i: &Identity) -> String {
    let software = if i.software && i.kind != "software" { ", software" } else { "" };
    let driver = if i.driver.is_empty() { String::new() } else { format!(", {}", i.driver) };
    let kind = if i.kind.is_empty() { String::new() } else { format!("{}, ", i.kind) };
    format!("{} ({kind}{}{software}{driver})", i.name, i.backend)
}

/// Counts for each section with the worst measure of each, then all that is bad, in full.
pub fn table(report: &Report) -> Vec<String> {
    let mut rows =
        vec![["section", "pass", "info", "skip", "declared", "bad", "time", "nearest to its bound"].map(str::to_owned)];
    for s in sections(report) {
        let of = |v| count(s.tests.iter().copied(), v);
        let bad = s.tests.iter().filter(|t| !t.verdict.is_good()).count();
        let seconds: f64 = s.tests.iter().map(|t| t.seconds).sum();
        let worst = crate::summary::worst(s.tests.iter().copied()).map_or_else(String::new, |(test, name, m)| {
            let id = test.id.strip_prefix(s.name).map_or(test.id.as_str(), |id| id.trim_start_matches('/'));
            format!("{id}: {}{}", words(name, m), percent(m))
        });
        rows.push([
            s.name.to_owned(),
            of(Verdict::Pass).to_string(),
            of(Verdict::Info).to_string(),
            of(Verdict::Skip).to_string(),
            of(Verdict::ExpectedFail).to_string(),
            bad.to_string(),
            format!("{seconds:.1} s"),
            worst,
        ]);
    }
    let mut lines = aligned(&rows);
    lines.push(format!("{}.", sentence(report)));
    for test in report.tests.iter().filter(|t| !t.verdict.is_good()) {
        lines.extend(in_full(test));
    }
    lines
}

/// All that is known of a test.
fn in_full(test: &Test) -> Vec<String> {
    let mut lines = vec![format!("{:<8} {}", test.verdict.name().to_uppercase(), test.id)];
    lines.extend(test.words.lines().map(|l| format!("         {l}")));
    lines.extend(test.measures.iter().map(|(name, m)| {
        let mark = if m.is_within() { "" } else { "  <- beyond its bound" };
        format!("         {}{mark}", words(name, m))
    }));
    lines
}

/// Columns under each other: the first and the last begin at the left, numbers end at the right.
fn aligned<const N: usize>(rows: &[[String; N]]) -> Vec<String> {
    let width = |c: usize| rows.iter().map(|r| r[c].chars().count()).max().unwrap_or(0);
    let cell = |c: usize, text: &str| {
        if c == 0 || c == N - 1 { format!("{text:<w$}", w = width(c)) } else { format!("{text:>w$}", w = width(c)) }
    };
    let line = |row: &[String; N]| {
        let cells: Vec<String> = row.iter().enumerate().map(|(c, text)| cell(c, text)).collect();
        cells.join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::tests::sample;

    #[test]
    fn the_table_has_each_section_and_failures_in_full() {
        let lines = table(&sample());
        let text = lines.join("\n");
        assert!(lines[0].starts_with("section  ") && lines[1].starts_with("scalar   "), "{text}");
        assert!(lines[1].ends_with("tanh/f32: worst 9 ulp, at most 5, at index <7> (180 %)"), "{text}");
        assert!(text.contains("FAIL     scalar/tanh/f32\n         beyond the bound\n         worst 9 ulp"), "{text}");
        assert!(text.contains("CRASH    kernel/attend/plain/x\n         signal 11 & more"), "{text}");
        assert!(text.contains("2 of 6 tests passed, 1 failed, 1 crashed, 1 skipped, 1 only measure."), "{text}");
    }
}
