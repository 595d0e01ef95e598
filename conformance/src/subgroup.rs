//! Operations among the threads of a subgroup, at the sizes of workgroups that kernels have and at sizes that leave a subgroup
//! incomplete.

use std::collections::BTreeSet;

use pleiad_runtime::gpu::{GpuDevice, Tier};

use crate::{
    case::{Cases, Context, Outcome, Result, Stop},
    probe::{self, Program},
    report::Measure,
};

/// Threads of a workgroup: those of kernels, then sizes that are no multiple of a subgroup.
const SIZES: [u32; 7] = [32, 64, 128, 256, 20, 40, 100];
/// Workgroups of a run.
const GROUPS: u32 = 3;

/// What a probe does: name; WGSL of `v` (a thread's own number), `lane`; what thread `lane` of a subgroup with these values has.
struct Operation {
    name: &'static str,
    wgsl: &'static str,
    exact: fn(&[u32], usize) -> u32,
}

/// A thread's own number, as the programs have it.
fn value(index: u32) -> u32 {
    index.wrapping_mul(2_654_435_761u32.wrapping_mul(index | 1)) >> 20
}

const OPERATIONS: &[Operation] = &[
    Operation { name: "add", wgsl: "subgroupAdd(v)", exact: |s, _| s.iter().sum() },
    Operation {
        name: "add of f32",
        wgsl: "u32(subgroupAdd(f32(v)))",
        // Whole numbers below 2^24: exact in any order.
        exact: |s, _| s.iter().sum(),
    },
    Operation { name: "max", wgsl: "subgroupMax(v)", exact: |s, _| s.iter().copied().max().unwrap_or(0) },
    Operation { name: "min", wgsl: "subgroupMin(v)", exact: |s, _| s.iter().copied().min().unwrap_or(0) },
    Operation { name: "max of f32", wgsl: "u32(subgroupMax(f32(v)))", exact: |s, _| s.iter().copied().max().unwrap_or(0) },
    Operation { name: "exclusive add", wgsl: "subgroupExclusiveAdd(v)", exact: |s, i| s[..i].iter().sum() },
    Operation { name: "inclusive add", wgsl: "subgroupInclusiveAdd(v)", exact: |s, i| s[..=i].iter().sum() },
    Operation { name: "broadcast", wgsl: "subgroupBroadcast(v, 2u)", exact: |s, _| s.get(2).copied().unwrap_or(0) },
    Operation { name: "broadcast first", wgsl: "subgroupBroadcastFirst(v)", exact: |s, _| s[0] },
    Operation {
        name: "shuffle",
        // Only from threads that are there.
        wgsl: "subgroupShuffle(v, (lane * 3u + 1u) % here)",
        exact: |s, i| s[(i * 3 + 1) % s.len()],
    },
    Operation {
        name: "shuffle xor",
        wgsl: "select(v, subgroupShuffleXor(v, 1u), (lane ^ 1u) < here)",
        exact: |s, i| s.get(i ^ 1).copied().unwrap_or(s[i]),
    },
    Operation {
        name: "ballot",
        wgsl: "ballot(v, lane)",
        exact: |s, _| {
            s.iter().enumerate().filter(|(_, v)| *v & 1 == 1).map(|(i, _)| 1u32.rotate_left(i as u32)).fold(0, |a, b| a ^ b)
        },
    },
    Operation {
        name: "any",
        wgsl: "select(0u, 1u, subgroupAny(v > 4000u))",
        exact: |s, _| u32::from(s.iter().any(|&v| v > 4000)),
    },
    Operation { name: "all", wgsl: "select(0u, 1u, subgroupAll(v > 200u))", exact: |s, _| u32::from(s.iter().all(|&v| v > 200)) },
];

pub(crate) fn add(cases: &mut Cases<'_>) {
    for threads in SIZES {
        cases.add(format!("subgroup/ids/{threads} threads"), async move |cx: Context| ids(&cx, threads).await);
        cases.add(format!("subgroup/num_subgroups/{threads} threads"), async move |cx: Context| number(&cx, threads).await);
    }
    for operation in OPERATIONS {
        for threads in SIZES {
            let id = format!("subgroup/{}/{threads} threads", operation.name);
            cases.add(id, async move |cx: Context| check(&cx, operation, threads).await);
        }
    }
}

fn needs(gpu: &GpuDevice) -> std::result::Result<(), Stop> {
    if gpu.tier == Tier::Subgroup { Ok(()) } else { Err(Stop::Skip("the device was opened without subgroups".into())) }
}

/// What each thread saw: subgroup, number of them, size, lane, result.
#[derive(Clone, Copy)]
struct Seen {
    subgroup: u32,
    subgroups: u32,
    size: u32,
    lane: u32,
    result: u32,
}

/// Runs `expression`; the threads of [`GROUPS`] workgroups, in order.
async fn run(gpu: &GpuDevice, threads: u32, expression: &str) -> pleiad_runtime::Result<Vec<Seen>> {
    let source = format!(
        "@group(0) @binding(0) var<storage, read_write> out: array<u32>;
fn fold(bits: vec4<u32>) -> u32 {{
    return bits.x ^ bits.y ^ bits.z ^ bits.w;
}}
fn ballot(v: u32, lane: u32) -> u32 {{
    return fold(subgroupBallot((v & 1u) == 1u));
}}
@compute @workgroup_size({threads})
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(local_invocation_index) lid: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(num_subgroups) subgroups: u32,
    @builtin(subgroup_size) size: u32,
    @builtin(subgroup_invocation_id) lane: u32,
) {{
    let index = id.x * {threads}u + lid;
    let v = (index * (2654435761u * (index | 1u))) >> 20u;
    let here = subgroupAdd(1u);
    let result = {expression};
    out[5u * index] = subgroup;
    out[5u * index + 1u] = subgroups;
    out[5u * index + 2u] = size;
    out[5u * index + 3u] = lane;
    out[5u * index + 4u] = result;
}}
"
    );
    let program = Program::new(gpu, "subgroups", &source).await?;
    let words = (threads * GROUPS * 5) as usize;
    let out = probe::empty(gpu, words).await?;
    program.run(gpu, &[&out], [GROUPS, 1, 1]).await?;
    let words = gpu.read_buffer(&out, words).await?;
    let seen = |w: &[u32]| Seen { subgroup: w[0], subgroups: w[1], size: w[2], lane: w[3], result: w[4] };
    Ok(words.chunks_exact(5).map(seen).collect())
}

/// Sizes that kernels see, at all sizes of workgroups. Empty where there are none, or on an error.
pub(crate) async fn sizes_seen(gpu: &GpuDevice) -> Vec<u32> {
    let mut all = BTreeSet::new();
    if gpu.tier == Tier::Subgroup {
        for threads in SIZES {
            if let Ok(seen) = run(gpu, threads, "here").await {
                all.extend(seen.iter().map(|s| s.size));
            }
        }
    }
    all.into_iter().collect()
}

/// Threads of a workgroup by subgroup and lane; what is wrong with their numbers.
fn members(seen: &[Seen], first: usize) -> std::result::Result<Vec<Vec<usize>>, String> {
    let mut all: Vec<Vec<Option<usize>>> = Vec::new();
    for (i, s) in seen.iter().enumerate() {
        if s.subgroup as usize >= seen.len() || s.lane >= s.size || s.size > 128 {
            return Err(format!("thread {i}: subgroup {}, lane {} of {}", s.subgroup, s.lane, s.size));
        }
        all.resize(all.len().max(s.subgroup as usize + 1), Vec::new());
        let lanes = &mut all[s.subgroup as usize];
        lanes.resize(lanes.len().max(s.lane as usize + 1), None);
        if let Some(other) = lanes[s.lane as usize].replace(first + i) {
            return Err(format!("threads {} and {i} are both lane {} of subgroup {}", other - first, s.lane, s.subgroup));
        }
    }
    all.into_iter()
        .enumerate()
        .map(|(n, lanes)| {
            lanes.into_iter().collect::<Option<Vec<_>>>().ok_or_else(|| format!("lanes of subgroup {n} are missing"))
        })
        .collect()
}

/// `num_subgroups` is how many there are, an incomplete one included.
async fn number(cx: &Context, threads: u32) -> Result {
    needs(&cx.gpu)?;
    let seen = run(&cx.gpu, threads, "here").await?;
    let mut outcome = Outcome::new();
    for group in seen.chunks_exact(threads as usize) {
        let there = 1 + group.iter().map(|s| s.subgroup).max().unwrap_or(0);
        let told: BTreeSet<u32> = group.iter().map(|s| s.subgroups).collect();
        outcome = outcome.expect(told == BTreeSet::from([there]), || format!("num_subgroups is {told:?} where {there} are seen"));
    }
    Ok(outcome)
}

/// Every thread is one lane of one subgroup.
async fn ids(cx: &Context, threads: u32) -> Result {
    needs(&cx.gpu)?;
    let seen = run(&cx.gpu, threads, "here").await?;
    let (least, most) = cx.gpu.adapter.subgroups;
    let sizes: BTreeSet<u32> = seen.iter().map(|s| s.size).collect();
    let mut outcome = Outcome::new();
    let mut linear = true;
    for (g, group) in seen.chunks_exact(threads as usize).enumerate() {
        let first = g * threads as usize;
        let all = match members(group, first) {
            Ok(all) => all,
            Err(words) => return Ok(outcome.expect(false, || format!("workgroup {g}: {words}"))),
        };
        let counted = all.iter().all(|m| m.iter().all(|&t| seen[t].result as usize == m.len()));
        outcome = outcome.expect(counted, || format!("workgroup {g}: a subgroup counts fewer or more threads than it has"));
        linear &= all.iter().flatten().copied().eq(first..first + threads as usize);
    }
    // Browsers tell no bounds, or the widest.
    let within = least == 0 || sizes.iter().all(|s| (least..=most.max(least)).contains(s));
    outcome = outcome.expect(within, || format!("sizes {sizes:?} are outside {least}..={most}, which the adapter tells"));
    let order = if linear { "in order of the threads" } else { "not in order of the threads" };
    Ok(outcome.say(format!("sizes seen: {sizes:?}; lanes are {order}")))
}

async fn check(cx: &Context, operation: &Operation, threads: u32) -> Result {
    needs(&cx.gpu)?;
    let seen = run(&cx.gpu, threads, operation.wgsl).await?;
    let (mut wrong, mut first_wrong) = (0usize, String::new());
    for (g, group) in seen.chunks_exact(threads as usize).enumerate() {
        let first = g * threads as usize;
        let all = match members(group, first) {
            Ok(all) => all,
            Err(words) => return Ok(Outcome::new().expect(false, || format!("workgroup {g}: {words}"))),
        };
        for lanes in all {
            let values: Vec<u32> = lanes.iter().map(|&t| value(t as u32)).collect();
            for (lane, &t) in lanes.iter().enumerate() {
                let exact = (operation.exact)(&values, lane);
                // A broadcast from a lane that is not there is undefined.
                if operation.name == "broadcast" && values.len() < 3 {
                    continue;
                }
                if seen[t].result != exact {
                    wrong += 1;
                    if first_wrong.is_empty() {
                        first_wrong = format!("thread {t}, lane {lane} of {}: {}, not {exact}", values.len(), seen[t].result);
                    }
                }
            }
        }
    }
    Ok(Outcome::new().with("wrong", Measure::new(wrong as f64, "").most(0.0).at(first_wrong)))
}
