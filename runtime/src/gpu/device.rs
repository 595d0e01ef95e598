//! An open GPU: its device and queue, what it may do, and what has gone wrong on it.

use std::{
    fmt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    task::Poll,
    time::Duration,
};

use pleiad_shaders::Defines;
use wgpu::{BufferUsages, ErrorFilter, Limits};

use super::{
    adapters::{AdapterDescription, DeviceOptions, Tier},
    errors::{Awaited, Faults, lock, translate},
    pipelines::{Begun, Made, Pipeline, Pipelines, Variant},
};
use crate::error::{Error, Result};

/// Longest wait for the announcement of a loss.
const SETTLE: Duration = Duration::from_secs(2);

/// An open GPU.
pub struct GpuDevice {
    pub(crate) device: wgpu::Device,
    pub(crate) queue: wgpu::Queue,
    /// The adapter.
    pub adapter: AdapterDescription,
    /// How it was opened.
    pub options: DeviceOptions,
    /// The variants that kernels may use on it.
    pub tier: Tier,
    /// Whether kernels may use f16 arithmetic.
    pub f16: bool,
    /// Whether kernels can read buffers in host memory.
    pub host_visible: bool,
    /// The limits it was opened with.
    pub limits: Limits,
    faults: Arc<Mutex<Faults>>,
    /// Error scopes that were closed, and of which a browser has yet to tell what they caught.
    awaited: Arc<Mutex<Vec<Awaited>>>,
    /// The same of buffers that are being made: what is wrong with them is an answer to whoever loads a model, and no fault.
    making: Arc<Mutex<Vec<Awaited>>>,
    /// Every buffer made in a browser, where dropping one frees nothing until its collector sees fit.
    buffers: Arc<Mutex<Vec<wgpu::Buffer>>>,
    /// Kernels compiled so far: models come and go.
    pipelines: Arc<Mutex<Pipelines>>,
    /// Most bytes of a weight buffer, where it is less than the device would bind.
    slab_limit: Option<u64>,
    /// Failures to come (tests of recovery), and faults of kernels (tests of conformance tests).
    planted: Arc<Planted>,
}

/// Failures that tests plant: so many of the next ones of that kind fail.
#[derive(Debug, Default)]
struct Planted {
    slabs: AtomicU32,
    uploads: AtomicU32,
    fault: Mutex<Option<Fault>>,
}

/// A fault of a kernel, for tests that must find it.
#[derive(Clone, Debug)]
struct Fault {
    kernel: String,
    from: String,
    to: String,
    /// Programs that were changed.
    changed: usize,
}

/// Takes one of the failures planted, if there is any left.
fn strikes(planted: &AtomicU32) -> bool {
    planted.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_ok()
}

impl fmt::Debug for GpuDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GpuDevice({}, {} tier)", self.adapter, self.tier)
    }
}

impl GpuDevice {
    pub(crate) fn new(device: wgpu::Device, queue: wgpu::Queue, adapter: AdapterDescription, options: DeviceOptions) -> Self {
        let faults = Arc::new(Mutex::new(Faults::default()));
        // wgpu's own handler panics.
        let sink = Arc::clone(&faults);
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
            lock(&sink).error.get_or_insert_with(|| translate("a command", 0, &error));
        }));
        let sink = Arc::clone(&faults);
        device.set_device_lost_callback(move |reason, message| {
            let message = message.trim();
            let text = if message.is_empty() { format!("{reason:?}") } else { message.to_owned() };
            lock(&sink).lost.get_or_insert(text);
        });
        let features = device.features();
        #[cfg(target_arch = "wasm32")]
        let subgroups = super::browser::has_subgroups(&device);
        #[cfg(not(target_arch = "wasm32"))]
        let subgroups = features.contains(wgpu::Features::SUBGROUP);
        // A page may have asked for them whatever was asked for here.
        let subgroups = subgroups && !options.plain;
        let tier = if subgroups { Tier::Subgroup } else { Tier::Plain };
        // What the adapter can do a browser tells no sooner.
        let adapter = AdapterDescription { tier: adapter.tier.max(tier), ..adapter };
        Self {
            tier,
            f16: features.contains(wgpu::Features::SHADER_F16),
            host_visible: features.contains(wgpu::Features::MAPPABLE_PRIMARY_BUFFERS),
            limits: device.limits(),
            device,
            queue,
            adapter,
            options,
            faults,
            awaited: Arc::default(),
            making: Arc::default(),
            buffers: Arc::default(),
            pipelines: Arc::default(),
            slab_limit: None,
            planted: Arc::default(),
        }
    }

    /// wgpu's device and queue, for programs of one's own. Errors that no scope catches fail the device: see [`GpuDevice::scoped`].
    pub fn wgpu(&self) -> (&wgpu::Device, &wgpu::Queue) {
        (&self.device, &self.queue)
    }

    /// The adapter's name.
    pub fn name(&self) -> String {
        self.adapter.name.clone()
    }

    /// The pipeline of that variant, compiled at first use. In a browser it has to be [begun](Self::begin) and ended before
    /// for its errors to be known in time.
    pub(crate) fn pipeline(&self, variant: &Variant) -> Result<Arc<Pipeline>> {
        if let Some(made) = self.made(variant) {
            return Ok(made);
        }
        let described = variant.describe(self)?;
        let made = self.scoped_now(&described.label, 0, || described.make(self))?;
        Ok(lock(&self.pipelines).insert(variant, described, made))
    }

    /// Begins to compile that variant unless it has been.
    pub(crate) fn begin(&self, variant: &Variant) -> Result<Begun> {
        let described = if self.made(variant).is_some() { None } else { Some(variant.describe(self)?) };
        #[cfg(target_arch = "wasm32")]
        let compiling = described.as_ref().and_then(|d| d.compile(self));
        Ok(Begun {
            variant: variant.clone(),
            described,
            #[cfg(target_arch = "wasm32")]
            compiling,
        })
    }

    /// Ends what was begun: waits until it is known whether the driver takes it.
    pub(crate) async fn end(&self, begun: Begun) -> Result<()> {
        let Some(described) = begun.described else { return Ok(()) };
        #[cfg(target_arch = "wasm32")]
        let _known = match begun.compiling {
            Some(compiling) => compiling.done().await,
            None => None,
        };
        let made: Made = self.scoped(&described.label, 0, || described.make(self)).await?;
        lock(&self.pipelines).insert(&begun.variant, described, made);
        Ok(())
    }

    fn made(&self, variant: &Variant) -> Option<Arc<Pipeline>> {
        lock(&self.pipelines).get(variant)
    }

    /// Kernels compiled so far.
    pub fn pipelines(&self) -> usize {
        lock(&self.pipelines).len()
    }

    /// The kernels compiled so far, with their defines.
    pub fn variants(&self) -> Vec<(&'static str, Defines)> {
        lock(&self.pipelines).variants()
    }

    /// The first error since the device was opened, if any: a device that has failed stays failed.
    pub fn check(&self) -> Result<()> {
        self.sweep();
        let loss_may_follow = {
            let faults = lock(&self.faults);
            faults.lost.is_none() && faults.error.is_some()
        };
        if loss_may_follow {
            self.settle();
        }
        let faults = lock(&self.faults);
        match (&faults.lost, &faults.error) {
            (Some(lost), _) => Err(Error::DeviceLost(lost.clone())),
            (None, Some(error)) => Err(error.clone()),
            (None, None) => Ok(()),
        }
    }

    /// Most bytes of a weight buffer: of what can be bound whole, and whole words of any alignment.
    pub(crate) fn max_slab(&self) -> u64 {
        self.slab_limit.unwrap_or(u64::MAX).min(self.max_binding())
    }

    /// Largest storage buffer that can be bound whole.
    pub fn max_binding(&self) -> u64 {
        self.limits.max_storage_buffer_binding_size.min(self.limits.max_buffer_size) & !255
    }

    /// The same device, with weights cut into slabs of at most so many bytes (tests of models that exceed a binding).
    #[must_use]
    pub fn with_slabs(&self, bytes: u64) -> Self {
        Self { slab_limit: Some(bytes), ..self.again() }
    }

    /// The same device, with kernels of that tier at the most (tests of the kernels that other devices use).
    #[must_use]
    pub fn with_tier(&self, tier: Tier) -> Self {
        Self { tier: self.tier.min(tier), ..self.again() }
    }

    fn again(&self) -> Self {
        Self {
            device: self.device.clone(),
            queue: self.queue.clone(),
            adapter: self.adapter.clone(),
            limits: self.limits.clone(),
            faults: Arc::clone(&self.faults),
            awaited: Arc::clone(&self.awaited),
            making: Arc::clone(&self.making),
            buffers: Arc::clone(&self.buffers),
            pipelines: Arc::clone(&self.pipelines),
            planted: Arc::clone(&self.planted),
            ..*self
        }
    }

    /// Makes the next `slabs` allocations of expert slots, and the next `uploads` uploads of an expert, fail (tests of recovery).
    pub fn plant_failures(&self, slabs: u32, uploads: u32) {
        self.planted.slabs.store(slabs, Ordering::Relaxed);
        self.planted.uploads.store(uploads, Ordering::Relaxed);
    }

    /// Writes `to` for every `from` in the text of `kernel`, of every variant that is compiled from now on (tests of tests that
    /// must find a wrong kernel).
    pub fn plant_fault(&self, kernel: &str, from: &str, to: &str) {
        let fault = Fault { kernel: kernel.to_owned(), from: from.to_owned(), to: to.to_owned(), changed: 0 };
        *lock(&self.planted.fault) = Some(fault);
    }

    /// How many variants the fault planted has changed.
    pub fn faulty_variants(&self) -> usize {
        lock(&self.planted.fault).as_ref().map_or(0, |f| f.changed)
    }

    /// A kernel's text with the fault planted in it, if there is one.
    pub(crate) fn with_fault(&self, kernel: &str, source: String) -> String {
        let mut planted = lock(&self.planted.fault);
        let Some(fault) = planted.as_mut().filter(|f| f.kernel == kernel && source.contains(&f.from)) else { return source };
        fault.changed += 1;
        source.replace(&fault.from, &fault.to)
    }

    /// Closes the device as if the driver had lost it (tests of recovery).
    pub fn destroy(&self) {
        self.device.destroy();
    }

    /// Runs `make` and reports the validation, memory and driver errors it causes; `what` and `bytes` name what was made.
    pub async fn scoped<T>(&self, what: &str, bytes: u64, make: impl FnOnce() -> T) -> Result<T> {
        let (made, errors) = self.in_scopes(make);
        for error in errors {
            if let Some(error) = error.await {
                return Err(translate(what, bytes, &error));
            }
        }
        self.check()?;
        Ok(made)
    }

    /// [`GpuDevice::scoped`] without waiting. Natively errors are known at once; what a browser tells later is an error of
    /// [`GpuDevice::settled`], or of the next [`GpuDevice::check`].
    pub(crate) fn scoped_now<T>(&self, what: &str, bytes: u64, make: impl FnOnce() -> T) -> Result<T> {
        let (made, errors) = self.in_scopes(make);
        for error in errors {
            let mut error = Awaited::new(what, bytes, error);
            match error.poll() {
                Poll::Ready(Some(error)) => return Err(error),
                Poll::Ready(None) => {}
                Poll::Pending => lock(&self.awaited).push(error),
            }
        }
        self.check()?;
        Ok(made)
    }

    /// Waits until it is known what went wrong with all that was made without waiting, and tells the first of it.
    pub(crate) async fn settled(&self) -> Result<()> {
        let mut awaited = std::mem::take(&mut *lock(&self.making));
        awaited.append(&mut lock(&self.awaited));
        let mut first = None;
        for error in awaited {
            first = first.or(error.told().await);
        }
        self.check()?;
        first.map_or(Ok(()), Err)
    }

    /// Takes note of errors that a browser has told meanwhile of what nobody waited for.
    fn sweep(&self) {
        let mut first = None;
        lock(&self.awaited).retain_mut(|error| match error.poll() {
            Poll::Ready(error) => {
                first = first.take().or(error);
                false
            }
            Poll::Pending => true,
        });
        if let Some(error) = first {
            lock(&self.faults).error.get_or_insert(error);
        }
    }

    fn in_scopes<T, F: FnOnce() -> T>(
        &self,
        make: F,
    ) -> (T, Vec<impl Future<Output = Option<wgpu::Error>> + 'static + use<T, F>>) {
        let filters = [ErrorFilter::Internal, ErrorFilter::Validation, ErrorFilter::OutOfMemory];
        let scopes = filters.map(|f| self.device.push_error_scope(f));
        let made = make();
        // Scopes close in reverse order; the futures do not hold them.
        (made, scopes.into_iter().rev().map(wgpu::ErrorScopeGuard::pop).collect())
    }

    /// Lets the device announce its loss: that comes with a poll once its queue is empty, and commands on what a lost device made
    /// are refused before.
    fn settle(&self) {
        // A browser announces by itself; a device that hangs is given up.
        let _ = self.device.poll(wgpu::PollType::Wait { submission_index: None, timeout: Some(SETTLE) });
    }

    /// What a readback that failed means: the loss of the device, or whatever error it met first.
    pub(crate) async fn failed(&self, what: &str) -> Error {
        self.settle();
        if cfg!(target_arch = "wasm32") {
            // What a browser has to say of the reason may come after the failure: it says it while this waits.
            let _ = self.idle().await;
        }
        if let Err(error) = self.check() {
            return error;
        }
        let error = Error::DeviceLost(what.to_owned());
        lock(&self.faults).lost.get_or_insert_with(|| what.to_owned());
        error
    }

    /// A buffer of `size` bytes (rounded up to whole words), or an error that names it; in a browser an error of the next
    /// [`GpuDevice::settled`].
    pub async fn buffer(&self, what: &str, size: u64, usage: BufferUsages) -> Result<wgpu::Buffer> {
        let size = self.buffer_size(what, size)?;
        let descriptor = wgpu::BufferDescriptor { label: Some(what), size, usage, mapped_at_creation: false };
        let buffer = if cfg!(target_arch = "wasm32") {
            // To wait for every one of a model's buffers would take a turn of the browser's GPU process each.
            let (buffer, errors) = self.in_scopes(|| self.device.create_buffer(&descriptor));
            lock(&self.making).extend(errors.into_iter().map(|error| Awaited::new(what, size, error)));
            buffer
        } else {
            self.scoped(what, size, || self.device.create_buffer(&descriptor)).await?
        };
        self.note(&buffer);
        Ok(buffer)
    }

    /// [`GpuDevice::buffer`] without waiting, as [`GpuDevice::scoped_now`].
    pub(crate) fn buffer_now(&self, what: &str, size: u64, usage: BufferUsages) -> Result<wgpu::Buffer> {
        let size = self.buffer_size(what, size)?;
        let descriptor = wgpu::BufferDescriptor { label: Some(what), size, usage, mapped_at_creation: false };
        let buffer = self.scoped_now(what, size, || self.device.create_buffer(&descriptor))?;
        self.note(&buffer);
        Ok(buffer)
    }

    fn note(&self, buffer: &wgpu::Buffer) {
        if cfg!(target_arch = "wasm32") {
            lock(&self.buffers).push(buffer.clone());
        }
    }

    /// How many buffers a browser has to keep at this time: see [`GpuDevice::free_after`].
    pub fn kept(&self) -> usize {
        lock(&self.buffers).len()
    }

    /// Frees the buffers made since there were `kept`, which nobody uses any more. Natively that is done when they are dropped.
    pub fn free_after(&self, kept: usize) {
        let mut buffers = lock(&self.buffers);
        let from = kept.min(buffers.len());
        buffers.drain(from..).for_each(|b| b.destroy());
    }

    /// A buffer of expert slots.
    pub(crate) async fn slab(&self, what: &str, size: u64, usage: BufferUsages) -> Result<wgpu::Buffer> {
        if strikes(&self.planted.slabs) {
            return Err(Error::OutOfMemory { what: format!("{what} on the GPU"), bytes: size, limit: None });
        }
        self.buffer(what, size, usage).await
    }

    /// Writes an expert, or a part of one, to a slot. An error leaves the slot undefined.
    pub(crate) fn write_slot(&self, buffer: &wgpu::Buffer, offset: u64, data: &[u8]) -> Result<()> {
        if strikes(&self.planted.uploads) {
            return Err(Error::OutOfMemory { what: "an expert's upload".into(), bytes: data.len() as u64, limit: None });
        }
        self.scoped_now("an expert's upload", data.len() as u64, || self.queue.write_buffer(buffer, offset, data))
    }

    fn buffer_size(&self, what: &str, size: u64) -> Result<u64> {
        let size = size.max(4).next_multiple_of(4);
        let limit = self.limits.max_buffer_size;
        if size > limit {
            return Err(Error::Limit { what: format!("{what}: bytes of one GPU buffer"), needed: size, limit });
        }
        Ok(size)
    }

    /// Waits until everything submitted so far has run.
    pub async fn idle(&self) -> Result<()> {
        let (done, wait) = async_channel::bounded::<()>(1);
        self.queue.on_submitted_work_done(move || {
            let _ = done.try_send(());
        });
        self.block(None)?;
        // The sender is dropped without a message when the device is lost.
        let _ = wait.recv().await;
        self.check()
    }

    /// Natively blocks until `submission` (or everything) has run and its callbacks were called; a browser calls them by itself.
    #[cfg(not(target_arch = "wasm32"))]
    pub(crate) fn block(&self, submission: Option<wgpu::SubmissionIndex>) -> Result<()> {
        let wait = wgpu::PollType::Wait { submission_index: submission, timeout: None };
        match self.device.poll(wait) {
            Ok(_) => Ok(()),
            Err(e) => {
                self.check()?;
                Err(Error::Gpu(e.to_string()))
            }
        }
    }

    #[cfg(target_arch = "wasm32")]
    pub(crate) fn block(&self, _submission: Option<wgpu::SubmissionIndex>) -> Result<()> {
        Ok(())
    }
}
