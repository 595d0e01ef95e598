//! Reading back: what a step leaves for the host, and buffers for tests and tables.

use async_channel::Receiver;
use wgpu::{Buffer, BufferUsages, SubmissionIndex};

use super::{
    device::GpuDevice,
    exec::{Flight, GpuExecutor, Pending, Stage},
    state::RING_WORDS,
};
use crate::error::{Error, Result};

/// Most bytes read back at a time.
const READ_BYTES: u64 = 64 << 20;

pub(super) type Mapped = Receiver<Result<(), wgpu::BufferAsyncError>>;

/// Where things lie in a buffer that a step is read back by, in words: the ring's slot, `halt`, the record of choices, what the
/// experts of the layers read, the counters.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Layout {
    pub record: usize,
    pub rows: usize,
    pub counters: usize,
}

impl Layout {
    /// Words before the record.
    pub const HEAD: usize = RING_WORDS + 4;

    pub fn words(&self) -> usize {
        Self::HEAD + self.record + self.rows + self.counters
    }
}

impl GpuExecutor {
    /// A free readback buffer.
    pub(super) fn take_slot(&mut self, words: usize) -> Result<Buffer> {
        let bytes = (words * 4) as u64;
        let smallest = (0..self.free.len()).filter(|&i| self.free[i].size() >= bytes).min_by_key(|&i| self.free[i].size());
        match smallest {
            Some(i) => Ok(self.free.swap_remove(i)),
            // Of a chunk: larger than those of single tokens.
            None => self.gpu.buffer_now("readback", bytes, BufferUsages::MAP_READ | BufferUsages::COPY_DST),
        }
    }

    /// Gives up results that nobody fetched in time, the oldest first, until a readback buffer is free.
    pub(super) fn reclaim(&mut self) {
        while self.free.is_empty() {
            let stale = self.pending.iter().position(|p| matches!(&p.stage, Stage::Running(f) if f.slot.is_some()));
            let Some(mut oldest) = stale.and_then(|i| self.pending.remove(i)) else { return };
            self.give_up(&mut oldest);
        }
    }

    /// Takes back the buffer of a step whose result is not wanted.
    pub(super) fn give_up(&mut self, pending: &mut Pending) {
        if let Stage::Running(Flight { slot: Some((buffer, _)), .. }) = std::mem::replace(&mut pending.stage, Stage::Waiting) {
            buffer.unmap();
            self.free.push(buffer);
        }
    }

    /// Fetches what step `i` has read back so far: its words, and where the submission ended.
    pub(super) async fn fetch(&mut self, i: usize) -> Result<(Vec<u32>, Layout, usize)> {
        let Some(p) = self.pending.get_mut(i) else { return Ok((Vec::new(), Layout::default(), 0)) };
        let Stage::Running(flight) = std::mem::replace(&mut p.stage, Stage::Waiting) else {
            return Err(Error::Gpu("a step that was not submitted has no result".into()));
        };
        let Some((buffer, mapped)) = flight.slot else {
            if cfg!(target_arch = "wasm32") {
                self.gpu.idle().await?;
            } else {
                self.gpu.block(Some(flight.submission))?;
            }
            self.gpu.check()?;
            return Ok((Vec::new(), flight.layout, flight.end));
        };
        let bytes = (flight.layout.words() * 4) as u64;
        let words = read_mapped(&self.gpu, &buffer, bytes, &mapped, Some(flight.submission)).await?;
        self.free.push(buffer);
        self.gpu.check()?;
        Ok((words, flight.layout, flight.end))
    }

    /// Reads the first `words` words of `buffer`.
    pub(super) async fn read(&mut self, buffer: &Buffer, words: usize) -> Result<Vec<u32>> {
        let bytes = words as u64 * 4;
        let mut out = Vec::with_capacity(words);
        if bytes == 0 {
            return Ok(out);
        }
        let piece = bytes.min(READ_BYTES);
        let staging = self.gpu.buffer("readback", piece, BufferUsages::MAP_READ | BufferUsages::COPY_DST).await?;
        for at in (0..bytes).step_by(READ_BYTES as usize) {
            let size = piece.min(bytes - at);
            let mut encoder = self.gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some("readback") });
            encoder.copy_buffer_to_buffer(buffer, at, &staging, 0, size);
            let submission = self.gpu.queue.submit([encoder.finish()]);
            self.stats.submissions += 1;
            self.stats.readbacks += 1;
            let mapped = map(&staging, size);
            out.extend(read_mapped(&self.gpu, &staging, size, &mapped, Some(submission)).await?);
        }
        staging.destroy();
        self.gpu.check()?;
        Ok(out)
    }
}

impl GpuDevice {
    /// Reads the first `words` words of a buffer that can be mapped, or copied from.
    ///
    /// # Errors
    ///
    /// A lost device, or whatever error it met first.
    pub async fn read_buffer(&self, buffer: &Buffer, words: usize) -> Result<Vec<u32>> {
        let bytes = words as u64 * 4;
        if bytes == 0 {
            return Ok(Vec::new());
        }
        let mut submission = None;
        let mut staging = None;
        if !buffer.usage().contains(BufferUsages::MAP_READ) {
            let to = self.buffer("readback", bytes, BufferUsages::MAP_READ | BufferUsages::COPY_DST).await?;
            let mut encoder = self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some("readback") });
            encoder.copy_buffer_to_buffer(buffer, 0, &to, 0, bytes);
            submission = Some(self.queue.submit([encoder.finish()]));
            staging = Some(to);
        }
        let from = staging.as_ref().unwrap_or(buffer);
        let mapped = map(from, bytes);
        let words = read_mapped(self, from, bytes, &mapped, submission).await?;
        if let Some(staging) = staging {
            staging.destroy();
        }
        self.check()?;
        Ok(words)
    }
}

/// Starts mapping the first `size` bytes of `buffer`.
pub(super) fn map(buffer: &Buffer, size: u64) -> Mapped {
    let (done, mapped) = async_channel::bounded(1);
    buffer.map_async(wgpu::MapMode::Read, 0..size, move |result| {
        let _ = done.try_send(result);
    });
    mapped
}

/// Waits until `buffer` is mapped, and copies its first `size` bytes out.
async fn read_mapped(
    gpu: &GpuDevice,
    buffer: &Buffer,
    size: u64,
    mapped: &Mapped,
    submission: Option<SubmissionIndex>,
) -> Result<Vec<u32>> {
    if mapped.is_empty() {
        gpu.block(submission)?;
    }
    match mapped.recv().await {
        Ok(Ok(())) => {}
        Ok(Err(e)) => return Err(gpu.failed(&format!("reading back: {e}")).await),
        Err(_) => return Err(gpu.failed("reading back: the device gave no answer").await),
    }
    let words = match buffer.get_mapped_range(0..size) {
        Ok(view) => {
            let mut words = vec![0u32; view.len() / 4];
            bytemuck::cast_slice_mut(&mut words).copy_from_slice(&view);
            words
        }
        Err(e) => return Err(gpu.failed(&format!("reading back: {e}")).await),
    };
    buffer.unmap();
    Ok(words)
}
