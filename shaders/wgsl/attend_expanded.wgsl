// Attention over a chunk of expanded keys and values: 64 queries of one head by 32 keys at a time, softmax on the way.
// Between chunks the sums stay in `out`, maxima and sums of weights in `state`.
//
// Threads form 16 groups of four queries by 8 groups of four keys (or of four columns of the values).
#import shared/step.wgsl ACCESS=read

struct AttendExpanded {
    heads: u32,
    dn: u32,
    dr: u32,
    dv: u32,
    first: u32,
    count: u32,
    flags: u32,
    tokens: u32,
    scale: f32,
    pad0: u32,
    pad1: u32,
    pad2: u32,
}

@group(0) @binding(0) var<uniform> params: AttendExpanded;
// [T, H * (dn + dr)].
@group(0) @binding(2) var<storage, read> q: array<f32>;
// [count, H * dn].
@group(0) @binding(3) var<storage, read> k: array<f32>;
// [count, dr].
@group(0) @binding(4) var<storage, read> keys: array<f32>;
// [count, H * dv].
@group(0) @binding(5) var<storage, read> v: array<f32>;
// [T, H, 2].
@group(0) @binding(6) var<storage, read_write> state: array<f32>;
// [T, H * dv].
@group(0) @binding(7) var<storage, read_write> out: array<f32>;

const WG: u32 = 128u;
const BM: u32 = 64u;
const BN: u32 = 32u;
// Columns of queries and keys a stage.
const BD: u32 = 16u;
const NONE: f32 = -1e30;

// [BD][BM / 4]: four queries; later [BM / 4][8]: their maxima over each group of keys.
var<workgroup> q_tile: array<vec4<f32>, BD * BM / 4u>;
// [BD][BN / 4]: four keys; later [BN][8]: four columns of the values.
var<workgroup> kv_tile: array<vec4<f32>, BN * 8u>;
// [BN][BM / 4]: weights of four queries.
var<workgroup> p_tile: array<vec4<f32>, BN * BM / 4u>;

fn q_at(token: u32, head: u32, d: u32) -> f32 {
    let width = params.dn + params.dr;
    if (d >= width) {
        return 0.0;
    }
    return q[(token * params.heads + head) * width + d] * params.scale;
}

fn k_at(n: u32, head: u32, d: u32) -> f32 {
    if (d < params.dn) {
        return k[(n * params.heads + head) * params.dn + d];
    }
    if (d < params.dn + params.dr) {
        return keys[n * params.dr + d - params.dn];
    }
    return 0.0;
}

@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let tokens = token_count(params.tokens);
    let head = id.y;
    let token0 = id.x * BM;
    if (token0 >= tokens || head >= params.heads) {
        return;
    }
    let tq = lid >> 3u;
    let tk = lid & 7u;
    let mine = token0 + tq * 4u;
    // Positions of this thread's queries.
    let positions = vec4<u32>(step.pos + mine) + vec4<u32>(0u, 1u, 2u, 3u);
    let last_token = min(token0 + BM, tokens) - 1u;
#for c in 0..#{DV_TILES}
#for i in 0..4
    var o#{c}_#{i} = vec4<f32>(0.0);
#endfor
#endfor
    var maximum = vec4<f32>(NONE);
    var sum = vec4<f32>(0.0);
    if ((params.flags & 1u) == 0u) {
#for i in 0..4
        {
            let token = min(mine + #{i}u, last_token);
            let at = token * params.heads + head;
            maximum[#{i}] = state[2u * at];
            sum[#{i}] = state[2u * at + 1u];
#for c in 0..#{DV_TILES}
            {
                let e = #{c}u * 32u + tk * 4u;
#for j in 0..4
                if (e + #{j}u < params.dv) {
                    o#{c}_#{i}[#{j}] = out[at * params.dv + e + #{j}u];
                }
#endfor
            }
#endfor
        }
#endfor
    }
    // Keys of the chunk that some query of the tile sees.
    let seen = step.pos + last_token + 1u;
    let count = min(params.count, max(seen, params.first) - params.first);
    let width = params.dn + params.dr;
    for (var base = 0u; base < count; base += BN) {
        var s0 = vec4<f32>(0.0);
        var s1 = vec4<f32>(0.0);
        var s2 = vec4<f32>(0.0);
        var s3 = vec4<f32>(0.0);
        for (var d0 = 0u; d0 < width; d0 += BD) {
            for (var i = lid; i < BD * BM / 4u; i += WG) {
                let d = d0 + i % BD;
                let t = token0 + (i / BD) * 4u;
                q_tile[(i % BD) * (BM / 4u) + i / BD] = vec4<f32>(
                    q_at(min(t, last_token), head, d),
                    q_at(min(t + 1u, last_token), head, d),
                    q_at(min(t + 2u, last_token), head, d),
                    q_at(min(t + 3u, last_token), head, d),
                );
            }
            {
                let d = d0 + lid % BD;
                let n = base + (lid / BD) * 4u;
                let most = params.count - 1u;
                kv_tile[(lid % BD) * 8u + lid / BD] = vec4<f32>(
                    k_at(min(n, most), head, d),
                    k_at(min(n + 1u, most), head, d),
                    k_at(min(n + 2u, most), head, d),
                    k_at(min(n + 3u, most), head, d),
                );
            }
            workgroupBarrier();
            for (var d = 0u; d < BD; d++) {
                let a = q_tile[d * (BM / 4u) + tq];
                let b = kv_tile[d * 8u + tk];
                // s_j: scores of the four queries with key j.
                s0 += a * b.x;
                s1 += a * b.y;
                s2 += a * b.z;
                s3 += a * b.w;
            }
            workgroupBarrier();
        }
        // Keys after the query, and keys beyond the chunk, are not seen.
#for j in 0..4
        let n#{j} = base + tk * 4u + #{j}u;
        let there#{j} = (vec4<u32>(params.first + n#{j}) <= positions) & vec4<bool>(n#{j} < params.count);
        s#{j} = select(vec4<f32>(NONE), s#{j}, there#{j});
#endfor
        q_tile[tq * 8u + tk] = max(max(s0, s1), max(s2, s3));
        workgroupBarrier();
        var best = maximum;
        for (var i = 0u; i < 8u; i++) {
            best = max(best, q_tile[tq * 8u + i]);
        }
#for j in 0..4
        let p#{j} = select(vec4<f32>(0.0), exp(s#{j} - best), there#{j});
        p_tile[(tk * 4u + #{j}u) * (BM / 4u) + tq] = p#{j};
#endfor
        let shrink = exp(maximum - best);
        maximum = best;
        sum *= shrink;
#for c in 0..#{DV_TILES}
#for i in 0..4
        o#{c}_#{i} *= shrink[#{i}];
#endfor
#endfor
#for c in 0..#{DV_TILES}
        workgroupBarrier();
        for (var i = lid; i < BN * 8u; i += WG) {
            let n = base + i / 8u;
            let e = #{c}u * 32u + (i % 8u) * 4u;
            var y = vec4<f32>(0.0);
            if (n < params.count) {
                let at = (n * params.heads + head) * params.dv + e;
#for j in 0..4
                if (e + #{j}u < params.dv) {
                    y[#{j}] = v[at + #{j}u];
                }
#endfor
            }
            kv_tile[i] = y;
        }
        workgroupBarrier();
        for (var n = 0u; n < BN; n++) {
            let p = p_tile[n * (BM / 4u) + tq];
            let y = kv_tile[n * 8u + tk];
#for i in 0..4
            o#{c}_#{i} += p[#{i}] * y;
#endfor
        }
#endfor
        for (var n = 0u; n < BN; n++) {
            sum += p_tile[n * (BM / 4u) + tq];
        }
        workgroupBarrier();
    }
    let done = (params.flags & 2u) != 0u;
#for i in 0..4
    if (mine + #{i}u < tokens) {
        let at = (mine + #{i}u) * params.heads + head;
        let f = select(1.0, 1.0 / max(sum[#{i}], 1e-30), done);
        if (tk == 0u) {
            state[2u * at] = maximum[#{i}];
            state[2u * at + 1u] = sum[#{i}];
        }
#for c in 0..#{DV_TILES}
        {
            let e = #{c}u * 32u + tk * 4u;
#for j in 0..4
            if (e + #{j}u < params.dv) {
                out[at * params.dv + e + #{j}u] = o#{c}_#{i}[#{j}] * f;
            }
#endfor
        }
#endfor
    }
#endfor
}
