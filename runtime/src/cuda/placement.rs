//! Which of several devices has which part of a model: layers by bytes, experts by load.

use pleiad_models::{
    Tensor,
    weights::{ExpertPart, Experts},
};

use super::{driver::Driver, state::ROW_ALIGN};
use crate::{
    error::{Error, Result},
    executor::ExpertOptions,
    experts::{
        balance::{self, Layout, Spread},
        bank::{self, BlobLayout, row_stride},
        profile::Profile,
    },
    model::{FfnIds, LayerIds, MlpIds, Model, QueryIds},
    plan::{MatId, VecId},
};

/// Of so many experts of a layer one has a second copy, where there is memory for it: as DeepSeek has it in prefill.
const EXPERTS_A_COPY: usize = 8;

/// The device of each part.
pub(crate) struct Placement {
    /// How many there are.
    pub devices: usize,
    /// Of each layer with a latent cache: the decoder layers, then that of the module that drafts.
    pub homes: Vec<usize>,
    /// Of what follows the last layer.
    pub tail: usize,
    /// Of each matrix.
    pub mats: Vec<usize>,
    /// Of each vector.
    pub vecs: Vec<usize>,
    /// Of each bank its experts, and those of the module that drafts; empty on one device, where each expert has its own slot.
    pub layouts: Vec<Layout>,
}

/// What a layer has, but for routed experts.
fn weights_of(layer: &LayerIds) -> (Vec<MatId>, Vec<VecId>) {
    let mut mats = vec![layer.kv_a, layer.k_b, layer.v_b, layer.k_up, layer.o];
    let mut vecs = vec![layer.attn_norm, layer.kv_a_norm, layer.ffn_norm];
    match layer.query {
        QueryIds::Full(w) => mats.push(w),
        QueryIds::Lora(a, norm, b) => {
            mats.extend([a, b]);
            vecs.push(norm);
        }
    }
    let mlp = |m: MlpIds| [m.gate, m.up, m.down];
    match layer.ffn {
        FfnIds::Dense(m) => mats.extend(mlp(m)),
        FfnIds::Moe { router, bias, shared, .. } => {
            mats.push(router);
            mats.extend(shared.into_iter().flat_map(mlp));
            vecs.extend(bias);
        }
    }
    (mats, vecs)
}

fn mat_bytes(t: &Tensor) -> u64 {
    (t.count * t.rows * row_stride(t, ROW_ALIGN)) as u64
}

/// Slots of each device for a layer's experts: an even share, and `extra` for further copies.
fn room(experts: usize, devices: usize, extra: usize) -> usize {
    (experts.div_ceil(devices) + extra).min(experts).max(1)
}

impl Placement {
    /// Everything on one device.
    pub fn whole(model: &Model) -> Self {
        let (mats, vecs, homes) = (vec![0; model.mats.len()], vec![0; model.vecs.len()], vec![0; model.caches()]);
        Self { devices: 1, homes, tail: 0, mats, vecs, layouts: Vec::new() }
    }

    /// Layers on several devices, experts nowhere yet. `cache_bytes`: of the latent cache of a layer.
    fn layers(model: &Model, devices: usize, cache_bytes: u64) -> Self {
        let mut placement = Self { devices, ..Self::whole(model) };
        // A model of single operations has not all that its layers name.
        let mat = |m: MatId| model.mats.get(m.0 as usize).map_or(0, mat_bytes);
        let vec = |v: VecId| model.vecs.get(v.0 as usize).map_or(0, |v| v.len() as u64 * 4);
        let bytes = |(mats, vecs): &(Vec<MatId>, Vec<VecId>)| {
            mats.iter().map(|&m| mat(m)).chain(vecs.iter().map(|&v| vec(v))).sum::<u64>() + cache_bytes
        };
        let set = |devices: &mut [usize], index: u32, device: usize| {
            devices.get_mut(index as usize).into_iter().for_each(|d| *d = device);
        };
        let all: Vec<_> = model.layers.iter().map(weights_of).collect();
        let mut sizes: Vec<u64> = all.iter().map(bytes).collect();
        let tied = model.head == model.embed;
        sizes.first_mut().into_iter().for_each(|s| *s += mat(model.embed));
        let module = model.mtp.as_ref().map(|m| weights_of(&m.layer));
        if let Some(last) = sizes.last_mut() {
            *last += if tied { 0 } else { mat(model.head) };
            *last += module.as_ref().map_or(0, bytes);
        }
        let homes = balance::homes(&sizes, devices);
        // A head that is the embedding is used where that is.
        placement.tail = if tied { 0 } else { homes.last().copied().unwrap_or(0) };
        // What no layer has: the embedding comes first, all else last.
        placement.mats.fill(placement.tail);
        placement.vecs.fill(placement.tail);
        set(&mut placement.mats, model.embed.0, 0);
        for ((mats, vecs), &home) in all.iter().zip(&homes) {
            mats.iter().for_each(|m| set(&mut placement.mats, m.0, home));
            vecs.iter().for_each(|v| set(&mut placement.vecs, v.0, home));
        }
        placement.homes = homes;
        placement.homes.resize(model.caches(), placement.tail);
        placement
    }

    /// Bytes of each device, with `extra` slots beyond an even share in every layer.
    fn bytes(&self, model: &Model, cache_bytes: u64, extra: usize) -> Vec<u64> {
        let mut all = vec![0; self.devices];
        self.homes.iter().for_each(|&home| all[home] += cache_bytes);
        model.mats.iter().zip(&self.mats).for_each(|(t, &device)| all[device] += mat_bytes(t));
        model.vecs.iter().zip(&self.vecs).for_each(|(v, &device)| all[device] += v.len() as u64 * 4);
        for experts in model.all_banks() {
            let blob = BlobLayout::of(experts, ROW_ALIGN).stride as u64;
            all.iter_mut().for_each(|bytes| *bytes += blob * room(experts.len(), self.devices, extra) as u64);
        }
        all
    }

    /// Places a model on a driver's devices, with as many further copies of experts as there is memory for, up to one for eight
    /// experts. The budget is each device's.
    ///
    /// # Errors
    ///
    /// A model that does not fit: by how much, on each device.
    pub fn on(driver: &dyn Driver, model: &Model, cache_bytes: u64, options: &ExpertOptions) -> Result<Self> {
        let devices = driver.devices().len();
        if devices <= 1 {
            return Ok(Self::whole(model));
        }
        let mut placement = Self::layers(model, devices, cache_bytes);
        let free: Vec<Option<u64>> = (0..devices).map(|d| driver.free_memory(d)).collect();
        let most = model.all_banks().map(|e| (e.len() / EXPERTS_A_COPY).div_ceil(devices)).max().unwrap_or(0);
        let fits = |bytes: &[u64]| {
            let within = |(bytes, free): (&u64, &Option<u64>)| free.is_none_or(|f| *bytes <= f);
            bytes.iter().zip(&free).all(within) && bytes.iter().all(|b| options.budget.is_none_or(|budget| *b <= budget))
        };
        let Some(extra) = (0..=most).rev().find(|&extra| fits(&placement.bytes(model, cache_bytes, extra))) else {
            return Err(too_small(&model.config.name, &placement.bytes(model, cache_bytes, 0), &free, options.budget));
        };
        let groups = model.config.moe.as_ref().map_or(1, |m| m.num_groups.max(1));
        let place = |(experts, load): (&Experts, Vec<f32>)| {
            let replicas = room(experts.len(), devices, extra) * devices;
            balance::balance(&load, Spread { replicas, groups, nodes: 1, gpus: devices })
        };
        placement.layouts = model.all_banks().zip(loads(model, options)).map(place).collect::<Result<_>>()?;
        Ok(placement)
    }

    /// The device of the layer that each bank belongs to.
    pub fn bank_homes(&self, model: &Model) -> Vec<usize> {
        let mixtures = model.layers.iter().zip(&self.homes).filter(|(l, _)| matches!(l.ffn, FfnIds::Moe { .. }));
        mixtures.map(|(_, &home)| home).chain(model.mtp_bank().map(|_| self.tail)).collect()
    }

    /// Bytes of weights of all devices.
    pub fn weight_bytes(&self, model: &Model) -> u64 {
        let blobs = |(layout, experts): (&Layout, &Experts)| layout.experts.len() * BlobLayout::of(experts, ROW_ALIGN).stride;
        let experts: usize = self.layouts.iter().zip(model.all_banks()).map(blobs).sum();
        let vecs: usize = model.vecs.iter().map(|v| v.len() * 4).sum();
        model.mats.iter().map(mat_bytes).sum::<u64>() + (experts + vecs) as u64
    }
}

/// How much every expert is used: what the profile of earlier runs says, or alike.
fn loads(model: &Model, options: &ExpertOptions) -> Vec<Vec<f32>> {
    let experts: Vec<usize> = model.banks.iter().map(Experts::len).collect();
    let profile = options.directory.as_ref().and_then(|directory| {
        // A model that cannot be read is not remembered; loading says why.
        Profile::load(directory, &bank::fingerprint(model).ok()?, &experts)
    });
    let heat = |b: usize| profile.as_ref().and_then(|p| p.heat.get(b)).filter(|h| h.iter().any(|&h| h > 0.0)).cloned();
    model.all_banks().enumerate().map(|(b, e)| heat(b).unwrap_or_else(|| vec![1.0; e.len()])).collect()
}

fn too_small(name: &str, bytes: &[u64], free: &[Option<u64>], budget: Option<u64>) -> Error {
    let limit = |device: usize| [free[device], budget].into_iter().flatten().min();
    let lacking: Vec<String> = bytes
        .iter()
        .enumerate()
        .filter_map(|(d, &bytes)| Some((d, bytes.checked_sub(limit(d)?).filter(|&lacks| lacks > 0)?)))
        .map(|(d, lacks)| format!("GPU {d} lacks {} MiB", lacks.div_ceil(1 << 20)))
        .collect();
    let what = format!("{name} over {} GPUs, of which {},", bytes.len(), lacking.join(" and "));
    let least = bytes.iter().copied().max().unwrap_or(0);
    match budget.filter(|&budget| least > budget) {
        Some(budget) => Error::Budget { what, budget, least },
        None => Error::OutOfMemory { what, bytes: bytes.iter().sum(), limit: free.iter().copied().sum() },
    }
}

/// A bank's name in errors.
pub(crate) fn bank_name(experts: &Experts, slots: usize) -> String {
    format!("{slots} slots for experts of {}", experts.first(ExpertPart::Gate).name)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

    use pleiad_models::Checkpoint;

    use super::*;

    fn tiny() -> Model {
        let checkpoint = Checkpoint::tiny().unwrap();
        Model::new(&checkpoint.config, &checkpoint.weights)
    }

    #[test]
    fn layers_and_what_they_need_lie_together() {
        let model = tiny();
        for devices in 2..=4 {
            let placement = Placement::layers(&model, devices, 1 << 20);
            assert_eq!(placement.homes[0], 0);
            assert!(placement.homes.windows(2).all(|w| w[0] <= w[1]), "{:?}", placement.homes);
            for (layer, &home) in model.layers.iter().zip(&placement.homes) {
                let (mats, vecs) = weights_of(layer);
                assert!(mats.iter().all(|m| placement.mats[m.0 as usize] == home));
                assert!(vecs.iter().all(|v| placement.vecs[v.0 as usize] == home));
            }
            assert_eq!(placement.mats[model.embed.0 as usize], 0);
            assert_eq!(placement.mats[model.head.0 as usize], placement.tail);
            // An even share of the experts is on each, and nothing is counted twice.
            let bytes = placement.bytes(&model, 0, 0);
            let all: u64 = model.mats.iter().map(mat_bytes).sum::<u64>()
                + model.vecs.iter().map(|v| v.len() as u64 * 4).sum::<u64>()
                + model
                    .all_banks()
                    .map(|e| (BlobLayout::of(e, ROW_ALIGN).stride * e.len().div_ceil(devices) * devices) as u64)
                    .sum::<u64>();
            assert_eq!(bytes.iter().sum::<u64>(), all);
        }
    }

    #[test]
    fn what_is_missing_is_named_for_each_device() {
        let error = too_small("m", &[10 << 20, 30 << 20, 5 << 20], &[Some(8 << 20), Some(1 << 20), Some(1 << 30)], None);
        let words = error.to_string();
        assert!(words.contains("GPU 0 lacks 2 MiB and GPU 1 lacks 29 MiB") && !words.contains("GPU 2"), "{words}");
        let error = too_small("m", &[10 << 20, 30 << 20], &[None, Some(1 << 30)], Some(20 << 20));
        assert!(matches!(error, Error::Budget { least, .. } if least == 30 << 20), "{error}");
        assert!(error.to_string().contains("GPU 1 lacks 10 MiB"), "{error}");
    }
}
