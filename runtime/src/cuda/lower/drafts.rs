//! What drafts need besides the operations of every layer.

use pleiad_shaders::{Defines, params};

use super::{Dim, Emit, Lowering, ONE, rows::ELEMENTS};
use crate::{error::Result, plan::Act};

impl Lowering<'_> {
    pub(super) fn join(&mut self, a: Act, b: Act, out: Act) -> Result<()> {
        let rows = self.row_count(out);
        let p = params::Join { n: self.width(a), m: self.width(b), tokens: rows.param(), pad: 0 };
        let bind = vec![("a", self.act(a)), ("b", self.act(b)), ("out", self.act(out))];
        self.emit(Emit::new("join", &p, bind, [Dim::Fixed((p.n + p.m).div_ceil(ELEMENTS)), rows.each(), ONE]))
    }

    pub(super) fn verify(&mut self, logits: Act, row: usize) -> Result<()> {
        let p = params::Sample { vocab: self.width(logits), row: row as u32, pad: [0; 2] };
        let state = self.state;
        let bind = vec![("ids", state.ids.address), ("ring", state.ring.address), ("logits", self.act(logits))];
        self.emit(Emit::new("sample", &p, bind, [ONE; 3]).with(Defines::new().flag("VERIFY")))
    }

    pub(super) fn shift(&mut self, given: bool) -> Result<()> {
        let p = params::Shift { given: given.into(), pad: [0; 3] };
        self.emit(Emit::new("shift", &p, vec![("ids", self.state.ids.address)], [ONE; 3]))
    }

    pub(super) fn taken_row(&mut self, x: Act, out: Act) -> Result<()> {
        let width = self.width(x);
        let p = params::LastRow { width, pad: [0; 3] };
        let bind = vec![("x", self.act(x)), ("out", self.act(out))];
        let grid = [Dim::Fixed(width.div_ceil(ELEMENTS)), ONE, ONE];
        self.emit(Emit::new("last_row", &p, bind, grid).with(Defines::new().flag("TAKEN")))
    }

    pub(super) fn settle(&mut self, drafts: usize) -> Result<()> {
        let p = params::Settle { drafts: drafts as u32, pad: [0; 3] };
        self.emit(Emit::new("settle", &p, vec![("ids", self.state.ids.address)], [ONE; 3]))
    }

    pub(super) fn draft(&mut self, logits: Act, index: usize, of: usize) -> Result<()> {
        let p = params::Draft { vocab: self.width(logits), index: index as u32, drafts: of as u32, pad: 0 };
        let bind = vec![("ids", self.state.ids.address), ("logits", self.act(logits))];
        self.emit(Emit::new("draft", &p, bind, [ONE; 3]))
    }
}
