//! A model's weights on a GPU, in the packed layout of [`pleiad_models::blocks`].
//!
//! A matrix is cut into slabs of whole rows (of whole matrices where it is a stack) that fit one binding each. An expert is one
//! blob ([`BlobLayout`]) in a slot; consecutive slots of a layer share slabs. Where a layer has a slot for every expert, expert
//! e lives in slot e; else the host decides who lives where. Rows are packed from the mapped file, or from parts of one that are
//! read as they are needed, into chunks of a few MiB, never more at a time.

use std::sync::Arc;

use pleiad_models::{
    Format, Tensor,
    blocks::packed_row_bytes,
    format::F8_BLOCK,
    weights::{ExpertPart, Experts},
};
use wgpu::{Buffer, BufferUsages};

use super::device::GpuDevice;
use crate::{
    error::{Error, Result},
    experts::{
        bank::{BlobLayout, HostBank, PACKED_ROWS},
        residency::Residency,
    },
    model::Model,
};

/// Bytes packed at a time.
const CHUNK: usize = 4 << 20;
/// Bytes written between submissions, so that staging memory is given back.
const FLUSH: u64 = 32 << 20;
/// Alignment of vectors in their shared buffer: the strictest that WebGPU asks of a binding's offset.
const BINDING_ALIGN: usize = 256;

/// Consecutive rows of a matrix in a buffer of their own.
#[derive(Debug)]
pub(crate) struct Slab {
    pub buffer: Buffer,
    /// First row, counted over the whole stack.
    pub first: usize,
    /// Rows.
    pub rows: usize,
}

/// A matrix or stack of matrices on the device.
#[derive(Debug)]
pub(crate) struct GpuMatrix {
    pub format: Format,
    /// Matrices in the stack.
    pub count: usize,
    /// Rows of one matrix.
    pub rows: usize,
    pub cols: usize,
    /// Words of a packed row.
    pub row_words: usize,
    pub slabs: Vec<Slab>,
}

/// Where one of an expert's matrices lies in the blob.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    pub format: Format,
    pub rows: usize,
    pub cols: usize,
    /// Words of a packed row.
    pub row_words: usize,
    /// Word offset in the blob.
    pub offset: usize,
}

/// The routed experts of one layer on the device.
#[derive(Debug)]
pub(crate) struct GpuBank {
    /// Slots, over all slabs.
    pub slots: usize,
    pub gate: Part,
    pub up: Part,
    pub down: Part,
    /// Words from blob to blob.
    pub blob_words: usize,
    /// `first` and `rows` count slots.
    pub slabs: Vec<Slab>,
}

impl GpuBank {
    /// The slab of a slot, and the slot's first byte in it.
    pub fn place(&self, slot: u32) -> Option<(&Slab, u64)> {
        let slab = self.slabs.iter().find(|s| (s.first..s.first + s.rows).contains(&(slot as usize)))?;
        Some((slab, ((slot as usize - slab.first) * self.blob_words * 4) as u64))
    }
}

/// A vector's place in the shared buffer, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct VectorPlace {
    pub offset: u64,
    pub size: u64,
}

/// All weights of a model on a device.
#[derive(Debug)]
pub(crate) struct GpuWeights {
    pub mats: Vec<GpuMatrix>,
    /// Those of the decoder layers, then those of the module that drafts.
    pub banks: Vec<GpuBank>,
    pub vectors: Buffer,
    pub vector_places: Vec<VectorPlace>,
    /// Bytes on the device.
    pub bytes: u64,
}

const PARTS: [ExpertPart; 3] = [ExpertPart::Gate, ExpertPart::Up, ExpertPart::Down];

/// Rows a slab may have: as many multiples of `unit` as a binding of `limit` bytes holds.
fn slab_rows(what: &str, row_bytes: usize, unit: usize, limit: u64) -> Result<usize> {
    let least = (row_bytes * unit) as u64;
    if least > limit {
        return Err(Error::Limit { what: format!("{what}: bytes of one GPU binding"), needed: least, limit });
    }
    Ok((limit / least.max(1)).min(u64::from(u32::MAX) / unit as u64) as usize * unit)
}

/// Consecutive rows of a tensor's stack; of F8 `first` is a multiple of 128.
#[derive(Clone, Copy)]
struct Span<'a> {
    tensor: &'a Tensor,
    first: usize,
    rows: usize,
}

/// Copies packed rows to the device in chunks.
struct Uploader<'a> {
    gpu: &'a GpuDevice,
    scratch: Vec<u8>,
    since_flush: u64,
    previous: Option<wgpu::SubmissionIndex>,
    done: u64,
    total: u64,
    progress: &'a mut dyn FnMut(u64, u64),
}

impl Uploader<'_> {
    /// Packs rows to `buffer` from byte `offset` on, and zeros up to `padded` bytes.
    async fn rows(&mut self, buffer: &Buffer, offset: u64, span: Span<'_>, padded: usize) -> Result<()> {
        let Span { tensor, rows: all, .. } = span;
        let row_bytes = packed_row_bytes(tensor.format, tensor.cols);
        let unit = if tensor.format == Format::F8E4M3 { F8_BLOCK } else { 1 };
        let step = (CHUNK / row_bytes.max(1)).max(1).next_multiple_of(unit);
        for first in (0..all).step_by(step) {
            let rows = step.min(all - first);
            let bytes = rows * row_bytes;
            let last = first + rows == all;
            self.scratch.clear();
            self.scratch.resize(if last { padded - first * row_bytes } else { bytes }, 0);
            if let Some(out) = self.scratch.get_mut(..bytes) {
                tensor.part(span.first + first, rows)?.matrix().pack(out);
            }
            self.gpu.queue.write_buffer(buffer, offset + (first * row_bytes) as u64, &self.scratch);
            self.count(self.scratch.len() as u64).await?;
        }
        Ok(())
    }

    /// Counts written bytes; now and then lets the device catch up.
    async fn count(&mut self, bytes: u64) -> Result<()> {
        self.done += bytes;
        self.since_flush += bytes;
        (self.progress)(self.done.min(self.total), self.total);
        if self.since_flush >= FLUSH {
            self.since_flush = 0;
            let index = self.gpu.queue.submit([]);
            if cfg!(target_arch = "wasm32") {
                self.gpu.idle().await?;
                self.gpu.settled().await?;
            } else if let Some(previous) = self.previous.replace(index) {
                self.gpu.block(Some(previous))?;
            }
            self.gpu.check()?;
        }
        Ok(())
    }
}

impl GpuWeights {
    /// Uploads the weights of `model`, and of its experts those that `residency` has in slots. Layers with fewer slots than
    /// experts take them from `host`. `progress` is called with bytes done and in all.
    pub async fn load(
        gpu: &Arc<GpuDevice>,
        model: &Model,
        residency: &Residency,
        host: Option<&mut HostBank>,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self> {
        let packed = |t: &Tensor| (t.count * t.rows * packed_row_bytes(t.format, t.cols)) as u64;
        let slots = |(b, bank): (usize, &Experts)| (residency.slots(b) * BlobLayout::of(bank, PACKED_ROWS).stride) as u64;
        let module = model.mtp_bank();
        let total = model.mats.iter().map(packed).sum::<u64>()
            + model.banks.iter().enumerate().map(slots).sum::<u64>()
            + module.map_or(0, |bank| (bank.len() * BlobLayout::of(bank, PACKED_ROWS).stride) as u64);
        let mut host = host;
        let (scratch, since_flush, previous, done) = (Vec::with_capacity(CHUNK + BINDING_ALIGN), 0, None, 0);
        let mut up = Uploader { gpu, scratch, since_flush, previous, done, total, progress };
        (up.progress)(0, total);

        let (vectors, vector_places) = upload_vectors(gpu, &model.vecs).await?;
        let mut mats = Vec::with_capacity(model.mats.len());
        for tensor in &model.mats {
            mats.push(upload_matrix(gpu, &mut up, tensor).await?);
        }
        let mut banks = Vec::with_capacity(model.banks.len());
        for (b, experts) in model.banks.iter().enumerate() {
            let bank = make_bank(gpu, experts, residency.slots(b)).await?;
            match host.as_deref_mut().filter(|_| residency.is_partial(b)) {
                Some(host) => fill_slots(&mut up, &bank, b, residency, host).await?,
                None => fill_bank(&mut up, &bank, experts).await?,
            }
            banks.push(bank);
        }
        if let Some(experts) = module {
            let bank = make_bank(gpu, experts, experts.len()).await?;
            fill_bank(&mut up, &bank, experts).await?;
            banks.push(bank);
        }
        let bytes = up.done + vectors.size();
        (up.progress)(total, total);
        gpu.queue.submit([]);
        gpu.idle().await?;
        gpu.settled().await?;
        Ok(Self { mats, banks, vectors, vector_places, bytes })
    }
}

/// Buffers that only kernels read.
fn weight_usage() -> BufferUsages {
    BufferUsages::STORAGE | BufferUsages::COPY_DST
}

async fn upload_vectors(gpu: &GpuDevice, vecs: &[Vec<f32>]) -> Result<(Buffer, Vec<VectorPlace>)> {
    let mut places = Vec::with_capacity(vecs.len());
    let mut bytes = Vec::new();
    for v in vecs {
        let data: &[u8] = bytemuck::cast_slice(v);
        places.push(VectorPlace { offset: bytes.len() as u64, size: data.len().max(4) as u64 });
        bytes.extend_from_slice(data);
        bytes.resize((bytes.len() + 1).next_multiple_of(BINDING_ALIGN), 0);
    }
    let buffer = gpu.buffer("norms and biases", bytes.len() as u64, weight_usage()).await?;
    if !bytes.is_empty() {
        gpu.queue.write_buffer(&buffer, 0, &bytes);
    }
    Ok((buffer, places))
}

async fn upload_matrix(gpu: &GpuDevice, up: &mut Uploader<'_>, t: &Tensor) -> Result<GpuMatrix> {
    if t.format == Format::F8E4M3 && t.count > 1 {
        return Err(Error::Gpu(format!("{}: a stack of FP8 matrices", t.name)));
    }
    let row_bytes = packed_row_bytes(t.format, t.cols);
    let unit = match t.format {
        Format::F8E4M3 => F8_BLOCK.min(t.rows.max(1)),
        _ if t.count > 1 => t.rows.max(1),
        _ => 1,
    };
    let step = slab_rows(&t.name, row_bytes, unit, gpu.max_slab())?;
    let all = t.count * t.rows;
    let mut slabs = Vec::new();
    for first in (0..all).step_by(step) {
        let rows = step.min(all - first);
        let bytes = rows * row_bytes;
        let buffer = gpu.buffer(&t.name, bytes as u64, weight_usage()).await?;
        up.rows(&buffer, 0, Span { tensor: t, first, rows }, bytes).await?;
        slabs.push(Slab { buffer, first, rows });
    }
    Ok(GpuMatrix { format: t.format, count: t.count, rows: t.rows, cols: t.cols, row_words: row_bytes / 4, slabs })
}

/// The slabs of a layer's slots.
async fn make_bank(gpu: &GpuDevice, experts: &Experts, slots: usize) -> Result<GpuBank> {
    let layout = BlobLayout::of(experts, PACKED_ROWS);
    let name = &experts.first(ExpertPart::Gate).name;
    let step = slab_rows(&format!("an expert of {name}"), layout.stride, 1, gpu.max_slab())?;
    let mut slabs = Vec::new();
    for first in (0..slots).step_by(step) {
        let rows = step.min(slots - first);
        let what = format!("slots {first}..{} of {name}", first + rows);
        let buffer = gpu.slab(&what, (rows * layout.stride) as u64, weight_usage()).await?;
        slabs.push(Slab { buffer, first, rows });
    }
    let [gate, up, down] = [0, 1, 2].map(|i| {
        let t = experts.first(PARTS[i]);
        let row_words = packed_row_bytes(t.format, t.cols) / 4;
        Part { format: t.format, rows: t.rows, cols: t.cols, row_words, offset: layout.offsets[i] / 4 }
    });
    Ok(GpuBank { slots, gate, up, down, blob_words: layout.stride / 4, slabs })
}

/// Packs every expert into its own slot.
async fn fill_bank(up: &mut Uploader<'_>, bank: &GpuBank, experts: &Experts) -> Result<()> {
    let layout = BlobLayout::of(experts, PACKED_ROWS);
    for slab in &bank.slabs {
        for local in 0..slab.rows {
            for (i, part) in PARTS.into_iter().enumerate() {
                let end = layout.offsets.get(i + 1).copied().unwrap_or(layout.stride);
                let at = local * layout.stride + layout.offsets[i];
                let (tensor, first) = experts.place(slab.first + local, part);
                let span = Span { tensor, first, rows: tensor.rows };
                up.rows(&slab.buffer, at as u64, span, end - layout.offsets[i]).await?;
            }
        }
    }
    Ok(())
}

/// Copies those who live in slots from the host's bank.
async fn fill_slots(up: &mut Uploader<'_>, bank: &GpuBank, b: usize, residency: &Residency, host: &mut HostBank) -> Result<()> {
    for slot in 0..bank.slots as u32 {
        let (Some(expert), Some((slab, at))) = (residency.owner(b, slot), bank.place(slot)) else { continue };
        let mut bytes = 0;
        host.blob(b, expert, &mut |offset, data| {
            up.gpu.queue.write_buffer(&slab.buffer, at + offset as u64, data);
            bytes += data.len() as u64;
            Ok(())
        })?;
        up.count(bytes).await?;
    }
    Ok(())
}

/// A copy of a layer's experts, in order, in host memory that kernels can read.
pub(crate) async fn host_visible(
    gpu: &Arc<GpuDevice>,
    model: &Model,
    b: usize,
    host: &mut HostBank,
    progress: &mut dyn FnMut(u64),
) -> Result<Vec<Slab>> {
    let (stride, experts) = (host.layout(b).stride, model.banks[b].len());
    let step = slab_rows("an expert in host memory", stride, 1, gpu.max_slab())?;
    let mut ignore = |_, _| {};
    let mut up = Uploader {
        gpu,
        scratch: Vec::new(),
        since_flush: 0,
        previous: None,
        done: 0,
        total: (experts * stride) as u64,
        progress: &mut ignore,
    };
    let usage = weight_usage() | BufferUsages::MAP_READ;
    let mut slabs = Vec::new();
    for first in (0..experts).step_by(step) {
        let rows = step.min(experts - first);
        let buffer = gpu.slab(&format!("host's experts {first}..{}", first + rows), (rows * stride) as u64, usage).await?;
        for local in 0..rows {
            host.blob(b, (first + local) as u16, &mut |offset, data| {
                gpu.queue.write_buffer(&buffer, (local * stride + offset) as u64, data);
                Ok(())
            })?;
            up.count(stride as u64).await?;
            progress(stride as u64);
        }
        slabs.push(Slab { buffer, first, rows });
    }
    Ok(slabs)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

    use super::*;

    #[test]
    fn slabs_fit_the_binding() {
        assert_eq!(slab_rows("w", 100, 1, 1000).unwrap(), 10);
        assert_eq!(slab_rows("w", 100, 4, 1000).unwrap(), 8);
        let error = slab_rows("w", 100, 11, 1000).unwrap_err().to_string();
        assert!(error.contains("1100") && error.contains("1000") && error.contains('w'), "{error}");
    }
}
