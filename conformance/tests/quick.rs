//! The short form of the suite on every adapter there is: all verdicts are good.
#![allow(clippy::unwrap_used, clippy::print_stdout)] // A test may fail.

use std::{collections::BTreeMap, time::Instant};

use pleiad_conformance::{
    report::{Settings, Test, Verdict},
    suite::{self, SECTIONS, Sink},
};

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
        // What is skipped says why.
        assert!(kept.tests.iter().all(|t| t.verdict != Verdict::Skip || !t.words.is_empty()));
        if only().is_empty() {
            for (section, _) in SECTIONS {
                assert!(ids.iter().any(|id| id.starts_with(&format!("{section}/"))), "{section}");
            }
        }
    }
    assert!(failures.is_empty(), "{} tests:\n{}", failures.len(), failures.join("\n"));
}

/// What is known to fail: a driver, and an id.
fn known(driver: &str, id: &str) -> bool {
    // Mesa's lavapipe rounds the number of subgroups down. Kernels have none that is incomplete.
    driver.contains("Mesa 22.") && (id == "subgroup/num_subgroups/20 threads" || id == "subgroup/num_subgroups/100 threads")
}

#[test]
fn quick() {
    check(&Settings { quick: true, strict: false, only: only() });
}
