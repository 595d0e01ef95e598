//! Special tokens and recommended sampling.

use crate::{Config, Error, Result, Tokenizer, config::Family};

/// Token ids with a meaning of their own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpecialTokens {
    /// Begins a text.
    pub bos: Option<u32>,
    /// Whether a plain prompt begins with `bos`. A chat template writes it by itself.
    pub add_bos: bool,
    /// Every id that ends an answer, sorted, each once.
    pub eos: Vec<u32>,
    /// Fills batches.
    pub pad: Option<u32>,
}

/// What the publisher recommends for sampling.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GenerationConfig {
    /// Sample, rather than take the likeliest token.
    pub do_sample: Option<bool>,
    /// Divides the logits.
    pub temperature: Option<f32>,
    /// Mass of the nucleus.
    pub top_p: Option<f32>,
    /// Number of candidates.
    pub top_k: Option<u32>,
    /// Least probability, relative to the likeliest token's.
    pub min_p: Option<f32>,
    /// Divides the positive logits of tokens that were there before.
    pub repetition_penalty: Option<f32>,
}

/// End-of-turn tokens by their text: what llama.cpp, too, ends an answer at, whatever the metadata says.
const END_TEXTS: [&str; 6] = ["<｜end▁of▁sentence｜>", "<|im_end|>", "[EOS]", "<|endoftext|>", "<|end_of_text|>", "<|eot_id|>"];
/// GLM writes the next speaker's name.
const GLM_END_TEXTS: [&str; 2] = ["<|user|>", "<|observation|>"];

impl SpecialTokens {
    /// Adds the well-known ends, sorts, and checks the range. `key` names where `bos` stands.
    pub(super) fn complete(
        mut self,
        config: &Config,
        tokenizer: Option<&Tokenizer>,
        file: &str,
        key: &str,
        remarks: &mut Vec<String>,
    ) -> Result<Self> {
        if let Some(t) = tokenizer {
            self.eos.extend(END_TEXTS.iter().filter_map(|text| t.token_to_id(text)));
            if config.family == Family::Glm4MoeLite {
                self.eos.extend(GLM_END_TEXTS.iter().filter_map(|text| t.token_to_id(text)));
            }
        }
        self.eos.sort_unstable();
        self.eos.dedup();
        let known = |id: u32| (id as usize) < config.vocab_size;
        if let Some(bos) = self.bos.filter(|&id| !known(id)) {
            return Err(Error::metadata(file, key, format!("is {bos}, but the vocabulary has {} tokens", config.vocab_size)));
        }
        self.eos.retain(|&id| {
            if !known(id) {
                remarks.push(format!("end token {id} is beyond the vocabulary of {} and was left out", config.vocab_size));
            }
            known(id)
        });
        self.pad = self.pad.filter(|&id| known(id));
        self.add_bos &= self.bos.is_some();
        Ok(self)
    }
}

impl GenerationConfig {
    /// From the six values, each with its key's name for errors: temperature, top_p, top_k, min_p, repetition_penalty.
    pub(super) fn checked(
        file: &str,
        do_sample: Option<bool>,
        temperature: (&str, Option<f64>),
        top_p: (&str, Option<f64>),
        top_k: (&str, Option<usize>),
        min_p: (&str, Option<f64>),
        repetition_penalty: (&str, Option<f64>),
    ) -> Result<Self> {
        let within = |(key, value): (&str, Option<f64>), least: f64, most: f64| match value {
            Some(v) if !(least..=most).contains(&v) => {
                Err(Error::metadata(file, key, format!("is {v}, but must be between {least} and {most}")))
            }
            other => Ok(other.map(|v| v as f32)),
        };
        Ok(Self {
            do_sample,
            temperature: within(temperature, 0.0, 1e3)?,
            top_p: within(top_p, 0.0, 1.0)?,
            top_k: top_k.1.map(|k| u32::try_from(k).unwrap_or(u32::MAX)),
            min_p: within(min_p, 0.0, 1.0)?,
            repetition_penalty: within(repetition_penalty, 1e-3, 1e3)?,
        })
    }
}
