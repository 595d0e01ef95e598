//! Operations on rows: embedding, norms, quantising, rotation, the latent cache's append, sums, sampling.

use pleiad_shaders::params;

use super::{Dim, Emit, Lowering, RowCount};
use crate::{
    error::{Error, Result},
    executor::CacheFormat,
    gpu::pipelines::Variant,
    plan::{Act, Heads, MatId, VecId},
    steps::parts_of,
};

/// Elements a workgroup of the simple kernels.
pub(super) const ELEMENTS: u32 = 256;

impl Lowering<'_> {
    pub(super) fn embed(&mut self, table: MatId, out: Act) -> Result<()> {
        let m = &self.state.weights.mats[table.0 as usize];
        let elements = if m.format.is_quantised() { 2048 } else { ELEMENTS };
        let width = m.cols as u32;
        for slab in &m.slabs {
            let variant = Variant::new("embed").set("FORMAT", format_name(m.format));
            let p = params::Embed { width, row_words: m.row_words as u32, row_base: slab.first as u32, rows: slab.rows as u32 };
            let bind = vec![
                ("step", self.step()),
                ("ids", (&self.state.ids).into()),
                ("w", (&slab.buffer).into()),
                ("out", self.act(out)),
            ];
            let grid = [Dim::Fixed(width.div_ceil(elements)), self.row_count(out).each(), Dim::Fixed(1)];
            self.emit(Emit::new(variant, &p, bind, grid))?;
        }
        Ok(())
    }

    pub(super) fn norm(&mut self, x: Act, weight: VecId, eps: f32, out: Option<Act>, q8: Option<Act>) -> Result<()> {
        if out.is_none() && q8.is_none() {
            return Ok(());
        }
        let rows = self.row_count(x);
        let variant = Variant::new("norm").flag("OUT_F32", out.is_some()).flag("OUT_Q8", q8.is_some());
        let p = params::Norm { width: self.width(x), eps, tokens: rows.param(), pad: 0 };
        let mut bind = vec![("step", self.step()), ("x", self.act(x)), ("weight", self.vector(weight))];
        bind.extend(out.map(|a| ("out", self.act(a))));
        bind.extend(q8.map(|a| ("q8", self.act(a))));
        self.emit(Emit::new(variant, &p, bind, [rows.each(), Dim::Fixed(1), Dim::Fixed(1)]))
    }

    pub(super) fn quantise(&mut self, x: Act, out: Act) -> Result<()> {
        let (width, rows) = (self.width(x), self.row_count(x));
        // The experts' inner rows lie side by side, K a token; the down form reads each as a row of its own.
        let parts = parts_of(self.plan, out) as u32;
        let (width, rows_param, each) = match rows {
            _ if parts == 1 => (width, rows.param(), rows.each()),
            RowCount::Step(most) => (width / parts, most * parts, Dim::Each(parts)),
            RowCount::Fixed(n) => (width / parts, n * parts, Dim::Fixed(n * parts)),
        };
        if !width.is_multiple_of(32) {
            return Err(Error::Gpu(format!("rows of {width} elements cannot be quantised in blocks of 32")));
        }
        let p = params::Quantise { width, tokens: rows_param, pad: [0; 2] };
        let bind = vec![("step", self.step()), ("x", self.act(x)), ("out", self.act(out))];
        let grid = [Dim::Fixed(width.div_ceil(ELEMENTS)), each, Dim::Fixed(1)];
        self.emit(Emit::new(Variant::new("quantise"), &p, bind, grid))
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
        let bind = vec![("step", self.step()), ("rope", (&self.state.rope).into()), ("x", self.act(x.act))];
        let grid = [Dim::Fixed((p.heads * dr / 2).div_ceil(64)), rows.each(), Dim::Fixed(1)];
        self.emit(Emit::new(Variant::new("rope"), &p, bind, grid))
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
        let variant = Variant::new("latent").flag("CACHE_F32", self.cache_f32());
        let bind = vec![
            ("step", self.step()),
            ("kv", self.act(kv)),
            ("weight", self.vector(norm)),
            ("rope", (&self.state.rope).into()),
            ("cache", self.cache(layer)?),
        ];
        self.emit(Emit::new(variant, &p, bind, [rows.each(), Dim::Fixed(1), Dim::Fixed(1)]))
    }

    pub(super) fn cache_f32(&self) -> bool {
        self.state.cache_format == CacheFormat::F32
    }

    pub(super) fn cache(&self, layer: usize) -> Result<super::Bound> {
        let cache = self.state.caches.get(layer).ok_or_else(|| Error::Gpu(format!("layer {layer} has no latent cache")))?;
        Ok(cache.into())
    }

    pub(super) fn combine(&mut self, y: Act, weights: Act, x: Act) -> Result<()> {
        let rows = self.row_count(x);
        let width = self.width(x);
        let p = params::Combine { width, top_k: self.width(weights), tokens: rows.param(), pad: 0 };
        let bind = vec![("step", self.step()), ("y", self.act(y)), ("weights", self.act(weights)), ("x", self.act(x))];
        let grid = [Dim::Fixed(width.div_ceil(ELEMENTS)), rows.each(), Dim::Fixed(1)];
        self.emit(Emit::new(Variant::new("combine"), &p, bind, grid))
    }

    /// The last row, or the last one that counts of a step with drafts.
    pub(super) fn row_of(&mut self, x: Act, out: Act, taken: bool) -> Result<()> {
        let width = self.width(x);
        let p = params::LastRow { width, pad: [0; 3] };
        let bind = vec![("step", self.step()), ("x", self.act(x)), ("out", self.act(out))];
        let grid = [Dim::Fixed(width.div_ceil(ELEMENTS)), Dim::Fixed(1), Dim::Fixed(1)];
        self.emit(Emit::new(Variant::new("last_row").flag("TAKEN", taken), &p, bind, grid))
    }

    /// Samples from the one row, or verifies the draft that follows `row`.
    pub(super) fn sample(&mut self, logits: Act, row: Option<usize>) -> Result<()> {
        let p = params::Sample { vocab: self.width(logits), row: row.unwrap_or(0) as u32, pad: [0; 2] };
        let mut bind = vec![("step", self.step()), ("ids", self.ids()), ("logits", self.act(logits))];
        bind.extend(row.is_none().then(|| ("ring", (&self.state.ring).into())));
        let variant = Variant::new("sample").flag("VERIFY", row.is_some());
        self.emit(Emit::new(variant, &p, bind, [Dim::Fixed(1); 3]))
    }
}

/// A format's name as the shaders know it.
pub(super) fn format_name(format: pleiad_models::Format) -> String {
    format.name().to_ascii_lowercase()
}
