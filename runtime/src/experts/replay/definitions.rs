//! Every policy against its definition, tried out the long way.
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

use proptest::prelude::*;

use super::{
    super::{
        policy::HALF_LIFE,
        residency::Residency,
        trace::{TraceFormat, TraceWriter, read_from},
    },
    tests::rows,
    *,
};

/// Tokens of distinct experts: at most 3 of `experts`.
fn tokens(experts: u16, most: usize) -> impl Strategy<Value = Vec<Vec<u16>>> {
    let chosen = prop::collection::btree_set(0..experts, 1..4).prop_map(|set| set.into_iter().collect::<Vec<_>>());
    prop::collection::vec(chosen.prop_shuffle(), 1..most)
}

/// What an expert is worth: of the times of its uses, and now.
type Value = dyn Fn(&[usize], usize) -> (f64, usize);

/// The definition of a policy that admits every miss: from all uses so far, each time anew. `value` of the times of an
/// expert's uses.
fn by_definition(tokens: &[Vec<u16>], slots: usize, value: &Value) -> u64 {
    let mut seats: Vec<u16> = Vec::new();
    let mut hits = 0;
    for (now, chosen) in tokens.iter().enumerate() {
        hits += chosen.iter().filter(|e| seats.contains(e)).count() as u64;
        let uses = |e: u16| (0..=now).filter(|&t| tokens[t].contains(&e)).collect::<Vec<_>>();
        for &e in chosen {
            if seats.contains(&e) {
                continue;
            }
            if seats.len() < slots {
                seats.push(e);
                continue;
            }
            let free = seats.iter_mut().filter(|s| !chosen.contains(s));
            let worst = free.min_by(|x, y| value(&uses(**x), now).partial_cmp(&value(&uses(**y), now)).unwrap());
            if let Some(seat) = worst {
                *seat = e;
            }
        }
    }
    hits
}

/// The most hits of anyone, by trying every set of residents after every token.
fn best_possible(tokens: &[Vec<u16>], slots: usize, experts: u16) -> u64 {
    let sets = 1usize << experts;
    let mut best: Vec<Option<u64>> = vec![None; sets];
    best[0] = Some(0);
    for chosen in tokens {
        let needed: usize = chosen.iter().map(|&e| 1usize << e).sum();
        let mut after = vec![None; sets];
        for (set, hits) in best.iter().enumerate().filter_map(|(set, hits)| hits.map(|h| (set, h))) {
            let hits = hits + u64::from((set & needed).count_ones());
            for next in (0..sets).filter(|next| next & !(set | needed) == 0 && next.count_ones() as usize <= slots) {
                after[next] = after[next].max(Some(hits));
            }
        }
        best = after;
    }
    best.into_iter().flatten().max().unwrap()
}

proptest! {
    #[test]
    fn every_policy_is_what_it_is_defined_to_be(tokens in tokens(5, 14), slots in 0usize..6) {
        let trace = Trace::of(&rows(std::slice::from_ref(&tokens))).unwrap();
        let hits = |policy| replay(&trace, policy, slots).hits;
        prop_assert_eq!(trace.lookups(), tokens.iter().map(|t| t.len() as u64).sum::<u64>());
        prop_assert_eq!(hits(Policy::Lru), by_definition(&tokens, slots, &|uses, _| (0.0, *uses.last().unwrap())));
        let lfu = by_definition(&tokens, slots, &|uses, _| (uses.len() as f64, *uses.last().unwrap()));
        prop_assert_eq!(hits(Policy::Lfu), lfu);
        // With this half-life every history has another sum.
        let sum = |uses: &[usize], now: usize| (uses.iter().map(|&t| (-((now - t) as f64)).exp2()).sum::<f64>(), 0);
        prop_assert_eq!(hits(Policy::Lfru { half_life: 1.0 }), by_definition(&tokens, slots, &sum));
        let best = best_possible(&tokens, slots, 5);
        prop_assert_eq!(hits(Policy::Belady), best);
        let half = &tokens[..tokens.len().div_ceil(2)];
        let mut ids: Vec<u16> = (0..5).collect();
        ids.sort_by_key(|e| std::cmp::Reverse(half.iter().filter(|t| t.contains(e)).count()));
        let mut loaded = Vec::new();
        let mut fixed = 0;
        for e in tokens.iter().flatten().filter(|e| ids[..slots.min(5)].contains(e)) {
            fixed += u64::from(loaded.contains(e));
            loaded.push(*e);
        }
        prop_assert_eq!(hits(Policy::Static), fixed);
        for policy in [Policy::Lru, Policy::Lfu, Policy::Static, Policy::Lfru { half_life: 3.0 }] {
            prop_assert!(hits(policy) <= best);
        }
    }

    /// The replay of LFRU is what the mirror of the device's table does.
    #[test]
    fn lfru_is_the_policy_of_the_residency(
        tokens in tokens(12, 60),
        slots in 1usize..12,
        half_life in prop_oneof![Just(HALF_LIFE), Just(f32::INFINITY), 0.5f32..50.0],
    ) {
        // Of layers that share nothing, the second begins with experts used up; hits add up.
        let doubled = [tokens.clone(), tokens.clone()];
        let trace = Trace::of(&rows(&doubled)).unwrap();
        let experts = 1 + usize::from(*tokens.iter().flatten().max().unwrap());
        let mut residency = Residency::new(&[(experts, slots)], half_life);
        let mut hits = 0;
        for chosen in &tokens {
            chosen.iter().for_each(|&e| residency.touch(0, e));
            let missed: Vec<u16> = chosen.iter().copied().filter(|&e| residency.slot_of(0, e).is_none()).collect();
            hits += (chosen.len() - missed.len()) as u64;
            for e in missed {
                if let Some(slot) = residency.victim(0, &|e| chosen.contains(&e)) {
                    residency.place(0, e, slot);
                }
            }
            residency.tick(1);
        }
        let replayed = replay(&trace, Policy::Lfru { half_life }, slots);
        prop_assert_eq!(replayed.hits, 2 * hits);
        prop_assert_eq!(replayed.lookups, 2 * tokens.iter().map(|t| t.len() as u64).sum::<u64>());
    }

    /// Written and read, in either form, it is the same trace.
    #[test]
    fn a_file_replays_as_what_was_recorded(tokens in tokens(9, 20), slots in 1usize..9) {
        let rows = rows(&[tokens.clone(), tokens]);
        for format in [TraceFormat::Csv, TraceFormat::Jsonl] {
            let mut writer = TraceWriter::new(Vec::new(), format).unwrap();
            writer.rows(&rows).unwrap();
            let read = read_from(&writer.finish().unwrap()[..], "t").unwrap();
            prop_assert_eq!(&read, &rows);
            let [there, back] = [&rows, &read].map(|r| replay(&Trace::of(r).unwrap(), Policy::Belady, slots));
            prop_assert_eq!(there, back);
        }
    }
}
