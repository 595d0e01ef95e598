//! From what a person has chosen to what an engine is told.

use std::path::PathBuf;

use pleiad_models::Config;
use pleiad_runtime::{
    DeviceChoice, EngineOptions,
    cuda::CudaDevices,
    experts::ways::WayChoice,
    step::{MAX_DRAFT, PAGE},
};

use crate::settings::LoadSettings;

/// The context where nothing else is asked for, as the engine has it.
pub const USUAL_CONTEXT: usize = 8192;

/// The memory budget in a page, where none was chosen. Browsers tell nobody how much memory a GPU has, and refuse too late what
/// it has not: this much nearly every GPU has.
pub const CAREFUL_BUDGET: u64 = 2 << 30;

/// A budget that means all there is.
pub const EVERYTHING: u64 = u64::MAX;

/// Tokens of a prompt computed at once.
pub(super) const CHUNK: usize = 512;

/// The device that settings mean: empty or `auto`, `cpu`, `wgpu` or `wgpu:N`; with CUDA, `cuda` and the lists of
/// [`CudaDevices`].
///
/// # Errors
/// In words, where there is no such device.
pub fn device(text: &str) -> Result<DeviceChoice, String> {
    let (name, index) = match text.trim().split_once(':') {
        Some(("cuda", _)) if !cfg!(feature = "cuda") => ("cuda", None),
        Some(("cuda", devices)) => {
            let devices = devices.parse().map_err(|what| format!("\u{201c}{text}\u{201d} is no device: {what}"))?;
            return Ok(DeviceChoice::Cuda(devices));
        }
        Some((name, n)) => {
            let index = n.parse::<usize>().map_err(|_| format!("\u{201c}{text}\u{201d} is no device: {n} is no number"))?;
            (name, Some(index))
        }
        None => (text.trim(), None),
    };
    match (name, index) {
        ("" | "auto", None) => Ok(DeviceChoice::Auto),
        ("cpu", None) => Ok(DeviceChoice::Cpu),
        ("wgpu", index) => Ok(DeviceChoice::Wgpu(index)),
        ("cuda", None) if cfg!(feature = "cuda") => Ok(DeviceChoice::Cuda(CudaDevices::First)),
        ("cuda", _) => Err("This program was built without CUDA; choose a GPU by its graphics interface instead".into()),
        _ => Err(format!("\u{201c}{text}\u{201d} is no device; there are auto, cpu, wgpu and wgpu:N")),
    }
}

/// The context in tokens: what was chosen, else [`USUAL_CONTEXT`], but never more than the model was made for. A choice is kept
/// when another model is opened, so one that is too long for it is shortened rather than refused.
pub fn context(settings: &LoadSettings, config: &Config) -> usize {
    settings.context.unwrap_or(USUAL_CONTEXT).min(config.max_positions).max(1)
}

/// Most bytes on the device; `None`: what it has. `page`: in a browser, where a budget is there in any case, unless it was
/// chosen that there be none.
pub fn budget(settings: &LoadSettings, page: bool) -> Option<u64> {
    match settings.memory_budget {
        None if page => Some(CAREFUL_BUDGET),
        Some(EVERYTHING) => None,
        chosen => chosen,
    }
}

/// How misses are served. `page`: in a browser, where no kernel reads host memory, and nothing can be computed beside the GPU.
fn misses(settings: &LoadSettings, page: bool) -> WayChoice {
    if page { WayChoice::Auto } else { settings.misses }
}

/// Tokens drafted for each step; `None`: as many as pay. `page`: in a browser, where every number of drafts has kernels of its own
/// to be compiled before the first answer, none unless they were chosen.
pub(super) fn draft(settings: &LoadSettings, page: bool) -> Option<usize> {
    settings.draft.or(page.then_some(0)).map(|k| k.min(MAX_DRAFT))
}

/// Positions of the latent cache over all sessions: room for two full contexts, as the engine makes it.
pub(super) fn positions(context: usize) -> usize {
    context.saturating_mul(2).div_ceil(PAGE).saturating_mul(PAGE)
}

/// Where packed experts and profiles are kept between runs.
fn directory() -> Option<PathBuf> {
    #[cfg(not(target_arch = "wasm32"))]
    return dirs::cache_dir().map(|d| d.join("pleiad"));
    #[cfg(target_arch = "wasm32")]
    None
}

/// The engine's options.
///
/// # Errors
/// In words, where there is no such device.
pub fn engine(settings: &LoadSettings, config: &Config) -> Result<EngineOptions, String> {
    let page = cfg!(target_arch = "wasm32");
    let device = device(&settings.device)?;
    Ok(EngineOptions {
        device,
        activations: settings.activations,
        cache: settings.cache,
        context: Some(context(settings, config)),
        threads: settings.threads.filter(|&n| n > 0 && !page),
        chunk: CHUNK,
        draft: draft(settings, page),
        // The CPU computes from host memory, where no budget was chosen for it.
        memory_budget: budget(settings, page).filter(|_| device != DeviceChoice::Cpu),
        misses: misses(settings, page),
        directory: directory(),
        // The views of experts are drawn from what tokens chose.
        trace: true,
        ..EngineOptions::default()
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

    use pleiad_models::Checkpoint;

    use super::*;

    #[test]
    fn devices_by_name() {
        assert_eq!(device(""), Ok(DeviceChoice::Auto));
        assert_eq!(device("auto"), Ok(DeviceChoice::Auto));
        assert_eq!(device("cpu"), Ok(DeviceChoice::Cpu));
        assert_eq!(device("wgpu"), Ok(DeviceChoice::Wgpu(None)));
        assert_eq!(device(" wgpu:2"), Ok(DeviceChoice::Wgpu(Some(2))));
        assert!(device("cuda").unwrap_err().contains("CUDA") && device("cuda:1").unwrap_err().contains("CUDA"));
        for bad in ["cpu:1", "auto:0", "wgpu:", "wgpu:-1", "wgpu:x", "tpu", "wgpu:1:2"] {
            let why = device(bad).unwrap_err();
            assert!(why.contains(bad), "{why}");
        }
    }

    #[test]
    fn a_context_is_never_longer_than_the_models() {
        let config = Checkpoint::tiny().unwrap().config;
        let of = |n| context(&LoadSettings { context: n, ..LoadSettings::default() }, &config);
        assert_eq!(of(None), config.max_positions.min(USUAL_CONTEXT));
        assert_eq!([of(Some(300)), of(Some(usize::MAX)), of(Some(0))], [300, config.max_positions, 1]);
    }

    #[test]
    fn options_are_the_settings() {
        let config = Checkpoint::tiny().unwrap().config;
        let settings = LoadSettings {
            device: "wgpu".into(),
            memory_budget: Some(7),
            context: Some(512),
            threads: Some(0),
            ..LoadSettings::default()
        };
        let options = engine(&settings, &config).unwrap();
        assert!(options.trace && options.device == DeviceChoice::Wgpu(None) && options.threads.is_none());
        assert_eq!((options.memory_budget, options.context, options.chunk), (Some(7), Some(512), CHUNK));
        let cpu = engine(&LoadSettings { device: "cpu".into(), ..settings.clone() }, &config).unwrap();
        assert_eq!((cpu.device, cpu.memory_budget), (DeviceChoice::Cpu, None));
        assert!(engine(&LoadSettings { device: "cuda".into(), ..settings }, &config).is_err());
    }
    #[test]
    fn a_page_has_a_budget_unless_it_was_chosen_otherwise() {
        let of = |bytes, page| budget(&LoadSettings { memory_budget: bytes, ..LoadSettings::default() }, page);
        assert_eq!([of(None, false), of(Some(EVERYTHING), false), of(Some(7), false)], [None, None, Some(7)]);
        assert_eq!([of(None, true), of(Some(EVERYTHING), true), of(Some(7), true)], [Some(CAREFUL_BUDGET), None, Some(7)]);
        let drafts = |k| LoadSettings { draft: k, ..LoadSettings::default() };
        assert_eq!([draft(&drafts(None), false), draft(&drafts(None), true)], [None, Some(0)]);
        assert_eq!([draft(&drafts(Some(2)), true), draft(&drafts(Some(9)), false)], [Some(2), Some(MAX_DRAFT)]);
        let cpu = WayChoice::Only(pleiad_runtime::experts::ways::Way::Cpu);
        let chosen = LoadSettings { misses: cpu, ..LoadSettings::default() };
        assert_eq!([misses(&chosen, false), misses(&chosen, true)], [cpu, WayChoice::Auto]);
    }
}
