// x[t] += sum over k, ascending, of weights[t][k] * y[t][k]. Grid: blocks of THREADS elements, rows.
KERNEL(combine) {
    const Params& p = a.p;
    const u32 token = blockIdx.y, e = blockIdx.x * THREADS + threadIdx.x;
    if (token >= token_count(a.frame, p.tokens) || e >= p.width) {
        return;
    }
    float sum = 0.0f;
    for (u32 k = 0; k < p.top_k; k++) {
        const size_t pair = (size_t)token * p.top_k + k;
        sum += a.weights[pair] * a.y[pair * p.width + e];
    }
    a.x[(size_t)token * p.width + e] += sum;
}
