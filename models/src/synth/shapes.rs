//! Dimensions of published models.

use std::fmt;

use crate::config::{Attention, Config, Family, GroupScore, Moe, Rope, Scoring, Yarn};

/// Whose dimensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// DeepSeek-V2-Lite: 16 B parameters, 2.4 B active.
    DeepseekV2Lite,
    /// Moonlight-16B-A3B.
    Moonlight,
    /// GLM-4.7-Flash: 30 B parameters, 3 B active.
    Glm47Flash,
    /// DeepSeek-V3, R1: 671 B parameters, 37 B active.
    DeepseekV3,
    /// Kimi-K2: 1 T parameters, 32 B active.
    KimiK2,
    /// Nobody's: small, all dimensions multiples of 256 where that matters to formats.
    Tiny256,
}

impl Shape {
    /// Every shape.
    pub const ALL: [Self; 6] =
        [Self::DeepseekV2Lite, Self::Moonlight, Self::Glm47Flash, Self::DeepseekV3, Self::KimiK2, Self::Tiny256];

    /// The name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::DeepseekV2Lite => "deepseek-v2-lite",
            Self::Moonlight => "moonlight",
            Self::Glm47Flash => "glm-4.7-flash",
            Self::DeepseekV3 => "deepseek-v3",
            Self::KimiK2 => "kimi-k2",
            Self::Tiny256 => "tiny-256",
        }
    }

    /// The shape of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.name().eq_ignore_ascii_case(name))
    }

    /// The model's own name.
    pub const fn title(self) -> &'static str {
        match self {
            Self::DeepseekV2Lite => "DeepSeek-V2-Lite",
            Self::Moonlight => "Moonlight-16B-A3B",
            Self::Glm47Flash => "GLM-4.7-Flash",
            Self::DeepseekV3 => "DeepSeek-V3",
            Self::KimiK2 => "Kimi-K2",
            Self::Tiny256 => "Tiny-256",
        }
    }

    /// The model's configuration, as published.
    pub fn config(self) -> Config {
        let yarn = |factor: f64, beta_fast: f64, mscale: f64| {
            Some(Yarn { factor, original_max_positions: 4096, beta_fast, beta_slow: 1.0, mscale, mscale_all_dim: mscale })
        };
        let rope = |theta: f64, yarn: Option<Yarn>| Rope { theta, interleaved: true, yarn };
        let heads = |num_heads: usize, q_lora_rank: Option<usize>| Attention {
            num_heads,
            q_lora_rank,
            kv_lora_rank: 512,
            qk_nope_head_dim: 128,
            qk_rope_head_dim: 64,
            v_head_dim: 128,
        };
        // Sigmoid routing without groups, as most have it.
        let moe = |num_experts: usize, top_k: usize, num_shared: usize, intermediate_size: usize, scaling_factor: f32| Moe {
            num_experts,
            top_k,
            num_shared,
            intermediate_size,
            scoring: Scoring::Sigmoid,
            num_groups: 1,
            top_k_groups: 1,
            group_score: GroupScore::TopTwo,
            norm_top_k: true,
            scaling_factor,
        };
        let model =
            |family, vocab_size, hidden_size, num_layers: usize, dense: usize, intermediate_size, attention, rope, moe| Config {
                family,
                name: self.title().to_owned(),
                vocab_size,
                hidden_size,
                num_layers,
                num_mtp_layers: 0,
                max_positions: 163_840,
                rms_norm_eps: 1e-6,
                latent_norm_eps: 1e-6,
                tie_word_embeddings: false,
                attention,
                rope,
                intermediate_size,
                moe: Some(moe),
                dense_layers: (0..num_layers).map(|i| i < dense).collect(),
            };
        match self {
            Self::DeepseekV2Lite => {
                let softmax = Moe {
                    scoring: Scoring::Softmax,
                    group_score: GroupScore::Max,
                    norm_top_k: false,
                    ..moe(64, 6, 2, 1408, 1.0)
                };
                let rope = rope(1e4, yarn(40.0, 32.0, 0.707));
                model(Family::DeepseekV2, 102_400, 2048, 27, 1, 10_944, heads(16, None), rope, softmax)
            }
            Self::Moonlight => Config {
                max_positions: 8192,
                rms_norm_eps: 1e-5,
                ..model(
                    Family::DeepseekV3,
                    163_840,
                    2048,
                    27,
                    1,
                    11_264,
                    heads(16, None),
                    rope(5e4, None),
                    moe(64, 6, 2, 1408, 2.446),
                )
            },
            Self::Glm47Flash => {
                let attention = Attention { qk_nope_head_dim: 192, v_head_dim: 256, ..heads(20, Some(768)) };
                Config {
                    max_positions: 202_752,
                    rms_norm_eps: 1e-5,
                    num_mtp_layers: 1,
                    ..model(
                        Family::Glm4MoeLite,
                        154_880,
                        2048,
                        47,
                        1,
                        10_240,
                        attention,
                        rope(1e6, None),
                        moe(64, 4, 1, 1536, 1.8),
                    )
                }
            }
            Self::DeepseekV3 => {
                let grouped = Moe { num_groups: 8, top_k_groups: 4, ..moe(256, 8, 1, 2048, 2.5) };
                let rope = rope(1e4, yarn(40.0, 32.0, 1.0));
                Config {
                    num_mtp_layers: 1,
                    ..model(Family::DeepseekV3, 129_280, 7168, 61, 3, 18_432, heads(128, Some(1536)), rope, grouped)
                }
            }
            Self::KimiK2 => Config {
                max_positions: 131_072,
                ..model(
                    Family::KimiK2,
                    163_840,
                    7168,
                    61,
                    1,
                    18_432,
                    heads(64, Some(1536)),
                    rope(5e4, yarn(32.0, 1.0, 1.0)),
                    moe(384, 8, 1, 2048, 2.827),
                )
            },
            Self::Tiny256 => {
                let attention = Attention { kv_lora_rank: 256, ..heads(4, Some(256)) };
                let grouped = Moe { num_groups: 4, top_k_groups: 2, ..moe(16, 4, 1, 256, 2.5) };
                Config {
                    max_positions: 16_384,
                    num_mtp_layers: 1,
                    ..model(Family::DeepseekV3, 1024, 512, 4, 1, 1024, attention, rope(1e4, yarn(4.0, 32.0, 1.0)), grouped)
                }
            }
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
