// out[t] = table[ids[t]] as f32. Grid: blocks of THREADS pieces (of 32 quantised weights or 8 floats), tokens.
#include "shared/ptx.cuh"
#include "shared/formats.cuh"

typedef FORMAT Weight;

KERNEL(embed) {
    const Params& p = a.p;
    if (blockIdx.y >= token_count(a.frame, 0)) {
        return;
    }
    const u32 id = a.ids[blockIdx.y];
    if (id < p.row_base || id - p.row_base >= p.rows) {
        return;
    }
    const u32* row = a.w + (size_t)(id - p.row_base) * p.row_words;
    float* out = a.out + (size_t)blockIdx.y * p.width;
    const u32 piece = blockIdx.x * THREADS + threadIdx.x;
#ifdef QUANTISED
    if (piece < p.width >> 5) {
        const Block32 w = Weight::block32(row, piece, p.width);
#pragma unroll
        for (int i = 0; i < 32; i++) {
            out[piece * 32 + i] = (float)(i8)byte_of(w.q[i / 4], i & 3) * w.s[i / 16] - w.m[i / 16];
        }
    }
#else
    for (u32 k = piece * 8; k < least(piece * 8 + 8, p.width); k++) {
        out[k] = Weight::at(row, k) * Weight::scale(row, k, p.width);
    }
#endif
}
