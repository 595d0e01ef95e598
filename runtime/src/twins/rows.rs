//! Twins of the operations on single rows.

/// [`crate::plan::Op::Norm`] of one row: `x / sqrt(mean(x^2) + eps) * weight`.
pub fn norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let mean = x.iter().map(|&v| f64::from(v) * f64::from(v)).sum::<f64>() / x.len() as f64;
    let scale = (1.0 / (mean + f64::from(eps)).sqrt()) as f32;
    for ((o, x), w) in out.iter_mut().zip(x).zip(weight) {
        *o = x * scale * w;
    }
}

/// [`crate::plan::Op::Join`] of one row: `[a | b]`.
pub fn join(a: &[f32], b: &[f32], out: &mut [f32]) {
    for (o, x) in out.iter_mut().zip(a.iter().chain(b)) {
        *o = *x;
    }
}

/// What [`crate::plan::Op::Draft`] takes: the largest; the first wins ties.
pub fn largest(x: &[f32]) -> usize {
    let mut best = 0;
    for (i, value) in x.iter().enumerate() {
        if *value > x[best] {
            best = i;
        }
    }
    best
}

/// [`crate::plan::Op::Combine`] of one row: `x += sum over k of weights[k] * y[k]`, k ascending.
pub fn combine(y: &[f32], weights: &[f32], x: &mut [f32]) {
    for (i, x) in x.iter_mut().enumerate() {
        let mut sum = 0.0;
        for (k, w) in weights.iter().enumerate() {
            sum += w * y[k * (y.len() / weights.len()) + i];
        }
        *x += sum;
    }
}
