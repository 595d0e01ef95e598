// Tiles of 64 rows (of G as well where there is a gate) by TN tokens on tensor cores, 32 columns at a time.
//
// With 8-bit activations the products of a block are integers, and exact. Otherwise activations are cut into three bf16 terms,
// which together are the f32; weights need one term (quants, BF16, FP8), two (F16) or three (F32), and scales come after the
// products. Warp w has the rows 16 w .. 16 w + 16.
#include "shared/ptx.cuh"
#include "shared/formats.cuh"
#include "shared/activation.cuh"

typedef FORMAT Weight;
#ifdef GATED
typedef GATE_FORMAT Gate;
const int MATS = 2;
#else
typedef Weight Gate;
const int MATS = 1;
#endif

const u32 TM = 64;
const int TILES = TN / 8;

#ifdef ACT_Q8
// Words of a row of a tile; four more keep rows apart in the banks.
const int ROW = 8 + 4;
#else
const int ROW = 16 + 4;
// Terms of an activation and of a weight.
const int X_TERMS = 3;
#ifdef QUANTISED
const int W_TERMS = 1;
#else
const int W_TERMS = Weight::SPLIT > Gate::SPLIT ? Weight::SPLIT : Gate::SPLIT;
#endif
#endif

// A row of weights in shared memory.
struct WeightTile {
#ifdef ACT_Q8
    u32 q[TM][ROW];
#else
    u32 q[W_TERMS][TM][ROW];
#endif
    float s[2][TM];
    float m[2][TM];
};

struct Tiles {
    WeightTile w[MATS];
#ifdef ACT_Q8
    u32 x[TN][ROW];
    float d[TN];
#else
    u32 x[X_TERMS][TN][ROW];
#endif
    // Sums of halves of 16.
    float sum[2][TN];
};

// Of two floats: one bf16 each, and what remains of them.
__device__ __forceinline__ u32 bf16_term(float& a, float& b) {
    const u32 lo = float_bf16(a), hi = float_bf16(b);
    a -= __uint_as_float(lo << 16);
    b -= __uint_as_float(hi << 16);
    return lo | (hi << 16);
}

#ifdef QUANTISED
template <class W>
__device__ __forceinline__ void load_row(WeightTile& tile, u32 i, const u32* row, u32 k, u32 cols) {
    const Block32 w = W::block32(row, k >> 5, cols);
#pragma unroll
    for (int j = 0; j < 8; j++) {
#ifdef ACT_Q8
        tile.q[i][j] = w.q[j];
#else
        // Signed bytes are exact in bf16.
        u32 out[4];
#pragma unroll
        for (int n = 0; n < 4; n++) {
            out[n] = __float_as_uint((float)(i8)byte_of(w.q[j], n)) >> 16;
        }
        tile.q[0][i][2 * j] = out[0] | (out[1] << 16);
        tile.q[0][i][2 * j + 1] = out[2] | (out[3] << 16);
#endif
    }
#pragma unroll
    for (int h = 0; h < 2; h++) {
        tile.s[h][i] = w.s[h];
        tile.m[h][i] = w.m[h];
    }
}
#else
template <class W>
__device__ __forceinline__ void load_row(WeightTile& tile, u32 i, const u32* row, u32 k, u32 cols) {
#pragma unroll
    for (int j = 0; j < 4; j++) {
        const u32 at = k + 8 * j;
        float w[8];
        if (at + 8 <= cols) {
            W::decode(W::raw(row, at), w);
        } else {
#pragma unroll
            for (int n = 0; n < 8; n++) {
                w[n] = at + n < cols ? W::at(row, at + n) : 0.0f;
            }
        }
#pragma unroll
        for (int n = 0; n < 4; n++) {
            float a = w[2 * n], b = w[2 * n + 1];
#pragma unroll
            for (int t = 0; t < W_TERMS; t++) {
                tile.q[t][i][4 * j + n] = bf16_term(a, b);
            }
        }
    }
    tile.s[0][i] = tile.s[1][i] = W::SCALED ? W::scale(row, k, cols) : 1.0f;
}
#endif

__device__ __forceinline__ void load_x(Tiles& tiles, u32 i, const X* x, u32 k, u32 cols) {
#ifdef ACT_Q8
    const Act32 y = act32(x, k >> 5, cols);
#pragma unroll
    for (int j = 0; j < 8; j++) {
        tiles.x[i][j] = y.q[j];
    }
    tiles.d[i] = y.d;
    tiles.sum[0][i] = low_sum(y.sums);
    tiles.sum[1][i] = high_sum(y.sums);
#else
#pragma unroll
    for (int h = 0; h < 2; h++) {
        float sum = 0.0f;
#pragma unroll
        for (int j = 0; j < 8; j++) {
            const u32 at = k + 16 * h + 2 * j;
            float a = at < cols ? x[at] : 0.0f, b = at + 1 < cols ? x[at + 1] : 0.0f;
            sum += a + b;
#pragma unroll
            for (int t = 0; t < X_TERMS; t++) {
                tiles.x[t][i][8 * h + j] = bf16_term(a, b);
            }
        }
        tiles.sum[h][i] = sum;
    }
#endif
}

// Adds the products of this warp's 16 rows with all tokens.
template <class W>
__device__ __forceinline__ void multiply(const Tiles& tiles, const WeightTile& w, float (&acc)[TILES][4]) {
    const u32 lane = threadIdx.x & 31, g = lane >> 2, c = lane & 3;
    const u32 row = (threadIdx.x >> 5) * 16 + g;
#ifdef QUANTISED
    float s[2][2], m[2][2];
#pragma unroll
    for (int h = 0; h < 2; h++) {
        s[h][0] = w.s[h][row], s[h][1] = w.s[h][row + 8];
        m[h][0] = w.m[h][row], m[h][1] = w.m[h][row + 8];
    }
#endif
#ifdef ACT_Q8
    const u32 a[4] = {w.q[row][c], w.q[row + 8][c], w.q[row][4 + c], w.q[row + 8][4 + c]};
#pragma unroll
    for (int n = 0; n < TILES; n++) {
        const u32 b[2] = {tiles.x[n * 8 + g][c], tiles.x[n * 8 + g][4 + c]};
        float part[4];
        if (W::TWO_SCALES) {
            int low[4] = {}, high[4] = {};
            mma_s8_half(low, a[0], a[1], b[0]);
            mma_s8_half(high, a[2], a[3], b[1]);
#pragma unroll
            for (int i = 0; i < 4; i++) {
                part[i] = s[0][i / 2] * (float)low[i] + s[1][i / 2] * (float)high[i];
            }
        } else {
            int both[4] = {};
            mma_s8(both, a, b);
#pragma unroll
            for (int i = 0; i < 4; i++) {
                part[i] = s[0][i / 2] * (float)both[i];
            }
        }
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const u32 t = n * 8 + 2 * c + (i & 1);
            if (W::MINIMA) {
                part[i] -= m[0][i / 2] * tiles.sum[0][t] + m[1][i / 2] * tiles.sum[1][t];
            }
            acc[n][i] += tiles.d[t] * part[i];
        }
    }
#else
#ifdef QUANTISED
    const bool SCALED = true;
#else
    const bool SCALED = W::SCALED;
    const float scale[2] = {w.s[0][row], w.s[0][row + 8]};
#endif
#pragma unroll
    for (int n = 0; n < TILES; n++) {
        float part[2][4] = {};
#pragma unroll
        for (int h = 0; h < 2; h++) {
#pragma unroll
            for (int i = 0; i < W_TERMS; i++) {
                const u32 a[4] = {w.q[i][row][8 * h + c], w.q[i][row + 8][8 * h + c], w.q[i][row][8 * h + 4 + c],
                                  w.q[i][row + 8][8 * h + 4 + c]};
#pragma unroll
                for (int j = 0; j < X_TERMS - i; j++) {
                    const u32 b[2] = {tiles.x[j][n * 8 + g][8 * h + c], tiles.x[j][n * 8 + g][8 * h + 4 + c]};
                    if (SCALED) {
                        mma_bf16(part[h], a, b);
                    } else {
                        mma_bf16(acc[n], a, b);
                    }
                }
            }
        }
        if (SCALED) {
#pragma unroll
            for (int i = 0; i < 4; i++) {
#ifdef QUANTISED
                float v = s[0][i / 2] * part[0][i] + s[1][i / 2] * part[1][i];
                if (W::MINIMA) {
                    const u32 t = n * 8 + 2 * c + (i & 1);
                    v -= m[0][i / 2] * tiles.sum[0][t] + m[1][i / 2] * tiles.sum[1][t];
                }
                acc[n][i] += v;
#else
                acc[n][i] += scale[i / 2] * (part[0][i] + part[1][i]);
#endif
            }
        }
    }
#endif
}

// What rows are multiplied with what.
struct Gemm {
    const u32* w;
    const u32* gate;
    u32 row_words;
    u32 gate_row_words;
    u32 rows;
    u32 cols;
    // First row, and tokens of the tile.
    u32 first;
    u32 tokens;
};

// Calls emit(token, row, value) for every row and token of the tile. x_of(token): its activation.
template <class Source, class Emit>
__device__ __forceinline__ void gemm(Tiles& tiles, const Gemm& m, Source x_of, Emit emit) {
    float up[TILES][4] = {};
#ifdef GATED
    float gate[TILES][4] = {};
#endif
    for (u32 k = 0; k < m.cols; k += 32) {
        __syncthreads();
        for (u32 i = threadIdx.x; i < TM * MATS + TN; i += THREADS) {
            if (i >= TM * MATS) {
                const u32 t = i - TM * MATS;
                load_x(tiles, t, x_of(least(t, m.tokens - 1)), k, m.cols);
                continue;
            }
            const u32 row = least(m.first + i % TM, m.rows - 1);
            if (i < TM) {
                load_row<Weight>(tiles.w[0], i, m.w + (size_t)row * m.row_words, k, m.cols);
            }
#ifdef GATED
            else {
                load_row<Gate>(tiles.w[1], i - TM, m.gate + (size_t)row * m.gate_row_words, k, m.cols);
            }
#endif
        }
        __syncthreads();
        multiply<Weight>(tiles, tiles.w[0], up);
#ifdef GATED
        multiply<Gate>(tiles, tiles.w[1], gate);
#endif
    }
    const u32 lane = threadIdx.x & 31, g = lane >> 2, c = lane & 3;
#pragma unroll
    for (int n = 0; n < TILES; n++) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const u32 row = m.first + (threadIdx.x >> 5) * 16 + g + 8 * (i / 2);
            const u32 token = n * 8 + 2 * c + (i & 1);
            float value = up[n][i];
#ifdef GATED
            value *= silu(gate[n][i]);
#endif
            if (row < m.rows && token < m.tokens) {
                emit(token, row, value);
            }
        }
    }
}
