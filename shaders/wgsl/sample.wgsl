// Samples one token from the logits and prepares the next step. One workgroup.
//
// The algorithm, exactly (l_i: logits; n = vocab). Sums are integers, so that no order of summation shows.
//  1. Penalties, on each distinct token among the last min(recent_len, penalty_last_n) of the ring, occurring c times:
//     l = l <= 0 ? l * repeat_penalty : l / repeat_penalty; then l -= c * frequency_penalty + presence_penalty.
//     (The logits buffer is left as it was found.)
//  2. M = the largest l; first = the lowest i with l_i == M. temperature <= 0: the token is first.
//  3. key(l): the bits of l (+0 for -0), all inverted for negative l, the top bit inverted for others: unsigned keys
//     order as logits do. top_k (0 < top_k < n): k_cut = the top_k-th largest key, else 0. Kept: key >= k_cut.
//  4. mass(l) = round(exp(l - M) * 2^24), halves to even. top_p < 1: Z = sum of the masses kept;
//     need = max(1, (round(top_p * 2^24) * Z) >> 24); p_cut = the largest key for which the masses of kept keys >= it sum to
//     need or more. Kept: key >= max(k_cut, p_cut).
//  5. min_p > 0: kept only where l >= M + min(log(min_p), 0).
//  6. mass'(l) = round(exp((l - M) / temperature) * 2^24) of what is kept, Z' their sum.
//  7. u = pcg(sampled ^ pcg(seed_hi ^ pcg(seed_lo))) >> 8; T = (u * Z') >> 24; the token is the lowest kept i for which the
//     masses of kept ids <= i sum to more than T.
//
// Sums of up to 2^18 masses of 24 bits are kept as (hi, lo): hi * 4096 + lo.
//
// Reading all logits again and again would take long for one workgroup, so the first reading also finds the maxima of
// 1024 chunks (every 256th logit of a quarter of the ids). The top_k-th largest of them is no larger than the top_k-th
// largest logit; without top_k, what is 17.4 * max(temperature, 1) below M has no mass. Only chunks with a maximum at that
// bound or above are read again; what they have at the bound or above goes into a list, and the steps from 3 on work on
// the list, or on all logits where it overflows. What they find is the same.
//
// VERIFY: the same from row `row` of a step whose last tokens are drafts, if that row counts: the row before gave the draft that
// this one was computed for. The next step is prepared elsewhere.
#import shared/step.wgsl ACCESS=read_write

struct Sample {
    vocab: u32,
    row: u32,
    pad1: u32,
    pad2: u32,
}

@group(0) @binding(0) var<uniform> params: Sample;
@group(0) @binding(2) var<storage, read_write> ids: array<u32>;
#ifndef VERIFY
// 64 slots of the last sampled tokens: token, bits of its logit, whether the step came after an end, sampled index.
@group(0) @binding(3) var<storage, read_write> ring: array<u32>;
#endif
@group(0) @binding(4) var<storage, read_write> logits: array<f32>;

const WG: u32 = 256u;
const LOWEST: f32 = -3e38;
const ONE: f32 = 16777216.0;
const CHUNKS: u32 = 4u * WG;
const LIST: u32 = 1024u;

// Counts of keys by digit; or masses: (hi, lo) by digit.
var<workgroup> bins: array<atomic<u32>, 2u * WG>;
var<workgroup> masses: array<vec2<u32>, WG>;
var<workgroup> values: array<f32, WG>;
var<workgroup> indices: array<u32, WG>;
// Of each chunk: chunk 256 j + t has the ids j * span + t + 256 m.
var<workgroup> maxima: array<f32, CHUNKS>;
var<workgroup> list: array<u32, LIST>;
var<workgroup> list_length: atomic<u32>;
// stopped (2: halted, nothing is to be done); sampling; top_k, 0 for off; round(top_p * 2^24), 2^24 for off.
var<workgroup> modes: vec4<u32>;
// Digits found so far, what is still to be counted; or the length of the list.
var<workgroup> found: vec3<u32>;
var<workgroup> picked: u32;

// What the steps work on: `items` ids, those of the list or all.
var<private> items: u32;
var<private> listed: bool;

// Where the logit of an id is.
fn in_row(i: u32) -> u32 {
#ifdef VERIFY
    return params.row * params.vocab + i;
#else
    return i;
#endif
}

fn item(i: u32) -> u32 {
    if (listed) {
        return list[min(i, LIST - 1u)];
    }
    return i;
}

fn key(l: f32) -> u32 {
    let bits = select(bitcast<u32>(l), 0u, l == 0.0);
    return select(bits | 0x80000000u, ~bits, (bits & 0x80000000u) != 0u);
}

// The logit that has a key.
fn logit_of(key: u32) -> f32 {
    return bitcast<f32>(select(~key, key & 0x7fffffffu, (key & 0x80000000u) != 0u));
}

fn mass(scaled: f32) -> u32 {
    return u32(round(exp(min(scaled, 0.0)) * ONE));
}

fn plus(sum: vec2<u32>, m: u32) -> vec2<u32> {
    return sum + vec2<u32>(m >> 12u, m & 4095u);
}

fn normal(sum: vec2<u32>) -> vec2<u32> {
    return vec2<u32>(sum.x + (sum.y >> 12u), sum.y & 4095u);
}

fn less(a: vec2<u32>, b: vec2<u32>) -> bool {
    return a.x < b.x || (a.x == b.x && a.y < b.y);
}

// (sum * part) >> 24 for part <= 2^24: digits of 12 bits.
fn fraction(sum: vec2<u32>, part: u32) -> vec2<u32> {
    let f0 = part & 4095u;
    let f1 = part >> 12u;
    let z0 = sum.y;
    let z1 = sum.x & 4095u;
    let z2 = sum.x >> 12u;
    let c1 = z0 * f1 + z1 * f0 + ((z0 * f0) >> 12u);
    let c2 = z1 * f1 + z2 * f0 + (c1 >> 12u);
    return vec2<u32>(z2 * f1 + (c2 >> 12u), c2 & 4095u);
}

fn pcg(seed: u32) -> u32 {
    let state = seed * 747796405u + 2891336453u;
    let word = ((state >> ((state >> 28u) + 4u)) ^ state) * 277803737u;
    return (word >> 22u) ^ word;
}

fn clear_bins(lid: u32) {
    atomicStore(&bins[lid], 0u);
    atomicStore(&bins[lid + WG], 0u);
    workgroupBarrier();
}

// The sum over the workgroup, normal; all threads call it together.
fn sum_masses(lid: u32, mine: vec2<u32>) -> vec2<u32> {
    masses[lid] = normal(mine);
    workgroupBarrier();
    for (var half = WG / 2u; half > 0u; half >>= 1u) {
        if (lid < half) {
            masses[lid] = normal(masses[lid] + masses[lid + half]);
        }
        workgroupBarrier();
    }
    let all = masses[0];
    workgroupBarrier();
    return all;
}

// The count-th largest key of the chunks' maxima or of the items: digit by digit from the top, counting the keys that
// have the digits found so far.
fn key_of_rank(lid: u32, count: u32, of_maxima: bool) -> u32 {
    let n = select(items, CHUNKS, of_maxima);
    var prefix = 0u;
    var left = count;
    for (var digit = 0u; digit < 4u; digit++) {
        let shift = 24u - 8u * digit;
        clear_bins(lid);
        for (var base = lid; base < n; base += 4u * WG) {
#for u in 0..4
            let i#{u} = min(base + #{u}u * WG, n - 1u);
            var l#{u} = 0.0;
            if (of_maxima) {
                l#{u} = maxima[min(i#{u}, CHUNKS - 1u)];
            } else {
                l#{u} = logits[in_row(item(i#{u}))];
            }
#endfor
#for u in 0..4
            {
                let k = key(l#{u});
                let same = digit == 0u || ((k ^ prefix) >> min(shift + 8u, 31u)) == 0u;
                if (base + #{u}u * WG < n && same) {
                    atomicAdd(&bins[(k >> shift) & 255u], 1u);
                }
            }
#endfor
        }
        workgroupBarrier();
        let mine = atomicLoad(&bins[lid]);
        var above = 0u;
        for (var i = lid + 1u; i < WG; i++) {
            above += atomicLoad(&bins[i]);
        }
        if (above < left && left <= above + mine) {
            found = vec3<u32>(prefix | (lid << shift), left - above, 0u);
        }
        let next = workgroupUniformLoad(&found);
        prefix = next.x;
        left = next.y;
    }
    return prefix;
}

// The largest key for which the masses of the items' keys >= it, among those >= cut, sum to `need` or more.
fn key_of_mass(lid: u32, best: f32, cut: u32, need: vec2<u32>) -> u32 {
    var prefix = 0u;
    var left = need;
    for (var digit = 0u; digit < 4u; digit++) {
        let shift = 24u - 8u * digit;
        clear_bins(lid);
        for (var base = lid; base < items; base += 4u * WG) {
#for u in 0..4
            let l#{u} = logits[in_row(item(min(base + #{u}u * WG, items - 1u)))];
#endfor
#for u in 0..4
            {
                let k = key(l#{u});
                let same = digit == 0u || ((k ^ prefix) >> min(shift + 8u, 31u)) == 0u;
                let m = mass(l#{u} - best);
                if (base + #{u}u * WG < items && k >= cut && same && m > 0u) {
                    let bin = 2u * ((k >> shift) & 255u);
                    atomicAdd(&bins[bin], m >> 12u);
                    atomicAdd(&bins[bin + 1u], m & 4095u);
                }
            }
#endfor
        }
        workgroupBarrier();
        let mine = normal(vec2<u32>(atomicLoad(&bins[2u * lid]), atomicLoad(&bins[2u * lid + 1u])));
        masses[lid] = mine;
        workgroupBarrier();
        var above = vec2<u32>(0u);
        for (var i = lid + 1u; i < WG; i++) {
            above += masses[i];
        }
        above = normal(above);
        if (less(above, left) && !less(normal(above + mine), left)) {
            // left - above, borrowing 4096.
            let borrow = select(0u, 1u, left.y < above.y);
            found = vec3<u32>(prefix | (lid << shift), left.x - above.x - borrow, left.y + 4096u * borrow - above.y);
        }
        let next = workgroupUniformLoad(&found);
        prefix = next.x;
        left = next.yz;
    }
    return prefix;
}

// Lists the ids whose logits reach `bound`, ascending, if there is room; sets `items` and `listed`.
fn make_list(lid: u32, span: u32, bound: f32) {
    if (lid == 0u) {
        atomicStore(&list_length, 0u);
    }
    workgroupBarrier();
    for (var chunk = lid; chunk < CHUNKS; chunk += WG) {
        if (maxima[chunk] >= bound) {
            let first = (chunk / WG) * span + lid;
            let end = min((chunk / WG + 1u) * span, params.vocab);
            for (var base = first; base < end; base += 4u * WG) {
#for u in 0..4
                let l#{u} = logits[in_row(min(base + #{u}u * WG, params.vocab - 1u))];
#endfor
#for u in 0..4
                if (base + #{u}u * WG < end && l#{u} >= bound) {
                    let at = atomicAdd(&list_length, 1u);
                    if (at < LIST) {
                        list[at] = base + #{u}u * WG;
                    }
                }
#endfor
            }
        }
    }
    workgroupBarrier();
    if (lid == 0u) {
        found = vec3<u32>(atomicLoad(&list_length), 0u, 0u);
    }
    let n = workgroupUniformLoad(&found).x;
    listed = n <= LIST;
    items = select(params.vocab, n, listed);
    if (n <= LIST) {
        // In the order of ids: each goes to the place that is the number of smaller ones.
#for u in 0..4
        let id#{u} = list[lid + #{u}u * WG];
        var place#{u} = 0u;
#endfor
        for (var i = 0u; i < n; i++) {
            let other = list[i];
#for u in 0..4
            place#{u} += select(0u, 1u, other < id#{u});
#endfor
        }
        workgroupBarrier();
#for u in 0..4
        if (lid + #{u}u * WG < n) {
            list[place#{u}] = id#{u};
        }
#endfor
        workgroupBarrier();
    }
}

#ifdef VERIFY
// Whether there is something to sample: 0, or 2 for nothing. Thread 0.
fn begin() -> u32 {
    if (step.halt != 0u) {
        return 2u;
    }
    if (params.row == 0u) {
        step.count = 0u;
        step.open = 1u;
        step.began = step.pos;
    }
    return select(2u, 0u, step.stopped == 0u && step.open != 0u);
}

// Writes the token, and whether the next row counts: thread 0.
fn finish(token: u32, bits: u32) {
    let row = min(params.row, 7u);
    step.taken[row] = token;
    step.logits[row] = bitcast<f32>(bits);
    step.count = row + 1u;
    step.sampled += 1u;
    step.recent[step.recent_head & 255u] = token;
    step.recent_head = (step.recent_head + 1u) & 255u;
    step.recent_len = min(step.recent_len + 1u, 256u);
    var end = 0u;
    for (var i = 0u; i < min(step.n_end, 16u); i++) {
        end |= select(0u, 1u, step.end[i] == token);
    }
    step.stopped = end;
    let draft = max(step.tokens, step.drafted) - step.drafted + row;
    step.open = select(0u, 1u, row < step.drafted && ids[draft] == token && end == 0u);
}
#else
// Whether there is something to sample: 0; 1 after the end, 2 while the plan is halted. Thread 0.
fn begin() -> u32 {
    return select(step.stopped, 2u, step.halt != 0u);
}

// Writes the token and what the next step needs: thread 0.
fn finish(token: u32, bits: u32) {
    let slot = (step.sampled & 63u) * 4u;
    let stopped = step.stopped != 0u;
    ring[slot] = token;
    ring[slot + 1u] = bits;
    ring[slot + 2u] = step.stopped;
    ring[slot + 3u] = step.sampled;
    step.pos += step.tokens;
    step.tokens = 1u;
    ids[0] = token;
    if (!stopped) {
        step.sampled += 1u;
        step.recent[step.recent_head & 255u] = token;
        step.recent_head = (step.recent_head + 1u) & 255u;
        step.recent_len = min(step.recent_len + 1u, 256u);
        var end = 0u;
        for (var i = 0u; i < min(step.n_end, 16u); i++) {
            end |= select(0u, 1u, step.end[i] == token);
        }
        step.stopped = end;
    }
}
#endif

@compute @workgroup_size(256)
fn main(@builtin(local_invocation_index) lid: u32) {
    if (lid == 0u) {
        let top_k = select(0u, step.top_k, step.top_k < params.vocab);
        let top_p = u32(round(clamp(step.top_p, 0.0, 1.0) * ONE));
        modes = vec4<u32>(begin(), select(0u, 1u, step.temperature > 0.0), top_k, top_p);
        picked = 0u;
    }
    let mode = workgroupUniformLoad(&modes);
    if (mode.x != 0u) {
        if (lid == 0u && mode.x == 1u) {
            finish(ids[0], 0u);
        }
        return;
    }
    // 1. Thread i has the i-th last token; the first thread of each token changes its logit.
    let n = min(min(step.recent_len, step.penalty_last_n), 256u);
    let mine = step.recent[(step.recent_head + 255u - lid) & 255u];
    indices[lid] = mine;
    workgroupBarrier();
    let penalised = step.repeat_penalty != 1.0 || step.frequency_penalty != 0.0 || step.presence_penalty != 0.0;
    var owner = penalised && lid < n && mine < params.vocab;
    var original = 0.0;
    if (owner) {
        var occurs = 0u;
        for (var i = 0u; i < n; i++) {
            let same = indices[i] == mine;
            occurs += select(0u, 1u, same);
            owner = owner && !(same && i < lid);
        }
        if (owner) {
            original = logits[in_row(mine)];
            var l = select(original / step.repeat_penalty, original * step.repeat_penalty, original <= 0.0);
            l -= f32(occurs) * step.frequency_penalty + step.presence_penalty;
            logits[in_row(mine)] = l;
        }
    }
    storageBarrier();
    workgroupBarrier();
    // 2.
    let span = ((params.vocab + CHUNKS - 1u) / CHUNKS) * WG;
#for u in 0..4
    var best#{u} = LOWEST;
    var first#{u} = 0xffffffffu;
#endfor
    for (var base = lid; base < span; base += 2u * WG) {
#for v in 0..2
#for u in 0..4
        let i#{v}_#{u} = #{u}u * span + base + #{v}u * WG;
        let l#{v}_#{u} = logits[in_row(min(i#{v}_#{u}, params.vocab - 1u))];
#endfor
#endfor
#for v in 0..2
#for u in 0..4
        if (
            base + #{v}u * WG < span && i#{v}_#{u} < params.vocab && (l#{v}_#{u} > best#{u} || first#{u} == 0xffffffffu)
        ) {
            best#{u} = l#{v}_#{u};
            first#{u} = i#{v}_#{u};
        }
#endfor
#endfor
    }
    var best = best0;
    var first = first0;
    maxima[lid] = best0;
#for u in 1..4
    maxima[#{u}u * WG + lid] = best#{u};
    if (first#{u} != 0xffffffffu && best#{u} > best) {
        best = best#{u};
        first = first#{u};
    }
#endfor
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
    best = values[0];
    first = indices[0];
    workgroupBarrier();
    if (mode.y == 0u) {
        if (lid == 0u) {
            picked = first;
        }
    } else {
        // No chunk's maximum below the bound, no logit below it, can matter.
        var bound = best - 17.4 * max(step.temperature, 1.0);
        if (mode.z > CHUNKS) {
            bound = LOWEST;
        } else if (mode.z > 0u) {
            bound = logit_of(key_of_rank(lid, mode.z, true));
        }
        make_list(lid, span, bound);
        // 3.
        var cut = 0u;
        if (mode.z > 0u) {
            cut = key_of_rank(lid, mode.z, false);
        }
        // 4.
        if (mode.w < 16777216u) {
            var kept = vec2<u32>(0u);
            for (var i = lid; i < items; i += WG) {
                let l = logits[in_row(item(i))];
                kept = plus(kept, select(0u, mass(l - best), key(l) >= cut));
            }
            var need = fraction(sum_masses(lid, kept), mode.w);
            if (need.x == 0u && need.y == 0u) {
                need.y = 1u;
            }
            cut = max(cut, key_of_mass(lid, best, cut, need));
        }
        // 5.
        var floor_ = LOWEST;
        if (step.min_p > 0.0) {
            floor_ = best + min(log(step.min_p), 0.0);
        }
        // 6, 7. Each thread has a run of neighbouring items.
        let share = (items + WG - 1u) / WG;
        let from_ = lid * share;
        let to = min(from_ + share, items);
        var run = vec2<u32>(0u);
        for (var i = from_; i < to; i++) {
            let l = logits[in_row(item(i))];
            if (key(l) >= cut && l >= floor_) {
                run = plus(run, mass((l - best) / step.temperature));
            }
        }
        run = normal(run);
        let all = sum_masses(lid, run);
        masses[lid] = run;
        workgroupBarrier();
        let u = pcg(step.sampled ^ pcg(step.seed_hi ^ pcg(step.seed_lo))) >> 8u;
        let target_ = fraction(all, u);
        var before = vec2<u32>(0u);
        for (var i = 0u; i < lid; i++) {
            before += masses[i];
        }
        before = normal(before);
        if (!less(target_, before) && less(target_, normal(before + run))) {
            for (var i = from_; i < to; i++) {
                let l = logits[in_row(item(i))];
                if (key(l) >= cut && l >= floor_) {
                    before = normal(plus(before, mass((l - best) / step.temperature)));
                    if (less(target_, before)) {
                        picked = item(i);
                        break;
                    }
                }
            }
        }
    }
    let token = workgroupUniformLoad(&picked);
    let bits = bitcast<u32>(logits[in_row(min(token, params.vocab - 1u))]);
    storageBarrier();
    workgroupBarrier();
    if (owner) {
        logits[in_row(mine)] = original;
    }
    if (lid == 0u) {
        finish(token, bits);
    }
}
