//! The router and the routed experts.

use pleiad_shaders::{Defines, cuda::shape, params};

use super::{Case, Dim, Emit, Lowering, MATVEC_TOKENS, ONE, RowCount, matmul::product_defines};
use crate::{
    cuda::{
        slots::CudaSlots,
        state::{CudaBank, Part, Slab},
    },
    error::{Error, Result},
    gpu::lower::{GATHER_WORKGROUPS, PLACE_THREADS, TILE, admit_params, router_params},
    plan::{Act, BankId, Kind, Op, VecId},
    steps::When,
};

/// Most warps of a block that has all of a token's experts.
const MAX_WARPS: u32 = 8;

/// The product of chosen experts with their tokens' rows.
pub(super) struct ExpertProduct<'a> {
    bank: &'a CudaBank,
    /// Those of the bank's experts that count: others' pairs are left alone.
    slab: &'a Slab,
    part: Part,
    gate: Option<Part>,
    /// Whether the rows of `x` are the tokens' though there is no gate.
    up: bool,
    x: Act,
    ids: Act,
    /// The address of the rows, one for each pair of token and expert.
    out: u64,
    /// The weights, and what their sum is added to.
    combine: Option<(Act, Act)>,
}

impl<'a> Lowering<'a> {
    pub(super) fn router(&mut self, logits: Act, bias: Option<VecId>, layer: usize, ids: Act, weights: Act) -> Result<()> {
        let (rows, state) = (self.row_count(logits), self.state);
        self.drafting = layer >= state.model.layers.len();
        let slots = state.slots.as_ref().filter(|_| !self.drafting);
        let bank = slots.and_then(|s| s.bank_of.get(layer).copied().flatten());
        let p = params::Router {
            tokens: rows.param(),
            bank: bank.unwrap_or(0) as u32,
            record: slots.map_or(0, |s| s.record as u32),
            ..router_params(&state.model, layer, self.width(logits), self.width(ids))?
        };
        let mut bind = vec![
            ("logits", self.act(logits)),
            ("ids", self.act(ids)),
            ("weights", self.act(weights)),
            ("counters", self.local().counters),
        ];
        bind.extend(bias.map(|b| ("bias", self.vector(b))));
        if let Some(slots) = slots {
            bind.extend([("slots", self.chosen(ids)?), ("residency", slots.tables.address)]);
        }
        self.grouped.clear();
        self.whereabouts.forget_chosen();
        let defines = Defines::new().flag_if("BIAS", bias.is_some()).flag_if("SLOTS", slots.is_some());
        self.emit(Emit::new("router", &p, bind, [rows.each(), ONE, ONE]).with(defines))?;
        match (slots, bank) {
            (Some(slots), Some(bank)) if slots.partial[bank] => self.serve(slots, bank, ids),
            _ => Ok(()),
        }
    }

    /// The slots of the experts chosen; the experts themselves where each has its own slot.
    pub(super) fn chosen(&mut self, ids: Act) -> Result<u64> {
        let copies = self.state.placement.devices > 1;
        if !copies && (self.state.slots.is_none() || self.drafting) {
            return Ok(self.act(ids));
        }
        let words = u64::from(self.row_count(ids).most() * self.width(ids));
        self.scratch("slots of chosen experts", words * 4)
    }

    /// What may follow a router in whose layer experts can be missing.
    fn serve(&mut self, slots: &CudaSlots, bank: usize, ids: Act) -> Result<()> {
        let (rows, top_k) = (self.row_count(ids), self.width(ids));
        let chosen = self.chosen(ids)?;
        let p = params::Place { top_k, tokens: rows.param(), pad: [0; 2] };
        let bind = vec![("ids", self.act(ids)), ("table", slots.round.address), ("slots", chosen)];
        let grid = [Dim::Fixed((rows.most() * top_k).div_ceil(PLACE_THREADS)), ONE, ONE];
        self.emit(Emit::new("place", &p, bind, grid).only(When::Place))?;
        let Some(source) = slots.sources.get(bank).and_then(Option::as_ref) else { return Ok(()) };
        let one = Case::tokens(1, 1);
        let p = admit_params(slots.experts, top_k, bank, slots.record);
        let bind = vec![
            ("ids", self.act(ids)),
            ("slots", chosen),
            ("residency", slots.tables.address),
            ("heat", slots.heat.address),
            ("work", slots.work.address),
        ];
        self.emit(Emit::new("admit", &p, bind, [ONE; 3]).only(When::Gather).when(one))?;
        let blobs = self.bank(BankId(bank as u32));
        let p = params::Gather {
            quads: blobs.blob_words as u32 / 4,
            bank_first: 0,
            bank_count: slots.experts as u32,
            slab_first: 0,
            slab_count: blobs.slots as u32,
            pad: [0; 3],
        };
        let bind = vec![("work", slots.work.address), ("source", source.address), ("slab", blobs.slabs[0].memory.address)];
        let grid = [Dim::Fixed(GATHER_WORKGROUPS), Dim::Fixed(top_k), ONE];
        self.emit(Emit::new("gather", &p, bind, grid).only(When::Gather).when(one))
    }

    fn bank(&self, id: BankId) -> &'a CudaBank {
        let state = self.state;
        &state.banks[id.0 as usize]
    }

    pub(super) fn experts_up(&mut self, bank: BankId, x: Act, ids: Act, out: Act) -> Result<()> {
        let (id, bank) = (bank, self.bank(bank));
        if bank.gate.format.is_quantised() == bank.up.format.is_quantised() {
            let (part, gate) = (bank.up, Some(bank.gate));
            let product = |slab, out| ExpertProduct { bank, slab, part, gate, up: true, x, ids, out, combine: None };
            return self.on_slabs(id, x, ids, out, product);
        }
        // Formats of different kinds: two products, then the gate.
        let (rows, width) = (self.row_count(ids), self.width(out));
        let bytes = u64::from(rows.most()) * u64::from(width) * 4;
        let (gates, ups) = (self.scratch("gate products of experts", bytes)?, self.scratch("up products of experts", bytes)?);
        for (part, to) in [(bank.gate, gates), (bank.up, ups)] {
            let product = |slab, out| ExpertProduct { bank, slab, part, gate: None, up: true, x, ids, out, combine: None };
            self.each_slab(id, x, ids, &|_, _| Ok(to), true, product)?;
        }
        let p = params::Swiglu { width, tokens: rows.param(), pad: [0; 2] };
        let bind = vec![("gate", gates), ("up", ups), ("out", self.hold(self.device, out)?)];
        self.written(out);
        self.emit(Emit::new("swiglu", &p, bind, [Dim::Fixed(width.div_ceil(256)), rows.each(), ONE]))
    }

    /// Whether experts of a layer can be missing, or are on another device: then others add products before these are summed.
    fn is_partial(&self, bank: BankId) -> bool {
        self.state.placement.devices > 1
            || self.state.slots.as_ref().is_some_and(|s| s.partial.get(bank.0 as usize) == Some(&true))
    }

    /// Where the weighted sum follows, steps of few tokens make it at once, and `out` is not written; not in layers whose experts
    /// can be missing.
    pub(super) fn experts_down(&mut self, bank: BankId, x: Act, ids: Act, out: Act) -> Result<()> {
        let combine = match self.plan.ops.get(self.op + 1) {
            Some(&Op::Combine { y, weights, x }) if y == out && !self.is_partial(bank) => Some((weights, x)),
            _ => None,
        };
        let (id, bank) = (bank, self.bank(bank));
        let (part, gate) = (bank.down, None);
        let product = |slab, out| ExpertProduct { bank, slab, part, gate, up: false, x, ids, out, combine };
        self.on_slabs(id, x, ids, out, product)
    }

    /// The steps for which a sum is still to be made; `None`: for none.
    pub(super) fn combine_case(&self, y: Act) -> Option<Case> {
        let before = self.op.checked_sub(1).and_then(|i| self.plan.ops.get(i));
        let fused = matches!(before, Some(Op::ExpertsDown { bank, out, .. }) if *out == y && !self.is_partial(*bank));
        match self.row_count(y) {
            _ if !fused => Some(Case::ALWAYS),
            rows if rows.most() <= MATVEC_TOKENS => None,
            RowCount::Fixed(_) => Some(Case::ALWAYS),
            RowCount::Step(_) => Some(Case::tokens(MATVEC_TOKENS + 1, u32::MAX)),
        }
    }

    pub(super) fn experts(&mut self, p: &ExpertProduct<'_>) -> Result<()> {
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
            slab_first: p.slab.first as u32,
            slab_count: p.slab.slots as u32,
            tokens: self.row_count(p.ids).param(),
            max_tiles,
        }
    }

    fn experts_matvec(&mut self, p: &ExpertProduct<'_>, q8: bool, case: Case) -> Result<()> {
        let params = self.params(p, 0);
        let s = shape::gemv(params.rows, params.cols, 1, p.part.format.is_quantised());
        let defines = product_defines(p.part.format, p.gate.map(|g| g.format), q8)
            .flag_if("UP", p.up && p.gate.is_none())
            .flag_if("X4", params.cols.is_multiple_of(4) && !q8)
            .set("TPR", s.tpr)
            .set("RPT", s.rpt)
            .set("TOKENS", 1);
        let slots = self.chosen(p.ids)?;
        let mut bind = vec![("x", self.act(p.x)), ("bank", p.slab.memory.address), ("slots", slots)];
        let tokens = self.row_count(p.ids);
        let Some((weights, x)) = p.combine else {
            bind.push(("out", p.out));
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
        let (slots, top_k) = (p.bank.slots as u32, self.width(p.ids));
        let tiles = Dim::Tiles { top_k, tile: TILE, experts: slots };
        let most = self.row_count(p.ids).most();
        let max_tiles = tiles.at(most);
        let counts = self.scratch("pairs of each slot", u64::from(slots) * 4)?;
        let pairs = self.scratch("pairs sorted by slot", u64::from(most * top_k) * 4)?;
        let list = self.scratch("tiles of experts", u64::from(4 + 4 * max_tiles) * 4)?;
        if !self.grouped.contains(&(self.device, p.ids)) {
            self.grouped.push((self.device, p.ids));
            let chosen = self.chosen(p.ids)?;
            let g = params::Group { slots, top_k, tile: TILE, tokens: self.row_count(p.ids).param() };
            let grid = [Dim::Fixed(slots), ONE, ONE];
            let bind = vec![("chosen", chosen), ("counts", counts)];
            self.emit(Emit::new("group_count", &g, bind, grid).when(case))?;
            let bind = vec![("chosen", chosen), ("counts", counts), ("pairs", pairs), ("tiles", list)];
            self.emit(Emit::new("group_fill", &g, bind, grid).when(case))?;
        }
        let params = self.params(p, max_tiles);
        let defines =
            product_defines(p.part.format, p.gate.map(|g| g.format), q8).flag_if("UP", p.up && p.gate.is_none()).set("TN", TILE);
        let bind = vec![("x", self.act(p.x)), ("bank", p.slab.memory.address), ("pairs", pairs), ("tiles", list), ("out", p.out)];
        let grid = [Dim::Fixed(params.rows.div_ceil(shape::GEMM_ROWS)), tiles, ONE];
        self.emit(Emit::new("experts_matmat", &params, bind, grid).with(defines).when(case))
    }
}
