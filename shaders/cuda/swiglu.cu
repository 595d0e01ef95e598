// out = silu(gate) * up. Grid: blocks of THREADS elements, rows.
KERNEL(swiglu) {
    const u32 e = blockIdx.x * THREADS + threadIdx.x;
    if (blockIdx.y < token_count(a.frame, a.p.tokens) && e < a.p.width) {
        const size_t i = (size_t)blockIdx.y * a.p.width + e;
        a.out[i] = silu(a.gate[i]) * a.up[i];
    }
}
