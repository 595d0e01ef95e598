//! Routing with realistic locality for models of random weights, which route almost uniformly: selection biases that wander.
//!
//! Each expert of each layer has a bias that follows an Ornstein-Uhlenbeck process: it forgets itself over `memory` tokens and
//! keeps the standard deviation `spread`. Biases only select (DeepSeek-V3 report, section 2.1.2), so weights, shapes and costs of
//! a step stay what they are; which experts a token takes resembles those of the tokens before it, as in trained models.

use serde::{Deserialize, Serialize};

/// Where experts of benchmarks come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Routing {
    /// From the weights alone.
    #[default]
    Uniform,
    /// From weights and wandering biases.
    Walk,
}

impl std::str::FromStr for Routing {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "uniform" => Ok(Self::Uniform),
            "walk" => Ok(Self::Walk),
            _ => Err("use uniform or walk".into()),
        }
    }
}

/// Tokens over which a bias forgets itself.
const MEMORY: f32 = 200.0;

/// Biases that wander.
#[derive(Clone, Debug)]
pub struct Walk {
    /// `[banks, E]`.
    biases: Vec<Vec<f32>>,
    spread: f32,
    random: u64,
}

impl Walk {
    /// Biases of `banks` layers of `experts` experts, of standard deviation `spread`, where they may be after a long walk.
    pub fn new(banks: usize, experts: usize, spread: f32, seed: u64) -> Self {
        let mut walk = Self { biases: Vec::new(), spread, random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1 };
        walk.biases = (0..banks).map(|_| (0..experts).map(|_| walk.normal() * spread).collect()).collect();
        walk
    }

    /// One token further.
    pub fn step(&mut self) {
        let keep = (-1.0 / MEMORY).exp();
        let stir = self.spread * (1.0 - keep * keep).sqrt();
        let mut biases = std::mem::take(&mut self.biases);
        biases.iter_mut().flatten().for_each(|b| *b = *b * keep + stir * self.normal());
        self.biases = biases;
    }

    /// The biases of a bank.
    pub fn biases(&self, bank: usize) -> &[f32] {
        self.biases.get(bank).map_or(&[], Vec::as_slice)
    }

    /// Irwin-Hall's approximation of a normal deviate: the sum of 12 uniform ones, less 6.
    fn normal(&mut self) -> f32 {
        let mut sum = -6.0;
        for _ in 0..12 {
            self.random ^= self.random >> 12;
            self.random ^= self.random << 25;
            self.random ^= self.random >> 27;
            sum += (self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 40) as f32 / (1u64 << 24) as f32;
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn biases_keep_their_spread_and_forget_themselves() {
        let mut walk = Walk::new(4, 256, 0.3, 7);
        let deviation = |w: &Walk| {
            let all: Vec<f32> = (0..4).flat_map(|b| w.biases(b).to_vec()).collect();
            (all.iter().map(|x| x * x).sum::<f32>() / all.len() as f32).sqrt()
        };
        let correlation = |a: &Walk, b: &Walk| {
            let products: f32 = (0..4).flat_map(|i| a.biases(i).iter().zip(b.biases(i)).map(|(x, y)| x * y)).sum();
            products / (1024.0 * deviation(a) * deviation(b))
        };
        assert!((deviation(&walk) - 0.3).abs() < 0.03);
        let start = walk.clone();
        (0..20).for_each(|_| walk.step());
        assert!(correlation(&start, &walk) > 0.8, "{}", correlation(&start, &walk));
        (0..2000).for_each(|_| walk.step());
        assert!(correlation(&start, &walk).abs() < 0.15);
        assert!((deviation(&walk) - 0.3).abs() < 0.03);
        assert!(walk.biases(9).is_empty());
    }
}
