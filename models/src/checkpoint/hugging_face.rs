//! Hugging Face directories.

use std::{collections::HashSet, path::Path};

use half::{bf16, f16};
use serde_json::{Map, Value};

use super::{Checkpoint, GenerationConfig, Source, SourceKind, SpecialTokens};
use crate::{
    Bytes, ChatTemplate, Config, Error, Format, Result, Tensor, Tokenizer, Weights,
    config::Family,
    files,
    format::F8_BLOCK,
    safetensors::{Dtype, Entry, SafeTensors},
    weights::{Experts, Ffn, KvB, Layer, Mlp, MoeWeights, Mtp, Query},
};

/// No JSON file beside the weights is longer (tokenizer_config.json of DeepSeek-V3 has 170 kB).
const MAX_JSON: u64 = 64 << 20;

pub(super) fn open(directory: &Path) -> Result<Checkpoint> {
    let path = directory.join("config.json");
    let file = path.display().to_string();
    let json = files::read_json(&path, MAX_JSON)?.ok_or_else(|| Error::malformed(&file, "is missing"))?;
    let name = directory.canonicalize().ok().and_then(|p| Some(p.file_name()?.to_string_lossy().into_owned()));
    let mut config = Config::from_hugging_face(&file, &name.unwrap_or_default(), &json)?;
    let store = SafeTensors::open(directory)?;
    let mut remarks = Vec::new();

    let mut loader = Loader::new(&store, directory.display().to_string());
    let present = (0..config.num_mtp_layers).take_while(|i| {
        let name = format!("{}model.layers.{}.eh_proj.weight", loader.prefix, config.num_layers + i);
        store.get(&name).is_some()
    });
    let present = present.count();
    if present < config.num_mtp_layers {
        remarks.push(format!("{} of {} modules for multi-token prediction are stored", present, config.num_mtp_layers));
        config.num_mtp_layers = present;
    }
    let weights = loader.weights(&config)?;
    weights.check_small_finite(&loader.file)?;
    let unused = store.unused(&loader.used);

    let vocabulary = ["tokenizer.json", "tiktoken.model"].into_iter().find(|n| directory.join(n).exists());
    let tokenizer = vocabulary.map(|_| Tokenizer::from_directory(directory)).transpose()?;
    let side = SideFiles::read(directory)?;
    let special = side.special(&json)?.complete(&config, tokenizer.as_ref(), &file, "bos_token_id", &mut remarks)?;
    let chat_template = side.chat_template(&mut remarks);
    let generation = side.generation()?;
    let metadata = json.iter().map(|(k, v)| (k.clone(), brief(v))).collect();
    let source = Source {
        name: directory.display().to_string(),
        kind: SourceKind::HuggingFace,
        paths: store.paths.clone(),
        total_bytes: store.total_bytes,
        vocabulary: vocabulary.unwrap_or_default().to_owned(),
        metadata,
        unused,
        remarks,
    };
    Ok(Checkpoint { config, weights, tokenizer, chat_template, special, generation, source })
}

/// A value in one short line.
fn brief(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(120) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

/// The small files beside the weights.
struct SideFiles {
    directory: String,
    tokenizer: Map<String, Value>,
    generation: Map<String, Value>,
    template: Option<String>,
}

impl SideFiles {
    fn read(directory: &Path) -> Result<Self> {
        let json = |name: &str| files::read_json(&directory.join(name), MAX_JSON);
        let tokenizer = json("tokenizer_config.json")?.unwrap_or_default();
        let template = match files::read_text(&directory.join("chat_template.jinja"), MAX_JSON)? {
            Some(text) => Some(text),
            None => match tokenizer.get("chat_template").and_then(ChatTemplate::pick) {
                Some(text) => Some(text),
                None => json("chat_template.json")?.and_then(|j| ChatTemplate::pick(j.get("chat_template")?)),
            },
        };
        let generation = json("generation_config.json")?.unwrap_or_default();
        Ok(Self { directory: directory.display().to_string(), tokenizer, generation, template })
    }

    /// A special token's text: a string, or an object with `content`.
    fn token_text(&self, key: &str) -> Option<String> {
        let value = self.tokenizer.get(key)?;
        let text = value.as_str().or_else(|| value.get("content").and_then(Value::as_str));
        text.filter(|t| !t.is_empty()).map(str::to_owned)
    }

    /// Ids from config.json (of the text model, too) and generation_config.json.
    fn special(&self, config: &Map<String, Value>) -> Result<SpecialTokens> {
        let inner = config.get("text_config").and_then(Value::as_object);
        let sources = [Some(config), inner, Some(&self.generation)];
        let ids = |key: &str| -> Result<Vec<u32>> {
            let mut all = Vec::new();
            for value in sources.into_iter().flatten().filter_map(|m| m.get(key)) {
                let list = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
                for v in list.iter().filter(|v| !v.is_null()) {
                    let id =
                        v.as_i64().ok_or_else(|| Error::metadata(&self.directory, key, format!("is {v}, not a token id")))?;
                    // -1 stands for "none" in some files.
                    all.extend(u32::try_from(id));
                }
            }
            Ok(all)
        };
        let add_bos = self.tokenizer.get("add_bos_token").and_then(Value::as_bool).unwrap_or(false);
        Ok(SpecialTokens {
            bos: ids("bos_token_id")?.first().copied(),
            add_bos,
            eos: ids("eos_token_id")?,
            pad: ids("pad_token_id")?.first().copied(),
        })
    }

    fn chat_template(&self, remarks: &mut Vec<String>) -> Option<ChatTemplate> {
        let source = self.template.as_deref()?;
        ChatTemplate::new(source, self.token_text("bos_token"), self.token_text("eos_token"))
            .map_err(|e| remarks.push(e.to_string()))
            .ok()
    }

    fn generation(&self) -> Result<GenerationConfig> {
        let file = format!("{}/generation_config.json", self.directory);
        let f = crate::config::Fields { file: &file, map: &self.generation };
        let number = |key: &'static str| -> Result<(&'static str, Option<f64>)> { Ok((key, f.number(key)?)) };
        GenerationConfig::checked(
            &file,
            f.bool("do_sample")?,
            number("temperature")?,
            number("top_p")?,
            ("top_k", f.usize("top_k")?),
            number("min_p")?,
            number("repetition_penalty")?,
        )
    }
}

/// Takes tensors by name, with their shapes checked.
struct Loader<'a> {
    store: &'a SafeTensors,
    file: String,
    /// Before every name, in checkpoints of multimodal models.
    prefix: &'static str,
    used: HashSet<String>,
}

impl<'a> Loader<'a> {
    fn new(store: &'a SafeTensors, file: String) -> Self {
        const WRAPPED: &str = "language_model.";
        let wrapped = store.get("language_model.model.embed_tokens.weight").is_some();
        Self { store, file, prefix: if wrapped { WRAPPED } else { "" }, used: HashSet::new() }
    }

    fn take(&mut self, name: &str) -> Option<&'a Entry> {
        let entry = self.store.get(name);
        if entry.is_some() {
            self.used.insert(name.to_owned());
        }
        entry
    }

    fn has(&self, name: &str) -> bool {
        self.store.get(&format!("{}{name}", self.prefix)).is_some()
    }

    fn tensor(&mut self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let name = format!("{}{name}", self.prefix);
        let entry = self.take(&name).ok_or_else(|| Error::MissingTensor { file: self.file.clone(), name: name.clone() })?;
        let file = &*entry.file;
        if entry.shape != shape {
            let (found, expected) = (entry.shape.clone(), shape.to_vec());
            return Err(Error::Shape { file: file.to_owned(), name, found, expected });
        }
        let (rows, cols) = match shape {
            [n] => (1, *n),
            [rows, cols] => (*rows, *cols),
            _ => return Err(Error::malformed(file, format!("tensor `{name}` has {} dimensions", shape.len()))),
        };
        let format = match entry.dtype {
            Dtype::F32 => Format::F32,
            Dtype::F16 => Format::F16,
            Dtype::BF16 => Format::BF16,
            Dtype::F8_E4M3 if shape.len() == 2 => Format::F8E4M3,
            other => {
                return Err(Error::Unsupported {
                    file: file.to_owned(),
                    kind: "tensor format",
                    name: format!("{other:?} (of tensor `{name}`)"),
                    hint: "; F32, F16, BF16 and F8_E4M3 matrices are".to_owned(),
                });
            }
        };
        let scales = if format == Format::F8E4M3 { Some(self.scales(&name, rows, cols)?) } else { None };
        Ok(Tensor { name, format, count: 1, rows, cols, data: entry.data.clone(), scales })
    }

    /// `NAME_scale_inv`: one factor for each block of 128x128, as f32.
    fn scales(&mut self, of: &str, rows: usize, cols: usize) -> Result<Bytes> {
        let name = format!("{of}_scale_inv");
        let entry = self.take(&name).ok_or_else(|| Error::MissingTensor { file: self.file.clone(), name: name.clone() })?;
        let expected = vec![rows.div_ceil(F8_BLOCK), cols.div_ceil(F8_BLOCK)];
        if entry.shape != expected {
            return Err(Error::Shape { file: entry.file.to_string(), name, found: entry.shape.clone(), expected });
        }
        let convert = |widen: fn([u8; 2]) -> f32| {
            let pairs = entry.data.as_chunks().0.iter();
            Bytes::new(pairs.flat_map(|&p| widen(p).to_le_bytes()).collect::<Vec<u8>>())
        };
        match entry.dtype {
            Dtype::F32 => Ok(entry.data.clone()),
            Dtype::BF16 => Ok(convert(|b| bf16::from_le_bytes(b).to_f32())),
            Dtype::F16 => Ok(convert(|b| f16::from_le_bytes(b).to_f32())),
            other => Err(Error::Unsupported {
                file: entry.file.to_string(),
                kind: "scale format",
                name: format!("{other:?} (of tensor `{name}`)"),
                hint: String::new(),
            }),
        }
    }

    fn weights(&mut self, c: &Config) -> Result<Weights> {
        let (v, h) = (c.vocab_size, c.hidden_size);
        let embed = self.tensor("model.embed_tokens.weight", &[v, h])?;
        let out_norm = self.tensor("model.norm.weight", &[h])?;
        let head = if c.tie_word_embeddings { None } else { Some(self.tensor("lm_head.weight", &[v, h])?) };
        let layers = (0..c.num_layers).map(|i| self.layer(c, i)).collect::<Result<_>>()?;
        let mtp = (c.num_layers..c.num_layers + c.num_mtp_layers).map(|i| self.mtp(c, i)).collect::<Result<_>>()?;
        Ok(Weights { embed, out_norm, head, layers, mtp })
    }

    fn mtp(&mut self, c: &Config, index: usize) -> Result<Mtp> {
        let (v, h) = (c.vocab_size, c.hidden_size);
        let at = |part: &str| format!("model.layers.{index}.{part}.weight");
        // A copy of the model's own embedding.
        self.take(&format!("{}{}", self.prefix, at("embed_tokens")));
        let (norm, head) = (at("shared_head.norm"), at("shared_head.head"));
        Ok(Mtp {
            embed_norm: self.tensor(&at("enorm"), &[h])?,
            hidden_norm: self.tensor(&at("hnorm"), &[h])?,
            project: self.tensor(&at("eh_proj"), &[h, 2 * h])?,
            layer: self.layer(c, index)?,
            head_norm: if self.has(&norm) { Some(self.tensor(&norm, &[h])?) } else { None },
            head: if self.has(&head) { Some(self.tensor(&head, &[v, h])?) } else { None },
        })
    }

    fn layer(&mut self, c: &Config, index: usize) -> Result<Layer> {
        let (h, a) = (c.hidden_size, &c.attention);
        let at = |part: &str| format!("model.layers.{index}.{part}.weight");
        let queries = a.num_heads * a.qk_head_dim();
        let q = match a.q_lora_rank {
            None => Query::Full(self.tensor(&at("self_attn.q_proj"), &[queries, h])?),
            Some(rank) => Query::Lora {
                a: self.tensor(&at("self_attn.q_a_proj"), &[rank, h])?,
                norm: self.tensor(&at("self_attn.q_a_layernorm"), &[rank])?,
                b: self.tensor(&at("self_attn.q_b_proj"), &[queries, rank])?,
            },
        };
        let expanded = a.num_heads * (a.qk_nope_head_dim + a.v_head_dim);
        Ok(Layer {
            attn_norm: self.tensor(&at("input_layernorm"), &[h])?,
            q,
            kv_a: self.tensor(&at("self_attn.kv_a_proj_with_mqa"), &[a.cache_width(), h])?,
            kv_a_norm: self.tensor(&at("self_attn.kv_a_layernorm"), &[a.kv_lora_rank])?,
            kv_b: KvB::Fused(self.tensor(&at("self_attn.kv_b_proj"), &[expanded, a.kv_lora_rank])?),
            o: self.tensor(&at("self_attn.o_proj"), &[h, a.num_heads * a.v_head_dim])?,
            ffn_norm: self.tensor(&at("post_attention_layernorm"), &[h])?,
            ffn: self.ffn(c, index)?,
        })
    }

    fn mlp(&mut self, path: &str, h: usize, width: usize) -> Result<Mlp> {
        Ok(Mlp {
            gate: self.tensor(&format!("{path}.gate_proj.weight"), &[width, h])?,
            up: self.tensor(&format!("{path}.up_proj.weight"), &[width, h])?,
            down: self.tensor(&format!("{path}.down_proj.weight"), &[h, width])?,
        })
    }

    fn ffn(&mut self, c: &Config, index: usize) -> Result<Ffn> {
        let h = c.hidden_size;
        let path = format!("model.layers.{index}.mlp");
        let Some(m) = c.moe.as_ref().filter(|_| c.is_moe(index)) else {
            return Ok(Ffn::Dense(self.mlp(&path, h, c.intermediate_size)?));
        };
        let bias = format!("{path}.gate.e_score_correction_bias");
        // V2 has none. Elsewhere its loss would change the routing without a word.
        let bias =
            if c.family == Family::DeepseekV2 && !self.has(&bias) { None } else { Some(self.tensor(&bias, &[m.num_experts])?) };
        let experts: Vec<Mlp> = (0..m.num_experts)
            .map(|e| self.mlp(&format!("{path}.experts.{e}"), h, m.intermediate_size))
            .collect::<Result<_>>()?;
        same_form(&experts, &self.file)?;
        let shared = match m.num_shared {
            0 => None,
            n => Some(self.mlp(&format!("{path}.shared_experts"), h, n * m.intermediate_size)?),
        };
        let router = self.tensor(&format!("{path}.gate.weight"), &[m.num_experts, h])?;
        Ok(Ffn::Moe(Box::new(MoeWeights { router, bias, experts: Experts::Separate(experts), shared })))
    }
}

/// All experts of a layer are stored alike: kernels take them in one go.
fn same_form(experts: &[Mlp], file: &str) -> Result<()> {
    let Some(first) = experts.first() else { return Ok(()) };
    for m in experts {
        for (one, other) in [(&m.gate, &first.gate), (&m.up, &first.up), (&m.down, &first.down)] {
            if one.format != other.format {
                let (a, b) = (one.format, other.format);
                return Err(Error::malformed(file, format!("`{}` is stored as {a}, but `{}` as {b}", one.name, other.name)));
            }
        }
    }
    Ok(())
}
