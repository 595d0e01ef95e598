//! Counts kept under a name, to compare with others.

use std::sync::Arc;

use super::{Cell, Shape, Sums, TokenRow, chance};

/// Uses of every expert, under a name.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// What it is of.
    pub label: String,
    /// Uses: `[rows, experts]`.
    pub counts: Arc<[u64]>,
    /// Tokens of each mixture layer.
    pub tokens: Arc<[u64]>,
    /// Experts of a mixture layer.
    pub experts: usize,
    /// Experts chosen for a token.
    pub top_k: usize,
}

/// A cell that two snapshots use differently, by more than chance explains.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mover {
    /// Which.
    pub cell: Cell,
    /// Its share of its layer's uses in the first.
    pub a: f64,
    /// In the second.
    pub b: f64,
}

/// How different two snapshots are: Jensen-Shannon divergences of shares, in bits, from 0 (the same) to 1 (nothing in common).
#[derive(Clone, Debug, PartialEq)]
pub struct Divergence {
    /// Of each mixture layer; `None`: one of the two has not used it.
    pub rows: Vec<Option<f64>>,
    /// Their mean; `None`: there is none.
    pub overall: Option<f64>,
    /// What chance alone would give on average, were both the same: `(E - 1) (1 / nA + 1 / nB) / (8 ln 2)` with n uses of E
    /// experts, from the divergence's second-order expansion.
    pub chance: Option<f64>,
}

impl Snapshot {
    /// Of uses `[rows, experts]`; `None`: they are not of that shape.
    pub fn new(label: impl Into<String>, shape: &Shape, counts: impl Into<Arc<[u64]>>) -> Option<Self> {
        let counts: Arc<[u64]> = counts.into();
        if counts.len() != shape.cells() || shape.experts == 0 {
            return None;
        }
        let tokens = counts.chunks(shape.experts).map(|row| sum(row) / shape.top_k.max(1) as u64).collect();
        Some(Self { label: label.into(), counts, tokens, experts: shape.experts, top_k: shape.top_k })
    }

    /// Of sums.
    pub fn of_sums(label: impl Into<String>, shape: &Shape, sums: &Sums) -> Self {
        Self {
            label: label.into(),
            counts: sums.counts().into(),
            tokens: sums.rows().iter().map(|r| r.tokens).collect(),
            experts: shape.experts,
            top_k: shape.top_k,
        }
    }

    /// Of tokens: of a range, of a phase, of a record.
    pub fn of_tokens<'a>(label: impl Into<String>, shape: &Shape, tokens: impl IntoIterator<Item = &'a TokenRow>) -> Self {
        Self::of_sums(label, shape, &Sums::of(shape, 1.0, tokens))
    }

    /// Whether it is of a model of that shape.
    pub fn fits(&self, shape: &Shape) -> bool {
        self.experts == shape.experts && self.top_k == shape.top_k && self.counts.len() == shape.cells()
    }

    /// Each expert's share of its layer's uses: `[rows, experts]`; NaN where a layer has none.
    pub fn shares(&self) -> impl Iterator<Item = f64> {
        self.counts.chunks(self.experts.max(1)).flat_map(|row| {
            let all = sum(row) as f64;
            row.iter().map(move |&n| n as f64 / all)
        })
    }

    /// Each expert's uses as a multiple of an even spread: `[rows, experts]`; NaN where a layer has none.
    pub fn relative(&self) -> impl Iterator<Item = f64> {
        let experts = self.experts as f64;
        self.shares().map(move |share| share * experts)
    }

    /// Whether chance explains the difference to `other`, for each cell.
    pub(super) fn alike(&self, other: &Self) -> impl Iterator<Item = bool> {
        let even = self.top_k as f64 / self.experts.max(1) as f64;
        let cells = self.counts.chunks(self.experts.max(1)).zip(other.counts.chunks(self.experts.max(1)));
        cells
            .zip(self.tokens.iter().zip(other.tokens.iter()))
            .flat_map(move |((a, b), (&na, &nb))| a.iter().zip(b).map(move |(&a, &b)| chance::alike((a, na), (b, nb), even)))
    }

    /// How different `other` is; `None`: it is of another shape.
    pub fn divergence(&self, other: &Self) -> Option<Divergence> {
        if self.experts == 0 || self.experts != other.experts || self.counts.len() != other.counts.len() {
            return None;
        }
        let pairs = || self.counts.chunks(self.experts).zip(other.counts.chunks(self.experts));
        let rows: Vec<Option<f64>> = pairs().map(|(a, b)| divergence(a, b)).collect();
        let by_chance = pairs().filter(|(a, b)| sum(a) > 0 && sum(b) > 0).map(|(a, b)| {
            let uses = 1.0 / sum(a) as f64 + 1.0 / sum(b) as f64;
            (self.experts - 1) as f64 * uses / (8.0 * std::f64::consts::LN_2)
        });
        Some(Divergence { overall: mean(rows.iter().flatten().copied()), chance: mean(by_chance), rows })
    }

    /// The `most` cells with the largest differences in share to `other` that chance does not explain, largest first.
    pub fn movers(&self, other: &Self, most: usize) -> Vec<Mover> {
        if self.experts == 0 || self.experts != other.experts || self.counts.len() != other.counts.len() {
            return Vec::new();
        }
        let pairs = self.shares().zip(other.shares()).zip(self.alike(other)).enumerate();
        let mut movers: Vec<Mover> = pairs
            .filter(|&(_, ((a, b), alike))| a != b && a.is_finite() && b.is_finite() && !alike)
            .map(|(at, ((a, b), _))| Mover { cell: Cell { row: at / self.experts, expert: at % self.experts }, a, b })
            .collect();
        movers.sort_by(|x, y| (y.a - y.b).abs().total_cmp(&(x.a - x.b).abs()).then(x.cell.cmp(&y.cell)));
        movers.truncate(most);
        movers
    }
}

pub(super) fn sum(counts: &[u64]) -> u64 {
    counts.iter().fold(0, |sum: u64, &n| sum.saturating_add(n))
}

/// The mean; `None` of nothing.
pub(super) fn mean(numbers: impl Iterator<Item = f64>) -> Option<f64> {
    let (n, sum) = numbers.fold((0u32, 0.0), |(n, sum), x| (n + 1, sum + x));
    (n > 0).then(|| sum / f64::from(n))
}

/// Jensen-Shannon divergence of two rows of counts, in bits (Lin, "Divergence measures based on the Shannon entropy", IEEE
/// Transactions on Information Theory 37(1), 1991).
pub fn divergence(a: &[u64], b: &[u64]) -> Option<f64> {
    let (na, nb) = (sum(a) as f64, sum(b) as f64);
    if na == 0.0 || nb == 0.0 {
        return None;
    }
    let part = |p: f64, m: f64| if p > 0.0 { p * (p / m).log2() } else { 0.0 };
    let total: f64 = a
        .iter()
        .zip(b)
        .map(|(&a, &b)| {
            let (p, q) = (a as f64 / na, b as f64 / nb);
            let m = 0.5 * (p + q);
            0.5 * (part(p, m) + part(q, m))
        })
        .sum();
    Some(total.clamp(0.0, 1.0))
}
