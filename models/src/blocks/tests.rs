#![allow(clippy::unwrap_used, reason = "a test may fail")]

use proptest::prelude::*;

use super::*;

/// Two rows of 512 weights in the native layout, and their values; `tests/data/blocks/make.py` says whence.
fn fixture(format: Format) -> (&'static [u8], Vec<f32>) {
    macro_rules! file {
        ($name:literal) => {
            include_bytes!(concat!("../../tests/data/blocks/", $name, ".bin"))
        };
    }
    let bytes: &[u8] = match format {
        Format::F32 => file!("f32"),
        Format::F16 => file!("f16"),
        Format::BF16 => file!("bf16"),
        Format::F8E4M3 => panic!("F8 has a table of codes"),
        Format::Q8_0 => file!("q8_0"),
        Format::Q4_0 => file!("q4_0"),
        Format::Q4_1 => file!("q4_1"),
        Format::Q5_0 => file!("q5_0"),
        Format::Q5_1 => file!("q5_1"),
        Format::Q2K => file!("q2_k"),
        Format::Q3K => file!("q3_k"),
        Format::Q4K => file!("q4_k"),
        Format::Q5K => file!("q5_k"),
        Format::Q6K => file!("q6_k"),
        Format::IQ4NL => file!("iq4_nl"),
        Format::IQ4XS => file!("iq4_xs"),
        Format::MXFP4 => file!("mxfp4"),
    };
    let (native, expected) = bytes.split_at(2 * format.row_bytes(512).unwrap());
    (native, floats(expected))
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    words(bytes).map(f32::from_bits).collect()
}

fn packed(matrix: &Matrix<'_>) -> Vec<u8> {
    // Not zeros, so that padding which is not written shows.
    let mut out = vec![0xa5; matrix.rows * packed_row_bytes(matrix.format, matrix.cols)];
    matrix.pack(&mut out);
    out
}

/// Equal bit for bit, except that one NaN is as good as another.
fn same(a: &[f32], b: &[f32]) -> bool {
    let key = |x: &f32| if x.is_nan() { u32::MAX } else { x.to_bits() };
    a.iter().map(key).eq(b.iter().map(key))
}

fn f8_codes() -> Vec<f32> {
    floats(include_bytes!("../../tests/data/blocks/f8_e4m3.bin"))
}

#[test]
fn every_format_decodes_to_the_reference_in_both_layouts() {
    for format in Format::ALL.into_iter().filter(|&f| f != Format::F8E4M3) {
        let (data, expected) = fixture(format);
        assert_eq!(expected.len(), 1024);
        let native = Matrix::native(format, 2, 512, data, None);
        let bytes = packed(&native);
        for matrix in [native, Matrix::packed(format, 2, 512, &bytes)] {
            assert!(same(&matrix.to_f32(), &expected), "{format} {:?}", matrix.layout);
            assert_eq!(matrix.find_non_finite(), None, "{format}");
            for b in 0..if format.is_quantised() { 32 } else { 0 } {
                let weights = matrix.block32(b / 16, b % 16).weights();
                assert!(same(&weights, &expected[b * 32..][..32]), "{format} {:?} block {b}", matrix.layout);
            }
        }
    }
}

#[test]
fn f8_codes_match_the_reference() {
    let codes: Vec<f32> = (0..=255).map(f8_to_f32).collect();
    assert!(same(&codes, &f8_codes()));
    assert_eq!(codes.iter().copied().fold(0.0, f32::max), float::F8_MAX);
}

#[test]
fn ragged_f8_blocks_take_their_own_scales() {
    for (rows, cols) in [(1_usize, 1_usize), (129, 131), (128, 128), (257, 130), (3, 259), (130, 4)] {
        let codes: Vec<u8> = (0..rows * cols).map(|i| (i * 37 + i / 11) as u8 & 0xfe).collect();
        let (row_blocks, col_blocks) = (rows.div_ceil(128), cols.div_ceil(128));
        let scale = |block: usize| 0.01 * (1 + block) as f32;
        let scales: Vec<u8> = (0..row_blocks * col_blocks).flat_map(|b| scale(b).to_le_bytes()).collect();
        let table = f8_codes();
        let block = |i: usize| i / cols / 128 * col_blocks + i % cols / 128;
        let expected: Vec<f32> = (0..rows * cols).map(|i| table[codes[i] as usize] * scale(block(i))).collect();

        let native = Matrix::native(Format::F8E4M3, rows, cols, &codes, Some(&scales));
        let bytes = packed(&native);
        assert_eq!(bytes.len(), rows * (cols.next_multiple_of(4) + 4 * col_blocks));
        for matrix in [native, Matrix::packed(Format::F8E4M3, rows, cols, &bytes)] {
            assert!(same(&matrix.to_f32(), &expected), "[{rows}, {cols}] {:?}", matrix.layout);
            for b in 0..row_blocks * col_blocks {
                assert_eq!(matrix.f8_scale(b / col_blocks, b % col_blocks), scale(b));
            }
            assert_eq!(matrix.find_non_finite(), None);
        }
    }
}

/// All 65536 values of the two 16-bit formats against their definition, and back.
#[test]
fn sixteen_bit_floats_follow_their_definition() {
    let value = |bits: u16, mantissa_bits: i32, bias: i32| -> f64 {
        let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
        let exponent = i32::from(bits & 0x7fff) >> mantissa_bits;
        let fraction = f64::from(bits & ((1 << mantissa_bits) - 1)) / f64::from(1 << mantissa_bits);
        match (exponent, fraction) {
            (e, 0.0) if e == 2 * bias + 1 => sign * f64::INFINITY,
            (e, _) if e == 2 * bias + 1 => f64::NAN,
            (0, f) => sign * f * f64::from(1 - bias).exp2(),
            (e, f) => sign * (1.0 + f) * f64::from(e - bias).exp2(),
        }
    };
    for bits in 0..=u16::MAX {
        let (half, brain) = (half_to_f32(bits), bf16_to_f32(bits));
        assert!(same(&[half], &[value(bits, 10, 15) as f32]), "f16 {bits:#06x}");
        assert!(same(&[brain], &[value(bits, 7, 127) as f32]), "bf16 {bits:#06x}");
        assert!(half.is_nan() || f32_to_half(half) == bits, "f16 {bits:#06x}");
        assert!(brain.is_nan() || f32_to_bf16(brain) == bits, "bf16 {bits:#06x}");
    }
}

#[test]
fn sixteen_bit_floats_round_to_nearest_ties_to_even() {
    let tie = |a: f32, b: f32| (a + b) / 2.0;
    for low in [0x3c00_u16, 0x3c01, 0x0001, 0x4abc] {
        let even = low + (low & 1);
        let x = tie(half_to_f32(low), half_to_f32(low + 1));
        assert_eq!(f32_to_half(x), even);
        assert_eq!((f32_to_half(x.next_down()), f32_to_half(x.next_up())), (low, low + 1));
        let x = tie(bf16_to_f32(low), bf16_to_f32(low + 1));
        assert_eq!(f32_to_bf16(x), even);
        assert_eq!((f32_to_bf16(x.next_down()), f32_to_bf16(x.next_up())), (low, low + 1));
    }
    assert_eq!(f32_to_half(65519.0), 0x7bff);
    assert_eq!(f32_to_half(65520.0), 0x7c00);
}

#[test]
fn e8m0_scales_are_powers_of_two() {
    assert!((0..255).all(|e| f64::from(e8m0_to_f32(e)) == f64::from(i32::from(e) - 127).exp2()));
    assert!(e8m0_to_f32(255).is_nan());
}

/// Packs `blocks` blocks whose byte i is i + 64 * block, and names the bytes of the packed row by (block, i).
fn packed_order(format: Format, blocks: usize) -> Vec<Option<(usize, usize)>> {
    let block_bytes = format.block_bytes();
    // A byte can name 256 places at most: pack the block numbers and the offsets separately.
    let pack = |name: &dyn Fn(usize) -> u8| {
        let data: Vec<u8> = (0..blocks * block_bytes).map(name).collect();
        packed(&Matrix::native(format, 1, blocks * format.block_len(), &data, None))
    };
    let numbers = pack(&|i| 1 + (i / block_bytes) as u8);
    let offsets = pack(&|i| (i % block_bytes) as u8);
    assert!(numbers.len().is_multiple_of(4));
    numbers.iter().zip(offsets).map(|(&b, i)| (b > 0).then(|| (usize::from(b) - 1, usize::from(i)))).collect()
}

#[test]
fn packed_rows_are_laid_out_as_documented() {
    // Each plane as offsets (from, to) in the native block, as the module's table has them.
    let table: [(Format, &[(usize, usize)]); 16] = [
        (Format::F32, &[(0, 4)]),
        (Format::F16, &[(0, 2)]),
        (Format::BF16, &[(0, 2)]),
        (Format::Q8_0, &[(2, 34), (0, 2)]),
        (Format::Q4_0, &[(2, 18), (0, 2)]),
        (Format::IQ4NL, &[(2, 18), (0, 2)]),
        (Format::Q4_1, &[(4, 20), (0, 4)]),
        (Format::Q5_0, &[(6, 22), (2, 6), (0, 2)]),
        (Format::Q5_1, &[(8, 24), (4, 8), (0, 4)]),
        (Format::MXFP4, &[(1, 17), (0, 1)]),
        (Format::Q2K, &[(0, 84)]),
        (Format::Q4K, &[(0, 144)]),
        (Format::Q5K, &[(0, 176)]),
        (Format::IQ4XS, &[(0, 136)]),
        (Format::Q3K, &[(0, 108), (108, 110)]),
        (Format::Q6K, &[(0, 208), (208, 210)]),
    ];
    for ((format, planes), blocks) in table.into_iter().flat_map(|row| [1, 3, 4].map(|blocks| (row, blocks))) {
        let mut expected = Vec::new();
        for &(from, to) in planes {
            expected.extend((0..blocks).flat_map(|b| (from..to).map(move |i| Some((b, i)))));
            expected.resize(expected.len().next_multiple_of(4), None);
        }
        assert_eq!(packed_order(format, blocks), expected, "{format}, {blocks} blocks");
        assert_eq!(packed_row_bytes(format, blocks * format.block_len()), expected.len());
    }
}

/// A matrix that owns its bytes.
#[derive(Clone, Debug)]
struct Owned {
    format: Format,
    rows: usize,
    cols: usize,
    data: Vec<u8>,
    scales: Option<Vec<u8>>,
}

impl Owned {
    fn matrix(&self) -> Matrix<'_> {
        Matrix::native(self.format, self.rows, self.cols, &self.data, self.scales.as_deref())
    }

    /// Offsets in the native block of everything that can make a weight non-finite, by the format's definition.
    fn delicate(&self) -> &'static [usize] {
        match self.format {
            Format::Q4_1 | Format::Q5_1 | Format::Q4K | Format::Q5K => &[0, 2],
            Format::Q2K => &[80, 82],
            Format::Q3K => &[108],
            Format::Q6K => &[208],
            _ => &[0],
        }
    }

    /// Makes every weight finite.
    fn tame(mut self) -> Self {
        let (format, delicate) = (self.format, self.delicate());
        for block in self.data.chunks_exact_mut(format.block_bytes()) {
            for &at in delicate {
                match format {
                    Format::F32 => block[3] &= 0xbf,
                    Format::F8E4M3 => block[0] &= 0xfe,
                    Format::MXFP4 => block[0] %= 253,
                    _ => block[at + 1] &= 0xbf,
                }
            }
        }
        for scale in self.scales.iter_mut().flat_map(|s| s.chunks_exact_mut(4)) {
            scale[3] &= 0xbf;
        }
        self
    }
}

/// Random bytes in any format, NaN and infinity included.
fn any_matrix() -> impl Strategy<Value = Owned> {
    (prop::sample::select(Format::ALL.to_vec()), 0_usize..4, 0_usize..5, 0_usize..300).prop_flat_map(
        |(format, rows, blocks, cols)| {
            let cols = if format.is_quantised() { blocks * format.block_len() } else { cols };
            let rows = if format == Format::F8E4M3 { rows * 67 } else { rows };
            let scales = 4 * rows.div_ceil(128) * cols.div_ceil(128);
            let bytes = |len: usize| prop::collection::vec(any::<u8>(), len);
            (bytes(rows * format.row_bytes(cols).unwrap()), bytes(scales)).prop_map(move |(data, scales)| {
                let scales = (format == Format::F8E4M3).then_some(scales);
                Owned { format, rows, cols, data, scales }
            })
        },
    )
}

fn first_non_finite(matrix: &Matrix<'_>) -> Option<(usize, usize)> {
    matrix.to_f32().iter().position(|w| !w.is_finite()).map(|i| (i / matrix.cols, i % matrix.cols))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn both_layouts_hold_the_same_weights(owned in any_matrix()) {
        let native = owned.matrix();
        let bytes = packed(&native);
        let packed = Matrix::packed(owned.format, owned.rows, owned.cols, &bytes);
        prop_assert!(same(&native.to_f32(), &packed.to_f32()));
        let mut row = vec![0.0; owned.cols];
        for (r, b) in (0..owned.rows).flat_map(|r| (0..owned.cols / 32).map(move |b| (r, b))) {
            if owned.format.is_quantised() {
                let (x, y) = (native.block32(r, b), packed.block32(r, b));
                prop_assert!(x.q == y.q && same(&x.s, &y.s) && same(&x.m, &y.m));
                native.dequantise_row(r, &mut row);
                prop_assert!(same(&x.weights(), &row[b * 32..][..32]));
            }
        }
    }

    #[test]
    fn the_first_non_finite_weight_is_found(owned in any_matrix()) {
        let native = owned.matrix();
        let bytes = packed(&native);
        let expected = first_non_finite(&native);
        prop_assert_eq!(native.find_non_finite(), expected);
        prop_assert_eq!(Matrix::packed(owned.format, owned.rows, owned.cols, &bytes).find_non_finite(), expected);
    }

    #[test]
    fn one_planted_non_finite_value_is_found(
        owned in any_matrix().prop_map(Owned::tame), at in any::<prop::sample::Index>(), field in 0_usize..2,
        nan in any::<bool>(), in_scales in any::<bool>(),
    ) {
        prop_assert_eq!(owned.matrix().find_non_finite(), None);
        prop_assert_eq!(first_non_finite(&owned.matrix()), None);
        if owned.data.is_empty() {
            return Ok(());
        }
        let (len, block_bytes) = owned.format.block();
        let (mut bad, block) = (owned.clone(), at.index(owned.rows * owned.cols / len));
        let delicate = owned.delicate()[field % owned.delicate().len()];
        let target = &mut bad.data[block * block_bytes + delicate..];
        let mut expected = (block * len / owned.cols, block * len % owned.cols);
        match (owned.format, &mut bad.scales) {
            (Format::F32, _) => target[..4].copy_from_slice(&if nan { f32::NAN } else { -f32::INFINITY }.to_le_bytes()),
            (Format::BF16, _) => target[..2].copy_from_slice(&if nan { 0x7fc0_u16 } else { 0xff80 }.to_le_bytes()),
            (Format::F8E4M3, Some(scales)) if in_scales => {
                let (rows, cols) = (expected.0 / 128, expected.1 / 128);
                expected = (rows * 128, cols * 128);
                let value = if nan { f32::NAN } else { f32::INFINITY };
                scales[4 * (rows * owned.cols.div_ceil(128) + cols)..][..4].copy_from_slice(&value.to_le_bytes());
            }
            (Format::F8E4M3, _) => target[0] = if nan { 0x7f } else { 0xff },
            (Format::MXFP4, _) => target[0] = 255,
            _ => target[..2].copy_from_slice(&if nan { 0x7e00_u16 } else { 0xfc00 }.to_le_bytes()),
        }
        let bytes = packed(&bad.matrix());
        prop_assert_eq!(bad.matrix().find_non_finite(), Some(expected));
        prop_assert_eq!(Matrix::packed(bad.format, bad.rows, bad.cols, &bytes).find_non_finite(), Some(expected));
    }

    #[test]
    fn quantised_rows_are_near(x in prop::collection::vec(-100.0_f32..100.0, 256)) {
        // Half a step, in parts of the block's largest magnitude; a whole one for Q4_0, which clips +8 to +7.
        for (format, bound) in [(Format::Q8_0, 0.5 / 127.0), (Format::Q4_0, 1.0 / 8.0)] {
            for (x, y) in x.chunks_exact(32).zip(round_trip(format, &x).chunks_exact(32)) {
                let largest = x.iter().fold(0.0_f32, |a, x| a.max(x.abs()));
                prop_assert!(x.iter().zip(y).all(|(x, y)| (x - y).abs() <= largest * (bound + 0.001) + 1e-6), "{format}");
            }
        }
        // A least-squares fit is bounded in the mean: here by half of Q4_K's coarsest step, 2/15, and what rounding scale
        // and minimum to 6 bits adds; by a whole step of Q6_K, which clips +32 to +31.
        for (format, bound) in [(Format::Q4K, 1.0 / 15.0 + 1.5 / 63.0), (Format::Q6K, 1.0 / 32.0)] {
            let error: f32 = x.iter().zip(round_trip(format, &x)).map(|(x, y)| (x - y).powi(2)).sum();
            let largest = x.iter().fold(0.0_f32, |a, x| a.max(x.abs()));
            prop_assert!((error / 256.0).sqrt() <= largest * bound, "{format}");
        }
    }
}

#[test]
fn quantised_rows_match_the_reference_bit_for_bit() {
    let (x, mut expected) = include_bytes!("../../tests/data/blocks/quantise.bin").split_at(1024);
    for format in [Format::Q8_0, Format::Q4_0, Format::F16, Format::BF16] {
        let mut out = vec![7];
        quantise_row(format, &floats(x), &mut out).unwrap();
        let (bytes, rest) = expected.split_at(format.row_bytes(256).unwrap());
        assert_eq!(&out[1..], bytes, "{format}");
        expected = rest;
    }
    let mut out = Vec::new();
    quantise_row(Format::F32, &floats(x), &mut out).unwrap();
    assert_eq!(out, x);
}

/// Standard normal weights by the sum of twelve uniform ones.
fn normal(n: usize) -> Vec<f32> {
    let mut state = 1_u64;
    let mut uniform = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 40) as f32 / (1 << 24) as f32
    };
    (0..n).map(|_| (0..12).map(|_| uniform()).sum::<f32>() - 6.0).collect()
}

fn round_trip(format: Format, x: &[f32]) -> Vec<f32> {
    let mut data = Vec::new();
    quantise_row(format, x, &mut data).unwrap();
    Matrix::native(format, 1, x.len(), &data, None).to_f32()
}

/// Root of the mean square error over that of the weights.
fn relative_error(x: &[f32], y: &[f32]) -> f32 {
    let error: f32 = x.iter().zip(y).map(|(x, y)| (x - y).powi(2)).sum();
    (error / x.iter().map(|x| x * x).sum::<f32>()).sqrt()
}

#[test]
fn super_blocks_quantise_normal_weights_well() {
    let x = normal(1 << 16);
    for (format, bound) in [(Format::Q8_0, 0.006), (Format::Q6K, 0.018), (Format::Q4K, 0.073), (Format::Q4_0, 0.09)] {
        let error = relative_error(&x, &round_trip(format, &x));
        assert!(error < bound, "{format}: {error}");
    }
}

#[test]
fn super_blocks_keep_what_they_can_hold() {
    for format in [Format::Q4K, Format::Q6K] {
        for constant in [0.0, 1.5, -2.5] {
            assert!(
                round_trip(format, &[constant; 256]).iter().all(|y| (y - constant).abs() <= 0.02 * constant.abs()),
                "{format}"
            );
        }
        // Weights that llama.cpp quantised to this format are representable, to the rounding of their scales.
        let weights = &fixture(format).1[..512];
        let error = relative_error(weights, &round_trip(format, weights));
        assert!(error < if format == Format::Q4K { 0.03 } else { 0.012 }, "{format}: {error}");
    }
}

#[test]
fn what_cannot_be_quantised_is_refused_or_shows() {
    let mut out = Vec::new();
    assert_eq!(quantise_row(Format::Q8_0, &[0.0; 33], &mut out), None);
    assert_eq!(quantise_row(Format::MXFP4, &[0.0; 32], &mut out), None);
    assert!(out.is_empty());
    for format in [Format::Q8_0, Format::Q4_0, Format::Q4K, Format::Q6K] {
        let len = format.block_len();
        for (bad, at) in [f32::NAN, f32::INFINITY, -1e30, -3e38].into_iter().flat_map(|x| [0, 5, len - 1].map(|at| (x, at))) {
            let mut x = vec![1.0; 2 * len];
            x[len + at] = bad;
            out.clear();
            quantise_row(format, &x, &mut out).unwrap();
            let found = Matrix::native(format, 1, 2 * len, &out, None).find_non_finite();
            assert_eq!(found, Some((0, len)), "{format} {bad}");
        }
    }
}

#[test]
fn wrong_lengths_panic() {
    let panics = |f: &dyn Fn()| std::panic::catch_unwind(std::panic::AssertUnwindSafe(f)).is_err();
    let data = [0; 68];
    let native = |format, rows, cols, len: usize, scales: Option<usize>| {
        panics(&|| _ = Matrix::native(format, rows, cols, &data[..len], scales.map(|n| &data[..n])))
    };
    assert!(!native(Format::Q8_0, 1, 64, 68, None));
    assert!(native(Format::Q8_0, 1, 64, 67, None));
    assert!(native(Format::Q8_0, 2, 33, 68, None));
    assert!(!native(Format::F8E4M3, 1, 68, 68, Some(4)));
    assert!(native(Format::F8E4M3, 1, 68, 68, None));
    assert!(native(Format::F8E4M3, 1, 68, 68, Some(8)));
    assert!(panics(&|| _ = Matrix::packed(Format::Q8_0, 1, 32, &data)));
    let matrix = Matrix::native(Format::Q8_0, 1, 64, &data, None);
    assert!(panics(&|| _ = matrix.block32(0, 2)));
    assert!(panics(&|| _ = matrix.row(1)));
    assert!(panics(&|| _ = matrix.f8_scale(0, 0)));
    assert!(panics(&|| matrix.pack(&mut [0; 64])));
    assert!(panics(&|| matrix.dequantise_row(0, &mut [0.0; 63])));
}
