//! NVIDIA's driver and compiler, found when the program runs.
//!
//! Libraries that are missing are errors that say so: nothing of either is called before it is known to be there.

mod compile;
mod host;
mod time;

use std::{
    collections::HashMap,
    ffi::{CStr, CString, c_char, c_int, c_void},
    ptr::{null, null_mut},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use cudarc::driver::sys::{self, CUresult};
use pleiad_shaders::cuda;

use super::driver::{DeviceInfo, Driver, Fetch, Function, Graph, Launch, Variant};
use crate::error::{Error, Result};

/// Shared memory that a block may have without being asked for.
const PLAIN_SHARED: u32 = 48 << 10;
/// The least compute capability: tensor cores for BF16.
const LEAST: (i32, i32) = (8, 0);

fn lock<T>(what: &Mutex<T>) -> MutexGuard<'_, T> {
    what.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the driver says of an error.
fn words(code: CUresult) -> String {
    let mut text: *const c_char = null();
    // SAFETY: the driver is loaded, and answers with a static text or leaves the pointer null.
    unsafe {
        let _ = sys::cuGetErrorString(code, &raw mut text);
        if text.is_null() { format!("{code:?}") } else { CStr::from_ptr(text).to_string_lossy().into_owned() }
    }
}

/// An error of the driver as ours. Those that end a context are a lost device.
fn check(code: CUresult, what: &str) -> Result<()> {
    match code {
        CUresult::CUDA_SUCCESS => Ok(()),
        CUresult::CUDA_ERROR_ILLEGAL_ADDRESS
        | CUresult::CUDA_ERROR_MISALIGNED_ADDRESS
        | CUresult::CUDA_ERROR_ILLEGAL_INSTRUCTION
        | CUresult::CUDA_ERROR_LAUNCH_FAILED
        | CUresult::CUDA_ERROR_LAUNCH_TIMEOUT
        | CUresult::CUDA_ERROR_HARDWARE_STACK_ERROR
        | CUresult::CUDA_ERROR_ECC_UNCORRECTABLE => Err(Error::DeviceLost(format!("{what}: {}", words(code)))),
        _ => Err(Error::Gpu(format!("CUDA, {what}: {}", words(code)))),
    }
}

/// Starts the driver.
fn start() -> Result<()> {
    // SAFETY: this only looks for the library.
    if !unsafe { sys::is_culib_present() } {
        let what = "the CUDA driver (libcuda, nvcuda) was not found; install NVIDIA's driver, or choose another --device";
        return Err(Error::Gpu(what.into()));
    }
    // SAFETY: the driver is there.
    check(unsafe { sys::cuInit(0) }, "starting the driver")
}

fn attribute(device: c_int, which: sys::CUdevice_attribute) -> Result<c_int> {
    let mut value = 0;
    // SAFETY: the driver is started, and writes one number.
    check(unsafe { sys::cuDeviceGetAttribute(&raw mut value, which, device) }, "asking for an attribute")?;
    Ok(value)
}

fn capability(device: c_int) -> Result<(i32, i32)> {
    use sys::CUdevice_attribute::{
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR as MAJOR, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR as MINOR,
    };
    Ok((attribute(device, MAJOR)?, attribute(device, MINOR)?))
}

fn describe(device: c_int) -> Result<DeviceInfo> {
    use sys::CUdevice_attribute::{
        CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN as SHARED, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT as PROCESSORS,
    };
    let mut name = [0 as c_char; 256];
    let mut memory = 0;
    // SAFETY: the driver is started; it ends the name within its 256 bytes, and writes one number.
    unsafe {
        check(sys::cuDeviceGetName(name.as_mut_ptr(), name.len() as c_int - 1, device), "asking for a name")?;
        check(sys::cuDeviceTotalMem_v2(&raw mut memory, device), "asking for the memory's size")?;
    }
    let (major, minor) = capability(device)?;
    // Some have instructions that only they have; kernels compiled with them run nowhere else.
    let own = if matches!((major, minor), (9, 0) | (10, 0)) { "a" } else { "" };
    // SAFETY: the last byte is zero.
    let name = unsafe { CStr::from_ptr(name.as_ptr()) }.to_string_lossy().into_owned();
    Ok(DeviceInfo {
        name,
        architecture: format!("sm_{major}{minor}{own}"),
        processors: attribute(device, PROCESSORS)?.max(1) as u32,
        memory: memory as u64,
        shared: attribute(device, SHARED)?.max(0) as u32,
    })
}

/// The CUDA devices of this machine.
///
/// # Errors
///
/// No driver, or one that fails.
pub fn devices() -> Result<Vec<DeviceInfo>> {
    start()?;
    let mut count = 0;
    // SAFETY: the driver is started, and writes one number.
    check(unsafe { sys::cuDeviceGetCount(&raw mut count) }, "counting devices")?;
    (0..count).map(describe).collect()
}

/// Opens the device of that index.
///
/// # Errors
///
/// No driver or compiler, no such device, or one that is too old.
pub fn open(index: usize) -> Result<Arc<dyn Driver>> {
    let all = devices()?;
    let Some(info) = all.get(index).cloned() else {
        let list: Vec<String> = all.iter().enumerate().map(|(i, d)| format!("cuda:{i} ({})", d.name)).collect();
        let available = if list.is_empty() { "none".into() } else { list.join(", ") };
        return Err(Error::NoAdapter { wanted: format!("cuda:{index}"), available });
    };
    let device = index as c_int;
    let (major, minor) = capability(device)?;
    if (major, minor) < LEAST {
        let (a, b) = LEAST;
        let what = format!("{} has compute capability {major}.{minor}; the CUDA backend needs {a}.{b}", info.name);
        return Err(Error::Gpu(what));
    }
    compile::find()?;
    let (mut context, mut stream) = (null_mut(), null_mut());
    // SAFETY: the driver is started; handles are written before they are used.
    unsafe {
        check(sys::cuDevicePrimaryCtxRetain(&raw mut context, device), "opening the device")?;
        check(sys::cuCtxSetCurrent(context), "opening the device")?;
        check(sys::cuStreamCreate(&raw mut stream, 1), "making a stream")?;
    }
    let (kernels, graphs, copies) = (Mutex::default(), Mutex::default(), Mutex::default());
    let (blocks, aside) = (Mutex::default(), Mutex::default());
    Ok(Arc::new(Nvidia { info, device, context, stream, kernels, graphs, copies, blocks, aside }))
}

#[derive(Default)]
struct Kernels {
    known: HashMap<Variant, usize>,
    /// Entry, and its module.
    loaded: Vec<(sys::CUfunction, sys::CUmodule)>,
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

/// An open device: its primary context and one stream.
struct Nvidia {
    info: DeviceInfo,
    device: c_int,
    context: sys::CUcontext,
    stream: sys::CUstream,
    kernels: Mutex<Kernels>,
    graphs: Mutex<Vec<sys::CUgraphExec>>,
    copies: Mutex<Copies>,
    blocks: Mutex<Vec<host::Block>>,
    aside: Mutex<Option<host::Aside>>,
}

// SAFETY: handles of the driver may be used by any thread that has made the context current, which every method does; what changes
// is behind locks.
unsafe impl Send for Nvidia {}
// SAFETY: as above.
unsafe impl Sync for Nvidia {}

impl Nvidia {
    /// Makes the context this thread's.
    fn enter(&self) -> Result<()> {
        // SAFETY: the context lives as long as `self`.
        check(unsafe { sys::cuCtxSetCurrent(self.context) }, "entering the device")
    }

    fn landing(&self, copies: &mut Copies, bytes: usize) -> Result<Landing> {
        if let Some(i) = copies.free.iter().position(|l| l.room >= bytes) {
            return Ok(copies.free.swap_remove(i));
        }
        let room = bytes.max(4096).next_power_of_two();
        let (mut place, mut event) = (null_mut(), null_mut());
        // SAFETY: handles are written before they are used. Flag 2: events without timing.
        unsafe {
            check(sys::cuMemHostAlloc(&raw mut place, room, 0), "page-locked memory")?;
            check(sys::cuEventCreate(&raw mut event, 2), "making an event")?;
        }
        Ok(Landing { place, room, event })
    }

    fn start(&self, launch: &Launch) -> Result<()> {
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
                self.stream,
                arguments.as_mut_ptr(),
                null_mut(),
            )
        };
        check(code, "starting a kernel")
    }
}

impl Driver for Nvidia {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn free_memory(&self) -> Option<u64> {
        self.enter().ok()?;
        let (mut free, mut total) = (0, 0);
        // SAFETY: the context is current; two numbers are written.
        check(unsafe { sys::cuMemGetInfo_v2(&raw mut free, &raw mut total) }, "asking for free memory").ok()?;
        Some(free as u64)
    }

    fn allocate(&self, what: &str, bytes: u64) -> Result<u64> {
        self.enter()?;
        let mut address = 0;
        // SAFETY: the context is current; the address is used after success only.
        match unsafe { sys::cuMemAlloc_v2(&raw mut address, bytes as usize) } {
            CUresult::CUDA_ERROR_OUT_OF_MEMORY => {
                Err(Error::OutOfMemory { what: format!("{what} on the GPU"), bytes, limit: self.free_memory() })
            }
            code => {
                check(code, what)?;
                // SAFETY: the buffer has so many bytes.
                check(unsafe { sys::cuMemsetD8Async(address, 0, bytes as usize, self.stream) }, what)?;
                Ok(address)
            }
        }
    }

    fn release(&self, address: u64) {
        // An error here has shown before, or will.
        if self.enter().is_ok() {
            // SAFETY: the buffer was allocated here, and is released once. The driver waits for what uses it.
            let _ = unsafe { sys::cuMemFree_v2(address) };
        }
    }

    fn write(&self, address: u64, data: &[u8]) -> Result<()> {
        self.enter()?;
        // SAFETY: whoever writes has allocated so much; pageable memory is read before the call returns.
        check(unsafe { sys::cuMemcpyHtoDAsync_v2(address, data.as_ptr().cast(), data.len(), self.stream) }, "an upload")
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

    fn function(&self, variant: &Variant) -> Result<Function> {
        if let Some(&known) = lock(&self.kernels).known.get(variant) {
            return Ok(Function(known));
        }
        self.enter()?;
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
        let (function, module) = match compile::kept(&text, &self.info.architecture).map(|image| load(&image)) {
            Some(Ok(loaded)) => loaded,
            _ => load(&compile::compile(&label, &text, &self.info.architecture)?)?,
        };
        let mut fixed = 0;
        let shared = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES;
        let dynamic = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        // SAFETY: the function was loaded; one number is written.
        unsafe {
            check(sys::cuFuncGetAttribute(&raw mut fixed, shared, function), &label)?;
            if self.info.shared > PLAIN_SHARED && variant.kernel == "attend" {
                check(sys::cuFuncSetAttribute(function, dynamic, self.info.shared as c_int - fixed), &label)?;
            }
        }
        let mut kernels = lock(&self.kernels);
        kernels.loaded.push((function, module));
        let index = kernels.loaded.len() - 1;
        kernels.known.insert(variant.clone(), index);
        Ok(Function(index))
    }

    fn launch(&self, launch: &Launch) -> Result<()> {
        self.enter()?;
        self.start(launch)
    }

    fn capture(&self, launches: &[Launch]) -> Result<Graph> {
        self.enter()?;
        let (mut graph, mut exec) = (null_mut(), null_mut());
        // SAFETY: the stream is this device's; nothing but launches happens between begin and end.
        unsafe {
            let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
            check(sys::cuStreamBeginCapture_v2(self.stream, mode), "capturing a step")?;
            let started = launches.iter().try_for_each(|l| self.start(l));
            let ended = check(sys::cuStreamEndCapture(self.stream, &raw mut graph), "capturing a step");
            started.and(ended)?;
            let made = check(sys::cuGraphInstantiateWithFlags(&raw mut exec, graph, 0), "making a graph");
            let _ = sys::cuGraphDestroy(graph);
            made?;
            check(sys::cuGraphUpload(exec, self.stream), "uploading a graph")?;
        }
        let mut graphs = lock(&self.graphs);
        graphs.push(exec);
        Ok(Graph(graphs.len() - 1))
    }

    fn replay(&self, graph: Graph) -> Result<()> {
        self.enter()?;
        let exec = lock(&self.graphs).get(graph.0).copied();
        let Some(exec) = exec else { return Err(Error::Gpu("a graph that was not captured".into())) };
        // SAFETY: the graph was instantiated here, and what it points to lives as long as the plan that it belongs to.
        check(unsafe { sys::cuGraphLaunch(exec, self.stream) }, "starting a graph")
    }

    fn fetch(&self, spans: &[(u64, usize)]) -> Result<Fetch> {
        self.enter()?;
        let all = spans.iter().map(|s| s.1).sum();
        let mut copies = lock(&self.copies);
        let landing = self.landing(&mut copies, all)?;
        let mut at = 0;
        for &(address, bytes) in spans {
            // SAFETY: the landing has room for all spans; whoever fetches has allocated them.
            let code = unsafe { sys::cuMemcpyDtoHAsync_v2(landing.place.byte_add(at), address, bytes, self.stream) };
            check(code, "a readback")?;
            at += bytes;
        }
        // SAFETY: event and stream are this device's.
        check(unsafe { sys::cuEventRecord(landing.event, self.stream) }, "a readback")?;
        copies.next += 1;
        let id = copies.next;
        copies.under_way.insert(id, (landing, all));
        Ok(Fetch(id))
    }

    fn fetched(&self, fetch: Fetch) -> Result<Vec<u8>> {
        self.enter()?;
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
        if self.enter().is_err() {
            return;
        }
        // SAFETY: all of these were made here, and nobody uses them any more.
        unsafe {
            let _ = sys::cuStreamSynchronize(self.stream);
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
            for (_, module) in lock(&self.kernels).loaded.drain(..) {
                let _ = sys::cuModuleUnload(module);
            }
            let _ = sys::cuStreamDestroy_v2(self.stream);
            let _ = sys::cuDevicePrimaryCtxRelease_v2(self.device);
        }
    }
}
