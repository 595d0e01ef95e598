// 1 / (1 + e^-x); 0 where e^-x has no f32.
fn sigmoid(x: f32) -> f32 {
    return select(1.0 / (1.0 + exp(min(-x, 88.0))), 0.0, x < -88.0);
}

// x * sigmoid(x).
fn silu(x: f32) -> f32 {
    return select(x / (1.0 + exp(min(-x, 88.0))), 0.0, x < -88.0);
}
