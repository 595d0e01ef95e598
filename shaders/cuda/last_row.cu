// out = x[T - 1]. Grid: blocks of THREADS elements.
KERNEL(last_row) {
    const u32 e = blockIdx.x * THREADS + threadIdx.x;
    const u32 tokens = token_count(a.frame, 0);
    if (e < a.p.width && tokens > 0) {
        a.out[e] = a.x[(size_t)(tokens - 1) * a.p.width + e];
    }
}
