//! Which rows there are: every condition that is to be measured, with the command that measures it.

use super::{
    OffloadArgs, Routing, Setting, Way,
    fit::{Budget, Fit, Share},
    row::Row,
};
use crate::program::parts;

/// Rows of one model, those that are compared most closely next to each other.
pub fn rows(args: &OffloadArgs, setting: &Setting, model: usize, path: &str, fit: &Fit) -> Vec<Row> {
    let plan = Plan { args, setting, model, path, fit };
    let mut rows = Vec::new();
    let mut budgets: Vec<u64> = Vec::new();
    for &share in &setting.shares {
        let Some(budget) = fit.budget(share) else {
            eprintln!("{}: {share} of the experts is no more than the floor; left out", fit.title);
            continue;
        };
        // Where the floor is everything, or a share was named twice.
        if budgets.contains(&budget.bytes) {
            continue;
        }
        budgets.push(budget.bytes);
        for &routing in &args.routing {
            for device in &args.device {
                // Without misses there is no way to choose.
                let ways = args.ways.iter().map(|&w| Some(w));
                let ways: Vec<Option<Way>> = if budget.resident >= 1.0 { vec![None] } else { ways.collect() };
                rows.extend(ways.into_iter().map(|way| plan.pleiad(device, share, budget, routing, way)));
            }
        }
        rows.extend(args.peer.iter().map(|peer| plan.peer(peer, share, budget.resident)));
    }
    if !args.no_cpu {
        rows.push(plan.pleiad_cpu());
        rows.extend(args.peer.iter().map(|peer| plan.peer_cpu(peer)));
    }
    rows
}

struct Plan<'a> {
    args: &'a OffloadArgs,
    setting: &'a Setting,
    model: usize,
    path: &'a str,
    fit: &'a Fit,
}

impl Plan<'_> {
    fn row(&self, series: String, name: String, command: Vec<String>) -> Row {
        Row {
            model: self.model,
            routing: None,
            series,
            name,
            share: None,
            resident: 0.0,
            budget: None,
            way: None,
            misses: "-".into(),
            command,
            samples: Vec::new(),
            ended: None,
        }
    }

    /// What both programs are told.
    fn common(&self) -> Vec<String> {
        let (s, threads) = (self.setting, self.args.threads.map(|t| t.to_string()));
        let mut command = parts(["-p", &s.prompt.to_string(), "-n", &s.predict.to_string(), "-r", "1", "-o", "json"]);
        command.extend(threads.iter().flat_map(|t| parts(["-t", t])));
        command
    }

    fn bench(&self, device: &str) -> Vec<String> {
        let s = self.setting;
        let mut command = parts([&s.pleiad, "bench", "-m", self.path, "--device", device, "--draft", "0"]);
        command.extend(parts(["--ctx-size", &s.context.to_string(), "--chunk", &s.chunk.to_string()]));
        command.extend(self.args.cache_dir.iter().flat_map(|d| parts(["--cache-dir", &d.display().to_string()])));
        command.extend(self.common());
        command
    }

    fn pleiad(&self, device: &str, share: Share, budget: Budget, routing: Routing, way: Option<Way>) -> Row {
        let mut command = self.bench(device);
        command.extend(parts(["--memory-budget", &budget.bytes.to_string(), "--routing", routing.name()]));
        command.extend(way.iter().flat_map(|w| parts(["--misses", w.name()])));
        Row {
            routing: Some(routing),
            share: Some(share),
            resident: budget.resident,
            budget: Some(budget.bytes),
            way,
            misses: way.map_or("-", Way::name).into(),
            ..self.row(device.to_owned(), format!("pleiad {device}"), command)
        }
    }

    fn pleiad_cpu(&self) -> Row {
        // Compared with the GPU that was named first.
        let series = self.args.device.first().cloned().unwrap_or_default();
        self.row(series, "pleiad cpu".into(), self.bench("cpu"))
    }

    fn llama_bench(&self, peer: &Peer) -> Vec<String> {
        let mut command = parts([&peer.path, "-m", self.path, "-ub", &self.setting.chunk.to_string()]);
        command.extend(self.common());
        command
    }

    fn peer(&self, peer: &Peer, share: Share, resident: f64) -> Row {
        let (layers, all) = (self.fit.layers_on_cpu(resident), self.fit.mixtures());
        let mut command = self.llama_bench(peer);
        command.extend(parts(["-ngl", "99", "-ncmoe", &self.fit.n_cpu_moe(layers).to_string()]));
        let misses = if layers == 0 { "-".into() } else { format!("experts of {layers} of {all} layers on the CPU") };
        let resident = (all - layers.min(all)) as f64 / all.max(1) as f64;
        Row { share: Some(share), resident, misses, ..self.row(peer.name.clone(), peer.name.clone(), command) }
    }

    fn peer_cpu(&self, peer: &Peer) -> Row {
        let mut command = self.llama_bench(peer);
        // Without -nopo a GPU build would still read prompts on the GPU.
        command.extend(parts(["-ngl", "0", "-nopo", "1"]));
        self.row(peer.name.clone(), format!("{} -ngl 0", peer.name), command)
    }
}

/// A llama-bench.
#[derive(Clone, Debug, PartialEq)]
pub struct Peer {
    /// What it is called in tables.
    pub name: String,
    /// The program.
    pub path: String,
}

impl std::str::FromStr for Peer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, path) = text.split_once('=').unwrap_or(("llama.cpp", text));
        if name.is_empty() || path.is_empty() {
            return Err("use name=path/to/llama-bench".into());
        }
        Ok(Self { name: name.into(), path: path.into() })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

    use super::{super::tests::parse, *};
    use crate::offload::fit::tests::example;

    fn all(more: &[&str]) -> Vec<Row> {
        let args = parse(&[&["--model", "m.gguf", "--pleiad", "pl", "--device", "wgpu:0"], more].concat());
        let fit = Fit::from_json(&example()).unwrap();
        rows(&args, &Setting::new(&args), 0, "m.gguf", &fit)
    }

    #[test]
    fn peers_have_names() {
        let peer = |text: &str| text.parse::<Peer>().map(|p| (p.name, p.path));
        assert_eq!(peer("cuda=a/llama-bench"), Ok(("cuda".into(), "a/llama-bench".into())));
        assert_eq!(peer("a/llama-bench"), Ok(("llama.cpp".into(), "a/llama-bench".into())));
        assert!(peer("=a").is_err() && peer("a=").is_err());
    }

    #[test]
    fn every_condition_has_its_row() {
        let rows = all(&["--peer", "vulkan=v", "--peer", "cuda=c"]);
        let of = |share: &str| rows.iter().filter(|r| r.share.is_some_and(|s| s.to_string() == share)).count();
        // Two routings of one way, or of four, and two peers; 25 % would be below the floor of this model.
        assert_eq!(["100 %", "75 %", "50 %", "25 %", "floor"].map(of), [4, 10, 10, 0, 10]);
        let cpu: Vec<&str> = rows.iter().filter(|r| r.share.is_none()).map(|r| r.name.as_str()).collect();
        assert_eq!(cpu, ["pleiad cpu", "vulkan -ngl 0", "cuda -ngl 0"]);
        assert_eq!(all(&["--no-cpu"]).len(), 2 + 3 * 8);
        assert_eq!(all(&["--quick", "--no-cpu", "--ways", "auto", "--routing", "walk"]).len(), 3);
    }

    #[test]
    fn commands_say_what_rows_say() {
        let rows = all(&["--peer", "cuda=c", "-p", "64", "-n", "8", "-t", "4", "--cache-dir", "none"]);
        let command = |label: &str| rows.iter().find(|r| r.label() == label).unwrap().command.join(" ");
        let bench = "--draft 0 --ctx-size 128 --chunk 512 --cache-dir none -p 64 -n 8 -r 1 -o json -t 4";
        assert_eq!(
            command("walk, 50 %, pleiad wgpu:0, cpu"),
            format!("pl bench -m m.gguf --device wgpu:0 {bench} --memory-budget {} --routing walk --misses cpu", 4260u64 << 20)
        );
        assert!(!command("uniform, 100 %, pleiad wgpu:0").contains("--misses"));
        assert_eq!(command("all on the CPU, pleiad cpu"), format!("pl bench -m m.gguf --device cpu {bench}"));
        let theirs = "c -m m.gguf -ub 512 -p 64 -n 8 -r 1 -o json -t 4";
        assert_eq!(command("50 %, cuda, experts of 13 of 26 layers on the CPU"), format!("{theirs} -ngl 99 -ncmoe 14"));
        assert_eq!(command("100 %, cuda"), format!("{theirs} -ngl 99 -ncmoe 0"));
        assert_eq!(command("all on the CPU, cuda -ngl 0"), format!("{theirs} -ngl 0 -nopo 1"));
    }
}
