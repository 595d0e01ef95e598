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
#import shared/step.wgsl ACCESS=read_write

struct Sample {
    vocab: u32,
    pad0: u32,
    pad1: u32,
    pad2: u32,
}

@group(0) @binding(0) var<uniform> params: Sample;
@group(0) @binding(2) var<storage, read_write> ids: array<u32>;
// 64 slots of the last sampled tokens: token, bits of its logit, whether the step came after an end, sampled index.
@group(0) @binding(3) var<storage, read_write> ring: array<u32>;
@group(0) @binding(4) var<storage, read_write> logits: array<f32>;

const WG: u32 = 256u;
const LOWEST: f32 = -3e38;
const ONE: f32 = 16777216.0;
// Bins of a count of keys: digits of 11, 11 and 10 bits.
const BINS: u32 = 2048u;

var<workgroup> bins: array<atomic<u32>, BINS>;
var<workgroup> masses: array<vec2<u32>, WG>;
var<workgroup> values: array<f32, WG>;
var<workgroup> indices: array<u32, WG>;
// stopped; sampling; top_k, 0 for off; round(top_p * 2^24), 2^24 for off.
var<workgroup> modes: vec4<u32>;
// Digits found so far, what is still to be counted.
var<workgroup> found: vec3<u32>;
var<workgroup> picked: u32;

fn key(l: f32) -> u32 {
    let bits = select(bitcast<u32>(l), 0u, l == 0.0);
    return select(bits | 0x80000000u, ~bits, (bits & 0x80000000u) != 0u);
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
    for (var i = lid; i < BINS; i += WG) {
        atomicStore(&bins[i], 0u);
    }
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

// The count-th largest key: digit by digit from the top, counting the keys that have the digits found so far.
fn key_of_rank(lid: u32, count: u32) -> u32 {
    var prefix = 0u;
    var left = count;
    for (var round_ = 0u; round_ < 3u; round_++) {
        let shift = select(21u - 11u * round_, 0u, round_ == 2u);
        let mask = select(2047u, 1023u, round_ == 2u);
        clear_bins(lid);
        for (var base = lid; base < params.vocab; base += 4u * WG) {
#for u in 0..4
            {
                let i = base + #{u}u * WG;
                let k = key(logits[min(i, params.vocab - 1u)]);
                let same = select((k ^ prefix) >> select(21u, 10u, round_ == 2u), 0u, round_ == 0u) == 0u;
                if (i < params.vocab && same) {
                    atomicAdd(&bins[(k >> shift) & mask], 1u);
                }
            }
#endfor
        }
        workgroupBarrier();
        // Each thread has eight bins.
        var mine = 0u;
        for (var i = 0u; i < 8u; i++) {
            mine += atomicLoad(&bins[lid * 8u + i]);
        }
        indices[lid] = mine;
        workgroupBarrier();
        var above = 0u;
        for (var i = lid + 1u; i < WG; i++) {
            above += indices[i];
        }
        if (above < left && left <= above + mine) {
            var bin = lid * 8u + 7u;
            var here = atomicLoad(&bins[bin]);
            while (above + here < left) {
                above += here;
                bin--;
                here = atomicLoad(&bins[bin]);
            }
            found = vec3<u32>(prefix | (bin << shift), left - above, 0u);
        }
        let next = workgroupUniformLoad(&found);
        prefix = next.x;
        left = next.y;
    }
    return prefix;
}

// The largest key for which the masses of keys >= it, among those >= cut, sum to `need` or more.
fn key_of_mass(lid: u32, best: f32, cut: u32, need: vec2<u32>) -> u32 {
    var prefix = 0u;
    var left = need;
    for (var round_ = 0u; round_ < 4u; round_++) {
        let shift = 24u - 8u * round_;
        clear_bins(lid);
        for (var base = lid; base < params.vocab; base += 4u * WG) {
#for u in 0..4
            {
                let i = base + #{u}u * WG;
                let l = logits[min(i, params.vocab - 1u)];
                let k = key(l);
                let same = round_ == 0u || ((k ^ prefix) >> min(shift + 8u, 31u)) == 0u;
                let m = mass(l - best);
                if (i < params.vocab && k >= cut && same && m > 0u) {
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

@compute @workgroup_size(256)
fn main(@builtin(local_invocation_index) lid: u32) {
    if (lid == 0u) {
        let top_k = select(0u, step.top_k, step.top_k < params.vocab);
        let top_p = u32(round(clamp(step.top_p, 0.0, 1.0) * ONE));
        modes = vec4<u32>(step.stopped, select(0u, 1u, step.temperature > 0.0), top_k, top_p);
        picked = 0u;
    }
    let mode = workgroupUniformLoad(&modes);
    if (mode.x != 0u) {
        if (lid == 0u) {
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
            original = logits[mine];
            var l = select(original / step.repeat_penalty, original * step.repeat_penalty, original <= 0.0);
            l -= f32(occurs) * step.frequency_penalty + step.presence_penalty;
            logits[mine] = l;
        }
    }
    storageBarrier();
    workgroupBarrier();
    // 2.
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
    best = values[0];
    first = indices[0];
    workgroupBarrier();
    if (mode.y == 0u) {
        if (lid == 0u) {
            picked = first;
        }
    } else {
        // 3.
        var cut = 0u;
        if (mode.z > 0u) {
            cut = key_of_rank(lid, mode.z);
        }
        // 4.
        if (mode.w < 16777216u) {
            var kept = vec2<u32>(0u);
            for (var i = lid; i < params.vocab; i += WG) {
                let l = logits[i];
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
        // 6, 7. Each thread has a run of neighbouring ids.
        let share = (params.vocab + WG - 1u) / WG;
        let from_ = lid * share;
        let to = min(from_ + share, params.vocab);
        var run = vec2<u32>(0u);
        for (var i = from_; i < to; i++) {
            let l = logits[i];
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
                let l = logits[i];
                if (key(l) >= cut && l >= floor_) {
                    before = normal(plus(before, mass((l - best) / step.temperature)));
                    if (less(target_, before)) {
                        picked = i;
                        break;
                    }
                }
            }
        }
    }
    let token = workgroupUniformLoad(&picked);
    let bits = bitcast<u32>(logits[min(token, params.vocab - 1u)]);
    storageBarrier();
    workgroupBarrier();
    if (owner) {
        logits[mine] = original;
    }
    if (lid == 0u) {
        finish(token, bits);
    }
}
