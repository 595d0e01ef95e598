// out[t] (+)= W x[t], or silu(G x[t]) * (W x[t]), for up to TOKENS tokens; for each head where there are several.
#import shared/mat.wgsl
#import shared/gemv_memory.wgsl

var<private> head: u32;

fn emit(token: u32, row: u32, value: f32) {
    store(token, head, row, value);
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
    if (tile * GROUPS * RPT >= params.rows) {
        return;
    }
    let tokens = token_count(params.tokens);
    head = params.head_base + id.z;
    let w_start = id.z * params.rows * params.row_words;
#ifdef GATED
    let gate_start = id.z * params.rows * params.gate_row_words;
#endif
    let x_first = x_start(0u, head);
    let x_step = x_start(1u, head) - x_first;
#import shared/gemv.wgsl
}
