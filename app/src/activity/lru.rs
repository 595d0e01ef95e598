//! What more slots would buy: hit rates of a least-recently-used cache of any size, from one pass.

use pleiad_runtime::experts::trace::Routed;

use super::{Shape, TokenRow};

/// Stack distances of experts: how many others a mixture layer used since it used one last. A cache of `n` slots that evicts
/// the least recently used holds the `n` on top of the stack, so that one histogram of depths answers for every `n` (Mattson,
/// Gecsei, Slutz and Traiger, "Evaluation techniques for storage hierarchies", IBM Systems Journal 9(2), 1970).
///
/// What a token chose is looked up at once, and stays while the token is served: figures hold for slots of at least as many
/// experts as a token chooses. First uses are misses for every size.
#[derive(Clone, Debug, PartialEq)]
pub struct Lru {
    experts: usize,
    rows: Vec<Stack>,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Stack {
    /// The most recently used first.
    order: Vec<u16>,
    /// Uses by depth.
    depths: Vec<u64>,
    lookups: u64,
}

impl Lru {
    /// Nothing used yet.
    pub fn new(shape: &Shape) -> Self {
        let stack = Stack { order: Vec::with_capacity(shape.experts), depths: vec![0; shape.experts], lookups: 0 };
        Self { experts: shape.experts, rows: vec![stack; shape.rows.len()] }
    }

    /// From tokens, oldest first.
    pub fn of<'a>(shape: &Shape, tokens: impl IntoIterator<Item = &'a TokenRow>) -> Self {
        let mut lru = Self::new(shape);
        for token in tokens {
            for chosen in token.layers() {
                if let Some(row) = chosen.first().and_then(|c| shape.row_of(c.layer.into())) {
                    lru.touch(row, chosen);
                }
            }
        }
        lru
    }

    /// What a token chose in a mixture layer, the largest weight first.
    pub(super) fn touch(&mut self, row: usize, chosen: &[Routed]) {
        let Some(stack) = self.rows.get_mut(row) else { return };
        let experts = self.experts;
        let chosen = || chosen.iter().map(|c| c.expert).filter(|&e| usize::from(e) < experts);
        for expert in chosen() {
            stack.lookups += 1;
            if let Some(uses) = stack.order.iter().position(|&e| e == expert).and_then(|depth| stack.depths.get_mut(depth)) {
                *uses += 1;
            }
        }
        for expert in chosen().rev() {
            match stack.order.iter().position(|&e| e == expert) {
                Some(depth) => stack.order[..=depth].rotate_right(1),
                None => stack.order.insert(0, expert),
            }
        }
    }

    /// Hit rate with so many slots in every mixture layer, from 0 to all experts; empty: nothing was looked up.
    pub fn curve(&self) -> Vec<f64> {
        let mut depths = vec![0u64; self.experts];
        for stack in &self.rows {
            depths.iter_mut().zip(&stack.depths).for_each(|(sum, n)| *sum += n);
        }
        rates(&depths, self.rows.iter().map(|s| s.lookups).sum())
    }

    /// [`Self::curve`] of one mixture layer.
    pub fn row_curve(&self, row: usize) -> Vec<f64> {
        self.rows.get(row).map(|stack| rates(&stack.depths, stack.lookups)).unwrap_or_default()
    }

    /// Hit rate with `slots` slots in every mixture layer; `None`: nothing was looked up.
    pub fn hit_rate(&self, slots: usize) -> Option<f64> {
        self.curve().get(slots.min(self.experts)).copied()
    }

    /// The fewest slots a layer whose hit rate is at least `rate`; `None`: not even all experts reach it.
    pub fn slots_for(&self, rate: f64) -> Option<usize> {
        self.curve().iter().position(|&r| r >= rate)
    }
}

fn rates(depths: &[u64], lookups: u64) -> Vec<f64> {
    if lookups == 0 {
        return Vec::new();
    }
    let mut hits = 0;
    let deeper = depths.iter().map(|n| {
        hits += n;
        hits as f64 / lookups as f64
    });
    std::iter::once(0.0).chain(deeper).collect()
}
