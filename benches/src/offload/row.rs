//! One row of the tables: a contender, and what was measured of it.

use serde_json::Value;

use super::{Routing, Way, fit::Share};
use crate::{
    program::{self, Speeds},
    stats,
};

/// One contender under one condition.
#[derive(Debug)]
pub struct Row {
    /// Which of the models.
    pub model: usize,
    /// `None`: as the file says, in a program or on a device where it makes no difference to what is where.
    pub routing: Option<Routing>,
    /// Rows with the same one are compared with each other: a device of Pleiad, or a peer.
    pub series: String,
    /// The program, and its device.
    pub name: String,
    /// What was asked for; `None`: everything on the CPU.
    pub share: Option<Share>,
    /// The share of experts on the GPU, as planned.
    pub resident: f64,
    /// Pleiad's memory budget in bytes.
    pub budget: Option<u64>,
    /// Pleiad's way to serve misses; `None` where there are none, and in other programs.
    pub way: Option<Way>,
    /// How experts that are not resident are served, for people.
    pub misses: String,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// What was measured, a round each.
    pub samples: Vec<Sample>,
    /// Why there are no more.
    pub ended: Option<Ended>,
}

/// Why a row ended before its last round.
#[derive(Clone, Debug, PartialEq)]
pub enum Ended {
    /// In words.
    Failed(String),
    /// The time for all rows was over.
    Limit,
}

impl Row {
    /// The median over the rounds of a figure.
    pub fn median(&self, figure: impl Fn(&Sample) -> Option<f64>) -> Option<f64> {
        stats::median(&self.samples.iter().filter_map(figure).collect::<Vec<_>>())
    }

    /// Tokens per second of reading a prompt.
    pub fn prefill(&self) -> Option<f64> {
        self.median(|s| s.speeds.prefill)
    }

    /// Tokens per second of generating.
    pub fn decode(&self) -> Option<f64> {
        self.median(|s| s.speeds.decode)
    }

    /// The median of a figure about experts.
    pub fn experts(&self, figure: impl Fn(&Experts) -> Option<f64>) -> Option<f64> {
        self.median(|s| s.experts.as_ref().and_then(&figure))
    }

    /// The condition in a few words.
    pub fn label(&self) -> String {
        let routing = self.routing.map_or("", Routing::name);
        let share = self.share.map_or_else(|| "all on the CPU".into(), |s| s.to_string());
        [routing, &share, &self.name, &self.misses]
            .into_iter()
            .filter(|t| !t.is_empty() && *t != "-")
            .collect::<Vec<_>>()
            .join(", ")
    }

    /// Whether it belongs to the table of that model and routing.
    pub fn is_in(&self, model: usize, routing: Routing) -> bool {
        self.model == model && self.routing.is_none_or(|r| r == routing)
    }

    /// What should be known beside the figures.
    pub fn notes(&self, rounds: usize) -> String {
        let done = self.samples.len();
        let mut notes = Vec::new();
        match &self.ended {
            Some(Ended::Failed(why)) if done == 0 => notes.push(why.clone()),
            Some(Ended::Failed(why)) => notes.push(format!("round {} failed: {why}", done + 1)),
            Some(Ended::Limit) if done == 0 => notes.push("skipped: the time limit was reached".into()),
            Some(Ended::Limit) => notes.push(format!("{done} of {rounds} rounds: the time limit was reached")),
            None if done == 0 => notes.push("not measured yet".into()),
            None if done < rounds => notes.push(format!("{done} of {rounds} rounds so far")),
            None => {}
        }
        if let Some(last) = self.samples.last() {
            if self.share.is_some() && last.on_cpu {
                notes.push("computed on the CPU, where nothing needs to be resident".into());
            }
            if let Some(resident) = last.experts.as_ref().and_then(|e| e.resident).filter(|r| (r - self.resident).abs() > 0.01) {
                notes.push(format!("{} were resident", stats::percent(Some(resident))));
            }
            notes.extend(last.experts.iter().flat_map(|e| e.notices.iter().cloned()));
        }
        notes.join("; ")
    }
}

/// What one run of a program measured.
#[derive(Debug)]
pub struct Sample {
    /// Tokens per second.
    pub speeds: Speeds,
    /// What Pleiad on a GPU tells of experts; `None` elsewhere.
    pub experts: Option<Experts>,
    /// Whether it computed on the CPU only.
    pub on_cpu: bool,
    /// Seconds of the whole run, loading included.
    pub seconds: f64,
    /// All that the program reported.
    pub report: Value,
}

/// What decoding one token takes.
#[derive(Clone, Debug, PartialEq)]
pub struct Experts {
    /// Experts found resident, of those used.
    pub hit_rate: Option<f64>,
    /// Bytes of experts moved to the device.
    pub bytes: Option<f64>,
    /// Times that the host served misses while the device waited.
    pub rendezvous: Option<f64>,
    /// Submissions to the device.
    pub submissions: Option<f64>,
    /// Share of experts that have a slot.
    pub resident: Option<f64>,
    /// Ways, and the shares of decoded tokens that they served.
    pub ways: Vec<(String, f64)>,
    /// What went differently from what was asked for.
    pub notices: Vec<String>,
}

impl Sample {
    /// From the report of `pleiad bench` or `llama-bench`.
    pub fn new(report: Value, seconds: f64) -> Result<Self, String> {
        let speeds = program::speeds(&report)?;
        let ours = report.is_object();
        let on_cpu = if ours { report["backend"] == "cpu" } else { report[0]["backends"] == "CPU" };
        let experts = (ours && !on_cpu).then(|| Experts::new(&report));
        Ok(Self { speeds, experts, on_cpu, seconds, report })
    }
}

impl Experts {
    fn new(report: &Value) -> Self {
        let tests = report["tests"].as_array().map_or(&[][..], Vec::as_slice);
        let token = tests.iter().find_map(|t| t.get("per_token")).unwrap_or(&Value::Null);
        let figure = |name: &str| token[name].as_f64();
        let used = figure("expert_hits").and_then(|hits| Some(hits + figure("expert_misses")?));
        let experts = &report["experts"];
        let slots: Option<Vec<u64>> = experts["slots"].as_array().map(|all| all.iter().filter_map(Value::as_u64).collect());
        let resident = slots.filter(|s| !s.is_empty()).and_then(|slots| {
            let all = experts["experts"].as_u64()? * slots.len() as u64;
            (all > 0).then(|| slots.iter().sum::<u64>() as f64 / all as f64)
        });
        let ways = experts["ways"]["ways"].as_array().map_or(&[][..], Vec::as_slice);
        let ways = ways.iter().filter_map(|w| Some((w["way"].as_str()?.to_owned(), w["share"].as_f64()?)));
        let notices = experts["notices"].as_array().map_or(&[][..], Vec::as_slice);
        Self {
            hit_rate: stats::ratio(figure("expert_hits"), used),
            bytes: figure("expert_bytes"),
            rendezvous: figure("rendezvous"),
            submissions: figure("submissions"),
            resident,
            ways: ways.filter(|w| w.1 > 0.0).collect(),
            notices: notices.iter().filter_map(|n| n.as_str().map(String::from)).collect(),
        }
    }
}

/// A row of the same table and series with everything resident: what its ratios are to.
pub fn whole<'a>(rows: &'a [Row], row: &Row, routing: Routing) -> Option<&'a Row> {
    rows.iter().find(|r| r.is_in(row.model, routing) && r.series == row.series && r.share.is_some_and(Share::is_whole))
}

/// The best single way beside an automatic choice: the one that decodes fastest under the same condition.
pub fn best_single<'a>(rows: &'a [Row], auto: &Row) -> Option<&'a Row> {
    if auto.way != Some(Way::Auto) {
        return None;
    }
    rows.iter()
        .filter(|r| (r.model, r.routing, &r.series, r.share) == (auto.model, auto.routing, &auto.series, auto.share))
        .filter(|r| r.way.is_some_and(|w| w != Way::Auto))
        .filter_map(|r| Some((r, r.decode()?)))
        .max_by(|a, b| a.1.total_cmp(&b.1))
        .map(|(r, _)| r)
}

#[cfg(test)]
pub mod tests {
    #![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

    use serde_json::json;

    use super::*;

    /// What `pleiad bench -o json` prints, as far as it is read.
    pub fn bench(prefill: f64, decode: f64, hits: f64, misses: f64) -> Value {
        json!({
            "backend": "wgpu", "device": "a GPU", "version": "0.1.0",
            "tests": [
                {"kind": "prefill", "tokens_per_second": {"mean": prefill}},
                {"kind": "decode", "tokens_per_second": {"mean": decode}, "per_token": {
                    "submissions": 1.5, "expert_hits": hits, "expert_misses": misses, "expert_bytes": 2097152.0,
                    "rendezvous": 0.5}}],
            "experts": {"experts": 32, "slots": [16, 16], "notices": ["a notice"], "ways": {"ways": [
                {"way": "gather", "share": 0.25}, {"way": "cpu", "share": 0.75}, {"way": "resume", "share": 0.0}]}},
        })
    }

    pub fn row(series: &str, share: Option<Share>, way: Option<Way>, decode: &[f64]) -> Row {
        let samples = decode.iter().map(|&d| Sample::new(bench(d * 10.0, d, 12.0, 4.0), 1.0).unwrap()).collect();
        Row {
            model: 0,
            routing: Some(Routing::Uniform),
            series: series.into(),
            name: series.into(),
            share,
            resident: 0.5,
            budget: Some(1 << 30),
            way,
            misses: way.map_or("-", Way::name).into(),
            command: vec!["pleiad".into()],
            samples,
            ended: None,
        }
    }

    #[test]
    fn reports_are_read() {
        let sample = Sample::new(bench(500.0, 50.0, 12.0, 4.0), 2.5).unwrap();
        assert_eq!(sample.speeds, Speeds { prefill: Some(500.0), decode: Some(50.0) });
        let e = sample.experts.unwrap();
        assert_eq!((e.hit_rate, e.bytes, e.rendezvous, e.submissions), (Some(0.75), Some(2097152.0), Some(0.5), Some(1.5)));
        assert_eq!((e.resident, e.notices), (Some(0.5), vec!["a notice".to_owned()]));
        assert_eq!(e.ways, [("gather".to_owned(), 0.25), ("cpu".to_owned(), 0.75)]);
        let peer = Sample::new(json!([{"n_gen": 8, "avg_ts": 5.0, "backends": "CUDA"}]), 1.0).unwrap();
        assert!(peer.experts.is_none() && !peer.on_cpu && peer.speeds.decode == Some(5.0));
        assert!(Sample::new(json!([{"n_gen": 8, "avg_ts": 5.0, "backends": "CPU"}]), 1.0).unwrap().on_cpu);
        let mut cpu = bench(1.0, 1.0, 16.0, 0.0);
        cpu["backend"] = json!("cpu");
        assert!(Sample::new(cpu, 1.0).unwrap().experts.is_none());
    }

    #[test]
    fn figures_are_medians() {
        let row = row("d", Some(Share::Floor), Some(Way::Cpu), &[3.0, 9.0, 4.0]);
        assert_eq!((row.prefill(), row.decode()), (Some(40.0), Some(4.0)));
        assert_eq!(row.experts(|e| e.hit_rate), Some(0.75));
    }

    #[test]
    fn rows_are_compared_with_their_like() {
        let half = Some(Share::Percent(50.0));
        let mut rows = vec![
            row("d", Some(Share::Percent(100.0)), None, &[10.0]),
            row("d", half, Some(Way::Gather), &[8.0, 6.0, 7.0]),
            row("d", half, Some(Way::Cpu), &[5.0]),
            row("d", half, Some(Way::Resume), &[]),
            row("d", half, Some(Way::Auto), &[6.3]),
            row("e", half, Some(Way::Cpu), &[100.0]),
            row("d", Some(Share::Floor), Some(Way::Cpu), &[90.0]),
        ];
        rows[0].routing = None;
        let best = best_single(&rows, &rows[4]).unwrap();
        assert_eq!((best.way, best.decode()), (Some(Way::Gather), Some(7.0)));
        assert!(best_single(&rows, &rows[1]).is_none());
        assert_eq!(whole(&rows, &rows[4], Routing::Uniform).unwrap().decode(), Some(10.0));
        assert!(whole(&rows, &rows[5], Routing::Uniform).is_none());
    }

    #[test]
    fn notes_say_what_is_missing() {
        let mut r = row("d", Some(Share::Floor), Some(Way::Cpu), &[]);
        assert_eq!(r.notes(3), "not measured yet");
        r.ended = Some(Ended::Limit);
        assert!(r.notes(3).starts_with("skipped"));
        r.ended = Some(Ended::Failed("no gather here".into()));
        assert_eq!(r.notes(3), "no gather here");
        let mut r = row("d", Some(Share::Floor), Some(Way::Cpu), &[1.0]);
        assert_eq!(r.notes(1), "a notice");
        r.ended = Some(Ended::Limit);
        r.resident = 0.75;
        assert_eq!(r.notes(3), "1 of 3 rounds: the time limit was reached; 50.0 % were resident; a notice");
    }
}
