//! Kernels compiled by NVRTC, and kept on the disk.

use std::{
    ffi::{CString, c_char, c_int},
    hash::{DefaultHasher, Hash, Hasher},
    path::PathBuf,
    ptr::{null, null_mut},
};

use cudarc::nvrtc::sys::{self, nvrtcResult};

use crate::error::{Error, Result};

/// Whether the compiler is there.
pub(super) fn find() -> Result<()> {
    // SAFETY: this only looks for the library.
    if unsafe { sys::is_culib_present() } {
        return Ok(());
    }
    let what = "CUDA's run-time compiler (libnvrtc) was not found; install CUDA 12 or newer (or the PyPI package \
                nvidia-cuda-nvrtc-cu12, with its folder in LD_LIBRARY_PATH)";
    Err(Error::Gpu(what.into()))
}

fn version() -> (c_int, c_int) {
    let (mut major, mut minor) = (0, 0);
    // SAFETY: the compiler was found before a device was opened; two numbers are written.
    let _ = unsafe { sys::nvrtcVersion(&raw mut major, &raw mut minor) };
    (major, minor)
}

/// Where a kernel's code is kept: named by all that it depends on.
fn path(text: &str, architecture: &str) -> Option<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("LOCALAPPDATA").map(PathBuf::from))
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")))?;
    let mut hasher = DefaultHasher::new();
    (text, version(), env!("CARGO_PKG_VERSION")).hash(&mut hasher);
    Some(cache.join("pleiad").join("cuda").join(format!("{architecture}-{:016x}.cubin", hasher.finish())))
}

fn sum(image: &[u8]) -> [u8; 8] {
    let mut hasher = DefaultHasher::new();
    image.hash(&mut hasher);
    hasher.finish().to_le_bytes()
}

/// The code that was kept, if it is whole: behind it lies its hash.
pub(super) fn kept(text: &str, architecture: &str) -> Option<Vec<u8>> {
    let mut image = std::fs::read(path(text, architecture)?).ok()?;
    let tail = image.split_off(image.len().checked_sub(8)?);
    (tail == sum(&image) && !image.is_empty()).then_some(image)
}

/// Keeps code; where that fails it is compiled again next time.
fn keep(text: &str, architecture: &str, image: &[u8]) {
    let Some(path) = path(text, architecture) else { return };
    let part = path.with_extension(format!("{}.part", std::process::id()));
    let write = || {
        path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
        std::fs::write(&part, [image, &sum(image)].concat())?;
        std::fs::rename(&part, &path)
    };
    if write().is_err() {
        let _ = std::fs::remove_file(&part);
    }
}

/// A program that is destroyed when it is dropped.
struct Program(sys::nvrtcProgram);

impl Drop for Program {
    fn drop(&mut self) {
        // SAFETY: it was created, and is destroyed once.
        let _ = unsafe { sys::nvrtcDestroyProgram(&raw mut self.0) };
    }
}

impl Program {
    fn log(&self) -> String {
        let mut size = 0;
        // SAFETY: the log has as many bytes as the compiler says.
        unsafe {
            if sys::nvrtcGetProgramLogSize(self.0, &raw mut size) != nvrtcResult::NVRTC_SUCCESS {
                return String::new();
            }
            let mut log = vec![0u8; size.max(1)];
            let _ = sys::nvrtcGetProgramLog(self.0, log.as_mut_ptr().cast());
            String::from_utf8_lossy(&log).trim_end_matches('\0').trim().to_owned()
        }
    }
}

/// Compiles a kernel's text. `label` names it in errors.
///
/// # Errors
///
/// What the compiler says: an architecture that it does not know yet, for instance.
pub(super) fn compile(label: &str, text: &str, architecture: &str) -> Result<Vec<u8>> {
    let failed = |what: &str| Error::Shader(format!("{label} for {architecture}: {what}"));
    let source = CString::new(text).map_err(|e| failed(&e.to_string()))?;
    let options = [format!("--gpu-architecture={architecture}"), "--std=c++17".into()];
    let options = options.map(|o| CString::new(o).unwrap_or_default());
    let options = options.each_ref().map(|o| o.as_ptr());
    let mut program = Program(null_mut());
    // SAFETY: the strings outlive the calls; the code has as many bytes as the compiler says.
    unsafe {
        let made = sys::nvrtcCreateProgram(&raw mut program.0, source.as_ptr(), c"kernel.cu".as_ptr(), 0, null(), null());
        if made != nvrtcResult::NVRTC_SUCCESS {
            return Err(failed(&format!("{made:?}")));
        }
        if sys::nvrtcCompileProgram(program.0, options.len() as c_int, options.as_ptr()) != nvrtcResult::NVRTC_SUCCESS {
            return Err(failed(&program.log()));
        }
        let mut size = 0;
        let sized = sys::nvrtcGetCUBINSize(program.0, &raw mut size);
        let mut image = vec![0u8; size];
        if sized != nvrtcResult::NVRTC_SUCCESS
            || sys::nvrtcGetCUBIN(program.0, image.as_mut_ptr().cast::<c_char>()) != nvrtcResult::NVRTC_SUCCESS
        {
            return Err(failed("the compiler gave no code"));
        }
        keep(text, architecture, &image);
        Ok(image)
    }
}
