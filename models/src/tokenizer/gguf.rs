//! The vocabulary in a GGUF file's metadata (`tokenizer.ggml.*`).

use std::collections::HashSet;

use tokenizers::AddedToken;

use super::core::{Added, Parts};
use super::pre;
use crate::error::{Error, Result};

const SOURCE: &str = "GGUF vocabulary";

/// `tokenizer.ggml.token_type`: a mark in the text, special.
const CONTROL: i32 = 3;
/// `tokenizer.ggml.token_type`: text that is matched whole.
const USER_DEFINED: i32 = 4;

/// What a GGUF file says about its vocabulary.
#[derive(Clone, Copy, Debug)]
pub struct GgufVocab<'a> {
    /// `tokenizer.ggml.model`; byte-level BPE is "gpt2".
    pub model: &'a str,
    /// `tokenizer.ggml.pre`: the name of the rules for cutting text into words; "default" if the file has none.
    pub pre: &'a str,
    /// `tokenizer.ggml.tokens`, by id.
    pub tokens: &'a [String],
    /// `tokenizer.ggml.token_type`, by id: 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte. Empty if the
    /// file has none: all are normal.
    pub token_type: &'a [i32],
    /// `tokenizer.ggml.merges`: pairs with a blank between them, in order of precedence.
    pub merges: &'a [String],
}

pub(super) fn parts(gguf: GgufVocab<'_>) -> Result<Parts> {
    let GgufVocab { model, pre, tokens, token_type, merges } = gguf;
    if model != "gpt2" {
        return Err(Error::Unsupported {
            file: SOURCE.into(),
            kind: "tokenizer model",
            name: model.into(),
            hint: "; byte-level BPE (`gpt2`) is what the family uses".into(),
        });
    }
    let rules = pre::rules(pre)?;
    let malformed = |what: String| Error::malformed(SOURCE, what);
    if !token_type.is_empty() && token_type.len() != tokens.len() {
        return Err(malformed(format!("{} tokens, but {} token types", tokens.len(), token_type.len())));
    }
    if u32::try_from(tokens.len()).is_err() {
        return Err(malformed(format!("{} tokens are too many", tokens.len())));
    }

    let mut seen = HashSet::with_capacity(tokens.len());
    let mut vocab = Vec::with_capacity(tokens.len());
    let mut added = Vec::new();
    let mut control = HashSet::new();
    let types = token_type.iter().copied().chain(std::iter::repeat(1));
    for ((id, token), kind) in (0u32..).zip(tokens).zip(types) {
        if !seen.insert(token.as_str()) {
            return Err(malformed(format!("token {token:?} (id {id}) is there twice")));
        }
        vocab.push((token.clone(), id));
        if matches!(kind, CONTROL | USER_DEFINED) && !token.is_empty() {
            if kind == CONTROL {
                control.insert(token.as_str());
            }
            let token = AddedToken::from(token.as_str(), kind == CONTROL).normalized(false);
            added.push(Added { id, token });
        }
    }

    let mut pairs = Vec::with_capacity(merges.len());
    for merge in merges {
        let (left, right) = split_merge(merge, &seen)
            .ok_or_else(|| malformed(format!("the merge {merge:?} is no pair of tokens whose union is a token")))?;
        // Ordinary text must not merge into a mark.
        let product = format!("{left}{right}");
        if !control.contains(product.as_str()) {
            pairs.push((left.to_owned(), right.to_owned()));
        }
    }
    Ok(Parts {
        source: SOURCE.into(),
        vocab,
        merges: pairs,
        ignore_merges: rules.ignore_merges,
        normalizer: rules.normalizer,
        pre_tokenizer: Some(rules.pre_tokenizer),
        added,
    })
}

/// The halves of a merge. The blank between them is the one that leaves two tokens whose union is a token: a token may
/// hold blanks of its own.
fn split_merge<'a>(merge: &'a str, tokens: &HashSet<&str>) -> Option<(&'a str, &'a str)> {
    let known = |token: &str| !token.is_empty() && tokens.contains(token);
    merge.match_indices(' ').find_map(|(at, blank)| {
        let (left, right) = (merge.get(..at)?, merge.get(at + blank.len()..)?);
        (known(left) && known(right) && known(&format!("{left}{right}"))).then_some((left, right))
    })
}
