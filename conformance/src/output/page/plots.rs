//! Which plots a report has.

use std::{collections::BTreeMap, fmt::Write as _};

use crate::{
    output::{
        escaped,
        plot::{Bar, COLOURS, Dot, Lines, Series, bars, dots, lines},
    },
    report::{Measure, Report, Test, Verdict},
    summary::{number, section_of, words},
};

/// Most plots of one kind: the table has all numbers anyway.
const MOST: usize = 48;
/// Most rows of bars with one unit.
const MOST_BARS: usize = 60;

/// All plots of a report. Empty: there is nothing to show.
pub fn all(report: &Report) -> String {
    let mut out = String::new();
    // Writing to a text cannot fail.
    let _ = write(&mut out, report);
    out
}

fn write(out: &mut String, report: &Report) -> std::fmt::Result {
    part(out, "Error over the argument", &small(report, |section| section == "scalar" || section == "integer"))?;
    let errors = errors(report);
    if !errors.is_empty() {
        writeln!(
            out,
            "<h3>Normalised mean square error by kernel</h3><figure><figcaption>A dot is a test; the dashed line is the bound of all \
             in the row. <span>Point at a dot to see which test it is.</span></figcaption>{errors}</figure>"
        )?;
    }
    part(out, "Error over the length of a sum", &grouped(report, |section| section == "kernel"))?;
    part(out, "Error from position to position", &grouped(report, |section| section == "model"))?;
    for (unit, rows) in speeds(report) {
        let svg = bars(&format!("Speed in {unit}"), &rows);
        if !svg.is_empty() {
            writeln!(out, "<h3>Speed: {}</h3><figure>{svg}</figure>", escaped(&unit))?;
        }
    }
    part(out, "Speed over size", &grouped(report, |section| section == "speed"))
}

fn part(out: &mut String, title: &str, figures: &[String]) -> std::fmt::Result {
    if figures.is_empty() {
        return Ok(());
    }
    writeln!(out, "<h3>{title}</h3>\n<div class=\"plots\">")?;
    figures.iter().take(MOST).try_for_each(|f| writeln!(out, "{f}"))?;
    writeln!(out, "</div>")?;
    if figures.len() > MOST {
        writeln!(out, "<p class=\"muted\">{} plots more are left out; the JSON has their points.</p>", figures.len() - MOST)?;
    }
    Ok(())
}

/// A test, and the name of a measure of it that has a curve.
type Curve<'a> = (&'a Test, &'a str, &'a Measure);

/// Tests of some sections with their measures that have curves.
fn curves(report: &Report, of: impl Fn(&str) -> bool) -> Vec<Curve<'_>> {
    let tests = report.tests.iter().filter(|t| of(section_of(&t.id)));
    tests.flat_map(|t| t.measures.iter().filter(|(_, m)| m.curve.len() > 1).map(move |(name, m)| (t, name.as_str(), m))).collect()
}

fn beside(name: &str, m: &Measure) -> String {
    if m.unit.is_empty() { name.to_owned() } else { m.unit.clone() }
}

/// A plot for each curve.
fn small(report: &Report, of: impl Fn(&str) -> bool) -> Vec<String> {
    let draw = |(test, name, m): Curve<'_>| {
        let (id, y) = (test.id.as_str(), beside(name, m));
        let series = [Series { name: id.to_owned(), points: &m.curve }];
        // A bound far above all points would press them to the ground; the caption has it.
        let bound = m.most.filter(|most| *most <= 12.0 * m.value.abs());
        let svg = lines(&Lines { title: id, x: "argument", y: &y, series: &series, bound, factors: false });
        figure(id, &words(name, m), &svg)
    };
    curves(report, of).into_iter().map(draw).filter(|f| !f.is_empty()).collect()
}

/// A plot for each kernel, or whatever comes second in ids, with a line for each test.
fn grouped(report: &Report, of: impl Fn(&str) -> bool) -> Vec<String> {
    let mut groups: BTreeMap<(String, String), Vec<Curve<'_>>> = BTreeMap::new();
    for (test, name, m) in curves(report, of) {
        let mut parts = test.id.split('/');
        let head = [parts.next(), parts.next()].into_iter().flatten().collect::<Vec<_>>().join("/");
        groups.entry((head, name.to_owned())).or_default().push((test, name, m));
    }
    let draw = |((head, name), of): ((String, String), Vec<Curve<'_>>)| {
        let rest = |id: &str| id.strip_prefix(&head).map_or(id, |r| r.trim_start_matches('/')).to_owned();
        let series: Vec<Series<'_>> = of
            .iter()
            .map(|(t, _, m)| Series {
                name: Some(rest(&t.id)).filter(|r| !r.is_empty()).unwrap_or(head.clone()),
                points: &m.curve,
            })
            .collect();
        let y = of.first().map_or_else(String::new, |(_, name, m)| beside(name, m));
        let x = match section_of(&head) {
            "speed" => "bytes",
            "model" => "position",
            _ => "K: terms of a sum",
        };
        let more = if series.len() > COLOURS { format!("{name}, {} tests", series.len()) } else { name };
        figure(
            &head,
            &more,
            &lines(&Lines { title: &head, x, y: &y, series: &series, bound: None, factors: section_of(&head) != "model" }),
        )
    };
    groups.into_iter().map(draw).filter(|f| !f.is_empty()).collect()
}

fn figure(title: &str, more: &str, svg: &str) -> String {
    if svg.is_empty() {
        return String::new();
    }
    format!("<figure><figcaption>{} <span>{}</span></figcaption>{svg}</figure>", escaped(title), escaped(more))
}

/// Errors of kernels and models: a row for each kernel and bound.
fn errors(report: &Report) -> String {
    let mut rows: Vec<(String, Vec<Dot>, Option<f64>)> = Vec::new();
    for test in report.tests.iter().filter(|t| matches!(section_of(&t.id), "kernel" | "model")) {
        let Some(m) = test.measures.get("nmse").filter(|m| m.value.is_finite()) else { continue };
        let name = test.id.split('/').take(2).collect::<Vec<_>>().join("/");
        let dot = Dot { name: test.id.clone(), value: m.value, good: m.is_within() };
        match rows.iter_mut().find(|(n, _, bound)| *n == name && *bound == m.most) {
            Some((_, dots, _)) => dots.push(dot),
            None => rows.push((name, vec![dot], m.most)),
        }
    }
    // Rows of a kernel are beside each other.
    let firsts: Vec<String> = rows.iter().map(|(name, ..)| name.clone()).collect();
    rows.sort_by_key(|(name, ..)| firsts.iter().position(|first| first == name));
    dots("Normalised mean square error by kernel", "NMSE", &rows)
}

/// Numbers of the section on speed, by unit.
fn speeds(report: &Report) -> Vec<(String, Vec<Bar>)> {
    let mut by_unit: Vec<(String, Vec<Bar>)> = Vec::new();
    for test in report.tests.iter().filter(|t| section_of(&t.id) == "speed" && t.verdict != Verdict::Skip) {
        for (name, m) in test.measures.iter().filter(|(_, m)| !m.unit.is_empty()) {
            let id = test.id.strip_prefix("speed/").unwrap_or(&test.id);
            let row = Bar { name: format!("{id}: {name}"), value: m.value, words: format!("{} {}", number(m.value), m.unit) };
            match by_unit.iter_mut().find(|(unit, _)| *unit == m.unit) {
                Some((_, rows)) => rows.push(row),
                None => by_unit.push((m.unit.clone(), vec![row])),
            }
        }
    }
    by_unit.iter_mut().for_each(|(_, rows)| rows.truncate(MOST_BARS));
    by_unit
}
