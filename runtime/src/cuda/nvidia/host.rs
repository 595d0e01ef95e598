//! Memory of the host that kernels read, and uploads on a stream of their own.

use std::{
    ffi::c_void,
    ptr::{copy_nonoverlapping, null_mut, write_bytes},
};

use cudarc::driver::sys::{self, CUresult};

use super::{Nvidia, check, lock};
use crate::error::{Error, Result};

/// Bytes of one of the places that uploads pass through.
const STAGE: usize = 8 << 20;

/// Page-locked memory: where the host has it, its address for kernels, its bytes.
pub(super) struct Block {
    place: *mut c_void,
    address: u64,
    bytes: u64,
}

/// A place that uploads pass through, and the event behind the last copy out of it.
struct Stage {
    place: *mut c_void,
    event: sys::CUevent,
}

/// The stream of uploads made aside.
pub(super) struct Aside {
    stream: sys::CUstream,
    /// On the device's stream: what uploads wait for.
    before: sys::CUevent,
    /// On the uploads' stream: what the device's stream waits for.
    done: sys::CUevent,
    /// One is filled while the other is copied.
    stages: Vec<Stage>,
    next: usize,
}

impl Aside {
    fn new() -> Result<Self> {
        let (stream, before, done) = (null_mut(), null_mut(), null_mut());
        let mut aside = Self { stream, before, done, stages: Vec::new(), next: 0 };
        match aside.make() {
            Ok(()) => Ok(aside),
            Err(e) => {
                aside.destroy();
                Err(e)
            }
        }
    }

    fn make(&mut self) -> Result<()> {
        let what = "making a stream of uploads";
        // SAFETY: the context is current; handles are written before they are used. Flags: a stream that waits for no other;
        // events without timing.
        unsafe {
            check(sys::cuStreamCreate(&raw mut self.stream, 1), what)?;
            check(sys::cuEventCreate(&raw mut self.before, 2), what)?;
            check(sys::cuEventCreate(&raw mut self.done, 2), what)?;
            for _ in 0..2 {
                let mut stage = Stage { place: null_mut(), event: null_mut() };
                check(sys::cuEventCreate(&raw mut stage.event, 2), what)?;
                let made = check(sys::cuMemHostAlloc(&raw mut stage.place, STAGE, 0), what);
                self.stages.push(stage);
                made?;
            }
        }
        Ok(())
    }

    fn upload(&mut self, address: u64, data: &[u8]) -> Result<()> {
        let what = "an upload beside the computation";
        for (i, piece) in data.chunks(STAGE).enumerate() {
            let next = self.next % self.stages.len().max(1);
            let Some(stage) = self.stages.get(next) else { return Err(Error::Gpu(what.into())) };
            self.next = next + 1;
            // SAFETY: the event is behind the last copy out of the stage, which has room for a piece; whoever uploads has allocated
            // the buffer.
            unsafe {
                check(sys::cuEventSynchronize(stage.event), what)?;
                copy_nonoverlapping(piece.as_ptr(), stage.place.cast(), piece.len());
                check(sys::cuMemcpyHtoDAsync_v2(address + (i * STAGE) as u64, stage.place, piece.len(), self.stream), what)?;
                check(sys::cuEventRecord(stage.event, self.stream), what)?;
            }
        }
        Ok(())
    }

    fn join(&self, stream: sys::CUstream) -> Result<()> {
        let what = "waiting for uploads";
        // SAFETY: events and streams are this device's. What is uploaded next waits for what was asked for before this call; what is
        // asked for next waits for the uploads before it.
        unsafe {
            check(sys::cuEventRecord(self.before, stream), what)?;
            check(sys::cuEventRecord(self.done, self.stream), what)?;
            check(sys::cuStreamWaitEvent(stream, self.done, 0), what)?;
            check(sys::cuStreamWaitEvent(self.stream, self.before, 0), what)
        }
    }

    /// Gives everything back; the context is current.
    pub(super) fn destroy(self) {
        // SAFETY: all of these were made here (or are null), and nobody uses them any more once the stream is idle.
        unsafe {
            if !self.stream.is_null() {
                let _ = sys::cuStreamSynchronize(self.stream);
            }
            for stage in self.stages {
                if !stage.place.is_null() {
                    let _ = sys::cuMemFreeHost(stage.place);
                }
                let _ = sys::cuEventDestroy_v2(stage.event);
            }
            for event in [self.before, self.done].into_iter().filter(|e| !e.is_null()) {
                let _ = sys::cuEventDestroy_v2(event);
            }
            if !self.stream.is_null() {
                let _ = sys::cuStreamDestroy_v2(self.stream);
            }
        }
    }
}

impl Nvidia {
    pub(super) fn host_block(&self, what: &str, bytes: u64) -> Result<u64> {
        self.first()?;
        let (mut place, mut address) = (null_mut(), 0);
        // Flags: known to all contexts, and mapped for kernels.
        let flags = sys::CU_MEMHOSTALLOC_PORTABLE | sys::CU_MEMHOSTALLOC_DEVICEMAP;
        // SAFETY: the context is current; the place is used after success only, and has so many bytes.
        unsafe {
            match sys::cuMemHostAlloc(&raw mut place, bytes as usize, flags) {
                CUresult::CUDA_ERROR_OUT_OF_MEMORY => {
                    let what = format!("{what} (page-locked)");
                    return Err(Error::OutOfMemory { what, bytes, limit: None });
                }
                code => check(code, what)?,
            }
            if let Err(e) = check(sys::cuMemHostGetDevicePointer_v2(&raw mut address, place, 0), what) {
                let _ = sys::cuMemFreeHost(place);
                return Err(e);
            }
            write_bytes(place.cast::<u8>(), 0, bytes as usize);
        }
        lock(&self.blocks).push(Block { place, address, bytes });
        Ok(address)
    }

    pub(super) fn release_block(&self, address: u64) {
        let mut blocks = lock(&self.blocks);
        let Some(at) = blocks.iter().position(|b| b.address == address) else { return };
        let block = blocks.swap_remove(at);
        // An error here has shown before, or will.
        if let Ok(first) = self.first() {
            // SAFETY: the block was allocated here, and is released once, when nothing runs that could read it.
            unsafe {
                let _ = sys::cuStreamSynchronize(first.stream);
                let _ = sys::cuMemFreeHost(block.place);
            }
        }
    }

    pub(super) fn write_block(&self, address: u64, data: &[u8]) -> Result<()> {
        let blocks = lock(&self.blocks);
        let end = address.checked_add(data.len() as u64);
        let holds = |b: &&Block| address >= b.address && end.is_some_and(|end| end <= b.address + b.bytes);
        let Some(block) = blocks.iter().find(holds) else {
            return Err(Error::Gpu("host memory that was not allocated".into()));
        };
        // SAFETY: the bytes lie in the block, which lives as long as the lock is held; nothing that runs reads them.
        unsafe {
            let to = block.place.cast::<u8>().add((address - block.address) as usize);
            copy_nonoverlapping(data.as_ptr(), to, data.len());
        }
        Ok(())
    }

    /// Calls `what` with the stream of uploads, which is made when it is first needed.
    fn aside(&self, what: impl FnOnce(&mut Aside) -> Result<()>) -> Result<()> {
        self.first()?;
        let mut aside = lock(&self.aside);
        if aside.is_none() {
            *aside = Some(Aside::new()?);
        }
        aside.as_mut().map_or(Ok(()), what)
    }

    pub(super) fn upload_beside(&self, address: u64, data: &[u8]) -> Result<()> {
        self.aside(|aside| aside.upload(address, data))
    }

    pub(super) fn wait_for_uploads(&self) -> Result<()> {
        let stream = self.first()?.stream;
        self.aside(|aside| aside.join(stream))
    }
}
