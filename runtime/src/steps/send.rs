//! Submissions, and their results.

use super::{
    backend::{Backend, RING_WORDS, Span},
    exec::{Flight, RESULTS, Run, Stage, Steps},
    plan::{Part, StepShape},
    result::Layout,
};
use crate::{
    error::{Error, Result},
    experts::{record::CHOICE_WORDS, ways::Way},
    step::{RING, StepState},
};

impl<B: Backend> Steps<B> {
    /// Submits operations of step `i` from `from` on, after `lead`, up to `end`, with its readback.
    pub(super) fn send(&mut self, i: usize, lead: &[Part], from: usize, end: usize) -> Result<()> {
        let Some(p) = self.pending.get(i) else { return Ok(()) };
        let (run, gather) = (p.run, p.way == Some(Way::Gather));
        let plan = &self.plans[run.plan];
        let (samples, verifies, drafts) = (plan.samples, plan.verifies as u32, plan.drafts as u32);
        let whole = end == plan.ops;
        let layout = self.layout(i, whole);
        let result = self.spans(&run, layout);
        if run.tokens != self.tokens {
            self.write_state(0, &[run.tokens]);
            self.tokens = run.tokens;
        }
        let drafted = verifies.saturating_sub(1);
        if verifies > 0 && drafted != self.drafted {
            self.write_state(StepState::DRAFTED, &[drafted]);
            self.drafted = drafted;
        }
        let parts: Vec<Part> = lead.iter().cloned().chain([Part::Ops(from..end)]).collect();
        let fetch = self.run(&run, gather, &parts, &result)?;
        if whole && samples {
            self.tokens = drafts + 1;
            if verifies > 0 {
                self.drafted = drafts;
            }
        }
        self.pending[i].stage = Stage::Running(Flight { fetch, layout, end });
        Ok(())
    }

    /// Submits parts of a run without a readback.
    pub(super) fn send_quietly(&mut self, run: &Run, parts: &[Part]) -> Result<B::Fetch> {
        self.run(run, false, parts, &[])
    }

    fn run(&mut self, run: &Run, gather: bool, parts: &[Part], result: &[Span<B::Buffer>]) -> Result<B::Fetch> {
        let shape = StepShape { tokens: run.tokens, length: run.length, gather };
        let (fetch, dispatches) = self.backend.submit(&mut self.plans[run.plan], parts, shape, result)?;
        self.stats.dispatches += dispatches;
        self.stats.submissions += 1;
        self.stats.readbacks += u64::from(!result.is_empty());
        Ok(fetch)
    }

    /// What a submission of step `i` leaves for the host; `whole`: it is the last one.
    fn layout(&self, i: usize, whole: bool) -> Layout {
        let Some(run) = self.pending.get(i).map(|p| p.run) else { return Layout::default() };
        let (plan, shared) = (&self.plans[run.plan], self.backend.shared());
        let (tokens, tracked) = (run.tokens as usize, shared.slots.is_some());
        // Misses are known from the record; without layers that miss it is of interest once, at the end.
        let misses = self.partial();
        let (token, counters) = (whole && run.readback.token, whole && run.readback.counters);
        let of = |wanted: bool, words: usize| if wanted { words } else { 0 };
        Layout {
            token: of(token && plan.verifies == 0, RING_WORDS),
            halt: of(misses, 1),
            record: of(tracked && (whole || misses), plan.mixtures.len() * tokens * plan.top_k() * CHOICE_WORDS),
            rows: if self.wants_rows(i) { plan.cold_words(tokens) } else { 0 },
            counters: of(counters, shared.counter_len),
            taken: of(token && plan.verifies > 0, StepState::TAKEN.1),
        }
    }

    /// Where the parts of a result are.
    fn spans(&self, run: &Run, layout: Layout) -> Vec<Span<B::Buffer>> {
        let shared = self.backend.shared();
        let mut spans = Vec::new();
        let mut add = |buffer: &B::Buffer, offset: u64, words: usize| {
            if words > 0 {
                spans.push(Span { buffer: buffer.clone(), offset, words });
            }
        };
        add(&shared.ring, (run.sampled as usize % RING * RING_WORDS * 4) as u64, layout.token);
        add(&shared.step, StepState::HALT, layout.halt);
        if let Some(slots) = &shared.slots {
            add(&slots.tables, (slots.record * 4) as u64, layout.record);
        }
        if layout.rows > 0 {
            for act in self.plans[run.plan].cold_inputs() {
                add(&act.buffer, 0, act.row_words * run.tokens as usize);
            }
        }
        add(&shared.counters, 0, layout.counters);
        add(&shared.step, StepState::TAKEN.0, layout.taken);
        spans
    }

    /// Fetches what step `i` has read back so far: its words, and where the submission ended.
    pub(super) async fn fetch(&mut self, i: usize) -> Result<(Vec<u32>, Layout, usize)> {
        let Some(p) = self.pending.get_mut(i) else { return Ok((Vec::new(), Layout::default(), 0)) };
        let Stage::Running(flight) = std::mem::replace(&mut p.stage, Stage::Waiting) else {
            return Err(Error::Gpu("a step that was not submitted has no result".into()));
        };
        let words = self.backend.fetched(flight.fetch).await?;
        Ok((words, flight.layout, flight.end))
    }

    /// Gives up results that nobody fetched in time, the oldest first, until there is room for another.
    pub(super) fn reclaim(&mut self) {
        let stale = |s: &Stage<B::Fetch>| matches!(s, Stage::Running(f) if f.layout.words() > 0);
        while self.pending.iter().filter(|p| stale(&p.stage)).count() >= RESULTS {
            let oldest = self.pending.iter().position(|p| stale(&p.stage)).and_then(|i| self.pending.remove(i));
            if let Some(Stage::Running(flight)) = oldest.map(|p| p.stage) {
                self.backend.forget(flight.fetch);
            }
        }
    }

    /// Gives up what the steps from `first` on have under way: they have yet to be submitted.
    pub(super) fn give_up_from(&mut self, first: usize) {
        for p in self.pending.iter_mut().skip(first) {
            if let Stage::Running(flight) = std::mem::replace(&mut p.stage, Stage::Waiting) {
                self.backend.forget(flight.fetch);
            }
        }
    }
}
