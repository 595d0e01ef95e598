//! What the GPU runs: WGSL kernels, their variants and bindings; CUDA kernels in [`cuda`].
//!
//! A kernel is a file of `wgsl/`; [`source`] preprocesses it with [`Defines`], [`reflect`] tells what to bind, by
//! name. [`KERNELS`] lists the kernels and their defines, [`params`] has their uniform structs, [`shape`] chooses
//! workgroups and tiles and says how many workgroups to dispatch.
#![warn(missing_docs)]

pub mod cuda;
mod files;
mod kernels;
pub mod params;
mod preprocess;
mod reflect;
pub mod shape;

use std::collections::BTreeMap;

use thiserror::Error;

pub use kernels::{Define, KERNELS, KernelInfo, Tier, kernel};
pub use reflect::{Access, Binding, Interface, reflect};

/// What is wrong with a kernel or with what was asked of it: a mistake in this program, not in its input.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ShaderError {
    /// No such kernel.
    #[error("there is no kernel `{kernel}`")]
    UnknownKernel {
        /// The name.
        kernel: String,
    },
    /// A define that the kernel does not know, or a value it cannot have.
    #[error("kernel `{kernel}` has no define {name}={value}")]
    UnknownDefine {
        /// The kernel.
        kernel: String,
        /// The define.
        name: String,
        /// Its value.
        value: String,
    },
    /// A name that is used but not defined.
    #[error("{file}:{line}: `{name}` is not defined")]
    MissingDefine {
        /// The file.
        file: String,
        /// The line, from 1.
        line: usize,
        /// The name.
        name: String,
    },
    /// A directive that makes no sense.
    #[error("{file}:{line}: {message}")]
    Directive {
        /// The file.
        file: String,
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        message: String,
    },
    /// An argument of a kernel that is missing, of another size, or unknown.
    #[error("kernel `{kernel}`: argument `{name}` is missing or wrong")]
    Argument {
        /// The kernel.
        kernel: String,
        /// The argument.
        name: String,
    },
    /// WGSL that naga refuses.
    #[error("{message}")]
    Wgsl {
        /// Naga's message.
        message: String,
    },
}

/// Values of a kernel's defines by name, in the order of the names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Defines(BTreeMap<String, String>);

impl Defines {
    /// No defines.
    pub fn new() -> Self {
        Self::default()
    }

    /// With `name` defined as `value`.
    #[must_use]
    pub fn set(mut self, name: &str, value: impl ToString) -> Self {
        self.0.insert(name.to_owned(), value.to_string());
        self
    }

    /// With the flag `name`.
    #[must_use]
    pub fn flag(self, name: &str) -> Self {
        self.set(name, 1)
    }

    /// With the flag `name` if `on`.
    #[must_use]
    pub fn flag_if(self, name: &str, on: bool) -> Self {
        if on { self.flag(name) } else { self }
    }

    /// With all of `other`.
    #[must_use]
    pub fn with(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// The value of `name`.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(n, v)| (n.as_str(), v.as_str()))
    }
}

/// Whose WGSL: the header differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// Naga (native wgpu), which knows subgroups without `enable subgroups;` and refuses that line.
    Naga,
    /// Browsers.
    Browser,
}

/// The WGSL of `kernel` with `defines`. Other names follow from them: what a format is, the type of `x`.
pub fn source(kernel: &str, defines: &Defines, dialect: Dialect) -> Result<String, ShaderError> {
    let info = kernels::kernel(kernel).ok_or_else(|| ShaderError::UnknownKernel { kernel: kernel.to_owned() })?;
    info.check(defines)?;
    let names = kernels::derive(defines);
    let find = |path: &str| files::FILES.iter().find(|(p, _)| *p == path).map(|(_, text)| *text);
    let body = preprocess::Preprocessor::run(&find, &format!("{kernel}.wgsl"), &names)?;
    let header = match dialect {
        Dialect::Browser if defines.get("SUBGROUP").is_some() => "enable subgroups;\nrequires subgroup_id;\n",
        _ => "",
    };
    Ok(format!("{header}{body}"))
}
