//! Operations on rows: embedding, norms, quantising, rotation, the latent cache's append, sums, sampling.

use pleiad_shaders::{Defines, params};

use super::{Dim, Emit, Lowering, ONE, RowCount};
use crate::{
    error::{Error, Result},
    executor::CacheFormat,
    plan::{Act, Heads, MatId, VecId},
    steps::parts_of,
};

/// Elements a block of the simple kernels.
pub(super) const ELEMENTS: u32 = 256;

impl Lowering<'_> {
    pub(super) fn embed(&mut self, table: MatId, out: Act) -> Result<()> {
        let m = &self.state.mats[table.0 as usize];
        let width = m.cols as u32;
        let pieces = if m.format.is_quantised() { width / 32 } else { width.div_ceil(8) };
        let p = params::Embed { width, row_words: m.row_words as u32, row_base: 0, rows: m.rows as u32 };
        let bind = vec![("ids", self.state.ids.address), ("w", m.memory.address), ("out", self.act(out))];
        let grid = [Dim::Fixed(pieces.div_ceil(64)), self.row_count(out).each(), ONE];
        self.emit(Emit::new("embed", &p, bind, grid).with(Defines::new().set("FORMAT", format_name(m.format))))
    }

    pub(super) fn norm(&mut self, x: Act, weight: VecId, eps: f32, out: Option<Act>, q8: Option<Act>) -> Result<()> {
        if out.is_none() && q8.is_none() {
            return Ok(());
        }
        let rows = self.row_count(x);
        let p = params::Norm { width: self.width(x), eps, tokens: rows.param(), pad: 0 };
        let mut bind = vec![("x", self.act(x)), ("weight", self.vector(weight))];
        bind.extend(out.map(|a| ("out", self.act(a))));
        bind.extend(q8.map(|a| ("q8", self.act(a))));
        let defines = Defines::new().flag_if("OUT_F32", out.is_some()).flag_if("OUT_Q8", q8.is_some());
        self.emit(Emit::new("norm", &p, bind, [rows.each(), ONE, ONE]).with(defines))
    }

    pub(super) fn quantise(&mut self, x: Act, out: Act) -> Result<()> {
        let (width, rows) = (self.width(x), self.row_count(x));
        // The experts' inner rows lie side by side, K a token; the down form reads each as a row of its own.
        let parts = parts_of(self.plan, out) as u32;
        let (width, tokens, each) = match rows {
            _ if parts == 1 => (width, rows.param(), rows.each()),
            RowCount::Step(most) => (width / parts, most * parts, Dim::Each(parts)),
            RowCount::Fixed(n) => (width / parts, n * parts, Dim::Fixed(n * parts)),
        };
        if !width.is_multiple_of(32) {
            return Err(Error::Gpu(format!("rows of {width} elements cannot be quantised in blocks of 32")));
        }
        let p = params::Quantise { width, tokens, pad: [0; 2] };
        let bind = vec![("x", self.act(x)), ("out", self.act(out))];
        self.emit(Emit::new("quantise", &p, bind, [Dim::Fixed(width.div_ceil(512)), each, ONE]))
    }

    pub(super) fn rope(&mut self, x: Heads, heads: usize) -> Result<()> {
        let config = &self.state.model.config;
        let (dr, rows) = (config.attention.qk_rope_head_dim as u32, self.row_count(x.act));
        let p = params::Rope {
            heads: heads as u32,
            dr,
            offset: x.offset as u32,
            stride: x.stride as u32,
            width: self.width(x.act),
            interleaved: u32::from(config.rope.interleaved),
            tokens: rows.param(),
            pad: 0,
        };
        let bind = vec![("rope", self.local().rope), ("x", self.act(x.act))];
        self.emit(Emit::new("rope", &p, bind, [Dim::Fixed((p.heads * dr / 2).div_ceil(64)), rows.each(), ONE]))
    }

    pub(super) fn latent(&mut self, kv: Act, norm: VecId, eps: f32, layer: usize) -> Result<()> {
        let config = &self.state.model.config;
        let rows = self.row_count(kv);
        let p = params::Latent {
            r: config.attention.kv_lora_rank as u32,
            dr: config.attention.qk_rope_head_dim as u32,
            eps,
            interleaved: u32::from(config.rope.interleaved),
            tokens: rows.param(),
            pad: [0; 3],
        };
        let bind =
            vec![("kv", self.act(kv)), ("weight", self.vector(norm)), ("rope", self.local().rope), ("cache", self.cache(layer)?)];
        let defines = self.cache_defines();
        self.emit(Emit::new("latent", &p, bind, [rows.each(), ONE, ONE]).with(defines))
    }

    pub(super) fn cache_f32(&self) -> bool {
        self.state.cache_format == CacheFormat::F32
    }

    pub(super) fn cache_defines(&self) -> Defines {
        Defines::new().flag_if("CACHE_F32", self.cache_f32())
    }

    /// The weighted sum of the experts' outputs; steps of few tokens have it from the product before (`experts_down`).
    pub(super) fn combine(&mut self, y: Act, weights: Act, x: Act) -> Result<()> {
        let Some(case) = self.combine_case(y) else { return Ok(()) };
        let (rows, width) = (self.row_count(x), self.width(x));
        let p = params::Combine { width, top_k: self.width(weights), tokens: rows.param(), pad: 0 };
        let bind = vec![("y", self.act(y)), ("weights", self.act(weights)), ("x", self.act(x))];
        self.emit(Emit::new("combine", &p, bind, [Dim::Fixed(width.div_ceil(ELEMENTS)), rows.each(), ONE]).when(case))
    }

    pub(super) fn last_row(&mut self, x: Act, out: Act) -> Result<()> {
        let width = self.width(x);
        let p = params::LastRow { width, pad: [0; 3] };
        let bind = vec![("x", self.act(x)), ("out", self.act(out))];
        self.emit(Emit::new("last_row", &p, bind, [Dim::Fixed(width.div_ceil(ELEMENTS)), ONE, ONE]))
    }

    pub(super) fn sample(&mut self, logits: Act) -> Result<()> {
        let p = params::Sample { vocab: self.width(logits), row: 0, pad: [0; 2] };
        let state = self.state;
        let bind = vec![("ids", state.ids.address), ("ring", state.ring.address), ("logits", self.act(logits))];
        self.emit(Emit::new("sample", &p, bind, [ONE; 3]))
    }
}

/// A format's name as the kernels know it.
pub(super) fn format_name(format: pleiad_models::Format) -> String {
    format.name().to_ascii_lowercase()
}
