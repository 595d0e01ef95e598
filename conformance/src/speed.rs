//! What the device reaches, by the clock: bandwidth, products, and what each dispatch, pass, submission and readback costs.
//!
//! Judges nothing. A software adapter, or a machine that does something else, has other figures every time.

use std::sync::Arc;

use pleiad_models::Format;
use pleiad_runtime::{
    executor::Readback,
    plan::{Kind, Op},
};
use pleiad_shaders::{Defines, Dialect, shape, source};
use web_time::Instant;

use crate::{
    case::{Cases, Context, Outcome, Result, Stop},
    probe::{self, Program},
    report::Measure,
    setup::{Rng, Setup, repeated, tensor},
};

pub(crate) fn add(cases: &mut Cases<'_>) {
    let quick = cases.settings.quick;
    cases.add("speed/copy by a kernel", async |cx: Context| copy(&cx, true).await);
    cases.add("speed/copy of buffers", async |cx: Context| copy(&cx, false).await);
    for format in Format::ALL {
        let kind = if format.is_quantised() { Kind::Q8 } else { Kind::F32 };
        if quick && !matches!(format, Format::Q4K | Format::F16) {
            continue;
        }
        cases.add(format!("speed/matrix-vector/{format}"), async move |cx: Context| matvec(&cx, format, kind).await);
        cases.add(format!("speed/matrix-matrix/{format}"), async move |cx: Context| matmat(&cx, format, kind).await);
    }
    cases.add("speed/dispatch", async |cx: Context| dispatches(&cx).await);
    cases.add("speed/map latency", async |cx: Context| latency(&cx).await);
    cases.add("speed/compile", async |cx: Context| compile(&cx).await);
}

fn seconds_since(started: Instant) -> f64 {
    // A browser's clock may stand still.
    started.elapsed().as_secs_f64().max(1e-9)
}

/// The best of some tries: what disturbs a run only makes it slower.
fn least(times: &[f64]) -> f64 {
    times.iter().copied().fold(f64::INFINITY, f64::min)
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Bytes read and written a second.
async fn copy(cx: &Context, kernel: bool) -> Result {
    let gpu = &cx.gpu;
    let source = "@group(0) @binding(0) var<storage, read> from_: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read_write> to: array<vec4<u32>>;
@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let i = id.x + id.y * 8388608u;
    if (i < arrayLength(&to)) {
        to[i] = from_[i];
    }
}
";
    let program = Program::new(gpu, "copy", source).await?;
    let most = (gpu.max_binding() >> 20).min(if cx.quick { 16 } else { 256 });
    let mut curve = Vec::new();
    let mut mebibytes = 1;
    while mebibytes <= most {
        let bytes = mebibytes << 20;
        let (from, to) = (probe::empty(gpu, (bytes / 4) as usize).await?, probe::empty(gpu, (bytes / 4) as usize).await?);
        let bound = program.bind(gpu, &[(&from, 0, bytes), (&to, 0, bytes)]).await?;
        let groups = (bytes / 16).div_ceil(256) as u32;
        let turns = if cx.quick { 4 } else { 20 };
        let mut times = Vec::new();
        for _ in 0..3 {
            gpu.idle().await?;
            let started = Instant::now();
            let (device, queue) = gpu.wgpu();
            let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            if kernel {
                let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
                (0..turns).for_each(|_| program.record(&mut pass, &bound, [groups.min(32_768), groups.div_ceil(32_768), 1]));
            } else {
                (0..turns).for_each(|_| encoder.copy_buffer_to_buffer(&from, 0, &to, 0, bytes));
            }
            queue.submit([encoder.finish()]);
            gpu.idle().await?;
            times.push(seconds_since(started) / turns as f64);
        }
        curve.push((bytes as f64, 2.0 * bytes as f64 / least(&times) / 1e9));
        from.destroy();
        to.destroy();
        mebibytes *= 4;
    }
    let best = curve.iter().map(|p| p.1).fold(0.0, f64::max);
    Ok(Outcome::info().with("bandwidth", Measure::new(best, "GB/s").curve(curve)).say("bytes read and written"))
}

/// A product of random weights whose rows repeat.
fn product(format: Format, kind: Kind, rows: usize, cols: usize, tokens: usize, times: usize) -> Setup {
    let mut rng = Rng::new(1);
    let mut s = Setup::new("speed", tokens, tokens);
    let w = repeated(&tensor(&mut rng, format, 1, 61, cols), rows);
    let w = s.mat(w);
    let x = rng.vector(tokens * cols);
    let x = s.input(kind, cols, x);
    let out = s.output(Kind::F32, rows);
    (0..times).for_each(|_| s.op(Op::MatMul { w, x, out, add: false }));
    s
}

/// Seconds that one product of a plan takes.
async fn timed(cx: &Context, s: &Setup) -> Result<f64> {
    let (mut e, plan) = s.prepare(&cx.gpu).await?;
    let mut times = Vec::new();
    for _ in 0..if cx.quick { 2 } else { 5 } {
        let started = Instant::now();
        let ticket = e.submit(plan, s.tokens, Readback { token: false, counters: true })?;
        e.wait(ticket).await?;
        // Where there is nothing to read back, a browser waits for nothing.
        cx.gpu.idle().await?;
        times.push(seconds_since(started) / s.plan.ops.len() as f64);
    }
    Ok(least(&times))
}

async fn matvec(cx: &Context, format: Format, kind: Kind) -> Result {
    let cols = 4096;
    let (len, bytes) = format.block();
    let row = cols / len * bytes;
    // More than a cache holds, where there is time for it.
    let most = (cx.gpu.max_binding() as usize).min(if cx.quick { 4 << 20 } else { 96 << 20 });
    let rows = most / row;
    let s = product(format, kind, rows, cols, 1, if cx.quick { 4 } else { 16 });
    let time = timed(cx, &s).await?;
    let speed = (rows * row) as f64 / time / 1e9;
    Ok(Outcome::info()
        .with("bandwidth", Measure::new(speed, "GB/s"))
        .say(format!("{rows} by {cols}, {} MiB of weights", (rows * row) >> 20)))
}

async fn matmat(cx: &Context, format: Format, kind: Kind) -> Result {
    let (rows, cols, tokens) = if cx.quick { (256, 512, 64) } else { (4096, 4096, 512) };
    // On the CPU the full size takes minutes.
    let (rows, cols, tokens) = if cx.gpu.adapter.software && !cx.quick { (1024, 1024, 128) } else { (rows, cols, tokens) };
    let s = product(format, kind, rows, cols, tokens, if cx.quick { 1 } else { 4 });
    let time = timed(cx, &s).await?;
    let speed = 2.0 * (rows * cols * tokens) as f64 / time / 1e12;
    Ok(Outcome::info().with("products", Measure::new(speed, "TFLOP/s")).say(format!("{rows} by {cols}, {tokens} tokens")))
}

/// What a dispatch costs in a pass, in a pass of its own, in a submission of its own.
async fn dispatches(cx: &Context) -> Result {
    let gpu = &cx.gpu;
    let source = "@group(0) @binding(0) var<storage, read_write> cells: array<u32>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    cells[id.x] = cells[id.x] + 1u;
}
";
    let program = Program::new(gpu, "dispatches", source).await?;
    let cells = probe::empty(gpu, 64).await?;
    let bound = program.bind(gpu, &[(&cells, 0, 256)]).await?;
    let n = if cx.quick { 200 } else { 1000 };
    let (device, queue) = gpu.wgpu();
    let mut outcome = Outcome::info();
    let mut ran = 0;
    for (name, dispatches, passes, submissions) in
        [("in a pass", n, 1, 1), ("in a pass of its own", 1, n, 1), ("in a submission of its own", 1, 1, n)]
    {
        let mut times = Vec::new();
        for _ in 0..3 {
            gpu.idle().await?;
            let started = Instant::now();
            for _ in 0..submissions {
                let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
                for _ in 0..passes {
                    let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
                    (0..dispatches).for_each(|_| program.record(&mut pass, &bound, [1, 1, 1]));
                }
                queue.submit([encoder.finish()]);
            }
            gpu.idle().await?;
            times.push(seconds_since(started) / f64::from(n) * 1e6);
            ran += n;
        }
        outcome = outcome.with(name, Measure::new(least(&times), "us"));
    }
    let found = gpu.read_buffer(&cells, 64).await?;
    Ok(outcome.expect(found.iter().all(|&c| c == ran as u32), || format!("{ran} dispatches ran {} times", found[0])))
}

/// From a submission to its result in memory.
async fn latency(cx: &Context) -> Result {
    let cell = probe::filled(&cx.gpu, &[7; 4]).await?;
    let mut times = Vec::new();
    for _ in 0..if cx.quick { 10 } else { 50 } {
        let started = Instant::now();
        let found = cx.gpu.read_buffer(&cell, 4).await?;
        times.push(seconds_since(started) * 1e6);
        if found != [7; 4] {
            return Err(Stop::Fail(format!("read back {found:?}")));
        }
    }
    let best = least(&times);
    Ok(Outcome::info().with("median", Measure::new(median(times), "us")).with("least", Measure::new(best, "us")))
}

/// Pipelines of some kernels, made anew.
async fn compile(cx: &Context) -> Result {
    let q4 = |s: shape::MatvecShape| {
        let d = Defines::new().set("FORMAT", "q4_k").flag("ACT_Q8").set("TPR", s.tpr).set("GROUPS", s.groups).set("RPT", s.rpt);
        d.flag_if("SUBGROUP", s.subgroup).set("TOKENS", 1)
    };
    let attend = shape::attend(512, 64, 16, false);
    let kernels = [
        ("norm", Defines::new().flag("OUT_F32")),
        ("matvec", q4(shape::matvec(2048, 2048, 1, true, false))),
        ("matmat", Defines::new().set("FORMAT", "q4_k").flag("ACT_Q8").set("TN", 64)),
        (
            "attend",
            Defines::new()
                .set("WG", attend.wg)
                .set("SLICES", attend.slices)
                .set("QW", attend.qw)
                .set("PPT", attend.ppt)
                .set("HEADS_PER_GROUP", attend.heads_per_group),
        ),
        ("router", Defines::new().flag("BIAS")),
        ("sample", Defines::new()),
    ];
    let mut outcome = Outcome::info();
    let mut sum = 0.0;
    for (kernel, defines) in kernels {
        let dialect = if cfg!(target_arch = "wasm32") { Dialect::Browser } else { Dialect::Naga };
        let text = source(kernel, &defines, dialect).map_err(|e| Stop::Fail(e.to_string()))?;
        // Another constant: no cache of a driver has it.
        let started_ms = Instant::now();
        let salt = Arc::as_ptr(&cx.gpu) as usize as u64 ^ (sum * 1e9) as u64;
        let text = text + &format!("\nconst SALT: u32 = {}u;\n", salt as u32);
        Program::new(&cx.gpu, kernel, &text).await?;
        let time = seconds_since(started_ms) * 1e3;
        sum += time;
        outcome = outcome.with(kernel, Measure::new(time, "ms"));
    }
    Ok(outcome.with("all", Measure::new(sum, "ms")))
}
