//! NVIDIA's devices: what there are, and what is open of one.

use std::{
    ffi::{CStr, c_char, c_int},
    ptr::{null, null_mut},
    sync::{Mutex, PoisonError},
};

use cudarc::driver::sys::{self, CUresult};

use crate::{
    cuda::driver::DeviceInfo,
    error::{Error, Result},
};

/// The least compute capability: tensor cores for BF16.
const LEAST: (i32, i32) = (8, 0);

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
pub(super) fn check(code: CUresult, what: &str) -> Result<()> {
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

/// An open device: its primary context and a stream.
pub(super) struct Device {
    pub info: DeviceInfo,
    index: c_int,
    context: sys::CUcontext,
    pub stream: sys::CUstream,
    /// Those of a list of commands that this device records, by their number in the list; made when they are first needed.
    events: Mutex<Vec<sys::CUevent>>,
}

impl Device {
    /// Opens the device of that index among `all`.
    pub fn open(all: &[DeviceInfo], index: usize) -> Result<Self> {
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
        let mut made = Self { info, index: device, context: null_mut(), stream: null_mut(), events: Mutex::default() };
        // SAFETY: the driver is started; handles are written before they are used.
        unsafe {
            check(sys::cuDevicePrimaryCtxRetain(&raw mut made.context, device), "opening the device")?;
            made.enter()?;
            check(sys::cuStreamCreate(&raw mut made.stream, 1), "making a stream")?;
        }
        Ok(made)
    }

    /// Makes the context this thread's.
    pub fn enter(&self) -> Result<()> {
        // SAFETY: the context lives as long as `self`.
        check(unsafe { sys::cuCtxSetCurrent(self.context) }, "entering the device")
    }

    /// Lets this device's kernels use the memory of another one.
    pub fn see(&self, other: &Self) -> Result<()> {
        let mut can = 0;
        // SAFETY: the driver is started, and writes one number.
        let asked = unsafe { sys::cuDeviceCanAccessPeer(&raw mut can, self.index, other.index) };
        check(asked, "asking whether devices see each other's memory")?;
        if can == 0 {
            let of = |d: &Self| format!("cuda:{} ({})", d.index, d.info.name);
            return Err(super::super::no_access(&of(self), &of(other)));
        }
        self.enter()?;
        // SAFETY: both contexts are open.
        match unsafe { sys::cuCtxEnablePeerAccess(other.context, 0) } {
            CUresult::CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED => Ok(()),
            code => check(code, "letting devices see each other's memory"),
        }
    }

    /// Records the event of that number behind what the stream was told so far.
    pub fn record(&self, event: usize) -> Result<()> {
        self.enter()?;
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        while events.len() <= event {
            let mut made = null_mut();
            // SAFETY: the context is current; the handle is used after success only. Flag 2: events without timing.
            check(unsafe { sys::cuEventCreate(&raw mut made, 2) }, "making an event")?;
            events.push(made);
        }
        // SAFETY: event and stream are this device's.
        check(unsafe { sys::cuEventRecord(events[event], self.stream) }, "recording an event")
    }

    /// What this device is told from now on waits for an event that `other` has recorded.
    pub fn wait(&self, other: &Self, event: usize) -> Result<()> {
        self.enter()?;
        let event = other.events.lock().unwrap_or_else(PoisonError::into_inner).get(event).copied();
        let Some(event) = event else { return Err(Error::Gpu("an event that was not recorded".into())) };
        // SAFETY: streams may wait for events of any device.
        check(unsafe { sys::cuStreamWaitEvent(self.stream, event, 0) }, "waiting for an event")
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        if self.context.is_null() || self.enter().is_err() {
            return;
        }
        // SAFETY: all of these were made here, and nobody uses them any more.
        unsafe {
            for event in self.events.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
                let _ = sys::cuEventDestroy_v2(event);
            }
            if !self.stream.is_null() {
                let _ = sys::cuStreamDestroy_v2(self.stream);
            }
            let _ = sys::cuDevicePrimaryCtxRelease_v2(self.index);
        }
    }
}
