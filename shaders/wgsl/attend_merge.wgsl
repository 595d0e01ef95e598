// Joins the parts that `attend` made of one head of one token: a mean weighted by exp(maximum) * sum.
#import shared/step.wgsl ACCESS=read

struct Attend {
    heads: u32,
    r: u32,
    dr: u32,
    splits: u32,
    q_offset: u32,
    q_stride: u32,
    q_width: u32,
    tokens: u32,
    scale: f32,
    pad0: u32,
    pad1: u32,
    pad2: u32,
}

@group(0) @binding(0) var<uniform> params: Attend;
@group(0) @binding(2) var<storage, read> partial: array<f32>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;

const WG: u32 = 128u;
const MOST: u32 = 256u;
var<workgroup> maxima: array<f32, MOST>;
var<workgroup> sums: array<f32, MOST>;

@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let head = id.x;
    let token = id.y;
    if (head >= params.heads || token >= token_count(params.tokens)) {
        return;
    }
    let splits = min(params.splits, MOST);
    let stride = params.r + 2u;
    let first = (token * params.heads + head) * params.splits * stride;
    for (var i = lid; i < splits; i += WG) {
        maxima[i] = partial[first + i * stride + params.r];
        sums[i] = partial[first + i * stride + params.r + 1u];
    }
    workgroupBarrier();
    var best = -1e30;
    for (var i = 0u; i < splits; i++) {
        best = max(best, maxima[i]);
    }
    var whole = 0.0;
    for (var i = 0u; i < splits; i++) {
        whole += exp(maxima[i] - best) * sums[i];
    }
    for (var e = lid; e < params.r; e += WG) {
        var v = 0.0;
        for (var i = 0u; i < splits; i++) {
            v += exp(maxima[i] - best) * partial[first + i * stride + e];
        }
        out[(token * params.heads + head) * params.r + e] = v / whole;
    }
}
