//! Tells the program which versions of wgpu and naga it was built with.

use std::{env, error::Error, fs, path::Path};

fn main() -> Result<(), Box<dyn Error>> {
    let path = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("../Cargo.lock");
    println!("cargo::rerun-if-changed={}", path.display());
    let lock = fs::read_to_string(&path).unwrap_or_default();
    for name in ["wgpu", "naga"] {
        // [[package]], name = "wgpu", version = "30.0.1"
        let entry = lock.split("[[package]]").find(|p| p.lines().any(|l| l.trim() == format!("name = \"{name}\"")));
        let line = entry.and_then(|p| p.lines().find_map(|l| l.trim().strip_prefix("version = ")));
        let version = line.map_or("unknown", |v| v.trim_matches('"'));
        println!("cargo::rustc-env=PLEIAD_{}={version}", name.to_uppercase());
    }
    Ok(())
}
