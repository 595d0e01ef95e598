//! The formats in which checkpoints store weights: names and sizes.

use std::fmt;

/// How a tensor's elements are stored. The quantised formats are llama.cpp's (ggml), block for block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Format {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// bfloat16.
    BF16,
    /// float8 e4m3fn with one f32 scale for every 128x128 block (`weight_scale_inv`).
    F8E4M3,
    /// 32 signed bytes, one f16 scale.
    Q8_0,
    /// 32 nibbles minus 8, one f16 scale.
    Q4_0,
    /// 32 nibbles, f16 scale and minimum.
    Q4_1,
    /// 32 five-bit values minus 16, one f16 scale.
    Q5_0,
    /// 32 five-bit values, f16 scale and minimum.
    Q5_1,
    /// 256 two-bit values, 4-bit scales and minima for each 16.
    Q2K,
    /// 256 three-bit values, 6-bit scales for each 16.
    Q3K,
    /// 256 four-bit values, 6-bit scales and minima for each 32.
    Q4K,
    /// 256 five-bit values, 6-bit scales and minima for each 32.
    Q5K,
    /// 256 six-bit values minus 32, 8-bit scales for each 16.
    Q6K,
    /// 32 nibbles that index a 16-entry codebook, one f16 scale.
    IQ4NL,
    /// 256 nibbles that index the same codebook, 6-bit scales for each 32.
    IQ4XS,
    /// 32 FP4 (e2m1) values, one e8m0 scale.
    MXFP4,
}

/// Weights along each side of the square block that shares one scale in [`Format::F8E4M3`].
pub const F8_BLOCK: usize = 128;

impl Format {
    /// Every format.
    pub const ALL: [Self; 17] = [
        Self::F32,
        Self::F16,
        Self::BF16,
        Self::F8E4M3,
        Self::Q8_0,
        Self::Q4_0,
        Self::Q4_1,
        Self::Q5_0,
        Self::Q5_1,
        Self::Q2K,
        Self::Q3K,
        Self::Q4K,
        Self::Q5K,
        Self::Q6K,
        Self::IQ4NL,
        Self::IQ4XS,
        Self::MXFP4,
    ];

    /// (weights a block, bytes a block) as the file stores them; F8's scales are a tensor of their own.
    pub const fn block(self) -> (usize, usize) {
        match self {
            Self::F32 => (1, 4),
            Self::F16 | Self::BF16 => (1, 2),
            Self::F8E4M3 => (1, 1),
            Self::Q8_0 => (32, 34),
            Self::Q4_0 | Self::IQ4NL => (32, 18),
            Self::Q4_1 => (32, 20),
            Self::Q5_0 => (32, 22),
            Self::Q5_1 => (32, 24),
            Self::Q2K => (256, 84),
            Self::Q3K => (256, 110),
            Self::Q4K => (256, 144),
            Self::Q5K => (256, 176),
            Self::Q6K => (256, 210),
            Self::IQ4XS => (256, 136),
            Self::MXFP4 => (32, 17),
        }
    }

    /// Weights in one block.
    pub const fn block_len(self) -> usize {
        self.block().0
    }

    /// Bytes of one block in the file.
    pub const fn block_bytes(self) -> usize {
        self.block().1
    }

    /// Bytes of a row of `cols` weights in the file, or `None` where `cols` is no multiple of the block.
    pub const fn row_bytes(self, cols: usize) -> Option<usize> {
        let (len, bytes) = self.block();
        if cols.is_multiple_of(len) { (cols / len).checked_mul(bytes) } else { None }
    }

    /// Whether weights are small integers with scales, seen 32 at a time as [`crate::Block32`].
    pub const fn is_quantised(self) -> bool {
        !matches!(self, Self::F32 | Self::F16 | Self::BF16 | Self::F8E4M3)
    }

    /// The format behind a ggml tensor type number.
    pub const fn from_ggml(id: u32) -> Option<Self> {
        Some(match id {
            0 => Self::F32,
            1 => Self::F16,
            2 => Self::Q4_0,
            3 => Self::Q4_1,
            6 => Self::Q5_0,
            7 => Self::Q5_1,
            8 => Self::Q8_0,
            10 => Self::Q2K,
            11 => Self::Q3K,
            12 => Self::Q4K,
            13 => Self::Q5K,
            14 => Self::Q6K,
            20 => Self::IQ4NL,
            23 => Self::IQ4XS,
            30 => Self::BF16,
            39 => Self::MXFP4,
            _ => return None,
        })
    }

    /// The ggml tensor type number; `None` for FP8, which GGUF does not have.
    pub const fn ggml_id(self) -> Option<u32> {
        Some(match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q4_0 => 2,
            Self::Q4_1 => 3,
            Self::Q5_0 => 6,
            Self::Q5_1 => 7,
            Self::Q8_0 => 8,
            Self::Q2K => 10,
            Self::Q3K => 11,
            Self::Q4K => 12,
            Self::Q5K => 13,
            Self::Q6K => 14,
            Self::IQ4NL => 20,
            Self::IQ4XS => 23,
            Self::BF16 => 30,
            Self::MXFP4 => 39,
            Self::F8E4M3 => return None,
        })
    }

    /// The name that people know it by: `Q4_K`, `BF16`, ...
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::BF16 => "BF16",
            Self::F8E4M3 => "F8_E4M3",
            Self::Q8_0 => "Q8_0",
            Self::Q4_0 => "Q4_0",
            Self::Q4_1 => "Q4_1",
            Self::Q5_0 => "Q5_0",
            Self::Q5_1 => "Q5_1",
            Self::Q2K => "Q2_K",
            Self::Q3K => "Q3_K",
            Self::Q4K => "Q4_K",
            Self::Q5K => "Q5_K",
            Self::Q6K => "Q6_K",
            Self::IQ4NL => "IQ4_NL",
            Self::IQ4XS => "IQ4_XS",
            Self::MXFP4 => "MXFP4",
        }
    }

    /// The format of that name, in any case.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|f| f.name().eq_ignore_ascii_case(name))
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
