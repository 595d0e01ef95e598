//! Instruction sets, found at run time.

use std::fmt;

/// The instruction sets for which there are kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Isa {
    /// Plain Rust, for any machine; the compiler may use what the target guarantees (SSE2, simd128).
    Scalar,
    /// Armv8 NEON.
    Neon,
    /// NEON with the `sdot` instruction.
    NeonDot,
    /// AVX2, FMA and F16C.
    Avx2,
    /// AVX2, FMA, F16C and AVX-VNNI.
    Avx2Vnni,
    /// AVX-512 F, BW, DQ, VL and VNNI.
    Avx512,
}

impl Isa {
    /// The best instruction set of this machine.
    pub fn detect() -> Self {
        Self::available()[0]
    }

    /// Every instruction set that this machine runs, best first; the last is [`Isa::Scalar`].
    pub fn available() -> Vec<Self> {
        let mut found = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::is_x86_feature_detected as has;
            if has!("avx2") && has!("fma") && has!("f16c") {
                if has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl") && has!("avx512vnni") {
                    found.push(Self::Avx512);
                }
                if has!("avxvnni") {
                    found.push(Self::Avx2Vnni);
                }
                found.push(Self::Avx2);
            }
        }
        #[cfg(target_arch = "aarch64")]
        {
            use std::arch::is_aarch64_feature_detected as has;
            if has!("neon") && has!("dotprod") {
                found.push(Self::NeonDot);
            }
            if has!("neon") {
                found.push(Self::Neon);
            }
        }
        found.push(Self::Scalar);
        found
    }

    /// A name for people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Neon => "NEON",
            Self::NeonDot => "NEON dotprod",
            Self::Avx2 => "AVX2",
            Self::Avx2Vnni => "AVX-VNNI",
            Self::Avx512 => "AVX-512",
        }
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
