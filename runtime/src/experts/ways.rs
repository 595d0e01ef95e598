//! The choice among the ways of serving missing experts, measured while decoding, and the split of one layer's misses.
//!
//! A benchmark at start-up measures another machine than the one that decodes: caches, clocks, other processes and the mix of
//! transfers differ. So the tokens themselves are the measurements. [`Chooser`] decodes with the way that is best so far (home)
//! and now and then a few tokens with another (a probe). Of every way it keeps a robust linear model of a token's time as a
//! function of its misses, because ways must be compared at the same misses while those of consecutive tokens differ.
//!
//! - Every way is first probed for a few tokens. After that a way is probed while its confidence interval still reaches below
//!   home's time, and on a schedule which is the slower the worse the way was.
//! - What probes cost beyond home's time is kept below a fixed allowance and [`BUDGET`] of all time.
//! - A model whose predictions fail (cumulative sums) forgets its old tokens; where home became slower all others are due.
//! - Ways change the misses to come: [`Way::Gather`] and [`Way::Resume`] admit every missing expert, [`Way::Cpu`] few. The ratio
//!   of the levels at which misses settle is learned from changes between them, and from a trial long enough to see them fall.

mod cost;
mod split;


use std::{collections::VecDeque, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::Error;
use cost::{CostModel, Drift, Estimate, Load, median};
pub use split::Split;

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
/// Tokens that misses are given to settle, and after which they mostly have.
const SETTLE: u64 = 96;
const SETTLED: u64 = 40;
/// Tokens after which what was learned of the level of misses is doubted.
const OLD: u64 = 384;
/// Share of the time that scheduled probes of one way may cost, and the fewest tokens between them.
const SCHEDULE: f64 = 0.008;
const INTERVAL: u64 = 192;

/// How missing experts of a token are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    /// A kernel reads them from a host-visible bank into slots.
    Gather,
    /// The CPU computes them while the GPU computes the resident ones.
    Cpu,
    /// The plan stops at the layer, the host uploads them into slots, the plan resumes.
    Resume,
}

impl Way {
    /// Whether every missing expert comes to live in a slot.
    pub fn admits_all(self) -> bool {
        self != Self::Cpu
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Gather => "gather",
            Self::Cpu => "cpu",
            Self::Resume => "resume",
        })
    }
}

impl FromStr for Way {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self, Error> {
        match s {
            "gather" => Ok(Self::Gather),
            "cpu" => Ok(Self::Cpu),
            "resume" => Ok(Self::Resume),
            _ => Err(Error::Invalid(format!("no such way of serving missing experts: {s}; there are gather, cpu and resume"))),
        }
    }
}

/// Who chooses the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum WayChoice {
    /// What measures best.
    #[default]
    Auto,
    /// The user.
    Only(Way),
}

impl fmt::Display for WayChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.pad("auto"),
            Self::Only(way) => way.fmt(f),
        }
    }
}

impl FromStr for WayChoice {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self, Error> {
        if s == "auto" { Ok(Self::Auto) } else { s.parse().map(Self::Only) }
    }
}

impl From<WayChoice> for String {
    fn from(choice: WayChoice) -> Self {
        choice.to_string()
    }
}

impl TryFrom<String> for WayChoice {
    type Error = Error;

    fn try_from(s: String) -> Result<Self, Error> {
        s.parse()
    }
}

/// What is known of a decoded token besides its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// How its misses were served.
    pub way: Way,
    /// Experts that were missing, over all layers.
    pub misses: u32,
    /// Layers in which at least one was.
    pub layers_missed: u32,
}

/// What the choice rests on, for `--json` and the app.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WaysReport {
    /// Who chooses.
    pub choice: WayChoice,
    /// The way in use, probes aside.
    pub chosen: Way,
    /// Short runs of other ways, for measuring.
    pub probes: u64,
    /// Changes from way to way, those for probes included.
    pub switches: u64,
    /// Times that a way's cost was seen to change.
    pub drifts: u64,
    /// Share of all time that probes cost beyond what the chosen way would have taken.
    pub probing: f64,
    /// Every available way.
    pub ways: Vec<WayReport>,
}

/// What was measured of a way.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WayReport {
    /// The way.
    pub way: Way,
    /// Tokens decoded with it.
    pub tokens: u64,
    /// Their share of all tokens.
    pub share: f64,
    /// Robust mean of the seconds of its recent tokens that missed; `None` before the first.
    pub seconds_per_token: Option<f64>,
    /// Mean misses of those tokens.
    pub misses_per_token: Option<f64>,
    /// What a token is expected to take with the misses that this way has now; `None` where nothing is known.
    pub expected_seconds: Option<f64>,
}

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

/// Home changed between a way that admits all and one that does not: misses drift to another level.
#[derive(Clone, Copy, Debug)]
struct Shift {
    before: Level,
    at: u64,
    /// Whether misses had settled before.
    settled: bool,
    /// Home is dearer than what it replaced unless misses fall: what that took a token.
    trial: Option<f64>,
}

/// Chooses the way of serving misses, token by token. Deterministic, given what it observes.
#[derive(Clone, Debug)]
pub struct Chooser {
    choice: WayChoice,
    ways: Vec<Ledger>,
    home: usize,
    probe: Option<Probe>,
    shift: Option<Shift>,
    /// When home last changed between admitting all and few.
    admits_since: u64,
    /// Logarithm of the level of misses where all are admitted over that where few are; and when it was learned.
    ratio: Option<(f64, u64)>,
    next_trial: u64,
    trial_wait: u64,
    /// Misses and layers of the last tokens.
    recent: VecDeque<(u32, u32)>,
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
            WayChoice::Auto => available.iter().for_each(|w| if !ways.contains(w) { ways.push(*w) }),
        }
        if ways.is_empty() {
            ways.push(Way::Resume);
        }
        let ledger = |way| Ledger { way, cost: CostModel::default(), tokens: 0, last: 0, confirmed: 0, due: false, looks: 0, first: None, agreed: false };
        Self {
            choice,
            ways: ways.into_iter().map(ledger).collect(),
            home: 0,
            probe: None,
            shift: None,
            admits_since: 0,
            ratio: None,
            next_trial: 0,
            trial_wait: 256,
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
        self.recent.push_back((sample.misses, sample.layers_missed));
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
                probe.excess += seconds.min(25.0 * expected) - expected;
                let known = self.ways[index].cost.estimate(load, 0.0).map_or(f64::INFINITY, |e| e.seconds);
                let slow = seconds > (4.0 * expected).min((0.7 * known).max(1.4 * expected));
                probe.slow_start |= first && probe.way == index && slow;
            } else if let (true, Some(expected)) = (first, expected) {
                self.spent += (seconds.min(4.0 * expected) - expected).max(0.0);
            }
            if let Some(paid) = self.shift.and_then(|s| s.trial) {
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
        let missed = self.recent.iter().filter(|(m, _)| *m > 0);
        let (n, m, l) = missed.fold((0.0, 0.0, 0.0), |(n, m, l), (x, y)| (n + 1.0, m + f64::from(*x), l + f64::from((*y).max(1))));
        let load = Load { misses: m / n, layers: l / n };
        (n > 0.0).then(|| Level { load, share: n / self.recent.len() as f64 })
    }

    /// The level of misses if way `index` were home.
    fn level_of(&self, index: usize) -> Option<Level> {
        let here = self.level();
        let admits = self.ways[index].way.admits_all();
        if admits == self.ways[self.home].way.admits_all() {
            return here;
        }
        match (self.shift, self.ratio) {
            (Some(shift), _) if shift.settled || shift.trial.is_some() => Some(shift.before),
            (_, Some((ratio, _))) => here.map(|h| h.scaled(if admits { ratio } else { -ratio }.exp(), self.layers.into())),
            (_, None) => here,
        }
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

    fn expected(&self, index: usize) -> Option<Estimate> {
        self.cost_at(index, self.level_of(index)?)
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
        if probe.got == 0 && !hopeless {
            return;
        }
        if probe.got < probe.want && !hopeless {
            return;
        }
        self.spent += probe.excess.max(0.0);
        self.probe = None;
        let ledger = &mut self.ways[probe.way];
        ledger.confirmed = if it.seconds > 1.5 * home.seconds { ledger.confirmed + 1 } else { 0 };
        if let (Some(it), Some(home)) = (self.expected(probe.way), self.expected(self.home))
            && it.seconds < (1.0 - MARGIN) * home.seconds
        {
            self.move_home(probe.way);
        }
        // Another that was never measured comes before going back.
        if let Some(unknown) = self.unknown() {
            self.start_probe(unknown, PROBE);
        }
    }

    fn unknown(&self) -> Option<usize> {
        (0..self.ways.len()).find(|&i| i != self.home && self.ways[i].cost.len() == 0)
    }

    /// Makes a way home; if it admits otherwise than the one before, misses will drift.
    fn move_home(&mut self, way: usize) {
        let admits = self.ways[way].way.admits_all();
        if admits != self.ways[self.home].way.admits_all() {
            self.learn_ratio();
            let settled = self.now - self.admits_since >= SETTLED;
            // Dearer at first: misses need time to fall.
            let (it, home) = (self.expected_here(way), self.expected_here(self.home));
            let trial = it.zip(home).filter(|(it, home)| it.seconds > home.seconds).map(|(_, home)| home.seconds);
            self.shift = self.level().map(|before| Shift { before, at: self.now, settled, trial });
            self.admits_since = self.now;
            self.recent.clear();
        }
        self.home = way;
    }

    /// Ends the time after a shift: the levels before and after it tell the ratio.
    fn learn_ratio(&mut self) {
        let Some(shift) = self.shift.take() else { return };
        let settled = (shift.settled || shift.trial.is_some()) && self.now - shift.at >= SETTLED;
        let Some(level) = self.level().filter(|_| settled) else { return };
        let change = (level.misses() / shift.before.misses()).ln();
        let new = if self.ways[self.home].way.admits_all() { change } else { -change };
        let old = self.ratio.map_or(new, |(r, _)| r);
        self.ratio = Some((((new + old) / 2.0).clamp(-2.5, 0.7), self.now));
    }

    /// Whether a trial has shown what it can: misses have settled, or fall no more, or it becomes too dear.
    fn trial_over(&self, shift: Shift, paid: f64, home: Estimate) -> bool {
        let since = self.now - shift.at;
        let mean = |skip: usize| self.recent.iter().rev().skip(skip).take(12).map(|(m, _)| f64::from(*m)).sum::<f64>();
        let falls = mean(0) < 0.97 * mean(12);
        let look = since >= 24 && since % 12 == 0;
        since >= SETTLE || (look && !falls && home.seconds > 1.15 * paid) || self.balance() < -6.0 * paid
    }

    /// A token of home is in: stay, move, or probe?
    fn at_home(&mut self) {
        let Some(home) = self.expected(self.home) else { return };
        if let Some(unknown) = self.unknown() {
            return self.start_probe(unknown, PROBE);
        }
        if let Some(shift) = self.shift {
            if let Some(paid) = shift.trial {
                if !self.trial_over(shift, paid, home) {
                    return;
                }
                self.shift = Some(Shift { trial: None, settled: true, ..shift });
            } else if self.now - shift.at >= SETTLE {
                self.learn_ratio();
            } else if self.recent.len() < 8 {
                return;
            }
        }
        let others: Vec<(usize, Estimate)> =
            (0..self.ways.len()).filter(|&i| i != self.home).filter_map(|i| Some((i, self.expected(i)?))).collect();
        // Move.
        let best = others.iter().min_by(|a, b| a.1.seconds.total_cmp(&b.1.seconds));
        if let Some(&(way, e)) = best
            && home.seconds - e.seconds > MARGIN * home.seconds + 0.5 * e.error.hypot(home.error)
        {
            return self.move_home(way);
        }
        if self.level().is_none() {
            return;
        }
        let balance = self.balance();
        let mut candidates: Vec<(f64, usize, usize)> = Vec::new();
        for &(i, e) in &others {
            let ledger = &self.ways[i];
            let away = self.now - ledger.last;
            let n = ledger.cost.len();
            let spread = e.error.hypot(home.error);
            // Changing there and back costs about a token, too.
            let worse = (e.seconds - home.seconds).max(0.0);
            let cost = |tokens: usize| worse * (tokens as f64 + 1.0) + 0.3 * home.seconds;
            // One or two tokens may have been unlucky. The second look ends at once where the first was right.
            let again = n <= 2 && !ledger.agreed && ledger.looks < 2 && away >= 24;
            // As Student's t: a few tokens may mislead by more of what seem their deviations.
            let open = e.seconds - (2.0 + 3.0 / n.max(1) as f64) * spread < (1.0 - MARGIN) * home.seconds;
            let race = (n.clamp(PROBE, 16), open && away as usize >= (2 * n).max(12));
            let short = if e.seconds > 1.5 * home.seconds { 2 } else { PROBE };
            let interval = (cost(short) / (SCHEDULE * home.seconds)).max(INTERVAL as f64) * f64::from(1 << ledger.confirmed.min(5));
            let scheduled = (short, away as f64 >= interval);
            let due = (short, ledger.due && e.seconds - 1.5 * spread < 1.3 * home.seconds);
            let tokens = [race, due, scheduled, (PROBE, again)].iter().filter(|(_, yes)| *yes).map(|(tokens, _)| *tokens).max();
            if let Some(tokens) = tokens
                && (again || cost(tokens) <= balance)
            {
                candidates.push((e.seconds, i, tokens));
            }
        }
        if let Some(&(_, way, tokens)) = candidates.iter().min_by(|a, b| a.0.total_cmp(&b.0)) {
            return self.start_probe(way, tokens);
        }
        self.maybe_try(home, &others, balance);
    }

    /// Moves home to a way that is dearer at the present level of misses, but may be cheaper at the level to which it leads.
    fn maybe_try(&mut self, home: Estimate, others: &[(usize, Estimate)], balance: f64) {
        if self.now < self.next_trial {
            return;
        }
        let admits = self.ways[self.home].way.admits_all();
        let Some(level) = self.level() else { return };
        // Where the ratio was measured long ago, it may be nearer to 1, or to what it was, by now.
        let hope = match (admits, self.ratio) {
            (false, None) => 0.3,
            (false, Some((ratio, at))) if self.now - at > OLD => (1.5 * ratio - 0.2).exp(),
            (true, Some((_, at))) if self.now - at > OLD => 1.0,
            _ => return,
        };
        let hoped = level.scaled(hope, self.layers.into());
        let way = others
            .iter()
            .filter(|(i, _)| self.ways[*i].way.admits_all() != admits)
            .filter_map(|&(i, _)| Some((i, self.cost_at(i, hoped).map(|e| e.seconds - e.error)?, self.expected_here(i)?.seconds)))
            .min_by(|a, b| a.1.total_cmp(&b.1));
        if let Some((way, best, at_first)) = way
            && best < 0.95 * home.seconds
            && 20.0 * (at_first - home.seconds) < balance
        {
            self.next_trial = self.now + self.trial_wait;
            self.trial_wait = (2 * self.trial_wait).min(1 << 14);
            self.move_home(way);
        }
    }
}
