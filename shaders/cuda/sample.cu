// Samples one token from the logits and prepares the next step. One block. What it computes is said at the head of
// `wgsl/sample.wgsl`, step by step; masses are sums of integers, so that no order of summation shows.
//
// The first reading of the logits also finds the maxima of chunks (every THREADS-th logit of a quarter of the ids). The top_k-th
// largest of them is no larger than the top_k-th largest logit; without top_k, what is 17.4 * max(temperature, 1) below the best
// has no mass. Only chunks with a maximum at that bound or above are read again, for a list of what they have there; the steps
// from 3 on work on the list, or on all logits where it overflows.
//
// VERIFY: the same from row `row` of a step whose last tokens are drafts, if that row counts: the row before gave the draft that
// this one was computed for. The next step is prepared elsewhere.
#include "shared/largest.cuh"

const float ONE = 16777216.0f;
const u32 CHUNKS = 4 * THREADS;
const u32 LIST = 1024;
// Places of the list that a thread has.
const u32 EACH = LIST / THREADS;
const u32 DIGITS = 256;

struct Shared {
    // By digit: counts of keys, or masses.
    u64 bins[DIGITS];
    u64 masses[THREADS];
    float values[THREADS];
    u32 indices[THREADS];
    // Of each chunk: chunk THREADS j + t has the ids j * span + t + THREADS m.
    float maxima[CHUNKS];
    u32 list[LIST];
    u32 length;
    // What key_of found: its digits so far, and what is still to be counted.
    u32 prefix;
    u64 left;
    u32 picked;
};

// What the steps work on: `count` ids, those of the list or all.
struct Items {
    const float* logits;
    const u32* list;
    u32 count;

    __device__ __forceinline__ u32 id(u32 i) const {
        return list != nullptr ? list[i] : i;
    }

    __device__ __forceinline__ float logit(u32 i) const {
        return logits[id(i)];
    }
};

__device__ __forceinline__ u32 key_of(float l) {
    const u32 bits = l == 0.0f ? 0 : __float_as_uint(l);
    return (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
}

__device__ __forceinline__ float logit_of(u32 key) {
    return __uint_as_float((key & 0x80000000u) != 0 ? key & 0x7fffffffu : ~key);
}

__device__ __forceinline__ u64 mass(float scaled) {
    return (u64)rintf(expf(fminf(scaled, 0.0f)) * ONE);
}

// (sum * part) >> 24.
__device__ __forceinline__ u64 fraction(u64 sum, u64 part) {
    return (__umul64hi(sum, part) << 40) | ((sum * part) >> 24);
}

__device__ __forceinline__ u32 pcg(u32 seed) {
    const u32 state = seed * 747796405u + 2891336453u;
    const u32 word = ((state >> ((state >> 28) + 4)) ^ state) * 277803737u;
    return (word >> 22) ^ word;
}

// The sum over the block; all threads call it together.
__device__ __forceinline__ u64 sum_masses(Shared& s, u64 mine) {
    __syncthreads();
    s.masses[threadIdx.x] = mine;
    __syncthreads();
    for (u32 half = THREADS / 2; half > 0; half >>= 1) {
        if (threadIdx.x < half) {
            s.masses[threadIdx.x] += s.masses[threadIdx.x + half];
        }
        __syncthreads();
    }
    return s.masses[0];
}

// The largest key for which the masses of the items' keys >= it, among those >= cut, sum to `need` or more: digit by digit from
// the top. Without `weighted` every item has mass 1: the need-th largest key.
__device__ __noinline__ u32 key_of_mass(Shared& s, const Items& items, bool weighted, float best, u32 cut, u64 need) {
    u32 prefix = 0;
    u64 left = need;
    for (u32 digit = 0; digit < 4; digit++) {
        const u32 shift = 24 - 8 * digit;
        __syncthreads();
        for (u32 i = threadIdx.x; i < DIGITS; i += THREADS) {
            s.bins[i] = 0;
        }
        __syncthreads();
        for (u32 i = threadIdx.x; i < items.count; i += THREADS) {
            const float l = items.logit(i);
            const u32 k = key_of(l);
            const bool same = digit == 0 || ((k ^ prefix) >> (shift + 8)) == 0;
            const u64 m = weighted ? mass(l - best) : 1;
            if (k >= cut && same && m > 0) {
                atomicAdd(&s.bins[(k >> shift) & 255], m);
            }
        }
        __syncthreads();
        for (u32 i = threadIdx.x; i < DIGITS; i += THREADS) {
            u64 above = 0;
            for (u32 j = i + 1; j < DIGITS; j++) {
                above += s.bins[j];
            }
            if (above < left && left <= above + s.bins[i]) {
                s.prefix = prefix | (i << shift);
                s.left = left - above;
            }
        }
        __syncthreads();
        prefix = s.prefix;
        left = s.left;
    }
    return prefix;
}

// Lists the ids whose logits reach `bound`, ascending, if there is room.
__device__ __forceinline__ Items make_list(Shared& s, const float* logits, u32 vocab, u32 span, float bound) {
    if (threadIdx.x == 0) {
        s.length = 0;
    }
    __syncthreads();
    for (u32 chunk = threadIdx.x; chunk < CHUNKS; chunk += THREADS) {
        if (s.maxima[chunk] >= bound) {
            const u32 end = least((chunk / THREADS + 1) * span, vocab);
            for (u32 i = chunk / THREADS * span + threadIdx.x; i < end; i += THREADS) {
                if (logits[i] >= bound) {
                    const u32 at = atomicAdd(&s.length, 1u);
                    if (at < LIST) {
                        s.list[at] = i;
                    }
                }
            }
        }
    }
    __syncthreads();
    const u32 n = s.length;
    if (n > LIST) {
        return {logits, nullptr, vocab};
    }
    // In the order of ids: each goes to the place that is the number of smaller ones.
    u32 id[EACH], place[EACH] = {};
#pragma unroll
    for (u32 i = 0; i < EACH; i++) {
        id[i] = s.list[least(threadIdx.x + i * THREADS, LIST - 1)];
    }
    for (u32 j = 0; j < n; j++) {
#pragma unroll
        for (u32 i = 0; i < EACH; i++) {
            place[i] += s.list[j] < id[i];
        }
    }
    __syncthreads();
#pragma unroll
    for (u32 i = 0; i < EACH; i++) {
        if (threadIdx.x + i * THREADS < n) {
            s.list[place[i]] = id[i];
        }
    }
    __syncthreads();
    return {logits, s.list, n};
}

// What a sampled token changes: thread 0.
__device__ __forceinline__ void remember(Step& step, u32 token) {
    step.sampled += 1;
    step.recent[step.recent_head & 255] = token;
    step.recent_head = (step.recent_head + 1) & 255;
    step.recent_len = least(step.recent_len + 1, 256);
    u32 end = 0;
    for (u32 i = 0; i < least(step.n_end, 16); i++) {
        end |= step.end[i] == token;
    }
    step.stopped = end;
}

// Writes the token and what follows from it, with VERIFY whether the next row counts, else what the next step needs: thread 0.
__device__ __forceinline__ void finish(const Args& a, u32 token, u32 bits) {
    Step& step = *a.frame.step;
#ifdef VERIFY
    const u32 row = least(a.p.row, 7);
    step.taken[row] = token;
    step.logits[row] = __uint_as_float(bits);
    step.count = row + 1;
    remember(step, token);
    const u32 draft = most(step.tokens, step.drafted) - step.drafted + row;
    step.open = row < step.drafted && a.ids[draft] == token && step.stopped == 0;
#else
    const bool stopped = step.stopped != 0;
    u32* slot = a.ring + (step.sampled & 63) * 4;
    slot[0] = token, slot[1] = bits, slot[2] = step.stopped, slot[3] = step.sampled;
    step.pos += step.tokens;
    step.tokens = 1;
    a.ids[0] = token;
    if (!stopped) {
        remember(step, token);
    }
#endif
}

// Steps 3 to 7.
__device__ __forceinline__ u32 draw(Shared& s, const Step& step, const float* logits, u32 vocab, u32 span, float best) {
    const u32 top_k = step.top_k < vocab ? step.top_k : 0;
    const u64 top_p = (u64)rintf(fminf(fmaxf(step.top_p, 0.0f), 1.0f) * ONE);
    // No chunk's maximum below the bound, no logit below it, can matter.
    float bound = best - 17.4f * fmaxf(step.temperature, 1.0f);
    if (top_k > CHUNKS) {
        bound = LOWEST;
    } else if (top_k > 0) {
        const Items maxima = {s.maxima, nullptr, CHUNKS};
        bound = logit_of(key_of_mass(s, maxima, false, best, 0, top_k));
    }
    const Items items = make_list(s, logits, vocab, span, bound);
    u32 cut = top_k > 0 ? key_of_mass(s, items, false, best, 0, top_k) : 0;
    if (top_p < 16777216) {
        u64 kept = 0;
        for (u32 i = threadIdx.x; i < items.count; i += THREADS) {
            const float l = items.logit(i);
            kept += key_of(l) >= cut ? mass(l - best) : 0;
        }
        const u64 need = fraction(sum_masses(s, kept), top_p);
        cut = most(cut, key_of_mass(s, items, true, best, cut, need > 0 ? need : 1));
    }
    const float lowest = step.min_p > 0.0f ? best + fminf(logf(step.min_p), 0.0f) : LOWEST;
    // Each thread has a run of neighbouring items.
    const u32 share = (items.count + THREADS - 1) / THREADS;
    const u32 from = least(threadIdx.x * share, items.count), to = least(from + share, items.count);
    u64 run = 0;
    for (u32 i = from; i < to; i++) {
        const float l = items.logit(i);
        run += key_of(l) >= cut && l >= lowest ? mass((l - best) / step.temperature) : 0;
    }
    const u64 all = sum_masses(s, run);
    __syncthreads();
    s.masses[threadIdx.x] = run;
    __syncthreads();
    const u64 target = fraction(all, pcg(step.sampled ^ pcg(step.seed_hi ^ pcg(step.seed_lo))) >> 8);
    u64 before = 0;
    for (u32 i = 0; i < threadIdx.x; i++) {
        before += s.masses[i];
    }
    if (before <= target && target < before + run) {
        for (u32 i = from; i < to; i++) {
            const float l = items.logit(i);
            before += key_of(l) >= cut && l >= lowest ? mass((l - best) / step.temperature) : 0;
            if (target < before) {
                s.picked = items.id(i);
                break;
            }
        }
    }
    __syncthreads();
    return s.picked;
}

KERNEL(sample) {
    __shared__ Shared s;
    const Step& step = *a.frame.step;
    const u32 vocab = a.p.vocab;
    if (step.halt != 0) {
        return;
    }
#ifdef VERIFY
    float* logits = a.logits + (size_t)a.p.row * vocab;
    const bool counts = a.p.row == 0 || step.open != 0;
    if (a.p.row == 0 && threadIdx.x == 0) {
        Step& first = *a.frame.step;
        first.count = 0, first.open = 1, first.began = first.pos;
    }
    if (step.stopped != 0 || !counts) {
        return;
    }
#else
    float* logits = a.logits;
    if (step.stopped != 0) {
        __syncthreads();
        if (threadIdx.x == 0) {
            finish(a, a.ids[0], 0);
        }
        return;
    }
#endif
    if (threadIdx.x == 0) {
        s.picked = 0;
    }
    // 1. Thread i has the i-th last token; the first thread of each token changes its logit.
    const u32 n = least(least(step.recent_len, step.penalty_last_n), 256);
    const u32 mine = step.recent[(step.recent_head + 255 - threadIdx.x) & 255];
    s.indices[threadIdx.x] = mine;
    __syncthreads();
    const bool penalised = step.repeat_penalty != 1.0f || step.frequency_penalty != 0.0f || step.presence_penalty != 0.0f;
    bool owner = penalised && threadIdx.x < n && mine < vocab;
    float original = 0.0f;
    if (owner) {
        u32 occurs = 0;
        for (u32 i = 0; i < n; i++) {
            const bool same = s.indices[i] == mine;
            occurs += same;
            owner = owner && !(same && i < threadIdx.x);
        }
        if (owner) {
            original = logits[mine];
            float l = original <= 0.0f ? original * step.repeat_penalty : original / step.repeat_penalty;
            l -= (float)occurs * step.frequency_penalty + step.presence_penalty;
            logits[mine] = l;
        }
    }
    __syncthreads();
    // 2.
    const u32 span = (vocab + CHUNKS - 1) / CHUNKS * THREADS;
    float best = LOWEST;
    u32 first = NOWHERE;
#pragma unroll
    for (u32 quarter = 0; quarter < 4; quarter++) {
        float top = LOWEST;
        u32 at = NOWHERE;
#pragma unroll 4
        for (u32 i = quarter * span + threadIdx.x; i < least((quarter + 1) * span, vocab); i += THREADS) {
            const float l = logits[i];
            if (l > top || at == NOWHERE) {
                top = l;
                at = i;
            }
        }
        s.maxima[quarter * THREADS + threadIdx.x] = top;
        if (at != NOWHERE && (top > best || first == NOWHERE)) {
            best = top;
            first = at;
        }
    }
    largest(s.values, s.indices, best, first);
    const u32 token = step.temperature > 0.0f ? draw(s, step, logits, vocab, span, best) : first;
    const u32 bits = __float_as_uint(logits[least(token, vocab - 1)]);
    __syncthreads();
    if (owner) {
        logits[mine] = original;
    }
    if (threadIdx.x == 0) {
        finish(a, token, bits);
    }
}
