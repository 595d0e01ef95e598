//! How errors grow with the length of a row, and sums that nearly vanish.

use pleiad_models::{Bytes, Format};
use pleiad_runtime::plan::{Kind, Op};

use super::products::kind_name;
use crate::{
    case::{Cases, Context, Outcome, Result},
    report::Measure,
    setup::{Rng, Setup, compare, floats, tensor},
};

/// NMSE of a sum of this many products; longer ones may have as many times more.
const UNIT: (usize, f64) = (1024, 1e-11);

pub(super) fn add(cases: &mut Cases<'_>) {
    for (format, kind) in [
        (Format::F32, Kind::F32),
        (Format::F16, Kind::F32),
        (Format::Q8_0, Kind::F32),
        (Format::Q4K, Kind::Q8),
        (Format::Q6K, Kind::F32),
    ] {
        for tokens in [1, 16] {
            let kernel = if tokens == 1 { "matvec" } else { "matmat" };
            let id = format!("kernel/{kernel}/{format}/{}/growth", kind_name(kind));
            cases.add(id, async move |cx: Context| growth(&cx, format, kind, tokens).await);
        }
    }
    for tokens in [1, 16] {
        let kernel = if tokens == 1 { "matvec" } else { "matmat" };
        cases.add(format!("kernel/{kernel}/F32/f32/cancelling"), async move |cx: Context| cancelling(&cx, tokens).await);
    }
}

fn product(format: Format, kind: Kind, rows: usize, cols: usize, tokens: usize) -> Setup {
    let mut rng = Rng::new(cols as u64);
    let mut s = Setup::new("growth", tokens, tokens);
    let w = tensor(&mut rng, format, 1, rows, cols);
    let w = s.mat(w);
    let x = rng.vector(tokens * cols);
    let x = s.input(kind, cols, x);
    let out = s.output(Kind::F32, rows);
    s.op(Op::MatMul { w, x, out, add: false });
    s
}

async fn growth(cx: &Context, format: Format, kind: Kind, tokens: usize) -> Result {
    let lengths: &[usize] = if cx.quick { &[1024, 4096, 16_384] } else { &[1024, 2048, 4096, 8192, 16_384] };
    let (mut errors, mut worst, mut share) = (Vec::new(), Vec::new(), 0.0f64);
    for &cols in lengths {
        let s = product(format, kind, if cx.quick { 16 } else { 64 }, cols, tokens);
        let expected = s.expected()?;
        let found = s.actual(&cx.gpu, 1).await?;
        let d = compare(&floats(&expected.0[0]), &floats(&found[0].0[0]));
        errors.push((cols as f64, d.nmse));
        worst.push((cols as f64, d.worst));
        share = share.max(d.nmse / (UNIT.1 * cols as f64 / UNIT.0 as f64));
    }
    let last = |curve: &[(f64, f64)]| curve.iter().map(|p| p.1).fold(0.0, f64::max);
    Ok(Outcome::new()
        .with("of permitted", Measure::new(share, "").most(1.0))
        .with("nmse", Measure::new(last(&errors), "").curve(errors))
        .with("worst", Measure::new(last(&worst), "ulp").curve(worst))
        .say(format!("an NMSE of {:e} is permitted for {} columns, and in proportion", UNIT.1, UNIT.0)))
}

/// Every product has its opposite far away in the row, and a small rest remains: the error must stay below what sums in any
/// order can have, n units of rounding of the sum of magnitudes (Higham, "Accuracy and Stability", section 4.2).
async fn cancelling(cx: &Context, tokens: usize) -> Result {
    let (rows, cols) = (33, 4096);
    let mut s = product(Format::F32, Kind::F32, rows, cols, tokens);
    let half = cols / 2;
    let mut w: Vec<f32> = s.mats[0].to_f32();
    for (r, row) in w.chunks_mut(cols).enumerate() {
        let (first, second) = row.split_at_mut(half);
        // Another place in the second half for each.
        for (i, &x) in first.iter().enumerate() {
            second[(i * 5 + r) % half] = -x;
        }
    }
    s.mats[0].data = Bytes::new(bytemuck::cast_slice::<f32, u8>(&w).to_vec());
    let mut rng = Rng::new(9);
    let x: Vec<f32> = (0..tokens * cols).map(|_| 1000.0 + rng.unit() * 1e-2).collect();
    s.inputs[0].1.clone_from(&x);
    let found = s.actual(&cx.gpu, 1).await?;
    let out = floats(&found[0].0[0]);
    let (mut share, mut at) = (0.0f64, String::new());
    for t in 0..tokens {
        for r in 0..rows {
            let products = w[r * cols..(r + 1) * cols].iter().zip(&x[t * cols..]).map(|(w, x)| f64::from(*w) * f64::from(*x));
            let (sum, magnitudes) = products.fold((0.0, 0.0), |(s, m), p| (s + p, m + p.abs()));
            let got = f64::from(out[t * rows + r]);
            // Rounding may go to either neighbour: 2^-23.
            let permitted = cols as f64 * f64::powi(2.0, -23) * magnitudes;
            let of = if got.is_finite() { (got - sum).abs() / permitted } else { f64::INFINITY };
            if of > share {
                (share, at) = (of, format!("token {t}, row {r}: {got:e}, not {sum:e}"));
            }
        }
    }
    Ok(Outcome::new().with("of permitted", Measure::new(share, "").most(1.0).at(at)))
}
