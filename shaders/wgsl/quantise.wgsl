// out = x in 8 bits: a row is width / 4 words of signed bytes, then for each block of 32 its scale (f32) and the sums of
// its halves (i16 each). Eight threads a block.
#import shared/step.wgsl ACCESS=read

struct Quantise {
    width: u32,
    tokens: u32,
    pad0: u32,
    pad1: u32,
}

@group(0) @binding(0) var<uniform> params: Quantise;
@group(0) @binding(2) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> out: array<u32>;

const WG: u32 = 64u;
#import shared/q8_block.wgsl OUT=out

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    if (id.y >= token_count(params.tokens)) {
        return;
    }
    let i = id.x * WG + lid;
    let words = params.width >> 2u;
    var v = vec4<f32>(0.0);
    if (i < words) {
        v = x[id.y * words + i];
    }
    q8_block(lid, id.y * (words + (words >> 2u)), i, v);
}
