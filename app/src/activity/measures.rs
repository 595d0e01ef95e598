//! Entropy, active share, working set, overlap.

use super::{
    Shape, Sums, Tokens,
    snapshot::{mean, sum},
};

/// Tokens, from the latest back, that overlap and use of groups are measured over.
pub const WINDOW: usize = 128;

/// A figure that sums up what a mixture layer, or all of them, did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Measure {
    /// Normalised entropy of uses.
    Entropy,
    /// Share of the expert used most.
    MaxShare,
    /// Share of experts used at least once.
    Active,
    /// Experts never used.
    Dead,
    /// Gini coefficient of uses.
    Gini,
    /// Different experts used by the last tokens.
    WorkingSet,
    /// Experts in common with the token before.
    Overlap,
    /// Experts in common with the token eight before.
    Overlap8,
    /// Mean weight of the first choice.
    TopWeight,
    /// Groups that a token's experts are in.
    Groups,
    /// Hits a lookup.
    HitRate,
    /// Bytes moved for a token.
    BytesPerToken,
}

impl Measure {
    /// Every measure, in the order in which they are shown.
    pub const ALL: [Self; 12] = [
        Self::HitRate,
        Self::BytesPerToken,
        Self::Entropy,
        Self::Active,
        Self::WorkingSet,
        Self::Overlap,
        Self::Overlap8,
        Self::MaxShare,
        Self::Gini,
        Self::Dead,
        Self::TopWeight,
        Self::Groups,
    ];

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Entropy => "Entropy",
            Self::MaxShare => "Largest share",
            Self::Active => "Active",
            Self::Dead => "Never used",
            Self::Gini => "Gini",
            Self::WorkingSet => "Working set",
            Self::Overlap => "Overlap, 1 back",
            Self::Overlap8 => "Overlap, 8 back",
            Self::TopWeight => "Top weight",
            Self::Groups => "Groups per token",
            Self::HitRate => "Hit rate",
            Self::BytesPerToken => "Moved per token",
        }
    }

    /// What it says, in a sentence.
    pub fn explanation(self) -> &'static str {
        match self {
            Self::Entropy => "How evenly a layer's experts are used: 100 % is perfectly even, 0 % is one expert for everything",
            Self::MaxShare => "The share of a layer's uses that goes to its most used expert",
            Self::Active => "The share of experts that have been used at least once",
            Self::Dead => "Experts that no token has chosen so far",
            Self::Gini => "How unequally experts are used: 0 is perfectly even, 1 is one expert for everything",
            Self::WorkingSet => "Different experts that a layer used for its last 64 tokens",
            Self::Overlap => "The share of a token's experts that the token before it chose too",
            Self::Overlap8 => "The share of a token's experts that the token eight before it chose too",
            Self::TopWeight => "The mean weight of each token's first choice",
            Self::Groups => "Groups of experts that a token's choices in a layer come from, on average",
            Self::HitRate => "The share of chosen experts that were already on the GPU",
            Self::BytesPerToken => "Bytes of experts moved to, or read by, the GPU for each token",
        }
    }

    /// A figure in words.
    pub fn format(self, value: f64) -> String {
        match self {
            Self::Entropy | Self::MaxShare | Self::Active | Self::Overlap | Self::Overlap8 | Self::HitRate => {
                format!("{:.1} %", 100.0 * value)
            }
            Self::Dead => format!("{value:.0}"),
            Self::WorkingSet | Self::Groups => format!("{value:.1}"),
            Self::Gini => format!("{value:.2}"),
            Self::TopWeight => format!("{value:.3}"),
            Self::BytesPerToken => match value {
                v if v >= 1024.0 * 1024.0 * 1024.0 => format!("{:.2} GiB", v / (1024.0 * 1024.0 * 1024.0)),
                v if v >= 1024.0 * 1024.0 => format!("{:.1} MiB", v / (1024.0 * 1024.0)),
                v if v >= 1024.0 => format!("{:.1} KiB", v / 1024.0),
                v => format!("{v:.0} B"),
            },
        }
    }
}

/// Every measure of a mixture layer, or of all.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figures {
    values: [Option<f64>; Measure::ALL.len()],
    /// Share of uses of each group of experts.
    pub groups: Vec<f64>,
}

impl Figures {
    /// A measure; `None`: there is nothing to measure yet, or it does not apply.
    pub fn get(&self, measure: Measure) -> Option<f64> {
        self.values.get(measure as usize).copied().flatten()
    }

    fn set(&mut self, measure: Measure, value: Option<f64>) {
        if let Some(place) = self.values.get_mut(measure as usize) {
            *place = value.filter(|v| v.is_finite());
        }
    }
}

/// Measures of every mixture layer and over all.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Measures {
    /// Tokens counted.
    pub tokens: u64,
    /// Of each mixture layer.
    pub rows: Vec<Figures>,
    /// Over all: the mean over layers, but hit rate and bytes and experts never used are of all layers together.
    pub all: Figures,
}

/// Sums over pairs of tokens, or over tokens: parts and wholes.
#[derive(Clone, Copy, Default)]
struct Ratio(u64, u64);

impl Ratio {
    fn value(self) -> Option<f64> {
        (self.1 > 0).then(|| self.0 as f64 / self.1 as f64)
    }
}

impl Measures {
    /// Measures what was counted, and the last tokens among those that are kept.
    pub fn of(shape: &Shape, sums: &Sums, tokens: &Tokens) -> Self {
        let near = overlap(shape, tokens, 1);
        let far = overlap(shape, tokens, 8);
        let groups = groups(shape, tokens);
        let experts = shape.experts.max(1);
        let mut rows = Vec::with_capacity(shape.rows.len());
        for (at, (row, counts)) in sums.rows().iter().zip(sums.counts().chunks(experts)).enumerate() {
            let mut figures = Figures::default();
            let used = counts.iter().filter(|&&n| n > 0).count();
            let known = row.uses > 0;
            let uses = row.uses as f64;
            let max = counts.iter().max().copied().unwrap_or(0);
            figures.set(Measure::Entropy, known.then(|| entropy(counts)));
            figures.set(Measure::MaxShare, known.then(|| max as f64 / uses));
            figures.set(Measure::Active, known.then(|| used as f64 / experts as f64));
            figures.set(Measure::Dead, known.then(|| (experts - used) as f64));
            figures.set(Measure::Gini, known.then(|| gini(counts)));
            figures.set(Measure::WorkingSet, known.then(|| row.working_set.into()));
            figures.set(Measure::Overlap, near.get(at).and_then(|r| r.value()));
            figures.set(Measure::Overlap8, far.get(at).and_then(|r| r.value()));
            figures.set(Measure::TopWeight, (row.tops > 0).then(|| row.top_weight / row.tops as f64));
            figures.set(Measure::Groups, groups.get(at).and_then(|r| r.value()).filter(|_| shape.groups > 1));
            figures.set(Measure::HitRate, Ratio(row.lookups - row.misses, row.lookups).value());
            figures.set(Measure::BytesPerToken, (row.tokens > 0).then(|| row.bytes as f64 / row.tokens as f64));
            let mut shares = vec![0.0; shape.groups.max(1)];
            for (expert, &n) in counts.iter().enumerate() {
                if let Some(share) = shares.get_mut(shape.group_of(expert)).filter(|_| known) {
                    *share += n as f64 / uses;
                }
            }
            figures.groups = shares;
            rows.push(figures);
        }
        let tokens = sums.tokens();
        let all = over_all(shape, sums, tokens, &rows);
        Self { tokens, rows, all }
    }
}

fn over_all(shape: &Shape, sums: &Sums, tokens: u64, rows: &[Figures]) -> Figures {
    let mut all = Figures::default();
    for measure in Measure::ALL {
        all.set(measure, mean(rows.iter().filter_map(|row| row.get(measure))));
    }
    let total = |part: fn(&super::sums::RowSums) -> u64| sums.rows().iter().map(part).fold(0, u64::saturating_add);
    all.set(Measure::Dead, all.get(Measure::Dead).map(|_| rows.iter().filter_map(|r| r.get(Measure::Dead)).sum()));
    all.set(Measure::HitRate, Ratio(total(|r| r.lookups) - total(|r| r.misses), total(|r| r.lookups)).value());
    all.set(Measure::BytesPerToken, Ratio(total(|r| r.bytes), tokens).value());
    let used = sums.rows().iter().filter(|r| r.uses > 0).count().max(1) as f64;
    all.groups = (0..shape.groups.max(1)).map(|g| rows.iter().filter_map(|r| r.groups.get(g)).sum::<f64>() / used).collect();
    all
}

/// For each mixture layer: experts in common with the token `lag` before it in its generation, of all that were chosen.
fn overlap(shape: &Shape, tokens: &Tokens, lag: u32) -> Vec<Ratio> {
    let mut rows = vec![Ratio::default(); shape.rows.len()];
    for (_, token) in tokens.newest_first().take(WINDOW) {
        let before = token.position.checked_sub(lag).and_then(|p| tokens.find(token.run, p)).and_then(|n| tokens.get(n));
        let Some(before) = before else { continue };
        for (row, common) in rows.iter_mut().enumerate() {
            let (chosen, others) = (token.row(shape, row), before.row(shape, row));
            if !others.is_empty() {
                common.0 += chosen.iter().filter(|c| others.iter().any(|o| o.expert == c.expert)).count() as u64;
                common.1 += chosen.len() as u64;
            }
        }
    }
    rows
}

/// For each mixture layer: groups that choices came from, over tokens.
fn groups(shape: &Shape, tokens: &Tokens) -> Vec<Ratio> {
    let mut rows = vec![Ratio::default(); shape.rows.len()];
    let mut seen = vec![0usize; shape.groups.max(1)];
    let mut mark = 0;
    for chosen in tokens.newest_first().take(WINDOW).flat_map(|(_, token)| token.layers()) {
        let Some(row) = chosen.first().and_then(|c| shape.row_of(c.layer.into())).and_then(|r| rows.get_mut(r)) else {
            continue;
        };
        mark += 1;
        row.1 += 1;
        for choice in chosen {
            if let Some(seen) = seen.get_mut(shape.group_of(choice.expert.into())) {
                row.0 += u64::from(*seen != mark);
                *seen = mark;
            }
        }
    }
    rows
}

/// Entropy of shares, as a part of that of an even spread.
pub fn entropy(counts: &[u64]) -> f64 {
    let all = sum(counts) as f64;
    if counts.len() < 2 || all == 0.0 {
        return 1.0;
    }
    let bits: f64 = counts.iter().filter(|&&n| n > 0).map(|&n| n as f64 / all).map(|p| -p * p.ln()).sum();
    (bits / (counts.len() as f64).ln()).clamp(0.0, 1.0)
}

/// Gini coefficient: half the mean difference between two experts, relative to the mean, scaled so that one expert for
/// everything is 1 (`n / (n - 1)` corrects for their number).
pub fn gini(counts: &[u64]) -> f64 {
    let mut sorted = counts.to_vec();
    sorted.sort_unstable();
    let (n, all) = (sorted.len() as f64, sum(&sorted) as f64);
    if sorted.len() < 2 || all == 0.0 {
        return 0.0;
    }
    let ranked: f64 = (1u32..).zip(&sorted).map(|(rank, &count)| f64::from(rank) * count as f64).sum();
    let plain = 2.0 * ranked / (n * all) - (n + 1.0) / n;
    (plain * n / (n - 1.0)).clamp(0.0, 1.0)
}
