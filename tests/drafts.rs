//! Drafting by the model's module for multi-token prediction changes nothing but the time that an answer takes.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a failure is a failed test; a skipped part is printed")]

use std::sync::Arc;

use pleiad_models::Checkpoint;
use pleiad_runtime::{
    Activations, CacheFormat, DeviceChoice, Engine, EngineOptions, Event, GenerateOptions, Model, SamplingParams, Session,
    cpu::CpuExecutor,
    cuda::CudaDevices,
    engine::{self, DoneReason, GenerationStats},
    executor::{ExpertOptions, LoadOptions, Readback},
    experts::{
        budget::Needs,
        ways::{Way, WayChoice},
    },
    forward::{AttentionForm, Options, Output, Speculation, record},
    plan::Act,
    step::StepState,
};
use pleiad_tests::{cuda_device, gpus};
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

/// The module's own logits against torch's, on the weights before they were quantised to 8 bits.
#[test]
fn the_module_predicts_what_torch_says() {
    let reference: Value = serde_json::from_str(include_str!("data/mtp.json")).unwrap();
    let checkpoint = Checkpoint::tiny().unwrap();
    let model = Arc::new(Model::with_mtp(&checkpoint.config, &checkpoint.weights));
    let load = LoadOptions {
        positions: 256,
        max_context: 256,
        cache: CacheFormat::F32,
        threads: None,
        experts: ExpertOptions::default(),
    };
    let plan = record(
        &model,
        Options {
            max_tokens: 1,
            output: Output::Token,
            activations: Activations::F32,
            attention: AttentionForm::Absorbed,
            speculation: Some(Speculation { verify: 0, draft: 1 }),
        },
    );
    let logits = plan.acts.iter().position(|a| a.name.contains("draft_logits")).map(|i| Act(i as u32)).unwrap();
    let a = &answers()[2];
    let ids: Vec<u32> = a.prompt.iter().chain(&a.tokens).copied().collect();
    let mut cpu = CpuExecutor::load(Arc::clone(&model), &load).unwrap();
    let id = cpu.compile(&plan).unwrap();
    let (mut same, mut all, mut error, mut norm) = (0, 0, 0.0, 0.0);
    for (p, &token) in ids[..ids.len() - 1].iter().enumerate() {
        cpu.write_step(&StepState { tokens: 1, pos: p as u32, ..StepState::default() }, &[0, 1, 2, 3]);
        cpu.write_ids(&[token]);
        let ticket = cpu.submit(id, 1, Readback { token: true, counters: false }).unwrap();
        let sampled = cpu.wait(ticket).unwrap().token;
        // From the last token of the prompt on; the model says what transformers says, but for one tie.
        let Some(i) = (p + 1).checked_sub(a.prompt.len()).filter(|_| sampled == ids[p + 1]) else { continue };
        let token = cpu.step().drafts[0];
        let logit = f32::from_bits(cpu.read_act(id, logits, 1)[token as usize]);
        let expected = reference["logits"][i].as_f64().unwrap();
        same += usize::from(reference["tokens"][i].as_u64() == Some(token.into()));
        error += (f64::from(logit) - expected).powi(2);
        norm += expected.powi(2);
        all += 1;
    }
    let nmse = error / norm;
    println!("{same} of {all} tokens are the same; NMSE of their logits {nmse:.1e}");
    assert!(all > 100 && same + 2 >= all && nmse < 1e-3, "{same} of {all}, NMSE {nmse:e}");
}

/// Margins below this, in nats, are ties: rounding may decide them either way.
const TIE: f64 = 0.02;

/// Drafts that were right, and all, over a story, a sum and a function.
fn acceptance(draft: usize) -> (usize, usize) {
    let engine = start(on(DeviceChoice::Cpu, draft));
    let of = |s: GenerationStats| (s.accepted, s.drafted);
    let all = [1, 2, 3].map(|i| {
        let a = &answers()[i];
        of(generate(&engine.session(), &a.prompt, SamplingParams::default(), a.tokens.len()).2)
    });
    all.into_iter().fold((0, 0), |sum, (accepted, drafted)| (sum.0 + accepted, sum.1 + drafted))
}

#[test]
fn drafts_are_right_as_often_as_llama_cpp_has_them() {
    // llama.cpp on the same file: 100 of 103 at one drafted token a step, 135 of 210 at three.
    for (draft, expected) in [(1, 0.97), (3, 0.64)] {
        let (right, all) = acceptance(draft);
        println!("{draft} drafted a step: {right} of {all} right");
        let share = right as f64 / all as f64;
        assert!((share - expected).abs() < 0.05, "{draft} drafted a step: {right} of {all} right");
    }
}

/// Checks that `draft` drafts a step leave the first `tokens` tokens of the first `count` answers as they are without.
fn same_on(device: DeviceChoice, drafts: &[usize], in_flight: usize, count: usize, tokens: usize) {
    let with = |draft| start(EngineOptions { in_flight: Some(in_flight), ..on(device, draft) });
    let plain = with(0);
    let margins: Value = serde_json::from_str(include_str!("../models/tiny/answers.json")).unwrap();
    let margin = |i: usize| margins[i]["smallest_margin"].as_f64().unwrap();
    let expected: Vec<_> = answers()
        .iter()
        .take(count)
        .map(|a| generate(&plain.session(), &a.prompt, SamplingParams::default(), a.tokens.len().min(tokens)))
        .collect();
    drop(plain);
    for &draft in drafts {
        let engine = with(draft);
        let session = engine.session();
        for (i, (a, (expected, reason, _))) in answers().iter().zip(&expected).enumerate() {
            let got = generate(&session, &a.prompt, SamplingParams::default(), a.tokens.len().min(tokens));
            let what = format!("answer {i} with {draft} drafts on {}, {in_flight} in flight", engine.info().device);
            if &got.0 != expected && margin(i) < TIE {
                println!("{what}: a tie of {} nats was decided the other way", margin(i));
                continue;
            }
            assert_eq!((&got.0, got.1), (expected, *reason), "{what}");
            let s = got.2;
            assert!(s.drafted == 0 || s.accepted <= s.drafted, "{what}: {s:?}");
            if s.steps > 4 {
                // Otherwise nothing would have been tried.
                assert!(s.accepted > 0 && s.tokens_per_step().unwrap() > 1.0, "{what}: {s:?}");
            }
        }
    }
}

#[test]
fn greedy_answers_are_the_same_on_the_cpu() {
    same_on(DeviceChoice::Cpu, &[1, 2, 3, 7], 1, usize::MAX, usize::MAX);
    // Steps submitted ahead, before it is known how many tokens those before them come to.
    same_on(DeviceChoice::Cpu, &[1, 3], 4, usize::MAX, usize::MAX);
}

#[test]
fn greedy_answers_are_the_same_on_gpus() {
    for index in 0..gpus("greedy_answers_are_the_same_on_gpus").len() {
        let device = DeviceChoice::Wgpu(Some(index));
        same_on(device, &[1, 3], 1, 6, 16);
        same_on(device, &[2], 4, 3, 24);
    }
}

#[test]
fn greedy_answers_are_the_same_on_cuda() {
    if let Some(index) = cuda_device("greedy_answers_are_the_same_on_cuda") {
        let device = DeviceChoice::Cuda(CudaDevices::Of(1 << index));
        same_on(device, &[1, 3], 1, usize::MAX, usize::MAX);
        same_on(device, &[2, 7], 4, usize::MAX, usize::MAX);
    }
}

#[test]
fn sampled_answers_are_the_same_for_the_same_seed() {
    let (plain, three) = (start(on(DeviceChoice::Cpu, 0)), start(on(DeviceChoice::Cpu, 3)));
    let (mut same, mut accepted) = (0, 0);
    for seed in 0..24 {
        let params = SamplingParams { temperature: 0.9, top_p: 0.95, top_k: 40, seed, ..SamplingParams::default() };
        let prompt = &answers()[2].prompt;
        let (expected, ..) = generate(&plain.session(), prompt, params.clone(), 60);
        let (got, _, stats) = generate(&three.session(), prompt, params, 60);
        same += usize::from(got == expected);
        accepted += stats.accepted;
    }
    // Rows computed together are rounded otherwise than rows computed one by one: once in a while a draw on an edge goes the
    // other way.
    println!("{same} of 24 answers are the same, {accepted} drafts were right");
    assert!(same >= 22 && accepted > 100, "{same} of 24 answers are the same, {accepted} drafts were right");
}

#[test]
fn the_first_tokens_have_the_models_distribution() {
    // Of what follows the first token: with drafts it comes out of verification.
    let engine = start(on(DeviceChoice::Cpu, 1));
    let (with, without) = (engine.session(), engine.session().without_drafts());
    let prompt = &answers()[2].prompt;
    let mut counts = std::collections::BTreeMap::<(u32, u32), [f64; 2]>::new();
    let draws = 600;
    for seed in 0..draws {
        // Other seeds without drafts than with them: otherwise the answers would be the same one by one.
        for (which, session, seed) in [(0, &with, seed), (1, &without, seed + 1_000_000)] {
            let params = SamplingParams { temperature: 4.0, top_k: 6, seed, ..SamplingParams::default() };
            let (tokens, ..) = generate(session, prompt, params, 3);
            let token = |i: usize| tokens.get(i).copied().unwrap_or(1);
            counts.entry((token(1), token(2))).or_default()[which] += 1.0;
        }
    }
    // Two samples of one distribution: chi square over the pairs, rare ones taken together.
    let (mut chi, mut cells, mut rest) = (0.0, 0, [0.0; 2]);
    let mut cell = |[a, b]: [f64; 2]| {
        if a + b > 0.0 {
            chi += (a - b).powi(2) / (a + b);
            cells += 1;
        }
    };
    for pair in counts.values() {
        if pair[0] + pair[1] >= 10.0 {
            cell(*pair);
        } else {
            rest = [rest[0] + pair[0], rest[1] + pair[1]];
        }
    }
    cell(rest);
    let freedom = f64::from(cells - 1);
    // Wilson and Hilferty's approximation, 4 standard deviations.
    let bound = freedom * (1.0 - 2.0 / (9.0 * freedom) + 4.0 * (2.0 / (9.0 * freedom)).sqrt()).powi(3);
    println!("chi square {chi:.1} of {freedom} degrees of freedom, bound {bound:.1}");
    assert!(cells > 10 && chi < bound, "chi square {chi:.1} of {freedom} degrees of freedom, bound {bound:.1}");
}

#[test]
fn a_step_is_one_submission_and_one_readback() {
    for index in 0..gpus("a_step_is_one_submission_and_one_readback").len() {
        let options = EngineOptions { in_flight: Some(1), ..on(DeviceChoice::Wgpu(Some(index)), 2) };
        // With all plans made beforehand.
        let loaded = pollster::block_on(engine::load_with(&Checkpoint::tiny().unwrap(), options, &mut |_, _, _| {})).unwrap();
        let engine = Engine::start(loaded).unwrap();
        let (tokens, _, s) = generate(&engine.session(), &answers()[1].prompt, SamplingParams::default(), 20);
        assert_eq!(tokens.len(), 20);
        let (d, steps) = (s.decode_device, s.steps as u64);
        assert_eq!((d.submissions, d.readbacks, d.bind_groups), (steps, steps, 0), "{s:?}");
        assert!(s.steps < 15 && s.drafted == 2 * s.steps, "{s:?}");
    }
}

#[test]
fn lengths_contexts_and_turns_are_kept() {
    let (plain, three) = (start(on(DeviceChoice::Cpu, 0)), start(on(DeviceChoice::Cpu, 3)));
    let a = &answers()[2];
    for max in [1, 2, 3, 4, 5, 17] {
        let (expected, ..) = generate(&plain.session(), &a.prompt, SamplingParams::default(), max);
        let (got, reason, stats) = generate(&three.session(), &a.prompt, SamplingParams::default(), max);
        assert_eq!((&got, reason, stats.generated_tokens), (&expected, DoneReason::Length, max));
    }
    // To the end of the context, where there is no room for drafts.
    let small = |draft| start(EngineOptions { context: Some(40), ..on(DeviceChoice::Cpu, draft) });
    let (plain_small, small) = (small(0), small(3));
    let expected = generate(&plain_small.session(), &a.prompt, SamplingParams::default(), 1000);
    let got = generate(&small.session(), &a.prompt, SamplingParams::default(), 1000);
    assert_eq!((&got.0, got.1), (&expected.0, DoneReason::Context));
    assert!(got.2.accepted > 0);
    // A second turn finds what the first one fed.
    let session = three.session();
    let (answer, ..) = generate(&session, &a.prompt, SamplingParams::default(), 30);
    let mut history = a.prompt.clone();
    history.extend(&answer);
    let (again, _, stats) = generate(&session, &history, SamplingParams::default(), 10);
    assert_eq!(stats.reused_tokens, history.len() - 1);
    assert_eq!(again, generate(&plain.session(), &history, SamplingParams::default(), 10).0);
    // Long prompts come in chunks.
    let chunked = start(EngineOptions { chunk: 5, ..on(DeviceChoice::Cpu, 3) });
    let (got, _, stats) = generate(&chunked.session(), &a.prompt, SamplingParams::default(), 60);
    let whole = generate(&three.session(), &a.prompt, SamplingParams::default(), 60);
    assert_eq!(got, whole.0);
    assert_eq!((stats.accepted, stats.drafted), (whole.2.accepted, whole.2.drafted), "rows of chunks are missing");
}

#[test]
fn sessions_take_turns_and_cancelling_leaves_no_trace() {
    let (plain, three) =
        (start(on(DeviceChoice::Cpu, 0)), start(EngineOptions { in_flight: Some(3), ..on(DeviceChoice::Cpu, 3) }));
    let all: Vec<_> = answers().into_iter().take(5).collect();
    let expected: Vec<_> = all.iter().map(|a| generate(&plain.session(), &a.prompt, SamplingParams::default(), 80).0).collect();
    let sessions: Vec<_> = all.iter().map(|_| three.session()).collect();
    let options = |max| GenerateOptions { max_tokens: Some(max), end: vec![1], routing: true };
    let mut under_way: Vec<_> = sessions
        .iter()
        .zip(&all)
        .map(|(s, a)| (s.generate(a.prompt.clone(), SamplingParams::default(), options(80)), Vec::new(), false))
        .collect();
    let moe = three.config().moe.clone().unwrap();
    while under_way.iter().any(|(.., over)| !over) {
        for (generation, tokens, over) in under_way.iter_mut().filter(|(.., over)| !over) {
            match generation.next_blocking() {
                Some(Event::Token { id, activations, .. }) => {
                    assert_eq!(activations.unwrap().len(), three.config().num_layers * moe.num_experts);
                    tokens.push(id);
                }
                Some(Event::Failed(e)) => panic!("{e}"),
                Some(_) => {}
                None => *over = true,
            }
        }
    }
    for (i, ((_, got, _), expected)) in under_way.iter().zip(&expected).enumerate() {
        assert_eq!(got, expected, "session {i}");
    }
    // A generation that is cancelled in the middle, and its session after that.
    let session = three.session();
    let mut generation = session.generate(all[2].prompt.clone(), SamplingParams::default(), options(400));
    let mut tokens = 0;
    loop {
        match generation.next_blocking().unwrap() {
            Event::Token { .. } => {
                tokens += 1;
                if tokens == 7 {
                    generation.cancel();
                }
            }
            Event::Done { reason, .. } => {
                assert_eq!(reason, DoneReason::Cancelled);
                break;
            }
            Event::Failed(e) => panic!("{e}"),
            _ => {}
        }
    }
    assert_eq!(generate(&session, &all[1].prompt, SamplingParams::default(), 80).0, expected[1]);
}

#[test]
fn routing_is_told_of_the_tokens_that_count() {
    let gpus = gpus("routing_is_told_of_the_tokens_that_count");
    for device in [DeviceChoice::Cpu].into_iter().chain((!gpus.is_empty()).then_some(DeviceChoice::Wgpu(Some(0)))) {
        let engine = start(EngineOptions { trace: true, ..on(device, 3) });
        let a = &answers()[1];
        let options = GenerateOptions { max_tokens: Some(14), end: vec![1], routing: false };
        let session = engine.session();
        let mut generation = session.generate(a.prompt.clone(), SamplingParams::default(), options);
        let (mut chosen, mut tokens) = (std::collections::BTreeMap::<(u32, u16), usize>::new(), 0);
        while let Some(event) = generation.next_blocking() {
            match event {
                Event::Routed(rows) => rows.iter().for_each(|r| *chosen.entry((r.position, r.layer)).or_default() += 1),
                Event::Token { .. } => tokens += 1,
                Event::Failed(e) => panic!("{e}"),
                _ => {}
            }
        }
        assert_eq!(tokens, 14);
        let moe = engine.config().moe.clone().unwrap();
        let layers: Vec<u16> = (0..engine.config().num_layers).filter(|&l| engine.config().is_moe(l)).map(|l| l as u16).collect();
        // What the last step took in besides may go beyond the last token wanted.
        let last = chosen.keys().map(|k| k.0).max().unwrap();
        assert!((last as usize + 1).abs_diff(a.prompt.len() + 13) <= 3, "{last}");
        let expected = (0..=last).flat_map(|p| layers.iter().map(move |&l| ((p, l), moe.top_k)));
        assert!(chosen.into_iter().eq(expected), "{}", engine.info().device);
    }
}

#[test]
fn experts_that_are_not_resident_change_nothing() {
    let checkpoint = Checkpoint::tiny().unwrap();
    let model = Model::with_mtp(&checkpoint.config, &checkpoint.weights);
    let needs = Needs::of(&model, 1024, 512, CacheFormat::F16, Activations::F32, 64);
    for index in 0..gpus("experts_that_are_not_resident_change_nothing").len() {
        let device = DeviceChoice::Wgpu(Some(index));
        let with = |draft, share: Option<f64>, way| {
            let misses = WayChoice::Only(way);
            let memory_budget = share.map(|s| needs.at_share(s));
            let activations = Activations::F32;
            start(EngineOptions { chunk: 64, activations, memory_budget, misses, trace: true, ..on(device, draft) })
        };
        let a = &answers()[1];
        let (expected, ..) = generate(&with(0, None, Way::Resume).session(), &a.prompt, SamplingParams::default(), 16);
        for way in [Way::Resume, Way::Cpu] {
            let engine = with(2, Some(0.5), way);
            let (got, _, stats) = generate(&engine.session(), &a.prompt, SamplingParams::default(), 16);
            assert_eq!(got, expected, "{way:?} on {}", engine.info().device);
            let d = stats.decode_device;
            assert!(d.expert_misses > 0 && d.expert_hits > 0 && stats.accepted > 0, "{stats:?}");
        }
    }
}
