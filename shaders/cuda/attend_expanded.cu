// Attention over a chunk of expanded keys and values: 64 queries of one head by 32 keys at a time, softmax on the way.
// Between chunks the sums stay in `out`, maxima and sums of weights in `state`. Grid: tiles of queries, heads.
//
// Threads form 16 groups of four queries by 8 groups of four keys (or of four columns of the values).
const u32 BM = 64;
const u32 BN = 32;
// Columns of queries and keys a stage.
const u32 BD = 16;
const float NONE = -1e30f;

KERNEL(attend_expanded) {
    // [BD][BM] queries; [BD][BN] keys, later [BN][32] columns of the values; [BM][8] maxima over each group of keys; [BN][BM] weights.
    __shared__ float q_tile[BD][BM + 4];
    __shared__ float kv_tile[BN][BN + 4];
    __shared__ float group_best[BM][8];
    __shared__ float p_tile[BN][BM + 4];
    const Params& p = a.p;
    const u32 tokens = token_count(a.frame, p.tokens), head = blockIdx.y, token0 = blockIdx.x * BM;
    if (token0 >= tokens) {
        return;
    }
    const u32 tq = threadIdx.x >> 3, tk = threadIdx.x & 7, mine = token0 + tq * 4;
    const u32 pos = a.frame.step->pos, last = least(token0 + BM, tokens) - 1, width = p.dn + p.dr;
    float out[DV_TILES][4][4];
    float maximum[4], sum[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const size_t at = (size_t)least(mine + i, last) * p.heads + head;
        const bool begun = (p.flags & 1) == 0;
        maximum[i] = begun ? a.state[2 * at] : NONE;
        sum[i] = begun ? a.state[2 * at + 1] : 0.0f;
#pragma unroll
        for (int c = 0; c < DV_TILES; c++) {
#pragma unroll
            for (int j = 0; j < 4; j++) {
                const u32 e = c * 32 + tk * 4 + j;
                out[c][i][j] = begun && e < p.dv ? a.out[at * p.dv + e] : 0.0f;
            }
        }
    }
    // Keys of the chunk that some query of the tile sees.
    const u32 count = least(p.count, most(pos + last + 1, p.first) - p.first);
    for (u32 base = 0; base < count; base += BN) {
        float s[4][4] = {};
        for (u32 d0 = 0; d0 < width; d0 += BD) {
            __syncthreads();
            for (u32 i = threadIdx.x; i < BD * BM; i += THREADS) {
                const u32 d = d0 + i % BD, t = least(token0 + i / BD, last);
                q_tile[i % BD][i / BD] = d < width ? a.q[((size_t)t * p.heads + head) * width + d] * p.scale : 0.0f;
            }
            for (u32 i = threadIdx.x; i < BD * BN; i += THREADS) {
                const u32 d = d0 + i % BD;
                const size_t n = least(base + i / BD, p.count - 1);
                float v = 0.0f;
                if (d < p.dn) {
                    v = a.k[(n * p.heads + head) * p.dn + d];
                } else if (d < width) {
                    v = a.keys[n * p.dr + d - p.dn];
                }
                kv_tile[i % BD][i / BD] = v;
            }
            __syncthreads();
#pragma unroll
            for (int d = 0; d < BD; d++) {
                float x[4], y[4];
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    x[i] = q_tile[d][tq * 4 + i], y[i] = kv_tile[d][tk * 4 + i];
                }
#pragma unroll
                for (int i = 0; i < 4; i++) {
#pragma unroll
                    for (int j = 0; j < 4; j++) {
                        s[i][j] += x[i] * y[j];
                    }
                }
            }
        }
        // Keys after the query, and keys beyond the chunk, are not seen.
#pragma unroll
        for (int i = 0; i < 4; i++) {
            float best = NONE;
#pragma unroll
            for (int j = 0; j < 4; j++) {
                const u32 n = base + tk * 4 + j;
                s[i][j] = p.first + n <= pos + mine + i && n < p.count ? s[i][j] : NONE;
                best = fmaxf(best, s[i][j]);
            }
            group_best[tq * 4 + i][tk] = best;
        }
        __syncthreads();
#pragma unroll
        for (int i = 0; i < 4; i++) {
            float best = maximum[i];
#pragma unroll
            for (int j = 0; j < 8; j++) {
                best = fmaxf(best, group_best[tq * 4 + i][j]);
            }
            const float shrink = expf(maximum[i] - best);
            maximum[i] = best;
            sum[i] *= shrink;
#pragma unroll
            for (int j = 0; j < 4; j++) {
                p_tile[tk * 4 + j][tq * 4 + i] = s[i][j] > NONE ? expf(s[i][j] - best) : 0.0f;
#pragma unroll
                for (int c = 0; c < DV_TILES; c++) {
                    out[c][i][j] *= shrink;
                }
            }
        }
#pragma unroll
        for (int c = 0; c < DV_TILES; c++) {
            __syncthreads();
            for (u32 i = threadIdx.x; i < BN * 32; i += THREADS) {
                const u32 n = base + i / 32, e = c * 32 + i % 32;
                kv_tile[i / 32][i % 32] = n < p.count && e < p.dv ? a.v[((size_t)n * p.heads + head) * p.dv + e] : 0.0f;
            }
            __syncthreads();
            for (int n = 0; n < BN; n++) {
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    const float weight = p_tile[n][tq * 4 + i];
#pragma unroll
                    for (int j = 0; j < 4; j++) {
                        out[c][i][j] += weight * kv_tile[n][tk * 4 + j];
                    }
                }
            }
        }
        for (int n = 0; n < BN; n++) {
#pragma unroll
            for (int i = 0; i < 4; i++) {
                sum[i] += p_tile[n][tq * 4 + i];
            }
        }
    }
    const bool done = (p.flags & 2) != 0;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        if (mine + i < tokens) {
            const size_t at = (size_t)(mine + i) * p.heads + head;
            const float factor = done ? 1.0f / fmaxf(sum[i], 1e-30f) : 1.0f;
            if (tk == 0) {
                a.state[2 * at] = maximum[i];
                a.state[2 * at + 1] = sum[i];
            }
#pragma unroll
            for (int c = 0; c < DV_TILES; c++) {
#pragma unroll
                for (int j = 0; j < 4; j++) {
                    const u32 e = c * 32 + tk * 4 + j;
                    if (e < p.dv) {
                        a.out[at * p.dv + e] = out[c][i][j] * factor;
                    }
                }
            }
        }
    }
}
