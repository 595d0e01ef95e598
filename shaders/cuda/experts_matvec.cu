// For each pair (token, chosen expert): silu(G x) * (U x), or D x. Grid: blocks of rows, pairs.
//
// COMBINE: all of a token's experts in one block, a warp for each, and their weighted sum added to the residual stream at once:
// out[t] += sum over k, ascending, of weights[t][k] * D x[t][k]. Grid: blocks of rows, tokens.
#include "shared/gemv.cuh"
#include "shared/experts.cuh"

__device__ __forceinline__ Gemv product_of(const Args& a, u32 pair, const u32* blob) {
    const Params& p = a.p;
    Gemv m;
    m.w = blob + p.part_offset;
#ifdef GATED
    m.gate = blob + p.gate_offset;
#endif
    m.row_words = p.row_words, m.gate_row_words = p.gate_row_words;
    m.rows = p.rows, m.cols = p.cols, m.tokens = 1;
    m.x = x_of_pair(a, pair);
    m.x_step = 0;
    return m;
}

#ifdef COMBINE
// Rows of one block: each warp has the same ones, of its expert.
const u32 WARP_ROWS = 32 / TPR * RPT;
const u32 WARPS = THREADS / 32;

KERNEL(experts_matvec) {
    __shared__ float sums[WARPS][WARP_ROWS];
    const Params& p = a.p;
    const u32 token = blockIdx.y;
    if (token >= token_count(a.frame, p.tokens)) {
        return;
    }
    const u32 warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
    const u32 first = blockIdx.x * WARP_ROWS;
    float total = 0.0f;
    for (u32 k0 = 0; k0 < p.top_k; k0 += WARPS) {
        const u32 k = k0 + warp;
        const u32 pair = token * p.top_k + least(k, p.top_k - 1);
        const u32* blob = blob_of(a, a.slots[pair]);
        if (k < p.top_k && blob != nullptr) {
            const Gemv m = product_of(a, pair, blob);
            const u32* row[RPT];
#pragma unroll
            for (int r = 0; r < RPT; r++) {
                row[r] = m.w + (size_t)least(first + lane / TPR * RPT + r, p.rows - 1) * m.row_words;
            }
            const X* const x[TOKENS] = {m.x};
            float sum[RPT][TOKENS] = {};
            products<Weight>(row, x, p.cols, lane % TPR, sum);
#pragma unroll
            for (int r = 0; r < RPT; r++) {
                const float s = sum_lanes<TPR>(sum[r][0]);
                if (lane % TPR == 0) {
                    sums[warp][lane / TPR * RPT + r] = s * a.weights[pair];
                }
            }
        } else if (lane < WARP_ROWS) {
            sums[warp][lane] = 0.0f;
        }
        __syncthreads();
        if (threadIdx.x < WARP_ROWS) {
            for (u32 i = 0; i < WARPS; i++) {
                total += sums[i][threadIdx.x];
            }
        }
        __syncthreads();
    }
    if (threadIdx.x < WARP_ROWS && first + threadIdx.x < p.rows) {
        a.out[(size_t)token * p.rows + first + threadIdx.x] += total;
    }
}
#else
struct Store {
    const Args& a;
    u32 pair;

    __device__ __forceinline__ void operator()(u32 token, u32 row, float value) const {
        a.out[(size_t)pair * a.p.rows + row] = value;
    }
};

KERNEL(experts_matvec) {
    const Params& p = a.p;
    const u32 pair = blockIdx.y;
    if (pair >= token_count(a.frame, p.tokens) * p.top_k) {
        return;
    }
    const u32* blob = blob_of(a, a.slots[pair]);
    if (blob == nullptr) {
        return;
    }
    const Store store = {a, pair};
    gemv(product_of(a, pair, blob), blockIdx.x, store);
}
#endif
