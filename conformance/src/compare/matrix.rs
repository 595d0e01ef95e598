//! Many adapters side by side.

use std::fmt::Write as _;

use crate::{
    output::{escaped, page, short_name, text::adapter},
    report::{Measure, Report, Test, Verdict},
    suite::SECTIONS,
    summary::{bad, count, number, section_of},
};

/// What adapters are called above their columns: their names, numbered where two are the same.
fn names(reports: &[Report]) -> Vec<String> {
    let name = |r: &Report| format!("{}{}", short_name(&r.identity), if r.settings.strict { ", strict" } else { "" });
    let all: Vec<String> = reports.iter().map(name).collect();
    let numbered = |(i, name): (usize, &String)| match all.iter().filter(|n| *n == name).count() {
        1 => name.clone(),
        _ => format!("{name} #{}", 1 + all[..i].iter().filter(|n| *n == name).count()),
    };
    all.iter().enumerate().map(numbered).collect()
}

/// Ids of all reports, section by section, in the order in which they first occur.
fn ids(reports: &[Report]) -> Vec<String> {
    let mut ids: Vec<String> = Vec::new();
    let mut known = std::collections::HashSet::new();
    for id in reports.iter().flat_map(|r| r.tests.iter().map(|t| &t.id)) {
        if known.insert(id) {
            ids.push(id.clone());
        }
    }
    let place = |id: &String| SECTIONS.iter().position(|(name, _)| *name == section_of(id)).unwrap_or(SECTIONS.len());
    ids.sort_by_key(place);
    ids
}

fn sections_of(ids: &[String]) -> Vec<&str> {
    let mut sections: Vec<&str> = ids.iter().map(|id| section_of(id)).collect();
    sections.dedup();
    sections
}

fn test<'a>(report: &'a Report, id: &str) -> Option<&'a Test> {
    report.tests.iter().find(|t| t.id == id)
}

/// Whether adapters do not agree on a test, or it is bad on one of them.
fn is_worth_a_row(reports: &[Report], id: &str) -> bool {
    let verdicts: Vec<Verdict> = reports.iter().filter_map(|r| test(r, id)).map(|t| t.verdict).collect();
    let passed = |v: &Verdict| matches!(v, Verdict::Pass | Verdict::Info | Verdict::Skip);
    verdicts.iter().any(|v| !passed(v))
}

/// The measure of a test that tells adapters apart: of the section on speed, and of it only.
fn speed<'a>(reports: &'a [Report], id: &str) -> Vec<Vec<(&'a str, Option<&'a Measure>)>> {
    let mut names: Vec<&str> =
        reports.iter().filter_map(|r| test(r, id)).flat_map(|t| t.measures.keys().map(String::as_str)).collect();
    names.sort_unstable();
    names.dedup();
    let of = |name: &'a str| reports.iter().map(move |r| (name, test(r, id).and_then(|t| t.measures.get(name)))).collect();
    names.into_iter().map(of).collect()
}

/// A section of an adapter in a few words.
fn cell(report: &Report, section: &str) -> String {
    let tests: Vec<&Test> = report.tests.iter().filter(|t| section_of(&t.id) == section).collect();
    if tests.is_empty() {
        return "not run".into();
    }
    let of = |v| count(tests.iter().copied(), v);
    let bad = tests.iter().filter(|t| !t.verdict.is_good()).count();
    let judged = tests.len() - of(Verdict::Skip) - of(Verdict::Info);
    let mut parts = Vec::new();
    if judged > 0 {
        parts.push(format!("{} of {judged}", of(Verdict::Pass)));
    }
    for (n, what) in
        [(bad, "bad"), (of(Verdict::ExpectedFail), "declared"), (of(Verdict::Skip), "skipped"), (of(Verdict::Info), "measured")]
    {
        if n > 0 {
            parts.push(format!("{n} {what}"));
        }
    }
    parts.join(", ")
}

fn verdict_name(t: Option<&Test>) -> &'static str {
    t.map_or("not run", |t| t.verdict.name())
}

fn amount(m: Option<&Measure>) -> String {
    m.map_or_else(|| "–".to_owned(), |m| format!("{} {}", number(m.value), m.unit).trim().to_owned())
}

/// Reports side by side in Markdown: sections, tests that are not good on all of them, speed.
pub fn markdown(reports: &[Report]) -> String {
    let cells = |all: Vec<String>| format!("| {} |\n", all.iter().map(|c| c.replace('|', "\\|")).collect::<Vec<_>>().join(" | "));
    let head = |first: &str| {
        let names = std::iter::once(first.to_owned()).chain(names(reports)).collect();
        format!("{}|---|{}\n", cells(names), "---|".repeat(reports.len()))
    };
    let row = |first: String, rest: Vec<String>| cells(std::iter::once(first).chain(rest).collect());
    let ids = ids(reports);
    let mut out = head("");
    out.push_str(&row("driver".into(), reports.iter().map(|r| r.identity.driver.clone()).collect()));
    out.push_str(&row("kernels".into(), reports.iter().map(|r| r.identity.tier.clone()).collect()));
    for section in sections_of(&ids) {
        out.push_str(&row(format!("**{section}**"), reports.iter().map(|r| cell(r, section)).collect()));
    }
    let differing: Vec<&String> = ids.iter().filter(|id| is_worth_a_row(reports, id)).collect();
    if !differing.is_empty() {
        out.push_str(&format!("\n{}", head("tests that are not good everywhere")));
        for id in differing {
            out.push_str(&row(id.clone(), reports.iter().map(|r| verdict_name(test(r, id)).to_owned()).collect()));
        }
    }
    let mut speeds = String::new();
    for id in ids.iter().filter(|id| section_of(id) == "speed") {
        for values in speed(reports, id) {
            let name = values.first().map_or("", |(name, _)| name);
            let id = id.strip_prefix("speed/").unwrap_or(id);
            speeds.push_str(&row(format!("{id}: {name}"), values.iter().map(|(_, m)| amount(*m)).collect()));
        }
    }
    if !speeds.is_empty() {
        out.push_str(&format!("\n{}{speeds}", head("speed")));
    }
    out
}

/// Reports side by side as a page that needs nothing else.
pub fn html(reports: &[Report]) -> String {
    let mut out = String::new();
    // Writing to a text cannot fail.
    let _ = write(&mut out, reports);
    page::around("Conformance of several adapters", &out)
}

fn write(out: &mut String, reports: &[Report]) -> std::fmt::Result {
    let (names, ids) = (names(reports), ids(reports));
    let head: String = names.iter().map(|n| format!("<th scope=\"col\">{}</th>", escaped(n))).collect();
    writeln!(out, "<header><p class=\"kind\">Conformance</p><h1>{} adapters side by side</h1></header>\n<main>", reports.len())?;
    writeln!(out, "<section><h2>Adapters</h2><div class=\"wide\"><table><tbody>")?;
    for (name, r) in names.iter().zip(reports) {
        let class = if bad(r) > 0 { "bad" } else { "good" };
        let about = crate::summary::sentence(r);
        writeln!(
            out,
            "<tr><th scope=\"row\">{}</th><td>{}</td><td class=\"{class}\">{}</td><td>{}</td></tr>",
            escaped(name),
            escaped(&adapter(&r.identity)),
            escaped(&about),
            escaped(&r.date)
        )?;
    }
    writeln!(out, "</tbody></table></div></section>\n<section><h2>Sections</h2><div class=\"wide\"><table>")?;
    writeln!(out, "<thead><tr><th scope=\"col\">Section</th>{head}</tr></thead>\n<tbody>")?;
    for section in sections_of(&ids) {
        write!(out, "<tr><th scope=\"row\">{}</th>", escaped(section))?;
        for r in reports {
            let wrong = r.tests.iter().any(|t| section_of(&t.id) == section && !t.verdict.is_good());
            write!(out, "<td{}>{}</td>", if wrong { " class=\"beyond\"" } else { "" }, cell(r, section))?;
        }
        writeln!(out, "</tr>")?;
    }
    writeln!(
        out,
        "</tbody></table></div></section>\n<section id=\"tests\"><h2>All tests</h2>\n<form class=\"filter\" hidden><label>Words <input \
         type=\"search\" name=\"text\" autocomplete=\"off\"></label><label><input type=\"checkbox\" name=\"differ\"> only what is not \
         good everywhere</label><output id=\"shown\" class=\"muted\"></output></form>\n<div class=\"wide\"><table \
         class=\"tests\"><thead><tr><th scope=\"col\">Test</th>{head}</tr></thead>\n<tbody>"
    )?;
    for id in &ids {
        let differ = if is_worth_a_row(reports, id) { " data-differ" } else { "" };
        write!(out, "<tr{differ}><td class=\"id\">{}</td>", escaped(id))?;
        for r in reports {
            match test(r, id) {
                Some(t) => {
                    let measures: Vec<String> =
                        t.measures.iter().map(|(name, m)| format!("{name} {}", amount(Some(m)))).collect();
                    write!(
                        out,
                        "<td>{}<div class=\"muted\">{}</div></td>",
                        page::verdict(t.verdict),
                        escaped(&measures.join(", "))
                    )?;
                }
                None => write!(out, "<td class=\"muted\">not run</td>")?,
            }
        }
        writeln!(out, "</tr>")?;
    }
    writeln!(out, "</tbody></table></div></section></main>")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::tests::sample;

    fn three() -> Vec<Report> {
        let mut second = sample();
        second.identity.name = "Fast GPU".into();
        second.tests.retain(|t| t.verdict.is_good());
        second.tests.retain(|t| t.id != "subgroup/sum");
        vec![sample(), second, sample()]
    }

    #[test]
    fn adapters_stand_side_by_side() {
        let text = markdown(&three());
        assert!(text.contains("| llvmpipe (Vulkan) #1 | Fast GPU (Vulkan) | llvmpipe (Vulkan) #2 |"), "{text}");
        assert!(text.contains("| **scalar** | 1 of 2, 1 bad | 1 of 1 | 1 of 2, 1 bad |"), "{text}");
        assert!(text.contains("| **subgroup** | 1 skipped | not run | 1 skipped |"), "{text}");
        assert!(text.contains("| scalar/tanh/f32 | fail | not run | fail |"), "{text}");
        assert!(!text.contains("| scalar/exp/f32 |"), "{text}");
        assert!(text.contains("| copy: bandwidth | 12.5 GB/s | 12.5 GB/s | 12.5 GB/s |"), "{text}");
        let page = html(&three());
        assert_eq!(page.matches("<tr data-differ>").count(), 2);
        assert!(!page.contains("https://"));
    }
}
