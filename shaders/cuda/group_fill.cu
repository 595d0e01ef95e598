// Sorts the pairs (t * K + k) by (slot, pair) and cuts each slot's list into tiles. Tiles: word 0 their number; from word 4 four
// words a tile: slot, first index in the list, pairs, 0. The order depends on nothing but the slots. Grid: slots.
#include "shared/group.cuh"

KERNEL(group_fill) {
    __shared__ u32 cells[THREADS / 32];
    __shared__ u32 before[2];
    const Params& p = a.p;
    const u32 slot = blockIdx.x;
    const u32 all = token_count(a.frame, p.tokens) * p.top_k;
    if (all == 0) {
        return;
    }
    // Pairs and tiles of earlier slots.
    u32 pairs = 0, tiles = 0;
    for (u32 e = threadIdx.x; e < slot; e += THREADS) {
        pairs += a.counts[e];
        tiles += (a.counts[e] + p.tile - 1) / p.tile;
    }
    pairs = sum_to(pairs, cells);
    tiles = sum_to(tiles, cells);
    if (threadIdx.x == THREADS - 1) {
        before[0] = pairs, before[1] = tiles;
    }
    __syncthreads();
    const u32 mine = count_mine(a.chosen, slot, all);
    u32 at = before[0] + sum_to(mine, cells) - mine;
    const u32 part = share(all);
    if (mine > 0) {
        for (u32 i = threadIdx.x * part; i < least((threadIdx.x + 1) * part, all); i++) {
            if (a.chosen[i] == slot) {
                a.pairs[at++] = i;
            }
        }
    }
    const u32 count = a.counts[slot], n = (count + p.tile - 1) / p.tile;
    for (u32 i = threadIdx.x; i < n; i += THREADS) {
        u32* tile = a.tiles + 4 + (before[1] + i) * 4;
        tile[0] = slot;
        tile[1] = before[0] + i * p.tile;
        tile[2] = least(p.tile, count - i * p.tile);
        tile[3] = 0;
    }
    if (threadIdx.x == 0 && slot == p.slots - 1) {
        a.tiles[0] = before[1] + n;
    }
}
