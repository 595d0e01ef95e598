//! Steps with drafted tokens: `join`, `shift`, `sample` and `last_row` of such steps, `settle`, `draft`.

use pleiad_models::Format;
use pleiad_runtime::{
    plan::{Kind, Op, Rows},
    sampling::SamplingParams,
};

use super::{Bound, RUNS, measure_any};
use crate::{
    case::{Cases, Context, Outcome, Result},
    report::Measure,
    setup::{Rng, Setup, tensor},
};

/// Logits of a row.
const VOCAB: usize = 300;
/// The token that ends answers.
const END: u32 = 299;
/// Elements of a hidden state.
const HIDDEN: usize = 40;

pub(super) fn add(cases: &mut Cases<'_>) {
    for (n, m, tokens) in [(1, 1, 1), (300, 7, 3), (64, 64, 40)] {
        cases.add(format!("kernel/join/{n} beside {m} tokens {tokens}"), async move |cx: Context| {
            let mut rng = Rng::new(62);
            let mut s = Setup::new("join", tokens, tokens + 2);
            let (a, b) = (rng.vector(tokens * n), rng.vector(tokens * m));
            let (a, b) = (s.input(Kind::F32, n, a), s.input(Kind::F32, m, b));
            let out = s.output(Kind::F32, n + m);
            s.op(Op::Join { a, b, out });
            measure_any(&cx, &s, Bound::Exact).await
        });
    }
    for tokens in [1, 3, 256, 257, 700] {
        cases.add(format!("kernel/shift/tokens {tokens}"), async move |cx: Context| {
            let mut rng = Rng::new(63);
            let mut s = Setup::new("shift", tokens, 700);
            let table = tensor(&mut rng, Format::F32, 1, 64, 32);
            let table = s.mat(table);
            let out = s.output(Kind::F32, 32);
            s.op(Op::Shift { given: true });
            s.op(Op::Embed { table, out });
            s.ids = (0..=tokens).map(|_| rng.below(64) as u32).collect();
            measure_any(&cx, &s, Bound::Exact).await
        });
    }
    for drafts in [1, 3, 7] {
        for (name, temperature) in [("greedy", 0.0), ("drawn", 0.8)] {
            cases.add(format!("kernel/draft/{drafts} verified, {name}"), async move |cx: Context| {
                let params = SamplingParams { temperature, top_k: 40, top_p: 0.95, seed: 5, ..SamplingParams::default() };
                let all = (0..=drafts).flat_map(|right| [(right, false), (right, true)]);
                let setups: Vec<Setup> = all.map(|(right, end)| step(drafts, right, end, &params)).collect();
                check(&cx, &setups).await
            });
        }
    }
}

/// A step that verifies `k` drafts, of which the first `right` are what its logits say (then comes the end, or another token), and
/// makes `k`; without the model between.
fn step(k: usize, right: usize, end: bool, params: &SamplingParams) -> Setup {
    let mut rng = Rng::new(61 + right as u64);
    let mut s = Setup::new("drafts", k + 1, k + 1);
    s.ids = (0..=k as u32).map(|i| 10 * i).collect();
    let mut values = rng.vector((k + 1) * VOCAB);
    for (row, logits) in values.chunks_mut(VOCAB).enumerate() {
        let draft = s.ids.get(row + 1).filter(|_| row < right).copied();
        logits[draft.unwrap_or(if end { END } else { 123 }) as usize] = 30.0;
    }
    let logits = s.input(Kind::F32, VOCAB, values);
    let hidden = rng.vector((k + 1) * HIDDEN);
    let hidden = s.input(Kind::F32, HIDDEN, hidden);
    let drafts = s.plan.act("draft logits", Kind::F32, Rows::One, VOCAB);
    s.inputs.push((drafts, rng.vector(VOCAB)));
    let row = s.output_rows(Kind::F32, Rows::One, HIDDEN);
    (0..=k).for_each(|row| s.op(Op::Verify { logits, row }));
    s.op(Op::Shift { given: false });
    s.op(Op::TakenRow { x: hidden, out: row });
    s.op(Op::Settle { drafts: k });
    (0..k).for_each(|index| s.op(Op::Draft { logits: drafts, index, of: k }));
    params.write(&[END], &mut s.step);
    (s.step.pos, s.step.drafted) = (17, k as u32);
    s.positions = 256;
    s
}

/// Tokens that all steps take, and the row from which the next drafts are made, against the twin's.
async fn check(cx: &Context, setups: &[Setup]) -> Result {
    let (mut wrong, mut at, mut different) = (0usize, String::new(), 1usize);
    for (i, s) in setups.iter().enumerate() {
        let (rows, expected) = s.expected()?;
        let found = s.actual(&cx.gpu, RUNS).await?;
        different = different.max(1 + found.iter().skip(1).filter(|f| **f != found[0]).count());
        let tokens =
            |out: &pleiad_runtime::executor::StepOutput| out.before.iter().map(|t| t.0).chain([out.token]).collect::<Vec<u32>>();
        let (wanted, got) = (tokens(&expected), tokens(&found[0].1));
        if wanted != got || rows != found[0].0 {
            wrong += 1;
            if at.is_empty() {
                at = format!("step {i}: tokens {got:?}, not {wanted:?}");
            }
        }
    }
    Ok(Outcome::new()
        .with("wrong", Measure::new(wrong as f64, "").most(0.0).at(at))
        .with("runs", Measure::new(different as f64, "").most(1.0)))
}
