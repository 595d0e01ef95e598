//! Fields, facts and the timeline.

use super::*;

fn filled() -> (Activity, Vec<Vec<Routed>>) {
    let mut activity = Activity::new(shape(), 512);
    let rows = generation(&mut activity, &mut Random(40), 1, 30, 50, 0.0);
    (activity, rows)
}

fn view(mode: Mode) -> View {
    View { mode, ..View::default() }
}

#[test]
fn every_mode_has_a_field() {
    let (mut activity, rows) = filled();
    activity.residency(&[Home::Device; 48]);
    let uses = |range: Range<usize>, cell: usize, of: &dyn Fn(&Routed) -> f64| -> f64 {
        let here = |c: &&Routed| activity.shape.row_of(c.layer.into()).unwrap() * 16 + usize::from(c.expert) == cell;
        rows[range].iter().flatten().filter(here).map(of).sum()
    };
    let missed = |c: &Routed| f64::from(!matches!(c.served, Served::Hit | Served::Host));
    for range in [0..79, 10..40] {
        let shown = |mode| activity.field(&View { range: (range.len() < 79).then_some(range.clone()), ..view(mode) });
        let fields = [shown(Mode::Total), shown(Mode::Misses), shown(Mode::Weight)];
        for cell in 0..48 {
            let count = uses(range.clone(), cell, &|_| 1.0);
            assert_eq!(f64::from(fields[0].values[cell]), count);
            assert_eq!(f64::from(fields[1].values[cell]), uses(range.clone(), cell, &missed));
            let weight = uses(range.clone(), cell, &|c| f64::from(c.weight)) / count;
            assert!((f64::from(fields[2].values[cell]) - weight).abs() < 1e-6 || count == 0.0);
        }
    }
    let now = activity.field(&view(Mode::Now));
    assert_eq!(now.values.iter().filter(|v| **v > 0.0).count(), 9);
    let homes = activity.field(&view(Mode::Residency));
    let moved = rows[78].iter().filter(|c| matches!(c.served, Served::Fetched | Served::Gathered)).count();
    assert_eq!(homes.values.iter().filter(|v| **v == 2.0).count(), moved);
    assert_eq!(homes.values.iter().filter(|v| **v == 1.0).count(), 48 - moved);
    for mode in Mode::ALL {
        let field = activity.field(&view(mode));
        assert_eq!((field.rows, field.columns, field.values.len()), (3, 16, 48));
        let max = match field.scale {
            Scale::Linear { max } | Scale::Log { max } | Scale::Signed { max } => max,
            Scale::Ratio { octaves } => octaves,
            Scale::Homes => 2.0,
        };
        assert!(field.values.iter().all(|v| v.is_nan() || v.abs() <= max), "{mode:?} {max}");
    }
}

#[test]
fn pointing_at_a_token_shows_its_weights() {
    let (activity, rows) = filled();
    let field = activity.field(&View { token: Some(33), ..view(Mode::Now) });
    for c in &rows[33] {
        assert_eq!(field.values[activity.shape.row_of(c.layer.into()).unwrap() * 16 + usize::from(c.expert)], c.weight);
    }
    // The last token's routing is not known.
    assert!(activity.field(&View { token: Some(79), ..view(Mode::Now) }).values.iter().all(|v| v.is_nan()));
    let brushed = activity.field(&View { range: Some(0..34), ..view(Mode::Now) });
    assert_eq!(brushed.revision, field.revision);
}

#[test]
fn fields_that_differ_have_other_revisions() {
    let (mut activity, _) = filled();
    let before = Mode::ALL.map(|mode| activity.field(&view(mode)).revision);
    assert_eq!(before, Mode::ALL.map(|mode| activity.field(&view(mode)).revision));
    assert_eq!(before[..7].iter().collect::<HashSet<_>>().len(), 7);
    let revision = activity.revision();
    activity.routed(1, &Random(41).token(&shape(), 79), 100.0);
    assert!(activity.revision() > revision);
    assert_ne!(before[2], activity.field(&view(Mode::Total)).revision);
    let revision = activity.revision();
    activity.residency(&[Home::Host; 48]);
    assert!(activity.revision() > revision);
    let revision = activity.revision();
    activity.residency(&[Home::Host; 48]);
    assert_eq!(activity.revision(), revision);
}

#[test]
fn difference_of_a_and_b() {
    let (activity, _) = filled();
    let of = |range| Some(Arc::new(activity.snapshot("part", Some(range))));
    let unknown = activity.field(&view(Mode::Difference));
    assert!(unknown.values.iter().all(|v| v.is_nan()));
    let (a, b) = (of(0..40), of(40..80));
    let there = activity.field(&View { a: a.clone(), b: b.clone(), ..view(Mode::Difference) });
    let back = activity.field(&View { a: b.clone(), b: a.clone(), ..view(Mode::Difference) });
    for (x, y) in there.values.iter().zip(back.values.iter()) {
        assert_eq!(*x, -y);
    }
    for row in there.values.chunks(16) {
        assert!(row.iter().sum::<f32>().abs() < 1e-5);
    }
    assert_eq!(there.noise.len(), 48);
    let none = activity.field(&View { a: a.clone(), b: a.clone(), ..view(Mode::Difference) });
    assert!(none.values.iter().all(|v| *v == 0.0) && none.noise.iter().all(|n| *n));
    // Everything counted now, against a part of it.
    let now = activity.field(&View { b, ..view(Mode::Difference) });
    assert!(now.values.iter().any(|v| *v != 0.0));
    let other = Shape { experts: 8, ..shape().as_ref().clone() };
    let small = Snapshot::new("small", &other, vec![1; 24]).map(Arc::new);
    let field = activity.field(&View { a, b: small, ..view(Mode::Difference) });
    assert!(field.values.len() == 48 && field.values.iter().all(|v| v.is_nan()));
}

#[test]
fn facts_of_a_cell() {
    let (activity, rows) = filled();
    let counts = activity.sums().counts();
    for (row, layer) in [(0, 1u16), (2, 3)] {
        for expert in 0..16usize {
            let facts = activity.facts(Cell { row, expert }, 4).unwrap();
            let mine = |t: &&Vec<Routed>| t.iter().any(|c| c.layer == layer && usize::from(c.expert) == expert);
            let tokens: Vec<&Vec<Routed>> = rows.iter().filter(mine).collect();
            assert_eq!((facts.layer, facts.group, facts.tokens), (usize::from(layer), expert / 4, 79));
            assert_eq!(facts.count, tokens.len() as u64);
            assert_eq!(facts.hits + facts.misses, facts.count);
            assert!((facts.share.unwrap() - facts.count as f64 / (79.0 * 3.0)).abs() < 1e-12);
            let (low, high) = facts.interval.unwrap();
            let relative = facts.relative.unwrap();
            assert!(low <= relative && relative <= high);
            assert_eq!(facts.noise, low <= 1.0 && 1.0 <= high);
            assert_eq!(facts.rank, 1 + counts[row * 16..][..16].iter().filter(|&&n| n > facts.count).count());
            let ago = rows.iter().rev().position(|t| mine(&t)).map(|n| n as u64);
            assert_eq!(facts.used_ago, ago);
            assert_eq!(facts.mean_weight.is_some(), facts.count > 0);
            assert!(facts.choosers.len() <= 4 && facts.choosers.is_sorted_by(|a, b| a.times >= b.times));
            for partner in &facts.partners {
                let with = |t: &&&Vec<Routed>| t.iter().any(|c| c.layer == layer && usize::from(c.expert) == partner.expert);
                assert_eq!(partner.times as usize, tokens.iter().filter(with).count());
                let other = counts[row * 16 + partner.expert] as f32;
                let lift = partner.times as f32 * 79.0 / (facts.count as f32 * other);
                assert!((partner.lift - lift).abs() < 1e-4);
            }
        }
    }
    let seen = activity.facts(Cell { row: 0, expert: usize::from(rows[31][0].expert) }, 100).unwrap();
    assert!(seen.choosers.iter().any(|c| c.text == " w1" && c.id == 101));
}

#[test]
fn a_model_on_the_cpu_misses_nothing() {
    let mut activity = Activity::new(shape(), 8);
    assert!(activity.field(&view(Mode::Residency)).values.iter().all(|v| v.is_nan()));
    let rows: Vec<Routed> =
        Random(42).token(&shape(), 0).into_iter().map(|r| Routed { served: Served::Host, bytes: 0, ..r }).collect();
    activity.routed(1, &rows, 0.0);
    assert!(activity.field(&view(Mode::Residency)).values.iter().all(|v| *v == 0.0));
    assert!(activity.field(&view(Mode::Misses)).values.iter().all(|v| *v == 0.0));
    assert_eq!(activity.measures().all.get(Measure::HitRate), None);
    assert_eq!(activity.timeline().samples()[0].hit_rate(), None);
}

#[test]
fn the_timeline_keeps_all_in_bounded_memory() {
    let shape = shape();
    let mut activity = Activity::new(Arc::clone(&shape), 64);
    let mut random = Random(43);
    let (mut hits, mut bytes) = (0, 0);
    // 5 tokens a second, with an hour's pause.
    activity.begin(1, None, None, &[], 0.0);
    for p in 0..10_000u32 {
        let rows = random.token(&shape, p);
        hits += rows.iter().filter(|r| r.served == Served::Hit).count() as u64;
        bytes += rows.iter().map(|r| r.bytes).sum::<u64>();
        let pause = if p < 5000 { 0.0 } else { 3600.0 };
        if p == 5000 {
            activity.begin(2, None, None, &[], 1000.0 + pause);
        }
        let run = if p < 5000 { 1 } else { 2 };
        activity.routed(run, &rows, 0.2 * f64::from(p + 1) + pause);
        assert!(activity.timeline().samples().len() <= Timeline::SAMPLES);
    }
    let samples = activity.timeline().samples();
    assert!(samples.len() > Timeline::SAMPLES / 4);
    assert_eq!(samples.iter().map(|s| s.tokens).sum::<usize>(), 10_000);
    assert_eq!(samples.iter().map(|s| s.hits).sum::<u64>(), hits);
    assert_eq!(samples.iter().map(|s| s.bytes).sum::<u64>(), bytes);
    assert!(samples.array_windows().all(|[a, b]| a.range.end == b.range.start && a.end <= b.end));
    for sample in samples {
        assert!((sample.tokens_per_second().unwrap() - 5.0).abs() < 0.01, "{sample:?}");
    }
    let all = activity.timeline().tokens_between(f64::NEG_INFINITY, f64::INFINITY);
    assert_eq!(all, Some(0..10_000));
    assert_eq!(activity.timeline().tokens_of(0..usize::MAX), Some(0..10_000));
    assert_eq!(activity.timeline().tokens_between(1500.0, 2000.0), None);
    let late = activity.timeline().tokens_between(5000.0, 3600.0).unwrap();
    assert!(late.start.abs_diff(5000) <= 4 && late.end > 6500, "{late:?}");
}

#[test]
fn fast_tokens_share_a_bucket() {
    let shape = shape();
    let mut activity = Activity::new(Arc::clone(&shape), 64);
    activity.begin(1, None, None, &prompt(0..1), 0.0);
    for p in 0..200u32 {
        activity.routed(1, &Random(44).token(&shape, p), 0.005 * f64::from(p + 1));
    }
    let samples = activity.timeline().samples();
    // The prompt's token is a sample of its own.
    assert!((10..=13).contains(&samples.len()), "{}", samples.len());
    assert!((samples[3].tokens_per_second().unwrap() - 200.0).abs() < 0.1);
    assert_eq!(samples[0].phase, Phase::Prompt);
}
