//! Experts whose gates are quantised and whose up matrices are floats, or the other way.

use pleiad_models::Format;
use pleiad_runtime::plan::{Kind, Op};

use crate::{
    backend::places,
    support::{Check as _, Rng, Setup, config, moe, small_attention, tensor},
};

#[test]
fn experts_of_blocks_and_floats() {
    let places = places("experts_of_blocks_and_floats");
    let mut rng = Rng::new(52);
    let (experts, k, hidden, inner) = (11, 3, 256, 70);
    for (gate, up) in [(Format::Q4K, Format::BF16), (Format::F32, Format::Q8_0)] {
        for (tokens, max_tokens) in [(1, 1), (5, 40), (40, 40)] {
            let mut s = Setup::new(format!("gates of {gate}, up of {up}, {tokens} of {max_tokens} tokens"), tokens, max_tokens);
            s.config = config(small_attention(), true, Some(moe(experts, k, inner)));
            let gate = tensor(&mut rng, gate, experts, inner, hidden);
            let up = tensor(&mut rng, up, experts, inner, hidden);
            let down = tensor(&mut rng, Format::F16, experts, hidden, inner);
            let bank = s.bank(gate, up, down);
            let x = rng.vector(tokens * hidden);
            let x = s.input(Kind::F32, hidden, x);
            let ids = (0..tokens).flat_map(|t| (0..k as u32).map(move |i| (3 * i + t as u32) % experts as u32)).collect();
            let ids = s.id_input(k, ids);
            let out = s.output(Kind::F32, k * inner);
            s.op(Op::ExpertsUp { bank, x, ids, out });
            s.check(&places, 1e-10);
        }
    }
}
