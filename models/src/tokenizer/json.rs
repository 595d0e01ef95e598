//! Hugging Face's `tokenizer.json`.

use serde::Deserialize;
use serde_json::Value;
use tokenizers::{AddedToken, NormalizerWrapper, PreTokenizerWrapper};

use super::core::{Added, Parts};
use crate::error::{Error, Result};

const FILE: &str = "tokenizer.json";

#[derive(Deserialize)]
struct File {
    model: Model,
    #[serde(default)]
    added_tokens: Vec<AddedWithId>,
    normalizer: Option<Value>,
    pre_tokenizer: Option<Value>,
    decoder: Option<Value>,
}

#[derive(Deserialize)]
struct Model {
    /// Old files do not say.
    r#type: Option<String>,
    vocab: Value,
    #[serde(default)]
    merges: Vec<Merge>,
    #[serde(default)]
    ignore_merges: bool,
    continuing_subword_prefix: Option<String>,
    end_of_word_suffix: Option<String>,
}

/// A pair, or (in older files) its halves with a blank between them.
#[derive(Deserialize)]
#[serde(untagged)]
enum Merge {
    Pair(String, String),
    Line(String),
}

#[derive(Deserialize)]
struct AddedWithId {
    id: u32,
    #[serde(flatten)]
    token: AddedToken,
}

fn unsupported(kind: &'static str, name: &str) -> Error {
    Error::Unsupported { file: FILE.into(), kind, name: name.into(), hint: "; byte-level BPE is what the family uses".into() }
}

/// Whether the description, or any step of its sequence, is of the type.
fn has_type(value: &Value, name: &str) -> bool {
    let steps = ["pretokenizers", "normalizers", "decoders"].iter().filter_map(|key| value.get(key)?.as_array()).flatten();
    value.get("type").and_then(Value::as_str) == Some(name) || steps.into_iter().any(|step| has_type(step, name))
}

pub(super) fn parts(bytes: &[u8]) -> Result<Parts> {
    let malformed = |what: String| Error::malformed(FILE, what);
    let file: File = serde_json::from_slice(bytes).map_err(|e| malformed(e.to_string()))?;
    let File { model, added_tokens, normalizer, pre_tokenizer, decoder } = file;

    let kind = model.r#type.as_deref().unwrap_or("BPE");
    if kind != "BPE" {
        return Err(unsupported("tokenizer model", kind));
    }
    if !decoder.as_ref().is_some_and(|d| has_type(d, "ByteLevel")) {
        let name = decoder.as_ref().and_then(|d| d.get("type")).and_then(Value::as_str).unwrap_or("none");
        return Err(unsupported("tokenizer decoder", name));
    }
    for affix in [model.continuing_subword_prefix, model.end_of_word_suffix].into_iter().flatten() {
        if !affix.is_empty() {
            return Err(unsupported("subword affix", &affix));
        }
    }
    // Its tables are used unchecked by the tokenizers crate, and no model of the family has it.
    if normalizer.as_ref().is_some_and(|n| has_type(n, "Precompiled")) {
        return Err(unsupported("normaliser", "Precompiled"));
    }

    let Value::Object(entries) = model.vocab else { return Err(malformed("`model.vocab` is no object".into())) };
    let mut vocab = Vec::with_capacity(entries.len());
    for (token, id) in entries {
        let id = id.as_u64().and_then(|id| u32::try_from(id).ok());
        let id = id.ok_or_else(|| malformed(format!("the id of token {token:?} is no 32-bit number")))?;
        vocab.push((token, id));
    }
    let mut merges = Vec::with_capacity(model.merges.len());
    for merge in model.merges {
        merges.push(match merge {
            Merge::Pair(left, right) => (left, right),
            Merge::Line(line) => match line.split_once(' ') {
                Some((left, right)) if !right.contains(' ') => (left.into(), right.into()),
                _ => return Err(malformed(format!("the merge {line:?} is no pair"))),
            },
        });
    }
    let step = |what: &str, e: serde_json::Error| malformed(format!("`{what}`: {e}"));
    let normalizer: Option<NormalizerWrapper> =
        normalizer.map(serde_json::from_value).transpose().map_err(|e| step("normalizer", e))?;
    let pre_tokenizer: Option<PreTokenizerWrapper> =
        pre_tokenizer.map(serde_json::from_value).transpose().map_err(|e| step("pre_tokenizer", e))?;
    let added = added_tokens.into_iter().map(|a| Added { id: a.id, token: a.token }).collect();
    let ignore_merges = model.ignore_merges;
    Ok(Parts { source: FILE.into(), vocab, merges, ignore_merges, normalizer, pre_tokenizer, added })
}
