// Where the weights of chosen experts are, and what they are multiplied with.

// Where the activation of a pair (token, k) starts: the up form (GATED, or UP for one
// of its matrices alone) reads the token's row, the down form the pair's.
__device__ __forceinline__ const X* x_of_pair(const Args& a, u32 pair) {
#if defined(GATED) || defined(UP)
    const u32 row = pair / a.p.top_k;
#else
    const u32 row = pair;
#endif
#ifdef ACT_Q8
    return a.x + (size_t)row * x_words(a.p.cols);
#else
    return reinterpret_cast<const X*>(a.x) + (size_t)row * a.p.cols;
#endif
}

// First word of a slot's blob; null where it is not in this bank.
__device__ __forceinline__ const u32* blob_of(const Args& a, u32 slot) {
    const u32 place = slot - a.p.slab_first;
    return slot >= a.p.slab_first && place < a.p.slab_count ? a.bank + (size_t)place * a.p.blob_words : nullptr;
}
