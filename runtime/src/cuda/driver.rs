//! What the CUDA backend asks of a device, or of several in one machine. NVIDIA's driver is one implementation; the tests have
//! others, which need no GPU.

use std::sync::Arc;

use pleiad_shaders::Defines;

use crate::error::{Error, Result};

/// What a device is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceInfo {
    /// Its name.
    pub name: String,
    /// Its architecture, as compilers call it: `sm_90`.
    pub architecture: String,
    /// Streaming multiprocessors.
    pub processors: u32,
    /// Bytes of memory.
    pub memory: u64,
    /// Most bytes of shared memory of a block.
    pub shared: u32,
}

/// A kernel's name and defines.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Variant {
    /// The name.
    pub kernel: &'static str,
    /// Its defines.
    pub defines: Defines,
}

/// A variant that the device has loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Function(pub usize);

/// What a launch does with a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Use {
    /// It reads.
    Read,
    /// It writes, or does both.
    Write,
    /// It writes elements that others which write parts leave alone.
    Part,
}

/// A buffer that a launch uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Touch {
    /// The buffer's address.
    pub address: u64,
    /// What for.
    pub how: Use,
}

/// A kernel's launch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// Where: an index into [`Driver::devices`].
    pub device: usize,
    /// What runs.
    pub function: Function,
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub threads: u32,
    /// Bytes of dynamic shared memory.
    pub shared: u32,
    /// The kernel's argument: see [`pleiad_shaders::cuda::arguments`].
    pub arguments: Arc<[u8]>,
    /// The buffers that it points to: what orders launches on several devices.
    pub touches: Arc<[Touch]>,
}

/// Launches that were captured, to be replayed as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Graph(pub usize);

/// Copies to the host that are under way.
#[derive(Debug, PartialEq, Eq)]
pub struct Fetch(pub u64);

/// One device, or several in one machine that see each other's memory: an address means the same to all of them.
///
/// Each device has a stream. What is asked for happens in order, as if there were one stream, but for the launches of one list:
/// see [`crate::cuda::order`], and for uploads made aside. Every method may fail with the driver's error; none panics on what a driver does.
pub trait Driver: Send + Sync {
    /// What the first device is.
    fn info(&self) -> &DeviceInfo;

    /// What they all are.
    fn devices(&self) -> &[DeviceInfo] {
        std::slice::from_ref(self.info())
    }

    /// Bytes of a device's memory that are free, where the driver tells.
    fn free_memory(&self, device: usize) -> Option<u64>;

    /// Makes a buffer of `bytes` bytes of zeros in a device's memory; `what` names it in errors. Addresses are multiples of 256.
    fn allocate(&self, device: usize, what: &str, bytes: u64) -> Result<u64>;

    /// Gives a buffer back, once what uses it is done.
    fn release(&self, address: u64);

    /// Writes to a buffer; `data` may be reused at once.
    fn write(&self, address: u64, data: &[u8]) -> Result<()>;

    /// Makes page-locked memory of the host, `bytes` bytes of zeros, that kernels of every device read at the address returned;
    /// `what` names it in errors.
    fn allocate_host(&self, what: &str, bytes: u64) -> Result<u64>;

    /// Gives host memory back, once what uses it is done.
    fn release_host(&self, address: u64);

    /// Writes to host memory at once: nothing that runs may read there.
    fn write_host(&self, address: u64, data: &[u8]) -> Result<()>;

    /// Writes to a buffer beside what runs: once all that was asked for before the last [`join_uploads`](Self::join_uploads) is
    /// done, and while what was asked for since goes on. `data` may be reused at once.
    fn upload_aside(&self, address: u64, data: &[u8]) -> Result<()>;

    /// What is asked for from now on waits for the uploads made aside so far.
    fn join_uploads(&self) -> Result<()>;

    /// Loads a variant on a device.
    fn function(&self, device: usize, variant: &Variant) -> Result<Function>;

    /// Starts a list of kernels.
    fn launch(&self, launches: &[Launch]) -> Result<()>;

    /// Makes one graph of a list of launches.
    fn capture(&self, launches: &[Launch]) -> Result<Graph>;

    /// Starts a graph.
    fn replay(&self, graph: Graph) -> Result<()>;

    /// Starts copying these spans (address, bytes) to the host.
    fn fetch(&self, spans: &[(u64, usize)]) -> Result<Fetch>;

    /// Waits for copies: their bytes, one span after the other.
    fn fetched(&self, fetch: Fetch) -> Result<Vec<u8>>;

    /// Gives copies up.
    fn forget(&self, fetch: Fetch);

    /// Seconds that each group of launches takes, one group behind the other as in a graph: medians of `repetitions` runs after
    /// one to warm up. For benchmarks.
    ///
    /// # Errors
    ///
    /// A device without a clock, or an error of the driver.
    fn time(&self, _groups: &[&[Launch]], _repetitions: usize) -> Result<Vec<f64>> {
        Err(Error::Gpu("this device has no clock".into()))
    }
}

/// A buffer on a device, given back when it is dropped.
pub struct Memory {
    driver: Arc<dyn Driver>,
    /// Its address.
    pub address: u64,
    /// Its bytes.
    pub bytes: u64,
}

impl Memory {
    /// A buffer of at least one byte on the first device.
    pub fn new(driver: &Arc<dyn Driver>, what: &str, bytes: u64) -> Result<Self> {
        Self::on(driver, 0, what, bytes)
    }

    /// A buffer of at least one byte on that device.
    pub fn on(driver: &Arc<dyn Driver>, device: usize, what: &str, bytes: u64) -> Result<Self> {
        let bytes = bytes.max(16).next_multiple_of(16);
        Ok(Self { driver: Arc::clone(driver), address: driver.allocate(device, what, bytes)?, bytes })
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.driver.release(self.address);
    }
}

/// Page-locked memory of the host that kernels read, given back when it is dropped.
pub struct HostMemory {
    driver: Arc<dyn Driver>,
    /// Its address for kernels.
    pub address: u64,
    /// Its bytes.
    pub bytes: u64,
}

impl HostMemory {
    /// Memory of at least one byte.
    pub fn new(driver: &Arc<dyn Driver>, what: &str, bytes: u64) -> Result<Self> {
        let bytes = bytes.max(16).next_multiple_of(16);
        Ok(Self { driver: Arc::clone(driver), address: driver.allocate_host(what, bytes)?, bytes })
    }

    /// Writes from byte `at` on: nothing that runs may read there.
    ///
    /// # Errors
    ///
    /// More than there is room for, or an error of the driver.
    pub fn write(&self, at: u64, data: &[u8]) -> Result<()> {
        if at.checked_add(data.len() as u64).is_none_or(|end| end > self.bytes) {
            let what = format!("{} bytes from {at} on in host memory of {} bytes", data.len(), self.bytes);
            return Err(Error::Invalid(what));
        }
        self.driver.write_host(self.address + at, data)
    }
}

impl Drop for HostMemory {
    fn drop(&mut self) {
        self.driver.release_host(self.address);
    }
}
