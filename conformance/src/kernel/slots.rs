//! `router` with slots, `place`, `admit`, `gather`: what they do with experts that are not resident must not show in the answer.

use std::sync::Arc;

use pleiad_runtime::{
    Activations, CacheFormat, Model,
    eval::{EvalOptions, Evaluation, evaluate},
    executor::{DeviceStats, Executor, ExpertOptions, LoadOptions},
    experts::{
        budget::Needs,
        ways::{Way, WayChoice},
    },
    forward::AttentionForm,
    model::FfnIds,
};

use crate::{
    case::{Cases, Context, Outcome, Result, Stop},
    report::Measure,
};

pub(super) fn add(cases: &mut Cases<'_>) {
    cases.add("kernel/gather/least budget one token at a time", async |cx: Context| {
        if !cx.gpu.host_visible {
            return Err(Stop::Skip("kernels cannot read host memory on this device".into()));
        }
        // `admit` chooses the slots that `gather` fills.
        placed(&cx, Way::Gather, 1, true).await
    });
    cases
        .add("kernel/router/slots/least budget one token at a time", async |cx: Context| placed(&cx, Way::Resume, 1, true).await);
    cases.add("kernel/router/slots/without biases one token at a time", async |cx: Context| {
        placed(&cx, Way::Resume, 1, false).await
    });
    cases.add("kernel/place/least budget chunks of 16", async |cx: Context| placed(&cx, Way::Resume, 16, true).await);
}

/// The embedded model under the least budget against itself with all experts resident: the same bits.
async fn placed(cx: &Context, way: Way, chunk: usize, biased: bool) -> Result {
    let checkpoint = cx.checkpoint()?;
    let mut model = Model::new(&checkpoint.config, &checkpoint.weights);
    for layer in &mut model.layers {
        if let FfnIds::Moe { bias, .. } = &mut layer.ffn
            && !biased
        {
            *bias = None;
        }
    }
    let model = Arc::new(model);
    let positions = 64;
    let activations = Activations::Q8;
    let needs = Needs::of(&model, positions, positions, CacheFormat::F16, activations, chunk);
    let ids: Vec<u32> = (0..if cx.quick { 16 } else { 48 }).map(|i| (i * 7919 + 13) % model.config.vocab_size as u32).collect();
    let (all, _) = evaluated(cx, &model, None, way, chunk, &ids).await?;
    let (least, stats) = evaluated(cx, &model, Some(needs.least()), way, chunk, &ids).await?;
    let differ = all.logits.iter().zip(&least.logits).filter(|(a, b)| a.to_bits() != b.to_bits()).count();
    let routed = all.routing.values().zip(least.routing.values()).filter(|(a, b)| a.0 != b.0).count();
    Ok(Outcome::new()
        .with("wrong", Measure::new(differ as f64, "").most(0.0))
        .with("misses", Measure::new(stats.expert_misses as f64, "").least(1.0))
        .expect(routed == 0, || format!("{routed} layers choose other experts"))
        .say(format!("{} logits, {} hits", all.logits.len(), stats.expert_hits)))
}

async fn evaluated(
    cx: &Context,
    model: &Arc<Model>,
    budget: Option<u64>,
    way: Way,
    chunk: usize,
    ids: &[u32],
) -> Result<(Evaluation, DeviceStats)> {
    let activations = Activations::Q8;
    let experts = ExpertOptions { budget, misses: WayChoice::Only(way), chunk, activations, ..ExpertOptions::default() };
    let options = LoadOptions { positions: 64, max_context: 64, cache: CacheFormat::F16, threads: Some(1), experts };
    let mut e = Executor::load(Some(Arc::clone(&cx.gpu)), Arc::clone(model), &options, &mut |_, _| {}).await?;
    let options = EvalOptions { chunk, activations, attention: AttentionForm::Absorbed };
    let found = evaluate(&mut e, model, options, ids, &mut |_, _| {}).await?;
    Ok((found, e.stats()))
}
