//! The grid's pixels: a callback that reads the numbers on the GPU, or a texture where it cannot.
//!
//! [`install`] is called once when the window is made: it says whether the callback can be used, and remembers what egui draws
//! to. [`CellsPaint`] then draws all cells in one call. Buffers belong to a grid, by its id, and are written only where
//! something has changed; the pipeline belongs to the kind of target.

mod buffers;
pub mod texture;

use std::{collections::HashMap, num::NonZeroU64, sync::Arc};

use eframe::{
    egui::{Color32, Context, Id, PaintCallbackInfo},
    egui_wgpu::{CallbackResources, CallbackTrait, RenderState, ScreenDescriptor},
    wgpu,
};

use buffers::GridBuffers;

use super::colours;
use crate::{
    activity::{Field, Scale},
    settings::Palette,
};

/// What egui draws to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// The format of its pixels.
    pub format: wgpu::TextureFormat,
    /// Samples of a pixel.
    pub samples: u32,
}

impl Target {
    fn id() -> Id {
        Id::unique("target of the grid of experts")
    }

    /// What was installed.
    pub fn of(ctx: &Context) -> Option<Self> {
        ctx.data(|data| data.get_temp(Self::id()))
    }
}

/// Storage buffers that the shader reads.
const STORAGE_BUFFERS: u32 = 3;

/// Says whether the grid can be drawn by its callback, and if so lets it. `state` is the renderer of the window that `ctx` draws
/// to, without multisampling and depth, as eframe has it as a rule.
pub fn install(ctx: &Context, state: &RenderState) -> bool {
    let reads = state.adapter.get_downlevel_capabilities().flags.contains(wgpu::DownlevelFlags::FRAGMENT_STORAGE);
    let able = reads && state.device.limits().max_storage_buffers_per_shader_stage >= STORAGE_BUFFERS;
    let target = able.then_some(Target { format: state.target_format, samples: 1 });
    ctx.data_mut(|data| match target {
        Some(target) => {
            data.insert_temp(Target::id(), target);
        }
        None => data.remove::<Target>(Target::id()),
    });
    able
}

/// What the shader is told: `Params` in `grid.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    origin: [i32; 2],
    size: [u32; 2],
    cells: [u32; 2],
    scale: u32,
    flags: u32,
    top: f32,
    chance_share: f32,
    single: [u32; 2],
}

/// Which pixels show which cells: [`super::grid::layout::Axis::lookup`] of columns, then of rows.
#[derive(Clone, Debug)]
pub struct Pixels {
    /// The pixel of the screen that the first entries are for.
    pub origin: [i32; 2],
    /// Columns and rows of pixels.
    pub size: [u32; 2],
    /// An entry for each column, then one for each row.
    pub lookup: Arc<[u32]>,
    /// Differs between lookups that differ.
    pub revision: u64,
}

/// Draws all cells of a grid.
pub struct CellsPaint {
    id: Id,
    target: Target,
    palette: Palette,
    params: Params,
    field: Field,
    pixels: Pixels,
}

impl CellsPaint {
    /// Of the grid `id`. `single`: the colours of dense layers and of shared experts.
    pub fn new(id: Id, target: Target, field: &Field, palette: Palette, pixels: Pixels, single: [Color32; 2]) -> Self {
        let mut flags = 0;
        if field.noise.len() == field.rows * field.columns && !field.noise.is_empty() {
            flags |= 1;
        }
        if target.format.is_srgb() {
            flags |= 2;
        }
        let pack = |c: Color32| u32::from_le_bytes([c.r(), c.g(), c.b(), 0]);
        let params = Params {
            origin: pixels.origin,
            size: pixels.size,
            cells: [field.columns as u32, field.rows as u32],
            scale: match field.scale {
                Scale::Linear { .. } => 0,
                Scale::Log { .. } => 1,
                Scale::Ratio { .. } => 2,
                Scale::Signed { .. } => 3,
                Scale::Homes => 4,
            },
            flags,
            top: colours::top_of(field.scale),
            chance_share: colours::CHANCE_SHARE,
            single: [pack(single[0]), pack(single[1])],
        };
        Self { id, target, palette, params, field: field.clone(), pixels }
    }
}

/// Grids whose buffers are kept: more are never seen at once.
const KEPT: usize = 16;

/// What is kept between frames in egui's renderer.
struct Kept {
    layout: wgpu::BindGroupLayout,
    module: wgpu::ShaderModule,
    pipelines: HashMap<Target, wgpu::RenderPipeline>,
    grids: HashMap<Id, GridBuffers>,
}

impl Kept {
    fn new(device: &wgpu::Device) -> Self {
        let uniform = |size: usize| (wgpu::BufferBindingType::Uniform, size);
        let storage = (wgpu::BufferBindingType::Storage { read_only: true }, 4);
        let kinds = [uniform(size_of::<Params>()), uniform(4 * colours::TABLE), storage, storage, storage];
        let entries: [wgpu::BindGroupLayoutEntry; 5] = std::array::from_fn(|binding| wgpu::BindGroupLayoutEntry {
            binding: binding as u32,
            visibility: wgpu::ShaderStages::FRAGMENT,
            ty: wgpu::BindingType::Buffer {
                ty: kinds[binding].0,
                has_dynamic_offset: false,
                min_binding_size: NonZeroU64::new(kinds[binding].1 as u64),
            },
            count: None,
        });
        let layout = device
            .create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: Some("grid of experts"), entries: &entries });
        let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
            label: Some("grid of experts"),
            source: wgpu::ShaderSource::Wgsl(include_str!("grid.wgsl").into()),
        });
        Self { layout, module, pipelines: HashMap::new(), grids: HashMap::new() }
    }

    fn pipeline(&self, device: &wgpu::Device, target: Target) -> wgpu::RenderPipeline {
        let layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: Some("grid of experts"),
            bind_group_layouts: &[Some(&self.layout)],
            immediate_size: 0,
        });
        device.create_render_pipeline(&wgpu::RenderPipelineDescriptor {
            label: Some("grid of experts"),
            layout: Some(&layout),
            vertex: wgpu::VertexState {
                module: &self.module,
                entry_point: Some("cover"),
                compilation_options: wgpu::PipelineCompilationOptions::default(),
                buffers: &[],
            },
            primitive: wgpu::PrimitiveState::default(),
            depth_stencil: None,
            multisample: wgpu::MultisampleState { count: target.samples.max(1), ..Default::default() },
            fragment: Some(wgpu::FragmentState {
                module: &self.module,
                entry_point: Some("colour"),
                compilation_options: wgpu::PipelineCompilationOptions::default(),
                targets: &[Some(target.format.into())],
            }),
            multiview_mask: None,
            cache: None,
        })
    }
}

impl CallbackTrait for CellsPaint {
    fn prepare(
        &self,
        device: &wgpu::Device,
        queue: &wgpu::Queue,
        _screen: &ScreenDescriptor,
        _encoder: &mut wgpu::CommandEncoder,
        resources: &mut CallbackResources,
    ) -> Vec<wgpu::CommandBuffer> {
        if !resources.contains::<Kept>() {
            resources.insert(Kept::new(device));
        }
        if let Some(kept) = resources.get_mut::<Kept>() {
            if !kept.pipelines.contains_key(&self.target) {
                let pipeline = kept.pipeline(device, self.target);
                kept.pipelines.insert(self.target, pipeline);
            }
            if kept.grids.len() >= KEPT && !kept.grids.contains_key(&self.id) {
                kept.grids.clear();
            }
            let grid = kept.grids.entry(self.id).or_insert_with(|| GridBuffers::new(device));
            grid.update(device, queue, &kept.layout, self);
        }
        Vec::new()
    }

    /// egui has set a viewport that is clamped to the screen: the triangle fills it whatever it is, and the shader goes by
    /// pixels of the screen, so that cells stay where they are when the grid is partly scrolled away.
    fn paint(&self, _info: PaintCallbackInfo, pass: &mut wgpu::RenderPass<'static>, resources: &CallbackResources) {
        let Some(kept) = resources.get::<Kept>() else { return };
        let bind_group = kept.grids.get(&self.id).and_then(|grid| grid.bind_group.as_ref());
        if let (Some(pipeline), Some(bind_group)) = (kept.pipelines.get(&self.target), bind_group) {
            pass.set_pipeline(pipeline);
            pass.set_bind_group(0, bind_group, &[]);
            pass.draw(0..3, 0..1);
        }
    }
}
