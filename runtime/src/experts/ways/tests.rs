//! The chooser, step by step.

#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

use super::*;

const ALL: [Way; 3] = [Way::Gather, Way::Cpu, Way::Resume];

/// Runs `tokens` tokens of 10 misses each; `cost` says how long a way takes. Returns the ways used.
fn run(chooser: &mut Chooser, tokens: usize, cost: impl Fn(Way) -> f64) -> Vec<Way> {
    let token = |_| {
        let way = chooser.way();
        chooser.observe(cost(way), Sample { way, misses: 10, layers_missed: 8 });
        way
    };
    (0..tokens).map(token).collect()
}

fn cost(way: Way) -> f64 {
    match way {
        Way::Gather => 0.010,
        Way::Cpu => 0.030,
        Way::Resume => 0.015,
    }
}

#[test]
fn no_choice_no_probes() {
    for choice in [WayChoice::Only(Way::Cpu), WayChoice::Only(Way::Gather)] {
        let WayChoice::Only(way) = choice else { unreachable!() };
        let mut chooser = Chooser::new(choice, &ALL);
        assert!(run(&mut chooser, 2000, cost).iter().all(|w| *w == way));
        let report = chooser.report();
        assert_eq!((report.chosen, report.probes, report.switches, report.ways.len()), (way, 0, 0, 1));
    }
    let mut chooser = Chooser::new(WayChoice::Auto, &[Way::Cpu, Way::Cpu]);
    assert!(run(&mut chooser, 500, cost).iter().all(|w| *w == Way::Cpu));
    assert_eq!(Chooser::new(WayChoice::Auto, &[]).way(), Way::Resume);
}

#[test]
fn the_worse_a_way_the_rarer_its_probes() {
    let mut chooser = Chooser::new(WayChoice::Auto, &ALL);
    let first = run(&mut chooser, 4000, cost);
    let second = run(&mut chooser, 4000, cost);
    let count = |ways: &[Way], way| ways.iter().filter(|w| **w == way).count();
    assert_eq!(chooser.report().chosen, Way::Gather);
    assert!(count(&second, Way::Cpu) < count(&first, Way::Cpu), "{} {}", count(&first, Way::Cpu), count(&second, Way::Cpu));
    assert!(count(&second, Way::Cpu) < count(&second, Way::Resume));
    // It is not forgotten altogether, and what probes cost stays within the budget.
    let long = run(&mut chooser, 40_000, cost);
    assert!(count(&long, Way::Cpu) > 0);
    let report = chooser.report();
    assert!(report.probing < BUDGET, "{report:?}");
    assert_eq!(report.ways.iter().map(|w| w.tokens).sum::<u64>(), 48_000);
    assert!((report.ways.iter().map(|w| w.share).sum::<f64>() - 1.0).abs() < 1e-9);
    assert!((report.ways[0].seconds_per_token.unwrap() - 0.010).abs() < 1e-6, "{report:?}");
}

#[test]
fn a_slower_home_is_left() {
    let mut chooser = Chooser::new(WayChoice::Auto, &ALL);
    run(&mut chooser, 1000, cost);
    assert_eq!(chooser.report().chosen, Way::Gather);
    let after = run(&mut chooser, 60, |w| if w == Way::Gather { 0.040 } else { cost(w) });
    assert_eq!(chooser.report().chosen, Way::Resume);
    assert!(after.iter().filter(|w| **w == Way::Gather).count() < 25, "{after:?}");
    assert!(chooser.report().drifts > 0);
}

#[test]
fn tokens_without_misses_say_nothing() {
    let mut chooser = Chooser::new(WayChoice::Auto, &ALL);
    for _ in 0..500 {
        let way = chooser.way();
        assert_eq!(way, Way::Gather, "nothing to choose by");
        chooser.observe(0.005, Sample { way, misses: 0, layers_missed: 0 });
    }
    let before = run(&mut chooser, 300, cost);
    assert!(before.contains(&Way::Cpu));
    let seconds = chooser.report().ways[0].seconds_per_token;
    for _ in 0..500 {
        let way = chooser.way();
        chooser.observe(5.0, Sample { way, misses: 0, layers_missed: 0 });
    }
    assert_eq!((chooser.report().chosen, chooser.report().ways[0].seconds_per_token), (Way::Gather, seconds));
}

#[test]
fn the_first_token_after_a_switch_does_not_count() {
    let mut chooser = Chooser::new(WayChoice::Auto, &ALL);
    let mut last = None;
    for _ in 0..1000 {
        let way = chooser.way();
        let seconds = if last.is_some_and(|l| l != way) { 10.0 * cost(way) } else { cost(way) };
        last = Some(way);
        chooser.observe(seconds, Sample { way, misses: 10, layers_missed: 8 });
    }
    chooser.interrupt();
    chooser.observe(7.0, Sample { way: chooser.way(), misses: 10, layers_missed: 8 });
    for row in chooser.report().ways {
        assert!((row.seconds_per_token.unwrap() / cost(row.way) - 1.0).abs() < 1e-6, "{row:?}");
    }
}

#[test]
fn tokens_under_way_while_the_choice_changes() {
    // Four tokens are in flight: what is observed was chosen four tokens ago.
    let mut chooser = Chooser::new(WayChoice::Auto, &ALL);
    let mut flying: VecDeque<Way> = VecDeque::new();
    let mut total = 0.0;
    for _ in 0..2000 {
        flying.push_back(chooser.way());
        if flying.len() > 4 {
            let way = flying.pop_front().unwrap();
            total += cost(way);
            chooser.observe(cost(way), Sample { way, misses: 10, layers_missed: 8 });
        }
    }
    assert_eq!(chooser.report().chosen, Way::Gather);
    assert!(total < 1.06 * 2000.0 * 0.010, "{total}");
}

#[test]
fn nonsense_is_ignored() {
    let mut chooser = Chooser::new(WayChoice::Auto, &[Way::Gather, Way::Cpu]);
    for seconds in [f64::NAN, f64::INFINITY, 0.0, -1.0, 1e300] {
        chooser.observe(seconds, Sample { way: Way::Gather, misses: 3, layers_missed: 2 });
    }
    chooser.observe(1.0, Sample { way: Way::Resume, misses: 3, layers_missed: 2 });
    assert_eq!(chooser.report().ways.iter().map(|w| w.tokens).sum::<u64>(), 0);
    // Extremes do no harm.
    for (i, seconds) in [1e-300, 1e5, 1e-9, 1.0].into_iter().cycle().take(4000).enumerate() {
        let way = chooser.way();
        chooser.observe(seconds, Sample { way, misses: if i % 3 == 0 { u32::MAX } else { 1 }, layers_missed: u32::MAX });
    }
    let report = chooser.report();
    assert!(
        report.probing.is_finite() && report.ways.iter().all(|w| w.expected_seconds.is_none_or(f64::is_finite)),
        "{report:?}"
    );
}

#[test]
fn the_effect_of_admitting_is_learned() {
    for effect in [-1.0f64, 0.0] {
        let mut levels = Levels::default();
        let mut state = 0.0;
        for token in 0..600 {
            let admits = (token / 120) % 2 == 1;
            levels.observe(admits, 60.0 * (effect * state).exp());
            state += (f64::from(u8::from(admits)) - state) / 40.0;
        }
        let (learned, error) = levels.effect();
        assert!((learned - effect).abs() < 0.12 && error < 0.25, "{effect}: {learned} +- {error}");
    }
}

#[test]
fn names() {
    for (name, choice) in
        [("auto", WayChoice::Auto), ("cpu", WayChoice::Only(Way::Cpu)), ("resume", WayChoice::Only(Way::Resume))]
    {
        assert_eq!(name.parse::<WayChoice>().unwrap(), choice);
        assert_eq!(choice.to_string(), name);
        assert_eq!(serde_json::to_string(&choice).unwrap(), format!("\"{name}\""));
        assert_eq!(serde_json::from_str::<WayChoice>(&format!("\"{name}\"")).unwrap(), choice);
    }
    assert!("gpu".parse::<WayChoice>().unwrap_err().to_string().contains("gather, cpu and resume"));
    assert!(serde_json::from_str::<WayChoice>("\"gpu\"").is_err());
    assert_eq!(serde_json::to_string(&Way::Gather).unwrap(), "\"gather\"");
}

#[test]
fn browsers_can_only_resume() {
    for choice in [WayChoice::Auto, WayChoice::Only(Way::Resume)] {
        assert!(choice.check(true).is_ok() && choice.check(false).is_ok(), "{choice}");
    }
    for way in [Way::Gather, Way::Cpu] {
        assert!(WayChoice::Only(way).check(false).is_ok(), "{way}");
        let error = WayChoice::Only(way).check(true).unwrap_err().to_string();
        assert!(error.contains("resume") && error.contains(&way.to_string()), "{error}");
    }
}
