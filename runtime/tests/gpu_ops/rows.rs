//! Embedding, norms, quantising, rotation, sums.

use pleiad_models::Format;
use pleiad_runtime::plan::{Heads, Kind, Op, Rows};

use crate::support::{Check as _, Rng, Setup, all_places, config, places, small_attention, tensor};

#[test]
fn embed() {
    let places = places("embed");
    let mut rng = Rng::new(1);
    for format in Format::ALL {
        let widths: &[usize] = match format.block_len() {
            1 => &[24, 130, 512],
            32 => &[32, 96, 2080],
            _ => &[256, 2304],
        };
        for &width in widths {
            for tokens in [1, 5] {
                let mut s = Setup::new(format!("embed {format}, width {width}, {tokens} tokens"), tokens, tokens);
                let table = tensor(&mut rng, format, 1, 37, width);
                let table = s.mat(table);
                let out = s.output(Kind::F32, width);
                s.ids = (0..tokens).map(|_| rng.below(37) as u32).collect();
                s.ids[0] = 36;
                s.op(Op::Embed { table, out });
                s.check(&places, 1e-13);
            }
        }
    }
}

#[test]
fn norm() {
    let places = all_places("norm");
    let mut rng = Rng::new(2);
    for (width, q8) in [(24, false), (32, true), (130, false), (512, true), (2048, true), (7168, true)] {
        for tokens in [1, 9] {
            for (wants_f32, wants_q8) in [(true, false), (false, q8), (true, q8)] {
                let mut s = Setup::new(format!("norm of {width}, {tokens} tokens, {wants_f32} {wants_q8}"), tokens, tokens);
                let x = rng.rows(tokens, width);
                let x = s.input(Kind::F32, width, x);
                let weight = s.vec(rng.vector(width));
                let out = wants_f32.then(|| s.output(Kind::F32, width));
                let q8 = wants_q8.then(|| s.output(Kind::Q8, width));
                s.op(Op::Norm { x, weight, eps: 1e-6, out, q8 });
                // A value at the border of two quants may fall to either side.
                s.check(&places, if wants_q8 { 1e-6 } else { 1e-12 });
            }
        }
    }
}

#[test]
fn norm_of_extremes() {
    let places = all_places("norm_of_extremes");
    for (name, value) in [("large", 1e15f32), ("small", 1e-12), ("zero", 0.0)] {
        let mut s = Setup::new(format!("norm of {name} values"), 2, 2);
        let x: Vec<f32> = (0..1024).map(|i| if i % 2 == 0 { value } else { -value }).collect();
        let x = s.input(Kind::F32, 512, x);
        let weight = s.vec(vec![1.5; 512]);
        let out = s.output(Kind::F32, 512);
        s.op(Op::Norm { x, weight, eps: 1e-6, out: Some(out), q8: None });
        s.check(&places, 1e-12);
    }
}

#[test]
fn quantise() {
    let places = all_places("quantise");
    let mut rng = Rng::new(3);
    for width in [32, 96, 512, 1536] {
        for tokens in [1, 7] {
            let mut s = Setup::new(format!("quantise {width}, {tokens} tokens"), tokens, tokens);
            let mut data = rng.rows(tokens, width);
            // Halves between two quants, where rounding to even shows, and a lonely large value.
            data[..4].copy_from_slice(&[127.0, 0.5, 1.5, -2.5]);
            let x = s.input(Kind::F32, width, data);
            let out = s.output(Kind::Q8, width);
            s.op(Op::Quantise { x, out });
            s.check(&places, 1e-9);
        }
    }
}

#[test]
fn rope() {
    let places = all_places("rope");
    let mut rng = Rng::new(4);
    for (heads, dr, offset, stride) in [(1, 4, 0, 4), (3, 16, 8, 24), (16, 64, 128, 192), (5, 6, 3, 11)] {
        for interleaved in [true, false] {
            for tokens in [1, 6] {
                let mut s = Setup::new(format!("rope of {heads} heads of {dr}, {interleaved}"), tokens, tokens);
                let mut attention = small_attention();
                attention.qk_rope_head_dim = dr;
                s.config = config(attention, interleaved, None);
                s.step.pos = 57;
                let width = offset + heads * stride + 5;
                let x = rng.rows(tokens, width);
                let x = s.input(Kind::F32, width, x);
                s.outputs.push(x);
                s.op(Op::Rope { x: Heads { act: x, offset, stride }, heads });
                s.check(&places, 1e-12);
            }
        }
    }
}

#[test]
fn combine() {
    let places = all_places("combine");
    let mut rng = Rng::new(5);
    for (width, top_k) in [(24, 1), (300, 6), (512, 8)] {
        for tokens in [1, 10] {
            let mut s = Setup::new(format!("combine {top_k} of {width}"), tokens, tokens);
            let y = rng.rows(tokens, top_k * width);
            let y = s.input(Kind::F32, top_k * width, y);
            let weights = rng.rows(tokens, top_k);
            let weights = s.input(Kind::F32, top_k, weights);
            let x = rng.rows(tokens, width);
            let x = s.input(Kind::F32, width, x);
            s.outputs.push(x);
            s.op(Op::Combine { y, weights, x });
            s.check(&places, 1e-12);
        }
    }
}

#[test]
fn last_row() {
    let places = all_places("last_row");
    let mut rng = Rng::new(6);
    for tokens in [1, 3, 12] {
        // A plan for more tokens than the step has: the last row is the step's, not the buffer's.
        let mut s = Setup::new(format!("last of {tokens}"), tokens, 12);
        let x = rng.rows(tokens, 300);
        let x = s.input(Kind::F32, 300, x);
        let out = s.output_rows(Kind::F32, Rows::One, 300);
        s.op(Op::LastRow { x, out });
        s.check(&places, 0.0);
    }
}
