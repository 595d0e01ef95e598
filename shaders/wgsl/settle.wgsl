// Leaves the rows of a step with drafts behind: what follows works on one row, at the position of the last one that counts. Without
// drafts to come, the next step decodes the last token sampled.
#import shared/step.wgsl ACCESS=read_write

struct Settle {
    drafts: u32,
    pad0: u32,
    pad1: u32,
    pad2: u32,
}

@group(0) @binding(0) var<uniform> params: Settle;
@group(0) @binding(2) var<storage, read_write> ids: array<u32>;

@compute @workgroup_size(1)
fn main() {
    if (step.halt != 0u) {
        return;
    }
    // A step that came after the end stays where it is.
    step.pos = max(step.pos + step.tokens + step.count, step.drafted + 2u) - step.drafted - 2u;
    step.tokens = 1u;
    step.drafted = 0u;
    if (params.drafts == 0u) {
        step.pos += 1u;
        ids[0] = last_taken();
    }
}
