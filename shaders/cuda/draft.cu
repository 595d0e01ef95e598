// Drafts the token with the largest logit, the lowest id among equals: it becomes the id of the row that follows, one position on.
// After the last draft, the next step has the last token sampled and all drafts. One block.
#include "shared/largest.cuh"

// Thread 0.
__device__ __forceinline__ void finish(const Args& a, u32 token) {
    Step& step = *a.frame.step;
    const u32 drafts = a.p.drafts;
    step.drafts[least(a.p.index, 7)] = token;
    if (a.p.index + 1 < drafts) {
        step.pos += 1;
        a.ids[0] = token;
        return;
    }
    step.pos = most(step.pos + 2, drafts) - drafts;
    step.tokens = drafts + 1;
    step.drafted = drafts;
    a.ids[0] = last_taken(step);
    for (u32 i = 0; i < least(drafts, 8); i++) {
        a.ids[i + 1] = step.drafts[i];
    }
}

KERNEL(draft) {
    __shared__ float values[THREADS];
    __shared__ u32 indices[THREADS];
    if (a.frame.step->halt != 0) {
        return;
    }
    float best = LOWEST;
    u32 first = NOWHERE;
#pragma unroll 8
    for (u32 i = threadIdx.x; i < a.p.vocab; i += THREADS) {
        const float l = a.logits[i];
        if (l > best || first == NOWHERE) {
            best = l;
            first = i;
        }
    }
    largest(values, indices, best, first);
    if (threadIdx.x == 0) {
        finish(a, first);
    }
}
