//! One model on several emulated devices: the results of one device, to the last bit, in every order that the devices may take.

use std::sync::Arc;

use pleiad_models::{Checkpoint, Format};
use pleiad_runtime::{
    Activations, CacheFormat, Error, Model,
    cuda::{
        CudaExecutor, Driver, Variant,
        driver::{Launch, Memory},
    },
    eval::{EvalOptions, Evaluation, evaluate},
    executor::{Executor, ExpertOptions, LoadOptions, Readback, StepOutput},
    experts::{bank::fingerprint, profile::Profile},
    forward::{AttentionForm, Options, Output, Speculation, record},
    plan::{Kind, Op, Rows},
    step::StepState,
};
use pleiad_shaders::{Defines, cuda, params};

use crate::{
    emulator::{Emulator, compiler},
    support::{Check as _, Place, Rng, Setup, config, moe, small_attention, tensor},
};

/// Bytes of a device that has enough.
const PLENTY: u64 = 1 << 30;
/// Tokens that models are evaluated on.
const TOKENS: usize = 12;

fn options() -> LoadOptions {
    let experts = ExpertOptions::default();
    LoadOptions { positions: 128, max_context: 128, cache: CacheFormat::F16, threads: Some(1), experts }
}

fn tiny(mtp: bool) -> Arc<Model> {
    let checkpoint = Checkpoint::tiny().unwrap();
    let make = if mtp { Model::with_mtp } else { Model::new };
    Arc::new(make(&checkpoint.config, &checkpoint.weights))
}

fn load(emulator: &Arc<Emulator>, model: &Arc<Model>, options: &LoadOptions) -> Result<CudaExecutor, Error> {
    let driver: Arc<dyn Driver> = Arc::clone(emulator) as Arc<dyn Driver>;
    pollster::block_on(CudaExecutor::load(driver, Arc::clone(model), options, &mut |_, _| {}))
}

fn ids(n: usize, model: &Model) -> Vec<u32> {
    let mut rng = Rng::new(60);
    (0..n).map(|_| rng.below(model.config.vocab_size) as u32).collect()
}

/// So many devices, or, without a compiler, none: said by name.
fn devices(test: &str, n: usize) -> Option<Arc<Emulator>> {
    let found = compiler().map(|c| Arc::new(Emulator::several(c, &vec![PLENTY; n])));
    if found.is_none() {
        println!("SKIPPED {test}: no C++ compiler (g++ or clang++, on Linux)");
    }
    found
}

fn evaluation(emulator: &Arc<Emulator>, model: &Arc<Model>, options: &LoadOptions, how: EvalOptions) -> Evaluation {
    let mut e = Executor::Cuda(Box::new(load(emulator, model, options).unwrap()));
    pollster::block_on(evaluate(&mut e, model, how, &ids(TOKENS, model), &mut |_, _| {})).unwrap()
}

fn assert_same(one: &Evaluation, many: &Evaluation, case: &str) {
    for (layer, (ids, weights)) in &one.routing {
        assert_eq!(&many.routing[layer].0, ids, "{case}: routing of layer {layer}");
        assert_eq!(&many.routing[layer].1, weights, "{case}: weights of layer {layer}");
    }
    let bits = |e: &Evaluation| e.logits.iter().map(|l| l.to_bits()).collect::<Vec<_>>();
    assert!(bits(one) == bits(many), "{case}: logits");
}

#[test]
fn several_devices_agree_with_one() {
    let model = tiny(false);
    let Some(one) = devices("several_devices_agree_with_one", 1) else { return };
    for (activations, attention, chunk, counts) in [
        (Activations::F32, AttentionForm::Absorbed, 1, &[2, 3][..]),
        (Activations::F32, AttentionForm::Expanded, TOKENS, &[2, 4]),
        (Activations::Q8, AttentionForm::Absorbed, TOKENS, &[3]),
        (Activations::Q8, AttentionForm::Absorbed, 5, &[2, 4]),
    ] {
        let how = EvalOptions { chunk, activations, attention };
        let expected = evaluation(&one, &model, &options(), how);
        for &n in counts {
            let many = devices("several_devices_agree_with_one", n).unwrap();
            many.rank(chunk);
            let found = evaluation(&many, &model, &options(), how);
            assert_same(&expected, &found, &format!("{how:?} on {n} devices"));
            let launched = many.launched();
            assert!(launched.iter().all(|&l| l > 0), "{how:?}: launches {launched:?}");
            assert_eq!(many.buffers(), 0, "all memory is given back");
        }
    }
}

/// A prompt and some steps, several of them under way at once: what came back, and the step state at the end.
fn decode(emulator: &Arc<Emulator>, model: &Arc<Model>, draft: Option<usize>) -> (Vec<StepOutput>, StepState) {
    let mut e = load(emulator, model, &options()).unwrap();
    let record = |max_tokens, verify| {
        let (output, activations, attention) = (Output::Token, Activations::F32, AttentionForm::Absorbed);
        let speculation = draft.map(|draft| Speculation { verify, draft });
        record(model, Options { max_tokens, output, activations, attention, speculation })
    };
    let rows = draft.map_or(1, |k| k + 1);
    let plans = [(11, record(16, 0)), (rows, record(rows, draft.unwrap_or(0)))].map(|(n, p)| (n, e.compile(&p).unwrap()));
    e.write_step(&StepState { tokens: 11, counters_on: 1, ..StepState::default() }, &[1, 0]);
    e.write_ids(&ids(11, model));
    let token = Readback { token: true, counters: true };
    let mut outputs = Vec::new();
    // With drafts the host has to know how many tokens a step came to.
    let mut tickets = Vec::new();
    for i in 0..7 {
        let (tokens, plan) = plans[usize::from(i > 0)];
        let ticket = e.submit(plan, tokens, token).unwrap();
        if draft.is_some() {
            outputs.push(pollster::block_on(e.wait(ticket)).unwrap());
        } else {
            tickets.push(ticket);
        }
    }
    outputs.extend(tickets.into_iter().map(|t| pollster::block_on(e.wait(t)).unwrap()));
    let step = pollster::block_on(e.read_step()).unwrap();
    assert_eq!(outputs.last().unwrap().counters, Some(pollster::block_on(e.read_counters()).unwrap()));
    e.reset_counters();
    assert!(pollster::block_on(e.read_counters()).unwrap().iter().all(|&n| n == 0));
    (outputs, step)
}

#[test]
fn graphs_of_several_devices_decode_what_one_does() {
    for draft in [None, Some(2)] {
        let model = tiny(draft.is_some());
        let Some(one) = devices("graphs_of_several_devices_decode_what_one_does", 1) else { return };
        let expected = decode(&one, &model, draft);
        for n in 2..=4 {
            let many = devices("graphs_of_several_devices_decode_what_one_does", n).unwrap();
            let found = decode(&many, &model, draft);
            assert_eq!(found.0, expected.0, "{n} devices, drafts {draft:?}");
            assert!(bytemuck::bytes_of(&found.1) == bytemuck::bytes_of(&expected.1), "{n} devices, drafts {draft:?}: state");
            assert_eq!(many.graphs(), one.graphs());
        }
    }
}

#[test]
fn an_event_that_is_missing_shows() {
    let model = tiny(false);
    let how = EvalOptions { chunk: TOKENS, activations: Activations::F32, attention: AttentionForm::Absorbed };
    let Some(one) = devices("an_event_that_is_missing_shows", 1) else { return };
    let expected = evaluation(&one, &model, &options(), how);
    let two = devices("an_event_that_is_missing_shows", 2).unwrap();
    // Every wait but the first, which only says where a list begins.
    let mut shown = Vec::new();
    for wait in 1..9 {
        let wrong = (0..2).any(|ranking| {
            two.rank(ranking);
            two.keep_ranking(true);
            two.leave_out(Some(wait));
            let found = evaluation(&two, &model, &options(), how);
            two.leave_out(None);
            found.logits.iter().map(|l| l.to_bits()).ne(expected.logits.iter().map(|l| l.to_bits()))
        });
        shown.push(wrong);
    }
    println!("waits left out that showed: {shown:?}");
    // One that only keeps a buffer from being written too early may go unnoticed, where the same is written again.
    assert!(shown.iter().filter(|s| **s).count() >= 5, "{shown:?}");
    two.keep_ranking(false);
    assert_same(&expected, &evaluation(&two, &model, &options(), how), "with every wait");
}

#[test]
fn experts_of_many_uses_have_copies() {
    let model = tiny(false);
    let Some(one) = devices("experts_of_many_uses_have_copies", 1) else { return };
    let directory = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("profile-{}", std::process::id()));
    let experts = model.config.moe.as_ref().unwrap().num_experts;
    // The last expert of every layer does nearly all the work.
    let mut heat = vec![vec![0.01; experts]; model.banks.len()];
    heat.iter_mut().for_each(|h| h[experts - 1] = 2.0);
    Profile { tokens: 1000, heat }.save(&directory, &fingerprint(&model).unwrap()).unwrap();
    let mut remembering = options();
    remembering.experts.directory = Some(directory.clone());
    for n in 2..=3 {
        let many = devices("experts_of_many_uses_have_copies", n).unwrap();
        let e = load(&many, &model, &remembering).unwrap();
        let copies = e.experts().copies;
        println!("{n} devices: {experts} experts and {copies:?} copies");
        assert!(
            copies.iter().all(|&c| c > 0 && (experts + c).is_multiple_of(n)),
            "{copies:?} copies of {experts} experts on {n} devices"
        );
        drop(e);
        for (activations, chunk) in [(Activations::F32, TOKENS), (Activations::Q8, 1)] {
            let how = EvalOptions { chunk, activations, attention: AttentionForm::Absorbed };
            let expected = evaluation(&one, &model, &options(), how);
            assert_same(&expected, &evaluation(&many, &model, &remembering, how), &format!("copies, {how:?} on {n} devices"));
        }
    }
    std::fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn products_of_experts_on_several_devices() {
    let Some(compiler) = compiler() else {
        println!("SKIPPED products_of_experts_on_several_devices: no C++ compiler (g++ or clang++, on Linux)");
        return;
    };
    let place = |n| Place { name: format!("{n} devices"), device: Arc::new(Emulator::several(compiler, &vec![PLENTY; n])) };
    let places = [place(2), place(3)];
    let mut rng = Rng::new(61);
    // Gates and up matrices of one kind, and of two.
    let formats = [(Format::Q8_0, Format::Q8_0, 64, 96), (Format::F32, Format::F32, 5, 8), (Format::F32, Format::Q8_0, 64, 32)];
    for (gate_format, format, hidden, inner) in formats {
        for kind in [Kind::F32, Kind::Q8].into_iter().filter(|&k| k == Kind::F32 || gate_format.is_quantised()) {
            for (k, tokens, max_tokens) in [(1, 1, 1), (3, 2, 2), (8, 3, 40), (4, 20, 40)] {
                let name = format!(
                    "{k} experts of {gate_format} and {format} {hidden}x{inner}, {kind:?}, {tokens} of {max_tokens} tokens"
                );
                let mut s = Setup::new(name, tokens, max_tokens);
                s.config = config(small_attention(), true, Some(moe(13, k, inner)));
                let gate = tensor(&mut rng, gate_format, 13, inner, hidden);
                let up = tensor(&mut rng, format, 13, inner, hidden);
                let down = tensor(&mut rng, Format::F32, 13, hidden, inner);
                let bank = s.bank(gate, up, down);
                let ids = (0..tokens).flat_map(|t| (0..k as u32).map(move |i| (i + t as u32) % 13)).collect();
                let ids = s.id_input(k, ids);
                let values = rng.vector(tokens * hidden);
                let mut x = s.input(Kind::F32, hidden, values);
                if kind == Kind::Q8 {
                    let q8 = s.plan.act("x.q8", Kind::Q8, Rows::Tokens, hidden);
                    s.op(Op::Quantise { x, out: q8 });
                    x = q8;
                }
                // What nobody else reads stays in parts; what is read here is put together.
                let inner_rows = s.output(Kind::F32, k * inner);
                s.op(Op::ExpertsUp { bank, x, ids, out: inner_rows });
                let other = s.output(Kind::F32, k * hidden);
                s.op(Op::ExpertsDown { bank, x: inner_rows, ids, out: other });
                s.outputs.retain(|&o| o != inner_rows);
                let weights = rng.vector(tokens * k);
                let weights = s.input(Kind::F32, k, weights);
                let before = rng.vector(tokens * hidden);
                let sum = s.input(Kind::F32, hidden, before);
                s.outputs.push(sum);
                s.op(Op::Combine { y: other, weights, x: sum });
                s.check(&places, 1e-10);

                let mut s = Setup::new("up products alone".to_owned(), s.tokens, s.plan.max_tokens);
                s.config = config(small_attention(), true, Some(moe(13, k, 8)));
                let [gate, up] = [0, 1].map(|_| tensor(&mut rng, Format::F32, 13, 8, hidden));
                let down = tensor(&mut rng, Format::F32, 13, hidden, 8);
                let bank = s.bank(gate, up, down);
                let ids = s.id_input(k, (0..tokens * k).map(|i| i as u32 % 13).collect());
                let values = rng.vector(tokens * hidden);
                let x = s.input(Kind::F32, hidden, values);
                let out = s.output(Kind::F32, k * 8);
                s.op(Op::ExpertsUp { bank, x, ids, out });
                s.check(&places, 1e-10);
            }
        }
    }
}

/// The slots that `spread` chooses.
fn spread(driver: &Arc<dyn Driver>, table: &[u32], ids: &[u32], devices: u32, top_k: u32, tokens: u32) -> Vec<u32> {
    let memory = |what: &str, words: &[u32]| {
        let memory = Memory::new(driver, what, (words.len() * 4) as u64).unwrap();
        driver.write(memory.address, bytemuck::cast_slice(words)).unwrap();
        memory
    };
    let step = memory("step", &vec![0; StepState::WORDS + 1]);
    let (table, ids, slots) = (memory("table", table), memory("ids", ids), memory("slots", &vec![9999; ids.len()]));
    let (info, defines) = (cuda::kernel("spread").unwrap(), Defines::new());
    let p = params::Spread { devices, top_k, tokens, pad: 0 };
    let bind = [("ids", ids.address), ("table", table.address), ("slots", slots.address)];
    let frame = cuda::Frame { step: step.address, pages: 1, positions: 1 };
    let arguments = cuda::arguments(info, &defines, frame, &bind, bytemuck::bytes_of(&p)).unwrap().into();
    let threads = info.threads(&defines);
    let function = driver.function(0, &Variant { kernel: info.name, defines }).unwrap();
    let grid = [tokens.div_ceil(threads), 1, 1];
    driver.launch(&[Launch { device: 0, function, grid, threads, shared: 0, arguments, touches: [].into() }]).unwrap();
    let bytes = driver.fetched(driver.fetch(&[(slots.address, (tokens * top_k * 4) as usize)]).unwrap()).unwrap();
    bytes.as_chunks().0.iter().map(|&w| u32::from_ne_bytes(w)).collect()
}

#[test]
fn copies_are_chosen_so_that_devices_share_the_work() {
    let Some(emulator) = devices("copies_are_chosen_so_that_devices_share_the_work", 1) else { return };
    let driver: Arc<dyn Driver> = emulator;
    let mut rng = Rng::new(62);
    for (devices, experts, top_k, tokens) in [(1, 8, 2, 3), (2, 16, 4, 40), (3, 30, 6, 65), (16, 64, 8, 33)] {
        // An expert is on one device, on some, or on all.
        let mut table = vec![u32::MAX; experts * devices];
        for (e, row) in table.chunks_mut(devices).enumerate() {
            row[rng.below(devices)] = (e * 100) as u32;
            for (d, slot) in row.iter_mut().enumerate() {
                if e % 3 == 0 || rng.below(3) == 0 {
                    *slot = (e * 100 + d) as u32;
                }
            }
        }
        let ids: Vec<u32> =
            (0..tokens).flat_map(|_| rng.permutation(experts).into_iter().take(top_k).collect::<Vec<_>>()).collect();
        let found = spread(&driver, &table, &ids, devices as u32, top_k as u32, tokens as u32);
        for (t, (ids, slots)) in ids.chunks(top_k).zip(found.chunks(top_k)).enumerate() {
            // The rule, once more: those with one copy first, then each where there are fewest.
            let mut pairs = vec![0; devices];
            let mut expected = vec![0; top_k];
            for several in [false, true] {
                for (&id, chosen) in ids.iter().zip(&mut expected) {
                    let row = &table[id as usize * devices..][..devices];
                    if (row.iter().filter(|&&s| s != u32::MAX).count() > 1) != several {
                        continue;
                    }
                    let order = (0..devices).map(|i| (t + i) % devices).filter(|&d| row[d] != u32::MAX);
                    let best = order.min_by_key(|&d| pairs[d]).unwrap();
                    pairs[best] += 1;
                    *chosen = row[best];
                }
            }
            assert_eq!(slots, expected, "token {t} on {devices} devices");
        }
    }
}

#[test]
fn a_device_that_is_full_is_named() {
    let Some(compiler) = compiler() else {
        println!("SKIPPED a_device_that_is_full_is_named: no C++ compiler (g++ or clang++, on Linux)");
        return;
    };
    let model = tiny(false);
    let emulator = Arc::new(Emulator::several(compiler, &[PLENTY, 64 << 10]));
    let error = load(&emulator, &model, &options()).err().unwrap();
    let words = error.to_string();
    assert!(matches!(error, Error::OutOfMemory { .. }) && words.contains("GPU 1 lacks"), "{words}");
    assert!(!words.contains("GPU 0"), "{words}");
    assert_eq!(emulator.buffers(), 0);
    // The budget is each device's: half of the model fits one that the whole does not.
    let whole = {
        let one = Arc::new(Emulator::new(compiler));
        load(&one, &model, &options()).unwrap().experts().device_bytes
    };
    let two = Arc::new(Emulator::several(compiler, &[PLENTY, PLENTY]));
    let mut some = options();
    some.experts.budget = Some(whole * 9 / 10);
    assert!(load(&Arc::new(Emulator::new(compiler)), &model, &some).is_err());
    let e = load(&two, &model, &some).unwrap();
    let used = [two.bytes(0), two.bytes(1)];
    println!("{whole} bytes on one device, {used:?} on two");
    drop(e);
    some.experts.budget = Some(whole / 4);
    let error = load(&two, &model, &some).err().unwrap();
    assert!(matches!(error, Error::Budget { .. }) && error.to_string().contains("GPU 0 lacks"), "{error}");
    // Where there is no room for copies, there are none.
    let copies = |percent: u64| {
        some.experts.budget = Some(whole * percent / 100);
        load(&two, &model, &some).ok().map(|e| e.experts().copies.iter().sum::<usize>())
    };
    let found: Vec<usize> = (30..=100).rev().step_by(2).map_while(copies).collect();
    println!("copies under ever smaller budgets: {found:?}");
    assert!(found[0] > 0 && found.last() == Some(&0) && found.is_sorted_by(|a, b| a >= b), "{found:?}");
}
