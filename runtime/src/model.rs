//! A checkpoint's weights as devices want them: numbered, with the latent up-projection split by head.

mod derived;

use std::sync::Arc;

use pleiad_models::{
    Config, Tensor, Weights,
    weights::{Experts, Ffn, KvB, Layer, Query},
};

use crate::{
    error::{Error, Result},
    plan::{BankId, MatId, VecId},
};
use derived::derive;

/// A model ready to be loaded on a device. Large tensors still lie in the mapped file, or in one that is read in ranges.
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
    /// The module that drafts tokens, where it was asked for and the checkpoint has one.
    pub mtp: Option<Box<MtpIds>>,
}

/// A multi-token-prediction module (DeepSeek-V3 report, section 2.2): what it predicts follows from the model's hidden state at a
/// position and the token after it.
#[derive(Clone, Debug)]
pub struct MtpIds {
    /// Of the embedding, `[h]`.
    pub embed_norm: VecId,
    /// Of the hidden state, `[h]`.
    pub hidden_norm: VecId,
    /// `[h, 2h]`, over embedding and hidden state.
    pub project: MatId,
    /// Its decoder layer, which has a latent cache like the model's own.
    pub layer: LayerIds,
    /// `[h]`; the model's where the checkpoint has no other.
    pub head_norm: VecId,
    /// `[vocab, h]`; the model's where the checkpoint has no other.
    pub head: MatId,
    /// The experts of its layer: always resident, and no part of [`Model::banks`].
    pub bank: Option<Experts>,
    /// Matrices and vectors before its own.
    before: (usize, usize),
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

/// Whether two matrices are known to be equal: those in memory, or mapped, are compared.
fn same(a: &Tensor, b: &Tensor) -> bool {
    let equal = |a: &pleiad_models::Bytes, b: &pleiad_models::Bytes| a.resident().is_some() && a.resident() == b.resident();
    let scales = match (&a.scales, &b.scales) {
        (None, None) => true,
        (Some(a), Some(b)) => equal(a, b),
        _ => false,
    };
    (a.format, a.rows, a.cols) == (b.format, b.rows, b.cols) && scales && equal(&a.data, &b.data)
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
        // Vectors are in memory, but for a checkpoint of which only the header is here: its sizes are known, its values not.
        self.vecs.push(if t.is_resident() { t.to_f32() } else { vec![0.0; t.rows * t.cols] });
        VecId(self.vecs.len() as u32 - 1)
    }

    fn mlp(&mut self, m: &pleiad_models::weights::Mlp) -> MlpIds {
        MlpIds { gate: self.mat(&m.gate), up: self.mat(&m.up), down: self.mat(&m.down) }
    }

    fn layer(&mut self, config: &Config, l: &Layer) -> LayerIds {
        let a = &config.attention;
        let (heads, dn, dv, r) = (a.num_heads, a.qk_nope_head_dim, a.v_head_dim, a.kv_lora_rank);
        let (k_b, v_b, k_up) = match &l.kv_b {
            KvB::Split { k, v } => (k.clone(), v.clone(), derive(k, "k_up", heads, r, 0..r, true)),
            KvB::Fused(t) => {
                let part = |suffix, taken, transposed| derive(t, suffix, heads, dn + dv, taken, transposed);
                (part("k_b", 0..dn, true), part("v_b", dn..dn + dv, false), part("k_up", 0..dn, false))
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

impl Model {
    /// Numbers the weights of a checkpoint. Of one of which only the header is here, what depends on sizes alone is right, and
    /// nothing can be loaded.
    pub fn new(config: &Config, weights: &Weights) -> Self {
        let mut n = Numbering::default();
        let embed = n.mat(&weights.embed);
        let out_norm = n.vec(&weights.out_norm);
        let head = weights.head.as_ref().map_or(embed, |h| n.mat(h));
        let layers = weights.layers.iter().map(|l| n.layer(config, l)).collect();
        let Numbering { mats, vecs, banks } = n;
        Self { config: config.clone(), mats, vecs, banks, embed, out_norm, head, layers, mtp: None }
    }

    /// [`Model::new`], with the module that drafts tokens where the checkpoint has one.
    pub fn with_mtp(config: &Config, weights: &Weights) -> Self {
        let mut model = Self::new(config, weights);
        let Some(mtp) = weights.mtp.first() else { return model };
        let (banks, before) = (model.banks.len(), (model.mats.len(), model.vecs.len()));
        let mut n = Numbering { mats: model.mats, vecs: model.vecs, banks: model.banks };
        let layer = n.layer(config, &mtp.layer);
        // Published checkpoints repeat the model's head.
        let own = |t: &&Tensor| !same(weights.head.as_ref().unwrap_or(&weights.embed), t);
        let ids = MtpIds {
            embed_norm: n.vec(&mtp.embed_norm),
            hidden_norm: n.vec(&mtp.hidden_norm),
            project: n.mat(&mtp.project),
            layer,
            head_norm: mtp.head_norm.as_ref().map_or(model.out_norm, |t| n.vec(t)),
            head: mtp.head.as_ref().filter(own).map_or(model.head, |t| n.mat(t)),
            bank: (n.banks.len() > banks).then(|| n.banks.remove(banks)),
            before,
        };
        (model.mats, model.vecs, model.banks) = (n.mats, n.vecs, n.banks);
        model.mtp = Some(Box::new(ids));
        model
    }

    /// The same without the module that drafts.
    #[must_use]
    pub fn without_mtp(&self) -> Self {
        let mut model = self.clone();
        if let Some(mtp) = model.mtp.take() {
            model.mats.truncate(mtp.before.0);
            model.vecs.truncate(mtp.before.1);
        }
        model
    }

    /// Layers that have a latent cache: the decoder layers, then that of the module that drafts.
    pub fn caches(&self) -> usize {
        self.layers.len() + usize::from(self.mtp.is_some())
    }

    /// All stacks of experts: the decoder layers', then those of the module that drafts.
    pub fn all_banks(&self) -> impl Iterator<Item = &Experts> {
        self.banks.iter().chain(self.mtp_bank())
    }

    /// The experts of the module that drafts.
    pub fn mtp_bank(&self) -> Option<&Experts> {
        self.mtp.as_ref()?.bank.as_ref()
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

    /// The same model with all weights in memory, or mapped: itself, where they are.
    ///
    /// # Errors
    /// Where they take more than `limit` bytes, or cannot be read.
    pub fn in_memory(self: &Arc<Self>, limit: Option<u64>) -> Result<Arc<Self>> {
        let missing: u64 = self.tensors().filter(|t| !t.is_resident()).map(|t| t.bytes() as u64).sum();
        if missing == 0 {
            return Ok(Arc::clone(self));
        }
        if limit.is_some_and(|limit| missing > limit) {
            let what = "computing on the CPU, with all weights in memory,".into();
            return Err(Error::OutOfMemory { what, bytes: missing, limit });
        }
        let mut all = Self::clone(self);
        all.mats.iter_mut().try_for_each(Tensor::make_resident)?;
        let module = all.mtp.as_mut().and_then(|m| m.bank.as_mut());
        for mlp in all.banks.iter_mut().chain(module).flat_map(Experts::mlps_mut) {
            [&mut mlp.gate, &mut mlp.up, &mut mlp.down].into_iter().try_for_each(Tensor::make_resident)?;
        }
        Ok(Arc::new(all))
    }

    /// All matrices, those of experts included.
    pub fn tensors(&self) -> impl Iterator<Item = &Tensor> {
        self.mats.iter().chain(self.all_banks().flat_map(Experts::mlps).flat_map(|m| [&m.gate, &m.up, &m.down]))
    }

    /// The matrix, or stack of matrices.
    pub fn mat(&self, id: MatId) -> &Tensor {
        &self.mats[id.0 as usize]
    }

    /// The vector.
    pub fn vec(&self, id: VecId) -> &[f32] {
        &self.vecs[id.0 as usize]
    }

    /// The experts: those of a decoder layer, or, after these, those of the module that drafts.
    pub fn bank(&self, id: BankId) -> &Experts {
        let own = self.mtp_bank().filter(|_| id.0 as usize == self.banks.len());
        own.unwrap_or_else(|| &self.banks[id.0 as usize])
    }
}
