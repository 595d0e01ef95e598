//! From `config.json`.

use serde_json::{Map, Value};

use super::{
    Attention, Config, Family, GroupScore, Moe, Rope, Scoring, Yarn,
    check::{Keys, MAX_LAYERS, check},
};
use crate::{Error, Result};

const KEYS: Keys = Keys {
    vocab_size: "vocab_size",
    hidden_size: "hidden_size",
    num_layers: "num_hidden_layers",
    num_mtp_layers: "num_nextn_predict_layers",
    max_positions: "max_position_embeddings",
    rms_norm_eps: "rms_norm_eps",
    num_heads: "num_attention_heads",
    q_lora_rank: "q_lora_rank",
    kv_lora_rank: "kv_lora_rank",
    qk_nope_head_dim: "qk_nope_head_dim",
    qk_rope_head_dim: "qk_rope_head_dim",
    v_head_dim: "v_head_dim",
    theta: "rope_theta",
    yarn_factor: "factor",
    yarn_original: "original_max_position_embeddings",
    yarn_beta: "beta_fast, beta_slow",
    yarn_mscale: "mscale, mscale_all_dim",
    intermediate_size: "intermediate_size",
    num_experts: "n_routed_experts",
    top_k: "num_experts_per_tok",
    num_shared: "n_shared_experts",
    moe_intermediate_size: "moe_intermediate_size",
    num_groups: "n_group",
    top_k_groups: "topk_group",
    scaling_factor: "routed_scaling_factor",
};

/// Values of a JSON object by key; `null` counts as absent.
#[derive(Clone, Copy)]
pub(crate) struct Fields<'a> {
    pub file: &'a str,
    pub map: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    pub(crate) fn get(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|v| !v.is_null())
    }

    fn bad(&self, key: &str, what: impl Into<String>) -> Error {
        Error::metadata(self.file, key, what)
    }

    fn unsupported(&self, kind: &'static str, name: impl Into<String>, hint: &str) -> Error {
        Error::Unsupported { file: self.file.to_owned(), kind, name: name.into(), hint: hint.to_owned() }
    }

    /// A size; integers that are written as `8.0` count.
    pub(crate) fn usize(&self, key: &str) -> Result<Option<usize>> {
        let Some(v) = self.get(key) else { return Ok(None) };
        let whole = v.as_u64().or_else(|| v.as_f64().filter(|f| f.fract() == 0.0 && (0.0..1e15).contains(f)).map(|f| f as u64));
        whole
            .and_then(|n| usize::try_from(n).ok())
            .map(Some)
            .ok_or_else(|| self.bad(key, format!("is {v}, not a whole number of 0 or more")))
    }

    fn size(&self, key: &str) -> Result<usize> {
        self.usize(key)?.ok_or_else(|| self.bad(key, "is missing"))
    }

    pub(crate) fn number(&self, key: &str) -> Result<Option<f64>> {
        let Some(v) = self.get(key) else { return Ok(None) };
        v.as_f64().map(Some).ok_or_else(|| self.bad(key, format!("is {v}, not a number")))
    }

    pub(crate) fn bool(&self, key: &str) -> Result<Option<bool>> {
        let Some(v) = self.get(key) else { return Ok(None) };
        v.as_bool().map(Some).ok_or_else(|| self.bad(key, format!("is {v}, not true or false")))
    }

    pub(crate) fn str(&self, key: &str) -> Result<Option<&'a str>> {
        let Some(v) = self.get(key) else { return Ok(None) };
        v.as_str().map(Some).ok_or_else(|| self.bad(key, format!("is {v}, not a string")))
    }

    fn object(&self, key: &str) -> Result<Option<Fields<'a>>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(Fields { file: self.file, map })),
            Some(v) => Err(self.bad(key, format!("is {v}, not an object"))),
        }
    }
}

/// The object that describes the text model, and whether it is wrapped in a multimodal one.
pub(crate) fn text_config<'a>(fields: Fields<'a>) -> Result<(Fields<'a>, Family, bool)> {
    let family = |f: &Fields<'a>| -> Result<Option<Family>> {
        Ok(match f.str("model_type")? {
            Some("deepseek_v2") => Some(Family::DeepseekV2),
            Some("deepseek_v3") => Some(Family::DeepseekV3),
            Some("kimi_k2") => Some(Family::KimiK2),
            Some("glm4_moe_lite") => Some(Family::Glm4MoeLite),
            _ => None,
        })
    };
    if let Some(found) = family(&fields)? {
        return Ok((fields, found, false));
    }
    let inner = fields.object("text_config")?;
    if let Some(inner) = inner
        && let Some(found @ (Family::KimiK2 | Family::DeepseekV3)) = family(&inner)?
    {
        return Ok((inner, found, true));
    }
    let Some(name) = fields.str("model_type")? else { return Err(fields.bad("model_type", "is missing")) };
    Err(fields.unsupported("architecture", name, "; deepseek_v2, deepseek_v3, kimi_k2 and glm4_moe_lite are"))
}

/// How `quantization_config` says that the weights are stored, where that is supported.
///
/// `Ok(false)`: as plain numbers; `Ok(true)`: FP8 with a scale for each block of 128x128.
pub fn quantisation_of(file: &str, config: &Map<String, Value>) -> Result<bool> {
    let fields = Fields { file, map: config };
    let Some(q) = fields.object("quantization_config")? else { return Ok(false) };
    let method = q.str("quant_method")?.unwrap_or("unnamed");
    if method != "fp8" {
        let hint = "; use the FP8 or BF16 checkpoint, or a GGUF file";
        let scheme = q.str("format")?.map_or_else(String::new, |f| format!(" {f}"));
        return Err(q.unsupported("quantisation", format!("{method}{scheme}"), hint));
    }
    if let Some(format) = q.str("fmt")?
        && format != "e4m3"
    {
        return Err(q.unsupported("FP8 format", format, "; e4m3 is"));
    }
    let block = q
        .get("weight_block_size")
        .ok_or_else(|| q.bad("weight_block_size", "is missing; only FP8 in blocks of 128x128 is supported"))?;
    if *block != serde_json::json!([128, 128]) {
        return Err(q.bad("weight_block_size", format!("is {block}; only [128, 128] is supported")));
    }
    Ok(true)
}

impl Config {
    /// Parses a `config.json`. `file` is named in errors, `name` is the model's name for people.
    ///
    /// Old and new spellings are accepted: `rope_theta` and `rope_scaling` or `rope_parameters`, `type` or
    /// `rope_type`, `n_routed_experts` or `num_local_experts`. `num_mtp_layers` is what the file
    /// claims; whether the tensors are there is the checkpoint's to find out.
    pub fn from_hugging_face(file: &str, name: &str, json: &Map<String, Value>) -> Result<Self> {
        let outer = Fields { file, map: json };
        let (f, family, _) = text_config(outer)?;
        quantisation_of(file, outer.map)?;
        quantisation_of(file, f.map)?;
        refuse_variants(&f)?;

        let num_layers = f.size(KEYS.num_layers)?;
        if num_layers > MAX_LAYERS {
            return Err(f.bad(KEYS.num_layers, format!("is {num_layers}; more than {MAX_LAYERS} is not plausible")));
        }
        let moe = moe(&f, family)?;
        let attention = Attention {
            num_heads: f.size(KEYS.num_heads)?,
            q_lora_rank: f.usize(KEYS.q_lora_rank)?,
            kv_lora_rank: f.size(KEYS.kv_lora_rank)?,
            qk_nope_head_dim: f.size(KEYS.qk_nope_head_dim)?,
            qk_rope_head_dim: f.size(KEYS.qk_rope_head_dim)?,
            v_head_dim: f.size(KEYS.v_head_dim)?,
        };
        let config = Self {
            family,
            name: name.to_owned(),
            vocab_size: f.size(KEYS.vocab_size)?,
            hidden_size: f.size(KEYS.hidden_size)?,
            num_layers,
            num_mtp_layers: f.usize(KEYS.num_mtp_layers)?.unwrap_or(0),
            max_positions: f.size(KEYS.max_positions)?,
            rms_norm_eps: f.number(KEYS.rms_norm_eps)?.ok_or_else(|| f.bad(KEYS.rms_norm_eps, "is missing"))? as f32,
            latent_norm_eps: 1e-6,
            tie_word_embeddings: match f.bool("tie_word_embeddings")? {
                Some(tied) => tied,
                None => outer.bool("tie_word_embeddings")?.unwrap_or(false),
            },
            attention,
            rope: rope(&f)?,
            intermediate_size: f.usize(KEYS.intermediate_size)?.unwrap_or(0),
            dense_layers: dense_layers(&f, num_layers, moe.is_some())?,
            moe,
        };
        check(&config, file, &KEYS)?;
        Ok(config)
    }
}

/// Variants of the architecture that nothing here computes.
fn refuse_variants(f: &Fields<'_>) -> Result<()> {
    if let Some(act) = f.str("hidden_act")?
        && act != "silu"
    {
        return Err(f.unsupported("activation", act, "; silu is"));
    }
    if f.bool("attention_bias")? == Some(true) {
        return Err(f.unsupported("attention variant", "attention_bias", ""));
    }
    if f.usize("index_topk")?.is_some() {
        return Err(f.unsupported("attention variant", "index_topk (sparse attention)", ""));
    }
    if let Some(part) = f.number("partial_rotary_factor")?
        && part != 1.0
    {
        return Err(f.unsupported("rope variant", format!("partial_rotary_factor {part}"), ""));
    }
    Ok(())
}

fn rope(f: &Fields<'_>) -> Result<Rope> {
    let parameters = f.object("rope_parameters")?;
    let scaling = match parameters {
        Some(p) => Some(p),
        None => f.object("rope_scaling")?,
    };
    let theta = match parameters.map(|p| p.number(KEYS.theta)).transpose()?.flatten() {
        Some(theta) => theta,
        None => f.number(KEYS.theta)?.ok_or_else(|| f.bad(KEYS.theta, "is missing"))?,
    };
    let interleaved = f.bool("rope_interleave")?.unwrap_or(true);
    let yarn = match scaling {
        None => None,
        Some(s) => yarn(&s)?,
    };
    Ok(Rope { theta, interleaved, yarn })
}

fn yarn(s: &Fields<'_>) -> Result<Option<Yarn>> {
    let kind = match s.str("rope_type")? {
        Some(kind) => Some(kind),
        None => s.str("type")?,
    };
    match kind {
        Some("default") => return Ok(None),
        None if s.get(KEYS.yarn_factor).is_none() => return Ok(None),
        Some("yarn" | "deepseek_yarn") => {}
        Some(other) => return Err(s.unsupported("rope scaling", other, "; yarn is")),
        None => return Err(s.bad("rope_type", "is missing")),
    }
    if s.get("attention_factor").is_some() {
        return Err(s.unsupported("rope scaling", "yarn with attention_factor", ""));
    }
    if s.bool("truncate")? == Some(false) {
        return Err(s.unsupported("rope scaling", "yarn with truncate = false", ""));
    }
    Ok(Some(Yarn {
        factor: s.number(KEYS.yarn_factor)?.ok_or_else(|| s.bad(KEYS.yarn_factor, "is missing"))?,
        original_max_positions: s.size(KEYS.yarn_original)?,
        beta_fast: s.number("beta_fast")?.unwrap_or(32.0),
        beta_slow: s.number("beta_slow")?.unwrap_or(1.0),
        // Defaults of the published modelling code.
        mscale: s.number("mscale")?.unwrap_or(1.0),
        mscale_all_dim: s.number("mscale_all_dim")?.unwrap_or(0.0),
    }))
}

fn moe(f: &Fields<'_>, family: Family) -> Result<Option<Moe>> {
    let experts = match f.usize(KEYS.num_experts)? {
        Some(n) => Some(n),
        None => f.usize("num_local_experts")?,
    };
    let Some(num_experts) = experts.filter(|&n| n > 0) else { return Ok(None) };
    let v2 = family == Family::DeepseekV2;
    let scoring = match f.str("scoring_func")? {
        None if v2 => Scoring::Softmax,
        None => Scoring::Sigmoid,
        Some("softmax") => Scoring::Softmax,
        Some("sigmoid") => Scoring::Sigmoid,
        Some(other) => return Err(f.unsupported("scoring function", other, "; softmax and sigmoid are")),
    };
    let groups = (f.usize(KEYS.num_groups)?.unwrap_or(1), f.usize(KEYS.top_k_groups)?.unwrap_or(1));
    let ((num_groups, top_k_groups), group_score) = match (f.str("topk_method")?, v2) {
        (None | Some("greedy"), true) => ((1, 1), GroupScore::Max),
        (Some("group_limited_greedy"), true) => (groups, GroupScore::Max),
        (None | Some("noaux_tc"), false) => (groups, GroupScore::TopTwo),
        (Some(other), _) => return Err(f.unsupported("topk_method", other, "")),
    };
    let top_k = f.size(KEYS.top_k)?;
    let scaling = f.number(KEYS.scaling_factor)?.unwrap_or(1.0) as f32;
    let norm = f.bool("norm_topk_prob")?.unwrap_or(!v2);
    // The published V2 code normalises or scales, never both, and does not normalise a single expert.
    let (norm_top_k, scaling_factor) = match (v2, norm && top_k > 1) {
        (true, true) => (true, 1.0),
        (true, false) => (false, scaling),
        (false, _) => (norm, scaling),
    };
    Ok(Some(Moe {
        num_experts,
        top_k,
        num_shared: f.usize(KEYS.num_shared)?.unwrap_or(0),
        intermediate_size: f.size(KEYS.moe_intermediate_size)?,
        scoring,
        num_groups,
        top_k_groups,
        group_score,
        norm_top_k,
        scaling_factor,
    }))
}

/// Which layers are dense: `mlp_layer_types`, or `first_k_dense_replace` and `moe_layer_freq`.
fn dense_layers(f: &Fields<'_>, num_layers: usize, moe: bool) -> Result<Vec<bool>> {
    if !moe {
        return Ok(vec![true; num_layers]);
    }
    const TYPES: &str = "mlp_layer_types";
    if let Some(types) = f.get(TYPES) {
        let types = types.as_array().filter(|t| t.len() == num_layers);
        let types = types.ok_or_else(|| f.bad(TYPES, format!("is not a list of {num_layers}, one for each layer")))?;
        return types
            .iter()
            .map(|t| match t.as_str() {
                Some("dense") => Ok(true),
                Some("sparse") => Ok(false),
                _ => Err(f.bad(TYPES, format!("holds {t}; \"dense\" and \"sparse\" are known"))),
            })
            .collect();
    }
    let first = f.usize("first_k_dense_replace")?.unwrap_or(0);
    const FREQ: &str = "moe_layer_freq";
    let freq = f.usize(FREQ)?.unwrap_or(1);
    if freq == 0 {
        return Err(f.bad(FREQ, "is 0"));
    }
    Ok((0..num_layers).map(|i| i < first || i % freq != 0).collect())
}
