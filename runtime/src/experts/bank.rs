//! The host's packed experts: the bytes that a slot of the device holds.
//!
//! A slot takes an expert's gate, up and down matrices in the packed layout of [`pleiad_models::blocks`], each at its place in a
//! [`BlobLayout`]. For some formats a packed row is the row as the checkpoint stores it, so those matrices are handed out from
//! the mapped file and kept nowhere else. Only the others need a home: a file that is packed once and mapped from then on,
//! memory, or none, where they are packed at every use. Of a checkpoint that is read in ranges all parts need one; where they
//! have none, an expert is read a few MiB at a time, and those used last are kept.

#[cfg(not(target_arch = "wasm32"))]
mod file;
mod fingerprint;
mod layout;
mod parallel;
mod recent;
#[cfg(not(target_arch = "wasm32"))]
pub(super) mod temporary;
#[cfg(test)]
pub(super) mod tests;

use std::{io, path::Path, sync::Arc};

use pleiad_models::{format::F8_BLOCK, weights::Experts};
use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, Result},
    model::Model,
};
use layout::PARTS;
use recent::Recent;

pub use fingerprint::fingerprint;
pub use layout::{BlobLayout, PACKED_ROWS};
pub(crate) use layout::{pack_rows, row_stride};

/// Bytes of an expert that are read and packed at a time.
const CHUNK: usize = 4 << 20;
/// Bytes of experts that are kept of those read last. Together with what reading and packing takes, a worker in a browser stays
/// within tens of MiB.
const RECENT: usize = 24 << 20;

/// Where packed experts come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BankKind {
    /// They are read from the checkpoint as it lies.
    Checkpoint,
    /// What had to be packed lies in a file, mapped.
    File,
    /// What had to be packed lies in memory.
    Memory,
    /// What has to be packed is packed at every use.
    OnTheFly,
}

/// The packed experts of a model. See the [module](self).
pub struct HostBank {
    model: Arc<Model>,
    banks: Vec<Layouts>,
    /// Rows begin at multiples of so many bytes.
    #[cfg_attr(target_arch = "wasm32", expect(dead_code, reason = "only files of packed experts say it"))]
    row_align: usize,
    store: Store,
    /// One expert, or a part of one, packed on the fly.
    scratch: Vec<u8>,
    /// Experts of a checkpoint that is read in ranges.
    recent: Recent,
    kind: BankKind,
    bytes: u64,
    notice: Option<String>,
}

/// How a layer's experts are laid out.
#[derive(Clone, Copy)]
struct Layouts {
    /// In a slot.
    blob: BlobLayout,
    /// In the store: only what the checkpoint does not hold as it is. Other parts are empty.
    record: BlobLayout,
}

impl Layouts {
    fn of(experts: &Experts, row_align: usize) -> Self {
        Self { blob: BlobLayout::of(experts, row_align), record: BlobLayout::record_of(experts, row_align) }
    }
}

/// Where records live.
enum Store {
    Nothing,
    /// The records of each bank, one after another; empty for banks that have none.
    Memory(Vec<Vec<u8>>),
    #[cfg(not(target_arch = "wasm32"))]
    File(file::BankFile),
}

impl HostBank {
    /// Prepares the experts of the banks for which `partial` is true. `directory` is where packed experts are kept between
    /// runs, as `<fingerprint>.bank`. Without one, and where the disk refuses, they are packed into memory if they take at most
    /// a third of what is available, else at every use. `progress` is called with bytes packed and bytes in all: not at all if
    /// nothing is packed ahead, from the start again if the disk refused half-way.
    ///
    /// # Errors
    ///
    /// Where the checkpoint cannot be read. Whatever else goes wrong has a fallback, and a [`notice`](Self::notice).
    pub fn open(
        model: &Arc<Model>,
        partial: &[bool],
        directory: Option<&Path>,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self> {
        Self::open_aligned(model, partial, directory, PACKED_ROWS, progress)
    }

    /// [`open`](Self::open), for a device whose rows begin at multiples of `row_align` bytes.
    ///
    /// # Errors
    ///
    /// Those of `open`.
    pub fn open_aligned(
        model: &Arc<Model>,
        partial: &[bool],
        directory: Option<&Path>,
        row_align: usize,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self> {
        Self::within(Self::keeping_nothing(model, row_align), partial, directory, memory_limit(), progress)
    }

    /// Keeps nothing: what the checkpoint does not hold as it is gets packed at every use.
    pub fn on_the_fly(model: &Arc<Model>) -> Self {
        Self::keeping_nothing(model, PACKED_ROWS)
    }

    fn keeping_nothing(model: &Arc<Model>, row_align: usize) -> Self {
        let banks: Vec<Layouts> = model.banks.iter().map(|experts| Layouts::of(experts, row_align)).collect();
        let kind = if banks.iter().all(|b| b.record.stride == 0) { BankKind::Checkpoint } else { BankKind::OnTheFly };
        Self {
            model: Arc::clone(model),
            banks,
            row_align,
            store: Store::Nothing,
            scratch: Vec::new(),
            recent: Recent::new(RECENT),
            kind,
            bytes: 0,
            notice: None,
        }
    }

    /// Gives what is partial a home, with at most `limit` bytes of memory.
    fn within(
        mut bank: Self,
        partial: &[bool],
        directory: Option<&Path>,
        limit: u64,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self> {
        let model = &Arc::clone(&bank.model);
        let needed: Vec<usize> = (0..bank.banks.len())
            .filter(|&b| partial.get(b).copied().unwrap_or(false) && bank.banks[b].record.stride > 0)
            .collect();
        if needed.is_empty() {
            bank.kind = BankKind::Checkpoint;
            return Ok(bank);
        }
        let bytes = needed.iter().map(|&b| (bank.banks[b].record.stride as u64) * model.banks[b].len() as u64).sum();

        #[cfg(not(target_arch = "wasm32"))]
        let refused = match directory.map(|d| file::open_or_build(model, bank.row_align, &needed, d, progress)) {
            Some(Ok((file, notice))) => {
                return Ok(Self { kind: BankKind::File, bytes: file.bytes(), store: Store::File(file), notice, ..bank });
            }
            Some(Err(reason)) => format!("packed experts cannot be kept on disk ({reason})"),
            None => "there is no directory for packed experts".to_owned(),
        };
        #[cfg(target_arch = "wasm32")]
        let refused = {
            let _ = directory;
            "there is no disk here".to_owned()
        };

        let mib = |bytes: u64| bytes.div_ceil(1 << 20);
        let why = if bytes > limit {
            format!("{} MiB of memory would be needed, of which they may take {}", mib(bytes), limit >> 20)
        } else {
            match pack_to_memory(model, &bank.banks, &needed, bytes, progress) {
                Ok(memory) => {
                    // Without a directory this is what was asked for: nothing to tell.
                    let notice = directory.map(|_| format!("{refused}; they take {} MiB of memory", mib(bytes)));
                    return Ok(Self { kind: BankKind::Memory, bytes, store: Store::Memory(memory), notice, ..bank });
                }
                Err(e) => match e.downcast::<pleiad_models::Error>() {
                    Ok(unreadable) => return Err(unreadable.into()),
                    Err(e) => format!("{} MiB of memory cannot be used: {e}", mib(bytes)),
                },
            }
        };
        bank.notice = Some(format!("{refused}, and {why}: experts are packed at every use"));
        Ok(bank)
    }

    /// Calls `put(offset_in_blob, bytes)` for the parts of the expert's packed blob: once with the whole blob, padding zeroed,
    /// where all of it had to be packed; else once for each of gate, up and down, or of parts of them where they are large and
    /// have to be read, and the padding between them is left alone (zero in a fresh buffer). Offsets are multiples of 16, lengths
    /// of 4. Any bank will do, partial or not.
    ///
    /// # Errors
    ///
    /// Those of `put`; [`Error::Invalid`] where there is no such expert; [`Error::Model`] where it cannot be read.
    pub fn blob(&mut self, bank: usize, expert: u16, put: &mut dyn FnMut(usize, &[u8]) -> Result<()>) -> Result<()> {
        let expert = usize::from(expert);
        let (layouts, experts) = match (self.banks.get(bank), self.model.banks.get(bank)) {
            (Some(layouts), Some(experts)) if expert < experts.len() => (layouts, experts),
            _ => return Err(Error::Invalid(format!("there is no expert {expert} in bank {bank}"))),
        };
        let Layouts { blob, record } = layouts;
        let kept = match &mut self.store {
            _ if record.stride == 0 => Some(&[][..]),
            Store::Nothing => None,
            Store::Memory(banks) => banks.get(bank).and_then(|all| all.get(expert * record.stride..)?.get(..record.stride)),
            #[cfg(not(target_arch = "wasm32"))]
            Store::File(file) => file.record(bank, expert),
        };
        let kept = match kept {
            Some(kept) => kept,
            None if !experts.is_resident() => return self.read(bank, expert, put),
            None => {
                self.scratch.resize(record.stride, 0);
                record.pack(experts, expert, &mut self.scratch)?;
                &self.scratch
            }
        };
        if record == blob {
            return put(0, kept);
        }
        for (i, part) in PARTS.into_iter().enumerate() {
            match record.sizes[i] {
                // Only where the checkpoint is in memory, or mapped.
                0 => put(blob.offsets[i], experts.part(expert, part)?.matrix().data)?,
                size => put(blob.offsets[i], &kept[record.offsets[i]..][..size])?,
            }
        }
        Ok(())
    }

    /// [`blob`](Self::blob) of an expert that is read now, a few MiB at a time.
    fn read(&mut self, bank: usize, expert: usize, put: &mut dyn FnMut(usize, &[u8]) -> Result<()>) -> Result<()> {
        if let Some(kept) = self.recent.get(bank, expert) {
            return put(0, kept);
        }
        let (blob, experts) = (self.banks[bank].blob, &self.model.banks[bank]);
        let mut whole = self.recent.takes(blob.stride).then(|| self.recent.room(blob.stride));
        for (i, part) in PARTS.into_iter().enumerate() {
            let (tensor, first) = experts.place(expert, part);
            let row = blob.rows[i];
            // Whole blocks of F8, and offsets that are multiples of 16.
            let step = (CHUNK / row.max(1) / F8_BLOCK).max(1) * F8_BLOCK;
            for at in (0..tensor.rows).step_by(step) {
                let rows = tensor.part(first + at, step.min(tensor.rows - at))?;
                let m = rows.matrix();
                let (offset, bytes) = (blob.offsets[i] + at * row, m.rows * row);
                match &mut whole {
                    Some(whole) => pack_rows(&m, row, &mut whole[offset..offset + bytes]),
                    None => {
                        self.scratch.resize(bytes, 0);
                        pack_rows(&m, row, &mut self.scratch);
                        put(offset, &self.scratch)?;
                    }
                }
            }
        }
        let Some(whole) = whole else { return Ok(()) };
        let done = put(0, &whole);
        self.recent.keep(bank, expert, whole);
        done
    }

    /// How the blobs of a bank are laid out. Panics where there is no such bank.
    pub fn layout(&self, bank: usize) -> &BlobLayout {
        &self.banks[bank].blob
    }

    /// Where those parts of partial banks come from that must be packed; [`BankKind::Checkpoint`] if none must.
    pub fn kind(&self) -> BankKind {
        self.kind
    }

    /// Bytes kept packed, in the file or in memory.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What a user should know: a file that was damaged, a disk that refused, memory that did not suffice.
    pub fn notice(&self) -> Option<&str> {
        match &self.store {
            #[cfg(not(target_arch = "wasm32"))]
            Store::File(file) if file.damage().is_some() => file.damage(),
            _ => self.notice.as_deref(),
        }
    }
}

/// Packs the records of the banks `needed`, `total` bytes in all.
fn pack_to_memory(
    model: &Model,
    layouts: &[Layouts],
    needed: &[usize],
    total: u64,
    progress: &mut dyn FnMut(u64, u64),
) -> io::Result<Vec<Vec<u8>>> {
    let mut memory = vec![Vec::new(); layouts.len()];
    for &b in needed {
        let bytes = layouts[b].record.stride.checked_mul(model.banks[b].len()).ok_or(io::ErrorKind::OutOfMemory)?;
        memory[b].try_reserve_exact(bytes).map_err(|_| io::ErrorKind::OutOfMemory)?;
        memory[b].resize(bytes, 0);
    }
    let records = memory.iter_mut().enumerate().filter(|(_, all)| !all.is_empty()).flat_map(|(b, all)| {
        all.chunks_exact_mut(layouts[b].record.stride).enumerate().map(move |(expert, out)| (b, expert, out))
    });
    let mut done = 0;
    parallel::for_each(
        records,
        || Ok(()),
        |(), (b, expert, out)| {
            layouts[b].record.pack(&model.banks[b], expert, out).map_err(io::Error::other)?;
            Ok(out.len() as u64)
        },
        |bytes| {
            done += bytes;
            progress(done, total);
        },
    )?;
    Ok(memory)
}

/// Bytes of memory that packed experts may take: a third of what is available.
fn memory_limit() -> u64 {
    if cfg!(target_arch = "wasm32") {
        // A page's memory stays within tens of MiB whatever the model's size.
        return 32 << 20;
    }
    let read = |path| std::fs::read_to_string(path).ok();
    // Only Linux says; 1 GiB does not hurt a machine that runs such models.
    let available = read("/proc/meminfo").and_then(|text| mem_available(&text)).unwrap_or(3 << 30);
    // A container's own limit ("max": none).
    let container = read("/sys/fs/cgroup/memory.max").and_then(|text| text.trim().parse().ok()).unwrap_or(u64::MAX);
    available.min(container) / 3
}

/// `MemAvailable` of `/proc/meminfo`, in bytes.
fn mem_available(meminfo: &str) -> Option<u64> {
    let value = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = value.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
    kib.checked_mul(1024)
}
