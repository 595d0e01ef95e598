//! The same weights as a Hugging Face directory in FP8, as DeepSeek publishes its models: e4m3 codes with a factor for each block
//! of 128x128 for the products of the layers, BF16 for the rest.

use std::io::Write;

use serde_json::{Map, Value, json};

use super::{
    CHUNK, SynthOptions, Values, config, fan_in,
    fill::{Fill, f8_scale, hash},
    vocab,
};
use crate::{
    Config, Error, Format, Result,
    config::{Family, GroupScore, Scoring},
    format::F8_BLOCK,
};

/// The name of the weights' file.
pub use crate::safetensors::SINGLE as WEIGHTS;

/// A tensor to be made; F8 with its factors behind it.
struct Planned {
    name: String,
    shape: Vec<usize>,
    format: Format,
    values: Values,
}

impl Planned {
    fn bytes(&self) -> u64 {
        let each = match self.format {
            Format::F32 => 4,
            Format::F8E4M3 => 1,
            _ => 2,
        };
        self.shape.iter().product::<usize>() as u64 * each
    }

    /// Rows and columns of the factors, of F8.
    fn factors(&self) -> Option<[usize; 2]> {
        match (self.format, self.shape.as_slice()) {
            (Format::F8E4M3, &[rows, cols]) => Some([rows.div_ceil(F8_BLOCK), cols.div_ceil(F8_BLOCK)]),
            _ => None,
        }
    }
}

/// The small files of the directory by name: configuration, vocabulary. The quant of the options does not count here.
///
/// # Errors
///
/// More layers than the shape has.
pub fn files(options: &SynthOptions) -> Result<Vec<(&'static str, Vec<u8>)>> {
    let c = config(options)?;
    let (mut all, ids) = vocab::hugging_face(options.shape, c.vocab_size);
    let mut json = describe(&c);
    json.extend(ids.into_iter().filter_map(|(key, id)| Some((key.to_owned(), id?.into()))));
    all.push(("config.json", Value::Object(json)));
    Ok(all.into_iter().map(|(name, json)| (name, json.to_string().into_bytes())).collect())
}

/// Bytes of the weights' file that [`write`] would make.
///
/// # Errors
///
/// More layers than the shape has.
pub fn size(options: &SynthOptions) -> Result<u64> {
    let (head, tensors) = plan(options)?;
    Ok(head.len() as u64 + tensors.iter().map(all_bytes).sum::<u64>())
}

/// Bytes of a tensor, factors included.
fn all_bytes(t: &Planned) -> u64 {
    t.bytes() + t.factors().map_or(0, |[rows, cols]| 4 * (rows * cols) as u64)
}

/// Writes the weights' file. `progress` gets (bytes done, bytes in all). Returns the file's bytes.
///
/// # Errors
///
/// More layers than the shape has, or an output that cannot be written.
pub fn write(options: &SynthOptions, out: &mut impl Write, progress: &mut dyn FnMut(u64, u64)) -> Result<u64> {
    let (head, tensors) = plan(options)?;
    let total = head.len() as u64 + tensors.iter().map(all_bytes).sum::<u64>();
    let io = |e| Error::io("safetensors output", e);
    out.write_all(&head).map_err(io)?;
    let mut done = head.len() as u64;
    let mut buffer = vec![0; CHUNK];
    for t in &tensors {
        let (mut fill, mut left) = (Fill::new(t.format, t.values, options.seed ^ hash(t.name.as_bytes())), t.bytes());
        while left > 0 {
            let part = &mut buffer[..usize::try_from(left).unwrap_or(usize::MAX).min(CHUNK)];
            fill.fill(part);
            out.write_all(part).map_err(io)?;
            left -= part.len() as u64;
            done += part.len() as u64;
            progress(done.min(total), total);
        }
        if let (Some([rows, cols]), Values::Around0(deviation)) = (t.factors(), t.values) {
            let factors = f8_scale(deviation).to_le_bytes().repeat(rows * cols);
            out.write_all(&factors).map_err(io)?;
            done += factors.len() as u64;
        }
    }
    Ok(total)
}

/// The header, and the tensors behind it.
fn plan(options: &SynthOptions) -> Result<(Vec<u8>, Vec<Planned>)> {
    let c = config(options)?;
    let tensors = Plan { config: &c, tensors: Vec::new() }.all();
    let (mut header, mut end) = (Map::new(), 0u64);
    for t in &tensors {
        let mut entry = |name: String, dtype: &str, shape: &[usize], bytes: u64| {
            header.insert(name, json!({"dtype": dtype, "shape": shape, "data_offsets": [end, end + bytes]}));
            end += bytes;
        };
        entry(t.name.clone(), t.format.name(), &t.shape, t.bytes());
        if let Some(shape) = t.factors() {
            entry(format!("{}_scale_inv", t.name), "F32", &shape, 4 * shape.iter().product::<usize>() as u64);
        }
    }
    let mut text = Value::Object(header).to_string().into_bytes();
    // Data begins at a multiple of 8.
    text.resize(text.len().next_multiple_of(8), b' ');
    let mut head = (text.len() as u64).to_le_bytes().to_vec();
    head.append(&mut text);
    Ok((head, tensors))
}

/// `config.json`, but for the ids of special tokens.
fn describe(c: &Config) -> Map<String, Value> {
    let (family, class) = match c.family {
        Family::DeepseekV2 => ("deepseek_v2", "DeepseekV2ForCausalLM"),
        Family::DeepseekV3 => ("deepseek_v3", "DeepseekV3ForCausalLM"),
        Family::KimiK2 => ("kimi_k2", "DeepseekV3ForCausalLM"),
        Family::Glm4MoeLite => ("glm4_moe_lite", "Glm4MoeLiteForCausalLM"),
    };
    let a = &c.attention;
    let mut map = Map::new();
    let mut set = |key: &str, value: Value| drop(map.insert(key.to_owned(), value));
    set("architectures", json!([class]));
    set("model_type", family.into());
    set("torch_dtype", "bfloat16".into());
    set("hidden_act", "silu".into());
    set("vocab_size", c.vocab_size.into());
    set("hidden_size", c.hidden_size.into());
    set("num_hidden_layers", c.num_layers.into());
    set("num_nextn_predict_layers", c.num_mtp_layers.into());
    set("max_position_embeddings", c.max_positions.into());
    set("rms_norm_eps", c.rms_norm_eps.into());
    set("tie_word_embeddings", c.tie_word_embeddings.into());
    set("num_attention_heads", a.num_heads.into());
    set("num_key_value_heads", a.num_heads.into());
    set("q_lora_rank", json!(a.q_lora_rank));
    set("kv_lora_rank", a.kv_lora_rank.into());
    set("qk_nope_head_dim", a.qk_nope_head_dim.into());
    set("qk_rope_head_dim", a.qk_rope_head_dim.into());
    set("v_head_dim", a.v_head_dim.into());
    set("intermediate_size", c.intermediate_size.into());
    set("rope_theta", c.rope.theta.into());
    set("rope_interleave", c.rope.interleaved.into());
    if let Some(y) = &c.rope.yarn {
        let scaling = json!({
            "type": "yarn", "factor": y.factor, "original_max_position_embeddings": y.original_max_positions,
            "beta_fast": y.beta_fast, "beta_slow": y.beta_slow, "mscale": y.mscale, "mscale_all_dim": y.mscale_all_dim,
        });
        set("rope_scaling", scaling);
    }
    if let Some(m) = &c.moe {
        set("n_routed_experts", m.num_experts.into());
        set("num_experts_per_tok", m.top_k.into());
        set("n_shared_experts", m.num_shared.into());
        set("moe_intermediate_size", m.intermediate_size.into());
        set("scoring_func", if m.scoring == Scoring::Softmax { "softmax" } else { "sigmoid" }.into());
        let method = match m.group_score {
            GroupScore::TopTwo => "noaux_tc",
            GroupScore::Max if m.num_groups > 1 => "group_limited_greedy",
            GroupScore::Max => "greedy",
        };
        set("topk_method", method.into());
        set("n_group", m.num_groups.into());
        set("topk_group", m.top_k_groups.into());
        set("norm_topk_prob", m.norm_top_k.into());
        set("routed_scaling_factor", m.scaling_factor.into());
        set("first_k_dense_replace", c.dense_layers.iter().take_while(|&&d| d).count().into());
        set("moe_layer_freq", 1.into());
    }
    let blocks = json!([F8_BLOCK, F8_BLOCK]);
    set(
        "quantization_config",
        json!({"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": blocks}),
    );
    map
}

/// Collects the tensors.
struct Plan<'a> {
    config: &'a Config,
    tensors: Vec<Planned>,
}

impl Plan<'_> {
    fn add(&mut self, name: String, shape: &[usize], format: Format, values: Values) {
        self.tensors.push(Planned { name, shape: shape.to_vec(), format, values });
    }

    fn norm(&mut self, name: String, n: usize) {
        self.add(name, &[n], Format::BF16, Values::Around1(0.05));
    }

    /// A matrix `[rows, cols]` in FP8.
    fn product(&mut self, name: String, rows: usize, cols: usize) {
        self.add(name, &[rows, cols], Format::F8E4M3, Values::Around0(fan_in(cols)));
    }

    fn mlp(&mut self, path: &str, h: usize, width: usize) {
        self.product(format!("{path}.gate_proj.weight"), width, h);
        self.product(format!("{path}.up_proj.weight"), width, h);
        self.product(format!("{path}.down_proj.weight"), h, width);
    }

    fn all(mut self) -> Vec<Planned> {
        let c = self.config;
        let (v, h) = (c.vocab_size, c.hidden_size);
        self.add("model.embed_tokens.weight".into(), &[v, h], Format::BF16, Values::Around0(1.0));
        for i in 0..c.num_layers + c.num_mtp_layers {
            self.layer(i);
            if i >= c.num_layers {
                let at = |part: &str| format!("model.layers.{i}.{part}.weight");
                self.add(at("eh_proj"), &[h, 2 * h], Format::BF16, Values::Around0(fan_in(2 * h)));
                ["enorm", "hnorm", "shared_head.norm"].into_iter().for_each(|part| self.norm(at(part), h));
            }
        }
        self.norm("model.norm.weight".into(), h);
        if !c.tie_word_embeddings {
            self.add("lm_head.weight".into(), &[v, h], Format::BF16, Values::Around0(fan_in(h)));
        }
        self.tensors
    }

    fn layer(&mut self, i: usize) {
        let c = self.config;
        let (h, a) = (c.hidden_size, &c.attention);
        let at = |part: &str| format!("model.layers.{i}.{part}.weight");
        let (queries, values) = (a.num_heads * a.qk_head_dim(), a.num_heads * a.v_head_dim);
        self.norm(at("input_layernorm"), h);
        match a.q_lora_rank {
            None => self.product(at("self_attn.q_proj"), queries, h),
            Some(rank) => {
                self.product(at("self_attn.q_a_proj"), rank, h);
                self.norm(at("self_attn.q_a_layernorm"), rank);
                self.product(at("self_attn.q_b_proj"), queries, rank);
            }
        }
        self.product(at("self_attn.kv_a_proj_with_mqa"), a.cache_width(), h);
        self.norm(at("self_attn.kv_a_layernorm"), a.kv_lora_rank);
        self.product(at("self_attn.kv_b_proj"), a.num_heads * (a.qk_nope_head_dim + a.v_head_dim), a.kv_lora_rank);
        self.product(at("self_attn.o_proj"), h, values);
        self.norm(at("post_attention_layernorm"), h);
        let path = format!("model.layers.{i}.mlp");
        let Some(m) = c.moe.as_ref().filter(|_| c.is_moe(i)) else {
            return self.mlp(&path, h, c.intermediate_size);
        };
        self.add(format!("{path}.gate.weight"), &[m.num_experts, h], Format::BF16, Values::Around0(fan_in(h)));
        if m.scoring == Scoring::Sigmoid {
            let name = format!("{path}.gate.e_score_correction_bias");
            self.add(name, &[m.num_experts], Format::F32, Values::Around0(0.02));
        }
        (0..m.num_experts).for_each(|e| self.mlp(&format!("{path}.experts.{e}"), h, m.intermediate_size));
        if m.num_shared > 0 {
            self.mlp(&format!("{path}.shared_experts"), h, m.num_shared * m.intermediate_size);
        }
    }
}
