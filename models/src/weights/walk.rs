//! Visiting every tensor: for totals, inspection and checks.

use std::fmt;

use super::{Experts, Ffn, KvB, Layer, Mlp, Query, Tensor, Weights};
use crate::Result;

/// A tensor's part in the forward pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names are those of the fields in `weights`")]
pub enum Role {
    Embed,
    OutNorm,
    Head,
    AttnNorm,
    Q,
    QA,
    QNorm,
    QB,
    KvA,
    KvANorm,
    KvB,
    KB,
    VB,
    O,
    FfnNorm,
    DenseGate,
    DenseUp,
    DenseDown,
    Router,
    RouterBias,
    ExpertGate,
    ExpertUp,
    ExpertDown,
    SharedGate,
    SharedUp,
    SharedDown,
    MtpEmbedNorm,
    MtpHiddenNorm,
    MtpProject,
    MtpHeadNorm,
    MtpHead,
}

impl Role {
    /// Its short name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Embed => "embed",
            Self::OutNorm => "out_norm",
            Self::Head => "head",
            Self::AttnNorm => "attn_norm",
            Self::Q => "q",
            Self::QA => "q_a",
            Self::QNorm => "q_norm",
            Self::QB => "q_b",
            Self::KvA => "kv_a",
            Self::KvANorm => "kv_a_norm",
            Self::KvB => "kv_b",
            Self::KB => "k_b",
            Self::VB => "v_b",
            Self::O => "o",
            Self::FfnNorm => "ffn_norm",
            Self::DenseGate => "dense.gate",
            Self::DenseUp => "dense.up",
            Self::DenseDown => "dense.down",
            Self::Router => "router",
            Self::RouterBias => "router_bias",
            Self::ExpertGate => "experts.gate",
            Self::ExpertUp => "experts.up",
            Self::ExpertDown => "experts.down",
            Self::SharedGate => "shared.gate",
            Self::SharedUp => "shared.up",
            Self::SharedDown => "shared.down",
            Self::MtpEmbedNorm => "embed_norm",
            Self::MtpHiddenNorm => "hidden_norm",
            Self::MtpProject => "project",
            Self::MtpHeadNorm => "head_norm",
            Self::MtpHead => "mtp_head",
        }
    }

    /// Whether it belongs to the routed experts.
    pub const fn is_expert(self) -> bool {
        matches!(self, Self::ExpertGate | Self::ExpertUp | Self::ExpertDown)
    }

    /// Whether it is a vector or the router: small, and poisonous when it holds NaN.
    pub const fn is_small(self) -> bool {
        matches!(
            self,
            Self::OutNorm
                | Self::AttnNorm
                | Self::QNorm
                | Self::KvANorm
                | Self::FfnNorm
                | Self::Router
                | Self::RouterBias
                | Self::MtpEmbedNorm
                | Self::MtpHiddenNorm
                | Self::MtpHeadNorm
        )
    }
}

/// Where a tensor stands in the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// The decoder layer; modules for multi-token prediction count on behind the last. `None`: outside of all.
    pub layer: Option<usize>,
    /// Whether it belongs to a module for multi-token prediction.
    pub mtp: bool,
    /// The expert, where each has its own tensors.
    pub expert: Option<usize>,
    /// Its part.
    pub role: Role,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(layer) = self.layer {
            write!(f, "{}.{layer}.", if self.mtp { "mtp" } else { "layers" })?;
        }
        match (self.expert, self.role) {
            (Some(e), Role::ExpertGate) => write!(f, "experts.{e}.gate"),
            (Some(e), Role::ExpertUp) => write!(f, "experts.{e}.up"),
            (Some(e), Role::ExpertDown) => write!(f, "experts.{e}.down"),
            (_, role) => f.write_str(role.name()),
        }
    }
}

impl Weights {
    /// Visits every tensor once, in the order of the forward pass.
    pub fn for_each<'a>(&'a self, visit: &mut dyn FnMut(Place, &'a Tensor)) {
        let outside = |role| Place { layer: None, mtp: false, expert: None, role };
        visit(outside(Role::Embed), &self.embed);
        for (i, layer) in self.layers.iter().enumerate() {
            layer.for_each(i, false, visit);
        }
        visit(outside(Role::OutNorm), &self.out_norm);
        if let Some(head) = &self.head {
            visit(outside(Role::Head), head);
        }
        for (i, m) in self.mtp.iter().enumerate() {
            let index = self.layers.len() + i;
            let at = |role| Place { layer: Some(index), mtp: true, expert: None, role };
            visit(at(Role::MtpEmbedNorm), &m.embed_norm);
            visit(at(Role::MtpHiddenNorm), &m.hidden_norm);
            visit(at(Role::MtpProject), &m.project);
            m.layer.for_each(index, true, visit);
            if let Some(norm) = &m.head_norm {
                visit(at(Role::MtpHeadNorm), norm);
            }
            if let Some(head) = &m.head {
                visit(at(Role::MtpHead), head);
            }
        }
    }

    /// Every tensor with its place, in the order of the forward pass.
    pub fn tensors(&self) -> Vec<(Place, &Tensor)> {
        let mut all = Vec::new();
        self.for_each(&mut |place, tensor| all.push((place, tensor)));
        all
    }

    /// Bytes of all tensors in the file.
    pub fn bytes(&self) -> u64 {
        let mut sum = 0;
        self.for_each(&mut |_, t| sum += t.bytes() as u64);
        sum
    }

    /// Refuses NaN and infinity anywhere. `progress` gets (bytes done, bytes in all); `file` is named in the error.
    ///
    /// This reads every byte of the checkpoint.
    pub fn check_finite(&self, file: &str, progress: &mut dyn FnMut(u64, u64)) -> Result<()> {
        let total = self.bytes();
        let mut done = 0;
        for (_, tensor) in self.tensors() {
            tensor.check_finite(file)?;
            done += tensor.bytes() as u64;
            progress(done, total);
        }
        Ok(())
    }

    /// The same for norms, routers and biases only, which is done whenever a checkpoint is opened.
    pub fn check_small_finite(&self, file: &str) -> Result<()> {
        self.tensors().into_iter().filter(|(place, _)| place.role.is_small()).try_for_each(|(_, t)| t.check_finite(file))
    }
}

impl Layer {
    fn for_each<'a>(&'a self, index: usize, mtp: bool, visit: &mut dyn FnMut(Place, &'a Tensor)) {
        let at = |role| Place { layer: Some(index), mtp, expert: None, role };
        visit(at(Role::AttnNorm), &self.attn_norm);
        match &self.q {
            Query::Full(q) => visit(at(Role::Q), q),
            Query::Lora { a, norm, b } => {
                visit(at(Role::QA), a);
                visit(at(Role::QNorm), norm);
                visit(at(Role::QB), b);
            }
        }
        visit(at(Role::KvA), &self.kv_a);
        visit(at(Role::KvANorm), &self.kv_a_norm);
        match &self.kv_b {
            KvB::Fused(both) => visit(at(Role::KvB), both),
            KvB::Split { k, v } => {
                visit(at(Role::KB), k);
                visit(at(Role::VB), v);
            }
        }
        visit(at(Role::O), &self.o);
        visit(at(Role::FfnNorm), &self.ffn_norm);
        let mut mlp = |m: &'a Mlp, expert: Option<usize>, roles: [Role; 3]| {
            for (role, tensor) in roles.into_iter().zip([&m.gate, &m.up, &m.down]) {
                visit(Place { expert, ..at(role) }, tensor);
            }
        };
        match &self.ffn {
            Ffn::Dense(m) => mlp(m, None, [Role::DenseGate, Role::DenseUp, Role::DenseDown]),
            Ffn::Moe(moe) => {
                let experts = [Role::ExpertGate, Role::ExpertUp, Role::ExpertDown];
                match &moe.experts {
                    Experts::Separate(all) => all.iter().enumerate().for_each(|(e, m)| mlp(m, Some(e), experts)),
                    Experts::Stacked(m) => mlp(m, None, experts),
                }
                if let Some(m) = &moe.shared {
                    mlp(m, None, [Role::SharedGate, Role::SharedUp, Role::SharedDown]);
                }
                visit(at(Role::Router), &moe.router);
                if let Some(bias) = &moe.bias {
                    visit(at(Role::RouterBias), bias);
                }
            }
        }
    }
}
