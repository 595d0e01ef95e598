//! The embedded model on the device against the twins: logits, experts, tokens.
//!
//! The tokens are forced: what the twins say is fed to both, so that one token that differs does not carry the rest away. A
//! token or an expert may differ only where the twins' own choice was close.

use std::sync::Arc;

use pleiad_models::config::{GroupScore, Moe, Scoring};
use pleiad_runtime::{
    Activations, CacheFormat, Model,
    cpu::CpuExecutor,
    executor::{Executor, ExpertOptions, LoadOptions, PlanId, Readback},
    forward::{AttentionForm, Options, Output, record},
    model::FfnIds,
    plan::{Act, Op, Plan},
    step::{PAGE, StepState},
    twins::score_groups,
};

use crate::{
    case::{Cases, Context, Outcome, Result, Stop},
    report::Measure,
    setup::compare,
};

/// How far results may be off, by the precision of activations.
struct Bounds {
    nmse: f64,
    /// Of scores, between an expert that was left out and one that was taken in its place.
    expert: f64,
    /// Of logits, between the twins' best token and the device's.
    token: f64,
}

fn bounds(activations: Activations) -> Bounds {
    match activations {
        Activations::F32 => Bounds { nmse: 1e-7, expert: 1e-4, token: 0.02 },
        // A value at the border of two quants falls to either side, and layers add to it.
        Activations::Q8 => Bounds { nmse: 5e-3, expert: 0.05, token: 1.0 },
    }
}

pub(crate) fn add(cases: &mut Cases<'_>) {
    for activations in [Activations::F32, Activations::Q8] {
        let name = if activations == Activations::F32 { "f32" } else { "q8" };
        for (way, chunk, attention) in [
            ("one token at a time", 1, AttentionForm::Absorbed),
            ("chunks of 32", 32, AttentionForm::Absorbed),
            ("chunks of 32 expanded", 32, AttentionForm::Expanded),
        ] {
            if cases.settings.quick && attention == AttentionForm::Expanded && activations == Activations::Q8 {
                continue;
            }
            cases.add(format!("model/tiny/{name}/{way}"), async move |cx: Context| {
                compared(&cx, activations, chunk, attention).await
            });
        }
    }
}

/// The forward pass with every layer's router logits kept.
struct Recorded {
    plan: Plan,
    logits: Act,
    /// Layer, router logits, ids.
    routers: Vec<(usize, Act, Act)>,
}

impl Recorded {
    fn new(model: &Model, options: Options) -> std::result::Result<Self, Stop> {
        let mut plan = record(model, options);
        let logits = plan.find("logits").ok_or_else(|| Stop::Fail("the plan has no logits".into()))?;
        let mut routers = Vec::new();
        for i in 0..plan.ops.len() {
            let Op::Router { logits: shared, layer, ids, .. } = plan.ops[i] else { continue };
            let decl = plan.decl(shared).clone();
            let own = plan.act(format!("router.{layer}.logits"), decl.kind, decl.rows, decl.width);
            let product = plan.ops[..i].iter_mut().rev().find_map(|op| match op {
                Op::MatMul { out, .. } if *out == shared => Some(out),
                _ => None,
            });
            let Some(out) = product else {
                return Err(Stop::Fail(format!("layer {layer}: no product makes its router's logits")));
            };
            *out = own;
            if let Op::Router { logits, .. } = &mut plan.ops[i] {
                *logits = own;
            }
            routers.push((layer, own, ids));
        }
        Ok(Self { plan, logits, routers })
    }
}

/// What came out, for every token: logits; for every router its logits and ids.
#[derive(Default)]
struct Found {
    logits: Vec<f32>,
    routers: Vec<(Vec<f32>, Vec<u32>)>,
}

/// A plan on an executor.
struct Runner {
    executor: Executor,
    recorded: Recorded,
    plan: PlanId,
    done: usize,
    found: Found,
}

impl Runner {
    async fn new(mut executor: Executor, recorded: Recorded) -> Result<Self> {
        let plan = executor.prepare(std::slice::from_ref(&recorded.plan), &mut |_, _| {}).await?[0];
        let found = Found { logits: Vec::new(), routers: recorded.routers.iter().map(|_| Default::default()).collect() };
        Ok(Self { executor, recorded, plan, done: 0, found })
    }

    /// Feeds tokens, and keeps what comes out.
    async fn feed(&mut self, ids: &[u32]) -> Result<()> {
        let e = &mut self.executor;
        let pages: Vec<u32> = (0..(self.done + ids.len()).div_ceil(PAGE) as u32).collect();
        e.write_step(&StepState { pos: self.done as u32, tokens: ids.len() as u32, ..StepState::default() }, &pages);
        e.write_ids(ids);
        let ticket = e.submit(self.plan, ids.len(), Readback::default())?;
        e.wait(ticket).await?;
        let floats = |words: Vec<u32>| words.into_iter().map(f32::from_bits);
        self.found.logits.extend(floats(e.read_act(self.plan, self.recorded.logits, ids.len()).await?));
        for (&(_, logits, chosen), (all, all_ids)) in self.recorded.routers.iter().zip(&mut self.found.routers) {
            all.extend(floats(e.read_act(self.plan, logits, ids.len()).await?));
            all_ids.extend(e.read_act(self.plan, chosen, ids.len()).await?);
        }
        self.done += ids.len();
        Ok(())
    }
}

/// The lowest id of the largest.
fn best(logits: &[f32]) -> usize {
    (0..logits.len()).reduce(|a, b| if logits[b] > logits[a] { b } else { a }).unwrap_or(0)
}

const PROMPT: &str = "Question: what is the capital of France, and how much is 17 + 25? Answer:";

async fn compared(cx: &Context, activations: Activations, chunk: usize, attention: AttentionForm) -> Result {
    let checkpoint = cx.checkpoint()?;
    let model = Arc::new(Model::new(&checkpoint.config, &checkpoint.weights));
    let vocab = model.config.vocab_size;
    let positions = if cx.quick { 32 } else { 128 };
    let cache = CacheFormat::F16;
    let options = LoadOptions {
        positions,
        max_context: positions,
        cache,
        threads: Some(1),
        experts: ExpertOptions { activations, chunk, ..ExpertOptions::default() },
    };
    let record_of = |max_tokens: usize, attention| {
        Recorded::new(&model, Options { max_tokens, output: Output::Everything, activations, attention, speculation: None })
    };

    // The twins read the prompt, then say the rest themselves.
    let cpu = Executor::Cpu(Box::new(CpuExecutor::plain(Arc::clone(&model), &options)?));
    let mut twins = Runner::new(cpu, record_of(1, AttentionForm::Absorbed)?).await?;
    let encoded = checkpoint.tokenizer.as_ref().map(|t| t.encode(PROMPT, true));
    let mut ids = encoded.and_then(|ids| ids.ok()).unwrap_or_else(|| vec![1]);
    ids.truncate(positions / 2);
    for i in 0..positions {
        if i >= ids.len() {
            let last = &twins.found.logits[(i - 1) * vocab..];
            ids.push(best(last) as u32);
        }
        twins.feed(&ids[i..=i]).await?;
    }

    let load = Executor::load(Some(Arc::clone(&cx.gpu)), Arc::clone(&model), &options, &mut |_, _| {}).await?;
    let mut device = Runner::new(load, record_of(chunk, attention)?).await?;
    for part in ids.chunks(chunk) {
        device.feed(part).await?;
    }
    Ok(judge(&model, &twins, &device.found, &bounds(activations)))
}

fn judge(model: &Model, twins: &Runner, found: &Found, bounds: &Bounds) -> Outcome {
    let vocab = model.config.vocab_size;
    let expected = &twins.found;
    let d = compare(&expected.logits, &found.logits);
    let positions = expected.logits.len() / vocab;
    let mut curve = Vec::new();
    let (mut same, mut lead, mut lead_at) = (0usize, 0.0f64, String::new());
    for (i, (e, f)) in expected.logits.chunks(vocab).zip(found.logits.chunks(vocab)).enumerate() {
        let (a, b) = (best(e), best(f));
        same += usize::from(a == b);
        let by = f64::from(e[a]) - f64::from(e[b]);
        if by > lead {
            (lead, lead_at) = (by, format!("position {i}: token {b}, not {a}"));
        }
        curve.push((i as f64, compare(e, f).nmse));
    }
    let experts = Experts::compare(model, twins, found);
    Outcome::new()
        .with("nmse", Measure::new(d.nmse, "").most(bounds.nmse).curve(curve))
        .with("worst", Measure::new(d.worst, "ulp").at(format!("logit {} of position {}", d.at % vocab, d.at / vocab)))
        .with("agreement", Measure::new(same as f64 / positions as f64, "").least(0.9))
        .with("lead of a token", Measure::new(lead, "").most(bounds.token).at(lead_at))
        .with("margin", Measure::new(experts.margin, "").most(bounds.expert).at(experts.at))
        .with("experts", Measure::new(1.0 - experts.changed as f64 / experts.all.max(1) as f64, ""))
        .say(format!("{positions} positions, {same} with the same token"))
        .say(format!("{} of {} sets of experts differ", experts.sets, experts.all_sets))
}

/// Experts that the device chose and the twins did not.
#[derive(Default)]
struct Experts {
    all: usize,
    changed: usize,
    all_sets: usize,
    sets: usize,
    /// The largest, of the first layers to differ.
    margin: f64,
    at: String,
}

impl Experts {
    fn compare(model: &Model, twins: &Runner, found: &Found) -> Self {
        let mut total = Self::default();
        let Some(moe) = &model.config.moe else { return total };
        // Where a tie has fallen to the other side, the layers above it read other rows: only the first layer of a position to
        // differ is judged by its margin.
        let mut differs = vec![false; twins.done];
        for (i, &(layer, ..)) in twins.recorded.routers.iter().enumerate() {
            let bias = match model.layers.get(layer).map(|l| &l.ffn) {
                Some(FfnIds::Moe { bias: Some(b), .. }) => model.vec(*b).to_vec(),
                _ => vec![0.0; moe.num_experts],
            };
            let (logits, ids) = &twins.found.routers[i];
            let rows = logits.chunks(moe.num_experts).zip(ids.chunks(moe.top_k)).zip(found.routers[i].1.chunks(moe.top_k));
            for (t, ((logits, wanted), got)) in rows.enumerate() {
                total.all += moe.top_k;
                total.all_sets += 1;
                if wanted == got {
                    continue;
                }
                total.sets += 1;
                let first = differs.get_mut(t).is_some_and(|d| !std::mem::replace(d, true));
                for &wrong in got.iter().filter(|e| !wanted.contains(e)) {
                    total.changed += 1;
                    let margin = lead(moe, logits, &bias, wanted, got, wrong as usize);
                    if first && margin > total.margin {
                        (total.margin, total.at) = (margin, format!("layer {layer}, position {t}: {got:?}, not {wanted:?}"));
                    }
                }
            }
        }
        total
    }
}

/// By how much the twins' choice was better than `wrong`: of its score, or where its group was not chosen, of its group's. A group
/// that is judged by two experts may be off by what both are off, so half of its lead counts.
fn lead(moe: &Moe, logits: &[f32], bias: &[f32], wanted: &[u32], got: &[u32], wrong: usize) -> f64 {
    if wrong >= moe.num_experts {
        return f64::INFINITY;
    }
    let scores: Vec<f32> = match moe.scoring {
        Scoring::Sigmoid => logits.iter().map(|x| 1.0 / (1.0 + (-x).exp())).collect(),
        Scoring::Softmax => {
            let most = logits.iter().copied().fold(f32::MIN, f32::max);
            let sum: f32 = logits.iter().map(|x| (x - most).exp()).sum();
            logits.iter().map(|x| (x - most).exp() / sum).collect()
        }
    };
    let choice: Vec<f32> = scores.iter().zip(bias).map(|(s, b)| s + b).collect();
    let groups = score_groups(moe, &choice);
    let size = moe.num_experts / moe.num_groups.max(1);
    let mut order: Vec<usize> = (0..groups.len()).collect();
    order.sort_by(|&a, &b| groups[b].total_cmp(&groups[a]).then(a.cmp(&b)));
    let kept = &order[..moe.top_k_groups.clamp(1, order.len())];
    if moe.num_groups > 1 && !kept.contains(&(wrong / size)) {
        let least = kept.iter().map(|&g| groups[g]).fold(f32::MAX, f32::min);
        let summed = if moe.group_score == GroupScore::TopTwo && size > 1 { 2.0 } else { 1.0 };
        return f64::from(least - groups[wrong / size]) / summed;
    }
    // Where another group was chosen, experts of the one that was not make room: that says nothing more than the groups' lead.
    let group = |e: u32| e as usize / size;
    let moved = moe.num_groups > 1 && got.iter().any(|&e| !kept.contains(&group(e)));
    let lost = |e: u32| moved && !got.iter().any(|&other| group(other) == group(e));
    let missed = wanted.iter().filter(|e| !got.contains(e) && !lost(**e)).map(|&e| choice[e as usize]).fold(f32::MIN, f32::max);
    f64::from(missed - choice[wrong]).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lead_is_of_scores_or_of_groups() {
        let moe = Moe {
            num_groups: 2,
            top_k_groups: 1,
            scoring: Scoring::Sigmoid,
            group_score: GroupScore::TopTwo,
            ..crate::setup::moe(8, 2, 32)
        };
        let logits = [3.0, 2.0, 1.0, 0.0, -1.0, -2.0, -3.0, -4.0];
        let bias = [0.0; 8];
        let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
        // Expert 2 in place of 1, of the same group.
        let found = lead(&moe, &logits, &bias, &[0, 1], &[0, 2], 2);
        assert!((found - (sigmoid(2.0) - sigmoid(1.0))).abs() < 1e-6, "{found}");
        // Expert 4, of the other group.
        let found = lead(&moe, &logits, &bias, &[0, 1], &[0, 4], 4);
        let groups = sigmoid(3.0) + sigmoid(2.0) - sigmoid(-1.0) - sigmoid(-2.0);
        assert!((found - groups / 2.0).abs() < 1e-6, "{found}");
        assert_eq!(lead(&moe, &logits, &bias, &[0, 1], &[0, 9], 9), f64::INFINITY);
        // Of four groups of two the third in place of the second: 1 takes what is left, and 4 is what is judged.
        let moe = Moe { num_groups: 4, top_k_groups: 2, top_k: 3, ..moe };
        let (wanted, got) = ([0, 1, 2], [0, 1, 4]);
        assert_eq!(lead(&moe, &logits, &bias, &[0, 2, 3], &got, 1), 0.0);
        let groups = sigmoid(1.0) + sigmoid(0.0) - sigmoid(-1.0) - sigmoid(-2.0);
        assert!((lead(&moe, &logits, &bias, &wanted, &got, 4) - groups / 2.0).abs() < 1e-6);
        assert_eq!(best(&[1.0, 3.0, 3.0]), 1);
    }
}
