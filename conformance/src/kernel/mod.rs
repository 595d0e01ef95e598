//! Every kernel and variant, through the runtime's own lowering, against the plain twins.
//!
//! Which shapes of workgroups a kernel gets is the lowering's choice: tests have the matrices, tokens and formats that make it
//! choose each. Bounds are of NMSE; where a result is exact in any order of summation, nothing may differ.

mod attention;
mod drafts;
mod experts;
mod growth;
mod products;
mod rows;
mod sampling;
mod slots;

use std::sync::Arc;

use pleiad_runtime::{
    gpu::{GpuDevice, Tier},
    plan::Kind,
};

use crate::{
    case::{Cases, Context, Outcome, Result, Stop},
    report::Measure,
    setup::{Outputs, Setup, compare, floats},
};

pub(crate) fn add(cases: &mut Cases<'_>) {
    rows::add(cases);
    products::add(cases);
    growth::add(cases);
    attention::add(cases);
    experts::add(cases);
    sampling::add(cases);
    drafts::add(cases);
    slots::add(cases);
}

/// Runs on the same data.
const RUNS: usize = 3;

/// How far results may be off.
#[derive(Clone, Copy, Debug)]
pub(super) enum Bound {
    /// NMSE.
    Nmse(f64),
    /// Not at all.
    Exact,
}

/// The device with kernels of that tier; a reason to skip where it has none.
fn of_tier(gpu: &Arc<GpuDevice>, tier: Tier) -> Result<Arc<GpuDevice>> {
    if gpu.tier < tier {
        return Err(Stop::Skip("the device was opened without subgroups".into()));
    }
    Ok(if gpu.tier == tier { Arc::clone(gpu) } else { Arc::new(gpu.with_tier(tier)) })
}

/// Both executors' outputs, compared; the device's runs, among each other.
pub(super) async fn measure(cx: &Context, tier: Tier, setup: &Setup, bound: Bound) -> Result {
    let gpu = of_tier(&cx.gpu, tier)?;
    let expected = setup.expected()?;
    let found = setup.actual(&gpu, RUNS).await?;
    Ok(judge(setup, &expected, &found, bound))
}

/// [`measure`] with the tier that models would use.
pub(super) async fn measure_any(cx: &Context, setup: &Setup, bound: Bound) -> Result {
    measure(cx, cx.gpu.tier, setup, bound).await
}

fn judge(setup: &Setup, expected: &Outputs, found: &[Outputs], bound: Bound) -> Outcome {
    let (mut nmse, mut worst, mut at) = (0.0f64, 0.0f64, String::new());
    let (mut wrong, mut wrong_at) = (0usize, String::new());
    let mut compared = false;
    let first = &found[0];
    for ((&act, e), f) in setup.outputs.iter().zip(&expected.0).zip(&first.0) {
        let decl = setup.plan.decl(act);
        let place = |i: usize| format!("{}[{}][{}]", decl.name, i / decl.width, i % decl.width);
        if decl.kind == Kind::U32 {
            let mut differ = (0..e.len()).filter(|&i| f.get(i) != e.get(i));
            if let Some(i) = differ.next() {
                wrong += 1 + differ.count();
                wrong_at = format!("{}: {}, not {}", place(i), f.get(i).copied().unwrap_or(u32::MAX), e[i]);
            }
            continue;
        }
        compared = true;
        let (e, f) = (floats(e), floats(f));
        let d = compare(&e, &f);
        nmse = nmse.max(d.nmse);
        if d.worst > worst {
            worst = d.worst;
            at = format!("{}: {:e}, not {:e}", place(d.at), f[d.at], e[d.at]);
        }
        if matches!(bound, Bound::Exact) && d.count > 0 {
            wrong += d.count;
            wrong_at.clone_from(&at);
        }
    }
    let different = 1 + (1..found.len()).filter(|&i| !found[..i].contains(&found[i])).count();
    let mut outcome = Outcome::new().with("runs", Measure::new(different as f64, "").most(1.0));
    if compared {
        let measure = Measure::new(nmse, "");
        outcome = outcome
            .with("nmse", if let Bound::Nmse(most) = bound { measure.most(most) } else { measure })
            .with("worst", Measure::new(worst, "ulp").at(at));
    }
    let ids = setup.outputs.iter().any(|&a| setup.plan.decl(a).kind == Kind::U32);
    if ids || matches!(bound, Bound::Exact) {
        outcome = outcome.with("wrong", Measure::new(wrong as f64, "").most(0.0).at(wrong_at));
    }
    let (counted, counts) = (&first.1.counters, &expected.1.counters);
    outcome.expect(counted == counts, || "activation counters differ".into())
}
