//! One side alone, and what it makes of messages that tests write.

use std::{cell::RefCell, path::PathBuf, rc::Rc};

use pleiad_models::Checkpoint;
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};

use super::{all_there, ids, options, tokens};
use crate::{
    DeviceChoice, Engine, EngineOptions, Error, Event, GenerateOptions, SamplingParams,
    engine::{
        DoneReason, EngineInfo, GenerationStats, MemoryUse, Progress,
        remote::{
            Host, Remote,
            message::{self, Asked, Flags, Greeting, Happened, Rows, Told},
        },
    },
    experts::{
        ExpertReport,
        trace::{Routed, Served},
        ways::{Way, WayChoice, WaysReport},
    },
};

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
    let resident = Flags::of(&[true, false]);
    let greeting = Greeting { info, experts: None, resident, memory: MemoryUse::default() };
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

    let ways = WaysReport {
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

/// What takes messages.
type Taker = Box<dyn FnMut(&[u8]) -> crate::Result<()>>;

/// Both sides, to be given messages that make no sense.
fn takers() -> (Taker, Taker) {
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
    (Box::new(to_page), Box::new(to_host))
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
