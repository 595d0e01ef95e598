//! The buffers that the shader reads, written where something has changed.

use eframe::wgpu;

use super::{CellsPaint, Params, colours};
use crate::settings::Palette;

/// A buffer that grows, and what it holds.
struct Held {
    buffer: wgpu::Buffer,
    /// Revision and number of entries; `None`: nothing yet.
    holds: Option<(u64, usize)>,
}

impl Held {
    fn new(device: &wgpu::Device, entries: usize, usage: wgpu::BufferUsages) -> Self {
        let buffer = device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("grid of experts"),
            size: 4 * entries.max(4) as u64,
            usage: usage | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        Self { buffer, holds: None }
    }

    /// Writes what `make` gives, unless it is there. Says whether the buffer is another one.
    fn hold(
        &mut self,
        device: &wgpu::Device,
        queue: &wgpu::Queue,
        key: (u64, usize),
        make: impl FnOnce(&mut dyn FnMut(&[u8])),
    ) -> bool {
        if self.holds == Some(key) {
            return false;
        }
        let grows = self.buffer.size() < 4 * key.1 as u64;
        if grows {
            *self = Self::new(device, key.1.next_power_of_two(), wgpu::BufferUsages::STORAGE);
        }
        make(&mut |bytes| queue.write_buffer(&self.buffer, 0, bytes));
        self.holds = Some(key);
        grows
    }
}

/// The buffers of one grid.
pub(super) struct GridBuffers {
    params: (wgpu::Buffer, Option<Params>),
    table: (wgpu::Buffer, Option<Palette>),
    cells: Held,
    noise: Held,
    lookup: Held,
    /// What the pipeline reads.
    pub(super) bind_group: Option<wgpu::BindGroup>,
}

impl GridBuffers {
    /// Empty.
    pub(super) fn new(device: &wgpu::Device) -> Self {
        let uniform = |size: usize| {
            device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("grid of experts"),
                size: size as u64,
                usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            })
        };
        let storage = || Held::new(device, 0, wgpu::BufferUsages::STORAGE);
        Self {
            params: (uniform(size_of::<Params>()), None),
            table: (uniform(4 * colours::TABLE), None),
            cells: storage(),
            noise: storage(),
            lookup: storage(),
            bind_group: None,
        }
    }

    /// Writes what has changed.
    pub(super) fn update(
        &mut self,
        device: &wgpu::Device,
        queue: &wgpu::Queue,
        layout: &wgpu::BindGroupLayout,
        paint: &CellsPaint,
    ) {
        if self.params.1 != Some(paint.params) {
            queue.write_buffer(&self.params.0, 0, bytemuck::bytes_of(&paint.params));
            self.params.1 = Some(paint.params);
        }
        if self.table.1 != Some(paint.palette) {
            queue.write_buffer(&self.table.0, 0, bytemuck::cast_slice(&colours::table(paint.palette)));
            self.table.1 = Some(paint.palette);
        }
        let pixels = &paint.pixels;
        let mut other = self
            .lookup
            .hold(device, queue, (pixels.revision, pixels.lookup.len()), |write| write(bytemuck::cast_slice(&pixels.lookup)));
        let (field, count) = (&paint.field, paint.field.rows * paint.field.columns);
        other |= self.cells.hold(device, queue, (field.revision, count), |write| {
            if field.values.len() == count {
                write(bytemuck::cast_slice(&field.values));
            } else {
                let known = field.values.iter().copied().chain(std::iter::repeat(f32::NAN));
                write(bytemuck::cast_slice(&known.take(count).collect::<Vec<f32>>()));
            }
        });
        if paint.params.flags & 1 != 0 {
            other |= self.noise.hold(device, queue, (field.revision, count.div_ceil(32)), |write| {
                let word = |cells: &[bool]| cells.iter().rev().fold(0u32, |word, noise| (word << 1) | u32::from(*noise));
                write(bytemuck::cast_slice(&field.noise.chunks(32).map(word).collect::<Vec<u32>>()));
            });
        }
        if other || self.bind_group.is_none() {
            let buffers = [&self.params.0, &self.table.0, &self.cells.buffer, &self.noise.buffer, &self.lookup.buffer];
            let entries: [wgpu::BindGroupEntry<'_>; 5] = std::array::from_fn(|binding| wgpu::BindGroupEntry {
                binding: binding as u32,
                resource: buffers[binding].as_entire_binding(),
            });
            self.bind_group = Some(device.create_bind_group(&wgpu::BindGroupDescriptor {
                label: Some("grid of experts"),
                layout,
                entries: &entries,
            }));
        }
    }
}
