//! The kernels of experts in slots, one by one: tables, records, halts, evictions, copies. What they do in a plan the steps show.

use std::sync::Arc;

use bytemuck::Pod;
use pleiad_runtime::{
    Error,
    cuda::driver::{HostMemory, Launch, Memory, Variant},
    experts::policy::{ABSENT, HALF_LIFE},
    step::StepState,
};
use pleiad_shaders::{
    Defines,
    cuda::{self, Frame, KERNELS, shape},
    params,
};

use crate::{
    backend::{Device, places},
    support::{Layer, Rng},
};

const HIT: u32 = 1 << 16;
const GATHERED: u32 = 1 << 17;
/// What no kernel has written to.
const UNTOUCHED: u32 = 0x0101_0101;

/// A device, and a step in its memory.
struct Bench {
    driver: Arc<Device>,
    step: Memory,
}

impl Bench {
    fn new(driver: &Arc<Device>, state: &StepState) -> Self {
        let step = Memory::new(driver, "step", (StepState::WORDS * 4 + 4) as u64).unwrap();
        let bench = Self { driver: Arc::clone(driver), step };
        bench.set(state);
        bench
    }

    fn set(&self, state: &StepState) {
        self.driver.write(self.step.address, bytemuck::bytes_of(state)).unwrap();
    }

    fn state(&self) -> StepState {
        bytemuck::pod_read_unaligned(bytemuck::cast_slice(&self.read(self.step.address, StepState::WORDS)))
    }

    fn buffer<T: Pod>(&self, data: &[T]) -> Memory {
        let bytes: &[u8] = bytemuck::cast_slice(data);
        let memory = Memory::new(&self.driver, "data of a test", bytes.len() as u64).unwrap();
        self.driver.write(memory.address, bytes).unwrap();
        memory
    }

    fn read(&self, address: u64, words: usize) -> Vec<u32> {
        let fetch = self.driver.fetch(&[(address, words * 4)]).unwrap();
        self.driver.fetched(fetch).unwrap().as_chunks().0.iter().map(|&w| u32::from_ne_bytes(w)).collect()
    }

    fn floats(&self, memory: &Memory, words: usize) -> Vec<f32> {
        self.read(memory.address, words).into_iter().map(f32::from_bits).collect()
    }

    fn run(&self, kernel: &'static str, defines: &Defines, params: &[u8], bind: &[(&str, u64)], grid: [u32; 3]) {
        let info = cuda::kernel(kernel).unwrap();
        let frame = Frame { step: self.step.address, pages: 1, positions: 1 };
        let arguments = cuda::arguments(info, defines, frame, bind, params).unwrap().into();
        let function = self.driver.function(0, &Variant { kernel, defines: defines.clone() }).unwrap();
        let threads = info.threads(defines);
        let touches = [].into();
        self.driver.launch(&[Launch { device: 0, function, grid, threads, shared: 0, arguments, touches }]).unwrap();
    }
}

/// A router's logits and tables on a device, and what it writes.
struct Routing {
    bench: Bench,
    p: params::Router,
    logits: Memory,
    ids: Memory,
    weights: Memory,
    counters: Memory,
    slots: Memory,
    residency: Memory,
}

impl Routing {
    /// The second of two layers; every third expert has no slot.
    fn new(driver: &Arc<Device>, state: &StepState, experts: u32, top_k: u32) -> Self {
        let bench = Bench::new(driver, state);
        let (pairs, all) = ((state.tokens * top_k) as usize, (state.tokens * experts) as usize);
        let p = params::Router {
            experts,
            top_k,
            groups: 1,
            top_k_groups: 1,
            sigmoid: 1,
            norm: 1,
            layer: 3,
            scaling: 1.5,
            bank: 1,
            record: 2 * experts,
            ..params::Router::default()
        };
        let mut residency = vec![UNTOUCHED; 2 * experts as usize + 2 * pairs * 2];
        for e in 0..experts {
            residency[(experts + e) as usize] = if e % 3 == 2 { ABSENT } else { 1000 - e };
        }
        let buffer = |n: usize| bench.buffer(&vec![UNTOUCHED; n]);
        let (ids, weights, slots) = (buffer(pairs), buffer(pairs), buffer(pairs));
        let logits = bench.buffer(&Rng::new(60).vector(all));
        let counters = bench.buffer(&vec![0u32; 4 * experts as usize]);
        let residency = bench.buffer(&residency);
        Self { p, logits, ids, weights, counters, slots, residency, bench }
    }

    fn run(&self, slots: bool) {
        let mut bind = vec![
            ("logits", self.logits.address),
            ("ids", self.ids.address),
            ("weights", self.weights.address),
            ("counters", self.counters.address),
        ];
        if slots {
            bind.extend([("slots", self.slots.address), ("residency", self.residency.address)]);
        }
        let defines = Defines::new().flag_if("SLOTS", slots);
        self.bench.run("router", &defines, bytemuck::bytes_of(&self.p), &bind, [8, 1, 1]);
    }

    fn pairs(&self) -> usize {
        (self.bench.state().tokens * self.p.top_k) as usize
    }

    fn chosen(&self) -> (Vec<u32>, Vec<u32>) {
        (self.bench.read(self.ids.address, self.pairs()), self.bench.read(self.weights.address, self.pairs()))
    }

    /// The layer's own record, and the other one's.
    fn record(&self) -> (Vec<u32>, Vec<u32>) {
        let (at, words) = (self.residency.address + u64::from(self.p.record) * 4, 2 * self.pairs());
        (self.bench.read(at + words as u64 * 4, words), self.bench.read(at, words))
    }
}

#[test]
fn the_router_looks_slots_up_and_records_choices() {
    for place in places("the_router_looks_slots_up_and_records_choices") {
        for (experts, top_k, tokens) in [(33, 5, 1), (64, 6, 5), (512, 64, 3)] {
            let case = format!("{tokens} tokens, {top_k} of {experts} on {}", place.name);
            let state = StepState { tokens, counters_on: 1, ..StepState::default() };
            let plain = Routing::new(&place.device, &state, experts, top_k);
            plain.run(false);
            let r = Routing::new(&place.device, &state, experts, top_k);
            r.run(true);
            let (ids, weights) = r.chosen();
            assert_eq!((&ids, &weights), (&plain.chosen().0, &plain.chosen().1), "{case}");
            let counts = |r: &Routing| r.bench.read(r.counters.address, 4 * experts as usize);
            assert_eq!(counts(&r), counts(&plain), "{case}");
            let table = |e: u32| if e % 3 == 2 { ABSENT } else { 1000 - e };
            let slots = r.bench.read(r.slots.address, r.pairs());
            assert_eq!(slots, ids.iter().map(|&e| table(e)).collect::<Vec<_>>(), "{case}");
            assert!(slots.contains(&ABSENT) && slots.iter().any(|&s| s != ABSENT), "{case}");
            let words = |(&e, &w): (&u32, &u32)| [e | if table(e) == ABSENT { 0 } else { HIT }, w];
            let (own, other) = r.record();
            assert_eq!(own, ids.iter().zip(&weights).flat_map(words).collect::<Vec<_>>(), "{case}");
            assert!(other.iter().all(|&w| w == UNTOUCHED), "{case}: another layer's record");
            assert_eq!(r.bench.state().halt, 0, "{case}: nobody asked for it to halt");
        }
    }
}

#[test]
fn the_router_halts_where_an_expert_is_missing() {
    let asked = StepState { tokens: 4, on_miss: 1, ..StepState::default() };
    for place in places("the_router_halts_where_an_expert_is_missing") {
        let case = |state: &StepState| {
            let r = Routing::new(&place.device, state, 64, 6);
            r.run(true);
            let (ids, slots) = (r.chosen().0, r.bench.read(r.slots.address, r.pairs()));
            let ran: Vec<bool> = ids.chunks(6).map(|row| row[0] != UNTOUCHED).collect();
            assert_eq!(ran, slots.chunks(6).map(|row| row[0] != UNTOUCHED).collect::<Vec<_>>());
            assert!(ran.iter().all(|&r| r == ran[0]), "{}: some tokens only", place.name);
            (r.bench.state().halt, ran[0])
        };
        assert_eq!(case(&asked), (4, true));
        // Another token of the step may have halted it at this layer: the others still choose.
        assert_eq!(case(&StepState { halt: 4, ..asked }), (4, true));
        assert_eq!(case(&StepState { halt: 3, ..asked }), (3, false));
        assert_eq!(case(&StepState { halt: 4, tokens: 1, ..asked }), (4, false));
        assert_eq!(case(&StepState { tokens: 1, ..asked }), (4, true));
        // A step behind the end waits for nobody.
        assert_eq!(case(&StepState { stopped: 1, ..asked }), (0, true));
        // All have slots.
        let r = Routing::new(&place.device, &asked, 64, 6);
        place.device.write(r.residency.address + 64 * 4, bytemuck::cast_slice(&(0..64).collect::<Vec<u32>>())).unwrap();
        r.run(true);
        assert_eq!(r.bench.state().halt, 0);
    }
}

#[test]
fn experts_that_are_missing_take_the_coldest_ones_slots() {
    const E: usize = 24;
    const K: usize = 4;
    const SLOTS: usize = 13;
    // Pieces of 16 bytes of a blob: no multiple of what a launch copies at a time.
    const QUADS: usize = 4 * 2 * 256 * 2 + 3 * 256 + 17;
    for place in places("experts_that_are_missing_take_the_coldest_ones_slots") {
        let state = StepState { tokens: 1, ..StepState::default() };
        let bench = Bench::new(&place.device, &state);
        let mut rng = Rng::new(61);
        let words = QUADS * 4;
        let experts: Vec<Vec<u32>> = (0..E).map(|_| (0..words).map(|_| rng.below(1 << 30) as u32).collect()).collect();
        let source = HostMemory::new(&place.device, "experts", (E * words * 4) as u64).unwrap();
        for (e, blob) in experts.iter().enumerate() {
            source.write((e * words * 4) as u64, bytemuck::cast_slice(blob)).unwrap();
        }
        assert!(matches!(source.write((E * words * 4) as u64 - 4, &[0; 8]), Err(Error::Invalid(_))));
        // The second of two layers; the first one's words stay.
        let mut tables = vec![UNTOUCHED; 2 * E + 2 * 2 * K];
        (0..E).for_each(|e| tables[E + e] = if e < SLOTS { e as u32 } else { ABSENT });
        let mut heat = vec![UNTOUCHED; 2 * (1 + 2 * E)];
        heat[1 + 2 * E..].fill(0);
        let (tables, heat) = (bench.buffer(&tables), bench.buffer(&heat));
        let slab: Vec<u32> = experts[..SLOTS].concat();
        let (slab, work) = (bench.buffer(&slab), bench.buffer(&[0u32; 1 + 2 * K]));
        let (ids, slots) = (bench.buffer(&[0u32; K]), bench.buffer(&[0u32; K]));
        let mut layer = Layer::new(E, SLOTS);
        let (own, record) = (tables.address + (E * 4) as u64, tables.address + ((2 * E + 2 * K) * 4) as u64);
        let mut misses = 0;
        for now in 1..=50 {
            // Some are used more than others.
            let mut chosen: Vec<usize> = rng.permutation(E).into_iter().map(|e| e as usize).collect();
            chosen.retain(|&e| e < 8 + now * 7 % 17);
            chosen.truncate(K);
            chosen.sort_unstable();
            let words_of: Vec<u32> = chosen.iter().map(|&e| e as u32).collect();
            place.device.write(ids.address, bytemuck::cast_slice(&words_of)).unwrap();
            let p = params::Place { top_k: K as u32, tokens: 0, pad: [0; 2] };
            let bind = [("ids", ids.address), ("table", own), ("slots", slots.address)];
            bench.run("place", &Defines::new(), bytemuck::bytes_of(&p), &bind, [1, 1, 1]);
            let found: Vec<bool> = bench.read(slots.address, K).iter().map(|&s| s != ABSENT).collect();
            let choices: Vec<u32> = words_of.iter().zip(&found).flat_map(|(&e, &hit)| [e | (u32::from(hit) * HIT), 5]).collect();
            place.device.write(record, bytemuck::cast_slice(&choices)).unwrap();
            let p = params::Admit {
                experts: E as u32,
                top_k: K as u32,
                bank: 1,
                record: 2 * E as u32,
                half_life: HALF_LIFE,
                pad: [0; 3],
            };
            let bind = [
                ("ids", ids.address),
                ("slots", slots.address),
                ("residency", tables.address),
                ("heat", heat.address),
                ("work", work.address),
            ];
            bench.run("admit", &Defines::new(), bytemuck::bytes_of(&p), &bind, [1, 1, 1]);
            // The slots lie in two parts, of which each launch knows one.
            for (first, count) in [(0, 5), (5, SLOTS - 5)] {
                let p = params::Gather {
                    quads: QUADS as u32,
                    bank_first: 0,
                    bank_count: E as u32,
                    slab_first: first as u32,
                    slab_count: count as u32,
                    pad: [0; 3],
                };
                let part = slab.address + (first * words * 4) as u64;
                let bind = [("work", work.address), ("source", source.address), ("slab", part)];
                bench.run("gather", &Defines::new(), bytemuck::bytes_of(&p), &bind, [2, K as u32, 1]);
            }
            let hits = layer.token(now as u32, &chosen);
            assert_eq!(hits, found, "token {now} on {}", place.name);
            misses += hits.iter().filter(|hit| !**hit).count();
            let table = bench.read(own, E);
            let expected: Vec<u32> = layer.slot.iter().map(|s| s.unwrap_or(ABSENT)).collect();
            assert_eq!(table, expected, "token {now} on {}", place.name);
            let placed: Vec<u32> = chosen.iter().map(|&e| expected[e]).collect();
            assert_eq!(bench.read(slots.address, K), placed);
            let flags = |hit: &bool| if *hit { HIT } else { GATHERED };
            let recorded: Vec<u32> = words_of.iter().zip(&hits).flat_map(|(&e, hit)| [e | flags(hit), 5]).collect();
            assert_eq!(bench.read(record, 2 * K), recorded);
            for (e, slot) in expected.iter().enumerate().filter(|(_, slot)| **slot != ABSENT) {
                let held = bench.read(slab.address + u64::from(*slot) * words as u64 * 4, words);
                assert!(held == experts[e], "token {now}: slot {slot} does not hold expert {e} on {}", place.name);
            }
        }
        assert!(misses > 30, "{misses} misses show little");
        let others = [bench.read(tables.address, E), bench.read(heat.address, 1 + 2 * E)].concat();
        assert!(others.iter().all(|&w| w == UNTOUCHED), "another layer's words on {}", place.name);
    }
}

#[test]
fn products_leave_missing_experts_alone() {
    const K: usize = 3;
    const TOKENS: usize = 12;
    const ROWS: usize = 6;
    const COLS: usize = 8;
    for place in places("products_leave_missing_experts_alone") {
        let bench = Bench::new(&place.device, &StepState { tokens: TOKENS as u32, ..StepState::default() });
        let mut rng = Rng::new(62);
        // Slots 2 .. 6 are here; others are elsewhere, or nowhere.
        let (first, here) = (2, 4);
        let blob = ROWS * COLS;
        let bank = rng.vector(here * blob);
        let x = rng.vector(TOKENS * K * COLS);
        let weights = rng.vector(TOKENS * K);
        let slots: Vec<u32> =
            (0..TOKENS * K).map(|i| if i % 4 == 3 { ABSENT } else { rng.below(first + here + 2) as u32 }).collect();
        let local = |pair: usize| (slots[pair] as usize).checked_sub(first).filter(|&s| s < here);
        assert!((0..slots.len()).any(|pair| slots[pair] != ABSENT && local(pair).is_none()));
        let product = |pair: usize, row: usize| {
            local(pair).map(|slot| {
                let w = &bank[slot * blob + row * COLS..][..COLS];
                w.iter().zip(&x[pair * COLS..]).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum::<f64>()
            })
        };
        let (bank_, x_, slots_) = (bench.buffer(&bank), bench.buffer(&x), bench.buffer(&slots));
        let p = params::Experts {
            rows: ROWS as u32,
            cols: COLS as u32,
            row_words: COLS as u32,
            blob_words: blob as u32,
            top_k: K as u32,
            slab_first: first as u32,
            slab_count: here as u32,
            max_tiles: 64,
            ..params::Experts::default()
        };
        let p = bytemuck::bytes_of(&p);
        let check = |out: &Memory, what: &str| {
            for (i, found) in bench.floats(out, TOKENS * K * ROWS).into_iter().enumerate() {
                let expected = product(i / ROWS, i % ROWS).unwrap_or(7.0);
                assert!((f64::from(found) - expected).abs() < 1e-5, "{what} on {}: {found}, not {expected}", place.name);
            }
        };
        let untouched = vec![7.0f32; TOKENS * K * ROWS];
        let s = shape::gemv(ROWS as u32, COLS as u32, 1, false);
        let matvec = Defines::new().set("FORMAT", "f32").flag("X4").set("TPR", s.tpr).set("RPT", s.rpt).set("TOKENS", 1);
        let out = bench.buffer(&untouched);
        let mut bind = vec![("x", x_.address), ("bank", bank_.address), ("slots", slots_.address), ("out", out.address)];
        bench.run("experts_matvec", &matvec, p, &bind, [1, (TOKENS * K) as u32, 1]);
        check(&out, "matvec");

        let sums = bench.buffer(&vec![2.0f32; TOKENS * ROWS]);
        let weights_ = bench.buffer(&weights);
        bind.pop();
        bind.extend([("weights", weights_.address), ("out", sums.address)]);
        let combine = matvec.flag("COMBINE").set("THREADS", 96);
        bench.run("experts_matvec", &combine, p, &bind, [ROWS as u32, TOKENS as u32, 1]);
        for (i, found) in bench.floats(&sums, TOKENS * ROWS).into_iter().enumerate() {
            let of = |k: usize| product(i / ROWS * K + k, i % ROWS).map_or(0.0, |y| y * f64::from(weights[i / ROWS * K + k]));
            let expected = 2.0 + (0..K).map(of).sum::<f64>();
            assert!((f64::from(found) - expected).abs() < 1e-5, "sum on {}: {found}, not {expected}", place.name);
        }

        let all = first + here + 2;
        let group = params::Group { slots: all as u32, top_k: K as u32, tile: 32, tokens: 0 };
        let group = bytemuck::bytes_of(&group);
        let buffer = |words: usize| bench.buffer(&vec![UNTOUCHED; words]);
        let (counts, pairs, tiles) = (buffer(all), buffer(TOKENS * K), buffer(4 + 4 * 64));
        let bind = [("chosen", slots_.address), ("counts", counts.address)];
        bench.run("group_count", &Defines::new(), group, &bind, [all as u32, 1, 1]);
        let bind = [("chosen", slots_.address), ("counts", counts.address), ("pairs", pairs.address), ("tiles", tiles.address)];
        bench.run("group_fill", &Defines::new(), group, &bind, [all as u32, 1, 1]);
        let present = slots.iter().filter(|&&s| s != ABSENT).count();
        assert!(bench.read(pairs.address, TOKENS * K)[present..].iter().all(|&w| w == UNTOUCHED), "pairs on {}", place.name);
        let out = bench.buffer(&untouched);
        let bind = [
            ("x", x_.address),
            ("bank", bank_.address),
            ("pairs", pairs.address),
            ("tiles", tiles.address),
            ("out", out.address),
        ];
        bench.run("experts_matmat", &Defines::new().set("FORMAT", "f32").set("TN", 32), p, &bind, [1, 64, 1]);
        check(&out, "matmat");
    }
}

/// Words of a kernel's parameters.
fn param_words(info: &cuda::KernelInfo) -> usize {
    let count = |kind: &str| kind.split_once("; ").map_or(1, |(_, n)| n.trim_end_matches(']').parse().unwrap());
    info.params.iter().map(|(_, kind, _)| count(kind)).sum()
}

#[test]
fn nothing_happens_while_the_plan_is_halted() {
    const WORDS: usize = 1 << 12;
    for place in places("nothing_happens_while_the_plan_is_halted") {
        let state = StepState { tokens: 2, halt: 9, on_miss: 1, counters_on: 1, ..StepState::default() };
        for info in KERNELS {
            let with_slots = info.variants().into_iter().find(|d| d.get("SLOTS").is_some());
            let first = info.variants().into_iter().next();
            for defines in first.into_iter().chain(with_slots) {
                let bench = Bench::new(&place.device, &state);
                let memory: Vec<Memory> = info.pointers.iter().map(|_| bench.buffer(&[UNTOUCHED; WORDS])).collect();
                let bind: Vec<(&str, u64)> = info.pointers.iter().map(|p| p.name).zip(memory.iter().map(|m| m.address)).collect();
                let params = vec![1u32; param_words(info)];
                bench.run(info.name, &defines, bytemuck::cast_slice(&params), &bind, [1, 1, 1]);
                for (pointer, memory) in info.pointers.iter().zip(&memory) {
                    let same = bench.read(memory.address, WORDS).iter().all(|&w| w == UNTOUCHED);
                    assert!(same, "{} {defines:?} writes `{}` on {}", info.name, pointer.name, place.name);
                }
                let step = bench.state();
                assert_eq!(bytemuck::bytes_of(&step), bytemuck::bytes_of(&state), "{} on {}: the step", info.name, place.name);
            }
        }
    }
}

#[test]
fn uploads_made_aside_are_there_once_joined() {
    for place in places("uploads_made_aside_are_there_once_joined") {
        // More than passes through at a time.
        let words = (20 << 20) / 4 + 3;
        let data: Vec<u32> = (0..words as u32).map(|i| i.wrapping_mul(0x9e37_79b9)).collect();
        let memory = Memory::new(&place.device, "a slot", (words * 4) as u64).unwrap();
        let bench = Bench::new(&place.device, &StepState::default());
        for round in 0..3 {
            place.device.join_uploads().unwrap();
            let turned: Vec<u32> = data.iter().map(|w| w ^ round).collect();
            let (head, tail) = turned.split_at(words / 3);
            place.device.upload_aside(memory.address, bytemuck::cast_slice(head)).unwrap();
            place.device.upload_aside(memory.address + head.len() as u64 * 4, bytemuck::cast_slice(tail)).unwrap();
            place.device.join_uploads().unwrap();
            assert!(bench.read(memory.address, words) == turned, "round {round} on {}", place.name);
        }
    }
}
