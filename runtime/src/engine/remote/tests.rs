#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

use std::{
    cell::RefCell,
    collections::VecDeque,
    path::PathBuf,
    pin::{Pin, pin},
    rc::Rc,
    sync::atomic::Ordering,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use pleiad_models::Checkpoint;
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};

use super::{
    Host, Remote,
    message::{self, Asked, Flags, Greeting, Happened, Rows, Told},
};
use crate::{
    DeviceChoice, Engine, EngineOptions, Error, Event, GenerateOptions, Generation, SamplingParams,
    engine::{DoneReason, EngineInfo, GenerationStats, Progress, load},
    experts::{
        ExpertReport,
        trace::{Routed, Served},
        ways::{Way, WayChoice},
    },
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

/// A page alone, with nothing on the other side.
fn page() -> (Engine, Remote) {
    let checkpoint = Checkpoint::tiny().unwrap();
    let info = EngineInfo {
        model: "a model".into(),
        device: "a device".into(),
        backend: "wgpu".into(),
        context: 8,
        model_context: 9,
        activations: Default::default(),
        weight_bytes: 10,
        load_seconds: 0.5,
        notice: Some("a notice".into()),
    };
    let greeting = Greeting { info, experts: None, resident: Flags::of(&[true, false]) };
    Remote::new(&message::encode(&greeting), checkpoint.config, checkpoint.tokenizer).unwrap()
}

#[test]
fn characters_in_several_tokens_are_held_back() {
    let (engine, remote) = page();
    let session = engine.session();
    let mut generation = session.generate(vec![1], SamplingParams::default(), tokens(9));
    let asked = pollster::block_on(remote.next()).unwrap();
    let Asked::Generate { number, .. } = message::decode(&asked).unwrap() else { panic!("{asked:?}") };
    let tell = |happened| remote.take(&message::encode(&Told::Event(number, happened))).unwrap();
    let token = |id| Happened::Token { id, logit: 1.0, activations: Some(vec![3, 0]), seconds: 0.1 };
    let parts = ids(&engine, "🦀");
    let (&last, first) = parts.split_last().unwrap();
    assert!(!first.is_empty());
    first.iter().for_each(|&id| tell(token(id)));
    // The device was lost; the worker goes on with what it had generated.
    tell(Happened::Notice("going on".into()));
    tell(Happened::Prompt(Progress { total: 2, done: 2, reused: 0 }));
    tell(token(last));
    tell(token(parts[0]));
    tell(Happened::Done { reason: DoneReason::Length, stats: GenerationStats::default() });
    let events = all_there(&mut generation);
    let texts: Vec<&str> =
        events.iter().filter_map(|e| if let Event::Token { text, .. } = e { Some(&**text) } else { None }).collect();
    assert_eq!(texts.concat(), "🦀");
    assert!(texts[..first.len()].iter().all(|t| t.is_empty()));
    assert!(matches!(events.last(), Some(Event::Done { text, .. }) if text == "\u{fffd}"), "{events:?}");
}

#[test]
fn what_the_engine_shows_is_kept_fresh() {
    // The worker's engine is itself a page's: nothing has to run.
    let (inner, _behind) = page();
    let post = Rc::<RefCell<Vec<Vec<u8>>>>::default();
    let out = Rc::clone(&post);
    let host = Host::new(inner.clone(), move |message| out.borrow_mut().push(message));
    let checkpoint = Checkpoint::tiny().unwrap();
    let (engine, remote) = Remote::new(&host.greeting(), checkpoint.config, checkpoint.tokenizer).unwrap();
    assert_eq!(format!("{:?}", engine.info()), format!("{:?}", inner.info()));
    assert_eq!(*engine.resident(), [true, false]);
    host.refresh();
    assert!(post.borrow().is_empty(), "no news");

    let ways = crate::experts::ways::WaysReport {
        choice: WayChoice::Only(Way::Resume),
        chosen: Way::Resume,
        probes: 1,
        switches: 2,
        drifts: 3,
        probing: 0.25,
        ways: Vec::new(),
    };
    let report = ExpertReport { budget: Some(7), slots: vec![3; 26], ways: Some(ways), ..ExpertReport::default() };
    *inner.experts.lock().unwrap() = Some(report.clone());
    *inner.resident.lock().unwrap() = [false, true, true].into();
    for _ in 0..2 {
        host.refresh();
        assert_eq!(post.borrow().len(), 2);
    }
    post.borrow().iter().for_each(|message| remote.take(message).unwrap());
    assert_eq!(*engine.resident(), [false, true, true]);
    assert_eq!(format!("{:?}", engine.experts().unwrap()), format!("{report:?}"));
}

/// A message of each kind, to the page and to the worker.
fn messages() -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let row = Routed { position: 1, layer: 2, rank: 3, expert: 4, weight: 0.5, served: Served::Hit, bytes: 5 };
    let happened = [
        Happened::Prompt(Progress { total: 3, done: 2, reused: 1 }),
        Happened::Token { id: 1, logit: 1.0, activations: Some(vec![1, 300]), seconds: 0.1 },
        Happened::Routed(Rows::of(&[row; 3])),
        Happened::Notice("é".into()),
        Happened::Done { reason: DoneReason::End, stats: GenerationStats::default() },
        Happened::of(&Event::Failed(Error::ContextFull { prompt: 3, context: 2, model: 4 })),
    ];
    let mut told: Vec<Vec<u8>> = happened.into_iter().map(|h| message::encode(&Told::Event(1, h))).collect();
    told.push(message::encode(&Told::Experts(Some(ExpertReport::default()))));
    told.push(message::encode(&Told::Resident(Flags::of(&[true; 9]))));
    let generate = Asked::Generate {
        number: 1,
        session: 2,
        prompt: vec![3, 400],
        sampling: SamplingParams::default(),
        options: GenerateOptions { end: vec![9], ..tokens(3) },
    };
    (told, [generate, Asked::Cancel(1), Asked::Close(2)].iter().map(message::encode).collect())
}

/// Both sides, to be given messages that make no sense.
fn takers() -> (impl FnMut(&[u8]) -> crate::Result<()>, impl FnMut(&[u8]) -> crate::Result<()>) {
    let (engine, remote) = page();
    let session = engine.session();
    let generation = session.generate(vec![1], SamplingParams::default(), tokens(1));
    let _ = pollster::block_on(remote.next());
    let (inner, behind) = page();
    let mut host = Host::new(inner, |_| {});
    let to_page = move |bytes: &[u8]| {
        let _kept = (&generation, &session);
        remote.take(bytes)
    };
    let to_host = move |bytes: &[u8]| {
        let _kept = &behind;
        host.take(bytes, &mut |_| {})
    };
    (to_page, to_host)
}

#[test]
fn messages_that_are_cut_or_too_long_are_errors() {
    fn check(messages: &[Vec<u8>], mut take: impl FnMut(&[u8]) -> crate::Result<()>) {
        for message in messages {
            for end in 0..message.len() {
                let error = take(&message[..end]).unwrap_err().to_string();
                assert!(error.starts_with("a message between the page and its worker"), "{error}");
            }
            take(message).unwrap();
            assert!(take(&[&message[..], &[0]].concat()).is_err());
        }
        assert!(take(&[0xff; 40]).is_err());
    }
    let ((told, asked), (to_page, to_host)) = (messages(), takers());
    check(&told, to_page);
    check(&asked, to_host);
    let checkpoint = Checkpoint::tiny().unwrap();
    assert!(Remote::new(&[1, 2, 3], checkpoint.config, None).is_err());
}

#[test]
fn messages_that_are_damaged_do_no_harm() {
    let ((mut told, asked), (mut to_page, mut to_host)) = (messages(), takers());
    told.extend(asked);
    let damage = (0..told.len(), proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4));
    let noise = proptest::collection::vec(any::<u8>(), 0..200);
    let mut runner = TestRunner::new(Config { failure_persistence: None, ..Config::default() });
    let run = RefCell::new(|bytes: &[u8]| {
        // Either is right: some damage makes another message. It must not panic, nor take memory that is not there.
        let _ = (to_page(bytes), to_host(bytes));
    });
    let damaged = (damage, noise).prop_map(|((which, changes), noise)| {
        let mut bytes = told[which].clone();
        changes.iter().for_each(|(at, byte)| *at.get_mut(&mut bytes) = *byte);
        [bytes, noise]
    });
    runner
        .run(&damaged, |both| {
            both.iter().for_each(|bytes| (run.borrow_mut())(bytes));
            Ok(())
        })
        .unwrap();
}

#[test]
fn options_cross_as_json() {
    let options = EngineOptions {
        device: DeviceChoice::Wgpu(Some(2)),
        memory_budget: Some(u64::MAX),
        misses: WayChoice::Only(Way::Gather),
        directory: Some(PathBuf::from("somewhere")),
        ..options()
    };
    let read: EngineOptions = serde_json::from_str(&serde_json::to_string(&options).unwrap()).unwrap();
    assert_eq!(format!("{read:?}"), format!("{:?}", EngineOptions { directory: None, ..options }));
}
