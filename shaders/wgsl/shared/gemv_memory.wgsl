// Constants and workgroup memory of shared/gemv.wgsl.
const WG: u32 = #{WG}u;
// Threads that share a row, groups of them in a workgroup, rows a thread, tokens.
const TPR: u32 = #{TPR}u;
const GROUPS: u32 = #{GROUPS}u;
const RPT: u32 = #{RPT}u;
const TOKENS: u32 = #{TOKENS}u;
#ifdef GATED
const SUMS: u32 = RPT * TOKENS * 2u;
#else
const SUMS: u32 = RPT * TOKENS;
#endif
#ifdef SUBGROUP
// A subgroup has 4 invocations at least.
const PARTS: u32 = (WG + 3u) / 4u;
var<workgroup> partial: array<f32, SUMS * PARTS>;
#else
// In the first step of the reduction every sum of TPR values becomes PARTS sums.
const PARTS: u32 = clamp(WG / (GROUPS * SUMS), 1u, TPR);
var<workgroup> partial: array<f32, SUMS * WG>;
#endif
