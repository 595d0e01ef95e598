//! Which GPUs there are, what they can do, and which one to take.

use std::{fmt, sync::Arc};

use wgpu::{Backends, DeviceType, Features, InstanceDescriptor, InstanceFlags, Limits, MemoryBudgetThresholds};
#[cfg(target_arch = "wasm32")]
use wgpu::{PowerPreference, RequestAdapterOptions};

use super::device::GpuDevice;
use crate::error::{Error, Result};

/// Which adapter to use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum AdapterChoice {
    /// A discrete GPU, else an integrated one; never a software adapter.
    #[default]
    Auto,
    /// The adapter of that number in [`enumerate`]'s list, whatever it is.
    Index(usize),
}

/// Which kernel variants an adapter runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Tier {
    /// Variants that stay within the default limits of WebGPU.
    Plain,
    /// Variants that use subgroup operations.
    Subgroup,
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Plain => "plain",
            Self::Subgroup => "subgroup",
        })
    }
}

/// How a device is opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct DeviceOptions {
    /// Ask for no feature and for WebGPU's default limits only, as a browser's least device has them.
    pub plain: bool,
    /// Keep bounds checks and loop limits in kernels (tests; browsers always do).
    pub checked: bool,
}

impl DeviceOptions {
    /// As the least device of a browser is: WebGPU's default limits, no features, all checks.
    pub const STRICT: Self = Self { plain: true, checked: true };
}

/// An adapter, described.
#[derive(Clone, Debug, PartialEq)]
pub struct AdapterDescription {
    /// Its number, for `--device wgpu:N`.
    pub index: usize,
    /// The name that its driver gives.
    pub name: String,
    /// PCI vendor id, 0 where the platform hides it.
    pub vendor: u32,
    /// PCI device id, 0 where the platform hides it.
    pub device: u32,
    /// What it is.
    pub kind: DeviceType,
    /// The graphics API it is reached through.
    pub backend: wgpu::Backend,
    /// Driver name and version.
    pub driver: String,
    /// Whether it computes on the CPU.
    pub software: bool,
    /// The best variants it runs.
    pub tier: Tier,
    /// Whether kernels may use f16 arithmetic.
    pub f16: bool,
    /// Smallest and largest subgroup.
    pub subgroups: (u32, u32),
    /// All features of the adapter.
    pub features: Features,
    /// All limits of the adapter.
    pub limits: Limits,
}

impl fmt::Display for AdapterDescription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "wgpu:{} {} ({:?}, {}", self.index, self.name, self.backend, kind_name(self.kind))?;
        if self.software && self.kind != DeviceType::Cpu {
            write!(f, ", software")?;
        }
        if !self.driver.is_empty() {
            write!(f, ", {}", self.driver)?;
        }
        write!(f, ")")
    }
}

/// What people call that kind of adapter.
pub fn kind_name(kind: DeviceType) -> &'static str {
    match kind {
        DeviceType::DiscreteGpu => "discrete",
        DeviceType::IntegratedGpu => "integrated",
        DeviceType::VirtualGpu => "virtual",
        DeviceType::Cpu => "software",
        DeviceType::Other => "unknown kind",
    }
}

/// An adapter that can be opened.
#[derive(Clone, Debug)]
pub struct GpuAdapter {
    adapter: wgpu::Adapter,
    /// What it is.
    pub description: AdapterDescription,
}

/// Percent of the device's memory that may be taken, where its driver tells how much there is.
const MEMORY_SHARE: u8 = 92;

/// Features that kernels or timings use where an adapter has them.
fn wanted() -> Features {
    let features = Features::SUBGROUP | Features::SUBGROUP_BARRIER | Features::SHADER_F16 | Features::TIMESTAMP_QUERY;
    // Banks of experts in host memory that kernels read.
    features | Features::MAPPABLE_PRIMARY_BUFFERS
}

/// Whether an adapter of that kind and name computes on the CPU.
fn is_software(kind: DeviceType, name: &str, driver: &str) -> bool {
    const NAMES: [&str; 5] = ["llvmpipe", "lavapipe", "swiftshader", "softpipe", "microsoft basic render"];
    let named = |text: &str| {
        let text = text.to_lowercase();
        NAMES.iter().any(|n| text.contains(n)) || text.split(|c: char| !c.is_alphanumeric()).any(|word| word == "warp")
    };
    kind == DeviceType::Cpu || named(name) || named(driver)
}

fn describe(index: usize, adapter: &wgpu::Adapter) -> AdapterDescription {
    let info = adapter.get_info();
    let features = adapter.features();
    let driver =
        [info.driver.trim(), info.driver_info.trim()].into_iter().filter(|s| !s.is_empty()).collect::<Vec<_>>().join(" ");
    AdapterDescription {
        index,
        software: is_software(info.device_type, &info.name, &driver),
        name: if info.name.trim().is_empty() { "unnamed GPU".into() } else { info.name.trim().to_owned() },
        vendor: info.vendor,
        device: info.device,
        kind: info.device_type,
        backend: info.backend,
        driver,
        tier: if features.contains(Features::SUBGROUP) { Tier::Subgroup } else { Tier::Plain },
        f16: features.contains(Features::SHADER_F16),
        subgroups: (info.subgroup_min_size, info.subgroup_max_size),
        features,
        limits: adapter.limits(),
    }
}

/// All adapters of this machine (natively Vulkan, Metal and Direct3D 12; in a browser the one it offers), best first.
pub async fn enumerate() -> Vec<GpuAdapter> {
    enumerate_with(false).await
}

/// [`enumerate`]; `strict`: what WebGPU does not allow is refused, though the platform could do it.
pub async fn enumerate_with(strict: bool) -> Vec<GpuAdapter> {
    // WebGL draws, and computes nothing.
    enumerate_on(if cfg!(target_arch = "wasm32") { Backends::BROWSER_WEBGPU } else { Backends::PRIMARY }, strict).await
}

/// Adapters that OpenGL reaches, where this program is built with wgpu's `gles`. Models are not run on them: whether they could be
/// is for tests to say.
#[cfg(not(target_arch = "wasm32"))]
pub async fn enumerate_gl(strict: bool) -> Vec<GpuAdapter> {
    enumerate_on(Backends::GL, strict).await
}

async fn enumerate_on(backends: Backends, strict: bool) -> Vec<GpuAdapter> {
    // Validation of indirect dispatches would add a dispatch to each of them; debug layers are for debuggers.
    let mut flags = InstanceFlags::from_env_or_default() - InstanceFlags::VALIDATION_INDIRECT_CALL;
    flags.set(InstanceFlags::STRICT_WEBGPU_COMPLIANCE, strict);
    // A driver that has promised more than there is moves buffers to host memory, or dies: rather be refused in time.
    let memory_budget_thresholds = MemoryBudgetThresholds { for_resource_creation: Some(MEMORY_SHARE), for_device_loss: None };
    let descriptor =
        InstanceDescriptor { flags, memory_budget_thresholds, ..InstanceDescriptor::new_without_display_handle_from_env() };
    let descriptor = InstanceDescriptor { backends: descriptor.backends & backends, ..descriptor };
    let instance = wgpu::Instance::new(descriptor);
    #[cfg(not(target_arch = "wasm32"))]
    {
        let mut found = instance.enumerate_adapters(backends).await;
        found.sort_by_key(|a| {
            let info = a.get_info();
            (is_software(info.device_type, &info.name, &info.driver), rank(info.device_type))
        });
        let describe = |(index, adapter)| GpuAdapter { description: describe(index, &adapter), adapter };
        found.into_iter().enumerate().map(describe).collect()
    }
    #[cfg(target_arch = "wasm32")]
    {
        offered(&instance).await.into_iter().collect()
    }
}

/// The adapter that the browser offers: the faster one if there are two.
#[cfg(target_arch = "wasm32")]
async fn offered(instance: &wgpu::Instance) -> Option<GpuAdapter> {
    for power_preference in [PowerPreference::HighPerformance, PowerPreference::None] {
        let options = RequestAdapterOptions { power_preference, ..RequestAdapterOptions::default() };
        if let Ok(adapter) = instance.request_adapter(&options).await {
            let mut description = describe(0, &adapter);
            if let Some(seen) = super::browser::look(power_preference).await {
                seen.complete(&mut description);
            }
            return Some(GpuAdapter { description, adapter });
        }
    }
    None
}

/// What a browser tells of its adapter.
#[cfg_attr(not(target_arch = "wasm32"), allow(dead_code, reason = "used in browsers alone"))]
pub(super) struct Seen {
    /// Whose it is, in lower case: `nvidia`.
    pub vendor: String,
    /// The family, in lower case with hyphens: `gen-12lp`.
    pub architecture: String,
    /// The driver's name for it. Browsers keep it to themselves.
    pub description: String,
    /// Whether it computes on the CPU.
    pub fallback: bool,
}

#[cfg_attr(not(target_arch = "wasm32"), allow(dead_code, reason = "used in browsers alone"))]
impl Seen {
    /// Vendors by the names that browsers have for them: what people call them, and their PCI ids.
    const VENDORS: [(&'static str, &'static str, u32); 9] = [
        ("amd", "AMD", 0x1002),
        ("apple", "Apple", 0x106b),
        ("arm", "Arm", 0x13b5),
        ("google", "Google", 0x1ae0),
        ("img-tec", "Imagination", 0x1010),
        ("intel", "Intel", 0x8086),
        ("microsoft", "Microsoft", 0x1414),
        ("nvidia", "NVIDIA", 0x10de),
        ("qualcomm", "Qualcomm", 0x5143),
    ];

    /// Adds to a description what wgpu leaves out: name, vendor, and whether it is software.
    fn complete(&self, description: &mut AdapterDescription) {
        let known = Self::VENDORS.iter().find(|(name, ..)| *name == self.vendor);
        let given = self.description.trim();
        let name = if given.is_empty() {
            let vendor = known.map_or(self.vendor.trim(), |(_, vendor, _)| vendor);
            [vendor, self.architecture.trim()].into_iter().filter(|s| !s.is_empty()).collect::<Vec<_>>().join(" ")
        } else {
            given.to_owned()
        };
        if !name.is_empty() {
            description.name = name;
        }
        description.vendor = known.map_or(0, |(.., id)| *id);
        let kind = if self.fallback { DeviceType::Cpu } else { description.kind };
        description.kind = kind;
        description.software = is_software(kind, &description.name, &self.architecture);
    }
}

/// Order of preference. Browsers say `Other`.
fn rank(kind: DeviceType) -> u32 {
    match kind {
        DeviceType::DiscreteGpu => 0,
        DeviceType::IntegratedGpu => 1,
        DeviceType::VirtualGpu => 2,
        DeviceType::Other => 3,
        DeviceType::Cpu => 4,
    }
}

/// The index into `adapters` that `choice` means. `Ok(None)`: nothing but software adapters, or nothing at all.
fn choose(adapters: &[AdapterDescription], choice: AdapterChoice) -> Result<Option<usize>> {
    match choice {
        AdapterChoice::Auto => Ok((0..adapters.len()).filter(|&i| !adapters[i].software).min_by_key(|&i| rank(adapters[i].kind))),
        AdapterChoice::Index(n) if n < adapters.len() => Ok(Some(n)),
        AdapterChoice::Index(n) => Err(Error::NoAdapter { wanted: format!("wgpu:{n}"), available: list(adapters) }),
    }
}

/// The devices that `--device` may name.
pub(super) fn list(adapters: &[AdapterDescription]) -> String {
    if adapters.is_empty() {
        return "cpu (no GPU was found)".into();
    }
    let mut names = vec!["cpu".to_owned()];
    names.extend(adapters.iter().map(ToString::to_string));
    names.join(", ")
}

/// The adapter that `choice` means. [`AdapterChoice::Auto`] finds none where there is no real GPU; a number that no
/// adapter has is an error that lists what there is.
pub async fn pick(choice: AdapterChoice) -> Result<Option<GpuAdapter>> {
    let adapters = enumerate().await;
    let descriptions: Vec<_> = adapters.iter().map(|a| a.description.clone()).collect();
    Ok(choose(&descriptions, choice)?.and_then(|i| adapters.into_iter().nth(i)))
}

impl GpuAdapter {
    /// Opens the adapter.
    pub async fn open(&self, options: DeviceOptions) -> Result<Arc<GpuDevice>> {
        let description = &self.description;
        let (features, limits) = if options.plain {
            (Features::empty(), Limits::default())
        } else {
            (description.features & wanted(), description.limits.clone())
        };
        let opened = self
            .adapter
            .request_device(&wgpu::DeviceDescriptor {
                label: Some("pleiad"),
                required_features: features,
                required_limits: limits,
                memory_hints: wgpu::MemoryHints::Performance,
                ..Default::default()
            })
            .await;
        let (device, queue) = opened.map_err(|e| Error::Gpu(format!("{description}: {e}")))?;
        Ok(Arc::new(GpuDevice::new(device, queue, description.clone(), options)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

    use super::*;

    fn adapter(index: usize, kind: DeviceType, name: &str) -> AdapterDescription {
        AdapterDescription {
            index,
            name: name.into(),
            vendor: 0,
            device: 0,
            kind,
            backend: wgpu::Backend::Vulkan,
            driver: String::new(),
            software: is_software(kind, name, ""),
            tier: Tier::Plain,
            f16: false,
            subgroups: (4, 128),
            features: Features::empty(),
            limits: Limits::default(),
        }
    }

    #[test]
    fn software_adapters_are_known_by_kind_or_name() {
        assert!(is_software(DeviceType::Cpu, "anything", ""));
        for name in ["llvmpipe (LLVM 15.0.6, 256 bits)", "Google SwiftShader", "Microsoft Basic Render Driver", "Vulkan/llvmpipe"]
        {
            assert!(is_software(DeviceType::Other, name, ""), "{name}");
        }
        for name in ["NVIDIA GeForce RTX 4070", "AMD Radeon 780M", "Apple M2", "Intel(R) Arc(tm) A770"] {
            assert!(!is_software(DeviceType::DiscreteGpu, name, "driver 1.2"), "{name}");
        }
    }

    #[test]
    fn browsers_tell_vendor_and_family() {
        let seen = |vendor: &str, architecture: &str, description: &str, fallback| {
            let mut told = adapter(0, DeviceType::Other, "unnamed GPU");
            let seen =
                Seen { vendor: vendor.into(), architecture: architecture.into(), description: description.into(), fallback };
            seen.complete(&mut told);
            (told.name, told.vendor, told.software)
        };
        assert_eq!(seen("nvidia", "turing", "", false), ("NVIDIA turing".into(), 0x10de, false));
        assert_eq!(seen("apple", "", "", false), ("Apple".into(), 0x106b, false));
        assert_eq!(seen("amd", "rdna-3", "Radeon 780M", false), ("Radeon 780M".into(), 0x1002, false));
        assert_eq!(seen("", "", "", false), ("unnamed GPU".into(), 0, false));
        for (vendor, architecture, fallback) in
            [("google", "swiftshader", false), ("microsoft", "warp", false), ("mesa", "llvmpipe", false), ("intel", "", true)]
        {
            assert!(seen(vendor, architecture, "", fallback).2, "{vendor} {architecture}");
        }
        // A name that was given does not hide what it is.
        assert!(seen("microsoft", "warp", "Basic adapter", false).2);
    }

    #[test]
    fn auto_takes_a_discrete_then_an_integrated_gpu_and_never_software() {
        let software = adapter(0, DeviceType::Cpu, "llvmpipe");
        let integrated = adapter(1, DeviceType::IntegratedGpu, "Intel UHD");
        let discrete = adapter(2, DeviceType::DiscreteGpu, "Radeon");
        let all = [software.clone(), integrated.clone(), discrete];
        assert_eq!(choose(&all, AdapterChoice::Auto).unwrap(), Some(2));
        assert_eq!(choose(&all[..2], AdapterChoice::Auto).unwrap(), Some(1));
        assert_eq!(choose(&all[..1], AdapterChoice::Auto).unwrap(), None);
        assert_eq!(choose(&[], AdapterChoice::Auto).unwrap(), None);
        assert_eq!(choose(&all, AdapterChoice::Index(0)).unwrap(), Some(0));
    }

    #[test]
    fn a_missing_adapter_is_an_error_that_lists_what_is_there() {
        let all = [adapter(0, DeviceType::Cpu, "llvmpipe")];
        let error = choose(&all, AdapterChoice::Index(3)).unwrap_err().to_string();
        assert!(error.contains("wgpu:3") && error.contains("wgpu:0 llvmpipe"), "{error}");
        let error = choose(&[], AdapterChoice::Index(0)).unwrap_err().to_string();
        assert!(error.contains("no GPU"), "{error}");
    }
}
