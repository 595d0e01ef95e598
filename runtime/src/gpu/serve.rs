//! What the host keeps to serve a device that does not hold all experts, and how a model comes to be placed.

use std::{path::PathBuf, sync::Arc};

use web_time::Instant;
use wgpu::DeviceType;

use super::{device::GpuDevice, slots::Slots, state::GpuState};
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
        ways::{Chooser, Split, Way, WayChoice, WaysReport},
    },
    model::Model,
};

/// Share of a plan for which memory was refused that the next attempt plans with.
const SHRINK: f64 = 0.85;
/// Attempts to load with less.
const ATTEMPTS: usize = 12;
/// Share of the host's available memory that an integrated GPU may take: it is the same memory.
const SHARED_MEMORY: f64 = 0.75;
/// Host memory that kernels read is pinned: it may take at most so much of what is available.
const PINNED_SHARE: f64 = 0.5;

/// The host's side of experts in slots.
pub(crate) struct Server {
    /// Who lives where. Behind the device's own table while `gathering`.
    pub residency: Residency,
    pub host: Option<HostBank>,
    pub cold: Option<Cold>,
    pub chooser: Chooser,
    pub split: Split,
    pub choice: WayChoice,
    /// Kernels fetch missing experts and keep the tables.
    pub gathering: bool,
    /// `on_miss` as the device has it.
    pub on_miss: u32,
    /// Most experts taken in after a token.
    pub admissions: usize,
    pub trace: bool,
    /// Recent share of tokens that missed, and of their partial layers.
    pub token_misses: f32,
    pub layer_misses: f32,
    /// When the last decoded token was done.
    pub last_done: Option<Instant>,
    /// Uses of each expert since the start, for the profile.
    pub uses: Vec<Vec<u32>>,
    pub tokens: u64,
    remembered: Option<Remembered>,
}

/// What is known of a model from earlier runs.
struct Remembered {
    /// Where it is kept.
    directory: PathBuf,
    /// The model's name there.
    fingerprint: String,
    profile: Option<Profile>,
}

fn known(remembered: &Option<Remembered>) -> Option<&Profile> {
    remembered.as_ref()?.profile.as_ref()
}

impl Server {
    /// Whether there are layers with fewer slots than experts.
    pub fn partial(&self) -> bool {
        self.host.is_some()
    }

    /// How many.
    pub fn partial_layers(&self) -> usize {
        (0..self.residency.banks()).filter(|&b| self.residency.is_partial(b)).count()
    }

    /// How misses were served.
    pub fn ways(&self) -> WaysReport {
        self.chooser.report()
    }

    /// Adds what was learnt to the profile, and keeps it.
    pub fn save_profile(&self) -> Result<()> {
        let Some(known) = self.remembered.as_ref().filter(|_| self.tokens > 0) else { return Ok(()) };
        let mut profile = known.profile.clone().unwrap_or_default();
        profile.blend(&self.uses, self.tokens);
        profile.save(&known.directory, &known.fingerprint)
    }
}

/// Places `model` on `gpu` as the budget allows, with less where the device refuses memory.
pub(super) async fn load(
    gpu: &Arc<GpuDevice>,
    model: Arc<Model>,
    options: &LoadOptions,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(GpuState, Option<Box<Server>>, ExpertReport)> {
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
    let needs = || Needs::of(&model, options.positions, options.max_context, options.cache, ex.activations, ex.chunk);
    let what = if model.config.name.is_empty() { "the model" } else { &model.config.name };

    let budget = ex.budget.or_else(|| shared_memory(gpu));
    let mut remembered = budget.and_then(|_| recall());
    let mut placement = match budget {
        Some(budget) => Some(place_for(what, &needs(), Some(budget), known(&remembered))?),
        None => None,
    };
    let mut notices = Vec::new();
    for attempt in 0.. {
        let slots = placement.as_ref().map_or_else(|| experts.clone(), |p| p.slots.clone());
        let kept = gpu.kept();
        match load_placed(gpu, &model, options, &slots, known(&remembered), progress).await {
            Ok((state, server, mut more)) => {
                notices.append(&mut more);
                let server = server.map(|mut s| {
                    s.remembered = remembered;
                    Box::new(s)
                });
                let report = report(&state, server.as_deref(), ex.budget, placement.as_ref(), &slots, notices);
                return Ok((state, server, report));
            }
            Err(e @ Error::OutOfMemory { .. }) if attempt < ATTEMPTS => {
                // What was refused has been freed; some of it at the next poll.
                gpu.free_after(kept);
                // The first error was enough.
                let _ = gpu.settled().await;
                gpu.idle().await?;
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

/// What an integrated GPU may take of the memory that it shares with the host; `None`: it has its own.
fn shared_memory(gpu: &GpuDevice) -> Option<u64> {
    let shared = gpu.adapter.kind == DeviceType::IntegratedGpu;
    shared.then(available_memory).flatten().map(|bytes| (bytes as f64 * SHARED_MEMORY) as u64)
}

async fn load_placed(
    gpu: &Arc<GpuDevice>,
    model: &Arc<Model>,
    options: &LoadOptions,
    slots: &[usize],
    profile: Option<&Profile>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(GpuState, Option<Server>, Vec<String>)> {
    let ex = &options.experts;
    let banks: Vec<(usize, usize)> = model.banks.iter().zip(slots).map(|(b, &s)| (b.len(), s.min(b.len()))).collect();
    let mut residency = Residency::new(&banks, HALF_LIFE);
    for (b, &(experts, slots)) in banks.iter().enumerate() {
        settle(&mut residency, b, experts, slots, profile);
    }
    let partial: Vec<bool> = (0..banks.len()).map(|b| residency.is_partial(b)).collect();
    let mut host = match partial.contains(&true) {
        true => Some(HostBank::open(model, &partial, ex.directory.as_deref(), progress)?),
        false => None,
    };
    let mut notices: Vec<String> = host.as_ref().and_then(|h| h.notice().map(str::to_owned)).into_iter().collect();
    let mut state = GpuState::load(gpu, Arc::clone(model), options, &residency, host.as_mut(), progress).await?;
    gpu.settled().await?;
    let GpuState { slots: Some(on_device), .. } = &mut state else { return Ok((state, None, notices)) };

    let mut available = Vec::new();
    if let Some(host) = &mut host {
        // In a browser nothing runs beside the worker: no CPU that could compute meanwhile.
        available = if cfg!(target_arch = "wasm32") { vec![Way::Resume] } else { vec![Way::Cpu, Way::Resume] };
        match sources(gpu, model, on_device, host, ex.misses, progress).await {
            Ok(true) => available.insert(0, Way::Gather),
            Ok(false) => {}
            Err(e) if ex.misses == WayChoice::Auto => notices.push(format!("kernels cannot read experts in host memory ({e})")),
            Err(e) => return Err(e),
        }
        if ex.misses == WayChoice::Only(Way::Gather) && !on_device.can_gather() {
            return Err(Error::Gpu(format!("{}: kernels cannot read host memory; use --misses auto, cpu or resume", gpu.name())));
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
    Ok((state, Some(server), notices))
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
async fn sources(
    gpu: &Arc<GpuDevice>,
    model: &Model,
    slots: &mut Slots,
    host: &mut HostBank,
    choice: WayChoice,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<bool> {
    let bytes = slots.source_bytes(host);
    let room = available_memory().is_none_or(|free| bytes as f64 <= free as f64 * PINNED_SHARE);
    let wanted = match choice {
        WayChoice::Only(way) => way == Way::Gather,
        WayChoice::Auto => room,
    };
    if !wanted || !gpu.host_visible {
        return Ok(false);
    }
    if !room {
        // Not out of memory on the device: with fewer slots just as many experts would have to lie here.
        let what = "experts in host memory that kernels read: bytes (use --misses auto, cpu or resume)".into();
        let limit = available_memory().map_or(0, |free| (free as f64 * PINNED_SHARE) as u64);
        return Err(Error::Limit { what, needed: bytes, limit });
    }
    slots.make_sources(gpu, model, host, progress).await?;
    Ok(true)
}

fn report(
    state: &GpuState,
    server: Option<&Server>,
    budget: Option<u64>,
    placement: Option<&Placement>,
    slots: &[usize],
    notices: Vec<String>,
) -> ExpertReport {
    let strides = state.weights.banks.iter().map(|b| (b.blob_words * 4) as u64);
    let caches: u64 = state.caches.iter().map(wgpu::Buffer::size).sum();
    ExpertReport {
        budget,
        device_bytes: placement.map_or(state.weights.bytes + caches, Placement::total),
        slot_bytes: strides.zip(slots).map(|(stride, &n)| stride * n as u64).sum(),
        experts: state.model.config.moe.as_ref().map_or(0, |m| m.num_experts),
        slots: slots.to_vec(),
        bank: server.and_then(|s| s.host.as_ref()).map(HostBank::kind),
        ways: None,
        notices,
    }
}
