// 32 activations, and their product with 32 weights of a quantised row.
#ifdef ACT_Q8
// A row is cols / 4 words of signed bytes, then for each block of 32 its scale (f32) and the sums of its halves (i16 each).
typedef u32 X;

struct Act32 {
    u32 q[8];
    float d;
    u32 sums;
};

__device__ __forceinline__ u32 x_words(u32 cols) {
    return (cols >> 2) + (cols >> 4);
}

// Rows begin at multiples of 8 bytes.
__device__ __forceinline__ Act32 act32(const X* x, u32 b, u32 cols) {
    Act32 y;
    const uint2* q = reinterpret_cast<const uint2*>(x + b * 8);
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const uint2 two = q[i];
        y.q[2 * i] = two.x, y.q[2 * i + 1] = two.y;
    }
    const uint2 tail = *reinterpret_cast<const uint2*>(x + (cols >> 2) + 2 * b);
    y.d = __uint_as_float(tail.x);
    y.sums = tail.y;
    return y;
}

__device__ __forceinline__ float low_sum(u32 sums) {
    return (float)(short)(sums & 0xffffu);
}

__device__ __forceinline__ float high_sum(u32 sums) {
    return (float)(short)(sums >> 16);
}

// Integer sums are exact.
template <class W>
__device__ __forceinline__ float dot_block(const Block32& w, const Act32& y) {
    int a = 0, b = 0;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        a = __dp4a((int)w.q[i], (int)y.q[i], a);
        b = __dp4a((int)w.q[4 + i], (int)y.q[4 + i], b);
    }
    float product = W::TWO_SCALES ? w.s[0] * (float)a + w.s[1] * (float)b : w.s[0] * (float)(a + b);
    if (W::MINIMA) {
        product -= w.m[0] * low_sum(y.sums) + w.m[1] * high_sum(y.sums);
    }
    return y.d * product;
}
#else
typedef float X;

struct Act32 {
    float y[32];
};

__device__ __forceinline__ void act8(const X* x, float* y) {
#ifdef X4
    const float4 a = *reinterpret_cast<const float4*>(x), b = *reinterpret_cast<const float4*>(x + 4);
    y[0] = a.x, y[1] = a.y, y[2] = a.z, y[3] = a.w;
    y[4] = b.x, y[5] = b.y, y[6] = b.z, y[7] = b.w;
#else
#pragma unroll
    for (int i = 0; i < 8; i++) {
        y[i] = x[i];
    }
#endif
}

__device__ __forceinline__ Act32 act32(const X* x, u32 b, u32 cols) {
    Act32 y;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        act8(x + b * 32 + i * 8, y.y + i * 8);
    }
    return y;
}

template <class W>
__device__ __forceinline__ float dot_block(const Block32& w, const Act32& y) {
    float product = 0.0f;
#pragma unroll
    for (int h = 0; h < 2; h++) {
        float sum = 0.0f, ones = 0.0f;
#pragma unroll
        for (int i = 0; i < 16; i++) {
            sum += (float)(i8)byte_of(w.q[h * 4 + i / 4], i & 3) * y.y[h * 16 + i];
            ones += y.y[h * 16 + i];
        }
        product += w.s[h] * sum;
        if (W::MINIMA) {
            product -= w.m[h] * ones;
        }
    }
    return product;
}
#endif
