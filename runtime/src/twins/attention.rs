//! Twins of latent attention.

use super::rows::norm;

/// Rotates the pairs of `x` by the angles whose `(cos, sin)` are given. Interleaved pairs are (0, 1), (2, 3), ...;
/// otherwise (0, d/2), (1, d/2 + 1), ...
pub fn rope(x: &mut [f32], table: &[[f32; 2]], interleaved: bool) {
    let half = x.len() / 2;
    for (i, [cos, sin]) in table.iter().enumerate() {
        let (a, b) = if interleaved { (2 * i, 2 * i + 1) } else { (i, i + half) };
        (x[a], x[b]) = (x[a] * cos - x[b] * sin, x[b] * cos + x[a] * sin);
    }
}

/// [`crate::plan::Op::Latent`] of one row: `[norm(latent) | rope(key)]`.
pub fn latent(kv: &[f32], weight: &[f32], eps: f32, table: &[[f32; 2]], interleaved: bool) -> Vec<f32> {
    let mut row = kv.to_vec();
    norm(&kv[..weight.len()], weight, eps, &mut row[..weight.len()]);
    rope(&mut row[weight.len()..], table, interleaved);
    row
}

/// Dimensions of [`attend`].
#[derive(Clone, Copy, Debug)]
pub struct AttendShape {
    /// Width of the latent, r.
    pub latent: usize,
    /// Width of the rope part, dr.
    pub rope: usize,
    /// Factor of the scores.
    pub scale: f32,
}

/// [`crate::plan::Op::Attend`] of one head of one token over the rows it sees, each `[latent | key]`.
pub fn attend(shape: AttendShape, q_latent: &[f32], q_rope: &[f32], rows: &[&[f32]], out: &mut [f32]) {
    let scores: Vec<f64> = rows
        .iter()
        .map(|row| {
            let (latent, key) = row.split_at(shape.latent);
            f64::from(shape.scale) * (dot(q_latent, latent) + dot(q_rope, key))
        })
        .collect();
    weighted_sum(&scores, |i| &rows[i][..shape.latent], out);
}

/// Dimensions of [`attend_expanded`].
#[derive(Clone, Copy, Debug)]
pub struct ExpandedShape {
    /// Width of a key without its rope part, dn.
    pub nope: usize,
    /// Width of a value, dv.
    pub value: usize,
    /// Width of the latent, r.
    pub latent: usize,
    /// Factor of the scores.
    pub scale: f32,
}

/// [`crate::plan::Op::AttendExpanded`] of one head of one token: `k_up` is `[dn, r]`, `v_up` is `[dv, r]`.
pub fn attend_expanded(shape: ExpandedShape, q: &[f32], k_up: &[f32], v_up: &[f32], rows: &[&[f32]], out: &mut [f32]) {
    let r = shape.latent;
    let up = |w: &[f32], n: usize, row: &[f32]| -> Vec<f32> {
        (0..n).map(|i| dot(&w[i * r..(i + 1) * r], &row[..r]) as f32).collect()
    };
    let (q_nope, q_rope) = q.split_at(shape.nope);
    let scores: Vec<f64> = rows
        .iter()
        .map(|row| f64::from(shape.scale) * (dot(q_nope, &up(k_up, shape.nope, row)) + dot(q_rope, &row[r..])))
        .collect();
    let values: Vec<Vec<f32>> = rows.iter().map(|row| up(v_up, shape.value, row)).collect();
    weighted_sum(&scores, |i| &values[i], out);
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
}

/// `out = softmax(scores) values`.
fn weighted_sum<'a>(scores: &[f64], value: impl Fn(usize) -> &'a [f32], out: &mut [f32]) {
    let max = scores.iter().copied().fold(f64::MIN, f64::max);
    let weights: Vec<f64> = scores.iter().map(|s| (s - max).exp()).collect();
    let sum: f64 = weights.iter().sum();
    for (i, o) in out.iter_mut().enumerate() {
        *o = (weights.iter().enumerate().map(|(j, w)| w * f64::from(value(j)[i])).sum::<f64>() / sum) as f32;
    }
}
