// out = x in 8 bits. Grid: blocks of 4 * THREADS elements, rows.
#include "shared/q8.cuh"

KERNEL(quantise) {
    const Params& p = a.p;
    if (blockIdx.y >= token_count(a.frame, p.tokens)) {
        return;
    }
    const u32 i = blockIdx.x * THREADS + threadIdx.x;
    const u32 words = p.width >> 2;
    float4 v = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    if (i < words) {
        v = reinterpret_cast<const float4*>(a.x + (size_t)blockIdx.y * p.width)[i];
    }
    q8_block(a.out + (size_t)blockIdx.y * (words + (words >> 2)), p.width, i, v);
}
