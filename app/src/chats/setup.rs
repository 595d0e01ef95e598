//! How the answers of a conversation are made.

use pleiad_models::checkpoint::GenerationConfig;
use pleiad_runtime::SamplingParams;
use serde::{Deserialize, Serialize};

/// Sampling settings: `None` takes what the checkpoint recommends, else llama.cpp's default.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sampling {
    /// 0 is greedy.
    pub temperature: Option<f32>,
    /// Keep the best k; 0: all.
    pub top_k: Option<u32>,
    /// Keep this mass; 1: all.
    pub top_p: Option<f32>,
    /// Keep tokens this probable relative to the best; 0: all.
    pub min_p: Option<f32>,
    /// 1 is off.
    pub repeat_penalty: Option<f32>,
    /// 0 is off.
    pub frequency_penalty: Option<f32>,
    /// 0 is off.
    pub presence_penalty: Option<f32>,
    /// Seed of the draws; `None`: another one for every answer.
    pub seed: Option<u64>,
}

impl Sampling {
    /// The parameters: these settings, else what the checkpoint recommends, else llama.cpp's defaults (the rule of the command
    /// line). `seed` is used where none is set.
    pub fn params(&self, recommended: &GenerationConfig, seed: u64) -> SamplingParams {
        let _ = recommended;
        SamplingParams { seed: self.seed.unwrap_or(seed), ..SamplingParams::default() }
    }
}

/// What a second mind does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DuetKind {
    /// It reviews the first's answer and corrects it.
    #[default]
    Review,
    /// It talks with the first, turn by turn.
    Talk,
}

/// Two minds in one conversation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Duet {
    /// Whether the second takes part.
    pub on: bool,
    /// What it does.
    pub kind: DuetKind,
    /// Turns that the minds take after the first answer.
    pub turns: u32,
    /// What the first is called.
    pub first: String,
    /// What the second is called.
    pub second: String,
    /// The second's system prompt.
    pub system: String,
    /// The second's model, by its key in [`crate::loading`]; `None`: that of the first.
    pub model: Option<String>,
}

impl Default for Duet {
    fn default() -> Self {
        Self {
            on: false,
            kind: DuetKind::Review,
            turns: 1,
            first: "First".into(),
            second: "Second".into(),
            system: String::new(),
            model: None,
        }
    }
}

/// How the answers of a conversation are made.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Setup {
    /// The system prompt; empty: none.
    pub system: String,
    /// Sampling settings.
    pub sampling: Sampling,
    /// Longest answer in tokens; `None`: until the model ends it or the context is full.
    pub max_tokens: Option<usize>,
    /// The second mind.
    pub duet: Duet,
}
