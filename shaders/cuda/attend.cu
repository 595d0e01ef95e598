// Latent attention in absorbed form: HEADS heads of one token over one part of the cache, softmax on the way; heads share each
// tile of latents. Grid: parts of the cache, groups of heads, tokens.
//
// Scores: each of 8 warps has 4 rows of a tile of 32; a lane has every 32nd pair of elements, and sums are halved from lane to
// lane until each lane has one. Values: every thread has PPT pairs of the output of all heads and walks over the tile.
#include "shared/ptx.cuh"
#include "shared/cache.cuh"

const u32 TILE = 32;
const u32 EACH = 4;
const float NONE = -1e30f;
// Scores of a warp.
const int SCORES = EACH * HEADS;

// Shared memory: queries of all heads as f32, then a tile of the cache.
extern __shared__ uint4 memory[];

// Sums v[i] over the lanes; lane l gets the sum of v[l * SCORES / 32] (SCORES < 32: several lanes the same).
__device__ __forceinline__ float sum_each(float (&v)[SCORES], u32 lane) {
    int count = SCORES;
#pragma unroll
    for (int d = 16; d > 0; d >>= 1) {
        if (count > 1) {
            count /= 2;
            const bool upper = (lane & d) != 0;
#pragma unroll
            for (int i = 0; i < SCORES / 2; i++) {
                if (i < count) {
                    const float mine = upper ? v[i + count] : v[i], theirs = upper ? v[i] : v[i + count];
                    v[i] = mine + __shfl_xor_sync(ALL, theirs, d);
                }
            }
        } else {
            v[0] += __shfl_xor_sync(ALL, v[0], d);
        }
    }
    return v[0];
}

KERNEL(attend) {
    __shared__ float scores[HEADS][TILE];
    __shared__ float weights[TILE][HEADS];
    __shared__ float shrink[HEADS];
    const Params& p = a.p;
    const u32 token = blockIdx.z, head0 = blockIdx.y * HEADS;
    if (token >= token_count(a.frame, p.tokens)) {
        return;
    }
    const u32 lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    const u32 width = p.r + p.dr, pairs = width >> 1;
    const u32 length = a.frame.step->pos + token + 1;
    const u32 part = ((length + p.splits - 1) / p.splits + TILE - 1) / TILE * TILE;
    const u32 start = least(blockIdx.x * part, length), end = least(start + part, length);

    float* queries = reinterpret_cast<float*>(memory);
    Pair* tile = reinterpret_cast<Pair*>(memory + (HEADS * width + 3) / 4);
    for (u32 i = threadIdx.x; i < HEADS * width; i += THREADS) {
        const u32 head = head0 + i / width, e = i % width;
        float q = 0.0f;
        if (head < p.heads) {
            q = e < p.r ? a.q_latent[((size_t)token * p.heads + head) * p.r + e]
                        : a.q_rope[p.q_offset + (size_t)token * p.q_width + head * p.q_stride + e - p.r];
        }
        queries[i] = q * p.scale;
    }
    float2 out[HEADS][PPT];
#pragma unroll
    for (int h = 0; h < HEADS; h++) {
#pragma unroll
        for (int j = 0; j < PPT; j++) {
            out[h][j] = make_float2(0.0f, 0.0f);
        }
    }
    // Of head `warp`.
    float maximum = NONE, sum = 0.0f;
    for (u32 base = start; base < end; base += TILE) {
        const u32 rows = least(end - base, TILE);
        __syncthreads();
        // Rows of whole 16 bytes go by 16 bytes.
        const u32 words = pairs * (sizeof(Pair) / 4);
        if (words % 4 == 0) {
            const u32 quads = words / 4;
            for (u32 i = threadIdx.x; i < rows * quads; i += THREADS) {
                const size_t row = cache_row(a.frame, base + i / quads);
                reinterpret_cast<uint4*>(tile)[i] = reinterpret_cast<const uint4*>(a.cache)[row * quads + i % quads];
            }
        } else {
            for (u32 i = threadIdx.x; i < rows * words; i += THREADS) {
                const size_t row = cache_row(a.frame, base + i / words);
                reinterpret_cast<u32*>(tile)[i] = a.cache[row * words + i % words];
            }
        }
        __syncthreads();
        float s[SCORES] = {};
        for (u32 i = lane; i < pairs; i += 32) {
            float2 v[EACH];
#pragma unroll
            for (int n = 0; n < EACH; n++) {
                // Rows beyond the end repeat the last one and get no weight.
                v[n] = pair_value(tile[least(warp * EACH + n, rows - 1) * pairs + i]);
            }
#pragma unroll
            for (int h = 0; h < HEADS; h++) {
                const float2 q = *reinterpret_cast<const float2*>(queries + h * width + 2 * i);
#pragma unroll
                for (int n = 0; n < EACH; n++) {
                    s[n * HEADS + h] += q.x * v[n].x + q.y * v[n].y;
                }
            }
        }
        const float score = sum_each(s, lane);
        const u32 each = 32 / SCORES;
        if (lane % each == 0) {
            const u32 i = lane / each;
            scores[i % HEADS][warp * EACH + i / HEADS] = score;
        }
        __syncthreads();
        if (warp < HEADS) {
            const float mine = lane < rows ? scores[warp][lane] : NONE;
            const float best = fmaxf(maximum, max_lanes<32>(mine));
            const float weight = lane < rows ? expf(mine - best) : 0.0f;
            const float factor = expf(maximum - best);
            sum = sum * factor + sum_lanes<32>(weight);
            maximum = best;
            weights[lane][warp] = weight;
            if (lane == 0) {
                shrink[warp] = factor;
            }
        }
        __syncthreads();
#pragma unroll
        for (int h = 0; h < HEADS; h++) {
            const float factor = shrink[h];
#pragma unroll
            for (int j = 0; j < PPT; j++) {
                out[h][j].x *= factor, out[h][j].y *= factor;
            }
        }
        for (u32 n = 0; n < rows; n++) {
            float weight[HEADS];
#pragma unroll
            for (int h = 0; h < HEADS; h++) {
                weight[h] = weights[n][h];
            }
#pragma unroll
            for (int j = 0; j < PPT; j++) {
                const float2 v = pair_value(tile[n * pairs + least(threadIdx.x + j * THREADS, pairs - 1)]);
#pragma unroll
                for (int h = 0; h < HEADS; h++) {
                    out[h][j].x += weight[h] * v.x, out[h][j].y += weight[h] * v.y;
                }
            }
        }
    }
    __shared__ float sums[HEADS];
    if (warp < HEADS && lane == 0) {
        sums[warp] = sum;
#ifdef SPLIT
        if (head0 + warp < p.heads) {
            float* tail = a.out + (((size_t)token * p.heads + head0 + warp) * p.splits + blockIdx.x) * (p.r + 2) + p.r;
            tail[0] = maximum;
            tail[1] = sum;
        }
#endif
    }
    __syncthreads();
#pragma unroll
    for (int h = 0; h < HEADS; h++) {
        if (head0 + h < p.heads) {
#ifdef SPLIT
            float* to = a.out + (((size_t)token * p.heads + head0 + h) * p.splits + blockIdx.x) * (p.r + 2);
            const float factor = 1.0f;
#else
            float* to = a.out + ((size_t)token * p.heads + head0 + h) * p.r;
            const float factor = 1.0f / sums[h];
#endif
#pragma unroll
            for (int j = 0; j < PPT; j++) {
                const u32 e = 2 * (threadIdx.x + j * THREADS);
                if (e < p.r) {
                    to[e] = out[h][j].x * factor, to[e + 1] = out[h][j].y * factor;
                }
            }
        }
    }
}
