// Rotates the rope part of every head in place, to the position of its token.
#import shared/step.wgsl ACCESS=read

struct Rope {
    heads: u32,
    dr: u32,
    offset: u32,
    stride: u32,
    width: u32,
    interleaved: u32,
    tokens: u32,
    pad: u32,
}

@group(0) @binding(0) var<uniform> params: Rope;
// (cos, sin), [positions, dr / 2].
@group(0) @binding(2) var<storage, read> rope: array<vec2<f32>>;
@group(0) @binding(3) var<storage, read_write> x: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let token = id.y;
    let half = params.dr >> 1u;
    let i = id.x * 64u + lid;
    if (token >= token_count(params.tokens) || i >= params.heads * half) {
        return;
    }
    let head = i / half;
    let pair = i % half;
    let angle = rope[min((step.pos + token) * half + pair, arrayLength(&rope) - 1u)];
    let start = params.offset + token * params.width + head * params.stride;
    let interleaved = params.interleaved != 0u;
    let a = start + select(pair, 2u * pair, interleaved);
    let b = a + select(half, 1u, interleaved);
    let u = x[a];
    let v = x[b];
    x[a] = u * angle.x - v * angle.y;
    x[b] = v * angle.x + u * angle.y;
}
