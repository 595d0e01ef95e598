//! Where results go: rewritten after every run, so that a run that is cut short leaves what it has measured.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::offload::write;

/// The files that results go to.
pub struct Outputs {
    json: Option<PathBuf>,
    markdown: Option<PathBuf>,
}

impl Outputs {
    /// Tables lie beside the figures where they are not given a place of their own.
    pub fn new(json: Option<&PathBuf>, markdown: Option<&PathBuf>) -> Self {
        let beside = || json.map(|json| json.with_extension("md"));
        Self { json: json.cloned(), markdown: markdown.cloned().or_else(beside) }
    }

    /// Writes tables and figures.
    pub fn write(&self, markdown: &str, json: &Value) -> Result<()> {
        let put = |path: &PathBuf, text: &str| write(path, text).with_context(|| format!("{} cannot be written", path.display()));
        if let Some(path) = &self.markdown {
            put(path, markdown)?;
        }
        if let Some(path) = &self.json {
            put(path, &serde_json::to_string_pretty(json)?)?;
        }
        Ok(())
    }
}
