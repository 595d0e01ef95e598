//! Any sequence of lookups, admissions, evictions, failures and adopted tables keeps table and slots consistent.
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

use proptest::prelude::*;

use super::{tests::NONE, *};

/// One thing that may happen. Numbers may be out of range.
#[derive(Clone, Debug)]
enum Event {
    /// A token chooses these; misses are admitted as far as the policy lets them.
    Token(usize, Vec<u16>, usize, f32),
    /// The victim's slot is filled, come what may.
    Demand(usize, u16),
    Place(usize, u16, u32),
    /// An upload failed.
    Failure(usize, u32),
    /// The device hands its table over, right or wrong.
    Adopt(usize, Vec<u32>),
    Warm(usize, Vec<f32>),
}

const BANKS: [(usize, usize); 3] = [(6, 3), (4, 4), (9, 2)];

fn event() -> impl Strategy<Value = Event> {
    let slot = || prop_oneof![9 => 0u32..5, 1 => Just(ABSENT)];
    prop_oneof![
        6 => (0usize..4, prop::collection::vec(0u16..10, 0..5), 0usize..4, prop_oneof![Just(0.0f32), -1.0f32..2.0])
            .prop_map(|(b, chosen, most, margin)| Event::Token(b, chosen, most, margin)),
        3 => (0usize..4, 0u16..11).prop_map(|(b, e)| Event::Demand(b, e)),
        2 => (0usize..4, 0u16..11, slot()).prop_map(|(b, e, s)| Event::Place(b, e, s)),
        2 => (0usize..4, slot()).prop_map(|(b, s)| Event::Failure(b, s)),
        2 => (0usize..4, prop::collection::vec(prop_oneof![1 => 0u32..5, 2 => Just(ABSENT)], 4..10))
            .prop_map(|(b, table)| Event::Adopt(b, table)),
        1 => (0usize..4, prop::collection::vec(prop_oneof![9 => -1.0f32..9.0, 1 => Just(f32::INFINITY)], 4..10))
            .prop_map(|(b, counts)| Event::Warm(b, counts)),
    ]
}

/// The plain truth: who lives where, kept as a list of pairs for each bank.
struct Truth(Vec<Vec<(u16, u32)>>);

impl Truth {
    fn slot_of(&self, bank: usize, expert: u16) -> Option<u32> {
        self.0.get(bank)?.iter().find(|p| p.0 == expert).map(|p| p.1)
    }

    fn owner(&self, bank: usize, slot: u32) -> Option<u16> {
        self.0.get(bank)?.iter().find(|p| p.1 == slot).map(|p| p.0)
    }

    /// Who is evicted.
    fn place(&mut self, bank: usize, expert: u16, slot: u32) -> Option<u16> {
        let &(experts, slots) = BANKS.get(bank)?;
        if usize::from(expert) >= experts || slot as usize >= slots {
            return None;
        }
        let evicted = self.owner(bank, slot).filter(|&e| e != expert);
        self.0[bank].retain(|p| p.0 != expert && p.1 != slot);
        self.0[bank].push((expert, slot));
        evicted
    }
}

proptest! {
    #[test]
    fn any_history_keeps_table_and_slots_consistent(
        events in prop::collection::vec(event(), 0..80),
        half_life in prop_oneof![Just(f32::INFINITY), 0.5f32..100.0],
    ) {
        let mut r = Residency::new(&BANKS, half_life);
        let mut truth = Truth(vec![Vec::new(); BANKS.len()]);
        let (mut used, mut hits, mut misses) = (0u64, 0u64, 0u64);
        // Residents by the books: moved in, evicted, lost to failures; an adopted table starts new books.
        let mut residents = [0i64; BANKS.len()];
        let mut warmed = false;
        for event in events {
            match event {
                Event::Token(bank, chosen, most, margin) => {
                    r.tick(1);
                    let chosen: BTreeSet<u16> = chosen.into_iter().filter(|&e| usize::from(e) < r.experts(bank)).collect();
                    let mut missed = Vec::new();
                    for &e in &chosen {
                        prop_assert_eq!(r.slot_of(bank, e), truth.slot_of(bank, e));
                        r.touch(bank, e);
                        used += 1;
                        match r.slot_of(bank, e) {
                            Some(slot) => {
                                prop_assert_eq!(r.owner(bank, slot), Some(e));
                                hits += 1;
                            }
                            None => {
                                missed.push(e);
                                misses += 1;
                            }
                        }
                    }
                    let keep = |e: u16| chosen.contains(&e);
                    let admitted = r.admissions(bank, &missed, &keep, most, margin);
                    prop_assert!(admitted.len() <= most.min(missed.len()));
                    let seats: BTreeSet<u32> = admitted.iter().map(|a| a.1).collect();
                    prop_assert_eq!(seats.len(), admitted.len());
                    for pair in admitted.windows(2) {
                        prop_assert!(r.score(bank, pair[0].0) >= r.score(bank, pair[1].0));
                    }
                    for (e, slot) in admitted {
                        prop_assert!(missed.contains(&e));
                        if let Some(cold) = r.owner(bank, slot) {
                            prop_assert!(!keep(cold));
                            prop_assert!(r.score(bank, e) > r.score(bank, cold) + margin);
                        }
                        let evicted = r.place(bank, e, slot);
                        prop_assert_eq!(evicted, truth.place(bank, e, slot));
                        residents[bank] += 1 - i64::from(evicted.is_some());
                    }
                }
                Event::Demand(bank, e) => {
                    let Some(slot) = r.victim(bank, NONE) else {
                        prop_assert!(bank >= BANKS.len());
                        continue;
                    };
                    match r.owner(bank, slot) {
                        None => prop_assert!((0..slot).all(|s| r.owner(bank, s).is_some())),
                        Some(cold) => {
                            prop_assert_eq!(r.resident(bank), r.slots(bank));
                            let coldest = r.score(bank, cold);
                            for s in 0..r.slots(bank) as u32 {
                                let other = r.score(bank, r.owner(bank, s).unwrap());
                                prop_assert!(other > coldest || (s >= slot && other == coldest));
                            }
                        }
                    }
                    let (exists, was_in) = (usize::from(e) < r.experts(bank), r.slot_of(bank, e).is_some());
                    let evicted = r.place(bank, e, slot);
                    prop_assert_eq!(evicted, truth.place(bank, e, slot));
                    residents[bank] += i64::from(exists && !was_in) - i64::from(evicted.is_some());
                }
                Event::Place(bank, e, slot) => {
                    let valid = usize::from(e) < r.experts(bank) && (slot as usize) < r.slots(bank);
                    let was_in = r.slot_of(bank, e).is_some();
                    let evicted = r.place(bank, e, slot);
                    prop_assert_eq!(evicted, truth.place(bank, e, slot));
                    if valid {
                        prop_assert_eq!(r.slot_of(bank, e), Some(slot));
                        residents[bank] += i64::from(!was_in) - i64::from(evicted.is_some());
                    }
                }
                Event::Failure(bank, slot) => {
                    let lost = r.clear_slot(bank, slot);
                    prop_assert_eq!(lost, truth.owner(bank, slot));
                    prop_assert_eq!(r.owner(bank, slot), None);
                    if let Some(e) = lost {
                        prop_assert_eq!(r.slot_of(bank, e), None);
                        truth.0[bank].retain(|p| p.0 != e);
                        residents[bank] -= 1;
                    }
                }
                Event::Adopt(bank, mut table) => {
                    // Mostly of the right length.
                    table.truncate(r.experts(bank).max(4));
                    let taken: Vec<u32> = table.iter().copied().filter(|&s| s != ABSENT).collect();
                    let distinct = taken.iter().collect::<BTreeSet<_>>().len() == taken.len();
                    let in_range = taken.iter().all(|&s| (s as usize) < r.slots(bank));
                    let right = bank < BANKS.len() && table.len() == r.experts(bank) && distinct && in_range;
                    let before = r.table(bank).to_vec();
                    prop_assert_eq!(r.adopt(bank, &table).is_ok(), right);
                    if right {
                        prop_assert_eq!(r.table(bank), &table[..]);
                        truth.0[bank] = (0u16..).zip(&table).filter(|p| *p.1 != ABSENT).map(|(e, &s)| (e, s)).collect();
                        residents[bank] = taken.len() as i64;
                    } else {
                        prop_assert_eq!(r.table(bank), &before[..]);
                    }
                }
                Event::Warm(bank, counts) => {
                    let heat: Vec<Heat> = counts.iter().map(|&count| Heat { count, last: 3 }).collect();
                    r.set_heat(bank, &heat);
                    warmed |= heat.len() == r.experts(bank);
                }
            }
            prop_assert_eq!(r.check(), Ok(()));
        }
        for (bank, &(experts, slots)) in BANKS.iter().enumerate() {
            prop_assert_eq!((r.experts(bank), r.slots(bank), r.table(bank).len()), (experts, slots, experts));
            for e in 0..experts as u16 {
                prop_assert_eq!(r.slot_of(bank, e), truth.slot_of(bank, e));
            }
            for slot in 0..slots as u32 {
                prop_assert_eq!(r.owner(bank, slot), truth.owner(bank, slot));
            }
            prop_assert_eq!(r.resident(bank) as i64, residents[bank]);
        }
        prop_assert_eq!(hits + misses, used);
        // Without decay, heat is a count of uses: every one was counted, once.
        if half_life.is_infinite() && !warmed {
            let counted: f32 = (0..BANKS.len()).flat_map(|b| r.heat(b)).map(|h| h.count).sum();
            prop_assert_eq!(counted, used as f32);
        }
    }
}
