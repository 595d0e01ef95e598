// The rule of 8-bit activations: blocks of 32 with scale d = largest magnitude / 127 and quants
// round(x * (127 / largest)), halves to even. Eight lanes share a block.

// The lane brings the elements 4 i .. 4 i + 4 of a row of `width` elements that starts at `row` (0 beyond its end). All lanes of a
// warp call this together.
__device__ __forceinline__ void q8_block(u32* row, u32 width, u32 i, float4 v) {
    const float largest = max_lanes<8>(fmaxf(fmaxf(fabsf(v.x), fabsf(v.y)), fmaxf(fabsf(v.z), fabsf(v.w))));
    const float inverse = largest > 0.0f ? 127.0f / largest : 0.0f;
    const float x[4] = {v.x, v.y, v.z, v.w};
    u32 word = 0;
    int sum = 0;
#pragma unroll
    for (int j = 0; j < 4; j++) {
        // An inverse that overflows (largest below 2^-121) makes no quant larger than 127.
        const int q = (int)fminf(fmaxf(rintf(x[j] * inverse), -127.0f), 127.0f);
        word |= ((u32)q & 0xffu) << (8 * j);
        sum += q;
    }
    sum += __shfl_xor_sync(ALL, sum, 1);
    sum += __shfl_xor_sync(ALL, sum, 2);
    const int high = __shfl_xor_sync(ALL, sum, 4);
    const u32 words = width >> 2;
    if (i < words) {
        row[i] = word;
        if ((threadIdx.x & 7) == 0) {
            u32* tail = row + words + 2 * (i >> 3);
            tail[0] = __float_as_uint(largest / 127.0f);
            tail[1] = ((u32)sum & 0xffffu) | ((u32)high << 16);
        }
    }
}
