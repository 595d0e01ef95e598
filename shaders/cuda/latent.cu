// Appends [rms_norm(latent) | rope(key)] of every token to the latent cache. Grid: tokens.
#include "shared/ptx.cuh"

// Element e of the key, rotated by the angles of its position.
__device__ __forceinline__ float rotated(const Args& a, const float* key, const float* angles, u32 e) {
    const u32 half = a.p.dr >> 1;
    const bool interleaved = a.p.interleaved != 0;
    const u32 pair = interleaved ? e >> 1 : e % half;
    const bool second = interleaved ? (e & 1) == 1 : e >= half;
    const float u = key[interleaved ? 2 * pair : pair], v = key[interleaved ? 2 * pair + 1 : pair + half];
    const float cos = angles[2 * pair], sin = angles[2 * pair + 1];
    return second ? v * cos + u * sin : u * cos - v * sin;
}

KERNEL(latent) {
    __shared__ float cells[THREADS / 32];
    const Params& p = a.p;
    const u32 token = blockIdx.x;
    if (token >= token_count(a.frame, p.tokens)) {
        return;
    }
    const u32 width = p.r + p.dr;
    const float* kv = a.kv + (size_t)token * width;
    const u32 position = a.frame.step->pos + token;
    const float* angles = a.rope + (size_t)least(position, a.frame.positions - 1) * p.dr;
    float squares = 0.0f;
    for (u32 i = threadIdx.x; i < p.r; i += THREADS) {
        squares += kv[i] * kv[i];
    }
    const float scale = 1.0f / sqrtf(sum_all(squares, cells) / (float)p.r + p.eps);
    const size_t row = cache_row(a.frame, position);
    for (u32 i = threadIdx.x; i < width >> 1; i += THREADS) {
        const u32 e = 2 * i;
        float u, v;
        if (e < p.r) {
            u = kv[e] * scale * a.weight[e];
            v = kv[e + 1] * scale * a.weight[e + 1];
        } else {
            u = rotated(a, kv + p.r, angles, e - p.r);
            v = rotated(a, kv + p.r, angles, e - p.r + 1);
        }
#ifdef CACHE_F32
        a.cache[row * width + e] = __float_as_uint(u);
        a.cache[row * width + e + 1] = __float_as_uint(v);
#else
        a.cache[row * (width >> 1) + i] = float_half(u) | (float_half(v) << 16);
#endif
    }
}
