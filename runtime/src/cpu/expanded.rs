//! Latent attention in expanded form, as matrix products: scores are `K q`, results `V^T p`.

use pleiad_models::{Format, Matrix, Tensor, config::Attention};

use super::{
    kernels::{self, Cpu, Input, Job, Output},
    rows::for_rows,
};

/// What [`attend`] reads.
pub(super) struct Args<'a> {
    pub attention: &'a Attention,
    pub scale: f32,
    /// Position of the first token.
    pub pos: usize,
    pub tokens: usize,
    /// `[T, H * (dn + dr)]`, rope part rotated.
    pub q: &'a [f32],
    /// H matrices `[dn, r]`.
    pub k_up: &'a Tensor,
    /// H matrices `[dv, r]`.
    pub v_up: &'a Tensor,
    /// The cached rows `0..pos + T`: `[P, r + dr]`.
    pub rows: &'a [f32],
}

/// Attends; `out` is `[T, H * dv]`. One head at a time, so that scores take `T * P` floats.
pub(super) fn attend(cpu: &Cpu, args: &Args<'_>, out: &mut [f32]) {
    let a = args.attention;
    let (d, dn, dv, r) = (a.qk_head_dim(), a.qk_nope_head_dim, a.v_head_dim, a.kv_lora_rank);
    let positions = args.pos + args.tokens;
    let all: Vec<u32> = (0..positions as u32).collect();
    let latent = Input::F32 { data: args.rows, offset: 0, stride: r + a.qk_rope_head_dim };
    let mut keys = vec![0.0; positions * d];
    let mut values = vec![0.0; positions * dv];
    let mut transposed = vec![0.0; positions * dv];
    let mut scores = vec![0.0; args.tokens * positions];
    for h in 0..a.num_heads {
        let expand = |w: &Tensor, out: &mut [f32], stride: usize| {
            let job = Job { w: w.matrix(h), gate: None, x: &all, out: &all };
            kernels::matmul(cpu, &[job], &latent, &mut Output { data: out, offset: 0, stride }, false);
        };
        expand(args.k_up, &mut keys, d);
        expand(args.v_up, &mut values, dv);
        for (key, row) in keys.chunks_mut(d).zip(args.rows.chunks(r + a.qk_rope_head_dim)) {
            key[dn..].copy_from_slice(&row[r..]);
        }
        for (p, value) in values.chunks(dv).enumerate() {
            value.iter().enumerate().for_each(|(i, v)| transposed[i * positions + p] = *v);
        }

        let queries: Vec<u32> = (0..args.tokens).map(|t| (t * a.num_heads + h) as u32).collect();
        let k = Matrix::native(Format::F32, positions, d, bytemuck::cast_slice(&keys), None);
        let job = Job { w: k, gate: None, x: &queries, out: &all[..args.tokens] };
        let q = Input::F32 { data: args.q, offset: 0, stride: d };
        kernels::matmul(cpu, &[job], &q, &mut Output { data: &mut scores, offset: 0, stride: positions }, false);
        for_rows(cpu, &mut scores, positions, |t, row| softmax(row, args.pos + t + 1, args.scale));

        let v = Matrix::native(Format::F32, dv, positions, bytemuck::cast_slice(&transposed), None);
        let job = Job { w: v, gate: None, x: &all[..args.tokens], out: &queries };
        let p = Input::F32 { data: &scores, offset: 0, stride: positions };
        kernels::matmul(cpu, &[job], &p, &mut Output { data: &mut *out, offset: 0, stride: dv }, false);
    }
}

/// Softmax of the first `seen` scores, times `scale`; the rest is masked out.
fn softmax(row: &mut [f32], seen: usize, scale: f32) {
    let (row, masked) = row.split_at_mut(seen);
    let max = row.iter().copied().fold(f32::MIN, f32::max);
    let mut sum = 0.0;
    for s in row.iter_mut() {
        *s = ((*s - max) * scale).exp();
        sum += *s;
    }
    row.iter_mut().for_each(|s| *s /= sum);
    masked.fill(0.0);
}
