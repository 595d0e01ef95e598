//! The plans an engine replays.

use std::collections::HashMap;

use crate::{
    Error, Result,
    executor::{Activations, Executor, PlanId},
    forward::{AttentionForm, Options, Output, Speculation, record},
    model::Model,
};

/// New tokens above which the expanded form of attention takes fewer operations than the absorbed one,
/// whatever the context: `(dn + dv) r / (2 r + dr - dn - dr - dv)`; 171 for DeepSeek-V3.
pub(crate) fn expanded_from(model: &Model) -> usize {
    let a = &model.config.attention;
    let (dn, dr, dv, r) = (a.qk_nope_head_dim, a.qk_rope_head_dim, a.v_head_dim, a.kv_lora_rank);
    let (absorbed, expanded) = (2 * r + dr, dn + dr + dv);
    if absorbed <= expanded { usize::MAX } else { (dn + dv) * r / (absorbed - expanded) }
}

/// The plans of one engine, each prepared at first use if not before.
pub(crate) struct Plans {
    activations: Activations,
    /// The numbers of drafts that a step may make; empty without a module that drafts.
    drafts: Vec<usize>,
    chunk: usize,
    expanded_from: usize,
    ready: HashMap<Options, PlanId>,
}

impl Plans {
    pub fn new(model: &Model, activations: Activations, chunk: usize, drafts: Vec<usize>) -> Self {
        let drafts = if model.mtp.is_some() { drafts } else { Vec::new() };
        Self { activations, drafts, chunk: chunk.max(1), expanded_from: expanded_from(model), ready: HashMap::new() }
    }

    /// Forgets all plans: the executor is another.
    pub fn forget(&mut self) {
        self.ready.clear();
    }

    /// The most tokens of one step.
    pub fn chunk(&self) -> usize {
        self.chunk
    }

    /// The plan of a step of `tokens` tokens.
    pub async fn get(
        &mut self,
        executor: &mut Executor,
        model: &Model,
        tokens: usize,
        output: Output,
        speculation: Option<Speculation>,
    ) -> Result<PlanId> {
        let options = self.options(tokens, output, speculation);
        if let Some(id) = self.ready.get(&options) {
            return Ok(*id);
        }
        self.make(executor, model, &[options], &mut |_, _| {}).await?;
        match self.ready.get(&options) {
            Some(id) => Ok(*id),
            None => Err(Error::Invalid(format!("there is no plan for {tokens} tokens"))),
        }
    }

    /// Prepares every plan that steps may need. `progress` is called with kernels compiled and in all, if there are any.
    pub async fn prepare(&mut self, executor: &mut Executor, model: &Model, progress: &mut dyn FnMut(u64, u64)) -> Result<()> {
        let all = self.all();
        self.make(executor, model, &all, progress).await
    }

    async fn make(
        &mut self,
        executor: &mut Executor,
        model: &Model,
        options: &[Options],
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<()> {
        let plans: Vec<_> = options.iter().map(|&o| record(model, o)).collect();
        let ids = executor.prepare(&plans, progress).await?;
        self.ready.extend(options.iter().copied().zip(ids));
        Ok(())
    }

    /// The options of every plan, each once; those of long chunks first, whose buffers the others share.
    fn all(&self) -> Vec<Options> {
        let short = self.chunk.min(self.expanded_from.max(1));
        let whole = [(self.chunk, Output::Cache), (self.chunk, Output::Token), (short, Output::Token)];
        let mut steps = Vec::new();
        for draft in self.drafts.iter().copied().map(Some).chain(self.drafts.is_empty().then_some(None)) {
            steps.extend(whole.map(|(tokens, output)| (tokens, output, draft.map(|draft| Speculation { verify: 0, draft }))));
        }
        for &draft in &self.drafts {
            steps.extend([0, draft].map(|verify| (verify + 1, Output::Token, Some(Speculation { verify, draft }))));
        }
        steps.push((1, Output::Token, None));
        let mut all = Vec::new();
        for (tokens, output, speculation) in steps {
            let options = self.options(tokens, output, speculation);
            if !all.contains(&options) {
                all.push(options);
            }
        }
        all
    }

    fn options(&self, tokens: usize, output: Output, speculation: Option<Speculation>) -> Options {
        // Nothing is drafted from a chunk that is not the last.
        let drafts = |s: Speculation| if output == Output::Cache { Speculation { verify: 0, draft: 0 } } else { s };
        let speculation = speculation.map(drafts);
        let verify = speculation.map_or(0, |s| s.verify);
        // What verifies is to compute as decoding does.
        let attention =
            if tokens > self.expanded_from && verify == 0 { AttentionForm::Expanded } else { AttentionForm::Absorbed };
        let max_tokens = match (tokens, attention) {
            (1, _) => 1,
            _ if verify > 0 => tokens,
            (_, AttentionForm::Absorbed) => self.chunk.min(self.expanded_from),
            (_, AttentionForm::Expanded) => self.chunk,
        };
        Options { max_tokens, output, activations: self.activations, attention, speculation }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

    use super::*;

    #[test]
    fn every_step_finds_its_plan_prepared() {
        for (chunk, expanded_from) in [(512, 171), (512, usize::MAX), (64, 171), (2, 1), (1, 171), (7, 0)] {
            let drafts = if chunk == 64 { vec![1, 3] } else { Vec::new() };
            let plans = Plans { activations: Activations::Q8, drafts, chunk, expanded_from, ready: HashMap::new() };
            let all = plans.all();
            let begins: Vec<_> = plans.drafts.iter().map(|&draft| Some(Speculation { verify: 0, draft })).collect();
            let begins = if begins.is_empty() { vec![None] } else { begins };
            for (tokens, begin) in (1..=chunk).flat_map(|t| begins.iter().map(move |b| (t, *b))) {
                assert!(all.contains(&plans.options(tokens, Output::Token, begin)), "{tokens} of {chunk}, {expanded_from}");
                // All chunks but the last are full.
                assert!(all.contains(&plans.options(chunk, Output::Cache, begin)));
            }
            // Without drafts at the end of the context; with drafts everywhere else.
            assert!(all.contains(&plans.options(1, Output::Token, None)));
            for &draft in &plans.drafts {
                let s = Speculation { verify: draft, draft };
                assert!(all.contains(&plans.options(draft + 1, Output::Token, Some(s))));
            }
        }
    }
}
