// Chooses the experts of one token: scores, groups, the top_k best, weights; ids ascend. Ties go to the lower id. Up to 512
// experts. Grid: tokens.
//
// SLOTS: experts live in slots, and not all have one. The slot of each expert chosen is looked up, every choice is recorded,
// and where one is missing and the step says so, the plan halts after this layer's router.
const u32 MOST = 512;
const u32 MOST_GROUPS = 64;
const u32 MOST_CHOSEN = 64;
const u32 EACH = MOST / THREADS;
const float NONE = -1e30f;
#ifdef SLOTS
#include "shared/slots.cuh"

// The pair of a chosen expert in the record.
__device__ __forceinline__ u32* recorded(const Args& a, u32 token, u32 place) {
    return a.residency + a.p.record + 2 * (size_t)((a.p.bank * a.frame.step->tokens + token) * a.p.top_k + place);
}
#endif

KERNEL(router) {
    __shared__ float cells[THREADS / 32];
    // What selection compares: scores and bias; NONE in groups not chosen.
    __shared__ float keys[MOST];
    __shared__ float group_scores[MOST_GROUPS];
    // A bit for each chosen expert.
    __shared__ u32 chosen[MOST / 32];
    __shared__ float chosen_scores[MOST_CHOSEN];
    const Params& p = a.p;
    const Step& step = *a.frame.step;
    const u32 token = blockIdx.x;
#ifdef SLOTS
    __shared__ u32 rows;
    __shared__ u32 missing;
    if (threadIdx.x == 0) {
        // Another token of this step may halt the plan at this very layer, and at this very moment: it is read once.
        const u32 halt = *(const volatile u32*)&step.halt;
        rows = halt == 0 || (step.tokens > 1 && halt == p.layer + 1) ? step.tokens : 0;
        missing = 0;
    }
    __syncthreads();
    if (token >= rows) {
        return;
    }
#else
    if (token >= token_count(a.frame, p.tokens)) {
        return;
    }
#endif
    float score[EACH], key[EACH];
    float best = NONE;
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        const u32 e = threadIdx.x + i * THREADS;
        score[i] = e < p.experts ? a.logits[(size_t)token * p.experts + e] : NONE;
        best = fmaxf(best, score[i]);
    }
    if (p.sigmoid != 0) {
#pragma unroll
        for (int i = 0; i < EACH; i++) {
            score[i] = sigmoid(score[i]);
        }
    } else {
        best = max_all(best, cells);
        float sum = 0.0f;
#pragma unroll
        for (int i = 0; i < EACH; i++) {
            score[i] = threadIdx.x + i * THREADS < p.experts ? expf(score[i] - best) : 0.0f;
            sum += score[i];
        }
        sum = sum_all(sum, cells);
#pragma unroll
        for (int i = 0; i < EACH; i++) {
            score[i] /= sum;
        }
    }
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        const u32 e = threadIdx.x + i * THREADS;
        key[i] = score[i];
#ifdef BIAS
        key[i] += e < p.experts ? a.bias[e] : 0.0f;
#endif
        keys[e] = key[i];
    }
    if (threadIdx.x < MOST / 32) {
        chosen[threadIdx.x] = 0;
    }
    __syncthreads();
    if (p.groups > 1) {
        const u32 size = p.experts / p.groups;
        if (threadIdx.x < p.groups) {
            float first = NONE, second = NONE;
            for (u32 e = threadIdx.x * size; e < (threadIdx.x + 1) * size; e++) {
                second = fmaxf(second, fminf(first, keys[e]));
                first = fmaxf(first, keys[e]);
            }
            group_scores[threadIdx.x] = p.top_two != 0 && size > 1 ? first + second : first;
        }
        __syncthreads();
#pragma unroll
        for (int i = 0; i < EACH; i++) {
            const u32 e = threadIdx.x + i * THREADS;
            if (e < p.experts) {
                const u32 group = e / size;
                u32 better = 0;
                for (u32 g = 0; g < p.groups; g++) {
                    better += group_scores[g] > group_scores[group] || (group_scores[g] == group_scores[group] && g < group);
                }
                key[i] = better < p.top_k_groups ? key[i] : NONE;
            }
        }
        __syncthreads();
#pragma unroll
        for (int i = 0; i < EACH; i++) {
            keys[threadIdx.x + i * THREADS] = key[i];
        }
        __syncthreads();
    }
    u32 better[EACH] = {};
    for (u32 e = 0; e < p.experts; e++) {
        const float other = keys[e];
#pragma unroll
        for (int i = 0; i < EACH; i++) {
            better[i] += other > key[i] || (other == key[i] && e < threadIdx.x + i * THREADS);
        }
    }
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        const u32 e = threadIdx.x + i * THREADS;
        if (e < p.experts && better[i] < p.top_k) {
            atomicOr(&chosen[e / 32], 1u << (e % 32));
        }
    }
    __syncthreads();
    // An expert's place among the chosen: how many of them have lower ids.
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        const u32 e = threadIdx.x + i * THREADS;
        if (e < p.experts && better[i] < p.top_k) {
            u32 place = __popc(chosen[e / 32] & ((1u << (e % 32)) - 1));
            for (u32 w = 0; w < e / 32; w++) {
                place += __popc(chosen[w]);
            }
            a.ids[token * p.top_k + place] = e;
            chosen_scores[least(place, MOST_CHOSEN - 1)] = score[i];
            if (step.counters_on != 0 && step.stopped == 0) {
                atomicAdd(&a.counters[p.layer * p.experts + e], 1u);
            }
#ifdef SLOTS
            const u32 slot = a.residency[p.bank * p.experts + e];
            a.slots[token * p.top_k + place] = slot;
            *recorded(a, token, place) = e | (slot == ABSENT ? 0 : HIT);
            if (slot == ABSENT) {
                atomicAdd(&missing, 1u);
            }
#endif
        }
    }
    __syncthreads();
    if (threadIdx.x < p.top_k) {
        float factor = p.scaling;
        if (p.norm != 0) {
            float sum = 0.0f;
            for (u32 i = 0; i < p.top_k; i++) {
                sum += chosen_scores[i];
            }
            factor /= sum + 1e-20f;
        }
        const float weight = chosen_scores[threadIdx.x] * factor;
        a.weights[token * p.top_k + threadIdx.x] = weight;
#ifdef SLOTS
        recorded(a, token, threadIdx.x)[1] = __float_as_uint(weight);
#endif
    }
#ifdef SLOTS
    if (threadIdx.x == 0 && missing != 0 && step.on_miss != 0 && step.stopped == 0) {
        a.frame.step->halt = p.layer + 1;
    }
#endif
}
