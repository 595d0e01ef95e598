//! The plans an engine replays, each prepared at first use.

use std::collections::HashMap;

use crate::{
    Result,
    executor::{Activations, Executor, PlanId},
    forward::{AttentionForm, Options, Output, record},
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

/// The plans of one engine.
pub(crate) struct Plans {
    activations: Activations,
    chunk: usize,
    expanded_from: usize,
    ready: HashMap<Options, PlanId>,
}

impl Plans {
    pub fn new(model: &Model, activations: Activations, chunk: usize) -> Self {
        Self { activations, chunk: chunk.max(1), expanded_from: expanded_from(model), ready: HashMap::new() }
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
    pub fn get(&mut self, executor: &mut Executor, model: &Model, tokens: usize, output: Output) -> Result<PlanId> {
        let attention = if tokens > self.expanded_from { AttentionForm::Expanded } else { AttentionForm::Absorbed };
        let max_tokens = match (tokens, attention) {
            (1, _) => 1,
            (_, AttentionForm::Absorbed) => self.chunk.min(self.expanded_from),
            (_, AttentionForm::Expanded) => self.chunk,
        };
        let options = Options { max_tokens, output, activations: self.activations, attention };
        if let Some(id) = self.ready.get(&options) {
            return Ok(*id);
        }
        let id = executor.compile(&record(model, options))?;
        self.ready.insert(options, id);
        Ok(id)
    }
}
