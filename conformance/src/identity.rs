//! What a device says that it is.

use std::collections::BTreeMap;

use pleiad_runtime::gpu::{GpuDevice, adapters::kind_name};

use crate::report::Identity;

/// All but what only a kernel sees.
pub(crate) fn told(gpu: &GpuDevice) -> Identity {
    let a = &gpu.adapter;
    let (device, _) = gpu.wgpu();
    let versions = [
        ("pleiad", env!("CARGO_PKG_VERSION")),
        ("wgpu", env!("PLEIAD_WGPU")),
        // In a browser kernels are compiled by the browser; naga reflects their bindings there.
        ("naga", env!("PLEIAD_NAGA")),
    ];
    let subgroups = gpu.tier == pleiad_runtime::gpu::Tier::Subgroup;
    Identity {
        name: a.name.clone(),
        kind: kind_name(a.kind).to_owned(),
        backend: format!("{:?}", a.backend),
        driver: a.driver.clone(),
        vendor_id: a.vendor,
        device_id: a.device,
        software: a.software,
        versions: versions.map(|(name, version)| (name.to_owned(), version.to_owned())).into(),
        platform: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        features: device.features().iter_names().map(|(name, _)| name.to_owned()).collect(),
        limits: limits(gpu),
        subgroup_sizes: subgroups.then_some(a.subgroups),
        subgroup_sizes_seen: Vec::new(),
        tier: gpu.tier.to_string(),
    }
}

/// The limits that kernels, or models of some size, meet.
fn limits(gpu: &GpuDevice) -> BTreeMap<String, u64> {
    let l = &gpu.limits;
    let all: [(&str, u64); 13] = [
        ("max_buffer_size", l.max_buffer_size),
        ("max_storage_buffer_binding_size", l.max_storage_buffer_binding_size),
        ("max_uniform_buffer_binding_size", l.max_uniform_buffer_binding_size),
        ("max_storage_buffers_per_shader_stage", l.max_storage_buffers_per_shader_stage.into()),
        ("max_dynamic_uniform_buffers_per_pipeline_layout", l.max_dynamic_uniform_buffers_per_pipeline_layout.into()),
        ("min_storage_buffer_offset_alignment", l.min_storage_buffer_offset_alignment.into()),
        ("min_uniform_buffer_offset_alignment", l.min_uniform_buffer_offset_alignment.into()),
        ("max_compute_workgroup_storage_size", l.max_compute_workgroup_storage_size.into()),
        ("max_compute_invocations_per_workgroup", l.max_compute_invocations_per_workgroup.into()),
        ("max_compute_workgroup_size_x", l.max_compute_workgroup_size_x.into()),
        ("max_compute_workgroup_size_y", l.max_compute_workgroup_size_y.into()),
        ("max_compute_workgroup_size_z", l.max_compute_workgroup_size_z.into()),
        ("max_compute_workgroups_per_dimension", l.max_compute_workgroups_per_dimension.into()),
    ];
    all.map(|(name, value)| (name.to_owned(), value)).into()
}
