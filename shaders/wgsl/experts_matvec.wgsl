// For each pair (token, chosen expert): silu(G x) * (U x), or D x.
#import shared/step.wgsl ACCESS=read
#import shared/experts.wgsl
#import shared/gemv_memory.wgsl

// [T, K].
@group(0) @binding(5) var<storage, read> slots: array<u32>;

var<private> pair: u32;

fn emit(token: u32, row: u32, value: f32) {
    store(pair, row, value);
}

@compute @workgroup_size(#{WG})
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(local_invocation_index) lid: u32,
#ifdef SUBGROUP
    @builtin(subgroup_invocation_id) subgroup_lane: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(num_subgroups) subgroups: u32,
#endif
) {
    let tile = id.x + id.y * 32768u;
    if (tile * GROUPS * RPT >= params.rows || id.z >= token_count(params.tokens) * params.top_k) {
        return;
    }
    let blob = slot_start(slots[id.z]);
    if (blob == ELSEWHERE) {
        return;
    }
    pair = id.z;
    let tokens = 1u;
    let w_start = blob + params.part_offset;
#ifdef GATED
    let gate_start = blob + params.gate_offset;
#endif
    let x_first = x_start(pair);
    let x_step = 0u;
#import shared/gemv.wgsl
}
