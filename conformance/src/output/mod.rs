//! Reports written down.
//!
//! | module | what it writes |
//! |---|---|
//! | [`text`] | a table for a terminal |
//! | [`junit`] | JUnit XML |
//! | [`page`] | a page that needs nothing else: identity, plots, all tests |
//! | [`brief`] | less of a report, to be kept |
//! | `plot` | its plots, as SVG |

pub mod brief;
pub mod junit;
pub mod page;
mod plot;
pub mod text;

use crate::report::{Identity, Report, Test};

/// A report as JSON, each test in a line of its own: small, and two can be compared by any tool.
pub fn json(report: &Report) -> String {
    // Nothing of a report can fail to be JSON.
    let of = |value: &Test| serde_json::to_string(value).unwrap_or_default();
    let head = Report { tests: Vec::new(), ..report.clone() };
    let text = serde_json::to_string_pretty(&head).unwrap_or_default();
    let lines: Vec<String> = report.tests.iter().map(|t| format!("    {}", of(t))).collect();
    if lines.is_empty() {
        return text + "\n";
    }
    text.replacen("\n  \"tests\": []", &format!("\n  \"tests\": [\n{}\n  ]", lines.join(",\n")), 1) + "\n"
}

/// What files about an adapter are called: its backend and name in letters, digits and hyphens.
pub fn file_stem(identity: &Identity, strict: bool) -> String {
    let mut stem = String::new();
    let mode = if strict { "strict" } else { "" };
    for part in [&identity.backend, &identity.name, mode] {
        for c in part.chars().chain(['-']) {
            match c.to_ascii_lowercase() {
                c if c.is_ascii_alphanumeric() => stem.push(c),
                _ if stem.is_empty() || stem.ends_with('-') => {}
                _ => stem.push('-'),
            }
        }
    }
    let stem = stem.trim_end_matches('-');
    // Names of drivers can be as long as they like; those of files cannot.
    stem.get(..stem.len().min(80)).unwrap_or(stem).trim_end_matches('-').to_owned()
}

/// What an adapter is called where several are side by side.
pub fn short_name(identity: &Identity) -> String {
    let name = identity.name.split(" (").next().unwrap_or(&identity.name).trim();
    format!("{name} ({})", identity.backend)
}

/// Text in HTML, XML or Markdown's cells: what would be markup is none.
pub(crate) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // XML has no such characters.
            c if c.is_control() && !matches!(c, '\n' | '\t') => out.push('\u{FFFD}'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

    use super::*;
    use crate::report::{Measure, SCHEMA, Settings, Verdict};

    /// A report with a bit of everything.
    pub(crate) fn sample() -> Report {
        let measure = |value: f64, unit: &str, most: Option<f64>, curve: Vec<(f64, f64)>| Measure {
            value,
            unit: unit.into(),
            most,
            at: if most.is_some() { "index <7>".into() } else { String::new() },
            curve,
            ..Measure::default()
        };
        let test = |id: &str, verdict, words: &str, measures: Vec<(&str, Measure)>| Test {
            id: id.into(),
            verdict,
            words: words.into(),
            measures: measures.into_iter().map(|(n, m)| (n.to_owned(), m)).collect(),
            seconds: 0.125,
        };
        let curve = |f: &dyn Fn(f64) -> f64| (0..40).map(|i| (f64::from(i) - 20.0, f(f64::from(i)))).collect::<Vec<_>>();
        let growth = |a: f64| [1024.0, 4096.0, 16384.0].map(|k: f64| (k, a * k.sqrt())).to_vec();
        Report {
            schema: SCHEMA,
            program: "pleiad 0.1.0".into(),
            date: "2026-01-02T03:04:05Z".into(),
            settings: Settings::default(),
            identity: Identity {
                name: "llvmpipe (LLVM 15 <&>)".into(),
                kind: "software".into(),
                backend: "Vulkan".into(),
                driver: "Mesa 22.3.6".into(),
                software: true,
                features: vec!["SUBGROUP".into()],
                limits: [("max_buffer_size".to_owned(), 1 << 31)].into(),
                tier: "subgroup".into(),
                subgroup_sizes: Some((8, 8)),
                ..Identity::default()
            },
            tests: vec![
                test(
                    "scalar/exp/f32",
                    Verdict::Pass,
                    "",
                    vec![("worst", measure(2.0, "ulp", Some(3.0), curve(&|x| (x % 7.0) / 4.0)))],
                ),
                test(
                    "scalar/tanh/f32",
                    Verdict::Fail,
                    "beyond the bound",
                    vec![("worst", measure(9.0, "ulp", Some(5.0), vec![]))],
                ),
                test(
                    "kernel/matvec/Q4_K/subgroup/rows 3",
                    Verdict::Pass,
                    "",
                    vec![
                        ("nmse", measure(1e-13, "", Some(1e-9), vec![])),
                        ("growth", measure(1e-7, "", None, growth(1.0 / 1024.0))),
                    ],
                ),
                test("kernel/attend/plain/x", Verdict::Crash, "signal 11 & more", vec![]),
                test("subgroup/sum", Verdict::Skip, "no subgroups", vec![]),
                test(
                    "speed/copy",
                    Verdict::Info,
                    "",
                    vec![("bandwidth", measure(12.5, "GB/s", None, vec![(4096.0, 1.0), (65536.0, 8.0), (1e6, 12.5)]))],
                ),
            ],
            complete: true,
        }
    }

    #[test]
    fn json_has_a_line_for_each_test_and_is_read_back() {
        let report = sample();
        let text = json(&report);
        assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report);
        for test in &report.tests {
            assert_eq!(text.lines().filter(|l| l.contains(&test.id)).count(), 1);
        }
        let empty = Report { tests: Vec::new(), ..report.clone() };
        assert_eq!(serde_json::from_str::<Report>(&json(&empty)).unwrap(), empty);
    }

    #[test]
    fn files_are_called_by_backend_and_name() {
        let identity = sample().identity;
        assert_eq!(file_stem(&identity, false), "vulkan-llvmpipe-llvm-15");
        assert_eq!(file_stem(&identity, true), "vulkan-llvmpipe-llvm-15-strict");
        assert_eq!(file_stem(&Identity { name: "../é/x".repeat(60), ..identity.clone() }, false).len(), 80);
        assert_eq!(short_name(&identity), "llvmpipe (Vulkan)");
    }
}
