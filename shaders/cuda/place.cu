// Looks the slots of a routing up again, after the host has moved experts: slots[t][k] = table[ids[t][k]].
// Grid: blocks of THREADS pairs.
KERNEL(place) {
    const u32 pair = blockIdx.x * THREADS + threadIdx.x;
    if (pair < token_count(a.frame, a.p.tokens) * a.p.top_k) {
        a.slots[pair] = a.table[a.ids[pair]];
    }
}
