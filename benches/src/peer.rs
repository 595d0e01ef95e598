//! `peer`: Pleiad and llama.cpp side by side on the same file, machine and threads, in alternating runs.

use std::path::PathBuf;

use anyhow::{Context, Result, anyhow};
use clap::Args;

use crate::{
    program::{self, Speeds, parts},
    stats,
};

/// Arguments of `peer`.
#[derive(Args)]
pub struct PeerArgs {
    /// A GGUF file
    #[arg(long)]
    model: PathBuf,
    /// llama.cpp's llama-bench
    #[arg(long)]
    peer: Option<PathBuf>,
    /// The pleiad binary [default: the one beside this program]
    #[arg(long)]
    pleiad: Option<PathBuf>,
    /// Pleiad's devices, in turn
    #[arg(long, value_delimiter = ',', default_value = "cpu")]
    device: Vec<String>,
    /// Threads of both
    #[arg(short, long)]
    threads: Option<usize>,
    /// Tokens of the prompt
    #[arg(short, long, default_value_t = 512)]
    prompt: usize,
    /// Tokens to decode
    #[arg(short = 'n', long, default_value_t = 32)]
    predict: usize,
    /// Rounds: each runs every contender once
    #[arg(short, long, default_value_t = 3)]
    rounds: usize,
}

/// Speeds of one contender, a round each.
struct Contender {
    name: String,
    command: Vec<String>,
    speeds: Vec<Speeds>,
}

/// Runs `peer`.
pub fn run(args: &PeerArgs) -> Result<()> {
    let mut contenders = contenders(args);
    for round in 0..args.rounds {
        for c in &mut contenders {
            eprintln!("round {} of {}: {}", round + 1, args.rounds, c.name);
            let json = program::json(&c.command, None).with_context(|| format!("{} failed", c.name))?;
            c.speeds.push(program::speeds(&json).map_err(|e| anyhow!("{}: {e}", c.name))?);
        }
    }
    print(&report(args, &contenders));
    Ok(())
}

fn contenders(args: &PeerArgs) -> Vec<Contender> {
    let model = args.model.display().to_string();
    let common = |program: String| {
        let mut command = vec![program];
        for (name, value) in [("-p", args.prompt), ("-n", args.predict), ("-r", 1)] {
            command.extend([name.to_owned(), value.to_string()]);
        }
        command.extend(args.threads.into_iter().flat_map(|t| ["-t".to_owned(), t.to_string()]));
        command.extend(parts(["-m", &model, "-o", "json"]));
        command
    };
    let pleiad = args.pleiad.clone().unwrap_or_else(program::pleiad).display().to_string();
    let ours = args.device.iter().map(|device| {
        let mut command = common(pleiad.clone());
        command.insert(1, "bench".into());
        // llama-bench drafts nothing.
        command.extend(parts(["--device", device, "--draft", "0"]));
        Contender { name: format!("pleiad {device}"), command, speeds: Vec::new() }
    });
    let theirs = args.peer.iter().map(|peer| {
        let command = common(peer.display().to_string());
        Contender { name: "llama.cpp".into(), command, speeds: Vec::new() }
    });
    ours.chain(theirs).collect()
}

/// A table; ratios are to the last contender.
fn report(args: &PeerArgs, contenders: &[Contender]) -> String {
    let medians = |c: &Contender| {
        let of = |f: fn(&Speeds) -> Option<f64>| stats::median(&c.speeds.iter().filter_map(f).collect::<Vec<_>>());
        (of(|s| s.prefill), of(|s| s.decode))
    };
    let base = contenders.last().map_or((None, None), medians);
    let rows: Vec<Vec<String>> = contenders
        .iter()
        .map(|c| {
            let (p, d) = medians(c);
            let ratios = (stats::ratio(p, base.0), stats::ratio(d, base.1));
            let numbers = [stats::number(p, 1), stats::number(ratios.0, 2), stats::number(d, 2), stats::number(ratios.1, 2)];
            [vec![c.name.clone()], numbers.to_vec()].concat()
        })
        .collect();
    let model = args.model.display().to_string();
    let (prefill, decode) = (format!("prefill {} tok/s", args.prompt), format!("decode {} tok/s", args.predict));
    stats::table(&[(&model, false), (&prefill, true), ("ratio", true), (&decode, true), ("ratio", true)], &rows)
}

#[expect(clippy::print_stdout, reason = "the result")]
fn print(text: &str) {
    print!("{text}");
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Only {
        #[command(flatten)]
        peer: PeerArgs,
    }

    #[test]
    fn contenders_run_on_equal_terms_and_ratios_are_to_the_last() {
        let args = ["x", "--model", "m.gguf", "--peer", "lb", "--pleiad", "pl", "--device", "cpu,wgpu", "-t", "2", "-n", "8"];
        let args = Only::try_parse_from(args).unwrap().peer;
        let mut all = contenders(&args);
        assert_eq!(all.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), ["pleiad cpu", "pleiad wgpu", "llama.cpp"]);
        assert_eq!(all[2].command.join(" "), "lb -p 512 -n 8 -r 1 -t 2 -m m.gguf -o json");
        assert_eq!(all[1].command.join(" "), "pl bench -p 512 -n 8 -r 1 -t 2 -m m.gguf -o json --device wgpu --draft 0");
        for (c, speed) in all.iter_mut().zip([30.0, 10.0, 20.0]) {
            c.speeds = [speed * 2.0, speed, speed / 2.0].map(|s| Speeds { prefill: Some(s * 10.0), decode: Some(s) }).to_vec();
        }
        let text = report(&args, &all);
        let cells = |i: usize| text.lines().nth(i + 2).unwrap().split('|').map(|c| c.trim().to_owned()).collect::<Vec<_>>();
        assert_eq!(cells(0)[1..6], ["pleiad cpu", "300.0", "1.50", "30.00", "1.50"]);
        assert_eq!(cells(1)[1..6], ["pleiad wgpu", "100.0", "0.50", "10.00", "0.50"]);
        assert_eq!(cells(2)[1..6], ["llama.cpp", "200.0", "1.00", "20.00", "1.00"]);
    }
}
