//! A device without a GPU: the CUDA kernels, compiled by the system's C++ compiler behind `emulated.h`.

use std::{
    alloc::{Layout, alloc, dealloc},
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    path::Path,
    process::Command,
    sync::{Arc, Mutex},
};

use libloading::Library;
use pleiad_runtime::{
    Error, Result,
    cuda::driver::{DeviceInfo, Driver, Fetch, Function, Graph, Launch, Variant},
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
    let works = |c: &&str| Command::new(c).arg("--version").output().is_ok_and(|o| o.status.success());
    if cfg!(target_os = "linux") { ["g++", "clang++"].into_iter().find(works) } else { None }
}

/// An emulated device.
pub struct Emulator {
    info: DeviceInfo,
    compiler: &'static str,
    variants: Mutex<Vec<Variant>>,
    graphs: Mutex<Vec<Vec<Launch>>>,
    buffers: Mutex<HashMap<u64, usize>>,
    fetches: Mutex<(u64, HashMap<u64, Vec<u8>>)>,
    /// Uploads made aside: they land as late as they may, so that a step that does not wait for them shows.
    aside: Mutex<Vec<(u64, Vec<u8>)>>,
}

impl Emulator {
    pub fn new(compiler: &'static str) -> Self {
        let info = DeviceInfo {
            name: "emulated".into(),
            architecture: "emulated".into(),
            processors: 3,
            memory: 1 << 32,
            shared: SHARED,
        };
        Self {
            info,
            compiler,
            variants: Mutex::default(),
            graphs: Mutex::default(),
            buffers: Mutex::default(),
            fetches: Mutex::default(),
            aside: Mutex::default(),
        }
    }

    /// Buffers in use.
    pub fn buffers(&self) -> usize {
        self.buffers.lock().unwrap().len()
    }

    /// Graphs made.
    pub fn graphs(&self) -> usize {
        self.graphs.lock().unwrap().len()
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
        let out = Command::new(self.compiler).args(flags).arg(&made).arg(&source).output().unwrap();
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
        &self.info
    }

    fn free_memory(&self) -> Option<u64> {
        Some(self.info.memory)
    }

    fn allocate(&self, what: &str, bytes: u64) -> Result<u64> {
        if bytes > self.info.memory {
            return Err(Error::OutOfMemory { what: what.to_owned(), bytes, limit: Some(self.info.memory) });
        }
        let bytes = bytes as usize;
        // SAFETY: the layout has a size, and all of it is written before anybody reads.
        let address = unsafe {
            let p = alloc(layout(bytes));
            std::ptr::write_bytes(p, 0, bytes);
            std::ptr::write_bytes(p.add(bytes), PATTERN, GUARD);
            p as u64
        };
        self.buffers.lock().unwrap().insert(address, bytes);
        Ok(address)
    }

    fn release(&self, address: u64) {
        let bytes = self.buffers.lock().unwrap().remove(&address).expect("a buffer is released once");
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
        // SAFETY: whoever writes to an address has allocated it.
        unsafe { std::ptr::copy_nonoverlapping(data.as_ptr(), address as *mut u8, data.len()) };
        Ok(())
    }

    fn allocate_host(&self, what: &str, bytes: u64) -> Result<u64> {
        self.allocate(what, bytes)
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

    fn function(&self, variant: &Variant) -> Result<Function> {
        cuda::source(variant.kernel, &variant.defines)?;
        let mut variants = self.variants.lock().unwrap();
        variants.push(variant.clone());
        Ok(Function(variants.len() - 1))
    }

    fn launch(&self, launch: &Launch) -> Result<()> {
        let variant = self.variants.lock().unwrap()[launch.function.0].clone();
        assert!(launch.shared <= SHARED && launch.grid[1] <= 65_535 && launch.grid[2] <= 65_535, "{variant:?} {launch:?}");
        assert_eq!(launch.threads, cuda::kernel(variant.kernel).unwrap().threads(&variant.defines));
        let loaded = self.load(&variant);
        let library = loaded.library.lock().unwrap_or_else(|e| e.into_inner());
        let [x, y, z] = launch.grid;
        // Arguments are aligned as the struct is.
        let mut words = vec![0u64; launch.arguments.len().div_ceil(8)];
        bytemuck::cast_slice_mut(&mut words)[..launch.arguments.len()].copy_from_slice(&launch.arguments);
        // SAFETY: the function has this type, and its argument is the struct that the kernel's text declares.
        let done = unsafe { library.get::<Run>(b"emulated_launch").unwrap()(words.as_ptr().cast(), x, y, z) };
        assert_eq!(done, 0, "threads of {variant:?} wait for ever");
        Ok(())
    }

    fn capture(&self, launches: &[Launch]) -> Result<Graph> {
        let mut graphs = self.graphs.lock().unwrap();
        graphs.push(launches.to_vec());
        Ok(Graph(graphs.len() - 1))
    }

    fn replay(&self, graph: Graph) -> Result<()> {
        let launches = self.graphs.lock().unwrap()[graph.0].clone();
        launches.iter().try_for_each(|l| self.launch(l))
    }

    fn fetch(&self, spans: &[(u64, usize)]) -> Result<Fetch> {
        let mut bytes = Vec::new();
        for &(address, n) in spans {
            // SAFETY: whoever reads from an address has allocated it.
            bytes.extend_from_slice(unsafe { std::slice::from_raw_parts(address as *const u8, n) });
        }
        let mut fetches = self.fetches.lock().unwrap();
        fetches.0 += 1;
        let id = fetches.0;
        fetches.1.insert(id, bytes);
        Ok(Fetch(id))
    }

    fn fetched(&self, fetch: Fetch) -> Result<Vec<u8>> {
        Ok(self.fetches.lock().unwrap().1.remove(&fetch.0).expect("a copy is fetched once"))
    }

    fn forget(&self, fetch: Fetch) {
        self.fetches.lock().unwrap().1.remove(&fetch.0);
    }

    fn time(&self, groups: &[&[Launch]], repetitions: usize) -> Result<Vec<f64>> {
        let mut runs = Vec::new();
        for _ in 0..repetitions {
            let mut run = Vec::new();
            for group in groups {
                let start = std::time::Instant::now();
                group.iter().try_for_each(|l| self.launch(l))?;
                run.push(start.elapsed().as_secs_f64());
            }
            runs.push(run);
        }
        Ok(pleiad_runtime::cuda::profile::medians(&runs))
    }
}
