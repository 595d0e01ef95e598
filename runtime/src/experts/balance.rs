//! Which GPU of a machine holds which experts and layers.
//!
//! Experts are placed by load, as DeepSeek's expert-parallelism load balancer does (EPLB, described with DeepSeek-V3, arXiv
//! 2412.19437 section 3.4, and in its repository): the most loaded experts get further copies, and copies are packed so that GPUs
//! have equal numbers of them and about equal loads. Where the groups that the router knows can be dealt evenly to nodes, a group
//! stays on one node. Two rules are ours: an expert has no two copies on one GPU where that can be avoided, for they would help
//! nobody; and a packing that is worse than the copies in their plain order is dropped for it.
//!
//! Layers are placed by bytes: neighbours stay together, so that the residual stream moves once from GPU to GPU.

use crate::error::{Error, Result};

#[cfg(test)]
mod tests;

/// Over what experts are spread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spread {
    /// Copies in all, a multiple of `gpus` and no fewer than there are experts.
    pub replicas: usize,
    /// Groups of experts; those of one group are neighbours.
    pub groups: usize,
    /// Nodes, of which each has the same number of GPUs.
    pub nodes: usize,
    /// GPUs over all nodes.
    pub gpus: usize,
}

/// Where the copies of one layer's experts are. Slot s belongs to GPU `s / (slots / gpus)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The expert in each slot.
    pub experts: Vec<usize>,
    /// The slots of each expert, one or more.
    pub slots: Vec<Vec<usize>>,
}

impl Layout {
    /// Expert e in slot e, once each.
    pub fn plain(experts: usize) -> Self {
        Self::of((0..experts).collect(), experts)
    }

    fn of(placed: Vec<usize>, experts: usize) -> Self {
        let mut slots = vec![Vec::new(); experts];
        for (slot, &expert) in placed.iter().enumerate() {
            slots[expert].push(slot);
        }
        Self { experts: placed, slots }
    }

    /// The load of each of `gpus` GPUs, where an expert's load is shared equally by its copies.
    pub fn loads(&self, load: &[f32], gpus: usize) -> Vec<f64> {
        let room = (self.experts.len() / gpus.max(1)).max(1);
        let mut loads = vec![0.0; gpus];
        for (expert, slots) in self.slots.iter().enumerate() {
            let share = load.get(expert).map_or(0.0, |&l| f64::from(l)) / slots.len().max(1) as f64;
            for slot in slots {
                loads.get_mut(slot / room).into_iter().for_each(|of| *of += share);
            }
        }
        loads
    }
}

/// Places the experts of every layer: `load[layer][expert]`, in any unit, is how much each is used.
///
/// # Errors
///
/// Numbers that do not divide, or loads that are negative or not finite.
pub fn rebalance(load: &[Vec<f32>], spread: Spread) -> Result<Vec<Layout>> {
    load.iter().map(|load| balance(load, spread)).collect()
}

/// [`rebalance`], for one layer.
///
/// # Errors
///
/// As [`rebalance`].
pub fn balance(load: &[f32], spread: Spread) -> Result<Layout> {
    let experts = load.len();
    let Spread { replicas, groups, nodes, gpus } = spread;
    let divides = |n: usize, by: usize| by > 0 && n.is_multiple_of(by);
    if experts == 0 || replicas < experts || !divides(replicas, gpus) || !divides(gpus, nodes) {
        let what = format!("{experts} experts in {replicas} copies cannot be spread evenly over {gpus} GPUs of {nodes} nodes");
        return Err(Error::Invalid(what));
    }
    if load.iter().any(|l| !l.is_finite() || *l < 0.0) {
        return Err(Error::Invalid("a load of an expert that is negative or not finite".into()));
    }
    // Groups that cannot be dealt evenly do not count: then all experts are one group, on one node.
    let (groups, nodes) = if divides(groups, nodes) && divides(experts, groups) { (groups, nodes) } else { (1, 1) };
    let size = experts / groups;
    let sums: Vec<f64> = load.chunks(size).map(|group| group.iter().map(|&l| f64::from(l)).sum()).collect();
    let mut placed = Vec::with_capacity(replicas);
    for node in pack(&sums, &(0..groups).collect::<Vec<_>>(), nodes) {
        let members: Vec<usize> = node.into_iter().flat_map(|group| group * size..(group + 1) * size).collect();
        let loads: Vec<f64> = members.iter().map(|&e| f64::from(load[e])).collect();
        let copies = replicate(&loads, replicas / nodes, gpus / nodes);
        let mut counts = vec![0u32; members.len()];
        copies.iter().for_each(|&e| counts[e] += 1);
        let shares: Vec<f64> = copies.iter().map(|&e| loads[e] / f64::from(counts[e])).collect();
        let kinds: Vec<usize> = copies.iter().map(|&e| members[e]).collect();
        let bins = better(pack(&shares, &kinds, gpus / nodes), &shares, &kinds);
        placed.extend(bins.into_iter().flatten().map(|copy| kinds[copy]));
    }
    Ok(Layout::of(placed, experts))
}

/// The expert of each of `all` copies: first every expert once, then, again and again, the one with the highest load a copy.
fn replicate(load: &[f64], all: usize, gpus: usize) -> Vec<usize> {
    // No expert needs a place twice on a GPU, unless there are too few experts.
    let most = if load.len() * gpus >= all { gpus } else { usize::MAX };
    let mut copies: Vec<usize> = (0..load.len()).collect();
    let mut counts = vec![1usize; load.len()];
    while copies.len() < all {
        let share = |e: usize| load[e] / counts[e] as f64;
        let wanted = (0..load.len()).filter(|&e| counts[e] < most).reduce(|best, e| {
            let by = share(e).total_cmp(&share(best)).then(counts[best].cmp(&counts[e]));
            if by.is_gt() { e } else { best }
        });
        // There is one: `most` is never reached by all.
        let Some(expert) = wanted else { break };
        copies.push(expert);
        counts[expert] += 1;
    }
    copies
}

/// Packs items into bins of equally many: the heaviest first, each into the lightest bin that has room and none of its kind.
/// Ties go to the item, and to the bin, that comes first.
fn pack(weights: &[f64], kinds: &[usize], bins: usize) -> Vec<Vec<usize>> {
    let room = weights.len() / bins;
    let mut order: Vec<usize> = (0..weights.len()).collect();
    order.sort_by(|&a, &b| weights[b].total_cmp(&weights[a]));
    let mut packed: Vec<Vec<usize>> = vec![Vec::with_capacity(room); bins];
    let mut sums = vec![0.0f64; bins];
    for item in order {
        let has = |bin: &[usize], kind: usize| bin.iter().any(|&i| kinds[i] == kind);
        let lightest = |bins: &mut dyn Iterator<Item = usize>| {
            bins.reduce(|best, bin| if sums[bin].total_cmp(&sums[best]).is_lt() { bin } else { best })
        };
        let open = |packed: &[Vec<usize>], bin: usize| packed[bin].len() < room;
        let fitting = lightest(&mut (0..bins).filter(|&b| open(&packed, b) && !has(&packed[b], kinds[item])));
        let (bin, item) = match fitting {
            Some(bin) => (bin, item),
            None => {
                let Some(bin) = lightest(&mut (0..bins).filter(|&b| open(&packed, b))) else { break };
                // A bin that is full and has none of this kind takes the item, and gives up one whose kind this bin lacks.
                let others = (0..bins).filter(|&b| !has(&packed[b], kinds[item]));
                let give = |b: usize| packed[b].iter().rposition(|&i| !has(&packed[bin], kinds[i])).map(|at| (b, at));
                match others.filter_map(give).next() {
                    Some((other, at)) => {
                        let given = std::mem::replace(&mut packed[other][at], item);
                        sums[other] += weights[item] - weights[given];
                        (bin, given)
                    }
                    // More copies than bins: there is no way around two in one.
                    None => (bin, item),
                }
            }
        };
        sums[bin] += weights[item];
        packed[bin].push(item);
    }
    packed
}

/// `packed`, or the copies in their plain order where these load the most loaded bin less and no bin has a kind twice.
fn better(packed: Vec<Vec<usize>>, weights: &[f64], kinds: &[usize]) -> Vec<Vec<usize>> {
    let room = packed.first().map_or(1, Vec::len).max(1);
    // First every expert once, ascending, then the others, ascending.
    let mut seen = vec![0usize; kinds.iter().max().map_or(0, |k| k + 1)];
    let mut plain: Vec<(usize, usize, usize)> = kinds
        .iter()
        .enumerate()
        .map(|(i, &kind)| {
            seen[kind] += 1;
            (seen[kind], kind, i)
        })
        .collect();
    plain.sort_unstable();
    let order: Vec<usize> = plain.into_iter().map(|p| p.2).collect();
    let plain: Vec<Vec<usize>> = order.chunks(room).map(<[usize]>::to_vec).collect();
    let twice = |bins: &[Vec<usize>]| {
        bins.iter().any(|b| b.iter().enumerate().any(|(n, &i)| b[..n].iter().any(|&j| kinds[i] == kinds[j])))
    };
    let most = |bins: &[Vec<usize>]| bins.iter().map(|b| b.iter().map(|&i| weights[i]).sum::<f64>()).fold(0.0, f64::max);
    if (twice(&packed) || !twice(&plain)) && most(&plain) < most(&packed) { plain } else { packed }
}

/// The GPU of each layer, ascending from 0: neighbours stay together, and the GPU with the most bytes has as few as possible.
/// `bytes`: those of each layer, the embedding's with the first and the head's with the last. Every GPU has a layer, if there are
/// enough.
pub fn homes(bytes: &[u64], gpus: usize) -> Vec<usize> {
    let (layers, gpus) = (bytes.len(), gpus.min(bytes.len()));
    if gpus <= 1 {
        return vec![0; layers];
    }
    let mut before = vec![0u64];
    bytes.iter().for_each(|b| before.push(before.last().copied().unwrap_or(0).saturating_add(*b)));
    // least[g][n]: of the first n layers on GPUs 0 to g, the largest sum, and the first layer of GPU g.
    let mut least: Vec<Vec<(u64, usize)>> = vec![before.iter().map(|&sum| (sum, 0)).collect()];
    for gpu in 1..gpus {
        let previous = &least[gpu - 1];
        let best = |n: usize| {
            let cut = |from: usize| (previous[from].0.max(before[n] - before[from]), from);
            (gpu..n).map(cut).min().unwrap_or((u64::MAX, gpu))
        };
        let row = (0..=layers).map(best).collect();
        least.push(row);
    }
    let mut homes = vec![0; layers];
    let mut end = layers;
    for gpu in (0..gpus).rev() {
        let from = if gpu == 0 { 0 } else { least[gpu][end].1 };
        homes[from..end].fill(gpu);
        end = from;
    }
    homes
}
