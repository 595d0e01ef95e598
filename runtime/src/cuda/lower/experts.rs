//! The router and the routed experts.

use pleiad_models::config::{GroupScore, Scoring};
use pleiad_shaders::{cuda::shape, params};

use super::{Case, Dim, Emit, Lowering, MATVEC_TOKENS, ONE, RowCount, matmul::product_defines};
use crate::{
    cuda::state::{CudaBank, Part},
    error::{Error, Result},
    plan::{Act, BankId, Kind, Op, VecId},
};

/// Pairs of token and expert in a tile of the matrix-matrix kernels.
const TILE: u32 = 32;
/// What the router kernel has room for.
const MAX_EXPERTS: u32 = 512;
const MAX_TOP_K: u32 = 64;
const MAX_GROUPS: u32 = 64;
/// Most warps of a block that has all of a token's experts.
const MAX_WARPS: u32 = 8;

/// The product of chosen experts with their tokens' rows.
struct ExpertProduct<'a> {
    bank: &'a CudaBank,
    part: Part,
    gate: Option<Part>,
    x: Act,
    ids: Act,
    out: Act,
    /// The weights, and what their sum is added to.
    combine: Option<(Act, Act)>,
}

impl<'a> Lowering<'a> {
    pub(super) fn router(&mut self, logits: Act, bias: Option<VecId>, layer: usize, ids: Act, weights: Act) -> Result<()> {
        let Some(moe) = &self.state.model.config.moe else {
            return Err(Error::Gpu("a router in a model without experts".into()));
        };
        let rows = self.row_count(logits);
        let p = params::Router {
            experts: self.width(logits),
            top_k: self.width(ids),
            groups: moe.num_groups as u32,
            top_k_groups: moe.top_k_groups as u32,
            sigmoid: u32::from(moe.scoring == Scoring::Sigmoid),
            top_two: u32::from(moe.group_score == GroupScore::TopTwo),
            norm: u32::from(moe.norm_top_k),
            layer: layer as u32,
            scaling: moe.scaling_factor,
            tokens: rows.param(),
            bank: 0,
            record: 0,
        };
        let limits = [
            ("experts a layer", p.experts, MAX_EXPERTS),
            ("experts chosen for a token", p.top_k, MAX_TOP_K),
            ("groups of experts", p.groups, MAX_GROUPS),
        ];
        for (what, needed, limit) in limits {
            if needed > limit {
                return Err(Error::Limit { what: what.into(), needed: needed.into(), limit: limit.into() });
            }
        }
        let mut bind = vec![
            ("logits", self.act(logits)),
            ("ids", self.act(ids)),
            ("weights", self.act(weights)),
            ("counters", self.state.counters.address),
        ];
        bind.extend(bias.map(|b| ("bias", self.vector(b))));
        self.grouped = None;
        let defines = pleiad_shaders::Defines::new().flag_if("BIAS", bias.is_some());
        self.emit(Emit::new("router", &p, bind, [rows.each(), ONE, ONE]).with(defines))
    }

    fn bank(&self, id: BankId) -> &'a CudaBank {
        let state = self.state;
        &state.banks[id.0 as usize]
    }

    pub(super) fn experts_up(&mut self, bank: BankId, x: Act, ids: Act, out: Act) -> Result<()> {
        let bank = self.bank(bank);
        if bank.gate.format.is_quantised() == bank.up.format.is_quantised() {
            let p = ExpertProduct { bank, part: bank.up, gate: Some(bank.gate), x, ids, out, combine: None };
            return self.experts(&p);
        }
        let what = format!("experts with {} gates and {} up matrices", bank.gate.format, bank.up.format);
        Err(Error::Gpu(format!("{what}: the CUDA backend needs both quantised or both floats")))
    }

    /// Where the weighted sum follows, steps of few tokens make it at once, and `out` is not written.
    pub(super) fn experts_down(&mut self, bank: BankId, x: Act, ids: Act, out: Act) -> Result<()> {
        let bank = self.bank(bank);
        let combine = match self.plan.ops.get(self.op + 1) {
            Some(&Op::Combine { y, weights, x }) if y == out => Some((weights, x)),
            _ => None,
        };
        self.experts(&ExpertProduct { bank, part: bank.down, gate: None, x, ids, out, combine })
    }

    /// The steps for which a sum is still to be made; `None`: for none.
    pub(super) fn combine_case(&self, y: Act) -> Option<Case> {
        let before = self.op.checked_sub(1).and_then(|i| self.plan.ops.get(i));
        let fused = matches!(before, Some(Op::ExpertsDown { out, .. }) if *out == y);
        match self.row_count(y) {
            _ if !fused => Some(Case::ALWAYS),
            rows if rows.most() <= MATVEC_TOKENS => None,
            RowCount::Fixed(_) => Some(Case::ALWAYS),
            RowCount::Step(_) => Some(Case::tokens(MATVEC_TOKENS + 1, u32::MAX)),
        }
    }

    fn experts(&mut self, p: &ExpertProduct<'_>) -> Result<()> {
        let q8 = self.decl(p.x).kind == Kind::Q8;
        if q8 && !(p.part.format.is_quantised() && p.gate.is_none_or(|g| g.format.is_quantised())) {
            return Err(Error::Gpu(format!("{} experts do not take 8-bit activations", p.part.format)));
        }
        let most = self.row_count(p.ids).most();
        if most <= MATVEC_TOKENS {
            // One row of a step of many tokens, too.
            return self.experts_matvec(p, q8, Case::ALWAYS);
        }
        self.experts_matvec(p, q8, Case::tokens(0, MATVEC_TOKENS))?;
        self.experts_matmat(p, q8, Case::tokens(MATVEC_TOKENS + 1, u32::MAX))
    }

    fn params(&self, p: &ExpertProduct<'_>, max_tiles: u32) -> params::Experts {
        params::Experts {
            rows: p.part.rows as u32,
            cols: p.part.cols as u32,
            row_words: p.part.row_words as u32,
            gate_row_words: p.gate.map_or(0, |g| g.row_words as u32),
            part_offset: p.part.offset as u32,
            gate_offset: p.gate.map_or(0, |g| g.offset as u32),
            blob_words: p.bank.blob_words as u32,
            top_k: self.width(p.ids),
            slab_first: 0,
            slab_count: p.bank.experts as u32,
            tokens: self.row_count(p.ids).param(),
            max_tiles,
        }
    }

    fn experts_matvec(&mut self, p: &ExpertProduct<'_>, q8: bool, case: Case) -> Result<()> {
        let params = self.params(p, 0);
        let s = shape::gemv(params.rows, params.cols, 1, p.part.format.is_quantised());
        let defines = product_defines(p.part.format, p.gate.map(|g| g.format), q8)
            .flag_if("X4", params.cols.is_multiple_of(4) && !q8)
            .set("TPR", s.tpr)
            .set("RPT", s.rpt)
            .set("TOKENS", 1);
        let mut bind = vec![("x", self.act(p.x)), ("bank", p.bank.memory.address), ("slots", self.act(p.ids))];
        let tokens = self.row_count(p.ids);
        let Some((weights, x)) = p.combine else {
            bind.push(("out", self.act(p.out)));
            let pairs = match tokens {
                RowCount::Step(_) => Dim::Each(params.top_k),
                RowCount::Fixed(n) => Dim::Fixed(n * params.top_k),
            };
            let grid = [Dim::Fixed(params.rows.div_ceil(s.rows(shape::GEMV_THREADS))), pairs, ONE];
            return self.emit(Emit::new("experts_matvec", &params, bind, grid).with(defines).when(case));
        };
        bind.extend([("weights", self.act(weights)), ("out", self.act(x))]);
        let threads = params.top_k.clamp(1, MAX_WARPS) * 32;
        let defines = defines.flag("COMBINE").set("THREADS", threads);
        let grid = [Dim::Fixed(params.rows.div_ceil(s.rows(32))), tokens.each(), ONE];
        self.emit(Emit::new("experts_matvec", &params, bind, grid).with(defines).when(case))
    }

    fn experts_matmat(&mut self, p: &ExpertProduct<'_>, q8: bool, case: Case) -> Result<()> {
        let (experts, top_k) = (p.bank.experts as u32, self.width(p.ids));
        let tiles = Dim::Tiles { top_k, tile: TILE, experts };
        let most = self.row_count(p.ids).most();
        let max_tiles = tiles.at(most);
        let counts = self.scratch("pairs of experts", u64::from(experts) * 4)?;
        let pairs = self.scratch("sorted pairs", u64::from(most * top_k) * 4)?;
        let list = self.scratch("tiles of experts", u64::from(4 + 4 * max_tiles) * 4)?;
        if self.grouped != Some(p.ids) {
            self.grouped = Some(p.ids);
            let g = params::Group { slots: experts, top_k, tile: TILE, tokens: self.row_count(p.ids).param() };
            let grid = [Dim::Fixed(experts), ONE, ONE];
            let bind = vec![("chosen", self.act(p.ids)), ("counts", counts)];
            self.emit(Emit::new("group_count", &g, bind, grid).when(case))?;
            let bind = vec![("chosen", self.act(p.ids)), ("counts", counts), ("pairs", pairs), ("tiles", list)];
            self.emit(Emit::new("group_fill", &g, bind, grid).when(case))?;
        }
        let params = self.params(p, max_tiles);
        let defines = product_defines(p.part.format, p.gate.map(|g| g.format), q8).set("TN", TILE);
        let bind = vec![
            ("x", self.act(p.x)),
            ("bank", p.bank.memory.address),
            ("pairs", pairs),
            ("tiles", list),
            ("out", self.act(p.out)),
        ];
        let grid = [Dim::Fixed(params.rows.div_ceil(shape::GEMM_ROWS)), tiles, ONE];
        self.emit(Emit::new("experts_matmat", &params, bind, grid).with(defines).when(case))
    }
}
