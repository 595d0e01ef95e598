//! One test: its name, what it runs, and what comes out of it.

use std::{collections::BTreeMap, pin::Pin, sync::Arc};

use pleiad_models::Checkpoint;
use pleiad_runtime::{Error, gpu::GpuDevice};

use crate::{
    report::{Measure, Settings, Test, Verdict},
    summary::number,
};

/// What a test is given.
#[derive(Clone)]
pub(crate) struct Context {
    pub gpu: Arc<GpuDevice>,
    /// The short form.
    pub quick: bool,
    /// The embedded model, where the program does not hold it itself.
    pub tiny: Option<Arc<Checkpoint>>,
}

impl Context {
    /// The embedded model.
    pub fn checkpoint(&self) -> Result<Arc<Checkpoint>> {
        if let Some(tiny) = &self.tiny {
            return Ok(Arc::clone(tiny));
        }
        #[cfg(not(target_arch = "wasm32"))]
        return Checkpoint::tiny().map(Arc::new).map_err(|e| Stop::Fail(e.to_string()));
        #[cfg(target_arch = "wasm32")]
        Err(Stop::Skip("the page has not handed the embedded model over".into()))
    }
}

/// Why a test came to no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The device lacks something: what.
    Skip(String),
    /// An error.
    Fail(String),
}

impl From<Error> for Stop {
    fn from(e: Error) -> Self {
        Self::Fail(e.to_string())
    }
}

/// What a test came to.
pub(crate) type Result<T = Outcome> = std::result::Result<T, Stop>;

type Running = Pin<Box<dyn Future<Output = Result>>>;

/// A test that can be run.
pub(crate) struct Case {
    pub id: String,
    run: Box<dyn FnOnce(Context) -> Running>,
}

impl Case {
    /// The test of that id.
    pub fn new<F: AsyncFnOnce(Context) -> Result + 'static>(id: impl Into<String>, run: F) -> Self {
        Self { id: id.into(), run: Box::new(move |cx| Box::pin(async move { run(cx).await })) }
    }

    /// Runs it; `seconds` is for the caller to fill in.
    pub async fn run(self, cx: Context) -> Test {
        let Self { id, run } = self;
        let (verdict, words, measures) = match run(cx).await {
            Ok(outcome) => {
                let verdict = outcome.verdict();
                (verdict, outcome.told(verdict), outcome.measures)
            }
            Err(Stop::Skip(words)) => (Verdict::Skip, words, BTreeMap::new()),
            Err(Stop::Fail(words)) => (Verdict::Fail, words, BTreeMap::new()),
        };
        Test { id, verdict, words, measures, seconds: 0.0 }
    }
}

/// What a test has measured, and what it has to say.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome {
    words: Vec<String>,
    wrong: Vec<String>,
    measures: BTreeMap<String, Measure>,
    /// It judges nothing.
    info: bool,
}

impl Outcome {
    /// Nothing measured so far.
    pub fn new() -> Self {
        Self::default()
    }

    /// What judges nothing.
    pub fn info() -> Self {
        Self { info: true, ..Self::default() }
    }

    /// With a measure.
    pub fn with(mut self, name: &str, measure: Measure) -> Self {
        self.measures.insert(name.to_owned(), measure);
        self
    }

    /// With something worth telling.
    pub fn say(mut self, words: impl Into<String>) -> Self {
        let words = words.into();
        if !words.is_empty() {
            self.words.push(words);
        }
        self
    }

    /// With something that is wrong, unless `right`.
    pub fn expect(mut self, right: bool, words: impl FnOnce() -> String) -> Self {
        if !right {
            let words = words();
            // The same of many workgroups is told once.
            if !self.wrong.contains(&words) {
                self.wrong.push(words);
            }
        }
        self
    }

    fn beyond(&self) -> impl Iterator<Item = (&String, &Measure)> {
        self.measures.iter().filter(|(_, m)| !m.is_within())
    }

    fn verdict(&self) -> Verdict {
        if !self.wrong.is_empty() || self.beyond().next().is_some() {
            Verdict::Fail
        } else if self.info {
            Verdict::Info
        } else {
            Verdict::Pass
        }
    }

    fn told(&self, verdict: Verdict) -> String {
        let mut all = self.wrong.clone();
        if verdict == Verdict::Fail {
            all.extend(self.beyond().map(|(name, m)| {
                let bound = match (m.most, m.least) {
                    (Some(most), _) if m.value.is_nan() || m.value > most => format!("at most {}", number(most)),
                    (_, Some(least)) => format!("at least {}", number(least)),
                    (Some(most), None) => format!("at most {}", number(most)),
                    (None, None) => "a number".into(),
                };
                let unit = if m.unit.is_empty() { String::new() } else { format!(" {}", m.unit) };
                let at = if m.at.is_empty() { String::new() } else { format!(" at {}", m.at) };
                format!("{name} {}{unit}{at}: {bound} allowed", number(m.value))
            }));
        }
        all.extend(self.words.iter().cloned());
        all.join("; ")
    }
}

impl Measure {
    pub(crate) fn new(value: f64, unit: &str) -> Self {
        Self { value, unit: unit.to_owned(), ..Self::default() }
    }

    pub(crate) fn most(self, most: f64) -> Self {
        Self { most: Some(most), ..self }
    }

    pub(crate) fn least(self, least: f64) -> Self {
        Self { least: Some(least), ..self }
    }

    pub(crate) fn at(self, at: impl Into<String>) -> Self {
        Self { at: at.into(), ..self }
    }

    pub(crate) fn curve(self, curve: Vec<(f64, f64)>) -> Self {
        Self { curve, ..self }
    }
}

/// The tests of a section, which may leave some out.
pub(crate) struct Cases<'a> {
    pub settings: &'a Settings,
    all: Vec<Case>,
}

impl<'a> Cases<'a> {
    pub fn new(settings: &'a Settings) -> Self {
        Self { settings, all: Vec::new() }
    }

    /// Adds a test if it is asked for.
    pub fn add<F: AsyncFnOnce(Context) -> Result + 'static>(&mut self, id: impl Into<String>, run: F) {
        let id = id.into();
        if self.settings.only.is_empty() || self.settings.only.iter().any(|o| id.contains(o.as_str())) {
            self.all.push(Case::new(id, run));
        }
    }

    pub fn into_all(self) -> Vec<Case> {
        self.all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_measure_beyond_its_bound_fails_and_says_so() {
        let good = Outcome::new().with("nmse", Measure::new(1e-9, "").most(1e-8)).say("fine");
        assert_eq!((good.verdict(), good.told(Verdict::Pass)), (Verdict::Pass, "fine".to_owned()));
        let bad = Outcome::info().with("worst", Measure::new(7.0, "ulp").most(2.5).at("0x3f800000"));
        assert_eq!(bad.verdict(), Verdict::Fail);
        assert_eq!(bad.told(Verdict::Fail), "worst 7 ulp at 0x3f800000: at most 2.5 allowed");
        let nan = Outcome::new().with("nmse", Measure::new(f64::NAN, "").most(1.0));
        assert_eq!(nan.verdict(), Verdict::Fail);
        assert_eq!(Outcome::new().expect(false, || "no".into()).told(Verdict::Fail), "no");
        assert_eq!(Outcome::info().verdict(), Verdict::Info);
    }
}
