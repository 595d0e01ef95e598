// Gives the missing experts of one token slots in place of the coldest ones, and lists what `gather` has to copy. One
// workgroup; one token.
//
// How hot an expert is: a count of its uses that halves every `half_life` tokens (LRFU: Lee et al., 2001), compared by its
// logarithm. `Heat` in the runtime is the same formula.
#import shared/step.wgsl ACCESS=read

struct Admit {
    experts: u32,
    top_k: u32,
    bank: u32,
    record: u32,
    half_life: f32,
    pad0: u32,
    pad1: u32,
    pad2: u32,
}

@group(0) @binding(0) var<uniform> params: Admit;
// [K].
@group(0) @binding(2) var<storage, read> ids: array<u32>;
// [K].
@group(0) @binding(3) var<storage, read_write> slots: array<u32>;
// As `router` has it.
@group(0) @binding(4) var<storage, read_write> residency: array<u32>;
// For each bank: its time in tokens; then for each expert the bits of its count, and the time of its last use.
@group(0) @binding(5) var<storage, read_write> heat: array<u32>;
// How many; then for each: expert, slot.
@group(0) @binding(6) var<storage, read_write> work: array<u32>;

const WG: u32 = 256u;
const MOST: u32 = 512u;
const ABSENT: u32 = 0xffffffffu;
const GATHERED: u32 = 0x20000u;
// Cooler than any expert, and hotter than any.
const COLDEST: f32 = -1e30;
const PINNED: f32 = 1e30;

// [E]: PINNED for those of this token and those without a slot.
var<workgroup> scores: array<f32, MOST>;
var<workgroup> best_scores: array<f32, WG>;
var<workgroup> best_experts: array<u32, WG>;
// Places k of the missing experts.
var<workgroup> missed: array<u32, 64>;
var<workgroup> missed_count: u32;

@compute @workgroup_size(256)
fn main(@builtin(local_invocation_index) lid: u32) {
    if (token_count(0u) == 0u) {
        return;
    }
    let table = params.bank * params.experts;
    let times = params.bank * (1u + 2u * params.experts);
    let now = heat[times] + 1u;
    for (var e = lid; e < params.experts; e += WG) {
        let count = bitcast<f32>(heat[times + 1u + 2u * e]);
        let age = f32(now - heat[times + 2u + 2u * e]);
        var score = select(COLDEST, log2(count) - age / params.half_life, count > 0.0);
        for (var k = 0u; k < params.top_k; k++) {
            if (ids[k] == e) {
                heat[times + 1u + 2u * e] = bitcast<u32>(count * exp2(-age / params.half_life) + 1.0);
                heat[times + 2u + 2u * e] = now;
                score = PINNED;
            }
        }
        scores[e] = select(score, PINNED, residency[table + e] == ABSENT);
    }
    // All have read the time.
    workgroupBarrier();
    if (lid == 0u) {
        heat[times] = now;
        var n = 0u;
        for (var k = 0u; k < min(params.top_k, 64u); k++) {
            if (slots[k] == ABSENT) {
                missed[n] = k;
                n++;
            }
        }
        missed_count = n;
        work[0] = n;
    }
    let count = workgroupUniformLoad(&missed_count);
    for (var i = 0u; i < count; i++) {
        var coldest = PINNED;
        var victim = 0u;
        for (var e = lid; e < params.experts; e += WG) {
            if (scores[e] < coldest) {
                coldest = scores[e];
                victim = e;
            }
        }
        best_scores[lid] = coldest;
        best_experts[lid] = victim;
        workgroupBarrier();
        for (var half = WG / 2u; half > 0u; half >>= 1u) {
            if (lid < half) {
                let other = best_scores[lid + half];
                let expert = best_experts[lid + half];
                if (other < best_scores[lid] || (other == best_scores[lid] && expert < best_experts[lid])) {
                    best_scores[lid] = other;
                    best_experts[lid] = expert;
                }
            }
            workgroupBarrier();
        }
        if (lid == 0u) {
            let k = missed[i];
            let expert = ids[k];
            let out = best_experts[0];
            let slot = residency[table + out];
            residency[table + out] = ABSENT;
            residency[table + expert] = slot;
            scores[out] = PINNED;
            slots[k] = slot;
            work[1u + 2u * i] = expert;
            work[2u + 2u * i] = slot;
            residency[params.record + 2u * (params.bank * params.top_k + k)] |= GATHERED;
        }
        workgroupBarrier();
    }
}
