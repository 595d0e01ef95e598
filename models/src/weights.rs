//! A checkpoint's tensors by their place in the forward pass.

use crate::{Format, blocks::Matrix};

pub(crate) mod bytes;
mod rows;
mod walk;

pub use bytes::{Bytes, Ranged};
pub use rows::Rows;
pub use walk::{Place, Role};

/// A matrix, or a stack of `count` matrices, in the file's own layout.
///
/// `rows` are outputs and `cols` inputs of the product `y = W x`; a row is contiguous. A vector is a
/// matrix of one row.
#[derive(Clone, Debug)]
pub struct Tensor {
    /// Name in the file.
    pub name: String,
    /// How its elements are stored.
    pub format: Format,
    /// Matrices in the stack, contiguous (1 for most; E for GGUF's experts, H for `attn_k_b`).
    pub count: usize,
    /// Rows of one matrix.
    pub rows: usize,
    /// Columns.
    pub cols: usize,
    /// `count * rows` rows of `format.row_bytes(cols)`; checked when opened.
    pub data: Bytes,
    /// F8 only: f32 `[ceil(rows / 128), ceil(cols / 128)]`, little endian.
    pub scales: Option<Bytes>,
}

impl Tensor {
    /// Bytes in the file, scales included.
    pub fn bytes(&self) -> usize {
        self.data.len() + self.scales.as_ref().map_or(0, |s| s.len())
    }

    /// Matrix `index` of the stack, in memory. Panics where there is none, or it is read in ranges ([`Tensor::part`]).
    pub fn matrix(&self, index: usize) -> Matrix<'_> {
        assert!(index < self.count, "{}: matrix {index} of {}", self.name, self.count);
        let len = self.data.len() / self.count;
        Matrix::native(self.format, self.rows, self.cols, &self.data[index * len..(index + 1) * len], self.scales.as_deref())
    }

    /// The whole stack as one matrix of `count * rows` rows (F8 stacks do not exist), in memory. Panics where it is read in
    /// ranges ([`Tensor::part`]).
    pub fn stacked(&self) -> Matrix<'_> {
        Matrix::native(self.format, self.count * self.rows, self.cols, &self.data, self.scales.as_deref())
    }

    /// All elements as f32, for vectors and small matrices in memory. Panics where it is read in ranges; vectors never are.
    pub fn to_f32(&self) -> Vec<f32> {
        self.stacked().to_f32()
    }
}

/// All tensors of a model. Shapes agree with the configuration (checked when opened).
#[derive(Clone, Debug)]
pub struct Weights {
    /// `[vocab, h]`.
    pub embed: Tensor,
    /// `[h]`.
    pub out_norm: Tensor,
    /// `[vocab, h]`; `None`: the embedding serves.
    pub head: Option<Tensor>,
    /// The decoder layers.
    pub layers: Vec<Layer>,
    /// Multi-token-prediction modules.
    pub mtp: Vec<Mtp>,
}

/// One decoder layer.
#[derive(Clone, Debug)]
pub struct Layer {
    /// `[h]`.
    pub attn_norm: Tensor,
    /// The query projection.
    pub q: Query,
    /// `[r + dr, h]`.
    pub kv_a: Tensor,
    /// `[r]`.
    pub kv_a_norm: Tensor,
    /// From the latent to keys and values.
    pub kv_b: KvB,
    /// `[h, H * dv]`.
    pub o: Tensor,
    /// `[h]`.
    pub ffn_norm: Tensor,
    /// The feed-forward part.
    pub ffn: Ffn,
}

/// The query projection.
#[derive(Clone, Debug)]
pub enum Query {
    /// `[H * (dn + dr), h]`.
    Full(Tensor),
    /// Low rank.
    Lora {
        /// `[rq, h]`.
        a: Tensor,
        /// `[rq]`.
        norm: Tensor,
        /// `[H * (dn + dr), rq]`.
        b: Tensor,
    },
}

/// From the latent to keys and values.
#[derive(Clone, Debug)]
pub enum KvB {
    /// `[H * (dn + dv), r]`: for each head dn rows of keys (W_UK), then dv rows of values (W_UV).
    Fused(Tensor),
    /// GGUF's MLA layout.
    Split {
        /// H matrices `[r, dn]`: W_UK transposed.
        k: Tensor,
        /// H matrices `[dv, r]`: W_UV.
        v: Tensor,
    },
}

/// The feed-forward part of a layer.
#[derive(Clone, Debug)]
pub enum Ffn {
    /// One MLP.
    Dense(Mlp),
    /// Router, experts and shared experts.
    Moe(Box<MoeWeights>),
}

/// `down(silu(gate x) * up x)`.
#[derive(Clone, Debug)]
pub struct Mlp {
    /// `[i, h]`.
    pub gate: Tensor,
    /// `[i, h]`.
    pub up: Tensor,
    /// `[h, i]`.
    pub down: Tensor,
}

/// A mixture's tensors.
#[derive(Clone, Debug)]
pub struct MoeWeights {
    /// `[E, h]`.
    pub router: Tensor,
    /// `[E]`, added to the scores for selection only.
    pub bias: Option<Tensor>,
    /// E experts.
    pub experts: Experts,
    /// One MLP of `num_shared` times an expert's width.
    pub shared: Option<Mlp>,
}

/// Routed experts: one tensor each (Hugging Face) or stacked (GGUF).
#[derive(Clone, Debug)]
pub enum Experts {
    /// E MLPs.
    Separate(Vec<Mlp>),
    /// An MLP whose tensors are stacks of E matrices. A fused `gate_up` file is seen as two here.
    Stacked(Mlp),
}

/// Which of an expert's matrices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ExpertPart {
    /// `[i, h]`.
    Gate,
    /// `[i, h]`.
    Up,
    /// `[h, i]`.
    Down,
}

impl Mlp {
    /// The tensor of that part.
    pub fn part(&self, part: ExpertPart) -> &Tensor {
        match part {
            ExpertPart::Gate => &self.gate,
            ExpertPart::Up => &self.up,
            ExpertPart::Down => &self.down,
        }
    }
}

impl Experts {
    /// Number of experts.
    pub fn len(&self) -> usize {
        match self {
            Self::Separate(all) => all.len(),
            Self::Stacked(mlp) => mlp.gate.count,
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// One matrix of one expert, in memory. Panics where there is no such expert, or it is read in ranges ([`Experts::part`]).
    pub fn matrix(&self, expert: usize, part: ExpertPart) -> Matrix<'_> {
        match self {
            Self::Separate(all) => all[expert].part(part).matrix(0),
            Self::Stacked(mlp) => mlp.part(part).matrix(expert),
        }
    }

    /// The tensor that holds the part of the first expert: all experts share its format and shape.
    pub fn first(&self, part: ExpertPart) -> &Tensor {
        match self {
            Self::Separate(all) => all[0].part(part),
            Self::Stacked(mlp) => mlp.part(part),
        }
    }
}

/// A multi-token-prediction module (DeepSeek-V3 report, section 2.2).
#[derive(Clone, Debug)]
pub struct Mtp {
    /// Norm of the next token's embedding, `[h]`.
    pub embed_norm: Tensor,
    /// Norm of the previous hidden state, `[h]`.
    pub hidden_norm: Tensor,
    /// `[h, 2h]`, over the embedding first, then the hidden state.
    pub project: Tensor,
    /// A complete decoder layer.
    pub layer: Layer,
    /// `[h]`; `None`: the model's.
    pub head_norm: Option<Tensor>,
    /// `[vocab, h]`; `None`: the model's.
    pub head: Option<Tensor>,
}
