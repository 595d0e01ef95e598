// Chooses the experts of one token: scores, groups, the top_k best, weights; ids ascend. Ties go to the lower id. One
// workgroup a token, up to 512 experts.
//
// SLOTS: experts live in slots, and not all have one. The slot of each expert chosen is looked up, every choice is recorded,
// and where one is missing and the step says so, the plan halts after this layer's router.
#ifdef SLOTS
#import shared/step.wgsl ACCESS=read_write
#else
#import shared/step.wgsl ACCESS=read
#endif
#import shared/math.wgsl

struct Router {
    experts: u32,
    top_k: u32,
    groups: u32,
    top_k_groups: u32,
    sigmoid: u32,
    top_two: u32,
    norm: u32,
    layer: u32,
    scaling: f32,
    tokens: u32,
    bank: u32,
    record: u32,
}

@group(0) @binding(0) var<uniform> params: Router;
@group(0) @binding(2) var<storage, read> logits: array<f32>;
#ifdef BIAS
@group(0) @binding(3) var<storage, read> bias: array<f32>;
#endif
@group(0) @binding(4) var<storage, read_write> ids: array<u32>;
@group(0) @binding(5) var<storage, read_write> weights: array<f32>;
@group(0) @binding(6) var<storage, read_write> counters: array<atomic<u32>>;
#ifdef SLOTS
// [T, K]: the slot of each expert chosen, or ABSENT.
@group(0) @binding(7) var<storage, read_write> slots: array<u32>;
// [banks, E]: the slot of every expert, or ABSENT. From `record` on, [banks, T, K] pairs: expert, HIT or 0; weight.
@group(0) @binding(8) var<storage, read_write> residency: array<u32>;
#endif

const WG: u32 = 256u;
const MOST: u32 = 512u;
const MOST_GROUPS: u32 = 64u;
const MOST_CHOSEN: u32 = 64u;
const NONE: f32 = -1e30;
#ifdef SLOTS
const ABSENT: u32 = 0xffffffffu;
const HIT: u32 = 0x10000u;

var<workgroup> rows_here: u32;
var<workgroup> missing: atomic<u32>;

// The pair of a chosen expert in the record.
fn recorded(token: u32, place: u32) -> u32 {
    return params.record + 2u * ((params.bank * step.tokens + token) * params.top_k + place);
}
#endif
#import shared/reduce.wgsl

// What selection compares: scores and bias; NONE in groups not chosen.
var<workgroup> keys: array<f32, MOST>;
var<workgroup> group_scores: array<f32, MOST_GROUPS>;
// A bit for each chosen expert.
var<workgroup> chosen: array<atomic<u32>, MOST / 32u>;
var<workgroup> chosen_scores: array<f32, MOST_CHOSEN>;

// Whether the group of an expert is among the best top_k_groups.
fn group_chosen(group: u32) -> bool {
    let mine = group_scores[group];
    var better = 0u;
    for (var g = 0u; g < params.groups; g++) {
        let other = group_scores[g];
        better += select(0u, 1u, other > mine || (other == mine && g < group));
    }
    return better < params.top_k_groups;
}

fn expert_chosen(expert: u32) -> bool {
    let mine = keys[expert];
    var better = 0u;
    for (var e = 0u; e < params.experts; e++) {
        let other = keys[e];
        better += select(0u, 1u, other > mine || (other == mine && e < expert));
    }
    return better < params.top_k;
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let token = id.x;
#ifdef SLOTS
    if (lid == 0u) {
        // Another token of this step may halt the plan at this very layer, and at this very moment: it is read once.
        let halt = step.halt;
        let runs = halt == 0u || (step.tokens > 1u && halt == params.layer + 1u);
        rows_here = select(0u, step.tokens, runs);
        atomicStore(&missing, 0u);
    }
    let rows = workgroupUniformLoad(&rows_here);
#else
    let rows = token_count(params.tokens);
#endif
    if (token >= rows) {
        return;
    }
    let start = token * params.experts;
    // Each thread has the experts lid and lid + WG.
    let e0 = lid;
    let e1 = lid + WG;
    var s0 = NONE;
    var s1 = NONE;
    if (e0 < params.experts) {
        s0 = logits[start + e0];
    }
    if (e1 < params.experts) {
        s1 = logits[start + e1];
    }
    if (params.sigmoid != 0u) {
        s0 = sigmoid(s0);
        s1 = sigmoid(s1);
    } else {
        let best = max_all(lid, max(s0, s1));
        s0 = select(0.0, exp(s0 - best), e0 < params.experts);
        s1 = select(0.0, exp(s1 - best), e1 < params.experts);
        let sum = sum_all(lid, s0 + s1);
        s0 /= sum;
        s1 /= sum;
    }
    var k0 = s0;
    var k1 = s1;
#ifdef BIAS
    if (e0 < params.experts) {
        k0 += bias[e0];
    }
    if (e1 < params.experts) {
        k1 += bias[e1];
    }
#endif
    keys[e0] = k0;
    keys[e1] = k1;
    if (lid < MOST / 32u) {
        atomicStore(&chosen[lid], 0u);
    }
    workgroupBarrier();
    if (params.groups > 1u) {
        let size = params.experts / params.groups;
        if (lid < params.groups) {
            var best = NONE;
            var second = NONE;
            for (var e = lid * size; e < (lid + 1u) * size; e++) {
                let v = keys[e];
                second = max(second, min(best, v));
                best = max(best, v);
            }
            group_scores[lid] = select(best, best + second, params.top_two != 0u && size > 1u);
        }
        workgroupBarrier();
        if (e0 < params.experts && !group_chosen(e0 / size)) {
            keys[e0] = NONE;
        }
        if (e1 < params.experts && !group_chosen(e1 / size)) {
            keys[e1] = NONE;
        }
        workgroupBarrier();
    }
    let c0 = e0 < params.experts && expert_chosen(e0);
    let c1 = e1 < params.experts && expert_chosen(e1);
    if (c0) {
        atomicOr(&chosen[e0 / 32u], 1u << (e0 % 32u));
    }
    if (c1) {
        atomicOr(&chosen[e1 / 32u], 1u << (e1 % 32u));
    }
    workgroupBarrier();
    // An expert's place among the chosen: how many of them have lower ids.
    for (var turn = 0u; turn < 2u; turn++) {
        let e = select(e0, e1, turn == 1u);
        if (select(c0, c1, turn == 1u)) {
            var place = countOneBits(atomicLoad(&chosen[e / 32u]) & ((1u << (e % 32u)) - 1u));
            for (var i = 0u; i < e / 32u; i++) {
                place += countOneBits(atomicLoad(&chosen[i]));
            }
            ids[token * params.top_k + place] = e;
            chosen_scores[min(place, MOST_CHOSEN - 1u)] = select(s0, s1, turn == 1u);
            if (step.counters_on != 0u && step.stopped == 0u) {
                atomicAdd(&counters[params.layer * params.experts + e], 1u);
            }
#ifdef SLOTS
            let slot = residency[params.bank * params.experts + e];
            slots[token * params.top_k + place] = slot;
            residency[recorded(token, place)] = e | select(HIT, 0u, slot == ABSENT);
            if (slot == ABSENT) {
                atomicAdd(&missing, 1u);
            }
#endif
        }
    }
    workgroupBarrier();
    if (lid < params.top_k) {
        var factor = params.scaling;
        if (params.norm != 0u) {
            var sum = 0.0;
            for (var i = 0u; i < params.top_k; i++) {
                sum += chosen_scores[i];
            }
            factor /= sum + 1e-20;
        }
        let weight = chosen_scores[lid] * factor;
        weights[token * params.top_k + lid] = weight;
#ifdef SLOTS
        residency[recorded(token, lid) + 1u] = bitcast<u32>(weight);
#endif
    }
#ifdef SLOTS
    if (lid == 0u && step.on_miss != 0u && step.stopped == 0u && atomicLoad(&missing) != 0u) {
        step.halt = params.layer + 1u;
    }
#endif
}
