//! Products with weight matrices.

use pleiad_models::Format;
use pleiad_shaders::{Defines, cuda::shape, params};

use super::{Case, Dim, Emit, Lowering, MATVEC_TOKENS, ONE, RowCount, rows::format_name};
use crate::{
    cuda::state::CudaMatrix,
    error::{Error, Result},
    plan::{Act, Heads, Kind, MatId},
};

/// One vector a head and token in a buffer, in elements.
#[derive(Clone, Copy, Debug)]
pub(super) struct Operand {
    pub address: u64,
    pub q8: bool,
    pub offset: u32,
    pub stride: u32,
    pub width: u32,
}

/// A product with every matrix of a stack.
pub(super) struct Product<'a> {
    pub w: &'a CudaMatrix,
    pub gate: Option<&'a CudaMatrix>,
    pub x: Operand,
    pub out: Operand,
    pub add: bool,
    pub rows: RowCount,
}

/// Tokens a tile of the matrix-matrix kernels, for steps of up to `most` tokens.
fn tile_tokens(most: u32) -> u32 {
    if most > 32 { 64 } else { 32 }
}

/// Defines of a product with weights of that format and gate.
pub(super) fn product_defines(format: Format, gate: Option<Format>, q8: bool) -> Defines {
    let d = Defines::new().set("FORMAT", format_name(format)).flag_if("ACT_Q8", q8);
    match gate {
        Some(gate) => d.flag("GATED").set("GATE_FORMAT", format_name(gate)),
        None => d,
    }
}

impl<'a> Lowering<'a> {
    fn matrix(&self, id: MatId) -> &'a CudaMatrix {
        let state = self.state;
        &state.mats[id.0 as usize]
    }

    /// All elements of an activation's rows, one head.
    fn plain(&self, act: Act) -> Operand {
        let decl = self.decl(act);
        Operand { address: self.act(act), q8: decl.kind == Kind::Q8, offset: 0, stride: 0, width: decl.width as u32 }
    }

    fn heads(&self, h: Heads) -> Operand {
        Operand { offset: h.offset as u32, stride: h.stride as u32, ..self.plain(h.act) }
    }

    pub(super) fn mat_mul(&mut self, w: MatId, x: Act, out: Act, add: bool) -> Result<()> {
        let (w, rows) = (self.matrix(w), self.row_count(x));
        let (x, out) = (self.plain(x), self.plain(out));
        self.product(&Product { w, gate: None, x, out, add, rows }, Case::ALWAYS)
    }

    pub(super) fn gated_mat_mul(&mut self, gate: MatId, up: MatId, x: Act, out: Act) -> Result<()> {
        let (g, u, rows) = (self.matrix(gate), self.matrix(up), self.row_count(x));
        let (x, out) = (self.plain(x), self.plain(out));
        if g.format.is_quantised() == u.format.is_quantised() {
            return self.product(&Product { w: u, gate: Some(g), x, out, add: false, rows }, Case::ALWAYS);
        }
        // Formats of different kinds: two products, then the gate.
        let bytes = u64::from(rows.most()) * u64::from(out.width) * 4;
        let gates = Operand { address: self.scratch("gate products", bytes)?, ..out };
        let ups = Operand { address: self.scratch("up products", bytes)?, ..out };
        self.product(&Product { w: g, gate: None, x, out: gates, add: false, rows }, Case::ALWAYS)?;
        self.product(&Product { w: u, gate: None, x, out: ups, add: false, rows }, Case::ALWAYS)?;
        let p = params::Swiglu { width: out.width, tokens: rows.param(), pad: [0; 2] };
        let bind = vec![("gate", gates.address), ("up", ups.address), ("out", out.address)];
        self.emit(Emit::new("swiglu", &p, bind, [Dim::Fixed(out.width.div_ceil(256)), rows.each(), ONE]))
    }

    pub(super) fn head_mat_mul(&mut self, w: MatId, x: Heads, out: Heads) -> Result<()> {
        let (w, rows) = (self.matrix(w), self.row_count(x.act));
        let (x, out) = (self.heads(x), self.heads(out));
        self.product(&Product { w, gate: None, x, out, add: false, rows }, Case::ALWAYS)
    }

    /// Matrix-vector kernels for few rows, matrix-matrix kernels for many; both where a step may have either.
    pub(super) fn product(&mut self, p: &Product<'_>, case: Case) -> Result<()> {
        if p.x.q8 && !(p.w.format.is_quantised() && p.gate.is_none_or(|g| g.format.is_quantised())) {
            return Err(Error::Gpu(format!("{} weights do not take 8-bit activations", p.w.format)));
        }
        match p.rows {
            RowCount::Fixed(n) | RowCount::Step(n) if n <= MATVEC_TOKENS => self.matvec(p, n.next_power_of_two(), case),
            RowCount::Fixed(_) => self.matmat(p, case),
            RowCount::Step(_) => {
                self.matvec(p, MATVEC_TOKENS, Case { tokens: (0, MATVEC_TOKENS), ..case })?;
                self.matmat(p, Case { tokens: (MATVEC_TOKENS + 1, u32::MAX), ..case })
            }
        }
    }

    fn matvec(&mut self, p: &Product<'_>, tokens: u32, case: Case) -> Result<()> {
        let (params, bind, heads) = describe(p);
        let s = shape::gemv(params.rows, params.cols, tokens, p.w.format.is_quantised());
        let x4 = [params.cols, p.x.offset, p.x.stride, p.x.width].iter().all(|n| n.is_multiple_of(4));
        let defines = product_defines(p.w.format, p.gate.map(|g| g.format), p.x.q8)
            .flag_if("X4", x4 && !p.x.q8)
            .flag_if("ADD", p.add)
            .set("TPR", s.tpr)
            .set("RPT", s.rpt)
            .set("TOKENS", tokens);
        let blocks = params.rows.div_ceil(s.rows(shape::GEMV_THREADS));
        self.emit(Emit::new("matvec", &params, bind, [Dim::Fixed(blocks), Dim::Fixed(heads), ONE]).with(defines).when(case))
    }

    fn matmat(&mut self, p: &Product<'_>, case: Case) -> Result<()> {
        let (params, bind, heads) = describe(p);
        let tile = tile_tokens(p.rows.most());
        let defines = product_defines(p.w.format, p.gate.map(|g| g.format), p.x.q8).set("TN", tile).flag_if("ADD", p.add);
        let grid = [Dim::Fixed(params.rows.div_ceil(shape::GEMM_ROWS)), p.rows.per(tile), Dim::Fixed(heads)];
        self.emit(Emit::new("matmat", &params, bind, grid).with(defines).when(case))
    }
}

/// Parameters, bindings and heads of a product.
fn describe(p: &Product<'_>) -> (params::Mat, Vec<(&'static str, u64)>, u32) {
    let w = p.w;
    let params = params::Mat {
        rows: w.rows as u32,
        cols: w.cols as u32,
        row_words: w.row_words as u32,
        gate_row_words: p.gate.map_or(0, |g| g.row_words as u32),
        row_base: 0,
        tokens: p.rows.param(),
        head_base: 0,
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
    let mut bind = vec![("x", p.x.address), ("w", w.memory.address), ("out", p.out.address)];
    bind.extend(p.gate.map(|g| ("gate", g.memory.address)));
    (params, bind, w.count as u32)
}
