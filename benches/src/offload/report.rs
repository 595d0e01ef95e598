//! The tables and the JSON: written anew after every run, so that whatever stops it leaves what was measured.

use std::{fmt::Write as _, fs, io, path::Path};

use serde_json::{Value, json};

use super::{
    Routing, Setting,
    fit::{Fit, Share},
    row::{Ended, Row, Sample, best_single, whole},
};
use crate::stats::{bytes, number, percent, ratio, table};

/// A model, or why there are no rows of it.
pub struct Entry {
    /// As it was given.
    pub path: String,
    /// What it needs.
    pub fit: Result<Fit, String>,
}

/// Everything.
pub struct Report {
    /// What all runs have in common.
    pub setting: Setting,
    /// In the order of the tables.
    pub routing: Vec<Routing>,
    /// The models.
    pub models: Vec<Entry>,
    /// The conditions, and what was measured.
    pub rows: Vec<Row>,
}

const HEAD: [(&str, bool); 14] = [
    ("experts on the GPU", false),
    ("program", false),
    ("misses", false),
    ("prefill tok/s", true),
    ("to 100 %", true),
    ("decode tok/s", true),
    ("to 100 %", true),
    ("hits", true),
    ("moved a token", true),
    ("rendezvous a token", true),
    ("submissions a token", true),
    ("ways of auto", false),
    ("auto to best", true),
    ("notes", false),
];

impl Report {
    /// A table for each model and routing.
    pub fn markdown(&self) -> String {
        let mut text = String::new();
        let s = &self.setting;
        for (i, model) in self.models.iter().enumerate() {
            let fit = match &model.fit {
                Ok(fit) => fit,
                Err(why) => {
                    let _ = writeln!(text, "## {}\n\n{why}\n", model.path);
                    continue;
                }
            };
            for &routing in &self.routing {
                let _ = writeln!(text, "## {}, routing {}\n", fit.title, routing.title());
                let _ = writeln!(
                    text,
                    "prompt {}, decode {}, context {}, chunks of {}; medians of {} rounds{}\n",
                    s.prompt,
                    s.predict,
                    s.context,
                    s.chunk,
                    s.rounds,
                    self.machine(i)
                );
                let rows = self.rows.iter().filter(|r| r.is_in(i, routing)).map(|r| self.cells(r, routing)).collect::<Vec<_>>();
                text.push_str(&table(&HEAD, &rows));
                text.push('\n');
            }
        }
        text
    }

    /// The devices and versions that reports of this model's runs name.
    fn machine(&self, model: usize) -> String {
        let mut said: Vec<String> = Vec::new();
        for row in self.rows.iter().filter(|r| r.model == model && r.share.is_some()) {
            let Some(report) = row.samples.first().map(|s| &s.report) else { continue };
            let word = |value: &Value| value.as_str().unwrap_or("").trim().to_owned();
            let what = if report.is_object() {
                format!("{}: {}, version {}", row.name, word(&report["device"]), word(&report["version"]))
            } else {
                let (on, build) = (word(&report[0]["backends"]), &report[0]["build_number"]);
                let gpu = word(&report[0]["gpu_info"]);
                format!("{}: {on}{}{gpu}, build {build}", row.name, if gpu.is_empty() { "" } else { " on " })
            };
            if !said.contains(&what) {
                said.push(what);
            }
        }
        said.iter().map(|what| format!("; {what}")).collect()
    }

    fn cells(&self, row: &Row, routing: Routing) -> Vec<String> {
        let share = match row.share {
            None => "none".into(),
            Some(Share::Floor) => format!("{} (floor)", percent(Some(row.resident))),
            Some(Share::Percent(_)) => percent(Some(row.resident)),
        };
        let base = whole(&self.rows, row, routing);
        let ways = row.samples.last().and_then(|s| s.experts.as_ref()).filter(|_| row.way == Some(super::Way::Auto));
        let ways = ways.map(|e| e.ways.iter().map(|(way, share)| format!("{way} {:.0} %", share * 100.0)).collect::<Vec<_>>());
        vec![
            share,
            row.name.clone(),
            row.misses.clone(),
            number(row.prefill(), 1),
            number(ratio(row.prefill(), base.and_then(Row::prefill)), 2),
            number(row.decode(), 2),
            number(ratio(row.decode(), base.and_then(Row::decode)), 2),
            percent(row.experts(|e| e.hit_rate)),
            bytes(row.experts(|e| e.bytes)),
            number(row.experts(|e| e.rendezvous), 2),
            number(row.experts(|e| e.submissions), 2),
            ways.map_or_else(String::new, |w| w.join(", ")),
            best_single(&self.rows, row).map_or_else(String::new, |b| number(ratio(row.decode(), b.decode()), 3)),
            row.notes(self.setting.rounds),
        ]
    }

    /// Every figure.
    pub fn json(&self) -> Value {
        let s = &self.setting;
        let models = self.models.iter().map(|m| match &m.fit {
            Ok(f) => {
                let (least, whole, layers) = (f.least, f.whole, f.mixtures());
                json!({
                    "path": m.path, "model": f.title, "least_bytes": least, "whole_bytes": whole, "mixture_layers": layers,
                })
            }
            Err(why) => json!({"path": m.path, "error": why}),
        });
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "started_unix_seconds": s.started,
            "prompt": s.prompt, "predict": s.predict, "context": s.context, "chunk": s.chunk, "rounds": s.rounds,
            "models": models.collect::<Vec<_>>(),
            "rows": self.rows.iter().map(|r| self.row_json(r)).collect::<Vec<_>>(),
        })
    }

    fn row_json(&self, row: &Row) -> Value {
        // A row of all tables has the ratios of the first.
        let routing = row.routing.or(self.routing.first().copied());
        let base = routing.and_then(|r| whole(&self.rows, row, r));
        let best = best_single(&self.rows, row);
        let ways = row.samples.last().and_then(|s| s.experts.as_ref());
        let ways = ways.map(|e| e.ways.iter().map(|(way, share)| json!({"way": way, "share": share})).collect::<Vec<_>>());
        json!({
            "model": self.models.get(row.model).map(|m| &m.path),
            "routing": row.routing.map(Routing::name),
            "program": row.name,
            "share": row.share.map(|s| s.to_string()),
            "resident_share": row.resident,
            "budget_bytes": row.budget,
            "way": row.way.map(super::Way::name),
            "misses": row.misses,
            "prefill_tokens_per_second": row.prefill(),
            "prefill_to_whole": ratio(row.prefill(), base.and_then(Row::prefill)),
            "decode_tokens_per_second": row.decode(),
            "decode_to_whole": ratio(row.decode(), base.and_then(Row::decode)),
            "hit_rate": row.experts(|e| e.hit_rate),
            "expert_bytes_per_token": row.experts(|e| e.bytes),
            "rendezvous_per_token": row.experts(|e| e.rendezvous),
            "submissions_per_token": row.experts(|e| e.submissions),
            "ways": ways,
            "best_single_way": best.and_then(|b| b.way).map(super::Way::name),
            "decode_to_best_single_way": best.and_then(|b| ratio(row.decode(), b.decode())),
            "error": match &row.ended { Some(Ended::Failed(why)) => Some(why), _ => None },
            "skipped_at_the_limit": row.ended == Some(Ended::Limit),
            "notes": row.notes(self.setting.rounds),
            "command": row.command,
            "runs": row.samples.iter().map(|s: &Sample| json!({"seconds": s.seconds, "report": s.report})).collect::<Vec<_>>(),
        })
    }
}

/// Writes a file in one piece: readers see the old one or the new one.
pub fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    fs::write(&part, text)?;
    fs::rename(&part, path)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

    use super::{
        super::{Way, fit, row, tests::parse},
        *,
    };

    fn report() -> Report {
        let half = Some(Share::Percent(50.0));
        let mut rows = vec![
            row::tests::row("wgpu", Some(Share::Percent(100.0)), None, &[40.0]),
            row::tests::row("wgpu", half, Some(Way::Cpu), &[20.0, 24.0, 22.0]),
            row::tests::row("wgpu", half, Some(Way::Gather), &[]),
            row::tests::row("wgpu", half, Some(Way::Auto), &[21.0]),
            row::tests::row("wgpu", None, None, &[10.0]),
        ];
        rows[0].resident = 1.0;
        rows[2].ended = Some(Ended::Failed("gather | not here".into()));
        rows[4].routing = None;
        let setting = Setting::new(&parse(&["--model", "m.gguf"]));
        let models = vec![
            Entry { path: "m.gguf".into(), fit: Fit::from_json(&fit::tests::example()).map_err(|e| e.to_string()) },
            Entry { path: "gone.gguf".into(), fit: Err("there is no such file".into()) },
        ];
        Report { setting, routing: vec![Routing::Uniform, Routing::Walk], models, rows }
    }

    #[test]
    fn tables_have_every_figure() {
        let text = report().markdown();
        let rows: Vec<Vec<&str>> = text.lines().map(|l| l.split(" | ").map(|c| c.trim_matches(['|', ' '])).collect()).collect();
        let find = |misses: &str| rows.iter().find(|r| r.len() > 3 && r[2] == misses).unwrap();
        assert_eq!(find("cpu")[..7], ["50.0 %", "wgpu", "cpu", "220.0", "0.55", "22.00", "0.55"]);
        assert_eq!(find("cpu")[7..11], ["75.0 %", "2.0 MiB", "0.50", "1.50"]);
        assert_eq!(find("auto")[11..13], ["gather 25 %, cpu 75 %", "0.955"]);
        assert!(text.contains("gather \\| not here") && text.contains("## gone.gguf\n\nthere is no such file"));
        assert!(text.contains("wgpu: a GPU, version 0.1.0"));
        // Rows without a routing are in both tables, others in theirs.
        let count = |what: &str| text.lines().filter(|l| l.starts_with(what)).count();
        assert_eq!((count("| none"), count("| 100.0 %"), count("## Example, routing")), (2, 1, 2));
    }

    #[test]
    fn json_has_every_figure() {
        let json = report().json();
        let row = &json["rows"][3];
        assert_eq!((row["way"].as_str(), row["best_single_way"].as_str()), (Some("auto"), Some("cpu")));
        assert_eq!(row["decode_to_best_single_way"].as_f64(), Some(21.0 / 22.0));
        assert_eq!((row["decode_to_whole"].as_f64(), row["hit_rate"].as_f64()), (Some(21.0 / 40.0), Some(0.75)));
        assert_eq!(row["runs"][0]["report"]["device"], "a GPU");
        assert_eq!(json["rows"][2]["error"], "gather | not here");
        assert_eq!(
            (&json["models"][1]["error"], &json["models"][0]["mixture_layers"]),
            (&json!("there is no such file"), &json!(26))
        );
    }

    #[test]
    fn files_are_replaced() {
        let path = std::env::temp_dir().join(format!("pleiad-benches-{}.md", std::process::id()));
        write(&path, "first").unwrap();
        write(&path, "second").unwrap();
        let text = fs::read_to_string(&path).unwrap();
        fs::remove_file(&path).unwrap();
        assert_eq!(text, "second");
    }
}
