//! How a model comes to be placed on a device: as the budget allows, with less where the device refuses memory.

use std::sync::Arc;

use super::{
    backend::Backend,
    serve::{Remembered, Server},
};
use crate::{
    cpu::available_memory,
    error::{Error, Result},
    executor::LoadOptions,
    experts::{
        ExpertReport,
        bank::{self, HostBank},
        budget::{Needs, Placement, place_for},
        cold::Cold,
        policy::{HALF_LIFE, Heat},
        profile::Profile,
        residency::Residency,
        ways::{Chooser, Split, Way, WayChoice},
    },
    model::Model,
};

/// Share of a plan for which memory was refused that the next attempt plans with.
const SHRINK: f64 = 0.85;
/// Attempts to load with less.
const ATTEMPTS: usize = 12;
/// Host memory that kernels read is pinned: it may take at most so much of what is available.
const PINNED_SHARE: f64 = 0.5;

fn known(remembered: &Option<Remembered>) -> Option<&Profile> {
    remembered.as_ref()?.profile.as_ref()
}

/// Places `model` on `device` as the budget allows, with less where the device refuses memory.
pub(super) async fn load<B: Backend>(
    device: &B::Device,
    model: Arc<Model>,
    options: &LoadOptions,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(B, Option<Box<Server>>, ExpertReport)> {
    let ex = &options.experts;
    ex.misses.check(cfg!(target_arch = "wasm32"))?;
    let experts: Vec<usize> = model.banks.iter().map(pleiad_models::weights::Experts::len).collect();
    // What a model is known by is read from all of it: only where something is left out.
    let recall = || {
        ex.directory.as_ref().and_then(|directory| {
            // A model that cannot be read is not remembered; loading says why.
            let fingerprint = bank::fingerprint(&model).ok()?;
            let profile = Profile::load(directory, &fingerprint, &experts);
            Some(Remembered { directory: directory.clone(), fingerprint, profile })
        })
    };
    let needs = || {
        let (positions, context, cache) = (options.positions, options.max_context, options.cache);
        Needs::aligned(&model, positions, context, cache, ex.activations, ex.chunk, B::ROW_ALIGN)
    };
    let what = if model.config.name.is_empty() { "the model" } else { &model.config.name };

    let own = B::places_itself(device);
    let budget = if own { None } else { ex.budget.or_else(|| B::room(device, &model, options)) };
    let mut remembered = budget.and_then(|_| recall());
    let mut placement = match budget.map(|budget| place_for(what, &needs(), Some(budget), known(&remembered))) {
        Some(Err(Error::Budget { what, budget, least })) if ex.budget.is_none() => {
            return Err(Error::OutOfMemory { what: format!("{what} on the GPU"), bytes: least, limit: Some(budget) });
        }
        placement => placement.transpose()?,
    };
    let mut notices = Vec::new();
    for attempt in 0.. {
        let slots = placement.as_ref().map_or_else(|| experts.clone(), |p| p.slots.clone());
        let mark = B::mark(device);
        match load_placed::<B>(device, &model, options, &slots, known(&remembered), progress).await {
            Ok((backend, server, mut more)) => {
                notices.append(&mut more);
                let server = server.map(|mut s| {
                    s.remembered = remembered;
                    Box::new(s)
                });
                let report = report(&backend, server.as_deref(), ex.budget, placement.as_ref(), &slots, notices);
                return Ok((backend, server, report));
            }
            Err(e @ Error::OutOfMemory { .. }) if attempt < ATTEMPTS && !own => {
                B::free_after(device, mark).await?;
                let planned = placement.as_ref().map_or_else(|| needs().whole(), Placement::total);
                let smaller = (planned as f64 * SHRINK) as u64;
                remembered = remembered.or_else(&recall);
                let Ok(less) = place_for(what, &needs(), Some(smaller), known(&remembered)) else { return Err(e) };
                if less.slots == slots {
                    return Err(e);
                }
                notices.retain(|n: &String| !n.starts_with(REFUSED));
                notices.push(format!("{REFUSED} ({e}): going on with {} MiB", smaller >> 20));
                placement = Some(less);
            }
            Err(e) => return Err(e),
        }
    }
    Err(Error::Gpu("the model could not be placed".into()))
}

const REFUSED: &str = "the GPU has less memory than planned";

async fn load_placed<B: Backend>(
    device: &B::Device,
    model: &Arc<Model>,
    options: &LoadOptions,
    slots: &[usize],
    profile: Option<&Profile>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(B, Option<Server>, Vec<String>)> {
    let ex = &options.experts;
    let banks: Vec<(usize, usize)> = model.banks.iter().zip(slots).map(|(b, &s)| (b.len(), s.min(b.len()))).collect();
    let mut residency = Residency::new(&banks, HALF_LIFE);
    for (b, &(experts, slots)) in banks.iter().enumerate() {
        settle(&mut residency, b, experts, slots, profile);
    }
    let partial: Vec<bool> = (0..banks.len()).map(|b| residency.is_partial(b)).collect();
    let mut host = match partial.contains(&true) {
        true => Some(HostBank::open_aligned(model, &partial, ex.directory.as_deref(), B::ROW_ALIGN, progress)?),
        false => None,
    };
    let mut notices: Vec<String> = host.as_ref().and_then(|h| h.notice().map(str::to_owned)).into_iter().collect();
    let mut backend = B::load(device, Arc::clone(model), options, &residency, host.as_mut(), progress).await?;
    if backend.shared().slots.is_none() {
        return Ok((backend, None, notices));
    }

    let mut available = Vec::new();
    if let Some(host) = &mut host {
        // In a browser nothing runs beside the worker: no CPU that could compute meanwhile.
        available = if cfg!(target_arch = "wasm32") { vec![Way::Resume] } else { vec![Way::Cpu, Way::Resume] };
        match sources(&mut backend, &residency, host, ex.misses, progress).await {
            Ok(true) => available.insert(0, Way::Gather),
            Ok(false) => {}
            Err(e) if ex.misses == WayChoice::Auto => notices.push(format!("kernels cannot read experts in host memory ({e})")),
            Err(e) => return Err(e),
        }
        if ex.misses == WayChoice::Only(Way::Gather) && !available.contains(&Way::Gather) {
            let what = "kernels cannot read host memory; use --misses auto, cpu or resume";
            return Err(Error::Gpu(format!("{}: {what}", backend.name())));
        }
    }
    let server = Server {
        cold: available.contains(&Way::Cpu).then(|| Cold::new(Arc::clone(model), options.threads)),
        chooser: Chooser::new(ex.misses, &available),
        split: Split::default(),
        choice: ex.misses,
        gathering: false,
        on_miss: 0,
        admissions: ex.admissions,
        trace: ex.trace,
        token_misses: 1.0,
        layer_misses: 1.0,
        last_done: None,
        uses: banks.iter().map(|&(experts, _)| vec![0; experts]).collect(),
        tokens: 0,
        remembered: None,
        residency,
        host,
    };
    Ok((backend, Some(server), notices))
}

/// Fills a layer's slots: with those that a profile says are used most, else with the first ones.
fn settle(residency: &mut Residency, bank: usize, experts: usize, slots: usize, profile: Option<&Profile>) {
    let heat = profile.and_then(|p| p.heat.get(bank));
    let of = |e: usize| heat.and_then(|h| h.get(e)).copied().unwrap_or(0.0);
    let mut order: Vec<usize> = (0..experts).collect();
    if slots < experts {
        order.sort_by(|&a, &b| of(b).total_cmp(&of(a)).then(a.cmp(&b)));
        // What a steady use at that frequency leaves of decayed counts.
        let steady = HALF_LIFE / std::f32::consts::LN_2;
        let heat: Vec<Heat> = (0..experts).map(|e| Heat { count: of(e) * steady, last: 0 }).collect();
        residency.set_heat(bank, &heat);
    }
    for (slot, &expert) in order.iter().take(slots).enumerate() {
        residency.place(bank, expert as u16, slot as u32);
    }
}

/// Puts experts where kernels can read them, if that is wanted and possible.
async fn sources<B: Backend>(
    backend: &mut B,
    residency: &Residency,
    host: &mut HostBank,
    choice: WayChoice,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<bool> {
    let partial = (0..residency.banks()).filter(|&b| residency.is_partial(b));
    let bytes: u64 = partial.map(|b| (host.layout(b).stride * residency.experts(b)) as u64).sum();
    let room = available_memory().is_none_or(|free| bytes as f64 <= free as f64 * PINNED_SHARE);
    let wanted = match choice {
        WayChoice::Only(way) => way == Way::Gather,
        WayChoice::Auto => room,
    };
    if !wanted || !backend.reads_host() {
        return Ok(false);
    }
    if !room {
        // Not out of memory on the device: with fewer slots just as many experts would have to lie here.
        let what = "experts in host memory that kernels read: bytes (use --misses auto, cpu or resume)".into();
        let limit = available_memory().map_or(0, |free| (free as f64 * PINNED_SHARE) as u64);
        return Err(Error::Limit { what, needed: bytes, limit });
    }
    let mut done = 0;
    let mut count = |more| {
        done += more;
        progress(done, bytes);
    };
    backend.make_sources(host, &mut count).await?;
    Ok(true)
}

fn report<B: Backend>(
    backend: &B,
    server: Option<&Server>,
    budget: Option<u64>,
    placement: Option<&Placement>,
    slots: &[usize],
    notices: Vec<String>,
) -> ExpertReport {
    let shared = backend.shared();
    let strides = shared.blob_words.iter().map(|words| (words * 4) as u64);
    let caches: u64 = shared.caches.iter().map(|(_, words)| (words * 4) as u64).sum();
    ExpertReport {
        budget,
        device_bytes: placement.map_or(shared.weight_bytes + caches, Placement::total),
        slot_bytes: strides.zip(slots).map(|(stride, &n)| stride * n as u64).sum(),
        experts: shared.model.config.moe.as_ref().map_or(0, |m| m.num_experts),
        slots: slots.to_vec(),
        copies: backend.copies(),
        bank: server.and_then(|s| s.host.as_ref()).map(HostBank::kind),
        ways: None,
        notices,
    }
}
