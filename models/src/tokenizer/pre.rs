//! Pre-tokenisers by their GGUF name: how text is cut into words before byte-pair merging.
//!
//! A GGUF file names its pre-tokeniser and leaves the rules to the reader. The rules here are those of the published
//! `tokenizer.json` of the models that the names stand for (where llama.cpp approximates them, the original counts).

use tokenizers::normalizers::NFC;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{NormalizerWrapper, PreTokenizerWrapper, SplitDelimiterBehavior};

use crate::error::{Error, Result};

/// What a name stands for.
pub(super) struct Rules {
    /// Applied to the text first.
    pub normalizer: Option<NormalizerWrapper>,
    /// Cuts the text into words.
    pub pre_tokenizer: PreTokenizerWrapper,
    /// A word that is a token stays whole, whatever the merges say.
    pub ignore_merges: bool,
}

/// One step of cutting.
enum Step {
    /// Matches of the pattern become words of their own.
    Split(&'static str),
    /// Every digit is a word.
    Digits,
}
use Step::{Digits as EveryDigit, Split as Cut};

/// Cased letters as DeepSeek-V2 lists them. Characters that Unicode normalisation would replace are escaped.
const DEEPSEEK_LLM_LETTERS: &str = concat!(
    r"\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-\x{1F7D}",
    r"ᾀ-ᾴᾶ-ᾼ\x{1FBE}ῂ-ῄῆ-ῌῐ-\x{1FD3}ῖ-\x{1FDB}ῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤ\x{2126}ℨ\x{212A}-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿ",
    r"ﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃]+"
);

const CJK_AND_HANGUL: &str = r"[一-龥ࠀ-一가-퟿]+";

const DEEPSEEK_LLM: &[Step] = &[
    Cut(r"[\r\n]"),
    Cut(DEEPSEEK_LLM_LETTERS),
    Cut(r"\s?[!-/:-~！-／：-～‘-‟\x{3000}-。]+"),
    Cut(r"\s+$"),
    Cut(CJK_AND_HANGUL),
    EveryDigit,
];

const DEEPSEEK_CODER: &[Step] = &[Cut(r"[\r\n]"), Cut(r"\s?\p{L}+"), Cut(r"\s?\p{P}+"), Cut(CJK_AND_HANGUL), EveryDigit];

const DEEPSEEK_V3: &[Step] = &[
    Cut(r"\p{N}{1,3}"),
    Cut(r"[一-龥぀-ゟ゠-ヿ]+"),
    Cut(concat!(
        r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"##,
        r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )),
];

/// The pattern of Moonlight's and Kimi-K2's tiktoken vocabularies: runs of Han characters, then words by case
/// without them.
pub(super) const KIMI: &str = concat!(
    r"[\p{Han}]+",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);

/// Llama 3's pattern, shared by GLM-4.
const LLAMA_3: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*",
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
);

const QWEN_2: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*",
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
);

const TEKKEN: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);

/// The names that [`rules`] knows, for messages.
const KNOWN: &str = "deepseek-llm, deepseek-coder, deepseek-v3, hunyuan-dense, joyai-llm, kimi-k2, glm4, chatglm-bpe, \
                     llama-bpe, qwen2, tekken, gpt-2, gigachat, smollm";

/// The rules behind `tokenizer.ggml.pre`.
///
/// # Errors
/// [`Error::Unsupported`] (kind "pre-tokeniser") for a name that is not known.
pub(super) fn rules(name: &str) -> Result<Rules> {
    // Byte-level BPE's own pattern is built in (GPT-2), and comes after the steps.
    let (steps, gpt2, ignore_merges): (&[Step], bool, bool) = match name {
        "deepseek-llm" => (DEEPSEEK_LLM, false, false),
        "deepseek-coder" => (DEEPSEEK_CODER, false, false),
        "deepseek-v3" | "hunyuan-dense" | "joyai-llm" => (DEEPSEEK_V3, false, false),
        "kimi-k2" => (&[Cut(KIMI)], false, true),
        "glm4" | "chatglm-bpe" | "llama-bpe" | "llama3" | "llama-v3" => (&[Cut(LLAMA_3)], false, true),
        "qwen2" => (&[Cut(QWEN_2)], false, false),
        "tekken" => (&[Cut(TEKKEN)], false, true),
        "gpt-2" | "default" | "gigachat" | "" => (&[], true, false),
        "smollm" => (&[EveryDigit], true, false),
        _ => {
            return Err(Error::Unsupported {
                file: "GGUF vocabulary".into(),
                kind: "pre-tokeniser",
                name: name.into(),
                hint: format!("; known are {KNOWN}"),
            });
        }
    };
    let normalizer = (name == "qwen2").then(|| NFC.into());
    Ok(Rules { normalizer, pre_tokenizer: sequence(steps, gpt2)?, ignore_merges })
}

/// The rules of Kimi's tiktoken vocabularies.
pub(super) fn kimi() -> Result<Rules> {
    rules("kimi-k2")
}

/// The steps, then the byte alphabet.
fn sequence(steps: &[Step], gpt2: bool) -> Result<PreTokenizerWrapper> {
    let mut all = Vec::with_capacity(steps.len() + 1);
    for step in steps {
        all.push(match step {
            Cut(pattern) => {
                let pattern = SplitPattern::Regex((*pattern).into());
                Split::new(pattern, SplitDelimiterBehavior::Isolated, false).map_err(|e| Error::Tokenizer(e.to_string()))?.into()
            }
            EveryDigit => Digits::new(true).into(),
        });
    }
    all.push(ByteLevel::new(false, true, gpt2).into());
    Ok(Sequence::new(all).into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;
    use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer};

    fn words(name: &str, text: &str) -> Vec<String> {
        let mut pre = PreTokenizedString::from(text);
        rules(name).unwrap().pre_tokenizer.pre_tokenize(&mut pre).unwrap();
        let splits = pre.get_splits(OffsetReferential::Original, OffsetType::Byte);
        splits.into_iter().map(|(_, (start, end), _)| text[start..end].to_string()).collect()
    }

    #[test]
    fn every_known_name_compiles() {
        for name in KNOWN.split(", ") {
            assert!(!words(name, "Hello, 世界 123\n").is_empty(), "{name}");
        }
    }

    #[test]
    fn unknown_name_is_an_error() {
        let error = rules("no-such").err().unwrap().to_string();
        assert!(error.contains("pre-tokeniser `no-such`") && error.contains("deepseek-v3"), "{error}");
    }

    #[test]
    fn cuts_where_the_originals_cut() {
        assert_eq!(words("deepseek-v3", "a 12345 世界です!x"), ["a", " ", "123", "45", " ", "世界です", "!x"]);
        assert_eq!(words("deepseek-llm", "Hi there 42, 世界\n\n"), ["Hi", " there", " ", "4", "2", ",", " ", "世界", "\n", "\n"]);
        // Every step cuts what the steps before it left: the range ":-~" of the third holds ASCII letters too, and the
        // "CJK" range of the fifth begins at U+0800. So it is in the published file.
        assert_eq!(words("deepseek-llm", "añ\u{1F7D}\u{212A}z 。"), ["a", "ñ", "\u{1F7D}\u{212A}", "z", " ", "。"]);
        // Devanagari is no cased letter: it stays out of the class.
        assert_eq!(words("deepseek-llm", "aक"), ["a", "क"]);
        assert_eq!(words("kimi-k2", "HelloWorld's世界 ABCdef 1234"), ["Hello", "World's", "世界", " ABCdef", " ", "123", "4"]);
        assert_eq!(words("smollm", "It's 42  now"), ["It", "'s", " ", "4", "2", " ", " now"]);
        assert_eq!(words("glm4", "It'S 1234  \n x"), ["It", "'S", " ", "123", "4", "  \n", " x"]);
    }
}
