//! What a view shows: a number for every expert of every mixture layer, and how to read it.

use std::sync::Arc;

/// What is shown of the experts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Weights of the latest token, or of the one pointed at.
    Now,
    /// Uses that halve every so many tokens.
    #[default]
    Recent,
    /// Uses since the beginning.
    Total,
    /// Uses as a multiple of what an even spread would give, on a log scale; what chance explains is greyed.
    Relative,
    /// Mean weight where it was chosen.
    Weight,
    /// Where each expert is.
    Residency,
    /// Times that an expert was wanted and not resident.
    Misses,
    /// Share of uses in A minus that in B.
    Difference,
}

impl Mode {
    /// Every mode, in the order of the menu.
    pub const ALL: [Self; 8] =
        [Self::Now, Self::Recent, Self::Total, Self::Relative, Self::Weight, Self::Residency, Self::Misses, Self::Difference];

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Now => "Now",
            Self::Recent => "Recent",
            Self::Total => "Cumulative",
            Self::Relative => "Relative to uniform",
            Self::Weight => "Mean weight",
            Self::Residency => "Residency",
            Self::Misses => "Misses",
            Self::Difference => "A − B",
        }
    }

    /// What it shows, in a sentence.
    pub fn explanation(self) -> &'static str {
        match self {
            Self::Now => "Weights of the experts that the latest token chose",
            Self::Recent => "Uses of each expert, halving every so many tokens",
            Self::Total => "Uses of each expert since counting began",
            Self::Relative => "Uses as a multiple of an even spread; greyed where chance explains the difference",
            Self::Weight => "Mean weight of each expert where it was chosen",
            Self::Residency => "Where each expert is: on the GPU, in host memory, or moving for the latest token",
            Self::Misses => "Times that an expert was wanted and was not on the GPU",
            Self::Difference => "Share of uses in A minus share of uses in B",
        }
    }
}

/// How numbers become colours.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scale {
    /// From 0 to `max`, in the palette for amounts.
    Linear {
        /// The number that has the last colour.
        max: f32,
    },
    /// From 1 to `max` on a log scale, 0 apart, in the palette for amounts.
    Log {
        /// The number that has the last colour.
        max: f32,
    },
    /// Powers of two from `2^-octaves` to `2^octaves`, white at 1, in the diverging palette. Numbers are log2 of the ratio.
    Ratio {
        /// Either end, in octaves.
        octaves: f32,
    },
    /// From `-max` to `max`, white at 0, in the diverging palette.
    Signed {
        /// Either end.
        max: f32,
    },
    /// [`super::Home`] as a number: a colour and a glyph each.
    Homes,
}

/// One number for every cell.
#[derive(Clone, Debug)]
pub struct Field {
    /// Mixture layers.
    pub rows: usize,
    /// Experts of a layer.
    pub columns: usize,
    /// `[rows, columns]`. NaN: nothing is known of the cell.
    pub values: Arc<[f32]>,
    /// `[rows, columns]`: chance explains what is different about the cell, so it is greyed. Empty: nothing is greyed.
    pub noise: Arc<[bool]>,
    /// How to read the numbers.
    pub scale: Scale,
    /// What the numbers are, for the legend: "uses", "weight", "times uniform".
    pub unit: &'static str,
    /// Differs between fields that differ.
    pub revision: u64,
}

/// An expert of a mixture layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cell {
    /// The mixture layer, counted without dense ones.
    pub row: usize,
    /// The expert.
    pub expert: usize,
}
