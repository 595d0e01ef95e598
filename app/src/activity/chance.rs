//! What chance explains: intervals of shares, and differences that are none.

/// Standard deviations of a normal distribution between which 95 % lie.
pub const Z: f64 = 1.959_963_984_540_054;

/// Uses that an even spread must have given an expert before anything is said of it (the usual rule for approximating a
/// binomial distribution by a normal one).
pub const FEWEST: f64 = 5.0;

/// The share of `tokens` that choose an expert, as a two-sided 95 % interval, from `count` that did (Wilson, "Probable
/// inference, the law of succession, and statistical inference", JASA 22, 1927). No tokens: anything from 0 to 1.
pub fn interval(count: u64, tokens: u64) -> (f64, f64) {
    if tokens == 0 {
        return (0.0, 1.0);
    }
    let n = tokens as f64;
    let share = (count as f64 / n).min(1.0);
    let shrink = 1.0 + Z * Z / n;
    let centre = (share + Z * Z / (2.0 * n)) / shrink;
    let half = Z * (share * (1.0 - share) / n + Z * Z / (4.0 * n * n)).sqrt() / shrink;
    ((centre - half).max(0.0), (centre + half).min(1.0))
}

/// The counts that chance explains, of `tokens` that each choose an expert with probability `share`. An interval of
/// [`interval`] holds `share` exactly where the count is at most `Z` standard deviations from what is expected.
pub fn ordinary(tokens: u64, share: f64) -> std::ops::RangeInclusive<f64> {
    let expected = tokens as f64 * share;
    if expected < FEWEST {
        return 0.0..=f64::INFINITY;
    }
    let spread = Z * (expected * (1.0 - share).max(0.0)).sqrt();
    expected - spread..=expected + spread
}

/// Whether chance explains the difference between two shares: the two-sided test of two proportions at 5 %, or too few uses to
/// tell. Pairs of count and tokens.
pub fn alike(a: (u64, u64), b: (u64, u64), even: f64) -> bool {
    let (na, nb) = (a.1 as f64, b.1 as f64);
    if na * even < FEWEST || nb * even < FEWEST {
        return true;
    }
    let pooled = (a.0 + b.0) as f64 / (na + nb);
    let variance = pooled * (1.0 - pooled).max(0.0) * (1.0 / na + 1.0 / nb);
    let difference = a.0 as f64 / na - b.0 as f64 / nb;
    difference * difference <= Z * Z * variance
}
