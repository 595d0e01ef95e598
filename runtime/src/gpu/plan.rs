//! A plan prepared for a GPU: replaying it encodes dispatches and nothing else.

use std::sync::Arc;

use wgpu::Buffer;

use super::{
    device::GpuDevice,
    lower::{self, Dispatch, most_rows, row_words},
    state::GpuState,
};
use crate::{
    error::{Error, Result},
    plan::{Act, Kind, Op, Plan},
    q8::Q8Rows,
};

/// An activation of a prepared plan.
pub(crate) struct GpuAct {
    pub name: String,
    pub buffer: Buffer,
    pub kind: Kind,
    /// Elements of a row.
    pub width: usize,
    /// Rows of their own in each row (8-bit activations).
    pub parts: usize,
    /// Words of a row.
    pub row_words: usize,
    /// The most rows.
    pub rows: usize,
}

impl GpuAct {
    /// Rows of 8-bit blocks as the device holds them: quants, then for each block its scale and the sums of its halves.
    pub fn words_of(&self, rows: &Q8Rows) -> Vec<u32> {
        let mut words = Vec::with_capacity(rows.quants.len() / 4 + rows.quants.len() / 16);
        for ((quants, scales), sums) in
            rows.quants.chunks(rows.width).zip(rows.scales.chunks(rows.width / 32)).zip(rows.sums.chunks(rows.width / 16))
        {
            words.extend(quants.chunks_exact(4).map(|q| u32::from_le_bytes([q[0], q[1], q[2], q[3]].map(|q| q as u8))));
            for (scale, sums) in scales.iter().zip(sums.chunks_exact(2)) {
                words.push(scale.to_bits());
                words.push(u32::from(sums[0] as u16) | u32::from(sums[1] as u16) << 16);
            }
        }
        words
    }

    /// The other way: f32 values.
    pub fn dequantise(&self, words: &[u32]) -> Vec<f32> {
        let width = self.width / self.parts;
        let mut out = Vec::with_capacity(words.len() * 4);
        for row in words.chunks_exact(width / 4 + width / 16) {
            let (quants, blocks) = row.split_at(width / 4);
            for (quants, block) in quants.chunks_exact(8).zip(blocks.chunks_exact(2)) {
                let scale = f32::from_bits(block[0]);
                let bytes = quants.iter().flat_map(|q| q.to_le_bytes());
                out.extend(bytes.map(|q| f32::from(q as i8) * scale));
            }
        }
        out
    }
}

/// A plan prepared for a GPU.
pub(crate) struct GpuPlan {
    dispatches: Vec<Dispatch>,
    acts: Vec<GpuAct>,
    pub max_tokens: usize,
    /// Whether it ends by sampling the next token.
    pub samples: bool,
    /// Bind groups made for it.
    pub bind_groups: u64,
}

impl GpuPlan {
    /// Makes everything that steps through `plan` need.
    pub fn compile(gpu: &GpuDevice, state: &GpuState, plan: &Plan) -> Result<Self> {
        if plan.max_tokens == 0 || plan.max_tokens > super::state::MAX_IDS {
            return Err(Error::Limit {
                what: "tokens of one step".into(),
                needed: plan.max_tokens as u64,
                limit: super::state::MAX_IDS as u64,
            });
        }
        let lowered = lower::lower(gpu, state, plan)?;
        let acts = plan.acts.iter().zip(lowered.acts).enumerate().map(|(i, (decl, buffer))| GpuAct {
            kind: decl.kind,
            width: decl.width,
            parts: lower::parts_of(plan, Act(i as u32)),
            name: decl.name.clone(),
            buffer,
            row_words: row_words(decl),
            rows: most_rows(decl, plan.max_tokens),
        });
        Ok(Self {
            acts: acts.collect(),
            dispatches: lowered.dispatches,
            max_tokens: plan.max_tokens,
            samples: plan.ops.iter().any(|op| matches!(op, Op::Sample { .. })),
            bind_groups: lowered.bind_groups,
        })
    }

    /// The activation.
    pub fn act(&self, act: Act) -> Result<&GpuAct> {
        self.acts.get(act.0 as usize).ok_or_else(|| Error::Invalid(format!("the plan has no activation {}", act.0)))
    }

    /// Encodes a step of `tokens` tokens after which the cache holds `length` positions; returns the number of dispatches.
    pub fn encode(&self, pass: &mut wgpu::ComputePass<'_>, tokens: u32, length: u32) -> u64 {
        let mut count = 0;
        let mut current = None;
        for d in self.dispatches.iter().filter(|d| d.case.holds(tokens, length)) {
            let [x, y, z] = d.grid.map(|dim| dim.at(tokens));
            if x == 0 || y == 0 || z == 0 {
                continue;
            }
            if !current.is_some_and(|c| Arc::ptr_eq(c, &d.pipeline)) {
                pass.set_pipeline(&d.pipeline.pipeline);
                current = Some(&d.pipeline);
            }
            pass.set_bind_group(0, &d.bind_group, &[d.params]);
            pass.dispatch_workgroups(x, y, z);
            count += 1;
        }
        count
    }
}
