//! A checkpoint's weights as devices want them: numbered, with the latent up-projection split by head.

use half::{bf16, f16};
use pleiad_models::{
    Bytes, Config, Format, Tensor, Weights,
    weights::{Experts, Ffn, KvB, Layer, Query},
};

use crate::plan::{BankId, MatId, VecId};

/// A model ready to be loaded on a device. Large tensors still lie in the mapped file.
#[derive(Clone, Debug)]
pub struct Model {
    /// The configuration.
    pub config: Config,
    /// Matrices and stacks of matrices.
    pub mats: Vec<Tensor>,
    /// Vectors.
    pub vecs: Vec<Vec<f32>>,
    /// The routed experts of each mixture layer.
    pub banks: Vec<Experts>,
    /// `[vocab, h]`.
    pub embed: MatId,
    /// `[h]`.
    pub out_norm: VecId,
    /// `[vocab, h]`; the embedding where they are tied.
    pub head: MatId,
    /// The decoder layers.
    pub layers: Vec<LayerIds>,
}

/// A decoder layer's weights.
#[derive(Clone, Debug)]
pub struct LayerIds {
    /// `[h]`.
    pub attn_norm: VecId,
    /// The query projection.
    pub query: QueryIds,
    /// `[r + dr, h]`.
    pub kv_a: MatId,
    /// `[r]`.
    pub kv_a_norm: VecId,
    /// W_UK transposed: H matrices `[r, dn]`, into the latent space.
    pub k_b: MatId,
    /// W_UV: H matrices `[dv, r]`, out of it.
    pub v_b: MatId,
    /// W_UK: H matrices `[dn, r]`, for the expanded form.
    pub k_up: MatId,
    /// `[h, H * dv]`.
    pub o: MatId,
    /// `[h]`.
    pub ffn_norm: VecId,
    /// The feed-forward part.
    pub ffn: FfnIds,
}

/// The query projection's weights.
#[derive(Clone, Copy, Debug)]
pub enum QueryIds {
    /// `[H * (dn + dr), h]`.
    Full(MatId),
    /// Low rank: `[rq, h]`, `[rq]`, `[H * (dn + dr), rq]`.
    Lora(MatId, VecId, MatId),
}

/// An MLP's weights.
#[derive(Clone, Copy, Debug)]
pub struct MlpIds {
    /// `[i, h]`.
    pub gate: MatId,
    /// `[i, h]`.
    pub up: MatId,
    /// `[h, i]`.
    pub down: MatId,
}

/// The feed-forward part's weights.
#[derive(Clone, Copy, Debug)]
pub enum FfnIds {
    /// One MLP.
    Dense(MlpIds),
    /// A mixture.
    Moe {
        /// `[E, h]`.
        router: MatId,
        /// `[E]`.
        bias: Option<VecId>,
        /// The experts.
        bank: BankId,
        /// The shared experts, as one MLP.
        shared: Option<MlpIds>,
    },
}

#[derive(Default)]
struct Numbering {
    mats: Vec<Tensor>,
    vecs: Vec<Vec<f32>>,
    banks: Vec<Experts>,
}

impl Numbering {
    fn mat(&mut self, t: &Tensor) -> MatId {
        self.mats.push(t.clone());
        MatId(self.mats.len() as u32 - 1)
    }

    fn vec(&mut self, t: &Tensor) -> VecId {
        self.vecs.push(t.to_f32());
        VecId(self.vecs.len() as u32 - 1)
    }

    fn mlp(&mut self, m: &pleiad_models::weights::Mlp) -> MlpIds {
        MlpIds { gate: self.mat(&m.gate), up: self.mat(&m.up), down: self.mat(&m.down) }
    }

    fn layer(&mut self, config: &Config, l: &Layer) -> LayerIds {
        let a = &config.attention;
        let (heads, dn, dv, r) = (a.num_heads, a.qk_nope_head_dim, a.v_head_dim, a.kv_lora_rank);
        let (k_b, v_b, k_up) = match &l.kv_b {
            KvB::Split { k, v } => {
                let up = owned(k, "k_up", heads, dn, r, |all, h, n, c| all[(h * r + c) * dn + n]);
                (k.clone(), v.clone(), up)
            }
            KvB::Fused(t) => {
                let row = |h: usize, n: usize| (h * (dn + dv) + n) * r;
                (
                    owned(t, "k_b", heads, r, dn, |all, h, c, n| all[row(h, n) + c]),
                    owned(t, "v_b", heads, dv, r, |all, h, n, c| all[row(h, dn + n) + c]),
                    owned(t, "k_up", heads, dn, r, |all, h, n, c| all[row(h, n) + c]),
                )
            }
        };
        LayerIds {
            attn_norm: self.vec(&l.attn_norm),
            query: match &l.q {
                Query::Full(q) => QueryIds::Full(self.mat(q)),
                Query::Lora { a, norm, b } => QueryIds::Lora(self.mat(a), self.vec(norm), self.mat(b)),
            },
            kv_a: self.mat(&l.kv_a),
            kv_a_norm: self.vec(&l.kv_a_norm),
            k_b: self.mat(&k_b),
            v_b: self.mat(&v_b),
            k_up: self.mat(&k_up),
            o: self.mat(&l.o),
            ffn_norm: self.vec(&l.ffn_norm),
            ffn: match &l.ffn {
                Ffn::Dense(mlp) => FfnIds::Dense(self.mlp(mlp)),
                Ffn::Moe(m) => {
                    self.banks.push(m.experts.clone());
                    FfnIds::Moe {
                        router: self.mat(&m.router),
                        bias: m.bias.as_ref().map(|b| self.vec(b)),
                        bank: BankId(self.banks.len() as u32 - 1),
                        shared: m.shared.as_ref().map(|s| self.mlp(s)),
                    }
                }
            },
        }
    }
}

/// A stack of `count` matrices `[rows, cols]` whose elements `pick(all, matrix, row, col)` takes from those of
/// `source`. F32 and BF16 sources keep their format (nothing is lost); others become F16.
fn owned(
    source: &Tensor,
    suffix: &str,
    count: usize,
    rows: usize,
    cols: usize,
    pick: impl Fn(&[f32], usize, usize, usize) -> f32,
) -> Tensor {
    let all = source.to_f32();
    let format = match source.format {
        Format::F32 | Format::BF16 => source.format,
        _ => Format::F16,
    };
    let mut data = Vec::with_capacity(count * rows * cols * format.block_bytes());
    for m in 0..count {
        for r in 0..rows {
            for c in 0..cols {
                let x = pick(&all, m, r, c);
                match format {
                    Format::F32 => data.extend_from_slice(&x.to_le_bytes()),
                    Format::BF16 => data.extend_from_slice(&bf16::from_f32(x).to_le_bytes()),
                    _ => data.extend_from_slice(&f16::from_f32(x).to_le_bytes()),
                }
            }
        }
    }
    Tensor { name: format!("{} ({suffix})", source.name), format, count, rows, cols, data: Bytes::new(data), scales: None }
}

impl Model {
    /// Numbers the weights of a checkpoint.
    pub fn new(config: &Config, weights: &Weights) -> Self {
        let mut n = Numbering::default();
        let embed = n.mat(&weights.embed);
        let out_norm = n.vec(&weights.out_norm);
        let head = weights.head.as_ref().map_or(embed, |h| n.mat(h));
        let layers = weights.layers.iter().map(|l| n.layer(config, l)).collect();
        let Numbering { mats, vecs, banks } = n;
        Self { config: config.clone(), mats, vecs, banks, embed, out_norm, head, layers }
    }

    /// Gives every mixture layer a bias for selection, of zeros where it has none (benchmarks of routing).
    pub fn add_biases(&mut self) {
        let experts = self.config.moe.as_ref().map_or(0, |m| m.num_experts);
        for layer in &mut self.layers {
            if let FfnIds::Moe { bias: bias @ None, .. } = &mut layer.ffn {
                self.vecs.push(vec![0.0; experts]);
                *bias = Some(VecId(self.vecs.len() as u32 - 1));
            }
        }
    }

    /// The selection bias of each bank.
    pub fn biases(&self) -> Vec<Option<VecId>> {
        let of = |l: &LayerIds| match l.ffn {
            FfnIds::Moe { bias, .. } => Some(bias),
            FfnIds::Dense(_) => None,
        };
        self.layers.iter().filter_map(of).collect()
    }

    /// The matrix, or stack of matrices.
    pub fn mat(&self, id: MatId) -> &Tensor {
        &self.mats[id.0 as usize]
    }

    /// The vector.
    pub fn vec(&self, id: VecId) -> &[f32] {
        &self.vecs[id.0 as usize]
    }

    /// The experts.
    pub fn bank(&self, id: BankId) -> &Experts {
        &self.banks[id.0 as usize]
    }
}
