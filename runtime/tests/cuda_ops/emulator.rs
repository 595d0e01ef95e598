//! Devices without a GPU: the CUDA kernels, compiled by the system's C++ compiler behind `emulated.h`.
//!
//! What streams are told waits in queues until somebody waits for a result; then it runs in one of the orders that real devices may
//! take: the stream of highest rank that is not waiting for an event goes on, one command at a time. Of two launches that nothing
//! orders, either comes first under some ranking, so a missing event shows as a wrong result.

use std::{
    alloc::{Layout, alloc, dealloc},
    collections::{HashMap, HashSet, VecDeque},
    hash::{DefaultHasher, Hash, Hasher},
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use libloading::Library;
use pleiad_runtime::{
    Error, Result,
    cuda::{
        driver::{DeviceInfo, Driver, Fetch, Function, Graph, Launch, Variant},
        order::{self, Command},
    },
};
use pleiad_shaders::cuda;

/// Bytes behind every buffer that nobody may change.
const GUARD: usize = 256;
const PATTERN: u8 = 0xcb;
/// Bytes of dynamic shared memory.
const SHARED: u32 = 99 << 10;

type Run = unsafe extern "C" fn(*const u8, u32, u32, u32) -> i32;

/// A kernel's library; its block is one at a time.
struct Loaded {
    library: Mutex<Library>,
}

/// Compiled kernels of this process, by the hash of their text.
static LOADED: Mutex<Option<HashMap<u64, Arc<Loaded>>>> = Mutex::new(None);

/// The compiler, if there is one.
pub fn compiler() -> Option<&'static str> {
    let works = |c: &&str| std::process::Command::new(c).arg("--version").output().is_ok_and(|o| o.status.success());
    if cfg!(target_os = "linux") { ["g++", "clang++"].into_iter().find(works) } else { None }
}

/// What a stream was told.
enum Task {
    Launch(Launch),
    Record(u64),
    Wait(u64),
    Write(u64, Vec<u8>),
    Read(u64, Vec<(u64, usize)>),
}

/// One queue a device; events that are over; how many there were.
#[derive(Default)]
struct Streams {
    queues: Vec<VecDeque<Task>>,
    over: HashSet<u64>,
    events: u64,
}

/// Emulated devices that see each other's memory.
pub struct Emulator {
    infos: Vec<DeviceInfo>,
    compiler: &'static str,
    /// With the device that each was loaded on.
    variants: Mutex<Vec<(usize, Variant)>>,
    graphs: Mutex<Vec<Vec<Launch>>>,
    /// Bytes and device of each.
    buffers: Mutex<HashMap<u64, (usize, usize)>>,
    fetches: Mutex<(u64, HashMap<u64, Vec<u8>>)>,
    streams: Mutex<Streams>,
    /// Which ranking of streams is next, and how far it is from the one after.
    ranking: AtomicUsize,
    pace: AtomicUsize,
    /// Launches of each device.
    launched: Vec<AtomicU64>,
    /// A wait of each list that is left out, counted from 0.
    left_out: Mutex<Option<usize>>,
    /// Uploads made aside: they land as late as they may, so that a step that does not wait for them shows.
    aside: Mutex<Vec<(u64, Vec<u8>)>>,
}

impl Emulator {
    pub fn new(compiler: &'static str) -> Self {
        Self::several(compiler, &[1 << 32])
    }

    /// Devices with so many bytes of memory.
    pub fn several(compiler: &'static str, memory: &[u64]) -> Self {
        let info = |&memory: &u64| DeviceInfo {
            name: "emulated".into(),
            architecture: "emulated".into(),
            processors: 3,
            memory,
            shared: SHARED,
        };
        let queues = memory.iter().map(|_| VecDeque::new()).collect();
        Self {
            infos: memory.iter().map(info).collect(),
            compiler,
            variants: Mutex::default(),
            graphs: Mutex::default(),
            buffers: Mutex::default(),
            fetches: Mutex::default(),
            streams: Mutex::new(Streams { queues, ..Streams::default() }),
            ranking: AtomicUsize::new(0),
            pace: AtomicUsize::new(1),
            launched: memory.iter().map(|_| AtomicU64::new(0)).collect(),
            left_out: Mutex::new(None),
            aside: Mutex::default(),
        }
    }

    /// Buffers in use.
    pub fn buffers(&self) -> usize {
        self.buffers.lock().unwrap().len()
    }

    /// Bytes in use on a device.
    pub fn bytes(&self, device: usize) -> usize {
        self.buffers.lock().unwrap().values().filter(|b| b.1 == device).map(|b| b.0).sum()
    }

    /// Graphs made.
    pub fn graphs(&self) -> usize {
        self.graphs.lock().unwrap().len()
    }

    /// Launches that each device has run.
    pub fn launched(&self) -> Vec<u64> {
        self.launched.iter().map(|n| n.load(Ordering::Relaxed)).collect()
    }

    /// Leaves a wait of every list to come out: a mistake that tests must notice.
    pub fn leave_out(&self, wait: Option<usize>) {
        *self.left_out.lock().unwrap() = wait;
    }

    /// Takes the ranking of that number for what runs next, and those after it from then on.
    pub fn rank(&self, ranking: usize) {
        self.drain();
        self.ranking.store(ranking, Ordering::Relaxed);
    }

    /// Keeps to one ranking.
    pub fn keep_ranking(&self, keep: bool) {
        self.pace.store(usize::from(!keep), Ordering::Relaxed);
    }

    /// Streams from the highest rank to the lowest: all permutations in turn.
    fn ranked(&self) -> Vec<usize> {
        let mut number = self.ranking.fetch_add(self.pace.load(Ordering::Relaxed), Ordering::Relaxed);
        let mut left: Vec<usize> = (0..self.infos.len()).collect();
        let mut order = Vec::new();
        while !left.is_empty() {
            let n = left.len();
            order.push(left.remove(number % n));
            number /= n;
        }
        order
    }

    fn tell(&self, device: usize, task: Task) {
        self.streams.lock().unwrap().queues[device].push_back(task);
    }

    /// Tells the streams to run a list.
    fn enqueue(&self, launches: &[Launch]) {
        let mut streams = self.streams.lock().unwrap();
        let commands = order::commands(launches);
        let first = streams.events;
        streams.events += order::events(&commands) as u64;
        let left_out = *self.left_out.lock().unwrap();
        let mut waits = 0;
        for command in commands {
            let (device, task) = match command {
                Command::Launch(index) => (launches[index].device, Task::Launch(launches[index].clone())),
                Command::Record { device, event } => (device, Task::Record(first + event as u64)),
                Command::Wait { device, event } => {
                    waits += 1;
                    if left_out == Some(waits - 1) {
                        continue;
                    }
                    (device, Task::Wait(first + event as u64))
                }
            };
            streams.queues[device].push_back(task);
        }
    }

    /// Runs all that streams were told.
    fn drain(&self) {
        let mut streams = self.streams.lock().unwrap_or_else(|e| e.into_inner());
        let ranked = self.ranked();
        loop {
            let ready = |streams: &Streams, device: usize| match streams.queues[device].front() {
                None => false,
                Some(Task::Wait(event)) => streams.over.contains(event),
                Some(_) => true,
            };
            let Some(&device) = ranked.iter().find(|&&d| ready(&streams, d)) else { break };
            match streams.queues[device].pop_front().unwrap() {
                Task::Launch(launch) => self.run(&launch),
                Task::Record(event) => drop(streams.over.insert(event)),
                Task::Wait(_) => {}
                // SAFETY: whoever writes to an address has allocated it.
                Task::Write(address, data) => unsafe {
                    std::ptr::copy_nonoverlapping(data.as_ptr(), address as *mut u8, data.len());
                },
                Task::Read(id, spans) => {
                    // SAFETY: whoever reads from an address has allocated it.
                    let bytes = |&(address, n): &(u64, usize)| unsafe { std::slice::from_raw_parts(address as *const u8, n) };
                    let all = spans.iter().flat_map(bytes).copied().collect();
                    self.fetches.lock().unwrap().1.insert(id, all);
                }
            }
        }
        assert!(streams.queues.iter().all(VecDeque::is_empty), "streams wait for ever");
        streams.over.clear();
    }

    fn run(&self, launch: &Launch) {
        let (device, variant) = self.variants.lock().unwrap()[launch.function.0].clone();
        assert_eq!(device, launch.device, "{variant:?} was loaded on another device");
        assert!(launch.shared <= SHARED && launch.grid[1] <= 65_535 && launch.grid[2] <= 65_535, "{variant:?} {launch:?}");
        assert_eq!(launch.threads, cuda::kernel(variant.kernel).unwrap().threads(&variant.defines));
        self.launched[device].fetch_add(1, Ordering::Relaxed);
        let loaded = self.load(&variant);
        let library = loaded.library.lock().unwrap_or_else(|e| e.into_inner());
        let [x, y, z] = launch.grid;
        // Arguments are aligned as the struct is.
        let mut words = vec![0u64; launch.arguments.len().div_ceil(8)];
        bytemuck::cast_slice_mut(&mut words)[..launch.arguments.len()].copy_from_slice(&launch.arguments);
        // SAFETY: the function has this type, and its argument is the struct that the kernel's text declares.
        let done = unsafe { library.get::<Run>(b"emulated_launch").unwrap()(words.as_ptr().cast(), x, y, z) };
        assert_eq!(done, 0, "threads of {variant:?} wait for ever");
    }

    fn text(variant: &Variant) -> String {
        let source = cuda::source(variant.kernel, &variant.defines).unwrap();
        let dynamic = format!("static __attribute__((aligned(16))) uint4 memory[{}];", SHARED / 16);
        let source = source.replace("extern __shared__ uint4 memory[];", &dynamic);
        let entry = cuda::entry(variant.kernel);
        format!("{}\n{source}\n#define ENTRY {entry}\n{}", include_str!("emulated.h"), include_str!("footer.h"))
    }

    fn load(&self, variant: &Variant) -> Arc<Loaded> {
        let text = Self::text(variant);
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        let hash = hasher.finish();
        if let Some(loaded) = LOADED.lock().unwrap().get_or_insert_default().get(&hash) {
            return Arc::clone(loaded);
        }
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cuda-emulated");
        std::fs::create_dir_all(&folder).unwrap();
        let library = folder.join(format!("{}-{hash:016x}.so", variant.kernel));
        if !library.exists() {
            self.build(variant, &text, &library);
        }
        // SAFETY: the library is the kernel's alone and does nothing when it is loaded.
        let library = Mutex::new(unsafe { Library::new(&library) }.unwrap());
        let mut all = LOADED.lock().unwrap();
        // Of two threads that compiled the same the first one counts.
        Arc::clone(all.get_or_insert_default().entry(hash).or_insert_with(|| Arc::new(Loaded { library })))
    }

    fn build(&self, variant: &Variant, text: &str, library: &Path) {
        let unique = format!("{:?}", std::thread::current().id()).replace(|c: char| !c.is_alphanumeric(), "");
        let place = library.with_extension(format!("{}.{unique}", std::process::id()));
        let (source, made) = (place.with_added_extension("cpp"), place.with_added_extension("so"));
        std::fs::write(&source, text).unwrap();
        let flags = ["-std=c++17", "-O1", "-w", "-shared", "-fPIC", "-U_FORTIFY_SOURCE", "-fno-stack-protector", "-o"];
        let out = std::process::Command::new(self.compiler).args(flags).arg(&made).arg(&source).output().unwrap();
        let words = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "{variant:?}: {}", words.lines().take(20).collect::<Vec<_>>().join("\n"));
        std::fs::rename(&made, library).unwrap();
        let _ = std::fs::remove_file(&source);
    }
}

fn layout(bytes: usize) -> Layout {
    Layout::from_size_align(bytes + GUARD, 256).unwrap()
}

impl Driver for Emulator {
    fn info(&self) -> &DeviceInfo {
        &self.infos[0]
    }

    fn devices(&self) -> &[DeviceInfo] {
        &self.infos
    }

    fn free_memory(&self, device: usize) -> Option<u64> {
        Some(self.infos[device].memory.saturating_sub(self.bytes(device) as u64))
    }

    fn allocate(&self, device: usize, what: &str, bytes: u64) -> Result<u64> {
        let limit = self.free_memory(device);
        if limit.is_some_and(|free| bytes > free) {
            return Err(Error::OutOfMemory { what: what.to_owned(), bytes, limit });
        }
        let bytes = bytes as usize;
        // SAFETY: the layout has a size, and all of it is written before anybody reads.
        let address = unsafe {
            let p = alloc(layout(bytes));
            std::ptr::write_bytes(p, 0, bytes);
            std::ptr::write_bytes(p.add(bytes), PATTERN, GUARD);
            p as u64
        };
        self.buffers.lock().unwrap().insert(address, (bytes, device));
        Ok(address)
    }

    fn release(&self, address: u64) {
        if !std::thread::panicking() {
            self.drain();
        }
        let (bytes, _) = self.buffers.lock().unwrap().remove(&address).expect("a buffer is released once");
        // What was never waited for lands nowhere.
        self.aside.lock().unwrap().retain(|(to, _)| !(address..address + bytes as u64).contains(to));
        // SAFETY: it was allocated with this layout, and nobody uses it any more.
        let guard = unsafe { std::slice::from_raw_parts((address as *const u8).add(bytes), GUARD) };
        let whole = guard.iter().all(|&b| b == PATTERN);
        // SAFETY: as above.
        unsafe { dealloc(address as *mut u8, layout(bytes)) };
        assert!(whole || std::thread::panicking(), "a kernel wrote beyond a buffer of {bytes} bytes");
    }

    fn write(&self, address: u64, data: &[u8]) -> Result<()> {
        self.tell(0, Task::Write(address, data.to_vec()));
        Ok(())
    }

    fn allocate_host(&self, what: &str, bytes: u64) -> Result<u64> {
        self.allocate(0, what, bytes)
    }

    fn release_host(&self, address: u64) {
        self.release(address);
    }

    fn write_host(&self, address: u64, data: &[u8]) -> Result<()> {
        self.write(address, data)
    }

    fn upload_aside(&self, address: u64, data: &[u8]) -> Result<()> {
        self.aside.lock().unwrap().push((address, data.to_vec()));
        Ok(())
    }

    fn join_uploads(&self) -> Result<()> {
        let landed = std::mem::take(&mut *self.aside.lock().unwrap());
        landed.iter().try_for_each(|(address, data)| self.write(*address, data))
    }

    fn function(&self, device: usize, variant: &Variant) -> Result<Function> {
        cuda::source(variant.kernel, &variant.defines)?;
        let mut variants = self.variants.lock().unwrap();
        variants.push((device, variant.clone()));
        Ok(Function(variants.len() - 1))
    }

    fn launch(&self, launches: &[Launch]) -> Result<()> {
        self.enqueue(launches);
        Ok(())
    }

    fn capture(&self, launches: &[Launch]) -> Result<Graph> {
        let mut graphs = self.graphs.lock().unwrap();
        graphs.push(launches.to_vec());
        Ok(Graph(graphs.len() - 1))
    }

    fn replay(&self, graph: Graph) -> Result<()> {
        let launches = self.graphs.lock().unwrap()[graph.0].clone();
        self.enqueue(&launches);
        Ok(())
    }

    fn fetch(&self, spans: &[(u64, usize)]) -> Result<Fetch> {
        let mut fetches = self.fetches.lock().unwrap();
        fetches.0 += 1;
        self.tell(0, Task::Read(fetches.0, spans.to_vec()));
        Ok(Fetch(fetches.0))
    }

    fn fetched(&self, fetch: Fetch) -> Result<Vec<u8>> {
        self.drain();
        Ok(self.fetches.lock().unwrap().1.remove(&fetch.0).expect("a copy is fetched once"))
    }

    fn forget(&self, fetch: Fetch) {
        if !std::thread::panicking() {
            self.drain();
        }
        self.fetches.lock().unwrap().1.remove(&fetch.0);
    }

    fn time(&self, groups: &[&[Launch]], repetitions: usize) -> Result<Vec<f64>> {
        let mut runs = Vec::new();
        for _ in 0..repetitions {
            let mut run = Vec::new();
            for group in groups {
                let start = std::time::Instant::now();
                self.launch(group)?;
                self.drain();
                run.push(start.elapsed().as_secs_f64());
            }
            runs.push(run);
        }
        Ok(pleiad_runtime::cuda::profile::medians(&runs))
    }
}
