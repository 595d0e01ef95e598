//! From f32 to f16 and back. WGSL fixes no rounding: either neighbour is right, and what is rounded how is told, since results
//! of two adapters can be compared only where they round alike.

use half::f16;
use pleiad_runtime::gpu::GpuDevice;

use crate::{
    case::{Cases, Context, Outcome, Result, Stop},
    probe::{self, Program},
    report::Measure,
};

pub(super) fn add(cases: &mut Cases<'_>) {
    cases.add("scalar/f32 to f16/pack2x16float", async |cx: Context| {
        judge(&cx, "pack2x16float(vec2<f32>(bitcast<f32>(x), 0.0)) & 0xffffu").await
    });
    cases.add("scalar/f32 to f16/quantizeToF16", async |cx: Context| {
        judge(&cx, "pack2x16float(vec2<f32>(quantizeToF16(bitcast<f32>(x)), 0.0)) & 0xffffu").await
    });
    cases.add("scalar/f32 to f16/conversion", async |cx: Context| {
        needs_f16(&cx.gpu)?;
        judge(&cx, "pack2x16float(vec2<f32>(f32(f16(bitcast<f32>(x))), 0.0)) & 0xffffu").await
    });
    cases.add("scalar/f32 to f16/storage", async |cx: Context| storage(&cx).await);
    cases.add("scalar/f16 to f32/unpack2x16float", async |cx: Context| unpack(&cx).await);
}

fn needs_f16(gpu: &GpuDevice) -> std::result::Result<(), Stop> {
    if gpu.f16 { Ok(()) } else { Err(Stop::Skip("the device was opened without shader-f16".into())) }
}

/// Every `step`-th f16, the middle of it and the next, and the f32 beside that.
fn arguments(quick: bool) -> Vec<f32> {
    let step = if quick { 11 } else { 1 };
    let mut all = Vec::new();
    for bits in (0u16..0x7bff).step_by(step) {
        let (low, high) = (f16::from_bits(bits).to_f32(), f16::from_bits(bits + 1).to_f32());
        let middle = (low + high) / 2.0;
        for x in [low, middle, f32::from_bits(middle.to_bits() - 1), f32::from_bits(middle.to_bits() + 1)] {
            all.extend([x, -x]);
        }
    }
    // A subnormal f32 is none of this test's.
    all.retain(|x| x.is_normal() || *x == 0.0);
    all
}

fn rows(arguments: &[f32]) -> Vec<[u32; 3]> {
    arguments.iter().map(|x| [x.to_bits(), 0, 0]).collect()
}

async fn judge(cx: &Context, expression: &str) -> Result {
    let arguments = arguments(cx.quick);
    let found = probe::map(&cx.gpu, "f32 to f16", "", expression, &rows(&arguments)).await?;
    Ok(verdict(&arguments, &found))
}

async fn storage(cx: &Context) -> Result {
    needs_f16(&cx.gpu)?;
    let arguments = arguments(cx.quick);
    let source = "@group(0) @binding(0) var<storage, read> arguments: array<f32>;
@group(0) @binding(1) var<storage, read_write> halves: array<f16>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let i = id.x + id.y * 1048576u;
    if (i < arrayLength(&arguments)) {
        halves[i] = f16(arguments[i]);
    }
}
";
    let program = Program::new(&cx.gpu, "f16 storage", source).await?;
    let input: Vec<u32> = arguments.iter().map(|x| x.to_bits()).collect();
    let from = probe::filled(&cx.gpu, &input).await?;
    let to = probe::empty(&cx.gpu, arguments.len().div_ceil(2)).await?;
    let groups = (arguments.len() as u32).div_ceil(64);
    program.run(&cx.gpu, &[&from, &to], [groups.min(16_384), groups.div_ceil(16_384), 1]).await?;
    let words = cx.gpu.read_buffer(&to, arguments.len().div_ceil(2)).await?;
    let found: Vec<u32> = words.iter().flat_map(|w| [w & 0xffff, w >> 16]).take(arguments.len()).collect();
    Ok(verdict(&arguments, &found))
}

/// Right: either neighbour, or a subnormal flushed.
fn verdict(arguments: &[f32], found: &[u32]) -> Outcome {
    let (mut even, mut zero, mut wrong, mut flushed, mut inexact) = (0usize, 0usize, 0usize, 0usize, 0usize);
    let mut first = String::new();
    for (&x, &bits) in arguments.iter().zip(found) {
        let got = f16::from_bits(bits as u16);
        let nearest = f16::from_f32(x);
        let truncated = toward_zero(x);
        let away = f16::from_bits(truncated.to_bits() + 1);
        let exact = truncated.to_f32() == x;
        inexact += usize::from(!exact);
        even += usize::from(!exact && got.to_bits() == nearest.to_bits());
        zero += usize::from(!exact && got.to_bits() == truncated.to_bits());
        let neighbour = got == truncated || (!exact && got == away);
        let flush = x.abs() < f16::MIN_POSITIVE.to_f32() && got.to_bits() & 0x7fff == 0;
        flushed += usize::from(flush && !neighbour);
        if !neighbour && !flush {
            wrong += 1;
            if first.is_empty() {
                first = format!("{x:e} (0x{:08x}) became {got:e}", x.to_bits());
            }
        }
    }
    let words = match () {
        () if even == inexact => "to nearest, halves to even".to_owned(),
        () if zero == inexact => "towards zero".to_owned(),
        () => format!("of {inexact} that are no f16, {even} to nearest, {zero} towards zero"),
    };
    let outcome = Outcome::new().with("wrong", Measure::new(wrong as f64, "").most(0.0).at(first)).say(words);
    if flushed > 0 { outcome.say(format!("{flushed} subnormals flushed to zero")) } else { outcome }
}

/// The f16 next to `x` on the way to zero.
fn toward_zero(x: f32) -> f16 {
    let nearest = f16::from_f32(x);
    if nearest.to_f32().abs() > x.abs() { f16::from_bits(nearest.to_bits() - 1) } else { nearest }
}

/// All 65,536 halves but NaN: the kernels read scales and latents so.
async fn unpack(cx: &Context) -> Result {
    let rows: Vec<[u32; 3]> = (0..65_536).map(|i| [i | (65_535 - i) << 16, 0, 0]).collect();
    let mut outcome = Outcome::new();
    let (mut wrong, mut flushed, mut first) = (0usize, 0usize, String::new());
    for (lane, call) in ["bitcast<u32>(unpack2x16float(x).x)", "bitcast<u32>(unpack2x16float(x).y)"].into_iter().enumerate() {
        let found = probe::map(&cx.gpu, "f16 to f32", "", call, &rows).await?;
        for (row, &bits) in rows.iter().zip(&found) {
            let half = f16::from_bits((row[0] >> (16 * lane)) as u16);
            let got = f32::from_bits(bits);
            if half.is_nan() || half.is_infinite() || got == half.to_f32() {
                continue;
            }
            if half.to_f32().abs() < f16::MIN_POSITIVE.to_f32() && got == 0.0 {
                flushed += 1;
                continue;
            }
            wrong += 1;
            if first.is_empty() {
                first = format!("0x{:04x}", half.to_bits());
            }
        }
    }
    outcome = outcome.with("wrong", Measure::new(wrong as f64, "").most(0.0).at(first));
    // Scales of small weights are subnormal halves: kernels must see them.
    Ok(outcome.say(if flushed == 0 { "subnormals kept".into() } else { format!("{flushed} subnormals flushed to zero") }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_told_apart() {
        let arguments = arguments(true);
        let told = |f: &dyn Fn(f32) -> f16| {
            let found: Vec<u32> = arguments.iter().map(|&x| u32::from(f(x).to_bits())).collect();
            format!("{:?}", verdict(&arguments, &found))
        };
        assert!(told(&f16::from_f32).contains("halves to even"));
        assert!(told(&toward_zero).contains("towards zero"));
        assert!(told(&|x| f16::from_bits(f16::from_f32(x).to_bits() ^ 3)).contains("that are no f16"));
    }
}
