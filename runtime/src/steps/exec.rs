//! A model on a device, its plans, and steps through them.

use std::collections::VecDeque;

use web_time::Instant;

use super::{
    backend::{Backend, MAX_IDS, RING_WORDS},
    plan::Prepared,
    result::{Layout, sampled},
    serve::Server,
};
use crate::{
    error::{Error, Result},
    executor::{DeviceStats, LoadOptions, PlanId, Readback, StepOutput, Ticket},
    experts::{ExpertReport, record::CHOICE_WORDS, trace::Served, ways::Way},
    model::Model,
    plan::{Plan, VecId},
    step::{MAX_TAKEN, RING, StepState},
};

/// Results that may be on their way at once.
pub(super) const RESULTS: usize = 32;

/// What a step was asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    pub plan: usize,
    pub tokens: u32,
    /// Positions that the cache holds after it.
    pub length: u32,
    pub readback: Readback,
    /// `sampled` as the step finds it unless generation has stopped.
    pub sampled: u32,
}

/// A part of a step on its way.
pub(super) struct Flight<F> {
    pub fetch: F,
    /// What is in its result.
    pub layout: Layout,
    /// The operation before which it ends.
    pub end: usize,
}

/// How far a step is.
pub(super) enum Stage<F> {
    /// Not submitted: steps before it may have to be taken up again, or it takes more than one submission.
    Waiting,
    /// Submitted, to its end or to a layer on the way.
    Running(Flight<F>),
    /// Over.
    Done(StepOutput),
}

/// A step whose result was not fetched yet.
pub(super) struct Pending<F> {
    pub ticket: u64,
    pub run: Run,
    pub stage: Stage<F>,
    /// How its misses are served.
    pub way: Option<Way>,
    pub started: Instant,
    /// Misses served so far: bank, expert, how.
    pub served: Vec<(usize, u16, Served)>,
}

/// A model on a device, with its plans.
pub struct Steps<B: Backend> {
    pub(crate) backend: B,
    /// Where experts live in slots, or their use is recorded.
    pub(super) server: Option<Box<Server>>,
    pub(crate) plans: Vec<Prepared<B>>,
    pub(super) pending: VecDeque<Pending<B::Fetch>>,
    next_ticket: u64,
    /// What the host knows of the device's step state: tokens, position, sampled.
    pub(super) tokens: u32,
    /// How many of these tokens are drafts.
    pub(super) drafted: u32,
    /// Where steps under way end if all drafts are right.
    pos: u32,
    sampled: u32,
    last: StepOutput,
    pub(super) report: ExpertReport,
    pub(super) stats: DeviceStats,
}

impl<B: Backend> Steps<B> {
    /// Uploads `model` to `device` and makes its latent caches. `progress` is called with bytes done and in all.
    ///
    /// Where the budget, or the device, does not hold all experts, as many as fit get slots.
    ///
    /// # Errors
    ///
    /// Out of memory, a limit of the device, or its loss; the device may be used again after the first two. A budget that does
    /// not hold what a token needs at the least.
    pub async fn load(
        device: B::Device,
        model: std::sync::Arc<Model>,
        options: &LoadOptions,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self> {
        let (mut backend, server, report) = super::place::load::<B>(&device, model, options, progress).await?;
        let shared = backend.shared();
        let (config, drafts) = (&shared.model.config, shared.model.mtp.is_some());
        let (banks, top_k) = (shared.model.banks.len(), config.moe.as_ref().map_or(0, |m| m.top_k));
        let partial = server.as_ref().is_some_and(|s| s.partial());
        // Tokens of a step that decodes.
        let tokens = if drafts { MAX_TAKEN } else { 1 };
        let largest = Layout {
            token: RING_WORDS,
            halt: 1,
            record: if shared.slots.is_some() { tokens * banks * top_k * CHOICE_WORDS } else { 0 },
            // Of each; its experts read h values, in 8 bits or in f32, or in both.
            rows: if partial { tokens * config.hidden_size * 2 } else { 0 },
            counters: shared.counter_len,
            taken: if drafts { StepState::TAKEN.1 } else { 0 },
        };
        let bytes = shared.weight_bytes;
        backend.expect(RESULTS, largest.words()).await?;
        Ok(Self {
            backend,
            server,
            plans: Vec::new(),
            pending: VecDeque::new(),
            next_ticket: 0,
            tokens: 0,
            drafted: 0,
            pos: 0,
            sampled: 0,
            last: StepOutput::default(),
            report,
            stats: DeviceStats { weight_bytes: bytes, uploaded_bytes: bytes, ..DeviceStats::default() },
        })
    }

    /// Prepares a plan: kernels, activations, dispatches.
    ///
    /// # Errors
    ///
    /// Out of memory, a limit of the device, or a kernel that its driver refuses.
    pub fn compile(&mut self, plan: &Plan) -> Result<PlanId> {
        let needed = plan.max_tokens as u64;
        if needed == 0 || plan.max_tokens > MAX_IDS {
            return Err(Error::Limit { what: "tokens of one step".into(), needed, limit: MAX_IDS as u64 });
        }
        if let Some(slots) = self.backend.shared().slots.as_ref().filter(|s| plan.max_tokens > s.tokens) {
            let limit = slots.tokens as u64;
            return Err(Error::Limit { what: "tokens of one step, as the model was loaded".into(), needed, limit });
        }
        let lowered = self.backend.lower(plan)?;
        self.stats.bind_groups += lowered.bind_groups;
        let layers = self.backend.shared().model.layers.len();
        self.plans.push(Prepared::new(plan, lowered, layers));
        Ok(PlanId(self.plans.len() - 1))
    }

    /// Sets what the next steps read. Entries of `pages` beyond the context are ignored.
    pub fn write_step(&mut self, step: &StepState, pages: &[u32]) {
        let on_miss = self.server.as_mut().map_or(0, |s| {
            // What follows has not to do with the token before.
            s.last_done = None;
            s.on_miss
        });
        let step = StepState { halt: 0, on_miss, ..*step };
        let (at, ring) = (self.backend.shared().step.clone(), self.backend.shared().ring.clone());
        self.upload(&at, 0, bytemuck::cast_slice(std::slice::from_ref(&step)));
        self.write_pages(pages);
        // A slot that no step has written since then must not look like a result.
        self.upload(&ring, 0, &[u32::MAX; RING * RING_WORDS]);
        (self.tokens, self.drafted) = (step.tokens, step.drafted);
        (self.pos, self.sampled) = (step.pos, step.sampled);
    }

    /// Sets the pages alone: a session's next page, while it decodes.
    pub fn write_pages(&mut self, pages: &[u32]) {
        let pages = &pages[..pages.len().min(self.backend.shared().max_pages)];
        self.write_state((StepState::WORDS * 4) as u64, pages);
    }

    /// Sets the token ids of the next step. More than a step can have are ignored.
    pub fn write_ids(&mut self, ids: &[u32]) {
        let at = self.backend.shared().ids.clone();
        self.upload(&at, 0, &ids[..ids.len().min(MAX_IDS)]);
    }

    /// Replaces a vector of weights.
    pub fn write_vector(&mut self, id: VecId, values: &[f32]) {
        let Some((buffer, offset, words)) = self.backend.shared().vectors.get(id.0 as usize).cloned() else { return };
        self.upload(&buffer, offset, bytemuck::cast_slice(&values[..values.len().min(words)]));
    }

    pub(super) fn upload(&mut self, buffer: &B::Buffer, offset: u64, words: &[u32]) {
        if !words.is_empty() {
            self.backend.write(buffer, offset, words);
            self.stats.uploaded_bytes += (words.len() * 4) as u64;
        }
    }

    /// Writes words of the device's step state.
    pub(super) fn write_state(&mut self, offset: u64, words: &[u32]) {
        let at = self.backend.shared().step.clone();
        self.upload(&at, offset, words);
    }

    /// Starts a step of `tokens` tokens; what it reads was written before, or by the sampling step before it.
    ///
    /// # Errors
    ///
    /// A lost device, or a step that does not fit the plan or the context.
    pub fn submit(&mut self, plan: PlanId, tokens: usize, readback: Readback) -> Result<Ticket> {
        self.backend.check()?;
        let length = self.fits(plan, tokens)? as u32;
        let run = Run { plan: plan.0, tokens: tokens as u32, length, readback, sampled: self.sampled };
        // Steps that may miss experts are completed in order, and none is given up.
        if self.server.is_none() && (readback.token || readback.counters) {
            self.reclaim();
        }
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.pending.push_back(Pending {
            ticket,
            run,
            stage: Stage::Waiting,
            way: None,
            started: Instant::now(),
            served: Vec::new(),
        });
        let last = self.pending.len() - 1;
        if self.may_start(last)
            && let Err(e) = self.start(last)
        {
            // Nobody has a ticket for it.
            self.pending.pop_back();
            return Err(e);
        }
        if self.plans[plan.0].samples {
            self.pos += tokens as u32;
            self.sampled += 1;
        }
        Ok(Ticket(ticket))
    }

    /// Checks a step against plan, step state and context; returns the positions that it sees.
    fn fits(&self, plan: PlanId, tokens: usize) -> Result<usize> {
        let plan = self.plan(plan)?;
        if tokens == 0 || tokens > plan.max_tokens {
            return Err(Error::Invalid(format!("a step of {tokens} tokens: the plan takes 1 to {}", plan.max_tokens)));
        }
        let (length, limit) = (self.pos as usize + tokens, self.backend.shared().max_context);
        if length > limit {
            let what = "positions of the context".into();
            return Err(Error::Limit { what, needed: length as u64, limit: limit as u64 });
        }
        Ok(length)
    }

    pub(crate) fn plan(&self, plan: PlanId) -> Result<&Prepared<B>> {
        self.plans.get(plan.0).ok_or_else(|| Error::Invalid(format!("there is no plan {}", plan.0)))
    }

    /// Waits for a step. A step that began after generation had stopped repeats the last token.
    ///
    /// # Errors
    ///
    /// A lost device; a ticket whose result was fetched or given up.
    pub async fn wait(&mut self, ticket: Ticket) -> Result<StepOutput> {
        let Some(at) = self.pending.iter().position(|p| p.ticket == ticket.0) else {
            return Err(Error::Invalid(format!("the result of step {} is not waiting", ticket.0)));
        };
        // Steps may miss experts: they are completed in order.
        let first = if self.server.is_some() { 0 } else { at };
        for i in first..=at {
            if let Err(e) = self.complete(i).await {
                // What else is under way is of no use any more.
                self.give_up_from(0);
                self.pending.clear();
                return Err(e);
            }
        }
        match self.pending.remove(at).map(|p| p.stage) {
            Some(Stage::Done(output)) => Ok(output),
            _ => Err(Error::Invalid(format!("the result of step {} is not waiting", ticket.0))),
        }
    }

    /// The result of a run from what it has read back, and whether it came before the end of the generation.
    pub(super) fn output(&mut self, run: &Run, words: &[u32], layout: Layout) -> (StepOutput, bool) {
        let mut alive = true;
        self.last.before.clear();
        if layout.taken > 0 {
            let taken = layout.taken_of(words);
            alive = taken.count > 0;
            if let Some((last, before)) = taken.tokens.split_last() {
                (self.last.token, self.last.logit) = *last;
                self.last.before = before.to_vec();
                // What was counted on was that all drafts are right.
                self.pos = self.pos.saturating_sub(self.plans[run.plan].verifies as u32 - taken.count);
                self.sampled += taken.count - 1;
            }
        } else if run.readback.token {
            match sampled(layout.token_of(words), run.sampled) {
                Some(token) => (self.last.token, self.last.logit) = token,
                None => alive = false,
            }
        }
        let counters = run.readback.counters.then(|| layout.counters_of(words).to_vec());
        (StepOutput { counters, routed: None, ..self.last.clone() }, alive)
    }
}

impl<B: Backend> Drop for Steps<B> {
    fn drop(&mut self) {
        self.give_up_from(0);
    }
}
