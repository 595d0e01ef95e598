//! Kernels that are wrong in a small way are found, and by name; so is a device that goes away.
#![allow(clippy::unwrap_used, clippy::print_stdout)] // A test may fail.

use std::sync::Arc;

use pleiad_conformance::{
    report::{Settings, Test, Verdict},
    suite::{self, Sink},
};
use pleiad_runtime::gpu::{DeviceOptions, GpuDevice};

/// Keeps what was told, and lets the device go after so many tests.
#[derive(Default)]
struct Kept {
    tests: Vec<Test>,
    lose: Option<(usize, Arc<GpuDevice>)>,
}

impl Sink for Kept {
    fn begin(&mut self, _: usize, _: usize, _: &str) {}

    fn end(&mut self, test: &Test) {
        self.tests.push(test.clone());
        if let Some((_, gpu)) = self.lose.as_ref().filter(|(after, _)| *after == self.tests.len()) {
            gpu.destroy();
        }
    }
}

/// Every adapter, opened anew.
fn devices(test: &str) -> Vec<Arc<GpuDevice>> {
    let settings = Settings::default();
    let open = |a: pleiad_runtime::gpu::GpuAdapter| pollster::block_on(a.open(DeviceOptions::default())).unwrap();
    let all: Vec<_> = pollster::block_on(suite::adapters(&settings)).into_iter().map(open).collect();
    if all.is_empty() {
        println!("SKIPPED {test}: no adapter (Mesa's lavapipe serves)");
    }
    all
}

/// A fault, the tests that are run, and those that must find it.
struct Planted<'a> {
    kernel: &'a str,
    from: &'a str,
    to: &'a str,
    only: &'a [&'a str],
    found_by: &'a [&'a str],
    /// Tests that cannot: their bounds allow as much.
    not_by: &'a [&'a str],
}

fn check(name: &str, fault: &Planted<'_>) {
    for gpu in devices(name) {
        gpu.plant_fault(fault.kernel, fault.from, fault.to);
        let only = fault.only.iter().map(|&o| o.to_owned()).collect();
        let settings = Settings { quick: true, strict: false, only };
        let mut kept = Kept::default();
        pollster::block_on(suite::run(&gpu, &settings, &[], &mut kept));
        assert!(gpu.faulty_variants() > 0, "{name} on {}: no kernel has that text", gpu.name());
        let failed: Vec<_> = kept.tests.iter().filter(|t| t.verdict == Verdict::Fail).map(|t| &t.id[..]).collect();
        println!("{name} on {}: {} of {} tests fail: {failed:?}", gpu.name(), failed.len(), kept.tests.len());
        for id in fault.found_by {
            assert!(failed.contains(id), "{name} on {}: {id} passes; {failed:?} fail", gpu.name());
        }
        for id in fault.not_by {
            assert!(kept.tests.iter().any(|t| t.id == *id), "{name}: there is no {id}");
            assert!(!failed.contains(id), "{name} on {}: {id} fails", gpu.name());
        }
    }
}

#[test]
fn a_scale_that_is_wrong_in_its_last_bit() {
    check(
        "last bit of a scale",
        &Planted {
            kernel: "matvec",
            from: "let s = dm.x * f32(sc);",
            to: "let s = bitcast<f32>(bitcast<u32>(dm.x * f32(sc)) + 1u);",
            only: &["kernel/matvec/Q4_K/"],
            found_by: &[
                "kernel/matvec/Q4_K/f32/plain/exact/rows 130 columns 256 tokens 1",
                "kernel/matvec/Q4_K/q8/plain/exact/rows 130 columns 256 tokens 1",
            ],
            // NMSE does not tell it from rounding.
            not_by: &["kernel/matvec/Q4_K/q8/growth"],
        },
    );
    check(
        "last bit of an f16 scale",
        &Planted {
            kernel: "matmat",
            from: "return unpack2x16float(word >> (16u * odd)).x;",
            to: "return bitcast<f32>(bitcast<u32>(unpack2x16float(word >> (16u * odd)).x) + 1u);",
            only: &["kernel/matmat/Q8_0/"],
            found_by: &["kernel/matmat/Q8_0/q8/exact/rows 130 columns 256 tokens 9"],
            not_by: &["kernel/matmat/Q8_0/f32/growth"],
        },
    );
}

#[test]
fn a_scale_that_is_wrong_by_a_step_of_its_quants() {
    check(
        "a step of a sub-scale",
        &Planted {
            kernel: "matvec",
            from: "let sc = select(x & 63u,",
            to: "let sc = select(x & 62u,",
            only: &["kernel/matvec/Q4_K/"],
            found_by: &["kernel/matvec/Q4_K/q8/plain/exact/rows 130 columns 256 tokens 1", "kernel/matvec/Q4_K/q8/growth"],
            not_by: &[],
        },
    );
}

#[test]
fn a_wrong_break_of_ties() {
    check(
        "ties of experts",
        &Planted {
            kernel: "router",
            from: "other == mine && e < expert",
            to: "other == mine && e > expert",
            only: &["kernel/router/"],
            found_by: &["kernel/router/ties/Sigmoid of 0 in 1 groups", "kernel/router/ties/Softmax of 0 in 1 groups"],
            not_by: &["kernel/router/sigmoid biased/6 of 64 in 1 groups by TopTwo tokens 33"],
        },
    );
    check(
        "ties of groups",
        &Planted {
            kernel: "router",
            from: "other == mine && g < group",
            to: "other == mine && g > group",
            only: &["kernel/router/ties"],
            found_by: &["kernel/router/ties/Sigmoid of 0.5 in 8 groups"],
            not_by: &["kernel/router/ties/Sigmoid of 0 in 1 groups"],
        },
    );
    check(
        "ties of tokens",
        &Planted {
            kernel: "sample",
            from: "index < indices[lid]",
            to: "index > indices[lid]",
            only: &["kernel/sample/greedy", "kernel/sample/ties"],
            found_by: &["kernel/sample/ties/vocabulary 1000"],
            not_by: &["kernel/sample/greedy/vocabulary 1000"],
        },
    );
}

#[test]
fn a_missing_barrier() {
    check(
        "no barrier in a sum",
        &Planted {
            kernel: "norm",
            from: "reduce_cells[lid] = value;\n    workgroupBarrier();",
            to: "reduce_cells[lid] = value;",
            only: &["kernel/norm/f32/"],
            found_by: &["kernel/norm/f32/width 512 tokens 9"],
            not_by: &[],
        },
    );
    check(
        "no barrier in a product",
        &Planted {
            kernel: "matmat",
            from: "        workgroupBarrier();\n        for (var n = 0u; n < STAGE; n++) {\n            let scale",
            to: "        for (var n = 0u; n < STAGE; n++) {\n            let scale",
            only: &["kernel/matmat/Q4_K/q8/"],
            found_by: &["kernel/matmat/Q4_K/q8/exact/rows 130 columns 256 tokens 9"],
            not_by: &[],
        },
    );
}

#[test]
fn a_device_that_is_lost() {
    for gpu in devices("a_device_that_is_lost") {
        let settings = Settings { quick: true, strict: false, only: vec!["kernel/rope/".into(), "integer/product".into()] };
        let ids = suite::list(&gpu, &settings);
        let mut kept = Kept { lose: Some((3, Arc::clone(&gpu))), ..Kept::default() };
        pollster::block_on(suite::run(&gpu, &settings, &[], &mut kept));
        assert_eq!(kept.tests.iter().map(|t| &t.id).collect::<Vec<_>>(), ids.iter().collect::<Vec<_>>());
        assert!(kept.tests[..3].iter().all(|t| t.verdict == Verdict::Pass), "{:?}", kept.tests);
        let lost = |t: &Test| t.verdict == Verdict::Fail && t.words.contains("lost");
        assert!(kept.tests[3..].iter().all(lost), "{:?}", kept.tests);
        // What is done is not run again.
        let mut none = Kept::default();
        pollster::block_on(suite::run(&gpu, &settings, &ids, &mut none));
        assert!(none.tests.is_empty());
    }
}
