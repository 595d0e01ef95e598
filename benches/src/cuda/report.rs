//! The tables and the JSON: written anew after every run, so that whatever stops it leaves what was measured.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::{
    Setting,
    files::Model,
    plan::{Kind, depth_test, depths},
    row::{Profile, Row},
};
use crate::stats::{bytes, number, percent, ratio, table};

/// Terms of a profile in a table.
const TERMS: usize = 10;

/// Everything.
pub struct Report {
    /// What all runs have in common.
    pub setting: Setting,
    /// The models.
    pub models: Vec<Model>,
    /// The runs, and what was measured.
    pub rows: Vec<Row>,
}

/// What is known of a contender on a model.
struct Contender<'a> {
    name: &'a str,
    rows: Vec<&'a Row>,
}

impl Contender<'_> {
    fn speed(&self, test: &str) -> Option<f64> {
        self.rows.iter().find_map(|r| r.speed(test))
    }
}

impl Report {
    fn prefill(tokens: usize) -> String {
        format!("pp{tokens}")
    }

    fn decode(&self) -> String {
        format!("tg{}", self.setting.predict)
    }

    fn rows_of(&self, model: usize) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(move |r| r.model == model)
    }

    /// The contenders of a model, in the order of the plan.
    fn contenders(&self, model: usize) -> Vec<Contender<'_>> {
        let mut all: Vec<Contender<'_>> = Vec::new();
        for row in self.rows_of(model) {
            match all.iter_mut().find(|c| c.name == row.name) {
                Some(c) => c.rows.push(row),
                None => all.push(Contender { name: &row.name, rows: vec![row] }),
            }
        }
        all
    }

    fn profile(&self, model: usize) -> Option<&Profile> {
        self.rows_of(model).flat_map(|r| &r.samples).find_map(|s| s.profile.as_ref())
    }

    /// Bytes of weights that a token of the model reads.
    fn weight_bytes(&self, model: usize) -> Option<f64> {
        self.rows_of(model).flat_map(|r| &r.samples).find_map(|s| s.weight_bytes)
    }

    /// Bytes a second of a copy on the card: of the model's own profile, else of any.
    fn bandwidth(&self, model: usize) -> Option<f64> {
        let any = || (0..self.models.len()).find_map(|i| self.profile(i));
        self.profile(model).or_else(any).map(|p| p.bandwidth)
    }

    /// The share of the floor that a speed is: the floor reads a token's weights as fast as memory is copied.
    fn share(&self, model: usize, speed: Option<f64>) -> Option<f64> {
        ratio(Some(speed? * self.weight_bytes(model)?), self.bandwidth(model))
    }

    /// A table for each model, with its profile.
    pub fn markdown(&self) -> String {
        let s = &self.setting;
        let mut text = format!(
            "# Pleiad's CUDA backend\n\nversion {}; decoding {} tokens at batch 1, medians of {} rounds{}\n\n",
            env!("CARGO_PKG_VERSION"),
            s.predict,
            s.rounds,
            self.machine()
        );
        for (i, model) in self.models.iter().enumerate().filter(|(i, _)| self.rows_of(*i).next().is_some()) {
            let size = model.bytes.map_or_else(String::new, |b| format!(", {}", bytes(Some(b as f64))));
            let _ = writeln!(text, "## {}{size}\n", model.name());
            if let (Some(weights), Some(bandwidth)) = (self.weight_bytes(i), self.bandwidth(i)) {
                let _ = writeln!(
                    text,
                    "a token reads {} of weights; a copy on the card moves {}/s: {} tokens a second at the most\n",
                    bytes(Some(weights)),
                    bytes(Some(bandwidth)),
                    number(ratio(Some(bandwidth), Some(weights)), 1)
                );
            }
            text.push_str(&self.speeds(i, model));
            text.push('\n');
            if let Some(profile) = self.profile(i) {
                text.push_str(&attention(profile));
                text.push('\n');
                text.push_str(&terms(profile));
            }
        }
        text
    }

    /// The devices that reports name.
    fn machine(&self) -> String {
        let mut said: Vec<String> = Vec::new();
        for row in &self.rows {
            let Some(report) = row.samples.first().map(|s| &s.report) else { continue };
            let word = |value: &Value| value.as_str().unwrap_or("").trim().to_owned();
            let what = if report.is_object() {
                format!("{}: {}", row.name, word(&report["device"]))
            } else {
                let first = &report[0];
                format!(
                    "{}: {} on {}, build {}",
                    row.name,
                    word(&first["backends"]),
                    word(&first["gpu_info"]),
                    first["build_number"]
                )
            };
            if !said.contains(&what) {
                said.push(what);
            }
        }
        said.iter().map(|what| format!("; {what}")).collect()
    }

    /// Speeds of all contenders on a model; ratios say how many times as fast the first one is.
    fn speeds(&self, index: usize, model: &Model) -> String {
        let (prompts, depths, decode) = (&self.setting.prompts, depths(&self.setting, model), self.decode());
        let contenders = self.contenders(index);
        let first = contenders.first();
        let prefills: Vec<String> = prompts.iter().map(|&n| format!("prefill {n}")).collect();
        let deep: Vec<String> = depths.iter().map(|d| format!("decode at {d}")).collect();
        let mut head = vec![("program", false)];
        for name in &prefills {
            head.extend([(name.as_str(), true), ("ratio", true)]);
        }
        head.extend([("decode", true), ("ratio", true), ("of the floor", true)]);
        for name in &deep {
            head.extend([(name.as_str(), true), ("ratio", true)]);
        }
        head.push(("notes", false));
        let rows = contenders.iter().map(|c| {
            let pair = |test: &str| {
                let mine = c.speed(test);
                [number(mine, 1), number(ratio(first.and_then(|f| f.speed(test)), mine), 2)]
            };
            let mut cells = vec![c.name.to_owned()];
            cells.extend(prompts.iter().flat_map(|&n| pair(&Self::prefill(n))));
            cells.extend(pair(&decode));
            cells.push(percent(self.share(index, c.speed(&decode))));
            cells.extend(depths.iter().flat_map(|&d| pair(&depth_test(d))));
            let notes: Vec<String> = c.rows.iter().map(|r| r.notes(self.setting.rounds)).filter(|n| !n.is_empty()).collect();
            cells.push(notes.join("; "));
            cells
        });
        table(&head, &rows.collect::<Vec<_>>())
    }

    /// Every figure.
    pub fn json(&self) -> Value {
        let s = &self.setting;
        let models = self.models.iter().enumerate().map(|(i, m)| {
            json!({
                "shape": m.shape.name(), "format": m.form.quant(), "path": m.path, "bytes": m.bytes,
                "weight_bytes_a_token": self.weight_bytes(i), "copy_bytes_per_second": self.bandwidth(i),
            })
        });
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "started_unix_seconds": s.started,
            "prompts": s.prompts, "predict": s.predict, "depths": s.depths, "rounds": s.rounds,
            "models": models.collect::<Vec<_>>(),
            "rows": self.rows.iter().map(|r| self.row_json(r)).collect::<Vec<_>>(),
        })
    }

    fn row_json(&self, row: &Row) -> Value {
        let mut names: Vec<&str> = Vec::new();
        for (name, _) in row.samples.iter().flat_map(|s| &s.tests) {
            if !names.contains(&name.as_str()) {
                names.push(name);
            }
        }
        let first = self.contenders(row.model).into_iter().next();
        let tests = names.into_iter().map(|name| {
            let speed = row.speed(name);
            let base = first.as_ref().and_then(|f| f.speed(name));
            let share = (row.kind == Kind::Speed && name.starts_with("tg")).then(|| self.share(row.model, speed)).flatten();
            json!({"test": name, "tokens_per_second": speed, "first_to_this": ratio(base, speed), "share_of_floor": share})
        });
        json!({
            "model": self.models.get(row.model).map(Model::name),
            "program": row.name,
            "kind": row.kind.name(),
            "tests": tests.collect::<Vec<_>>(),
            "ended": row.ended.as_ref().map(ToString::to_string),
            "command": row.command,
            "runs": row.samples.iter().map(|s| json!({"seconds": s.seconds, "report": s.report})).collect::<Vec<_>>(),
        })
    }
}

/// What attention takes at each length.
fn attention(p: &Profile) -> String {
    let head = [
        ("positions", true),
        ("step ms", true),
        ("tok/s", true),
        ("attention µs", true),
        ("of the kernels", true),
        ("cache read", true),
        ("cache read a second", true),
        ("of a copy", true),
    ];
    let rows = p.steps.iter().map(|s| {
        let rate = ratio(Some(s.cache_bytes), Some(s.attention()));
        vec![
            s.length.to_string(),
            number(Some(s.seconds * 1e3), 3),
            number(ratio(Some(1.0), Some(s.seconds)), 1),
            number(Some(s.attention() * 1e6), 1),
            percent(ratio(Some(s.attention()), Some(s.sum()))),
            bytes(Some(s.cache_bytes)),
            bytes(rate),
            percent(ratio(rate, Some(p.bandwidth))),
        ]
    });
    table(&head, &rows.collect::<Vec<_>>())
}

/// The largest terms of the shortest and the longest step.
fn terms(p: &Profile) -> String {
    let mut text = String::new();
    let ends = [p.steps.first(), p.steps.last().filter(|_| p.steps.len() > 1)];
    for step in ends.into_iter().flatten() {
        let _ = writeln!(text, "The largest terms at a length of {}:\n", step.length);
        let row = |name: &str, launches: u64, seconds: f64| {
            let share = percent(ratio(Some(seconds), Some(step.sum())));
            vec![name.to_owned(), launches.to_string(), number(Some(seconds * 1e6), 1), share]
        };
        let mut rows: Vec<_> = step.terms.iter().take(TERMS).map(|t| row(&t.name, t.launches, t.seconds)).collect();
        let rest: Vec<_> = step.terms.iter().skip(TERMS).collect();
        if !rest.is_empty() {
            let (launches, seconds) = (rest.iter().map(|t| t.launches).sum(), rest.iter().map(|t| t.seconds).sum());
            rows.push(row(&format!("{} more", rest.len()), launches, seconds));
        }
        text.push_str(&table(&[("kernel", false), ("launches", true), ("µs", true), ("share", true)], &rows));
        text.push('\n');
    }
    text
}
