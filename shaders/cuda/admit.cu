// Gives the missing experts of one token slots in place of the coldest ones, and lists what `gather` has to copy. One block; one
// token; up to 512 experts.
//
// How hot an expert is: a count of its uses that halves every `half_life` tokens (LRFU: Lee et al., 2001), compared by its
// logarithm. `Heat` in the runtime is the same formula.
#include "shared/slots.cuh"

const u32 MOST = 512;
const u32 MOST_CHOSEN = 64;
const u32 WARPS = THREADS / 32;
// Cooler than any expert, and hotter than any.
const float COLDEST = -1e30f;
const float PINNED = 1e30f;

// The colder of two experts; of equally cold ones that with the lower number.
__device__ __forceinline__ void take_colder(float& score, u32& expert, float other, u32 another) {
    if (other < score || (other == score && another < expert)) {
        score = other;
        expert = another;
    }
}

KERNEL(admit) {
    // PINNED for those of this token and those without a slot.
    __shared__ float scores[MOST];
    __shared__ float best_scores[WARPS];
    __shared__ u32 best_experts[WARPS];
    __shared__ u32 chosen[MOST_CHOSEN];
    // Places k of the missing experts.
    __shared__ u32 missed[MOST_CHOSEN];
    __shared__ u32 missed_count;
    const Params& p = a.p;
    if (token_count(a.frame, 0) == 0) {
        return;
    }
    const u32 top_k = least(p.top_k, MOST_CHOSEN);
    u32* table = a.residency + p.bank * p.experts;
    // Of this bank: its time; then for each expert the bits of its count, and the time of its last use.
    u32* times = a.heat + p.bank * (1 + 2 * p.experts);
    const u32 now = times[0] + 1;
    if (threadIdx.x < top_k) {
        chosen[threadIdx.x] = a.ids[threadIdx.x];
    }
    __syncthreads();
    for (u32 e = threadIdx.x; e < p.experts; e += THREADS) {
        const float count = __uint_as_float(times[1 + 2 * e]);
        const float age = (float)(now - times[2 + 2 * e]);
        float score = count > 0.0f ? log2f(count) - age / p.half_life : COLDEST;
        for (u32 k = 0; k < top_k; k++) {
            if (chosen[k] == e) {
                times[1 + 2 * e] = __float_as_uint(count * exp2f(-age / p.half_life) + 1.0f);
                times[2 + 2 * e] = now;
                score = PINNED;
            }
        }
        scores[e] = table[e] == ABSENT ? PINNED : score;
    }
    if (threadIdx.x == 0) {
        times[0] = now;
        u32 n = 0;
        for (u32 k = 0; k < top_k; k++) {
            if (a.slots[k] == ABSENT) {
                missed[n++] = k;
            }
        }
        missed_count = n;
        a.work[0] = n;
    }
    __syncthreads();
    for (u32 i = 0; i < missed_count; i++) {
        float coldest = PINNED;
        u32 victim = 0;
        for (u32 e = threadIdx.x; e < p.experts; e += THREADS) {
            take_colder(coldest, victim, scores[e], e);
        }
#pragma unroll
        for (int d = 16; d > 0; d >>= 1) {
            const float other = __shfl_xor_sync(ALL, coldest, d);
            take_colder(coldest, victim, other, __shfl_xor_sync(ALL, victim, d));
        }
        if ((threadIdx.x & 31) == 0) {
            best_scores[threadIdx.x >> 5] = coldest;
            best_experts[threadIdx.x >> 5] = victim;
        }
        __syncthreads();
        if (threadIdx.x == 0) {
            for (u32 w = 1; w < WARPS; w++) {
                take_colder(coldest, victim, best_scores[w], best_experts[w]);
            }
            const u32 k = missed[i], expert = chosen[k], slot = table[victim];
            table[victim] = ABSENT;
            table[expert] = slot;
            scores[victim] = PINNED;
            a.slots[k] = slot;
            a.work[1 + 2 * i] = expert;
            a.work[2 + 2 * i] = slot;
            a.residency[p.record + 2 * (p.bank * p.top_k + k)] |= GATHERED;
        }
        __syncthreads();
    }
}
