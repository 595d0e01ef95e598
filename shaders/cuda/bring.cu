// Rows as they are, from another device's memory; also while the plan is halted, for nobody has other rows by then. Grid: blocks of
// 4 * THREADS words, rows.
KERNEL(bring) {
    const Params& p = a.p;
    const u32 row = blockIdx.y;
    if (row >= (p.tokens != 0 ? p.tokens : a.frame.step->tokens)) {
        return;
    }
    const size_t first = (size_t)row * p.width;
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
        const u32 w = (blockIdx.x * 4 + i) * THREADS + threadIdx.x;
        if (w < p.width) {
            a.out[first + w] = a.x[first + w];
        }
    }
}
