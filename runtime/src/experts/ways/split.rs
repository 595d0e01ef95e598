//! How many of a layer's missing experts are fetched while the CPU computes the rest.

/// Weight of a new measurement once there are enough.
const FORGET: f64 = 0.1;
/// Measurements of one side alone after which the other gets an expert again.
const PATIENCE: u32 = 256;

/// A running average of the seconds of one expert.
#[derive(Clone, Copy, Debug, Default)]
struct Average {
    seconds: f64,
    count: u32,
}

impl Average {
    /// `late`: nothing was measured for long, so that what was known counts for less.
    fn add(&mut self, items: usize, seconds: f64, late: bool) -> bool {
        if items == 0 || !seconds.is_finite() || seconds < 0.0 {
            return false;
        }
        // A clock may be too coarse to see one expert.
        let mut each = (seconds / items as f64).max(1e-9);
        // Other processes can only make it slower.
        if self.count >= 3 {
            each = each.min(self.seconds * 4.0);
        }
        self.count = self.count.saturating_add(1);
        let weight = if late { 0.5 } else { FORGET };
        self.seconds += (each - self.seconds) * weight.max(1.0 / f64::from(self.count));
        true
    }
}

/// Splits the missing experts of a layer between uploads and the CPU, so that both finish at about the same time.
#[derive(Clone, Debug, Default)]
pub struct Split {
    fetch: Average,
    cpu: Average,
    /// Measurements of the one since the other's last.
    without_fetch: u32,
    without_cpu: u32,
}

impl Split {
    /// Nothing is known yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// `experts` were fetched in `seconds`.
    pub fn observe_fetch(&mut self, experts: usize, seconds: f64) {
        if self.fetch.add(experts, seconds, self.without_fetch >= PATIENCE) {
            self.without_fetch = 0;
            self.without_cpu = self.without_cpu.saturating_add(1);
        }
    }

    /// The CPU computed `pairs` of a token and an expert in `seconds`.
    pub fn observe_cpu(&mut self, pairs: usize, seconds: f64) {
        if self.cpu.add(pairs, seconds, self.without_cpu >= PATIENCE) {
            self.without_cpu = 0;
            self.without_fetch = self.without_fetch.saturating_add(1);
        }
    }

    /// Seconds a fetched expert, once measured.
    pub fn fetch_seconds(&self) -> Option<f64> {
        (self.fetch.count > 0).then_some(self.fetch.seconds)
    }

    /// Seconds an expert on the CPU for one token, once measured.
    pub fn cpu_seconds(&self) -> Option<f64> {
        (self.cpu.count > 0).then_some(self.cpu.seconds)
    }

    /// How many of `missing` experts to fetch: the n with the least max(n * fetch, (missing - n) * cpu); the larger of two, since
    /// what is fetched stays. Half of them while a side was not measured, the odd one going to that side. A side that got
    /// nothing for long gets one, to see whether it is still that slow.
    pub fn fetch_of(&self, missing: usize) -> usize {
        let (Some(fetch), Some(cpu)) = (self.fetch_seconds(), self.cpu_seconds()) else {
            return if self.fetch.count == 0 { missing.div_ceil(2) } else { missing / 2 };
        };
        if missing == 0 {
            return 0;
        }
        let low = ((missing as f64 * cpu / (fetch + cpu)) as usize).min(missing);
        let high = (low + 1).min(missing);
        let time = |n: usize| (n as f64 * fetch).max((missing - n) as f64 * cpu);
        let n = if time(high) <= time(low) { high } else { low };
        match n {
            0 if self.without_fetch >= PATIENCE => 1,
            n if n == missing && self.without_cpu >= PATIENCE => n - 1,
            n => n,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

    use super::*;

    #[test]
    fn the_later_side_finishes_first() {
        for (fetch, cpu) in [(1e-3, 1e-3), (1e-3, 3e-3), (7e-4, 1e-4), (1e-6, 1.0), (1.0, 1e-6), (2e-3, 1.9e-3)] {
            let mut split = Split::new();
            split.observe_fetch(4, 4.0 * fetch);
            split.observe_cpu(3, 3.0 * cpu);
            for missing in 0..40 {
                let time = |n: usize| (n as f64 * fetch).max((missing - n) as f64 * cpu);
                let least = (0..=missing).map(time).fold(f64::INFINITY, f64::min);
                let n = split.fetch_of(missing);
                assert!(n <= missing && time(n) <= least * (1.0 + 1e-9), "{fetch} {cpu} {missing}: {n}");
            }
        }
    }

    #[test]
    fn both_sides_get_measured() {
        let mut split = Split::new();
        assert_eq!((split.fetch_of(0), split.fetch_of(1), split.fetch_of(6), split.fetch_of(7)), (0, 1, 3, 4));
        split.observe_fetch(1, 1e-3);
        assert_eq!((split.fetch_of(1), split.fetch_of(6), split.fetch_of(7)), (0, 3, 3));
        let mut split = Split::new();
        split.observe_cpu(1, 1e-3);
        assert_eq!((split.fetch_of(1), split.fetch_of(7)), (1, 4));
        // A side that lost every expert is looked at again, and wins once it has become fast.
        split.observe_fetch(1, 1.0);
        (0..PATIENCE - 1).for_each(|_| split.observe_cpu(5, 5e-3));
        assert_eq!(split.fetch_of(5), 0);
        let mut fetched = 0;
        for _ in 0..40 * PATIENCE {
            let n = split.fetch_of(5);
            split.observe_fetch(n, n as f64 * 1e-4);
            split.observe_cpu(5 - n, (5 - n) as f64 * 1e-3);
            fetched = n;
        }
        assert!(fetched >= 4, "{fetched}");
    }

    #[test]
    fn measurements_may_be_nonsense() {
        let mut split = Split::new();
        for seconds in [f64::NAN, f64::INFINITY, -1.0] {
            split.observe_fetch(1, seconds);
            split.observe_cpu(1, seconds);
        }
        split.observe_fetch(0, 1.0);
        assert_eq!((split.fetch_seconds(), split.cpu_seconds()), (None, None));
        for _ in 0..10 {
            split.observe_fetch(1, 0.0);
            split.observe_cpu(1, 0.0);
        }
        assert_eq!(split.fetch_of(8), 4);
        let mut split = Split::new();
        for i in 0..100 {
            split.observe_fetch(1, if i == 50 { 1.0 } else { 1e-3 });
            split.observe_cpu(1, 1e-3);
        }
        assert!(split.fetch_seconds().unwrap() < 1.2e-3, "{:?}", split);
    }
}
