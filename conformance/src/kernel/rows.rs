//! `norm`, `quantise`, `rope`, `combine`, `last_row`.

use pleiad_runtime::plan::{Heads, Kind, Op, Rows};

use super::{Bound, measure_any};
use crate::{
    case::{Cases, Context},
    setup::{Rng, Setup, config, small_attention},
};

pub(super) fn add(cases: &mut Cases<'_>) {
    norm(cases);
    quantise(cases);
    rope(cases);
    combine(cases);
    for (tokens, width) in [(1, 300), (3, 24), (12, 7168)] {
        cases.add(format!("kernel/last_row/width {width} tokens {tokens} of 12"), async move |cx: Context| {
            let mut s = Setup::new("last row", tokens, 12);
            let x = Rng::new(6).rows(tokens, width);
            let x = s.input(Kind::F32, width, x);
            let out = s.output_rows(Kind::F32, Rows::One, width);
            s.op(Op::LastRow { x, out });
            measure_any(&cx, &s, Bound::Exact).await
        });
    }
}

/// What rows are made of.
#[derive(Clone, Copy, Debug)]
enum Values {
    /// Rows of widely differing magnitudes.
    Mixed,
    /// All of one magnitude.
    Of(f32),
    /// One large among small ones.
    Lonely,
}

impl Values {
    fn name(self) -> String {
        match self {
            Self::Mixed => String::new(),
            Self::Of(x) => format!("/of magnitude {x:e}"),
            Self::Lonely => "/one large value".into(),
        }
    }

    fn make(self, rng: &mut Rng, tokens: usize, width: usize) -> Vec<f32> {
        match self {
            Self::Mixed => rng.rows(tokens, width),
            Self::Of(x) => (0..tokens * width).map(|i| if i % 2 == 0 { x } else { -x }).collect(),
            Self::Lonely => {
                let mut all: Vec<f32> = rng.vector(tokens * width).iter().map(|x| x * 1e-3).collect();
                all.chunks_mut(width).for_each(|row| row[width / 2] = 1e4);
                all
            }
        }
    }
}

fn norm(cases: &mut Cases<'_>) {
    let quick = cases.settings.quick;
    for (f32_out, q8_out, name) in [(true, false, "f32"), (false, true, "q8"), (true, true, "f32 and q8")] {
        for (width, tokens, values) in [
            (512, 9, Values::Mixed),
            (512, 2, Values::Of(1e15)),
            (512, 2, Values::Of(1e-12)),
            (512, 2, Values::Of(0.0)),
            (2048, 3, Values::Lonely),
            (32, 1, Values::Mixed),
            (7168, 9, Values::Mixed),
            (130, 5, Values::Mixed),
            (24, 1, Values::Mixed),
        ] {
            if q8_out && width % 32 != 0 || quick && width > 2048 {
                continue;
            }
            let id = format!("kernel/norm/{name}{}/width {width} tokens {tokens}", values.name());
            cases.add(id, async move |cx: Context| {
                let mut rng = Rng::new(width as u64);
                let mut s = Setup::new("norm", tokens, tokens);
                let x = values.make(&mut rng, tokens, width);
                let x = s.input(Kind::F32, width, x);
                let weight = s.vec(rng.vector(width));
                let out = f32_out.then(|| s.output(Kind::F32, width));
                let q8 = q8_out.then(|| s.output(Kind::Q8, width));
                s.op(Op::Norm { x, weight, eps: 1e-6, out, q8 });
                // A value at the border of two quants may fall to either side.
                measure_any(&cx, &s, Bound::Nmse(if q8_out { 1e-6 } else { 1e-12 })).await
            });
        }
    }
}

fn quantise(cases: &mut Cases<'_>) {
    for (width, tokens, values) in [
        (512, 7, Values::Mixed),
        (32, 1, Values::Mixed),
        (96, 7, Values::Mixed),
        (1536, 2, Values::Lonely),
        (64, 2, Values::Of(0.0)),
        (64, 2, Values::Of(1e30)),
        (64, 2, Values::Of(1e-36)),
    ] {
        let id = format!("kernel/quantise{}/width {width} tokens {tokens}", values.name());
        cases.add(id, async move |cx: Context| {
            let mut s = Setup::new("quantise", tokens, tokens);
            let x = values.make(&mut Rng::new(3), tokens, width);
            let x = s.input(Kind::F32, width, x);
            let out = s.output(Kind::Q8, width);
            s.op(Op::Quantise { x, out });
            measure_any(&cx, &s, Bound::Nmse(1e-9)).await
        });
    }
    // Halves between two quants, of blocks whose scale is 1: to even. 127 / 127 may be off by 2.5 ULP, its product with less
    // than a half is not.
    cases.add("kernel/quantise/ties", async |cx: Context| {
        let mut s = Setup::new("ties", 1, 1);
        let x: Vec<f32> = (0..128).map(|i| if i % 32 == 0 { 127.0 } else { (i / 4) as f32 - 16.0 }).collect();
        let x = s.input(Kind::F32, 128, x);
        let out = s.output(Kind::Q8, 128);
        s.op(Op::Quantise { x, out });
        measure_any(&cx, &s, Bound::Nmse(1e-13)).await
    });
}

fn rope(cases: &mut Cases<'_>) {
    for (heads, dr, offset, stride, tokens) in [(1, 4, 0, 4, 1), (3, 16, 8, 24, 6), (16, 64, 128, 192, 6), (5, 6, 3, 11, 3)] {
        for interleaved in [true, false] {
            let pairs = if interleaved { "interleaved" } else { "halves" };
            cases.add(format!("kernel/rope/{pairs}/{heads} heads of {dr} tokens {tokens}"), async move |cx: Context| {
                let mut s = Setup::new("rope", tokens, tokens);
                let mut attention = small_attention();
                attention.qk_rope_head_dim = dr;
                s.config = config(attention, interleaved, None);
                s.step.pos = 57;
                s.positions = 128;
                let width = offset + heads * stride + 5;
                let x = Rng::new(4).rows(tokens, width);
                let x = s.input(Kind::F32, width, x);
                s.outputs.push(x);
                s.op(Op::Rope { x: Heads { act: x, offset, stride }, heads });
                measure_any(&cx, &s, Bound::Nmse(1e-12)).await
            });
        }
    }
}

fn combine(cases: &mut Cases<'_>) {
    for (width, top_k, tokens) in [(24, 1, 1), (300, 6, 10), (512, 8, 3), (2048, 6, 1)] {
        cases.add(format!("kernel/combine/{top_k} of width {width} tokens {tokens}"), async move |cx: Context| {
            let mut rng = Rng::new(5);
            let mut s = Setup::new("combine", tokens, tokens);
            let y = rng.rows(tokens, top_k * width);
            let y = s.input(Kind::F32, top_k * width, y);
            let weights = rng.rows(tokens, top_k);
            let weights = s.input(Kind::F32, top_k, weights);
            let x = rng.rows(tokens, width);
            let x = s.input(Kind::F32, width, x);
            s.outputs.push(x);
            s.op(Op::Combine { y, weights, x });
            measure_any(&cx, &s, Bound::Nmse(1e-12)).await
        });
    }
}
