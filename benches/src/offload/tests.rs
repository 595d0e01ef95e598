#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

use clap::Parser;

use super::*;

#[derive(Parser)]
struct Only {
    #[command(flatten)]
    offload: OffloadArgs,
}

/// Arguments from a command line.
pub fn parse(more: &[&str]) -> OffloadArgs {
    Only::try_parse_from([&["x"], more].concat()).unwrap_or_else(|e| panic!("{e}")).offload
}

#[test]
fn quick_is_less_of_what_was_not_asked_for() {
    let setting = |more: &[&str]| Setting::new(&parse(&[&["--model", "m"], more].concat()));
    let all = setting(&[]);
    assert_eq!((all.predict, all.rounds, all.shares.len(), all.context), (64, 3, 5, 576));
    let quick = setting(&["--quick"]);
    assert_eq!((quick.predict, quick.rounds), (16, 1));
    assert_eq!(quick.shares, [Share::Percent(100.0), Share::Percent(50.0), Share::Floor]);
    let own = setting(&["--quick", "-n", "600", "--rounds", "2", "--shares", "floor", "--chunk", "64"]);
    assert_eq!((own.predict, own.rounds, own.context, own.chunk), (600, 2, 640, 64));
    assert_eq!((own.shares.as_slice(), setting(&["--ctx-size", "4096"]).context), (&[Share::Floor][..], 4096));
}

#[test]
fn the_time_left_follows_from_what_was_seen() {
    let one = || row::tests::row("d", Some(Share::Floor), Some(Way::Cpu), &[1.0]);
    let none = || row::tests::row("d", Some(Share::Floor), Some(Way::Cpu), &[]);
    assert_eq!(remaining(&[none(), none()], &[5.0, 7.0], 3), 36.0);
    // The row measured took one second where two were guessed.
    assert_eq!(remaining(&[one(), none()], &[2.0, 8.0], 3), 2.0 + 12.0);
    let mut ended = none();
    ended.ended = Some(Ended::Limit);
    assert_eq!(remaining(&[one(), ended], &[2.0, 8.0], 1), 0.0);
}

#[cfg(unix)]
mod rounds {
    use std::process::Command;

    use serde_json::Value;

    use super::*;

    /// A directory with programs that stand in for pleiad and llama-bench, removed at the end.
    struct Programs(PathBuf);

    impl Programs {
        fn new(name: &str, bench: &str) -> Self {
            let dir = std::env::temp_dir().join(format!("pleiad-benches-{name}-{}", std::process::id()));
            fs::create_dir_all(&dir).unwrap();
            fs::write(dir.join("fit.json"), fit::tests::example().to_string()).unwrap();
            fs::write(dir.join("bench.json"), row::tests::bench(100.0, 10.0, 3.0, 1.0).to_string()).unwrap();
            let here = dir.display();
            let script =
                format!("#!/bin/sh\nif [ $1 = fit ]; then exec cat {here}/fit.json; fi\n{bench}\nexec cat {here}/bench.json\n");
            // By another process: a file that this one has open for writing when another test starts a program cannot be run.
            let write = ["-c", "printf %s \"$1\" > \"$0\" && chmod +x \"$0\""];
            assert!(Command::new("sh").args(write).arg(dir.join("pleiad")).arg(script).status().unwrap().success());
            Self(dir)
        }

        fn run(&self, more: &[&str]) -> (String, Value) {
            let path = |name: &str| self.0.join(name).display().to_string();
            let (pleiad, json) = (path("pleiad"), path("out.json"));
            run(&parse(&[&["--model", "m.gguf", "--pleiad", &pleiad, "--json", &json, "--shares", "100,50"], more].concat()))
                .unwrap();
            let read = |name: &str| fs::read_to_string(path(name)).unwrap();
            (read("out.md"), serde_json::from_str(&read("out.json")).unwrap())
        }
    }

    impl Drop for Programs {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_failure_is_a_row_and_not_the_end() {
        let fails = "case \"$*\" in *gather*) echo 'error: no gather on this adapter' >&2; exit 1;; esac";
        let programs = Programs::new("failure", fails);
        let (tables, json) = programs.run(&["--routing", "uniform", "--rounds", "2", "--peer", "gone=/nowhere/llama-bench"]);
        let rows = json["rows"].as_array().unwrap();
        let runs: Vec<usize> = rows.iter().map(|r| r["runs"].as_array().unwrap().len()).collect();
        // 100 %, the peer; gather, cpu, resume, auto, the peer; on the CPU, the peer.
        assert_eq!(runs, [2, 0, 0, 2, 2, 2, 0, 2, 0]);
        assert_eq!(rows[2]["error"], "no gather on this adapter");
        assert!(rows[1]["error"].as_str().unwrap().contains("cannot be started"));
        assert_eq!(rows[5]["decode_to_best_single_way"], 1.0);
        assert!(tables.contains("no gather on this adapter") && tables.contains(" 1.000 |"));
    }

    #[test]
    fn the_limit_stops_what_runs_and_skips_the_rest() {
        let programs = Programs::new("limit", "case \"$*\" in *resume*) exec sleep 60;; esac");
        let start = Instant::now();
        let (tables, json) = programs.run(&["--routing", "walk", "--rounds", "1", "--limit-minutes", "0.05", "--no-cpu"]);
        assert!(start.elapsed() < Duration::from_secs(50));
        let rows = json["rows"].as_array().unwrap();
        let skipped: Vec<bool> = rows.iter().map(|r| r["skipped_at_the_limit"].as_bool().unwrap()).collect();
        assert_eq!(skipped, [false, false, false, true, true]);
        assert_eq!(tables.matches("skipped: the time limit was reached").count(), 2);
    }
}
