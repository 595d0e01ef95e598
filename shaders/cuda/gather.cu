// Copies the experts that `admit` listed from the host's memory into their slots. Grid: parts of a blob, K.
//
// A read from the host takes a microsecond or two: every thread has several under way, so that a few blocks keep the bus busy.
#include "shared/ptx.cuh"

// Pieces of 16 bytes that a thread reads ahead.
const u32 AHEAD = 4;

KERNEL(gather) {
    const Params& p = a.p;
    if (token_count(a.frame, 0) == 0 || blockIdx.y >= a.work[0]) {
        return;
    }
    const u32 expert = a.work[1 + 2 * blockIdx.y] - p.bank_first;
    const u32 slot = a.work[2 + 2 * blockIdx.y] - p.slab_first;
    if (expert >= p.bank_count || slot >= p.slab_count) {
        return;
    }
    const u32* from = a.source + (size_t)expert * p.quads * 4;
    uint4* to = reinterpret_cast<uint4*>(a.slab + (size_t)slot * p.quads * 4);
    const u32 step = gridDim.x * THREADS;
    u32 i = blockIdx.x * THREADS + threadIdx.x;
    for (; i + (AHEAD - 1) * step < p.quads; i += AHEAD * step) {
        uint4 piece[AHEAD];
#pragma unroll
        for (u32 j = 0; j < AHEAD; j++) {
            piece[j] = load_weights4(from + (size_t)(i + j * step) * 4);
        }
#pragma unroll
        for (u32 j = 0; j < AHEAD; j++) {
            to[i + j * step] = piece[j];
        }
    }
    for (; i < p.quads; i += step) {
        to[i] = load_weights4(from + (size_t)i * 4);
    }
}
