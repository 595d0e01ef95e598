//! `tiktoken.model` of Moonlight and Kimi-K2: tokens as base64 with their ranks, and no merges.
//!
//! tiktoken joins, as long as it can, the neighbours whose union has the lowest rank. The same is said by merges: every way
//! to cut a token into two tokens is a pair, and pairs are ordered by the rank of their union.

use std::collections::{BTreeMap, HashMap};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use tokenizers::AddedToken;

use super::bytes::to_alphabet;
use super::core::{Added, Parts};
use super::pre;
use crate::error::{Error, Result};

const FILE: &str = "tiktoken.model";
const CONFIG: &str = "tokenizer_config.json";

/// Special tokens follow the ranks; Kimi reserves this many ids for them.
const RESERVED: u32 = 256;

/// The longest token taken: published ones stay below 256 bytes. Bounds the work that a lying file can cause.
const MAX_TOKEN_BYTES: usize = 4096;

pub(super) fn parts(model: &[u8], config: Option<&[u8]>) -> Result<Parts> {
    let ranks = read_ranks(model)?;
    let mut by_rank: Vec<(&[u8], u32)> = ranks.iter().map(|(token, &rank)| (token.as_slice(), rank)).collect();
    by_rank.sort_unstable_by_key(|&(_, rank)| rank);
    if let Some(((_, rank), _)) = by_rank.iter().zip(by_rank.iter().skip(1)).find(|((_, a), (_, b))| a == b) {
        return Err(Error::malformed(FILE, format!("rank {rank} is there twice")));
    }
    let Some(&(_, last)) = by_rank.last() else { return Err(Error::malformed(FILE, "there are no tokens")) };

    let mut merges = Vec::with_capacity(ranks.len() * 3);
    for &(token, _) in &by_rank {
        let mut cuts: Vec<(u32, u32, usize)> = (1..token.len())
            .filter_map(|at| {
                let (left, right) = token.split_at(at);
                Some((*ranks.get(left)?, *ranks.get(right)?, at))
            })
            .collect();
        cuts.sort_unstable();
        merges.extend(cuts.into_iter().map(|(_, _, at)| {
            let (left, right) = token.split_at(at);
            (to_alphabet(left), to_alphabet(right))
        }));
    }
    let vocab = by_rank.iter().map(|&(token, rank)| (to_alphabet(token), rank)).collect();
    let rules = pre::kimi()?;
    Ok(Parts {
        source: FILE.into(),
        vocab,
        merges,
        ignore_merges: rules.ignore_merges,
        normalizer: rules.normalizer,
        pre_tokenizer: Some(rules.pre_tokenizer),
        added: special_tokens(last, config)?,
    })
}

fn read_ranks(model: &[u8]) -> Result<HashMap<Vec<u8>, u32>> {
    let malformed = |line: usize, what: &str| Error::malformed(FILE, format!("line {}: {what}", line + 1));
    let text = std::str::from_utf8(model).map_err(|_| Error::malformed(FILE, "is no text"))?;
    let mut ranks = HashMap::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let (token, rank) = line.trim().split_once(' ').ok_or_else(|| malformed(number, "expected a token and a rank"))?;
        let token = STANDARD.decode(token).map_err(|e| malformed(number, &format!("bad base64: {e}")))?;
        if token.is_empty() || token.len() > MAX_TOKEN_BYTES {
            return Err(malformed(number, &format!("a token of {} bytes", token.len())));
        }
        let rank = rank.trim().parse().map_err(|_| malformed(number, "the rank is no number"))?;
        if ranks.insert(token, rank).is_some() {
            return Err(malformed(number, "the token is there twice"));
        }
    }
    Ok(ranks)
}

/// The reserved ids behind the ranks, by the names that the configuration gives them.
fn special_tokens(last: u32, config: Option<&[u8]>) -> Result<Vec<Added>> {
    let mut names: BTreeMap<u32, AddedToken> = BTreeMap::new();
    let first = last.saturating_add(1);
    for id in first..first.saturating_add(RESERVED) {
        names.insert(id, AddedToken::from(format!("<|reserved_token_{id}|>"), true));
    }
    let config: Option<Value> =
        config.map(serde_json::from_slice).transpose().map_err(|e| Error::malformed(CONFIG, e.to_string()))?;
    let decoder = config.as_ref().and_then(|c| c.get("added_tokens_decoder")).and_then(Value::as_object);
    for (id, entry) in decoder.into_iter().flatten() {
        let bad = |what: &str| Error::metadata(CONFIG, format!("added_tokens_decoder.{id}"), what);
        let id: u32 = id.parse().map_err(|_| bad("the key is no token id"))?;
        let content = entry.get("content").and_then(Value::as_str).filter(|c| !c.is_empty());
        let content = content.ok_or_else(|| bad("there is no `content`"))?;
        if id < first {
            return Err(bad("the id belongs to an ordinary token"));
        }
        let flag = |name: &str| entry.get(name).and_then(Value::as_bool).unwrap_or(false);
        let token = AddedToken::from(content, flag("special")).normalized(false);
        names.insert(id, token.lstrip(flag("lstrip")).rstrip(flag("rstrip")).single_word(flag("single_word")));
    }
    Ok(names.into_iter().map(|(id, token)| Added { id, token }).collect())
}
