// Moves the step's token ids up by one row. The last row that counts gets the token sampled from it or, where all are given, the
// id behind the step's own. One workgroup.
#import shared/step.wgsl ACCESS=read

struct Shift {
    given: u32,
    pad0: u32,
    pad1: u32,
    pad2: u32,
}

@group(0) @binding(0) var<uniform> params: Shift;
@group(0) @binding(2) var<storage, read_write> ids: array<u32>;

@compute @workgroup_size(256)
fn main(@builtin(local_invocation_index) lid: u32) {
    let tokens = token_count(0u);
    for (var base = 0u; base < tokens; base += 256u) {
        let id = ids[min(base + lid + 1u, arrayLength(&ids) - 1u)];
        storageBarrier();
        workgroupBarrier();
        if (base + lid < tokens) {
            ids[base + lid] = id;
        }
        storageBarrier();
        workgroupBarrier();
    }
    if (lid == 0u && tokens > 0u && params.given == 0u && step.count > 0u) {
        ids[min(taken_row(), tokens - 1u)] = last_taken();
    }
}
