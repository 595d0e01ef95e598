//! A made-up vocabulary of the true size: bytes, a few merges, pronounceable words, and the real
//! special tokens at their real ids.

use serde_json::{Map, Value, json};

use super::Shape;
use crate::gguf::Writer;

/// GGUF token types.
const NORMAL: i32 = 1;
const CONTROL: i32 = 3;
const UNUSED: i32 = 5;

/// The first merges that English gives any byte-pair encoder.
const MERGES: [&str; 24] = [
    "Ġ t", "Ġ a", "h e", "i n", "r e", "o n", "Ġt he", "e r", "Ġ s", "a t", "Ġ w", "Ġ o", "e n", "Ġ c", "i t", "i s", "a n",
    "o r", "e s", "Ġ b", "e d", "Ġ f", "in g", "Ġa n",
];

/// What is special about a shape's vocabulary.
struct Special {
    pre: &'static str,
    /// Ids and texts.
    tokens: &'static [(usize, &'static str)],
    /// Ordinary tokens end before this id.
    normal_end: usize,
    bos: Option<u32>,
    add_bos: bool,
    eos: u32,
    eot: Option<u32>,
    eom: Option<u32>,
    pad: u32,
    template: &'static str,
}

const V2_TEMPLATE: &str = "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}{{ 'User: ' + message['content'] + '\n\n' }}\
{% elif message['role'] == 'assistant' %}{{ 'Assistant: ' + message['content'] + eos_token }}{% else %}{{ message['content'] + '\n\n' }}{% endif %}\
{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}";

const V3_TEMPLATE: &str = "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}{{ '<｜User｜>' + message['content'] }}\
{% elif message['role'] == 'assistant' %}{{ '<｜Assistant｜>' + message['content'] + eos_token }}{% else %}{{ message['content'] }}{% endif %}\
{% endfor %}{% if add_generation_prompt %}{{ '<｜Assistant｜>' }}{% endif %}";

const KIMI_TEMPLATE: &str = "{% for message in messages %}{{ '<|im_' + message['role'] + '|>' + message['role'] + '<|im_middle|>' + message['content'] + '<|im_end|>' }}\
{% endfor %}{% if add_generation_prompt %}{{ '<|im_assistant|>assistant<|im_middle|>' }}{% endif %}";

const GLM_TEMPLATE: &str = "[gMASK]<sop>{% for message in messages %}{{ '<|' + message['role'] + '|>\n' + message['content'] }}\
{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}";

const KIMI_TOKENS: [(usize, &str); 9] = [
    (163_584, "[BOS]"),
    (163_585, "[EOS]"),
    (163_586, "<|im_end|>"),
    (163_587, "<|im_user|>"),
    (163_588, "<|im_assistant|>"),
    (163_594, "<|im_system|>"),
    (163_601, "<|im_middle|>"),
    (163_838, "[UNK]"),
    (163_839, "[PAD]"),
];

fn special(shape: Shape) -> Special {
    let v3 = Special {
        pre: "deepseek-v3",
        tokens: &[
            (0, "<｜begin▁of▁sentence｜>"),
            (1, "<｜end▁of▁sentence｜>"),
            (2, "<｜▁pad▁｜>"),
            (128_798, "<think>"),
            (128_799, "</think>"),
            (128_803, "<｜User｜>"),
            (128_804, "<｜Assistant｜>"),
        ],
        normal_end: 128_000,
        bos: Some(0),
        add_bos: true,
        eos: 1,
        eot: None,
        eom: None,
        pad: 2,
        template: V3_TEMPLATE,
    };
    match shape {
        Shape::DeepseekV2Lite => Special {
            pre: "deepseek-llm",
            tokens: &[(100_000, "<｜begin▁of▁sentence｜>"), (100_001, "<｜end▁of▁sentence｜>")],
            normal_end: 100_000,
            bos: Some(100_000),
            add_bos: true,
            eos: 100_001,
            eot: None,
            eom: None,
            pad: 100_001,
            template: V2_TEMPLATE,
        },
        Shape::Moonlight | Shape::KimiK2 => Special {
            pre: "kimi-k2",
            tokens: &KIMI_TOKENS,
            normal_end: 163_584,
            bos: Some(163_584),
            add_bos: false,
            eos: 163_586,
            eot: None,
            eom: None,
            pad: 163_839,
            template: KIMI_TEMPLATE,
        },
        Shape::Glm47Flash => Special {
            pre: "glm4",
            tokens: &[
                (154_820, "<|endoftext|>"),
                (154_822, "[gMASK]"),
                (154_824, "<sop>"),
                (154_826, "<|system|>"),
                (154_827, "<|user|>"),
                (154_828, "<|assistant|>"),
                (154_829, "<|observation|>"),
            ],
            normal_end: 154_820,
            bos: None,
            add_bos: false,
            eos: 154_820,
            eot: Some(154_827),
            eom: Some(154_829),
            pad: 154_820,
            template: GLM_TEMPLATE,
        },
        Shape::DeepseekV3 => v3,
        Shape::Tiny256 => Special {
            tokens: &[
                (0, "<｜begin▁of▁sentence｜>"),
                (1, "<｜end▁of▁sentence｜>"),
                (2, "<｜▁pad▁｜>"),
                (3, "<｜User｜>"),
                (4, "<｜Assistant｜>"),
                (5, "<think>"),
                (6, "</think>"),
            ],
            normal_end: 1000,
            ..v3
        },
    }
}

/// Adds the vocabulary of a shape.
pub(super) fn metadata(w: &mut Writer, shape: Shape, vocab_size: usize) {
    let s = special(shape);
    let (tokens, types) = vocabulary(&s, vocab_size);
    w.set("tokenizer.ggml.model", "gpt2");
    w.set("tokenizer.ggml.pre", s.pre);
    w.set("tokenizer.ggml.tokens", tokens);
    w.set("tokenizer.ggml.token_type", types);
    w.set("tokenizer.ggml.merges", MERGES.iter().map(|&m| m.to_owned()).collect::<Vec<String>>());
    if let Some(bos) = s.bos {
        w.set("tokenizer.ggml.bos_token_id", bos);
    }
    w.set("tokenizer.ggml.eos_token_id", s.eos);
    for (name, id) in [("eot", s.eot), ("eom", s.eom), ("padding", Some(s.pad))] {
        if let Some(id) = id {
            w.set(format!("tokenizer.ggml.{name}_token_id"), id);
        }
    }
    w.set("tokenizer.ggml.add_bos_token", s.add_bos);
    w.set("tokenizer.chat_template", s.template);
}

/// Names in `config.json`, and their ids.
pub(super) type SpecialIds = [(&'static str, Option<u32>); 3];

/// The files of a Hugging Face directory that are about the vocabulary, and the ids that `config.json` has: begin, end, padding.
pub(super) fn hugging_face(shape: Shape, vocab_size: usize) -> (Vec<(&'static str, Value)>, SpecialIds) {
    let s = special(shape);
    let (tokens, _) = vocabulary(&s, vocab_size);
    let vocab: Map<String, Value> = tokens.into_iter().enumerate().map(|(id, text)| (text, id.into())).collect();
    let added = s.tokens.iter().map(|(id, text)| {
        json!({
            "id": id, "content": text, "special": true, "normalized": false,
            "single_word": false, "lstrip": false, "rstrip": false,
        })
    });
    let bytes = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    let merges = MERGES.iter().filter_map(|m| m.split_once(' ')).map(|(a, b)| json!([a, b])).collect::<Vec<_>>();
    let tokenizer = json!({
        "version": "1.0",
        "added_tokens": added.collect::<Vec<_>>(),
        "normalizer": null,
        "pre_tokenizer": bytes,
        "decoder": bytes,
        "model": {"type": "BPE", "vocab": vocab, "merges": merges},
    });
    let text = |id: Option<u32>| s.tokens.iter().find(|(at, _)| Some(*at as u32) == id).map(|(_, text)| *text);
    let settings = json!({
        "add_bos_token": s.add_bos,
        "bos_token": text(s.bos),
        "eos_token": text(Some(s.eos)),
        "chat_template": s.template,
    });
    let ids = [("bos_token_id", s.bos), ("eos_token_id", Some(s.eos)), ("pad_token_id", Some(s.pad))];
    (vec![("tokenizer.json", tokenizer), ("tokenizer_config.json", settings)], ids)
}

fn vocabulary(s: &Special, vocab_size: usize) -> (Vec<String>, Vec<i32>) {
    let bytes = (0..=255u8).map(byte_char).map(String::from);
    let merged = MERGES.iter().map(|m| m.replace(' ', ""));
    let mut normal = bytes.chain(merged).chain((0..).map(word));
    let mut tokens = Vec::with_capacity(vocab_size);
    let mut types = Vec::with_capacity(vocab_size);
    for id in 0..vocab_size {
        let (text, kind) = match s.tokens.iter().find(|(at, _)| *at == id) {
            Some((_, text)) => ((*text).to_owned(), CONTROL),
            None if id < s.normal_end => (normal.next().unwrap_or_default(), NORMAL),
            None => (format!("[PAD{id}]"), UNUSED),
        };
        tokens.push(text);
        types.push(kind);
    }
    (tokens, types)
}

/// The character that stands for a byte in byte-level vocabularies (GPT-2): itself where it prints,
/// else the next one from U+0100 on.
fn byte_char(byte: u8) -> char {
    let prints = |b: u8| matches!(b, 33..=126 | 161..=172 | 174..=255);
    if prints(byte) {
        return char::from(byte);
    }
    let before = (0..byte).filter(|&b| !prints(b)).count() as u32;
    char::from_u32(256 + before).unwrap_or('\u{100}')
}

/// The n-th word: a space and two or more syllables, each word once.
fn word(mut n: usize) -> String {
    const CONSONANTS: &[u8] = b"bdfgklmnprstvz";
    const VOWELS: &[u8] = b"aeiou";
    let mut text = String::from("Ġ");
    let syllables = CONSONANTS.len() * VOWELS.len();
    n += syllables;
    while n > 0 {
        let syllable = n % syllables;
        text.push(char::from(CONSONANTS[syllable / VOWELS.len()]));
        text.push(char::from(VOWELS[syllable % VOWELS.len()]));
        n /= syllables;
    }
    text
}
