// Interface of `matvec` and `matmat`.
#import shared/step.wgsl ACCESS=read
#import shared/math.wgsl

struct Mat {
    rows: u32,
    cols: u32,
    row_words: u32,
    gate_row_words: u32,
    row_base: u32,
    tokens: u32,
    head_base: u32,
    pad0: u32,
    x_offset: u32,
    x_stride: u32,
    x_width: u32,
    pad1: u32,
    out_offset: u32,
    out_stride: u32,
    out_width: u32,
    pad2: u32,
}

@group(0) @binding(0) var<uniform> params: Mat;
@group(0) @binding(2) var<storage, read> x: array<#{X_TYPE}>;
@group(0) @binding(3) var<storage, read> w: array<u32>;
#ifdef GATED
@group(0) @binding(4) var<storage, read> gate: array<u32>;
#endif
@group(0) @binding(5) var<storage, read_write> out: array<f32>;

#import shared/activation.wgsl
#import shared/formats/#{FORMAT}.wgsl P=w_ W=w
#ifdef GATED
#import shared/formats/#{GATE_FORMAT}.wgsl P=gate_ W=gate
#endif

// Where the activation of a token starts for a head (elements; Q8: words).
fn x_start(token: u32, head: u32) -> u32 {
#ifdef ACT_Q8
    return token * x_words();
#else
    return params.x_offset + token * params.x_width + head * params.x_stride;
#endif
}

fn store(token: u32, head: u32, row: u32, value: f32) {
    let i = params.out_offset + token * params.out_width + head * params.out_stride + params.row_base + row;
#ifdef ADD
    out[i] += value;
#else
    out[i] = value;
#endif
}
