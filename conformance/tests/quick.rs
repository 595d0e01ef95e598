//! The short form of the suite on every adapter there is: all verdicts are good.
#![allow(clippy::unwrap_used, clippy::print_stdout)] // A test may fail.

use std::{
    collections::{BTreeMap, HashSet},
    time::Instant,
};

use pleiad_conformance::{
    report::{Settings, Test, Verdict},
    suite::{self, SECTIONS, Sink},
};
use pleiad_runtime::gpu::{GpuDevice, Tier};
use pleiad_shaders::{Defines, KERNELS};

/// Keeps what was told.
#[derive(Default)]
struct Kept {
    tests: Vec<Test>,
    begun: Vec<String>,
    of: usize,
}

impl Sink for Kept {
    fn begin(&mut self, _: usize, of: usize, id: &str) {
        self.of = of;
        self.begun.push(id.to_owned());
    }

    fn end(&mut self, test: &Test) {
        if test.verdict == Verdict::Fail || std::env::var_os("PLEIAD_VERBOSE").is_some() {
            println!("{:?} {} ({:.2} s): {} {:?}", test.verdict, test.id, test.seconds, test.words, shorter(test));
        }
        self.tests.push(test.clone());
    }
}

fn shorter(test: &Test) -> BTreeMap<&str, (f64, &str)> {
    test.measures.iter().map(|(name, m)| (name.as_str(), (m.value, m.at.as_str()))).collect()
}

/// Only ids with one of these: the environment variable `PLEIAD_ONLY`, comma-separated, while working on tests.
fn only() -> Vec<String> {
    std::env::var("PLEIAD_ONLY").map(|o| o.split(',').map(str::to_owned).collect()).unwrap_or_default()
}

fn check(settings: &Settings) {
    let adapters = pollster::block_on(suite::adapters(settings));
    if adapters.is_empty() {
        println!("SKIPPED: no adapter (Mesa's lavapipe serves)");
    }
    let mut failures = Vec::new();
    for adapter in adapters {
        let gpu = pollster::block_on(adapter.open(suite::device_options(settings))).unwrap();
        let identity = pollster::block_on(suite::identify(&gpu));
        let ids = suite::list(&gpu, settings);
        assert_eq!(ids.iter().collect::<HashSet<_>>().len(), ids.len(), "ids are unique");
        let started = Instant::now();
        let mut kept = Kept::default();
        pollster::block_on(suite::run(&gpu, settings, &[], &mut kept));
        let mut count: BTreeMap<&str, (usize, usize, usize, f64)> = BTreeMap::new();
        for t in &kept.tests {
            let c = count.entry(t.id.split('/').next().unwrap()).or_default();
            c.0 += 1;
            c.1 += usize::from(t.verdict == Verdict::Skip);
            c.2 += usize::from(!t.verdict.is_good());
            c.3 += t.seconds;
        }
        println!(
            "{}: {} tests in {:.0} s; section: tests, skipped, bad, seconds: {count:?}",
            identity.name,
            ids.len(),
            started.elapsed().as_secs_f64()
        );
        assert_eq!(kept.begun, ids);
        assert_eq!(kept.tests.iter().map(|t| &t.id).collect::<Vec<_>>(), ids.iter().collect::<Vec<_>>());
        let bad = kept.tests.iter().filter(|t| !t.verdict.is_good() && !known(&identity.driver, &t.id));
        failures.extend(bad.map(|t| format!("{}: {}: {}", identity.name, t.id, t.words)));
        if !settings.strict && only().is_empty() && gpu.tier == Tier::Subgroup && gpu.host_visible {
            covered(&gpu, settings.quick);
        }
        // What is skipped says why.
        assert!(kept.tests.iter().all(|t| t.verdict != Verdict::Skip || !t.words.is_empty()));
        if settings.only.is_empty() {
            for (section, _) in SECTIONS {
                assert!(ids.iter().any(|id| id.starts_with(&format!("{section}/"))), "{section}");
            }
        }
    }
    assert!(failures.is_empty(), "{} tests:\n{}", failures.len(), failures.join("\n"));
}

/// What is known to fail: a driver, and an id.
fn known(driver: &str, id: &str) -> bool {
    // Mesa's lavapipe rounds the number of subgroups down (kernels have none that is incomplete), and its exponentials are off by
    // up to 3.4 ULP near 0, where 3.1 are permitted: a sweep of a million arguments finds some.
    let all = ["subgroup/num_subgroups/20 threads", "subgroup/num_subgroups/100 threads", "scalar/exp/f32", "scalar/exp2/f32"];
    driver.contains("Mesa 22.") && all.contains(&id)
}

/// Numbers that follow from a matrix's size: kernels differ by them in how often loops run.
const SHAPES: [&str; 8] = ["TPR", "GROUPS", "RPT", "WG", "SLICES", "QW", "PPT", "HEADS_PER_GROUP"];

/// Every kernel ran, with weights of every format; in the long form every variant, whatever the shape.
fn covered(gpu: &GpuDevice, quick: bool) {
    let key = |kernel: &str, defines: &Defines| {
        let kept = defines.iter().filter(|(name, _)| !SHAPES.contains(name));
        kept.fold(kernel.to_owned(), |all, (name, value)| format!("{all} {name}={value}"))
    };
    let ran: HashSet<String> = gpu.variants().iter().map(|(kernel, d)| key(kernel, d)).collect();
    let mut missing = Vec::new();
    for kernel in KERNELS {
        for defines in kernel.variants() {
            let has = |name| defines.get(name).is_some();
            // Rows of quantised weights are whole blocks, so that only rows inside wider ones are not aligned to vec4s.
            let quantised = defines.get("FORMAT").is_some_and(|f| !["f32", "f16", "bf16", "f8_e4m3"].contains(&f));
            let aligned = has("ACT_Q8") || has("X4") || !quantised;
            let product = has("GATED") || has("ADD") || kernel.name.starts_with("experts");
            let wanted = if quick {
                let format = format!(" FORMAT={} ", defines.get("FORMAT").unwrap_or_default());
                let of_kernel = |r: &&String| r.split(' ').next() == Some(kernel.name);
                !ran.iter().filter(of_kernel).any(|r| !has("FORMAT") || format!("{r} ").contains(&format))
            } else {
                !ran.contains(&key(kernel.name, &defines)) && (aligned || !product)
            };
            if wanted {
                missing.push(key(kernel.name, &defines));
            }
        }
    }
    missing.dedup();
    assert!(missing.is_empty(), "{} variants did not run on {}:\n{}", missing.len(), gpu.name(), missing.join("\n"));
    println!("{}: {} variants ran, {} with their shapes", gpu.name(), ran.len(), gpu.pipelines());
}

#[test]
fn quick() {
    check(&Settings { quick: true, strict: false, only: only() });
}

/// Default limits, no features: subgroups and f16 are skipped, all else holds.
#[test]
fn strict() {
    let only = ["scalar/", "memory/", "subgroup/ids", "/Q4_K/", "kernel/router", "kernel/attend", "model/tiny/q8/one"];
    check(&Settings { quick: true, strict: true, only: only.map(str::to_owned).to_vec() });
}

/// The long form: a quarter of an hour on two cores.
#[test]
#[ignore = "the long form takes long on software adapters"]
fn full() {
    check(&Settings { quick: false, strict: false, only: only() });
}
