//! Routing with locality that drifts: what the default half-life is argued with.
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

use super::{
    super::{
        policy::HALF_LIFE,
        trace::{Routed, Served},
    },
    *,
};

/// Numbers that look random: xorshift64*.
struct Random(u64);

impl Random {
    /// Uniform between 0 and 1, without both.
    fn uniform(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        ((self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }

    /// Standard normal (Box and Muller).
    fn normal(&mut self) -> f64 {
        (-2.0 * self.uniform().ln()).sqrt() * (std::f64::consts::TAU * self.uniform()).cos()
    }
}

/// One layer that chooses `k` of `experts`: logits are a constant bias (of deviation `skew`), one that walks (of deviation `sigma`, and
/// forgets in `memory` tokens) and fresh Gumbel noise, so that without biases the choice is uniform.
fn walk(experts: u16, k: usize, tokens: u32, skew: f64, sigma: f64, memory: f64) -> Trace {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let keep = (-1.0 / memory).exp();
    let fresh = (1.0 - keep * keep).sqrt();
    let mut biases: Vec<(f64, f64)> = (0..experts).map(|_| (skew * random.normal(), random.normal())).collect();
    let mut rows = Vec::new();
    for position in 0..tokens {
        let mut logits = Vec::new();
        for (expert, (constant, walking)) in (0..experts).zip(&mut biases) {
            *walking = keep * *walking + fresh * random.normal();
            logits.push((*constant + sigma * *walking - (-random.uniform().ln()).ln(), expert));
        }
        logits.sort_by(|x, y| y.0.total_cmp(&x.0));
        let row = |(rank, &(_, expert)): (u16, &(f64, u16))| Routed {
            position,
            layer: 1,
            rank,
            expert,
            weight: 1.0,
            served: Served::Host,
            bytes: 0,
        };
        rows.extend((0..).zip(logits.iter().take(k)).map(row));
    }
    Trace::of(&rows).unwrap()
}

#[test]
fn the_default_half_life_follows_a_drift() {
    for (experts, k, memory, slots) in [(64, 6, 256.0, 16), (64, 6, 256.0, 32), (256, 8, 1024.0, 64)] {
        let trace = walk(experts, k, 2000, 0.5, 1.5, memory);
        let rate = |policy| replay(&trace, policy, slots).hit_rate();
        let default = rate(Policy::Lfru { half_life: HALF_LIFE });
        let others = [4.0, 8.0, 16.0, 64.0, 128.0, 256.0].map(|half_life| rate(Policy::Lfru { half_life }));
        let best = others.into_iter().fold(default, f64::max);
        let what = format!("{slots} slots of {experts}: {default:.3}, others {others:.3?}");
        assert!(default > best - 0.025, "{what}");
        assert!(default > rate(Policy::Lru) + 0.01 && default > rate(Policy::Lfu) + 0.03, "{what}");
        assert!(default > rate(Policy::Static) + 0.1 && best < rate(Policy::Belady), "{what}");
    }
}

#[test]
fn uniform_routing_leaves_nothing_to_learn() {
    let trace = walk(64, 6, 2000, 0.0, 0.0, 100.0);
    for policy in [Policy::Lru, Policy::Lfu, Policy::Lfru { half_life: HALF_LIFE }] {
        // A share of the slots, whoever stays.
        let rate = replay(&trace, policy, 32).hit_rate();
        assert!((rate - 0.5).abs() < 0.03, "{policy}: {rate}");
    }
}
