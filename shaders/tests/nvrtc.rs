//! Every variant of every CUDA kernel compiles for every architecture, and the hot ones spill no register.
//!
//! NVRTC needs no GPU. It is taken from the folder that `PLEIAD_NVRTC` names, or from `target/nvrtc`, where `cargo xtask test` puts
//! it; without it the test says that it was skipped.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a failure is a failed test; figures and skips are printed")]

use std::{
    ffi::{CStr, CString, c_char, c_int, c_void},
    path::{Path, PathBuf},
    ptr::null,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use libloading::{Library, Symbol};
use pleiad_shaders::{
    Defines,
    cuda::{KERNELS, KernelInfo, source},
};

/// Ampere, Ada, Hopper and both Blackwells.
const ARCHITECTURES: [&str; 5] = ["sm_90a", "sm_80", "sm_89", "sm_100a", "sm_120"];

type Program = *mut c_void;

/// NVRTC, loaded.
struct Nvrtc {
    library: Library,
    /// What NVRTC looks for by its name.
    _builtins: Option<Library>,
}

impl Nvrtc {
    fn open() -> Option<Self> {
        let cache = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/nvrtc");
        let folder = std::env::var_os("PLEIAD_NVRTC").map_or(cache, PathBuf::from);
        let find = |prefix: &str| {
            let files = std::fs::read_dir(&folder).ok()?.flatten().map(|e| e.path());
            let mut found: Vec<PathBuf> =
                files.filter(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with(prefix))).collect();
            found.sort();
            found.into_iter().next()
        };
        // SAFETY: NVIDIA's libraries do nothing when they are loaded but set themselves up.
        let open = |path: PathBuf| unsafe { Library::new(path) }.ok();
        let builtins = find("libnvrtc-builtins.so").and_then(open);
        Some(Self { library: find("libnvrtc.so").and_then(open)?, _builtins: builtins })
    }

    fn get<T>(&self, name: &CStr) -> Symbol<'_, T> {
        // SAFETY: every caller names the type that nvrtc.h gives the symbol.
        unsafe { self.library.get(name.to_bytes()) }.unwrap()
    }

    /// Compiles a text for an architecture: whether it could, and the log.
    fn compile(&self, text: &str, architecture: &str) -> (bool, String) {
        let create: Symbol<
            unsafe extern "C" fn(
                *mut Program,
                *const c_char,
                *const c_char,
                c_int,
                *const *const c_char,
                *const *const c_char,
            ) -> c_int,
        > = self.get(c"nvrtcCreateProgram");
        let compile: Symbol<unsafe extern "C" fn(Program, c_int, *const *const c_char) -> c_int> =
            self.get(c"nvrtcCompileProgram");
        let log_size: Symbol<unsafe extern "C" fn(Program, *mut usize) -> c_int> = self.get(c"nvrtcGetProgramLogSize");
        let log: Symbol<unsafe extern "C" fn(Program, *mut u8) -> c_int> = self.get(c"nvrtcGetProgramLog");
        let destroy: Symbol<unsafe extern "C" fn(*mut Program) -> c_int> = self.get(c"nvrtcDestroyProgram");
        let text = CString::new(text).unwrap();
        let options = [format!("--gpu-architecture={architecture}"), "--std=c++17".into(), "--ptxas-options=-v".into()]
            .map(|o| CString::new(o).unwrap());
        let options: Vec<*const c_char> = options.iter().map(|o| o.as_ptr()).collect();
        let mut program = std::ptr::null_mut();
        // SAFETY: the strings outlive the calls, and the log has as many bytes as NVRTC says.
        unsafe {
            assert_eq!(create(&raw mut program, text.as_ptr(), c"kernel.cu".as_ptr(), 0, null(), null()), 0);
            let done = compile(program, options.len() as c_int, options.as_ptr()) == 0;
            let mut size = 0;
            assert_eq!(log_size(program, &raw mut size), 0);
            let mut bytes = vec![0u8; size.max(1)];
            assert_eq!(log(program, bytes.as_mut_ptr()), 0);
            destroy(&raw mut program);
            (done, String::from_utf8_lossy(&bytes).trim_end_matches('\0').to_owned())
        }
    }
}

/// The number before `unit`.
fn number(log: &str, unit: &str) -> Option<u32> {
    log.split(unit).next()?.rsplit(|c: char| !c.is_ascii_digit()).find(|w| !w.is_empty())?.parse().ok()
}

#[test]
fn every_variant_compiles_and_the_hot_ones_spill_nothing() {
    let Some(nvrtc) = Nvrtc::open() else {
        println!("SKIPPED every_variant_compiles_and_the_hot_ones_spill_nothing: no NVRTC (PLEIAD_NVRTC, or `cargo xtask test`)");
        return;
    };
    let wanted = std::env::var("PLEIAD_CUDA_KERNEL").ok();
    let kernels = KERNELS.iter().filter(|k| wanted.as_ref().is_none_or(|w| w == k.name));
    let cases: Vec<(&KernelInfo, Defines, &str)> = kernels
        .flat_map(|k| k.variants().into_iter().map(move |d| (k, d)))
        .flat_map(|(k, d)| ARCHITECTURES.into_iter().map(move |a| (k, d.clone(), a)))
        .collect();
    let (next, wrong) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let registers = Mutex::new((0, String::new()));
    let work = || {
        while let Some((kernel, defines, architecture)) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
            let (done, log) = nvrtc.compile(&source(kernel.name, defines).unwrap(), architecture);
            let case = format!("{} {:?} for {architecture}", kernel.name, defines.iter().collect::<Vec<_>>());
            let spills = number(&log, " bytes spill stores");
            if !done || spills.is_none() {
                wrong.lock().unwrap().push(format!("{case}: {log}"));
            } else if kernel.is_hot(defines) && spills != Some(0) {
                wrong.lock().unwrap().push(format!("{case} spills: {log}"));
            }
            let used = number(&log, " registers").unwrap_or(0);
            let mut most = registers.lock().unwrap();
            if kernel.is_hot(defines) && used > most.0 {
                *most = (used, case);
            }
        }
    };
    std::thread::scope(|scope| {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        (0..threads).for_each(|_| drop(scope.spawn(work)));
    });
    let most = registers.into_inner().unwrap();
    println!("{} programs; most registers of a hot kernel: {} ({})", cases.len(), most.0, most.1);
    let wrong = wrong.into_inner().unwrap();
    assert!(
        wrong.is_empty(),
        "{} of {} programs are wrong, among them:\n{}",
        wrong.len(),
        cases.len(),
        wrong[..wrong.len().min(5)].join("\n")
    );
}
