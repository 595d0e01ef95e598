//! Drives the built binary as people and programs do.

#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

use std::{
    fs,
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use pleiad_models::{
    Bytes,
    safetensors::{Entry, SafeTensors},
};
use serde_json::{Value, json};

/// The binary, with nothing on standard input and no colours, history or backtraces of whoever runs the tests.
fn pleiad(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pleiad"));
    command.args(args).stdin(Stdio::null()).env_remove("RUST_BACKTRACE").env("NO_COLOR", "1");
    // Without it, Mesa's Vulkan layer for Wayland complains on standard error.
    command.env("XDG_RUNTIME_DIR", std::env::temp_dir());
    command
}

fn run(args: &[&str]) -> Output {
    pleiad(args).output().unwrap()
}

fn run_with_stdin(args: &[&str], input: &str) -> Output {
    let mut child = pleiad(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn parsed(output: &Output) -> Value {
    serde_json::from_str(&stdout(output)).unwrap()
}

/// The error line of a run that failed, as a run should: exit code 1, one line, nothing else.
fn error(output: &Output) -> String {
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.starts_with("error: ") && !text.contains("internal error"), "{text}");
    assert!(output.stdout.is_empty());
    text
}

/// A directory of its own for a test, gone afterwards.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("pleiad-cli-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn golden(case: &str) -> PathBuf {
    repository().join("tests/data/golden").join(case)
}

/// transformers' own greedy answers of the embedded model.
fn answers() -> Vec<Value> {
    serde_json::from_slice(&fs::read(repository().join("models/tiny/answers.json")).unwrap()).unwrap()
}

#[test]
fn help_and_version() {
    let help = stdout(&run(&["--help"]));
    for command in ["run", "eval", "bench", "devices", "conformance", "inspect", "synth"] {
        assert!(help.contains(command), "{help}");
        let of_command = stdout(&run(&[command, "--help"]));
        assert!(of_command.contains("Example"), "{command}: {of_command}");
    }
    assert!(stdout(&run(&["--version"])).starts_with("pleiad "));
}

#[test]
fn wrong_usage_exits_with_2() {
    let wrong: [&[&str]; 9] = [
        &["--no-such-flag"],
        &["no-such-command"],
        &["run", "hello", "--temp", "-1"],
        &["run", "hello", "--device", "gpu"],
        &["run", "hello", "--memory-budget", "much"],
        &["run", "hello", "--in-flight", "0"],
        &["eval", "--tokens", "x"],
        &["synth", "--shape", "no-such-shape", "x.gguf"],
        &["inspect"],
    ];
    for args in wrong {
        let output = run(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {output:?}");
        assert!(!output.stderr.is_empty());
    }
}

#[test]
fn missing_files_are_named() {
    let line = error(&run(&["run", "-m", "no/such/model.gguf", "hello"]));
    assert!(line.contains("no/such/model.gguf"), "{line}");
    let line = error(&run(&["inspect", "no-such-directory"]));
    assert!(line.contains("no-such-directory"), "{line}");
    let line = error(&run(&["eval", "--tokens", "no-such-ids.json", "--out", "never"]));
    assert!(line.contains("no-such-ids.json"), "{line}");
}

#[test]
fn bad_models_are_one_line() {
    let dir = Scratch::new("bad");
    let whole = fs::read(repository().join("models/tiny/pleiad-tiny-q8_0.gguf")).unwrap();
    let mut lying = whole.clone();
    lying[8..16].copy_from_slice(&u64::MAX.to_le_bytes());
    let files: [(&str, &[u8]); 5] = [
        ("empty.gguf", b""),
        ("text.gguf", b"this is no model at all"),
        ("header.gguf", &whole[..40]),
        ("half.gguf", &whole[..whole.len() / 2]),
        ("lying.gguf", &lying),
    ];
    for (name, bytes) in files {
        let path = dir.file(name);
        fs::write(&path, bytes).unwrap();
        for command in [&["inspect", &path][..], &["run", "-m", &path, "--device", "cpu", "hello"]] {
            let line = error(&run(command));
            assert!(line.contains(name), "{line}");
        }
    }
    let line = error(&run(&["inspect", dir.0.to_str().unwrap()]));
    assert!(line.contains("pleiad-cli"), "{line}");
}

#[test]
fn devices_that_are_not_there() {
    let line = error(&run(&["run", "--device", "wgpu:99", "hello"]));
    assert!(line.contains("wgpu:99") && line.contains("cpu"), "{line}");
    let line = error(&run(&["run", "--device", "cuda:0", "hello"]));
    assert!(line.contains("built without the cuda feature"), "{line}");
}

#[test]
fn limits_are_explained() {
    let long = "word ".repeat(300);
    let line = error(&run(&["run", "--device", "cpu", "-c", "128", &long]));
    assert!(line.contains("128") && line.contains("--ctx-size"), "{line}");
    let line = error(&run(&["run", "--device", "cpu", "-c", "100000000", "hello"]));
    assert!(line.contains("--ctx-size"), "{line}");
    let line = error(&run(&["run", "--device", "cpu", "--memory-budget", "1MiB", "hello"]));
    assert!(line.contains("a memory budget of 1 MiB") && line.contains("--ctx-size"), "{line}");
    let line = error(&run(&["fit", "tiny", "--memory-budget", "1MiB"]));
    assert!(line.contains("Pleiad Tiny needs at least"), "{line}");
    let line = error(&run_with_stdin(&["run", "--device", "cpu"], "\n"));
    assert!(line.contains("the prompt is empty"), "{line}");
}

#[test]
fn greedy_answers_are_those_of_transformers() {
    let all = answers();
    let (prompt, expected) = (all[0]["messages"][0]["content"].as_str().unwrap(), &all[0]);
    let text = expected["answer"].as_str().unwrap().trim_end_matches("<｜end▁of▁sentence｜>");
    let plain = stdout(&run(&["run", "--device", "cpu", "--temp", "0", prompt]));
    assert_eq!(plain, format!("{text}\n"));
    // Whatever the chunk, the form of activations and the number of steps in flight.
    for more in [["--chunk", "3"], ["--activations", "f32"], ["--in-flight", "1"], ["--cache-type", "f32"], ["--threads", "1"]] {
        let again = stdout(&run(&["run", "--device", "cpu", "--temp", "0", more[0], more[1], prompt]));
        assert_eq!(again, plain, "{more:?}");
    }
    // From standard input, with and without the command.
    for args in [&["--device", "cpu", "--temp", "0"][..], &["run", "--device", "cpu", "--temp", "0", "-"]] {
        assert_eq!(stdout(&run_with_stdin(args, &format!("{prompt}\n"))), plain, "{args:?}");
    }
    // The prompt's text as the template writes it.
    let raw = expected["prompt"].as_str().unwrap();
    assert_eq!(stdout(&run(&["run", "--device", "cpu", "--temp", "0", "--raw", raw])), plain);
}

#[test]
fn json_holds_text_ids_reason_and_statistics() {
    let expected = &answers()[0];
    let prompt = expected["messages"][0]["content"].as_str().unwrap();
    let args = ["run", "--device", "cpu", "--temp", "0", "--seed", "7"];
    let result = parsed(&run(&[&args[..], &["--json", prompt]].concat()));
    let ids = expected["answer_ids"].as_array().unwrap();
    assert_eq!(result["tokens"].as_array().unwrap()[..], ids[..ids.len() - 1]);
    assert_eq!(result["reason"], "end");
    assert_eq!(result["backend"], "cpu");
    assert_eq!(result["sampling"]["seed"], 7);
    assert_eq!(result["stats"]["prompt_tokens"], expected["prompt_ids"].as_array().unwrap().len());
    assert_eq!(result["stats"]["generated_tokens"], ids.len());

    let stream = stdout(&run(&[&args[..], &["--json-stream", prompt]].concat()));
    let events: Vec<Value> = stream.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let (last, tokens) = events.split_last().unwrap();
    assert_eq!((&last["event"], &last["text"]), (&json!("done"), &result["text"]));
    assert_eq!(tokens.iter().map(|e| e["text"].as_str().unwrap()).collect::<String>(), result["text"]);

    let cut = parsed(&run(&[&args[..], &["--json", "-n", "3", prompt]].concat()));
    assert_eq!((&cut["reason"], cut["tokens"].as_array().unwrap().len()), (&json!("length"), 3));
    let on = parsed(&run(&[&args[..], &["--json", "-n", "20", "--ignore-eos", prompt]].concat()));
    assert_eq!(on["tokens"].as_array().unwrap().len(), 20);
}

#[test]
fn the_same_seed_draws_the_same_answer() {
    let draw = |seed: &str| {
        stdout(&run(&[
            "run",
            "--device",
            "cpu",
            "--temp",
            "1.5",
            "--top-k",
            "0",
            "--top-p",
            "1",
            "--min-p",
            "0",
            "-n",
            "24",
            "--seed",
            seed,
            "Tell me a story.",
        ]))
    };
    assert_eq!(draw("1"), draw("1"));
    assert!((2..6).any(|seed| draw(&seed.to_string()) != draw("1")));
}

#[test]
fn a_reader_that_leaves_early_ends_it_quietly() {
    let mut child =
        pleiad(&["inspect", "tiny", "--json", "--tensors"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut first = [0; 1];
    let mut out = child.stdout.take().unwrap();
    out.read_exact(&mut first).unwrap();
    drop(out);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

#[test]
fn inspect_describes_the_embedded_model() {
    let text = stdout(&run(&["inspect", "tiny"]));
    assert!(text.contains("Q8_0") && text.contains("experts"), "{text}");
    let short = parsed(&run(&["inspect", "tiny", "--json"]));
    assert_eq!((&short["family"], &short["dims"]["moe"]["num_experts"]), (&json!("deepseek_v3"), &json!(32)));
    assert!(short.get("tensors").is_none());
    let long = parsed(&run(&["inspect", "tiny", "--json", "--tensors"]));
    assert!(long["tensors"].as_array().unwrap().len() > 50);
}

#[test]
fn devices_lists_at_least_the_cpu() {
    let all = parsed(&run(&["devices", "--json"]));
    assert!(all["cpu"]["threads"].as_u64().unwrap() >= 1);
    for a in all["adapters"].as_array().unwrap() {
        assert!(!(a["software"] == true && a["auto"] == true), "{a}");
        assert_eq!(a["auto"] == true, a["device"] == all["auto"], "{a}");
        assert_eq!(a["auto"] == true, a["why_not"].is_null(), "{a}");
    }
    assert!(stdout(&run(&["devices"])).starts_with("cpu "));
}

#[test]
fn synthesised_models_can_be_inspected_and_run() {
    let dir = Scratch::new("synth");
    let out = dir.file("tiny-256.gguf");
    let made = parsed(&run(&["synth", "--shape", "tiny-256", "--quant", "q4_k_m", "--seed", "3", "--json", &out]));
    assert_eq!(made["bytes"], fs::metadata(&out).unwrap().len());
    let what = parsed(&run(&["inspect", "--json", &out]));
    assert_eq!(what["dims"]["num_layers"], made["layers"]);
    assert!(what["formats"].as_array().unwrap().iter().any(|f| f["format"] == "Q4_K"));
    let report = parsed(&run(&["bench", "-m", &out, "--device", "cpu", "-p", "8", "-n", "4", "-r", "2", "-o", "json"]));
    let tests = report["tests"].as_array().unwrap();
    assert_eq!(tests.iter().map(|t| t["name"].as_str().unwrap()).collect::<Vec<_>>(), ["pp8", "tg4"]);
    for t in tests {
        assert_eq!(t["tokens_per_second"]["each"].as_array().unwrap().len(), 2);
        assert!(t["tokens_per_second"]["mean"].as_f64().unwrap() > 0.0);
    }
    assert!(tests[1]["per_token"]["weight_bytes_read"].as_u64().unwrap() > 0);
    assert!(!Path::new(&dir.file("tiny-256.gguf.part")).exists());

    let line = error(&run(&["synth", "--shape", "tiny-256", "--layers", "1000", &dir.file("never.gguf")]));
    assert!(line.contains("layers"), "{line}");
    assert!(!Path::new(&dir.file("never.gguf")).exists());
}

/// A full disk, as Linux simulates it: one line, and the device is still a device.
#[cfg(target_os = "linux")]
#[test]
fn fit_prices_budgets_before_loading() {
    let fit = |args: &[&str]| parsed(&run(&[&["fit", "tiny", "--ctx-size", "512", "--json"], args].concat()));
    let all = fit(&[]);
    let (least, whole) = (all["least_bytes"].as_u64().unwrap(), all["whole_bytes"].as_u64().unwrap());
    assert!(least < whole);
    let placed = fit(&["--memory-budget", &least.to_string()]);
    let slots = |v: &Value| -> u64 { v["slots"].as_array().unwrap().iter().map(|s| s.as_u64().unwrap()).sum() };
    let one = &placed["placements"][0];
    // Three times top-k of 32 experts in each of four layers.
    assert_eq!(slots(one), 4 * 12, "{placed}");
    assert_eq!(slots(&fit(&["--memory-budget", &whole.to_string()])["placements"][0]), 4 * 32);
    let table = stdout(&run(&["fit", "tiny"]));
    assert!(table.contains("the floor") && table.contains("--memory-budget"), "{table}");
}

#[test]
fn traces_are_written_and_replayed() {
    let dir = Scratch::new("trace");
    for name in ["trace.csv", "trace.jsonl"] {
        let path = dir.0.join(name);
        let path = path.to_str().unwrap();
        let answer = run(&["run", "--device", "cpu", "--temp", "0", "-n", "12", "--json", "--trace", path, "What is 47 + 85?"]);
        let answer = parsed(&answer);
        // Every token but the last sampled one went through four mixture layers, each of which chose four experts.
        let fed = answer["stats"]["prompt_tokens"].as_u64().unwrap() + answer["stats"]["generated_tokens"].as_u64().unwrap() - 1;
        let rows = fs::read_to_string(path).unwrap().lines().count() as u64 - u64::from(name.ends_with("csv"));
        assert_eq!(rows, fed * 4 * 4, "{name}");
        let replayed = parsed(&run(&["trace", "replay", path, "--slots", "8,32", "-o", "json"]));
        let text = replayed.to_string();
        assert!(text.contains("belady") && text.contains("lru"), "{text}");
    }
    let line = error(&run(&["trace", "replay", dir.0.join("none.csv").to_str().unwrap()]));
    assert!(line.contains("none.csv"), "{line}");
    let line = error(&run(&["run", "--trace", "/nonexistent/t.csv", "hello"]));
    assert!(line.contains("/nonexistent/t.csv"), "{line}");
}

#[test]
fn a_full_disk_is_an_error() {
    use std::os::unix::fs::FileTypeExt as _;
    let line = error(&run(&["synth", "--shape", "tiny-256", "--quant", "q8_0", "/dev/full"]));
    assert!(line.contains("/dev/full"), "{line}");
    assert!(fs::metadata("/dev/full").unwrap().file_type().is_char_device());
    let dir = Scratch::new("full");
    let ids = dir.file("ids.json");
    fs::write(&ids, "[0, 3]").unwrap();
    let line = error(&run(&["eval", "--device", "cpu", "--tokens", &ids, "--out", "/dev/full"]));
    assert!(line.contains("/dev/full"), "{line}");
}

#[test]
fn nothing_to_measure_is_an_error() {
    let line = error(&run(&["bench", "-p", "0", "-n", "0"]));
    assert!(line.contains("nothing to measure"), "{line}");
}

fn tensors(path: &Path) -> SafeTensors {
    SafeTensors::from_bytes(&path.display().to_string(), Bytes::new(fs::read(path).unwrap())).unwrap()
}

fn floats(entry: &Entry) -> Vec<f32> {
    entry.data.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

fn nmse(found: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let square = |x: f32| f64::from(x) * f64::from(x);
    let error: f64 = found.iter().zip(expected).map(|(a, b)| square(a - b)).sum();
    error / expected.iter().map(|&b| square(b)).sum::<f64>()
}

#[test]
fn eval_agrees_with_transformers_whatever_the_chunk() {
    // One case of each architecture that is at hand; the others are compared where backends are.
    let cases: Vec<PathBuf> =
        ["v2-lite", "v2-groups", "v3-negative-bias"].map(golden).into_iter().filter(|p| p.is_dir()).collect();
    assert!(!cases.is_empty(), "there are no golden cases");
    let dir = Scratch::new("eval");
    for case in cases {
        let (model, input) = (case.to_str().unwrap(), case.join("golden.safetensors"));
        let expected = tensors(&input);
        for chunk in ["512", "7", "1"] {
            let out = dir.file("out.safetensors");
            let args = ["--device", "cpu", "--activations", "f32", "--cache-type", "f32", "--json", "--chunk", chunk];
            let done =
                parsed(&run(&[&["eval", "-m", model, "--tokens", input.to_str().unwrap(), "--out", &out][..], &args].concat()));
            let found = tensors(Path::new(&out));
            for name in expected.names().filter(|n| *n != "input_ids") {
                let (a, b) = (found.get(name).unwrap(), expected.get(name).unwrap());
                assert_eq!((&a.shape, a.dtype), (&b.shape, b.dtype), "{model} {name}");
                if name.ends_with(".ids") {
                    assert_eq!(a.data[..], b.data[..], "{model} {name}, chunk {chunk}");
                } else {
                    let error = nmse(&floats(a), &floats(b));
                    assert!(error < 1e-6, "{model} {name}, chunk {chunk}: {error:e}");
                }
            }
            assert_eq!(done["tokens"], expected.get("input_ids").unwrap().shape[0]);
        }
    }
}

#[test]
fn eval_takes_json_and_refuses_nonsense() {
    let dir = Scratch::new("ids");
    let out = dir.file("out.safetensors");
    let eval = |ids: &str| {
        let file = dir.file("ids.json");
        fs::write(&file, ids).unwrap();
        run(&["eval", "--device", "cpu", "--tokens", &file, "--out", &out])
    };
    assert!(stdout(&eval("[0, 3, 342]")).contains("logits [3, "));
    assert_eq!(tensors(Path::new(&out)).get("logits").unwrap().shape[0], 3);
    for bad in ["[]", "[1, -1]", "[99999999]", "{}", "nonsense"] {
        let line = error(&eval(bad));
        assert!(line.contains("ids.json"), "{line}");
    }
}
