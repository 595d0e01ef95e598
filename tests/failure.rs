//! When memory is refused, a device is lost or a file is damaged, the answer stays the same or there is none; it is never wrong.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a failure is a failed test; a skipped part is printed")]

use std::{fs, path::Path, sync::Arc};

use pleiad_models::Checkpoint;
use pleiad_runtime::{
    Activations, CacheFormat, DeviceChoice, Engine, EngineOptions, Error, GenerateOptions, Model, SamplingParams,
    engine::{self, Loaded},
    executor::{Executor, ExpertOptions},
    experts::{
        bank::{BankKind, HostBank, fingerprint},
        budget::Needs,
        trace::{Routed, Served},
        ways::{Way, WayChoice},
    },
    gpu::GpuDevice,
};
use pleiad_tests::{
    Answered, Setup, TempDir, Tolerance, answers, assert_same, collect, devices, fast_devices, golden_setup, is_slow, tiny, ways,
};

/// More failures than a test can meet.
const ALL: u32 = 1 << 30;

fn embedded(chunk: usize) -> (Setup, Vec<u32>) {
    let ids = answers().swap_remove(1).prompt;
    (Setup { model: tiny().1, positions: ids.len(), chunk, activations: Activations::F32 }, ids)
}

fn at_the_floor(setup: &Setup, misses: WayChoice) -> ExpertOptions {
    ExpertOptions { budget: Some(setup.needs().least()), misses, ..ExpertOptions::default() }
}

// ---- memory that is refused ----

#[test]
fn slots_refused_at_load_cost_slots_and_no_answer() {
    let test = "slots_refused_at_load_cost_slots_and_no_answer";
    let (setup, ids) = embedded(13);
    let experts = setup.model.banks[0].len();
    for device in devices(test) {
        let mut whole = setup.load(&device, ExpertOptions::default()).unwrap();
        let exact = setup.evaluate(&mut whole, &ids, 13).unwrap();
        drop(whole);
        let mut before = experts * setup.model.banks.len();
        for failures in [1, 2] {
            let what = format!("{failures} slabs refused on {}", device.name());
            device.plant_failures(failures, 0);
            let mut executor = setup.load(&device, ExpertOptions::default()).unwrap_or_else(|e| panic!("{what}: {e}"));
            device.plant_failures(0, 0);
            let report = executor.experts().unwrap();
            let slots: usize = report.slots.iter().sum();
            assert!(slots < before, "{what}: {slots} slots after {before}");
            before = slots;
            let told: Vec<_> = report.notices.iter().filter(|n| n.contains("less memory than planned")).collect();
            assert_eq!(told.len(), 1, "{what}: {:?}", report.notices);
            assert_same(&what, &exact, &setup.evaluate(&mut executor, &ids, 13).unwrap(), Tolerance::ROUNDING);
        }
        // With nothing to be had at all there is an error which says for what, and the device is as good as before.
        device.plant_failures(ALL, 0);
        let error = setup.load(&device, ExpertOptions::default()).err().unwrap();
        device.plant_failures(0, 0);
        assert!(matches!(&error, Error::OutOfMemory { what, .. } if what.contains("slots")), "{error}");
        let mut executor = setup.load(&device, ExpertOptions::default()).unwrap();
        assert_same(test, &exact, &setup.evaluate(&mut executor, &ids, 13).unwrap(), Tolerance::ROUNDING);
    }
}

/// What cannot be uploaded is computed by the CPU, or tried again later.
#[test]
fn uploads_refused_while_running_change_nothing() {
    let test = "uploads_refused_while_running_change_nothing";
    let cases = [("v3-groups", golden_setup("v3-groups", 40)), ("the embedded model", embedded(13))];
    for device in devices(test) {
        for (name, (setup, ids)) in &cases {
            if *name != "v3-groups" && is_slow(&device) {
                pleiad_tests::skipped(&format!("{test}: {name} on {}", device.name()), "it is too slow for this model");
                continue;
            }
            let chunks = [1, 7, setup.chunk];
            let run = |executor: &mut Executor, chunk| setup.evaluate(executor, ids, chunk);
            let mut whole = setup.load(&device, ExpertOptions::default()).unwrap();
            let exact = chunks.map(|chunk| run(&mut whole, chunk).unwrap());
            drop(whole);
            for misses in ways(&device, test) {
                let mut executor = setup.load(&device, at_the_floor(setup, misses)).unwrap();
                for failures in [3, ALL, 0] {
                    for (&chunk, exact) in chunks.iter().zip(&exact) {
                        let what = format!("{name} on {}, {misses}, chunks of {chunk}, {failures} failures", device.name());
                        device.plant_failures(0, failures);
                        let got = run(&mut executor, chunk);
                        device.plant_failures(0, 0);
                        assert_same(&what, exact, &got.unwrap_or_else(|e| panic!("{what}: {e}")), Tolerance::ROUNDING);
                    }
                }
            }
        }
    }
}

/// The trace tells that the CPU stood in.
#[test]
fn the_cpu_stands_in_for_uploads_that_are_refused() {
    let test = "the_cpu_stands_in_for_uploads_that_are_refused";
    let (setup, ids) = golden_setup("v3-groups", 40);
    for device in devices(test) {
        for chunk in [1, 40] {
            let options = ExpertOptions { trace: true, ..at_the_floor(&setup, WayChoice::Only(Way::Resume)) };
            let mut executor = setup.load(&device, options).unwrap();
            device.plant_failures(0, ALL);
            let refused = setup.feed(&mut executor, &ids, chunk);
            device.plant_failures(0, 0);
            let missed: Vec<_> = refused.rows.iter().filter(|r| r.served != Served::Hit).collect();
            assert!(!missed.is_empty() && missed.iter().all(|r| r.served == Served::Cpu && r.bytes == 0), "chunks of {chunk}");
            assert!(refused.steps.iter().all(|did| did.expert_bytes == 0), "chunks of {chunk}");
            let sum: usize = refused.counters.iter().map(|&n| n as usize).sum();
            assert_eq!((sum, refused.rows.len()), (ids.len() * setup.activations(), sum), "chunks of {chunk}");
            // Slots that lost their expert are filled again.
            let fed = setup.feed(&mut executor, &ids, chunk);
            assert!(fed.rows.iter().any(|r| r.served == Served::Fetched), "chunks of {chunk}");
            assert!(fed.rows.iter().all(|r| r.served != Served::Cpu), "chunks of {chunk}");
        }
    }
}

#[test]
fn uploads_refused_in_a_chunk_that_streams() {
    let test = "uploads_refused_in_a_chunk_that_streams";
    let (setup, ids) = golden_setup("v3-long", 300);
    let moe = setup.model.config.moe.clone().unwrap();
    assert!(ids.len() * moe.top_k >= moe.num_experts * 32, "the chunk does not stream");
    for device in devices(test) {
        let mut whole = setup.load(&device, ExpertOptions::default()).unwrap();
        let exact = setup.evaluate(&mut whole, &ids, 300).unwrap();
        drop(whole);
        for misses in ways(&device, test) {
            let what = |failures: u32| format!("{} failures of uploads on {}, {misses}", failures, device.name());
            let mut executor = setup.load(&device, at_the_floor(&setup, misses)).unwrap();
            // Each is tried once more.
            for failures in [1, 3, 0] {
                device.plant_failures(0, failures);
                let got = setup.evaluate(&mut executor, &ids, 300);
                device.plant_failures(0, 0);
                let got = got.unwrap_or_else(|e| panic!("{}: {e}", what(failures)));
                assert_same(&what(failures), &exact, &got, Tolerance::ROUNDING);
            }
            // There is no other way for a long chunk: an error, and the next one finds all in order.
            device.plant_failures(0, ALL);
            let error = setup.evaluate(&mut executor, &ids, 300).err();
            device.plant_failures(0, 0);
            assert!(matches!(&error, Some(Error::OutOfMemory { what, .. }) if what.contains("layer")), "{error:?}");
            let got = setup.evaluate(&mut executor, &ids, 300).unwrap();
            assert_same(&what(ALL), &exact, &got, Tolerance::ROUNDING);
        }
    }
}

// ---- the engine goes on ----

/// The embedded model with a context of 512 and chunks of up to 320 tokens.
fn load(device: DeviceChoice, adjust: impl FnOnce(&mut EngineOptions)) -> Loaded {
    let mut options = EngineOptions { device, context: Some(512), chunk: 320, ..EngineOptions::default() };
    adjust(&mut options);
    pollster::block_on(engine::load(&Checkpoint::tiny().unwrap(), options, &mut |_, _| {})).unwrap()
}

fn on(device: &GpuDevice) -> DeviceChoice {
    DeviceChoice::Wgpu(Some(device.adapter.index))
}

/// What the embedded model needs with the options of [`load`].
fn engine_needs(model: &Model) -> Needs {
    Needs::of(model, 1024, 512, CacheFormat::F16, Activations::Q8, 320)
}

fn ask(engine: &Engine, what: &str, prompt: &[u32], max: usize, on_token: &mut dyn FnMut(usize)) -> Answered {
    let options = GenerateOptions { max_tokens: Some(max), end: vec![1], routing: false };
    let session = engine.session();
    collect(what, session.generate(prompt.to_vec(), SamplingParams::default(), options), on_token)
}

#[test]
fn a_device_lost_while_answering() {
    let test = "a_device_lost_while_answering";
    let all = answers();
    let (long, short) = (&all[1], &all[0]);
    assert!(long.smallest_margin.min(short.smallest_margin) > 0.02, "ties");
    let least = engine_needs(&tiny().1).least();
    for place in devices(test) {
        let partial = ways(&place, test).into_iter().filter(|&w| w != WayChoice::Auto).map(|way| (Some(least), way));
        for (budget, misses) in partial.chain([(None, WayChoice::Auto)]) {
            let what = format!("budget {budget:?}, misses by {misses}, lost on {}", place.name());
            let loaded = load(on(&place), |o| {
                (o.memory_budget, o.misses, o.in_flight, o.trace) = (budget, misses, Some(4), true);
            });
            let device = Arc::clone(loaded.device().unwrap());
            let engine = Engine::start(loaded).unwrap();
            let got = ask(&engine, &what, &long.prompt, 24, &mut |tokens| {
                if tokens == 5 {
                    device.destroy();
                }
            });
            assert_eq!(got.tokens, long.tokens[..24], "{what}");
            assert!(got.notices.len() == 1 && got.notices[0].contains("opened again"), "{what}: {:?}", got.notices);
            assert!(got.rows.iter().all(|r| r.served != Served::Host), "{what}: the trace tells where experts were");
            // Later generations run on the device, and nobody has to be told again.
            let got = ask(&engine, &what, &short.prompt, 6, &mut |_| {});
            assert_eq!((&got.tokens[..], got.notices.len()), (&short.tokens[..6], 0), "{what}");
            assert!(engine.experts().is_some(), "{what}");
        }
    }
}

/// Questions and answers, as many as make a chunk that streams, and a question.
fn long_prompt() -> Vec<u32> {
    let all = answers();
    let question = &all[0].prompt[1..];
    let mut prompt = all[1].prompt[..1].to_vec();
    for turn in all.iter().skip(1).cycle() {
        if prompt.len() + question.len() >= 260 {
            break;
        }
        prompt.extend(turn.prompt[1..].iter().chain(&turn.tokens));
    }
    prompt.extend(question);
    assert!((256..=320).contains(&prompt.len()), "{} tokens", prompt.len());
    prompt
}

#[test]
fn an_engine_whose_device_refuses_memory_goes_on_with_less() {
    let test = "an_engine_whose_device_refuses_memory_goes_on_with_less";
    let places = fast_devices(test);
    if places.is_empty() {
        return;
    }
    let prompt = long_prompt();
    // The question follows others that were answered: what the answer has to be, the CPU knows.
    let cpu = Engine::start(load(DeviceChoice::Cpu, |_| {})).unwrap();
    let expected = ask(&cpu, "CPU", &prompt, 6, &mut |_| {}).tokens;
    drop(cpu);
    let needs = engine_needs(&tiny().1);
    let budget = needs.at_share(0.9);
    assert!((budget as f64 * 0.85) as u64 > needs.least(), "a smaller budget is below the floor: this test shows nothing");
    for place in places {
        for stays in [true, false] {
            let what = format!("on {}, {}", place.name(), if stays { "some uploads refused" } else { "all uploads refused" });
            let misses = WayChoice::Only(Way::Resume);
            let loaded = load(on(&place), |o| (o.memory_budget, o.misses) = (Some(budget), misses));
            let device = Arc::clone(loaded.device().unwrap());
            let engine = Engine::start(loaded).unwrap();
            let before = engine.experts().unwrap().slots;
            // Every upload of the first layer that streams, and again at the second attempt.
            let absent = needs.layers.iter().zip(&before).map(|(l, n)| l.experts - n).find(|&n| n > 0).unwrap();
            device.plant_failures(0, if stays { 2 * absent as u32 } else { ALL });
            let got = ask(&engine, &what, &prompt, 6, &mut |_| {});
            device.plant_failures(0, 0);
            assert_eq!(got.tokens, expected, "{what}");
            match engine.experts() {
                Some(report) if stays => {
                    assert!(got.notices.len() == 1 && got.notices[0].contains("memory budget"), "{what}: {:?}", got.notices);
                    assert!(report.slots.iter().sum::<usize>() < before.iter().sum::<usize>(), "{what}: {:?}", report.slots);
                }
                None if !stays => assert!(got.notices.last().unwrap().contains("CPU"), "{what}: {:?}", got.notices),
                other => panic!("{what}: {other:?}, {:?}", got.notices),
            }
            // And the next question.
            let short = &answers()[0];
            assert_eq!(ask(&engine, &what, &short.prompt, 6, &mut |_| {}).tokens, short.tokens[..6], "{what}");
        }
    }
}

// ---- files ----

/// An executor at the floor which keeps packed experts in `directory`.
fn with_files(setup: &Setup, device: &Arc<GpuDevice>, directory: &Path) -> Executor {
    let options = ExpertOptions { directory: Some(directory.to_owned()), ..at_the_floor(setup, WayChoice::Only(Way::Resume)) };
    setup.load(device, options).unwrap()
}

/// Where the first bytes of an expert's blob are in a file.
fn find_blob(setup: &Setup, file: &[u8], bank: usize, expert: u16) -> usize {
    let mut host = HostBank::on_the_fly(&setup.model);
    let mut head = Vec::new();
    let mut put = |offset: usize, data: &[u8]| {
        if offset == 0 {
            head = data[..64].to_vec();
        }
        Ok(())
    };
    host.blob(bank, expert, &mut put).unwrap();
    file.windows(64).position(|w| w == head).unwrap()
}

#[test]
fn packed_experts_damaged_between_runs() {
    let test = "packed_experts_damaged_between_runs";
    let (setup, ids) = embedded(13);
    for device in devices(test).iter().take(1) {
        let mut whole = setup.load(device, ExpertOptions::default()).unwrap();
        let exact = setup.evaluate(&mut whole, &ids, 13).unwrap();
        drop(whole);
        let directory = TempDir::new("damage");
        // Runs once; returns what the user is told.
        let check = |what: &str| {
            let mut executor = with_files(&setup, device, directory.path());
            let report = executor.experts().unwrap();
            assert_eq!(report.bank, Some(BankKind::File), "{what}");
            assert_same(what, &exact, &setup.evaluate(&mut executor, &ids, 13).unwrap(), Tolerance::ROUNDING);
            report.notices
        };
        assert_eq!(check("packed for the first time"), Vec::<String>::new());
        let path = directory.file(".bank");
        let sound = fs::read(&path).unwrap();
        assert_eq!(check("mapped"), Vec::<String>::new());
        assert_eq!(fs::read(&path).unwrap(), sound, "a sound file was written again");

        let mut in_the_header = sound.clone();
        in_the_header[8 * 5] ^= 1;
        let mut sample = sound.clone();
        sample[find_blob(&setup, &sound, 0, 0) + 3] ^= 0x40;
        let damages = [
            ("a bit in the header", in_the_header),
            ("the first expert", sample),
            ("cut off", sound[..sound.len() / 2].to_vec()),
            ("empty", Vec::new()),
            ("another file", b"this is a letter, not a file of experts".to_vec()),
        ];
        for (what, damaged) in damages {
            fs::write(&path, damaged).unwrap();
            let notices = check(what);
            assert!(notices.iter().any(|n| n.contains(".bank") && n.contains("made anew")), "{what}: {notices:?}");
            assert_eq!(fs::read(&path).unwrap(), sound, "{what}");
        }

        // What no sample shows is found when it is used, and packed from the checkpoint; the next run has a new file.
        let mut hidden = sound.clone();
        hidden[find_blob(&setup, &sound, 1, 0) + 3] ^= 0x40;
        fs::write(&path, hidden).unwrap();
        check("an expert that is no sample");
        assert!(!path.exists(), "a damaged file was kept");
        assert_eq!(check("after the damage was found"), Vec::<String>::new());
        assert_eq!(fs::read(&path).unwrap(), sound);

        // A profile that says nothing costs its warmth.
        let profile = directory.path().join(format!("{}.profile.json", fingerprint(&setup.model).unwrap()));
        for text in ["", "{\"tokens\":1,\"heat\":[[1.0]]}", "{\"tokens\":9,\"heat\":[[-1.0]]}"] {
            fs::write(&profile, text).unwrap();
            assert_eq!(check(&format!("a profile of {text:?}")), Vec::<String>::new());
        }
    }
}

#[test]
fn a_place_for_files_that_is_none() {
    let test = "a_place_for_files_that_is_none";
    let (setup, ids) = embedded(13);
    for device in devices(test).iter().take(1) {
        let mut whole = setup.load(device, ExpertOptions::default()).unwrap();
        let exact = setup.evaluate(&mut whole, &ids, 13).unwrap();
        drop(whole);
        let directory = TempDir::new("no-directory");
        let file = directory.path().join("file");
        fs::write(&file, "in the way").unwrap();
        let mut executor = with_files(&setup, device, &file);
        let report = executor.experts().unwrap();
        assert!(matches!(report.bank, Some(BankKind::Memory | BankKind::OnTheFly)), "{:?}", report.bank);
        assert!(report.notices.iter().any(|n| n.contains("cannot be kept on disk")), "{:?}", report.notices);
        assert_same(test, &exact, &setup.evaluate(&mut executor, &ids, 13).unwrap(), Tolerance::ROUNDING);
        // Keeping a profile there is an error in words, and nothing else.
        let error = executor.save_profile().unwrap_err().to_string();
        assert!(error.contains("profile"), "{error}");
        assert_eq!(fs::read_to_string(&file).unwrap(), "in the way");
    }
}
