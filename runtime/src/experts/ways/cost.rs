//! What a token costs under one way, as a function of its misses: a robust linear model of the last tokens.

use std::collections::VecDeque;

/// Tokens that a model remembers.
const WINDOW: usize = 96;
/// Fewest and most tokens kept beyond those since the sum began to grow, once the cost has changed: the noisier the more.
const KEPT: (f64, f64) = (4.0, 24.0);
/// Relative noise of a token's time that is assumed before it was measured, and the tokens that this assumption is worth.
const SIGMA: f64 = 0.15;
const SIGMA_TOKENS: f64 = 4.0;
/// Elasticity of the time with regard to misses, and to layers that miss, before it was measured; and its standard deviation.
const BY_MISSES: f64 = 0.5;
const BY_LAYERS: f64 = 0.25;
const ELASTICITY_SD: f64 = 0.3;

/// What a token asked for beyond the resident experts.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Load {
    /// Experts that were missing.
    pub misses: f64,
    /// Layers in which at least one was.
    pub layers: f64,
}

/// An estimate and its standard error, in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Estimate {
    pub seconds: f64,
    pub error: f64,
}

/// Which way a cost has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Drift {
    Slower,
    Faster,
}

/// `seconds = base + layers * a + misses * b`, fitted to the last tokens that missed.
#[derive(Clone, Debug, Default)]
pub(super) struct CostModel {
    points: VecDeque<(f64, Load)>,
    fit: Option<Fit>,
    /// Cumulative sums (Page, 1954) of what tokens took above and below the prediction.
    above: Sum,
    below: Sum,
    /// Relative noise before the cost changed.
    noise: Option<f64>,
}

/// A cumulative sum and the tokens since it was zero.
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    value: f64,
    tokens: usize,
}

impl Sum {
    fn add(&mut self, x: f64) {
        self.value += x;
        self.tokens += 1;
        if self.value <= 0.0 {
            *self = Self::default();
        }
    }
}

/// The model around the mean of its points: deviations are relative to the means, so that a coefficient is an elasticity.
#[derive(Clone, Copy, Debug)]
struct Fit {
    n: f64,
    seconds: f64,
    mean: Load,
    by_misses: f64,
    by_layers: f64,
    /// The inverse of the normal matrix: `[mm, ml, ll]`.
    inverse: [f64; 3],
    /// Relative noise of one token.
    sigma: f64,
}

impl Fit {
    fn deviation(&self, load: Load) -> (f64, f64) {
        (load.misses / self.mean.misses - 1.0, load.layers / self.mean.layers - 1.0)
    }

    fn predict(&self, load: Load) -> f64 {
        let (m, l) = self.deviation(load);
        self.seconds * (1.0 + self.by_misses * m + self.by_layers * l).max(0.1)
    }

    fn estimate(&self, load: Load) -> Estimate {
        let (m, l) = self.deviation(load);
        let [mm, ml, ll] = self.inverse;
        let spread = (1.0 / self.n + m * m * mm + 2.0 * m * l * ml + l * l * ll).max(0.0).sqrt();
        Estimate { seconds: self.predict(load), error: self.seconds * self.sigma * spread }
    }
}

/// The lower median; 0 of nothing.
pub(super) fn median(values: &mut [f64]) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) / 2).copied().unwrap_or(0.0)
}

impl CostModel {
    /// Tokens that the model knows of.
    pub fn len(&self) -> usize {
        self.points.len()
    }

    /// What a token of that load costs; `None` before the first token. `noise` is the relative noise that tokens have at least.
    pub fn estimate(&self, load: Load, noise: f64) -> Option<Estimate> {
        self.fit.map(|f| Fit { sigma: f.sigma.max(noise), ..f }.estimate(load))
    }

    /// The relative noise of a token, once it is known; 0 before that.
    pub fn noise(&self) -> f64 {
        self.fit.filter(|f| f.n >= 12.0).map_or(0.0, |f| f.sigma)
    }

    /// The robust mean of the last tokens.
    pub fn seconds(&self) -> Option<f64> {
        self.fit.map(|f| f.seconds)
    }

    /// The mean load of the last tokens.
    pub fn load(&self) -> Option<Load> {
        self.fit.map(|f| f.mean)
    }

    /// Adds a token that missed. Where tokens depart from what was expected of them, older ones are forgotten.
    pub fn push(&mut self, seconds: f64, load: Load) -> Option<Drift> {
        let drift = self.departs(seconds, load);
        if self.points.len() == WINDOW {
            self.points.pop_front();
        }
        self.points.push_back((seconds, load));
        if let Some(drift) = drift {
            self.noise = self.fit.map(|f| f.sigma);
            let run = if drift == Drift::Slower { self.above.tokens } else { self.below.tokens };
            (self.above, self.below) = Default::default();
            let least = self.noise.map_or(0.0, |n| (n / 0.1).powi(2)).clamp(KEPT.0, KEPT.1) as usize;
            let old = self.points.len().saturating_sub(run.max(least));
            self.points.drain(..old);
        }
        self.fit = self.refit();
        drift
    }

    /// Two-sided cumulative sums of the logarithmic errors of prediction, each clipped so that one outlier is no alarm.
    fn departs(&mut self, seconds: f64, load: Load) -> Option<Drift> {
        let fit = self.fit.filter(|f| f.n >= 4.0)?;
        let expected = fit.estimate(load);
        let slack = (0.5 * fit.sigma).max(0.1) + expected.error / expected.seconds;
        let clip = (3.0 * fit.sigma).max(0.35);
        let alarm = (8.0 * fit.sigma).max(0.7);
        let error = (seconds / expected.seconds).ln().clamp(-clip, clip);
        self.above.add(error - slack);
        self.below.add(-error - slack);
        match () {
            () if self.above.value > alarm => Some(Drift::Slower),
            () if self.below.value > alarm => Some(Drift::Faster),
            () => None,
        }
    }

    /// Ridge regression towards [`BY_MISSES`] and [`BY_LAYERS`] on times that are pulled in to a few deviations from the prediction. The
    /// threshold grows with the number of tokens, as in the truncated mean of Bubeck et al., "Bandits with heavy tail" (2013):
    /// few tokens must not be led astray by one, while the mean of many should miss little of the tail.
    fn refit(&self) -> Option<Fit> {
        let n = self.points.len() as f64;
        if n == 0.0 {
            return None;
        }
        let sum = self
            .points
            .iter()
            .fold(Load::default(), |s, (_, l)| Load { misses: s.misses + l.misses, layers: s.layers + l.layers });
        let mean = Load { misses: sum.misses / n, layers: sum.layers / n };
        let assumed = self.noise.unwrap_or(SIGMA);
        let prior = assumed * assumed * SIGMA_TOKENS;
        let mut fit =
            Fit { n, seconds: 1.0, mean, by_misses: BY_MISSES, by_layers: BY_LAYERS, inverse: [0.0; 3], sigma: assumed };
        let mut scratch: Vec<f64> = self.points.iter().map(|(t, l)| t / fit.predict(*l)).collect();
        fit.seconds = median(&mut scratch).max(f64::MIN_POSITIVE);
        for _ in 0..3 {
            scratch.clear();
            scratch.extend(self.points.iter().map(|(t, l)| (t / fit.predict(*l) - 1.0).abs()));
            // A handful of tokens does not tell how much they scatter.
            let scatter = 1.4826 * median(&mut scratch);
            let scale = if n < 8.0 { scatter.max(assumed) } else { scatter.max(0.02) };
            let clip = (1.5 * n.sqrt()).clamp(3.0, 8.0) * scale;
            let clipped = |t: f64, l: Load| {
                let p = fit.predict(l);
                t.clamp(p * (1.0 - clip), p * (1.0 + clip))
            };
            let mut squares = prior;
            let mut total = 0.0;
            for &(t, l) in &self.points {
                let t = clipped(t, l);
                total += t;
                squares += (t / fit.predict(l) - 1.0).powi(2);
            }
            let sigma = (squares / (n + SIGMA_TOKENS)).sqrt();
            let ridge = (sigma / ELASTICITY_SD).powi(2);
            let (mut mm, mut ml, mut ll) = (ridge, 0.0, ridge);
            let (mut my, mut ly) = (ridge * BY_MISSES, ridge * BY_LAYERS);
            let seconds = total / n;
            for &(t, load) in &self.points {
                let (m, l) = fit.deviation(load);
                let y = clipped(t, load) / seconds - 1.0;
                mm += m * m;
                ml += m * l;
                ll += l * l;
                my += m * y;
                ly += l * y;
            }
            // Positive: the ridge is, and the rest is a Gram matrix.
            let det = mm * ll - ml * ml;
            let (mut by_misses, mut by_layers) = (((ll * my - ml * ly) / det).max(0.0), ((mm * ly - ml * my) / det).max(0.0));
            // The base cannot be far below nothing.
            let all = by_misses + by_layers;
            if all > 1.05 {
                by_misses *= 1.05 / all;
                by_layers *= 1.05 / all;
            }
            fit = Fit { n, seconds, mean, by_misses, by_layers, inverse: [ll / det, -ml / det, mm / det], sigma };
        }
        Some(fit)
    }
}
