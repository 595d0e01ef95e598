//! Latent attention, absorbed and expanded.

use pleiad_shaders::{params, shape};

use super::{
    Bound, Case, Dim, Emit, Lowering, MATVEC_TOKENS, RowCount,
    matmul::{Operand, Product},
};
use crate::{
    error::{Error, Result},
    gpu::pipelines::Variant,
    plan::{Act, Heads, MatId},
};

/// Positions up to which one workgroup a token and head group walks the cache by itself.
const UNSPLIT: u32 = 128;
/// Positions up to which the cache is cut in a few parts, beyond in many.
const FEW_SPLITS_UNTIL: u32 = 1024;
/// The cache is cut so that about this many workgroups share the work.
const WORKGROUPS: u32 = 64;
/// Most parts of the cache.
const MAX_SPLITS: u32 = 32;
/// Most bytes of expanded keys (or values) at a time.
const EXPANDED_BYTES: u64 = 32 << 20;
/// Most positions expanded at a time.
const EXPANDED_POSITIONS: u64 = 1024;

/// Queries of one head that a workgroup of the expanded form has.
const QUERIES: u32 = 64;

/// (positions from, to, splits) for steps of up to `tokens` tokens with `groups` head groups.
fn splits(groups: u32, tokens: u32) -> Vec<(u32, u32, u32)> {
    let most = WORKGROUPS.div_ceil((groups * tokens).max(1)).min(MAX_SPLITS);
    if most <= 1 || tokens > MATVEC_TOKENS {
        return vec![(0, u32::MAX, 1)];
    }
    let few = most.min(8);
    if few == most {
        return vec![(0, UNSPLIT, 1), (UNSPLIT + 1, u32::MAX, most)];
    }
    vec![(0, UNSPLIT, 1), (UNSPLIT + 1, FEW_SPLITS_UNTIL, few), (FEW_SPLITS_UNTIL + 1, u32::MAX, most)]
}

impl Lowering<'_> {
    pub(super) fn attend(&mut self, q_latent: Act, q_rope: Heads, layer: usize, out: Act) -> Result<()> {
        let config = &self.state.model.config;
        let a = &config.attention;
        let (heads, r, dr) = (a.num_heads as u32, a.kv_lora_rank as u32, a.qk_rope_head_dim as u32);
        let (scale, rows) = (config.softmax_scale(), self.row_count(q_latent));
        let s = shape::attend(r, dr, heads, self.cache_f32());
        let groups = heads.div_ceil(s.heads_per_group);
        for (from, to, splits) in splits(groups, rows.most()) {
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
            let variant = Variant::new("attend")
                .flag("CACHE_F32", self.cache_f32())
                .flag("SPLIT", splits > 1)
                .set("WG", s.wg)
                .set("SLICES", s.slices)
                .set("QW", s.qw)
                .set("PPT", s.ppt)
                .set("HEADS_PER_GROUP", s.heads_per_group);
            let target = if splits > 1 {
                let words = u64::from(rows.most()) * u64::from(heads * splits * (r + 2));
                self.scratch("partial attention", words * 4)?
            } else {
                self.act(out)
            };
            let bind = vec![
                ("step", self.step()),
                ("q_latent", self.act(q_latent)),
                ("q_rope", self.act(q_rope.act)),
                ("cache", self.cache(layer)?),
                ("out", target.clone()),
            ];
            let grid = [Dim::Fixed(splits), Dim::Fixed(groups), rows.each()];
            self.emit(Emit::new(variant, &p, bind, grid).when(case))?;
            if splits > 1 {
                let bind = vec![("step", self.step()), ("partial", target), ("out", self.act(out))];
                let grid = [Dim::Fixed(heads), rows.each(), Dim::Fixed(1)];
                self.emit(Emit::new(Variant::new("attend_merge"), &p, bind, grid).when(case))?;
            }
        }
        Ok(())
    }

    /// Keys and values of the cached rows are made a chunk at a time, and attention carries its running state from
    /// chunk to chunk.
    pub(super) fn attend_expanded(&mut self, q: Act, k_up: MatId, v_up: MatId, layer: usize, out: Act) -> Result<()> {
        let a = &self.state.model.config.attention;
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
            let bind = vec![
                ("step", self.step()),
                ("cache", self.cache(layer)?),
                ("latents", latents.clone()),
                ("keys", rope_keys.clone()),
            ];
            let variant = Variant::new("expand").flag("CACHE_F32", self.cache_f32());
            self.emit(Emit::new(variant, &p, bind, [Dim::Fixed(count), Dim::Fixed(1), Dim::Fixed(1)]).when(seen))?;
            self.expand(k_up, &latents, &keys, dn, count, seen)?;
            self.expand(v_up, &latents, &values, dv, count, seen)?;

            // Whether a chunk is the last is known from the step's length.
            let chunk = [
                (params::AttendExpanded::LAST, Case { length: (first + 1, end), ..Case::ALWAYS }),
                (0, Case { length: (end + 1, u32::MAX), ..Case::ALWAYS }),
            ];
            for (last, case) in chunk {
                let flags = last | if first == 0 { params::AttendExpanded::FIRST } else { 0 };
                let scale = self.state.model.config.softmax_scale();
                let tokens = rows.param();
                let p = params::AttendExpanded { heads, dn, dr, dv, first, count, flags, tokens, scale, pad: [0; 3] };
                let bind = vec![
                    ("step", self.step()),
                    ("q", self.act(q)),
                    ("k", keys.clone()),
                    ("keys", rope_keys.clone()),
                    ("v", values.clone()),
                    ("state", running.clone()),
                    ("out", self.act(out)),
                ];
                let variant = Variant::new("attend_expanded").set("DV_TILES", shape::attend_expanded(dv));
                let grid = [rows.per(QUERIES), Dim::Fixed(heads), Dim::Fixed(1)];
                self.emit(Emit::new(variant, &p, bind, grid).when(case))?;
            }
        }
        Ok(())
    }

    /// Every head's `width` keys or values of `count` latents.
    fn expand(&mut self, w: MatId, latents: &Bound, out: &Bound, width: u32, count: u32, case: Case) -> Result<()> {
        let weights = &self.state.weights;
        let w = &weights.mats[w.0 as usize];
        let x = Operand { bound: latents.clone(), q8: false, offset: 0, stride: 0, width: w.cols as u32 };
        let out = Operand { bound: out.clone(), q8: false, offset: 0, stride: width, width: width * w.count as u32 };
        self.product_when(&Product { w, gate: None, x, out, add: false, rows: RowCount::Fixed(count) }, case)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_has_one_way_to_split() {
        for groups in [1, 2, 8, 16, 64, 100] {
            for tokens in [1, 2, 8, 9, 512] {
                let ways = splits(groups, tokens);
                for length in [0, 1, 127, 128, 129, 1023, 1024, 1025, 100_000, u32::MAX] {
                    let fitting = ways.iter().filter(|w| (w.0..=w.1).contains(&length)).count();
                    assert_eq!(fitting, 1, "{groups} groups, {tokens} tokens, length {length}");
                }
                assert!(ways.iter().all(|w| w.2 <= MAX_SPLITS));
            }
        }
    }
}
