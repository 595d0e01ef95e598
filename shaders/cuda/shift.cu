// Moves the step's token ids up by one row. The last row that counts gets the token sampled from it or, where all are given, the
// id behind the step's own. One block.

// The last id that there is room for.
const u32 LAST = 65534;

KERNEL(shift) {
    const Step& step = *a.frame.step;
    const u32 tokens = token_count(a.frame, 0);
    for (u32 base = 0; base < tokens; base += THREADS) {
        const u32 at = base + threadIdx.x;
        const u32 id = a.ids[least(at + 1, LAST)];
        __syncthreads();
        if (at < tokens) {
            a.ids[at] = id;
        }
    }
    __syncthreads();
    if (threadIdx.x == 0 && tokens > 0 && a.p.given == 0 && step.count > 0) {
        a.ids[least(taken_row(step), tokens - 1)] = last_taken(step);
    }
}
