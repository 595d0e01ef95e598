// Sums and maxima over a workgroup of WG threads, the same for every thread. All threads call them together.
var<workgroup> reduce_cells: array<f32, WG>;

fn sum_all(lid: u32, value: f32) -> f32 {
    reduce_cells[lid] = value;
    workgroupBarrier();
    for (var half = WG / 2u; half > 0u; half >>= 1u) {
        if (lid < half) {
            reduce_cells[lid] += reduce_cells[lid + half];
        }
        workgroupBarrier();
    }
    let all = reduce_cells[0];
    workgroupBarrier();
    return all;
}

fn max_all(lid: u32, value: f32) -> f32 {
    reduce_cells[lid] = value;
    workgroupBarrier();
    for (var half = WG / 2u; half > 0u; half >>= 1u) {
        if (lid < half) {
            reduce_cells[lid] = max(reduce_cells[lid], reduce_cells[lid + half]);
        }
        workgroupBarrier();
    }
    let all = reduce_cells[0];
    workgroupBarrier();
    return all;
}
