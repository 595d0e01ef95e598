// The largest of many values, the first among equals.
const float LOWEST = -3e38f;
const u32 NOWHERE = 0xffffffffu;

// The largest value of the block's threads and its index, the lowest one among equals, the same for every thread. A thread whose
// index is NOWHERE has no value. `values` and `indices` have a place for each thread.
__device__ __forceinline__ void largest(float* values, u32* indices, float& value, u32& index) {
    values[threadIdx.x] = value;
    indices[threadIdx.x] = index;
    __syncthreads();
    for (u32 half = THREADS / 2; half > 0; half >>= 1) {
        if (threadIdx.x < half) {
            const float other = values[threadIdx.x + half];
            const u32 at = indices[threadIdx.x + half];
            const float mine = values[threadIdx.x];
            if (at != NOWHERE && (other > mine || (other == mine && at < indices[threadIdx.x]))) {
                values[threadIdx.x] = other;
                indices[threadIdx.x] = at;
            }
        }
        __syncthreads();
    }
    value = values[0];
    index = indices[0];
}
