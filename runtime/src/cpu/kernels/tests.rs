//! Every kernel on every instruction set of this machine, against plain f64.
#![allow(clippy::unwrap_used, reason = "tests may")]

use super::*;
use crate::q8::Q8Rows;
use pleiad_models::{Format, Layout, Matrix};

/// A small generator (SplitMix64): tests need no better.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// In -1..1.
    fn float(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    fn floats(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.float()).collect()
    }
}

/// Where the f16 of a native block are.
fn half_offsets(format: Format) -> &'static [usize] {
    match format {
        Format::Q8_0 | Format::Q4_0 | Format::Q5_0 | Format::IQ4NL | Format::IQ4XS => &[0],
        Format::Q4_1 | Format::Q5_1 | Format::Q4K | Format::Q5K => &[0, 2],
        Format::Q2K => &[80, 82],
        Format::Q3K => &[108],
        Format::Q6K => &[208],
        _ => &[],
    }
}

/// A matrix that owns its bytes.
struct Owned {
    format: Format,
    layout: Layout,
    rows: usize,
    cols: usize,
    data: Vec<u8>,
    scales: Option<Vec<u8>>,
}

impl Owned {
    /// Random quants; scales of about `magnitude`.
    fn new(random: &mut Random, format: Format, layout: Layout, rows: usize, cols: usize, magnitude: f32) -> Self {
        let bytes = format.row_bytes(cols).unwrap() * rows;
        let mut data: Vec<u8> = (0..bytes).map(|_| random.next() as u8).collect();
        let mut scales = None;
        match format {
            Format::F32 => data = (0..rows * cols).flat_map(|_| (random.float() * magnitude).to_le_bytes()).collect(),
            Format::F16 => {
                data = (0..rows * cols).flat_map(|_| half::f16::from_f32(random.float() * magnitude).to_le_bytes()).collect();
            }
            Format::BF16 => {
                data = (0..rows * cols).flat_map(|_| half::bf16::from_f32(random.float() * magnitude).to_le_bytes()).collect();
            }
            Format::F8E4M3 => {
                data.iter_mut().for_each(|b| *b = if *b & 0x7f == 0x7f { *b & 0x80 } else { *b });
                let n = rows.div_ceil(128) * cols.div_ceil(128);
                scales = Some((0..n).flat_map(|_| (random.float() * magnitude).to_le_bytes()).collect());
            }
            _ => {
                for block in data.chunks_exact_mut(format.block_bytes()) {
                    for &at in half_offsets(format) {
                        let half = half::f16::from_f32(random.float() * magnitude);
                        block[at..at + 2].copy_from_slice(&half.to_le_bytes());
                    }
                    if format == Format::MXFP4 {
                        block[0] = 120 + block[0] % 10;
                    }
                }
            }
        }
        let native = Self { format, layout: Layout::Native, rows, cols, data, scales };
        if layout == Layout::Native {
            return native;
        }
        let mut data = vec![0; rows * pleiad_models::blocks::packed_row_bytes(format, cols)];
        native.get().pack(&mut data);
        Self { layout, data, scales: None, ..native }
    }

    fn get(&self) -> Matrix<'_> {
        match self.layout {
            Layout::Native => Matrix::native(self.format, self.rows, self.cols, &self.data, self.scales.as_deref()),
            Layout::Packed => Matrix::packed(self.format, self.rows, self.cols, &self.data),
        }
    }

    /// Row `r` by `x`, and the sum of magnitudes that its rounding errors are relative to.
    fn dot(&self, r: usize, x: &[f32]) -> (f64, f64) {
        let w = self.get();
        let (mut sum, mut size) = (0.0, 0.0);
        if self.format.is_quantised() {
            for (b, x) in x.chunks_exact(32).enumerate() {
                let block = w.block32(r, b);
                for i in 0..32 {
                    let (s, m) = (f64::from(block.s[i / 16]) * f64::from(block.q[i]), f64::from(block.m[i / 16]));
                    sum += (s - m) * f64::from(x[i]);
                    size += (s.abs() + m.abs()) * f64::from(x[i]).abs();
                }
            }
        } else {
            let mut row = vec![0.0; self.cols];
            w.dequantise_row(r, &mut row);
            for (w, x) in row.iter().zip(x) {
                sum += f64::from(*w) * f64::from(*x);
                size += (f64::from(*w) * f64::from(*x)).abs();
            }
        }
        (sum, size)
    }
}

/// What [`matmul`] should find, and the allowed error, element by element of the output.
fn expected(w: &Owned, gate: Option<&Owned>, x: &[Vec<f32>], rows: &[u32]) -> Vec<Vec<(f64, f64)>> {
    let one = |x: &[f32], r: usize| {
        let (up, up_size) = w.dot(r, x);
        let Some(gate) = gate else { return (up, up_size * 2e-6 + 1e-30) };
        let (g, g_size) = gate.dot(r, x);
        let silu = g / (1.0 + (-g).exp());
        (silu * up, (silu.abs() * up_size + up.abs() * g_size + 1e-3 * (up * silu).abs()) * 4e-6 + 1e-30)
    };
    rows.iter().map(|&row| (0..w.rows).map(|r| one(&x[row as usize], r)).collect()).collect()
}

/// Rows of activations, in both precisions that kernels take.
struct Activations {
    f32: Vec<f32>,
    f32_rows: Vec<Vec<f32>>,
    q8: Q8Rows,
    q8_rows: Vec<Vec<f32>>,
}

impl Activations {
    fn new(random: &mut Random, rows: usize, cols: usize) -> Self {
        let mut f32 = random.floats(rows * cols);
        // Outliers, a row of zeros, blocks of zeros.
        for (i, x) in f32.iter_mut().enumerate() {
            if i % 97 == 0 {
                *x *= 40.0;
            }
            if i / cols == 2 || i / 32 % 11 == 5 {
                *x = 0.0;
            }
        }
        let whole = cols.is_multiple_of(32);
        let mut q8 = Q8Rows::new(if whole { rows } else { 0 }, if whole { cols } else { 32 });
        if whole {
            f32.chunks_exact(cols).enumerate().for_each(|(i, x)| q8.set(i, x));
        }
        let q8_rows = if whole { (0..rows).map(|i| q8.dequantise(i)).collect() } else { Vec::new() };
        Self { f32_rows: f32.chunks_exact(cols).map(<[f32]>::to_vec).collect(), f32, q8, q8_rows }
    }

    fn input(&self, q8: bool, cols: usize) -> (Input<'_>, &[Vec<f32>]) {
        if q8 {
            (Input::Q8(&self.q8), &self.q8_rows)
        } else {
            (Input::F32 { data: &self.f32, offset: 0, stride: cols }, &self.f32_rows)
        }
    }
}

fn cpus() -> Vec<Cpu> {
    Isa::available().into_iter().map(|isa| Cpu::with_isa(isa, Some(3)).unwrap()).collect()
}

/// Runs one job and compares.
#[allow(clippy::too_many_arguments, reason = "a test's dimensions")]
fn compare(cpu: &Cpu, w: &Owned, gate: Option<&Owned>, x: &Activations, q8: bool, from: &[u32], add: bool, what: &str) {
    let (input, rows) = x.input(q8, w.cols);
    let (offset, stride) = (3, w.rows + 2);
    // Results go to rows in reverse order.
    let to: Vec<u32> = (0..from.len() as u32).rev().collect();
    let mut data = vec![0.5f32; offset + stride * from.len()];
    let job = Job { w: w.get(), gate: gate.map(Owned::get), x: from, out: &to };
    matmul(cpu, &[job], &input, &mut Output { data: &mut data, offset, stride }, add);
    let base = if add { 0.5 } else { 0.0 };
    for (row, &to) in expected(w, gate, rows, from).iter().zip(&to) {
        let at = offset + to as usize * stride;
        for (r, &(value, error)) in row.iter().enumerate() {
            let got = f64::from(data[at + r]);
            let ok = (got - (value + base)).abs() <= error + if add { 1e-7 * (1.0 + value.abs()) } else { 0.0 };
            assert!(ok, "{what}: row {r}, {} rows of x, to {to}: {got} instead of {}", from.len(), value + base);
        }
        assert_eq!(&data[at + w.rows..at + stride.min(data.len() - at)], &[0.5, 0.5][..stride.min(data.len() - at) - w.rows]);
    }
}

fn shapes(format: Format) -> Vec<(usize, usize)> {
    match format.block_len() {
        1 => vec![(1, 1), (3, 5), (17, 40), (33, 130), (70, 256), (40, 600)],
        32 => vec![(1, 32), (3, 96), (16, 64), (37, 288), (70, 256), (130, 480)],
        _ => vec![(1, 256), (18, 512), (70, 768)],
    }
}

#[test]
fn products_agree_with_f64_in_every_format_layout_and_instruction_set() {
    let cpus = cpus();
    let mut random = Random(1);
    for format in Format::ALL {
        for layout in [Layout::Native, Layout::Packed] {
            for (rows, cols) in shapes(format) {
                let w = Owned::new(&mut random, format, layout, rows, cols, 0.1);
                let x = Activations::new(&mut random, 41, cols);
                for n in [1, 2, 3, 4, 5, 7, 13, 40] {
                    let from: Vec<u32> = (0..n).map(|_| random.below(41) as u32).collect();
                    for cpu in &cpus {
                        for q8 in [false, true] {
                            if q8 && !format.is_quantised() {
                                continue;
                            }
                            let what = format!("{} {format} {layout:?} {rows}x{cols} q8 {q8}", cpu.isa());
                            compare(cpu, &w, None, &x, q8, &from, n % 2 == 0, &what);
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn gated_products_agree_with_f64() {
    let cpus = cpus();
    let mut random = Random(2);
    let formats = [
        (Format::Q4K, Format::Q4K),
        (Format::Q8_0, Format::Q8_0),
        (Format::Q4K, Format::Q6K),
        (Format::Q2K, Format::Q5_0),
        (Format::BF16, Format::BF16),
        (Format::F8E4M3, Format::F16),
    ];
    for (up, gate) in formats {
        for (rows, cols) in [(70, 256), (33, 512)] {
            let w = Owned::new(&mut random, up, Layout::Native, rows, cols, 0.02);
            let gate = Owned::new(&mut random, gate, Layout::Packed, rows, cols, 0.02);
            let x = Activations::new(&mut random, 20, cols);
            for n in [1, 3, 9, 20] {
                let from: Vec<u32> = (0..n).map(|_| random.below(20) as u32).collect();
                for cpu in &cpus {
                    for q8 in [false, true] {
                        if !q8 || up.is_quantised() {
                            let what = format!("{} {up} gated by {} {rows}x{cols} q8 {q8}", cpu.isa(), gate.format);
                            compare(cpu, &w, Some(&gate), &x, q8, &from, n == 3, &what);
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn long_rows_are_cut_and_put_together() {
    let cpus = cpus();
    let mut random = Random(3);
    for (format, cols) in [(Format::Q4K, 2304), (Format::Q8_0, 4128), (Format::Q6K, 4352), (Format::F16, 1100)] {
        let w = Owned::new(&mut random, format, Layout::Native, 35, cols, 0.1);
        let x = Activations::new(&mut random, 8, cols);
        for n in [1, 8] {
            let from: Vec<u32> = (0..n).collect();
            for cpu in &cpus {
                for q8 in [false, true] {
                    if !q8 || format.is_quantised() {
                        compare(cpu, &w, None, &x, q8, &from, false, &format!("{} {format} {cols} q8 {q8}", cpu.isa()));
                    }
                }
            }
        }
    }
}

#[test]
fn extreme_values() {
    let cpus = cpus();
    let mut random = Random(4);
    for format in Format::ALL.into_iter().filter(|f| f.is_quantised()) {
        let cols = 2 * format.block_len();
        for byte in [0x00, 0xff, 0x80, 0x7f, 0x88] {
            for scale in [0.0f32, 6e-8, 60000.0, -60000.0] {
                let mut w = Owned::new(&mut random, format, Layout::Native, 3, cols, 1.0);
                w.data.fill(byte);
                for block in w.data.chunks_exact_mut(format.block_bytes()) {
                    for &at in half_offsets(format) {
                        block[at..at + 2].copy_from_slice(&half::f16::from_f32(scale).to_le_bytes());
                    }
                    if format == Format::MXFP4 {
                        block[0] = [0, 1, 2, 200][random.below(4)];
                    }
                }
                let mut x = Activations::new(&mut random, 6, cols);
                x.q8.quants.iter_mut().enumerate().for_each(|(i, q)| *q = if i / 32 % 2 == 0 { 127 } else { -127 });
                for half in 0..x.q8.sums.len() {
                    x.q8.sums[half] = x.q8.quants[half * 16..][..16].iter().map(|&q| i16::from(q)).sum();
                }
                x.q8.scales.fill(1e-3);
                x.q8_rows = (0..6).map(|i| x.q8.dequantise(i)).collect();
                for cpu in &cpus {
                    for n in [1, 6] {
                        let from: Vec<u32> = (0..n).collect();
                        compare(cpu, &w, None, &x, true, &from, false, &format!("{} {format} {byte:#x} {scale}", cpu.isa()));
                    }
                }
            }
        }
    }
}

#[test]
fn many_jobs_and_any_number_of_threads_give_the_same_bits() {
    let mut random = Random(5);
    for isa in Isa::available() {
        for q8 in [false, true] {
            let cols = 512;
            let ws: Vec<Owned> = (0..9).map(|_| Owned::new(&mut random, Format::Q4K, Layout::Native, 200, cols, 0.1)).collect();
            let x = Activations::new(&mut random, 64, cols);
            let lists: Vec<Vec<u32>> =
                (0..9).map(|i| (0..[0, 1, 2, 6, 30, 3, 1, 12, 5][i]).map(|_| random.below(64) as u32).collect()).collect();
            let mut next = 0;
            let outs: Vec<Vec<u32>> = lists.iter().map(|l| l.iter().map(|_| (next, next += 1).0).collect()).collect();
            let results: Vec<Vec<f32>> = [1, 2, 5]
                .map(|threads| {
                    let cpu = Cpu::with_isa(isa, Some(threads)).unwrap();
                    let jobs: Vec<Job<'_>> = (0..9)
                        .map(|i| Job { w: ws[i].get(), gate: (i % 2 == 0).then(|| ws[8 - i].get()), x: &lists[i], out: &outs[i] })
                        .collect();
                    let mut data = vec![0.0; 200 * next as usize];
                    matmul(&cpu, &jobs, &x.input(q8, cols).0, &mut Output { data: &mut data, offset: 0, stride: 200 }, false);
                    data
                })
                .into();
            let bits = |v: &[f32]| v.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            assert!(results[0].iter().all(|v| v.is_finite()) && results[0].iter().any(|&v| v != 0.0));
            for other in &results[1..] {
                assert!(bits(&results[0]) == bits(other), "{isa} q8 {q8}");
            }
        }
    }
}

#[test]
#[should_panic(expected = "lies outside of the activations")]
fn rows_outside_of_the_activations_are_refused() {
    let mut random = Random(6);
    let w = Owned::new(&mut random, Format::Q8_0, Layout::Native, 4, 32, 0.1);
    let x = Activations::new(&mut random, 3, 32);
    let job = Job { w: w.get(), gate: None, x: &[3], out: &[0] };
    matmul(&Cpu::new(Some(1)), &[job], &x.input(true, 32).0, &mut Output { data: &mut [0.0; 4], offset: 0, stride: 4 }, false);
}

#[test]
fn quantising_agrees_with_the_plain_rule_bit_for_bit() {
    let mut random = Random(7);
    for cpu in cpus() {
        for (rows, width) in [(1, 32), (3, 96), (20, 2048)] {
            let mut x = random.floats(rows * width);
            for (i, special) in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e-42, -0.0, 3e38, 1e-38].into_iter().enumerate() {
                x[i * 7 % 32] = if rows == 1 { special } else { x[i] };
                if rows > 3 {
                    x[i * 96 + 5] = special;
                    // A block of tiny values.
                    x[2048 + i * 32..2048 + i * 32 + 32].fill(special);
                }
            }
            // Ties: multiples of a half after scaling.
            let n = x.len();
            x[n - 32..].iter_mut().enumerate().for_each(|(i, x)| *x = if i == 0 { 127.0 } else { i as f32 + 0.5 });
            let (mut ours, mut plain) = (Q8Rows::new(rows, width), Q8Rows::new(rows, width));
            quantise(&cpu, &x, rows, &mut ours);
            x.chunks_exact(width).enumerate().for_each(|(i, x)| plain.set(i, x));
            assert_eq!((&ours.quants, &ours.sums), (&plain.quants, &plain.sums), "{}", cpu.isa());
            let bits = |v: &[f32]| v.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&ours.scales), bits(&plain.scales), "{}", cpu.isa());
        }
    }
}

#[test]
fn attention_agrees_with_f64() {
    let mut random = Random(8);
    let cpus = cpus();
    // tokens, first position, heads, latent, rope
    let cases: [(usize, usize, usize, usize, usize); 9] = [
        (1, 0, 4, 32, 16),
        (1, 700, 16, 64, 8),
        (3, 130, 5, 48, 20),
        (4, 61, 2, 100, 6),
        (9, 0, 3, 32, 16),
        (70, 90, 4, 64, 16),
        (20, 5, 70, 32, 8),
        (1, 63, 40, 512, 64),
        (1, 64, 1, 7, 3),
    ];
    for (tokens, pos, heads, latent, rope) in cases {
        let width = latent + rope;
        let count = (pos + tokens).div_ceil(PAGE_ROWS);
        let mut pages: Vec<u32> = (0..count as u32 + 2).collect();
        for i in (1..pages.len()).rev() {
            pages.swap(i, random.below(i + 1));
        }
        let q_latent: Vec<f32> = random.floats(tokens * heads * latent);
        let (offset, head, token) = (5, rope + 3, heads * (rope + 3) + 7);
        let q_rope = random.floats(offset + tokens * token);
        let halves: Vec<u16> =
            random.floats(pages.len() * PAGE_ROWS * width).iter().map(|&x| half::f16::from_f32(3.0 * x).to_bits()).collect();
        let floats: Vec<f32> = halves.iter().map(|&h| half::f16::from_bits(h).to_f32()).collect();
        let scale = 0.3;
        let mut expected = vec![0.0f64; tokens * heads * latent];
        for t in 0..tokens {
            for h in 0..heads {
                let row = |p: usize| &floats[(pages[p / PAGE_ROWS] as usize * PAGE_ROWS + p % PAGE_ROWS) * width..][..width];
                let ql = &q_latent[(t * heads + h) * latent..][..latent];
                let qr = &q_rope[offset + t * token + h * head..][..rope];
                let dot = |p: usize| ql.iter().chain(qr).zip(row(p)).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
                let scores: Vec<f64> = (0..=pos + t).map(|p| dot(p) * scale).collect();
                let most = scores.iter().copied().fold(f64::MIN, f64::max);
                let sum: f64 = scores.iter().map(|s| (s - most).exp()).sum();
                for (p, s) in scores.iter().enumerate() {
                    for i in 0..latent {
                        expected[(t * heads + h) * latent + i] += (s - most).exp() / sum * f64::from(row(p)[i]);
                    }
                }
            }
        }
        for cpu in &cpus {
            for cache in [CacheRows::F16(&halves), CacheRows::F32(&floats)] {
                let args = AttendArgs {
                    q_latent: &q_latent,
                    q_rope: &q_rope,
                    rope_offset: offset,
                    rope_token: token,
                    rope_head: head,
                    cache,
                    pages: &pages,
                    pos,
                    tokens,
                    heads,
                    latent,
                    rope,
                    scale: scale as f32,
                };
                let mut out = vec![f32::NAN; tokens * heads * latent];
                attend(cpu, &args, &mut out);
                for (i, (got, expected)) in out.iter().zip(&expected).enumerate() {
                    let ok = (f64::from(*got) - expected).abs() < 2e-5;
                    assert!(
                        ok,
                        "{} {tokens} tokens at {pos}, {heads} heads of {latent}+{rope}: {i}: {got} {expected}",
                        cpu.isa()
                    );
                }
            }
        }
    }
}

const PAGE_ROWS: usize = attend::PAGE;
