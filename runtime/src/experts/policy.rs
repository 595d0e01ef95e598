//! How hot an expert is: what decides who stays in a slot and who leaves it.

/// What a residency table says of an expert that has no slot.
pub const ABSENT: u32 = u32::MAX;

/// Tokens after which a use counts half, unless something else is asked for.
///
/// Argued by replay of synthetic routing whose preferences drift, jump or stay: the best is about one to one and a half times the mean
/// interval between an expert's uses (experts / top-k: 11 tokens for 64 experts of which 6 are chosen, 32 for 256 of which 8 are).
/// This value is within a point of the best hit rate on average for both; twice as much costs half a point to a point more
/// where preferences drift. On a short trace of the embedded model, values from 16 to 256 differ by less than a point.
pub const HALF_LIFE: f32 = 32.0;

/// Exponentially decayed count of uses: LRFU (Lee et al., "LRFU: a spectrum of policies that subsumes the least recently used and
/// least frequently used policies", IEEE Transactions on Computers 50(12), 2001). One formula covers recency (LRU, a short
/// half-life) and frequency (LFU, an infinite one).
///
/// Time is counted in tokens seen by the model. All experts decay alike, so that their order changes only where one is used:
/// whoever compares scores of the same moment needs to update nothing but the experts just used.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Heat {
    /// Decayed uses as of `last`; 0: never used.
    pub count: f32,
    /// When it was last used.
    pub last: u32,
}

impl Heat {
    /// Counts one use at `now`: count = count · 2^(−(now − last) / half_life) + 1. `half_life` in tokens, positive or infinite. A
    /// `now` before the last use counts as the moment of the last use.
    pub fn touch(&mut self, now: u32, half_life: f32) {
        let age = now.saturating_sub(self.last);
        if age > 0 {
            self.count *= (-(age as f32) / half_life).exp2();
        }
        self.count += 1.0;
        self.last = self.last.max(now);
    }

    /// The binary logarithm of the decayed count at `now`: log2(count) − (now − last) / half_life. The logarithm orders as the
    /// count does, and does not vanish for what has long not been used. Never used: −∞.
    pub fn score(&self, now: u32, half_life: f32) -> f32 {
        if self.count.is_nan() || self.count <= 0.0 {
            return f32::NEG_INFINITY;
        }
        let age = now.saturating_sub(self.last);
        self.count.log2() - if age > 0 { age as f32 / half_life } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_use_counts_half_after_the_half_life() {
        let mut heat = Heat::default();
        assert_eq!(heat.score(1000, 8.0), f32::NEG_INFINITY);
        heat.touch(10, 8.0);
        assert_eq!(heat, Heat { count: 1.0, last: 10 });
        assert_eq!((heat.score(10, 8.0), heat.score(18, 8.0), heat.score(34, 8.0)), (0.0, -1.0, -3.0));
        heat.touch(18, 8.0);
        assert_eq!(heat, Heat { count: 1.5, last: 18 });
        assert!((heat.score(26, 8.0) - 0.75f32.log2()).abs() < 1e-6);
        // Two uses by the same token of a batch.
        heat.touch(18, 8.0);
        assert_eq!(heat, Heat { count: 2.5, last: 18 });
    }

    #[test]
    fn an_infinite_half_life_counts_and_a_tiny_one_keeps_the_order_of_uses() {
        let (mut often, mut lately) = (Heat::default(), Heat::default());
        for now in 0..5 {
            often.touch(now, f32::INFINITY);
        }
        lately.touch(9, f32::INFINITY);
        assert_eq!(often.count, 5.0);
        assert!(often.score(u32::MAX, f32::INFINITY) > lately.score(u32::MAX, f32::INFINITY));
        let (mut often, mut lately) = (Heat::default(), Heat::default());
        for now in 0..5 {
            often.touch(now, 0.01);
        }
        lately.touch(9, 0.01);
        assert!(often.score(9, 0.01) < lately.score(9, 0.01));
    }

    #[test]
    fn the_score_survives_where_the_count_would_vanish() {
        let mut old = Heat::default();
        old.touch(0, 1.0);
        let mut older = Heat { count: 1.0, last: 0 };
        assert!(old.score(100_000, 1.0).is_finite());
        older.touch(0, 1.0);
        assert!(older.score(100_000, 1.0) > old.score(100_000, 1.0));
    }

    #[test]
    fn time_does_not_run_backwards() {
        let mut heat = Heat { count: 1.0, last: 10 };
        heat.touch(5, 1.0);
        assert_eq!(heat, Heat { count: 2.0, last: 10 });
        assert_eq!(heat.score(5, 1.0), 1.0);
    }

    #[test]
    fn the_order_of_scores_is_that_of_a_sum_over_all_uses() {
        // The definition: every use counts 2^(-age / half_life).
        let (half_life, now) = (7.0f32, 100u32);
        let uses: [&[u32]; 4] = [&[0, 1, 2, 3, 50], &[90, 99], &[10, 20, 30, 40, 50, 60, 70], &[98]];
        for list in uses {
            let mut heat = Heat::default();
            list.iter().for_each(|&at| heat.touch(at, half_life));
            let sum: f64 = list.iter().map(|&at| (-f64::from(now - at) / f64::from(half_life)).exp2()).sum();
            assert!((f64::from(heat.score(now, half_life)) - sum.log2()).abs() < 1e-5, "{list:?}");
        }
    }
}
