// Latent attention in absorbed form: HEADS heads of one token over one part of the cache, softmax on the way.
//
// Scores: the pairs of a cache row are dealt to SLICES threads, which hold their pairs of the heads' queries in
// registers (QW pairs a thread) and leave the row in workgroup memory; ROWS rows go at once. Values: every thread has
// PPT pairs of the output of all heads in registers and walks over the rows in workgroup memory.
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
@group(0) @binding(2) var<storage, read> q_latent: array<f32>;
@group(0) @binding(3) var<storage, read> q_rope: array<f32>;
@group(0) @binding(4) var<storage, read> cache: array<u32>;
// [T, H * r]; with SPLIT [T, H, splits, r + 2]: sums of values not yet divided, maximum, sum of weights.
@group(0) @binding(5) var<storage, read_write> out: array<f32>;

#import shared/cache.wgsl

const WG: u32 = #{WG}u;
const SLICES: u32 = #{SLICES}u;
const HEADS: u32 = #{HEADS_PER_GROUP}u;
const ROWS: u32 = WG / SLICES;
const CAPACITY: u32 = SLICES * #{QW}u;
// Threads that add up one score, in the first of two steps.
const ADDERS: u32 = SLICES / HEADS;
const NONE: f32 = -1e30;

var<workgroup> rows: array<Pair, ROWS * CAPACITY>;
// Parts of scores: [ROWS][HEADS][SLICES].
var<workgroup> parts: array<f32, ROWS * HEADS * SLICES>;
// [ROWS][HEADS].
var<workgroup> scores: array<f32, ROWS * HEADS>;
var<workgroup> weights: array<f32, ROWS * HEADS>;
// Of each head: what earlier sums are multiplied with, and the maximum so far.
var<workgroup> shrink: array<f32, HEADS>;
var<workgroup> maxima: array<f32, HEADS>;

// Pair i of [latent query | rope query], scaled.
fn query(token: u32, head: u32, i: u32) -> vec2<f32> {
    let e = 2u * i;
    if (head >= params.heads || e >= params.r + params.dr) {
        return vec2<f32>(0.0);
    }
    if (e < params.r) {
        let at = (token * params.heads + head) * params.r + e;
        return vec2<f32>(q_latent[at], q_latent[at + 1u]) * params.scale;
    }
    let at = params.q_offset + token * params.q_width + head * params.q_stride + e - params.r;
    return vec2<f32>(q_rope[at], q_rope[at + 1u]) * params.scale;
}

@compute @workgroup_size(#{WG})
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let token = id.z;
    let head0 = id.y * HEADS;
    if (token >= token_count(params.tokens) || head0 >= params.heads) {
        return;
    }
    let pairs = (params.r + params.dr) >> 1u;
    let length = step.pos + token + 1u;
#ifdef SPLIT
    let part = (((length + params.splits - 1u) / params.splits + ROWS - 1u) / ROWS) * ROWS;
    let start = min(id.x * part, length);
    let end = min(start + part, length);
#else
    let start = 0u;
    let end = length;
#endif
    let slice = lid % SLICES;
    let n = lid / SLICES;
#for h in 0..#{HEADS_PER_GROUP}
#for j in 0..#{QW}
    let q#{h}_#{j} = query(token, head0 + #{h}u, slice + #{j}u * SLICES);
#endfor
#for j in 0..#{PPT}
    var o#{h}_#{j} = vec2<f32>(0.0);
#endfor
    var sum#{h} = 0.0;
#endfor
    // The maximum of head lid % HEADS, kept by the threads that make weights.
    var maximum = NONE;
    for (var base = start; base < end; base += ROWS) {
        // Rows beyond the end repeat the last one and get no weight.
        let row = cache_row(min(base + n, end - 1u));
#for h in 0..#{HEADS_PER_GROUP}
        var s#{h} = 0.0;
#endfor
#for j in 0..#{QW}
        {
            let i = slice + #{j}u * SLICES;
            let p = cache_pair(row, pairs, min(i, pairs - 1u));
            rows[n * CAPACITY + i] = p;
            let v = pair_value(p);
#for h in 0..#{HEADS_PER_GROUP}
            s#{h} += dot(q#{h}_#{j}, v);
#endfor
        }
#endfor
#for h in 0..#{HEADS_PER_GROUP}
        parts[(n * HEADS + #{h}u) * SLICES + slice] = s#{h};
#endfor
        workgroupBarrier();
        {
            // SLICES parts become ADDERS, in place.
            let at = (lid / ADDERS) * SLICES + lid % ADDERS;
            var s = parts[at];
            for (var i = 1u; i < HEADS; i++) {
                s += parts[at + i * ADDERS];
            }
            parts[at] = s;
        }
        workgroupBarrier();
        if (lid < ROWS * HEADS) {
            var s = parts[lid * SLICES];
            for (var i = 1u; i < ADDERS; i++) {
                s += parts[lid * SLICES + i];
            }
            scores[lid] = select(NONE, s, base + lid / HEADS < end);
        }
        workgroupBarrier();
        if (lid < ROWS * HEADS) {
            let h = lid % HEADS;
            var best = maximum;
            for (var i = 0u; i < ROWS; i++) {
                best = max(best, scores[i * HEADS + h]);
            }
            weights[lid] = select(0.0, exp(scores[lid] - best), base + lid / HEADS < end);
            if (lid < HEADS) {
                shrink[lid] = exp(maximum - best);
                maxima[lid] = best;
            }
            maximum = best;
        }
        workgroupBarrier();
#for h in 0..#{HEADS_PER_GROUP}
        {
            let f = shrink[#{h}];
            sum#{h} *= f;
#for j in 0..#{PPT}
            o#{h}_#{j} *= f;
#endfor
        }
#endfor
        for (var i = 0u; i < ROWS; i++) {
#for j in 0..#{PPT}
            let v#{j} = pair_value(rows[i * CAPACITY + min(lid + #{j}u * WG, CAPACITY - 1u)]);
#endfor
#for h in 0..#{HEADS_PER_GROUP}
            {
                let f = weights[i * HEADS + #{h}u];
                sum#{h} += f;
#for j in 0..#{PPT}
                o#{h}_#{j} += f * v#{j};
#endfor
            }
#endfor
        }
        workgroupBarrier();
    }
#for h in 0..#{HEADS_PER_GROUP}
    if (head0 + #{h}u < params.heads) {
#ifdef SPLIT
        let at = ((token * params.heads + head0 + #{h}u) * params.splits + id.x) * (params.r + 2u);
        if (lid == 0u) {
            out[at + params.r] = select(NONE, maxima[#{h}], start < end);
            out[at + params.r + 1u] = sum#{h};
        }
        let f = 1.0;
#else
        let at = (token * params.heads + head0 + #{h}u) * params.r;
        let f = 1.0 / sum#{h};
#endif
#for j in 0..#{PPT}
        {
            let e = 2u * (lid + #{j}u * WG);
            if (e < params.r) {
                out[at + e] = o#{h}_#{j}.x * f;
                out[at + e + 1u] = o#{h}_#{j}.y * f;
            }
        }
#endfor
    }
#endfor
}
