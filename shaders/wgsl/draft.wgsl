// Drafts the token with the largest logit, the lowest id among equals: it becomes the id of the row that follows, one position on.
// After the last draft, the next step has the last token sampled and all drafts. One workgroup.
#import shared/step.wgsl ACCESS=read_write

struct Draft {
    vocab: u32,
    index: u32,
    drafts: u32,
    pad: u32,
}

@group(0) @binding(0) var<uniform> params: Draft;
@group(0) @binding(2) var<storage, read_write> ids: array<u32>;
@group(0) @binding(3) var<storage, read> logits: array<f32>;

const WG: u32 = 256u;
const LOWEST: f32 = -3e38;

var<workgroup> values: array<f32, WG>;
var<workgroup> indices: array<u32, WG>;

// Thread 0.
fn finish(token: u32) {
    step.drafts[min(params.index, 7u)] = token;
    if (params.index + 1u < params.drafts) {
        step.pos += 1u;
        ids[0] = token;
        return;
    }
    step.pos = max(step.pos + 2u, params.drafts) - params.drafts;
    step.tokens = params.drafts + 1u;
    step.drafted = params.drafts;
    ids[0] = last_taken();
    for (var i = 0u; i < min(params.drafts, 8u); i++) {
        ids[i + 1u] = step.drafts[i];
    }
}

@compute @workgroup_size(256)
fn main(@builtin(local_invocation_index) lid: u32) {
    // Logits are read four at a time, so that their latencies overlap.
    var best = LOWEST;
    var first = 0xffffffffu;
    for (var base = lid; base < params.vocab; base += 4u * WG) {
#for u in 0..4
        let i#{u} = base + #{u}u * WG;
        let l#{u} = logits[min(i#{u}, params.vocab - 1u)];
#endfor
#for u in 0..4
        if (i#{u} < params.vocab && (l#{u} > best || first == 0xffffffffu)) {
            best = l#{u};
            first = i#{u};
        }
#endfor
    }
    values[lid] = best;
    indices[lid] = first;
    workgroupBarrier();
    for (var half = WG / 2u; half > 0u; half >>= 1u) {
        if (lid < half) {
            let other = values[lid + half];
            let index = indices[lid + half];
            if (index != 0xffffffffu && (other > values[lid] || (other == values[lid] && index < indices[lid]))) {
                values[lid] = other;
                indices[lid] = index;
            }
        }
        workgroupBarrier();
    }
    if (lid == 0u && step.halt == 0u) {
        finish(indices[0]);
    }
}
