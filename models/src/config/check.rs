//! Checks of a configuration, whatever file it came from.

use super::Config;
use crate::{Error, Result};

/// The names under which a file holds the values, for errors.
pub(super) struct Keys {
    pub vocab_size: &'static str,
    pub hidden_size: &'static str,
    pub num_layers: &'static str,
    pub num_mtp_layers: &'static str,
    pub max_positions: &'static str,
    pub rms_norm_eps: &'static str,
    pub num_heads: &'static str,
    pub q_lora_rank: &'static str,
    pub kv_lora_rank: &'static str,
    pub qk_nope_head_dim: &'static str,
    pub qk_rope_head_dim: &'static str,
    pub v_head_dim: &'static str,
    pub theta: &'static str,
    pub yarn_factor: &'static str,
    pub yarn_original: &'static str,
    pub yarn_beta: &'static str,
    pub yarn_mscale: &'static str,
    pub intermediate_size: &'static str,
    pub num_experts: &'static str,
    pub top_k: &'static str,
    pub num_shared: &'static str,
    pub moe_intermediate_size: &'static str,
    pub num_groups: &'static str,
    pub top_k_groups: &'static str,
    pub scaling_factor: &'static str,
}

/// The most layers that a file may claim. Checked before anything is sized by it.
pub(super) const MAX_LAYERS: usize = 2048;

/// Refuses what no model of the family can be. The upper bounds are generous; they keep products
/// of two dimensions far from overflow and make a damaged file fail here, under the key's name.
pub(super) fn check(c: &Config, file: &str, keys: &Keys) -> Result<()> {
    let bad = |key: &str, what: String| Err(Error::metadata(file, key, what));
    let size = |key: &str, value: usize, most: usize| match value {
        0 => bad(key, "is 0".to_owned()),
        v if v > most => bad(key, format!("is {v}; more than {most} is not plausible")),
        _ => Ok(()),
    };
    let positive = |key: &str, value: f64, most: f64| {
        if value.is_finite() && value > 0.0 && value <= most {
            Ok(())
        } else {
            bad(key, format!("is {value}, but must be above 0 and at most {most}"))
        }
    };
    size(keys.vocab_size, c.vocab_size, 1 << 22)?;
    size(keys.hidden_size, c.hidden_size, 1 << 16)?;
    size(keys.num_layers, c.num_layers, MAX_LAYERS)?;
    if c.num_mtp_layers > 16 {
        return bad(keys.num_mtp_layers, format!("is {}; more than 16 is not plausible", c.num_mtp_layers));
    }
    size(keys.max_positions, c.max_positions, 1 << 28)?;
    positive(keys.rms_norm_eps, c.rms_norm_eps.into(), 0.1)?;

    let a = &c.attention;
    size(keys.num_heads, a.num_heads, 4096)?;
    if let Some(rank) = a.q_lora_rank {
        size(keys.q_lora_rank, rank, 1 << 16)?;
    }
    size(keys.kv_lora_rank, a.kv_lora_rank, 1 << 16)?;
    size(keys.qk_nope_head_dim, a.qk_nope_head_dim, 1 << 13)?;
    size(keys.qk_rope_head_dim, a.qk_rope_head_dim, 1 << 13)?;
    size(keys.v_head_dim, a.v_head_dim, 1 << 13)?;
    if !a.qk_rope_head_dim.is_multiple_of(2) {
        return bad(keys.qk_rope_head_dim, format!("is {}, but rotary embedding turns pairs", a.qk_rope_head_dim));
    }

    positive(keys.theta, c.rope.theta, 1e12)?;
    if c.rope.theta <= 1.0 {
        return bad(keys.theta, format!("is {}, but must be above 1", c.rope.theta));
    }
    if let Some(y) = &c.rope.yarn {
        positive(keys.yarn_factor, y.factor, 1e6)?;
        size(keys.yarn_original, y.original_max_positions, 1 << 28)?;
        positive(keys.yarn_beta, y.beta_fast, 1e6)?;
        positive(keys.yarn_beta, y.beta_slow, 1e6)?;
        for m in [y.mscale, y.mscale_all_dim] {
            if !(0.0..=100.0).contains(&m) {
                return bad(keys.yarn_mscale, format!("is {m}, but must be between 0 and 100"));
            }
        }
    }

    if c.dense_layers.len() != c.num_layers {
        return bad(keys.num_layers, format!("is {}, but {} layers are described", c.num_layers, c.dense_layers.len()));
    }
    if c.moe.is_none() || c.dense_layers.contains(&true) {
        size(keys.intermediate_size, c.intermediate_size, 1 << 20)?;
    }
    let Some(m) = &c.moe else { return Ok(()) };
    size(keys.num_experts, m.num_experts, 4096)?;
    size(keys.top_k, m.top_k, m.num_experts)?;
    if m.num_shared > 64 {
        return bad(keys.num_shared, format!("is {}; more than 64 is not plausible", m.num_shared));
    }
    size(keys.moe_intermediate_size, m.intermediate_size, 1 << 18)?;
    size(keys.num_groups, m.num_groups, m.num_experts)?;
    if m.num_experts % m.num_groups != 0 {
        return bad(keys.num_groups, format!("is {}, which does not divide the {} experts", m.num_groups, m.num_experts));
    }
    size(keys.top_k_groups, m.top_k_groups, m.num_groups)?;
    let eligible = m.top_k_groups * (m.num_experts / m.num_groups);
    if m.top_k > eligible {
        return bad(
            keys.top_k,
            format!("is {}, but {} of {} groups hold only {eligible} experts", m.top_k, m.top_k_groups, m.num_groups),
        );
    }
    positive(keys.scaling_factor, m.scaling_factor.into(), 1e4)
}
