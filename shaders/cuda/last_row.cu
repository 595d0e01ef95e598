// out = x[T - 1]. TAKEN: of a step with drafts, the last row that counts. Grid: blocks of THREADS elements.
KERNEL(last_row) {
    const u32 e = blockIdx.x * THREADS + threadIdx.x;
    const u32 tokens = token_count(a.frame, 0);
    if (e < a.p.width && tokens > 0) {
#ifdef TAKEN
        const u32 row = least(taken_row(*a.frame.step), tokens - 1);
#else
        const u32 row = tokens - 1;
#endif
        a.out[e] = a.x[(size_t)row * a.p.width + e];
    }
}
