//! Arithmetic of single numbers against f64, judged by what WGSL permits (section "Floating Point Evaluation" of its
//! specification, as of 2026-10): a result may be off by so many ULP, or by an absolute error, and no more.

mod args;
mod half;
mod rounding;

use crate::{
    case::{Cases, Context, Outcome, Result},
    probe,
    report::Measure,
    setup::ulp,
};
use args::Domain;

/// A function under test.
struct Function {
    name: &'static str,
    /// Of the f32 `a` and `b`.
    wgsl: &'static str,
    domain: Domain,
    exact: fn(f64, f64) -> f64,
    /// The absolute error that WGSL permits at the arguments, given the exact result.
    permitted: fn(f64, f64, f64) -> f64,
    /// The same in words.
    bound: &'static str,
}

/// Either neighbour of a result that is no f32, and a result that is one.
fn correctly_rounded(_: f64, _: f64, exact: f64) -> f64 {
    if f64::from(exact as f32) == exact { 0.0 } else { ulp(exact) }
}

/// Of `log` and `log2`.
fn logarithm(x: f64, _: f64, exact: f64) -> f64 {
    if (0.5..=2.0).contains(&x) { f64::powi(2.0, -21) } else { 3.0 * ulp(exact) }
}

/// `1 / inverseSqrt(x)`: 2 ULP of the divisor, then 2.5 of the quotient.
fn square_root(x: f64, _: f64, exact: f64) -> f64 {
    let divisor = 1.0 / x.sqrt();
    let off = 2.0 * ulp(divisor);
    (1.0 / (divisor - off) - exact).abs() + 2.5 * ulp(exact)
}

/// 1e-5, or what `sinh(x) / cosh(x)` inherits from four exponentials.
fn hyperbolic_tangent(x: f64, _: f64, _: f64) -> f64 {
    let inherited = (2.0 * (3.0 + 2.0 * x.abs()) + 6.0) * f64::powi(2.0, -23);
    inherited.max(1e-5)
}

const FUNCTIONS: &[Function] = &[
    Function {
        name: "add",
        wgsl: "a + b",
        domain: Domain::Pairs,
        exact: |a, b| a + b,
        permitted: correctly_rounded,
        bound: "correctly rounded",
    },
    Function {
        name: "subtract",
        wgsl: "a - b",
        domain: Domain::Pairs,
        exact: |a, b| a - b,
        permitted: correctly_rounded,
        bound: "correctly rounded",
    },
    Function {
        name: "multiply",
        wgsl: "a * b",
        domain: Domain::Pairs,
        exact: |a, b| a * b,
        permitted: correctly_rounded,
        bound: "correctly rounded",
    },
    Function {
        name: "divide",
        wgsl: "a / b",
        domain: Domain::Pairs,
        exact: |a, b| a / b,
        permitted: |_, _, e| 2.5 * ulp(e),
        bound: "2.5 ULP",
    },
    Function {
        name: "exp",
        wgsl: "exp(a)",
        domain: Domain::Signed(1e-6, 87.0),
        exact: |a, _| a.exp(),
        permitted: |a, _, e| (3.0 + 2.0 * a.abs()) * ulp(e),
        bound: "3 + 2 |x| ULP",
    },
    Function {
        name: "exp2",
        wgsl: "exp2(a)",
        domain: Domain::Signed(1e-6, 125.0),
        exact: |a, _| a.exp2(),
        permitted: |a, _, e| (3.0 + 2.0 * a.abs()) * ulp(e),
        bound: "3 + 2 |x| ULP",
    },
    Function {
        name: "log",
        wgsl: "log(a)",
        domain: Domain::Positive(1e-30, 1e30),
        exact: |a, _| a.ln(),
        permitted: logarithm,
        bound: "2^-21 from 0.5 to 2, 3 ULP elsewhere",
    },
    Function {
        name: "log2",
        wgsl: "log2(a)",
        domain: Domain::Positive(1e-30, 1e30),
        exact: |a, _| a.log2(),
        permitted: logarithm,
        bound: "2^-21 from 0.5 to 2, 3 ULP elsewhere",
    },
    Function {
        name: "tanh",
        wgsl: "tanh(a)",
        domain: Domain::Signed(1e-6, 40.0),
        exact: |a, _| a.tanh(),
        permitted: hyperbolic_tangent,
        bound: "1e-5, or what sinh / cosh inherits",
    },
    Function {
        name: "inverseSqrt",
        wgsl: "inverseSqrt(a)",
        domain: Domain::Positive(1e-36, 1e36),
        exact: |a, _| 1.0 / a.sqrt(),
        permitted: |_, _, e| 2.0 * ulp(e),
        bound: "2 ULP",
    },
    Function {
        name: "sqrt",
        wgsl: "sqrt(a)",
        domain: Domain::Positive(1e-36, 1e36),
        exact: |a, _| a.sqrt(),
        permitted: square_root,
        bound: "inherited from 1 / inverseSqrt(x)",
    },
    Function {
        name: "sin",
        wgsl: "sin(a)",
        domain: Domain::Signed(1e-4, std::f32::consts::PI),
        exact: |a, _| a.sin(),
        permitted: |_, _, _| f64::powi(2.0, -11),
        bound: "2^-11 from -pi to pi",
    },
    Function {
        name: "cos",
        wgsl: "cos(a)",
        domain: Domain::Signed(1e-4, std::f32::consts::PI),
        exact: |a, _| a.cos(),
        permitted: |_, _, _| f64::powi(2.0, -11),
        bound: "2^-11 from -pi to pi",
    },
    Function {
        name: "round",
        wgsl: "round(a)",
        domain: Domain::Signed(1e-3, 1e9),
        exact: |a, _| a.round_ties_even(),
        permitted: |_, _, _| 0.0,
        bound: "exact, halves to even",
    },
    Function {
        name: "floor",
        wgsl: "floor(a)",
        domain: Domain::Signed(1e-3, 1e9),
        exact: |a, _| a.floor(),
        permitted: |_, _, _| 0.0,
        bound: "exact",
    },
];

pub(crate) fn add(cases: &mut Cases<'_>) {
    for function in FUNCTIONS {
        cases.add(format!("scalar/{}/f32", function.name), async move |cx: Context| sweep(&cx, function).await);
    }
    rounding::add(cases);
    half::add(cases);
}

/// Points of the curve of ULP over the argument.
const POINTS: usize = 64;

async fn sweep(cx: &Context, f: &Function) -> Result {
    let arguments = f.domain.arguments(if cx.quick { 1 << 14 } else { 1 << 20 });
    let rows: Vec<[u32; 3]> = arguments.iter().map(|&[a, b]| [a.to_bits(), b.to_bits(), 0]).collect();
    let expression = "bitcast<u32>(g(bitcast<f32>(x), bitcast<f32>(y)))";
    let more = format!("fn g(a: f32, b: f32) -> f32 {{ return {}; }}", f.wgsl);
    let found = probe::map(&cx.gpu, f.name, &more, expression, &rows).await?;
    let mut seen = Seen::default();
    let (mut sum, mut count) = (0.0, 0usize);
    let mut points = Vec::new();
    for (&[a, b], &bits) in arguments.iter().zip(&found) {
        let (x, y, got) = (f64::from(a), f64::from(b), f64::from(f32::from_bits(bits)));
        let exact = (f.exact)(x, y);
        let magnitude = exact.abs();
        // What overflows may come out as anything; what underflows may be flushed.
        if magnitude > f64::from(f32::MAX) * 0.999 {
            continue;
        }
        let tiny = f64::from(f32::MIN_POSITIVE);
        let permitted = (f.permitted)(x, y, exact) + if magnitude < tiny && magnitude > 0.0 { tiny } else { 0.0 };
        let off = if got.is_finite() { (got - exact).abs() } else { f64::INFINITY };
        let at = || {
            format!("{a:e} (0x{:08x}){}", a.to_bits(), if f.domain == Domain::Pairs { format!(", {b:e}") } else { String::new() })
        };
        seen.take(off, off / ulp(exact), permitted, at);
        if off.is_finite() {
            sum += off / ulp(exact);
            count += 1;
            points.push((x, off / ulp(exact)));
        }
    }
    let curve = if f.domain == Domain::Pairs { Vec::new() } else { envelope(points) };
    Ok(Outcome::new()
        .with("of permitted", Measure::new(seen.share, "").most(1.0).at(seen.share_at))
        .with("worst", Measure::new(seen.worst, "ulp").at(seen.worst_at).curve(curve))
        .with("mean", Measure::new(sum / count.max(1) as f64, "ulp"))
        .say(format!("WGSL permits: {}", f.bound))
        .say(format!("{count} arguments")))
}

/// The largest differences so far, and where they are.
#[derive(Default)]
struct Seen {
    worst: f64,
    worst_at: String,
    share: f64,
    share_at: String,
}

impl Seen {
    fn take(&mut self, off: f64, ulps: f64, permitted: f64, at: impl Fn() -> String) {
        let share = if off == 0.0 { 0.0 } else { off / permitted };
        if ulps > self.worst {
            (self.worst, self.worst_at) = (ulps, at());
        }
        if share > self.share {
            (self.share, self.share_at) = (share, at());
        }
    }
}

/// The worst of each of [`POINTS`] runs of neighbouring arguments.
fn envelope(mut points: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    let run = points.len().div_ceil(POINTS).max(1);
    points.chunks(run).filter_map(|c| c.iter().copied().max_by(|a, b| a.1.total_cmp(&b.1))).collect()
}
