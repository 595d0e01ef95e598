//! What every tokenizer is made of, whatever file it came from: a byte-level BPE model, its rules for cutting text into
//! words, and tokens that are matched whole.

use std::collections::{BTreeMap, HashMap};

use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::{AddedToken, AddedVocabulary, Model, NormalizerWrapper, OffsetReferential, OffsetType};
use tokenizers::{PreTokenizedString, PreTokenizer, PreTokenizerWrapper};

use super::bytes::from_alphabet;
use crate::error::{Error, Result};

/// Ids must be below this: the largest published vocabularies have 2^18, and a lying file must not make us allocate.
const MAX_ID: u32 = 1 << 22;

/// A token that is matched whole, before the text is cut into words.
#[derive(Clone, Debug)]
pub(super) struct Added {
    /// Its id.
    pub id: u32,
    /// Its text and how it is matched.
    pub token: AddedToken,
}

/// What the readers of the file formats hand over.
pub(super) struct Parts {
    /// What to call the source in errors.
    pub source: String,
    /// Ordinary tokens (and possibly others) in the byte alphabet, with their ids.
    pub vocab: Vec<(String, u32)>,
    /// Pairs in order of precedence.
    pub merges: Vec<(String, String)>,
    /// A word that is a token stays whole.
    pub ignore_merges: bool,
    /// Applied to the text first.
    pub normalizer: Option<NormalizerWrapper>,
    /// Cuts the text into words, and writes them in the byte alphabet.
    pub pre_tokenizer: Option<PreTokenizerWrapper>,
    /// Tokens matched whole.
    pub added: Vec<Added>,
}

/// Whether the text has the shape of markup: `<|...|>`, `<｜...｜>`, `<think>`, `[gMASK]`. A person must not be able
/// to type a token of this shape, whatever the file says about it (DeepSeek's `<｜User｜>` is not marked special).
fn looks_like_markup(text: &str) -> bool {
    let enclosed = |open: char, close: char| text.len() > 2 && text.starts_with(open) && text.ends_with(close);
    enclosed('<', '>') || enclosed('[', ']') || text.contains("<|") || text.contains("|>") || text.contains('｜')
}

/// Whether the text is `<|...|>` or `<｜...｜>`: markup of the conversation, never shown unless asked for.
fn is_bracketed(text: &str) -> bool {
    (text.starts_with("<|") && text.ends_with("|>")) || (text.starts_with("<｜") && text.ends_with("｜>"))
}

/// Tokens matched whole, and the ids behind them.
struct Matcher {
    vocabulary: AddedVocabulary,
    /// By the id that `vocabulary` counts from zero.
    ids: Vec<u32>,
}

impl Matcher {
    fn new<'a>(added: impl Iterator<Item = &'a Added>, normalizer: Option<&NormalizerWrapper>) -> Result<Self> {
        let mut vocabulary = AddedVocabulary::new();
        let added: Vec<&Added> = added.collect();
        // Against an empty model the vocabulary numbers the tokens in their order.
        let tokens = added.iter().map(|a| a.token.clone());
        vocabulary.add_tokens(tokens, &BPE::default(), normalizer).map_err(|e| Error::Tokenizer(format!("added tokens: {e}")))?;
        let ids_of: HashMap<&str, u32> = added.iter().map(|a| (a.token.content.as_str(), a.id)).collect();
        let mut ids = vec![0; vocabulary.len()];
        for (content, &local) in vocabulary.get_vocab() {
            if let (Some(slot), Some(&id)) = (ids.get_mut(local as usize), ids_of.get(content.as_str())) {
                *slot = id;
            }
        }
        Ok(Self { vocabulary, ids })
    }
}

/// One id's entry in the tables.
#[derive(Clone, Copy, Default)]
struct Entry {
    start: u32,
    len: u32,
    known: bool,
    special: bool,
}

/// A tokenizer's shared, immutable insides.
pub(super) struct Core {
    model: BPE,
    normalizer: Option<NormalizerWrapper>,
    pre_tokenizer: Option<PreTokenizerWrapper>,
    /// Every token matched whole.
    all: Matcher,
    /// Those that a person may type.
    plain: Matcher,
    added_ids: HashMap<String, u32>,
    added_names: HashMap<u32, String>,
    entries: Vec<Entry>,
    bytes: Vec<u8>,
}

impl Core {
    pub(super) fn new(parts: Parts) -> Result<Self> {
        let Parts { source, vocab, merges, ignore_merges, normalizer, pre_tokenizer, added } = parts;
        let malformed = |what: String| Error::malformed(source.clone(), what);

        // The bytes of every id; a token matched whole stands for its text.
        let mut texts: BTreeMap<u32, (Vec<u8>, bool)> = BTreeMap::new();
        for (token, id) in &vocab {
            let bytes = from_alphabet(token).unwrap_or_else(|| token.as_bytes().to_vec());
            if texts.insert(*id, (bytes, false)).is_some() {
                return Err(malformed(format!("two tokens have the id {id}")));
            }
        }
        let mut whole = BTreeMap::new();
        for a in &added {
            let special = a.token.special || is_bracketed(&a.token.content);
            if let Some(other) = whole.insert(a.id, &a.token.content).filter(|&other| *other != a.token.content) {
                return Err(malformed(format!("added tokens {other:?} and {:?} have the same id {}", a.token.content, a.id)));
            }
            texts.insert(a.id, (a.token.content.as_bytes().to_vec(), special));
        }
        let Some((&last, _)) = texts.last_key_value() else { return Err(malformed("the vocabulary is empty".into())) };
        if last >= MAX_ID {
            return Err(malformed(format!("token id {last} is beyond the limit of {MAX_ID}")));
        }
        let mut entries = vec![Entry::default(); last as usize + 1];
        let mut bytes = Vec::with_capacity(texts.values().map(|(b, _)| b.len()).sum());
        for (id, (text, special)) in &texts {
            let start = u32::try_from(bytes.len()).map_err(|_| malformed("the vocabulary is larger than 4 GiB".into()))?;
            let len = u32::try_from(text.len()).map_err(|_| malformed("a token is larger than 4 GiB".into()))?;
            if let Some(entry) = entries.get_mut(*id as usize) {
                *entry = Entry { start, len, known: true, special: *special };
            }
            bytes.extend_from_slice(text);
        }

        let model = build_model(&source, vocab, merges, ignore_merges)?;
        let all = Matcher::new(added.iter(), normalizer.as_ref())?;
        let plain = added.iter().filter(|a| !a.token.special && !looks_like_markup(&a.token.content));
        let plain = Matcher::new(plain, normalizer.as_ref())?;
        let added_ids = added.iter().map(|a| (a.token.content.clone(), a.id)).collect();
        let added_names = added.into_iter().map(|a| (a.id, a.token.content)).collect();
        Ok(Self { model, normalizer, pre_tokenizer, all, plain, added_ids, added_names, entries, bytes })
    }

    pub(super) fn encode(&self, text: &str, parse_special: bool) -> Result<Vec<u32>> {
        let matcher = if parse_special { &self.all } else { &self.plain };
        let pieces = matcher.vocabulary.extract_and_normalize(self.normalizer.as_ref(), text);
        let mut ids = Vec::with_capacity(text.len() / 3 + 1);
        for (piece, _, tokens) in pieces.get_splits(OffsetReferential::Normalized, OffsetType::Byte) {
            match tokens {
                Some(tokens) => ids.extend(tokens.iter().filter_map(|t| matcher.ids.get(t.id as usize))),
                None => self.encode_words(piece, &mut ids)?,
            }
        }
        Ok(ids)
    }

    /// Text without tokens that are matched whole.
    fn encode_words(&self, text: &str, ids: &mut Vec<u32>) -> Result<()> {
        let failed = |e: tokenizers::Error| Error::Tokenizer(e.to_string());
        let mut words = PreTokenizedString::from(text);
        if let Some(pre_tokenizer) = &self.pre_tokenizer {
            pre_tokenizer.pre_tokenize(&mut words).map_err(failed)?;
        }
        for (word, _, _) in words.get_splits(OffsetReferential::Normalized, OffsetType::Byte) {
            let tokens = self.model.tokenize(word).map_err(failed)?;
            // The model leaves out what it has no token for: an answer to another question, without a word.
            if tokens.iter().map(|t| t.value.len()).sum::<usize>() != word.len() {
                return Err(Error::Tokenizer(format!("the vocabulary has no tokens for a part of {word:?}")));
            }
            ids.extend(tokens.iter().map(|t| t.id));
        }
        Ok(())
    }

    fn entry(&self, id: u32) -> Option<Entry> {
        self.entries.get(id as usize).copied().filter(|e| e.known)
    }

    pub(super) fn bytes(&self, id: u32) -> Option<&[u8]> {
        let entry = self.entry(id)?;
        self.bytes.get(entry.start as usize..)?.get(..entry.len as usize)
    }

    pub(super) fn is_special(&self, id: u32) -> bool {
        self.entry(id).is_some_and(|e| e.special)
    }

    pub(super) fn token_to_id(&self, token: &str) -> Option<u32> {
        self.added_ids.get(token).copied().or_else(|| self.model.token_to_id(token))
    }

    pub(super) fn id_to_token(&self, id: u32) -> Option<String> {
        self.added_names.get(&id).cloned().or_else(|| self.model.id_to_token(id))
    }

    pub(super) fn vocab_size(&self) -> usize {
        self.entries.len()
    }
}

/// The BPE model. Every merge is checked first: the tokenizers crate takes the vocabulary's word for them.
fn build_model(source: &str, vocab: Vec<(String, u32)>, merges: Vec<(String, String)>, ignore_merges: bool) -> Result<BPE> {
    let vocab: Vocab = vocab.into_iter().collect();
    let mut joined = String::new();
    for (left, right) in &merges {
        joined.clear();
        joined.push_str(left);
        joined.push_str(right);
        for token in [left, right, &joined] {
            if token.is_empty() || !vocab.contains_key(token.as_str()) {
                let what = format!("the merge {left:?} + {right:?} needs {token:?}, which is not in the vocabulary");
                return Err(Error::malformed(source, what));
            }
        }
    }
    BPE::builder()
        .vocab_and_merges(vocab, merges)
        .ignore_merges(ignore_merges)
        .build()
        .map_err(|e| Error::malformed(source, e.to_string()))
}
