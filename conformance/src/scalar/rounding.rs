//! What WGSL leaves open: whether multiplying and adding is fused, and what becomes of subnormal numbers.

use crate::{
    case::{Cases, Context, Outcome, Result},
    probe,
    report::Measure,
    setup::{Rng, ulp},
};

pub(super) fn add(cases: &mut Cases<'_>) {
    cases.add("scalar/fma/f32", async |cx: Context| fused(&cx, "fma(a, b, c)").await);
    cases.add("scalar/multiply-add/f32", async |cx: Context| fused(&cx, "a * b + c").await);
    cases.add("scalar/subnormals/f32", async |cx: Context| subnormals(&cx).await);
    cases.add("scalar/conversions/f32", async |cx: Context| conversions(&cx).await);
}

/// Sums whose addend nearly takes the product away: what is left tells one rounding from two.
async fn fused(cx: &Context, expression: &str) -> Result {
    let mut rng = Rng::new(99);
    let number = |rng: &mut Rng| f32::from_bits(0x3f80_0000 | rng.below(1 << 23) as u32);
    let mut rows = Vec::new();
    for i in 0..4096 {
        let (a, b) = (number(&mut rng), number(&mut rng));
        let c = if i % 2 == 0 { -(a * b) } else { number(&mut rng) };
        rows.push([a, b, c].map(f32::to_bits));
    }
    let more = format!("fn g(a: f32, b: f32, c: f32) -> f32 {{ return {expression}; }}");
    let call = "bitcast<u32>(g(bitcast<f32>(x), bitcast<f32>(y), bitcast<f32>(z)))";
    let found = probe::map(&cx.gpu, "fma", &more, call, &rows).await?;
    let (mut once, mut twice, mut telling, mut share) = (0, 0, 0, 0.0f64);
    for (row, &bits) in rows.iter().zip(&found) {
        let [a, b, c] = row.map(f32::from_bits);
        let got = f32::from_bits(bits);
        let one = a.mul_add(b, c);
        let two = a * b + c;
        if one != two {
            telling += 1;
            once += usize::from(got == one);
            twice += usize::from(got == two);
        }
        // Two roundings, each to either neighbour.
        let product = f64::from(a) * f64::from(b);
        let exact = product + f64::from(c);
        let off = (f64::from(got) - exact).abs();
        share = share.max(if off.is_finite() { off / (ulp(product) + ulp(exact)) } else { f64::INFINITY });
    }
    let words = match (once, twice) {
        (n, _) if n == telling => "fused: one rounding".to_owned(),
        (_, n) if n == telling => "not fused: two roundings".to_owned(),
        _ => format!("of {telling} that tell, {once} fused, {twice} not"),
    };
    Ok(Outcome::new().with("of permitted", Measure::new(share, "").most(1.0)).say(words))
}

/// Subnormal arguments and results: kept or flushed, and nothing else.
async fn subnormals(cx: &Context) -> Result {
    let least = f32::MIN_POSITIVE;
    let mut rows = Vec::new();
    for i in 1..512u32 {
        // x * y and x + z: subnormal results of normal arguments, then subnormal arguments.
        rows.push([(least * (1.0 + i as f32 / 512.0)).to_bits(), 0.5f32.to_bits(), (-least).to_bits()]);
        rows.push([i * 16_381, 1.0f32.to_bits(), 0.0f32.to_bits()]);
    }
    let mut told = Vec::new();
    let mut outcome = Outcome::new();
    for (name, call) in [
        ("products", "bitcast<u32>(bitcast<f32>(x) * bitcast<f32>(y))"),
        ("sums", "bitcast<u32>(bitcast<f32>(x) + bitcast<f32>(z))"),
    ] {
        let found = probe::map(&cx.gpu, name, "", call, &rows).await?;
        let (mut kept, mut flushed, mut wrong) = (0, 0, 0);
        for (row, &bits) in rows.iter().zip(&found) {
            let [x, y, z] = row.map(f32::from_bits);
            let exact = if name == "products" { f64::from(x) * f64::from(y) } else { f64::from(x) + f64::from(z) };
            let got = f64::from(f32::from_bits(bits));
            // An argument may be flushed before: then a normal one remains.
            let of_flushed = f64::from(z);
            match got {
                _ if (got - exact).abs() <= f64::powi(2.0, -149) => kept += 1,
                _ if got == 0.0 || (name == "sums" && !x.is_normal() && got == of_flushed) => flushed += 1,
                _ => wrong += 1,
            }
        }
        told.push(match (kept, flushed) {
            (_, 0) => format!("{name}: kept"),
            (0, _) => format!("{name}: flushed to zero"),
            _ => format!("{name}: {kept} kept, {flushed} flushed"),
        });
        outcome = outcome.expect(wrong == 0, || format!("{wrong} {name} are neither kept nor flushed"));
    }
    Ok(outcome.say(told.join(", ")))
}

/// Between f32 and integers: exact for whole numbers in range, towards zero for others.
async fn conversions(cx: &Context) -> Result {
    let mut outcome = Outcome::new();
    let numbers = [0.0f32, 0.5, 0.999_999_94, 1.0, 1.5, 2.5, 127.49, 8_388_607.5, 16_777_216.0, 2_147_483_500.0, 1e-30];
    let rows: Vec<_> = numbers.iter().flat_map(|&x| [x, -x]).map(|x| [x.to_bits(), 0, 0]).collect();
    let found = probe::map(&cx.gpu, "f32 to i32", "", "bitcast<u32>(i32(bitcast<f32>(x)))", &rows).await?;
    for (row, &got) in rows.iter().zip(&found) {
        let x = f32::from_bits(row[0]);
        outcome = outcome.expect(got as i32 == x as i32, || format!("i32({x}) is {}", got as i32));
    }
    let mut rng = Rng::new(3);
    let rows: Vec<_> = (0..2000).map(|i| [if i < 64 { u32::MAX >> (i % 32) } else { rng.next() as u32 }, 0, 0]).collect();
    for (name, call, exact) in [
        ("f32(i32)", "bitcast<u32>(f32(bitcast<i32>(x)))", (|x| f64::from(x as i32)) as fn(u32) -> f64),
        ("f32(u32)", "bitcast<u32>(f32(x))", |x| f64::from(x)),
    ] {
        let found = probe::map(&cx.gpu, name, "", call, &rows).await?;
        for (row, &got) in rows.iter().zip(&found) {
            let (exact, got) = (exact(row[0]), f64::from(f32::from_bits(got)));
            let right = if f64::from(exact as f32) == exact { got == exact } else { (got - exact).abs() <= ulp(exact) };
            outcome = outcome.expect(right, || format!("{name} of 0x{:08x} is {got}", row[0]));
        }
    }
    Ok(outcome)
}
