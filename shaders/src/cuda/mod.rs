//! What NVIDIA GPUs run: CUDA C kernels, their variants and arguments.
//!
//! A kernel is a file of `cuda/`, compiled by NVRTC without any header: [`source`] puts its parts together and declares the
//! structs of its arguments from the description in [`KERNELS`], so that the kernel's text and whoever launches it read the same.
//! A kernel has one argument, a struct: [`Frame`], a pointer for each binding, and one of [`crate::params`]; [`arguments`] makes
//! its bytes. [`shape`] says how threads share the work.

mod files;
mod kernels;
pub mod shape;

use std::fmt::Write;

use bytemuck::{Pod, Zeroable};

use crate::{Defines, ShaderError, kernels::derive};

pub use kernels::{Element, KERNELS, KernelInfo, Pointer, kernel};

/// What the arguments of every kernel begin with.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Frame {
    /// Address of the step's state and page table.
    pub step: u64,
    /// Entries of the page table.
    pub pages: u32,
    /// Positions of the rotary table.
    pub positions: u32,
}

/// The text of `kernel` with `defines`, whole: what NVRTC compiles. Its entry is [`entry`].
pub fn source(kernel: &str, defines: &Defines) -> Result<String, ShaderError> {
    let info = kernels::kernel(kernel).ok_or_else(|| ShaderError::UnknownKernel { kernel: kernel.to_owned() })?;
    info.check(defines)?;
    let mut text = String::new();
    let mut define = |name: &str, value: &str| {
        let _ = writeln!(text, "#define {name} {value}");
    };
    defines.iter().for_each(|(name, value)| define(name, value));
    if derive(defines).contains_key("QUANTISED") {
        define("QUANTISED", "1");
    }
    if defines.get("THREADS").is_none() {
        define("THREADS", &info.threads.to_string());
    }
    define("BLOCKS", &info.blocks(defines).to_string());
    let bounds = "__launch_bounds__(THREADS, BLOCKS)";
    define("KERNEL(name)", &format!("extern \"C\" __global__ void {bounds} pleiad_##name(const __grid_constant__ Args a)"));
    let mut included = Vec::new();
    include(&mut text, "shared/base.cuh", &mut included)?;
    declare(&mut text, info);
    include(&mut text, &format!("{kernel}.cu"), &mut included)?;
    Ok(text)
}

/// The name of a kernel's entry in its text.
pub fn entry(kernel: &str) -> String {
    format!("pleiad_{kernel}")
}

/// Appends a file, and before it, once each, what it includes.
fn include(text: &mut String, path: &str, included: &mut Vec<String>) -> Result<(), ShaderError> {
    if included.iter().any(|p| p == path) {
        return Ok(());
    }
    included.push(path.to_owned());
    let find = files::FILES.iter().find(|(p, _)| *p == path);
    let (_, file) = find.ok_or_else(|| ShaderError::UnknownKernel { kernel: path.to_owned() })?;
    for line in file.lines() {
        match line.strip_prefix("#include \"").and_then(|l| l.strip_suffix('"')) {
            Some(other) => include(text, other, included)?,
            None => {
                text.push_str(line);
                text.push('\n');
            }
        }
    }
    Ok(())
}

/// Declares the structs of a kernel's arguments.
fn declare(text: &mut String, info: &KernelInfo) {
    text.push_str("struct Params {\n");
    for (name, kind, _) in info.params {
        let (kind, count) = match kind.strip_prefix('[').and_then(|k| k.strip_suffix(']')).and_then(|k| k.split_once("; ")) {
            Some((kind, count)) => (kind, format!("[{count}]")),
            None => (*kind, String::new()),
        };
        let kind = if kind == "f32" { "float" } else { "u32" };
        let _ = writeln!(text, "    {kind} {name}{count};");
    }
    text.push_str("};\nstruct Args {\n    Frame frame;\n");
    for pointer in info.pointers {
        let element = if pointer.element == Element::F32 { "float" } else { "u32" };
        let constant = if pointer.written { "" } else { "const " };
        let _ = writeln!(text, "    {constant}{element}* {};", pointer.name);
    }
    text.push_str("    Params p;\n};\n");
}

/// The bytes of a kernel's arguments.
///
/// # Errors
///
/// Params of another size, a binding that the variant needs and `bind` lacks, or one that it does not know.
pub fn arguments(
    kernel: &KernelInfo,
    defines: &Defines,
    frame: Frame,
    bind: &[(&str, u64)],
    params: &[u8],
) -> Result<Vec<u8>, ShaderError> {
    let wrong = |name: &str| ShaderError::Argument { kernel: kernel.name.to_owned(), name: name.to_owned() };
    let size: usize = kernel.params.iter().map(|(_, kind, _)| words(kind) * 4).sum();
    if params.len() != size {
        return Err(wrong("p"));
    }
    if let Some((name, _)) = bind.iter().find(|(name, _)| !kernel.pointers.iter().any(|p| p.name == *name)) {
        return Err(wrong(name));
    }
    let mut bytes = bytemuck::bytes_of(&frame).to_vec();
    for pointer in kernel.pointers {
        let needed = pointer.only.is_none_or(|flag| defines.get(flag).is_some());
        let address = bind.iter().find(|(name, _)| *name == pointer.name).map(|(_, address)| *address);
        if needed && address.is_none() {
            return Err(wrong(pointer.name));
        }
        bytes.extend_from_slice(&address.unwrap_or(0).to_ne_bytes());
    }
    bytes.extend_from_slice(params);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    Ok(bytes)
}

/// Words of a field of that type.
fn words(kind: &str) -> usize {
    let count = kind.strip_prefix('[').and_then(|k| k.strip_suffix(']')).and_then(|k| k.split_once("; "));
    count.and_then(|(_, n)| n.parse().ok()).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

    use super::*;
    use crate::params;

    #[test]
    fn arguments_lie_where_the_struct_has_them() {
        let info = kernel("norm").unwrap();
        let p = params::Norm { width: 7, eps: 0.5, tokens: 1, pad: 0 };
        let frame = Frame { step: 0x1122, pages: 3, positions: 4 };
        let defines = Defines::new().flag("OUT_F32");
        let bind = [("x", 1), ("weight", 2), ("out", 3)];
        let bytes = arguments(info, &defines, frame, &bind, bytemuck::bytes_of(&p)).unwrap();
        let words: Vec<u64> = bytes.chunks_exact(8).map(|w| u64::from_ne_bytes(w.try_into().unwrap())).collect();
        assert_eq!(words, [0x1122, 3 | 4 << 32, 1, 2, 3, 0, 7 | u64::from(0.5f32.to_bits()) << 32, 1]);
        let q8 = defines.flag("OUT_Q8");
        let error = arguments(info, &q8, frame, &bind, bytemuck::bytes_of(&p)).unwrap_err();
        assert!(error.to_string().contains("q8"), "{error}");
        assert!(arguments(info, &q8, frame, &[("y", 1)], bytemuck::bytes_of(&p)).is_err());
        assert!(arguments(info, &q8, frame, &bind, &[0; 12]).is_err());
    }

    #[test]
    fn every_variant_has_a_text_of_its_own() {
        for info in KERNELS {
            let mut texts: Vec<String> = info.variants().iter().map(|d| source(info.name, d).unwrap()).collect();
            assert!(!texts.is_empty(), "{}", info.name);
            assert!(texts.iter().all(|t| !t.contains("#include") && t.contains(&format!("KERNEL({})", info.name))));
            let all = texts.len();
            texts.sort();
            texts.dedup();
            assert_eq!(texts.len(), all, "{}: variants twice", info.name);
        }
        assert!(source("nothing", &Defines::new()).is_err());
        assert!(source("norm", &Defines::new().flag("OUT_Q9")).is_err());
    }

    #[test]
    fn every_file_is_listed() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("cuda");
        let mut found = Vec::new();
        for folder in ["", "shared/"] {
            for entry in std::fs::read_dir(root.join(folder)).unwrap() {
                let name = entry.unwrap().file_name().into_string().unwrap();
                if name.ends_with(".cu") || name.ends_with(".cuh") {
                    found.push(format!("{folder}{name}"));
                }
            }
        }
        found.sort();
        let mut listed: Vec<String> = files::FILES.iter().map(|(path, _)| (*path).to_owned()).collect();
        listed.sort();
        assert_eq!(found, listed);
    }
}
