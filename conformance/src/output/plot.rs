//! Plots as SVG that takes its colours from the page around it. Every mark has a title, which browsers show and read out.

use std::fmt::Write as _;

use super::escaped;
use crate::summary::number;

/// As many series as there are colours that can be told apart.
pub const COLOURS: usize = 8;

/// How numbers become places.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scale {
    /// Equal steps.
    Linear,
    /// Equal factors.
    Log,
    /// Equal factors on both sides of 0, from that size on.
    Symmetric(f64),
}

impl Scale {
    /// The one that shows all of them.
    pub fn of(values: impl Iterator<Item = f64> + Clone) -> Self {
        let sizes = values.clone().map(f64::abs).filter(|v| *v > 0.0 && v.is_finite());
        let (least, most) = sizes.fold((f64::INFINITY, 0.0f64), |(a, b), v| (a.min(v), b.max(v)));
        if most <= 200.0 * least {
            Self::Linear
        } else if values.clone().any(|v| v <= 0.0) {
            if most <= 1e3 { Self::Linear } else { Self::Symmetric(least) }
        } else {
            Self::Log
        }
    }

    fn place(self, v: f64) -> f64 {
        match self {
            Self::Linear => v,
            Self::Log => v.max(f64::MIN_POSITIVE).log10(),
            Self::Symmetric(from) => v.signum() * (1.0 + v.abs() / from).log10(),
        }
    }
}

/// A part of the plane with numbers on one of its sides.
#[derive(Clone, Copy, Debug)]
struct Axis {
    scale: Scale,
    least: f64,
    most: f64,
    /// Where these two are.
    from: f64,
    to: f64,
}

impl Axis {
    fn new(scale: Scale, values: impl Iterator<Item = f64>, from: f64, to: f64) -> Option<Self> {
        let finite = values.filter(|v| v.is_finite() && (scale != Scale::Log || *v > 0.0));
        let (mut least, mut most) = finite.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| (a.min(v), b.max(v)));
        if least > most {
            return None;
        }
        if least == most {
            (least, most) = if least == 0.0 { (0.0, 1.0) } else { (least - least.abs() / 2.0, least + least.abs() / 2.0) };
        }
        Some(Self { scale, least, most, from, to })
    }

    fn at(&self, v: f64) -> f64 {
        let [a, b, v] = [self.least, self.most, v.clamp(self.least, self.most)].map(|v| self.scale.place(v));
        self.from + (v - a) / (b - a) * (self.to - self.from)
    }

    fn ticks(&self) -> Vec<f64> {
        match self.scale {
            Scale::Linear => {
                let step = step((self.most - self.least) / 4.0);
                let first = (self.least / step).ceil() as i64;
                let last = (self.most / step).floor() as i64;
                (first..=last).map(|i| i as f64 * step).collect()
            }
            // Within less than a decade, powers of two.
            Scale::Log if self.most < 20.0 * self.least => {
                let (first, last) = ((self.least.log2() - 1e-9).ceil() as i32, (self.most.log2() + 1e-9).floor() as i32);
                (first..=last).map(|p| 2f64.powi(p)).collect()
            }
            Scale::Log => decades(self.least, self.most, 6),
            Scale::Symmetric(from) => {
                let side = decades(from, self.most.abs().max(self.least.abs()), 3);
                let below = side.iter().rev().map(|v| -v).filter(|v| *v >= self.least);
                below.chain([0.0]).chain(side.iter().copied().filter(|v| *v <= self.most)).collect()
            }
        }
    }
}

/// The step of 1, 2 or 5 times a power of 10 that is nearest above.
fn step(least: f64) -> f64 {
    let power = 10f64.powf(least.abs().max(f64::MIN_POSITIVE).log10().floor());
    [1.0, 2.0, 5.0, 10.0].map(|s| s * power).into_iter().find(|s| *s >= least).unwrap_or(power)
}

/// Powers of 10 in a range, at most so many.
fn decades(least: f64, most: f64, count: i32) -> Vec<f64> {
    let (first, last) = ((least.log10() - 1e-9).ceil() as i32, (most.log10() + 1e-9).floor() as i32);
    let every = ((last - first) / count.max(1) + 1).max(1);
    (first..=last).filter(|p| (last - p) % every == 0).map(|p| 10f64.powi(p)).collect()
}

/// A number beside an axis: as short as can be.
fn tick(x: f64) -> String {
    if x != 0.0 && !(1e-3..1e5).contains(&x.abs()) { format!("{x:.1e}").replace(".0e", "e") } else { number(x) }
}

/// A series of points.
pub struct Series<'a> {
    /// What it is.
    pub name: String,
    /// Its points.
    pub points: &'a [(f64, f64)],
}

/// What a plot of lines shows.
pub struct Lines<'a> {
    /// What it is called.
    pub title: &'a str,
    /// What is below it.
    pub x: &'a str,
    /// What is beside it.
    pub y: &'a str,
    /// The lines.
    pub series: &'a [Series<'a>],
    /// Where the bound is.
    pub bound: Option<f64>,
    /// Whether what is below it grows by factors.
    pub factors: bool,
}

/// A plot of lines, with a legend where there are several. Empty: there is nothing to show.
pub fn lines(plot: &Lines<'_>) -> String {
    let (w, h) = (340.0, 210.0);
    let (left, right, top, bottom) = (52.0, w - 10.0, 10.0, h - 36.0);
    let points = || plot.series.iter().flat_map(|s| s.points.iter().copied()).filter(|p| p.0.is_finite() && p.1.is_finite());
    let factors = plot.factors && points().all(|p| p.0 > 0.0);
    let x_scale = if factors { Scale::Log } else { Scale::of(points().map(|p| p.0)) };
    let y_scale = match Scale::of(points().map(|p| p.1)) {
        Scale::Symmetric(_) => Scale::Linear,
        other => other,
    };
    let floor = (y_scale == Scale::Linear).then_some(0.0);
    let (Some(x), Some(y)) = (
        Axis::new(x_scale, points().map(|p| p.0), left, right),
        Axis::new(y_scale, points().map(|p| p.1).chain(plot.bound).chain(floor), bottom, top),
    ) else {
        return String::new();
    };
    let mut out = open(plot.title, w, h);
    grid(&mut out, &x, &y, [left, right, top, bottom], [plot.x, plot.y]);
    if let Some(bound) = plot.bound {
        let at = y.at(bound);
        let _ = write!(
            out,
            "<line class=\"bound\" x1=\"{left}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\"><title>bound: {}</title></line>",
            number(bound)
        );
    }
    let colour = |i: usize| if plot.series.len() > COLOURS { 0 } else { i };
    for (i, series) in plot.series.iter().enumerate() {
        let drawn: Vec<(f64, f64)> = series.points.iter().copied().filter(|p| p.0.is_finite() && p.1.is_finite()).collect();
        let places: Vec<String> = drawn.iter().map(|p| format!("{:.1},{:.1}", x.at(p.0), y.at(p.1))).collect();
        let name = escaped(&series.name);
        let _ = write!(
            out,
            "<polyline class=\"line c{}\" points=\"{}\"><title>{name}</title></polyline>",
            colour(i),
            places.join(" ")
        );
        // Where there are few points they are marked.
        for p in drawn.iter().filter(|_| drawn.len() <= 16) {
            let (px, py, at, value) = (x.at(p.0), y.at(p.1), number(p.0), number(p.1));
            let _ = write!(
                out,
                "<circle class=\"c{}\" cx=\"{px:.1}\" cy=\"{py:.1}\" r=\"2.5\"><title>{name}: {value} at {at}</title></circle>",
                colour(i)
            );
        }
    }
    out.push_str("</svg>");
    if plot.series.len() > 1 && plot.series.len() <= COLOURS {
        out.push_str("<ul class=\"legend\">");
        for (i, s) in plot.series.iter().enumerate() {
            let _ = write!(out, "<li><i class=\"c{i}\"></i>{}</li>", escaped(&s.name));
        }
        out.push_str("</ul>");
    }
    out
}

fn open(title: &str, w: f64, h: f64) -> String {
    let title = escaped(title);
    format!("<svg viewBox=\"0 0 {w} {h}\" role=\"img\" aria-label=\"{title}\">")
}

fn grid(out: &mut String, x: &Axis, y: &Axis, [left, right, top, bottom]: [f64; 4], [below, beside]: [&str; 2]) {
    for tick in y.ticks() {
        let at = y.at(tick);
        let _ = write!(out, "<line class=\"grid\" x1=\"{left}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>");
        let _ = write!(out, "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>", left - 5.0, at + 3.5, self::tick(tick));
    }
    let mut free = f64::NEG_INFINITY;
    for tick in x.ticks() {
        let (at, text) = (x.at(tick), self::tick(tick));
        let half = 3.2 * text.chars().count() as f64;
        // The last one stays within.
        let middle = at.min(right + 10.0 - half);
        let _ = write!(out, "<line class=\"grid\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{top}\" y2=\"{bottom}\"/>");
        // Numbers that would touch are left out.
        if middle - half > free {
            let _ = write!(out, "<text x=\"{middle:.1}\" y=\"{}\" text-anchor=\"middle\">{text}</text>", bottom + 13.0);
            free = middle + half + 4.0;
        }
    }
    let middle = (left + right) / 2.0;
    let _ = write!(
        out,
        "<text class=\"name\" x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
        bottom + 29.0,
        escaped(below)
    );
    let half = (top + bottom) / 2.0;
    let _ = write!(
        out,
        "<text class=\"name\" transform=\"translate(11 {half}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
        escaped(beside)
    );
}

/// A row of a plot of bars.
pub struct Bar {
    /// What it is.
    pub name: String,
    /// How long it is.
    pub value: f64,
    /// What is written behind it.
    pub words: String,
}

/// Bars under each other, from 0 on. Empty: there is nothing to show.
pub fn bars(title: &str, rows: &[Bar]) -> String {
    let most = rows.iter().map(|r| r.value).filter(|v| v.is_finite()).fold(0.0, f64::max);
    if most <= 0.0 {
        return String::new();
    }
    let (w, each, left, right) = (700.0, 19.0, 330.0, 600.0);
    let mut out = open(title, w, each * rows.len() as f64 + 4.0);
    for (i, row) in rows.iter().enumerate() {
        let top = i as f64 * each + 3.0;
        let long = if row.value.is_finite() { (row.value / most * (right - left)).max(1.0) } else { 0.0 };
        let (name, words) = (escaped(&shortened(&row.name, 52)), escaped(&row.words));
        let whole = escaped(&row.name);
        let _ = write!(
            out,
            "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{name}</text><rect class=\"c0\" x=\"{left}\" y=\"{top}\" width=\"{long:.1}\" \
             height=\"{}\" rx=\"2\"><title>{whole}: {words}</title></rect><text class=\"value\" x=\"{:.1}\" y=\"{:.1}\">{words}</text>",
            left - 8.0,
            top + 10.5,
            each - 5.0,
            left + long + 6.0,
            top + 10.5
        );
    }
    out + "</svg>"
}

/// A text of at most so many characters: the middle of a long one is left out.
fn shortened(text: &str, most: usize) -> String {
    let all: Vec<char> = text.chars().collect();
    if all.len() <= most {
        return text.to_owned();
    }
    let half = (most - 1) / 2;
    let (head, tail): (String, String) = (all[..half].iter().collect(), all[all.len() - half..].iter().collect());
    format!("{head}…{tail}")
}

/// A mark in a row of a plot of dots.
pub struct Dot {
    /// What it is.
    pub name: String,
    /// Where it is.
    pub value: f64,
    /// Whether it is within its bound.
    pub good: bool,
}

/// Rows of dots over equal factors, each with its bound; nothing at all is at the left. Empty: there is nothing to show.
pub fn dots(title: &str, x: &str, rows: &[(String, Vec<Dot>, Option<f64>)]) -> String {
    let (w, each, left, right) = (700.0, 19.0, 200.0, 690.0);
    let h = each * rows.len() as f64 + 44.0;
    let bottom = h - 36.0;
    let values = rows.iter().flat_map(|(_, dots, bound)| dots.iter().map(|d| d.value).chain(*bound));
    let Some(axis) = Axis::new(Scale::Log, values, left + 14.0, right) else { return String::new() };
    let mut out = open(title, w, h);
    for tick in axis.ticks() {
        let at = axis.at(tick);
        let _ = write!(out, "<line class=\"grid\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"4\" y2=\"{bottom}\"/>");
        let _ = write!(out, "<text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>", bottom + 13.0, self::tick(tick));
    }
    let _ = write!(out, "<text x=\"{left}\" y=\"{}\" text-anchor=\"middle\">0</text>", bottom + 13.0);
    for (i, (name, dots, bound)) in rows.iter().enumerate() {
        let y = i as f64 * each + 13.5;
        let _ = write!(
            out,
            "<line class=\"grid\" x1=\"{left}\" x2=\"{right}\" y1=\"{y}\" y2=\"{y}\"/><text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>",
            left - 8.0,
            y + 3.5,
            escaped(&shortened(name, 30))
        );
        if let Some(bound) = bound {
            let at = axis.at(*bound);
            let _ = write!(
                out,
                "<line class=\"bound\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{}\" y2=\"{}\"><title>bound: {}</title></line>",
                y - 7.0,
                y + 7.0,
                number(*bound)
            );
        }
        for dot in dots {
            let at = if dot.value > 0.0 { axis.at(dot.value) } else { left };
            let class = if dot.good { "c0" } else { "bad" };
            let _ = write!(
                out,
                "<circle class=\"dot {class}\" cx=\"{at:.1}\" cy=\"{y}\" r=\"3.5\"><title>{}: {}</title></circle>",
                escaped(&dot.name),
                number(dot.value)
            );
        }
    }
    let _ = write!(
        out,
        "<text class=\"name\" x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text></svg>",
        (left + right) / 2.0,
        bottom + 29.0,
        escaped(x)
    );
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_follow_from_the_numbers() {
        let of = |v: &[f64]| Scale::of(v.iter().copied());
        assert_eq!(of(&[1.0, 100.0]), Scale::Linear);
        assert_eq!(of(&[1.0, 1e4]), Scale::Log);
        assert_eq!(of(&[-20.0, 0.01, 20.0]), Scale::Linear);
        assert_eq!(of(&[-1e9, 1e-9, 1e9]), Scale::Symmetric(1e-9));
        assert_eq!(of(&[0.0, f64::NAN]), Scale::Linear);
    }

    #[test]
    fn ticks_are_round_and_within() {
        let axis = |scale, v: &[f64]| Axis::new(scale, v.iter().copied(), 0.0, 100.0).map(|a| (a.ticks(), a.at(v[0])));
        assert_eq!(axis(Scale::Linear, &[0.0, 10.0]), Some((vec![0.0, 5.0, 10.0], 0.0)));
        assert_eq!(axis(Scale::Log, &[1.0, 1000.0]).map(|a| a.0), Some(vec![1.0, 10.0, 100.0, 1000.0]));
        assert_eq!(axis(Scale::Symmetric(1.0), &[-100.0, 100.0]).map(|a| a.0.len()), Some(7));
        assert!(axis(Scale::Log, &[0.0]).is_none() && axis(Scale::Linear, &[f64::NAN]).is_none());
        assert_eq!(axis(Scale::Linear, &[3.0]).map(|a| a.1), Some(50.0));
        assert_eq!(axis(Scale::Linear, &[0.0]).map(|a| a.0), Some(vec![0.0, 0.5, 1.0]));
        assert_eq!([0.0, 1e-16, 2.5e5, 4000.0].map(tick), ["0", "1e-16", "2.5e5", "4000"]);
        assert!(decades(1e-30, 1e30, 6).len() <= 7);
    }

    #[test]
    fn plots_hold_what_they_are_given() {
        let points = [(1.0, 0.5), (2.0, f64::NAN), (4.0, 2.0)];
        let series = [Series { name: "a<b".into(), points: &points }, Series { name: "b".into(), points: &points[..1] }];
        let plot = Lines { title: "t", x: "x", y: "y", series: &series, bound: Some(3.0), factors: true };
        let svg = lines(&plot);
        assert_eq!(svg.matches("<polyline").count(), 2);
        assert!(svg.contains("a&lt;b") && svg.contains("bound: 3") && !svg.contains("NaN"), "{svg}");
        assert_eq!(lines(&Lines { series: &[], ..plot }), "");
        let bar = |value| Bar { name: "n".into(), value, words: "w".into() };
        assert_eq!(bars("t", &[bar(1.0), bar(2.0)]).matches("<rect").count(), 2);
        assert_eq!(bars("t", &[bar(0.0)]), "");
        let dot = |value, good| Dot { name: "d".into(), value, good };
        let svg = dots("t", "x", &[("k".into(), vec![dot(0.0, true), dot(1e-9, false)], Some(1e-7))]);
        assert_eq!(svg.matches("<circle").count(), 2);
        assert_eq!(shortened("abcdefgh", 5), "ab…gh");
    }
}
