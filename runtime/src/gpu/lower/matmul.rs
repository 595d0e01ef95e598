//! Products with weight matrices.

use pleiad_models::Format;
use pleiad_shaders::{params, shape};

use super::{Bound, Case, Dim, Emit, Lowering, MATVEC_TOKENS, RowCount, rows::format_name};
use crate::{
    error::{Error, Result},
    gpu::{
        adapters::Tier,
        pipelines::Variant,
        weights::{GpuMatrix, Slab},
    },
    plan::{Act, Heads, Kind, MatId},
};

/// One vector a head and token in a buffer, in elements.
#[derive(Clone, Debug)]
pub(super) struct Operand {
    pub bound: Bound,
    pub q8: bool,
    pub offset: u32,
    pub stride: u32,
    pub width: u32,
}

/// A product with every matrix of a stack.
pub(super) struct Product<'a> {
    pub w: &'a GpuMatrix,
    pub gate: Option<&'a GpuMatrix>,
    pub x: Operand,
    pub out: Operand,
    pub add: bool,
    pub rows: RowCount,
}

/// Tokens a tile of the matrix-matrix kernels, for steps of up to `most` tokens.
fn tile_tokens(most: u32) -> u32 {
    if most > 32 { 64 } else { 32 }
}

/// The matrix-vector kernels' tokens at once that serve `n`.
fn matvec_tokens(n: u32) -> u32 {
    n.clamp(1, MATVEC_TOKENS).next_power_of_two()
}

/// Defines of a product with weights of that format, gate and activations.
pub(super) fn product_variant(kernel: &'static str, format: Format, gate: Option<Format>, q8: bool, x4: bool) -> Variant {
    let v = Variant::new(kernel).set("FORMAT", format_name(format)).flag("ACT_Q8", q8).flag("X4", x4 && !q8);
    match gate {
        Some(gate) => v.flag("GATED", true).set("GATE_FORMAT", format_name(gate)),
        None => v,
    }
}

/// Adds the shape of a matrix-vector kernel; returns the rows of one workgroup.
pub(super) fn matvec_shape(v: Variant, rows: u32, cols: u32, tokens: u32, quantised: bool, tier: Tier) -> (Variant, u32) {
    let s = shape::matvec(rows, cols, tokens, quantised, tier == Tier::Subgroup);
    let v = v.set("TPR", s.tpr).set("GROUPS", s.groups).set("RPT", s.rpt).flag("SUBGROUP", s.subgroup);
    (v, s.groups * s.rpt)
}

/// The first two dimensions of a grid of `n` workgroups.
pub(super) fn spread(n: u32) -> [Dim; 2] {
    shape::spread(n).map(Dim::Fixed)
}

impl<'a> Lowering<'a> {
    fn matrix(&self, id: MatId) -> &'a GpuMatrix {
        let state = self.state;
        &state.weights.mats[id.0 as usize]
    }

    /// All elements of an activation's rows, one head.
    fn plain(&self, act: Act) -> Operand {
        let decl = self.decl(act);
        let width = decl.width as u32;
        Operand { bound: self.act(act), q8: decl.kind == Kind::Q8, offset: 0, stride: 0, width }
    }

    fn heads(&self, h: Heads) -> Operand {
        Operand { offset: h.offset as u32, stride: h.stride as u32, ..self.plain(h.act) }
    }

    pub(super) fn mat_mul(&mut self, w: MatId, x: Act, out: Act, add: bool) -> Result<()> {
        let (w, rows) = (self.matrix(w), self.row_count(x));
        let (x, out) = (self.plain(x), self.plain(out));
        self.product(&Product { w, gate: None, x, out, add, rows })
    }

    pub(super) fn gated_mat_mul(&mut self, gate: MatId, up: MatId, x: Act, out: Act) -> Result<()> {
        let (g, u, rows) = (self.matrix(gate), self.matrix(up), self.row_count(x));
        let (x, out) = (self.plain(x), self.plain(out));
        let same_cut = g.slabs.len() == u.slabs.len() && g.slabs.iter().zip(&u.slabs).all(|(g, u)| g.first == u.first);
        if same_cut && g.format.is_quantised() == u.format.is_quantised() {
            return self.product(&Product { w: u, gate: Some(g), x, out, add: false, rows });
        }
        // Formats of different kinds: two products, then the gate.
        let bytes = u64::from(rows.most()) * u64::from(out.width) * 4;
        let gates = Operand { bound: self.scratch("gate products", bytes)?, ..out.clone() };
        let ups = Operand { bound: self.scratch("up products", bytes)?, ..out.clone() };
        self.product(&Product { w: g, gate: None, x: x.clone(), out: gates.clone(), add: false, rows })?;
        self.product(&Product { w: u, gate: None, x, out: ups.clone(), add: false, rows })?;
        let p = params::Swiglu { width: out.width, tokens: rows.param(), pad: [0; 2] };
        let bind = vec![("step", self.step()), ("gate", gates.bound), ("up", ups.bound), ("out", out.bound)];
        let grid = [Dim::Fixed(out.width.div_ceil(256)), rows.each(), Dim::Fixed(1)];
        self.emit(Emit::new(Variant::new("swiglu"), &p, bind, grid))
    }

    pub(super) fn head_mat_mul(&mut self, w: MatId, x: Heads, out: Heads) -> Result<()> {
        let (w, rows) = (self.matrix(w), self.row_count(x.act));
        let (x, out) = (self.heads(x), self.heads(out));
        self.product(&Product { w, gate: None, x, out, add: false, rows })
    }

    fn product(&mut self, p: &Product<'_>) -> Result<()> {
        self.product_when(p, Case::ALWAYS)
    }

    /// Matrix-vector kernels for few rows, matrix-matrix kernels for many; both where a step may have either.
    pub(super) fn product_when(&mut self, p: &Product<'_>, case: Case) -> Result<()> {
        if p.x.q8 && !(p.w.format.is_quantised() && p.gate.is_none_or(|g| g.format.is_quantised())) {
            return Err(Error::Gpu(format!("{} weights do not take 8-bit activations", p.w.format)));
        }
        for i in 0..p.w.slabs.len() {
            match p.rows {
                RowCount::Fixed(n) if n <= MATVEC_TOKENS => self.matvec(p, i, matvec_tokens(n), case)?,
                RowCount::Fixed(_) => self.matmat(p, i, case)?,
                RowCount::Step(most) if most <= MATVEC_TOKENS => self.matvec(p, i, matvec_tokens(most), case)?,
                RowCount::Step(_) => {
                    self.matvec(p, i, MATVEC_TOKENS, Case { tokens: (0, MATVEC_TOKENS), ..case })?;
                    self.matmat(p, i, Case { tokens: (MATVEC_TOKENS + 1, u32::MAX), ..case })?;
                }
            }
        }
        Ok(())
    }

    fn matvec(&mut self, p: &Product<'_>, slab: usize, tokens: u32, case: Case) -> Result<()> {
        let (params, bind, heads) = self.describe(p, slab);
        let v = self.product_defines("matvec", p).set("TOKENS", tokens).flag("ADD", p.add);
        let (v, rows) = matvec_shape(v, params.rows, params.cols, tokens, p.w.format.is_quantised(), self.gpu.tier);
        let [gx, gy] = spread(params.rows.div_ceil(rows));
        self.emit(Emit::new(v, &params, bind, [gx, gy, Dim::Fixed(heads)]).when(case))
    }

    fn matmat(&mut self, p: &Product<'_>, slab: usize, case: Case) -> Result<()> {
        let (params, bind, heads) = self.describe(p, slab);
        let tile = tile_tokens(p.rows.most());
        let v = self.product_defines("matmat", p).set("TN", tile).flag("ADD", p.add);
        let rows = shape::matmat_rows(p.gate.is_some());
        let grid = [Dim::Fixed(params.rows.div_ceil(rows)), p.rows.per(tile), Dim::Fixed(heads)];
        self.emit(Emit::new(v, &params, bind, grid).when(case))
    }

    fn product_defines(&self, kernel: &'static str, p: &Product<'_>) -> Variant {
        let x4 = [p.w.cols as u32, p.x.offset, p.x.stride, p.x.width].iter().all(|n| n.is_multiple_of(4));
        product_variant(kernel, p.w.format, p.gate.map(|g| g.format), p.x.q8, x4)
    }

    /// Parameters, bindings and heads of a slab's dispatch.
    fn describe(&self, p: &Product<'_>, slab: usize) -> (params::Mat, Vec<(&'static str, Bound)>, u32) {
        let w = p.w;
        let Slab { buffer, first, rows } = &w.slabs[slab];
        let stacked = w.count > 1;
        let params = params::Mat {
            rows: if stacked { w.rows } else { *rows } as u32,
            cols: w.cols as u32,
            row_words: w.row_words as u32,
            gate_row_words: p.gate.map_or(0, |g| g.row_words as u32),
            row_base: if stacked { 0 } else { *first as u32 },
            tokens: p.rows.param(),
            head_base: if stacked { (first / w.rows.max(1)) as u32 } else { 0 },
            pad0: 0,
            x_offset: p.x.offset,
            x_stride: p.x.stride,
            x_width: p.x.width,
            pad1: 0,
            out_offset: p.out.offset,
            out_stride: p.out.stride,
            out_width: p.out.width,
            pad2: 0,
        };
        let mut bind = vec![("step", self.step()), ("x", p.x.bound.clone()), ("w", buffer.into()), ("out", p.out.bound.clone())];
        bind.extend(p.gate.map(|g| ("gate", (&g.slabs[slab].buffer).into())));
        (params, bind, if stacked { (rows / w.rows.max(1)) as u32 } else { 1 })
    }
}
