//! One page that needs nothing else, in the colours that its reader prefers.

mod plots;

use std::fmt::Write as _;

use super::{escaped, text::adapter};
use crate::{
    compare::fields,
    report::{Measure, Report, Test, Verdict},
    summary::{VERDICTS, bad, count, percent, section_of, sections, sentence, words, worst},
};

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// A page of its own around what is in it.
pub(crate) fn around(title: &str, body: &str) -> String {
    let title = escaped(title);
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<title>{title}</title>\n<meta name=\"viewport\" \
         content=\"width=device-width, initial-scale=1\">\n<meta name=\"color-scheme\" content=\"light dark\">\n<style>\n{STYLE}</style>\n\
         </head>\n<body>\n{body}<script>\n{SCRIPT}</script>\n</body>\n</html>\n"
    )
}

/// A report as a page.
pub fn html(report: &Report) -> String {
    let mut out = String::new();
    // Writing to a text cannot fail.
    let _ = write(&mut out, report);
    around(&format!("{}: conformance", report.identity.name), &out)
}

fn write(out: &mut String, report: &Report) -> std::fmt::Result {
    let plots = plots::all(report);
    let failing = bad(report) > 0;
    header(out, report)?;
    write!(out, "<nav aria-label=\"Parts of this report\"><ul><li><a href=\"#summary\">Summary</a></li>")?;
    if failing {
        write!(out, "<li><a href=\"#failures\">What went wrong</a></li>")?;
    }
    write!(out, "<li><a href=\"#identity\">Identity</a></li>")?;
    if !plots.is_empty() {
        write!(out, "<li><a href=\"#plots\">Plots</a></li>")?;
    }
    writeln!(out, "<li><a href=\"#tests\">All tests</a></li></ul></nav>\n</header>\n<main>")?;
    summary(out, report)?;
    if failing {
        failures(out, report)?;
    }
    identity(out, report)?;
    if !plots.is_empty() {
        writeln!(out, "<section id=\"plots\"><h2>Plots</h2>\n{plots}</section>")?;
    }
    table(out, report)?;
    writeln!(out, "</main>")
}

fn header(out: &mut String, report: &Report) -> std::fmt::Result {
    let i = &report.identity;
    let mode = match (report.settings.quick, report.settings.strict) {
        (false, false) => "the whole suite",
        (true, false) => "the quick suite",
        (false, true) => "the whole suite within WebGPU’s default limits and without optional features",
        (true, true) => "the quick suite within WebGPU’s default limits and without optional features",
    };
    let only = match report.settings.only.as_slice() {
        [] => String::new(),
        parts => format!(", tests with {} only", parts.join(" or ")),
    };
    let about = adapter(i);
    let about = about.strip_prefix(i.name.as_str()).unwrap_or(&about).trim();
    let about = about.strip_prefix('(').and_then(|a| a.strip_suffix(')')).unwrap_or(about);
    let class = if bad(report) > 0 || !report.complete { "bad" } else { "good" };
    writeln!(
        out,
        "<header>\n<p class=\"kind\">Conformance report of {}, {}: {}{}</p>\n<h1>{}</h1>\n<p class=\"muted\">{}</p>\n<p class=\"outcome \
         {class}\">{}.</p>",
        escaped(&report.program),
        escaped(&report.date.replace('T', " ").replace('Z', " UTC")),
        mode,
        escaped(&only),
        escaped(&i.name),
        escaped(about),
        escaped(&sentence(report))
    )
}

/// A verdict with its class.
pub(crate) fn verdict(v: Verdict) -> String {
    let name = v.name();
    let mark = match v {
        Verdict::Pass => "✓ ",
        v if !v.is_good() => "✕ ",
        _ => "",
    };
    format!("<span class=\"v {name}\">{mark}{name}</span>")
}

fn summary(out: &mut String, report: &Report) -> std::fmt::Result {
    writeln!(
        out,
        "<section id=\"summary\"><h2>Summary</h2>\n<div class=\"wide\"><table>\n<thead><tr><th scope=\"col\">Section</th><th \
         scope=\"col\">What it shows</th><th scope=\"col\" class=\"n\">Pass</th><th scope=\"col\" class=\"n\">Info</th><th scope=\"col\" \
         class=\"n\">Skip</th><th scope=\"col\" class=\"n\">Declared</th><th scope=\"col\" class=\"n\">Bad</th><th scope=\"col\" \
         class=\"n\">Time</th><th scope=\"col\">Nearest to its bound</th></tr></thead>\n<tbody>"
    )?;
    for s in sections(report) {
        let of = |v| count(s.tests.iter().copied(), v);
        let wrong = s.tests.iter().filter(|t| !t.verdict.is_good()).count();
        let seconds: f64 = s.tests.iter().map(|t| t.seconds).sum();
        let nearest = worst(s.tests.iter().copied()).map_or_else(String::new, |(test, name, m)| {
            format!("<span class=\"id\">{}</span>: {}{}", escaped(&test.id), escaped(&words(name, m)), percent(m))
        });
        let class = if wrong > 0 { " beyond" } else { "" };
        writeln!(
            out,
            "<tr><th scope=\"row\">{}</th><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td \
             class=\"n\">{}</td><td class=\"n{class}\">{wrong}</td><td class=\"n\">{seconds:.1} s</td><td>{nearest}</td></tr>",
            escaped(s.name),
            s.about,
            of(Verdict::Pass),
            of(Verdict::Info),
            of(Verdict::Skip),
            of(Verdict::ExpectedFail)
        )?;
    }
    writeln!(out, "</tbody></table></div></section>")
}

fn failures(out: &mut String, report: &Report) -> std::fmt::Result {
    writeln!(out, "<section id=\"failures\"><h2>What went wrong</h2>")?;
    for test in report.tests.iter().filter(|t| !t.verdict.is_good()) {
        writeln!(out, "<article class=\"failure\"><h3><span class=\"id\">{}</span></h3>", escaped(&test.id))?;
        let why = if test.words.is_empty() { String::new() } else { format!(" — {}", escaped(&test.words)) };
        writeln!(out, "<p>{}{why}</p>{}</article>", verdict(test.verdict), measures(test))?;
    }
    writeln!(out, "</section>")
}

fn measures(test: &Test) -> String {
    if test.measures.is_empty() {
        return String::new();
    }
    let item = |(name, m): (&String, &Measure)| {
        let class = if m.is_within() { "" } else { " class=\"beyond\"" };
        format!("<li{class}>{}</li>", escaped(&words(name, m)))
    };
    format!("<ul class=\"plain\">{}</ul>", test.measures.iter().map(item).collect::<String>())
}

fn identity(out: &mut String, report: &Report) -> std::fmt::Result {
    let i = &report.identity;
    writeln!(out, "<section id=\"identity\"><h2>Identity</h2>\n<div class=\"wide\"><table class=\"identity\"><tbody>")?;
    for (name, value) in fields(i).iter().filter(|(_, value)| !value.is_empty()) {
        writeln!(out, "<tr><th scope=\"row\">{}</th><td>{}</td></tr>", escaped(name), escaped(value))?;
    }
    writeln!(out, "</tbody></table></div>")?;
    let list = |out: &mut String, title: &str, items: Vec<String>| {
        let items: String = items.iter().map(|text| format!("<li>{text}</li>")).collect();
        writeln!(out, "<details><summary>{title}</summary><ul class=\"names\">{items}</ul></details>")
    };
    list(out, &format!("{} features", i.features.len()), i.features.iter().map(|f| escaped(f)).collect())?;
    let limits = i.limits.iter().map(|(name, value)| format!("{}: <b>{value}</b>", escaped(name))).collect();
    list(out, &format!("{} limits", i.limits.len()), limits)?;
    writeln!(out, "</section>")
}

fn table(out: &mut String, report: &Report) -> std::fmt::Result {
    let options: String = sections(report).iter().map(|s| format!("<option>{}</option>", escaped(s.name))).collect();
    let boxes: String = VERDICTS
        .iter()
        .filter(|v| count(&report.tests, **v) > 0)
        .map(|v| format!("<label><input type=\"checkbox\" name=\"verdict\" value=\"{0}\"> {0}</label>", v.name()))
        .collect();
    writeln!(
        out,
        "<section id=\"tests\"><h2>All tests</h2>\n<form class=\"filter\" hidden><label>Words <input type=\"search\" name=\"text\" \
         autocomplete=\"off\"></label><label>Section <select name=\"section\"><option value=\"\">all</option>{options}</select></label>\
         <fieldset><legend>Verdict</legend>{boxes}</fieldset><output id=\"shown\" class=\"muted\"></output></form>\n<div \
         class=\"wide\"><table class=\"tests\">\n<thead><tr><th scope=\"col\">Test</th><th scope=\"col\">Verdict</th><th \
         scope=\"col\">Measures</th><th scope=\"col\">Words</th><th scope=\"col\" class=\"n\">Time</th></tr></thead>\n<tbody>"
    )?;
    for test in &report.tests {
        writeln!(
            out,
            "<tr data-section=\"{}\" data-verdict=\"{}\"><td class=\"id\">{}</td><td>{}</td><td>{}</td><td class=\"words\">{}</td><td \
             class=\"n\">{:.2} s</td></tr>",
            escaped(section_of(&test.id)),
            test.verdict.name(),
            escaped(&test.id),
            verdict(test.verdict),
            measures(test),
            escaped(&test.words),
            test.seconds
        )?;
    }
    writeln!(out, "</tbody></table></div></section>")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::tests::sample;

    #[test]
    fn the_page_has_all_tests_and_needs_nothing_else() {
        let page = html(&sample());
        assert_eq!(page.matches("<tr data-section=").count(), 6);
        assert_eq!(page.matches("<article class=\"failure\">").count(), 2);
        for part in ["#summary", "#failures", "#identity", "#plots", "#tests"] {
            assert!(page.contains(&format!("href=\"{part}\"")) && page.contains(&format!("id=\"{}\"", &part[1..])), "{part}");
        }
        for outside in ["http://", "https://", "src=", "<link", "url(", "@import"] {
            assert!(!page.contains(outside), "{outside}");
        }
        assert!(page.contains("llvmpipe (LLVM 15 &lt;&amp;&gt;)") && !page.contains("15 <&>"));
        assert!(page.contains("<svg"));
        let good = Report { tests: sample().tests.into_iter().filter(|t| t.verdict.is_good()).collect(), ..sample() };
        assert!(!html(&good).contains("What went wrong") && html(&good).contains("class=\"outcome good\""));
        assert!(html(&Report { tests: Vec::new(), complete: false, ..sample() }).contains("not complete"));
    }
}
