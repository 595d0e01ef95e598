//! What is learnt from a step that is over: hits and misses, who is hot, how long a way of serving misses takes.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use web_time::Instant;

use super::{backend::Backend, exec::Steps};
use crate::{
    error::Result,
    experts::{
        record::{CHOICE_WORDS, GATHERED, HIT},
        trace::{Routed, Served},
        ways::{Sample, Way},
    },
};

/// How much hotter (in log2) than a resident an expert must be to be taken in for the future.
const MARGIN: f32 = 0.5;
/// Share of a recent average that the newest token makes.
const NEWEST: f32 = 0.1;

/// A choice of the router.
#[derive(Clone, Copy, Debug)]
pub(super) struct Choice {
    pub expert: u16,
    pub hit: bool,
    pub gathered: bool,
    pub weight: f32,
}

/// The record of a step.
pub(super) struct Record<'a> {
    pub words: &'a [u32],
    pub tokens: usize,
    pub top_k: usize,
}

impl Record<'_> {
    /// The choices of a bank, `[T, K]`; fewer where the record is short.
    pub fn bank(&self, bank: usize) -> impl Iterator<Item = Choice> {
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

impl<B: Backend> Steps<B> {
    /// Counts hits and misses, keeps heat and profile, lets the choice among ways see the token, and takes experts in for the future.
    /// Only the first `kept` rows are reported.
    pub(super) fn account(&mut self, i: usize, record: &[u32], kept: usize) -> Result<Option<Arc<[Routed]>>> {
        let (p, server) = match (self.pending.get(i), self.server.as_deref_mut()) {
            (Some(p), Some(s)) => (p, s),
            _ => return Ok(None),
        };
        let run = p.run;
        let plan = &self.plans[run.plan];
        let (tokens, top_k) = (run.tokens as usize, plan.top_k());
        let decodes = plan.decodes(run.tokens);
        let record = Record { words: record, tokens, top_k };
        let words_of = |bank: usize| self.backend.shared().blob_words.get(bank).copied().unwrap_or(0);
        let served: BTreeMap<(usize, u16), Served> = p.served.iter().map(|&(b, e, how)| ((b, e), how)).collect();
        let start = (run.length - run.tokens) as usize;
        let mut rows = Vec::new();
        let (mut hits, mut misses, mut layers_missed) = (0, 0, 0);
        let mut missed: Vec<(usize, Vec<u16>)> = Vec::new();
        server.residency.tick(run.tokens);
        for m in &plan.mixtures {
            let (mut absent, mut moved, mut present) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
            let mut choices: Vec<Choice> = Vec::with_capacity(top_k);
            for (pair, c) in record.bank(m.bank).enumerate() {
                if let Some(n) = server.uses.get_mut(m.bank).and_then(|u| u.get_mut(usize::from(c.expert))) {
                    *n = n.saturating_add(1);
                }
                server.residency.touch(m.bank, c.expert);
                let first = if c.hit { present.insert(c.expert) } else { absent.insert(c.expert) };
                // Of the tokens of a step with drafts, several share an expert: it is fetched once.
                if !decodes || first {
                    hits += u64::from(c.hit);
                    misses += u64::from(!c.hit);
                }
                if !server.trace || pair / top_k >= kept {
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
                    let stride = words_of(m.bank) as u64 * 4;
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
            let bytes = |(b, e): &(usize, Vec<u16>)| words_of(*b) as u64 * 4 * e.len() as u64;
            self.stats.expert_bytes += missed.iter().map(bytes).sum::<u64>();
        }
        if let (true, Some(way)) = (decodes, way) {
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
                self.upload_expert(*bank, expert, slot, false)?;
            }
            self.write_table(*bank)?;
        }
        Ok(())
    }
}
