//! A page and a worker that exchange messages, and an engine that works here beside them.

#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

mod alone;

use std::{
    cell::RefCell,
    collections::VecDeque,
    pin::{Pin, pin},
    rc::Rc,
    sync::atomic::Ordering,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use pleiad_models::Checkpoint;

use super::{Host, Remote};
use crate::{
    DeviceChoice, Engine, EngineOptions, Error, Event, GenerateOptions, Generation, SamplingParams,
    engine::{DoneReason, load},
};

const PROMPTS: [&str; 4] = ["Once upon a time", "从前有一座山，", "🌍🦀 = ", "The cat sat on"];

fn options() -> EngineOptions {
    EngineOptions {
        device: DeviceChoice::Cpu,
        context: Some(512),
        threads: Some(2),
        chunk: 8,
        trace: true,
        ..EngineOptions::default()
    }
}

fn engine(checkpoint: &Checkpoint) -> Engine {
    Engine::start(pollster::block_on(load(checkpoint, options(), &mut |_, _| {})).unwrap()).unwrap()
}

fn ids(engine: &Engine, text: &str) -> Vec<u32> {
    engine.tokenizer().unwrap().encode(text, false).unwrap()
}

/// Page and worker, with messages carried between them.
struct Link {
    remote: Remote,
    host: Host,
    /// Messages of the host on their way.
    post: Rc<RefCell<VecDeque<Vec<u8>>>>,
    tasks: Vec<Pin<Box<dyn Future<Output = ()>>>>,
    /// The page has said that it needs nothing more.
    ended: bool,
}

impl Link {
    /// The page's handle, of an engine that has no tokenizer where it works.
    fn new() -> (Engine, Self) {
        let mut checkpoint = Checkpoint::tiny().unwrap();
        let tokenizer = checkpoint.tokenizer.take();
        let (config, engine) = (checkpoint.config.clone(), engine(&checkpoint));
        let post = Rc::<RefCell<VecDeque<Vec<u8>>>>::default();
        let out = Rc::clone(&post);
        let host = Host::new(engine, move |message| out.borrow_mut().push_back(message));
        let (engine, remote) = Remote::new(&host.greeting(), config, tokenizer).unwrap();
        (engine, Self { remote, host, post, tasks: Vec::new(), ended: false })
    }

    /// Carries what there is to be carried.
    fn turn(&mut self) {
        let context = &mut Context::from_waker(Waker::noop());
        while !self.ended {
            match pin!(self.remote.next()).poll(context) {
                Poll::Ready(Some(message)) => self.host.take(&message, &mut |task| self.tasks.push(task)).unwrap(),
                Poll::Ready(None) => self.ended = true,
                Poll::Pending => break,
            }
        }
        self.tasks.retain_mut(|task| task.as_mut().poll(context).is_pending());
        let messages = std::mem::take(&mut *self.post.borrow_mut());
        messages.iter().for_each(|message| self.remote.take(message).unwrap());
    }

    /// The next event of a generation.
    fn next(&mut self, generation: &mut Generation) -> Event {
        let start = Instant::now();
        loop {
            self.turn();
            if let Some(event) = generation.try_next() {
                return event;
            }
            assert!(start.elapsed() < Duration::from_secs(60), "no event");
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    fn rest(&mut self, generation: &mut Generation) -> Vec<Event> {
        let mut events = Vec::new();
        while !events.last().is_some_and(is_last) {
            events.push(self.next(generation));
        }
        self.turn();
        assert!(generation.try_next().is_none(), "an event after the last");
        events
    }

    fn until_tokens(&mut self, generation: &mut Generation, count: usize) {
        let mut tokens = 0;
        while tokens < count {
            tokens += usize::from(matches!(self.next(generation), Event::Token { .. }));
        }
    }

    fn until_ended(&mut self) {
        let start = Instant::now();
        while !self.ended {
            self.turn();
            assert!(start.elapsed() < Duration::from_secs(60), "the page still wants something");
        }
    }
}

fn is_last(event: &Event) -> bool {
    matches!(event, Event::Done { .. } | Event::Failed(_))
}

fn all(mut generation: Generation) -> Vec<Event> {
    std::iter::from_fn(|| generation.next_blocking()).collect()
}

/// All of an event but times, and what else the device's day decides.
fn shown(event: &Event) -> String {
    match event.clone() {
        Event::Token { id, text, logit, activations, seconds } => {
            assert!(seconds > 0.0);
            format!("{id} {text:?} {logit} {activations:?}")
        }
        Event::Done { reason, text, stats } => {
            assert!(stats.prefill_seconds > 0.0 || stats.generated_tokens == 0);
            format!("{reason:?} {text:?} {} {} {}", stats.prompt_tokens, stats.reused_tokens, stats.generated_tokens)
        }
        other => format!("{other:?}"),
    }
}

/// What the CPU took by kind of work is within what the engine saw of it, and that is within the time there was.
fn timed(event: &Event) {
    let Event::Done { stats, .. } = event else { return };
    let parts = [
        (stats.prefill_device.work, stats.prefill_host, stats.prefill_seconds, 1),
        (stats.decode_device.work, stats.decode_host, stats.decode_seconds, stats.steps),
    ];
    for (work, host, seconds, steps) in parts.into_iter().filter(|p| p.3 > 0) {
        assert!([work.attention, work.experts, work.dense, work.output].iter().all(|&nanos| nanos > 0), "{steps}: {work:?}");
        assert_eq!(work.drafting, 0);
        let worked = work.total() as f64 * 1e-9;
        assert!(worked <= host.starting && host.starting + host.waiting <= seconds + 1e-3, "{work:?} {host:?} {seconds}");
    }
}

fn same(here: &[Event], elsewhere: &[Event]) {
    assert_eq!(here.iter().map(shown).collect::<Vec<_>>(), elsewhere.iter().map(shown).collect::<Vec<_>>());
}

fn answer(events: &[Event]) -> Vec<u32> {
    events.iter().filter_map(|e| if let Event::Token { id, .. } = e { Some(*id) } else { None }).collect()
}

fn tokens(max: usize) -> GenerateOptions {
    GenerateOptions { max_tokens: Some(max), ..GenerateOptions::default() }
}

#[test]
fn events_are_those_of_an_engine_that_works_here() {
    let here = engine(&Checkpoint::tiny().unwrap());
    let (elsewhere, mut link) = Link::new();
    assert_eq!(here.info().device, elsewhere.info().device);
    assert_eq!((here.info().context, here.info().weight_bytes), (elsewhere.info().context, elsewhere.info().weight_bytes));
    assert_eq!(here.config().name, elsewhere.config().name);
    assert!(elsewhere.experts().is_none() && elsewhere.resident().is_empty());
    let memory = elsewhere.memory();
    assert!(memory.cache_bytes > 0 && memory.work_bytes > 0 && memory.positions > 0 && memory.taken == 0, "{memory:?}");
    assert_eq!(memory, here.memory());

    let (mut kinds, mut text) = ([0; 3], String::new());
    let mut pieces = 0;
    for (seed, prompt) in PROMPTS.iter().enumerate() {
        let sessions = (here.session(), elsewhere.session());
        let mut history = ids(&here, prompt);
        for temperature in [0.0, 4.0] {
            let sampling = SamplingParams { temperature, seed: seed as u64, ..SamplingParams::default() };
            let options = GenerateOptions { routing: seed % 2 == 1, ..tokens(40) };
            let local = all(sessions.0.generate(history.clone(), sampling.clone(), options.clone()));
            let remote = link.rest(&mut sessions.1.generate(history.clone(), sampling, options));
            same(&local, &remote);
            history.extend(answer(&remote));
            // The last token is not read any more; what the session began with before is there once.
            let memory = elsewhere.memory();
            assert_eq!(memory, here.memory());
            assert!(memory.taken >= history.len() - 1 && memory.taken <= memory.positions, "{memory:?}, {}", history.len());
            local.iter().for_each(timed);
            for event in &remote {
                match event {
                    Event::Prompt(_) => kinds[0] += 1,
                    Event::Token { text: piece, .. } => {
                        kinds[1] += 1;
                        pieces += usize::from(piece.is_empty());
                        text += piece;
                    }
                    Event::Routed(rows) => kinds[2] += rows.len(),
                    _ => {}
                }
            }
        }
    }
    assert!(kinds.iter().all(|&n| n > 0), "{kinds:?}");
    assert!(!text.is_ascii() && pieces > 0, "nothing was held back in {text:?}");
}

#[test]
fn sessions_take_turns() {
    let (engine, mut link) = Link::new();
    let sessions = [engine.session(), engine.session()];
    let generate = |i: usize| sessions[i].generate(ids(&engine, PROMPTS[i]), SamplingParams::default(), tokens(60));
    let mut both = [generate(0), generate(1)];
    let mut events = [Vec::new(), Vec::new()];
    let mut order = Vec::new();
    while !events.iter().all(|e: &Vec<Event>| e.last().is_some_and(is_last)) {
        link.turn();
        for (i, (generation, events)) in both.iter_mut().zip(&mut events).enumerate() {
            while let Some(event) = generation.try_next() {
                order.push(i);
                events.push(event);
            }
        }
    }
    order.dedup();
    assert!(order.len() > 2, "one after the other");
    for (i, events) in events.iter().enumerate() {
        assert_eq!(answer(events).len(), 60);
        let alone = engine.session();
        let again = alone.generate(ids(&engine, PROMPTS[i]), SamplingParams::default(), tokens(60));
        assert_eq!(answer(&link.rest(&mut { again })), answer(events));
    }
    // Closed sessions are gone where the work is done.
    assert_eq!(link.host.sessions.len(), 3);
    drop(sessions);
    link.turn();
    assert!(link.host.sessions.is_empty() && link.host.running.borrow().is_empty());
}

#[test]
fn cancelling_reaches_the_worker() {
    let (engine, mut link) = Link::new();
    let session = engine.session();
    let prompt = ids(&engine, PROMPTS[0]);
    let mut generation = session.generate(prompt.clone(), SamplingParams::default(), GenerateOptions::default());
    link.until_tokens(&mut generation, 3);
    generation.cancel();
    generation.cancel();
    let rest = link.rest(&mut generation);
    let Some(Event::Done { reason: DoneReason::Cancelled, stats, .. }) = rest.last() else { panic!("{rest:?}") };
    assert!((3..500).contains(&stats.generated_tokens), "{stats:?}");

    // Whoever drops a generation cancels it.
    let mut generation = session.generate(prompt.clone(), SamplingParams::default(), GenerateOptions::default());
    link.until_tokens(&mut generation, 1);
    assert!(link.host.running.borrow().values().all(|c| !c.load(Ordering::Relaxed)));
    drop(generation);
    link.turn();
    assert!(link.host.running.borrow().values().all(|c| c.load(Ordering::Relaxed)));
    let mut generation = session.generate(prompt, SamplingParams::default(), tokens(2));
    let events = link.rest(&mut generation);
    assert!(matches!(events.last(), Some(Event::Done { reason: DoneReason::Length, .. })), "{events:?}");
    // What is over is cancelled without a word.
    drop(generation);
    assert!(matches!(pin!(link.remote.next()).poll(&mut Context::from_waker(Waker::noop())), Poll::Pending));
}

#[test]
fn failures_keep_their_words() {
    let here = engine(&Checkpoint::tiny().unwrap());
    let (elsewhere, mut link) = Link::new();
    let sessions = (here.session(), elsewhere.session());
    let cold = SamplingParams { temperature: f32::NAN, ..SamplingParams::default() };
    for (prompt, sampling) in [
        (vec![], SamplingParams::default()),
        (vec![1; 512], SamplingParams::default()),
        (vec![u32::MAX], SamplingParams::default()),
        (vec![1], cold),
    ] {
        let local = all(sessions.0.generate(prompt.clone(), sampling.clone(), tokens(1)));
        let remote = link.rest(&mut sessions.1.generate(prompt.clone(), sampling, tokens(1)));
        same(&local, &remote);
        let [Event::Failed(error)] = &remote[..] else { panic!("{remote:?}") };
        assert_eq!(matches!(error, Error::ContextFull { prompt: 512, .. }), prompt.len() == 512, "{error}");
    }
    // And the session goes on.
    let events = link.rest(&mut sessions.1.generate(vec![1], SamplingParams::default(), tokens(1)));
    assert!(matches!(events.last(), Some(Event::Done { .. })), "{events:?}");
}

#[test]
fn a_worker_that_is_lost_fails_everything() {
    let (engine, mut link) = Link::new();
    let session = engine.session();
    let generate = || session.generate(ids(&engine, PROMPTS[0]), SamplingParams::default(), GenerateOptions::default());
    let mut under_way = generate();
    link.until_tokens(&mut under_way, 2);
    let mut waiting = generate();
    link.remote.lost(&Error::DeviceLost("it was unplugged".into()));
    let mut later = generate();
    // Nothing has to be carried for that.
    let failed = |generation: &mut Generation| loop {
        match generation.try_next().unwrap() {
            Event::Failed(error) => break error,
            _ => continue,
        }
    };
    assert!(matches!(failed(&mut under_way), Error::DeviceLost(why) if why == "it was unplugged"));
    for generation in [&mut waiting, &mut later] {
        let error = failed(generation);
        assert!(matches!(error, Error::Stopped(_)), "{error:?}");
        assert_eq!(error.to_string(), "the engine has stopped: the GPU was lost: it was unplugged");
        assert!(generation.try_next().is_none());
    }
    assert!(pollster::block_on(link.remote.next()).is_none());
    // What was on its way all the same, and another reason, change nothing.
    link.turn();
    link.remote.lost(&Error::Stopped("another reason".into()));
    assert!(under_way.try_next().is_none());
    assert!(failed(&mut generate()).to_string().ends_with("unplugged"));
}

#[test]
fn a_link_that_is_dropped_fails_what_is_under_way() {
    let (engine, mut link) = Link::new();
    let session = engine.session();
    let mut generation = session.generate(vec![1], SamplingParams::default(), GenerateOptions::default());
    link.turn();
    drop(link);
    let events = all_there(&mut generation);
    assert!(matches!(events.last(), Some(Event::Failed(Error::Stopped(_)))), "{events:?}");
}

fn all_there(generation: &mut Generation) -> Vec<Event> {
    std::iter::from_fn(|| generation.try_next()).collect()
}

#[test]
fn it_ends_when_nobody_has_a_handle() {
    let (engine, mut link) = Link::new();
    link.turn();
    let session = engine.session();
    drop(engine);
    link.turn();
    assert!(!link.ended);
    let mut generation = session.generate(vec![1], SamplingParams::default(), GenerateOptions::default());
    link.until_tokens(&mut generation, 1);
    drop(session);
    // Its generation ends first, as somebody follows it.
    let events = link.rest(&mut generation);
    assert!(matches!(events.last(), Some(Event::Done { reason: DoneReason::Cancelled, .. })), "{events:?}");
    link.until_ended();

    // Where nobody does, it is not waited for.
    let (engine, mut link) = Link::new();
    let session = engine.session();
    let generation = session.generate(vec![1], SamplingParams::default(), GenerateOptions::default());
    link.turn();
    drop((engine, session, generation));
    for _ in 0..3 {
        match pin!(link.remote.next()).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Some(message)) => link.host.take(&message, &mut |_| {}).unwrap(),
            Poll::Ready(None) => return,
            Poll::Pending => panic!("something is waited for"),
        }
    }
    panic!("more than a cancellation and the end of a session");
}
