// CUDA's words for a C++ compiler: the threads of a block are fibers that take turns, so that kernels run without a GPU.
//
// Fibers change only where threads wait for each other, and take turns forwards and backwards alternately: what depends on an order
// that CUDA does not promise shows. Shared memory is filled with NaN before each block.
#include <math.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#define EMULATED 1
#define __device__
#define __global__
#define __forceinline__ inline
#define __noinline__
#define __launch_bounds__(...)
#define __grid_constant__
#define __shared__ static __attribute__((section("pleiad_shared")))

struct uint2 {
    unsigned x, y;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
struct float2 {
    float x, y;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
struct Index {
    unsigned x, y, z;
};

static inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) {
    return {x, y, z, w};
}
static inline float2 make_float2(float x, float y) {
    return {x, y};
}
static inline float4 make_float4(float x, float y, float z, float w) {
    return {x, y, z, w};
}

static Index threadIdx, blockIdx, gridDim;

namespace emulation {

const unsigned MOST = 1024;
const size_t STACK = 128 << 10;

struct Fiber {
    ucontext_t start;
    jmp_buf at;
    bool begun, done;
    // It waits as long as this counter has this value.
    const unsigned* counter;
    unsigned value;
};

static Fiber fibers[MOST];
static char* stacks;
static jmp_buf scheduler;
static unsigned current, count;
static void (*body)();

// A meeting of `arrived` fibers so far, the `round`th.
struct Meeting {
    unsigned arrived, round;
};

static Meeting block, warps[MOST / 32];

static __attribute__((noinline)) void leave() {
    if (_setjmp(fibers[current].at) == 0) {
        _longjmp(scheduler, 1);
    }
}

static void meet(Meeting& m, unsigned all) {
    const unsigned round = m.round;
    if (++m.arrived == all) {
        m.arrived = 0;
        m.round++;
        return;
    }
    fibers[current].counter = &m.round;
    fibers[current].value = round;
    leave();
}

static void enter() {
    body();
    fibers[current].done = true;
    _longjmp(scheduler, 1);
}

static __attribute__((noinline)) void resume(unsigned i) {
    current = i;
    threadIdx.x = i;
    Fiber& f = fibers[i];
    f.counter = nullptr;
    if (_setjmp(scheduler) == 0) {
        if (f.begun) {
            _longjmp(f.at, 1);
        }
        f.begun = true;
        setcontext(&f.start);
    }
}

// Runs one block; false where threads wait for ever.
static bool run(unsigned threads) {
    if (stacks == nullptr) {
        stacks = static_cast<char*>(malloc(MOST * STACK));
    }
    count = threads;
    memset(&block, 0, sizeof block);
    memset(warps, 0, sizeof warps);
    for (unsigned i = 0; i < threads; i++) {
        Fiber& f = fibers[i];
        getcontext(&f.start);
        f.start.uc_stack.ss_sp = stacks + i * STACK;
        f.start.uc_stack.ss_size = STACK;
        f.start.uc_link = nullptr;
        makecontext(&f.start, enter, 0);
        f.begun = f.done = false;
        f.counter = nullptr;
    }
    for (unsigned sweep = 0;; sweep++) {
        unsigned alive = 0, ran = 0;
        for (unsigned n = 0; n < threads; n++) {
            const unsigned i = (sweep & 1) != 0 ? threads - 1 - n : n;
            Fiber& f = fibers[i];
            if (f.done) {
                continue;
            }
            alive++;
            if (f.counter == nullptr || *f.counter != f.value) {
                ran++;
                resume(i);
            }
        }
        if (alive == 0) {
            return true;
        }
        if (ran == 0) {
            return false;
        }
    }
}

static Meeting& warp() {
    return warps[current / 32];
}

// What every lane of a warp brings, of two meetings.
static unsigned long long brought[MOST / 32][2][32][6];

// Where the lanes' words are once all have brought theirs.
template <unsigned N>
static unsigned long long (*bring(const unsigned long long (&words)[N]))[6] {
    const unsigned w = current / 32, half = warp().round & 1;
    memcpy(brought[w][half][current % 32], words, sizeof words);
    meet(warp(), 32);
    return brought[w][half];
}

template <class T>
static T lane_value(T v, unsigned lane) {
    unsigned long long word[1] = {};
    memcpy(word, &v, sizeof v);
    auto all = bring(word);
    T out;
    memcpy(&out, all[lane], sizeof out);
    return out;
}

}  // namespace emulation

static inline void __syncthreads() {
    emulation::meet(emulation::block, emulation::count);
}

template <class T>
static T __shfl_xor_sync(unsigned, T v, unsigned d) {
    return emulation::lane_value(v, (emulation::current % 32) ^ d);
}

template <class T>
static T __shfl_up_sync(unsigned, T v, unsigned d) {
    const unsigned lane = emulation::current % 32;
    return emulation::lane_value(v, lane >= d ? lane - d : lane);
}

static inline unsigned __float_as_uint(float x) {
    unsigned v;
    memcpy(&v, &x, 4);
    return v;
}

static inline float __uint_as_float(unsigned x) {
    float v;
    memcpy(&v, &x, 4);
    return v;
}

static inline int signed_byte(unsigned word, unsigned i) {
    return static_cast<signed char>(word >> (8 * i));
}

static inline int __dp4a(int a, int b, int c) {
    for (unsigned i = 0; i < 4; i++) {
        c += signed_byte(a, i) * signed_byte(b, i);
    }
    return c;
}

static inline unsigned __byte_perm(unsigned x, unsigned y, unsigned s) {
    const unsigned long long bytes = (static_cast<unsigned long long>(y) << 32) | x;
    unsigned out = 0;
    for (unsigned i = 0; i < 4; i++) {
        out |= static_cast<unsigned>((bytes >> (8 * ((s >> (4 * i)) & 7))) & 0xff) << (8 * i);
    }
    return out;
}

static inline int __popc(unsigned x) {
    return __builtin_popcount(x);
}

static inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return static_cast<unsigned long long>((static_cast<unsigned __int128>(a) * b) >> 64);
}

template <class T>
static T atomicAdd(T* p, T v) {
    const T old = *p;
    *p = old + v;
    return old;
}

template <class T>
static T atomicOr(T* p, T v) {
    const T old = *p;
    *p = old | v;
    return old;
}

static inline uint4 load_weights4(const unsigned* p) {
    // Misaligned 16-byte reads fail on a GPU, and here.
    if ((reinterpret_cast<size_t>(p) & 15) != 0) {
        abort();
    }
    return {p[0], p[1], p[2], p[3]};
}

static inline uint2 load_weights2(const unsigned* p) {
    if ((reinterpret_cast<size_t>(p) & 7) != 0) {
        abort();
    }
    return {p[0], p[1]};
}

static inline unsigned load_weight(const unsigned* p) {
    return *p;
}

static inline float half_float(unsigned bits) {
    const unsigned a = bits & 0x7fff;
    float v = __uint_as_float(a << 13) * 5.192296858534828e33f;
    if (a >= 0x7c00) {
        v = __uint_as_float(0x7f800000 | (a << 13));
    }
    return (bits & 0x8000) != 0 ? -v : v;
}

static inline unsigned float_half(float x) {
    const unsigned bits = __float_as_uint(x), sign = (bits >> 16) & 0x8000, a = bits & 0x7fffffff;
    if (a < 0x38800000) {
        return sign | static_cast<unsigned>(rintf(__uint_as_float(a) * 16777216.0f));
    }
    const unsigned rounded = a + 0xfff + ((a >> 13) & 1);
    const unsigned normal = (rounded - 0x38000000) >> 13;
    return sign | (normal < 0x7c00 ? normal : 0x7c00);
}

static inline unsigned float_bf16(float x) {
    const unsigned bits = __float_as_uint(x);
    return (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
}

// Fragments as the PTX manual has them: lane 4 r + c holds of A rows r and r + 8 at columns 2 c, 2 c + 1 (bytes: 4 c ..), the
// second half of the columns in registers of their own; of B column r; of C rows r and r + 8 at columns 2 c, 2 c + 1.
static void mma_bf16(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    auto all = emulation::bring({a[0], a[1], a[2], a[3], b[0], b[1]});
    const unsigned lane = emulation::current % 32;
    for (unsigned i = 0; i < 4; i++) {
        const unsigned row = lane / 4 + 8 * (i / 2), column = lane % 4 * 2 + i % 2;
        // Tensor cores round once, at the end.
        double sum = c[i];
        for (unsigned k = 0; k < 16; k++) {
            const unsigned from = k % 8 / 2, shift = 16 * (k % 2);
            const unsigned x = static_cast<unsigned>(all[row % 8 * 4 + from][row / 8 + 2 * (k / 8)] >> shift) << 16;
            const unsigned y = static_cast<unsigned>(all[column * 4 + from][4 + k / 8] >> shift) << 16;
            sum += static_cast<double>(__uint_as_float(x)) * __uint_as_float(y);
        }
        c[i] = static_cast<float>(sum);
    }
}

static void mma_s8(int (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    auto all = emulation::bring({a[0], a[1], a[2], a[3], b[0], b[1]});
    const unsigned lane = emulation::current % 32;
    for (unsigned i = 0; i < 4; i++) {
        const unsigned row = lane / 4 + 8 * (i / 2), column = lane % 4 * 2 + i % 2;
        for (unsigned k = 0; k < 32; k++) {
            const unsigned from = k % 16 / 4;
            const int x = signed_byte(all[row % 8 * 4 + from][row / 8 + 2 * (k / 16)], k % 4);
            c[i] += x * signed_byte(all[column * 4 + from][4 + k / 16], k % 4);
        }
    }
}

static void mma_s8_half(int (&c)[4], unsigned a0, unsigned a1, unsigned b0) {
    auto all = emulation::bring({a0, a1, b0});
    const unsigned lane = emulation::current % 32;
    for (unsigned i = 0; i < 4; i++) {
        const unsigned row = lane / 4 + 8 * (i / 2), column = lane % 4 * 2 + i % 2;
        for (unsigned k = 0; k < 16; k++) {
            c[i] += signed_byte(all[row % 8 * 4 + k / 4][row / 8], k % 4) * signed_byte(all[column * 4 + k / 4][2], k % 4);
        }
    }
}
