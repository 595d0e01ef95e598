//! NVIDIA's driver and compiler, found when the program runs.
//!
//! Libraries that are missing are errors that say so: nothing of either is called before it is known to be there.

mod compile;
mod device;
mod host;
mod time;

use std::{
    collections::{BTreeMap, HashMap},
    ffi::{CString, c_int, c_void},
    ptr::null_mut,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use cudarc::driver::sys::{self, CUresult};
use pleiad_shaders::cuda;

use super::{
    driver::{DeviceInfo, Driver, Fetch, Function, Graph, Launch, Variant},
    order::{self, Command},
};
use crate::error::{Error, Result};
use device::{Device, check};

pub use device::devices;

/// Shared memory that a block may have without being asked for.
const PLAIN_SHARED: u32 = 48 << 10;

fn lock<T>(what: &Mutex<T>) -> MutexGuard<'_, T> {
    what.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Opens the devices of these indices, one or more, as one.
///
/// # Errors
///
/// No driver or compiler, no such device, one that is too old, or one that does not see another's memory.
pub fn open(indices: &[usize]) -> Result<Arc<dyn Driver>> {
    let all = devices()?;
    let devices = indices.iter().map(|&index| Device::open(&all, index)).collect::<Result<Vec<_>>>()?;
    if devices.is_empty() {
        return Err(Error::NoAdapter { wanted: "cuda".into(), available: "none".into() });
    }
    compile::find()?;
    for (a, device) in devices.iter().enumerate() {
        devices.iter().enumerate().filter(|(b, _)| a != *b).try_for_each(|(_, other)| device.see(other))?;
    }
    let infos = devices.iter().map(|d| d.info.clone()).collect();
    let (kernels, graphs, copies, owners) = (Mutex::default(), Mutex::default(), Mutex::default(), Mutex::default());
    let (blocks, aside) = (Mutex::default(), Mutex::default());
    Ok(Arc::new(Nvidia { infos, kernels, graphs, copies, owners, blocks, aside, devices }))
}

#[derive(Default)]
struct Kernels {
    /// By device and variant.
    known: HashMap<(usize, Variant), usize>,
    /// Entry, its module, and the device that both belong to.
    loaded: Vec<(sys::CUfunction, sys::CUmodule, usize)>,
}

/// Page-locked memory of the host, and the event behind a copy into it.
struct Landing {
    place: *mut c_void,
    room: usize,
    event: sys::CUevent,
}

#[derive(Default)]
struct Copies {
    next: u64,
    /// With the bytes on their way.
    under_way: HashMap<u64, (Landing, usize)>,
    free: Vec<Landing>,
}

/// Open devices, the first of which speaks for all.
struct Nvidia {
    infos: Vec<DeviceInfo>,
    kernels: Mutex<Kernels>,
    graphs: Mutex<Vec<sys::CUgraphExec>>,
    copies: Mutex<Copies>,
    /// The device of each buffer that is not the first device's.
    owners: Mutex<BTreeMap<u64, (usize, u64)>>,
    blocks: Mutex<Vec<host::Block>>,
    aside: Mutex<Option<host::Aside>>,
    devices: Vec<Device>,
}

// SAFETY: handles of the driver may be used by any thread that has made the context current, which every method does; what changes
// is behind locks.
unsafe impl Send for Nvidia {}
// SAFETY: as above.
unsafe impl Sync for Nvidia {}

impl Nvidia {
    /// A device.
    fn device(&self, index: usize) -> Result<&Device> {
        self.devices.get(index).ok_or_else(|| Error::Gpu(format!("there is no device {index}")))
    }

    /// The first device, entered.
    fn first(&self) -> Result<&Device> {
        let first = self.device(0)?;
        first.enter()?;
        Ok(first)
    }

    /// What is done with a buffer, in its device's stream, and in order with everything else.
    fn in_order(&self, address: u64, what: impl FnOnce(&Device) -> Result<()>) -> Result<()> {
        let first = self.first()?;
        let owner =
            lock(&self.owners).range(..=address).next_back().filter(|(at, (_, bytes))| address < *at + bytes).map(|o| o.1.0);
        let Some(owner) = owner else { return what(first) };
        let device = self.device(owner)?;
        first.record(0)?;
        device.wait(first, 0)?;
        what(device)?;
        device.record(0)?;
        first.wait(device, 0)?;
        first.enter()
    }

    fn landing(&self, copies: &mut Copies, bytes: usize) -> Result<Landing> {
        if let Some(i) = copies.free.iter().position(|l| l.room >= bytes) {
            return Ok(copies.free.swap_remove(i));
        }
        let room = bytes.max(4096).next_power_of_two();
        let (mut place, mut event) = (null_mut(), null_mut());
        // SAFETY: handles are written before they are used. Flag 1: page-locked for every device; 2: events without timing.
        unsafe {
            check(sys::cuMemHostAlloc(&raw mut place, room, 1), "page-locked memory")?;
            check(sys::cuEventCreate(&raw mut event, 2), "making an event")?;
        }
        Ok(Landing { place, room, event })
    }

    fn start(&self, launch: &Launch) -> Result<()> {
        let device = self.device(launch.device)?;
        if self.devices.len() > 1 {
            device.enter()?;
        }
        let function = lock(&self.kernels).loaded.get(launch.function.0).map(|f| f.0);
        let Some(function) = function else { return Err(Error::Gpu("a kernel that was not loaded".into())) };
        // The argument is aligned as its struct is.
        let mut argument = vec![0u64; launch.arguments.len().div_ceil(8)];
        bytemuck::cast_slice_mut::<u64, u8>(&mut argument)
            .iter_mut()
            .zip(launch.arguments.iter())
            .for_each(|(to, from)| *to = *from);
        let mut arguments = [argument.as_mut_ptr().cast::<c_void>()];
        let [x, y, z] = launch.grid;
        // SAFETY: the kernel has one argument, of this struct: it was made from the description that the kernel's text was made of.
        // The driver copies it before it returns.
        let code = unsafe {
            sys::cuLaunchKernel(
                function,
                x,
                y,
                z,
                launch.threads,
                1,
                1,
                launch.shared,
                device.stream,
                arguments.as_mut_ptr(),
                null_mut(),
            )
        };
        check(code, "starting a kernel")
    }

    /// Tells the streams to run a list.
    fn tell(&self, launches: &[Launch]) -> Result<()> {
        if launches.iter().all(|l| l.device == 0) {
            return launches.iter().try_for_each(|l| self.start(l));
        }
        let commands = order::commands(launches);
        let mut recorded = vec![0; order::events(&commands)];
        for command in commands {
            match command {
                Command::Launch(index) => self.start(&launches[index])?,
                Command::Record { device, event } => {
                    recorded[event] = device;
                    self.device(device)?.record(event)?;
                }
                Command::Wait { device, event } => self.device(device)?.wait(self.device(recorded[event])?, event)?,
            }
        }
        self.first().map(|_| ())
    }
}

impl Driver for Nvidia {
    fn info(&self) -> &DeviceInfo {
        &self.infos[0]
    }

    fn devices(&self) -> &[DeviceInfo] {
        &self.infos
    }

    fn free_memory(&self, device: usize) -> Option<u64> {
        self.device(device).and_then(Device::enter).ok()?;
        let (mut free, mut total) = (0, 0);
        // SAFETY: the context is current; two numbers are written.
        check(unsafe { sys::cuMemGetInfo_v2(&raw mut free, &raw mut total) }, "asking for free memory").ok()?;
        Some(free as u64)
    }

    fn allocate(&self, device: usize, what: &str, bytes: u64) -> Result<u64> {
        self.device(device)?.enter()?;
        let mut address = 0;
        // SAFETY: the context is current; the address is used after success only.
        let code = unsafe { sys::cuMemAlloc_v2(&raw mut address, bytes as usize) };
        if code == CUresult::CUDA_ERROR_OUT_OF_MEMORY {
            let what = if self.devices.len() > 1 { format!("{what} on GPU {device}") } else { format!("{what} on the GPU") };
            return Err(Error::OutOfMemory { what, bytes, limit: self.free_memory(device) });
        }
        check(code, what)?;
        if device > 0 {
            lock(&self.owners).insert(address, (device, bytes));
        }
        // SAFETY: the buffer has so many bytes.
        let cleared = |d: &Device| check(unsafe { sys::cuMemsetD8Async(address, 0, bytes as usize, d.stream) }, what);
        self.in_order(address, cleared)?;
        Ok(address)
    }

    fn release(&self, address: u64) {
        let owner = lock(&self.owners).remove(&address).map_or(0, |o| o.0);
        // An error here has shown before, or will.
        let Ok(first) = self.first() else { return };
        if self.devices.len() > 1 {
            // Others may be using it; the first device's stream is behind them.
            // SAFETY: the stream is open.
            let _ = unsafe { sys::cuStreamSynchronize(first.stream) };
        }
        if self.device(owner).is_ok_and(|d| d.enter().is_ok()) {
            // SAFETY: the buffer was allocated here, and is released once. The driver waits for what uses it.
            let _ = unsafe { sys::cuMemFree_v2(address) };
        }
    }

    fn write(&self, address: u64, data: &[u8]) -> Result<()> {
        self.in_order(address, |device| {
            // SAFETY: whoever writes has allocated so much; pageable memory is read before the call returns.
            let code = unsafe { sys::cuMemcpyHtoDAsync_v2(address, data.as_ptr().cast(), data.len(), device.stream) };
            check(code, "an upload")
        })
    }

    fn allocate_host(&self, what: &str, bytes: u64) -> Result<u64> {
        self.host_block(what, bytes)
    }

    fn release_host(&self, address: u64) {
        self.release_block(address);
    }

    fn write_host(&self, address: u64, data: &[u8]) -> Result<()> {
        self.write_block(address, data)
    }

    fn upload_aside(&self, address: u64, data: &[u8]) -> Result<()> {
        self.upload_beside(address, data)
    }

    fn join_uploads(&self) -> Result<()> {
        self.wait_for_uploads()
    }

    fn function(&self, device: usize, variant: &Variant) -> Result<Function> {
        let known = (device, variant.clone());
        if let Some(&known) = lock(&self.kernels).known.get(&known) {
            return Ok(Function(known));
        }
        let info = &self.device(device)?.info;
        self.device(device)?.enter()?;
        let text = cuda::source(variant.kernel, &variant.defines)?;
        let label = format!("{} {:?}", variant.kernel, variant.defines.iter().collect::<Vec<_>>());
        let entry = CString::new(cuda::entry(variant.kernel)).map_err(|e| Error::Shader(e.to_string()))?;
        let load = |image: &[u8]| {
            let (mut module, mut function) = (null_mut(), null_mut());
            // SAFETY: the image is a whole cubin of NVRTC's (the cache keeps its length and hash); handles are written before use.
            unsafe {
                check(sys::cuModuleLoadData(&raw mut module, image.as_ptr().cast()), &label)?;
                check(sys::cuModuleGetFunction(&raw mut function, module, entry.as_ptr()), &label)?;
            }
            Ok::<_, Error>((function, module))
        };
        let (function, module) = match compile::kept(&text, &info.architecture).map(|image| load(&image)) {
            Some(Ok(loaded)) => loaded,
            _ => load(&compile::compile(&label, &text, &info.architecture)?)?,
        };
        let mut fixed = 0;
        let shared = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES;
        let dynamic = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        // SAFETY: the function was loaded; one number is written.
        unsafe {
            check(sys::cuFuncGetAttribute(&raw mut fixed, shared, function), &label)?;
            if info.shared > PLAIN_SHARED && variant.kernel == "attend" {
                check(sys::cuFuncSetAttribute(function, dynamic, info.shared as c_int - fixed), &label)?;
            }
        }
        let mut kernels = lock(&self.kernels);
        kernels.loaded.push((function, module, device));
        let index = kernels.loaded.len() - 1;
        kernels.known.insert(known, index);
        Ok(Function(index))
    }

    fn launch(&self, launches: &[Launch]) -> Result<()> {
        self.first()?;
        self.tell(launches)
    }

    fn capture(&self, launches: &[Launch]) -> Result<Graph> {
        let stream = self.first()?.stream;
        let (mut graph, mut exec) = (null_mut(), null_mut());
        // SAFETY: the stream is this device's; nothing but launches and their order happens between begin and end. Other devices'
        // streams are captured from where they first wait for this one's, and it waits for them at the end.
        unsafe {
            let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
            check(sys::cuStreamBeginCapture_v2(stream, mode), "capturing a step")?;
            let started = self.tell(launches);
            let _ = self.first();
            let ended = check(sys::cuStreamEndCapture(stream, &raw mut graph), "capturing a step");
            started.and(ended)?;
            let made = check(sys::cuGraphInstantiateWithFlags(&raw mut exec, graph, 0), "making a graph");
            let _ = sys::cuGraphDestroy(graph);
            made?;
            check(sys::cuGraphUpload(exec, stream), "uploading a graph")?;
        }
        let mut graphs = lock(&self.graphs);
        graphs.push(exec);
        Ok(Graph(graphs.len() - 1))
    }

    fn replay(&self, graph: Graph) -> Result<()> {
        let stream = self.first()?.stream;
        let exec = lock(&self.graphs).get(graph.0).copied();
        let Some(exec) = exec else { return Err(Error::Gpu("a graph that was not captured".into())) };
        // SAFETY: the graph was instantiated here, and what it points to lives as long as the plan that it belongs to.
        check(unsafe { sys::cuGraphLaunch(exec, stream) }, "starting a graph")
    }

    fn fetch(&self, spans: &[(u64, usize)]) -> Result<Fetch> {
        let first = self.first()?;
        let all = spans.iter().map(|s| s.1).sum();
        let mut copies = lock(&self.copies);
        let landing = self.landing(&mut copies, all)?;
        let mut at = 0;
        for &(address, bytes) in spans {
            self.in_order(address, |device| {
                // SAFETY: the landing has room for all spans; whoever fetches has allocated them.
                let code = unsafe { sys::cuMemcpyDtoHAsync_v2(landing.place.byte_add(at), address, bytes, device.stream) };
                check(code, "a readback")
            })?;
            at += bytes;
        }
        // SAFETY: event and stream are this device's.
        check(unsafe { sys::cuEventRecord(landing.event, first.stream) }, "a readback")?;
        copies.next += 1;
        let id = copies.next;
        copies.under_way.insert(id, (landing, all));
        Ok(Fetch(id))
    }

    fn fetched(&self, fetch: Fetch) -> Result<Vec<u8>> {
        self.first()?;
        let found = lock(&self.copies).under_way.remove(&fetch.0);
        let Some((landing, bytes)) = found else { return Err(Error::Gpu("a readback that was not started".into())) };
        // SAFETY: the event is behind the copies; after it the bytes are the host's.
        let out = check(unsafe { sys::cuEventSynchronize(landing.event) }, "a readback")
            .map(|()| unsafe { std::slice::from_raw_parts(landing.place.cast::<u8>(), bytes) }.to_vec());
        lock(&self.copies).free.push(landing);
        out
    }

    fn forget(&self, fetch: Fetch) {
        // What is on its way must have landed before the place is used again.
        let _ = self.fetched(fetch);
    }

    fn time(&self, groups: &[&[Launch]], repetitions: usize) -> Result<Vec<f64>> {
        time::time(self, groups, repetitions)
    }
}

impl Drop for Nvidia {
    fn drop(&mut self) {
        let Ok(first) = self.first() else { return };
        // SAFETY: all of these were made here, and nobody uses them any more. The devices are closed after that.
        unsafe {
            let _ = sys::cuStreamSynchronize(first.stream);
            if let Some(aside) = lock(&self.aside).take() {
                aside.destroy();
            }
            for exec in lock(&self.graphs).drain(..) {
                let _ = sys::cuGraphExecDestroy(exec);
            }
            let mut copies = lock(&self.copies);
            let copies = &mut *copies;
            for landing in copies.free.drain(..).chain(copies.under_way.drain().map(|(_, (landing, _))| landing)) {
                let _ = sys::cuMemFreeHost(landing.place);
                let _ = sys::cuEventDestroy_v2(landing.event);
            }
            for (_, module, device) in lock(&self.kernels).loaded.drain(..) {
                if self.device(device).is_ok_and(|d| d.enter().is_ok()) {
                    let _ = sys::cuModuleUnload(module);
                }
            }
        }
    }
}
