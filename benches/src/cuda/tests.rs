#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use clap::Parser;
use serde_json::json;

use super::{plan::Kind, *};

#[derive(Parser)]
struct Only {
    #[command(flatten)]
    cuda: CudaArgs,
}

fn parse(more: &[&str]) -> CudaArgs {
    let all = ["x", "--pleiad", "pl", "--folder", "d"].into_iter().chain(more.iter().copied());
    Only::try_parse_from(all).unwrap().cuda
}

fn report(more: &[&str]) -> Report {
    let args = parse(more);
    let setting = Setting::new(&args);
    let models: Vec<Model> =
        args.shape.iter().flat_map(|&s| args.format.iter().map(|&f| Model::new(&args, s, f)).collect::<Vec<_>>()).collect();
    let rows = models.iter().enumerate().flat_map(|(i, m)| plan::rows(&args, &setting, i, m)).collect();
    Report { setting, models, rows }
}

fn commands(more: &[&str]) -> Vec<(String, String)> {
    report(more).rows.into_iter().map(|r| (r.label, r.command.join(" "))).collect()
}

#[test]
fn every_model_meets_every_contender() {
    let all = report(&["--peer", "vulkan=v", "--peer", "cuda=c"]);
    assert_eq!(all.models.len(), 9);
    let of = |model: &str| all.rows.iter().filter(|r| r.label.starts_with(model)).count();
    // Pleiad's two devices, the profile of one, and two peers, which know no FP8.
    assert_eq!(["moonlight BF16", "moonlight F8_E4M3", "moonlight Q4_K_M"].map(of), [9, 5, 9]);
    let only = report(&["--only", "profile", "--quick"]);
    assert!(only.rows.len() == 9 && only.rows.iter().all(|r| r.kind == Kind::Profile && r.kind.rounds(3) == 1));
    assert_eq!(report(&["--only", "GLM-4.7-flash q4", "--device", "cuda:1"]).rows.len(), 3);
}

#[test]
fn commands_say_what_rows_say() {
    let all = commands(&["--shape", "deepseek-v2-lite", "--format", "q4_k", "--peer", "llama=lb"]);
    let of = |label: &str| all.iter().find(|(l, _)| l == &format!("deepseek-v2-lite Q4_K_M, {label}")).unwrap().1.clone();
    let file = "d/deepseek-v2-lite-Q4_K_M.gguf";
    assert_eq!(
        of("pleiad cuda:0, speed"),
        format!("pl bench -m {file} --device cuda:0 --draft 0 -p 512,4096 -n 128 -r 1 -o json")
    );
    let depth = "-p 0 -n 32 -d 1024,8192,32768 -r 1 -o json";
    assert_eq!(of("pleiad wgpu, depth"), format!("pl bench -m {file} --device wgpu --draft 0 {depth}"));
    assert_eq!(of("llama, depth"), format!("lb -m {file} -ngl 99 -fa 1 {depth}"));
    let profile = "--profile 1,1024,8192,32768 -r 20 -o json";
    assert_eq!(of("pleiad cuda:0, profile"), format!("pl bench -m {file} --device cuda:0 {profile}"));
    // Moonlight has 8192 positions.
    let all = commands(&["--shape", "moonlight", "--format", "fp8", "--layers", "3"]);
    assert!(all[1].1.contains("-m d/moonlight-F8_E4M3-3-layers --device") && all[1].1.contains("-d 1024,8128 -r"), "{all:?}");
    let args = parse(&["--layers", "3"]);
    let made = Model::new(&args, Shape::Moonlight, Form::Fp8).make("pl").join(" ");
    assert_eq!(made, "pl synth --shape moonlight --quant F8_E4M3 --layers 3 d/moonlight-F8_E4M3-3-layers");
}

#[test]
fn a_device_that_is_missing_is_named() {
    let wanted = |list: &[&str]| list.iter().map(|d| (*d).to_owned()).collect::<Vec<_>>();
    let one = json!({"cuda": {"devices": [{"device": "cuda:0"}], "error": null}});
    assert_eq!(missing(&wanted(&["cuda:0", "wgpu"]), &one), None);
    assert_eq!(missing(&wanted(&["cuda"]), &one), None);
    assert_eq!(missing(&wanted(&["cuda:1"]), &one).unwrap(), "cuda:1 cannot be used: there are cuda:0");
    let none = json!({"cuda": {"devices": [], "error": "no driver"}});
    assert_eq!(missing(&wanted(&["wgpu", "cuda"]), &none).unwrap(), "cuda cannot be used: no driver");
    assert_eq!(missing(&wanted(&["cpu"]), &none), None);
}

/// What `pleiad bench` prints.
fn ours(tests: &[(&str, f64)]) -> Value {
    let tests = tests.iter().map(|(name, speed)| {
        let per_token = json!({"weight_bytes_read": 2e9});
        json!({"name": name, "tokens_per_second": {"mean": speed}, "per_token": per_token})
    });
    json!({"device": "a GPU", "tests": tests.collect::<Vec<_>>()})
}

fn filled() -> Report {
    let mut r = report(&["--shape", "moonlight", "--format", "q4_k", "--peer", "llama=lb", "--depth", "1024", "-p", "512"]);
    let mut give = |label: &str, json: Value| {
        let row = r.rows.iter_mut().find(|r| r.label == format!("moonlight Q4_K_M, {label}")).unwrap();
        row.samples.push(Sample::new(row.kind, json, 1.5).unwrap());
    };
    give("pleiad cuda:0, speed", ours(&[("pp512", 4000.0), ("tg128", 300.0)]));
    give("pleiad cuda:0, depth", ours(&[("tg32 @ d1024", 280.0)]));
    let kernels = json!([
        {"kernel": "experts_matvec q4_k", "makes": "experts", "launches": 26, "seconds": 1.5e-3},
        {"kernel": "attend", "makes": "", "launches": 27, "seconds": 4e-4},
        {"kernel": "attend_merge", "makes": "", "launches": 27, "seconds": 1e-4},
    ]);
    let step = |length: u64| json!({"length": length, "seconds": 1.8e-3, "cache_bytes": 5e7, "kernels": kernels});
    give(
        "pleiad cuda:0, profile",
        json!({"device": "a GPU", "copy_bytes_per_second": 1e12, "weight_bytes_read": 2e9, "steps": [step(1), step(1024)]}),
    );
    give(
        "llama, speed",
        json!([
            {"n_prompt": 512, "n_gen": 0, "n_depth": 0, "avg_ts": 2000.0, "backends": "CUDA", "gpu_info": "a GPU", "build_number": 7},
            {"n_prompt": 0, "n_gen": 128, "n_depth": 0, "avg_ts": 120.0},
        ]),
    );
    give("llama, depth", json!([{"n_prompt": 0, "n_gen": 32, "n_depth": 1024, "avg_ts": 140.0}]));
    let wgpu = r.rows.iter_mut().find(|r| r.name == "pleiad wgpu" && r.kind == Kind::Speed).unwrap();
    wgpu.ended = Some(Ended::Failed("no adapter".into()));
    r
}

#[test]
fn tables_have_every_figure() {
    let text = filled().markdown();
    let cells = |start: &str| {
        let line = text.lines().find(|l| l.starts_with(start)).unwrap();
        line.trim_matches(['|', ' ']).split(" | ").map(|c| c.trim().to_owned()).collect::<Vec<_>>()
    };
    // 300 tokens a second of 2 GB each are 60 % of 1 TB/s.
    assert_eq!(cells("| pleiad cuda:0")[..8], ["pleiad cuda:0", "4000.0", "1.00", "300.0", "1.00", "60.0 %", "280.0", "1.00"]);
    assert_eq!(cells("| llama")[..8], ["llama", "2000.0", "2.00", "120.0", "2.50", "24.0 %", "140.0", "2.00"]);
    assert!(cells("| pleiad wgpu").last().unwrap().contains("speed: no adapter"), "{text}");
    // 50 MB in 500 microseconds are 100 GB/s, a tenth of a copy.
    let attention = cells("|      1024");
    assert_eq!((attention[1].as_str(), attention[3].as_str(), attention[7].as_str()), ("1.800", "500.0", "10.0 %"));
    assert_eq!(attention[4], "25.0 %");
    assert_eq!(cells("| experts_matvec q4_k: experts")[1..], ["26", "1500.0", "75.0 %"]);
    assert!(text.contains("500.0 tokens a second at the most") && text.contains("build 7"), "{text}");
}

#[test]
fn json_has_every_figure() {
    let json = filled().json();
    let rows = json["rows"].as_array().unwrap();
    let row = |program: &str, kind: &str| rows.iter().find(|r| r["program"] == program && r["kind"] == kind).unwrap();
    let decode = &row("llama", "speed")["tests"][1];
    assert_eq!(
        (&decode["test"], &decode["first_to_this"], &decode["share_of_floor"]),
        (&json!("tg128"), &json!(2.5), &json!(0.24))
    );
    assert_eq!(row("pleiad cuda:0", "profile")["runs"][0]["report"]["steps"][1]["length"], 1024);
    assert_eq!(row("pleiad wgpu", "speed")["ended"], "no adapter");
    assert_eq!(json["models"][0]["copy_bytes_per_second"], 1e12);
}

#[test]
fn what_is_no_report_is_refused() {
    for bad in [json!({}), json!({"tests": [{"name": "pp1"}]}), json!([{"avg_ts": "fast"}])] {
        assert!(Sample::new(Kind::Speed, bad.clone(), 0.0).is_err(), "{bad}");
    }
    for bad in [json!({}), json!({"copy_bytes_per_second": 1.0, "weight_bytes_read": 1.0, "steps": [{}]})] {
        assert!(Sample::new(Kind::Profile, bad.clone(), 0.0).is_err(), "{bad}");
    }
}

#[test]
fn the_time_left_is_that_of_the_runs_before() {
    let start = Instant::now().checked_sub(Duration::from_secs(100)).unwrap();
    let clock = Clock { start, limit: None, longest: minutes(1.0), total: 6, done: 4 };
    assert!((clock.left() - 50.0).abs() < 5.0 && !clock.over());
    let clock = Clock { limit: Some(start), ..clock };
    assert!(clock.over());
}
