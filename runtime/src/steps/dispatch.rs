//! Which of a plan's dispatches belong to a part of a step, and how large their grids are.

use super::plan::{Mixture, Part, StepShape};

/// Workgroups along one dimension of a grid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dim {
    /// Always as many.
    Fixed(u32),
    /// So many for each token.
    Each(u32),
    /// One for so many tokens.
    Per(u32),
    /// The most tiles into which `top_k` pairs a token fall when sorted by expert.
    Tiles { top_k: u32, tile: u32, experts: u32 },
}

impl Dim {
    /// Workgroups for a step of `n` tokens.
    pub fn at(self, n: u32) -> u32 {
        match self {
            Self::Fixed(count) => count,
            Self::Each(times) => n.saturating_mul(times),
            Self::Per(tokens) => n.div_ceil(tokens),
            Self::Tiles { top_k, tile, experts } => {
                let pairs = n.saturating_mul(top_k);
                pairs / tile + pairs.min(experts)
            }
        }
    }
}

/// When a dispatch belongs to a step: inclusive ranges of its tokens and of the positions that it sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Case {
    pub tokens: (u32, u32),
    pub length: (u32, u32),
}

impl Case {
    pub const ALWAYS: Self = Self { tokens: (0, u32::MAX), length: (0, u32::MAX) };

    pub fn tokens(from: u32, to: u32) -> Self {
        Self { tokens: (from, to), ..Self::ALWAYS }
    }

    pub fn holds(&self, tokens: u32, length: u32) -> bool {
        (self.tokens.0..=self.tokens.1).contains(&tokens) && (self.length.0..=self.length.1).contains(&length)
    }
}

/// What else decides whether a dispatch belongs to a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum When {
    /// Nothing.
    #[default]
    Always,
    /// Kernels fetch missing experts by themselves.
    Gather,
    /// It is asked for by itself, after the host has moved experts.
    Place,
}

/// What of a prepared dispatch decides whether it runs.
pub trait Scheduled {
    /// The operation that it belongs to: an index into the plan's.
    fn op(&self) -> usize;

    /// The steps that it belongs to.
    fn case(&self) -> Case;

    /// What else decides it.
    fn when(&self) -> When;

    /// Its grid.
    fn grid(&self) -> [Dim; 3];
}

/// The dispatches of a part, in order, with their grids. Those without workgroups are left out.
pub fn select<'a, D: Scheduled>(
    dispatches: &'a [D],
    mixtures: &'a [Mixture],
    part: &Part,
    shape: StepShape,
) -> impl Iterator<Item = (&'a D, [u32; 3])> + use<'a, D> {
    let (ops, only) = match part {
        Part::Ops(ops) => (ops.clone(), None),
        Part::Products(m) => (mixtures[*m].up..mixtures[*m].down + 1, Some(*m)),
        Part::Place(m) => (mixtures[*m].router..mixtures[*m].router + 1, None),
    };
    let placing = matches!(part, Part::Place(_));
    let belongs = move |d: &&D| {
        let now = match d.when() {
            When::Always => !placing,
            When::Gather => !placing && shape.gather,
            When::Place => placing,
        };
        let wanted = only.is_none_or(|m| mixtures[m].is_product(d.op()));
        now && wanted && ops.contains(&d.op()) && d.case().holds(shape.tokens, shape.length)
    };
    let sized = move |d: &'a D| (d, d.grid().map(|dim| dim.at(shape.tokens)));
    dispatches.iter().filter(belongs).map(sized).filter(|(_, grid)| !grid.contains(&0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grids_cover_every_token() {
        assert_eq!(Dim::Fixed(3).at(100), 3);
        assert_eq!(Dim::Each(4).at(5), 20);
        assert_eq!([1, 32, 33].map(|n| Dim::Per(32).at(n)), [1, 1, 2]);
    }

    #[test]
    fn tiles_are_enough_for_the_worst_routing() {
        // Every expert but one leaves a tile that holds one pair, the last takes the rest.
        for (n, top_k, tile, experts) in [(512u32, 6, 32, 64), (9, 2, 32, 4), (100, 8, 32, 512)] {
            let pairs = n * top_k;
            let lonely = (experts - 1).min(pairs - 1);
            let worst = lonely + (pairs - lonely).div_ceil(tile);
            assert!(Dim::Tiles { top_k, tile, experts }.at(n) >= worst);
        }
    }

    #[test]
    fn cases_are_inclusive() {
        let case = Case { tokens: (9, 20), length: (5, 7) };
        assert!(case.holds(9, 5) && case.holds(20, 7));
        assert!(!case.holds(8, 5) && !case.holds(21, 5) && !case.holds(9, 4) && !case.holds(9, 8));
        assert!(Case::ALWAYS.holds(1, 1));
    }
}
