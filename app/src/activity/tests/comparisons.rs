//! Against plain definitions.

use super::*;
use crate::activity::{
    chance,
    domains::{Domain, Surveys},
    measures::{entropy, gini},
    snapshot::divergence,
};

#[test]
fn recent_uses_are_a_sum_of_powers() {
    let shape = shape();
    for half_life in [0.5, 3.0, 32.0, 500.0] {
        let rows = Random(10).tokens(&shape, 0..400);
        let mut activity = Activity::new(Arc::clone(&shape), 512);
        activity.set_half_life(half_life);
        activity.begin(1, None, None, &[], 0.0);
        for token in &rows {
            activity.routed(1, token, 0.0);
        }
        let brute = |half_life: f32| {
            let mut sums = vec![0.0; shape.cells()];
            for (age, token) in rows.iter().rev().enumerate() {
                for c in token {
                    let cell = shape.row_of(c.layer.into()).unwrap() * 16 + usize::from(c.expert);
                    sums[cell] += 0.5f64.powf(age as f64 / f64::from(half_life));
                }
            }
            sums
        };
        let close = |field: &Field, expected: &[f64]| {
            for (&is, &should) in field.values.iter().zip(expected) {
                assert!((f64::from(is) - should).abs() <= 1e-5 * should.max(1e-3), "{is} {should}");
            }
        };
        let view = |half_life| View { mode: Mode::Recent, half_life, ..View::default() };
        close(&activity.field(&view(None)), &brute(half_life));
        close(&activity.field(&view(Some(7.0))), &brute(7.0));
        activity.set_half_life(9.0);
        close(&activity.field(&view(None)), &brute(9.0));
        activity.routed(1, &Random(0).token(&shape, 1000), 0.0);
        assert!(activity.field(&view(None)).values.iter().all(|v| v.is_finite()));
    }
}

#[test]
fn working_set_is_the_experts_of_the_last_tokens() {
    let shape = shape();
    let wide = Arc::new(Shape { experts: 200, ..shape.as_ref().clone() });
    let rows = Random(11).tokens(&wide, 0..300);
    let mut activity = Activity::new(Arc::clone(&wide), 512);
    for (n, token) in rows.iter().enumerate() {
        activity.routed(1, token, 0.0);
        let window = &rows[(n + 1).saturating_sub(Sums::WINDOW)..=n];
        for (row, &layer) in wide.rows.iter().enumerate() {
            let experts: HashSet<u16> =
                window.iter().flatten().filter(|c| usize::from(c.layer) == layer).map(|c| c.expert).collect();
            assert_eq!(activity.sums().rows()[row].working_set as usize, experts.len());
        }
    }
}

#[test]
fn relative_use_and_its_noise() {
    let shape = shape();
    let mut activity = Activity::new(Arc::clone(&shape), 512);
    let view = View { mode: Mode::Relative, ..View::default() };
    let field = activity.field(&view);
    assert!(field.values.iter().all(|v| v.is_nan()) && field.noise.iter().all(|n| *n));
    let mut random = Random(12);
    let (mut greyed, mut shown) = (0, 0);
    for position in 0..300u32 {
        activity.routed(1, &random.token(&shape, position), 0.0);
        let field = activity.field(&view);
        let tokens = u64::from(position + 1);
        for (at, &count) in activity.sums().counts().iter().enumerate() {
            let share = 3.0 / 16.0;
            let ratio = (count as f64 / (tokens as f64 * share)).log2().clamp(-3.0, 3.0);
            assert!((f64::from(field.values[at]) - ratio).abs() < 1e-5);
            let (low, high) = chance::interval(count, tokens);
            let few = tokens as f64 * share < 5.0;
            // At the very edge, rounding decides.
            if (low - share).abs() > 1e-9 && (high - share).abs() > 1e-9 {
                assert_eq!(field.noise[at], few || (low <= share && share <= high), "{count} of {tokens}");
            }
            greyed += usize::from(field.noise[at]);
            shown += usize::from(!field.noise[at]);
        }
    }
    assert!(greyed > 1000 && shown > 1000, "{greyed} {shown}");
    assert_eq!(field.scale, Scale::Ratio { octaves: 3.0 });
    // Published values: 95 % for 10 of 100.
    let (low, high) = chance::interval(10, 100);
    assert!((low - 0.0552).abs() < 1e-4 && (high - 0.1744).abs() < 1e-4, "{low} {high}");
    assert_eq!(chance::interval(0, 0), (0.0, 1.0));
}

#[test]
fn stack_distances_are_what_caches_of_every_size_do() {
    let shape = shape();
    for seed in 20..24 {
        let rows = Random(seed).tokens(&shape, 0..200);
        let lru = Lru::of(&shape, &tokens_of(&rows));
        for slots in 3..=16usize {
            let mut hits = 0;
            let mut lookups = 0;
            for &layer in &shape.rows {
                // Residents by when they were used last: (token, nearness of the rank).
                let mut residents: Vec<(u16, (usize, u16))> = Vec::new();
                for (now, token) in rows.iter().enumerate() {
                    let chosen: Vec<&Routed> = token.iter().filter(|c| usize::from(c.layer) == layer).collect();
                    lookups += chosen.len();
                    hits += chosen.iter().filter(|c| residents.iter().any(|r| r.0 == c.expert)).count();
                    for c in &chosen {
                        let stamp = (now, u16::MAX - c.rank);
                        if let Some(resident) = residents.iter_mut().find(|r| r.0 == c.expert) {
                            resident.1 = stamp;
                            continue;
                        }
                        if residents.len() >= slots {
                            let free = |r: &(u16, (usize, u16))| !chosen.iter().any(|c| c.expert == r.0);
                            let (oldest, _) =
                                residents.iter().enumerate().filter(|(_, r)| free(r)).min_by_key(|(_, r)| r.1).unwrap();
                            residents.swap_remove(oldest);
                        }
                        residents.push((c.expert, stamp));
                    }
                }
            }
            assert_eq!(lru.hit_rate(slots), Some(hits as f64 / lookups as f64), "{slots} slots");
        }
        assert!(lru.curve().is_sorted());
        assert_eq!(lru.curve().len(), 17);
        let slots = lru.slots_for(0.5).unwrap();
        assert!(lru.hit_rate(slots).unwrap() >= 0.5 && lru.hit_rate(slots - 1).unwrap() < 0.5);
        let mut live = Activity::new(Arc::clone(&shape), 8);
        rows.iter().for_each(|token| live.routed(1, token, 0.0));
        assert_eq!(live.lru(), &lru);
    }
    assert!(Lru::new(&shape).curve().is_empty());
}

#[test]
fn divergence_is_symmetric_and_bounded() {
    let mut random = Random(30);
    for _ in 0..200 {
        let row = |random: &mut Random| -> Vec<u64> { (0..16).map(|_| random.next() % 7 * (random.next() % 3)).collect() };
        let (a, b) = (row(&mut random), row(&mut random));
        let Some(there) = divergence(&a, &b) else { continue };
        assert!((there - divergence(&b, &a).unwrap()).abs() < 1e-12);
        assert!((0.0..=1.0).contains(&there));
        assert!(divergence(&a, &a).unwrap() < 1e-12);
    }
    assert_eq!(divergence(&[1, 0], &[0, 5]), Some(1.0));
    assert_eq!(divergence(&[0, 0], &[0, 5]), None);
    // Half in common: H(1/2, 1/4, 1/4) - H(1/2, 1/2) = 1.5 - 1.
    assert!((divergence(&[1, 1, 0], &[1, 0, 1]).unwrap() - 0.5).abs() < 1e-12);
}

#[test]
fn chance_explains_two_halves_of_the_same() {
    let shape = shape();
    let mut random = Random(31);
    let snapshot = |random: &mut Random| Snapshot::of_tokens("", &shape, &tokens_of(&random.tokens(&shape, 0..400)));
    let (mut found, mut expected, mut movers) = (0.0, 0.0, 0);
    for _ in 0..20 {
        let (a, b) = (snapshot(&mut random), snapshot(&mut random));
        let divergence = a.divergence(&b).unwrap();
        found += divergence.overall.unwrap();
        expected += divergence.chance.unwrap();
        movers += a.movers(&b, usize::MAX).len();
    }
    // Uses of a token are drawn without replacement, and rare experts vary less: less than independent draws would give.
    assert!(found < 1.2 * expected && found > 0.4 * expected, "{found} {expected}");
    // One in twenty of 48 cells, 20 times, is 48.
    assert!(movers < 96, "{movers}");
}

#[test]
fn surveys_compare_texts() {
    let shape = shape();
    let mut surveys = Surveys::default();
    assert!(!surveys.insert(&shape, "Short", vec![1; 5]));
    let spread = |at: usize| -> Vec<u64> { (0..48).map(|cell| if cell % 16 / 4 == at { 75 } else { 0 }).collect() };
    assert!(surveys.insert(&shape, "Code", vec![1; 48]));
    assert!(surveys.insert(&shape, "Code", spread(0)));
    assert!(surveys.insert(&shape, "French", spread(1)));
    assert_eq!(surveys.iter().map(|s| (s.name.as_str(), s.tokens)).collect::<Vec<_>>(), [("Code", 100), ("French", 100)]);
    let relative = surveys.relative("Code").unwrap();
    assert_eq!((relative[0], relative[5]), (4.0, 0.0));
    let divergence = surveys.divergence("Code", "French").unwrap();
    assert_eq!((divergence.overall, divergence.rows.len()), (Some(1.0), 3));
    assert!(divergence.chance.unwrap() < 0.05);
    let movers = surveys.movers("Code", "French", 100);
    assert_eq!(movers.len(), 24);
    assert_eq!(surveys.movers("Code", "French", 1)[0].a, 0.25);
    assert!(surveys.movers("Code", "Code", 100).is_empty());
    assert!(surveys.divergence("Code", "Latin").is_none());
    surveys.remove("Code");
    assert_eq!(surveys.len(), 1);
    for domain in Domain::ALL {
        let (words, characters) = (domain.text.split_whitespace().count(), domain.text.chars().count());
        assert!((90..=220).contains(&words) || (domain.name == "Chinese" && (250..500).contains(&characters)), "{words}");
    }
}

#[test]
fn measures_of_known_spreads() {
    assert!((entropy(&[5; 16]) - 1.0).abs() < 1e-12 && gini(&[5; 16]).abs() < 1e-12);
    assert_eq!((entropy(&[0, 0, 9, 0]), gini(&[0, 0, 9, 0])), (0.0, 1.0));
    // Half of four experts: log 2 / log 4.
    assert!((entropy(&[3, 3, 0, 0]) - 0.5).abs() < 1e-12);
    // Mean absolute difference of (1, 3): 2 over all pairs but itself; over twice the mean: 0.5.
    assert!((gini(&[1, 3]) - 0.5).abs() < 1e-12);

    let shape = shape();
    let mut activity = Activity::new(Arc::clone(&shape), 512);
    assert!(Measure::ALL.iter().all(|&m| activity.measures().all.get(m).is_none()));
    let row = |position: u32, layer, rank: u16, expert, served| Routed {
        position,
        layer,
        rank,
        expert,
        weight: 1.0 / f32::from(rank + 1),
        served,
        bytes: 10,
    };
    // Every token shares two experts with the one before it, all with the token eight before it.
    for p in 0..40u32 {
        let cycle = (p % 8) as u16;
        let token: Vec<Routed> = (1..4u16)
            .flat_map(|layer| (0..3u16).map(move |i| (layer, i, if i < 2 { i } else { 2 + cycle })))
            .map(|(layer, rank, expert)| row(p, layer, rank, expert, if rank < 2 { Served::Hit } else { Served::Gathered }))
            .collect();
        activity.routed(1, &token, 0.0);
    }
    let measures = activity.measures();
    assert!(Arc::ptr_eq(&measures, &activity.measures()));
    let all = |m| measures.all.get(m).unwrap();
    assert_eq!(measures.tokens, 40);
    assert!((all(Measure::Overlap) - 2.0 / 3.0).abs() < 1e-12);
    assert_eq!(all(Measure::Overlap8), 1.0);
    assert_eq!(all(Measure::Active), 10.0 / 16.0);
    assert_eq!((all(Measure::Dead), measures.rows[0].get(Measure::Dead)), (18.0, Some(6.0)));
    assert_eq!(all(Measure::WorkingSet), 10.0);
    assert!((all(Measure::MaxShare) - 1.0 / 3.0).abs() < 1e-12);
    assert_eq!(all(Measure::TopWeight), 1.0);
    assert!((all(Measure::HitRate) - 2.0 / 3.0).abs() < 1e-12);
    assert_eq!(all(Measure::BytesPerToken), 90.0);
    // Experts 0 and 1 are of group 0, as are 2 and 3; 4 to 7 are of the next, 8 and 9 of the third.
    assert_eq!(all(Measure::Groups), 1.75);
    assert!((measures.all.groups.iter().sum::<f64>() - 1.0).abs() < 1e-12);
    for measure in Measure::ALL {
        assert!(!measure.format(all(measure)).is_empty() && measure.explanation().len() > measure.name().len());
    }
}
