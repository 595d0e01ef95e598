// out = x, for what a copy takes: pieces of 16 bytes, EACH of them of a thread under way at a time. Grid: blocks.
const u32 EACH = 8;

KERNEL(copy) {
    const uint4* x = reinterpret_cast<const uint4*>(a.x);
    uint4* out = reinterpret_cast<uint4*>(a.out);
    const u32 first = blockIdx.x * THREADS * EACH + threadIdx.x;
    uint4 piece[EACH];
#pragma unroll
    for (u32 i = 0; i < EACH; i++) {
        if (first + i * THREADS < a.p.pieces) {
            piece[i] = x[first + i * THREADS];
        }
    }
#pragma unroll
    for (u32 i = 0; i < EACH; i++) {
        if (first + i * THREADS < a.p.pieces) {
            out[first + i * THREADS] = piece[i];
        }
    }
}
