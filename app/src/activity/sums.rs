//! Counts, weights, misses and recent use of every expert.

use pleiad_runtime::experts::trace::{Routed, Served};

use super::{Cell, Shape, TokenRow};

/// Powers of two that recent uses may grow by before they are scaled back; a double has room for 1023.
const HEADROOM: f64 = 512.0;

/// Sums over a mixture layer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RowSums {
    /// Tokens that it routed.
    pub tokens: u64,
    /// Experts that they chose.
    pub uses: u64,
    /// Of these, the ones that were looked up on a device: all but those of a model that runs on the CPU.
    pub lookups: u64,
    /// Of these, the ones that were not resident.
    pub misses: u64,
    /// Bytes moved.
    pub bytes: u64,
    /// Weight of the first choice, over all tokens that had one.
    pub top_weight: f64,
    /// Tokens that had one.
    pub tops: u64,
    /// Different experts chosen by the last [`Sums::WINDOW`] tokens.
    pub working_set: u32,
    /// The token at which recent uses have scale 1.
    base: u64,
}

/// What every expert did. Adding a token costs as much as it chose experts. A mixture layer's clock is the number of tokens
/// that it has routed, so that it does not matter whether rows come token by token or layer by layer.
#[derive(Clone, Debug, PartialEq)]
pub struct Sums {
    experts: usize,
    half_life: f64,
    rows: Vec<RowSums>,
    counts: Vec<u64>,
    /// Uses by `2^((token - base) / half_life)`: decaying all of a layer is one factor when it is read.
    recent: Vec<f64>,
    weights: Vec<f64>,
    misses: Vec<u64>,
    bytes: Vec<u64>,
    /// The layer's token that used it last, counted from 1; 0: none.
    last: Vec<u64>,
    /// Experts of which each of the last tokens was the last to use them: `[rows, WINDOW]`.
    leaving: Vec<u32>,
}

impl Sums {
    /// Tokens of the working set.
    pub const WINDOW: usize = 64;

    /// Nothing counted yet. `half_life` in tokens.
    pub fn new(shape: &Shape, half_life: f32) -> Self {
        let (rows, cells) = (shape.rows.len(), shape.cells());
        Self {
            experts: shape.experts,
            half_life: usable(half_life),
            rows: vec![RowSums::default(); rows],
            counts: vec![0; cells],
            recent: vec![0.0; cells],
            weights: vec![0.0; cells],
            misses: vec![0; cells],
            bytes: vec![0; cells],
            last: vec![0; cells],
            leaving: vec![0; rows * Self::WINDOW],
        }
    }

    /// Sums over tokens, oldest first.
    pub fn of<'a>(shape: &Shape, half_life: f32, tokens: impl IntoIterator<Item = &'a TokenRow>) -> Self {
        let mut sums = Self::new(shape, half_life);
        for token in tokens {
            for chosen in token.layers() {
                if let Some(row) = chosen.first().and_then(|c| shape.row_of(c.layer.into())) {
                    sums.add(row, true, chosen);
                }
            }
        }
        sums
    }

    /// What a token chose in a mixture layer. `fresh`: nothing of that token and layer was added before.
    pub(super) fn add(&mut self, row: usize, fresh: bool, chosen: &[Routed]) {
        let cells = row * self.experts..(row + 1) * self.experts;
        let Some(sums) = self.rows.get_mut(row) else { return };
        let window = Self::WINDOW as u64;
        let Some(leaving) = self.leaving.get_mut(row * Self::WINDOW..(row + 1) * Self::WINDOW) else { return };
        let place = |token: u64| (token % window) as usize;
        if fresh || sums.tokens == 0 {
            sums.tokens += 1;
            sums.working_set -= std::mem::take(&mut leaving[place(sums.tokens)]);
            let power = (sums.tokens - sums.base) as f64 / self.half_life;
            if power > HEADROOM {
                let factor = (-power).exp2();
                self.recent[cells.clone()].iter_mut().for_each(|r| *r *= factor);
                sums.base = sums.tokens;
            }
        }
        let gain = ((sums.tokens - sums.base) as f64 / self.half_life).exp2();
        for choice in chosen {
            let expert = usize::from(choice.expert);
            if expert >= self.experts {
                continue;
            }
            let cell = cells.start + expert;
            let missed = u64::from(!matches!(choice.served, Served::Hit | Served::Host));
            self.counts[cell] += 1;
            self.recent[cell] += gain;
            self.weights[cell] += f64::from(choice.weight);
            self.misses[cell] += missed;
            self.bytes[cell] = self.bytes[cell].saturating_add(choice.bytes);
            let last = std::mem::replace(&mut self.last[cell], sums.tokens);
            if last > 0 && sums.tokens - last < window {
                leaving[place(last)] -= 1;
            } else {
                sums.working_set += 1;
            }
            leaving[place(sums.tokens)] += 1;
            sums.uses += 1;
            sums.lookups += u64::from(choice.served != Served::Host);
            sums.misses += missed;
            sums.bytes = sums.bytes.saturating_add(choice.bytes);
            if choice.rank == 0 {
                sums.top_weight += f64::from(choice.weight);
                sums.tops += 1;
            }
        }
    }

    /// Another half-life: recent uses are counted anew from `newest_first`, older ones are forgotten.
    pub(super) fn set_half_life<'a>(
        &mut self,
        half_life: f32,
        shape: &Shape,
        newest_first: impl Iterator<Item = &'a TokenRow>,
    ) -> bool {
        let half_life = usable(half_life);
        if half_life == self.half_life {
            return false;
        }
        self.half_life = half_life;
        self.recent.fill(0.0);
        self.rows.iter_mut().for_each(|row| row.base = row.tokens);
        let mut ages = vec![0u32; self.rows.len()];
        // Older tokens count less than the last digit that is shown.
        let oldest = 24.0 * half_life;
        for token in newest_first {
            if ages.iter().min().is_none_or(|&age| f64::from(age) > oldest) {
                break;
            }
            for chosen in token.layers() {
                let Some(row) = chosen.first().and_then(|c| shape.row_of(c.layer.into())) else { continue };
                let Some(age) = ages.get_mut(row) else { continue };
                let amount = (-f64::from(*age) / half_life).exp2();
                *age += 1;
                for choice in chosen {
                    if let Some(recent) = self.recent.get_mut(row * self.experts + usize::from(choice.expert)) {
                        *recent += amount;
                    }
                }
            }
        }
        true
    }

    /// Half-life of recent uses, in tokens.
    pub fn half_life(&self) -> f32 {
        self.half_life as f32
    }

    /// Where a cell is in arrays of cells; `None`: there is no such cell.
    pub fn index(&self, cell: Cell) -> Option<usize> {
        (cell.row < self.rows.len() && cell.expert < self.experts).then(|| cell.row * self.experts + cell.expert)
    }

    /// Sums over each mixture layer.
    pub fn rows(&self) -> &[RowSums] {
        &self.rows
    }

    /// Tokens that any layer routed.
    pub fn tokens(&self) -> u64 {
        self.rows.iter().map(|r| r.tokens).max().unwrap_or(0)
    }

    /// Times that each expert was chosen: `[rows, experts]`, as all that follow.
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// Sum of the weights with which each was chosen.
    pub fn weights(&self) -> &[f64] {
        &self.weights
    }

    /// Times that each was chosen and was not resident.
    pub fn misses(&self) -> &[u64] {
        &self.misses
    }

    /// Bytes moved for each.
    pub fn bytes(&self) -> &[u64] {
        &self.bytes
    }

    /// The token of its layer that used each last, counted from 1; 0: none.
    pub fn last(&self) -> &[u64] {
        &self.last
    }

    /// Recent uses of a mixture layer's experts, decayed to now: a use by the latest token counts 1.
    pub fn recent(&self, row: usize) -> impl Iterator<Item = f64> {
        let factor = self.rows.get(row).map_or(0.0, |r| (-((r.tokens - r.base) as f64) / self.half_life).exp2());
        let cells = self.recent.get(row * self.experts..(row + 1) * self.experts).unwrap_or_default();
        cells.iter().map(move |r| r * factor)
    }
    /// Mean over mixture layers of the different experts chosen by the last [`Self::WINDOW`] tokens.
    pub fn working_set(&self) -> f32 {
        self.rows.iter().map(|r| r.working_set).sum::<u32>() as f32 / self.rows.len().max(1) as f32
    }
}

/// A half-life that can be computed with.
fn usable(half_life: f32) -> f64 {
    if half_life.is_nan() { 1.0 } else { f64::from(half_life.clamp(0.25, 1e9)) }
}
