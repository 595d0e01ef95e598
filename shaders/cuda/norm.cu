// x / sqrt(mean(x^2) + eps) * weight, as f32 (OUT_F32), in 8 bits (OUT_Q8), or both. Grid: rows.
#ifdef OUT_Q8
#include "shared/q8.cuh"
#endif

KERNEL(norm) {
    __shared__ float cells[THREADS / 32];
    const Params& p = a.p;
    if (blockIdx.x >= token_count(a.frame, p.tokens)) {
        return;
    }
    const float* x = a.x + (size_t)blockIdx.x * p.width;
    float squares = 0.0f;
    for (u32 i = threadIdx.x; i < p.width; i += THREADS) {
        squares += x[i] * x[i];
    }
    const float scale = 1.0f / sqrtf(sum_all(squares, cells) / (float)p.width + p.eps);
#ifdef OUT_Q8
    const u32 words = p.width >> 2;
    u32* q8 = a.q8 + (size_t)blockIdx.x * (words + (words >> 2));
    for (u32 base = 0; base < words; base += THREADS) {
        const u32 i = base + threadIdx.x;
        float4 v = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        if (i < words) {
            // The width is a multiple of 32, so rows begin at multiples of 16 bytes.
            v = reinterpret_cast<const float4*>(x)[i];
            const float* w = a.weight + 4 * i;
            v.x = v.x * scale * w[0], v.y = v.y * scale * w[1], v.z = v.z * scale * w[2], v.w = v.w * scale * w[3];
#ifdef OUT_F32
            reinterpret_cast<float4*>(a.out + (size_t)blockIdx.x * p.width)[i] = v;
#endif
        }
        q8_block(q8, p.width, i, v);
    }
#else
    for (u32 i = threadIdx.x; i < p.width; i += THREADS) {
        a.out[(size_t)blockIdx.x * p.width + i] = x[i] * scale * a.weight[i];
    }
#endif
}
