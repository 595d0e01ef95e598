// Reading the activation `x`, and products of 32 weights with 32 activations.
#ifdef QUANTISED
#import shared/block.wgsl
#endif
#ifdef ACT_Q8

// x is quantised: a row is cols / 4 words of signed bytes, then for each block of 32 its scale (f32) and the sums
// of its two halves (i16 each).
fn x_words() -> u32 {
    return (params.cols >> 2u) + (params.cols >> 4u);
}

fn half_sums(word: u32) -> vec2<f32> {
    return vec2<f32>(vec2<i32>(vec2<u32>(word << 16u, word)) >> vec2<u32>(16u));
}

// Without the activation's scale. Integer sums are exact.
fn dot_block(w: Block32, x0: vec4<u32>, x1: vec4<u32>, sums: u32) -> f32 {
    let a = dot4I8Packed(w.q0.x, x0.x) + dot4I8Packed(w.q0.y, x0.y) + dot4I8Packed(w.q0.z, x0.z) + dot4I8Packed(w.q0.w, x0.w);
    let b = dot4I8Packed(w.q1.x, x1.x) + dot4I8Packed(w.q1.y, x1.y) + dot4I8Packed(w.q1.z, x1.z) + dot4I8Packed(w.q1.w, x1.w);
#ifdef TWO_SCALES
    let product = w.s.x * f32(a) + w.s.y * f32(b);
#else
    let product = w.s.x * f32(a + b);
#endif
#ifdef MINIMA
    let h = half_sums(sums);
    return product - (w.m.x * h.x + w.m.y * h.y);
#else
    return product;
#endif
}
#else

// Four activations from element `i`; with X4, `i` is a multiple of 4.
fn act4(i: u32) -> vec4<f32> {
#ifdef X4
    return x[i >> 2u];
#else
    return vec4<f32>(x[i], x[i + 1u], x[i + 2u], x[i + 3u]);
#endif
}

fn act1(i: u32) -> f32 {
#ifdef X4
    return x[i >> 2u][i & 3u];
#else
    return x[i];
#endif
}
#ifdef QUANTISED

fn quad(q: u32) -> vec4<f32> {
    return vec4<f32>(unpack4xI8(q));
}

fn dot_block(
    w: Block32,
    y0: vec4<f32>,
    y1: vec4<f32>,
    y2: vec4<f32>,
    y3: vec4<f32>,
    y4: vec4<f32>,
    y5: vec4<f32>,
    y6: vec4<f32>,
    y7: vec4<f32>,
) -> f32 {
    let a = dot(quad(w.q0.x), y0) + dot(quad(w.q0.y), y1) + dot(quad(w.q0.z), y2) + dot(quad(w.q0.w), y3);
    let b = dot(quad(w.q1.x), y4) + dot(quad(w.q1.y), y5) + dot(quad(w.q1.z), y6) + dot(quad(w.q1.w), y7);
#ifdef TWO_SCALES
    let product = w.s.x * a + w.s.y * b;
#else
    let product = w.s.x * (a + b);
#endif
#ifdef MINIMA
    let ones = vec4<f32>(1.0);
    return product - (w.m.x * dot(ones, y0 + y1 + y2 + y3) + w.m.y * dot(ones, y4 + y5 + y6 + y7));
#else
    return product;
#endif
}
#endif
#endif
