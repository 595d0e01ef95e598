//! Experts in slots: the bookkeeping that kernels do by themselves is the host's.

use std::sync::Arc;

use pleiad_models::Checkpoint;
use pleiad_runtime::{
    Activations, CacheFormat, Model,
    executor::{ExpertOptions, LoadOptions, Readback},
    experts::{
        budget::Needs,
        trace::{Routed, Served},
        ways::{Way, WayChoice},
    },
    forward::{AttentionForm, Options, Output, record},
    step::StepState,
};

use crate::{
    backend::{DeviceExecutor, ROW_ALIGN, reads_host},
    support::{Layer, Rng, places},
};

#[test]
fn kernels_keep_slots_as_the_formula_says() {
    let checkpoint = Checkpoint::tiny().unwrap();
    let model = Arc::new(Model::new(&checkpoint.config, &checkpoint.weights));
    let moe = checkpoint.config.moe.clone().unwrap();
    for place in places("kernels_keep_slots_as_the_formula_says") {
        let (positions, activations) = (64, Activations::Q8);
        let needs = Needs::aligned(&model, positions, positions, CacheFormat::F16, activations, 1, ROW_ALIGN);
        let options = LoadOptions {
            positions,
            max_context: positions,
            cache: CacheFormat::F16,
            threads: Some(1),
            experts: ExpertOptions {
                budget: Some(needs.least()),
                misses: WayChoice::Only(Way::Gather),
                chunk: 1,
                activations,
                trace: true,
                ..ExpertOptions::default()
            },
        };
        let device = Arc::clone(&place.device);
        if !reads_host(&device) {
            println!("SKIPPED kernels_keep_slots_as_the_formula_says on {}: kernels cannot read host memory", place.name);
            continue;
        }
        let mut rows: Vec<Routed> = Vec::new();
        let slots = pollster::block_on(async {
            let mut e = DeviceExecutor::load(device, Arc::clone(&model), &options, &mut |_, _| {}).await.unwrap();
            let attention = AttentionForm::Absorbed;
            let plan = e
                .compile(&record(
                    &model,
                    Options { max_tokens: 1, output: Output::Cache, activations, attention, speculation: None },
                ))
                .unwrap();
            let mut rng = Rng::new(5);
            let pages = [0];
            for pos in 0..30 {
                e.write_step(&StepState { pos, tokens: 1, ..StepState::default() }, &pages);
                e.write_ids(&[rng.below(model.config.vocab_size) as u32]);
                let before = e.stats();
                let ticket = e.submit(plan, 1, Readback::default()).unwrap();
                rows.extend(e.wait(ticket).await.unwrap().routed.unwrap().iter());
                let took = e.stats().since(before);
                assert_eq!((took.submissions, took.readbacks, took.bind_groups, took.rendezvous), (1, 1, 0, 0));
            }
            e.experts().slots
        });
        let k = moe.top_k;
        let banks = slots.len();
        assert!(slots.iter().all(|&s| s < moe.num_experts), "{slots:?}");
        let mut layers: Vec<Layer> = slots.iter().map(|&s| Layer::new(moe.num_experts, s)).collect();
        let mut misses = 0;
        for (t, token) in rows.chunks(banks * k).enumerate() {
            for (layer, of) in layers.iter_mut().zip(token.chunks(k)) {
                // Kernels take a token's experts in order of their numbers.
                let mut of = of.to_vec();
                of.sort_by_key(|r| r.expert);
                let chosen: Vec<usize> = of.iter().map(|r| usize::from(r.expert)).collect();
                let hits = layer.token(t as u32 + 1, &chosen);
                let device: Vec<bool> = of.iter().map(|r| r.served == Served::Hit).collect();
                assert_eq!(hits, device, "{}: token {t}: {of:?}", place.name);
                assert!(of.iter().all(|r| r.served == Served::Hit || (r.served == Served::Gathered && r.bytes > 0)));
                misses += hits.iter().filter(|h| !**h).count();
            }
        }
        assert!(misses > 60, "{misses} misses show little");
    }
}
