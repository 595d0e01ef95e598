// Types, the state of a step, and what every kernel needs. Nothing is included: kernels are compiled without headers.
typedef unsigned char u8;
typedef signed char i8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

// Written by the host, and by `sample`, `settle` and `draft` for the step after.
struct Step {
    u32 tokens;
    u32 pos;
    u32 sampled;
    u32 stopped;
    float temperature;
    float top_p;
    float min_p;
    u32 top_k;
    float repeat_penalty;
    float frequency_penalty;
    float presence_penalty;
    u32 penalty_last_n;
    u32 seed_lo;
    u32 seed_hi;
    u32 n_end;
    u32 counters_on;
    u32 end[16];
    u32 recent_len;
    u32 recent_head;
    u32 halt;
    u32 on_miss;
    u32 drafted;
    u32 open;
    u32 count;
    u32 began;
    u32 taken[8];
    float logits[8];
    u32 drafts[8];
    u32 recent[256];
    // The page table.
    u32 pages[1];
};

// What the arguments of every kernel begin with.
struct Frame {
    Step* step;
    // Entries of the page table.
    u32 pages;
    // Positions of the rotary table.
    u32 positions;
};

// Rows to work on: 0 stands for the tokens of the step. None while the plan is halted.
__device__ __forceinline__ u32 token_count(const Frame& f, u32 fixed) {
    const u32 n = fixed != 0 ? fixed : f.step->tokens;
    return f.step->halt != 0 ? 0 : n;
}

__device__ __forceinline__ u32 least(u32 a, u32 b) {
    return a < b ? a : b;
}

__device__ __forceinline__ u32 most(u32 a, u32 b) {
    return a > b ? a : b;
}

// The last row that counts of a step with drafts: that from which the last token was sampled.
__device__ __forceinline__ u32 taken_row(const Step& step) {
    return most(step.tokens + step.count, step.drafted + 2) - step.drafted - 2;
}

// The last token sampled in a step with drafts.
__device__ __forceinline__ u32 last_taken(const Step& step) {
    return step.taken[least(most(step.count, 1) - 1, 7)];
}

// The row of the latent cache that holds a position: pages are of 64. Steps behind the end of a generation may reach beyond the
// table.
__device__ __forceinline__ u32 cache_row(const Frame& f, u32 position) {
    return (f.step->pages[least(position >> 6, f.pages - 1)] << 6) + (position & 63);
}

// 1 / (1 + e^-x); 0 where e^-x has no f32.
__device__ __forceinline__ float sigmoid(float x) {
    return x < -88.0f ? 0.0f : 1.0f / (1.0f + expf(fminf(-x, 88.0f)));
}

// x * sigmoid(x).
__device__ __forceinline__ float silu(float x) {
    return x < -88.0f ? 0.0f : x / (1.0f + expf(fminf(-x, 88.0f)));
}

const u32 ALL = 0xffffffffu;

// Sums and maxima over the first WIDTH lanes' groups of a warp, the same for every lane of a group.
template <int WIDTH>
__device__ __forceinline__ float sum_lanes(float v) {
#pragma unroll
    for (int d = WIDTH / 2; d > 0; d >>= 1) {
        v += __shfl_xor_sync(ALL, v, d);
    }
    return v;
}

template <int WIDTH>
__device__ __forceinline__ float max_lanes(float v) {
#pragma unroll
    for (int d = WIDTH / 2; d > 0; d >>= 1) {
        v = fmaxf(v, __shfl_xor_sync(ALL, v, d));
    }
    return v;
}

// Sum and maximum over a block of THREADS threads, the same for every thread; `cells` has a place for each warp.
__device__ __forceinline__ float sum_all(float v, float* cells) {
    v = sum_lanes<32>(v);
    __syncthreads();
    if ((threadIdx.x & 31) == 0) {
        cells[threadIdx.x >> 5] = v;
    }
    __syncthreads();
    float sum = 0.0f;
    for (int i = 0; i < THREADS / 32; i++) {
        sum += cells[i];
    }
    return sum;
}

__device__ __forceinline__ float max_all(float v, float* cells) {
    v = max_lanes<32>(v);
    __syncthreads();
    if ((threadIdx.x & 31) == 0) {
        cells[threadIdx.x >> 5] = v;
    }
    __syncthreads();
    float best = cells[0];
    for (int i = 1; i < THREADS / 32; i++) {
        best = fmaxf(best, cells[i]);
    }
    return best;
}
