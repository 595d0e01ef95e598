// out[t] (+)= W x[t], or silu(G x[t]) * (W x[t]), for many tokens; for each head where there are several.
#import shared/mat.wgsl
#import shared/gemm_memory.wgsl

var<private> head: u32;
// First token of the tile.
var<private> token_first: u32;

fn x_of(token: u32) -> u32 {
    return x_start(token_first + token, head);
}

fn emit(token: u32, row: u32, value: f32) {
    store(token_first + token, head, row, value);
}

@compute @workgroup_size(#{WG})
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let row_first = id.x * TM;
    let all = token_count(params.tokens);
    let token_tile = id.y * TN;
    if (row_first >= params.rows || token_tile >= all) {
        return;
    }
    head = params.head_base + id.z;
    token_first = token_tile;
    let tokens = min(all - token_tile, TN);
    let w_start = id.z * params.rows * params.row_words;
#ifdef GATED
    let gate_start = id.z * params.rows * params.gate_row_words;
#endif
#import shared/gemm.wgsl
}
