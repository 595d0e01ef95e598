// Which copy of an expert serves a pair (t, k): of the devices that have one, that with the fewest of the token's pairs so far.
// Experts with one copy go first, for they have no choice. Ties go to the device after the last token's, so that tokens differ.
// table: [E, devices] slots, ABSENT where the device has no copy. Grid: blocks of THREADS tokens.
const u32 MOST_DEVICES = 16;
const u32 ABSENT = 0xffffffffu;

KERNEL(spread) {
    // Pairs of each token's experts on each device.
    __shared__ u32 pairs[MOST_DEVICES][THREADS];
    const Params& p = a.p;
    const u32 token = blockIdx.x * THREADS + threadIdx.x;
    if (token >= token_count(a.frame, p.tokens)) {
        return;
    }
    for (u32 d = 0; d < p.devices; d++) {
        pairs[d][threadIdx.x] = 0;
    }
    for (u32 pass = 0; pass < 2; pass++) {
        for (u32 k = 0; k < p.top_k; k++) {
            const u32* slots = a.table + (size_t)a.ids[token * p.top_k + k] * p.devices;
            u32 copies = 0;
            for (u32 d = 0; d < p.devices; d++) {
                copies += slots[d] != ABSENT;
            }
            if ((copies > 1) != (pass == 1)) {
                continue;
            }
            u32 best = 0, fewest = ABSENT;
            for (u32 i = 0; i < p.devices; i++) {
                const u32 d = (token + i) % p.devices;
                if (slots[d] != ABSENT && pairs[d][threadIdx.x] < fewest) {
                    best = d, fewest = pairs[d][threadIdx.x];
                }
            }
            pairs[best][threadIdx.x]++;
            a.slots[token * p.top_k + k] = slots[best];
        }
    }
}
