// Interface of `group_count` and `group_fill`. One workgroup a slot.
#import shared/step.wgsl ACCESS=read

struct Group {
    slots: u32,
    top_k: u32,
    tile: u32,
    tokens: u32,
}

@group(0) @binding(0) var<uniform> params: Group;
// [T, K]: slots.
@group(0) @binding(2) var<storage, read> chosen: array<u32>;

const WG: u32 = 256u;
var<workgroup> cells: array<u32, WG>;

// The sum over the threads up to and with this one. All threads call it together.
fn sum_to(lid: u32, value: u32) -> u32 {
    cells[lid] = value;
    workgroupBarrier();
    for (var reach = 1u; reach < WG; reach <<= 1u) {
        var v = cells[lid];
        if (lid >= reach) {
            v += cells[lid - reach];
        }
        workgroupBarrier();
        cells[lid] = v;
        workgroupBarrier();
    }
    return cells[lid];
}

// Pairs of this thread in list order: chunk .. chunk + share.
fn share(pairs: u32) -> u32 {
    return (pairs + WG - 1u) / WG;
}

fn count_mine(lid: u32, slot: u32, pairs: u32) -> u32 {
    let part = share(pairs);
    var n = 0u;
    for (var i = lid * part; i < min((lid + 1u) * part, pairs); i++) {
        n += select(0u, 1u, chosen[i] == slot);
    }
    return n;
}
