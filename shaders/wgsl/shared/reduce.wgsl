// Sums and maxima over a workgroup of WG threads, the same for every thread. All threads call them together.
// Two steps of 16 threads' and of 16 values: fewer barriers than a tree.
var<workgroup> reduce_cells: array<f32, WG>;
var<workgroup> reduce_parts: array<f32, 16>;

fn sum_all(lid: u32, value: f32) -> f32 {
    reduce_cells[lid] = value;
    workgroupBarrier();
    if (lid < 16u) {
        var sum = 0.0;
        for (var i = lid; i < WG; i += 16u) {
            sum += reduce_cells[i];
        }
        reduce_parts[lid] = sum;
    }
    workgroupBarrier();
    var sum = 0.0;
    for (var i = 0u; i < 16u; i++) {
        sum += reduce_parts[i];
    }
    return sum;
}

fn max_all(lid: u32, value: f32) -> f32 {
    reduce_cells[lid] = value;
    workgroupBarrier();
    if (lid < 16u) {
        var best = reduce_cells[lid];
        for (var i = lid; i < WG; i += 16u) {
            best = max(best, reduce_cells[i]);
        }
        reduce_parts[lid] = best;
    }
    workgroupBarrier();
    var best = reduce_parts[0];
    for (var i = 1u; i < 16u; i++) {
        best = max(best, reduce_parts[i]);
    }
    return best;
}
