//! What other policies would have made of a trace: hit rates for any number of slots, without running the model.
//!
//! A layer's slots serve that layer only, so that each layer is replayed by itself, and its clock is the number of tokens it has
//! seen. All policies begin with empty slots: the first use of an expert is a miss for everyone. What one token chose is looked
//! up at once, and is pinned while the token is served.

use std::{collections::BTreeMap, fmt};

use serde::Serialize;

use super::{policy::Heat, trace::Routed};
use crate::error::{Error, Result};

/// Who leaves when a slot is needed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(tag = "policy", rename_all = "lowercase")]
pub enum Policy {
    /// The least recently used.
    Lru,
    /// The least often used since the beginning, evicted experts included; of these the least recently used.
    Lfu,
    /// The coldest by [`Heat`].
    Lfru {
        /// Tokens after which a use counts half: positive, or infinite.
        half_life: f32,
    },
    /// Nobody: the experts most used in the first half of the trace, each loaded at its first use; others are never admitted.
    Static,
    /// The one used again last, as only one who knows the future can tell; what is used again later than all residents is not
    /// admitted. No policy that starts with empty slots has more hits (Belady, "A study of replacement algorithms for a
    /// virtual-storage computer", IBM Systems Journal 5(2), 1966; here with bypass).
    Belady,
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lru => f.pad("lru"),
            Self::Lfu => f.pad("lfu"),
            Self::Lfru { half_life } => f.pad(&format!("lfru {half_life}")),
            Self::Static => f.pad("static"),
            Self::Belady => f.pad("belady"),
        }
    }
}

/// What a policy made of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Replayed {
    /// Who left.
    #[serde(flatten)]
    pub policy: Policy,
    /// Slots of each layer.
    pub slots: usize,
    /// Experts chosen, over all tokens and layers.
    pub lookups: u64,
    /// Of these, the ones that were resident.
    pub hits: u64,
}

impl Replayed {
    /// Hits a lookup, from 0 to 1.
    pub fn hit_rate(&self) -> f64 {
        self.hits as f64 / self.lookups.max(1) as f64
    }
}

/// Which experts each layer was asked for, token by token.
#[derive(Clone, Debug)]
pub struct Trace {
    layers: Vec<Layer>,
}

/// One layer's tokens in the order in which it saw them.
#[derive(Clone, Debug)]
struct Layer {
    /// Experts of all tokens, one token after the other, the largest weight first.
    uses: Vec<u16>,
    /// Where each token's experts begin, and where the last one's end.
    bounds: Vec<usize>,
}

impl Default for Layer {
    fn default() -> Self {
        Self { uses: Vec::new(), bounds: vec![0] }
    }
}

impl Layer {
    fn tokens(&self) -> impl DoubleEndedIterator<Item = &[u16]> + ExactSizeIterator {
        self.bounds.array_windows().map(|&[start, end]| &self.uses[start..end])
    }

    /// 1 + the largest id.
    fn experts(&self) -> usize {
        self.uses.iter().max().map_or(0, |&e| usize::from(e) + 1)
    }
}

/// A layer whose last token may not be complete.
#[derive(Default)]
struct Reading {
    layer: Layer,
    position: u32,
    /// Rank and expert.
    open: Vec<(u16, u16)>,
}

impl Reading {
    fn row(&mut self, row: &Routed) -> Result<()> {
        // A position that begins anew, as after a regeneration, repeats its ranks.
        if self.position != row.position || self.open.iter().any(|o| o.0 == row.rank) {
            self.close();
        }
        if self.open.iter().any(|o| o.1 == row.expert) {
            let Routed { position, layer, expert, .. } = row;
            return Err(Error::Invalid(format!(
                "not a trace: the token at position {position} chose expert {expert} of layer {layer} twice"
            )));
        }
        self.position = row.position;
        self.open.push((row.rank, row.expert));
        Ok(())
    }

    fn close(&mut self) {
        if !self.open.is_empty() {
            self.open.sort_unstable();
            self.layer.uses.extend(self.open.drain(..).map(|o| o.1));
            self.layer.bounds.push(self.layer.uses.len());
        }
    }
}

impl Trace {
    /// Sorts out who used what when. Rows may come token by token or, as a long chunk is computed, layer by layer: a layer's
    /// tokens come in the order of its rows, and a new token begins where the position changes or a rank comes again. Sequences
    /// follow each other without a mark: slots outlive a conversation.
    ///
    /// # Errors
    /// [`Error::Invalid`] where there are no rows, or a token chose an expert twice.
    pub fn of(rows: &[Routed]) -> Result<Self> {
        let mut layers: BTreeMap<u16, Reading> = BTreeMap::new();
        for row in rows {
            layers.entry(row.layer).or_default().row(row)?;
        }
        if layers.is_empty() {
            return Err(Error::Invalid("the trace has no rows".into()));
        }
        let closed = |mut reading: Reading| {
            reading.close();
            reading.layer
        };
        Ok(Self { layers: layers.into_values().map(closed).collect() })
    }

    /// Layers that routed anything.
    pub fn layers(&self) -> usize {
        self.layers.len()
    }

    /// The most experts that a token chose in a layer.
    pub fn top_k(&self) -> usize {
        self.layers.iter().flat_map(Layer::tokens).map(<[u16]>::len).max().unwrap_or(0)
    }

    /// 1 + the largest expert id.
    pub fn experts(&self) -> usize {
        self.layers.iter().map(Layer::experts).max().unwrap_or(0)
    }

    /// The most tokens that a layer saw.
    pub fn tokens(&self) -> usize {
        self.layers.iter().map(|l| l.tokens().len()).max().unwrap_or(0)
    }

    /// Experts chosen, over all tokens and layers.
    pub fn lookups(&self) -> u64 {
        self.layers.iter().map(|l| l.uses.len() as u64).sum()
    }
}

/// Replays a trace with `slots` slots a layer. Every miss is admitted (but see [`Policy::Static`] and [`Policy::Belady`]), unless
/// all slots hold experts of the same token; of several victims that are equally cold, the one in the lowest slot leaves, as
/// [`Residency::victim`](super::residency::Residency::victim) has it.
pub fn replay(trace: &Trace, policy: Policy, slots: usize) -> Replayed {
    let hits = |layer: &Layer| match policy {
        Policy::Lru => demand(layer, slots, |last: &mut u32, now| *last = now, |&last, _| last),
        Policy::Lfu => demand(layer, slots, |(n, last): &mut (u32, u32), now| (*n, *last) = (*n + 1, now), |&key, _| key),
        Policy::Lfru { half_life } => {
            demand(layer, slots, |heat: &mut Heat, now| heat.touch(now, half_life), |heat, now| heat.score(now, half_life))
        }
        Policy::Static => fixed(layer, slots),
        Policy::Belady => belady(layer, slots),
    };
    Replayed { policy, slots, lookups: trace.lookups(), hits: trace.layers.iter().map(hits).sum() }
}

/// Hits of a policy that admits every miss and evicts the resident with the least `key` of what `touch` made of its uses.
fn demand<S: Clone + Default, K: PartialOrd>(
    layer: &Layer,
    slots: usize,
    touch: impl Fn(&mut S, u32),
    key: impl Fn(&S, u32) -> K,
) -> u64 {
    let experts = layer.experts();
    let mut states = vec![S::default(); experts];
    let mut resident = vec![false; experts];
    // Who is used by which token: those of the present one are pinned.
    let mut used = vec![u32::MAX; experts];
    let mut owners: Vec<usize> = Vec::new();
    let mut hits = 0;
    for (now, chosen) in (0u32..).zip(layer.tokens()) {
        for &e in chosen {
            let e = usize::from(e);
            touch(&mut states[e], now);
            used[e] = now;
            hits += u64::from(resident[e]);
        }
        for &e in chosen {
            let e = usize::from(e);
            if resident[e] {
                continue;
            }
            if owners.len() < slots {
                owners.push(e);
            } else {
                let mut coldest: Option<(K, usize)> = None;
                for (slot, &owner) in owners.iter().enumerate().filter(|&(_, &owner)| used[owner] != now) {
                    let key = key(&states[owner], now);
                    if coldest.as_ref().is_none_or(|(least, _)| key < *least) {
                        coldest = Some((key, slot));
                    }
                }
                let Some((_, slot)) = coldest else { break };
                resident[owners[slot]] = false;
                owners[slot] = e;
            }
            resident[e] = true;
        }
    }
    hits
}

/// Hits of [`Policy::Static`].
fn fixed(layer: &Layer, slots: usize) -> u64 {
    let mut counts = vec![0u64; layer.experts()];
    for &e in layer.tokens().take(layer.tokens().len().div_ceil(2)).flatten() {
        counts[usize::from(e)] += 1;
    }
    let mut best: Vec<usize> = (0..counts.len()).collect();
    best.sort_by_key(|&e| std::cmp::Reverse(counts[e]));
    let mut uses = vec![0u64; counts.len()];
    for &e in &layer.uses {
        uses[usize::from(e)] += 1;
    }
    // All uses but the first.
    best.iter().take(slots).map(|&e| uses[e].saturating_sub(1)).sum()
}

/// Hits of [`Policy::Belady`]. An expert kept from one use to the next is one hit, and takes a slot from the one token to the
/// other: the most such intervals that fit the slots are found by giving up, whenever too many overlap, the one that ends last.
fn belady(layer: &Layer, slots: usize) -> u64 {
    const NEVER: usize = usize::MAX;
    // When each use's expert is used again.
    let mut again = vec![NEVER; layer.uses.len()];
    let mut next = vec![NEVER; layer.experts()];
    let mut at = again.len();
    for (token, chosen) in layer.tokens().enumerate().rev() {
        for &e in chosen.iter().rev() {
            at -= 1;
            again[at] = std::mem::replace(&mut next[usize::from(e)], token);
        }
    }
    // The residents' next uses: an expert is resident exactly if the token at which it is used next finds that token here.
    let mut residents: Vec<usize> = Vec::new();
    let mut hits = 0;
    for (token, &[start, end]) in layer.bounds.array_windows().enumerate() {
        let before = residents.len();
        residents.retain(|&next| next != token);
        hits += (before - residents.len()) as u64;
        residents.extend(again[start..end].iter().filter(|&&next| next != NEVER));
        while residents.len() > slots {
            let Some((last, _)) = residents.iter().enumerate().max_by_key(|r| r.1) else { break };
            residents.swap_remove(last);
        }
    }
    hits
}

#[cfg(test)]
mod definitions;
#[cfg(test)]
mod drift;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a failed unwrap is a failed test
    use super::{super::trace::Served, *};

    fn row(position: u32, layer: u16, rank: u16, expert: u16) -> Routed {
        Routed { position, layer, rank, expert, weight: 0.5, served: Served::Hit, bytes: 0 }
    }

    /// One layer's tokens, or those of several layers one after the other, as a chunk emits them.
    pub(super) fn rows(layers: &[Vec<Vec<u16>>]) -> Vec<Routed> {
        let tokens = |layer: u16, tokens: &[Vec<u16>]| {
            let token = |(position, chosen): (u32, &Vec<u16>)| {
                (0u16..).zip(chosen).map(|(rank, &e)| row(position, layer, rank, e)).collect::<Vec<_>>()
            };
            (0u32..).zip(tokens).flat_map(token).collect::<Vec<_>>()
        };
        (1u16..).zip(layers).flat_map(|(layer, list)| tokens(layer, list)).collect()
    }

    fn hits(tokens: &[&[u16]], policy: Policy, slots: usize) -> u64 {
        let tokens = tokens.iter().map(|t| t.to_vec()).collect();
        let replayed = replay(&Trace::of(&rows(&[tokens])).unwrap(), policy, slots);
        assert_eq!((replayed.policy, replayed.slots), (policy, slots));
        replayed.hits
    }

    #[test]
    fn by_hand() {
        let lfru = |half_life| Policy::Lfru { half_life };
        // 0 is used often and long ago when 1 and 2 push it out, or do not.
        let tokens: [&[u16]; 7] = [&[0], &[0], &[0], &[1], &[2], &[0], &[1]];
        assert_eq!(hits(&tokens, Policy::Lru, 2), 2);
        assert_eq!(hits(&tokens, Policy::Lfu, 2), 3);
        assert_eq!(hits(&tokens, lfru(f32::INFINITY), 2), 3);
        assert_eq!(hits(&tokens, lfru(0.5), 2), 2);
        // 0 always, and 1 kept past 2, which is not admitted.
        assert_eq!(hits(&tokens, Policy::Belady, 2), 4);
        // Of the first four tokens: 0 (three uses) and 1.
        assert_eq!(hits(&tokens, Policy::Static, 2), 4);
        assert_eq!(hits(&tokens, Policy::Static, 1), 3);
    }

    #[test]
    fn experts_of_one_token_are_pinned() {
        // 0 is the coldest when the third token needs it: 1 must leave, whom it does not use.
        let tokens: [&[u16]; 4] = [&[0], &[1], &[2, 0], &[0, 2]];
        for policy in [Policy::Lru, Policy::Lfu, Policy::Lfru { half_life: 1.0 }, Policy::Belady] {
            assert_eq!(hits(&tokens, policy, 2), 3, "{policy}");
        }
        // More than fit: the first ranks get the slots, and nobody evicts them.
        let tokens: [&[u16]; 3] = [&[3, 1, 2], &[3, 1, 2], &[2, 1, 3]];
        for policy in [Policy::Lru, Policy::Lfu, Policy::Lfru { half_life: 1.0 }, Policy::Belady] {
            assert_eq!((hits(&tokens, policy, 2), hits(&tokens, policy, 0)), (4, 0), "{policy}");
        }
    }

    #[test]
    fn a_cycle_longer_than_the_slots_has_no_hits_by_recency() {
        let tokens: Vec<Vec<u16>> = (0..400).map(|t| vec![t % 5]).collect();
        let trace = Trace::of(&rows(&[tokens])).unwrap();
        assert_eq!(replay(&trace, Policy::Lru, 4).hits, 0);
        // All but one of five, but for the first uses.
        assert_eq!(replay(&trace, Policy::Static, 4).hits, 4 * 79);
        assert!(replay(&trace, Policy::Belady, 4).hits >= 4 * 79);
        for policy in [Policy::Lru, Policy::Lfu, Policy::Static, Policy::Belady] {
            assert_eq!(replay(&trace, policy, 5).hits, 395);
        }
    }

    #[test]
    fn chunks_tokens_and_repetitions_are_told_apart() {
        // A chunk of two tokens, layer by layer; then one token through both; then the same position anew; ranks in any order.
        let rows = [
            row(0, 1, 0, 3),
            row(0, 1, 1, 4),
            row(1, 1, 1, 5),
            row(1, 1, 0, 3),
            row(0, 4, 0, 0),
            row(0, 4, 1, 1),
            row(1, 4, 0, 1),
            row(1, 4, 1, 0),
            row(2, 1, 0, 7),
            row(2, 1, 1, 6),
            row(2, 4, 0, 2),
            row(2, 4, 1, 3),
            row(2, 1, 0, 6),
            row(2, 1, 1, 7),
            row(2, 4, 0, 3),
            row(2, 4, 1, 2),
        ];
        let trace = Trace::of(&rows).unwrap();
        let of = |layer: &Layer| layer.tokens().map(<[u16]>::to_vec).collect::<Vec<_>>();
        assert_eq!(of(&trace.layers[0]), [[3, 4], [3, 5], [7, 6], [6, 7]]);
        assert_eq!(of(&trace.layers[1]), [[0, 1], [1, 0], [2, 3], [3, 2]]);
        assert_eq!((trace.layers(), trace.top_k(), trace.experts(), trace.tokens(), trace.lookups()), (2, 2, 8, 4, 16));
    }

    #[test]
    fn what_is_no_trace_is_refused() {
        assert_eq!(Trace::of(&[]).unwrap_err().to_string(), "the trace has no rows");
        let twice = Trace::of(&[row(9, 2, 0, 5), row(9, 2, 1, 5)]).unwrap_err().to_string();
        assert_eq!(twice, "not a trace: the token at position 9 chose expert 5 of layer 2 twice");
    }

    #[test]
    fn policies_by_name() {
        let names =
            [Policy::Lru, Policy::Lfu, Policy::Lfru { half_life: 0.5 }, Policy::Static, Policy::Belady].map(|p| p.to_string());
        assert_eq!(names, ["lru", "lfu", "lfru 0.5", "static", "belady"]);
        let replayed = Replayed { policy: Policy::Lfru { half_life: 16.0 }, slots: 2, lookups: 8, hits: 2 };
        assert_eq!(replayed.hit_rate(), 0.25);
        let json = serde_json::to_value(replayed).unwrap();
        assert_eq!(json, serde_json::json!({"policy": "lfru", "half_life": 16.0, "slots": 2, "lookups": 8, "hits": 2}));
    }
}
