// Rows of a matrix times a few activations. TPR lanes share RPT rows; each weight is read once for all TOKENS activations.
#include "shared/ptx.cuh"
#include "shared/formats.cuh"
#include "shared/activation.cuh"

typedef FORMAT Weight;
#ifdef GATED
typedef GATE_FORMAT Gate;
#endif

// Rows of one block.
const u32 ROWS = THREADS / TPR * RPT;

// What rows are multiplied with what.
struct Gemv {
    // First words of the matrix, and of the gate's.
    const u32* w;
    const u32* gate;
    u32 row_words;
    u32 gate_row_words;
    u32 rows;
    u32 cols;
    // The first token's activation, and elements (8 bits: words) from one to the next.
    const X* x;
    u32 x_step;
    u32 tokens;
};

#ifdef QUANTISED
template <class W>
__device__ __forceinline__ void products(
    const u32* const (&row)[RPT], const X* const (&x)[TOKENS], u32 cols, u32 lane, float (&sum)[RPT][TOKENS]
) {
    const u32 blocks = cols >> 5;
    for (u32 b = lane; b < blocks; b += TPR) {
        Block32 w[RPT];
#pragma unroll
        for (int r = 0; r < RPT; r++) {
            w[r] = W::block32(row[r], b, cols);
        }
#pragma unroll
        for (int t = 0; t < TOKENS; t++) {
            const Act32 y = act32(x[t], b, cols);
#pragma unroll
            for (int r = 0; r < RPT; r++) {
                sum[r][t] += dot_block<W>(w[r], y);
            }
        }
    }
}
#else
// Pieces of 8 weights that a lane reads ahead.
const int AHEAD = TOKENS >= 4 ? 1 : 4;

template <class W>
__device__ __forceinline__ void add_piece(
    const typename W::Raw& raw, const u32* row, const X* const (&x)[TOKENS], u32 k, u32 cols, float (&sum)[TOKENS]
) {
    float w[8];
    W::decode(raw, w);
    const float scale = W::SCALED ? W::scale(row, k, cols) : 1.0f;
#pragma unroll
    for (int t = 0; t < TOKENS; t++) {
        float y[8], s = 0.0f;
        act8(x[t] + k, y);
#pragma unroll
        for (int i = 0; i < 8; i++) {
            s += w[i] * y[i];
        }
        sum[t] += W::SCALED ? s * scale : s;
    }
}

template <class W>
__device__ __forceinline__ void products(
    const u32* const (&row)[RPT], const X* const (&x)[TOKENS], u32 cols, u32 lane, float (&sum)[RPT][TOKENS]
) {
    const u32 step = TPR * 8;
    u32 k = lane * 8;
    for (; k + (AHEAD - 1) * step + 8 <= cols; k += AHEAD * step) {
        typename W::Raw raw[AHEAD][RPT];
#pragma unroll
        for (int i = 0; i < AHEAD; i++) {
#pragma unroll
            for (int r = 0; r < RPT; r++) {
                raw[i][r] = W::raw(row[r], k + i * step);
            }
        }
#pragma unroll
        for (int i = 0; i < AHEAD; i++) {
#pragma unroll
            for (int r = 0; r < RPT; r++) {
                add_piece<W>(raw[i][r], row[r], x, k + i * step, cols, sum[r]);
            }
        }
    }
    for (; k < cols; k += step) {
        if (k + 8 <= cols) {
#pragma unroll
            for (int r = 0; r < RPT; r++) {
                add_piece<W>(W::raw(row[r], k), row[r], x, k, cols, sum[r]);
            }
        } else {
            for (u32 i = k; i < cols; i++) {
#pragma unroll
                for (int r = 0; r < RPT; r++) {
                    const float w = W::at(row[r], i) * W::scale(row[r], i, cols);
#pragma unroll
                    for (int t = 0; t < TOKENS; t++) {
                        sum[r][t] += w * x[t][i];
                    }
                }
            }
        }
    }
}
#endif

// Calls emit(token, row, value) for every row of the block `tile` and every token, in one lane each.
template <class Emit>
__device__ __forceinline__ void gemv(const Gemv& m, u32 tile, Emit emit) {
    const u32 lane = threadIdx.x % TPR;
    const u32 first = tile * ROWS + threadIdx.x / TPR * RPT;
    const X* x[TOKENS];
#pragma unroll
    for (int t = 0; t < TOKENS; t++) {
        x[t] = m.x + (size_t)least(t, m.tokens - 1) * m.x_step;
    }
    const u32* row[RPT];
#pragma unroll
    for (int r = 0; r < RPT; r++) {
        row[r] = m.w + (size_t)least(first + r, m.rows - 1) * m.row_words;
    }
    float up[RPT][TOKENS] = {};
    products<Weight>(row, x, m.cols, lane, up);
#ifdef GATED
#pragma unroll
    for (int r = 0; r < RPT; r++) {
        row[r] = m.gate + (size_t)least(first + r, m.rows - 1) * m.gate_row_words;
    }
    float gate[RPT][TOKENS] = {};
    products<Gate>(row, x, m.cols, lane, gate);
#endif
#pragma unroll
    for (int r = 0; r < RPT; r++) {
#pragma unroll
        for (int t = 0; t < TOKENS; t++) {
            float value = sum_lanes<TPR>(up[r][t]);
#ifdef GATED
            value *= silu(sum_lanes<TPR>(gate[r][t]));
#endif
            if (lane == 0 && first + r < m.rows && t < m.tokens) {
                emit(t, first + r, value);
            }
        }
    }
}
