//! The router and the routed experts.

use pleiad_shaders::{params, shape};

use super::{
    Bound, Case, Dim, Emit, Lowering, MATVEC_TOKENS, RowCount, When,
    matmul::{matvec_shape, product_variant, spread},
};
use crate::{
    error::{Error, Result},
    experts::policy::HALF_LIFE,
    gpu::{
        pipelines::Variant,
        slots::Slots,
        weights::{GpuBank, Part},
    },
    model::Model,
    plan::{Act, BankId, Kind, VecId},
};
use pleiad_models::config::{GroupScore, Scoring};

/// Pairs of token and expert in a tile of the matrix-matrix kernels.
pub(crate) const TILE: u32 = 32;
/// What the router kernel has room for.
const MAX_EXPERTS: u32 = 512;
const MAX_TOP_K: u32 = 64;
const MAX_GROUPS: u32 = 64;
/// Threads of a workgroup of `place`.
pub(crate) const PLACE_THREADS: u32 = 64;
/// Workgroups that copy one expert: enough to keep a bus busy, few enough to cost little where nothing is missing.
pub(crate) const GATHER_WORKGROUPS: u32 = 32;

/// Pairs of a routing, sorted by slot.
struct Grouped {
    pairs: Bound,
    tiles: Bound,
    max_tiles: u32,
}

/// The product of chosen experts with their tokens' rows.
struct ExpertProduct<'a> {
    bank: &'a GpuBank,
    part: Part,
    gate: Option<Part>,
    x: Act,
    ids: Act,
    out: Act,
}

/// Parameters of a layer's router, for steps without slots of experts; `tokens` is 0.
///
/// # Errors
///
/// A model without experts, or with more of something than the kernel has room for.
pub(crate) fn router_params(model: &Model, layer: usize, experts: u32, top_k: u32) -> Result<params::Router> {
    let Some(moe) = &model.config.moe else {
        return Err(Error::Gpu("a router in a model without experts".into()));
    };
    let p = params::Router {
        experts,
        top_k,
        groups: moe.num_groups as u32,
        top_k_groups: moe.top_k_groups as u32,
        sigmoid: u32::from(moe.scoring == Scoring::Sigmoid),
        top_two: u32::from(moe.group_score == GroupScore::TopTwo),
        norm: u32::from(moe.norm_top_k),
        layer: layer as u32,
        scaling: moe.scaling_factor,
        ..params::Router::default()
    };
    let limits = [
        ("experts a layer", p.experts, MAX_EXPERTS),
        ("experts chosen for a token", p.top_k, MAX_TOP_K),
        ("groups of experts", p.groups, MAX_GROUPS),
    ];
    match limits.into_iter().find(|(_, needed, limit)| needed > limit) {
        Some((what, needed, limit)) => Err(Error::Limit { what: what.into(), needed: needed.into(), limit: limit.into() }),
        None => Ok(p),
    }
}

/// Parameters of the kernel that gives missing experts of a bank slots; `record` as the tables have it.
pub(crate) fn admit_params(experts: usize, top_k: u32, bank: usize, record: usize) -> params::Admit {
    let (experts, bank, record) = (experts as u32, bank as u32, record as u32);
    params::Admit { experts, top_k, bank, record, half_life: HALF_LIFE, pad: [0; 3] }
}

impl<'a> Lowering<'a> {
    pub(super) fn router(&mut self, logits: Act, bias: Option<VecId>, layer: usize, ids: Act, weights: Act) -> Result<()> {
        let rows = self.row_count(logits);
        self.drafting = layer >= self.state.model.layers.len();
        let slots = self.state.slots.as_ref().filter(|_| !self.drafting);
        let bank = slots.and_then(|s| s.bank_of.get(layer).copied().flatten());
        let p = params::Router {
            tokens: rows.param(),
            bank: bank.unwrap_or(0) as u32,
            record: slots.map_or(0, |s| s.record as u32),
            ..router_params(&self.state.model, layer, self.width(logits), self.width(ids))?
        };
        let variant = Variant::new("router").flag("BIAS", bias.is_some()).flag("SLOTS", slots.is_some());
        let mut bind = vec![
            ("step", self.step()),
            ("logits", self.act(logits)),
            ("ids", self.act(ids)),
            ("weights", self.act(weights)),
            ("counters", (&self.state.counters).into()),
        ];
        bind.extend(bias.map(|b| ("bias", self.vector(b))));
        if let Some(slots) = slots {
            bind.extend([("slots", self.chosen(ids)?), ("residency", (&slots.tables).into())]);
        }
        self.grouped = None;
        self.emit(Emit::new(variant, &p, bind, [rows.each(), Dim::Fixed(1), Dim::Fixed(1)]))?;
        match (slots, bank) {
            (Some(slots), Some(bank)) if slots.partial[bank] => self.serve(slots, bank, ids),
            _ => Ok(()),
        }
    }

    /// The slots of the experts chosen; the experts themselves where each has its own slot.
    fn chosen(&mut self, ids: Act) -> Result<Bound> {
        if self.state.slots.is_none() || self.drafting {
            return Ok(self.act(ids));
        }
        let words = u64::from(self.row_count(ids).most() * self.width(ids));
        self.scratch("slots of chosen experts", words * 4)
    }

    /// What may follow a router in whose layer experts can be missing.
    fn serve(&mut self, slots: &Slots, bank: usize, ids: Act) -> Result<()> {
        let (rows, top_k) = (self.row_count(ids), self.width(ids));
        let chosen = self.chosen(ids)?;
        let p = params::Place { top_k, tokens: rows.param(), pad: [0; 2] };
        let bind =
            vec![("step", self.step()), ("ids", self.act(ids)), ("table", (&slots.round).into()), ("slots", chosen.clone())];
        let threads = (rows.most() * top_k).div_ceil(PLACE_THREADS);
        let grid = [Dim::Fixed(threads), Dim::Fixed(1), Dim::Fixed(1)];
        self.emit(Emit::new(Variant::new("place"), &p, bind, grid).only(When::Place))?;
        if !slots.can_gather() {
            return Ok(());
        }
        let p = admit_params(slots.experts, top_k, bank, slots.record);
        let one = Case::tokens(1, 1);
        let bind = vec![
            ("step", self.step()),
            ("ids", self.act(ids)),
            ("slots", chosen),
            ("residency", (&slots.tables).into()),
            ("heat", (&slots.heat).into()),
            ("work", (&slots.work).into()),
        ];
        self.emit(Emit::new(Variant::new("admit"), &p, bind, [Dim::Fixed(1); 3]).only(When::Gather).when(one))?;
        let blobs = self.bank(BankId(bank as u32));
        for source in &slots.sources[bank] {
            for slab in &blobs.slabs {
                let p = params::Gather {
                    quads: blobs.blob_words as u32 / 4,
                    bank_first: source.first as u32,
                    bank_count: source.rows as u32,
                    slab_first: slab.first as u32,
                    slab_count: slab.rows as u32,
                    pad: [0; 3],
                };
                let bind = vec![
                    ("step", self.step()),
                    ("work", (&slots.work).into()),
                    ("source", (&source.buffer).into()),
                    ("slab", (&slab.buffer).into()),
                ];
                let grid = [Dim::Fixed(GATHER_WORKGROUPS), Dim::Fixed(top_k), Dim::Fixed(1)];
                self.emit(Emit::new(Variant::new("gather"), &p, bind, grid).only(When::Gather).when(one))?;
            }
        }
        Ok(())
    }

    fn bank(&self, id: BankId) -> &'a GpuBank {
        let state = self.state;
        &state.weights.banks[id.0 as usize]
    }

    pub(super) fn experts_up(&mut self, bank: BankId, x: Act, ids: Act, out: Act) -> Result<()> {
        let bank = self.bank(bank);
        if bank.gate.format.is_quantised() != bank.up.format.is_quantised() {
            let (gate, up) = (bank.gate.format, bank.up.format);
            return Err(Error::Gpu(format!("experts with {gate} gates and {up} up matrices have no kernel; use --device cpu")));
        }
        self.experts(&ExpertProduct { bank, part: bank.up, gate: Some(bank.gate), x, ids, out })
    }

    pub(super) fn experts_down(&mut self, bank: BankId, x: Act, ids: Act, out: Act) -> Result<()> {
        let bank = self.bank(bank);
        self.experts(&ExpertProduct { bank, part: bank.down, gate: None, x, ids, out })
    }

    fn experts(&mut self, p: &ExpertProduct<'_>) -> Result<()> {
        let q8 = self.decl(p.x).kind == Kind::Q8;
        if q8 && !p.part.format.is_quantised() {
            return Err(Error::Gpu(format!("{} experts do not take 8-bit activations", p.part.format)));
        }
        match self.row_count(p.ids) {
            RowCount::Step(most) if most > MATVEC_TOKENS => {
                self.experts_matvec(p, q8, Case::tokens(0, MATVEC_TOKENS))?;
                self.experts_matmat(p, q8, Case::tokens(MATVEC_TOKENS + 1, u32::MAX))
            }
            _ => self.experts_matvec(p, q8, Case::ALWAYS),
        }
    }

    fn experts_params(&self, p: &ExpertProduct<'_>, slab: usize, max_tiles: u32) -> params::Experts {
        let slab = &p.bank.slabs[slab];
        params::Experts {
            rows: p.part.rows as u32,
            cols: p.part.cols as u32,
            row_words: p.part.row_words as u32,
            gate_row_words: p.gate.map_or(0, |g| g.row_words as u32),
            part_offset: p.part.offset as u32,
            gate_offset: p.gate.map_or(0, |g| g.offset as u32),
            blob_words: p.bank.blob_words as u32,
            top_k: self.width(p.ids),
            slab_first: slab.first as u32,
            slab_count: slab.rows as u32,
            tokens: self.row_count(p.ids).param(),
            max_tiles,
        }
    }

    fn experts_variant(&self, kernel: &'static str, p: &ExpertProduct<'_>, q8: bool) -> Variant {
        product_variant(kernel, p.part.format, p.gate.map(|g| g.format), q8, p.part.cols.is_multiple_of(4))
    }

    fn experts_matvec(&mut self, p: &ExpertProduct<'_>, q8: bool, case: Case) -> Result<()> {
        for slab in 0..p.bank.slabs.len() {
            let params = self.experts_params(p, slab, 0);
            let quantised = p.part.format.is_quantised();
            let v = self.experts_variant("experts_matvec", p, q8);
            let (v, rows) = matvec_shape(v, params.rows, params.cols, 1, quantised, self.gpu.tier);
            let [gx, gy] = spread(params.rows.div_ceil(rows));
            let pairs = match self.row_count(p.ids) {
                RowCount::Step(_) => Dim::Each(params.top_k),
                RowCount::Fixed(n) => Dim::Fixed(n * params.top_k),
            };
            let bind = vec![
                ("step", self.step()),
                ("x", self.act(p.x)),
                ("bank", (&p.bank.slabs[slab].buffer).into()),
                ("slots", self.chosen(p.ids)?),
                ("out", self.act(p.out)),
            ];
            self.emit(Emit::new(v, &params, bind, [gx, gy, pairs]).when(case))?;
        }
        Ok(())
    }

    fn experts_matmat(&mut self, p: &ExpertProduct<'_>, q8: bool, case: Case) -> Result<()> {
        let (top_k, slots) = (self.width(p.ids), p.bank.slots as u32);
        let grouped = self.group(p.ids, slots, case)?;
        for slab in 0..p.bank.slabs.len() {
            let params = self.experts_params(p, slab, grouped.max_tiles);
            let v = self.experts_variant("experts_matmat", p, q8).set("TN", TILE);
            let bind = vec![
                ("step", self.step()),
                ("x", self.act(p.x)),
                ("bank", (&p.bank.slabs[slab].buffer).into()),
                ("pairs", grouped.pairs.clone()),
                ("tiles", grouped.tiles.clone()),
                ("out", self.act(p.out)),
            ];
            let rows = params.rows.div_ceil(shape::matmat_rows(p.gate.is_some()));
            let grid = [Dim::Fixed(rows), Dim::Tiles { top_k, tile: TILE, experts: slots }, Dim::Fixed(1)];
            self.emit(Emit::new(v, &params, bind, grid).when(case))?;
        }
        Ok(())
    }

    /// Sorts the pairs of a routing by slot, once for all products that read it.
    fn group(&mut self, ids: Act, slots: u32, case: Case) -> Result<Grouped> {
        let (top_k, most) = (self.width(ids), self.row_count(ids).most());
        let max_tiles = Dim::Tiles { top_k, tile: TILE, experts: slots }.at(most);
        let chosen = self.chosen(ids)?;
        let counts = self.scratch("pairs of each slot", u64::from(slots) * 4)?;
        let pairs = self.scratch("pairs sorted by slot", u64::from(most * top_k) * 4)?;
        let tiles = self.scratch("tiles of experts", u64::from(4 + 4 * max_tiles) * 4)?;
        if self.grouped != Some(ids) {
            self.grouped = Some(ids);
            let p = params::Group { slots, top_k, tile: TILE, tokens: self.row_count(ids).param() };
            let grid = [Dim::Fixed(slots), Dim::Fixed(1), Dim::Fixed(1)];
            let bind = vec![("step", self.step()), ("chosen", chosen.clone()), ("counts", counts.clone())];
            self.emit(Emit::new(Variant::new("group_count"), &p, bind, grid).when(case))?;
            let bind = vec![
                ("step", self.step()),
                ("chosen", chosen),
                ("counts", counts),
                ("pairs", pairs.clone()),
                ("tiles", tiles.clone()),
            ];
            self.emit(Emit::new(Variant::new("group_fill"), &p, bind, grid).when(case))?;
        }
        Ok(Grouped { pairs, tiles, max_tiles })
    }
}
