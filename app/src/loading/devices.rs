//! The devices there are, found beside the window: asking drivers takes time.

use std::sync::{Arc, OnceLock};

use eframe::wgpu::{Backend, DeviceType};
use pleiad_runtime::{
    cpu::kernels::{Cpu, Isa},
    gpu::{AdapterDescription, adapters::kind_name, enumerate},
};

use super::{Wake, beside};
use crate::sizes::size;

/// A device, for people.
#[derive(Clone, Debug, PartialEq)]
pub struct Device {
    /// What settings call it: `cpu`, `wgpu:0`.
    pub key: String,
    /// Its name.
    pub name: String,
    /// "discrete", "integrated", "software", "CPU".
    pub kind: String,
    /// Graphics interface and driver; instructions for the CPU.
    pub driver: String,
    /// Which kernels it runs: "subgroup", "plain"; empty for the CPU.
    pub tier: String,
    /// Features and limits that matter, as name and value.
    pub facts: Vec<(String, String)>,
    /// Whether `auto` means it.
    pub best: bool,
}

/// Devices that are being looked for, or were found.
#[derive(Debug, Default)]
pub struct Devices {
    found: Arc<OnceLock<Vec<Device>>>,
}

impl Devices {
    /// Looks for them beside the window; `wake` when they are found.
    pub fn look(wake: &Wake) -> Self {
        let found = Arc::new(OnceLock::new());
        let finding = Finding { found: Arc::clone(&found), wake: Arc::clone(wake) };
        // Where nothing can look, dropping `finding` says that there is the CPU.
        let _ = beside::spawn("pleiad-devices", move || async move {
            let adapters = enumerate().await;
            let _ = finding.found.set(list(adapters.iter().map(|a| &a.description)));
        });
        Self { found }
    }

    /// These devices, found already.
    pub fn of(devices: Vec<Device>) -> Self {
        Self { found: Arc::new(OnceLock::from(devices)) }
    }

    /// What was found; `None`: not yet.
    pub fn found(&self) -> Option<&[Device]> {
        self.found.get().map(Vec::as_slice)
    }

    /// Why there is no GPU, in words; `None`: there is one, or it is not known yet. `page`: in a browser.
    pub fn no_gpu(&self, page: bool) -> Option<&'static str> {
        let none = self.found()?.iter().all(|d| d.key == "cpu");
        none.then_some(if page {
            "This browser has no WebGPU: models run on the CPU, which is slow for large ones."
        } else {
            "No GPU was found. Models run on Vulkan, Metal and Direct3D 12."
        })
    }

    /// The device that `auto` means; `None`: it is not known yet.
    pub fn best(&self) -> Option<&Device> {
        self.found()?.iter().find(|d| d.best)
    }
}

/// A look for devices under way. A driver that falls over must not leave the window waiting: then there is the CPU.
struct Finding {
    found: Arc<OnceLock<Vec<Device>>>,
    wake: Wake,
}

impl Drop for Finding {
    fn drop(&mut self) {
        self.found.get_or_init(|| list(std::iter::empty()));
        (self.wake)();
    }
}

/// All devices: GPUs in the order in which `auto` prefers them, the CPU, and what computes on the CPU by way of a driver.
fn list<'a>(adapters: impl Iterator<Item = &'a AdapterDescription>) -> Vec<Device> {
    let (mut devices, mut software) = (Vec::new(), Vec::new());
    for a in adapters {
        if a.software { &mut software } else { &mut devices }.push(adapter(a));
    }
    devices.push(cpu());
    if let Some(first) = devices.first_mut() {
        first.best = true;
    }
    devices.append(&mut software);
    devices
}

fn cpu() -> Device {
    let instructions = Isa::detect().name();
    let available: Vec<&str> = Isa::available().into_iter().map(Isa::name).collect();
    let fact = |name: &str, value: String| (name.to_owned(), value);
    // A worker is one thread.
    let threads = cfg!(not(target_arch = "wasm32")).then(|| fact("Threads", Cpu::new(None).threads().to_string()));
    let architecture = if cfg!(target_arch = "wasm32") { "WebAssembly" } else { std::env::consts::ARCH };
    Device {
        key: "cpu".into(),
        name: format!("CPU ({architecture})"),
        kind: "CPU".into(),
        driver: instructions.into(),
        tier: String::new(),
        facts: threads.into_iter().chain([fact("Instructions", available.join(", "))]).collect(),
        best: false,
    }
}

fn adapter(a: &AdapterDescription) -> Device {
    let l = &a.limits;
    let subgroups = match a.subgroups {
        (_, 0) => "none".to_owned(),
        (least, most) if least == most => most.to_string(),
        (least, most) => format!("{least} to {most}"),
    };
    let fact = |name: &str, value: String| (name.to_owned(), value);
    // Browsers say little about a device.
    let web = a.backend == Backend::BrowserWebGpu;
    let interface = if web { "WebGPU".to_owned() } else { format!("{:?}", a.backend) };
    let kind = match a.kind {
        DeviceType::Other if web => "GPU",
        kind => kind_name(kind),
    };
    Device {
        key: format!("wgpu:{}", a.index),
        name: if a.name.trim().is_empty() { "GPU".into() } else { a.name.clone() },
        kind: if a.software { "software" } else { kind }.into(),
        driver: if a.driver.is_empty() { interface } else { format!("{interface}, {}", a.driver) },
        tier: a.tier.to_string(),
        facts: vec![
            fact("Largest binding", size(l.max_storage_buffer_binding_size)),
            fact("Largest buffer", size(l.max_buffer_size)),
            fact("16-bit floats", if a.f16 { "yes" } else { "no" }.into()),
            fact("Subgroups", subgroups),
            fact("Workgroup memory", size(l.max_compute_workgroup_storage_size.into())),
        ],
        best: false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        time::{Duration, Instant},
    };

    use pleiad_runtime::gpu::Tier;
    use wgpu::{Features, Limits};

    use super::*;

    fn described(index: usize, name: &str, software: bool) -> AdapterDescription {
        AdapterDescription {
            index,
            name: name.into(),
            vendor: 0,
            device: 0,
            kind: if software { DeviceType::Cpu } else { DeviceType::DiscreteGpu },
            backend: Backend::Vulkan,
            driver: "Mesa 25".into(),
            software,
            tier: Tier::Subgroup,
            f16: true,
            subgroups: (8, 32),
            features: Features::empty(),
            limits: Limits::default(),
        }
    }

    #[test]
    fn the_best_device_comes_first_and_software_last() {
        let all = [described(0, "Card", false), described(1, "llvmpipe", true)];
        let devices = list(all.iter());
        let keys: Vec<_> = devices.iter().map(|d| d.key.as_str()).collect();
        assert_eq!(keys, ["wgpu:0", "cpu", "wgpu:1"]);
        assert_eq!(devices.iter().map(|d| d.best).collect::<Vec<_>>(), [true, false, false]);
        assert_eq!((devices[0].kind.as_str(), devices[0].driver.as_str()), ("discrete", "Vulkan, Mesa 25"));
        assert!(devices[0].facts.contains(&("Subgroups".into(), "8 to 32".into())));
        let alone = list(all[1..].iter());
        assert!(alone[0].key == "cpu" && alone[0].best && alone[1].kind == "software" && !alone[1].best);
    }

    #[test]
    fn what_browsers_leave_out_is_no_gap() {
        let mut quiet = described(0, "", false);
        (quiet.backend, quiet.kind, quiet.driver) = (Backend::BrowserWebGpu, DeviceType::Other, String::new());
        let devices = Devices::of(list([quiet].iter()));
        let gpu = devices.best().unwrap();
        assert_eq!((gpu.name.as_str(), gpu.kind.as_str(), gpu.driver.as_str()), ("GPU", "GPU", "WebGPU"));
        assert_eq!(devices.no_gpu(true), None);
        assert_eq!(Devices::default().no_gpu(true), None, "it is not known yet");
        let none = Devices::of(list(std::iter::empty()));
        assert!(none.no_gpu(true).is_some_and(|why| why.contains("no WebGPU")));
        assert!(none.no_gpu(false).is_some_and(|why| why.contains("Vulkan")));
    }

    #[test]
    fn devices_are_found_beside_the_window() {
        let calls = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&calls);
        let wake: Wake = Arc::new(move || {
            seen.fetch_add(1, Ordering::SeqCst);
        });
        let devices = Devices::look(&wake);
        let start = Instant::now();
        while calls.load(Ordering::SeqCst) == 0 {
            assert!(start.elapsed() < Duration::from_secs(60), "nothing was found");
            std::thread::sleep(Duration::from_millis(5));
        }
        let found = devices.found().unwrap();
        assert!(found.iter().any(|d| d.key == "cpu") && found.iter().filter(|d| d.best).count() == 1);
        assert_eq!(devices.best().unwrap().key, found[0].key);
    }
}
