//! The models: random weights, made once and kept.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use pleiad_models::synth::{Shape, hugging_face};

use super::{CudaArgs, Form};
use crate::{
    program::{self, Stopped, parts},
    stats::bytes,
};

/// Bytes of the disk that stay free.
const SPARE: u64 = 1 << 30;

/// A model that is measured.
pub struct Model {
    /// Whose dimensions.
    pub shape: Shape,
    /// How its weights are stored.
    pub form: Form,
    /// The file or directory.
    pub path: PathBuf,
    /// How many of its layers.
    layers: Option<usize>,
    /// Bytes of its weights, once they are known.
    pub bytes: Option<u64>,
}

impl Model {
    /// The model of `shape` in `form`.
    pub fn new(args: &CudaArgs, shape: Shape, form: Form) -> Self {
        let layers = args.layers.map(|n| n.min(shape.config().num_layers));
        let part = layers.map_or_else(String::new, |n| format!("-{n}-layers"));
        let end = if form == Form::Fp8 { "" } else { ".gguf" };
        let path = args.folder.join(format!("{}-{}{part}{end}", shape.name(), form.quant()));
        Self { shape, form, path, layers, bytes: None }
    }

    /// Shape and format.
    pub fn name(&self) -> String {
        let part = self.layers.map_or_else(String::new, |n| format!(", {n} layers"));
        format!("{} {}{part}", self.shape.name(), self.form.quant())
    }

    /// The command that makes it.
    pub fn make(&self, pleiad: &str) -> Vec<String> {
        let mut command = parts([pleiad, "synth", "--shape", self.shape.name(), "--quant", self.form.quant()]);
        command.extend(self.layers.iter().flat_map(|n| parts(["--layers", &n.to_string()])));
        command.push(self.path.display().to_string());
        command
    }

    /// The file that holds the weights.
    fn weights(&self) -> PathBuf {
        if self.form == Form::Fp8 { self.path.join(hugging_face::WEIGHTS) } else { self.path.clone() }
    }

    /// Whether it is there, whole, with so many bytes of weights.
    fn is_there(&self, size: u64) -> bool {
        let whole = fs::metadata(self.weights()).is_ok_and(|m| m.len() == size);
        whole && (self.form != Form::Fp8 || self.path.join("config.json").exists())
    }

    /// Makes it, unless it is there.
    pub fn ensure(&mut self, pleiad: &str, limit: Option<Instant>) -> Result<(), Stopped> {
        let make = self.make(pleiad);
        let ask = [make.clone(), parts(["--size"])].concat();
        let said = program::run(&ask, limit)?;
        let size: Option<u64> = String::from_utf8_lossy(&said).trim().parse().ok();
        let size = size.ok_or_else(|| Stopped::Failed(format!("`{}` names no number of bytes", ask.join(" "))))?;
        self.bytes = Some(size);
        if self.is_there(size) {
            return Ok(());
        }
        let folder = self.path.parent().unwrap_or(Path::new("."));
        if let Some(free) = free(folder).filter(|&free| free < size.saturating_add(SPARE)) {
            let [size, free] = [size, free].map(|n| bytes(Some(n as f64)));
            return Err(Stopped::Failed(format!("it takes {size}, and {} has {free} free; see --discard", folder.display())));
        }
        program::run(&make, limit).map(drop)
    }

    /// Removes it.
    pub fn remove(&self) {
        let removed = if self.form == Form::Fp8 { fs::remove_dir_all(&self.path) } else { fs::remove_file(&self.path) };
        if let Err(e) = removed {
            eprintln!("{} cannot be removed: {e}", self.path.display());
        }
    }
}

/// Bytes that are free where `folder` is, if the system tells.
fn free(folder: &Path) -> Option<u64> {
    let said = program::run(&parts(["df", "-Pk", &folder.display().to_string()]), None).ok()?;
    available(&String::from_utf8_lossy(&said))
}

/// What `df -Pk` says is available, in bytes.
fn available(said: &str) -> Option<u64> {
    said.lines().nth(1)?.split_whitespace().nth(3)?.parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_space_as_df_tells_it() {
        let said = "Filesystem 1024-blocks Used Available Capacity Mounted on\n/dev/x 100 40 60 40% /\n";
        assert_eq!(available(said), Some(60 * 1024));
        assert_eq!(available("nonsense"), None);
    }
}
