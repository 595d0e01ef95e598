//! What is in a checkpoint, for people and for programs.

use std::{collections::BTreeMap, fmt};

use serde::Serialize;

use crate::{
    Checkpoint, Tensor,
    checkpoint::SourceKind,
    config::{Family, Scoring},
    weights::{Experts, Ffn, Place, Role},
};

/// What a checkpoint holds.
#[derive(Clone, Debug, Serialize)]
pub struct Description {
    /// Path, or what the bytes were called.
    pub source: String,
    /// "Hugging Face" or "GGUF".
    pub container: &'static str,
    /// Files that hold the weights.
    pub files: usize,
    /// Bytes of these files.
    pub file_bytes: u64,
    /// The model's name.
    pub name: String,
    /// The published model type: `deepseek_v3`, ...
    pub family: &'static str,
    /// Positions the model was made for.
    pub context_length: usize,
    /// The model's dimensions.
    pub dims: Dims,
    /// Parameters, those for multi-token prediction left out.
    pub parameters: Parameters,
    /// Bytes of latent cache for one token, at 16 bits a value.
    pub cache_bytes_per_token: u64,
    /// Tensors by format, most bytes first.
    pub formats: Vec<FormatShare>,
    /// Ids with a meaning of their own.
    pub special_tokens: Special,
    /// What the vocabulary is, if there is one.
    pub tokenizer: Option<String>,
    /// Whether there is a chat template.
    pub chat_template: bool,
    /// Names of stored tensors that nothing here uses.
    pub unused: Vec<String>,
    /// What a user may want to know.
    pub remarks: Vec<String>,
    /// Metadata as short texts.
    pub metadata: Vec<(String, String)>,
    /// Every tensor, in the order of the forward pass.
    pub tensors: Vec<TensorLine>,
}

/// Dimensions.
#[derive(Clone, Debug, Serialize)]
#[expect(missing_docs, reason = "named as in `Config`")]
pub struct Dims {
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub num_layers: usize,
    pub num_dense_layers: usize,
    pub num_mtp_layers: usize,
    pub num_heads: usize,
    pub q_lora_rank: Option<usize>,
    pub kv_lora_rank: usize,
    pub qk_nope_head_dim: usize,
    pub qk_rope_head_dim: usize,
    pub v_head_dim: usize,
    pub intermediate_size: usize,
    pub moe: Option<MoeDims>,
    pub tie_word_embeddings: bool,
    pub rope_theta: f64,
    pub yarn_factor: Option<f64>,
}

/// Dimensions of the mixture.
#[derive(Clone, Debug, Serialize)]
#[expect(missing_docs, reason = "named as in `Moe`")]
pub struct MoeDims {
    pub num_experts: usize,
    pub top_k: usize,
    pub num_shared: usize,
    pub intermediate_size: usize,
    pub scoring: &'static str,
    pub num_groups: usize,
    pub top_k_groups: usize,
    pub norm_top_k: bool,
    pub scaling_factor: f32,
}

/// Counts of parameters and their bytes.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Parameters {
    /// In the model.
    pub total: u64,
    /// That take part in one token: all but the experts not chosen and the rows of the embedding not looked up.
    pub active: u64,
    /// Of the routed experts.
    pub experts: u64,
    /// Of the modules for multi-token prediction, which are in none of the others.
    pub mtp: u64,
    /// Bytes of `total`.
    pub total_bytes: u64,
    /// Bytes of `active`: what decoding one token reads.
    pub active_bytes: u64,
}

/// Tensors of one format.
#[derive(Clone, Debug, Serialize)]
pub struct FormatShare {
    /// The format's name.
    pub format: &'static str,
    /// Tensors; each matrix of a stack counts.
    pub matrices: u64,
    /// Parameters.
    pub parameters: u64,
    /// Bytes.
    pub bytes: u64,
}

/// Ids with a meaning of their own.
#[derive(Clone, Debug, Serialize)]
pub struct Special {
    /// Begins a text.
    pub bos: Option<TokenLine>,
    /// Whether a plain prompt begins with it.
    pub add_bos: bool,
    /// Ends an answer.
    pub eos: Vec<TokenLine>,
    /// Fills batches.
    pub pad: Option<TokenLine>,
}

/// A token and its text.
#[derive(Clone, Debug, Serialize)]
pub struct TokenLine {
    /// Its id.
    pub id: u32,
    /// Its text, where there is a vocabulary.
    pub text: Option<String>,
}

/// One tensor.
#[derive(Clone, Debug, Serialize)]
pub struct TensorLine {
    /// Its place in the model.
    pub place: String,
    /// Its name in the file.
    pub name: String,
    /// Its format.
    pub format: &'static str,
    /// `[rows, cols]`, or `[count, rows, cols]` for a stack.
    pub shape: Vec<usize>,
    /// Its bytes.
    pub bytes: u64,
}

/// Describes an opened checkpoint.
pub fn describe(c: &Checkpoint) -> Description {
    let text = |id: u32| TokenLine { id, text: c.tokenizer.as_ref().and_then(|t| t.id_to_token(id)) };
    let (config, a) = (&c.config, &c.config.attention);
    let dims = Dims {
        vocab_size: config.vocab_size,
        hidden_size: config.hidden_size,
        num_layers: config.num_layers,
        num_dense_layers: (0..config.num_layers).filter(|&i| !config.is_moe(i)).count(),
        num_mtp_layers: config.num_mtp_layers,
        num_heads: a.num_heads,
        q_lora_rank: a.q_lora_rank,
        kv_lora_rank: a.kv_lora_rank,
        qk_nope_head_dim: a.qk_nope_head_dim,
        qk_rope_head_dim: a.qk_rope_head_dim,
        v_head_dim: a.v_head_dim,
        intermediate_size: config.intermediate_size,
        moe: config.moe.as_ref().map(|m| MoeDims {
            num_experts: m.num_experts,
            top_k: m.top_k,
            num_shared: m.num_shared,
            intermediate_size: m.intermediate_size,
            scoring: match m.scoring {
                Scoring::Softmax => "softmax",
                Scoring::Sigmoid => "sigmoid",
            },
            num_groups: m.num_groups,
            top_k_groups: m.top_k_groups,
            norm_top_k: m.norm_top_k,
            scaling_factor: m.scaling_factor,
        }),
        tie_word_embeddings: config.tie_word_embeddings,
        rope_theta: config.rope.theta,
        yarn_factor: config.rope.yarn.as_ref().map(|y| y.factor),
    };
    let tensors = c.weights.tensors();
    Description {
        source: c.source.name.clone(),
        container: match c.source.kind {
            SourceKind::HuggingFace => "Hugging Face",
            SourceKind::Gguf => "GGUF",
        },
        files: c.source.paths.len(),
        file_bytes: c.source.total_bytes,
        name: config.name.clone(),
        family: match config.family {
            Family::DeepseekV2 => "deepseek_v2",
            Family::DeepseekV3 => "deepseek_v3",
            Family::KimiK2 => "kimi_k2",
            Family::Glm4MoeLite => "glm4_moe_lite",
        },
        context_length: config.max_positions,
        dims,
        parameters: parameters(c, &tensors),
        cache_bytes_per_token: 2 * (a.cache_width() * config.num_layers) as u64,
        formats: formats(&tensors),
        special_tokens: Special {
            bos: c.special.bos.map(text),
            add_bos: c.special.add_bos,
            eos: c.special.eos.iter().map(|&id| text(id)).collect(),
            pad: c.special.pad.map(text),
        },
        tokenizer: c.tokenizer.as_ref().map(|t| format!("{}, {} tokens", c.source.vocabulary, t.vocab_size())),
        chat_template: c.chat_template.is_some(),
        unused: c.source.unused.clone(),
        remarks: c.source.remarks.clone(),
        metadata: c.source.metadata.clone(),
        tensors: tensors.iter().map(|(place, t)| line(place, t)).collect(),
    }
}

fn line(place: &Place, t: &Tensor) -> TensorLine {
    let shape = if t.count > 1 { vec![t.count, t.rows, t.cols] } else { vec![t.rows, t.cols] };
    TensorLine { place: place.to_string(), name: t.name.clone(), format: t.format.name(), shape, bytes: t.bytes() as u64 }
}

fn parameters(c: &Checkpoint, tensors: &[(Place, &Tensor)]) -> Parameters {
    let mut p = Parameters::default();
    let rows = |n: u64, t: &Tensor| n / (t.count as u64 * t.rows as u64).max(1);
    for (place, t) in tensors {
        let (n, bytes) = (t.elements(), t.bytes() as u64);
        if place.mtp {
            p.mtp += n;
            continue;
        }
        p.total += n;
        p.total_bytes += bytes;
        match place.role {
            role if role.is_expert() => p.experts += n,
            // One row is looked up; a tied embedding is read whole, as the head.
            Role::Embed if !c.config.tie_word_embeddings && c.weights.head.is_some() => {
                p.active += rows(n, t);
                p.active_bytes += rows(bytes, t);
            }
            _ => {
                p.active += n;
                p.active_bytes += bytes;
            }
        }
    }
    // The chosen experts: K of E in each layer.
    let Some(m) = &c.config.moe else { return p };
    for layer in &c.weights.layers {
        let Ffn::Moe(moe) = &layer.ffn else { continue };
        let (n, bytes) = match &moe.experts {
            Experts::Stacked(all) => {
                [&all.gate, &all.up, &all.down].iter().fold((0, 0), |(n, b), t| (n + t.elements(), b + t.bytes() as u64))
            }
            Experts::Separate(all) => all
                .iter()
                .flat_map(|mlp| [&mlp.gate, &mlp.up, &mlp.down])
                .fold((0, 0), |(n, b), t| (n + t.elements(), b + t.bytes() as u64)),
        };
        let (k, e) = (m.top_k as u64, (m.num_experts as u64).max(1));
        p.active += n / e * k;
        p.active_bytes += bytes / e * k;
    }
    p
}

fn formats(tensors: &[(Place, &Tensor)]) -> Vec<FormatShare> {
    let mut by_format = BTreeMap::new();
    for (_, t) in tensors {
        let share =
            by_format.entry(t.format).or_insert(FormatShare { format: t.format.name(), matrices: 0, parameters: 0, bytes: 0 });
        share.matrices += t.count as u64;
        share.parameters += t.elements();
        share.bytes += t.bytes() as u64;
    }
    let mut shares: Vec<FormatShare> = by_format.into_values().collect();
    shares.sort_by_key(|s| std::cmp::Reverse(s.bytes));
    shares
}

/// `16.2 B`, `19.7 M`.
struct Count(u64);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n = self.0 as f64;
        match self.0 {
            0..1_000 => write!(f, "{}", self.0),
            1_000..1_000_000 => write!(f, "{:.1} k", n / 1e3),
            1_000_000..1_000_000_000 => write!(f, "{:.1} M", n / 1e6),
            _ => write!(f, "{:.1} B", n / 1e9),
        }
    }
}

/// `15.1 GiB`, `20.2 MiB`.
struct Size(u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n = self.0 as f64;
        match self.0 {
            0..1_024 => write!(f, "{} B", self.0),
            1_024..1_048_576 => write!(f, "{:.1} KiB", n / 1024.0),
            1_048_576..1_073_741_824 => write!(f, "{:.1} MiB", n / 1_048_576.0),
            _ => write!(f, "{:.1} GiB", n / 1_073_741_824.0),
        }
    }
}

impl fmt::Display for TokenLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.text {
            Some(text) => write!(f, "{} {text}", self.id),
            None => write!(f, "{}", self.id),
        }
    }
}

/// The overview; with `{:#}` also the metadata and every tensor.
impl fmt::Display for Description {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let d = &self.dims;
        let files = match self.files {
            0 => "in memory".to_owned(),
            1 => "1 file".to_owned(),
            n => format!("{n} files"),
        };
        writeln!(f, "{}", self.source)?;
        writeln!(f, "  container    {}, {files}, {}", self.container, Size(self.file_bytes))?;
        writeln!(f, "  model        {} ({})", if self.name.is_empty() { "unnamed" } else { &self.name }, self.family)?;
        let p = &self.parameters;
        write!(f, "  parameters   {} in all, {} active a token ({})", Count(p.total), Count(p.active), Size(p.active_bytes))?;
        writeln!(f, "{}", if p.mtp > 0 { format!(", {} more for multi-token prediction", Count(p.mtp)) } else { String::new() })?;
        write!(f, "  layers       {}, of them {} dense", d.num_layers, d.num_dense_layers)?;
        writeln!(
            f,
            "{}",
            if d.num_mtp_layers > 0 { format!(", and {} for multi-token prediction", d.num_mtp_layers) } else { String::new() }
        )?;
        let tied = if d.tie_word_embeddings { " (tied)" } else { "" };
        writeln!(f, "  width        {}, dense MLP {}, vocabulary {}{tied}", d.hidden_size, d.intermediate_size, d.vocab_size)?;
        let q = d.q_lora_rank.map_or_else(|| "full".to_owned(), |r| format!("rank {r}"));
        writeln!(
            f,
            "  attention    {} heads, {} + {} per key, {} per value; queries {q}; latent {}",
            d.num_heads, d.qk_nope_head_dim, d.qk_rope_head_dim, d.v_head_dim, d.kv_lora_rank
        )?;
        if let Some(m) = &d.moe {
            write!(
                f,
                "  experts      {} of {}, {} shared, width {}; {}",
                m.top_k, m.num_experts, m.num_shared, m.intermediate_size, m.scoring
            )?;
            if m.num_groups > 1 {
                write!(f, ", {} of {} groups", m.top_k_groups, m.num_groups)?;
            }
            writeln!(f, "{}, scaled by {}", if m.norm_top_k { ", normalised" } else { "" }, m.scaling_factor)?;
        }
        let yarn = d.yarn_factor.map_or_else(String::new, |y| format!(", YaRN factor {y}"));
        writeln!(f, "  context      {} tokens; rope base {}{yarn}", self.context_length, d.rope_theta)?;
        writeln!(f, "  cache        {} a token at 16 bits", Size(self.cache_bytes_per_token))?;
        for (i, s) in self.formats.iter().enumerate() {
            let label = if i == 0 { "formats" } else { "" };
            writeln!(
                f,
                "  {label:<12} {:<8} {:>8} matrices {:>10} {:>12}",
                s.format,
                s.matrices,
                Count(s.parameters).to_string(),
                Size(s.bytes).to_string()
            )?;
        }
        writeln!(f, "  tokenizer    {}", self.tokenizer.as_deref().unwrap_or("none"))?;
        writeln!(f, "  template     {}", if self.chat_template { "yes" } else { "none" })?;
        let t = &self.special_tokens;
        if let Some(bos) = &t.bos {
            writeln!(f, "  begin        {bos}{}", if t.add_bos { "" } else { " (not added to plain prompts)" })?;
        }
        if !t.eos.is_empty() {
            writeln!(f, "  end          {}", t.eos.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))?;
        }
        if !self.unused.is_empty() {
            writeln!(f, "  unused       {} tensors, {} the first", self.unused.len(), self.unused[0])?;
        }
        for remark in &self.remarks {
            writeln!(f, "  note         {remark}")?;
        }
        if f.alternate() {
            writeln!(f, "\nMetadata")?;
            for (key, value) in &self.metadata {
                writeln!(f, "  {key} = {value}")?;
            }
            writeln!(f, "\nTensors")?;
            for t in &self.tensors {
                let shape = t.shape.iter().map(ToString::to_string).collect::<Vec<_>>().join(" x ");
                writeln!(f, "  {:<28} {:<8} {shape:<20} {:>12}  {}", t.place, t.format, Size(t.bytes).to_string(), t.name)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail")]

    use super::*;

    #[test]
    fn the_embedded_model_is_described() {
        let d = describe(&Checkpoint::tiny().unwrap());
        // 19.7 M parameters, of which the module for multi-token prediction has its share.
        let p = d.parameters;
        assert!((19.0e6..20.5e6).contains(&((p.total + p.mtp) as f64)), "{p:?}");
        assert!(p.active < p.total / 2 && p.experts < p.total && p.active_bytes < p.total_bytes);
        // 4 of 32 experts, three matrices of 128 x 256, four layers; the rest but for the embedding.
        let expert = 3 * 128 * 256;
        let rest = p.total - p.experts - 2982 * 256;
        assert_eq!((p.experts, p.active), (4 * 32 * expert, 4 * 4 * expert + rest + 256));
        let shared: u64 = d.formats.iter().map(|f| f.bytes).sum();
        assert_eq!(shared, d.tensors.iter().map(|t| t.bytes).sum::<u64>());
        assert_eq!(d.formats[0].format, "Q8_0");
        assert_eq!(d.cache_bytes_per_token, 2 * 96 * 5);
        let text = d.to_string();
        for part in [
            "Pleiad Tiny (deepseek_v3)",
            "4 of 32, 1 shared",
            "2 of 4 groups",
            "gpt2 / smollm, 2982 tokens",
            "<｜end▁of▁sentence｜>",
        ] {
            assert!(text.contains(part), "{part} is not in:\n{text}");
        }
        let all = format!("{d:#}");
        assert!(
            all.contains("mtp.5.project")
                && all.contains("layers.1.experts.gate")
                && all.contains("general.architecture = deepseek2")
        );
        let json = serde_json::to_value(&d).unwrap();
        assert_eq!(json["dims"]["moe"]["num_experts"], 32);
        assert_eq!(json["special_tokens"]["eos"][0]["id"], 1);
    }
}
