//! JUnit XML, as test servers read it: a suite for each section, a case for each test.

use std::fmt::Write as _;

use super::escaped;
use crate::{
    report::{Report, Test, Verdict},
    summary::{count, sections, words},
};

/// A report as JUnit XML.
pub fn xml(report: &Report) -> String {
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    // Writing to a text cannot fail.
    let _ = write(&mut out, report);
    out
}

fn counts<'a>(tests: impl IntoIterator<Item = &'a Test> + Clone) -> String {
    let of = |v| count(tests.clone(), v);
    let seconds: f64 = tests.clone().into_iter().map(|t| t.seconds).sum();
    format!(
        "tests=\"{}\" failures=\"{}\" errors=\"{}\" skipped=\"{}\" time=\"{seconds:.3}\"",
        tests.clone().into_iter().count(),
        of(Verdict::Fail) + of(Verdict::UnexpectedPass),
        of(Verdict::Crash) + of(Verdict::Timeout),
        of(Verdict::Skip) + of(Verdict::ExpectedFail)
    )
}

fn write(out: &mut String, report: &Report) -> std::fmt::Result {
    let i = &report.identity;
    let adapter = escaped(&format!("{} ({})", i.name, i.backend));
    writeln!(out, "<testsuites name=\"pleiad conformance: {adapter}\" {}>", counts(&report.tests))?;
    for section in sections(report) {
        let name = escaped(section.name);
        let date = escaped(report.date.trim_end_matches('Z'));
        let all = counts(section.tests.iter().copied());
        writeln!(out, "  <testsuite name=\"{name}\" timestamp=\"{date}\" hostname=\"{adapter}\" {all}>")?;
        writeln!(out, "    <properties>")?;
        for (key, value) in [("adapter", &i.name), ("backend", &i.backend), ("driver", &i.driver), ("tier", &i.tier)] {
            writeln!(out, "      <property name=\"{key}\" value=\"{}\"/>", escaped(value))?;
        }
        writeln!(out, "    </properties>")?;
        for test in section.tests {
            case(out, test, &adapter)?;
        }
        writeln!(out, "  </testsuite>")?;
    }
    writeln!(out, "</testsuites>")
}

fn case(out: &mut String, test: &Test, adapter: &str) -> std::fmt::Result {
    let (class, name) = test.id.rsplit_once('/').unwrap_or(("", &test.id));
    let class = escaped(&class.replace('/', "."));
    write!(
        out,
        "    <testcase classname=\"{class}\" name=\"{}\" time=\"{:.3}\" file=\"{adapter}\"",
        escaped(name),
        test.seconds
    )?;
    let why = escaped(&test.words);
    let kind = test.verdict.name();
    let measures: Vec<String> = test.measures.iter().map(|(n, m)| escaped(&words(n, m))).collect();
    let inner = match test.verdict {
        Verdict::Pass | Verdict::Info => String::new(),
        Verdict::Skip | Verdict::ExpectedFail => format!("      <skipped message=\"{kind}: {why}\"/>\n"),
        Verdict::Fail | Verdict::UnexpectedPass => {
            format!("      <failure type=\"{kind}\" message=\"{why}\">{}</failure>\n", measures.join("\n"))
        }
        Verdict::Crash | Verdict::Timeout => format!("      <error type=\"{kind}\" message=\"{why}\"/>\n"),
    };
    let told =
        if measures.is_empty() { String::new() } else { format!("      <system-out>{}</system-out>\n", measures.join("\n")) };
    if inner.is_empty() && told.is_empty() { writeln!(out, "/>") } else { writeln!(out, ">\n{inner}{told}    </testcase>") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::tests::sample;

    #[test]
    fn every_test_is_a_case_and_bad_ones_say_why() {
        let xml = xml(&sample());
        assert_eq!(xml.matches("<testcase ").count(), 6, "{xml}");
        assert_eq!(xml.matches("<testsuite ").count(), 4);
        assert!(xml.contains("tests=\"6\" failures=\"1\" errors=\"1\" skipped=\"1\" time=\"0.750\""));
        assert!(xml.contains("<failure type=\"fail\" message=\"beyond the bound\">worst 9 ulp, at most 5, at index &lt;7&gt;"));
        assert!(xml.contains("message=\"signal 11 &amp; more\""));
        assert!(xml.contains("classname=\"kernel.matvec.Q4_K.subgroup\" name=\"rows 3\""));
        // Whatever is opened is closed, in order.
        let mut open: Vec<&str> = Vec::new();
        for tag in xml.split('<').skip(2).filter_map(|part| part.split('>').next()) {
            let name = tag.trim_start_matches('/').split([' ', '/']).next().unwrap_or_default();
            match (tag.starts_with('/'), tag.ends_with('/')) {
                (true, _) => assert_eq!(open.pop(), Some(name)),
                (false, false) => open.push(name),
                (false, true) => {}
            }
        }
        assert!(open.is_empty());
    }
}
