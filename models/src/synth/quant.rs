//! Which format each tensor gets: the mixes that published files have.

use std::fmt;

use crate::Format;

/// A mix of formats, named as llama-quantize names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quant {
    /// One format for all matrices, but for those that llama-quantize keeps in more bits.
    Plain(Format),
    /// Q4_K, the output and half of the down projections in Q6_K.
    Q4KM,
    /// Q4_K, the first down projections in Q5_K.
    Q4KS,
    /// Q5_K, half of the down projections in Q6_K.
    Q5KM,
    /// Q5_K.
    Q5KS,
    /// Q3_K, attention outputs and down projections in Q4_K.
    Q3KM,
    /// Q2_K, attention outputs and down projections in Q3_K.
    Q2K,
    /// Stacked matrices (experts) in MXFP4, the rest in Q8_0.
    MXFP4Moe,
}

impl Quant {
    /// Every mix.
    pub const ALL: [Self; 18] = [
        Self::Plain(Format::F32),
        Self::Plain(Format::F16),
        Self::Plain(Format::BF16),
        Self::Plain(Format::Q8_0),
        Self::Plain(Format::Q4_0),
        Self::Plain(Format::Q4_1),
        Self::Plain(Format::Q5_0),
        Self::Plain(Format::Q5_1),
        Self::Plain(Format::Q6K),
        Self::Plain(Format::IQ4NL),
        Self::Plain(Format::IQ4XS),
        Self::Q4KM,
        Self::Q4KS,
        Self::Q5KM,
        Self::Q5KS,
        Self::Q3KM,
        Self::Q2K,
        Self::MXFP4Moe,
    ];

    /// The name that llama-quantize knows it by.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain(format) => format.name(),
            Self::Q4KM => "Q4_K_M",
            Self::Q4KS => "Q4_K_S",
            Self::Q5KM => "Q5_K_M",
            Self::Q5KS => "Q5_K_S",
            Self::Q3KM => "Q3_K_M",
            Self::Q2K => "Q2_K",
            Self::MXFP4Moe => "MXFP4_MOE",
        }
    }

    /// The mix of that name, in any case; as in llama-quantize, a plain `Q4_K` is `Q4_K_M`.
    pub fn from_name(name: &str) -> Option<Self> {
        match name.to_ascii_uppercase().as_str() {
            "Q4_K" => Some(Self::Q4KM),
            "Q5_K" => Some(Self::Q5KM),
            "Q3_K" => Some(Self::Q3KM),
            "MXFP4" | "MXFP4_MOE" => Some(Self::MXFP4Moe),
            upper => Self::ALL.into_iter().find(|q| q.name() == upper),
        }
    }

    /// The number under `general.file_type`.
    pub(super) const fn file_type(self) -> u32 {
        match self {
            Self::Plain(Format::F32) => 0,
            Self::Plain(Format::F16) => 1,
            Self::Plain(Format::Q4_0) => 2,
            Self::Plain(Format::Q4_1) => 3,
            Self::Plain(Format::Q8_0) => 7,
            Self::Plain(Format::Q5_0) => 8,
            Self::Plain(Format::Q5_1) => 9,
            Self::Q2K => 10,
            Self::Q3KM => 12,
            Self::Q4KS => 14,
            Self::Q4KM => 15,
            Self::Q5KS => 16,
            Self::Q5KM => 17,
            Self::Plain(Format::Q6K) => 18,
            Self::Plain(Format::IQ4NL) => 25,
            Self::Plain(Format::IQ4XS) => 30,
            Self::Plain(Format::BF16) => 32,
            Self::MXFP4Moe => 38,
            // "Guessed": what llama.cpp writes for mixes of its users' own.
            Self::Plain(_) => 1024,
        }
    }

    /// The format of most matrices.
    const fn base(self) -> Format {
        match self {
            Self::Plain(format) => format,
            Self::Q4KM | Self::Q4KS => Format::Q4K,
            Self::Q5KM | Self::Q5KS => Format::Q5K,
            Self::Q3KM => Format::Q3K,
            Self::Q2K => Format::Q2K,
            Self::MXFP4Moe => Format::Q8_0,
        }
    }

    /// The format of a matrix or stack of matrices, dimensions innermost first.
    pub(super) fn format_of(self, name: &str, dims: &[usize], layer: usize, layers: usize) -> Format {
        let cols = dims.first().copied().unwrap_or(1);
        let base = self.base();
        if !base.is_quantised() {
            return base;
        }
        // An eighth of the layers at either end, and every third between them.
        let eighth = layers / 8;
        let important = layer < eighth || layer >= 7 * layers / 8 || (layer - eighth) % 3 == 2;
        let chosen = if self == Self::MXFP4Moe {
            if dims.len() == 3 { Format::MXFP4 } else { Format::Q8_0 }
        } else if name == "output.weight" {
            if base == Format::Q8_0 { base } else { Format::Q6K }
        } else if name.contains("ffn_down") {
            match self {
                Self::Q4KM | Self::Q5KM if important => Format::Q6K,
                Self::Q4KS | Self::Plain(Format::IQ4NL | Format::IQ4XS) if layer < eighth => Format::Q5K,
                Self::Q3KM if layer < layers / 16 => Format::Q5K,
                Self::Q3KM => Format::Q4K,
                Self::Q2K => Format::Q3K,
                _ => base,
            }
        } else if name.contains("attn_output") {
            match self {
                Self::Q3KM => Format::Q4K,
                Self::Q2K => Format::Q3K,
                _ => base,
            }
        } else {
            base
        };
        fitting(chosen, cols)
    }
}

/// What llama-quantize falls back to where rows are no multiple of the block.
fn fitting(format: Format, cols: usize) -> Format {
    if cols.is_multiple_of(format.block_len()) {
        return format;
    }
    let smaller = match format {
        Format::IQ4XS => Format::IQ4NL,
        Format::Q2K | Format::Q3K => Format::Q4_0,
        Format::Q4K => Format::Q5_0,
        Format::Q5K => Format::Q5_1,
        Format::Q6K => Format::Q8_0,
        other => other,
    };
    if cols.is_multiple_of(smaller.block_len()) { smaller } else { Format::F16 }
}

impl fmt::Display for Quant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
