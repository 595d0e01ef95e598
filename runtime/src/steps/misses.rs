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

use std::collections::BTreeSet;

use web_time::Instant;

use super::{
    account::{Choice, Record},
    backend::Backend,
    exec::{Pending, Run, Stage, Steps},
    plan::{Mixture, Part},
    result::Layout,
    serve::Server,
};
use crate::{
    error::{Error, Result},
    experts::{
        cold::{ColdPair, ColdRows},
        trace::Served,
        ways::{Way, WayChoice},
    },
    plan::{BankId, Kind},
};

/// Share of tokens that may miss for the next step to be submitted before this one is known to be done.
const SPECULATE: f32 = 0.3;

impl<B: Backend> Steps<B> {
    pub(super) fn server(&mut self) -> Result<&mut Server> {
        self.server.as_deref_mut().ok_or_else(|| Error::Gpu("experts are not in slots".into()))
    }

    pub(super) fn partial(&self) -> bool {
        self.server.as_ref().is_some_and(|s| s.partial())
    }

    /// Whether step `i`, the last one, may be submitted now.
    pub(super) fn may_start(&self, i: usize) -> bool {
        let Some(server) = self.server.as_ref().filter(|s| s.partial()) else { return true };
        let alone = self.pending.iter().take(i).all(|p| matches!(p.stage, Stage::Done(_)));
        // Chunks take more than one submission. A step behind one that halts has to be submitted again.
        let decodes = self.pending.get(i).is_some_and(|p| p.run.tokens == 1);
        // Nor may one that halts go on when kernels have begun to keep the tables.
        let gathers = server.chooser.way() == Way::Gather;
        let follows = |p: &Pending<B::Fetch>| match p.stage {
            Stage::Waiting => false,
            Stage::Running(_) => (p.way == Some(Way::Gather)) == gathers,
            Stage::Done(_) => true,
        };
        let behind = self.pending.iter().take(i).all(follows);
        let sure = gathers || (server.token_misses < SPECULATE && self.reach() == usize::MAX);
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
            let halt = layout.halt_of(&words);
            if halt != 0 {
                // Steps behind this one found the plan halted, and did nothing.
                self.give_up_from(i + 1);
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
        // Rows of drafts that were wrong, and of what follows them, cost what others cost, but nobody is to see them.
        let mut kept = run.tokens;
        if layout.taken > 0 {
            let taken = layout.taken_of(words);
            self.pending[i].run.length = taken.began + run.tokens;
            kept -= (self.plans[run.plan].verifies as u32).saturating_sub(taken.count);
        }
        if layout.record > 0 && alive {
            output.routed = self.account(i, layout.record_of(words), kept as usize)?;
        }
        self.pending[i].stage = Stage::Done(output);
        // The next one, if it had to wait.
        if self.pending.get(i + 1).is_some_and(|p| matches!(p.stage, Stage::Waiting) && p.run.tokens == 1) {
            self.start(i + 1)?;
        }
        Ok(())
    }

    /// Serves what step `i` misses at `layer`, after whose router it halted, and takes it up again.
    async fn serve(&mut self, i: usize, layer: usize, words: &[u32], layout: Layout) -> Result<()> {
        let Some(p) = self.pending.get(i) else { return Ok(()) };
        let (run, way) = (p.run, p.way);
        let plan = &self.plans[run.plan];
        let Some((index, m)) = plan.mixtures.iter().enumerate().find(|(_, m)| m.layer == layer).map(|(n, m)| (n, m.clone()))
        else {
            return Err(Error::Gpu(format!("the plan halted at layer {layer}, which has no experts")));
        };
        let record = Record { words: layout.record_of(words), tokens: run.tokens as usize, top_k: m.top_k };
        let choices: Vec<Choice> = record.bank(m.bank).collect();
        let chosen: BTreeSet<u16> = choices.iter().map(|c| c.expert).collect();
        let server = self.server()?;
        // Who is there now counts, not the router's record: the two agree as long as nothing moves in behind a step that may halt.
        let resident = |e: &u16| server.residency.slot_of(m.bank, *e).is_some();
        let (needed, mut missing): (Vec<u16>, Vec<u16>) = chosen.iter().copied().partition(resident);
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
        let rounds = fetch.len() > room;
        if rounds {
            self.write_round_of(m.bank)?;
            self.send_quietly(&run, &[Part::Place(index), Part::Ops(m.router + 1..m.combine)])?;
            let failed = self.rounds(&run, index, &m, fetch).await?;
            cold.extend(failed);
        } else {
            for &expert in fetch {
                let keep = |e: u16| needed.contains(&e) || fetch.contains(&e);
                let slot = self.server()?.residency.victim(m.bank, &keep);
                let uploaded = match slot {
                    Some(slot) => self.upload_expert(m.bank, expert, slot, false)?,
                    None => false,
                };
                if !uploaded {
                    cold.insert(expert);
                }
            }
            self.write_table(m.bank)?;
            self.write_round_of(m.bank)?;
        }
        let taken = fetch.iter().filter(|&e| !cold.contains(e)).count();
        if taken > 0 {
            self.server()?.split.observe_fetch(taken, start.elapsed().as_secs_f64());
        }
        let how = |e: &u16| (m.bank, *e, if cold.contains(e) { Served::Cpu } else { Served::Fetched });
        let served: Vec<_> = chosen.iter().map(how).collect();
        self.pending[i].served.extend(served);

        if cold.is_empty() && !rounds {
            let end = self.end_of(&run, m.router + 1);
            return self.send(i, &[Part::Place(index)], m.router + 1, end);
        }
        if !cold.is_empty() {
            if !rounds {
                self.send_quietly(&run, &[Part::Place(index), Part::Ops(m.router + 1..m.combine)])?;
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
        let bits = match layout.rows_of(words).get(before..before + x_words) {
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
        let out = cold.run(BankId(m.bank as u32), &list, &rows, m.inner.is_some())?;
        server.split.observe_cpu(list.len(), start.elapsed().as_secs_f64());
        if out.len() != list.len() * y_width {
            return Err(Error::Gpu(format!("experts of layer {} gave rows of another length", m.layer)));
        }
        for (&pair, row) in pairs.iter().zip(out.chunks(y_width.max(1))) {
            self.upload(&y_buffer, (pair * y_width * 4) as u64, bytemuck::cast_slice(row));
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
}
