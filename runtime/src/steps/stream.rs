//! Experts on their way to slots: single ones, rounds of them, and whole layers that pass through while a long chunk runs. And
//! who keeps the tables: the host, or kernels that gather.

use std::collections::VecDeque;

use super::{
    backend::Backend,
    exec::{Run, Steps},
    plan::{Mixture, Part},
};
use crate::{
    error::{Error, Result},
    experts::policy::ABSENT,
    step::StepState,
};

/// Tokens for each E / K from which on a chunk streams whole layers: then nearly all experts are used, and each by enough
/// tokens to pay for its transfer (ik_llama.cpp's rule).
const STREAM_FACTOR: usize = 32;
/// Bytes of experts on their way before the host waits for the device.
const STAGED: u64 = 64 << 20;

impl<B: Backend> Steps<B> {
    /// Whether a chunk is long enough for whole layers to pass through.
    pub(super) fn streams(&self, run: &Run) -> bool {
        let Some(moe) = self.backend.shared().model.config.moe.as_ref().filter(|_| self.partial()) else { return false };
        let from = (moe.num_experts * STREAM_FACTOR).div_ceil(moe.top_k.max(1));
        run.tokens as usize >= from.max(2)
    }

    /// Runs a long chunk: all experts that are not resident pass through the coldest slots of each layer.
    pub(super) async fn stream(&mut self, i: usize) -> Result<()> {
        let Some(run) = self.pending.get(i).map(|p| p.run) else { return Ok(()) };
        self.take_back()?;
        self.set_on_miss(0)?;
        self.pending[i].way = None;
        if run.tokens != self.tokens {
            self.write_state(0, &[run.tokens]);
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
            self.send_quietly(&run, &[Part::Ops(from..m.combine)])?;
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
    pub(super) async fn rounds(&mut self, run: &Run, index: usize, m: &Mixture, experts: &[u16]) -> Result<Vec<u16>> {
        let server = self.server()?;
        let slots = server.residency.slots(m.bank);
        // The hottest stay; a quarter of the slots, and at least one token's experts, take turns. Where experts are written beside what
        // runs, those of a round come while the round before it computes with the other half.
        let window = (slots / 4).max(m.top_k).clamp(1, slots.max(1));
        let halves = if B::ASIDE && window > 1 { 2 } else { 1 };
        let window = window / halves;
        let mut by_heat: Vec<u32> = (0..slots as u32).collect();
        let score = |slot: &u32| match server.residency.owner(m.bank, *slot) {
            Some(e) => server.residency.score(m.bank, e),
            None => f32::NEG_INFINITY,
        };
        by_heat.sort_by(|a, b| score(a).total_cmp(&score(b)).then(a.cmp(b)));
        by_heat.truncate(window * halves);
        // What was submitted so far computes with whoever lives in these slots.
        self.backend.join()?;
        let mut places = (0..halves).cycle();
        let mut failed = Vec::new();
        let mut staged = 0;
        let mut queue: VecDeque<(Vec<u16>, bool)> = experts.chunks(window).map(|c| (c.to_vec(), true)).collect();
        while let Some((round, first)) = queue.pop_front() {
            let mut refused = Vec::new();
            let mut table = vec![ABSENT; self.server()?.residency.experts(m.bank)];
            let half = places.next().unwrap_or(0) * window;
            for (&expert, &slot) in round.iter().zip(by_heat.iter().skip(half)) {
                if self.upload_expert(m.bank, expert, slot, halves > 1)? {
                    table[usize::from(expert)] = slot;
                } else {
                    refused.push(expert);
                }
            }
            match (refused.is_empty(), first) {
                (true, _) => {}
                // Once more, when what is under way has been freed.
                (_, true) => {
                    self.backend.idle().await?;
                    queue.push_back((refused, false));
                }
                (_, false) => failed.extend(refused),
            }
            self.backend.join()?;
            self.write_round(&table);
            let under_way = self.send_quietly(run, &[Part::Place(index), Part::Products(index)])?;
            staged += (round.len() * self.backend.shared().blob_words.get(m.bank).copied().unwrap_or(0) * 4) as u64;
            if staged >= STAGED {
                staged = 0;
                self.backend.fetched(under_way).await?;
            }
        }
        self.write_table(m.bank)?;
        Ok(failed)
    }

    /// Copies an expert to a slot, in place of who lives there; `aside`: beside what runs. `false`: the device refused it, and nobody
    /// lives there now.
    pub(super) fn upload_expert(&mut self, bank: usize, expert: u16, slot: u32, aside: bool) -> Result<bool> {
        let Some(server) = self.server.as_deref_mut() else { return Ok(false) };
        let Some(host) = &mut server.host else { return Ok(false) };
        let (backend, mut bytes) = (&mut self.backend, 0);
        server.residency.clear_slot(bank, slot);
        let result = host.blob(bank, expert, &mut |offset, data| {
            bytes += data.len() as u64;
            backend.write_slot(bank, slot, offset, data, aside)
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

    pub(super) fn write_table(&mut self, bank: usize) -> Result<()> {
        let table = self.server()?.residency.table(bank).to_vec();
        if let Some(slots) = self.backend.shared().slots.clone() {
            slots.write_table(&mut self.backend, bank, &table);
            self.stats.uploaded_bytes += (table.len() * 4) as u64;
        }
        Ok(())
    }

    pub(super) fn write_round(&mut self, table: &[u32]) {
        if let Some(slots) = self.backend.shared().slots.clone() {
            slots.write_round(&mut self.backend, table);
            self.stats.uploaded_bytes += (table.len() * 4) as u64;
        }
    }

    /// The experts of a round are all that live in the layer's slots.
    pub(super) fn write_round_of(&mut self, bank: usize) -> Result<()> {
        let table = self.server()?.residency.table(bank).to_vec();
        self.write_round(&table);
        Ok(())
    }

    pub(super) fn clear_halt(&mut self) {
        self.write_state(StepState::HALT, &[0]);
    }

    pub(super) fn set_on_miss(&mut self, on_miss: u32) -> Result<()> {
        let server = self.server()?;
        if std::mem::replace(&mut server.on_miss, on_miss) != on_miss {
            self.write_state(StepState::HALT + 4, &[on_miss]);
        }
        Ok(())
    }

    /// Leaves the tables to the device's kernels.
    pub(super) fn hand_over(&mut self) -> Result<()> {
        let Some(server) = self.server.as_deref_mut().filter(|s| !s.gathering) else { return Ok(()) };
        let Some(slots) = self.backend.shared().slots.clone() else { return Ok(()) };
        server.gathering = true;
        for bank in 0..server.residency.banks() {
            slots.write_heat(&mut self.backend, bank, server.residency.now(), server.residency.heat(bank));
        }
        Ok(())
    }

    /// Takes the tables back from the device's kernels.
    pub(super) fn take_back(&mut self) -> Result<()> {
        if !self.server()?.gathering {
            return Ok(());
        }
        let slots = self.backend.shared().slots.as_ref();
        let Some((tables, experts, words)) = slots.map(|s| (s.tables.clone(), s.experts, s.record)) else { return Ok(()) };
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
}
