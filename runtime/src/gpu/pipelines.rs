//! Compute pipelines, made once for each kernel and set of defines.

use std::{collections::HashMap, num::NonZeroU64, sync::Arc};

use pleiad_shaders::{Access, Defines, Dialect, Interface};
use wgpu::{BindGroupLayoutEntry, BindingType, BufferBindingType, ShaderRuntimeChecks, ShaderStages};

use super::device::GpuDevice;
use crate::error::{Error, Result};

/// A kernel with its defines.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Variant {
    kernel: &'static str,
    defines: Defines,
}

impl Variant {
    pub fn new(kernel: &'static str) -> Self {
        Self { kernel, defines: Defines::new() }
    }

    /// Defines a flag where `on`.
    pub fn flag(self, name: &str, on: bool) -> Self {
        Self { defines: self.defines.flag_if(name, on), ..self }
    }

    /// Defines a value.
    pub fn set(self, name: &str, value: impl ToString) -> Self {
        Self { defines: self.defines.set(name, value), ..self }
    }

    /// Kernel and defines, for labels and errors.
    fn label(&self) -> String {
        let defines: Vec<_> = self.defines.iter().map(|(name, value)| format!(" {name}={value}")).collect();
        format!("{}{}", self.kernel, defines.concat())
    }
}

/// A pipeline and what it binds.
pub(crate) struct Pipeline {
    pub label: String,
    pub pipeline: wgpu::ComputePipeline,
    pub layout: wgpu::BindGroupLayout,
    pub interface: Interface,
}

/// Every pipeline made so far.
#[derive(Default)]
pub(crate) struct Pipelines {
    made: HashMap<Variant, Arc<Pipeline>>,
}

impl Pipelines {
    /// The pipeline of that variant, if it was made.
    pub fn get(&self, variant: &Variant) -> Option<Arc<Pipeline>> {
        self.made.get(variant).map(Arc::clone)
    }

    /// Keeps a pipeline that was made.
    pub fn insert(&mut self, variant: &Variant, described: Described, (pipeline, layout): Made) -> Arc<Pipeline> {
        let Described { label, interface, .. } = described;
        let made = Arc::new(Pipeline { label, pipeline, layout, interface });
        self.made.insert(variant.clone(), Arc::clone(&made));
        made
    }

    /// The kernels and defines that there are.
    pub fn variants(&self) -> Vec<(&'static str, Defines)> {
        self.made.keys().map(|v| (v.kernel, v.defines.clone())).collect()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.made.len()
    }
}

/// A pipeline and the layout of what it binds.
pub(crate) type Made = (wgpu::ComputePipeline, wgpu::BindGroupLayout);

/// A pipeline on its way.
pub(crate) struct Begun {
    pub variant: Variant,
    /// `None`: it was made before.
    pub described: Option<Described>,
    #[cfg(target_arch = "wasm32")]
    pub compiling: Option<super::browser::Compiling>,
}

/// All that a pipeline is made from.
pub(crate) struct Described {
    /// Kernel and defines.
    pub label: String,
    source: String,
    interface: Interface,
}

impl Variant {
    /// What its pipeline on `gpu` is made from.
    ///
    /// # Errors
    ///
    /// A limit of the device that the kernel exceeds.
    pub fn describe(&self, gpu: &GpuDevice) -> Result<Described> {
        let label = self.label();
        // Bindings are reflected from naga's dialect, which is the same program.
        let source = pleiad_shaders::source(self.kernel, &self.defines, Dialect::Naga)?;
        let interface = pleiad_shaders::reflect(&source)?;
        check_limits(gpu, &label, &interface)?;
        let browser = cfg!(target_arch = "wasm32");
        let source = if browser { pleiad_shaders::source(self.kernel, &self.defines, Dialect::Browser)? } else { source };
        let source = gpu.with_fault(self.kernel, source);
        Ok(Described { label, source, interface })
    }
}

impl Described {
    /// Has the browser compile it without blocking, before it is [made](Self::make).
    #[cfg(target_arch = "wasm32")]
    pub fn compile(&self, gpu: &GpuDevice) -> Option<super::browser::Compiling> {
        super::browser::compile(&gpu.device, &self.label, &self.source, &self.interface.bindings)
    }

    /// Compiles it. Errors go to the device's error scopes.
    pub fn make(&self, gpu: &GpuDevice) -> Made {
        let device = &gpu.device;
        let label = Some(&self.label[..]);
        let bindings = &self.interface.bindings;
        let entries: Vec<_> = bindings
            .iter()
            .map(|b| BindGroupLayoutEntry {
                binding: b.index,
                visibility: ShaderStages::COMPUTE,
                ty: BindingType::Buffer {
                    ty: match b.access {
                        Access::Uniform => BufferBindingType::Uniform,
                        Access::Read => BufferBindingType::Storage { read_only: true },
                        Access::ReadWrite => BufferBindingType::Storage { read_only: false },
                    },
                    // Parameters of all dispatches share a buffer.
                    has_dynamic_offset: b.access == Access::Uniform,
                    min_binding_size: NonZeroU64::new(u64::from(b.min_size)),
                },
                count: None,
            })
            .collect();
        let descriptor = wgpu::ShaderModuleDescriptor { label, source: wgpu::ShaderSource::Wgsl((&self.source[..]).into()) };
        let module = if gpu.options.checked {
            device.create_shader_module(descriptor)
        } else {
            // SAFETY: kernels guard their tails and index only what `lower` sized for them; tests run every
            // kernel with checks on as well, and compare.
            unsafe { device.create_shader_module_trusted(descriptor, ShaderRuntimeChecks::unchecked()) }
        };
        let layout = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label, entries: &entries });
        let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label,
            bind_group_layouts: &[Some(&layout)],
            immediate_size: 0,
        });
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label,
            layout: Some(&pipeline_layout),
            module: &module,
            entry_point: None,
            compilation_options: wgpu::PipelineCompilationOptions { constants: &[], zero_initialize_workgroup_memory: false },
            cache: None,
        });
        (pipeline, layout)
    }
}

/// Names the limit that a kernel exceeds, where the driver would only refuse.
fn check_limits(gpu: &GpuDevice, label: &str, interface: &Interface) -> Result<()> {
    let limits = &gpu.limits;
    let storage = interface.bindings.iter().filter(|b| b.access != Access::Uniform).count();
    let threads: u64 = interface.workgroup_size.iter().map(|&n| u64::from(n)).product();
    let checks = [
        ("storage buffers", storage as u64, u64::from(limits.max_storage_buffers_per_shader_stage)),
        ("threads a workgroup", threads, u64::from(limits.max_compute_invocations_per_workgroup)),
        ("bytes of workgroup memory", u64::from(interface.workgroup_bytes), u64::from(limits.max_compute_workgroup_storage_size)),
    ];
    for (what, needed, limit) in checks {
        if needed > limit {
            return Err(Error::Limit { what: format!("{label}: {what}"), needed, limit });
        }
    }
    if let Some(b) = interface.bindings.iter().find(|b| b.group != 0) {
        return Err(Error::Gpu(format!("{label}: binding `{}` lies in group {}", b.name, b.group)));
    }
    Ok(())
}
