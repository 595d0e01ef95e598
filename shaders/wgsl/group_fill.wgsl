// Sorts the pairs (t * K + k) by (slot, pair) and cuts each slot's list into tiles. Tiles: word 0 their number; from
// word 4 four words a tile: slot, first index in the list, pairs, 0. The order depends on nothing but the slots.
#import shared/group.wgsl

@group(0) @binding(3) var<storage, read> counts: array<u32>;
@group(0) @binding(4) var<storage, read_write> pairs: array<u32>;
@group(0) @binding(5) var<storage, read_write> tiles: array<u32>;

// Sums of the threads' parts of the slots before this one.
var<workgroup> before: array<vec2<u32>, WG>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let slot = id.x;
    if (slot >= params.slots) {
        return;
    }
    let all = token_count(params.tokens) * params.top_k;
    // Pairs and tiles of earlier slots.
    var earlier = vec2<u32>(0u);
    for (var e = lid; e < slot; e += WG) {
        let n = counts[e];
        earlier += vec2<u32>(n, (n + params.tile - 1u) / params.tile);
    }
    before[lid] = earlier;
    workgroupBarrier();
    for (var half = WG / 2u; half > 0u; half >>= 1u) {
        if (lid < half) {
            before[lid] += before[lid + half];
        }
        workgroupBarrier();
    }
    let first = before[0];
    let mine = count_mine(lid, slot, all);
    var at = first.x + sum_to(lid, mine) - mine;
    let part = share(all);
    if (mine > 0u) {
        for (var i = lid * part; i < min((lid + 1u) * part, all); i++) {
            if (chosen[i] == slot) {
                pairs[at] = i;
                at++;
            }
        }
    }
    let count = counts[slot];
    let n = (count + params.tile - 1u) / params.tile;
    for (var i = lid; i < n; i += WG) {
        let tile = 4u + (first.y + i) * 4u;
        tiles[tile] = slot;
        tiles[tile + 1u] = first.x + i * params.tile;
        tiles[tile + 2u] = min(params.tile, count - i * params.tile);
        tiles[tile + 3u] = 0u;
    }
    if (lid == 0u && slot == params.slots - 1u) {
        tiles[0] = first.y + n;
    }
}
