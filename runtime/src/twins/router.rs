//! Twin of the router (DeepSeek-V3 report, equations 12 to 16; V2 report, equations 20 to 23).

use pleiad_models::config::{GroupScore, Moe, Scoring};

/// Scores of the groups: `choice` holds the scores that select, `[E]`.
pub fn score_groups(moe: &Moe, choice: &[f32]) -> Vec<f32> {
    choice
        .chunks(moe.num_experts / moe.num_groups)
        .map(|group| {
            let mut sorted = group.to_vec();
            sorted.sort_by(|a, b| b.total_cmp(a));
            match moe.group_score {
                GroupScore::Max => sorted[0],
                GroupScore::TopTwo => sorted[0] + sorted.get(1).copied().unwrap_or(0.0),
            }
        })
        .collect()
}

/// The `count` best of `scores`, ties to the lower index, ascending.
fn best(scores: &[f32], count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
    order.truncate(count);
    order.sort_unstable();
    order
}

/// [`crate::plan::Op::Router`] of one row: the chosen experts, ascending, and their weights.
///
/// The bias enters the choice only: weights come from the unbiased scores. Groups that are not kept are out of the
/// choice whatever their scores, so a negative bias cannot bring them back.
pub fn route(moe: &Moe, logits: &[f32], bias: Option<&[f32]>, ids: &mut [u32], weights: &mut [f32]) {
    let scores: Vec<f32> = match moe.scoring {
        Scoring::Sigmoid => logits.iter().map(|x| 1.0 / (1.0 + (-x).exp())).collect(),
        Scoring::Softmax => {
            let max = logits.iter().copied().fold(f32::MIN, f32::max);
            let e: Vec<f64> = logits.iter().map(|x| f64::from(x - max).exp()).collect();
            let sum: f64 = e.iter().sum();
            e.iter().map(|x| (x / sum) as f32).collect()
        }
    };
    let mut choice = scores.clone();
    if let Some(bias) = bias {
        choice.iter_mut().zip(bias).for_each(|(c, b)| *c += b);
    }
    if moe.num_groups > 1 {
        let kept = best(&score_groups(moe, &choice), moe.top_k_groups);
        let size = moe.num_experts / moe.num_groups;
        for (e, c) in choice.iter_mut().enumerate() {
            if !kept.contains(&(e / size)) {
                *c = f32::MIN;
            }
        }
    }
    let chosen = best(&choice, moe.top_k);
    let sum: f32 = if moe.norm_top_k { chosen.iter().map(|&e| scores[e]).sum::<f32>() + 1e-20 } else { 1.0 };
    for ((&e, id), w) in chosen.iter().zip(ids).zip(weights) {
        *id = e as u32;
        *w = scores[e] / sum * moe.scaling_factor;
    }
}
