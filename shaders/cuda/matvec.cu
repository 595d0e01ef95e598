// out[t] (+)= W x[t], or silu(G x[t]) * (W x[t]), for up to TOKENS tokens; for each head where there are several.
// Grid: blocks of rows, heads.
#include "shared/gemv.cuh"

struct Store {
    const Args& a;
    u32 head;

    __device__ __forceinline__ void operator()(u32 token, u32 row, float value) const {
        const Params& p = a.p;
        float* out = a.out + p.out_offset + (size_t)token * p.out_width + head * p.out_stride + p.row_base + row;
#ifdef ADD
        value += *out;
#endif
        *out = value;
    }
};

KERNEL(matvec) {
    const Params& p = a.p;
    const u32 tokens = token_count(a.frame, p.tokens);
    if (tokens == 0) {
        return;
    }
    const u32 head = blockIdx.y;
    Gemv m;
    m.w = a.w + (size_t)head * p.rows * p.row_words;
#ifdef GATED
    m.gate = a.gate + (size_t)head * p.rows * p.gate_row_words;
#endif
    m.row_words = p.row_words, m.gate_row_words = p.gate_row_words;
    m.rows = p.rows, m.cols = p.cols, m.tokens = tokens;
#ifdef ACT_Q8
    m.x = a.x;
    m.x_step = x_words(p.cols);
#else
    m.x = reinterpret_cast<const X*>(a.x) + p.x_offset + head * p.x_stride;
    m.x_step = p.x_width;
#endif
    const Store store = {a, p.head_base + head};
    gemv(m, blockIdx.x, store);
}
