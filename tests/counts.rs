//! Counters and traces: a token that finds its experts costs what it costs with all of them resident, and sums add up however
//! experts were served.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a failure is a failed test; a skipped part is printed")]

use std::{collections::BTreeSet, sync::Arc};

use pleiad_runtime::{
    Activations,
    executor::{DeviceStats, Executor, ExpertOptions, PlanId, Readback, StepOutput},
    experts::{
        trace::{Routed, Served},
        ways::{Way, WayChoice},
    },
    forward::{AttentionForm, Options, Output, record},
    gpu::GpuDevice,
    step::StepState,
};
use pleiad_tests::{Setup, budgets, devices, golden_setup, streams_from, tiny, ways};

/// Decodes `id` at the first position.
fn decode(executor: &mut Executor, plan: PlanId, id: u32) -> (StepOutput, DeviceStats) {
    executor.write_step(&StepState { tokens: 1, ..StepState::default() }, &[0]);
    executor.write_ids(&[id]);
    let before = executor.stats();
    let ticket = executor.submit(plan, 1, Readback { token: true, counters: false }).unwrap();
    let output = pollster::block_on(executor.wait(ticket)).unwrap();
    (output, executor.stats().since(before))
}

fn decoding_plan(setup: &Setup, executor: &mut Executor) -> PlanId {
    let (activations, attention) = (setup.activations, AttentionForm::Absorbed);
    executor
        .compile(&record(
            &setup.model,
            Options { max_tokens: 1, output: Output::Token, activations, attention, speculation: None },
        ))
        .unwrap()
}

/// A token that finds all its experts takes one submission, one readback, and nothing else.
fn is_one_submission(did: &DeviceStats) -> bool {
    (did.submissions, did.readbacks, did.bind_groups, did.rendezvous, did.expert_bytes) == (1, 1, 0, 0, 0)
}

/// The same token again and again: at first its experts are missing, then all are there.
fn counters_on(test: &str, device: &Arc<GpuDevice>, name: &str, setup: &Setup, id: u32) {
    let lookups = setup.activations() as u64;
    let mut whole = setup.load(device, ExpertOptions::default()).unwrap();
    let plan = decoding_plan(setup, &mut whole);
    let (_, untracked) = decode(&mut whole, plan, id);
    assert!(is_one_submission(&untracked) && untracked.expert_hits + untracked.expert_misses == 0, "{name}: {untracked:?}");
    drop(whole);

    let options = ExpertOptions { trace: true, ..ExpertOptions::default() };
    let mut tracked = setup.load(device, options).unwrap();
    let plan = decoding_plan(setup, &mut tracked);
    for _ in 0..3 {
        let (output, did) = decode(&mut tracked, plan, id);
        let what = format!("{name} on {}, everything resident: {did:?}", device.name());
        assert!(is_one_submission(&did) && did.dispatches == untracked.dispatches, "{what}");
        assert_eq!((did.expert_hits, did.expert_misses), (lookups, 0), "{what}");
        let rows = output.routed.unwrap();
        assert_eq!(rows.len() as u64, lookups, "{what}");
        assert!(rows.iter().all(|r| r.served == Served::Hit && r.bytes == 0), "{what}");
    }
    drop(tracked);

    for misses in ways(device, test) {
        let WayChoice::Only(way) = misses else { continue };
        let budget = Some(setup.needs().least());
        let options = ExpertOptions { budget, misses, trace: true, admissions: lookups as usize, ..ExpertOptions::default() };
        let mut executor = setup.load(device, options).unwrap();
        let plan = decoding_plan(setup, &mut executor);
        let (mut settled, mut missed_in_all) = (0, 0);
        // As long as layers were likely to miss, a submission ends early, to save work behind a halt.
        for n in 0..64 {
            let (output, did) = decode(&mut executor, plan, id);
            let what = format!("{name} on {}, {way}, token {n}: {did:?}", device.name());
            let rows = output.routed.unwrap();
            let missed: Vec<&Routed> = rows.iter().filter(|r| r.served != Served::Hit).collect();
            let layers: BTreeSet<u16> = missed.iter().map(|r| r.layer).collect();
            let moved: u64 = rows.iter().map(|r| r.bytes).sum();
            assert_eq!(did.expert_misses, missed.len() as u64, "{what}");
            assert_eq!(did.expert_hits + did.expert_misses, lookups, "{what}");
            assert_eq!(did.bind_groups, 0, "{what}");
            let rendezvous = if way == Way::Gather { 0 } else { layers.len() as u64 };
            assert_eq!(did.rendezvous, rendezvous, "{what}: {layers:?} missed");
            match way {
                Way::Gather => {
                    // Kernels need nobody.
                    assert_eq!((did.submissions, did.readbacks), (1, 1), "{what}");
                    assert_eq!(did.expert_bytes, moved, "{what}");
                }
                // Slots end in padding, which is not uploaded where the file has the parts as they are.
                Way::Resume => assert!(did.expert_bytes <= moved && (moved > 0) == (did.expert_bytes > 0), "{what}"),
                Way::Cpu => assert_eq!(moved, 0, "{what}"),
            }
            missed_in_all += missed.len();
            if missed.is_empty() {
                assert!(did.submissions == did.readbacks && did.expert_bytes == 0, "{what}");
            }
            settled = if missed.is_empty() && is_one_submission(&did) { settled + 1 } else { 0 };
            if settled == 4 {
                // Nor does it start more kernels; those that gather find nothing to do.
                assert!(way == Way::Gather || did.dispatches == untracked.dispatches, "{what}");
                break;
            }
        }
        let what = format!("{name} on {}, {way}", device.name());
        assert_eq!(settled, 4, "{what}: never one submission and one readback");
        assert!(missed_in_all > 0, "{what}: nothing was missing at the start");
    }
}

#[test]
fn counters_of_single_tokens() {
    let test = "counters_of_single_tokens";
    let embedded = Setup { model: tiny().1, positions: 64, chunk: 8, activations: Activations::Q8 };
    let (golden, ids) = golden_setup("v3-groups", 8);
    for device in devices(test) {
        counters_on(test, &device, "v3-groups", &golden, ids[3]);
        counters_on(test, &device, "the embedded model", &embedded, 301);
    }
}

// ---- sums and traces ----

/// How an expert may have been served that was not resident; `None`: in any way.
fn served_by(misses: WayChoice, tokens: usize, streams_from: usize) -> Option<Served> {
    match misses {
        _ if tokens >= streams_from => Some(Served::Streamed),
        WayChoice::Only(Way::Cpu) => Some(Served::Cpu),
        WayChoice::Only(Way::Gather) if tokens == 1 => Some(Served::Gathered),
        WayChoice::Only(_) => Some(Served::Fetched),
        WayChoice::Auto => None,
    }
}

/// Rows agree but for residency and bytes.
fn same_trace(what: &str, top_k: usize, exact: &[Routed], got: &[Routed]) {
    assert_eq!(exact.len(), got.len(), "{what}");
    for (a, b) in exact.chunks(top_k).zip(got.chunks(top_k)) {
        for (a, b) in a.iter().zip(b) {
            assert_eq!((a.position, a.layer, a.rank), (b.position, b.layer, b.rank), "{what}");
            // Rank by rank: two equal weights may have changed places.
            assert!((a.weight - b.weight).abs() <= 1e-4 * a.weight.abs(), "{what}: {a:?} {b:?}");
        }
        let experts = |rows: &[Routed]| rows.iter().map(|r| r.expert).collect::<BTreeSet<_>>();
        assert_eq!(experts(a), experts(b), "{what}: {a:?} {b:?}");
        assert_eq!(experts(a).len(), top_k, "{what}: {a:?}");
    }
}

#[test]
fn sums_and_traces() {
    let test = "sums_and_traces";
    let cases = [("v3-groups", vec![40, 7, 1]), ("v3-long", vec![130])];
    for device in devices(test) {
        for (name, chunks) in &cases {
            for &chunk in chunks {
                let (setup, ids) = golden_setup(name, chunk);
                let top_k = setup.model.config.moe.as_ref().unwrap().top_k;
                let streams = streams_from(&setup.model);
                let all = ids.len() * setup.activations();
                let mut whole = setup.load(&device, ExpertOptions { trace: true, ..ExpertOptions::default() }).unwrap();
                let exact = setup.feed(&mut whole, &ids, chunk);
                drop(whole);
                assert!(exact.rows.iter().all(|r| r.served == Served::Hit && r.bytes == 0));
                for ((share, budget), misses) in budgets(&setup.needs())
                    .into_iter()
                    .skip(1)
                    .flat_map(|budget| ways(&device, test).into_iter().map(move |way| (budget, way)))
                {
                    let what = format!("{name} on {}, {share}, {misses}, chunks of {chunk}", device.name());
                    let options = ExpertOptions { budget: Some(budget), misses, trace: true, ..ExpertOptions::default() };
                    let mut executor = setup.load(&device, options).unwrap();
                    let fed = setup.feed(&mut executor, &ids, chunk);
                    let sum: u64 = fed.counters.iter().map(|&n| u64::from(n)).sum();
                    assert_eq!(sum, all as u64, "{what}: sum of activations");
                    assert_eq!(fed.counters, exact.counters, "{what}");
                    assert_eq!(fed.rows.len(), all, "{what}: rows of the trace");
                    same_trace(&what, top_k, &exact.rows, &fed.rows);

                    let stats = fed.steps.iter().fold((0, 0, 0), |sum, did| {
                        (sum.0 + did.expert_hits, sum.1 + did.expert_misses, sum.2 + did.expert_bytes)
                    });
                    let hits = fed.rows.iter().filter(|r| r.served == Served::Hit).count();
                    assert_eq!((stats.0, stats.1), (hits as u64, (all - hits) as u64), "{what}");
                    assert!(hits < all, "{what}: nothing was missing");
                    for row in &fed.rows {
                        let start = row.position as usize / chunk * chunk;
                        let tokens = chunk.min(ids.len() - start);
                        let expected = served_by(misses, tokens, streams);
                        let known = row.served == Served::Hit || expected.is_none_or(|s| s == row.served);
                        assert!(known && row.served != Served::Host, "{what}: {row:?}");
                        assert!(row.bytes == 0 || !matches!(row.served, Served::Hit | Served::Cpu), "{what}: {row:?}");
                    }
                    let moved: u64 = fed.rows.iter().map(|r| r.bytes).sum();
                    let moves = fed.rows.iter().any(|r| !matches!(r.served, Served::Hit | Served::Cpu));
                    assert_eq!(moved > 0, moves, "{what}");
                    assert!(!moves || stats.2 > 0, "{what}: {moved} bytes in the trace, none counted");
                }
            }
        }
    }
}
