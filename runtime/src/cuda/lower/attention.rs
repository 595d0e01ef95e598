//! Both forms of attention over the latent cache.

use pleiad_shaders::{Defines, cuda::shape, params};

use super::{
    Case, Dim, Emit, Lowering, MATVEC_TOKENS, ONE, RowCount,
    matmul::{Operand, Product},
};
use crate::{
    error::{Error, Result},
    plan::{Act, Heads, MatId},
};

/// Lengths up to which the cache is cut in so many parts at the most: a part has 64 rows or more.
const LENGTHS: [u32; 6] = [128, 512, 2048, 8192, 32_768, u32::MAX];
/// Cache rows of a part, at the least.
const PART: u32 = 64;
/// Blocks for each multiprocessor that are to share the work.
const BLOCKS: u32 = 2;
/// Most parts.
const MAX_PARTS: u32 = 64;
/// Most bytes of expanded keys (or values) at a time.
const EXPANDED_BYTES: u64 = 64 << 20;
/// Most positions expanded at a time.
const EXPANDED_POSITIONS: u64 = 2048;
/// Queries of one head that a block of the expanded form has.
const QUERIES: u32 = 64;

/// (lengths from, to, splits) for steps of up to `tokens` tokens with `groups` head groups on so many multiprocessors.
fn splits(groups: u32, tokens: u32, processors: u32) -> Vec<(u32, u32, u32)> {
    let most = (processors * BLOCKS).div_ceil((groups * tokens).max(1)).clamp(1, MAX_PARTS.min(shape::MAX_SPLITS));
    let mut all: Vec<(u32, u32, u32)> = Vec::new();
    let mut from = 0;
    for to in LENGTHS {
        let parts = if tokens > MATVEC_TOKENS { 1 } else { most.min(to / PART / 2).max(1) };
        match all.last_mut().filter(|last| last.2 == parts) {
            Some(last) => last.1 = to,
            None => all.push((from, to, parts)),
        }
        from = to.saturating_add(1);
    }
    all
}

impl Lowering<'_> {
    pub(super) fn attend(&mut self, q_latent: Act, q_rope: Heads, layer: usize, out: Act) -> Result<()> {
        let config = &self.state.model.config;
        let a = &config.attention;
        let (heads, r, dr) = (a.num_heads as u32, a.kv_lora_rank as u32, a.qk_rope_head_dim as u32);
        let (scale, rows) = (config.softmax_scale(), self.row_count(q_latent));
        let info = self.info();
        let Some(s) = shape::attend(r, dr, heads, self.cache_f32(), info.shared) else {
            let (what, limit) = (format!("shared memory of a block for latents of {r} elements"), info.shared.into());
            return Err(Error::Limit { what, needed: u64::from(shape::ATTEND_TILE * (r + dr) * 4), limit });
        };
        let groups = heads.div_ceil(s.heads);
        for (from, to, splits) in splits(groups, rows.most(), info.processors.max(1)) {
            let case = Case { length: (from, to), ..Case::ALWAYS };
            let p = params::Attend {
                heads,
                r,
                dr,
                splits,
                q_offset: q_rope.offset as u32,
                q_stride: q_rope.stride as u32,
                q_width: self.width(q_rope.act),
                tokens: rows.param(),
                scale,
                pad: [0; 3],
            };
            let defines = self.cache_defines().flag_if("SPLIT", splits > 1).set("HEADS", s.heads).set("PPT", s.ppt);
            let target = if splits > 1 {
                let words = u64::from(rows.most()) * u64::from(heads * splits * (r + 2));
                self.scratch("partial attention", words * 4)?
            } else {
                self.act(out)
            };
            let bind = vec![
                ("q_latent", self.act(q_latent)),
                ("q_rope", self.act(q_rope.act)),
                ("cache", self.cache(layer)?),
                ("out", target),
            ];
            let grid = [Dim::Fixed(splits), Dim::Fixed(groups), rows.each()];
            self.emit(Emit::new("attend", &p, bind, grid).with(defines).shared(s.shared).when(case))?;
            if splits > 1 {
                let bind = vec![("partial", target), ("out", self.act(out))];
                self.emit(Emit::new("attend_merge", &p, bind, [Dim::Fixed(heads), rows.each(), ONE]).when(case))?;
            }
        }
        Ok(())
    }

    /// Keys and values of the cached rows are made a chunk at a time, and attention carries its running state from
    /// chunk to chunk.
    pub(super) fn attend_expanded(&mut self, q: Act, k_up: MatId, v_up: MatId, layer: usize, out: Act) -> Result<()> {
        let config = &self.state.model.config;
        let (a, scale) = (&config.attention, config.softmax_scale());
        let (heads, r, dr) = (a.num_heads as u32, a.kv_lora_rank as u32, a.qk_rope_head_dim as u32);
        let (dn, dv, rows) = (a.qk_nope_head_dim as u32, a.v_head_dim as u32, self.row_count(q));
        if dv > 256 {
            return Err(Error::Limit { what: "width of a value in expanded attention".into(), needed: dv.into(), limit: 256 });
        }
        let row_bytes = u64::from(heads * dn.max(dv)) * 4;
        let context = self.state.max_context as u64;
        let count = (EXPANDED_BYTES / row_bytes).clamp(32, EXPANDED_POSITIONS).min(context.next_multiple_of(32)) as u32;
        let bytes = |width: u32| u64::from(count) * u64::from(width) * 4;
        let latents = self.scratch("expanded latents", bytes(r))?;
        let rope_keys = self.scratch("expanded rope keys", bytes(dr))?;
        let keys = self.scratch("expanded keys", bytes(heads * dn))?;
        let values = self.scratch("expanded values", bytes(heads * dv))?;
        let running = self.scratch("running maxima and sums", u64::from(rows.most() * heads) * 8)?;

        for first in (0..context as u32).step_by(count as usize) {
            let end = first + count;
            let seen = Case { length: (first + 1, u32::MAX), ..Case::ALWAYS };
            let p = params::Expand { r, dr, first, count };
            let bind = vec![("cache", self.cache(layer)?), ("latents", latents), ("keys", rope_keys)];
            let defines = self.cache_defines();
            self.emit(Emit::new("expand", &p, bind, [Dim::Fixed(count), ONE, ONE]).with(defines).when(seen))?;
            self.expand(k_up, latents, keys, dn, count, seen)?;
            self.expand(v_up, latents, values, dv, count, seen)?;

            // Whether a chunk is the last is known from the step's length.
            let chunk = [
                (params::AttendExpanded::LAST, Case { length: (first + 1, end), ..Case::ALWAYS }),
                (0, Case { length: (end + 1, u32::MAX), ..Case::ALWAYS }),
            ];
            for (last, case) in chunk {
                let flags = last | if first == 0 { params::AttendExpanded::FIRST } else { 0 };
                let tokens = rows.param();
                let p = params::AttendExpanded { heads, dn, dr, dv, first, count, flags, tokens, scale, pad: [0; 3] };
                let bind = vec![
                    ("q", self.act(q)),
                    ("k", keys),
                    ("keys", rope_keys),
                    ("v", values),
                    ("state", running),
                    ("out", self.act(out)),
                ];
                let defines = Defines::new().set("DV_TILES", dv.div_ceil(32));
                let grid = [rows.per(QUERIES), Dim::Fixed(heads), ONE];
                self.emit(Emit::new("attend_expanded", &p, bind, grid).with(defines).when(case))?;
            }
        }
        Ok(())
    }

    /// Every head's `width` keys or values of `count` latents.
    fn expand(&mut self, w: MatId, latents: u64, out: u64, width: u32, count: u32, case: Case) -> Result<()> {
        let state = self.state;
        let w = &state.mats[w.0 as usize];
        let x = Operand { address: latents, q8: false, offset: 0, stride: 0, width: w.cols as u32 };
        let out = Operand { address: out, q8: false, offset: 0, stride: width, width: width * w.count as u32 };
        self.product(&Product { w, gate: None, x, out, add: false, rows: RowCount::Fixed(count) }, case)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_has_one_way_to_split() {
        for groups in [1, 2, 3, 16, 100] {
            for tokens in [1, 2, 8, 9, 512] {
                let ways = splits(groups, tokens, 132);
                for length in [0, 1, 128, 129, 512, 513, 8192, 8193, 100_000, u32::MAX] {
                    let fitting = ways.iter().filter(|w| (w.0..=w.1).contains(&length)).count();
                    assert_eq!(fitting, 1, "{groups} groups, {tokens} tokens, length {length}");
                }
                assert!(ways.iter().all(|w| w.2 <= MAX_PARTS && (tokens <= MATVEC_TOKENS || w.2 == 1)), "{ways:?}");
            }
        }
    }
}
