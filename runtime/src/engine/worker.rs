//! The worker: owns the device and takes requests in turns.

mod recovery;

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    time::Duration,
};

use async_channel::Receiver;
use pleiad_models::{TextStream, config::Scoring};
use web_time::Instant;

use super::{
    Command, MemoryUse,
    breath::Breathing,
    drafting::Drafting,
    load::{Loaded, in_flight},
    plans::Plans,
    request::{DoneReason, Event, GenerationStats, HostTimes, Progress, Request},
};
use crate::{
    Error, Result,
    executor::{DeviceChoice, DeviceStats, Executor, LoadOptions, Readback, StepOutput, Ticket},
    experts::{
        ExpertReport,
        budget::cache_bytes,
        walk::{Routing, Walk},
    },
    forward::{Output, Speculation},
    model::Model,
    pages::{Held, PagePool},
    plan::VecId,
    step::{PAGE, StepState},
};

/// Tokens that a generation may decode before the next one has its turn.
const TURN: usize = 16;

/// Standard deviation of wandering biases, in units of what scores spread over.
const SPREAD: f32 = 1.0;

/// How often it is told which experts the device holds.
const RESIDENCY_EVERY: Duration = Duration::from_millis(200);

/// What the worker shows to those who have a handle.
pub(super) struct Shown {
    /// What [`super::Engine::experts`] tells.
    pub experts: Arc<Mutex<Option<ExpertReport>>>,
    /// What [`super::Engine::resident`] tells.
    pub resident: Arc<Mutex<Arc<[bool]>>>,
    /// What [`super::Engine::memory`] tells.
    pub memory: Arc<Mutex<MemoryUse>>,
}

/// Owns the device; [`Worker::run`] serves requests until all handles are gone.
pub struct Worker {
    commands: Receiver<Command>,
    executor: Executor,
    model: Arc<Model>,
    tokenizer: Option<pleiad_models::Tokenizer>,
    plans: Plans,
    /// Tokens in flight, if it was asked for.
    asked_in_flight: Option<usize>,
    in_flight: usize,
    context: usize,
    /// Where the model was to run.
    device: DeviceChoice,
    /// When the device was opened again, of late.
    reopened: VecDeque<Instant>,
    breathing: Breathing,
    drafting: Drafting,
    load: LoadOptions,
    pool: PagePool,
    sessions: HashMap<u64, Held>,
    jobs: VecDeque<Job>,
    /// Requests accepted so far.
    serial: u64,
    /// The session whose step the device holds.
    on_device: Option<u64>,
    /// Why the worker serves nobody any more.
    broken: Option<Error>,
    /// Biases that wander, and the vectors that they are written to.
    walk: Option<(Walk, Vec<Option<VecId>>)>,
    shown: Shown,
    /// When it was last told which experts the device holds.
    resident_at: Option<Instant>,
}

/// A generation under way.
struct Job {
    request: Request,
    serial: u64,
    /// The device's step as it will be once everything in flight is done.
    step: StepState,
    /// Tokens of the prompt in the cache; `None`: not started.
    prefilled: Option<usize>,
    last: u32,
    generated: Vec<u32>,
    in_flight: VecDeque<Step>,
    /// Drafts that the device has for the next step.
    drafted: usize,
    text: Option<TextStream>,
    stats: GenerationStats,
    started: Instant,
    first_token: Option<Instant>,
    device_at: DeviceStats,
    /// The device's counters when they were last read.
    counters: Vec<u32>,
    /// Uses of experts since the last token that was reported.
    uses: Vec<u32>,
}

/// A step on its way.
struct Step {
    ticket: Ticket,
    /// Drafts among its tokens.
    verify: usize,
    /// Drafts that it makes; `None`: it has nothing to do with drafts.
    draft: Option<usize>,
}

/// What a turn came to.
enum Turn {
    More,
    Over(DoneReason),
}

impl Worker {
    pub(super) fn new(loaded: Loaded, commands: Receiver<Command>, shown: Shown) -> Self {
        let walk = (loaded.options.routing == Routing::Walk).then(|| {
            let (banks, moe) = (loaded.model.banks.len(), loaded.model.config.moe.as_ref());
            // Softmax spreads one unit of mass over all experts, a sigmoid gives each its own.
            let spread = match moe.map(|m| m.scoring) {
                Some(Scoring::Softmax) => SPREAD / moe.map_or(1, |m| m.num_experts) as f32,
                _ => SPREAD / 4.0,
            };
            (Walk::new(banks, moe.map_or(0, |m| m.num_experts), spread, 1), loaded.model.biases())
        });
        let worker = Self {
            walk,
            commands,
            plans: loaded.plans,
            asked_in_flight: loaded.options.in_flight,
            in_flight: in_flight(&loaded.executor, loaded.options.in_flight),
            device: loaded.options.device,
            reopened: VecDeque::new(),
            breathing: Breathing::new(),
            drafting: Drafting::new(loaded.model.mtp.is_some(), loaded.options.draft),
            context: loaded.info.context,
            pool: PagePool::new(loaded.load.positions),
            load: loaded.load,
            executor: loaded.executor,
            model: loaded.model,
            tokenizer: loaded.tokenizer,
            sessions: HashMap::new(),
            jobs: VecDeque::new(),
            serial: 0,
            on_device: None,
            broken: None,
            shown,
            resident_at: None,
        };
        worker.show_memory(true);
        worker
    }

    /// Serves requests until every handle is gone.
    pub async fn run(mut self) {
        self.show_residency().await;
        loop {
            if self.jobs.is_empty() {
                match self.commands.recv().await {
                    Ok(command) => self.accept(command),
                    Err(_) => return,
                }
            }
            self.breathing.pause().await;
            while let Ok(command) = self.commands.try_recv() {
                self.accept(command);
            }
            let Some(mut job) = self.next_job() else { continue };
            match self.turn(&mut job).await {
                Ok(Turn::More) => self.jobs.push_back(job),
                Ok(Turn::Over(reason)) => {
                    if job.first_token.is_some() {
                        job.stats.decode_device = self.executor.stats().since(job.device_at);
                    }
                    self.publish().await;
                    let text = job.text.take().map_or_else(String::new, TextStream::finish);
                    job.send(Event::Done { reason, text, stats: job.stats });
                }
                Err(e) => self.fail(job, e).await,
            }
        }
    }

    /// Tells how full the latent cache is; `all`: and what was allocated.
    fn show_memory(&self, all: bool) {
        let mut memory = self.shown.memory.lock().unwrap_or_else(PoisonError::into_inner);
        if all {
            memory.cache_bytes = cache_bytes(&self.model, self.load.positions, self.load.cache);
            memory.work_bytes = self.executor.work_bytes(memory.cache_bytes);
        }
        memory.positions = self.pool.capacity() * PAGE;
        memory.taken = taken(self.sessions.values());
    }

    /// Shows how misses were served, and keeps what was learnt about the use of experts.
    async fn publish(&mut self) {
        self.show_memory(true);
        *self.shown.experts.lock().unwrap_or_else(PoisonError::into_inner) = self.executor.experts();
        self.resident_at = None;
        self.show_residency().await;
        // A profile that cannot be kept costs a slower start, and no answer.
        let _ = self.executor.save_profile();
    }

    /// Tells, a few times a second, how full the latent cache is, and which experts the device holds, where somebody follows what
    /// experts do.
    async fn show_residency(&mut self) {
        if self.resident_at.is_some_and(|at| at.elapsed() < RESIDENCY_EVERY) {
            return;
        }
        self.resident_at = Some(Instant::now());
        self.show_memory(false);
        if !self.load.experts.trace {
            return;
        }
        // A device that fails here fails the next step, which tells.
        if let Ok(resident) = self.executor.resident().await {
            *self.shown.resident.lock().unwrap_or_else(PoisonError::into_inner) = resident.into();
        }
    }

    /// Lets the biases wander by one token.
    fn wander(&mut self) {
        let Some((walk, biases)) = &mut self.walk else { return };
        walk.step();
        for (bank, bias) in biases.iter().enumerate() {
            if let Some(bias) = bias {
                self.executor.write_vector(*bias, walk.biases(bank));
            }
        }
    }

    /// The next job in turn. Requests of one session are served in order, so one that waits for another is passed over.
    fn next_job(&mut self) -> Option<Job> {
        let waits = |j: &Job| self.jobs.iter().any(|o| o.request.session == j.request.session && o.serial < j.serial);
        let index = self.jobs.iter().position(|j| !waits(j))?;
        self.jobs.remove(index)
    }

    fn accept(&mut self, command: Command) {
        match command {
            Command::Generate(request) => {
                if let Some(e) = &self.broken {
                    // The receiver may be gone; then nobody wants to know.
                    let _ = request.events.try_send(Event::Failed(Error::Stopped(e.to_string())));
                    return;
                }
                let text = self.tokenizer.as_ref().map(|t| t.stream());
                self.serial += 1;
                self.jobs.push_back(Job::new(request, self.serial, text));
            }
            // Its request's flag says so.
            Command::Cancel(_) => {}
            Command::Close(session) => {
                let (gone, rest): (VecDeque<Job>, _) = self.jobs.drain(..).partition(|j| j.request.session == session);
                self.jobs = rest;
                for job in gone {
                    job.send(Event::Done { reason: DoneReason::Cancelled, text: String::new(), stats: job.stats });
                }
                if let Some(mut held) = self.sessions.remove(&session) {
                    held.truncate(0, &mut self.pool);
                }
                if self.on_device == Some(session) {
                    self.on_device = None;
                }
                self.show_memory(false);
            }
        }
    }

    /// A chunk of the prompt, or some tokens. A job that ends, or that others wait behind, leaves nothing in flight.
    async fn turn(&mut self, job: &mut Job) -> Result<Turn> {
        if job.request.cancelled.load(Ordering::Relaxed) {
            self.drain(job).await?;
            return Ok(Turn::Over(DoneReason::Cancelled));
        }
        let Some(done) = job.prefilled else {
            self.begin(job)?;
            return Ok(Turn::More);
        };
        if done < job.request.prompt.len() {
            return self.prefill(job, done).await;
        }
        self.decode(job).await
    }

    /// Checks the request, finds what the cache already holds, and makes room.
    fn begin(&mut self, job: &mut Job) -> Result<()> {
        let request = &job.request;
        request.sampling.check()?;
        let vocab = self.model.config.vocab_size;
        if request.prompt.is_empty() {
            return Err(Error::Invalid("the prompt is empty".into()));
        }
        if let Some(id) = request.prompt.iter().find(|&&id| id as usize >= vocab) {
            return Err(Error::Invalid(format!("token id {id} is beyond the vocabulary of {vocab}")));
        }
        if request.prompt.len() >= self.context {
            return Err(Error::ContextFull {
                prompt: request.prompt.len(),
                context: self.context,
                model: self.model.config.max_positions,
            });
        }
        let session = request.session;
        let mut held = self.sessions.remove(&session).unwrap_or_default();
        if let Some(other) = self.sessions.values().max_by_key(|o| o.common_prefix(&request.prompt)) {
            held.adopt(other, &request.prompt, &mut self.pool);
        }
        // The last token is always computed: its logits are wanted.
        let reused = held.common_prefix(&request.prompt).min(request.prompt.len() - 1);
        let reused = held.truncate(reused, &mut self.pool);
        self.sessions.insert(session, held);

        job.step.pos = reused as u32;
        job.stats.prompt_tokens = request.prompt.len();
        job.stats.reused_tokens = reused;
        request.sampling.write(&request.options.end, &mut job.step);
        job.step.counters_on = u32::from(request.options.routing);
        let recent = request.prompt.len().saturating_sub(crate::step::MAX_RECENT);
        request.prompt[recent..].iter().for_each(|&t| job.step.remember(t));
        job.prefilled = Some(reused);
        job.device_at = self.executor.stats();
        if request.options.routing {
            let experts = self.model.config.moe.as_ref().map_or(0, |m| m.num_experts);
            job.counters = vec![0; self.model.config.num_layers * experts];
        }
        job.send(Event::Prompt(Progress { total: job.request.prompt.len(), done: reused, reused }));
        Ok(())
    }

    /// Takes pages for `positions` positions of the job's session, from idle sessions if need be.
    fn reserve(&mut self, session: u64, positions: usize) -> Result<()> {
        let mut held = self.sessions.remove(&session).unwrap_or_default();
        let mut enough = held.reserve(positions, &mut self.pool);
        while !enough {
            let busy: Vec<u64> = self.jobs.iter().map(|j| j.request.session).collect();
            let idle = self.sessions.iter_mut().filter(|(id, h)| !busy.contains(id) && !h.pages.is_empty());
            let Some((_, victim)) = idle.max_by_key(|(_, h)| h.pages.len()) else { break };
            victim.truncate(0, &mut self.pool);
            enough = held.reserve(positions, &mut self.pool);
        }
        self.sessions.insert(session, held);
        if enough {
            return Ok(());
        }
        Err(Error::Limit {
            what: "positions in the latent cache, shared by all sessions".into(),
            needed: positions as u64,
            limit: (self.pool.capacity() * PAGE) as u64,
        })
    }

    /// Makes the device's step that of the job.
    fn put_on_device(&mut self, job: &mut Job) {
        if job.request.options.routing {
            // What other sessions used is not this one's.
            self.executor.reset_counters();
            job.counters.fill(0);
        }
        job.drafted = 0;
        self.drafting.interrupt();
        let pages = self.sessions.get(&job.request.session).map_or(&[][..], |h| &h.pages);
        self.executor.write_step(&job.step, pages);
        self.on_device = Some(job.request.session);
    }

    async fn prefill(&mut self, job: &mut Job, done: usize) -> Result<Turn> {
        let prompt = &job.request.prompt;
        let tokens = (prompt.len() - done).min(self.plans.chunk());
        let last = done + tokens == prompt.len();
        let session = job.request.session;
        let output = if last { Output::Token } else { Output::Cache };
        let draft = self.draft(job, done + tokens);
        self.reserve(session, done + tokens + draft.unwrap_or(0))?;
        let speculation = draft.map(|draft| Speculation { verify: 0, draft });
        let begun = Instant::now();
        let plan = self.plans.get(&mut self.executor, &self.model, tokens, output, speculation).await?;
        job.step.pos = done as u32;
        job.step.tokens = tokens as u32;
        self.put_on_device(job);
        // The module that drafts looks one token further.
        let further = usize::from(draft.is_some() && !last);
        self.executor.write_ids(&job.request.prompt[done..done + tokens + further]);
        job.drafted = draft.unwrap_or(0);
        let readback = Readback { token: last, counters: job.request.options.routing };
        let ticket = self.executor.submit(plan, tokens, readback)?;
        let started = Instant::now();
        let result = self.executor.wait(ticket).await?;
        let (starting, waiting) = (started.duration_since(begun).as_secs_f64(), started.elapsed().as_secs_f64());
        job.stats.prefill_host = job.stats.prefill_host.plus(HostTimes { starting, waiting });
        job.routed(&result);
        job.count(&result);
        if last {
            check_logit(&result)?;
        }
        if let Some(held) = self.sessions.get_mut(&session) {
            held.tokens.extend_from_slice(&job.request.prompt[done..done + tokens]);
        }
        job.prefilled = Some(done + tokens);
        job.send(Event::Prompt(Progress {
            total: job.request.prompt.len(),
            done: done + tokens,
            reused: job.stats.reused_tokens,
        }));
        if !last {
            return Ok(Turn::More);
        }
        let now = self.executor.stats();
        job.stats.prefill_device = now.since(job.device_at);
        job.device_at = now;
        if job.first_token.is_none() {
            job.stats.prefill_seconds = job.started.elapsed().as_secs_f64();
            job.first_token = Some(Instant::now());
        }
        Ok(match job.receive(result.token, result.logit, &result) {
            Some(reason) => Turn::Over(reason),
            None => Turn::More,
        })
    }

    /// Tokens to draft in a step whose rows end before position `end`; `None`: the step has nothing to do with drafts, as there is
    /// no module, or as the context ends soon.
    fn draft(&self, job: &Job, end: usize) -> Option<usize> {
        self.drafting.tokens().filter(|k| job.request.drafts && end + k < self.context)
    }

    async fn decode(&mut self, job: &mut Job) -> Result<Turn> {
        let session = job.request.session;
        let mut left = TURN;
        loop {
            // Positions fed so far, or more where drafts turn out wrong; the step mirrors what has been received.
            let ahead = job.in_flight.len();
            let next = job.step.pos as usize + job.in_flight.iter().map(|s| s.verify + 1).sum::<usize>();
            let wanted = job.request.options.max_tokens.map_or(usize::MAX, |n| n.saturating_sub(job.stats.generated_tokens));
            let others = !self.jobs.is_empty() || !self.commands.is_empty();
            let cancelled = job.request.cancelled.load(Ordering::Relaxed);
            let have = if self.on_device == Some(session) { job.drafted } else { 0 };
            let verified = |k: usize| if have >= k { k } else { 0 };
            let draft = self.drafting.tokens().and_then(|k| self.draft(job, next + verified(k) + 1));
            // Of a step without drafts it has to be known where it begins.
            let known = draft.is_some() || job.in_flight.iter().all(|s| s.draft.is_none());
            let room = ahead < self.in_flight && next < self.context && known;
            if room && ahead < wanted && !cancelled && (left > ahead || !others) {
                let pages = self.sessions.get(&session).map_or(0, |h| h.pages.len());
                let verify = draft.map_or(0, verified);
                let speculation = draft.map(|draft| Speculation { verify, draft });
                let begun = Instant::now();
                let plan = self.plans.get(&mut self.executor, &self.model, verify + 1, Output::Token, speculation).await?;
                self.reserve(session, next + verify + 1 + draft.unwrap_or(0))?;
                if self.on_device != Some(session) {
                    self.put_on_device(job);
                    self.executor.write_ids(&[job.last]);
                } else if let Some(held) = self.sessions.get(&session)
                    && held.pages.len() != pages
                {
                    self.executor.write_pages(&held.pages);
                }
                self.wander();
                let readback = Readback { token: true, counters: job.request.options.routing };
                let ticket = self.executor.submit(plan, verify + 1, readback)?;
                job.stats.decode_host.starting += begun.elapsed().as_secs_f64();
                job.drafted = draft.unwrap_or(0);
                job.in_flight.push_back(Step { ticket, verify, draft });
                continue;
            }
            let Some(step) = job.in_flight.pop_front() else {
                if cancelled {
                    return Ok(Turn::Over(DoneReason::Cancelled));
                }
                if wanted == 0 {
                    return Ok(Turn::Over(DoneReason::Length));
                }
                if next >= self.context {
                    return Ok(Turn::Over(DoneReason::Context));
                }
                return Ok(Turn::More);
            };
            let begun = Instant::now();
            let output = self.executor.wait(step.ticket).await?;
            job.stats.decode_host.waiting += begun.elapsed().as_secs_f64();
            job.routed(&output);
            job.count(&output);
            check_logit(&output)?;
            let accepted = output.before.len();
            job.stats.steps += 1;
            job.stats.drafted += step.verify;
            job.stats.accepted += accepted;
            if let Some(draft) = step.draft {
                self.drafting.observe(step.verify, draft, accepted);
            }
            left = left.saturating_sub(accepted + 1);
            let begun = Instant::now();
            self.show_residency().await;
            job.stats.decode_host.waiting += begun.elapsed().as_secs_f64();
            self.breathing.pause_if_due().await;
            for &(token, logit) in output.before.iter().chain([&(output.token, output.logit)]) {
                let fed = job.last;
                if let Some(held) = self.sessions.get_mut(&session) {
                    debug_assert_eq!(held.tokens.len(), job.step.pos as usize);
                    held.tokens.push(fed);
                }
                if let Some(reason) = job.receive(token, logit, &output) {
                    self.drain(job).await?;
                    return Ok(Turn::Over(reason));
                }
            }
        }
    }

    /// Waits for what is in flight and forgets it: the device's step is no longer the session's.
    async fn drain(&mut self, job: &mut Job) -> Result<()> {
        while let Some(step) = job.in_flight.pop_front() {
            self.executor.wait(step.ticket).await?;
        }
        self.on_device = None;
        Ok(())
    }
}

impl Job {
    fn new(request: Request, serial: u64, text: Option<TextStream>) -> Self {
        Self {
            request,
            serial,
            step: StepState::default(),
            prefilled: None,
            last: 0,
            generated: Vec::new(),
            in_flight: VecDeque::new(),
            drafted: 0,
            text,
            stats: GenerationStats::default(),
            started: Instant::now(),
            first_token: None,
            device_at: DeviceStats::default(),
            counters: Vec::new(),
            uses: Vec::new(),
        }
    }

    /// Goes back to the beginning; what was generated so far becomes part of the prompt.
    fn restart(&mut self) {
        let generated = std::mem::take(&mut self.generated);
        self.request.prompt.extend(generated);
        self.step = StepState { sampled: self.step.sampled, ..StepState::default() };
        self.in_flight.clear();
        self.drafted = 0;
        self.prefilled = None;
        self.device_at = DeviceStats::default();
        self.uses.clear();
    }

    fn send(&self, event: Event) {
        if self.request.events.try_send(event).is_err() {
            // Nobody listens any more.
            self.request.cancelled.store(true, Ordering::Relaxed);
        }
    }

    /// Adds what experts were used since the counters were last read.
    fn count(&mut self, output: &StepOutput) {
        let Some(now) = &output.counters else { return };
        self.uses.resize(now.len(), 0);
        for ((uses, now), before) in self.uses.iter_mut().zip(now).zip(&self.counters) {
            *uses += now.wrapping_sub(*before);
        }
        self.counters.clone_from(now);
    }

    fn routed(&self, output: &StepOutput) {
        if let Some(routed) = &output.routed {
            self.send(Event::Routed(Arc::clone(routed)));
        }
    }

    /// Takes a token that the device sampled, in a step with that output; says why the generation is over, if it is.
    fn receive(&mut self, token: u32, logit: f32, output: &StepOutput) -> Option<DoneReason> {
        self.step.advance(token);
        self.last = token;
        self.generated.push(token);
        self.stats.generated_tokens += 1;
        if let Some(first) = self.first_token {
            self.stats.decode_seconds = first.elapsed().as_secs_f64();
        }
        // Of several tokens of one step, the first one has what all of them used.
        let none = |n: &Vec<u32>| vec![0; n.len()];
        let activations = output.counters.as_ref().map(|n| std::mem::replace(&mut self.uses, none(n)).into());
        if self.step.stopped != 0 {
            return Some(DoneReason::End);
        }
        let text = self.text.as_mut().map_or_else(String::new, |t| t.push(token));
        self.send(Event::Token { id: token, text, logit, activations, seconds: self.started.elapsed().as_secs_f64() });
        (self.request.options.max_tokens == Some(self.stats.generated_tokens)).then_some(DoneReason::Length)
    }
}

/// Positions of the latent cache that these hold tokens in: a page that several share counts once.
fn taken<'a>(sessions: impl Iterator<Item = &'a Held>) -> usize {
    let mut rows: HashMap<u32, usize> = HashMap::new();
    for held in sessions {
        for (page, tokens) in held.pages.iter().zip(held.tokens.chunks(PAGE)) {
            let of = rows.entry(*page).or_default();
            *of = tokens.len().max(*of);
        }
    }
    rows.values().sum()
}

/// Damaged weights show as logits that are no numbers: never a wrong answer without a word.
fn check_logit(output: &StepOutput) -> Result<()> {
    if output.logit.is_finite() {
        return Ok(());
    }
    Err(Error::Invalid(
        "the model's logits are not finite: its weights are damaged (`pleiad inspect --check` finds where)".into(),
    ))
}
