// `experts_matvec` for many pairs, sorted by expert: each block has a tile of pairs of one expert (see group_fill).
// Grid: tiles of rows, tiles of pairs.
#include "shared/gemm.cuh"
#include "shared/experts.cuh"

struct Source {
    const Args& a;
    const u32* pairs;

    __device__ __forceinline__ const X* operator()(u32 token) const {
        return x_of_pair(a, pairs[token]);
    }
};

struct Store {
    const Args& a;
    const u32* pairs;

    __device__ __forceinline__ void operator()(u32 token, u32 row, float value) const {
        a.out[(size_t)pairs[token] * a.p.rows + row] = value;
    }
};

KERNEL(experts_matmat) {
    __shared__ Tiles shared;
    const Params& p = a.p;
    if (token_count(a.frame, p.tokens) == 0 || blockIdx.y >= least(a.tiles[0], p.max_tiles)) {
        return;
    }
    const u32* tile = a.tiles + 4 + blockIdx.y * 4;
    const u32* blob = blob_of(a, tile[0]);
    if (blob == nullptr) {
        return;
    }
    const u32* pairs = a.pairs + tile[1];
    Gemm m;
    m.w = blob + p.part_offset;
#ifdef GATED
    m.gate = blob + p.gate_offset;
#endif
    m.row_words = p.row_words, m.gate_row_words = p.gate_row_words;
    m.rows = p.rows, m.cols = p.cols;
    m.first = blockIdx.x * TM, m.tokens = tile[2];
    const Source source = {a, pairs};
    const Store store = {a, pairs};
    gemm(shared, m, source, store);
}
