//! `latent`, `attend`, `attend_merge`, `expand`, `attend_expanded`.

use pleiad_models::{Format, config::Attention};
use pleiad_runtime::{
    CacheFormat,
    plan::{Heads, Kind, Op, VecId},
};

use super::{Bound, measure_any};
use crate::{
    case::{Cases, Context},
    setup::{Rng, Setup, config, tensor},
};

/// An f16 cache rounds what it stores: a latent that differs in its last bit may round to the other neighbour.
fn bound(cache: CacheFormat) -> f64 {
    match cache {
        CacheFormat::F16 => 1e-7,
        CacheFormat::F32 => 1e-11,
    }
}

/// Heads, latent, rope key.
type Shape = (usize, usize, usize);

fn attention((heads, r, dr): Shape) -> Attention {
    Attention { num_heads: heads, q_lora_rank: None, kv_lora_rank: r, qk_nope_head_dim: 24, qk_rope_head_dim: dr, v_head_dim: 40 }
}

/// Rows that the cache holds after the step, tokens of it, tokens of the plan.
#[derive(Clone, Copy)]
struct Length {
    rows: usize,
    tokens: usize,
    most: usize,
}

impl std::fmt::Display for Length {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "rows {} tokens {}", self.rows, self.tokens)?;
        if self.most > self.tokens { write!(f, " of {}", self.most) } else { Ok(()) }
    }
}

/// A setup whose cache holds the rows before a step, and appends those of the step.
fn cached(a: &Attention, cache: CacheFormat, length: Length) -> Setup {
    let Length { rows, tokens, most } = length;
    let mut rng = Rng::new(rows as u64 * 31 + tokens as u64);
    let mut s = Setup::new("attention", tokens, most);
    let width = a.cache_width();
    s.vec(rng.vector(a.kv_lora_rank).iter().map(|w| 1.0 + 0.2 * w).collect());
    s.config = config(a.clone(), true, None);
    s.cache = cache;
    s.positions = rows.next_multiple_of(64) + 64;
    s.step.pos = (rows - tokens) as u32;
    s.history = rng.vector((rows - tokens) * width);
    let kv = rng.vector(tokens * width);
    let kv = s.input(Kind::F32, width, kv);
    s.op(Op::Latent { kv, norm: VecId(0), eps: 1e-6, layer: 0 });
    s
}

fn absorbed(shape: Shape, cache: CacheFormat, length: Length) -> Setup {
    let a = attention(shape);
    let (heads, r, _) = shape;
    let mut s = cached(&a, cache, length);
    let mut rng = Rng::new(40);
    let q_latent = rng.vector(length.tokens * heads * r);
    let q_latent = s.input(Kind::F32, heads * r, q_latent);
    let stride = a.qk_head_dim();
    let q = rng.vector(length.tokens * heads * stride);
    let q = s.input(Kind::F32, heads * stride, q);
    let out = s.output(Kind::F32, heads * r);
    s.op(Op::Attend { q_latent, q_rope: Heads { act: q, offset: a.qk_nope_head_dim, stride }, layer: 0, out });
    s
}

fn expanded(a: &Attention, format: Format, cache: CacheFormat, length: Length) -> Setup {
    let (heads, r) = (a.num_heads, a.kv_lora_rank);
    let mut s = cached(a, cache, length);
    let mut rng = Rng::new(41);
    let k_up = tensor(&mut rng, format, heads, a.qk_nope_head_dim, r);
    let k_up = s.mat(k_up);
    let v_up = tensor(&mut rng, format, heads, a.v_head_dim, r);
    let v_up = s.mat(v_up);
    let width = heads * a.qk_head_dim();
    let q = rng.vector(length.tokens * width);
    let q = s.input(Kind::F32, width, q);
    let out = s.output(Kind::F32, heads * a.v_head_dim);
    s.op(Op::AttendExpanded { q, k_up, v_up, layer: 0, out });
    s
}

fn cache_name(cache: CacheFormat) -> &'static str {
    if cache == CacheFormat::F16 { "f16" } else { "f32" }
}

const CACHES: [CacheFormat; 2] = [CacheFormat::F16, CacheFormat::F32];

pub(super) fn add(cases: &mut Cases<'_>) {
    let quick = cases.settings.quick;
    let of = |rows, tokens, most| Length { rows, tokens, most };
    // Shapes of attend's variants; DeepSeek-V3 has 128 heads of 512 + 64.
    let shapes: &[Shape] = &[
        (4, 32, 16),
        (16, 512, 64),
        (2, 256, 64),
        (1, 512, 64),
        (8, 64, 32),
        (128, 512, 64),
        (5, 96, 16),
        (2, 48, 6),
        (1, 32, 4),
        (20, 512, 64),
        (4, 128, 32),
    ];
    for &shape in if quick { &shapes[..3] } else { shapes } {
        for cache in CACHES {
            // One row; whole pages and one more; more tokens than a step's matrix-vector products; a long cache, cut in parts.
            let lengths: &[Length] = &[of(129, 1, 1), of(70, 6, 8), of(1, 1, 1), of(40, 20, 20), of(1300, 1, 1)];
            for &length in if quick { &lengths[..2] } else { lengths } {
                let (heads, r, dr) = shape;
                let id = format!("kernel/attend/{} cache/{heads} heads of {r}+{dr} {length}", cache_name(cache));
                cases.add(id, async move |cx: Context| {
                    measure_any(&cx, &absorbed(shape, cache, length), Bound::Nmse(bound(cache))).await
                });
            }
        }
    }
    for rows in if quick { &[1025][..] } else { &[63, 64, 128, 200, 1024, 1025, 4097] } {
        let length = of(*rows, 1, 1);
        cases.add(format!("kernel/attend_merge/f16 cache/16 heads of 64+16 {length}"), async move |cx: Context| {
            measure_any(&cx, &absorbed((16, 64, 16), CacheFormat::F16, length), Bound::Nmse(bound(CacheFormat::F16))).await
        });
    }
    for factor in [1e-6f32, 40.0, 3000.0] {
        cases.add(format!("kernel/attend/f32 cache/scores times {factor:e}"), async move |cx: Context| {
            let mut s = absorbed((4, 64, 16), CacheFormat::F32, of(150, 1, 1));
            s.inputs[1..].iter_mut().for_each(|(_, q)| q.iter_mut().for_each(|x| *x *= factor));
            // Large scores leave one row with all the weight; their last bits matter.
            measure_any(&cx, &s, Bound::Nmse(if factor > 100.0 { 1e-6 } else { 1e-9 })).await
        });
    }
    add_expanded(cases);
}

fn add_expanded(cases: &mut Cases<'_>) {
    let quick = cases.settings.quick;
    let of = |rows, tokens, most| Length { rows, tokens, most };
    for format in [Format::F16, Format::F32, Format::BF16, Format::Q8_0] {
        for cache in CACHES {
            for (shape, length) in [
                ((3, 64, 6), of(100, 70, 70)),
                ((3, 64, 6), of(130, 9, 70)),
                ((1, 32, 4), of(1, 1, 70)),
                ((8, 128, 32), of(70, 70, 70)),
                ((2, 32, 8), of(1025, 10, 10)),
            ] {
                if quick && (shape.0 != 3 || length.tokens != 70 || format != Format::F16) {
                    continue;
                }
                let (heads, r, dr) = shape;
                let id =
                    format!("kernel/attend_expanded/{format}/{} cache/{heads} heads of {r}+{dr} {length}", cache_name(cache));
                cases.add(id, async move |cx: Context| {
                    measure_any(&cx, &expanded(&attention(shape), format, cache, length), Bound::Nmse(1e-7)).await
                });
            }
        }
    }
    // Every number of tiles of the values, and one that does not fill its last.
    for (dn, dv) in [(64, 33), (24, 32), (128, 128), (192, 192), (192, 256), (64, 96), (64, 160), (64, 224)] {
        if quick && dv > 128 {
            continue;
        }
        let id = format!("kernel/attend_expanded/F16/f32 cache/keys of {dn} values of {dv}");
        cases.add(id, async move |cx: Context| {
            let a = Attention { qk_nope_head_dim: dn, v_head_dim: dv, ..attention((2, 64, 64)) };
            let length = Length { rows: 80, tokens: 35, most: 35 };
            measure_any(&cx, &expanded(&a, Format::F16, CacheFormat::F32, length), Bound::Nmse(1e-9)).await
        });
    }
}
