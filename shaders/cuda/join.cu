// out[t] = [a[t] | b[t]]. Grid: blocks of THREADS elements, tokens.
KERNEL(join) {
    const u32 token = blockIdx.y, e = blockIdx.x * THREADS + threadIdx.x;
    const u32 n = a.p.n, m = a.p.m;
    if (token >= token_count(a.frame, a.p.tokens) || e >= n + m) {
        return;
    }
    a.out[(size_t)token * (n + m) + e] = e < n ? a.a[(size_t)token * n + e] : a.b[(size_t)token * m + e - n];
}
