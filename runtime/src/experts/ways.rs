//! The choice among the ways of serving missing experts, measured while decoding, and the split of one layer's misses.
//!
//! A benchmark at start-up measures another machine than the one that decodes: caches, clocks, other processes and the mix of
//! transfers differ. So the tokens themselves are the measurements. [`Chooser`] decodes with the way that is best so far (home)
//! and now and then a few tokens with another (a probe). Of every way it keeps a robust linear model of a token's time as a
//! function of its misses, because ways must be compared at the same misses while those of consecutive tokens differ.
//!
//! - Every way is first probed for a few tokens. After that a way is probed while its confidence interval still reaches below
//!   home's time, and on a schedule which is the slower the worse the way was.
//! - What probes cost beyond home's time is kept below a fixed allowance and 3 % of all time.
//! - A model whose predictions fail (cumulative sums) forgets its old tokens; where home became slower all others are due.
//! - Ways change the misses to come: [`Way::Gather`] and [`Way::Resume`] admit every missing expert, [`Way::Cpu`] few. Ways are
//!   compared at the misses to which they would lead, of which an uncertain estimate is kept; where the choice hangs
//!   on it, a trial of the other kind lasts long enough to see misses drift.

mod cost;
mod level;
mod split;
mod way;

#[cfg(test)]
mod simulate;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use cost::{CostModel, Drift, Estimate, Load, median};
use level::Levels;
pub use split::Split;
pub use way::{Sample, Way, WayChoice, WayReport, WaysReport};

/// Share of the time that probes may cost.
const BUDGET: f64 = 0.03;
/// What probes may cost at first, in tokens.
const ALLOWANCE: f64 = 12.0;
/// Tokens of a first or scheduled probe, of those that count.
const PROBE: usize = 4;
/// A way must be better by this share to become home, and half a standard error.
const MARGIN: f64 = 0.02;
/// Tokens over which the level of misses is taken.
const RECENT: usize = 24;
/// Tokens that misses are given to settle.
const SETTLE: u64 = 96;
/// Standard errors by which a trial may hope, of ways that admit all and of others. A warm cache is easily lost.
const HOPE: (f64, f64) = (2.0, 1.5);
/// Most tokens between two trials.
const LONGEST_WAIT: u64 = 2048;
/// Share of the time that scheduled probes of one way may cost, and the fewest tokens between them.
const SCHEDULE: f64 = 0.008;
const INTERVAL: f64 = 192.0;

/// How much tokens miss at present.
#[derive(Clone, Copy, Debug)]
struct Level {
    /// Mean of the tokens that miss.
    load: Load,
    /// Their share.
    share: f64,
}

impl Level {
    fn misses(&self) -> f64 {
        self.load.misses * self.share
    }

    /// The level with `ratio` times the misses, which fall on layers at random, of which there are `layers`.
    fn scaled(&self, ratio: f64, layers: f64) -> Self {
        let total = self.misses() * ratio;
        let misses = (self.load.misses * ratio).max(1.0);
        let hit = |m: f64| 1.0 - (-m / layers.max(1.0)).exp();
        let layers = (self.load.layers * hit(misses) / hit(self.load.misses)).clamp(1.0, misses);
        Self { load: Load { misses, layers }, share: (total / misses).min(1.0) }
    }
}

/// One way's measurements.
#[derive(Clone, Debug)]
struct Ledger {
    way: Way,
    cost: CostModel,
    tokens: u64,
    /// When it was last in use.
    last: u64,
    /// Scheduled probes in a row that found it much worse: the interval doubles with each.
    confirmed: u32,
    /// A measured way should be looked at again as soon as the budget allows.
    due: bool,
    /// Probes so far.
    looks: u32,
    /// Seconds of the first token ever, and whether the second, the first that counts, was no outlier beside it.
    first: Option<f64>,
    agreed: bool,
}

impl Ledger {
    /// One or two tokens, of which one may have been unlucky, are all that is known.
    fn doubtful(&self) -> bool {
        self.cost.len() <= 2 && !self.agreed && self.looks < 2
    }
}

/// A few tokens of a way that is not home.
#[derive(Clone, Copy, Debug)]
struct Probe {
    way: usize,
    want: usize,
    got: usize,
    /// What it took beyond home's time, in seconds.
    excess: f64,
    /// Its first token, which does not count, was as slow as was known, or unknown and very slow.
    slow_start: bool,
}

/// Home was moved to a way that is dearer now but may be cheaper once misses have drifted to its level.
#[derive(Clone, Copy, Debug)]
struct Trial {
    /// Home before.
    from: usize,
    at: u64,
    /// What a token of it took.
    paid: f64,
}

/// Chooses the way of serving misses, token by token. Deterministic, given what it observes.
#[derive(Clone, Debug)]
pub struct Chooser {
    choice: WayChoice,
    ways: Vec<Ledger>,
    home: usize,
    probe: Option<Probe>,
    trial: Option<Trial>,
    levels: Levels,
    next_trial: u64,
    trial_wait: u64,
    /// Misses and layers of the last tokens, and the state of the cache.
    recent: VecDeque<(u32, u32, f64)>,
    /// Times of the last tokens without a miss.
    idle: VecDeque<f64>,
    /// Most layers that ever missed.
    layers: u32,
    last_way: Option<Way>,
    now: u64,
    total: f64,
    spent: f64,
    probes: u64,
    switches: u64,
    drifts: u64,
}

impl Chooser {
    /// A chooser among `available` ways, of which the first is tried first. With [`WayChoice::Only`] that way is used, available
    /// or not. Where none is available it is [`Way::Resume`], which every device can.
    pub fn new(choice: WayChoice, available: &[Way]) -> Self {
        let mut ways: Vec<Way> = Vec::new();
        match choice {
            WayChoice::Only(way) => ways.push(way),
            WayChoice::Auto => available.iter().for_each(|w| {
                if !ways.contains(w) {
                    ways.push(*w)
                }
            }),
        }
        if ways.is_empty() {
            ways.push(Way::Resume);
        }
        let ledger = |way| Ledger {
            way,
            cost: CostModel::default(),
            tokens: 0,
            last: 0,
            confirmed: 0,
            due: false,
            looks: 0,
            first: None,
            agreed: false,
        };
        Self {
            choice,
            ways: ways.into_iter().map(ledger).collect(),
            home: 0,
            probe: None,
            trial: None,
            levels: Levels::default(),
            next_trial: 0,
            trial_wait: 96,
            recent: VecDeque::with_capacity(RECENT),
            idle: VecDeque::with_capacity(RECENT),
            layers: 1,
            last_way: None,
            now: 0,
            total: 0.0,
            spent: 0.0,
            probes: 0,
            switches: 0,
            drifts: 0,
        }
    }

    /// The way of the next token.
    pub fn way(&self) -> Way {
        self.ways[self.probe.map_or(self.home, |p| p.way)].way
    }

    /// Takes note of one decoded token and of the seconds since the one before it was complete. Tokens that were on their way
    /// while the choice changed are told by `sample.way`. Times that are no positive numbers are ignored.
    pub fn observe(&mut self, seconds: f64, sample: Sample) {
        if !(seconds > 0.0 && seconds < 1e6) {
            return;
        }
        let Some(index) = self.ways.iter().position(|l| l.way == sample.way) else { return };
        let first = self.last_way != Some(sample.way);
        self.switches += u64::from(first && self.last_way.is_some());
        self.last_way = Some(sample.way);
        self.now += 1;
        self.total += seconds;
        self.ways[index].tokens += 1;
        self.ways[index].last = self.now;
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back((sample.misses, sample.layers_missed, self.levels.state()));
        self.levels.observe(sample.way.admits_all(), sample.misses.into());
        self.layers = self.layers.max(sample.layers_missed);
        let load = Load { misses: sample.misses.into(), layers: sample.layers_missed.max(1).into() };
        if sample.misses == 0 {
            if !first {
                if self.idle.len() == RECENT {
                    self.idle.pop_front();
                }
                self.idle.push_back(seconds);
            }
        } else {
            let expected = self.ways[self.home].cost.estimate(load, 0.0).map(|e| e.seconds);
            if let (Some(probe), Some(expected)) = (&mut self.probe, expected) {
                // One outlier must not forbid probes for long.
                probe.excess += seconds.min(6.0 * expected) - expected;
                let known = self.ways[index].cost.estimate(load, 0.0).map_or(f64::INFINITY, |e| e.seconds);
                let slow = seconds > (4.0 * expected).min((0.7 * known).max(1.4 * expected));
                probe.slow_start |= first && probe.way == index && slow;
            } else if let (true, Some(expected)) = (first, expected) {
                self.spent += (seconds.min(4.0 * expected) - expected).max(0.0);
            }
            if let Some(paid) = self.trial.map(|t| t.paid) {
                self.spent += (seconds.min(4.0 * paid) - paid).max(0.0);
            }
            let ledger = &mut self.ways[index];
            if ledger.cost.len() == 0 {
                ledger.agreed = !first && ledger.first.is_some_and(|f| seconds < 1.5 * f);
                ledger.first = Some(seconds);
            }
            if !first {
                let drift = self.ways[index].cost.push(seconds, load);
                self.drifted(index, drift);
                if let Some(probe) = self.probe.as_mut().filter(|p| p.way == index) {
                    probe.got += 1;
                }
            }
        }
        if self.ways.len() > 1 {
            match self.probe {
                Some(probe) if probe.way == index => self.probing(probe),
                None if self.home == index && !first => self.at_home(),
                _ => {}
            }
        }
    }

    /// Something else than decoding took place (a prompt, a pause): the next token's time does not count.
    pub fn interrupt(&mut self) {
        self.last_way = None;
    }

    /// What the choice rests on.
    pub fn report(&self) -> WaysReport {
        let row = |(i, l): (usize, &Ledger)| WayReport {
            way: l.way,
            tokens: l.tokens,
            share: l.tokens as f64 / self.now.max(1) as f64,
            seconds_per_token: l.cost.seconds(),
            misses_per_token: l.cost.load().map(|l| l.misses),
            expected_seconds: self.expected(i).map(|e| e.seconds),
        };
        WaysReport {
            choice: self.choice,
            chosen: self.ways[self.home].way,
            probes: self.probes,
            switches: self.switches,
            drifts: self.drifts,
            probing: if self.total > 0.0 { self.spent / self.total } else { 0.0 },
            ways: self.ways.iter().enumerate().map(row).collect(),
        }
    }

    fn drifted(&mut self, index: usize, drift: Option<Drift>) {
        let Some(drift) = drift else { return };
        self.drifts += 1;
        self.ways[index].confirmed = 0;
        if index == self.home && drift == Drift::Slower {
            for (i, l) in self.ways.iter_mut().enumerate() {
                l.due |= i != index;
            }
        }
    }

    /// What may still be spent on probes, in seconds.
    fn balance(&self) -> f64 {
        let token = self.expected(self.home).map_or(0.0, |e| e.seconds);
        ALLOWANCE * token + BUDGET * self.total - self.spent
    }

    /// The level of misses of the last tokens; `None` where none missed.
    fn level(&self) -> Option<Level> {
        let missed = self.recent.iter().filter(|(m, ..)| *m > 0);
        let (n, m, l) =
            missed.fold((0.0, 0.0, 0.0), |(n, m, l), (x, y, _)| (n + 1.0, m + f64::from(*x), l + f64::from((*y).max(1))));
        let load = Load { misses: m / n, layers: l / n };
        (n > 0.0).then(|| Level { load, share: n / self.recent.len() as f64 })
    }

    /// The level of misses to which way `index` would lead, if the effect of admitting were `off` standard errors off.
    fn level_of(&self, index: usize, off: f64) -> Option<Level> {
        let (effect, error) = self.levels.effect();
        let state = self.recent.iter().map(|(.., s)| s).sum::<f64>() / self.recent.len().max(1) as f64;
        let goal = f64::from(u8::from(self.ways[index].way.admits_all()));
        Some(self.level()?.scaled(((effect + off * error) * (goal - state)).exp(), self.layers.into()))
    }

    /// The cost of a mean token at `level`, those that do not miss included.
    fn cost_at(&self, index: usize, level: Level) -> Option<Estimate> {
        let cost = &self.ways[index].cost;
        // A few tokens tell less about their noise than those of home do.
        let noise = if cost.len() < 12 { self.ways[self.home].cost.noise() } else { 0.0 };
        let e = cost.estimate(level.load, noise)?;
        let mut idle: Vec<f64> = self.idle.iter().copied().collect();
        let idle = if idle.is_empty() { e.seconds } else { median(&mut idle) };
        Some(Estimate { seconds: e.seconds * level.share + idle * (1.0 - level.share), error: e.error * level.share })
    }

    /// The cost at the level of misses to which the way leads.
    fn expected(&self, index: usize) -> Option<Estimate> {
        self.cost_at(index, self.level_of(index, 0.0)?)
    }

    /// By how much way `index` may be better in comparison with home than expected, if the effect of admitting
    /// is that many standard errors off.
    fn chance(&self, index: usize, errors: f64) -> f64 {
        let gain = |off: f64| {
            let cost = |i: usize| self.cost_at(i, self.level_of(i, off)?).map(|e| e.seconds);
            Some(cost(self.home)? - cost(index)?)
        };
        match (gain(0.0), gain(errors), gain(-errors)) {
            (Some(mean), Some(up), Some(down)) => (up - mean).max(down - mean).max(0.0),
            _ => 0.0,
        }
    }

    /// The cost at the level of the last tokens, whatever the way would make of it.
    fn expected_here(&self, index: usize) -> Option<Estimate> {
        self.cost_at(index, self.level()?)
    }

    fn start_probe(&mut self, way: usize, want: usize) {
        self.probes += 1;
        self.ways[way].due = false;
        self.ways[way].looks += 1;
        self.probe = Some(Probe { way, want, got: 0, excess: 0.0, slow_start: false });
    }

    /// A token of a probe is in.
    fn probing(&mut self, probe: Probe) {
        let (Some(it), Some(home)) = (self.expected_here(probe.way), self.expected_here(self.home)) else { return };
        let spread = it.error.hypot(home.error);
        let worse = it.seconds - home.seconds;
        let hopeless = (probe.got >= 2 && worse > 2.0 * spread.max(0.05 * it.seconds))
            || (probe.slow_start && (probe.got > 0 || self.ways[probe.way].looks == 2) && it.seconds > 1.5 * home.seconds);
        if probe.got < probe.want && !hopeless {
            return;
        }
        self.spent += probe.excess.max(0.0);
        self.probe = None;
        let ledger = &mut self.ways[probe.way];
        ledger.confirmed = if it.seconds > 1.5 * home.seconds { ledger.confirmed + 1 } else { 0 };
        if let (Some(it), Some(home)) = (self.expected(probe.way), self.expected(self.home))
            && it.seconds < (1.0 - MARGIN) * home.seconds
            && (home.seconds - it.seconds) > 0.5 * self.chance(probe.way, 1.0)
        {
            self.home = probe.way;
        }
        // Another that was never measured comes before going back.
        if let Some(unknown) = self.unknown() {
            self.start_probe(unknown, PROBE);
        }
    }

    fn unknown(&self) -> Option<usize> {
        (0..self.ways.len()).find(|&i| i != self.home && self.ways[i].cost.len() == 0)
    }

    /// Whether a trial goes on: at first, then as long as it may turn out well, until misses have settled.
    fn trial_goes_on(&self, trial: Trial, home: Estimate) -> bool {
        let since = self.now - trial.at;
        let Some(from) = self.expected(trial.from) else { return false };
        let hopeful = home.seconds - self.chance(trial.from, 1.0) < from.seconds;
        since < SETTLE && (since < 24 || hopeful) && self.balance() > -6.0 * trial.paid
    }

    /// A token of home is in: stay, move, or probe?
    fn at_home(&mut self) {
        let Some(home) = self.expected(self.home) else { return };
        if let Some(unknown) = self.unknown() {
            return self.start_probe(unknown, PROBE);
        }
        if let Some(trial) = self.trial {
            if self.trial_goes_on(trial, home) {
                return;
            }
            self.trial = None;
            if self.expected(trial.from).is_some_and(|e| e.seconds < home.seconds) {
                self.home = trial.from;
                return;
            }
        }
        let others: Vec<(usize, Estimate)> =
            (0..self.ways.len()).filter(|&i| i != self.home).filter_map(|i| Some((i, self.expected(i)?))).collect();
        // Move.
        let best = others.iter().min_by(|a, b| a.1.seconds.total_cmp(&b.1.seconds));
        if let Some(&(way, e)) = best
            && home.seconds - e.seconds > MARGIN * home.seconds + 0.5 * e.error.hypot(home.error).hypot(self.chance(way, 1.0))
        {
            self.home = way;
            return;
        }
        if self.level().is_none() {
            return;
        }
        let probes = others.iter().filter_map(|&(i, e)| Some((e.seconds, i, self.wants_probe(i, e, home)?)));
        match probes.min_by(|a, b| a.0.total_cmp(&b.0)) {
            Some((_, way, tokens)) => self.start_probe(way, tokens),
            None => self.maybe_try(home, &others),
        }
    }

    /// Whether way `index`, expected to take `e`, should be probed now, and for how many tokens.
    fn wants_probe(&self, index: usize, e: Estimate, home: Estimate) -> Option<usize> {
        let ledger = &self.ways[index];
        let away = self.now - ledger.last;
        let n = ledger.cost.len();
        // A probe tells nothing of other levels of misses.
        let spread = self.expected_here(index).map_or(e.error, |e| e.error).hypot(home.error);
        // Changing there and back costs something, too.
        let cost = |tokens: usize| (e.seconds - home.seconds).max(0.0) * (tokens as f64 + 1.0) + 0.3 * home.seconds;
        if ledger.doubtful() && away >= 24 {
            return Some(PROBE);
        }
        // As Student's t: few tokens may mislead by more of what seem their deviations.
        let open = e.seconds - (2.0 + 3.0 / n.max(1) as f64) * spread < (1.0 - MARGIN) * home.seconds;
        let few = if e.seconds > 1.5 * home.seconds { 2 } else { PROBE };
        let interval = (cost(few) / (SCHEDULE * home.seconds)).max(INTERVAL) * f64::from(1 << ledger.confirmed.min(5));
        let tokens = if open && away >= (2 * n).max(12) as u64 {
            n.clamp(PROBE, 16)
        } else if away as f64 >= interval || (ledger.due && e.seconds - 1.5 * spread < 1.3 * home.seconds) {
            few
        } else {
            return None;
        };
        (cost(tokens) <= self.balance()).then_some(tokens)
    }

    /// Tries a way that admits otherwise, where it may turn out cheaper once misses have drifted.
    fn maybe_try(&mut self, home: Estimate, others: &[(usize, Estimate)]) {
        let admits = self.ways[self.home].way.admits_all();
        // While the cache is still drifting to where home leads, it is home that shows the effect.
        let unsettled = (f64::from(u8::from(admits)) - self.levels.state()).abs() > 0.15;
        let doubtful = self.ways.iter().any(Ledger::doubtful);
        if self.now < self.next_trial || unsettled || doubtful {
            return;
        }
        let hope = if admits { HOPE.1 } else { HOPE.0 };
        let way = others
            .iter()
            .filter(|(i, _)| self.ways[*i].way.admits_all() != admits)
            .filter(|(i, e)| e.seconds - (hope * e.error).hypot(self.chance(*i, hope)) < (1.0 - MARGIN) * home.seconds)
            .filter_map(|(i, _)| Some((*i, self.expected_here(*i)?.seconds)))
            .min_by(|a, b| a.1.total_cmp(&b.1));
        let (Some((way, at_first)), Some(here)) = (way, self.expected_here(self.home)) else { return };
        // A good trial soon costs less than at first; a bad one lasts longer than this.
        let tokens = if at_first > 1.6 * here.seconds { 16.0 } else { 8.0 };
        if tokens * (at_first - here.seconds) < self.balance() {
            self.next_trial = self.now + self.trial_wait;
            self.trial_wait = (2 * self.trial_wait).min(LONGEST_WAIT);
            self.trial = Some(Trial { from: self.home, at: self.now, paid: here.seconds });
            self.home = way;
        }
    }
}
