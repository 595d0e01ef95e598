// Pairs of elements of the latent cache, as stored and as f32.
#ifdef CACHE_F32
typedef uint2 Pair;

__device__ __forceinline__ float2 pair_value(Pair p) {
    return make_float2(__uint_as_float(p.x), __uint_as_float(p.y));
}
#else
typedef u32 Pair;

__device__ __forceinline__ float2 pair_value(Pair p) {
    return make_float2(half_float(p & 0xffffu), half_float(p >> 16));
}
#endif
