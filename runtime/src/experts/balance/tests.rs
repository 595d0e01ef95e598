//! The balancer's published example, and what holds for any loads.
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

use proptest::prelude::*;

use super::*;

fn two_layers() -> Vec<Vec<f32>> {
    let layers = [[90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86], [20, 107, 104, 64, 19, 197, 187, 157, 172, 86, 16, 27]];
    layers.map(|l| l.map(|x: i32| x as f32).to_vec()).to_vec()
}

fn most(loads: &[f64]) -> f64 {
    loads.iter().copied().fold(0.0, f64::max)
}

#[test]
fn the_published_example() {
    let spread = Spread { replicas: 16, groups: 4, nodes: 2, gpus: 8 };
    let found = rebalance(&two_layers(), spread).unwrap();
    assert_eq!(found[0].experts, [5, 6, 5, 7, 8, 4, 3, 4, 10, 9, 10, 2, 0, 1, 11, 1]);
    assert_eq!(found[1].experts, [7, 10, 6, 8, 6, 11, 8, 9, 2, 4, 5, 1, 5, 0, 3, 1]);
    assert_eq!(found[0].slots[10], [8, 10]);
    assert_eq!(found[1].slots.iter().map(Vec::len).collect::<Vec<_>>(), [1, 2, 1, 1, 1, 2, 2, 1, 2, 1, 1, 1]);
}

#[test]
fn groups_that_cannot_be_dealt_evenly_do_not_count() {
    let load = &two_layers()[0];
    let spread = |groups, nodes| balance(load, Spread { replicas: 16, groups, nodes, gpus: 8 }).unwrap();
    assert_eq!(spread(3, 2), spread(1, 1));
    assert_eq!(spread(5, 1), spread(1, 1));
    // On one node groups only say who comes first among equals.
    assert_eq!(most(&spread(4, 1).loads(load, 8)), most(&spread(1, 1).loads(load, 8)));
}

#[test]
fn copies_go_where_the_load_is() {
    // One expert that is used by every token, on four GPUs with one slot to spare each: it is everywhere.
    let mut load = vec![1.0; 12];
    load[7] = 100.0;
    let found = balance(&load, Spread { replicas: 16, groups: 1, nodes: 1, gpus: 4 }).unwrap();
    assert_eq!(found.slots[7].iter().map(|s| s / 4).collect::<Vec<_>>(), [0, 1, 2, 3]);
    // Nothing is known: the copies are shared out.
    let found = balance(&[0.0; 6], Spread { replicas: 8, groups: 1, nodes: 1, gpus: 2 }).unwrap();
    assert!(found.slots.iter().all(|s| s.len() <= 2));
    // More copies than there are GPUs for.
    let found = balance(&[1.0, 2.0], Spread { replicas: 6, groups: 1, nodes: 1, gpus: 2 }).unwrap();
    assert_eq!(found.slots.iter().map(Vec::len).sum::<usize>(), 6);
}

#[test]
fn what_does_not_divide_is_refused() {
    let refused = |experts: usize, replicas, nodes, gpus| {
        let error = balance(&vec![1.0; experts], Spread { replicas, groups: 1, nodes, gpus }).unwrap_err();
        assert!(matches!(error, Error::Invalid(_)), "{error}");
    };
    refused(8, 7, 1, 1);
    refused(8, 9, 1, 2);
    refused(8, 8, 1, 0);
    refused(8, 8, 0, 2);
    refused(8, 12, 2, 3);
    refused(0, 0, 1, 1);
    for bad in [f32::NAN, f32::INFINITY, -1.0] {
        assert!(balance(&[1.0, bad], Spread { replicas: 2, groups: 1, nodes: 1, gpus: 2 }).is_err());
    }
}

#[test]
fn layers_lie_where_they_fit_best() {
    assert_eq!(homes(&[5, 1, 1, 1, 1, 1], 2), [0, 1, 1, 1, 1, 1]);
    assert_eq!(homes(&[1, 1, 1, 1], 2), [0, 0, 1, 1]);
    assert_eq!(homes(&[1, 1, 1, 9], 3), [0, 1, 1, 2]);
    assert_eq!(homes(&[3, 4], 4), [0, 1]);
    assert_eq!(homes(&[3, 4], 1), [0, 0]);
    assert_eq!(homes(&[], 3), [] as [usize; 0]);
    assert_eq!(homes(&[u64::MAX, u64::MAX, 1], 2).len(), 3);
}

fn spreads() -> impl Strategy<Value = (Vec<f32>, Spread)> {
    (1usize..=4, 1usize..=3, 1usize..=6, 1usize..=4).prop_flat_map(|(nodes, each, size, per_node)| {
        let (groups, gpus) = (nodes * per_node, nodes * each);
        let experts = groups * size;
        let loads = prop::collection::vec(prop_oneof![Just(0.0f32), 0.0f32..10.0, 100.0f32..1000.0], experts);
        (loads, experts.div_ceil(gpus)..=experts.div_ceil(gpus) + 4)
            .prop_map(move |(load, room)| (load, Spread { replicas: room * gpus, groups, nodes, gpus }))
    })
}

proptest! {
    #[test]
    fn every_expert_has_a_place((load, spread) in spreads()) {
        let found = balance(&load, spread).unwrap();
        prop_assert_eq!(found.experts.len(), spread.replicas);
        for (e, slots) in found.slots.iter().enumerate() {
            prop_assert!(!slots.is_empty() && slots.iter().all(|&s| found.experts[s] == e));
        }
        prop_assert_eq!(found.slots.iter().map(Vec::len).sum::<usize>(), spread.replicas);
        prop_assert_eq!(&found, &balance(&load, spread).unwrap());
        let sum: f64 = load.iter().map(|&l| f64::from(l)).sum();
        prop_assert!((found.loads(&load, spread.gpus).iter().sum::<f64>() - sum).abs() <= 1e-9 * sum);
    }

    #[test]
    fn no_gpu_has_an_expert_twice_without_need((load, spread) in spreads()) {
        let found = balance(&load, spread).unwrap();
        let room = spread.replicas / spread.gpus;
        // A group's node can hold each of its experts once on each GPU.
        let needed = room > load.len() / spread.nodes;
        for slots in &found.slots {
            let mut gpus: Vec<usize> = slots.iter().map(|s| s / room).collect();
            gpus.dedup();
            prop_assert!(needed || gpus.len() == slots.len(), "{:?}", found);
        }
    }

    #[test]
    fn groups_stay_on_a_node((load, spread) in spreads()) {
        let found = balance(&load, spread).unwrap();
        let (size, room) = (load.len() / spread.groups, spread.replicas / spread.nodes);
        for group in found.slots.chunks(size) {
            let mut nodes: Vec<usize> = group.iter().flatten().map(|s| s / room).collect();
            nodes.dedup();
            prop_assert!(nodes.len() == 1, "{:?}", found);
        }
    }

    #[test]
    fn the_most_loaded_gpu_is_never_worse_than_in_plain_order((load, spread) in spreads()) {
        let spread = Spread { nodes: 1, ..spread };
        let found = balance(&load, spread).unwrap();
        let loads = found.loads(&load, spread.gpus);
        // The same copies: every expert once, ascending, then the others.
        let extra = |n: usize| found.slots.iter().enumerate().filter(move |(_, s)| s.len() > n).map(|(e, _)| e);
        let copies = (0..spread.replicas).flat_map(extra).take(spread.replicas).collect();
        let plain = Layout::of(copies, load.len());
        let room = spread.replicas / spread.gpus;
        let twice = plain.experts.chunks(room).any(|g| (1..g.len()).any(|n| g[..n].contains(&g[n])));
        prop_assert!(twice || most(&loads) <= most(&plain.loads(&load, spread.gpus)) * (1.0 + 1e-9), "{:?}", found);
        if spread.replicas == load.len() {
            prop_assert!(most(&loads) <= most(&Layout::plain(load.len()).loads(&load, spread.gpus)) * (1.0 + 1e-9));
        }
    }

    #[test]
    fn layers_are_cut_as_well_as_can_be(bytes in prop::collection::vec(0u64..100, 1..9), gpus in 1usize..5) {
        let found = homes(&bytes, gpus);
        prop_assert!(found.windows(2).all(|w| w[1] == w[0] || w[1] == w[0] + 1) && found[0] == 0);
        prop_assert_eq!(found[found.len() - 1] + 1, gpus.min(bytes.len()));
        let largest = |homes: &[usize]| {
            (0..gpus).map(|g| bytes.iter().zip(homes).filter(|(_, h)| **h == g).map(|(b, _)| b).sum::<u64>()).max().unwrap()
        };
        // Every way to cut: a bit for each border between neighbours.
        let cuts = gpus.min(bytes.len()) - 1;
        let ways = (0u32..1 << (bytes.len() - 1)).filter(|w| w.count_ones() as usize == cuts);
        let all = ways.map(|w| (0..bytes.len()).map(|i| (w & ((1 << i) - 1)).count_ones() as usize).collect::<Vec<_>>());
        prop_assert_eq!(largest(&found), all.map(|h| largest(&h)).min().unwrap());
    }
}
