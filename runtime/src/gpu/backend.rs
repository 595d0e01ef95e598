//! wgpu as steps see it: one compute pass and one submission for each part of a step, results by buffers that are mapped.

use std::sync::Arc;

use wgpu::{Buffer, BufferUsages, CommandEncoder, DeviceType, SubmissionIndex};

use super::{
    device::GpuDevice,
    lower::{self, Dispatch},
    readback::{Mapped, map, read_mapped},
    state::GpuState,
};
use crate::{
    cpu::available_memory,
    error::{Error, Result},
    executor::{DeviceStats, LoadOptions},
    experts::{
        bank::{HostBank, PACKED_ROWS},
        residency::Residency,
    },
    model::Model,
    plan::Plan,
    steps::{Backend, Lowered, Part, Prepared, Shared, Span, StepShape, select},
};

/// Share of the host's available memory that an integrated GPU may take: it is the same memory.
const SHARED_MEMORY: f64 = 0.75;
/// Most bytes read back at a time.
const READ_BYTES: u64 = 64 << 20;

/// A model on a device of wgpu's.
pub struct Wgpu {
    pub(super) gpu: Arc<GpuDevice>,
    pub(super) state: GpuState,
    shared: Shared<Buffer>,
    /// Buffers to read back by.
    free: Vec<Buffer>,
}

/// Work under way.
pub struct Flight {
    submission: SubmissionIndex,
    /// Where its result goes, and the bytes of that.
    result: Option<(Buffer, Mapped, u64)>,
}

impl Wgpu {
    /// A free readback buffer.
    fn take_slot(&mut self, bytes: u64) -> Result<Buffer> {
        let smallest = (0..self.free.len()).filter(|&i| self.free[i].size() >= bytes).min_by_key(|&i| self.free[i].size());
        match smallest {
            Some(i) => Ok(self.free.swap_remove(i)),
            // Of a chunk: larger than those of single tokens.
            None => self.gpu.buffer_now("readback", bytes, BufferUsages::MAP_READ | BufferUsages::COPY_DST),
        }
    }

    fn encoder(&self, label: &'static str) -> CommandEncoder {
        self.gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some(label) })
    }
}

/// Encodes a part of a plan; returns the number of dispatches.
fn encode(plan: &Prepared<Wgpu>, pass: &mut wgpu::ComputePass<'_>, part: &Part, shape: StepShape) -> u64 {
    let mut count = 0;
    let mut current = None;
    for (d, [x, y, z]) in select(&plan.dispatches, &plan.mixtures, part, shape) {
        if !current.is_some_and(|c| Arc::ptr_eq(c, &d.pipeline)) {
            pass.set_pipeline(&d.pipeline.pipeline);
            current = Some(&d.pipeline);
        }
        pass.set_bind_group(0, &d.bind_group, &[d.params]);
        pass.dispatch_workgroups(x, y, z);
        count += 1;
    }
    count
}

impl Backend for Wgpu {
    type Device = Arc<GpuDevice>;
    type Buffer = Buffer;
    type Dispatches = Vec<Dispatch>;
    type Fetch = Flight;

    const ROW_ALIGN: usize = PACKED_ROWS;
    const ASIDE: bool = false;

    fn name(&self) -> String {
        self.gpu.name()
    }

    fn room(device: &Self::Device, _model: &Model, _options: &LoadOptions) -> Option<u64> {
        let integrated = device.adapter.kind == DeviceType::IntegratedGpu;
        integrated.then(available_memory).flatten().map(|bytes| (bytes as f64 * SHARED_MEMORY) as u64)
    }

    async fn load(
        device: &Self::Device,
        model: Arc<Model>,
        options: &LoadOptions,
        residency: &Residency,
        host: Option<&mut HostBank>,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self> {
        let state = GpuState::load(device, model, options, residency, host, progress).await?;
        device.settled().await?;
        Ok(Self { gpu: Arc::clone(device), shared: state.shared(), state, free: Vec::new() })
    }

    fn mark(device: &Self::Device) -> usize {
        device.kept()
    }

    async fn free_after(device: &Self::Device, mark: usize) -> Result<()> {
        // What was refused has been freed; some of it at the next poll.
        device.free_after(mark);
        // The first error was enough.
        let _ = device.settled().await;
        device.idle().await
    }

    fn shared(&self) -> &Shared<Buffer> {
        &self.shared
    }

    fn reads_host(&self) -> bool {
        self.gpu.host_visible
    }

    async fn make_sources(&mut self, host: &mut HostBank, progress: &mut dyn FnMut(u64)) -> Result<()> {
        let Some(slots) = &mut self.state.slots else { return Ok(()) };
        slots.make_sources(&self.gpu, &self.state.model, host, progress).await
    }

    async fn expect(&mut self, results: usize, words: usize) -> Result<()> {
        for _ in 0..results {
            let usage = BufferUsages::MAP_READ | BufferUsages::COPY_DST;
            self.free.push(self.gpu.buffer("readback", (words * 4) as u64, usage).await?);
        }
        self.gpu.settled().await
    }

    fn lower(&mut self, plan: &Plan) -> Result<Lowered<Self>> {
        lower::lower(&self.gpu, &self.state, plan)
    }

    fn check(&mut self) -> Result<()> {
        self.gpu.check()
    }

    fn write(&mut self, buffer: &Buffer, offset: u64, words: &[u32]) {
        self.gpu.queue.write_buffer(buffer, offset, bytemuck::cast_slice(words));
    }

    fn write_slot(&mut self, bank: usize, slot: u32, offset: usize, data: &[u8], _aside: bool) -> Result<()> {
        let Some((slab, at)) = self.state.weights.banks.get(bank).and_then(|b| b.place(slot)) else {
            return Err(Error::Invalid(format!("there is no slot {slot} in bank {bank}")));
        };
        self.gpu.write_slot(&slab.buffer, at + offset as u64, data)
    }

    fn join(&mut self) -> Result<()> {
        // All of it is done in order.
        Ok(())
    }

    fn submit(
        &mut self,
        plan: &mut Prepared<Self>,
        parts: &[Part],
        shape: StepShape,
        result: &[Span<Buffer>],
    ) -> Result<(Flight, u64)> {
        let bytes = result.iter().map(|s| (s.words * 4) as u64).sum();
        let slot = if bytes > 0 { Some(self.take_slot(bytes)?) } else { None };
        let mut encoder = self.encoder("step");
        let mut dispatches = 0;
        {
            let mut pass =
                encoder.begin_compute_pass(&wgpu::ComputePassDescriptor { label: Some("step"), timestamp_writes: None });
            for part in parts {
                dispatches += encode(plan, &mut pass, part, shape);
            }
        }
        if let Some(slot) = &slot {
            let mut at = 0;
            for span in result {
                let bytes = (span.words * 4) as u64;
                encoder.copy_buffer_to_buffer(&span.buffer, span.offset, slot, at, bytes);
                at += bytes;
            }
        }
        let submission = self.gpu.queue.submit([encoder.finish()]);
        let result = slot.map(|buffer| {
            let mapped = map(&buffer, bytes);
            (buffer, mapped, bytes)
        });
        Ok((Flight { submission, result }, dispatches))
    }

    async fn fetched(&mut self, flight: Flight) -> Result<Vec<u32>> {
        let words = match flight.result {
            Some((buffer, mapped, bytes)) => {
                let words = read_mapped(&self.gpu, &buffer, bytes, &mapped, Some(flight.submission)).await?;
                self.free.push(buffer);
                words
            }
            None if cfg!(target_arch = "wasm32") => {
                self.gpu.idle().await?;
                Vec::new()
            }
            None => {
                self.gpu.block(Some(flight.submission))?;
                Vec::new()
            }
        };
        self.gpu.check()?;
        Ok(words)
    }

    fn forget(&mut self, flight: Flight) {
        if let Some((buffer, ..)) = flight.result {
            buffer.unmap();
            self.free.push(buffer);
        }
    }

    async fn read(&mut self, buffer: &Buffer, words: usize, stats: &mut DeviceStats) -> Result<Vec<u32>> {
        let bytes = words as u64 * 4;
        let mut out = Vec::with_capacity(words);
        let piece = bytes.min(READ_BYTES);
        let staging = self.gpu.buffer("readback", piece, BufferUsages::MAP_READ | BufferUsages::COPY_DST).await?;
        for at in (0..bytes).step_by(READ_BYTES as usize) {
            let size = piece.min(bytes - at);
            let mut encoder = self.encoder("readback");
            encoder.copy_buffer_to_buffer(buffer, at, &staging, 0, size);
            let submission = self.gpu.queue.submit([encoder.finish()]);
            stats.submissions += 1;
            stats.readbacks += 1;
            let mapped = map(&staging, size);
            out.extend(read_mapped(&self.gpu, &staging, size, &mapped, Some(submission)).await?);
        }
        staging.destroy();
        self.gpu.check()?;
        Ok(out)
    }

    async fn idle(&mut self) -> Result<()> {
        self.gpu.idle().await
    }
}
