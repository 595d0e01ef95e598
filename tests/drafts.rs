//! Drafting by the model's module for multi-token prediction changes nothing but the time that an answer takes.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a failure is a failed test; a skipped part is printed")]

use pleiad_models::Checkpoint;
use pleiad_runtime::{
    DeviceChoice, Engine, EngineOptions, Event, GenerateOptions, SamplingParams, Session,
    engine::{self, DoneReason, GenerationStats},
};
use pleiad_tests::gpus;
use serde_json::Value;

struct Answer {
    prompt: Vec<u32>,
    tokens: Vec<u32>,
}

fn answers() -> Vec<Answer> {
    let all: Value = serde_json::from_str(include_str!("../models/tiny/answers.json")).unwrap();
    let ids = |v: &Value| v.as_array().unwrap().iter().map(|i| i.as_u64().unwrap() as u32).collect();
    all.as_array().unwrap().iter().map(|a| Answer { prompt: ids(&a["prompt_ids"]), tokens: ids(&a["answer_ids"]) }).collect()
}

fn start(options: EngineOptions) -> Engine {
    let loaded = pollster::block_on(engine::load(&Checkpoint::tiny().unwrap(), options, &mut |_, _| {})).unwrap();
    Engine::start(loaded).unwrap()
}

fn on(device: DeviceChoice, draft: usize) -> EngineOptions {
    EngineOptions { device, draft: Some(draft), context: Some(512), ..EngineOptions::default() }
}

/// Generates up to `max` tokens; the end token is left out.
fn generate(session: &Session, prompt: &[u32], params: SamplingParams, max: usize) -> (Vec<u32>, DoneReason, GenerationStats) {
    let options = GenerateOptions { max_tokens: Some(max), end: vec![1], routing: false };
    let mut generation = session.generate(prompt.to_vec(), params, options);
    let mut tokens = Vec::new();
    while let Some(event) = generation.next_blocking() {
        match event {
            Event::Token { id, .. } => tokens.push(id),
            Event::Done { reason, stats, .. } => return (tokens, reason, stats),
            Event::Failed(e) => panic!("{}: {e}", session.engine().info().device),
            _ => {}
        }
    }
    panic!("the generation ended without a word");
}

#[test]
fn acceptance() {
    for draft in [1, 2, 3] {
        let engine = start(on(DeviceChoice::Cpu, draft));
        let (mut drafted, mut accepted, mut steps, mut generated) = (0, 0, 0, 0);
        for a in answers() {
            let (_, _, s) = generate(&engine.session(), &a.prompt, SamplingParams::default(), a.tokens.len());
            println!("{draft}: {} of {}", s.accepted, s.drafted);
            (drafted, accepted) = (drafted + s.drafted, accepted + s.accepted);
            (steps, generated) = (steps + s.steps, generated + s.generated_tokens - 1);
        }
        println!("{draft} drafted: {accepted} of {drafted} accepted, {generated} tokens in {steps} steps");
    }
}
