//! Integers: exact everywhere, also where drivers are known to go wrong.

use crate::{
    case::{Cases, Context, Outcome, Result},
    probe,
    report::Measure,
    setup::Rng,
};

/// An operation: name, declarations and expression of `x`, `y`, `z`, and what it must be.
struct Operation {
    name: &'static str,
    wgsl: &'static str,
    exact: fn(u32, u32, u32) -> u32,
}

fn lanes(x: u32) -> [u32; 4] {
    x.to_le_bytes().map(u32::from)
}

fn signed(x: u32) -> [i32; 4] {
    x.to_le_bytes().map(|b| i32::from(b as i8))
}

fn remainder(x: u32, y: u32) -> u32 {
    // By zero, and of the least number by -1: 0.
    (x as i32).checked_rem(y as i32).unwrap_or(0) as u32
}

fn quotient(x: u32, y: u32) -> u32 {
    (x as i32).checked_div(y as i32).unwrap_or(x as i32) as u32
}

const OPERATIONS: &[Operation] = &[
    Operation {
        name: "dot4I8Packed",
        wgsl: "bitcast<u32>(dot4I8Packed(x, y))",
        exact: |x, y, _| signed(x).iter().zip(signed(y)).map(|(a, b)| a * b).sum::<i32>() as u32,
    },
    Operation {
        name: "dot4U8Packed",
        wgsl: "dot4U8Packed(x, y)",
        exact: |x, y, _| lanes(x).iter().zip(lanes(y)).map(|(a, b)| a * b).sum(),
    },
    Operation {
        name: "dot4I8Packed in a sum",
        wgsl: "bitcast<u32>(bitcast<i32>(z) + dot4I8Packed(x, y) + dot4I8Packed(y, z))",
        exact: |x, y, z| {
            let dot = |a: u32, b: u32| signed(a).iter().zip(signed(b)).map(|(a, b)| a * b).sum::<i32>();
            (z as i32).wrapping_add(dot(x, y)).wrapping_add(dot(y, z)) as u32
        },
    },
    Operation {
        name: "unpack4xI8",
        wgsl: "bitcast<u32>(unpack4xI8(x)[y & 3u])",
        exact: |x, y, _| signed(x)[(y & 3) as usize] as u32,
    },
    Operation { name: "unpack4xU8", wgsl: "unpack4xU8(x)[y & 3u]", exact: |x, y, _| lanes(x)[(y & 3) as usize] },
    Operation {
        name: "pack4xI8",
        wgsl: "pack4xI8(vec4<i32>(vec4<u32>(x, y, z, x ^ y)))",
        exact: |x, y, z| u32::from_le_bytes([x, y, z, x ^ y].map(|v| v as u8)),
    },
    Operation {
        name: "remainder of i32",
        wgsl: "bitcast<u32>(bitcast<i32>(x) % bitcast<i32>(y))",
        exact: |x, y, _| remainder(x, y),
    },
    Operation {
        name: "quotient of i32",
        wgsl: "bitcast<u32>(bitcast<i32>(x) / bitcast<i32>(y))",
        exact: |x, y, _| quotient(x, y),
    },
    Operation { name: "remainder of u32", wgsl: "x % y", exact: |x, y, _| x.checked_rem(y).unwrap_or(0) },
    Operation { name: "quotient of u32", wgsl: "x / y", exact: |x, y, _| x.checked_div(y).unwrap_or(x) },
    Operation {
        name: "shift right of i32",
        wgsl: "bitcast<u32>(bitcast<i32>(x) >> (y & 31u))",
        exact: |x, y, _| ((x as i32) >> (y & 31)) as u32,
    },
    Operation { name: "shift right of u32", wgsl: "x >> (y & 31u)", exact: |x, y, _| x >> (y & 31) },
    Operation { name: "shift left", wgsl: "x << (y & 31u)", exact: |x, y, _| x << (y & 31) },
    // The amount is taken modulo 32.
    Operation { name: "shift by 32 and more", wgsl: "x << y", exact: |x, y, _| x.wrapping_shl(y) },
    Operation { name: "product", wgsl: "x * y + z", exact: |x, y, z| x.wrapping_mul(y).wrapping_add(z) },
    Operation { name: "countOneBits", wgsl: "countOneBits(x)", exact: |x, _, _| x.count_ones() },
    Operation {
        name: "minimum and maximum of i32",
        wgsl: "bitcast<u32>(clamp(bitcast<i32>(x), min(bitcast<i32>(y), bitcast<i32>(z)), max(bitcast<i32>(y), bitcast<i32>(z))))",
        exact: |x, y, z| {
            let [x, y, z] = [x, y, z].map(|v| v as i32);
            x.max(y.min(z)).min(y.max(z)) as u32
        },
    },
    Operation {
        name: "vectors: signed halves of a word",
        wgsl: "bitcast<u32>((vec2<i32>(vec2<u32>(x << 16u, x)) >> vec2<u32>(16u))[y & 1u])",
        exact: |x, y, _| if y & 1 == 0 { i32::from(x as i16) as u32 } else { ((x as i32) >> 16) as u32 },
    },
];

pub(crate) fn add(cases: &mut Cases<'_>) {
    for operation in OPERATIONS {
        cases.add(format!("integer/{}", operation.name), async move |cx: Context| check(&cx, operation).await);
    }
}

/// All combinations of edges, then random words.
fn arguments(quick: bool) -> Vec<[u32; 3]> {
    let edges = [
        0,
        1,
        2,
        3,
        7,
        31,
        32,
        33,
        127,
        128,
        0x7f7f_7f7f,
        0x8080_8080,
        0x80_7f80,
        0x7fff_ffff,
        0x8000_0000,
        0x8000_0001,
        u32::MAX,
        u32::MAX - 1,
        u32::MAX - 6,
    ];
    let mut all = Vec::new();
    for x in edges {
        for y in edges {
            all.extend([[x, y, 0], [x, y, u32::MAX], [x, y, x.rotate_left(9) ^ y]]);
        }
    }
    let mut rng = Rng::new(8);
    let count = if quick { 4096 } else { 1 << 18 };
    all.extend((0..count).map(|_| [rng.next() as u32, (rng.next() >> rng.below(28)) as u32, rng.next() as u32]));
    all
}

async fn check(cx: &Context, operation: &Operation) -> Result {
    let rows = arguments(cx.quick);
    let found = probe::map(&cx.gpu, operation.name, "", operation.wgsl, &rows).await?;
    let wrong = |(row, got): &(&[u32; 3], &u32)| (operation.exact)(row[0], row[1], row[2]) != **got;
    let count = rows.iter().zip(&found).filter(wrong).count();
    let first = rows.iter().zip(&found).find(wrong).map(|(&[x, y, z], got)| {
        let exact = (operation.exact)(x, y, z);
        format!("x 0x{x:08x}, y 0x{y:08x}, z 0x{z:08x}: 0x{got:08x}, not 0x{exact:08x}")
    });
    let wrong = Measure::new(count as f64, "").most(0.0).at(first.unwrap_or_default());
    Ok(Outcome::new().with("wrong", wrong).say(format!("{} combinations", rows.len())))
}
