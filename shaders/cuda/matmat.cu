// out[t] (+)= W x[t], or silu(G x[t]) * (W x[t]), for many tokens; for each head where there are several.
// Grid: tiles of rows, tiles of tokens, heads.
#include "shared/gemm.cuh"

struct Source {
    const Args& a;
    u32 first;
    u32 head;

    __device__ __forceinline__ const X* operator()(u32 token) const {
#ifdef ACT_Q8
        return a.x + (size_t)(first + token) * x_words(a.p.cols);
#else
        return reinterpret_cast<const X*>(a.x) + a.p.x_offset + (size_t)(first + token) * a.p.x_width + head * a.p.x_stride;
#endif
    }
};

struct Store {
    const Args& a;
    u32 first;
    u32 head;

    __device__ __forceinline__ void operator()(u32 token, u32 row, float value) const {
        const Params& p = a.p;
        float* out = a.out + p.out_offset + (size_t)(first + token) * p.out_width + head * p.out_stride + p.row_base + row;
#ifdef ADD
        value += *out;
#endif
        *out = value;
    }
};

KERNEL(matmat) {
    __shared__ Tiles tiles;
    const Params& p = a.p;
    const u32 all = token_count(a.frame, p.tokens), first = blockIdx.y * TN;
    if (first >= all) {
        return;
    }
    const u32 head = blockIdx.z;
    Gemm m;
    m.w = a.w + (size_t)head * p.rows * p.row_words;
#ifdef GATED
    m.gate = a.gate + (size_t)head * p.rows * p.gate_row_words;
#endif
    m.row_words = p.row_words, m.gate_row_words = p.gate_row_words;
    m.rows = p.rows, m.cols = p.cols;
    m.first = blockIdx.x * TM, m.tokens = least(all - first, TN);
    const Source source = {a, first, p.head_base + head};
    const Store store = {a, first, p.head_base + head};
    gemm(tiles, m, source, store);
}
