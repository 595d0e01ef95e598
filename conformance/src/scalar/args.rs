//! Arguments: evenly over the representable numbers, and those at which implementations go wrong.

use std::f32::consts::PI;

use crate::setup::Rng;

/// From where arguments are taken.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Domain {
    /// Magnitudes from, to.
    Positive(f32, f32),
    /// The same, of both signs, and 0.
    Signed(f32, f32),
    /// Two arguments.
    Pairs,
}

impl Domain {
    /// About `count` arguments.
    pub fn arguments(self, count: usize) -> Vec<[f32; 2]> {
        match self {
            Self::Positive(from, to) => one(from, to, count).map(|x| [x, 0.0]).collect(),
            Self::Signed(from, to) => {
                let all = one(from, to, count / 2).flat_map(|x| [[x, 0.0], [-x, 0.0]]);
                all.chain([[0.0, 0.0]]).collect()
            }
            Self::Pairs => pairs(count),
        }
    }
}

/// Evenly over the bit patterns from `from` to `to`, and around the places where ranges are reduced or tables begin.
fn one(from: f32, to: f32, count: usize) -> impl Iterator<Item = f32> {
    let (low, high) = (from.to_bits(), to.to_bits());
    let step = ((high - low) / count.max(1) as u32).max(1);
    let dense = (low..=high).step_by(step as usize).map(f32::from_bits);
    let mut special = Vec::new();
    for exponent in -126..127 {
        special.push(f32::powi(2.0, exponent));
    }
    for i in 1..=64 {
        let i = i as f32;
        // Quarters of a turn, eighths, multiples of ln 2, whole numbers and halves.
        special.extend([i * PI / 8.0, i * std::f32::consts::LN_2, i, i - 0.5, 1.0 + i / 64.0]);
    }
    let near =
        special.into_iter().flat_map(|x: f32| [-2, -1, 0, 1, 2].map(|d| f32::from_bits(x.to_bits().wrapping_add_signed(d))));
    dense.chain(near).filter(move |x| (from..=to).contains(x))
}

/// Pairs of near exponents, so that sums and products are exact in f64, and of mantissas that are hard to round.
fn pairs(count: usize) -> Vec<[f32; 2]> {
    let mut rng = Rng::new(4711);
    let hard = [0, 1, 2, 0x7f_ffff, 0x7f_fffe, 0x40_0000, 0x40_0001, 0x3f_ffff, 0x2a_aaaa, 0x55_5555];
    let mut number = |spread: usize, base: u32| {
        let mantissa = if rng.below(3) == 0 { hard[rng.below(hard.len())] } else { rng.below(1 << 23) as u32 };
        let exponent = base + rng.below(spread) as u32;
        f32::from_bits((rng.below(2) as u32) << 31 | exponent << 23 | mantissa)
    };
    (0..count).map(|i| if i % 2 == 0 { [number(24, 115), number(24, 115)] } else { [number(120, 67), number(3, 126)] }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_lie_in_their_domain() {
        for count in [100, 10_000] {
            let all = Domain::Signed(1e-3, 5.0).arguments(count);
            assert!(all.len() > count && all.iter().all(|[x, _]| *x == 0.0 || (1e-3..=5.0).contains(&x.abs())));
            assert!(all.iter().any(|[x, _]| *x == -1.0) && all.iter().any(|[x, _]| *x == PI / 2.0));
            assert!(Domain::Pairs.arguments(count).iter().flatten().all(|x| x.is_normal()));
        }
    }
}
