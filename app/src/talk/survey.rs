//! Prompt packs that are read to see which experts they use.

use std::{collections::VecDeque, sync::Arc, task::Poll};

use pleiad_runtime::{Engine, Event, GenerateOptions, Generation, SamplingParams, Session, experts::trace::Routed};

use super::{run::next_event, sessions::same, talker::Notice};
use crate::{
    activity::Shape,
    conversation::Prompter,
    loading::{LoadedModel, Models},
};

/// A text that is being read, in a session of its own.
struct Reading {
    name: String,
    shape: Arc<Shape>,
    /// Tokens of the text.
    length: usize,
    /// Of these, the ones that the engine has read.
    done: usize,
    /// Uses of experts, `[rows, experts]`.
    counts: Vec<u64>,
    generation: Generation,
    /// What it has in the latent cache is given back with it.
    session: Session,
}

impl Reading {
    /// Begins to read a text; what is beyond the context is left out.
    fn start(name: String, text: &str, engine: &Engine, prompter: &Prompter, shape: &Arc<Shape>) -> Result<Self, String> {
        let mut ids = prompter.raw(text).map_err(|e| e.to_string())?.ids;
        ids.truncate(engine.info().context.saturating_sub(1));
        let length = ids.len();
        let session = engine.session();
        // The engine generates a token at least; that one is not read, so it chooses no experts.
        let options = GenerateOptions { max_tokens: Some(1), ..GenerateOptions::default() };
        let generation = session.generate(ids, SamplingParams::default(), options);
        let counts = vec![0; shape.cells()];
        Ok(Self { name, shape: Arc::clone(shape), length, done: 0, counts, generation, session })
    }

    /// Takes what has come. `Some`: it is over, well or not.
    fn poll(&mut self) -> Option<Result<(), String>> {
        loop {
            match next_event(&mut self.generation) {
                Poll::Pending => return None,
                Poll::Ready(Some(Event::Routed(rows))) => self.count(&rows),
                Poll::Ready(Some(Event::Prompt(p))) => {
                    // An engine that lost its device reads everything again.
                    if p.done < self.done {
                        self.counts.fill(0);
                    }
                    self.done = p.done;
                }
                Poll::Ready(Some(Event::Token { .. } | Event::Notice(_))) => {}
                Poll::Ready(Some(Event::Failed(error))) => return Some(Err(error.to_string())),
                Poll::Ready(Some(Event::Done { .. })) if self.done < self.length => {
                    return Some(Err("it was stopped before it was read".into()));
                }
                Poll::Ready(Some(Event::Done { .. })) if self.counts.iter().all(|&n| n == 0) => {
                    return Some(Err("the engine does not tell which experts tokens choose".into()));
                }
                Poll::Ready(Some(Event::Done { .. })) => return Some(Ok(())),
                Poll::Ready(None) => return Some(Err("the engine stopped".into())),
            }
        }
    }

    fn count(&mut self, rows: &[Routed]) {
        for routed in rows.iter().filter(|r| (r.position as usize) < self.length) {
            let (expert, experts) = (usize::from(routed.expert), self.shape.experts);
            if expert < experts
                && let Some(row) = self.shape.row_of(usize::from(routed.layer))
                && let Some(count) = self.counts.get_mut(row * experts + expert)
            {
                *count += 1;
            }
        }
    }
}

/// Texts that are read one after the other.
#[derive(Default)]
pub struct Surveys {
    /// Names and texts.
    waiting: VecDeque<(String, String)>,
    now: Option<Reading>,
    done: Vec<(String, Vec<u64>)>,
}

impl std::fmt::Debug for Surveys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Surveys").field("under_way", &self.under_way()).finish_non_exhaustive()
    }
}

impl Surveys {
    /// Reads a text after those that wait.
    pub fn add(&mut self, name: &str, text: &str) {
        self.waiting.push_back((name.to_owned(), text.to_owned()));
    }

    /// Forgets what is under way and what waits.
    pub fn stop(&mut self) {
        self.waiting.clear();
        self.now = None;
    }

    /// Takes what the engine has said, and begins the next text when one is over.
    pub fn poll(&mut self, models: &Models) -> Vec<Notice> {
        if !self.busy() {
            return Vec::new();
        }
        let model = models.get(None);
        let (engine, rest) = (model.map(|m| &m.engine), model.and_then(|m| Some((&*m.prompter, m.shape.as_ref()?))));
        self.step(engine.zip(rest).map(|(engine, (prompter, shape))| (engine, prompter, shape)), model.map(LoadedModel::key))
    }

    /// As [`Surveys::poll`], with the parts of the model that are needed, where it has experts; and its key.
    fn step(&mut self, model: Option<(&Engine, &Prompter, &Arc<Shape>)>, key: Option<String>) -> Vec<Notice> {
        let mut notices = Vec::new();
        let gone = |r: &Reading| model.is_none_or(|(engine, ..)| !same(r.session.engine(), engine));
        if self.now.as_ref().is_some_and(gone) {
            // It keeps its model in memory, and what another model says of the texts that wait compares with nothing.
            self.stop();
            notices.push(Notice::Problem("The model was let go before it had read all texts.".into()));
        }
        loop {
            if let Some(reading) = &mut self.now {
                let Some(result) = reading.poll() else { return notices };
                // Taken, so that its pages are given back before the next text needs any.
                let Some(reading) = self.now.take() else { return notices };
                match result {
                    Ok(()) => self.done.push((reading.name, reading.counts)),
                    Err(why) => notices.push(Notice::Problem(format!("{} could not be read: {why}", reading.name))),
                }
            }
            let Some((engine, prompter, shape)) = model else {
                if !self.waiting.is_empty() {
                    self.waiting.clear();
                    notices.push(Notice::Problem(match key {
                        None => "No model is loaded yet, so nothing can be read with it.".into(),
                        Some(key) => format!("{key} has no experts to look at."),
                    }));
                }
                return notices;
            };
            let Some((name, text)) = self.waiting.pop_front() else { return notices };
            match Reading::start(name.clone(), &text, engine, prompter, shape) {
                Ok(reading) => self.now = Some(reading),
                Err(why) => notices.push(Notice::Problem(format!("{name} could not be read: {why}"))),
            }
        }
    }

    /// What was read since this was last asked: the name, and uses of every expert `[rows, experts]`.
    pub fn take(&mut self) -> Vec<(String, Vec<u64>)> {
        std::mem::take(&mut self.done)
    }

    /// What is being read, and how many texts wait behind it.
    pub fn under_way(&self) -> Option<(&str, usize)> {
        match (&self.now, self.waiting.front()) {
            (Some(reading), _) => Some((&reading.name, self.waiting.len())),
            (None, Some((name, _))) => Some((name, self.waiting.len() - 1)),
            (None, None) => None,
        }
    }

    /// Whether anything is under way.
    pub fn busy(&self) -> bool {
        self.now.is_some() || !self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

    use std::time::{Duration, Instant};

    use super::{super::tiny, *};

    fn finish(surveys: &mut Surveys, tiny: &tiny::Tiny) -> Vec<Notice> {
        let (mut notices, started) = (Vec::new(), Instant::now());
        while surveys.busy() {
            assert!(started.elapsed() < Duration::from_secs(60));
            notices.extend(surveys.step(Some((&tiny.engine, &tiny.prompter, &tiny.shape)), None));
            std::thread::sleep(Duration::from_micros(200));
        }
        notices
    }

    #[test]
    fn every_token_of_a_text_counts_once_in_every_layer() {
        let tiny = tiny::load();
        // Longer than a chunk of the prompt.
        let text = "The quick brown fox jumps over the lazy dog. ".repeat(6);
        let mut surveys = Surveys::default();
        for name in ["fox", "again", "short"] {
            surveys.add(name, if name == "short" { "fn main() {}" } else { &text });
        }
        assert_eq!(surveys.under_way(), Some(("fox", 2)));
        assert!(finish(&mut surveys, &tiny).is_empty());
        let done = surveys.take();
        assert!(surveys.take().is_empty() && surveys.under_way().is_none());
        assert_eq!(done.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["fox", "again", "short"]);
        for ((_, counts), text) in done.iter().zip([&text, &text, "fn main() {}"]) {
            let tokens = tiny.prompter.raw(text).unwrap().ids.len() as u64;
            for row in counts.chunks(tiny.shape.experts) {
                assert_eq!(row.iter().sum::<u64>(), tokens * tiny.shape.top_k as u64);
                assert!(row.iter().all(|&n| n <= tokens));
            }
            assert_eq!(counts.len(), tiny.shape.cells());
        }
        // Nothing of the first reading was taken from the cache for the second.
        assert_eq!(done[0].1, done[1].1);
        assert_ne!(done[0].1, done[2].1);
    }

    #[test]
    fn what_cannot_be_read_is_told() {
        let tiny = tiny::load();
        let mut surveys = Surveys::default();
        surveys.add("a", "x");
        assert!(matches!(&surveys.step(None, None)[..], [Notice::Problem(_)]));
        assert!(!surveys.busy());
        // A text longer than the context is read as far as it goes.
        let long = "word ".repeat(2 * tiny.engine.info().context);
        surveys.add("long", &long);
        assert!(finish(&mut surveys, &tiny).is_empty());
        let read = surveys.take()[0].1.iter().sum::<u64>();
        assert_eq!(read, (tiny.engine.info().context - 1) as u64 * (tiny.shape.rows.len() * tiny.shape.top_k) as u64);
        surveys.add("b", &long);
        surveys.step(Some((&tiny.engine, &tiny.prompter, &tiny.shape)), None);
        surveys.stop();
        assert!(!surveys.busy() && surveys.take().is_empty());
    }

    #[test]
    fn a_model_that_is_let_go_reads_no_further() {
        let (old, new) = (tiny::load(), tiny::load());
        let mut surveys = Surveys::default();
        surveys.add("a", &"word ".repeat(400));
        surveys.add("b", "x");
        assert!(surveys.step(Some((&old.engine, &old.prompter, &old.shape)), None).is_empty());
        assert!(surveys.now.is_some());
        let notices = surveys.step(Some((&new.engine, &new.prompter, &new.shape)), None);
        assert!(matches!(&notices[..], [Notice::Problem(_)]) && !surveys.busy(), "{notices:?}");
    }
}
