// The rule of 8-bit activations: blocks of 32 with scale d = largest magnitude / 127 and quants
// round(x * (127 / largest)), halves to even. Eight threads share a block.
var<workgroup> block_max: array<f32, WG>;
var<workgroup> block_sum: array<i32, WG>;

// Thread lid brings the elements 4 i .. 4 i + 4 of the row that starts at word `row` of the output (0 beyond its end).
// All threads of the workgroup call this together.
fn q8_block(lid: u32, row: u32, i: u32, v: vec4<f32>) {
    let a = abs(v);
    block_max[lid] = max(max(a.x, a.y), max(a.z, a.w));
    workgroupBarrier();
    let first = lid & ~7u;
    var largest = block_max[first];
    for (var j = 1u; j < 8u; j++) {
        largest = max(largest, block_max[first + j]);
    }
    var inverse = 0.0;
    if (largest > 0.0) {
        inverse = 127.0 / largest;
    }
    // An inverse that overflows (largest below 2^-121) makes no quant larger than 127.
    let q = clamp(vec4<i32>(round(v * inverse)), vec4<i32>(-127), vec4<i32>(127));
    block_sum[lid] = q.x + q.y + q.z + q.w;
    workgroupBarrier();
    let words = params.width >> 2u;
    if (i < words) {
        #{OUT}[row + i] = pack4xI8(q);
        if ((lid & 7u) == 0u) {
            let at = row + words + 2u * (i >> 3u);
            let low = block_sum[lid] + block_sum[lid + 1u] + block_sum[lid + 2u] + block_sum[lid + 3u];
            let high = block_sum[lid + 4u] + block_sum[lid + 5u] + block_sum[lid + 6u] + block_sum[lid + 7u];
            #{OUT}[at] = bitcast<u32>(largest / 127.0);
            #{OUT}[at + 1u] = (u32(low) & 0xffffu) | (u32(high) << 16u);
        }
    }
    workgroupBarrier();
}
