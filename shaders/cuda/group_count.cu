// How many pairs (token, k) chose the expert in each slot. Grid: slots.
#include "shared/group.cuh"

KERNEL(group_count) {
    __shared__ u32 cells[THREADS / 32];
    const u32 pairs = token_count(a.frame, a.p.tokens) * a.p.top_k;
    if (pairs == 0) {
        return;
    }
    const u32 all = sum_to(count_mine(a.chosen, blockIdx.x, pairs), cells);
    if (threadIdx.x == THREADS - 1) {
        a.counts[blockIdx.x] = all;
    }
}
