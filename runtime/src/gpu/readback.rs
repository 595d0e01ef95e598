//! Reading back: buffers that are mapped once what writes them has run.

use async_channel::Receiver;
use wgpu::{Buffer, BufferUsages, SubmissionIndex};

use super::device::GpuDevice;
use crate::error::Result;

/// Whether a buffer could be mapped, once that is known.
pub(super) type Mapped = Receiver<Result<(), wgpu::BufferAsyncError>>;

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
pub(super) async fn read_mapped(
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
