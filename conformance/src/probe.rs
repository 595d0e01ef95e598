//! Small programs in WGSL: what tests run that are about the language, not about a kernel.

use pleiad_runtime::{Result, gpu::GpuDevice};
use wgpu::{Buffer, BufferUsages};

/// A compiled program whose bindings are storage buffers of group 0.
pub(crate) struct Program {
    label: String,
    pipeline: wgpu::ComputePipeline,
}

/// What browsers want to hear of a program, and naga does not, but for f16. Kernels have said it themselves.
fn header(source: &str) -> String {
    let f16 = source.contains("<f16>") || source.contains("f16(b") || source.contains("f16(a");
    let mut header = String::new();
    if f16 && !source.starts_with("enable") {
        header += "enable f16;\n";
    }
    if cfg!(target_arch = "wasm32") && source.contains("@builtin(subgroup") && !source.starts_with("enable") {
        header += "enable subgroups;\nrequires subgroup_id;\n";
    }
    header
}

impl Program {
    /// Compiles the entry point `main` of `source`, with all the checks that a browser makes.
    pub async fn new(gpu: &GpuDevice, label: &str, source: &str) -> Result<Self> {
        let text = format!("{}{source}", header(source));
        let (device, _) = gpu.wgpu();
        let make = || {
            let source = wgpu::ShaderSource::Wgsl(text.into());
            let module = device.create_shader_module(wgpu::ShaderModuleDescriptor { label: Some(label), source });
            device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: Some(label),
                layout: None,
                module: &module,
                entry_point: Some("main"),
                compilation_options: wgpu::PipelineCompilationOptions::default(),
                cache: None,
            })
        };
        let pipeline = gpu.scoped(label, 0, make).await?;
        Ok(Self { label: label.to_owned(), pipeline })
    }

    /// Binds buffers, or `(buffer, offset, size)` parts of them, by their numbers.
    pub async fn bind(&self, gpu: &GpuDevice, buffers: &[(&Buffer, u64, u64)]) -> Result<wgpu::BindGroup> {
        let entries: Vec<_> = (0..)
            .zip(buffers)
            .map(|(binding, &(buffer, offset, size))| wgpu::BindGroupEntry {
                binding,
                resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                    buffer,
                    offset,
                    size: std::num::NonZeroU64::new(size),
                }),
            })
            .collect();
        let (device, _) = gpu.wgpu();
        let make = || {
            let layout = self.pipeline.get_bind_group_layout(0);
            device.create_bind_group(&wgpu::BindGroupDescriptor { label: Some(&self.label), layout: &layout, entries: &entries })
        };
        gpu.scoped(&self.label, 0, make).await
    }

    /// Records a run of so many workgroups.
    pub fn record(&self, pass: &mut wgpu::ComputePass<'_>, bound: &wgpu::BindGroup, workgroups: [u32; 3]) {
        pass.set_pipeline(&self.pipeline);
        pass.set_bind_group(0, bound, &[]);
        let [x, y, z] = workgroups;
        pass.dispatch_workgroups(x, y, z);
    }

    /// Runs once, on all of the buffers.
    pub async fn run(&self, gpu: &GpuDevice, buffers: &[&Buffer], workgroups: [u32; 3]) -> Result<()> {
        let whole: Vec<_> = buffers.iter().map(|&b| (b, 0, b.size())).collect();
        let bound = self.bind(gpu, &whole).await?;
        let (device, queue) = gpu.wgpu();
        let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some(&self.label) });
        {
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            self.record(&mut pass, &bound, workgroups);
        }
        gpu.scoped(&self.label, 0, || queue.submit([encoder.finish()])).await?;
        Ok(())
    }
}

/// A storage buffer with that in it.
pub(crate) async fn filled(gpu: &GpuDevice, words: &[u32]) -> Result<Buffer> {
    let buffer = empty(gpu, words.len()).await?;
    gpu.wgpu().1.write_buffer(&buffer, 0, bytemuck::cast_slice(words));
    Ok(buffer)
}

/// A storage buffer of so many words, all 0.
pub(crate) async fn empty(gpu: &GpuDevice, words: usize) -> Result<Buffer> {
    let usage = BufferUsages::STORAGE | BufferUsages::COPY_SRC | BufferUsages::COPY_DST;
    gpu.buffer("a probe's data", words as u64 * 4, usage).await
}

/// Runs `expression`, of `x: u32`, `y: u32` and `z: u32` and giving a `u32`, on every row of arguments. `more`: declarations.
pub(crate) async fn map(gpu: &GpuDevice, label: &str, more: &str, expression: &str, rows: &[[u32; 3]]) -> Result<Vec<u32>> {
    const ROW: u32 = 1 << 14;
    let source = format!(
        "@group(0) @binding(0) var<storage, read> arguments: array<u32>;
@group(0) @binding(1) var<storage, read_write> results: array<u32>;
{more}
fn f(x: u32, y: u32, z: u32) -> u32 {{
    return {expression};
}}
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {{
    let i = id.x + id.y * {ROW}u * 64u;
    if (i < arrayLength(&results)) {{
        results[i] = f(arguments[3u * i], arguments[3u * i + 1u], arguments[3u * i + 2u]);
    }}
}}
"
    );
    let program = Program::new(gpu, label, &source).await?;
    let arguments = filled(gpu, bytemuck::cast_slice(rows)).await?;
    let results = empty(gpu, rows.len()).await?;
    let groups = (rows.len() as u32).div_ceil(64);
    program.run(gpu, &[&arguments, &results], [groups.min(ROW), groups.div_ceil(ROW), 1]).await?;
    let words = gpu.read_buffer(&results, rows.len()).await?;
    arguments.destroy();
    results.destroy();
    Ok(words)
}
