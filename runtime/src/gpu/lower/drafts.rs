//! What drafts need besides the operations of every layer.

use pleiad_shaders::params;

use super::{Bound, Dim, Emit, Lowering, rows::ELEMENTS};
use crate::{error::Result, gpu::pipelines::Variant, plan::Act};

impl Lowering<'_> {
    pub(super) fn ids(&self) -> Bound {
        (&self.state.ids).into()
    }

    pub(super) fn join(&mut self, a: Act, b: Act, out: Act) -> Result<()> {
        let rows = self.row_count(out);
        let p = params::Join { n: self.width(a), m: self.width(b), tokens: rows.param(), pad: 0 };
        let bind = vec![("step", self.step()), ("a", self.act(a)), ("b", self.act(b)), ("out", self.act(out))];
        let grid = [Dim::Fixed((p.n + p.m).div_ceil(ELEMENTS)), rows.each(), Dim::Fixed(1)];
        self.emit(Emit::new(Variant::new("join"), &p, bind, grid))
    }

    pub(super) fn shift(&mut self, given: bool) -> Result<()> {
        let p = params::Shift { given: given.into(), pad: [0; 3] };
        let bind = vec![("step", self.step()), ("ids", self.ids())];
        self.emit(Emit::new(Variant::new("shift"), &p, bind, [Dim::Fixed(1); 3]))
    }

    pub(super) fn settle(&mut self, drafts: usize) -> Result<()> {
        let p = params::Settle { drafts: drafts as u32, pad: [0; 3] };
        let bind = vec![("step", self.step()), ("ids", self.ids())];
        self.emit(Emit::new(Variant::new("settle"), &p, bind, [Dim::Fixed(1); 3]))
    }

    pub(super) fn draft(&mut self, logits: Act, index: usize, of: usize) -> Result<()> {
        let p = params::Draft { vocab: self.width(logits), index: index as u32, drafts: of as u32, pad: 0 };
        let bind = vec![("step", self.step()), ("ids", self.ids()), ("logits", self.act(logits))];
        self.emit(Emit::new(Variant::new("draft"), &p, bind, [Dim::Fixed(1); 3]))
    }
}
