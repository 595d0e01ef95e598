//! The latent cache and both forms of attention over it.

use pleiad_models::{Format, config::Attention};
use pleiad_runtime::{
    CacheFormat,
    plan::{Heads, Kind, Op},
};

use crate::support::{Check as _, Rng, Setup, all_places, config, places, tensor};

/// An f16 cache rounds what it stores: a latent that differs in its last bit may round to the other neighbour.
fn bound(cache: CacheFormat) -> f64 {
    match cache {
        CacheFormat::F16 => 1e-7,
        CacheFormat::F32 => 1e-11,
    }
}

fn shape(heads: usize, r: usize, dr: usize) -> Attention {
    Attention { num_heads: heads, q_lora_rank: None, kv_lora_rank: r, qk_nope_head_dim: 24, qk_rope_head_dim: dr, v_head_dim: 40 }
}

/// A setup whose cache holds `length - tokens` rows before a step of `tokens`.
fn setup(name: String, a: Attention, cache: CacheFormat, length: usize, tokens: usize, max_tokens: usize) -> Setup {
    let mut rng = Rng::new(length as u64 * 31 + tokens as u64);
    let mut s = Setup::new(name, tokens, max_tokens);
    let width = a.cache_width();
    s.vec(rng.vector(a.kv_lora_rank).iter().map(|w| 1.0 + 0.2 * w).collect());
    s.config = config(a, true, None);
    s.cache = cache;
    s.positions = length.next_multiple_of(64) + 64;
    s.step.pos = (length - tokens) as u32;
    s.history = rng.vector((length - tokens) * width);
    // A step appends its own rows before it attends.
    let kv = rng.vector(tokens * width);
    let kv = s.input(Kind::F32, width, kv);
    s.op(Op::Latent { kv, norm: pleiad_runtime::plan::VecId(0), eps: 1e-6, layer: 0 });
    s
}

fn attend(a: &Attention, cache: CacheFormat, length: usize, tokens: usize, max_tokens: usize) -> Setup {
    let (heads, r, dr) = (a.num_heads, a.kv_lora_rank, a.qk_rope_head_dim);
    let name = format!("{heads} heads of {r}+{dr} over {length} {cache:?} rows, {tokens} of {max_tokens} tokens");
    let mut s = setup(name, a.clone(), cache, length, tokens, max_tokens);
    let mut rng = Rng::new(40);
    let q_latent = rng.vector(tokens * heads * r);
    let q_latent = s.input(Kind::F32, heads * r, q_latent);
    let stride = a.qk_head_dim();
    let q = rng.vector(tokens * heads * stride);
    let q = s.input(Kind::F32, heads * stride, q);
    let out = s.output(Kind::F32, heads * r);
    let q_rope = Heads { act: q, offset: a.qk_nope_head_dim, stride };
    s.op(Op::Attend { q_latent, q_rope, layer: 0, out });
    s
}

#[test]
fn attend_of_every_shape() {
    let places = places("attend_of_every_shape");
    for (heads, r, dr) in [(1, 32, 4), (2, 48, 6), (4, 128, 32), (16, 512, 64), (20, 512, 64), (5, 96, 16)] {
        for cache in [CacheFormat::F16, CacheFormat::F32] {
            for (length, tokens, max_tokens) in [(1, 1, 1), (65, 1, 1), (70, 6, 8), (40, 20, 20)] {
                attend(&shape(heads, r, dr), cache, length, tokens, max_tokens).check(&places, bound(cache));
            }
        }
    }
}

#[test]
fn attend_over_long_caches() {
    let places = all_places("attend_over_long_caches");
    // Around the lengths at which the cache is cut in more parts.
    for length in [63, 64, 128, 129, 200, 1024, 1025, 1300] {
        for (heads, tokens) in [(1, 1), (16, 1), (4, 3)] {
            attend(&shape(heads, 64, 16), CacheFormat::F16, length, tokens, tokens).check(&places, bound(CacheFormat::F16));
        }
    }
}

#[test]
fn attend_with_scores_of_any_size() {
    let places = places("attend_with_scores_of_any_size");
    for factor in [1e-6f32, 40.0, 3000.0] {
        let mut s = attend(&shape(4, 64, 16), CacheFormat::F32, 150, 1, 1);
        s.name += &format!(", queries times {factor}");
        for (_, q) in &mut s.inputs[1..] {
            q.iter_mut().for_each(|x| *x *= factor);
        }
        // Large scores leave one row with all the weight; their last bits matter.
        s.check(&places, if factor > 100.0 { 1e-6 } else { 1e-9 });
    }
}

fn expanded(a: &Attention, format: Format, cache: CacheFormat, length: usize, tokens: usize, max_tokens: usize) -> Setup {
    let (heads, r) = (a.num_heads, a.kv_lora_rank);
    let name = format!("{heads} heads expanded by {format} over {length} {cache:?} rows, {tokens} of {max_tokens} tokens");
    let mut s = setup(name, a.clone(), cache, length, tokens, max_tokens);
    let mut rng = Rng::new(41);
    let k_up = tensor(&mut rng, format, heads, a.qk_nope_head_dim, r);
    let k_up = s.mat(k_up);
    let v_up = tensor(&mut rng, format, heads, a.v_head_dim, r);
    let v_up = s.mat(v_up);
    let width = heads * a.qk_head_dim();
    let q = rng.vector(tokens * width);
    let q = s.input(Kind::F32, width, q);
    let out = s.output(Kind::F32, heads * a.v_head_dim);
    s.op(Op::AttendExpanded { q, k_up, v_up, layer: 0, out });
    s
}

#[test]
fn attend_expanded() {
    let places = places("attend_expanded");
    for (heads, r, dr) in [(1, 32, 4), (3, 48, 6), (8, 128, 32)] {
        for format in [Format::F32, Format::BF16, Format::F16] {
            for cache in [CacheFormat::F16, CacheFormat::F32] {
                for (length, tokens, max_tokens) in [(1, 1, 70), (100, 70, 70), (130, 9, 70)] {
                    expanded(&shape(heads, r, dr), format, cache, length, tokens, max_tokens).check(&places, 1e-7);
                }
            }
        }
    }
}

#[test]
fn attend_expanded_in_many_chunks() {
    let places = places("attend_expanded_in_many_chunks");
    // More positions than are expanded at a time, and lengths at the border of a chunk.
    for length in [1023, 1024, 1025, 2100] {
        expanded(&shape(2, 32, 8), Format::F16, CacheFormat::F32, length, 10, 10).check(&places, 1e-9);
    }
}

#[test]
fn attend_expanded_with_wide_values() {
    let places = all_places("attend_expanded_with_wide_values");
    for (dn, dv) in [(128, 128), (192, 256), (64, 33)] {
        let a = Attention { qk_nope_head_dim: dn, v_head_dim: dv, ..shape(2, 64, 64) };
        expanded(&a, Format::F16, CacheFormat::F32, 80, 35, 35).check(&places, 1e-9);
    }
}
