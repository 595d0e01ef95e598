//! What is counted, against plain definitions and against the engine.
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

mod comparisons;
mod engine;
mod records;
mod views;

use std::collections::HashSet;

use super::{shape::LayerKind, *};

/// A dense layer and three mixture layers of 16 experts in 4 groups, 3 chosen at a time.
fn shape() -> Arc<Shape> {
    let kinds = [LayerKind::Dense, LayerKind::Mixture(0), LayerKind::Mixture(1), LayerKind::Mixture(2)];
    Arc::new(Shape {
        model: "Small, \"quoted\" model".into(),
        layers: kinds.to_vec(),
        rows: vec![1, 2, 3],
        experts: 16,
        top_k: 3,
        groups: 4,
        top_k_groups: 2,
        shared: 1,
    })
}

/// SplitMix64 (Steele, Lea and Flood, 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// From 0 to 1.
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// What a token chooses: lower experts more often.
    fn token(&mut self, shape: &Shape, position: u32) -> Vec<Routed> {
        let mut rows = Vec::new();
        for &layer in &shape.rows {
            let mut chosen: Vec<u16> = Vec::new();
            while chosen.len() < shape.top_k {
                let expert = (self.unit() * self.unit() * shape.experts as f64) as u16;
                if !chosen.contains(&expert) {
                    chosen.push(expert);
                }
            }
            let mut weights: Vec<f32> = chosen.iter().map(|_| self.unit() as f32).collect();
            weights.sort_by(|a, b| b.total_cmp(a));
            for (rank, (expert, weight)) in chosen.into_iter().zip(weights).enumerate() {
                let served = Served::ALL[self.below(5)];
                let bytes = if served == Served::Hit { 0 } else { 1000 + self.next() % 1000 };
                let (layer, rank) = (layer as u16, rank as u16);
                rows.push(Routed { position, layer, rank, expert, weight, served, bytes });
            }
        }
        rows
    }

    fn tokens(&mut self, shape: &Shape, positions: Range<u32>) -> Vec<Vec<Routed>> {
        positions.map(|p| self.token(shape, p)).collect()
    }
}

/// As a chunk is reported: layer by layer.
fn by_layer(tokens: &[Vec<Routed>]) -> Vec<Routed> {
    let mut rows = tokens.concat();
    rows.sort_by_key(|r| r.layer);
    rows
}

fn prompt(ids: Range<u32>) -> Vec<(u32, String)> {
    ids.map(|id| (id, format!("<{id}>"))).collect()
}

fn chat() -> ChatId {
    ChatId("chat".into())
}

/// A generation of `n` prompt tokens and `m` written ones; returns the rows that were reported, token by token.
fn generation(activity: &mut Activity, random: &mut Random, run: u64, n: u32, m: u32, start: f64) -> Vec<Vec<Routed>> {
    let shape = Arc::clone(activity.shape());
    let tokens = random.tokens(&shape, 0..n + m - 1);
    activity.begin(run, Some(chat()), Some(MessageId(run)), &prompt(0..n), start);
    activity.routed(run, &by_layer(&tokens[..n as usize]), start + 1.0);
    for j in 0..m {
        if j > 0 {
            activity.routed(run, &tokens[(n + j - 1) as usize], start + 1.0 + f64::from(j));
        }
        let at = 3 * j as usize;
        activity.token(run, 100 + j, &format!(" w{j}"), at..at + 3, start + 1.0 + f64::from(j));
    }
    activity.end(run, start + 100.0);
    tokens
}

#[test]
fn tokens_and_their_routing_line_up() {
    let mut activity = Activity::new(shape(), 64);
    let rows = generation(&mut activity, &mut Random(1), 7, 5, 4, 10.0);
    let kept: Vec<&TokenRow> = activity.tokens().iter(activity.tokens().range()).map(|(_, t)| t).collect();
    assert_eq!(kept.iter().map(|t| t.position).collect::<Vec<_>>(), (0..9).collect::<Vec<_>>());
    assert_eq!(kept.iter().map(|t| t.id).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 100, 101, 102, 103]);
    assert_eq!(kept[2].text, "<2>");
    assert_eq!(kept[6].text, " w1");
    for (token, rows) in kept.iter().zip(&rows) {
        assert_eq!(&token.choices, rows);
        assert_eq!(token.phase == Phase::Prompt, token.position < 5);
    }
    // The routing of the last token never comes.
    assert!(kept[8].choices.is_empty());
    assert_eq!(activity.latest(), Some(7));

    let tokens = activity.tokens();
    assert_eq!(tokens.under(Some(&chat()), MessageId(7), 4), Some(6));
    assert_eq!(tokens.under(None, MessageId(7), 4), Some(6));
    assert_eq!(tokens.under(Some(&ChatId("other".into())), MessageId(7), 4), None);
    assert_eq!(tokens.under(None, MessageId(8), 4), None);
    assert_eq!(tokens.under(None, MessageId(7), 400), None);
    assert_eq!(tokens.newest_first().next().unwrap().0, 8);
    assert_eq!(activity.cells_of(6).len(), 9);
}

#[test]
fn sums_are_of_tokens_times_experts_chosen() {
    let shape = shape();
    let mut activity = Activity::new(Arc::clone(&shape), 12);
    let mut random = Random(2);
    for run in 0..5 {
        generation(&mut activity, &mut random, run, 9, 6, 20.0 * run as f64);
    }
    // 14 tokens a generation have routing.
    for (row, sums) in activity.sums().rows().iter().enumerate() {
        assert_eq!(sums.tokens, 70);
        let cells = &activity.sums().counts()[row * 16..(row + 1) * 16];
        assert_eq!(cells.iter().sum::<u64>(), 70 * 3);
        assert_eq!(sums.uses, 70 * 3);
    }
    for (_, token) in activity.tokens().newest_first() {
        for chosen in token.layers() {
            assert_eq!(chosen.iter().map(|c| c.expert).collect::<HashSet<_>>().len(), chosen.len());
            assert!(chosen.is_sorted_by(|a, b| a.rank < b.rank));
        }
    }
    assert_eq!(activity.tokens().len(), 12);
    assert_eq!(activity.tokens().range(), 63..75);
    assert!(activity.tokens().get(62).is_none() && activity.tokens().find(0, 3).is_none());
}

#[test]
fn generations_that_take_turns_are_told_apart() {
    let shape = shape();
    let mut random = Random(3);
    let (a, b) = (random.tokens(&shape, 0..6), random.tokens(&shape, 0..6));
    let mut activity = Activity::new(Arc::clone(&shape), 64);
    activity.begin(1, Some(chat()), Some(MessageId(1)), &prompt(0..3), 0.0);
    activity.begin(2, Some(chat()), Some(MessageId(2)), &prompt(10..13), 0.0);
    activity.routed(1, &by_layer(&a[..3]), 1.0);
    activity.routed(2, &by_layer(&b[..3]), 1.0);
    for j in 0..3 {
        // The first is told of before its routing, the second after.
        activity.token(1, 50 + j, "a", 0..1, 2.0);
        activity.routed(1, &a[3 + j as usize], 2.0);
        activity.routed(2, &b[3 + j as usize], 2.0);
        activity.token(2, 60 + j, "b", 0..1, 2.0);
    }
    for (run, rows, ids) in [(1, &a, [0, 1, 2, 50, 51, 52]), (2, &b, [10, 11, 12, 60, 61, 62])] {
        for (position, (rows, id)) in rows.iter().zip(ids).enumerate() {
            let token = activity.tokens().get(activity.tokens().find(run, position as u32).unwrap()).unwrap();
            assert_eq!((&token.choices, token.id), (rows, id), "{run} {position}");
            assert_eq!(token.message.as_ref().map(|m| m.1), (position >= 3).then_some(MessageId(run)));
        }
    }
    assert_eq!(activity.sums().tokens(), 12);
}

#[test]
fn what_was_counted_is_not_counted_again() {
    let shape = shape();
    let mut random = Random(4);
    let rows = random.tokens(&shape, 0..4);
    let mut activity = Activity::new(Arc::clone(&shape), 64);
    activity.begin(1, None, None, &prompt(0..4), 0.0);
    activity.routed(1, &by_layer(&rows), 1.0);
    let (sums, revision) = (activity.sums().clone(), activity.revision());
    // As after the loss of a device, when the sequence is computed anew.
    activity.routed(1, &by_layer(&rows), 2.0);
    assert_eq!((activity.sums(), activity.revision()), (&sums, revision));
    // A row at a time is the same as all at once.
    let mut slowly = Activity::new(shape, 64);
    for token in &rows {
        for row in token.iter().rev() {
            slowly.routed(1, &[*row], 1.0);
        }
    }
    assert_eq!(slowly.sums().counts(), sums.counts());
    assert_eq!(slowly.sums().tokens(), 4);
    assert_eq!(slowly.tokens().get(2).unwrap().choices, rows[2]);
}

#[test]
fn a_chunk_longer_than_the_ring_keeps_its_end() {
    let shape = shape();
    let rows = Random(5).tokens(&shape, 0..40);
    let mut activity = Activity::new(Arc::clone(&shape), 8);
    activity.begin(1, None, None, &prompt(0..40), 0.0);
    activity.routed(1, &by_layer(&rows), 1.0);
    assert_eq!(activity.sums().counts(), Sums::of(&shape, 32.0, &tokens_of(&rows)).counts());
    let kept: Vec<(u32, usize)> = activity.tokens().iter(0..usize::MAX).map(|(_, t)| (t.position, t.choices.len())).collect();
    assert_eq!(kept, (32..40).map(|p| (p, 9)).collect::<Vec<_>>());
    assert_eq!(activity.timeline().samples().iter().map(|s| s.tokens).sum::<usize>(), 40);
}

/// Tokens as they are kept.
fn tokens_of(rows: &[Vec<Routed>]) -> Vec<TokenRow> {
    let row = |choices: &Vec<Routed>| TokenRow {
        run: 0,
        position: choices[0].position,
        id: 1,
        text: String::new(),
        phase: Phase::Answer,
        message: None,
        bytes: 0..0,
        time: 0.0,
        choices: choices.clone(),
    };
    rows.iter().map(row).collect()
}

#[test]
fn rows_of_other_models_and_of_nobody_are_harmless() {
    let shape = shape();
    let mut activity = Activity::new(Arc::clone(&shape), 4);
    let row = |position, layer, rank, expert, weight| Routed {
        position,
        layer,
        rank,
        expert,
        weight,
        served: Served::Fetched,
        bytes: u64::MAX,
    };
    let revision = activity.revision();
    activity.routed(1, &[], 0.0);
    activity.routed(1, &[row(0, 0, 0, 0, 1.0), row(0, 99, 0, 0, 1.0)], 1.0);
    activity.routed(1, &[row(0, 1, 0, 16, 1.0), row(0, 1, 1, 3, f32::NAN)], f64::NAN);
    assert_eq!(activity.sums().tokens(), 0);
    assert_eq!(activity.revision(), revision);
    // Twice the same expert, and more than are chosen.
    let many: Vec<Routed> = [3, 3, 4, 5, 6, 7].iter().zip(0..).map(|(&e, rank)| row(u32::MAX, 1, rank, e, 1.0)).collect();
    activity.routed(9, &many, f64::INFINITY);
    assert_eq!(activity.sums().rows()[0].uses, 3);
    activity.token(9, 1, "x", 0..1, -5.0);
    let (end, begin) = (2, 5);
    activity.token(77, 1, "y", begin..end, 1.0);
    activity.end(78, 1.0);
    activity.routed(77, &many, 1.0);
    activity.residency(&[Home::Device; 3]);
    for mode in Mode::ALL {
        activity.field(&View { mode, token: Some(usize::MAX), range: Some(5..usize::MAX), ..View::default() });
    }
    activity.measures();
    assert!(activity.facts(Cell { row: 0, expert: 16 }, 3).is_none());
    assert_eq!(activity.facts(Cell { row: 0, expert: 3 }, 3).unwrap().bytes, u64::MAX);
}

#[test]
fn a_continued_answer_keeps_its_words() {
    let mut activity = Activity::new(shape(), 64);
    let mut random = Random(6);
    let shape = shape();
    generation(&mut activity, &mut random, 1, 3, 3, 0.0);
    // The prompt, and the answer so far; all but its last token are in the cache.
    let mut all = prompt(0..3);
    all.extend((0..3).map(|j| (100 + j, format!(" w{j}"))));
    activity.begin(2, Some(chat()), Some(MessageId(1)), &all, 50.0);
    activity.routed(2, &random.token(&shape, 5), 51.0);
    activity.token(2, 103, " w3", 9..12, 51.0);
    let last = activity.tokens().under(Some(&chat()), MessageId(1), 7).unwrap();
    let token = activity.tokens().get(last).unwrap();
    assert_eq!((token.run, token.position, token.id, token.text.as_str()), (2, 5, 102, " w2"));
    assert_eq!(token.choices.len(), 9);
    let next = activity.tokens().under(Some(&chat()), MessageId(1), 10).unwrap();
    assert_eq!(activity.tokens().get(next).unwrap().position, 6);
}
