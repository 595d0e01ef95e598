//! How the level of misses depends on what is admitted.
//!
//! Ways that admit every missing expert and those that admit few keep different experts resident, and after a change misses
//! drift from one level to the other, while the text moves both. With x the state of the cache (1: as after long admitting all,
//! 0: as after long admitting few), `ln(misses) = text + effect * x`. The text is a random walk, x follows from the ways that
//! were used, and a Kalman filter estimates text and effect.

/// Tokens in which the state of a cache comes 1/e nearer to where it goes.
const SETTLE: f64 = 40.0;
/// Tokens of one observation.
const BLOCK: f64 = 8.0;
/// Mean and variance of the effect before anything was measured.
const EFFECT: f64 = -0.25;
const EFFECT_VARIANCE: f64 = 0.25;
/// What is added to variances by a token: the text changes by about 0.2 in a hundred tokens, the effect by 0.3 in a thousand.
const TEXT_WALK: f64 = 4e-4;
const EFFECT_WALK: f64 = 9e-5;
/// Variance of the logarithm of one token's misses, beyond counting.
const SCATTER: f64 = 0.06;

/// The filter.
#[derive(Clone, Debug)]
pub(super) struct Levels {
    state: f64,
    text: f64,
    effect: f64,
    /// Covariance: text, text and effect, effect.
    covariance: [f64; 3],
    /// Whether the text's level is known.
    started: bool,
    /// Tokens, misses and states of the observation in the making.
    block: (f64, f64, f64),
}

impl Default for Levels {
    fn default() -> Self {
        let covariance = [0.0, 0.0, EFFECT_VARIANCE];
        Self { state: 0.0, text: 0.0, effect: EFFECT, covariance, started: false, block: (0.0, 0.0, 0.0) }
    }
}

impl Levels {
    /// The state of the cache.
    pub fn state(&self) -> f64 {
        self.state
    }

    /// Logarithm of misses where all are admitted over those where few are, and its standard error.
    pub fn effect(&self) -> (f64, f64) {
        (self.effect, self.covariance[2].max(0.0).sqrt())
    }

    /// A token had that many misses, and all or few of them were admitted.
    pub fn observe(&mut self, admits_all: bool, misses: f64) {
        let (n, sum, states) = self.block;
        self.block = (n + 1.0, sum + misses, states + self.state);
        self.state += (f64::from(u8::from(admits_all)) - self.state) / SETTLE;
        if n + 1.0 < BLOCK {
            return;
        }
        let (mean, x) = (self.block.1 / BLOCK, self.block.2 / BLOCK);
        self.block = (0.0, 0.0, 0.0);
        // Means below a tenth tell nothing but that there are hardly any.
        let mean = mean.max(0.1);
        let noise = (SCATTER + 1.0 / mean) / BLOCK;
        let z = mean.ln();
        let [mut tt, te, mut ee] = self.covariance;
        if !self.started {
            self.started = true;
            self.text = z - self.effect * x;
            self.covariance = [noise + x * x * ee, -x * ee, ee];
            return;
        }
        tt += BLOCK * TEXT_WALK;
        ee += BLOCK * EFFECT_WALK;
        let surprise = z - self.text - self.effect * x;
        let mut variance = tt + 2.0 * x * te + x * x * ee + noise;
        if surprise * surprise > 9.0 * variance {
            // A leap is the text's: nothing else changes so fast.
            tt += surprise * surprise;
            variance += surprise * surprise;
        }
        let gain = ((tt + x * te) / variance, (te + x * ee) / variance);
        self.text += gain.0 * surprise;
        self.effect = (self.effect + gain.1 * surprise).clamp(-2.5, 0.7);
        let (t, e) = (tt + x * te, te + x * ee);
        self.covariance = [tt - gain.0 * t, te - gain.0 * e, ee - gain.1 * e];
    }
}
