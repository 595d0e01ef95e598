//! Logits and routing of given token ids: what comparisons with other implementations rest on.
//!
//! The ids go through the latent cache in chunks; the result does not depend on their size (a chunk of one is
//! decoding), but for rounding.

use std::collections::BTreeMap;

use crate::{
    Activations, Error, Model, Result,
    executor::{Executor, PlanId, Readback},
    forward::{AttentionForm, Options, Output, record},
    plan::{Act, Plan},
    step::{PAGE, StepState},
};

/// How to evaluate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EvalOptions {
    /// Tokens of one step, at least 1.
    pub chunk: usize,
    /// Precision of activations in quantised products.
    pub activations: Activations,
    /// Form of attention.
    pub attention: AttentionForm,
}

/// What the model says about T given token ids.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Evaluation {
    /// `[T, vocab]`.
    pub logits: Vec<f32>,
    /// For every mixture layer, the chosen experts and their weights, `[T, K]` each; ids ascend.
    pub routing: BTreeMap<usize, (Vec<u32>, Vec<f32>)>,
    /// Experts chosen for a token, K; 0 for a model without a mixture.
    pub top_k: usize,
}

/// The logits of every one of `ids`, and the experts that it was routed to.
///
/// The first pages of the executor's latent cache are used and overwritten: it must have been loaded with room for
/// `ids.len()` positions, in the cache and in the rotary tables, and no engine may use it at the same time.
/// `progress` is called with tokens done and tokens in all.
pub async fn evaluate(
    executor: &mut Executor,
    model: &Model,
    options: EvalOptions,
    ids: &[u32],
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Evaluation> {
    let config = &model.config;
    check(ids, config.vocab_size, config.max_positions)?;
    let chunk = options.chunk.clamp(1, ids.len());
    let plan = record(
        model,
        Options {
            max_tokens: chunk,
            output: Output::Everything,
            activations: options.activations,
            attention: options.attention,
            speculation: None,
        },
    );
    let outputs = Outputs::of(&plan, config.num_layers)?;
    let id = executor.compile(&plan)?;

    let pages: Vec<u32> = (0..ids.len().div_ceil(PAGE) as u32).collect();
    let top_k = config.moe.as_ref().map_or(0, |m| m.top_k);
    let mut all = Evaluation { top_k, ..Evaluation::default() };
    all.logits.reserve_exact(ids.len() * config.vocab_size);
    let mut done = 0;
    progress(0, ids.len());
    for part in ids.chunks(chunk) {
        let step = StepState { pos: done as u32, tokens: part.len() as u32, ..StepState::default() };
        executor.write_step(&step, &pages);
        executor.write_ids(part);
        let ticket = executor.submit(id, part.len(), Readback::default())?;
        executor.wait(ticket).await?;
        outputs.append(executor, id, part.len(), &mut all).await?;
        done += part.len();
        progress(done, ids.len());
    }
    Ok(all)
}

/// Refuses ids that no step can be made of.
fn check(ids: &[u32], vocab: usize, max_positions: usize) -> Result<()> {
    if ids.is_empty() {
        return Err(Error::Invalid("there are no token ids".into()));
    }
    if let Some(id) = ids.iter().find(|&&id| id as usize >= vocab) {
        return Err(Error::Invalid(format!("token id {id} is beyond the vocabulary of {vocab}")));
    }
    if ids.len() > max_positions {
        return Err(Error::Limit {
            what: "token ids, in positions that the model was made for".into(),
            needed: ids.len() as u64,
            limit: max_positions as u64,
        });
    }
    Ok(())
}

/// The activations of a plan that [`evaluate`] reads.
struct Outputs {
    logits: Act,
    /// (layer, ids, weights).
    routing: Vec<(usize, Act, Act)>,
}

impl Outputs {
    fn of(plan: &Plan, layers: usize) -> Result<Self> {
        let logits = plan.find("logits").ok_or_else(|| Error::Invalid("the plan has no logits".into()))?;
        let pair = |n: usize| Some((n, plan.find(&format!("router.{n}.ids"))?, plan.find(&format!("router.{n}.weights"))?));
        Ok(Self { logits, routing: (0..layers).filter_map(pair).collect() })
    }

    async fn append(&self, executor: &mut Executor, plan: PlanId, rows: usize, all: &mut Evaluation) -> Result<()> {
        let logits = executor.read_act(plan, self.logits, rows).await?;
        all.logits.extend(logits.into_iter().map(f32::from_bits));
        for &(layer, ids, weights) in &self.routing {
            let ids = executor.read_act(plan, ids, rows).await?;
            let weights = executor.read_act(plan, weights, rows).await?;
            let (all_ids, all_weights) = all.routing.entry(layer).or_default();
            all_ids.extend(ids);
            all_weights.extend(weights.into_iter().map(f32::from_bits));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

    use super::*;

    #[test]
    fn ids_that_no_step_can_be_made_of_are_refused() {
        assert!(check(&[1, 2, 3], 4, 3).is_ok());
        let empty = check(&[], 4, 3).unwrap_err().to_string();
        assert!(empty.contains("no token ids"), "{empty}");
        let beyond = check(&[1, 4], 4, 3).unwrap_err().to_string();
        assert!(beyond.contains("4 is beyond the vocabulary of 4"), "{beyond}");
        let long = check(&[0; 4], 4, 3).unwrap_err();
        assert!(matches!(long, Error::Limit { needed: 4, limit: 3, .. }), "{long}");
    }
}
