//! Writes every variant of every kernel in the dialect of browsers as JSON, for tests with a browser's own compiler, to the path
//! given (`target/browser-shaders.json` without one):
//! `[{"name", "entry", "features", "language", "bindings": [{"binding", "type", "size"}], "source"}]`.

use std::{env, error::Error, fs, path::PathBuf};

use pleiad_shaders::{Access, Dialect, KERNELS, Tier, reflect, source};
use serde_json::json;

fn main() -> Result<(), Box<dyn Error>> {
    let path = env::args_os().nth(1).map_or_else(|| PathBuf::from("target/browser-shaders.json"), PathBuf::from);
    let mut all = Vec::new();
    for kernel in KERNELS {
        for defines in kernel.variants() {
            let interface = reflect(&source(kernel.name, &defines, Dialect::Naga)?)?;
            let bindings: Vec<_> = interface
                .bindings
                .iter()
                .map(|b| {
                    let access = match b.access {
                        Access::Uniform => "uniform",
                        Access::Read => "read-only-storage",
                        Access::ReadWrite => "storage",
                    };
                    json!({ "binding": b.index, "type": access, "size": b.min_size })
                })
                .collect();
            let words: Vec<_> = defines.iter().map(|(name, value)| format!(" {name}={value}")).collect();
            let (features, language): (&[&str], &[&str]) = match kernel.tier(&defines) {
                Tier::Plain => (&[], &[]),
                Tier::Subgroup => (&["subgroups"], &["subgroup_id"]),
            };
            all.push(json!({
                "name": format!("{}{}", kernel.name, words.concat()),
                "entry": "main",
                "features": features,
                "language": language,
                "bindings": bindings,
                "source": source(kernel.name, &defines, Dialect::Browser)?,
            }));
        }
    }
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    fs::write(&path, serde_json::to_vec(&all)?)?;
    eprintln!("{} variants in {}", all.len(), path.display());
    Ok(())
}
