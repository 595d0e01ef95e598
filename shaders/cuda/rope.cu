// Rotates the rope part of every head in place, to the position of its token. Grid: blocks of THREADS pairs, tokens.
KERNEL(rope) {
    const Params& p = a.p;
    const u32 half = p.dr >> 1, i = blockIdx.x * THREADS + threadIdx.x, token = blockIdx.y;
    if (token >= token_count(a.frame, p.tokens) || i >= p.heads * half) {
        return;
    }
    const u32 head = i / half, pair = i % half;
    const u32 position = least(a.frame.step->pos + token, a.frame.positions - 1);
    const float cos = a.rope[2 * (position * half + pair)], sin = a.rope[2 * (position * half + pair) + 1];
    float* x = a.x + p.offset + (size_t)token * p.width + head * p.stride;
    const u32 first = p.interleaved != 0 ? 2 * pair : pair;
    const u32 second = first + (p.interleaved != 0 ? 1 : half);
    const float u = x[first], v = x[second];
    x[first] = u * cos - v * sin;
    x[second] = v * cos + u * sin;
}
