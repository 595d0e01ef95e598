// Joins the parts that `attend` made of one head of one token: a mean weighted by exp(maximum) * sum. Grid: heads, tokens.
const u32 MOST = 256;

KERNEL(attend_merge) {
    __shared__ float maxima[MOST];
    __shared__ float sums[MOST];
    const Params& p = a.p;
    const u32 head = blockIdx.x, token = blockIdx.y;
    if (token >= token_count(a.frame, p.tokens)) {
        return;
    }
    const u32 splits = least(p.splits, MOST), stride = p.r + 2;
    const float* parts = a.partial + ((size_t)token * p.heads + head) * p.splits * stride;
    for (u32 i = threadIdx.x; i < splits; i += THREADS) {
        maxima[i] = parts[i * stride + p.r];
        sums[i] = parts[i * stride + p.r + 1];
    }
    __syncthreads();
    float best = maxima[0];
    for (u32 i = 1; i < splits; i++) {
        best = fmaxf(best, maxima[i]);
    }
    float whole = 0.0f;
    for (u32 i = 0; i < splits; i++) {
        whole += expf(maxima[i] - best) * sums[i];
    }
    for (u32 e = threadIdx.x; e < p.r; e += THREADS) {
        float v = 0.0f;
        for (u32 i = 0; i < splits; i++) {
            v += expf(maxima[i] - best) * parts[i * stride + e];
        }
        a.out[((size_t)token * p.heads + head) * p.r + e] = v / whole;
    }
}
