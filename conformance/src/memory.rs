//! What workgroup memory holds at first, what barriers and atomics promise, and what lies behind the end of a buffer.

use crate::{
    case::{Cases, Context, Outcome, Result},
    probe::{self, Program},
    report::Measure,
};

pub(crate) fn add(cases: &mut Cases<'_>) {
    cases.add("memory/workgroup memory is zero at first", async |cx: Context| zero(&cx).await);
    cases.add("memory/workgroup barrier", async |cx: Context| barrier(&cx).await);
    cases.add("memory/uniform load", async |cx: Context| uniform_load(&cx).await);
    cases.add("memory/reads out of bounds", async |cx: Context| reads(&cx).await);
    cases.add("memory/writes out of bounds", async |cx: Context| writes(&cx).await);
    cases.add("memory/atomics of a workgroup", async |cx: Context| atomics(&cx, "workgroup").await);
    cases.add("memory/atomics of storage", async |cx: Context| atomics(&cx, "storage").await);
    cases.add("memory/passes see what passes before have written", async |cx: Context| passes(&cx).await);
}

fn wrong(found: &[u32], right: impl Fn(usize, u32) -> bool) -> Measure {
    let bad = |&(i, &got): &(usize, &u32)| !right(i, got);
    let count = found.iter().enumerate().filter(bad).count();
    let first = found.iter().enumerate().find(bad).map(|(i, got)| format!("element {i}: 0x{got:08x}"));
    Measure::new(count as f64, "").most(0.0).at(first.unwrap_or_default())
}

/// Sixteen KiB, after a program that leaves them full of ones.
async fn zero(cx: &Context) -> Result {
    let text = |fill: &str| {
        format!(
            "@group(0) @binding(0) var<storage, read_write> out: array<u32>;
var<workgroup> cells: array<u32, 4096>;
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) lid: u32) {{
    var seen = 0u;
    for (var i = lid; i < 4096u; i += 64u) {{
        {fill}
        seen |= cells[i];
    }}
    out[id.x * 64u + lid] = seen;
}}
"
        )
    };
    let dirty = Program::new(&cx.gpu, "filling workgroup memory", &text("cells[i] = 0xffffffffu - i;")).await?;
    let clean = Program::new(&cx.gpu, "reading workgroup memory", &text("")).await?;
    let out = probe::empty(&cx.gpu, 64 * 64).await?;
    let mut outcome = Outcome::new();
    for round in 0..4 {
        dirty.run(&cx.gpu, &[&out], [64, 1, 1]).await?;
        clean.run(&cx.gpu, &[&out], [64, 1, 1]).await?;
        let found = cx.gpu.read_buffer(&out, 64 * 64).await?;
        outcome = outcome.with(if round == 0 { "wrong" } else { "wrong again" }, wrong(&found, |_, v| v == 0));
    }
    Ok(outcome)
}

/// Threads read what others have written before a barrier, again and again.
async fn barrier(cx: &Context) -> Result {
    let mut outcome = Outcome::new();
    for threads in [32u32, 64, 128, 256] {
        let source = format!(
            "@group(0) @binding(0) var<storage, read_write> out: array<u32>;
var<workgroup> cells: array<u32, {threads}>;
@compute @workgroup_size({threads})
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) lid: u32) {{
    var v = id.x * {threads}u + lid;
    for (var turn = 0u; turn < 50u; turn++) {{
        cells[lid] = v;
        workgroupBarrier();
        v = cells[(lid * 5u + 7u) % {threads}u] * 3u + turn;
        workgroupBarrier();
    }}
    out[id.x * {threads}u + lid] = v;
}}
"
        );
        let program = Program::new(&cx.gpu, "barriers", &source).await?;
        let groups = 16;
        let n = threads as usize;
        let out = probe::empty(&cx.gpu, n * groups).await?;
        program.run(&cx.gpu, &[&out], [groups as u32, 1, 1]).await?;
        let found = cx.gpu.read_buffer(&out, n * groups).await?;
        let mut expected = Vec::new();
        for g in 0..groups {
            let mut v: Vec<u32> = (0..n).map(|i| (g * n + i) as u32).collect();
            for turn in 0..50u32 {
                v = (0..n).map(|i| v[(i * 5 + 7) % n].wrapping_mul(3).wrapping_add(turn)).collect();
            }
            expected.extend(v);
        }
        outcome = outcome.with(&format!("wrong of {threads} threads"), wrong(&found, |i, v| v == expected[i]));
    }
    Ok(outcome)
}

async fn uniform_load(cx: &Context) -> Result {
    let source = "@group(0) @binding(0) var<storage, read_write> out: array<u32>;
var<workgroup> cell: vec3<u32>;
@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    var sum = 0u;
    for (var turn = 0u; turn < 32u; turn++) {
        if (lid == (turn * 37u) % 256u) {
            cell = vec3<u32>(id.x, turn, lid);
        }
        let v = workgroupUniformLoad(&cell);
        sum += v.x * 65536u + v.y * v.z;
    }
    out[id.x * 256u + lid] = sum;
}
";
    let program = Program::new(&cx.gpu, "uniform loads", source).await?;
    let out = probe::empty(&cx.gpu, 8 * 256).await?;
    program.run(&cx.gpu, &[&out], [8, 1, 1]).await?;
    let found = cx.gpu.read_buffer(&out, 8 * 256).await?;
    let products: u32 = (0..32).map(|t| t * (t * 37 % 256)).sum();
    Ok(Outcome::new().with("wrong", wrong(&found, |i, v| v == (i as u32 / 256) * 65_536 * 32 + products)))
}

/// A part of a buffer is bound: what is read behind it must be of the part, or 0, and never what lies around it.
async fn reads(cx: &Context) -> Result {
    let source = "@group(0) @binding(0) var<storage, read> bound: array<u32>;
@group(0) @binding(1) var<storage, read> indices: array<u32>;
@group(0) @binding(2) var<storage, read_write> out: array<u32>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    out[id.x] = bound[indices[id.x]];
}
";
    let (secret, inside) = (0x5ec2_e700u32, 0x600d_0000u32);
    let all: Vec<u32> = (0..1024).map(|i| if (256..320).contains(&i) { inside + i } else { secret + i }).collect();
    let behind =
        [64u32, 65, 100, 127, 128, 767, 768, 1 << 16, 1 << 24, 1 << 30, (1 << 30) - 1, 1 << 31, u32::MAX, u32::MAX - 255];
    let indices: Vec<u32> = (0..64).map(|i| if i < 16 { i * 4 } else { behind[i as usize % behind.len()] }).collect();
    let gpu = &cx.gpu;
    let program = Program::new(gpu, "reads out of bounds", source).await?;
    let (buffer, list, out) =
        (probe::filled(gpu, &all).await?, probe::filled(gpu, &indices).await?, probe::empty(gpu, 64).await?);
    let bound = program.bind(gpu, &[(&buffer, 1024, 256), (&list, 0, 256), (&out, 0, 256)]).await?;
    dispatch(cx, &program, &bound, 1).await?;
    let found = gpu.read_buffer(&out, 64).await?;
    let zeros = found[16..].iter().filter(|&&v| v == 0).count();
    let right = |i: usize, v: u32| if i < 16 { v == inside + 256 + indices[i] } else { v == 0 || (v & 0xffff_0000) == inside };
    Ok(Outcome::new().with("wrong", wrong(&found, right)).say(match zeros {
        48 => "reads behind the end are 0".to_owned(),
        0 => "reads behind the end are of an element inside".to_owned(),
        n => format!("of 48 reads behind the end {n} are 0, the others of an element inside"),
    }))
}

async fn writes(cx: &Context) -> Result {
    let source = "@group(0) @binding(0) var<storage, read_write> bound: array<u32>;
@group(0) @binding(1) var<storage, read> indices: array<u32>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    bound[indices[id.x]] = 0xbadu;
}
";
    let all: Vec<u32> = (0..1024).map(|i| 0x5ec2_e700 + i).collect();
    let behind = [64u32, 65, 100, 127, 128, 767, 768, 1 << 16, 1 << 24, 1 << 30, 1 << 31, u32::MAX, u32::MAX - 255];
    let indices: Vec<u32> = (0..64).map(|i| behind[i % behind.len()]).collect();
    let gpu = &cx.gpu;
    let program = Program::new(gpu, "writes out of bounds", source).await?;
    let (buffer, list) = (probe::filled(gpu, &all).await?, probe::filled(gpu, &indices).await?);
    let bound = program.bind(gpu, &[(&buffer, 1024, 256), (&list, 0, 256)]).await?;
    dispatch(cx, &program, &bound, 1).await?;
    let found = gpu.read_buffer(&buffer, 1024).await?;
    let inside = found[256..320].iter().zip(&all[256..320]).filter(|(a, b)| a != b).count();
    let right = |i: usize, v: u32| (256..320).contains(&i) || v == all[i];
    Ok(Outcome::new().with("wrong", wrong(&found, right)).say(if inside == 0 {
        "writes behind the end are dropped"
    } else {
        "writes behind the end go to an element inside"
    }))
}

async fn dispatch(cx: &Context, program: &Program, bound: &wgpu::BindGroup, groups: u32) -> Result<()> {
    let (device, queue) = cx.gpu.wgpu();
    let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    {
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        program.record(&mut pass, bound, [groups, 1, 1]);
    }
    cx.gpu.scoped("a probe", 0, || queue.submit([encoder.finish()])).await?;
    Ok(())
}

/// Counters that all threads raise: add, max, min, or, exchange in a loop of compare-and-exchange.
async fn atomics(cx: &Context, space: &str) -> Result {
    let (declared, sync) = match space {
        "workgroup" => ("var<workgroup> cells: array<atomic<u32>, 8>;", "workgroupBarrier();"),
        _ => ("@group(0) @binding(1) var<storage, read_write> cells: array<atomic<u32>>;", "storageBarrier();"),
    };
    let source = format!(
        "@group(0) @binding(0) var<storage, read_write> out: array<u32>;
{declared}
@compute @workgroup_size(256)
fn main(@builtin(local_invocation_index) lid: u32) {{
    if (lid == 0u) {{
        for (var i = 0u; i < 8u; i++) {{
            atomicStore(&cells[i], select(0u, 0xffffffffu, i == 2u || i == 4u));
        }}
    }}
    {sync}
    workgroupBarrier();
    let ticket = atomicAdd(&cells[0], 1u);
    atomicMax(&cells[1], lid * 3u);
    atomicMin(&cells[2], 5000u - lid);
    atomicOr(&cells[3], 1u << (lid & 31u));
    atomicAnd(&cells[4], ~(1u << (lid & 15u)));
    atomicXor(&cells[5], lid + 1u);
    atomicSub(&cells[6], lid);
    // Adding by compare-and-exchange; a thread that is never let through gives up, and the sum is wrong.
    for (var tries = 0u; tries < 100000u; tries++) {{
        let old = atomicLoad(&cells[7]);
        if (atomicCompareExchangeWeak(&cells[7], old, old + lid).exchanged) {{
            break;
        }}
    }}
    {sync}
    workgroupBarrier();
    if (lid < 8u) {{
        out[lid] = atomicLoad(&cells[lid]);
    }}
    out[8u + ticket] = 1u;
}}
"
    );
    let gpu = &cx.gpu;
    let program = Program::new(gpu, "atomics", &source).await?;
    let (out, cells) = (probe::empty(gpu, 8 + 256).await?, probe::empty(gpu, 8).await?);
    let buffers: &[&wgpu::Buffer] = if space == "workgroup" { &[&out] } else { &[&out, &cells] };
    program.run(gpu, buffers, [1, 1, 1]).await?;
    let found = gpu.read_buffer(&out, 8 + 256).await?;
    let sum: u32 = (0..256).sum();
    let xor = (1..=256).fold(0, |a, b| a ^ b);
    let expected = [256, 255 * 3, 5000 - 255, u32::MAX, 0xffff_0000, xor, 0u32.wrapping_sub(sum), sum];
    // Every thread has had a ticket of its own.
    Ok(Outcome::new().with("wrong", wrong(&found, |i, v| v == expected.get(i).copied().unwrap_or(1))))
}

/// Dispatches in one pass, and in passes of their own, see what those before them have written.
async fn passes(cx: &Context) -> Result {
    let source = "@group(0) @binding(0) var<storage, read> before: array<u32>;
@group(0) @binding(1) var<storage, read_write> after: array<u32>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let n = arrayLength(&after);
    after[id.x] = before[(id.x * 7u + 13u) % n] * 3u + 1u;
}
";
    let gpu = &cx.gpu;
    let n = 4096;
    let program = Program::new(gpu, "passes", source).await?;
    let start: Vec<u32> = (0..n as u32).collect();
    let (a, b) = (probe::filled(gpu, &start).await?, probe::empty(gpu, n).await?);
    let size = n as u64 * 4;
    let forth = program.bind(gpu, &[(&a, 0, size), (&b, 0, size)]).await?;
    let back = program.bind(gpu, &[(&b, 0, size), (&a, 0, size)]).await?;
    let (device, queue) = gpu.wgpu();
    let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    for dispatches in [1, 10, 1, 20] {
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        for _ in 0..dispatches {
            program.record(&mut pass, &forth, [n as u32 / 64, 1, 1]);
            program.record(&mut pass, &back, [n as u32 / 64, 1, 1]);
        }
    }
    gpu.scoped("passes", 0, || queue.submit([encoder.finish()])).await?;
    let found = gpu.read_buffer(&a, n).await?;
    let mut expected = start;
    for _ in 0..64 {
        expected = (0..n).map(|i| expected[(i * 7 + 13) % n].wrapping_mul(3).wrapping_add(1)).collect();
    }
    Ok(Outcome::new().with("wrong", wrong(&found, |i, v| v == expected[i])))
}
