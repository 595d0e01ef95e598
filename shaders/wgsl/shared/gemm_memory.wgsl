// Constants and workgroup memory of shared/gemm.wgsl: a tile of 64 rows (32 of G and 32 of U) by TN tokens.
const TN: u32 = #{TN}u;
// Groups of four tokens.
const TQ: u32 = TN / 4u;
const WG: u32 = #{WG}u;
#ifdef GATED
const TM: u32 = 32u;
#else
const TM: u32 = 64u;
#endif
#ifdef ACT_Q8
// Blocks of 32 columns a stage.
const STAGE: u32 = 2u;
// [STAGE][8 words][16 groups of four rows]: a word of each row.
var<workgroup> w_tile: array<vec4<u32>, STAGE * 8u * 16u>;
var<workgroup> w_scale: array<vec4<f32>, STAGE * 16u>;
#ifdef TWO_SCALES
var<workgroup> w_scale1: array<vec4<f32>, STAGE * 16u>;
#endif
#ifdef MINIMA
var<workgroup> w_min: array<vec4<f32>, STAGE * 16u>;
var<workgroup> w_min1: array<vec4<f32>, STAGE * 16u>;
var<workgroup> x_sum: array<vec4<f32>, STAGE * TQ>;
var<workgroup> x_sum1: array<vec4<f32>, STAGE * TQ>;
#endif
var<workgroup> x_tile: array<vec4<u32>, STAGE * 8u * TQ>;
var<workgroup> x_scale: array<vec4<f32>, STAGE * TQ>;

fn dots(w: vec4<u32>, x: u32) -> vec4<i32> {
    return vec4<i32>(dot4I8Packed(w.x, x), dot4I8Packed(w.y, x), dot4I8Packed(w.z, x), dot4I8Packed(w.w, x));
}
#else
// [32 columns][16 groups of four rows].
var<workgroup> w_tile: array<vec4<f32>, 32u * 16u>;
// [32 columns][TQ].
var<workgroup> x_tile: array<vec4<f32>, 32u * TQ>;

// Four activations from column k; 0 beyond the row.
fn x_quad(start: u32, k: u32) -> vec4<f32> {
    if (k + 4u <= params.cols) {
        return act4(start + k);
    }
    var v = vec4<f32>(0.0);
    for (var i = 0u; k + i < params.cols; i++) {
        v[i] = act1(start + k + i);
    }
    return v;
}

#import shared/decode.wgsl P=w_
#ifdef GATED
#import shared/decode.wgsl P=gate_
#endif
#endif
