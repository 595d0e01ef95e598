//! What every variant of every kernel needs of a device: known from its text, without one.

use pleiad_shaders::{Defines, Dialect, KERNELS, ShaderError, Tier, reflect, source};
use serde::{Deserialize, Serialize};

/// Needs of a variant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Needs {
    /// The kernel.
    pub kernel: String,
    /// Its defines, `NAME=value`, separated by spaces.
    pub defines: String,
    /// Names of WebGPU features; none: every device runs it.
    pub features: Vec<String>,
    /// Storage buffers that it binds.
    pub storage_buffers: u32,
    /// Bytes of workgroup memory.
    pub workgroup_bytes: u32,
    /// Threads of a workgroup.
    pub invocations: u32,
    /// Threads of a workgroup along each dimension.
    pub workgroup_size: [u32; 3],
    /// Bytes of parameters, a uniform buffer with a dynamic offset.
    pub uniform_bytes: u32,
}

impl Needs {
    /// Limits of a device, in the order of WebGPU's names `maxStorageBuffersPerShaderStage`,
    /// `maxComputeWorkgroupStorageSize`, `maxComputeInvocationsPerWorkgroup`, that are too small for it.
    pub fn exceeds(&self, storage_buffers: u32, workgroup_bytes: u32, invocations: u32) -> Vec<&'static str> {
        let all = [
            ("maxStorageBuffersPerShaderStage", self.storage_buffers, storage_buffers),
            ("maxComputeWorkgroupStorageSize", self.workgroup_bytes, workgroup_bytes),
            ("maxComputeInvocationsPerWorkgroup", self.invocations, invocations),
        ];
        all.into_iter().filter(|(_, needed, limit)| needed > limit).map(|(name, ..)| name).collect()
    }
}

/// Features that a text asks for.
fn features(tier: Tier, text: &str) -> Vec<String> {
    let mut all = Vec::new();
    if tier == Tier::Subgroup {
        all.push("subgroups".to_owned());
    }
    // No kernel uses the type so far: halves are unpacked from words.
    if text.contains("enable f16;") {
        all.push("shader-f16".to_owned());
    }
    all
}

/// The needs of a kernel with `defines`.
///
/// # Errors
///
/// No such kernel or define.
pub fn needs(kernel: &str, defines: &Defines) -> Result<Needs, ShaderError> {
    let info = pleiad_shaders::kernel(kernel).ok_or_else(|| ShaderError::UnknownKernel { kernel: kernel.to_owned() })?;
    let interface = reflect(&source(kernel, defines, Dialect::Naga)?)?;
    let browser = source(kernel, defines, Dialect::Browser)?;
    let words: Vec<String> = defines.iter().map(|(name, value)| format!("{name}={value}")).collect();
    Ok(Needs {
        kernel: kernel.to_owned(),
        defines: words.join(" "),
        features: features(info.tier(defines), &browser),
        storage_buffers: interface.storage_buffers() as u32,
        workgroup_bytes: interface.workgroup_bytes,
        invocations: interface.workgroup_size.iter().product(),
        workgroup_size: interface.workgroup_size,
        uniform_bytes: interface.binding("params").map_or(0, |b| b.min_size),
    })
}

/// The needs of every variant of every kernel.
///
/// # Errors
///
/// A kernel that is wrong.
pub fn table() -> Result<Vec<Needs>, ShaderError> {
    let all = KERNELS.iter().flat_map(|k| k.variants().into_iter().map(move |d| (k.name, d)));
    all.map(|(kernel, defines)| needs(kernel, &defines)).collect()
}

/// The needs of each kernel: the largest of its variants', and those of its variants with and without features apart.
///
/// # Errors
///
/// A kernel that is wrong.
pub fn summary() -> Result<Vec<Needs>, ShaderError> {
    let mut rows: Vec<Needs> = Vec::new();
    for n in table()? {
        match rows.iter_mut().find(|r| r.kernel == n.kernel && r.features == n.features) {
            Some(r) => {
                r.storage_buffers = r.storage_buffers.max(n.storage_buffers);
                r.workgroup_bytes = r.workgroup_bytes.max(n.workgroup_bytes);
                if n.invocations > r.invocations {
                    (r.invocations, r.workgroup_size) = (n.invocations, n.workgroup_size);
                }
            }
            None => rows.push(Needs { defines: String::new(), ..n }),
        }
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

    use super::*;

    #[test]
    fn every_variant_is_within_the_default_limits_and_each_kernel_has_one_without_features() {
        let all = table().unwrap();
        assert!(all.len() > 500, "{}", all.len());
        assert!(all.iter().all(|n| n.exceeds(8, 16 << 10, 256).is_empty()));
        let rows = summary().unwrap();
        for kernel in KERNELS {
            assert!(rows.iter().any(|r| r.kernel == kernel.name && r.features.is_empty()), "{}", kernel.name);
        }
        assert!(rows.iter().any(|r| r.kernel == "matvec" && r.features == ["subgroups"]));
        let router = rows.iter().find(|r| r.kernel == "router").unwrap();
        assert_eq!((router.storage_buffers, router.invocations), (8, 256));
        assert_eq!(router.exceeds(7, 1 << 20, 128), ["maxStorageBuffersPerShaderStage", "maxComputeInvocationsPerWorkgroup"]);
    }
}
