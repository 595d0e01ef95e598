//! Products with weight matrices, in every format.

use pleiad_models::Format;
use pleiad_runtime::plan::{Heads, Kind, Op};

use crate::support::{Check as _, Rng, Setup, all_places, places, tensor};

/// NMSE of f32 sums in any order against exact ones.
const BOUND: f64 = 1e-11;

/// Columns to try: whole blocks, and for formats without blocks any number.
fn columns(format: Format) -> &'static [usize; 3] {
    match format.block_len() {
        1 => &[24, 130, 1024],
        32 => &[32, 160, 1536],
        _ => &[256, 512, 2048],
    }
}

fn kinds(format: Format) -> &'static [Kind] {
    if format.is_quantised() { &[Kind::F32, Kind::Q8] } else { &[Kind::F32] }
}

#[test]
fn mat_mul_of_every_format() {
    let places = places("mat_mul_of_every_format");
    let mut rng = Rng::new(10);
    for format in Format::ALL {
        let &[few, some, many] = columns(format);
        for &kind in kinds(format) {
            for (cols, tokens, max_tokens, rows, add) in [
                (few, 1, 1, 77, false),
                (many, 1, 1, 130, true),
                (some, 3, 4, 64, false),
                (some, 8, 70, 5, true),
                (many, 70, 70, 77, false),
            ] {
                mat_mul(&mut rng, format, kind, [rows, cols], [tokens, max_tokens], add).check(&places, BOUND);
            }
        }
    }
}

fn mat_mul(rng: &mut Rng, format: Format, kind: Kind, [rows, cols]: [usize; 2], [tokens, most]: [usize; 2], add: bool) -> Setup {
    let name = format!("{format} [{rows}, {cols}] with {tokens} of {most} {kind:?} rows, add {add}");
    let mut s = Setup::new(name, tokens, most);
    let w = tensor(rng, format, 1, rows, cols);
    let w = s.mat(w);
    let x = rng.rows(tokens, cols);
    let x = s.input(kind, cols, x);
    let out = if add {
        let before = rng.vector(tokens * rows);
        let out = s.input(Kind::F32, rows, before);
        s.outputs.push(out);
        out
    } else {
        s.output(Kind::F32, rows)
    };
    s.op(Op::MatMul { w, x, out, add });
    s
}

#[test]
fn mat_mul_of_every_shape() {
    let places = all_places("mat_mul_of_every_shape");
    let mut rng = Rng::new(14);
    for format in [Format::F32, Format::BF16, Format::F8E4M3, Format::Q8_0, Format::Q6K] {
        for &cols in columns(format) {
            for &kind in kinds(format) {
                for (tokens, most, rows) in
                    [(1, 1, 77), (2, 2, 33), (3, 4, 64), (8, 70, 5), (9, 70, 130), (33, 33, 66), (70, 70, 77)]
                {
                    mat_mul(&mut rng, format, kind, [rows, cols], [tokens, most], false).check(&places, BOUND);
                }
            }
        }
    }
}

#[test]
fn mat_mul_of_many_rows_and_columns() {
    let places = places("mat_mul_of_many_rows_and_columns");
    let mut rng = Rng::new(11);
    for (format, kind, rows, cols) in [
        (Format::Q8_0, Kind::Q8, 9000, 256),
        (Format::F32, Kind::F32, 3, 8192),
        (Format::Q4K, Kind::Q8, 40, 7168),
        (Format::BF16, Kind::F32, 2100, 64),
    ] {
        for tokens in [1, 2, 40] {
            let s = mat_mul(&mut rng, format, kind, [rows, cols], [tokens, tokens], false);
            s.check(&places, BOUND);
        }
    }
}

#[test]
fn gated_mat_mul() {
    let places = places("gated_mat_mul");
    let mut rng = Rng::new(12);
    let same = Format::ALL.map(|f| (f, f));
    let mixed = [
        (Format::Q4K, Format::Q6K),
        (Format::Q8_0, Format::Q4_1),
        (Format::F32, Format::BF16),
        // Different kinds are not fused.
        (Format::F16, Format::Q8_0),
        (Format::Q5K, Format::F32),
    ];
    for (gate_format, up_format) in same.into_iter().chain(mixed) {
        let both_quantised = gate_format.is_quantised() && up_format.is_quantised();
        for &kind in if both_quantised { &[Kind::F32, Kind::Q8][..] } else { &[Kind::F32] } {
            for (tokens, max_tokens, rows) in [(1, 1, 50), (40, 40, 70)] {
                let name = format!("{gate_format} gate, {up_format} up, {tokens} of {max_tokens} {kind:?} rows");
                let mut s = Setup::new(name, tokens, max_tokens);
                let gate = tensor(&mut rng, gate_format, 1, rows, 512);
                let gate = s.mat(gate);
                let up = tensor(&mut rng, up_format, 1, rows, 512);
                let up = s.mat(up);
                let x = rng.vector(tokens * 512);
                let x = s.input(kind, 512, x);
                let out = s.output(Kind::F32, rows);
                s.op(Op::GatedMatMul { gate, up, x, out });
                s.check(&places, 1e-10);
            }
        }
    }
}

#[test]
fn head_mat_mul() {
    let places = places("head_mat_mul");
    let mut rng = Rng::new(13);
    for format in [Format::F32, Format::F16, Format::BF16, Format::Q8_0, Format::Q4_0] {
        for (heads, rows, cols) in [(1, 32, 64), (4, 48, 32), (16, 128, 64), (3, 7, 96)] {
            for (tokens, max_tokens) in [(1, 1), (5, 20), (20, 20)] {
                let name = format!("{heads} heads of {format} [{rows}, {cols}], {tokens} of {max_tokens} tokens");
                let mut s = Setup::new(name, tokens, max_tokens);
                let w = tensor(&mut rng, format, heads, rows, cols);
                let w = s.mat(w);
                // Heads of x begin behind some other elements and are followed by more.
                let stride = cols + 16;
                let x = rng.rows(tokens, heads * stride);
                let x = s.input(Kind::F32, heads * stride, x);
                let out = s.output(Kind::F32, heads * rows);
                s.op(Op::HeadMatMul {
                    w,
                    x: Heads { act: x, offset: 8, stride },
                    out: Heads { act: out, offset: 0, stride: rows },
                });
                s.check(&places, BOUND);
            }
        }
    }
}
