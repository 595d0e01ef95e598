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
        let g = recommended;
        let greedy = g.do_sample == Some(false);
        let says_something = g.temperature.is_some() || g.top_p.is_some() || g.top_k.is_some() || g.min_p.is_some();
        // A publisher who says something, and nothing about one of the cuts, does without it.
        let or = |value: Option<f32>, off: f32, default: f32| value.unwrap_or(if says_something { off } else { default });
        SamplingParams {
            temperature: self.temperature.unwrap_or(if greedy { 0.0 } else { or(g.temperature, 1.0, 0.8) }),
            top_k: self.top_k.or(g.top_k).unwrap_or(if says_something { 0 } else { 40 }),
            // 0 would keep nothing; the smallest set there is has one token.
            top_p: or(self.top_p.or(g.top_p), 1.0, 0.95).max(f32::MIN_POSITIVE),
            min_p: or(self.min_p.or(g.min_p), 0.0, 0.05),
            repeat_penalty: self.repeat_penalty.or(g.repetition_penalty).unwrap_or(1.0),
            frequency_penalty: self.frequency_penalty.unwrap_or(0.0),
            presence_penalty: self.presence_penalty.unwrap_or(0.0),
            penalty_last_n: 64,
            seed: self.seed.unwrap_or(seed),
        }
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
    /// Turns that the minds take after the first answer. Two are a review and the correction that it asks for.
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
            turns: 2,
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

    use super::*;

    fn cuts(p: &SamplingParams) -> (f32, u32, f32, f32) {
        (p.temperature, p.top_k, p.top_p, p.min_p)
    }

    #[test]
    fn settings_come_before_the_publisher_and_the_publisher_before_llama_cpp() {
        let nothing = GenerationConfig::default();
        let unset = Sampling::default();
        let p = unset.params(&nothing, 5);
        assert_eq!(cuts(&p), (0.8, 40, 0.95, 0.05));
        assert_eq!((p.repeat_penalty, p.frequency_penalty, p.presence_penalty, p.penalty_last_n, p.seed), (1.0, 0.0, 0.0, 64, 5));

        let some = GenerationConfig { do_sample: Some(true), temperature: Some(0.6), ..nothing.clone() };
        assert_eq!(cuts(&unset.params(&some, 0)), (0.6, 0, 1.0, 0.0));
        let one = GenerationConfig { top_k: Some(20), ..nothing.clone() };
        assert_eq!(cuts(&unset.params(&one, 0)), (1.0, 20, 1.0, 0.0));
        let penalty = GenerationConfig { repetition_penalty: Some(1.1), ..nothing.clone() };
        let p = unset.params(&penalty, 0);
        assert_eq!((cuts(&p), p.repeat_penalty), ((0.8, 40, 0.95, 0.05), 1.1));

        let greedy = GenerationConfig { do_sample: Some(false), ..some.clone() };
        assert_eq!(unset.params(&greedy, 0).temperature, 0.0);

        let set = Sampling {
            temperature: Some(1.5),
            top_k: Some(7),
            top_p: Some(0.5),
            min_p: Some(0.1),
            repeat_penalty: Some(1.2),
            frequency_penalty: Some(0.3),
            presence_penalty: Some(-0.4),
            seed: Some(9),
        };
        for recommended in [&nothing, &some, &one, &penalty, &greedy] {
            let p = set.params(recommended, 5);
            assert_eq!(cuts(&p), (1.5, 7, 0.5, 0.1));
            assert_eq!((p.repeat_penalty, p.frequency_penalty, p.presence_penalty, p.seed), (1.2, 0.3, -0.4, 9));
        }
    }

    #[test]
    fn an_empty_nucleus_still_has_a_token() {
        let zero = GenerationConfig { top_p: Some(0.0), ..GenerationConfig::default() };
        assert!(Sampling::default().params(&zero, 0).check().is_ok());
        assert!(Sampling { top_p: Some(0.0), ..Sampling::default() }.params(&zero, 0).check().is_ok());
    }

    #[test]
    fn what_a_file_does_not_say_is_as_usual() {
        let setup: Setup = serde_json::from_str(r#"{"duet":{"kind":"talk"},"later":1}"#).unwrap();
        assert_eq!(setup, Setup { duet: Duet { kind: DuetKind::Talk, ..Duet::default() }, ..Setup::default() });
    }
}
