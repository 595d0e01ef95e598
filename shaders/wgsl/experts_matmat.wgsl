// `experts_matvec` for many pairs, sorted by expert: each workgroup has a tile of pairs of one expert (see group_fill).
#import shared/experts.wgsl
#import shared/gemm_memory.wgsl

@group(0) @binding(5) var<storage, read> pairs: array<u32>;
@group(0) @binding(6) var<storage, read> tiles: array<u32>;

// Where the tile's pairs start in `pairs`.
var<private> first_pair: u32;

fn x_of(token: u32) -> u32 {
    return x_start(pairs[first_pair + token]);
}

fn emit(token: u32, row: u32, value: f32) {
    store(pairs[first_pair + token], row, value);
}

@compute @workgroup_size(#{WG})
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let row_first = id.x * TM;
    if (row_first >= params.rows || id.y >= min(tiles[0], params.max_tiles)) {
        return;
    }
    let blob = slot_start(tiles[4u + id.y * 4u]);
    if (blob == ELSEWHERE) {
        return;
    }
    first_pair = tiles[5u + id.y * 4u];
    let tokens = tiles[6u + id.y * 4u];
    let w_start = blob + params.part_offset;
#ifdef GATED
    let gate_start = blob + params.gate_offset;
#endif
#import shared/gemm.wgsl
}
