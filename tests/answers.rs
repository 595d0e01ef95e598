//! Greedy answers of the embedded model equal transformers' own, wherever and however it runs.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a failure is a failed test; a skipped part is printed")]

use pleiad_models::Checkpoint;
use pleiad_runtime::{Activations, DeviceChoice, Engine, EngineOptions, Event, GenerateOptions, SamplingParams, engine};
use pleiad_tests::gpus;
use serde_json::Value;

/// Margins below this, in nats, are ties: rounding may decide them either way.
const TIE: f64 = 0.02;

struct Answer {
    prompt: Vec<u32>,
    tokens: Vec<u32>,
    smallest_margin: f64,
}

fn answers() -> Vec<Answer> {
    let all: Value = serde_json::from_str(include_str!("../models/tiny/answers.json")).unwrap();
    let ids = |v: &Value| v.as_array().unwrap().iter().map(|i| i.as_u64().unwrap() as u32).collect();
    all.as_array()
        .unwrap()
        .iter()
        .map(|a| Answer {
            prompt: ids(&a["prompt_ids"]),
            tokens: ids(&a["answer_ids"]),
            smallest_margin: a["smallest_margin"].as_f64().unwrap(),
        })
        .collect()
}

/// Checks the first `tokens` tokens of the first `count` answers.
fn answer_on(device: DeviceChoice, activations: Activations, in_flight: usize, count: usize, tokens: usize) {
    let checkpoint = Checkpoint::tiny().unwrap();
    let options =
        EngineOptions { device, activations, in_flight: Some(in_flight), context: Some(1024), ..EngineOptions::default() };
    let loaded = pollster::block_on(engine::load(&checkpoint, options, &mut |_, _| {})).unwrap();
    let engine = Engine::start(loaded).unwrap();
    let session = engine.session();
    for mut a in answers().into_iter().take(count) {
        a.tokens.truncate(tokens);
        let options = GenerateOptions { max_tokens: Some(a.tokens.len()), end: vec![1], routing: false };
        let mut generation = session.generate(a.prompt.clone(), SamplingParams::default(), options);
        let mut got = Vec::new();
        while let Some(event) = generation.next_blocking() {
            match event {
                Event::Token { id, .. } => got.push(id),
                Event::Failed(e) => panic!("{}: {e}", engine.info().device),
                _ => {}
            }
        }
        let expected: Vec<u32> = a.tokens.iter().copied().filter(|&t| t != 1).collect();
        if got != expected && a.smallest_margin < TIE {
            println!("a tie of {} nats was decided the other way", a.smallest_margin);
            continue;
        }
        assert_eq!(got, expected, "{}, {activations:?}, {in_flight} in flight", engine.info().device);
    }
}

#[test]
fn answers_on_the_cpu() {
    for activations in [Activations::F32, Activations::Q8] {
        for in_flight in [1, 4] {
            answer_on(DeviceChoice::Cpu, activations, in_flight, usize::MAX, usize::MAX);
        }
    }
}

#[test]
fn answers_on_gpus() {
    for index in 0..gpus("answers_on_gpus").len() {
        let device = DeviceChoice::Wgpu(Some(index));
        // Software adapters decode some ten tokens a second: the beginnings of all answers, and a few for each of
        // the other ways.
        answer_on(device, Activations::F32, 1, usize::MAX, 24);
        answer_on(device, Activations::Q8, 4, usize::MAX, 24);
        answer_on(device, Activations::F32, 4, 3, 24);
        answer_on(device, Activations::Q8, 1, 3, 24);
    }
}
