//! Kernels that change what the next step reads leave all of it alone while the plan is halted.

use std::sync::Arc;

use pleiad_runtime::{
    cuda::driver::{Driver, Launch, Memory, Variant},
    step::StepState,
};
use pleiad_shaders::{Defines, cuda, params};

use crate::backend::places;

const VOCAB: u32 = 70;
const ROWS: u32 = 3;
const IDS: usize = 600;

/// A kernel with its define and parameters.
type Case = (&'static str, Option<&'static str>, Vec<u8>);

fn cases() -> Vec<Case> {
    let bytes = |p: &[u8]| p.to_vec();
    let sample = params::Sample { vocab: VOCAB, row: 0, pad: [0; 2] };
    let draft = params::Draft { vocab: VOCAB, index: 1, drafts: 2, pad: 0 };
    let join = params::Join { n: 30, m: 40, tokens: 0, pad: 0 };
    vec![
        ("sample", None, bytes(bytemuck::bytes_of(&sample))),
        ("sample", Some("VERIFY"), bytes(bytemuck::bytes_of(&sample))),
        ("shift", None, bytes(bytemuck::bytes_of(&params::Shift { given: 0, pad: [0; 3] }))),
        ("settle", None, bytes(bytemuck::bytes_of(&params::Settle { drafts: 0, pad: [0; 3] }))),
        ("draft", None, bytes(bytemuck::bytes_of(&draft))),
        ("last_row", None, bytes(bytemuck::bytes_of(&params::LastRow { width: VOCAB, pad: [0; 3] }))),
        ("last_row", Some("TAKEN"), bytes(bytemuck::bytes_of(&params::LastRow { width: VOCAB, pad: [0; 3] }))),
        ("join", None, bytes(bytemuck::bytes_of(&join))),
    ]
}

/// What is in `buffers` before and behind a launch.
fn around(driver: &Arc<dyn Driver>, (kernel, flag, params): &Case, halt: u32) -> (Vec<u8>, Vec<u8>) {
    let step = StepState { tokens: ROWS, drafted: 2, count: 1, open: 1, pos: 9, halt, ..StepState::default() };
    let words = |n: usize, from: u32| (0..n as u32).flat_map(|i| (from + i % 61).to_ne_bytes()).collect::<Vec<u8>>();
    let floats = |n: usize| (0..n).flat_map(|i| ((i * 37 % 101) as f32).to_ne_bytes()).collect::<Vec<u8>>();
    let width = (ROWS * VOCAB) as usize;
    let contents = [
        ("step", [bytemuck::bytes_of(&step), &[0; 16]].concat()),
        ("ids", words(IDS, 1)),
        ("ring", words(256, 500)),
        ("logits", floats(width)),
        ("x", floats(width)),
        ("a", floats(width)),
        ("b", floats(width)),
        ("out", words(width, 7)),
    ];
    let memory: Vec<Memory> = contents.iter().map(|(n, c)| Memory::new(driver, n, c.len() as u64).unwrap()).collect();
    contents.iter().zip(&memory).for_each(|((_, c), m)| driver.write(m.address, c).unwrap());
    let info = cuda::kernel(kernel).unwrap();
    let defines = flag.map_or_else(Defines::new, |f| Defines::new().flag(f));
    let bind: Vec<(&str, u64)> = contents.iter().zip(&memory).map(|((n, _), m)| (*n, m.address)).collect();
    let bind: Vec<(&str, u64)> = bind.into_iter().filter(|(n, _)| info.pointers.iter().any(|p| p.name == *n)).collect();
    let frame = cuda::Frame { step: memory[0].address, pages: 4, positions: 256 };
    let arguments = cuda::arguments(info, &defines, frame, &bind, params).unwrap().into();
    let threads = info.threads(&defines);
    let function = driver.function(0, &Variant { kernel: info.name, defines }).unwrap();
    let grid = [1, if *kernel == "join" { ROWS } else { 1 }, 1];
    let touches = [].into();
    driver.launch(&[Launch { device: 0, function, grid, threads, shared: 0, arguments, touches }]).unwrap();
    let spans: Vec<(u64, usize)> = contents.iter().zip(&memory).map(|((_, c), m)| (m.address, c.len())).collect();
    let after = driver.fetched(driver.fetch(&spans).unwrap()).unwrap();
    (contents.into_iter().flat_map(|(_, c)| c).collect(), after)
}

#[test]
fn nothing_changes_while_the_plan_is_halted() {
    for place in places("nothing_changes_while_the_plan_is_halted") {
        for case in cases() {
            let (before, after) = around(&place.device, &case, 2);
            assert!(before == after, "{} {:?} on {}: halted", case.0, case.1, place.name);
            let (before, after) = around(&place.device, &case, 0);
            assert!(before != after, "{} {:?} on {}: it did nothing", case.0, case.1, place.name);
        }
    }
}
