//! From GGUF metadata of architecture `deepseek2`.

use super::{
    Attention, Config, Family, GroupScore, Moe, Rope, Scoring, Yarn,
    check::{Keys, MAX_LAYERS, check},
};
use crate::{Error, Result, gguf::Metadata};

const KEYS: Keys = Keys {
    vocab_size: "deepseek2.vocab_size",
    hidden_size: "deepseek2.embedding_length",
    num_layers: "deepseek2.block_count",
    num_mtp_layers: "deepseek2.nextn_predict_layers",
    max_positions: "deepseek2.context_length",
    rms_norm_eps: "deepseek2.attention.layer_norm_rms_epsilon",
    num_heads: "deepseek2.attention.head_count",
    q_lora_rank: "deepseek2.attention.q_lora_rank",
    kv_lora_rank: "deepseek2.attention.kv_lora_rank",
    qk_nope_head_dim: "deepseek2.attention.key_length_mla",
    qk_rope_head_dim: "deepseek2.rope.dimension_count",
    v_head_dim: "deepseek2.attention.value_length_mla",
    theta: "deepseek2.rope.freq_base",
    yarn_factor: "deepseek2.rope.scaling.factor",
    yarn_original: "deepseek2.rope.scaling.original_context_length",
    yarn_beta: "deepseek2.rope.scaling.yarn_beta_fast, yarn_beta_slow",
    yarn_mscale: "deepseek2.rope.scaling.yarn_log_multiplier",
    intermediate_size: "deepseek2.feed_forward_length",
    num_experts: "deepseek2.expert_count",
    top_k: "deepseek2.expert_used_count",
    num_shared: "deepseek2.expert_shared_count",
    moe_intermediate_size: "deepseek2.expert_feed_forward_length",
    num_groups: "deepseek2.expert_group_count",
    top_k_groups: "deepseek2.expert_group_used_count",
    scaling_factor: "deepseek2.expert_weights_scale",
};

const GLM_FLASH_VOCAB: usize = 154_880;

impl Config {
    /// Reads the metadata of a GGUF file.
    ///
    /// Sizes that the metadata of some files leave out are taken from the tensors: `has` says
    /// whether a tensor of that name is there. Remarks about guesses are added to `remarks`.
    pub fn from_gguf(m: &Metadata, has: &dyn Fn(&str) -> bool, remarks: &mut Vec<String>) -> Result<Self> {
        architecture(m)?;
        let tokens = m.array_len("tokenizer.ggml.tokens");
        let vocab_size = match m.usize(KEYS.vocab_size)? {
            Some(n) => n,
            None => tokens.ok_or_else(|| m.missing(KEYS.vocab_size))?,
        };
        let blocks = m.require_usize(KEYS.num_layers)?;
        let mtp = m.usize(KEYS.num_mtp_layers)?.unwrap_or(0);
        if blocks > MAX_LAYERS || mtp >= blocks.max(1) {
            return Err(Error::metadata(
                m.file(),
                KEYS.num_layers,
                format!("is {blocks}, {mtp} of them for multi-token prediction"),
            ));
        }
        // block_count includes the modules; a file may claim them and leave them out.
        let num_layers = blocks - mtp;
        let present = (num_layers..blocks).take_while(|i| has(&format!("blk.{i}.nextn.eh_proj.weight"))).count();
        let attention = attention(m, has)?;
        let moe = moe(m, blocks, vocab_size)?;
        let lead = m.usize("deepseek2.leading_dense_block_count")?.unwrap_or(0);
        let config = Self {
            family: family(m, moe.as_ref(), vocab_size)?,
            name: m.str("general.name")?.unwrap_or_default().to_owned(),
            vocab_size,
            hidden_size: m.require_usize(KEYS.hidden_size)?,
            num_layers,
            num_mtp_layers: present,
            max_positions: m.require_usize(KEYS.max_positions)?,
            rms_norm_eps: m.number(KEYS.rms_norm_eps)?.ok_or_else(|| m.missing(KEYS.rms_norm_eps))? as f32,
            latent_norm_eps: 1e-6,
            tie_word_embeddings: !has("output.weight"),
            attention,
            rope: rope(m, moe.as_ref(), remarks)?,
            intermediate_size: m.usize(KEYS.intermediate_size)?.unwrap_or(0),
            dense_layers: (0..num_layers).map(|i| moe.is_none() || i < lead).collect(),
            moe,
        };
        check(&config, m.file(), &KEYS)?;
        Ok(config)
    }
}

fn architecture(m: &Metadata) -> Result<()> {
    const KEY: &str = "general.architecture";
    match m.str(KEY)?.ok_or_else(|| m.missing(KEY))? {
        "deepseek2" => {}
        other => {
            return Err(Error::Unsupported {
                file: m.file().to_owned(),
                kind: "architecture",
                name: other.to_owned(),
                hint: "; deepseek2 (DeepSeek-V2, V3, R1, Moonlight, Kimi-K2, GLM-4.7-Flash) is".to_owned(),
            });
        }
    }
    // Mistral-Large-3 shares the architecture, but scales its queries by position.
    const TEMPERATURE: &str = "deepseek2.attention.temperature_scale";
    match m.number(TEMPERATURE)? {
        Some(scale) if scale != 0.0 => Err(Error::Unsupported {
            file: m.file().to_owned(),
            kind: "attention variant",
            name: TEMPERATURE.to_owned(),
            hint: String::new(),
        }),
        _ => Ok(()),
    }
}

fn attention(m: &Metadata, has: &dyn Fn(&str) -> bool) -> Result<Attention> {
    let rope = m.require_usize(KEYS.qk_rope_head_dim)?;
    // Files from before the split of attn_kv_b say the heads' dimensions under the plain keys.
    let (key, value) = match (m.usize(KEYS.qk_nope_head_dim)?, m.usize(KEYS.v_head_dim)?) {
        (Some(k), Some(v)) => (k, v),
        (None, None) => {
            (m.require_usize("deepseek2.attention.key_length")?, m.require_usize("deepseek2.attention.value_length")?)
        }
        (None, _) => return Err(m.missing(KEYS.qk_nope_head_dim)),
        (_, None) => return Err(m.missing(KEYS.v_head_dim)),
    };
    let nope = key.checked_sub(rope).ok_or_else(|| {
        Error::metadata(m.file(), KEYS.qk_nope_head_dim, format!("is {key}, less than the {rope} of {}", KEYS.qk_rope_head_dim))
    })?;
    let full = has("blk.0.attn_q.weight");
    Ok(Attention {
        num_heads: m.require_usize(KEYS.num_heads)?,
        q_lora_rank: if full { None } else { m.usize(KEYS.q_lora_rank)?.filter(|&r| r > 0) },
        kv_lora_rank: m.require_usize(KEYS.kv_lora_rank)?,
        qk_nope_head_dim: nope,
        qk_rope_head_dim: rope,
        v_head_dim: value,
    })
}

fn moe(m: &Metadata, blocks: usize, vocab_size: usize) -> Result<Option<Moe>> {
    let Some(num_experts) = m.usize(KEYS.num_experts)?.filter(|&n| n > 0) else { return Ok(None) };
    const GATING: &str = "deepseek2.expert_gating_func";
    let scoring = match m.usize(GATING)?.unwrap_or(0) {
        // Files from before the key are DeepSeek-V2's, but for the first ones of GLM-4.7-Flash.
        0 if matches!(blocks, 47 | 48) && vocab_size == GLM_FLASH_VOCAB => Scoring::Sigmoid,
        0 | 1 => Scoring::Softmax,
        2 => Scoring::Sigmoid,
        other => {
            return Err(Error::Unsupported {
                file: m.file().to_owned(),
                kind: "expert_gating_func",
                name: other.to_string(),
                hint: "; 1 (softmax) and 2 (sigmoid) are".to_owned(),
            });
        }
    };
    // Older files name no groups, or not how many of them are used: no limit then.
    let (num_groups, top_k_groups) = match (m.usize(KEYS.num_groups)?, m.usize(KEYS.top_k_groups)?) {
        (Some(g), Some(k)) if g > 1 && k > 0 => (g, k),
        _ => (1, 1),
    };
    let scale = m.number(KEYS.scaling_factor)?.filter(|&s| s != 0.0).unwrap_or(1.0);
    Ok(Some(Moe {
        num_experts,
        top_k: m.require_usize(KEYS.top_k)?,
        num_shared: m.usize(KEYS.num_shared)?.unwrap_or(0),
        intermediate_size: m.require_usize(KEYS.moe_intermediate_size)?,
        scoring,
        num_groups,
        top_k_groups,
        // The original V2 scores a group by its best expert, V3 by the two best.
        group_score: if scoring == Scoring::Softmax { GroupScore::Max } else { GroupScore::TopTwo },
        norm_top_k: m.bool("deepseek2.expert_weights_norm")?.unwrap_or(false),
        scaling_factor: scale as f32,
    }))
}

fn rope(m: &Metadata, moe: Option<&Moe>, remarks: &mut Vec<String>) -> Result<Rope> {
    let theta = m.number(KEYS.theta)?.unwrap_or(10_000.0);
    let unsupported = |name: String| Error::Unsupported {
        file: m.file().to_owned(),
        kind: "rope scaling",
        name,
        hint: "; yarn and none are".to_owned(),
    };
    let yarn = match m.str("deepseek2.rope.scaling.type")? {
        None | Some("none") => None,
        Some("yarn") => {
            const ATTENTION: &str = "deepseek2.rope.scaling.yarn_attn_factor";
            if let Some(factor) = m.number(ATTENTION)?
                && factor != 1.0
            {
                return Err(unsupported(format!("yarn with {ATTENTION} {factor}")));
            }
            // The converter stores a tenth of mscale_all_dim; mscale is the same in every checkpoint.
            let mscale = match m.number(KEYS.yarn_mscale)? {
                Some(tenth) => ((tenth * 10.0) * 1e6).round() / 1e6,
                None => {
                    let guess = if moe.is_some_and(|m| m.scoring == Scoring::Softmax) { 0.707 } else { 1.0 };
                    remarks.push(format!(
                        "{} is missing (an old file): mscale_all_dim {guess} is assumed; a newer conversion is better",
                        KEYS.yarn_mscale
                    ));
                    guess
                }
            };
            Some(Yarn {
                factor: m.number(KEYS.yarn_factor)?.ok_or_else(|| m.missing(KEYS.yarn_factor))?,
                original_max_positions: m.require_usize(KEYS.yarn_original)?,
                beta_fast: m.number("deepseek2.rope.scaling.yarn_beta_fast")?.unwrap_or(32.0),
                beta_slow: m.number("deepseek2.rope.scaling.yarn_beta_slow")?.unwrap_or(1.0),
                mscale,
                mscale_all_dim: mscale,
            })
        }
        Some(other) => return Err(unsupported(other.to_owned())),
    };
    Ok(Rope { theta, interleaved: true, yarn })
}

/// GGUF does not say which of the models that share its architecture it holds; the vocabulary tells.
fn family(m: &Metadata, moe: Option<&Moe>, vocab_size: usize) -> Result<Family> {
    let softmax = moe.is_some_and(|m| m.scoring == Scoring::Softmax);
    Ok(match m.str("tokenizer.ggml.pre")? {
        Some("glm4" | "chatglm-bpe") => Family::Glm4MoeLite,
        _ if vocab_size == GLM_FLASH_VOCAB => Family::Glm4MoeLite,
        Some("kimi-k2") if moe.is_some_and(|m| m.num_experts >= 256) => Family::KimiK2,
        _ if softmax => Family::DeepseekV2,
        _ => Family::DeepseekV3,
    })
}
