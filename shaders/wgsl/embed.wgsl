// out[t] = table[ids[t]] as f32, for ids in the slab bound.
#import shared/step.wgsl ACCESS=read

struct Embed {
    cols: u32,
    row_words: u32,
    row_base: u32,
    rows: u32,
}

@group(0) @binding(0) var<uniform> params: Embed;
@group(0) @binding(2) var<storage, read> ids: array<u32>;
@group(0) @binding(3) var<storage, read> w: array<u32>;
@group(0) @binding(4) var<storage, read_write> out: array<f32>;

#import shared/formats/#{FORMAT}.wgsl P=w_ W=w

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let token = group.y;
    if (token >= token_count(0u)) {
        return;
    }
    let id = ids[token];
    let index = group.x * 64u + lid;
    if (id < params.row_base || id - params.row_base >= params.rows) {
        return;
    }
    let row = (id - params.row_base) * params.row_words;
    let start = token * params.cols;
#ifdef QUANTISED
    if (index >= params.cols >> 5u) {
        return;
    }
    let block = w_block32(row, index);
    let at = start + index * 32u;
#for c in 0..4
    let y#{c} = vec4<f32>(unpack4xI8(block.q0[#{c}])) * block.s.x - block.m.x;
    let z#{c} = vec4<f32>(unpack4xI8(block.q1[#{c}])) * block.s.y - block.m.y;
#for i in 0..4
    out[at + #{c}u * 4u + #{i}u] = y#{c}[#{i}];
    out[at + 16u + #{c}u * 4u + #{i}u] = z#{c}[#{i}];
#endfor
#endfor
#else
    let first = index * 4u;
    for (var k = first; k < min(first + 4u, params.cols); k++) {
        out[start + k] = w_w1(row, k);
    }
#endif
}
