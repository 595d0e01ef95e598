// Packed rows of weights, as `models/src/blocks` lays them out: 32 quantised weights at a time, or 8 floats.
// Rows begin at multiples of 16 bytes, and so do planes whose blocks are of 16 or 32 bytes.

// 32 weights of a quantised row: w[i] = s[i / 16] * q[i] - m[i / 16]; four signed bytes a word.
struct Block32 {
    u32 q[8];
    float s[2];
    float m[2];
};

__device__ __forceinline__ u32 byte_of(u32 word, u32 i) {
    return (word >> (8 * i)) & 0xffu;
}

// One half of a word of two f16.
__device__ __forceinline__ float half_of(u32 word, u32 odd) {
    return half_float((word >> (16 * odd)) & 0xffffu);
}

// Four unsigned bytes below 128 less `bias` (a byte, four times): signed bytes.
__device__ __forceinline__ u32 less4(u32 bytes, u32 bias) {
    return ((bytes | 0x80808080u) - bias) ^ 0x80808080u;
}

// Bit i of a nibble to the lowest bit of byte i.
__device__ __forceinline__ u32 spread4(u32 nibble) {
    return ((nibble & 15u) * 0x00204081u) & 0x01010101u;
}

// 0xff in each byte whose bit `bit` is set.
__device__ __forceinline__ u32 mask4(u32 bytes, u32 bit) {
    return ((bytes >> bit) & 0x01010101u) * 0xffu;
}

// The codebook of IQ4_NL and IQ4_XS for four nibbles, one a byte:
// -127 -104 -83 -65 -49 -35 -22 -10 1 13 25 38 53 69 89 113. Bytes of two words are chosen by three bits; the fourth chooses the
// pair of words.
__device__ __forceinline__ u32 iq4(u32 bytes) {
    const u32 lo = (bytes & 0x07u) | ((bytes >> 4) & 0x70u) | ((bytes >> 8) & 0x700u) | ((bytes >> 12) & 0x7000u);
    const u32 negative = __byte_perm(0xbfad9881u, 0xf6eaddcfu, lo);
    const u32 positive = __byte_perm(0x26190d01u, 0x71594535u, lo);
    const u32 upper = mask4(bytes, 3);
    return (negative & ~upper) | (positive & upper);
}

// Twice the value of four FP4 (e2m1) numbers, one a byte: 0 1 2 3 4 6 8 12 and their negatives.
__device__ __forceinline__ u32 fp4(u32 bytes) {
    const u32 lo = (bytes & 0x07u) | ((bytes >> 4) & 0x70u) | ((bytes >> 8) & 0x700u) | ((bytes >> 12) & 0x7000u);
    const u32 positive = __byte_perm(0x03020100u, 0x0c080604u, lo);
    const u32 negative = __byte_perm(0xfdfeff00u, 0xf4f8fafcu, lo);
    const u32 sign = mask4(bytes, 3);
    return (positive & ~sign) | (negative & sign);
}

// Nibbles of 16 bytes: low ones are weights 0..16, high ones 16..32.
__device__ __forceinline__ void nibbles(Block32& w, uint4 n) {
    const u32 words[4] = {n.x, n.y, n.z, n.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        w.q[i] = words[i] & 0x0f0f0f0fu;
        w.q[4 + i] = (words[i] >> 4) & 0x0f0f0f0fu;
    }
}

__device__ __forceinline__ void one_scale(Block32& w, float s, float m) {
    w.s[0] = w.s[1] = s;
    w.m[0] = w.m[1] = m;
}

// Scale of block b in a plane of f16.
__device__ __forceinline__ float plane_scale(const u32* plane, u32 b) {
    return half_of(load_weight(plane + (b >> 1)), b & 1);
}

// One scale a block, no minima.
struct q8_0 {
    static const bool MINIMA = false, TWO_SCALES = false;
    static __device__ __forceinline__ Block32 block32(const u32* row, u32 b, u32 cols) {
        Block32 w;
        const uint4 lo = load_weights4(row + b * 8), hi = load_weights4(row + b * 8 + 4);
        w.q[0] = lo.x, w.q[1] = lo.y, w.q[2] = lo.z, w.q[3] = lo.w;
        w.q[4] = hi.x, w.q[5] = hi.y, w.q[6] = hi.z, w.q[7] = hi.w;
        one_scale(w, plane_scale(row + (cols >> 2), b), 0.0f);
        return w;
    }
};

// Nibbles minus 8.
struct q4_0 {
    static const bool MINIMA = false, TWO_SCALES = false;
    static __device__ __forceinline__ Block32 block32(const u32* row, u32 b, u32 cols) {
        Block32 w;
        nibbles(w, load_weights4(row + b * 4));
#pragma unroll
        for (int i = 0; i < 8; i++) {
            w.q[i] = less4(w.q[i], 0x08080808u);
        }
        one_scale(w, plane_scale(row + (cols >> 3), b), 0.0f);
        return w;
    }
};

// Nibbles; a word of scale and minimum a block.
struct q4_1 {
    static const bool MINIMA = true, TWO_SCALES = false;
    static __device__ __forceinline__ Block32 block32(const u32* row, u32 b, u32 cols) {
        Block32 w;
        nibbles(w, load_weights4(row + b * 4));
        const u32 dm = load_weight(row + (cols >> 3) + b);
        one_scale(w, half_of(dm, 0), -half_of(dm, 1));
        return w;
    }
};

// Nibbles, a word of fifth bits a block; minus 16.
struct q5_0 {
    static const bool MINIMA = false, TWO_SCALES = false;
    static __device__ __forceinline__ Block32 block32(const u32* row, u32 b, u32 cols) {
        Block32 w;
        nibbles(w, load_weights4(row + b * 4));
        const u32 high = load_weight(row + (cols >> 3) + b);
#pragma unroll
        for (int i = 0; i < 8; i++) {
            w.q[i] = less4(w.q[i] | (spread4(high >> (4 * i)) << 4), 0x10101010u);
        }
        one_scale(w, plane_scale(row + (cols >> 3) + (cols >> 5), b), 0.0f);
        return w;
    }
};

// As Q5_0 without the bias, with a word of scale and minimum a block.
struct q5_1 {
    static const bool MINIMA = true, TWO_SCALES = false;
    static __device__ __forceinline__ Block32 block32(const u32* row, u32 b, u32 cols) {
        Block32 w;
        nibbles(w, load_weights4(row + b * 4));
        const u32 high = load_weight(row + (cols >> 3) + b);
#pragma unroll
        for (int i = 0; i < 8; i++) {
            w.q[i] |= spread4(high >> (4 * i)) << 4;
        }
        const u32 dm = load_weight(row + (cols >> 3) + (cols >> 5) + b);
        one_scale(w, half_of(dm, 0), -half_of(dm, 1));
        return w;
    }
};

// Blocks of 256 in 21 words: 16 bytes of four-bit scales and minima, 64 bytes of pairs, f16 scale and minimum.
struct q2_k {
    static const bool MINIMA = true, TWO_SCALES = true;
    static __device__ __forceinline__ Block32 block32(const u32* row, u32 b, u32 cols) {
        Block32 w;
        const u32* block = row + (b >> 3) * 21;
#pragma unroll
        for (int j = 0; j < 8; j++) {
            w.q[j] = (load_weight(block + 4 + ((b & 4) << 1) + j) >> (2 * (b & 3))) & 0x03030303u;
        }
        const u32 dm = load_weight(block + 20);
        const u32 pair = load_weight(block + ((b & 7) >> 1)) >> (16 * (b & 1));
        const float d = half_of(dm, 0), m = half_of(dm, 1);
        w.s[0] = (float)(pair & 15) * d, w.s[1] = (float)((pair >> 8) & 15) * d;
        w.m[0] = (float)((pair >> 4) & 15) * m, w.m[1] = (float)((pair >> 12) & 15) * m;
        return w;
    }
};

// Blocks of 256 in 27 words: 32 bytes of third bits, 64 of pairs, 12 of six-bit sub-scales; behind the row's blocks one f16
// scale a block; values minus 4.
struct q3_k {
    static const bool MINIMA = false, TWO_SCALES = true;
    static __device__ __forceinline__ Block32 block32(const u32* row, u32 b, u32 cols) {
        Block32 w;
        const u32* block = row + (b >> 3) * 27;
#pragma unroll
        for (int j = 0; j < 8; j++) {
            const u32 lo = (load_weight(block + 8 + ((b & 4) << 1) + j) >> (2 * (b & 3))) & 0x03030303u;
            const u32 hi = (load_weight(block + j) >> (b & 7)) & 0x01010101u;
            w.q[j] = less4(lo | (hi << 2), 0x04040404u);
        }
        const float d = plane_scale(row + (cols >> 8) * 27, b >> 3);
        // Sub-scale n has its low four bits in nibbles of the first eight bytes and its high two in the last four.
        const u32 word = (b & 7) >> 1;
        const u32 lo = (load_weight(block + 24 + (word & 1)) >> (4 * (word >> 1))) & 0x0f0f0f0fu;
        const u32 hi = (load_weight(block + 26) >> (2 * word)) & 0x03030303u;
        const u32 pair = (lo | (hi << 4)) >> (16 * (b & 1));
        w.s[0] = ((float)(pair & 0xff) - 32.0f) * d, w.s[1] = ((float)((pair >> 8) & 0xff) - 32.0f) * d;
        w.m[0] = w.m[1] = 0.0f;
        return w;
    }
};

// Scale and minimum of sub-block b & 7 of Q4_K and Q5_K, whose first four words are `head`. Six bits each: those of sub-blocks
// 4..8 have four in the last word and two in the tops of the others.
__device__ __forceinline__ void k_scales(Block32& w, uint4 head, u32 b) {
    const u32 j = b & 3;
    const u32 x = byte_of(head.y, j), y = byte_of(head.z, j), z = byte_of(head.w, j);
    const bool late = (b & 4) != 0;
    const u32 sc = late ? (z & 15) | ((x >> 6) << 4) : x & 63;
    const u32 mn = late ? (z >> 4) | ((y >> 6) << 4) : y & 63;
    one_scale(w, half_of(head.x, 0) * (float)sc, half_of(head.x, 1) * (float)mn);
}

// Blocks of 256 in 36 words: f16 scale and minimum, 12 bytes of sub-scales, 128 bytes of nibbles.
struct q4_k {
    static const bool MINIMA = true, TWO_SCALES = false;
    static __device__ __forceinline__ Block32 block32(const u32* row, u32 b, u32 cols) {
        Block32 w;
        const u32* block = row + (b >> 3) * 36;
        const u32* quants = block + 4 + ((b & 6) << 2);
        const uint4 lo = load_weights4(quants), hi = load_weights4(quants + 4);
        const u32 words[8] = {lo.x, lo.y, lo.z, lo.w, hi.x, hi.y, hi.z, hi.w};
#pragma unroll
        for (int j = 0; j < 8; j++) {
            w.q[j] = (words[j] >> (4 * (b & 1))) & 0x0f0f0f0fu;
        }
        k_scales(w, load_weights4(block), b);
        return w;
    }
};

// Blocks of 256 in 44 words: as Q4_K, with 32 bytes of fifth bits before the nibbles.
struct q5_k {
    static const bool MINIMA = true, TWO_SCALES = false;
    static __device__ __forceinline__ Block32 block32(const u32* row, u32 b, u32 cols) {
        Block32 w;
        const u32* block = row + (b >> 3) * 44;
        const u32* quants = block + 12 + ((b & 6) << 2);
        const uint4 lo = load_weights4(quants), hi = load_weights4(quants + 4);
        const uint4 low_bits = load_weights4(block + 4), high_bits = load_weights4(block + 8);
        const u32 words[8] = {lo.x, lo.y, lo.z, lo.w, hi.x, hi.y, hi.z, hi.w};
        const u32 fifth[8] = {low_bits.x,  low_bits.y,  low_bits.z,  low_bits.w,
                              high_bits.x, high_bits.y, high_bits.z, high_bits.w};
#pragma unroll
        for (int j = 0; j < 8; j++) {
            w.q[j] = ((words[j] >> (4 * (b & 1))) & 0x0f0f0f0fu) | (((fifth[j] >> (b & 7)) & 0x01010101u) << 4);
        }
        k_scales(w, load_weights4(block), b);
        return w;
    }
};

// Blocks of 256 in 52 words: 128 bytes of low nibbles, 64 of high pairs, 16 signed sub-scales; behind the row's blocks one f16
// scale a block; values minus 32.
struct q6_k {
    static const bool MINIMA = false, TWO_SCALES = true;
    static __device__ __forceinline__ Block32 block32(const u32* row, u32 b, u32 cols) {
        Block32 w;
        const u32* block = row + (b >> 3) * 52;
        const u32 n = (b >> 2) & 1;
        const u32* low = block + n * 16 + (b & 1) * 8;
        const u32* high = block + 32 + n * 8;
        const uint4 l0 = load_weights4(low), l1 = load_weights4(low + 4);
        const uint4 h0 = load_weights4(high), h1 = load_weights4(high + 4);
        const u32 lo[8] = {l0.x, l0.y, l0.z, l0.w, l1.x, l1.y, l1.z, l1.w};
        const u32 hi[8] = {h0.x, h0.y, h0.z, h0.w, h1.x, h1.y, h1.z, h1.w};
#pragma unroll
        for (int j = 0; j < 8; j++) {
            const u32 v = ((lo[j] >> (2 * (b & 2))) & 0x0f0f0f0fu) | (((hi[j] >> (2 * (b & 3))) & 0x03030303u) << 4);
            w.q[j] = less4(v, 0x20202020u);
        }
        const float d = plane_scale(row + (cols >> 8) * 52, b >> 3);
        const u32 pair = load_weight(block + 48 + ((b & 7) >> 1)) >> (16 * (b & 1));
        w.s[0] = (float)(i8)(pair & 0xff) * d, w.s[1] = (float)(i8)((pair >> 8) & 0xff) * d;
        w.m[0] = w.m[1] = 0.0f;
        return w;
    }
};

// Nibbles that index the codebook.
struct iq4_nl {
    static const bool MINIMA = false, TWO_SCALES = false;
    static __device__ __forceinline__ Block32 block32(const u32* row, u32 b, u32 cols) {
        Block32 w;
        nibbles(w, load_weights4(row + b * 4));
#pragma unroll
        for (int i = 0; i < 8; i++) {
            w.q[i] = iq4(w.q[i]);
        }
        one_scale(w, plane_scale(row + (cols >> 3), b), 0.0f);
        return w;
    }
};

// Blocks of 256 in 34 words: f16 scale, 16 bits and four bytes of six-bit sub-scales, 128 bytes of nibbles.
struct iq4_xs {
    static const bool MINIMA = false, TWO_SCALES = false;
    static __device__ __forceinline__ Block32 block32(const u32* row, u32 b, u32 cols) {
        Block32 w;
        const u32* block = row + (b >> 3) * 34;
        const u32 n = b & 7;
        const uint2 lo = load_weights2(block + 2 + n * 4), hi = load_weights2(block + 4 + n * 4);
        nibbles(w, make_uint4(lo.x, lo.y, hi.x, hi.y));
#pragma unroll
        for (int i = 0; i < 8; i++) {
            w.q[i] = iq4(w.q[i]);
        }
        const u32 head = load_weight(block);
        const u32 sc = ((load_weight(block + 1) >> (4 * n)) & 15) | (((head >> (16 + 2 * n)) & 3) << 4);
        one_scale(w, half_of(head, 0) * ((float)sc - 32.0f), 0.0f);
        return w;
    }
};

// FP4 (e2m1) nibbles; behind the row's nibbles one e8m0 scale a block. The two subnormal scales are taken for zero.
struct mxfp4 {
    static const bool MINIMA = false, TWO_SCALES = false;
    static __device__ __forceinline__ Block32 block32(const u32* row, u32 b, u32 cols) {
        Block32 w;
        nibbles(w, load_weights4(row + b * 4));
#pragma unroll
        for (int i = 0; i < 8; i++) {
            w.q[i] = fp4(w.q[i]);
        }
        // 2^(e - 127) / 2: quants are twice the values.
        const u32 e = byte_of(load_weight(row + (cols >> 3) + (b >> 2)), b & 3);
        one_scale(w, __uint_as_float(e > 1 ? (e - 1) << 23 : 0), 0.0f);
        return w;
    }
};

// Floats: `raw` reads 8 weights from column k, a multiple of 8; `decode` makes floats of them, `at` reads one. With SCALED they
// are still to be multiplied with the row's `scale` of their 128 columns. SPLIT: bf16 terms that a weight has.

struct f32 {
    static const bool SCALED = false;
    static const int SPLIT = 3;
    struct Raw {
        uint4 lo, hi;
    };
    static __device__ __forceinline__ Raw raw(const u32* row, u32 k) {
        Raw r;
        r.lo = load_weights4(row + k), r.hi = load_weights4(row + k + 4);
        return r;
    }
    static __device__ __forceinline__ void decode(const Raw& r, float (&w)[8]) {
        const u32 words[8] = {r.lo.x, r.lo.y, r.lo.z, r.lo.w, r.hi.x, r.hi.y, r.hi.z, r.hi.w};
#pragma unroll
        for (int i = 0; i < 8; i++) {
            w[i] = __uint_as_float(words[i]);
        }
    }
    static __device__ __forceinline__ float at(const u32* row, u32 k) {
        return __uint_as_float(load_weight(row + k));
    }
    static __device__ __forceinline__ float scale(const u32* row, u32 k, u32 cols) {
        return 1.0f;
    }
};

struct f16 {
    static const bool SCALED = false;
    static const int SPLIT = 2;
    typedef uint4 Raw;
    static __device__ __forceinline__ Raw raw(const u32* row, u32 k) {
        return load_weights4(row + (k >> 1));
    }
    static __device__ __forceinline__ void decode(const Raw& r, float (&w)[8]) {
        const u32 words[4] = {r.x, r.y, r.z, r.w};
#pragma unroll
        for (int i = 0; i < 4; i++) {
            w[2 * i] = half_of(words[i], 0), w[2 * i + 1] = half_of(words[i], 1);
        }
    }
    static __device__ __forceinline__ float at(const u32* row, u32 k) {
        return half_of(load_weight(row + (k >> 1)), k & 1);
    }
    static __device__ __forceinline__ float scale(const u32* row, u32 k, u32 cols) {
        return 1.0f;
    }
};

struct bf16 {
    static const bool SCALED = false;
    static const int SPLIT = 1;
    typedef uint4 Raw;
    static __device__ __forceinline__ Raw raw(const u32* row, u32 k) {
        return load_weights4(row + (k >> 1));
    }
    static __device__ __forceinline__ void decode(const Raw& r, float (&w)[8]) {
        const u32 words[4] = {r.x, r.y, r.z, r.w};
#pragma unroll
        for (int i = 0; i < 4; i++) {
            w[2 * i] = __uint_as_float(words[i] << 16), w[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000u);
        }
    }
    static __device__ __forceinline__ float at(const u32* row, u32 k) {
        const u32 word = load_weight(row + (k >> 1));
        return __uint_as_float((k & 1) != 0 ? word & 0xffff0000u : word << 16);
    }
    static __device__ __forceinline__ float scale(const u32* row, u32 k, u32 cols) {
        return 1.0f;
    }
};

// e4m3fn by its bits: four a word; behind the row's bytes one f32 scale for every 128 columns. Subnormals are steps of 2^-9.
struct f8_e4m3 {
    static const bool SCALED = true;
    static const int SPLIT = 1;
    typedef uint2 Raw;
    static __device__ __forceinline__ float e4m3(u32 byte) {
        // Exponent and mantissa where f32 has them are 2^-120 of the value, subnormals included.
        const float magnitude = __uint_as_float((byte & 0x7fu) << 20) * 1.329227995784916e36f;
        return (byte & 0x80u) != 0 ? -magnitude : magnitude;
    }
    static __device__ __forceinline__ Raw raw(const u32* row, u32 k) {
        return load_weights2(row + (k >> 2));
    }
    static __device__ __forceinline__ void decode(const Raw& r, float (&w)[8]) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            w[i] = e4m3(byte_of(r.x, i)), w[4 + i] = e4m3(byte_of(r.y, i));
        }
    }
    static __device__ __forceinline__ float at(const u32* row, u32 k) {
        return e4m3(byte_of(load_weight(row + (k >> 2)), k & 3));
    }
    static __device__ __forceinline__ float scale(const u32* row, u32 k, u32 cols) {
        return __uint_as_float(load_weight(row + ((cols + 3) >> 2) + (k >> 7)));
    }
};
