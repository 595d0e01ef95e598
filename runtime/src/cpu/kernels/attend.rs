//! Latent attention in absorbed form: all heads of a token (and several tokens of a chunk) share each tile of the
//! latent cache, which is turned into f32 once; scores and values are small matrix products; softmax is online.

use super::Cpu;
use super::quantise::Shared;
use super::simd::{Kernel, Simd, exp};
use std::cell::Cell;

/// The latent cache of one layer; a row is `[latent | rope key]`.
#[derive(Clone, Copy)]
pub enum CacheRows<'a> {
    /// Half precision, as bits.
    F16(&'a [u16]),
    /// Single precision.
    F32(&'a [f32]),
}

/// Rows of a page of the cache.
pub const PAGE: usize = 64;

/// What [`attend`] reads.
#[derive(Clone, Copy)]
pub struct AttendArgs<'a> {
    /// Queries in latent space, `[tokens, heads * latent]`.
    pub q_latent: &'a [f32],
    /// Rotated rope parts of the queries: head h of token t is at `rope_offset + t * rope_token + h * rope_head`.
    pub q_rope: &'a [f32],
    /// See `q_rope`.
    pub rope_offset: usize,
    /// See `q_rope`.
    pub rope_token: usize,
    /// See `q_rope`.
    pub rope_head: usize,
    /// The cache.
    pub cache: CacheRows<'a>,
    /// Position p is row `pages[p / 64] * 64 + p % 64` of the cache.
    pub pages: &'a [u32],
    /// Position of token 0.
    pub pos: usize,
    /// Tokens; token t sees positions `0..=pos + t`.
    pub tokens: usize,
    /// Heads.
    pub heads: usize,
    /// Elements of the latent part of a row, r.
    pub latent: usize,
    /// Elements of the rope part of a row, dr.
    pub rope: usize,
    /// What scores are multiplied by.
    pub scale: f32,
}

/// Positions a tile: it lies within a page.
const TILE: usize = 32;

/// Most pairs of token and head of a task.
const PAIRS: usize = 64;

/// Elements to which the parts of a row are padded: every instruction set's lanes divide it.
const PAD: usize = 16;

/// Writes `softmax(scale * (q_latent . latent + q_rope . key)) latent` over the visible rows of the cache to `out`,
/// `[tokens, heads * latent]`.
///
/// # Panics
///
/// Where `args` or `out` is shorter than its dimensions say, or a page lies outside of the cache.
pub fn attend(cpu: &Cpu, args: &AttendArgs<'_>, out: &mut [f32]) {
    if args.tokens == 0 || args.heads == 0 {
        return;
    }
    check(args, out.len());
    let shape = Shape::new(args);
    let tasks = shape.token_blocks * shape.head_blocks * shape.splits;
    let out = Shared(out.as_mut_ptr());
    let mut scratch = Scratch::take();
    let mut partial = std::mem::take(&mut scratch.partial);
    scratch.give_back();
    let words = if shape.splits > 1 { shape.splits * args.tokens * args.heads * (args.latent + 2) } else { 0 };
    if partial.len() < words {
        partial.resize(words, 0.0);
    }
    let partials = Shared(partial.as_mut_ptr());
    cpu.parallel(tasks, |task| {
        let mut scratch = Scratch::take();
        // The last tokens see most: they go first.
        let block = shape.token_blocks - 1 - task / (shape.head_blocks * shape.splits);
        let heads = task / shape.splits % shape.head_blocks * shape.heads;
        let tokens = block * shape.tokens;
        let work = Task {
            args,
            shape: &shape,
            split: task % shape.splits,
            tokens: (tokens, (args.tokens - tokens).min(shape.tokens)),
            heads: (heads, (args.heads - heads).min(shape.heads)),
            out: &out,
            partials: &partials,
            scratch: &mut scratch,
        };
        cpu.isa().run(work);
        scratch.give_back();
    });
    if shape.splits > 1 {
        let rows = args.tokens * args.heads;
        cpu.parallel(rows.div_ceil(8), |task| {
            for row in task * 8..(task * 8 + 8).min(rows) {
                // SAFETY: each row is one task's; the lengths were checked or made to fit.
                let out = unsafe { std::slice::from_raw_parts_mut(out.at(row * args.latent), args.latent) };
                cpu.isa().run(Merge { row, rows, splits: shape.splits, partials: &partial, out });
            }
        });
    }
    let mut scratch = Scratch::take();
    scratch.partial = partial;
    scratch.give_back();
}

fn check(args: &AttendArgs<'_>, out: usize) {
    let AttendArgs { tokens, heads, latent, rope, .. } = *args;
    let width = latent + rope;
    assert!(args.q_latent.len() >= tokens * heads * latent && out >= tokens * heads * latent, "length of queries or results");
    let last = args.rope_offset + (tokens - 1) * args.rope_token + (heads - 1) * args.rope_head;
    assert!(args.q_rope.len() >= last + rope, "length of the rope parts");
    let positions = args.pos + tokens;
    assert!(args.pages.len() * PAGE >= positions, "{} pages for {positions} positions", args.pages.len());
    let cached = match args.cache {
        CacheRows::F16(rows) => rows.len(),
        CacheRows::F32(rows) => rows.len(),
    };
    for (i, &page) in args.pages[..positions.div_ceil(PAGE)].iter().enumerate() {
        let rows = page as usize * PAGE + (positions - i * PAGE).min(PAGE);
        assert!(rows * width <= cached, "page {page} lies outside of the cache");
    }
}

/// How the work is cut: by the dimensions alone, so that results do not depend on the number of threads.
struct Shape {
    /// Tokens and heads a task, and how many blocks of them there are.
    tokens: usize,
    token_blocks: usize,
    heads: usize,
    head_blocks: usize,
    /// Parts of the cache, and positions of a part.
    splits: usize,
    positions: usize,
}

impl Shape {
    fn new(args: &AttendArgs<'_>) -> Self {
        let heads = args.heads.min(if args.tokens == 1 { 32 } else { PAIRS });
        let positions = args.pos + args.tokens;
        // Few tokens: the cache is cut; many: the tokens are.
        let (tokens, part) = if args.tokens <= 4 {
            (1, (positions / 32).next_multiple_of(PAGE).clamp(PAGE, 512))
        } else {
            ((PAIRS / heads).clamp(1, args.tokens.div_ceil(16)), positions)
        };
        Self {
            tokens,
            token_blocks: args.tokens.div_ceil(tokens),
            heads,
            head_blocks: args.heads.div_ceil(heads),
            splits: positions.div_ceil(part),
            positions: part,
        }
    }
}

/// Memory that a thread keeps between calls.
#[derive(Default)]
struct Scratch {
    partial: Vec<f32>,
    work: Vec<f32>,
}

thread_local! {
    static SCRATCH: Cell<Option<Box<Scratch>>> = const { Cell::new(None) };
}

impl Scratch {
    fn take() -> Box<Self> {
        SCRATCH.take().unwrap_or_default()
    }

    fn give_back(self: Box<Self>) {
        SCRATCH.set(Some(self));
    }
}

/// Some heads of some tokens over a part of the cache.
struct Task<'a> {
    args: &'a AttendArgs<'a>,
    shape: &'a Shape,
    split: usize,
    tokens: (usize, usize),
    heads: (usize, usize),
    out: &'a Shared<f32>,
    /// `[splits][tokens * heads][largest score, sum, latent...]`.
    partials: &'a Shared<f32>,
    scratch: &'a mut Scratch,
}

impl Kernel for Task<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let args = self.args;
        let latent = args.latent.next_multiple_of(PAD);
        let width = latent + args.rope.next_multiple_of(PAD);
        let pairs = self.tokens.1 * self.heads.1;
        // Pairs are taken four at a time; those that do not exist have queries of zeros.
        let padded = pairs.next_multiple_of(4);
        let words = padded * (width + latent + TILE + 2) + TILE * width;
        if self.scratch.work.len() < words {
            self.scratch.work.resize(words, 0.0);
        }
        let (q, rest) = self.scratch.work.split_at_mut(padded * width);
        let (acc, rest) = rest.split_at_mut(padded * latent);
        let (scores, rest) = rest.split_at_mut(padded * TILE);
        let (largest, rest) = rest.split_at_mut(padded);
        let (sums, tile) = rest.split_at_mut(padded);
        q.fill(0.0);
        acc.fill(0.0);
        largest.fill(f32::NEG_INFINITY);
        sums.fill(0.0);
        for pair in 0..pairs {
            let (t, h) = (self.tokens.0 + pair / self.heads.1, self.heads.0 + pair % self.heads.1);
            let q = &mut q[pair * width..][..width];
            let from = &args.q_latent[(t * args.heads + h) * args.latent..][..args.latent];
            for (to, from) in q.iter_mut().zip(from) {
                *to = from * args.scale;
            }
            let from = &args.q_rope[args.rope_offset + t * args.rope_token + h * args.rope_head..][..args.rope];
            for (to, from) in q[latent..].iter_mut().zip(from) {
                *to = from * args.scale;
            }
        }
        let begin = self.split * self.shape.positions;
        let last_token = self.tokens.0 + self.tokens.1 - 1;
        let end = (begin + self.shape.positions).min(args.pos + last_token + 1);
        let mut from = begin;
        while from < end {
            let n = (end - from).min(TILE);
            // SAFETY: positions below the end were checked; buffers have the sizes above, the number of pairs is padded.
            unsafe {
                load_tile::<S>(args, from, n, latent, width, tile);
                score::<S>(q, tile, padded, n, width, scores);
                for pair in 0..pairs {
                    let visible = (args.pos + self.tokens.0 + pair / self.heads.1 + 1).saturating_sub(from).min(n);
                    let acc = &mut acc[pair * latent..][..latent];
                    let scores = &mut scores[pair * TILE..][..TILE];
                    soften(scores, visible, &mut largest[pair], &mut sums[pair], acc);
                }
                for pair in pairs..padded {
                    scores[pair * TILE..][..TILE].fill(0.0);
                }
                accumulate::<S>(scores, tile, padded, n, width, latent, acc);
            }
            from += TILE;
        }
        for pair in 0..pairs {
            let (t, h) = (self.tokens.0 + pair / self.heads.1, self.heads.0 + pair % self.heads.1);
            let row = t * args.heads + h;
            let acc = &acc[pair * latent..][..args.latent];
            // SAFETY: the row is this task's alone, in the results or in its split's partial ones.
            unsafe {
                if self.shape.splits == 1 {
                    let out = std::slice::from_raw_parts_mut(self.out.at(row * args.latent), args.latent);
                    let inverse = 1.0 / sums[pair];
                    for (out, acc) in out.iter_mut().zip(acc) {
                        *out = acc * inverse;
                    }
                } else {
                    let at = (self.split * args.tokens * args.heads + row) * (args.latent + 2);
                    let out = std::slice::from_raw_parts_mut(self.partials.at(at), args.latent + 2);
                    out[0] = largest[pair];
                    out[1] = sums[pair];
                    out[2..].copy_from_slice(acc);
                }
            }
        }
    }
}

/// Rows of positions `from..from + n` as f32, both parts padded with zeros; rows of zeros up to a multiple of four.
///
/// # Safety
/// The instruction set is there; the positions lie in one page, in the cache.
#[inline(always)]
unsafe fn load_tile<S: Simd>(args: &AttendArgs<'_>, from: usize, n: usize, latent: usize, width: usize, tile: &mut [f32]) {
    let first = args.pages[from / PAGE] as usize * PAGE + from % PAGE;
    for j in 0..n {
        let row = (first + j) * (args.latent + args.rope);
        for (from, n, at) in [(row, args.latent, 0), (row + args.latent, args.rope, latent)] {
            let to = &mut tile[j * width + at..][..n.next_multiple_of(PAD)];
            let whole = n / S::LANES * S::LANES;
            to[whole..].fill(0.0);
            // SAFETY: within the row, which was checked.
            unsafe {
                match args.cache {
                    CacheRows::F32(rows) => to[..n].copy_from_slice(&rows[from..from + n]),
                    CacheRows::F16(rows) => {
                        let rows = &rows[from..from + n];
                        for i in (0..whole).step_by(S::LANES) {
                            S::store(to.as_mut_ptr().add(i), S::f16(rows.as_ptr().add(i).cast()));
                        }
                        for i in whole..n {
                            to[i] = S::half(rows[i]);
                        }
                    }
                }
            }
        }
    }
    tile[n * width..n.next_multiple_of(4) * width].fill(0.0);
}

/// `scores[pair][j] = q[pair] . tile[j]`, four by four.
///
/// # Safety
/// The instruction set is there; `pairs` is a multiple of four, the tile has `n` rows rounded up to such.
#[inline(always)]
unsafe fn score<S: Simd>(q: &[f32], tile: &[f32], pairs: usize, n: usize, width: usize, scores: &mut [f32]) {
    assert!(q.len() >= pairs * width && tile.len() >= n.next_multiple_of(4) * width && scores.len() >= pairs * TILE);
    for j in (0..n).step_by(4) {
        for pair in (0..pairs).step_by(4) {
            // SAFETY: lengths were checked.
            unsafe {
                let (q, k) = (q.as_ptr().add(pair * width), tile.as_ptr().add(j * width));
                let mut acc = [[S::splat(0.0); 4]; 4];
                for i in (0..width).step_by(S::LANES) {
                    let mut ks = [S::splat(0.0); 4];
                    for b in 0..4 {
                        ks[b] = S::load(k.add(b * width + i));
                    }
                    for a in 0..4 {
                        let q = S::load(q.add(a * width + i));
                        for b in 0..4 {
                            acc[a][b] = S::fma(q, ks[b], acc[a][b]);
                        }
                    }
                }
                for a in 0..4 {
                    for b in 0..4 {
                        scores[(pair + a) * TILE + j + b] = S::sum(acc[a][b]);
                    }
                }
            }
        }
    }
}

/// Turns scores into weights relative to the largest so far, and what was gathered before to the same scale.
#[inline(always)]
fn soften(scores: &mut [f32], visible: usize, largest: &mut f32, sum: &mut f32, acc: &mut [f32]) {
    scores[visible..].fill(f32::NEG_INFINITY);
    if visible == 0 {
        scores.fill(0.0);
        return;
    }
    let mut lanes = [f32::NEG_INFINITY; 8];
    for (i, &s) in scores.iter().enumerate() {
        lanes[i % 8] = if s > lanes[i % 8] { s } else { lanes[i % 8] };
    }
    let new = lanes.iter().fold(*largest, |m, &v| if v > m { v } else { m });
    if new > *largest {
        let factor = if *largest == f32::NEG_INFINITY { 0.0 } else { exp(*largest - new) };
        *largest = new;
        *sum *= factor;
        for acc in acc {
            *acc *= factor;
        }
    }
    for s in scores.iter_mut() {
        *s = exp(*s - new);
    }
    // exp ends at e^-87, which hidden positions must not get.
    scores[visible..].fill(0.0);
    *sum += scores[..visible].iter().sum::<f32>();
}

/// `acc[pair] += sum over j of scores[pair][j] * tile[j]`, four pairs and four registers at a time.
///
/// # Safety
/// The instruction set is there; `pairs` is a multiple of four, `latent` of [`PAD`].
#[inline(always)]
unsafe fn accumulate<S: Simd>(
    scores: &[f32],
    tile: &[f32],
    pairs: usize,
    n: usize,
    width: usize,
    latent: usize,
    acc: &mut [f32],
) {
    assert!(acc.len() >= pairs * latent && tile.len() >= n * width && scores.len() >= pairs * TILE);
    let wide = latent / (4 * S::LANES) * (4 * S::LANES);
    for pair in (0..pairs).step_by(4) {
        // SAFETY: lengths were checked.
        unsafe {
            let (scores, acc) = (scores.as_ptr().add(pair * TILE), acc.as_mut_ptr().add(pair * latent));
            for i in (0..wide).step_by(4 * S::LANES) {
                block::<S, 4>(scores, tile.as_ptr().add(i), n, width, latent, acc.add(i));
            }
            for i in (wide..latent).step_by(S::LANES) {
                block::<S, 1>(scores, tile.as_ptr().add(i), n, width, latent, acc.add(i));
            }
        }
    }
}

/// Four pairs, `N` registers.
///
/// # Safety
/// As for [`accumulate`].
#[inline(always)]
unsafe fn block<S: Simd, const N: usize>(
    scores: *const f32,
    tile: *const f32,
    n: usize,
    width: usize,
    latent: usize,
    acc: *mut f32,
) {
    // SAFETY: as above.
    unsafe {
        let mut sum = [[S::splat(0.0); N]; 4];
        for a in 0..4 {
            for i in 0..N {
                sum[a][i] = S::load(acc.add(a * latent + i * S::LANES));
            }
        }
        for j in 0..n {
            let mut v = [S::splat(0.0); N];
            for i in 0..N {
                v[i] = S::load(tile.add(j * width + i * S::LANES));
            }
            for a in 0..4 {
                let weight = S::splat(*scores.add(a * TILE + j));
                for i in 0..N {
                    sum[a][i] = S::fma(weight, v[i], sum[a][i]);
                }
            }
        }
        for a in 0..4 {
            for i in 0..N {
                S::store(acc.add(a * latent + i * S::LANES), sum[a][i]);
            }
        }
    }
}

/// Puts the partial results of a row together, in the order of the cache.
struct Merge<'a> {
    row: usize,
    rows: usize,
    splits: usize,
    partials: &'a [f32],
    out: &'a mut [f32],
}

impl Kernel for Merge<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let width = self.out.len() + 2;
        let mut largest = f32::NEG_INFINITY;
        for split in 0..self.splits {
            let score = self.partials[(split * self.rows + self.row) * width];
            // A part that this row does not see has no largest score.
            largest = if score > largest { score } else { largest };
        }
        let mut sum = 0.0;
        self.out.fill(0.0);
        for split in 0..self.splits {
            let part = &self.partials[(split * self.rows + self.row) * width..][..width];
            if part[1] == 0.0 {
                continue;
            }
            let factor = exp(part[0] - largest);
            sum += part[1] * factor;
            for (out, part) in self.out.iter_mut().zip(&part[2..]) {
                *out += part * factor;
            }
        }
        let inverse = 1.0 / sum;
        for out in self.out.iter_mut() {
            *out *= inverse;
        }
    }
}
