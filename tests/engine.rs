//! The engine's promises: prefixes are reused, sessions share, cancelling and surplus leave no trace.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a failure is a failed test")]

use pleiad_models::Checkpoint;
use pleiad_runtime::{
    DeviceChoice, Engine, EngineOptions, Error, Event, GenerateOptions, SamplingParams, Session, engine,
    engine::{DoneReason, GenerationStats, Stage},
};

fn start(device: DeviceChoice, adjust: impl FnOnce(&mut EngineOptions)) -> Engine {
    let checkpoint = Checkpoint::tiny().unwrap();
    let mut options = EngineOptions { device, context: Some(512), ..EngineOptions::default() };
    adjust(&mut options);
    Engine::start(pollster::block_on(engine::load(&checkpoint, options, &mut |_, _| {})).unwrap()).unwrap()
}

fn prompt(engine: &Engine, text: &str) -> Vec<u32> {
    engine.tokenizer().unwrap().encode(&format!("<｜begin▁of▁sentence｜><｜User｜>{text}<｜Assistant｜>"), true).unwrap()
}

fn finish(session: &Session, prompt: Vec<u32>, max: usize) -> Result<(Vec<u32>, DoneReason, GenerationStats), Error> {
    let options = GenerateOptions { max_tokens: Some(max), end: vec![1], routing: false };
    let mut generation = session.generate(prompt, SamplingParams::default(), options);
    let mut ids = Vec::new();
    while let Some(event) = generation.next_blocking() {
        match event {
            Event::Token { id, .. } => ids.push(id),
            Event::Done { reason, stats, .. } => return Ok((ids, reason, stats)),
            Event::Failed(e) => return Err(e),
            Event::Prompt(_) | Event::Routed(_) | Event::Notice(_) => {}
        }
    }
    panic!("the stream ended without an end");
}

#[test]
fn a_second_turn_computes_only_what_is_new() {
    let engine = start(DeviceChoice::Cpu, |_| {});
    let session = engine.session();
    let mut history = prompt(&engine, "What is the capital of France?");
    let (answer, reason, first) = finish(&session, history.clone(), 100).unwrap();
    assert_eq!((reason, first.reused_tokens), (DoneReason::End, 0));
    history.extend(&answer);
    history.push(1);
    let before = history.len();
    history.extend(&prompt(&engine, "What is 2 + 3?")[1..]);
    let (again, _, second) = finish(&session, history.clone(), 100).unwrap();
    // Everything but the end token, which was sampled and never fed.
    assert_eq!(second.reused_tokens, before - 1);

    // A fresh session says the same, and a regeneration computes one token.
    let (fresh, _, stats) = finish(&start(DeviceChoice::Cpu, |_| {}).session(), history.clone(), 100).unwrap();
    assert_eq!((&fresh, stats.reused_tokens), (&again, 0));
    let (regenerated, _, stats) = finish(&session, history.clone(), 100).unwrap();
    assert_eq!((&regenerated, stats.reused_tokens), (&again, history.len() - 1));
}

#[test]
fn another_session_shares_full_pages() {
    let engine = start(DeviceChoice::Cpu, |_| {});
    let text = "Tell me a story. ".repeat(30);
    let long = prompt(&engine, &text);
    assert!(long.len() > 130);
    let (first, second) = (engine.session(), engine.session());
    let (a, ..) = finish(&first, long.clone(), 20).unwrap();
    let (b, _, stats) = finish(&second, long.clone(), 20).unwrap();
    assert_eq!(a, b);
    assert_eq!(stats.reused_tokens, (long.len() - 1) / 64 * 64);
    // The first goes on undisturbed.
    let mut more = long.clone();
    more.extend(&a);
    let (c, _, stats) = finish(&first, more, 5).unwrap();
    assert!(!c.is_empty() && stats.reused_tokens >= long.len());
}

#[test]
fn sessions_take_turns_and_agree_with_themselves_alone() {
    let engine = start(DeviceChoice::Cpu, |o| o.in_flight = Some(4));
    let texts = ["What is 47 + 85?", "What is the capital of Japan?", "Tell me a story about a fox."];
    let alone: Vec<Vec<u32>> = texts.iter().map(|t| finish(&engine.session(), prompt(&engine, t), 60).unwrap().0).collect();
    let sessions: Vec<Session> = texts.iter().map(|_| engine.session()).collect();
    let mut streams: Vec<_> = sessions
        .iter()
        .zip(texts)
        .map(|(s, t)| {
            let options = GenerateOptions { max_tokens: Some(60), end: vec![1], routing: false };
            s.generate(prompt(&engine, t), SamplingParams::default(), options)
        })
        .collect();
    for (stream, alone) in streams.iter_mut().zip(alone) {
        let mut ids = Vec::new();
        while let Some(event) = stream.next_blocking() {
            if let Event::Token { id, .. } = event {
                ids.push(id);
            }
        }
        assert_eq!(ids, alone);
    }
}

#[test]
fn cancelling_stops_and_the_session_goes_on() {
    let engine = start(DeviceChoice::Cpu, |o| o.in_flight = Some(8));
    let session = engine.session();
    let ids = prompt(&engine, "Tell me a long story.");
    let mut generation = session.generate(ids.clone(), SamplingParams::default(), GenerateOptions::default());
    let mut seen = 0;
    let reason = loop {
        match generation.next_blocking().unwrap() {
            Event::Token { .. } => {
                seen += 1;
                if seen == 3 {
                    generation.cancel();
                }
            }
            Event::Done { reason, .. } => break reason,
            Event::Failed(e) => panic!("{e}"),
            Event::Prompt(_) | Event::Routed(_) | Event::Notice(_) => {}
        }
    };
    assert_eq!(reason, DoneReason::Cancelled);
    let fresh = finish(&engine.session(), ids.clone(), 30).unwrap().0;
    assert_eq!(finish(&session, ids, 30).unwrap().0, fresh);
}

#[test]
fn what_cannot_be_is_refused_in_words() {
    let engine = start(DeviceChoice::Cpu, |_| {});
    let session = engine.session();
    let error = |ids: Vec<u32>| finish(&session, ids, 5).unwrap_err().to_string();
    assert!(error(vec![]).contains("empty"));
    assert!(error(vec![999_999]).contains("vocabulary"));
    assert!(error(vec![5; 600]).contains("600 tokens"));
    // And it still works.
    assert!(!finish(&session, prompt(&engine, "Hello"), 5).unwrap().0.is_empty());
}

#[test]
fn the_context_ends_a_generation_that_reaches_it() {
    let engine = start(DeviceChoice::Cpu, |o| o.context = Some(64));
    let options = GenerateOptions::default();
    let ids = prompt(&engine, "Tell me a story.");
    let fed = ids.len();
    let session = engine.session();
    let mut generation = session.generate(ids, SamplingParams::default(), options);
    let mut tokens = 0;
    let reason = loop {
        match generation.next_blocking().unwrap() {
            Event::Token { .. } => tokens += 1,
            Event::Done { reason, .. } => break reason,
            Event::Failed(e) => panic!("{e}"),
            Event::Prompt(_) | Event::Routed(_) | Event::Notice(_) => {}
        }
    };
    // The last token is sampled from the last position and has none itself.
    assert_eq!((reason, fed + tokens), (DoneReason::Context, 65));
}

#[test]
fn routing_adds_up_and_the_surplus_leaves_no_trace() {
    let checkpoint = Checkpoint::tiny().unwrap();
    let moe = checkpoint.config.moe.clone().unwrap();
    let layers = checkpoint.config.dense_layers.iter().filter(|d| !**d).count();
    let mut totals = Vec::new();
    for in_flight in [1, 8] {
        let engine = start(DeviceChoice::Cpu, |o| o.in_flight = Some(in_flight));
        let options = GenerateOptions { max_tokens: None, end: vec![1], routing: true };
        let ids = prompt(&engine, "What is the capital of France?");
        let mut tokens = ids.len() as u32;
        let mut total = 0;
        let session = engine.session();
        let mut generation = session.generate(ids, SamplingParams::default(), options);
        while let Some(event) = generation.next_blocking() {
            if let Event::Token { activations, .. } = event {
                let sum: u32 = activations.unwrap().iter().sum();
                assert_eq!(sum as usize, tokens as usize * layers * moe.top_k);
                (total, tokens) = (total + sum, 1);
            }
        }
        totals.push(total);
    }
    assert_eq!(totals[0], totals[1]);
}

#[test]
fn damaged_weights_are_reported_not_sampled_from() {
    let mut bytes = pleiad_models::TINY_GGUF.to_vec();
    let file = pleiad_models::gguf::Gguf::from_bytes("tiny", pleiad_models::Bytes::new(bytes.clone())).unwrap();
    // The scale of the head's first block, wherever the file has it: found by its bytes.
    let (_, head) = file.tensor("output.weight").unwrap();
    let at = bytes.windows(64).position(|w| w == &head[..64]).unwrap();
    bytes[at..at + 2].copy_from_slice(&0x7e00u16.to_le_bytes());
    let checkpoint = Checkpoint::from_gguf_bytes("damaged", pleiad_models::Bytes::new(bytes)).unwrap();
    assert!(checkpoint.weights.check_finite("damaged", &mut |_, _| {}).unwrap_err().to_string().contains("output.weight"));
    let options = EngineOptions { device: DeviceChoice::Cpu, ..EngineOptions::default() };
    let loaded = pollster::block_on(engine::load(&checkpoint, options, &mut |_, _| {})).unwrap();
    let engine = Engine::start(loaded).unwrap();
    let error = finish(&engine.session(), prompt(&engine, "Hello"), 5).unwrap_err().to_string();
    assert!(error.contains("not finite"), "{error}");
}

/// Loading with kernels tells of each of them, and answers compile none.
#[test]
fn kernels_are_compiled_when_the_model_is_loaded() {
    for place in pleiad_tests::fast_devices("kernels_are_compiled_when_the_model_is_loaded") {
        let options = EngineOptions {
            device: DeviceChoice::Wgpu(Some(place.adapter.index)),
            context: Some(512),
            chunk: 64,
            ..EngineOptions::default()
        };
        let mut told: Vec<(Stage, u64, u64)> = Vec::new();
        let mut progress = |stage, done, all| told.push((stage, done, all));
        let loaded = pollster::block_on(engine::load_with(&Checkpoint::tiny().unwrap(), options, &mut progress)).unwrap();
        let (weights, kernels): (Vec<_>, Vec<_>) = told.iter().partition(|t| t.0 == Stage::Weights);
        assert!(weights.last().is_some_and(|t| t.1 == t.2), "{weights:?}");
        assert_eq!(told.iter().rposition(|t| t.0 == Stage::Weights).unwrap() + 1, weights.len(), "weights come first");
        let all = kernels[0].2;
        assert_eq!(kernels, (0..=all).map(|n| (Stage::Kernels, n, all)).collect::<Vec<_>>());
        let device = std::sync::Arc::clone(loaded.device().unwrap());
        assert_eq!(device.pipelines() as u64, all);
        // Prompts shorter than a chunk, longer, and of many chunks; short rests and long ones.
        let engine = Engine::start(loaded).unwrap();
        let word = prompt(&engine, "What is the capital of France?");
        for words in [1, 6, 20] {
            let history: Vec<u32> = word.iter().copied().cycle().take(word.len() * words).collect();
            finish(&engine.session(), history, 3).unwrap();
        }
        assert_eq!(device.pipelines() as u64, all, "kernels were compiled while answering");
    }
}
