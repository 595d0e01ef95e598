//! GGUF files of architecture `deepseek2`.

use std::{collections::HashSet, sync::Arc};

use super::{Checkpoint, GenerationConfig, Source, SourceKind, SpecialTokens};
use crate::{
    ChatTemplate, Config, Error, Ranged, Result, Tensor, Tokenizer, Weights,
    gguf::{Gguf, Metadata, Value},
    tokenizer::GgufVocab,
    weights::{Experts, Ffn, KvB, Layer, Mlp, MoeWeights, Mtp, Query},
};

#[cfg(not(target_arch = "wasm32"))]
pub(super) fn open(path: &std::path::Path) -> Result<Checkpoint> {
    Ok(build(Gguf::open(path)?, true)?.named(|| path.file_stem().map(|s| s.to_string_lossy().into_owned())))
}

pub(super) fn from_ranged(name: &str, file: Arc<dyn Ranged>, vocabulary: bool) -> Result<Checkpoint> {
    Ok(build(Gguf::from_ranged(name, file, vocabulary)?, vocabulary)?.named(|| Some(stem(name))))
}

pub(super) fn from_head(name: &str, head: &[u8], file_len: u64) -> Result<Option<Checkpoint>> {
    let Some(file) = Gguf::from_head(name, head, file_len)? else { return Ok(None) };
    Ok(Some(build(file, true)?.named(|| Some(stem(name)))))
}

/// A file's name without its ending.
fn stem(name: &str) -> String {
    name.strip_suffix(".gguf").unwrap_or(name).to_owned()
}

impl Checkpoint {
    /// With a name for the model where its metadata have none.
    fn named(mut self, name: impl FnOnce() -> Option<String>) -> Self {
        if self.config.name.is_empty() {
            self.config.name = name().unwrap_or_default();
        }
        self
    }
}

/// Without `vocabulary` there is neither tokenizer nor template.
pub(super) fn build(file: Gguf, vocabulary: bool) -> Result<Checkpoint> {
    let m = file.metadata();
    let mut remarks = Vec::new();
    let config = Config::from_gguf(m, &|name| file.contains(name), &mut remarks)?;
    let mut loader = Loader { store: &file, used: HashSet::new() };
    let weights = loader.weights(&config)?;
    if !file.is_head() {
        weights.check_small_finite(&file.file)?;
    }
    let unused = file.unused(&loader.used);

    let tokenizer = if vocabulary { tokenizer(m)? } else { None };
    let special = special(m)?.complete(&config, tokenizer.as_ref(), &file.file, "tokenizer.ggml.bos_token_id", &mut remarks)?;
    let text = |key: &str| -> Result<Option<String>> {
        Ok(m.token_id(key)?.zip(tokenizer.as_ref()).and_then(|(id, t)| t.id_to_token(id)))
    };
    let chat_template = match m.str("tokenizer.chat_template")?.filter(|_| vocabulary) {
        None => None,
        Some(source) => {
            let (bos, eos) = (text("tokenizer.ggml.bos_token_id")?, text("tokenizer.ggml.eos_token_id")?);
            ChatTemplate::new(source, bos, eos).map_err(|e| remarks.push(e.to_string())).ok()
        }
    };
    let left_out = m.left_out().map(|(k, len)| (k.to_owned(), values(len)));
    let source = Source {
        name: file.file.clone(),
        kind: SourceKind::Gguf,
        paths: file.paths.clone(),
        total_bytes: file.total_bytes(),
        vocabulary: tokenizer.as_ref().map_or_else(String::new, |_| kind_of_vocabulary(m)),
        metadata: m.iter().map(|(k, v)| (k.to_owned(), brief(v))).chain(left_out).collect(),
        unused,
        remarks,
    };
    Ok(Checkpoint { generation: generation(m)?, config, weights, tokenizer, chat_template, special, source })
}

fn kind_of_vocabulary(m: &Metadata) -> String {
    let text = |key: &str| m.str(key).ok().flatten().unwrap_or("default").to_owned();
    format!("{} / {}", text("tokenizer.ggml.model"), text("tokenizer.ggml.pre"))
}

/// An array in one short line.
fn values(len: usize) -> String {
    format!("{len} values")
}

/// A value in one short line.
fn brief(value: &Value) -> String {
    let text = match value {
        Value::U8(v) => v.to_string(),
        Value::I8(v) => v.to_string(),
        Value::U16(v) => v.to_string(),
        Value::I16(v) => v.to_string(),
        Value::U32(v) => v.to_string(),
        Value::I32(v) => v.to_string(),
        Value::F32(v) => v.to_string(),
        Value::Bool(v) => v.to_string(),
        Value::U64(v) => v.to_string(),
        Value::I64(v) => v.to_string(),
        Value::F64(v) => v.to_string(),
        Value::String(v) => v.chars().take(121).map(|c| if c.is_control() { ' ' } else { c }).collect(),
        Value::Array(v) => values(v.len()),
    };
    match text.char_indices().nth(120) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

fn tokenizer(m: &Metadata) -> Result<Option<Tokenizer>> {
    let Some(model) = m.str("tokenizer.ggml.model")? else { return Ok(None) };
    let Some(tokens) = m.strings("tokenizer.ggml.tokens")? else { return Ok(None) };
    let merges = m.strings("tokenizer.ggml.merges")?.unwrap_or_default();
    let token_type = m.integers("tokenizer.ggml.token_type")?.unwrap_or_default();
    let pre = m.str("tokenizer.ggml.pre")?.unwrap_or("default");
    Tokenizer::from_gguf(GgufVocab { model, pre, tokens, token_type: &token_type, merges }).map(Some)
}

fn special(m: &Metadata) -> Result<SpecialTokens> {
    let id = |name: &str| m.token_id(&format!("tokenizer.ggml.{name}_token_id"));
    // Files without the key: DeepSeek's own vocabularies begin every text with their first token, the others' do not.
    let deepseek = matches!(m.str("tokenizer.ggml.pre")?, Some("deepseek-llm" | "deepseek-coder" | "deepseek-v3"));
    Ok(SpecialTokens {
        bos: id("bos")?,
        add_bos: m.bool("tokenizer.ggml.add_bos_token")?.unwrap_or(deepseek),
        eos: [id("eos")?, id("eot")?, id("eom")?].into_iter().flatten().collect(),
        pad: id("padding")?,
    })
}

fn generation(m: &Metadata) -> Result<GenerationConfig> {
    let number = |key: &'static str| -> Result<(&'static str, Option<f64>)> { Ok((key, m.number(key)?)) };
    let temperature = number("general.sampling.temp")?;
    const TOP_K: &str = "general.sampling.top_k";
    GenerationConfig::checked(
        m.file(),
        temperature.1.map(|t| t > 0.0),
        temperature,
        number("general.sampling.top_p")?,
        (TOP_K, m.usize(TOP_K)?),
        number("general.sampling.min_p")?,
        number("general.sampling.penalty_repeat")?,
    )
}

/// Takes tensors by name, with their shapes checked.
struct Loader<'a> {
    store: &'a Gguf,
    used: HashSet<String>,
}

impl Loader<'_> {
    /// `shape` is `[n]`, `[rows, cols]` or `[count, rows, cols]`. Leading ones make no difference:
    /// the file does not store them.
    fn tensor(&mut self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let (info, data) = self
            .store
            .tensor(name)
            .ok_or_else(|| Error::MissingTensor { file: self.store.file.clone(), name: name.to_owned() })?;
        let mut expected: Vec<usize> = shape.iter().copied().skip_while(|&d| d == 1).collect();
        if expected.is_empty() {
            expected.push(1);
        }
        let found = info.shape();
        let (count, rows, cols) = match *shape {
            [n] => (1, 1, n),
            [rows, cols] => (1, rows, cols),
            [count, rows, cols] => (count, rows, cols),
            _ => (0, 0, 0),
        };
        // Some converters write a stack as one tall matrix.
        let flat = shape.len() == 3 && found == [count * rows, cols];
        if found != expected && !flat {
            return Err(Error::Shape { file: self.store.file.clone(), name: name.to_owned(), found, expected: shape.to_vec() });
        }
        self.used.insert(name.to_owned());
        let mut tensor = Tensor { name: name.to_owned(), format: info.format, count, rows, cols, data, scales: None };
        // Vectors are small, and needed at once.
        if shape.len() == 1 && !self.store.is_head() {
            tensor.make_resident()?;
        }
        Ok(tensor)
    }

    fn optional(&mut self, name: &str, shape: &[usize]) -> Result<Option<Tensor>> {
        if self.store.contains(name) { self.tensor(name, shape).map(Some) } else { Ok(None) }
    }

    fn weights(&mut self, c: &Config) -> Result<Weights> {
        let (v, h) = (c.vocab_size, c.hidden_size);
        Ok(Weights {
            embed: self.tensor("token_embd.weight", &[v, h])?,
            out_norm: self.tensor("output_norm.weight", &[h])?,
            head: self.optional("output.weight", &[v, h])?,
            layers: (0..c.num_layers).map(|i| self.layer(c, i)).collect::<Result<_>>()?,
            mtp: (c.num_layers..c.num_layers + c.num_mtp_layers).map(|i| self.mtp(c, i)).collect::<Result<_>>()?,
        })
    }

    fn mtp(&mut self, c: &Config, index: usize) -> Result<Mtp> {
        let (v, h) = (c.vocab_size, c.hidden_size);
        let at = |part: &str| format!("blk.{index}.nextn.{part}.weight");
        // A copy of the model's own embedding.
        self.used.insert(at("embed_tokens"));
        Ok(Mtp {
            embed_norm: self.tensor(&at("enorm"), &[h])?,
            hidden_norm: self.tensor(&at("hnorm"), &[h])?,
            project: self.tensor(&at("eh_proj"), &[h, 2 * h])?,
            layer: self.layer(c, index)?,
            head_norm: self.optional(&at("shared_head_norm"), &[h])?,
            head: self.optional(&at("shared_head_head"), &[v, h])?,
        })
    }

    fn layer(&mut self, c: &Config, index: usize) -> Result<Layer> {
        let (h, a) = (c.hidden_size, &c.attention);
        let at = |part: &str| format!("blk.{index}.{part}.weight");
        let (heads, r) = (a.num_heads, a.kv_lora_rank);
        let queries = heads * a.qk_head_dim();
        let q = match a.q_lora_rank {
            None => Query::Full(self.tensor(&at("attn_q"), &[queries, h])?),
            Some(rank) => Query::Lora {
                a: self.tensor(&at("attn_q_a"), &[rank, h])?,
                norm: self.tensor(&at("attn_q_a_norm"), &[rank])?,
                b: self.tensor(&at("attn_q_b"), &[queries, rank])?,
            },
        };
        let kv_b = if self.store.contains(&at("attn_k_b")) {
            // A file may hold the fused form as well.
            self.used.insert(at("attn_kv_b"));
            KvB::Split {
                k: self.tensor(&at("attn_k_b"), &[heads, r, a.qk_nope_head_dim])?,
                v: self.tensor(&at("attn_v_b"), &[heads, a.v_head_dim, r])?,
            }
        } else {
            KvB::Fused(self.tensor(&at("attn_kv_b"), &[heads * (a.qk_nope_head_dim + a.v_head_dim), r])?)
        };
        Ok(Layer {
            attn_norm: self.tensor(&at("attn_norm"), &[h])?,
            q,
            kv_a: self.tensor(&at("attn_kv_a_mqa"), &[a.cache_width(), h])?,
            kv_a_norm: self.tensor(&at("attn_kv_a_norm"), &[r])?,
            kv_b,
            o: self.tensor(&at("attn_output"), &[h, heads * a.v_head_dim])?,
            ffn_norm: self.tensor(&at("ffn_norm"), &[h])?,
            ffn: self.ffn(c, index)?,
        })
    }

    fn ffn(&mut self, c: &Config, index: usize) -> Result<Ffn> {
        let h = c.hidden_size;
        let at = |part: &str| format!("blk.{index}.{part}.weight");
        let Some(m) = c.moe.as_ref().filter(|_| c.is_moe(index)) else {
            let i = c.intermediate_size;
            return Ok(Ffn::Dense(Mlp {
                gate: self.tensor(&at("ffn_gate"), &[i, h])?,
                up: self.tensor(&at("ffn_up"), &[i, h])?,
                down: self.tensor(&at("ffn_down"), &[h, i])?,
            }));
        };
        let (e, i) = (m.num_experts, m.intermediate_size);
        let fused = at("ffn_gate_up_exps");
        let down = self.tensor(&at("ffn_down_exps"), &[e, h, i])?;
        let experts = if self.store.contains(&fused) {
            let both = self.tensor(&fused, &[e, 2 * i, h])?;
            Experts::Separate((0..e).map(|n| self.one_of_fused(&both, &down, n)).collect::<Result<_>>()?)
        } else {
            Experts::Stacked(Mlp {
                gate: self.tensor(&at("ffn_gate_exps"), &[e, i, h])?,
                up: self.tensor(&at("ffn_up_exps"), &[e, i, h])?,
                down,
            })
        };
        let shared = match m.num_shared * i {
            0 => None,
            width => Some(Mlp {
                gate: self.tensor(&at("ffn_gate_shexp"), &[width, h])?,
                up: self.tensor(&at("ffn_up_shexp"), &[width, h])?,
                down: self.tensor(&at("ffn_down_shexp"), &[h, width])?,
            }),
        };
        let router = self.tensor(&at("ffn_gate_inp"), &[e, h])?;
        // Optional: V2 has none, and the metadata does not tell.
        let bias = self.optional(&format!("blk.{index}.exp_probs_b.bias"), &[e])?;
        Ok(Ffn::Moe(Box::new(MoeWeights { router, bias, experts, shared })))
    }

    /// Expert `n` of a stack whose matrices hold gate rows, then up rows.
    fn one_of_fused(&self, both: &Tensor, down: &Tensor, n: usize) -> Result<Mlp> {
        let part = |t: &Tensor, name: &str, first: usize, rows: usize| -> Result<Tensor> {
            let row = t.format.row_bytes(t.cols).unwrap_or(0);
            let data = t.data.slice(first * row, rows * row);
            let data = data.ok_or_else(|| Error::malformed(&self.store.file, format!("tensor `{}` is too short", t.name)))?;
            Ok(Tensor { name: format!("{}[{n}].{name}", t.name), count: 1, rows, data, ..t.clone() })
        };
        let i = both.rows / 2;
        Ok(Mlp {
            gate: part(both, "gate", n * both.rows, i)?,
            up: part(both, "up", n * both.rows + i, i)?,
            down: part(down, "down", n * down.rows, down.rows)?,
        })
    }
}
