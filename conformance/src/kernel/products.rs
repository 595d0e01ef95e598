//! `embed`, `matvec`, `matmat` and `swiglu`: products with weights of every format.

use pleiad_models::Format;
use pleiad_runtime::{
    gpu::Tier,
    plan::{Heads, Kind, Op},
};

use super::{Bound, measure, measure_any};
use crate::{
    case::{Cases, Context, Result, Stop},
    setup::{Rng, Setup, Weights, repeated, tensor, tensor_of},
};

/// NMSE of f32 sums in any order against exact ones.
const SUMS: f64 = 1e-10;
/// Rows of a period of large matrices: no power of two divides a distance between equal rows.
const PERIOD: usize = 67;

/// What stands beside the matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Plain,
    /// Added to what is there.
    Add,
    /// Read from the middle of wider rows that start anywhere.
    Unaligned,
    /// With a gate in that format.
    Gated(Format),
}

/// A product of one variant.
#[derive(Clone, Copy, Debug)]
struct Product {
    format: Format,
    form: Form,
    kind: Kind,
    rows: usize,
    cols: usize,
    tokens: usize,
    /// Tokens that the plan is for.
    most: usize,
    weights: Weights,
}

/// Columns of short rows, and of rows that 32 threads share or more.
fn columns(format: Format) -> (usize, usize) {
    match format.block_len() {
        1 => (24, 1024),
        32 => (96, 1056),
        _ => (256, 1280),
    }
}

/// Names of activations in ids.
pub(super) fn kind_name(kind: Kind) -> &'static str {
    if kind == Kind::Q8 { "q8" } else { "f32" }
}

/// Activations that products with such weights take.
pub(super) fn kinds(format: Format) -> &'static [Kind] {
    if format.is_quantised() { &[Kind::F32, Kind::Q8] } else { &[Kind::F32] }
}

/// A gate of the same kind, but of another format.
pub(super) fn other(format: Format) -> Format {
    if format.is_quantised() { Format::Q6K } else { Format::BF16 }
}

pub(super) fn tier_name(tier: Tier) -> &'static str {
    if tier == Tier::Subgroup { "subgroup" } else { "plain" }
}

impl Product {
    fn id(&self, kernel: &str, tier: Option<Tier>) -> String {
        let form = match self.form {
            Form::Plain => String::new(),
            Form::Add => "/added".into(),
            Form::Unaligned => "/unaligned".into(),
            Form::Gated(gate) => format!("/gated by {gate}"),
        };
        let exact = if self.weights == Weights::Exact { "/exact" } else { "" };
        let tier = tier.map_or(String::new(), |t| format!("/{}", tier_name(t)));
        let Self { format, rows, cols, tokens, most, .. } = self;
        let of = if most > tokens { format!(" of {most}") } else { String::new() };
        format!(
            "kernel/{kernel}/{format}/{}{form}{tier}{exact}/rows {rows} columns {cols} tokens {tokens}{of}",
            kind_name(self.kind)
        )
    }

    fn setup(&self) -> Setup {
        let Self { format, form, kind, rows, cols, tokens, most, weights } = *self;
        let mut rng = Rng::new((rows * 31 + cols * 7 + tokens) as u64);
        let mut s = Setup::new("product", tokens, most);
        let w = tensor_of(&mut rng, weights, format, 1, rows, cols);
        let w = s.mat(w);
        let x = match weights {
            Weights::Random => rng.rows(tokens, cols),
            Weights::Exact => whole(&mut rng, tokens * cols),
        };
        let (mut width, mut offset) = (cols, 0);
        let x = if form == Form::Unaligned {
            (width, offset) = (cols + 7, 3);
            x.chunks(cols).flat_map(|row| [&[9.0f32; 3][..], row, &[-9.0f32; 4][..]].concat()).collect()
        } else {
            x
        };
        let x = s.input(kind, width, x);
        if form == Form::Add {
            let before = whole(&mut rng, tokens * rows);
            let out = s.input(Kind::F32, rows, before);
            s.outputs.push(out);
            s.op(Op::MatMul { w, x, out, add: true });
            return s;
        }
        let out = s.output(Kind::F32, rows);
        match form {
            Form::Plain | Form::Add => s.op(Op::MatMul { w, x, out, add: false }),
            Form::Unaligned => {
                let (x, out) = (Heads { act: x, offset, stride: width }, Heads { act: out, offset: 0, stride: rows });
                s.op(Op::HeadMatMul { w, x, out });
            }
            Form::Gated(gate) => {
                let gate = tensor(&mut rng, gate, 1, rows, cols);
                let gate = s.mat(gate);
                s.op(Op::GatedMatMul { gate, up: w, x, out });
            }
        }
        s
    }

    /// The same with rows that repeat, so that the twin has few to compute.
    fn large(&self) -> Setup {
        let one = Self { rows: PERIOD, ..*self }.setup();
        let mut s = self.header();
        for t in &one.mats {
            s.mats.push(repeated(t, self.rows));
        }
        let x = s.input(self.kind, self.cols, one.inputs[0].1.clone());
        let out = s.output(Kind::F32, self.rows);
        let w = pleiad_runtime::plan::MatId(0);
        match self.form {
            Form::Gated(_) => s.op(Op::GatedMatMul { gate: pleiad_runtime::plan::MatId(1), up: w, x, out }),
            _ => s.op(Op::MatMul { w, x, out, add: false }),
        }
        s.period = Some((Box::new(one), PERIOD));
        s
    }

    fn header(&self) -> Setup {
        Setup::new("large product", self.tokens, self.most)
    }

    fn bound(&self) -> Bound {
        if self.weights == Weights::Exact { Bound::Exact } else { Bound::Nmse(SUMS) }
    }

    fn add(self, cases: &mut Cases<'_>, kernel: &str, tier: Option<Tier>) {
        cases.add(self.id(kernel, tier), async move |cx: Context| {
            measure(&cx, tier.unwrap_or(cx.gpu.tier), &self.setup(), self.bound()).await
        });
    }
}

/// Whole numbers: in each 32 one of 127, so that 8-bit activations have a scale of 1, and small ones.
fn whole(rng: &mut Rng, n: usize) -> Vec<f32> {
    let mut all: Vec<f32> = (0..n).map(|_| rng.below(3) as f32 - 1.0).collect();
    for block in all.chunks_mut(32) {
        let at = rng.below(block.len());
        block[at] = if rng.below(2) == 0 { 127.0 } else { -127.0 };
    }
    all
}

pub(super) fn add(cases: &mut Cases<'_>) {
    embed(cases);
    for (n, format) in Format::ALL.into_iter().enumerate() {
        for &kind in kinds(format) {
            matvec(cases, format, kind, n);
            matmat(cases, format, kind, n);
        }
        exact(cases, format, n);
    }
    for &(gate, up) in &[(Format::F16, Format::Q8_0), (Format::Q5K, Format::F32)] {
        // Different kinds are not fused: `swiglu` joins them.
        for tokens in [1, 20] {
            let cols = 512;
            let form = Form::Gated(gate);
            let p =
                Product { format: up, form, kind: Kind::F32, rows: 300, cols, tokens, most: tokens, weights: Weights::Random };
            p.add(cases, "swiglu", None);
        }
    }
    large(cases);
}

fn forms(format: Format) -> [Form; 4] {
    [Form::Plain, Form::Add, Form::Gated(format), Form::Gated(other(format))]
}

/// [`columns`] that suit a gate too.
fn columns_of(format: Format, form: Form) -> (usize, usize) {
    match form {
        Form::Gated(gate) if gate.block_len() > format.block_len() => columns(gate),
        _ => columns(format),
    }
}

/// Forms that the short run leaves out: the same decoders are in what it keeps.
fn left_out(format: Format, kind: Kind, form: Form) -> bool {
    let twice = format.is_quantised() && kind == Kind::F32;
    form == Form::Gated(other(format)) || twice && form != Form::Plain
}

fn matvec(cases: &mut Cases<'_>, format: Format, kind: Kind, n: usize) {
    let quick = cases.settings.quick;
    let (short, long) = columns(format);
    let one = Product { format, form: Form::Plain, kind, rows: 77, cols: short, tokens: 1, most: 1, weights: Weights::Random };
    for (f, form) in forms(format).into_iter().enumerate() {
        if quick && left_out(format, kind, form) || f == 3 && format == other(format) {
            continue;
        }
        let (short, long) = columns_of(format, form);
        let p = Product { form, cols: short, ..one };
        if !quick {
            p.add(cases, "matvec", Some(Tier::Plain));
        }
        for (t, tokens) in [1usize, 2, 3, 8].into_iter().enumerate() {
            if quick && t != (n + f) % 4 {
                continue;
            }
            let p = Product { rows: 130, cols: long, tokens, most: tokens.next_power_of_two(), ..p };
            if quick {
                p.add(cases, "matvec", Some(if n.is_multiple_of(2) { Tier::Subgroup } else { Tier::Plain }));
                continue;
            }
            for tier in [Tier::Subgroup, Tier::Plain] {
                p.add(cases, "matvec", Some(tier));
                // Rows that end within a group of four.
                if !format.is_quantised() {
                    Product { cols: 1030, ..p }.add(cases, "matvec", Some(tier));
                }
            }
        }
    }
    if kind == Kind::F32 && !(quick && n.is_multiple_of(2)) {
        for tokens in if quick { &[1][..] } else { &[1, 2, 3, 8] } {
            let most = usize::next_power_of_two(*tokens);
            let p = Product { form: Form::Unaligned, tokens: *tokens, most, ..one };
            p.add(cases, "matvec", Some(Tier::Plain));
            if !quick {
                Product { cols: long, ..p }.add(cases, "matvec", Some(Tier::Subgroup));
            }
        }
    }
}

fn matmat(cases: &mut Cases<'_>, format: Format, kind: Kind, n: usize) {
    let quick = cases.settings.quick;
    let (short, _) = columns(format);
    let one = Product { format, form: Form::Plain, kind, rows: 77, cols: short, tokens: 17, most: 20, weights: Weights::Random };
    for (f, form) in forms(format).into_iter().enumerate() {
        if quick && (left_out(format, kind, form) || form == Form::Add) || f == 3 && format == other(format) {
            continue;
        }
        let (short, long) = columns_of(format, form);
        let small = Product { form, cols: short, ..one };
        let wide = Product { rows: 130, cols: if quick { short } else { long }, tokens: 70, most: 70, ..small };
        if !quick || (n + f).is_multiple_of(2) {
            small.add(cases, "matmat", None);
        }
        if !quick || (n + f) % 2 == 1 {
            wide.add(cases, "matmat", None);
        }
        if !quick && !format.is_quantised() {
            Product { cols: 131, tokens: 9, most: 9, ..small }.add(cases, "matmat", None);
            Product { cols: 131, tokens: 40, most: 40, ..small }.add(cases, "matmat", None);
        }
    }
    if kind == Kind::F32 && !quick {
        for tokens in [20, 65] {
            Product { form: Form::Unaligned, tokens, most: tokens, ..one }.add(cases, "matmat", None);
        }
    }
}

/// Whole numbers times powers of two: a scale that is wrong in its last bit shows, and rounding excuses nothing.
fn exact(cases: &mut Cases<'_>, format: Format, n: usize) {
    for &kind in kinds(format) {
        let one = Product { format, form: Form::Plain, kind, rows: 130, cols: 256, tokens: 1, most: 1, weights: Weights::Exact };
        one.add(cases, "matvec", Some(Tier::Plain));
        if !cases.settings.quick {
            let cols = if format.is_quantised() { 1024 } else { 256 };
            // Sums of longer rows need more bits than there are for these.
            if !matches!(format, Format::Q6K | Format::IQ4XS) {
                Product { cols, ..one }.add(cases, "matvec", Some(Tier::Subgroup));
            }
            Product { tokens: 8, most: 8, ..one }.add(cases, "matvec", Some(Tier::Plain));
        }
        if !(cases.settings.quick && kind == Kind::F32 && format.is_quantised() && n.is_multiple_of(2)) {
            Product { tokens: 9, most: 9, ..one }.add(cases, "matmat", None);
        }
    }
}

/// Matrices that make a thread take several rows, and matrices as large as a binding.
fn large(cases: &mut Cases<'_>) {
    let quick = cases.settings.quick;
    for format in Format::ALL {
        let popular = matches!(format, Format::Q4K | Format::F16);
        for &kind in kinds(format) {
            for form in [Form::Plain, Form::Gated(format)] {
                for (tokens, rows) in [(1, 4500), (1, 17_000), (8, 17_000)] {
                    if quick && !(popular && rows == 4500 && form == Form::Plain) {
                        continue;
                    }
                    let (_, cols) = columns(format);
                    let p = Product { format, form, kind, rows, cols, tokens, most: tokens, weights: Weights::Random };
                    let tier = if tokens == 1 { Tier::Subgroup } else { Tier::Plain };
                    cases.add(p.id("matvec", Some(tier)), async move |cx: Context| {
                        measure(&cx, tier, &p.large(), p.bound()).await
                    });
                }
            }
        }
    }
    for mebibytes in [128usize, 512, 2047] {
        if quick && mebibytes > 128 {
            continue;
        }
        let id = format!("kernel/matvec/Q8_0/q8/largest binding/{mebibytes} MiB");
        cases.add(id, async move |cx: Context| largest(&cx, mebibytes).await);
    }
}

/// Most MiB of weights that a test makes in memory.
const MOST_MEBIBYTES: usize = if cfg!(target_arch = "wasm32") { 32 } else { 600 };

async fn largest(cx: &Context, mebibytes: usize) -> Result {
    let most = cx.gpu.max_binding();
    if ((mebibytes as u64) << 20) > most + 256 {
        return Err(Stop::Skip(format!("the device binds {} MiB", most >> 20)));
    }
    if mebibytes > MOST_MEBIBYTES {
        return Err(Stop::Skip(format!("a test makes {MOST_MEBIBYTES} MiB of weights at the most")));
    }
    // Packed rows of 4096 columns: quants and f16 scales.
    let cols = 4096;
    let rows = (most.min((mebibytes as u64) << 20) / (cols as u64 * 34 / 32)) as usize;
    let p = Product {
        format: Format::Q8_0,
        form: Form::Plain,
        kind: Kind::Q8,
        rows,
        cols,
        tokens: 1,
        most: 1,
        weights: Weights::Random,
    };
    let outcome = measure_any(cx, &p.large(), p.bound()).await?;
    Ok(outcome.say(format!("{rows} rows of {cols} columns")))
}

fn embed(cases: &mut Cases<'_>) {
    for format in Format::ALL {
        let widths: &[usize] = match format.block_len() {
            1 => &[130, 24, 512],
            32 => &[96, 32, 2080],
            _ => &[2304, 256],
        };
        for &width in if cases.settings.quick { &widths[..1] } else { widths } {
            cases.add(format!("kernel/embed/{format}/width {width}"), async move |cx: Context| {
                let mut rng = Rng::new(width as u64);
                let mut s = Setup::new("embed", 5, 5);
                let table = tensor(&mut rng, format, 1, 37, width);
                let table = s.mat(table);
                let out = s.output(Kind::F32, width);
                s.ids = vec![36, 0, 17, 17, 5];
                s.op(Op::Embed { table, out });
                measure_any(&cx, &s, Bound::Nmse(1e-13)).await
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The twin of exact weights has no fractions beyond what f32 holds: every partial sum is a multiple of one power of two, and
    /// below 2^24 of them.
    #[test]
    fn exact_weights_have_exact_sums() {
        for format in Format::ALL {
            let mut rng = Rng::new(5);
            let cols = 256;
            let t = tensor_of(&mut rng, Weights::Exact, format, 1, 64, cols);
            let x = whole(&mut rng, cols);
            let m = t.matrix(0);
            let mut row = vec![0.0; cols];
            for r in 0..64 {
                m.dequantise_row(r, &mut row);
                let unit = row.iter().filter(|w| **w != 0.0).map(|w| lowest_bit(*w)).fold(f64::INFINITY, f64::min);
                // Any partial sum, of what is subtracted apart from what is added too, is below the sum of magnitudes.
                let most: f64 = row.iter().zip(&x).map(|(w, x)| f64::from(w * x).abs()).sum();
                assert!(most / unit < f64::powi(2.0, 24), "{format}: {most} in units of {unit}");
            }
        }
    }

    /// The value of the lowest bit set.
    fn lowest_bit(x: f32) -> f64 {
        let bits = x.to_bits();
        let mantissa = (bits & 0x7f_ffff) | 0x80_0000;
        let exponent = ((bits >> 23) & 0xff) as i32 - 150;
        f64::powi(2.0, exponent + mantissa.trailing_zeros() as i32)
    }
}
