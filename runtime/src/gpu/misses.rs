//! Steps of a device that does not hold all experts.
//!
//! While every chosen expert is resident, a step is what it is with all of them resident: one submission, one readback. Misses
//! are served in one of three ways.
//!
//! - Gather: kernels give missing experts the slots of the coldest ones and copy them from host memory. The host learns of it
//!   from the record.
//! - CPU: the router halts the plan at the layer that misses; the device computes the experts that it has while the CPU
//!   computes the others from the same normed rows; the plan is taken up again where experts are combined.
//! - Resume: the router halts the plan, the host uploads what is missing into the coldest slots, and the plan is taken up again
//!   after the router. Where a chunk needs more experts than there are slots, they take turns, in rounds.
//!
//! Long chunks use nearly all experts: these do not halt, but pass through the coldest slots of each layer in rounds.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use web_time::Instant;

use super::{
    exec::{GpuExecutor, Layout, Run, Stage},
    plan::{Mixture, Part, StepShape},
    serve::Server,
    slots::{CHOICE_WORDS, GATHERED, HIT},
};
use crate::{
    error::{Error, Result},
    experts::{
        cold::{ColdPair, ColdRows},
        policy::ABSENT,
        trace::{Routed, Served},
        ways::{Sample, Way, WayChoice},
    },
    plan::{BankId, Kind},
    step::StepState,
};

/// Tokens for each E / K from which on a chunk streams whole layers: then nearly all experts are used, and each by enough
/// tokens to pay for its transfer (ik_llama.cpp's rule).
const STREAM_FACTOR: usize = 32;
/// Bytes of experts on their way before the host waits for the device.
const STAGED: u64 = 64 << 20;
/// How much hotter (in log2) than a resident an expert must be to be taken in for the future.
const MARGIN: f32 = 0.5;
/// Share of a recent average that the newest token makes.
const NEWEST: f32 = 0.1;
/// Share of tokens that may miss for the next step to be submitted before this one is known to be done.
const SPECULATE: f32 = 0.3;

/// A choice of the router.
#[derive(Clone, Copy, Debug)]
struct Choice {
    expert: u16,
    hit: bool,
    gathered: bool,
    weight: f32,
}

/// The record of a step.
struct Record<'a> {
    words: &'a [u32],
    tokens: usize,
    top_k: usize,
}

impl Record<'_> {
    /// The choices of a bank, `[T, K]`; fewer where the record is short.
    fn bank(&self, bank: usize) -> impl Iterator<Item = Choice> {
        let words = self.tokens * self.top_k * CHOICE_WORDS;
        let of = self.words.get(bank * words..(bank + 1) * words).unwrap_or_default();
        of.chunks_exact(CHOICE_WORDS).map(|c| Choice {
            expert: c[0] as u16,
            hit: c[0] & HIT != 0,
            gathered: c[0] & GATHERED != 0,
            weight: f32::from_bits(c[1]),
        })
    }
}

impl GpuExecutor {
    fn server(&mut self) -> Result<&mut Server> {
        self.server.as_deref_mut().ok_or_else(|| Error::Gpu("experts are not in slots".into()))
    }

    fn partial(&self) -> bool {
        self.server.as_ref().is_some_and(|s| s.partial())
    }

    /// Whether step `i`, the last one, may be submitted now.
    pub(super) fn may_start(&self, i: usize) -> bool {
        let Some(server) = self.server.as_ref().filter(|s| s.partial()) else { return true };
        let alone = self.pending.iter().take(i).all(|p| matches!(p.stage, Stage::Done(_)));
        // Chunks take more than one submission. A step behind one that halts has to be submitted again.
        let decodes = self.pending.get(i).is_some_and(|p| p.run.tokens == 1);
        let behind = self.pending.iter().take(i).all(|p| !matches!(p.stage, Stage::Waiting));
        let sure = server.chooser.way() == Way::Gather || (server.token_misses < SPECULATE && self.reach() == usize::MAX);
        decodes && (alone || (behind && sure))
    }

    /// Whether a halt in step `i` would be served by the CPU, which needs what the experts read.
    pub(super) fn wants_rows(&self, i: usize) -> bool {
        self.partial() && self.pending.get(i).is_some_and(|p| p.way == Some(Way::Cpu))
    }

    /// Starts step `i` from its beginning: a decoding step, or a chunk that may halt.
    pub(super) fn start(&mut self, i: usize) -> Result<()> {
        let Some(run) = self.pending.get(i).map(|p| p.run) else { return Ok(()) };
        if self.partial() {
            let server = self.server()?;
            let way = match (run.tokens, server.chooser.way(), server.choice) {
                (1, way, _) | (2..=8, way @ (Way::Cpu | Way::Resume), _) | (_, way @ Way::Cpu, WayChoice::Only(_)) => way,
                _ => Way::Resume,
            };
            if way == Way::Gather {
                self.hand_over()?
            } else {
                self.take_back()?
            }
            self.set_on_miss(u32::from(way != Way::Gather))?;
            self.pending[i].way = Some(way);
        }
        self.pending[i].started = Instant::now();
        let end = self.end_of(&run, 0);
        self.send(i, &[], 0, end)
    }

    /// Brings step `i` to its end.
    pub(super) async fn complete(&mut self, i: usize) -> Result<()> {
        loop {
            let Some(p) = self.pending.get(i) else { return Ok(()) };
            let run = p.run;
            match p.stage {
                Stage::Done(_) => return Ok(()),
                Stage::Waiting if self.streams(&run) => self.stream(i).await?,
                Stage::Waiting => self.start(i)?,
                Stage::Running(_) => {}
            }
            let (words, layout, end) = self.fetch(i).await?;
            let halt = if self.partial() { words.get(Layout::HEAD - 4).copied().unwrap_or(0) } else { 0 };
            if halt != 0 {
                // Steps behind this one found the plan halted, and did nothing.
                for later in i + 1..self.pending.len() {
                    if let Some(mut p) = self.pending.remove(later) {
                        self.give_up(&mut p);
                        self.pending.insert(later, p);
                    }
                }
                self.stats.rendezvous += 1;
                self.serve(i, halt as usize - 1, &words, layout).await?;
            } else if end < self.plans[run.plan].ops {
                let next = self.end_of(&run, end);
                self.send(i, &[], end, next)?;
            } else {
                self.finish(i, &words, layout)?;
            }
        }
    }

    /// Takes the result of a step that is over, and what can be learnt from it.
    fn finish(&mut self, i: usize, words: &[u32], layout: Layout) -> Result<()> {
        let Some(run) = self.pending.get(i).map(|p| p.run) else { return Ok(()) };
        let (mut output, alive) = self.output(&run, words, layout);
        if layout.record > 0 && alive {
            output.routed = self.account(i, words.get(Layout::HEAD..Layout::HEAD + layout.record).unwrap_or_default())?;
        }
        self.pending[i].stage = Stage::Done(output);
        // The next one, if it had to wait.
        if self.pending.get(i + 1).is_some_and(|p| matches!(p.stage, Stage::Waiting) && p.run.tokens == 1) {
            self.start(i + 1)?;
        }
        Ok(())
    }

    /// Counts hits and misses, keeps heat and profile, lets the choice among ways see the token, and takes experts in for the future.
    fn account(&mut self, i: usize, record: &[u32]) -> Result<Option<Arc<[Routed]>>> {
        let (p, server) = match (self.pending.get(i), self.server.as_deref_mut()) {
            (Some(p), Some(s)) => (p, s),
            _ => return Ok(None),
        };
        let run = p.run;
        let plan = &self.plans[run.plan];
        let (tokens, top_k) = (run.tokens as usize, plan.top_k());
        let record = Record { words: record, tokens, top_k };
        let served: BTreeMap<(usize, u16), Served> = p.served.iter().map(|&(b, e, how)| ((b, e), how)).collect();
        let start = (run.length - run.tokens) as usize;
        let mut rows = Vec::new();
        let (mut hits, mut misses, mut layers_missed) = (0, 0, 0);
        let mut missed: Vec<(usize, Vec<u16>)> = Vec::new();
        server.residency.tick(run.tokens);
        for m in &plan.mixtures {
            let (mut absent, mut moved) = (BTreeSet::new(), BTreeSet::new());
            let mut choices: Vec<Choice> = Vec::with_capacity(top_k);
            for (pair, c) in record.bank(m.bank).enumerate() {
                if let Some(n) = server.uses.get_mut(m.bank).and_then(|u| u.get_mut(usize::from(c.expert))) {
                    *n = n.saturating_add(1);
                }
                server.residency.touch(m.bank, c.expert);
                if c.hit {
                    hits += 1;
                } else {
                    misses += 1;
                    absent.insert(c.expert);
                }
                if !server.trace {
                    continue;
                }
                choices.push(c);
                if choices.len() < top_k {
                    continue;
                }
                choices.sort_by(|a, b| b.weight.total_cmp(&a.weight));
                for (rank, c) in choices.drain(..).enumerate() {
                    let how = match (c.hit, c.gathered) {
                        (true, _) => Served::Hit,
                        (_, true) => Served::Gathered,
                        _ => served.get(&(m.bank, c.expert)).copied().unwrap_or(Served::Streamed),
                    };
                    let stride = self.state.weights.banks[m.bank].blob_words as u64 * 4;
                    let moves = !matches!(how, Served::Hit | Served::Cpu | Served::Host) && moved.insert(c.expert);
                    rows.push(Routed {
                        position: (start + pair / top_k) as u32,
                        layer: m.layer as u16,
                        rank: rank as u16,
                        expert: c.expert,
                        weight: c.weight,
                        served: how,
                        bytes: if moves { stride } else { 0 },
                    });
                }
            }
            if !absent.is_empty() {
                layers_missed += 1;
                missed.push((m.bank, absent.into_iter().collect()));
            }
        }
        server.tokens += u64::from(run.tokens);
        self.stats.expert_hits += hits;
        self.stats.expert_misses += misses;
        if !server.partial() {
            return Ok(server.trace.then(|| rows.into()));
        }
        let trace = server.trace;
        let (way, started) = (p.way, p.started);
        if way == Some(Way::Gather) {
            let bytes = |(b, e): &(usize, Vec<u16>)| self.state.weights.banks[*b].blob_words as u64 * 4 * e.len() as u64;
            self.stats.expert_bytes += missed.iter().map(bytes).sum::<u64>();
        }
        if let (1, Some(way)) = (run.tokens, way) {
            let now = Instant::now();
            // From one token's end to the next one's: whatever a way costs, it shows there.
            let since = server.last_done.replace(now);
            if since.is_none() {
                server.chooser.interrupt();
            }
            let seconds = now.duration_since(since.unwrap_or(started)).as_secs_f64();
            server.chooser.observe(seconds, Sample { way, misses: misses as u32, layers_missed });
            let average = |old: f32, new: f32| old + NEWEST * (new - old);
            server.token_misses = average(server.token_misses, if misses > 0 { 1.0 } else { 0.0 });
            let layers = server.partial_layers().max(1) as f32;
            server.layer_misses = average(server.layer_misses, layers_missed as f32 / layers);
        }
        if way == Some(Way::Cpu) {
            self.admit(&missed)?;
        }
        Ok(trace.then(|| rows.into()))
    }

    /// Takes in, for the future, experts that were missed and are hotter than residents.
    fn admit(&mut self, missed: &[(usize, Vec<u16>)]) -> Result<()> {
        let mut left = self.server()?.admissions;
        for (bank, experts) in missed {
            let server = self.server()?;
            let admitted = server.residency.admissions(*bank, experts, &|_| false, left, MARGIN);
            if admitted.is_empty() {
                continue;
            }
            left -= admitted.len().min(left);
            for (expert, slot) in admitted {
                self.upload_expert(*bank, expert, slot)?;
            }
            self.write_table(*bank)?;
        }
        Ok(())
    }

    /// Serves what step `i` misses at `layer`, after whose router it halted, and takes it up again.
    async fn serve(&mut self, i: usize, layer: usize, words: &[u32], layout: Layout) -> Result<()> {
        let Some(p) = self.pending.get_mut(i) else { return Ok(()) };
        p.layers_missed += 1;
        let (run, way) = (p.run, p.way);
        let plan = &self.plans[run.plan];
        let Some((index, m)) = plan.mixtures.iter().enumerate().find(|(_, m)| m.layer == layer).map(|(n, m)| (n, m.clone()))
        else {
            return Err(Error::Gpu(format!("the plan halted at layer {layer}, which has no experts")));
        };
        let record = words.get(Layout::HEAD..Layout::HEAD + layout.record).unwrap_or_default();
        let record = Record { words: record, tokens: run.tokens as usize, top_k: m.top_k };
        let choices: Vec<Choice> = record.bank(m.bank).collect();
        let needed: BTreeSet<u16> = choices.iter().filter(|c| c.hit).map(|c| c.expert).collect();
        let missing: BTreeSet<u16> = choices.iter().filter(|c| !c.hit).map(|c| c.expert).collect();
        let server = self.server()?;
        let mut missing: Vec<u16> = missing.into_iter().collect();
        missing.sort_by(|a, b| server.residency.score(m.bank, *b).total_cmp(&server.residency.score(m.bank, *a)));
        let fetched = match (way, server.choice) {
            (Some(Way::Cpu), WayChoice::Only(_)) => 0,
            (Some(Way::Cpu), WayChoice::Auto) => server.split.fetch_of(missing.len()),
            _ => missing.len(),
        };
        let (fetch, cold) = missing.split_at(fetched.min(missing.len()));
        let mut cold: BTreeSet<u16> = cold.iter().copied().collect();
        let room = server.residency.slots(m.bank).saturating_sub(needed.len());
        self.clear_halt();

        let start = Instant::now();
        let mut lead = Vec::new();
        let rounds = fetch.len() > room;
        if rounds {
            self.send_quietly(&run, &[Part::Ops(m.router + 1..m.combine)]);
            let failed = self.rounds(&run, index, &m, fetch).await?;
            cold.extend(failed);
        } else if !fetch.is_empty() {
            for &expert in fetch {
                let keep = |e: u16| needed.contains(&e) || fetch.contains(&e);
                let slot = self.server()?.residency.victim(m.bank, &keep);
                let uploaded = match slot {
                    Some(slot) => self.upload_expert(m.bank, expert, slot)?,
                    None => false,
                };
                if !uploaded {
                    cold.insert(expert);
                }
            }
            self.write_table(m.bank)?;
            let table = self.server()?.residency.table(m.bank).to_vec();
            self.write_round(&table);
            lead.push(Part::Place(index));
        }
        let taken = fetch.iter().filter(|&e| !cold.contains(e)).count();
        if taken > 0 {
            self.server()?.split.observe_fetch(taken, start.elapsed().as_secs_f64());
        }
        let how = |e: &u16| (m.bank, *e, if cold.contains(e) { Served::Cpu } else { Served::Fetched });
        let served: Vec<_> = missing.iter().map(how).collect();
        self.pending[i].served.extend(served);

        if cold.is_empty() && !rounds {
            let end = self.end_of(&run, m.router + 1);
            return self.send(i, &lead, m.router + 1, end);
        }
        if !cold.is_empty() {
            if !rounds {
                lead.push(Part::Ops(m.router + 1..m.combine));
                self.send_quietly(&run, &lead);
            }
            let pairs: Vec<usize> = (0..choices.len()).filter(|&p| cold.contains(&choices[p].expert)).collect();
            self.compute_cold(&run, &m, &pairs, &choices, words, layout).await?;
        }
        let end = self.end_of(&run, m.combine);
        self.send(i, &[], m.combine, end)
    }

    /// Computes pairs on the CPU, and puts the results where the device's would be.
    async fn compute_cold(
        &mut self,
        run: &Run,
        m: &Mixture,
        pairs: &[usize],
        choices: &[Choice],
        words: &[u32],
        layout: Layout,
    ) -> Result<()> {
        let plan = &self.plans[run.plan];
        let (x, y) = (plan.act(m.x)?, plan.act(m.y)?);
        let tokens = run.tokens as usize;
        let (y_buffer, y_width) = (y.buffer.clone(), y.width / m.top_k.max(1));
        let (x_buffer, x_words) = (x.buffer.clone(), x.row_words * tokens);
        // Where the readback has the rows that this layer's experts read.
        let before = plan.cold_inputs().take_while(|a| a.buffer != x_buffer).map(|a| a.row_words * tokens).sum::<usize>();
        let at = Layout::HEAD + layout.record + before;
        let there = (layout.rows > 0).then(|| words.get(at..at + x_words)).flatten();
        let bits = match there {
            Some(bits) => bits.to_vec(),
            None => self.read(&x_buffer, x_words).await?,
        };
        let x = self.plans[run.plan].act(m.x)?;
        let rows = match x.kind {
            Kind::Q8 => ColdRows::Q8(x.rows_of(&bits)),
            _ => ColdRows::F32(bits.into_iter().map(f32::from_bits).collect()),
        };
        let list: Vec<ColdPair> =
            pairs.iter().map(|&p| ColdPair { expert: choices[p].expert, row: (p / m.top_k.max(1)) as u32 }).collect();
        let start = Instant::now();
        let server = self.server()?;
        let Some(cold) = &server.cold else { return Err(Error::Gpu("no experts in host memory".into())) };
        let out = cold.run(BankId(m.bank as u32), &list, &rows, m.inner.is_some());
        server.split.observe_cpu(list.len(), start.elapsed().as_secs_f64());
        if out.len() != list.len() * y_width {
            return Err(Error::Gpu(format!("experts of layer {} gave rows of another length", m.layer)));
        }
        for (&pair, row) in pairs.iter().zip(out.chunks(y_width.max(1))) {
            self.upload_at(&y_buffer, (pair * y_width * 4) as u64, bytemuck::cast_slice(row));
        }
        Ok(())
    }

    /// Whether a chunk is long enough for whole layers to pass through.
    fn streams(&self, run: &Run) -> bool {
        let Some(moe) = self.state.model.config.moe.as_ref().filter(|_| self.partial()) else { return false };
        let from = (moe.num_experts * STREAM_FACTOR).div_ceil(moe.top_k.max(1));
        run.tokens as usize >= from.max(2)
    }

    /// Runs a long chunk: all experts that are not resident pass through the coldest slots of each layer.
    async fn stream(&mut self, i: usize) -> Result<()> {
        let Some(run) = self.pending.get(i).map(|p| p.run) else { return Ok(()) };
        self.take_back()?;
        self.set_on_miss(0)?;
        self.pending[i].way = None;
        if run.tokens != self.tokens {
            self.upload(&self.state.step.clone(), &[run.tokens]);
            self.tokens = run.tokens;
        }
        let mixtures = self.plans[run.plan].mixtures.clone();
        let mut from = 0;
        for (index, m) in mixtures.iter().enumerate() {
            let residency = &self.server()?.residency;
            if !residency.is_partial(m.bank) {
                continue;
            }
            let absent: Vec<u16> =
                (0..residency.experts(m.bank) as u16).filter(|&e| residency.slot_of(m.bank, e).is_none()).collect();
            self.send_quietly(&run, &[Part::Ops(from..m.combine)]);
            let failed = self.rounds(&run, index, m, &absent).await?;
            if !failed.is_empty() {
                let what = format!("{} experts of layer {}: the device refused them", failed.len(), m.layer);
                return Err(Error::OutOfMemory { what, bytes: 0, limit: None });
            }
            from = m.combine;
        }
        let end = self.plans[run.plan].ops;
        self.send(i, &[], from, end)
    }

    /// Passes `experts` through the coldest slots of a layer, a round of products for each slotful; returns those whose upload
    /// failed. What is resident has been computed already.
    async fn rounds(&mut self, run: &Run, index: usize, m: &Mixture, experts: &[u16]) -> Result<Vec<u16>> {
        let server = self.server()?;
        let slots = server.residency.slots(m.bank);
        // The hottest stay; a quarter of the slots, and at least one token's experts, take turns.
        let window = (slots / 4).max(m.top_k).clamp(1, slots.max(1));
        let mut by_heat: Vec<u32> = (0..slots as u32).collect();
        let score = |slot: &u32| match server.residency.owner(m.bank, *slot) {
            Some(e) => server.residency.score(m.bank, e),
            None => f32::NEG_INFINITY,
        };
        by_heat.sort_by(|a, b| score(a).total_cmp(&score(b)).then(a.cmp(b)));
        by_heat.truncate(window);
        let mut failed = Vec::new();
        let mut staged = 0;
        let mut queue: VecDeque<(Vec<u16>, bool)> = experts.chunks(window).map(|c| (c.to_vec(), true)).collect();
        while let Some((round, first)) = queue.pop_front() {
            let mut refused = Vec::new();
            let mut table = vec![ABSENT; self.server()?.residency.experts(m.bank)];
            for (&expert, &slot) in round.iter().zip(&by_heat) {
                if self.upload_expert(m.bank, expert, slot)? {
                    table[usize::from(expert)] = slot;
                } else {
                    refused.push(expert);
                }
            }
            match (refused.is_empty(), first) {
                (true, _) => {}
                // Once more, when what is under way has been freed.
                (_, true) => {
                    self.gpu.idle().await?;
                    queue.push_back((refused, false));
                }
                (_, false) => failed.extend(refused),
            }
            self.write_round(&table);
            let submission = self.send_quietly(run, &[Part::Place(index), Part::Products(index)]);
            staged += (round.len() * self.state.weights.banks[m.bank].blob_words * 4) as u64;
            if staged >= STAGED {
                staged = 0;
                if cfg!(target_arch = "wasm32") {
                    self.gpu.idle().await?;
                } else {
                    self.gpu.block(Some(submission))?;
                }
            }
        }
        self.write_table(m.bank)?;
        Ok(failed)
    }

    /// Submits parts of a run without a readback.
    fn send_quietly(&mut self, run: &Run, parts: &[Part]) -> wgpu::SubmissionIndex {
        let plan = &self.plans[run.plan];
        let mut encoder =
            self.gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some("part of a step") });
        {
            let shape = StepShape { tokens: run.tokens, length: run.length, gather: false };
            let mut pass = encoder
                .begin_compute_pass(&wgpu::ComputePassDescriptor { label: Some("part of a step"), timestamp_writes: None });
            for part in parts {
                self.stats.dispatches += plan.encode(&mut pass, part, shape);
            }
        }
        self.stats.submissions += 1;
        self.gpu.queue.submit([encoder.finish()])
    }

    /// Copies an expert to a slot, in place of who lives there. `false`: the device refused it, and nobody lives there now.
    fn upload_expert(&mut self, bank: usize, expert: u16, slot: u32) -> Result<bool> {
        let Some(server) = self.server.as_deref_mut() else { return Ok(false) };
        let (Some(host), Some((slab, at))) = (&mut server.host, self.state.weights.banks[bank].place(slot)) else {
            return Ok(false);
        };
        let (gpu, mut bytes) = (&self.gpu, 0);
        server.residency.clear_slot(bank, slot);
        let result = host.blob(bank, expert, &mut |offset, data| {
            bytes += data.len() as u64;
            gpu.write_slot(&slab.buffer, at + offset as u64, data)
        });
        match result {
            Ok(()) => {
                server.residency.place(bank, expert, slot);
                self.stats.uploaded_bytes += bytes;
                self.stats.expert_bytes += bytes;
                Ok(true)
            }
            Err(Error::OutOfMemory { .. }) => Ok(false),
            Err(e) => Err(e),
        }
    }

    fn write_table(&mut self, bank: usize) -> Result<()> {
        let table = self.server()?.residency.table(bank).to_vec();
        if let Some(slots) = &self.state.slots {
            slots.write_table(&self.gpu, bank, &table);
            self.stats.uploaded_bytes += (table.len() * 4) as u64;
        }
        Ok(())
    }

    fn write_round(&mut self, table: &[u32]) {
        if let Some(slots) = &self.state.slots {
            slots.write_round(&self.gpu, table);
            self.stats.uploaded_bytes += (table.len() * 4) as u64;
        }
    }

    fn clear_halt(&mut self) {
        self.upload_at(&self.state.step.clone(), StepState::HALT, &[0]);
    }

    fn set_on_miss(&mut self, on_miss: u32) -> Result<()> {
        let server = self.server()?;
        if std::mem::replace(&mut server.on_miss, on_miss) != on_miss {
            self.upload_at(&self.state.step.clone(), StepState::HALT + 4, &[on_miss]);
        }
        Ok(())
    }

    /// Partial layers that a submission reaches into before the next miss is to be expected.
    fn reach(&self) -> usize {
        let Some(server) = &self.server else { return usize::MAX };
        let layers = server.partial_layers();
        let expected = 1.5 / server.layer_misses.max(1e-3);
        if expected >= layers as f32 { usize::MAX } else { (expected.ceil() as usize).max(1) }
    }

    /// The operation before which a submission from `from` on ends: after a router whose layer is likely to miss, or at the end.
    fn end_of(&self, run: &Run, from: usize) -> usize {
        let plan = &self.plans[run.plan];
        let halts = self.server.as_ref().is_some_and(|s| s.partial() && s.on_miss != 0);
        let reach = match (halts, run.tokens) {
            (false, _) => usize::MAX,
            (_, 1) => self.reach(),
            // A chunk that does not stream still uses so many experts that every layer misses.
            _ => 1,
        };
        let Some(server) = self.server.as_ref().filter(|_| reach != usize::MAX) else { return plan.ops };
        let partial = plan.mixtures.iter().filter(|m| m.router >= from && server.residency.is_partial(m.bank));
        partial.map(|m| m.router + 1).nth(reach - 1).unwrap_or(plan.ops)
    }

    /// Leaves the tables to the device's kernels.
    fn hand_over(&mut self) -> Result<()> {
        let Some(server) = self.server.as_deref_mut().filter(|s| !s.gathering) else { return Ok(()) };
        let Some(slots) = &self.state.slots else { return Ok(()) };
        server.gathering = true;
        for bank in 0..server.residency.banks() {
            slots.write_heat(&self.gpu, bank, server.residency.now(), server.residency.heat(bank));
        }
        Ok(())
    }

    /// Takes the tables back from the device's kernels.
    fn take_back(&mut self) -> Result<()> {
        if !self.server()?.gathering {
            return Ok(());
        }
        let Some((tables, experts, words)) = self.state.slots.as_ref().map(|s| (s.tables.clone(), s.experts, s.record)) else {
            return Ok(());
        };
        // Kernels fetch experts only where the host may block.
        let words = pollster::block_on(self.read(&tables, words))?;
        let server = self.server()?;
        server.gathering = false;
        for (bank, table) in words.chunks_exact(experts.max(1)).enumerate() {
            if server.residency.is_partial(bank) {
                server.residency.adopt(bank, table)?;
            }
        }
        Ok(())
    }

    /// Keeps what was learnt about the use of experts for the next start.
    pub fn save_profile(&self) -> Result<()> {
        self.server.as_ref().map_or(Ok(()), |s| s.save_profile())
    }
}
