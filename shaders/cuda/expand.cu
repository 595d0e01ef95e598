// The rows first .. first + count of the latent cache as f32: latents and rope keys apart. Rows that are not yet written
// become 0. Grid: rows.
#include "shared/ptx.cuh"
#include "shared/cache.cuh"

KERNEL(expand) {
    const Params& p = a.p;
    const u32 n = blockIdx.x, position = p.first + n;
    const u32 tokens = token_count(a.frame, 0);
    if (n >= p.count || tokens == 0) {
        return;
    }
    const bool there = position < a.frame.step->pos + tokens;
    const u32 pairs = (p.r + p.dr) >> 1;
    const Pair* row = reinterpret_cast<const Pair*>(a.cache) + (size_t)cache_row(a.frame, position) * pairs;
    for (u32 i = threadIdx.x; i < pairs; i += THREADS) {
        const float2 v = there ? pair_value(row[i]) : make_float2(0.0f, 0.0f);
        const u32 e = 2 * i;
        float* out = e < p.r ? a.latents + (size_t)n * p.r + e : a.keys + (size_t)n * p.dr + e - p.r;
        out[0] = v.x, out[1] = v.y;
    }
}
