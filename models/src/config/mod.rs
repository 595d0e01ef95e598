//! One configuration for the whole family.
//!
//! Field names are those of the published `config.json` files; formulas refer to the DeepSeek-V2 and
//! DeepSeek-V3 reports (arXiv 2405.04434, 2412.19437).

mod check;
mod gguf;
mod hugging_face;

#[cfg(test)]
mod tests;

#[cfg(not(target_arch = "wasm32"))]
pub(crate) use hugging_face::Fields;
pub use hugging_face::quantisation_of;

/// What kind of checkpoint the configuration came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// DeepSeek-V2, V2-Lite, V2.5, Coder-V2 (`deepseek_v2`).
    DeepseekV2,
    /// DeepSeek-V3, R1, V3.1, Moonlight (`deepseek_v3`).
    DeepseekV3,
    /// Kimi-K2 (`kimi_k2`).
    KimiK2,
    /// GLM-4.7-Flash (`glm4_moe_lite`).
    Glm4MoeLite,
}

/// A model of the family: multi-head latent attention over a mixture of experts.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The published model type.
    pub family: Family,
    /// A name for people: the directory's, or GGUF's `general.name`.
    pub name: String,
    /// Token ids are `0..vocab_size`.
    pub vocab_size: usize,
    /// Width of the residual stream, h.
    pub hidden_size: usize,
    /// Decoder layers, without multi-token-prediction modules.
    pub num_layers: usize,
    /// Multi-token-prediction modules stored behind the last layer.
    pub num_mtp_layers: usize,
    /// Positions the model was made for; requests beyond it are refused.
    pub max_positions: usize,
    /// Epsilon of every norm but the latents'.
    pub rms_norm_eps: f32,
    /// Epsilon of `q_a_layernorm` and `kv_a_layernorm` (1e-6 in the reference code whatever the config says).
    pub latent_norm_eps: f32,
    /// The head is the embedding.
    pub tie_word_embeddings: bool,
    /// Attention.
    pub attention: Attention,
    /// Rotary embedding of the rope part of queries and keys.
    pub rope: Rope,
    /// Width of the dense layers' MLP.
    pub intermediate_size: usize,
    /// The mixture; `None` for a model that is dense throughout.
    pub moe: Option<Moe>,
    /// Which layers (index) are dense: `true` = dense. Length `num_layers`.
    pub dense_layers: Vec<bool>,
}

/// Dimensions of multi-head latent attention.
#[derive(Clone, Debug, PartialEq)]
pub struct Attention {
    /// Heads, H.
    pub num_heads: usize,
    /// Rank of the query's low-rank form; `None`: one full projection.
    pub q_lora_rank: Option<usize>,
    /// Width of the cached latent, r.
    pub kv_lora_rank: usize,
    /// Width of a head's part without position, dn.
    pub qk_nope_head_dim: usize,
    /// Width of a head's rotary part, dr (one key for all heads).
    pub qk_rope_head_dim: usize,
    /// Width of a head's value, dv.
    pub v_head_dim: usize,
}

/// Rotary embedding, with YaRN where the model uses it (arXiv 2309.00071).
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// Base of the frequencies.
    pub theta: f64,
    /// Pairs are (0,1), (2,3), ... (`true`, the published checkpoints) or (0,d/2), (1,d/2+1), ...
    pub interleaved: bool,
    /// Context extension.
    pub yarn: Option<Yarn>,
}

/// YaRN's parameters, named as in `rope_scaling`.
#[derive(Clone, Debug, PartialEq)]
pub struct Yarn {
    /// How many times longer than the original context.
    pub factor: f64,
    /// Context length before the extension.
    pub original_max_positions: usize,
    /// Rotations over the original context above which a frequency is kept.
    pub beta_fast: f64,
    /// Rotations below which it is divided by `factor`.
    pub beta_slow: f64,
    /// Magnitude of the rotated vectors, relative to `mscale_all_dim`.
    pub mscale: f64,
    /// Enters the softmax scale squared; 0 leaves it alone.
    pub mscale_all_dim: f64,
}

/// The mixture of experts.
#[derive(Clone, Debug, PartialEq)]
pub struct Moe {
    /// Routed experts, E.
    pub num_experts: usize,
    /// Experts chosen for a token, K.
    pub top_k: usize,
    /// Shared experts; they are stored as one MLP of `num_shared * intermediate_size`.
    pub num_shared: usize,
    /// Width of one expert.
    pub intermediate_size: usize,
    /// From logits to scores.
    pub scoring: Scoring,
    /// Groups of experts, G (1: none).
    pub num_groups: usize,
    /// Groups from which a token may choose.
    pub top_k_groups: usize,
    /// How a group is scored.
    pub group_score: GroupScore,
    /// Divide the chosen weights by their sum.
    pub norm_top_k: bool,
    /// Factor of the chosen weights, already 1 where the family applies it only without normalisation.
    pub scaling_factor: f32,
}

/// From router logits to scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scoring {
    /// Over all experts.
    Softmax,
    /// Each expert by itself.
    Sigmoid,
}

/// How a group of experts is scored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupScore {
    /// Its best expert (V2).
    Max,
    /// The sum of its two best (V3, `noaux_tc`).
    TopTwo,
}

impl Attention {
    /// Width of one head's query: dn + dr.
    pub const fn qk_head_dim(&self) -> usize {
        self.qk_nope_head_dim + self.qk_rope_head_dim
    }

    /// Width of one row of the latent cache: r + dr.
    pub const fn cache_width(&self) -> usize {
        self.kv_lora_rank + self.qk_rope_head_dim
    }
}

impl Config {
    /// Whether layer `index` is a mixture; modules behind the last layer are where the model has one.
    pub fn is_moe(&self, index: usize) -> bool {
        self.moe.is_some() && !self.dense_layers.get(index).copied().unwrap_or(false)
    }

    /// Factor of the attention scores: `(dn+dr)^-0.5`, times YaRN's `mscale_all_dim` magnitude squared.
    pub fn softmax_scale(&self) -> f32 {
        let scale = (self.attention.qk_head_dim() as f64).powf(-0.5);
        let m = self.rope.yarn.as_ref().map_or(1.0, |y| magnitude(y.factor, y.mscale_all_dim));
        (scale * m * m) as f32
    }
}

impl Rope {
    /// Inverse frequencies of the `dim / 2` pairs and the factor of cos and sin.
    ///
    /// YaRN: a pair that turns more than `beta_fast` times over the original context keeps its
    /// frequency, one that turns less than `beta_slow` times has it divided by `factor`, and a ramp
    /// joins them.
    pub fn frequencies(&self, dim: usize) -> (Vec<f64>, f32) {
        let base = |i: usize| self.theta.powf(-((2 * i) as f64) / dim as f64);
        let Some(y) = &self.yarn else { return ((0..dim / 2).map(base).collect(), 1.0) };
        let correction = |rotations: f64| {
            dim as f64 * (y.original_max_positions as f64 / (rotations * std::f64::consts::TAU)).ln() / (2.0 * self.theta.ln())
        };
        let low = correction(y.beta_fast).floor().max(0.0);
        let mut high = correction(y.beta_slow).ceil().min(dim as f64 - 1.0);
        if low == high {
            high += 0.001;
        }
        let inverse = |i: usize| {
            let ramp = ((i as f64 - low) / (high - low)).clamp(0.0, 1.0);
            base(i) / y.factor * ramp + base(i) * (1.0 - ramp)
        };
        let factor = magnitude(y.factor, y.mscale) / magnitude(y.factor, y.mscale_all_dim);
        ((0..dim / 2).map(inverse).collect(), factor as f32)
    }
}

/// YaRN's attention magnitude: `0.1 * mscale * ln(factor) + 1`.
fn magnitude(factor: f64, mscale: f64) -> f64 {
    if factor > 1.0 && mscale != 0.0 { 0.1 * mscale * factor.ln() + 1.0 } else { 1.0 }
}
