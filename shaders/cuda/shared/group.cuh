// One block a slot; threads share the list of pairs in order.

// The sum over the threads up to and with this one. All threads call it together; `cells` has a place for each warp.
__device__ __forceinline__ u32 sum_to(u32 value, u32* cells) {
    const u32 lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
#pragma unroll
    for (u32 reach = 1; reach < 32; reach <<= 1) {
        const u32 other = __shfl_up_sync(ALL, value, reach);
        value += lane >= reach ? other : 0;
    }
    if (lane == 31) {
        cells[warp] = value;
    }
    __syncthreads();
    for (u32 i = 0; i < warp; i++) {
        value += cells[i];
    }
    __syncthreads();
    return value;
}

// Pairs of this thread in list order: share * threadIdx.x .. share * (threadIdx.x + 1).
__device__ __forceinline__ u32 share(u32 pairs) {
    return (pairs + THREADS - 1) / THREADS;
}

__device__ __forceinline__ u32 count_mine(const u32* chosen, u32 slot, u32 pairs) {
    const u32 part = share(pairs);
    u32 n = 0;
    for (u32 i = threadIdx.x * part; i < least((threadIdx.x + 1) * part, pairs); i++) {
        n += chosen[i] == slot;
    }
    return n;
}
