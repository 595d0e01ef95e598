//! With the embedded model on the CPU.

use pleiad_models::Checkpoint;
use pleiad_runtime::{DeviceChoice, Engine, EngineOptions, Event, GenerateOptions, SamplingParams, engine::load};

use super::*;

fn engine() -> (Engine, Arc<Shape>) {
    let checkpoint = Checkpoint::tiny().unwrap();
    let options = EngineOptions {
        device: DeviceChoice::Cpu,
        trace: true,
        context: Some(256),
        threads: Some(2),
        ..EngineOptions::default()
    };
    let loaded = pollster::block_on(load(&checkpoint, options, &mut |_, _| {})).unwrap();
    let shape = Arc::new(Shape::of(&checkpoint.config, &checkpoint.config.name).unwrap());
    (Engine::start(loaded).unwrap(), shape)
}

/// Tells `activity` of a greedy generation; returns the tokens and the text that were written.
fn run(
    engine: &Engine,
    session: &pleiad_runtime::Session,
    activity: &mut Activity,
    (run, prompt, most): (u64, &[u32], usize),
) -> (Vec<u32>, String) {
    let tokenizer = engine.tokenizer().unwrap();
    let named: Vec<(u32, String)> = prompt.iter().map(|&id| (id, tokenizer.decode(&[id], true))).collect();
    activity.begin(run, Some(chat()), Some(MessageId(run)), &named, 0.0);
    let sampling = SamplingParams { temperature: 0.0, ..SamplingParams::default() };
    let options = GenerateOptions { max_tokens: Some(most), ..GenerateOptions::default() };
    let mut generation = session.generate(prompt.to_vec(), sampling, options);
    let (mut ids, mut text, mut now) = (Vec::new(), String::new(), 0.0);
    while let Some(event) = generation.next_blocking() {
        now += 0.01;
        match event {
            Event::Routed(rows) => activity.routed(run, &rows, now),
            Event::Token { id, text: piece, .. } => {
                let start = text.len();
                text.push_str(&piece);
                ids.push(id);
                activity.token(run, id, &piece, start..text.len(), now);
            }
            Event::Done { .. } => activity.end(run, now),
            Event::Failed(error) => panic!("{error}"),
            _ => {}
        }
    }
    (ids, text)
}

#[test]
fn positions_and_texts_line_up_with_the_engine() {
    let (engine, shape) = engine();
    let tokenizer = engine.tokenizer().unwrap();
    let prompt = tokenizer.encode("The moon is a small", false).unwrap();
    let (n, m) = (prompt.len(), 12);
    let mut activity = Activity::new(Arc::clone(&shape), 256);
    let session = engine.session();
    let (ids, text) = run(&engine, &session, &mut activity, (1, &prompt, m));
    assert_eq!(ids.len(), m);

    let whole = shape.rows.len() * shape.top_k;
    let kept: Vec<TokenRow> = activity.tokens().iter(0..usize::MAX).map(|(_, t)| t.clone()).collect();
    assert_eq!(kept.len(), n + m);
    for (position, token) in kept.iter().enumerate() {
        assert_eq!(token.position as usize, position);
        assert_eq!(token.id, if position < n { prompt[position] } else { ids[position - n] });
        assert_eq!(token.phase == Phase::Prompt, position < n);
        assert_eq!(token.choices.len(), if position < n + m - 1 { whole } else { 0 }, "{position}");
        if position >= n && !token.text.is_empty() {
            assert_eq!(text.get(token.bytes.clone()), Some(token.text.as_str()));
            let found = activity.tokens().under(Some(&chat()), MessageId(1), token.bytes.start);
            assert_eq!(found, Some(position));
        }
    }
    for (row, sums) in activity.sums().rows().iter().enumerate() {
        assert_eq!(sums.tokens as usize, n + m - 1);
        let cells = &activity.sums().counts()[row * shape.experts..(row + 1) * shape.experts];
        assert_eq!(cells.iter().sum::<u64>() as usize, (n + m - 1) * shape.top_k);
    }
    assert_eq!(activity.measures().all.get(Measure::HitRate), None);

    // The same tokens read as a prompt, by an engine that has nothing in its cache, choose the same experts: routing was
    // given to the token that was fed, and not to the one that came out of the step.
    let (other, _) = self::engine();
    let all: Vec<u32> = prompt.iter().chain(&ids).copied().collect();
    let mut read = Activity::new(Arc::clone(&shape), 256);
    run(&other, &other.session(), &mut read, (2, &all, 1));
    let experts = |t: &TokenRow| t.choices.iter().map(|c| (c.layer, c.expert)).collect::<HashSet<_>>();
    let (mut common, mut every) = (0, 0);
    for (position, token) in kept.iter().enumerate().take(n + m - 1) {
        let again = read.tokens().get(read.tokens().find(2, position as u32).unwrap()).unwrap();
        assert_eq!(again.id, token.id);
        common += experts(token).intersection(&experts(again)).count();
        every += whole;
    }
    // Chunks of different lengths round differently: near ties may fall otherwise.
    assert!(common * 100 >= every * 98, "{common} of {every}");

    // A second question in the session: what is in its cache has no routing, and is not counted again.
    let before = activity.sums().tokens();
    let (more, _) = run(&engine, &session, &mut activity, (3, &all, 3));
    let computed = activity.sums().tokens() - before;
    assert_eq!(more.len(), 3);
    assert!((3..n as u64).contains(&computed), "{computed}");
    let last = activity.tokens().get(activity.tokens().find(3, (n + m - 1) as u32).unwrap()).unwrap();
    assert_eq!((last.id, last.choices.len()), (ids[m - 1], whole));
}
