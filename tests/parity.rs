//! Outputs against Hugging Face's and llama.cpp's: every family, format and way of feeding the tokens.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a failure is a failed test; a skipped part is printed")]

use std::sync::Arc;

use pleiad_models::Config;
use pleiad_runtime::{
    Activations, CacheFormat, Model,
    eval::{EvalOptions, Evaluation, evaluate},
    forward::AttentionForm,
};
use pleiad_tests::{Golden, Place, cuda, golden_ggufs, goldens, gpus, nmse, open};

fn run(place: &Place, model: &Arc<Model>, ids: &[u32], chunk: usize, act: Activations, form: AttentionForm) -> Evaluation {
    let mut executor = place.load(model, ids.len(), CacheFormat::F32);
    let options = EvalOptions { chunk, activations: act, attention: form };
    pollster::block_on(evaluate(&mut executor, model, options, ids, &mut |_, _| {})).unwrap()
}

/// Compares one evaluation with the reference: logits by NMSE, routing by id and weight.
fn check(case: &str, golden: &Golden, config: &Config, got: &Evaluation, bound: f64) {
    let rows = golden.logits.len() / config.vocab_size;
    let first = golden.ids.len() - rows;
    let error = nmse(&golden.logits, &got.logits[first * config.vocab_size..]);
    println!("{case}: NMSE {error:.1e}");
    assert!(error < bound, "{case}: NMSE of logits {error:e}, the bound is {bound:e}");
    assert_eq!(golden.routing.keys().collect::<Vec<_>>(), got.routing.keys().collect::<Vec<_>>(), "{case}");
    for (layer, (ids, weights)) in &golden.routing {
        let k = ids.len() / rows;
        let (got_ids, got_weights) = &got.routing[layer];
        assert_eq!(ids, &got_ids[first * k..], "{case}: experts of layer {layer}");
        let error = nmse(weights, &got_weights[first * k..]);
        assert!(error < bound, "{case}: NMSE of weights of layer {layer} {error:e}");
    }
}

fn goldens_on(places: &[Place]) {
    for (name, golden) in goldens() {
        let (checkpoint, model) = open(&golden.directory);
        for place in places {
            for (chunk, form) in [
                (golden.ids.len(), AttentionForm::Absorbed),
                (golden.ids.len(), AttentionForm::Expanded),
                (7, AttentionForm::Absorbed),
                (7, AttentionForm::Expanded),
                (1, AttentionForm::Absorbed),
            ] {
                let case = format!("{name} on {}, chunks of {chunk}, {form:?}", place.name());
                let got = run(place, &model, &golden.ids, chunk, Activations::F32, form);
                check(&case, &golden, &checkpoint.config, &got, 1e-6);
            }
        }
    }
}

#[test]
fn golden_cases_by_the_twins() {
    goldens_on(&[Place::Plain]);
}

#[test]
fn golden_cases_on_the_cpu() {
    goldens_on(&[Place::Cpu]);
}

#[test]
fn golden_cases_on_gpus() {
    goldens_on(&gpus("golden_cases_on_gpus"));
}

#[test]
fn golden_cases_on_cuda() {
    goldens_on(&cuda("golden_cases_on_cuda"));
}

fn ggufs_on(places: &[Place]) {
    for golden in golden_ggufs() {
        let (_, model) = open(&golden.path);
        for place in places {
            for (act, bound) in [(Activations::F32, 1e-6), (Activations::Q8, 5e-3)] {
                for chunk in [golden.ids.len(), 1] {
                    let got = run(place, &model, &golden.ids, chunk, act, AttentionForm::Absorbed);
                    let error = nmse(&golden.exact, &got.logits);
                    let case = format!("{} on {}, {act:?}, chunks of {chunk}", golden.name, place.name());
                    println!("{case}: NMSE {error:.1e}");
                    assert!(error < bound, "{case}: NMSE {error:e}, the bound is {bound:e}");
                }
            }
        }
    }
}

#[test]
fn llama_cpp_files_by_the_twins() {
    ggufs_on(&[Place::Plain]);
}

#[test]
fn llama_cpp_files_on_the_cpu() {
    ggufs_on(&[Place::Cpu]);
}

#[test]
fn llama_cpp_files_on_gpus() {
    ggufs_on(&gpus("llama_cpp_files_on_gpus"));
}

#[test]
fn llama_cpp_files_on_cuda() {
    ggufs_on(&cuda("llama_cpp_files_on_cuda"));
}
