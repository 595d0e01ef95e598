//! Random weights in a published shape, as GGUF files that llama.cpp loads, too, or in FP8 as Hugging Face has them.
//!
//! Speed depends on shapes and formats, not on what the weights say; with such a file it can be
//! measured without the real one. Every weight has the standard deviation of a freshly
//! initialised network, so that activations stay in range and routing spreads over the experts.
//!
//! A file is a function of its options: the same seed gives the same bytes.

mod fill;
pub mod hugging_face;
mod quant;
mod shapes;
mod vocab;

#[cfg(test)]
mod tests;

use std::io::Write;

use fill::Fill;
pub use quant::Quant;
pub use shapes::Shape;

use crate::{
    Config, Error, Format, Result,
    config::Scoring,
    gguf::{Value, Writer},
};

/// Bytes made at a time.
const CHUNK: usize = 1 << 20;

/// What to write.
#[derive(Clone, Debug)]
pub struct SynthOptions {
    /// Whose dimensions.
    pub shape: Shape,
    /// Formats, mixed as llama-quantize mixes them.
    pub quant: Quant,
    /// Only the first so many layers, dense ones included.
    pub layers: Option<usize>,
    /// With the modules for multi-token prediction, where the shape has them.
    pub mtp: bool,
    /// Of the random numbers.
    pub seed: u64,
}

/// How a tensor's values are drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Values {
    /// Standard deviation; mean 0.
    Around0(f32),
    /// Standard deviation; mean 1.
    Around1(f32),
}

/// A tensor to be made.
#[derive(Clone, Debug)]
struct Planned {
    name: String,
    format: Format,
    values: Values,
    bytes: u64,
}

/// Bytes of the file that [`write`] would make.
pub fn size(options: &SynthOptions) -> Result<u64> {
    Ok(plan(options)?.0.total_bytes())
}

/// Writes a file. `progress` gets (bytes done, bytes in all). Returns the file's bytes.
///
/// Memory in use stays at the header and one piece of a mebibyte.
pub fn write(options: &SynthOptions, out: &mut impl Write, progress: &mut dyn FnMut(u64, u64)) -> Result<u64> {
    let (writer, tensors) = plan(options)?;
    let total = writer.total_bytes();
    let io = |e| Error::io("GGUF output", e);
    let mut done = total - tensors.iter().map(|t| t.bytes).sum::<u64>().min(total);
    let mut out = writer.begin(out).map_err(io)?;
    let mut buffer = vec![0; CHUNK];
    for t in &tensors {
        let seed = options.seed ^ fill::hash(t.name.as_bytes());
        let (mut fill, mut left) = (Fill::new(t.format, t.values, seed), t.bytes);
        let piece = CHUNK - CHUNK % t.format.block_bytes();
        while left > 0 {
            let n = usize::try_from(left).unwrap_or(usize::MAX).min(piece);
            let part = &mut buffer[..n];
            fill.fill(part);
            out.write(part).map_err(io)?;
            left -= n as u64;
            done += n as u64;
            progress(done.min(total), total);
        }
    }
    out.finish().map_err(io)?;
    Ok(total)
}

/// The configuration that is asked for.
fn config(options: &SynthOptions) -> Result<Config> {
    let mut c = options.shape.config();
    let layers = options.layers.unwrap_or(c.num_layers);
    if layers == 0 || layers > c.num_layers {
        let what = format!("is {layers}, but {} has 1 to {}", options.shape.name(), c.num_layers);
        return Err(Error::metadata("synth", "layers", what));
    }
    c.num_layers = layers;
    c.dense_layers.truncate(layers);
    if !options.mtp {
        c.num_mtp_layers = 0;
    }
    Ok(c)
}

/// The header and the tensors behind it.
fn plan(options: &SynthOptions) -> Result<(Writer, Vec<Planned>)> {
    let c = config(options)?;
    let mut writer = Writer::new();
    metadata(&mut writer, options, &c);
    vocab::metadata(&mut writer, options.shape, c.vocab_size);
    writer.set("general.quantization_version", 2u32);
    writer.set("general.file_type", options.quant.file_type());
    let tensors = Plan { quant: options.quant, config: &c, writer: &mut writer, tensors: Vec::new() }.all()?;
    Ok((writer, tensors))
}

/// As llama.cpp's converter writes it.
fn metadata(w: &mut Writer, options: &SynthOptions, c: &Config) {
    let a = &c.attention;
    w.set("general.architecture", "deepseek2");
    w.set("general.type", "model");
    w.set("general.name", format!("{} (random weights)", options.shape.title()));
    let mut set = |key: &str, value: Value| w.set(format!("deepseek2.{key}"), value);
    let size = |n: usize| Value::U32(n as u32);
    set("block_count", size(c.num_layers + c.num_mtp_layers));
    set("context_length", size(c.max_positions));
    set("embedding_length", size(c.hidden_size));
    set("feed_forward_length", size(c.intermediate_size));
    set("attention.head_count", size(a.num_heads));
    set("attention.head_count_kv", size(1));
    if let Some(y) = &c.rope.yarn {
        set("rope.scaling.type", "yarn".into());
        set("rope.scaling.factor", Value::F32(y.factor as f32));
        set("rope.scaling.original_context_length", size(y.original_max_positions));
        set("rope.scaling.yarn_beta_fast", Value::F32(y.beta_fast as f32));
        set("rope.scaling.yarn_beta_slow", Value::F32(y.beta_slow as f32));
        set("rope.scaling.yarn_log_multiplier", Value::F32((0.1 * y.mscale_all_dim) as f32));
    }
    set("rope.freq_base", Value::F32(c.rope.theta as f32));
    set("attention.layer_norm_rms_epsilon", Value::F32(c.rms_norm_eps));
    set("leading_dense_block_count", size(c.dense_layers.iter().take_while(|&&d| d).count()));
    set("vocab_size", size(c.vocab_size));
    match a.q_lora_rank {
        Some(rank) => set("attention.q_lora_rank", size(rank)),
        // llama.cpp asks for the key but at the depths that it knows to have full queries.
        None if !matches!(c.num_layers, 26 | 27) => set("attention.q_lora_rank", size(0)),
        None => {}
    }
    set("attention.kv_lora_rank", size(a.kv_lora_rank));
    set("attention.key_length", size(a.cache_width()));
    set("attention.value_length", size(a.kv_lora_rank));
    set("attention.key_length_mla", size(a.qk_head_dim()));
    set("attention.value_length_mla", size(a.v_head_dim));
    set("rope.dimension_count", size(a.qk_rope_head_dim));
    if let Some(m) = &c.moe {
        set("expert_count", size(m.num_experts));
        set("expert_used_count", size(m.top_k));
        set("expert_group_count", size(m.num_groups));
        set("expert_group_used_count", size(m.top_k_groups));
        set("expert_gating_func", size(if m.scoring == Scoring::Softmax { 1 } else { 2 }));
        set("expert_feed_forward_length", size(m.intermediate_size));
        set("expert_shared_count", size(m.num_shared));
        set("expert_weights_scale", Value::F32(m.scaling_factor));
        if m.norm_top_k {
            set("expert_weights_norm", true.into());
        }
    }
    if c.num_mtp_layers > 0 {
        set("nextn_predict_layers", size(c.num_mtp_layers));
    }
}

/// Collects the tensors.
struct Plan<'a> {
    quant: Quant,
    config: &'a Config,
    writer: &'a mut Writer,
    tensors: Vec<Planned>,
}

impl Plan<'_> {
    /// `dims` innermost first.
    fn add(&mut self, name: String, dims: &[usize], format: Format, values: Values) -> Result<()> {
        let bytes = self.writer.tensor(name.clone(), dims, format)?;
        self.tensors.push(Planned { name, format, values, bytes });
        Ok(())
    }

    /// A vector in F32.
    fn vector(&mut self, name: String, n: usize, values: Values) -> Result<()> {
        self.add(name, &[n], Format::F32, values)
    }

    fn norm(&mut self, name: String, n: usize) -> Result<()> {
        self.vector(name, n, Values::Around1(0.05))
    }

    /// A matrix, or a stack of them, in the format that llama-quantize would choose.
    fn matrix(&mut self, name: String, layer: usize, dims: &[usize], deviation: f32) -> Result<()> {
        let layers = self.config.num_layers + self.config.num_mtp_layers;
        let format = self.quant.format_of(&name, dims, layer, layers);
        self.add(name, dims, format, Values::Around0(deviation))
    }

    fn all(mut self) -> Result<Vec<Planned>> {
        let c = self.config;
        let (v, h) = (c.vocab_size, c.hidden_size);
        // Rows of the embedding are the residual stream's first values.
        self.matrix("token_embd.weight".into(), 0, &[h, v], 1.0)?;
        for i in 0..c.num_layers + c.num_mtp_layers {
            self.layer(i)?;
            if i >= c.num_layers {
                self.mtp(i)?;
            }
        }
        self.norm("output_norm.weight".into(), h)?;
        self.matrix("output.weight".into(), 0, &[h, v], fan_in(h))?;
        Ok(self.tensors)
    }

    fn mtp(&mut self, i: usize) -> Result<()> {
        let h = self.config.hidden_size;
        let at = |part: &str| format!("blk.{i}.nextn.{part}.weight");
        self.matrix(at("eh_proj"), i, &[2 * h, h], fan_in(2 * h))?;
        self.norm(at("enorm"), h)?;
        self.norm(at("hnorm"), h)?;
        self.norm(at("shared_head_norm"), h)
    }

    fn layer(&mut self, i: usize) -> Result<()> {
        let c = self.config;
        let (h, a) = (c.hidden_size, &c.attention);
        let at = |part: &str| format!("blk.{i}.{part}.weight");
        let (heads, r) = (a.num_heads, a.kv_lora_rank);
        let queries = heads * a.qk_head_dim();
        self.norm(at("attn_norm"), h)?;
        match a.q_lora_rank {
            None => self.matrix(at("attn_q"), i, &[h, queries], fan_in(h))?,
            Some(rank) => {
                self.matrix(at("attn_q_a"), i, &[h, rank], fan_in(h))?;
                self.norm(at("attn_q_a_norm"), rank)?;
                self.matrix(at("attn_q_b"), i, &[rank, queries], fan_in(rank))?;
            }
        }
        self.matrix(at("attn_kv_a_mqa"), i, &[h, a.cache_width()], fan_in(h))?;
        self.norm(at("attn_kv_a_norm"), r)?;
        // The transpose of a matrix whose inputs are the latent.
        self.matrix(at("attn_k_b"), i, &[a.qk_nope_head_dim, r, heads], fan_in(r))?;
        self.matrix(at("attn_v_b"), i, &[r, a.v_head_dim, heads], fan_in(r))?;
        self.matrix(at("attn_output"), i, &[heads * a.v_head_dim, h], fan_in(heads * a.v_head_dim))?;
        self.norm(at("ffn_norm"), h)?;
        let Some(m) = c.moe.as_ref().filter(|_| c.is_moe(i)) else {
            let n = c.intermediate_size;
            self.matrix(at("ffn_gate"), i, &[h, n], fan_in(h))?;
            self.matrix(at("ffn_up"), i, &[h, n], fan_in(h))?;
            return self.matrix(at("ffn_down"), i, &[n, h], fan_in(n));
        };
        let (e, n) = (m.num_experts, m.intermediate_size);
        self.add(at("ffn_gate_inp"), &[h, e], Format::F32, Values::Around0(fan_in(h)))?;
        if m.scoring == Scoring::Sigmoid {
            self.vector(format!("blk.{i}.exp_probs_b.bias"), e, Values::Around0(0.02))?;
        }
        self.matrix(at("ffn_gate_exps"), i, &[h, n, e], fan_in(h))?;
        self.matrix(at("ffn_up_exps"), i, &[h, n, e], fan_in(h))?;
        self.matrix(at("ffn_down_exps"), i, &[n, h, e], fan_in(n))?;
        let n = n * m.num_shared;
        self.matrix(at("ffn_gate_shexp"), i, &[h, n], fan_in(h))?;
        self.matrix(at("ffn_up_shexp"), i, &[h, n], fan_in(h))?;
        self.matrix(at("ffn_down_shexp"), i, &[n, h], fan_in(n))
    }
}

/// The deviation that keeps a product's outputs at the deviation of its `n` inputs.
fn fan_in(n: usize) -> f32 {
    (n as f32).powf(-0.5)
}
