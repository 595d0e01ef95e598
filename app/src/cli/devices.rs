//! `pleiad devices`: what a model could run on.

use anyhow::Result;
use clap::Args;
use pleiad_runtime::{
    cpu::kernels::{Cpu, Isa},
    cuda::{self, DeviceInfo},
    gpu::{AdapterChoice, AdapterDescription, adapters::kind_name, enumerate, pick},
};
use serde::Serialize;

use super::term::{Stream, size};

/// Arguments of `pleiad devices`.
#[derive(Args, Clone, Debug)]
pub struct DevicesArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Serialize)]
struct Devices {
    /// What `--device auto` takes: a value for `--device`.
    auto: String,
    cpu: CpuLine,
    adapters: Vec<AdapterLine>,
    cuda: CudaLines,
}

/// The devices of the CUDA backend.
#[derive(Serialize)]
struct CudaLines {
    devices: Vec<CudaLine>,
    /// Why there are none.
    error: Option<String>,
}

#[derive(Serialize)]
struct CudaLine {
    /// For `--device`.
    device: String,
    name: String,
    architecture: String,
    processors: u32,
    memory: u64,
}

#[derive(Serialize)]
struct CpuLine {
    device: &'static str,
    architecture: &'static str,
    instruction_set: &'static str,
    available: Vec<&'static str>,
    threads: usize,
}

#[derive(Serialize)]
struct AdapterLine {
    /// For `--device`.
    device: String,
    name: String,
    kind: &'static str,
    backend: String,
    driver: String,
    vendor_id: u32,
    device_id: u32,
    software: bool,
    tier: String,
    f16: bool,
    subgroup_sizes: Option<(u32, u32)>,
    limits: Limits,
    /// Whether `--device auto` takes it.
    auto: bool,
    /// Why not, if so.
    why_not: Option<String>,
}

#[derive(Serialize)]
struct Limits {
    max_buffer_size: u64,
    max_storage_buffer_binding_size: u64,
    max_storage_buffers_per_shader_stage: u32,
    max_compute_workgroup_storage_size: u32,
    max_compute_invocations_per_workgroup: u32,
    max_compute_workgroups_per_dimension: u32,
}

/// Runs `pleiad devices`.
pub fn run(args: &DevicesArgs) -> Result<()> {
    let found = pollster::block_on(enumerate());
    let chosen = pollster::block_on(pick(AdapterChoice::Auto))?.map(|a| a.description.index);
    let auto = chosen.map_or_else(|| "cpu".to_owned(), |i| format!("wgpu:{i}"));
    let adapters = found.iter().map(|a| adapter_line(&a.description, chosen)).collect();
    let all = Devices { auto, cpu: cpu_line(), adapters, cuda: cuda_lines() };
    let mut out = Stream::stdout();
    if args.json { out.json(&all) } else { print(&mut out, &all) }
}

fn cuda_lines() -> CudaLines {
    let line = |(i, d): (usize, DeviceInfo)| CudaLine {
        device: format!("cuda:{i}"),
        name: d.name,
        architecture: d.architecture,
        processors: d.processors,
        memory: d.memory,
    };
    match cuda::devices() {
        Ok(all) => CudaLines { devices: all.into_iter().enumerate().map(line).collect(), error: None },
        Err(e) => CudaLines { devices: Vec::new(), error: Some(e.to_string()) },
    }
}

fn cpu_line() -> CpuLine {
    CpuLine {
        device: "cpu",
        architecture: std::env::consts::ARCH,
        instruction_set: Isa::detect().name(),
        available: Isa::available().into_iter().map(Isa::name).collect(),
        threads: Cpu::new(None).threads(),
    }
}

fn adapter_line(a: &AdapterDescription, chosen: Option<usize>) -> AdapterLine {
    let auto = chosen == Some(a.index);
    let why_not = match chosen {
        _ if auto => None,
        _ if a.software => Some("it computes on the CPU, more slowly than the CPU backend".to_owned()),
        Some(i) => Some(format!("wgpu:{i} comes before it")),
        None => Some("it is no GPU that is chosen by itself".to_owned()),
    };
    let l = &a.limits;
    AdapterLine {
        device: format!("wgpu:{}", a.index),
        name: a.name.clone(),
        kind: kind_name(a.kind),
        backend: format!("{:?}", a.backend),
        driver: a.driver.clone(),
        vendor_id: a.vendor,
        device_id: a.device,
        software: a.software,
        tier: a.tier.to_string(),
        f16: a.f16,
        subgroup_sizes: (a.subgroups.1 > 0).then_some(a.subgroups),
        limits: Limits {
            max_buffer_size: l.max_buffer_size,
            max_storage_buffer_binding_size: l.max_storage_buffer_binding_size,
            max_storage_buffers_per_shader_stage: l.max_storage_buffers_per_shader_stage,
            max_compute_workgroup_storage_size: l.max_compute_workgroup_storage_size,
            max_compute_invocations_per_workgroup: l.max_compute_invocations_per_workgroup,
            max_compute_workgroups_per_dimension: l.max_compute_workgroups_per_dimension,
        },
        auto,
        why_not,
    }
}

fn print(out: &mut Stream, all: &Devices) -> Result<()> {
    let c = &all.cpu;
    let mark = |auto: bool| if auto { "  <- auto" } else { "" };
    out.line(&format!(
        "{:<8} {} with {}, {} threads{}",
        c.device,
        c.architecture,
        c.instruction_set,
        c.threads,
        mark(all.auto == "cpu")
    ))?;
    for a in &all.adapters {
        out.line(&format!("{:<8} {}{}", a.device, a.name, mark(a.auto)))?;
        let software = if a.software && a.kind != "software" { ", software" } else { "" };
        let driver = if a.driver.is_empty() { String::new() } else { format!(", {}", a.driver) };
        out.line(&format!("         {}{software}, {}{driver}", a.kind, a.backend))?;
        let subgroups = match a.subgroup_sizes {
            Some((least, most)) if least == most => format!(", subgroups of {most}"),
            Some((least, most)) => format!(", subgroups of {least} to {most}"),
            None => String::new(),
        };
        let f16 = if a.f16 { "f16" } else { "no f16" };
        out.line(&format!("         {} kernels{}, {f16}", a.tier, if a.tier == "plain" { "" } else { &subgroups }))?;
        let l = &a.limits;
        out.line(&format!(
            "         buffers of {}, bindings of {}, {} storage buffers, {} of workgroup memory, {} invocations",
            size(l.max_buffer_size),
            size(l.max_storage_buffer_binding_size),
            l.max_storage_buffers_per_shader_stage,
            size(l.max_compute_workgroup_storage_size.into()),
            l.max_compute_invocations_per_workgroup
        ))?;
        if let Some(why) = &a.why_not {
            out.dim_line(&format!("         not chosen by itself: {why}"))?;
        }
    }
    for d in &all.cuda.devices {
        out.line(&format!("{:<8} {}", d.device, d.name))?;
        let memory = size(d.memory);
        out.line(&format!("         CUDA, {}, {} multiprocessors, {memory}", d.architecture, d.processors))?;
    }
    if let Some(why) = all.cuda.error.as_ref().filter(|_| cfg!(feature = "cuda")) {
        out.dim_line(&format!("cuda     not available: {why}"))?;
    }
    if all.adapters.is_empty() {
        out.dim_line("         no GPU was found (Vulkan, Metal, Direct3D 12)")?;
    }
    Ok(())
}
